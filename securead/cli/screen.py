"""What commands say: progress while work lasts, a last line when it is done, all of it on standard error."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from securead.errors import SecureadError

if TYPE_CHECKING:
    from securead.client.results import Summary

PATIENT_SECONDS = 2.0


def console() -> Console:
    """Standard error. Made anew each time, because tests and pipes replace the stream."""
    return Console(stderr=True, highlight=False, soft_wrap=True)


def say(text: str, style: str = "") -> None:
    """One line for people; never read as markup."""
    console().print(Text(text, style=style))


def say_error(error: SecureadError) -> None:
    """A refusal, with its remedy."""
    console().print(Text.assemble(("error: ", "bold red"), (str(error), "red")))


class ProgressBar:
    """A `securead.client.watch.Watch`: a bar once work has lasted two seconds, on a terminal only."""

    def __init__(self) -> None:
        self._console = console()
        self._start = time.monotonic()
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._said = ""

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def rows(self, phase: str, done: int, total: int) -> None:
        """Show that `done` of `total` rows have passed `phase`."""
        if self._bar is None:
            if not self._console.is_terminal or time.monotonic() - self._start < PATIENT_SECONDS:
                return
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn(f"{{task.completed:,.0f}} of {{task.total:,.0f}} {'bytes' if phase == 'fetch' else 'rows'}"),
                TimeRemainingColumn(),
                console=self._console,
                transient=True,
            )
            self._bar.start()
            self._task = self._bar.add_task(phase, total=total)
        if self._task is not None:
            self._bar.update(self._task, description=phase, completed=done, total=total)

    def waiting(self, what: str) -> None:
        """Say what is awaited: each change on a terminal, the first time elsewhere."""
        kind = what.partition(";")[0]
        if self._console.is_terminal or kind != self._said:
            self._console.print(Text(f"waiting: {what}", style="yellow"))
        self._said = kind


class StepBar:
    """Named steps of a run, on a terminal only; the text says what is being done."""

    def __init__(self) -> None:
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn(), console=console(), transient=True
        )
        self._task: TaskID | None = None

    def __enter__(self) -> StepBar:
        if self._bar.console.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar.live.is_started:  # stopping what never started would print an empty line
            self._bar.stop()

    def step(self, what: str, done: int, total: int) -> None:
        """`done` of `total` steps are over, `what` was the last."""
        if self._task is None:
            self._task = self._bar.add_task(what, total=total)
        self._bar.update(self._task, description=what, completed=done, total=total)


def finish(summary: Summary, done: str, out: Path, *, as_json: bool) -> None:
    """The last words of a command: what was done, what was noticed; with `as_json` also for programs."""
    noticed = [f"{done} {summary.rows:,} rows in {summary.seconds:.2f} s, {size(summary.bytes)}"]
    if summary.anomalies is not None:
        noticed.append(f"{summary.anomalies:,} anomalies")
    if summary.server_seconds is not None:
        noticed.append(f"{summary.server_seconds:.2f} s of the service's CPU")
    say("; ".join(noticed) + f" -> {out}")
    if summary.clipped:
        where = ", ".join(f"{name} {count:,}" for name, count in summary.clipped.items())
        say(f"{sum(summary.clipped.values()):,} values lay out of bounds and were moved to them: {where}", "yellow")
    for note in summary.notes:
        say(note)
    if as_json:
        print_json(summary.to_plain())


def print_json(plain: dict[str, Any]) -> None:
    """One JSON object on one line of standard output, for programs."""
    print(json.dumps(plain, allow_nan=False))


def size(count: int) -> str:
    """Bytes for people."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if count >= factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count} bytes"
