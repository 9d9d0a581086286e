"""Writing in the background: so that two parties may both send before either receives, and for delays.

Guarantee: what is put is done in that order, in one thread.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from securead.errors import FixConfigurationError


@dataclass(frozen=True)
class Delay:
    """A link to imitate, for benchmarks only: one way takes `seconds`, and carries `bytes_per_second`."""

    seconds: float
    bytes_per_second: float = float("inf")

    def __post_init__(self) -> None:
        if not (self.seconds >= 0 and self.bytes_per_second > 0):
            raise FixConfigurationError("a delay is >= 0 s and a link carries > 0 bytes/s", value=self)


@dataclass(frozen=True, eq=False)
class _Parcel:
    write: Callable[[], None]
    release: float  # on the monotonic clock


class Outbox:
    """A thread that does one write after the other, each not before a link with `delay` would have delivered it.

    What a write raises is handed to `failed` once; later ones are dropped.
    """

    def __init__(self, failed: Callable[[Exception], None], delay: Delay | None = None) -> None:
        self._failed, self._delay = failed, delay
        self._parcels: queue.SimpleQueue[_Parcel | None] = queue.SimpleQueue()
        self._state = threading.Condition()
        self._waiting = 0
        self._broken = self._closed = False
        self._link_free = 0.0
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)
        self._thread.start()

    @property
    def idle(self) -> bool:
        """Whether everything that was put is done."""
        return self._waiting == 0

    def put(self, write: Callable[[], None], length: int) -> None:
        """Do `write`, which sends `length` bytes, as soon as those before it are done."""
        with self._state:
            if self._closed:
                return
            self._waiting += 1
            # Inside the lock: releases must be in the order of the frames.
            self._parcels.put(_Parcel(write, self._release(length)))

    def _release(self, length: int) -> float:
        if self._delay is None:
            return 0.0
        self._link_free = max(self._link_free, time.monotonic()) + length / self._delay.bytes_per_second
        return self._link_free + self._delay.seconds

    def flush(self) -> None:
        """Wait until everything that was put is done or dropped; the writes have the time limits."""
        with self._state:
            self._state.wait_for(lambda: self._waiting == 0)

    def close(self) -> None:
        """End the thread; what it has not begun is dropped."""
        with self._state:
            self._broken = self._closed = True
            self._parcels.put(None)

    def _run(self) -> None:
        while (parcel := self._parcels.get()) is not None:
            try:
                if not self._broken:
                    wait = parcel.release - time.monotonic()
                    if wait > 0:
                        time.sleep(wait)
                    parcel.write()
            except Exception as error:
                self._broken = True
                self._failed(error)
            finally:
                del parcel  # so that a sent buffer is not kept until the next one
                with self._state:
                    self._waiting -= 1
                    self._state.notify_all()
