"""Training runs of which every message is counted: all sites in this process, or processes of their own over Flower."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from securead import certificates
from securead.bench import fitting
from securead.bench.datasets import NamedData
from securead.bench.processes import own_peak, usage_of
from securead.bench.records import Case
from securead.data.schema import Schema
from securead.errors import InstallExtraError, RetryLaterError, SecureadError
from securead.federated.checkpoint import Checkpoint
from securead.federated.coordinator import Coordinator
from securead.federated.embedded import finish
from securead.federated.events import Event, RoundDone
from securead.federated.federation import Terms
from securead.federated.messages import Answer, Ask, from_bytes, to_bytes
from securead.federated.participant import Participant, Site
from securead.federated.recipe import parse_recipe
from securead.federated.roles import terms_of
from securead.models.estimator import AnomalyDetector
from securead.privacy.site import Kept
from securead.protocols.masking.identity import Identity, Known

COORDINATOR = "coordinator"
_END_SECONDS = 60.0
_SOME_SECONDS = 0.0123456789012345
Peaks = dict[str, int]


def run_embedded(terms: Terms, sites: Sequence[Site], listener: Callable[[Event], None]) -> AnomalyDetector:
    """Train among sites in this process, with every message as the bytes that it would be elsewhere."""
    names = tuple(site.name for site in sites)
    identities = {name: Identity.generate(name) for name in names} if terms.federation.hidden else {}
    roster = Known({name: each.credential for name, each in identities.items()}) if identities else None
    errors: list[SecureadError] = []
    wire = _Wire(
        {
            site.name: Participant(
                site,
                terms,
                Kept(),
                identity=identities.get(site.name),
                roster=roster,
                trouble=errors.append,
            )
            for site in sites
        },
        errors,
    )
    memory = Checkpoint(None, terms.fingerprint)
    coordinator = Coordinator(terms, wire, memory, roster=roster, listener=listener)
    state = coordinator.run()
    coordinator.finish(state)
    finish(terms, state, memory)
    return terms.detector


class _Wire:
    """A transport of bytes within a process. What a site refuses is raised where it was asked.

    A report's seconds are counted as so many digits whatever they are, so that two runs agree in bytes.
    """

    def __init__(self, participants: Mapping[str, Participant], errors: list[SecureadError]) -> None:
        self._participants, self._errors = participants, errors
        self._counted = dict.fromkeys(participants, (0, 0))

    def present(self) -> Collection[str]:
        return list(self._participants)

    def certified(self, address: str) -> str | None:
        return address

    def exchange(self, asks: Mapping[str, Ask], *, seconds: float, answered: Callable[[str, Answer], None]) -> None:
        for name, ask in asks.items():
            asked = to_bytes(ask)
            replied = self._participants[name].reply(asked)
            if self._errors:
                raise self._errors[0]
            answer = from_bytes(Answer, replied, where=name)
            sent, received = self._counted[name]
            self._counted[name] = sent + len(asked), received + len(to_bytes(_timeless(answer)))
            answered(name, answer)

    def traffic(self, address: str) -> tuple[int, int]:
        return self._counted[address]


def _timeless(answer: Answer) -> Answer:
    if answer.report is None:
        return answer
    return dataclasses.replace(answer, report=dataclasses.replace(answer.report, seconds=_SOME_SECONDS))


def run_flower(
    case: Case, data: NamedData, sites: Sequence[Site], folder: Path, listener: Callable[[Event], None]
) -> tuple[AnomalyDetector, Peaks]:
    """The same with each site a process, over Flower and mutual TLS on this machine; also what memory each held.

    Raises `InstallExtraError` without Flower.
    """
    installed = _flower()
    installed.require()
    from securead.federated.flower.coordinating import coordinate

    recipe = folder / "recipe.toml"
    recipe.write_text(recipe_of(case, data, sites), encoding="utf-8")
    terms = terms_of(parse_recipe(recipe.read_text(encoding="utf-8"), where=recipe.name))
    for site in sites:
        np.savez(folder / f"{site.name}.npz", X=site.X, columns=np.array(data.schema.names))
    certificates.issue(folder / "certs", (COORDINATOR, *(site.name for site in sites)))
    running: dict[str, subprocess.Popen[bytes]] = {}
    peaks: Peaks = {}

    def begin(address: str) -> None:
        for site in sites:
            running[site.name] = _site(folder, recipe, site.name, address)

    def heard(event: Event) -> None:
        if isinstance(event, RoundDone):
            peaks.update({name: usage_of(process.pid).peak_bytes for name, process in running.items()})
        listener(event)

    with _ended(running, folder):
        certs = folder / "certs" / COORDINATOR
        coordinate(terms, certs, folder / "run", listener=heard, listening=begin)
        peaks[COORDINATOR] = own_peak()
    return terms.detector, peaks


def _flower() -> Any:
    try:
        from securead.federated.flower import installed
    except ImportError as error:
        raise InstallExtraError(f"training over Flower needs {error.name}", remedy="See the extra [flower].") from error
    return installed


def _site(folder: Path, recipe: Path, name: str, address: str) -> subprocess.Popen[bytes]:
    own = ("--certs", folder / "certs" / name, "--folder", folder / f"{name}.training")
    arguments = ("site", recipe, "--data", folder / f"{name}.npz", *own, "--coordinator", address)
    with (folder / f"{name}.log").open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "securead", *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=log,
            env={"OMP_NUM_THREADS": "1", **os.environ},
        )


@contextlib.contextmanager
def _ended(running: Mapping[str, subprocess.Popen[bytes]], folder: Path) -> Iterator[None]:
    """Sites that end by themselves after the block, or are ended when it fails."""
    try:
        yield
        for name, process in running.items():
            if process.wait(_END_SECONDS):
                said = (folder / f"{name}.log").read_text(errors="replace").strip()[-800:]
                raise RetryLaterError(f"{name} failed: {said}")
    finally:
        for process in running.values():
            if process.poll() is None:
                process.kill()
                process.wait()


def recipe_of(case: Case, data: NamedData, sites: Sequence[Site]) -> str:
    """The case as the file that participants of a run between institutions agree on."""
    kind, parameters = fitting.parameters_of(case, data)
    plan = fitting.plan_of(case, data)
    sections = ['name = "benchmark"']
    sections += [f"[[sites]]\nname = {json.dumps(site.name)}" for site in sites]
    sections.append(_section("detector", {"type": kind, **parameters}))
    sections.append(_section("federation", {"aggregation": case.aggregation}))
    if plan is not None:
        sections.append(_section("privacy", vars(plan)))
    sections.append(_section("schema", {"out_of_bounds": data.schema.out_of_bounds}))
    sections += [_column(data.schema, at) for at in range(len(data.schema.columns))]
    return "\n".join(sections) + "\n"


def _column(schema: Schema, at: int) -> str:
    column = schema.columns[at]
    told = {name: value for name, value in vars(column).items() if name != "name" and value is not None}
    return _section("[schema.columns]", {"names": [column.name], **told})


def _section(name: str, entries: Mapping[str, Any]) -> str:
    return "\n".join([f"[{name}]", *(f"{key} = {json.dumps(value)}" for key, value in entries.items())])
