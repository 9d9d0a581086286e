"""One engine's halves run on samples in a process of its own, on one thread: what calibration learns from.

    python -m securead.bench.trial ENGINE SECONDS

Every finished measurement is one line of JSON. It ends after SECONDS, but not before it has run two programs in every
role; what an engine does not carry is left out. The halves are those of `securead.bench.halves`, in one process, so
that an engine is loaded once; an engine of several parties runs as `parties_trial` has it.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from securead import codec, files
from securead.bench import parties_trial
from securead.bench.halves import PLAN_FILE, BlindHalf, Half, OwnerHalf
from securead.bench.samples import samples
from securead.errors import FixInputError, FixProgramError, SecureadError
from securead.models.bundle import PUBLIC_FILE, Bundle, PublicModel, Threshold
from securead.planner.fit import Observation, amounts_of
from securead.privacy.statement import PrivacyStatement
from securead.program.program import Program
from securead.protocols import registry
from securead.protocols.choice import carriers
from securead.protocols.engine import EngineSpec, Plan, PlanModuleWithWork

_LEAST = 2  # programs in every role, however long they take
_REPEATS, _ENOUGH_SECONDS = 3, 0.25
_MOST_MASKS = 64


def trial(engine: str, seconds: float) -> Iterator[Observation]:
    """Measurements of an engine of one service, those that tell most first."""
    module, spec, end = registry.plan_module(engine), registry.spec(engine), time.monotonic() + seconds
    if not isinstance(module, PlanModuleWithWork):
        return
    programs = 0
    for sample in samples():
        if programs >= _LEAST and time.monotonic() > end:
            return
        found = False
        for role in spec.roles:
            program = sample.make()
            if spec not in carriers(program.public):
                break
            try:
                plan = registry.plan_module(engine).make_plan(program.public, role)
            except FixProgramError:
                continue
            with tempfile.TemporaryDirectory(prefix="securead-trial-") as folder:
                halves = _Halves(spec, plan, program, Path(folder))
                for rows in _sizes(spec, plan):
                    work = module.work(plan, program.public, rows)
                    spent = halves.request(rows)
                    yield Observation(engine, f"{sample.name}, {role}, {rows}", amounts_of(work), spent)
                    found = True
                    if sum(spent.values()) > _ENOUGH_SECONDS:
                        break
        programs += found


def _sizes(spec: EngineSpec, plan: Plan) -> list[int]:
    """Rows of requests to measure: one size says all where slots that are not used cost as much."""
    full = plan.rows_per_chunk
    return [full] if spec.whole_chunks else sorted({1, min(full, 8), min(full, 64)})


class _Halves:
    """Both halves of one plan."""

    def __init__(self, spec: EngineSpec, plan: Plan, program: Program, folder: Path) -> None:
        threshold, statement = Threshold(1.0, "of a calibration"), PrivacyStatement(private=False)
        public = PublicModel("trial", "trial", program.public, threshold, statement, "2026-01-01T00:00:00+00:00", "0")
        Bundle(public, program.secret).save(folder / "whole")
        files.write_json(folder / "public" / PUBLIC_FILE, codec.to_plain(public))
        for each in ("whole", "public"):
            files.write_json(folder / each / PLAN_FILE, codec.to_plain(plan))
        self._program = program
        self._owner = OwnerHalf(spec.package, folder / "public")
        self._blind = BlindHalf(spec.package, folder / "whole")
        if published := self._ask(self._blind, "setup")[1]:
            self._ask(self._owner, "published", published)
        key = self._ask(self._owner, "keys")[1]
        if plan.role == "split":
            self._ask(self._owner, "take", key)
        if plan.evaluation_key_bytes:
            self._ask(self._blind, "key", key)
        self._offline = 0

    def request(self, rows: int) -> dict[str, float]:
        """Processor seconds of each phase of a request, the median of a few after one that warms up."""
        encoder, made = self._program.public.encoder, list[dict[str, float]]()
        X = np.random.default_rng(1).normal(size=(rows, encoder.width)).clip(-encoder.limit, encoder.limit)
        records = X.tobytes(), [rows, encoder.width]
        request = self._ask(self._owner, "encrypt", records[0], shape=records[1])[1]
        masks, answer = self._masks(request, rows)
        self._ask(self._owner, "decrypt", answer, rows=rows)
        while len(made) < _REPEATS and sum(sum(each.values()) for each in made) < _ENOUGH_SECONDS:
            client, request = self._ask(self._owner, "encrypt", records[0], shape=records[1])
            offline, _ = self._ask(self._blind, "refill", times=masks)
            server, answer = self._ask(self._blind, "evaluate", request, rows=rows)
            holder, _ = self._ask(self._owner, "decrypt", answer, rows=rows)
            made.append({"client": client, "offline": offline, "server": server, "holder": holder})
        return {phase: float(np.median([each[phase] for each in made])) for phase in made[0]}

    def _masks(self, request: bytes, rows: int) -> tuple[int, bytes]:
        """How many times an answer has to be refilled for, 0 where an engine makes nothing ahead; and an answer."""
        if not self._blind.answer({"do": "refill", "times": 1}, b"")[0].get("made"):
            return 0, self._ask(self._blind, "evaluate", request, rows=rows)[1]
        times = 1
        while True:
            self._ask(self._blind, "refill", times=times)
            before = self._held()
            answer = self._ask(self._blind, "evaluate", request, rows=rows)[1]
            after = self._held()
            if after or times > _MOST_MASKS:
                item = int(self._blind.answer({"do": "refill", "times": 1}, b"")[0]["made"])
                return (before - after) // item, answer
            times *= 2

    def _held(self) -> int:
        return int(self._blind.answer({"do": "held"}, b"")[0]["held"])

    def _ask(self, half: Half, do: str, payload: bytes = b"", **fields: object) -> tuple[float, bytes]:
        """An operation that has to work: its processor seconds, and what it returned."""
        told, content = half.answer({"do": do, **fields}, payload)
        if "refused" in told:
            raise FixInputError(f"a half of an engine refused {do!r} on a sample: {told['refused']}")
        return float(told["cpu"]), content


def main() -> None:
    """The command line."""
    engine, seconds = sys.argv[1], float(sys.argv[2])
    try:
        measure = trial if registry.spec(engine).parties == 1 else parties_trial.trial
        for observation in measure(engine, seconds):
            print(json.dumps(dataclasses.asdict(observation)), flush=True)
    except SecureadError as error:
        print(f"{engine}: {error}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
