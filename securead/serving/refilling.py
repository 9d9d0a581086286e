"""Idle time put to use: one thread makes ahead what answers under recently used keys will use up.

Only while no request is received, waits or is evaluated, and a moment after the last: what is made holds the
interpreter for milliseconds at a time, and a client that sends chunk after chunk would wait for it. A request that
arrives meanwhile shares the processor with at most one item. Memory is bounded: the few keys that were used last may
hold `KEY_BYTES` each, and all others nothing.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator

from securead.observe import event
from securead.protocols.engine import RefillableKey
from securead.serving.registered import RegisteredKeys

KEYS, KEY_BYTES = 8, 12 << 20
QUIET_SECONDS = 0.05
# Not lower: a thread that holds the interpreter makes requests wait when other processes press it aside.
_NICENESS = 5


class IdleRefill:
    """The thread, from the block's begin to its end; outside a block there is none and nothing is made.

    `made(seconds)` is told the processor seconds of every item. Nothing here is needed for an answer: a key that holds
    nothing makes what it needs at once.
    """

    def __init__(
        self,
        keys: RegisteredKeys,
        made: Callable[[float], None],
        *,
        keys_filled: int = KEYS,
        key_bytes: int = KEY_BYTES,
    ) -> None:
        self._keys, self._made = keys, made
        self._keys_filled, self._key_bytes = keys_filled, key_bytes
        self._state = threading.Condition()
        self._busy = 0
        self._news = self._stopped = False
        self._quiet_since = time.monotonic()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> IdleRefill:
        self._stopped, self._news = False, True
        self._thread = threading.Thread(target=self._run, name="securead-refill", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._state:
            self._stopped = True
            self._state.notify()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    @contextlib.contextmanager
    def held_off(self) -> Iterator[None]:
        """No item is begun inside this block. It never waits."""
        with self._state:
            self._busy += 1
        try:
            yield
        finally:
            with self._state:
                self._busy -= 1
                self._news, self._quiet_since = True, time.monotonic()
                self._state.notify()

    def _run(self) -> None:
        if sys.platform == "linux":  # where a thread has a priority of its own; elsewhere the id may be a process's
            with contextlib.suppress(OSError):
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
        while self._await_turn():
            start = time.thread_time()
            try:
                more = self._make_one()
            except Exception as error:  # answers go on without, and the next request is another occasion
                event("serving.refill", error=type(error).__name__)
                continue
            if more:
                self._made(time.thread_time() - start)
                with self._state:
                    self._news = True

    def _await_turn(self) -> bool:
        """Wait until there may be something to do and nothing better; False when the block has ended."""
        with self._state:
            while not self._stopped:
                if self._busy or not self._news:
                    self._state.wait()
                    continue
                left = self._quiet_since + QUIET_SECONDS - time.monotonic()
                if left <= 0:
                    self._news = False
                    return True
                self._state.wait(left)
            return False

    def _make_one(self) -> bool:
        """One item for the key that was used last of those that have room."""
        recent = self._keys.recent()
        # Of a thousand keys few are asked what they are: that takes as long as making an item.
        keys = list(itertools.islice((key for key in recent if isinstance(key, RefillableKey)), self._keys_filled))
        for other in recent:
            if getattr(other, "held_bytes", 0) and isinstance(other, RefillableKey) and other not in keys:
                other.refill(0)
        return any(key.refill(self._key_bytes) for key in keys)
