"""Running a suite: each case in a process of its own, some at once, and nothing finished is ever lost.

What ends a run (Ctrl-C, a kill, a power cut) costs the cases that were under way and no other: each finished one is on
disk before it counts. A process that crashes, or takes longer than its case may, costs that case alone.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from securead import codec, files
from securead.bench import measure, provenance, records
from securead.bench.journal import Journal
from securead.bench.records import Case, Record
from securead.errors import SecureadError

ENVIRONMENT_FILE = "environment.json"
COMMAND = (sys.executable, "-m", "securead.bench.measure")

_TICK_SECONDS = 0.03
_PATIENCE_SECONDS = 900.0


class Watch(Protocol):
    """Who is told how a run goes. `left`: the seconds that are expected to remain; None while nothing is known."""

    def started(self, case: Case, *, done: int, total: int, left: float | None) -> None: ...

    def finished(self, record: Record, *, done: int, total: int, left: float | None) -> None: ...


@dataclass(frozen=True)
class Place:
    """Where a run's cases find data, and the environments of peers by name."""

    data: Path | None = None
    peers: Mapping[str, Path] = dataclasses.field(default_factory=dict)


def run(
    cases: Sequence[Case],
    folder: Path,
    *,
    place: Place,
    watch: Watch,
    resume: bool = False,
    jobs: int = 1,
    limits: Mapping[str, float] | None = None,
    suite: str = "",
    command: Sequence[str] | None = None,
) -> tuple[Record, ...]:
    """Measure every case that `folder` has no record of yet; the records of all of them, in the order of `cases`.

    `jobs` cases run at once, except that one with several threads runs alone. Raises `KeyboardInterrupt` after Ctrl-C
    or a request to end, once what has finished is written; every process that was started has ended by then.
    """
    with Journal(folder, resume=resume) as journal, _end_requests() as asked:
        _write_environment(folder, suite, cases, jobs)
        waiting = [case for case in cases if case.id not in journal.done]
        forecast = Forecast(cases, journal.done.values())
        running: list[_Process] = []
        # As of now, in the order in which they end: done, of so many.
        total = len(cases)
        try:
            while (waiting or running) and not asked.is_set():
                while waiting and _may_start(waiting[0], running, jobs):
                    case = waiting.pop(0)
                    limit = (limits or {}).get(case.id, _PATIENCE_SECONDS)
                    running.append(_Process(case, place, limit, jobs, command or COMMAND))
                    left = forecast.left(waiting, running, jobs)
                    watch.started(case, done=total - len(waiting) - len(running), total=total, left=left)
                time.sleep(_TICK_SECONDS)
                for process in list(running):
                    record = process.ended()
                    if record is None:
                        continue
                    journal.append(record)
                    running.remove(process)
                    forecast.learn(record)
                    left = forecast.left(waiting, running, jobs)
                    watch.finished(record, done=total - len(waiting) - len(running), total=total, left=left)
        finally:
            for process in running:
                process.kill()
        if asked.is_set():
            raise KeyboardInterrupt
        return tuple(journal.done[case.id] for case in cases)


class Forecast:
    """How long the rest takes, from what finished cases took: the likest of them, by what and how they measure."""

    def __init__(self, cases: Sequence[Case], done: Iterable[Record] = ()) -> None:
        self._known: dict[tuple[str, ...], list[float]] = {}
        ids = {case.id for case in cases}
        for record in done:
            if record.case.id in ids:
                self.learn(record)

    def learn(self, record: Record) -> None:
        """A case has finished."""
        for key in _likeness(record.case):
            self._known.setdefault(key, []).append(record.seconds)

    def of(self, case: Case) -> float | None:
        """How long a case takes, if any has finished."""
        return next((statistics.fmean(self._known[key]) for key in _likeness(case) if key in self._known), None)

    def left(self, waiting: Sequence[Case], running: Sequence[_Process], jobs: int) -> float | None:
        """Seconds until the last case has ended; None while none has."""
        if () not in self._known:
            return 0.0 if not waiting and not running else None
        open_ends = [(self.of(process.case) or 0.0) - process.seconds for process in running]
        whole = [self.of(case) or 0.0 for case in waiting]
        return sum(max(seconds, 0.0) for seconds in open_ends + whole) / max(jobs, 1)


