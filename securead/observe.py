"""Events, spans and counters, with one rule: no plaintext ever reaches a log.

A field of an event is a short string, a number or a boolean; an array, a list, bytes or a long string is refused
with `TypeError`, because that is how records end up in log files. Events go to the standard `logging` logger
"securead", one JSON object a line.
"""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Iterator

Field = str | int | float | bool | None
_MAX_TEXT = 200
_logger = logging.getLogger("securead")
_logger.addHandler(logging.NullHandler())
_lock = threading.Lock()
_counters: Counter[str] = Counter()


def event(name: str, **fields: Field) -> None:
    """Log one event. Raises `TypeError` for a field that could carry records."""
    for key, value in fields.items():
        _refuse_plaintext(key, value)
    if _logger.isEnabledFor(logging.INFO):
        _logger.info("%s", json.dumps({"event": name, "time": round(time.time(), 3), **fields}))


def count(name: str, amount: int = 1) -> None:
    """Add to a process-wide counter."""
    with _lock:
        _counters[name] += amount


def counters() -> dict[str, int]:
    """A copy of all counters of this process."""
    with _lock:
        return dict(_counters)


@contextlib.contextmanager
def span(name: str, **fields: Field) -> Iterator[None]:
    """Time a block of work, wall and CPU seconds of this process, and log it when the block ends.

    Raises `TypeError` as `event` does, before the work rather than after it.
    """
    for key, value in fields.items():
        _refuse_plaintext(key, value)
    wall, cpu = time.perf_counter(), time.process_time()
    try:
        yield
    finally:
        event(
            name,
            wall_seconds=round(time.perf_counter() - wall, 6),
            cpu_seconds=round(time.process_time() - cpu, 6),
            **fields,
        )


def _refuse_plaintext(key: str, value: object) -> None:
    if value is None or isinstance(value, bool | int | float):
        return
    if isinstance(value, str) and len(value) <= _MAX_TEXT:
        return
    raise TypeError(f"event field {key!r} is a {type(value).__name__}: log its size or its digest, never its content")
