"""Messages between a measurement and the processes that it measures: a JSON object and bytes, counted on the way."""

from __future__ import annotations

import json
import socket
import struct
from typing import Any

from securead.errors import RejectMessageError

_PREFIX = struct.Struct("<IQ")
_MOST = 1 << 31


class Frames:
    """Both ends of a connection. `payload_sent`, `payload_received`: bytes of payloads that crossed it so far."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection = connection
        self.payload_sent = self.payload_received = 0

    def send(self, head: dict[str, Any], payload: bytes = b"") -> None:
        """One message."""
        told = json.dumps(head, allow_nan=False).encode()
        self._connection.sendall(_PREFIX.pack(len(told), len(payload)) + told)
        self._connection.sendall(payload)
        self.payload_sent += len(payload)

    def receive(self) -> tuple[dict[str, Any], bytes] | None:
        """The next message, or None when the other end is done."""
        first = self._connection.recv(1)
        if not first:
            return None
        length, size = _PREFIX.unpack(first + self._exactly(_PREFIX.size - 1))
        if length + size > _MOST:
            raise RejectMessageError("a message is too large", value=size)
        head: dict[str, Any] = json.loads(self._exactly(length))
        payload = self._exactly(size)
        self.payload_received += size
        return head, payload

    def close(self) -> None:
        """Hang up."""
        self._connection.close()

    def _exactly(self, count: int) -> bytes:
        content = bytearray(count)
        view, at = memoryview(content), 0
        while at < count:
            got = self._connection.recv_into(view[at:])
            if not got:
                raise RejectMessageError("a process hung up in the middle of a message", value=(at, count))
            at += got
        return bytes(content)
