"""What a training run between institutions shows while it lasts: a live table on a terminal, lines elsewhere."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from securead.cli.screen import console, size
from securead.federated.events import Answered, Event, Joined, Left, RoundBegan, RoundDone, Waiting


@dataclass
class _Row:
    """A site's line."""

    state: str = "not here yet"
    style: str = "dim"
    seconds: float | None = None
    epsilon: float | None = None
    loss: float | None = None
    sent: int = 0
    received: int = 0


class Rounds:
    """A listener of a run's events (`federated.events`) for people; close it, or use it as a context manager."""

    def __init__(self, sites: Sequence[str]) -> None:
        self._console: Console = console()
        self._rows = {name: _Row() for name in sites}
        self._head = "waiting for the sites"
        self._loss: float | None = None
        self._round: RoundBegan | None = None
        self._start, self._last = time.monotonic(), 0.0
        self._lock = threading.RLock()
        self._live = Live(get_renderable=self._shown, console=self._console, refresh_per_second=4, transient=False)

    def __enter__(self) -> Rounds:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live.is_started:
            self._live.stop()

    def __call__(self, event: Event) -> None:
        """Show what happened."""
        with self._lock:
            for line in self._took(event):
                if not self._console.is_terminal:
                    self._console.print(Text(line))

    def said(self, line: str) -> None:
        """A line that is no event, above the table."""
        self._console.print(Text(line))

    def _took(self, event: Event) -> list[str]:
        """Take an event in; the lines that it is worth where there is no table."""
        match event:
            case Waiting(missing, seconds):
                return [f"waiting for {', '.join(missing)}: {seconds:.0f} s until the run begins without"]
            case Joined(site):
                self._row(site).state, self._row(site).style = "here", ""
                return [f"{site} takes part"]
            case Left(site, reason):
                self._row(site).state, self._row(site).style = reason, "yellow"
                return [f"{site} takes no part: {reason}"]
            case RoundBegan(number, rounds, stage, attempt, groups):
                self._round = event
                again = f", attempt {attempt}" if attempt > 1 else ""
                self._head = f"round {number} of {rounds}: {stage}{again}"
                for name in (name for group in groups for name in group):
                    self._row(name).state, self._row(name).style = "computing", "cyan"
                among = "; ".join(", ".join(group) for group in groups)
                return [f"{self._head}, among {among}"]
            case Answered():
                self._answered(event)
                return []
            case RoundDone(number, stage, seconds, loss, clipped, left_out):
                self._last, self._loss = seconds, loss
                notes = [f"loss {loss:.6g}"] if loss is not None else []
                for what, groups in (("bounded", clipped), ("left out", left_out)):
                    notes += [f"{what} {', '.join(name for group in groups for name in group)}"] if groups else []
                return [", ".join([f"round {number} ({stage}) took {seconds:.1f} s", *notes])]

    def _answered(self, event: Answered) -> None:
        row = self._row(event.site)
        row.state, row.style = (
            {"prepare": "computed", "send": "sent", "open": "sent", "finish": "done"}.get(event.kind, "here"),
            "green",
        )
        row.seconds = row.seconds if event.seconds is None else event.seconds
        row.epsilon = row.epsilon if event.epsilon is None else event.epsilon
        row.loss = row.loss if event.loss is None else event.loss
        row.sent, row.received = row.sent + event.sent, row.received + event.received

    def _row(self, site: str) -> _Row:
        return self._rows.setdefault(site, _Row())

    def _shown(self) -> RenderableType:
        with self._lock:
            table = Table(title=self._head, title_justify="left", box=None, pad_edge=False)
            table.add_column("site")
            table.add_column("state")
            for heading in ("seconds", "loss", "epsilon", "to it", "from it"):
                table.add_column(heading, justify="right")
            for name, row in self._rows.items():
                numbers = (_number(row.seconds, ".1f"), _number(row.loss, ".4g"), _number(row.epsilon, ".3g"))
                table.add_row(name, Text(row.state, row.style), *numbers, size(row.sent), size(row.received))
            return Group(table, Text(self._foot(), "dim"))

    def _foot(self) -> str:
        parts = [f"{time.monotonic() - self._start:.0f} s"]
        if self._round is not None and self._last:
            left = max(0, self._round.rounds - self._round.number + 1) * self._last
            parts.append(f"about {left:.0f} s left, at most")
        if self._loss is not None:
            parts.append(f"loss {self._loss:.6g}")
        return ", ".join(parts)


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)
