"""Worker processes: started, before there is anything to tell them, and ended.

Each is a new interpreter, not a fork: it shares nothing with this one but the socket that it inherits, over which
everything it may know reaches it. Nothing secret is in its arguments or its environment. It ends when the socket
closes, and so with this process, however that ends.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Self

MOST_WORKERS = 9  # by default: so many keep the one process that receives messages busy
_BUFFER_BYTES = 4 << 20  # as far as the system allows: fewer switches between the processes for one message
# Its first words fix where it imports from, so that it is the same code that runs here.
_MAIN = "import sys; sys.path[:] = sys.argv[2:]; from securead.serving.worker import main; main(int(sys.argv[1]))"
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")
_NOT_PASSED_ON = ("SECUREAD_PASSPHRASE",)
_END_SECONDS = 5.0


@dataclass(frozen=True)
class Spawned:
    """A process that has been started and not yet been told anything, and this end of its socket."""

    process: subprocess.Popen[bytes]
    socket: socket.socket


def spawn(threads: int) -> Spawned:
    """Start a worker process whose numerical libraries use so many threads, unless the environment says otherwise."""
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", _MAIN, str(theirs.fileno()), *sys.path],
            pass_fds=(theirs.fileno(),),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,  # whoever reads ours waits for its end
            env=dict.fromkeys(_THREADS, str(threads))
            | {name: value for name, value in os.environ.items() if name not in _NOT_PASSED_ON},
        )
    ours.setblocking(False)
    return Spawned(process, ours)


def usable_cores() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_workers() -> int:
    """One more than there are cores, because a worker waits for the front between two messages; one for one core."""
    cores = usable_cores()
    return 1 if cores == 1 else min(cores + 1, MOST_WORKERS)


class Processes:
    """Worker processes, `count` from the block's begin; at its end all end, those too that were started meanwhile.

    They are begun before there is anything to tell them, because an interpreter takes its time to start.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._waiting: list[Spawned] = []
        self._all: list[Spawned] = []
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        try:
            self._waiting = [self.spawn() for _ in range(self.count)]
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for each in self._all:
            each.socket.close()
        deadline = time.monotonic() + _END_SECONDS
        for each in self._all:
            with contextlib.suppress(subprocess.TimeoutExpired):
                each.process.wait(max(0.0, deadline - time.monotonic()))
            each.process.kill()
            each.process.wait()

    def spawn(self) -> Spawned:
        """Start one more."""
        with self._lock:
            # Whoever speaks to one closes its socket: only then nobody waits on that number any more.
            self._all = [each for each in self._all if each.process.poll() is None or each.socket.fileno() >= 0]
            spawned = spawn(max(1, usable_cores() // self.count))
            self._all.append(spawned)
            return spawned

    def take(self) -> list[Spawned]:
        """Those that were begun first, for whoever speaks to them."""
        waiting, self._waiting = self._waiting, []
        return waiting
