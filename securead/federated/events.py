"""What a training run tells while it lasts: for live tables, logs and tests. Never a record, never an update."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Waiting:
    """The run begins when these sites have come, or goes on without them after so many seconds."""

    missing: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class Joined:
    """A site takes part, for the first time or again."""

    site: str


@dataclass(frozen=True)
class Left:
    """A site takes no part for now, or was refused, and why."""

    site: str
    reason: str


@dataclass(frozen=True)
class RoundBegan:
    """Round `number` of at most `rounds`, its stage, and among whom the sums of this attempt are formed."""

    number: int
    rounds: int
    stage: str
    attempt: int
    groups: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Answered:
    """A site has answered: what it was asked, how long its work took, its epsilon so far, bytes to it and from it."""

    site: str
    kind: str
    seconds: float | None
    epsilon: float | None
    loss: float | None
    sent: int
    received: int


@dataclass(frozen=True)
class RoundDone:
    """A round is over and written down. `clipped` and `left_out` name whose contribution a defence changed."""

    number: int
    stage: str
    seconds: float
    loss: float | None
    clipped: tuple[tuple[str, ...], ...] = ()
    left_out: tuple[tuple[str, ...], ...] = ()


Event = Waiting | Joined | Left | RoundBegan | Answered | RoundDone
Listener = Callable[[Event], None]
