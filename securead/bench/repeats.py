"""Repeats of one measurement: enough to see how far they lie apart, few enough that a case takes seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import TypeVar

import numpy as np

from securead.bench.records import Spread, Timing

T = TypeVar("T")
LEAST, MOST, SECONDS = 3, 9, 3.0


def repeat(call: Callable[[], T], *, least: int = LEAST, most: int = MOST, seconds: float = SECONDS) -> list[T]:
    """What so many calls return: `most`, or fewer once `seconds` are over, after one that warms up."""
    call()
    start, found = time.perf_counter(), list[T]()
    while len(found) < least or (len(found) < most and time.perf_counter() - start < seconds):
        found.append(call())
    return found


def spread(values: Iterable[float], rows: float = 1.0) -> Spread:
    """Median, smallest and largest, a row."""
    array = np.array(list(values), dtype=float) / rows
    return Spread(float(np.median(array)), float(array.min()), float(array.max()), len(array))


def timing(
    role: str,
    phase: str,
    threads: int,
    spent: Iterable[tuple[float, float]],
    *,
    rows: float,
    offline: bool = False,
) -> Timing:
    """Repeats of (processor seconds, wall seconds) for `rows` records."""
    pairs = list(spent)
    return Timing(role, phase, threads, offline, *(spread((pair[at] for pair in pairs), rows) for at in (0, 1)))


def once(role: str, phase: str, threads: int, spent: Iterable[tuple[float | None, float]]) -> Timing:
    """The same for what is done before there are records, once."""
    pairs = list(spent)
    cpu = [pair[0] for pair in pairs if pair[0] is not None]
    wall = spread(pair[1] for pair in pairs)
    return Timing(role, phase, threads, True, None, None, spread(cpu) if cpu else None, wall)
