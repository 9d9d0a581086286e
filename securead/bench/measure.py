"""One case, in a process of its own: `python -m securead.bench.measure`, a case as JSON in, a record as JSON out.

A process a case: its peak memory is its own, its threads are set before NumPy is loaded, and its end takes nothing with
it. By hand: `echo '{"case": {"suite": "", "kind": "train", "dataset": "cardio", "detector": "forest"}}' | python -m
securead.bench.measure`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from securead import codec
from securead.bench import provenance, records
from securead.bench.records import Case, Record
from securead.errors import FixInputError, SecureadError

_THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "BLIS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)


@dataclass(frozen=True)
class Order:
    """What a process is asked. `supervised`: it ends, with all that it started, when its standard input does."""

    case: Case
    data: str | None = None
    peers: tuple[tuple[str, str], ...] = ()
    supervised: bool = False


def measure(case: Case, data: Path | None, peers: Mapping[str, Path]) -> Record:
    """The record of a case; where an engine, a package or data is absent it says so and holds no number."""
    start = time.perf_counter()
    try:
        record = _measured(case, data, peers)
    except SecureadError as error:
        record = Record(case, provenance.collect(), missing=str(error))
    return dataclasses.replace(
        record,
        missing=provenance.without_paths(record.missing),
        notes=tuple(map(provenance.without_paths, record.notes)),
        failures=tuple(map(provenance.without_paths, record.failures)),
        seconds=time.perf_counter() - start,
    )


def _measured(case: Case, data: Path | None, peers: Mapping[str, Path]) -> Record:
    # What measures loads what is measured: seconds, and not all of it installed everywhere.
    if case.kind == "score":
        from securead.bench.scoring_case import score

        return score(case, data)
    if case.kind == "train":
        from securead.bench.training_case import train

        return train(case, data)
    if case.kind == "mechanism":
        from securead.bench.training_case import mechanism

        return mechanism(case, data)
    if case.kind == "script":
        from securead.bench.script_case import script

        return script(case, data)
    from securead.bench.peers import peer

    return peer(case, data, peers)


def environment(case: Case, data: Path | None) -> dict[str, str]:
    """What the process of a case has in its environment: this one's, the case's threads, and where data lies."""
    threads = str(case.threads or provenance.cores())
    found = {**os.environ, **dict.fromkeys(_THREADS, threads), "PYTHONUNBUFFERED": "1"}
    return found if data is None else {**found, "SECUREAD_DATA": str(data.resolve())}


def main() -> None:
    """Read an order, measure, and write the record as the only line of standard output."""
    answer = os.dup(1)
    os.dup2(2, 1)  # what libraries print is no record
    line = sys.stdin.buffer.readline()
    try:
        order = codec.from_plain(Order, json.loads(line), where="order")
    except ValueError as error:
        raise SystemExit(str(FixInputError(f"standard input holds no case: {error}", value=line))) from None
    data = None if order.data is None else Path(order.data)
    os.environ.update(environment(order.case, data))
    _leave_standard_input(order.supervised)
    record = measure(order.case, data, {name: Path(place) for name, place in order.peers})
    with os.fdopen(answer, "w") as out:
        out.write(records.to_line(record) + "\n")


def _leave_standard_input(supervised: bool) -> None:
    """Nobody else reads it; with `supervised` its end is the end of this process and of those that it started."""
    lifeline = os.dup(0)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    if not supervised:
        os.close(lifeline)
        return

    def watch() -> None:
        while os.read(lifeline, 1):
            pass
        with contextlib.suppress(ProcessLookupError):
            if os.getpgid(0) == os.getpid():
                os.killpg(0, signal.SIGKILL)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


if __name__ == "__main__":
    main()
