"""A relay that imitates a link, to check what `securead.planner.links` predicts. It loses no packet, either."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType

from securead.protocols.sharing.outbox import Delay, Outbox

_CHUNK = 1 << 16


class Relay:
    """A listener on this machine that passes everything on to `target`, late and at a link's rate, both directions.

    Counts `up`, the bytes that went to the target, and `down`, those that came from it. For several connections at a
    time, each with the whole rate.
    """

    def __init__(self, target: tuple[str, int], delay: Delay) -> None:
        self._target, self._delay = target, delay
        self.up = self.down = 0
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._closed = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = ("127.0.0.1", int(self._listener.getsockname()[1]))
        threading.Thread(target=self._accept, name="relay", daemon=True).start()

    def __enter__(self) -> Relay:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up on everybody."""
        self._closed = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for each in self._open:
            _hang_up(each)

    def _accept(self) -> None:
        while not self._closed:
            try:
                caller, _ = self._listener.accept()
            except OSError:
                return
            try:
                target = socket.create_connection(self._target, timeout=10)
            except OSError:
                caller.close()
                continue
            target.settimeout(None)
            for each in (caller, target):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._open.append(each)
            for pair in ((caller, target, True), (target, caller, False)):
                threading.Thread(target=self._carry, args=pair, daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket, upwards: bool) -> None:
        outbox = Outbox(lambda error: _hang_up(source), self._delay)
        while True:
            try:
                chunk = source.recv(_CHUNK)
            except OSError:
                chunk = b""
            if not chunk:
                break
            with self._lock:
                if upwards:
                    self.up += len(chunk)
                else:
                    self.down += len(chunk)
            outbox.put(lambda sent=chunk: sink.sendall(sent), len(chunk))  # type: ignore[misc]
        outbox.put(lambda: _no_more(sink), 0)
        outbox.flush()
        outbox.close()


def _no_more(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_WR)


def _hang_up(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