def _likeness(case: Case) -> tuple[tuple[str, ...], ...]:
    """What cases have in common that take about as long, the most telling first."""
    who = case.peer or case.engine
    return (
        (case.kind, who, case.detector, case.dataset, case.executor),
        (case.kind, who, case.detector),
        (case.kind, who),
        (case.kind,),
        (),
    )


def _may_start(case: Case, running: Sequence[_Process], jobs: int) -> bool:
    """Whether it disturbs nobody: what uses several cores has the machine for itself."""
    if not running:
        return True
    return len(running) < jobs and case.threads == 1 and all(process.case.threads == 1 for process in running)


class _Process:
    """A case that is being measured, in a session of its own with all that it starts."""

    def __init__(self, case: Case, place: Place, limit: float, jobs: int, command: Sequence[str]) -> None:
        self.case = case
        self._limit, self._jobs = limit, jobs
        self._start = time.monotonic()
        self._streams = contextlib.ExitStack()
        # Files and not pipes: nobody has to read while it runs. Both vanish with this process.
        self._out = self._streams.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
        self._err = self._streams.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
        # The pipe stays open: when this process ends, however it does, the other one reads the end and follows.
        heard, lifeline = os.pipe()
        self._streams.callback(os.close, lifeline)
        try:
            self._process = subprocess.Popen(
                command,
                stdin=heard,
                stdout=self._out,
                stderr=self._err,
                env=measure.environment(case, place.data),
                start_new_session=True,
            )
        finally:
            os.close(heard)
        order = measure.Order(
            case,
            None if place.data is None else str(place.data.resolve()),
            tuple((name, str(path)) for name, path in place.peers.items()),
            supervised=True,
        )
        with contextlib.suppress(BrokenPipeError):
            os.write(lifeline, json.dumps(codec.to_plain(order)).encode() + b"\n")

    @property
    def seconds(self) -> float:
        """Since it was started."""
        return time.monotonic() - self._start

    def ended(self) -> Record | None:
        """The record once there is one, be it of a crash or of the end of patience."""
        # Without reaping it, so that its group's number stays its own while what it left behind is ended.
        over = os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        late = not over and self.seconds > self._limit
        if not over and not late:
            return None
        self._end()
        record = None if late else self._record()
        if record is None:
            how = f"took over {self._limit:g} s" if late else self._last_words()
            made = provenance.collect()
            record = Record(self.case, made, missing=how, failures=(how,), seconds=self.seconds)
        elif self._process.returncode:
            words = self._last_words()
            record = dataclasses.replace(record, notes=(*record.notes, f"after its record was written it {words}"))
        if self._jobs > 1:
            record = dataclasses.replace(record, notes=(*record.notes, f"up to {self._jobs} cases ran at once"))
        self._streams.close()
        return record

    def kill(self) -> None:
        """End it and all that it started; there will be no record."""
        self._end()
        self._streams.close()

    def _end(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def _record(self) -> Record | None:
        self._out.seek(0)
        lines = self._out.read().decode(errors="replace").splitlines()
        try:
            record = records.from_line(lines[-1] if lines else "", where="record")
        except SecureadError:
            return None
        return record if record.case == self.case else None

    def _last_words(self) -> str:
        self._err.seek(0)
        lines = self._err.read().decode(errors="replace").strip().splitlines()
        said = provenance.without_paths(lines[-1].strip()[:500]) if lines else ""
        code = self._process.returncode
        if code == 0:
            return "crashed: it ended without a record"
        if code < 0:
            name = signal.Signals(-code).name if -code in set(signal.Signals) else str(-code)
            hint = ", as the system does when memory runs out" if -code == signal.SIGKILL else ""
            return f"crashed: ended by {name}{hint}" + (f": {said}" if said else "")
        return f"crashed: {said or f'exit code {code}'}"


@contextlib.contextmanager
def _end_requests() -> Iterator[threading.Event]:
    """Ctrl-C and SIGTERM as an event, so that neither falls between a case's end and its line on disk."""
    asked = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield asked
        return
    before = {number: signal.signal(number, lambda *_: asked.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _write_environment(folder: Path, suite: str, cases: Sequence[Case], jobs: int) -> None:
    made = {"suite": suite, "cases": len(cases), "jobs": jobs, **codec.to_plain(provenance.collect())}
    made["versions"] = dict(made["versions"])
    del made["program"]
    files.write_json(folder / ENVIRONMENT_FILE, made)
