"""Where an evaluator's time goes: processor seconds by stage."""

from __future__ import annotations

import time

NAMES = ("parse", "linear", "products", "sanitise", "pack")


class Stages:
    """Processor seconds of the evaluating thread, added up over requests.

    This is public timing: it depends on the plan, on which weights are zero or one, and on the machine, and on no
    residue. A stage ends where the next begins, so the seconds of an evaluation add up to the whole.
    """

    def __init__(self, names: tuple[str, ...] = NAMES) -> None:
        self._names = names
        self.clear()

    def clear(self) -> None:
        """Forget what was counted: a warm-up is no request."""
        self.seconds = dict.fromkeys(self._names, 0.0)
        self._last = 0.0

    def start(self) -> None:
        """Begin to count, on the thread that calls."""
        self._last = time.thread_time()

    def end(self, name: str) -> None:
        """Count what passed since the last end, or the start, to a stage."""
        now = time.thread_time()
        self.seconds[name] += now - self._last
        self._last = now
