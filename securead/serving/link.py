"""One worker process as its service sees it: spoken to, noticed when it ends, ended."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Callable

from securead.serving import frames
from securead.serving.frames import EndedError, Frame
from securead.serving.processes import Spawned

EVALUATION_SECONDS = 300.0  # what takes longer hangs: clients have gone by then
START_SECONDS = 120.0
_FULL_SECONDS = 0.001  # between attempts, while the socket has no room
_logger = logging.getLogger("securead")


class Link:
    """A worker process, spoken to from one event loop. `ended` is called once, unless the loop ends first."""

    def __init__(self, spawned: Spawned, ended: Callable[[Link], None], made: Callable[[float], None]) -> None:
        self.begun = False  # whether its engine has seen something of the message in work
        self.settled = True  # whether nothing is in work
        self.hung = False  # whether it was ended because it did not reply
        self._process, self._socket, self._ended, self._made = spawned.process, spawned.socket, ended, made
        self._place = frames.Place()
        self._incoming: asyncio.Queue[tuple[Frame, bytes] | None] = asyncio.Queue()
        self._outgoing: asyncio.Queue[tuple[Frame, bytes]] = asyncio.Queue()
        self._tasks = [asyncio.create_task(self._read()), asyncio.create_task(self._write())]

    @property
    def pid(self) -> int:
        """The id of its process."""
        return self._process.pid

    def send(self, frame: Frame, content: bytes = b"") -> None:
        """Say something; whether it arrives shows when the reply is awaited."""
        self._outgoing.put_nowait((frame, content))

    async def receive(self, seconds: float) -> tuple[Frame, bytes]:
        """The next reply. Raises `EndedError` when the process has ended, and ends it when it takes longer."""
        try:
            got = await asyncio.wait_for(self._incoming.get(), seconds)
        except TimeoutError:
            self.hung, got = True, None
        if got is None:
            self._incoming.put_nowait(None)  # for whoever asks again
            self.end()
            raise EndedError
        return got

    def end(self) -> None:
        """End the process at once."""
        with contextlib.suppress(OSError):
            self._process.kill()

    async def _read(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while True:
                of_text, of_content, _ = frames.sizes(await self._exactly(loop, frames.PREFIX.size))
                frame = frames.parse(await self._exactly(loop, of_text))
                content = bytes(await self._exactly(loop, of_content))
                if isinstance(frame, frames.Made):
                    self._made(frame.seconds)
                elif isinstance(frame, frames.Said):
                    _logger.log(frame.level, "%s", frame.line)
                else:
                    self._incoming.put_nowait((frame, content))
        except (OSError, EndedError):
            pass
        self.end()
        self._tasks[1].cancel()
        await asyncio.wait([self._tasks[1]])
        self._socket.close()
        self._incoming.put_nowait(None)
        self._ended(self)

    async def _write(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while True:
                frame, content = await self._outgoing.get()
                placed, descriptor = self._placed(frame, content)
                await self._send_with(loop, frames.head(frame, content, elsewhere=placed), descriptor)
                if not placed:
                    await loop.sock_sendall(self._socket, content)
                del content  # megabytes, and the next frame may be long in coming
        except OSError:
            self.end()  # the reader notices

    def _placed(self, frame: Frame, content: bytes) -> tuple[bool, int | None]:
        """Whether a content was put in the place, and the place's descriptor if it is another one."""
        if frames.stands_elsewhere(frame, content):
            with contextlib.suppress(OSError):  # no memory, no descriptor, or not allowed here
                return True, self._place.put(content)
        return False, None

    async def _send_with(self, loop: asyncio.AbstractEventLoop, head: bytes, descriptor: int | None) -> None:
        """Send a head and, with its first byte, a descriptor if there is one."""
        if descriptor is not None:
            try:
                while not (sent := self._sent_with(head, descriptor)):
                    await asyncio.sleep(_FULL_SECONDS)
            finally:
                os.close(descriptor)
            head = head[sent:]
        await loop.sock_sendall(self._socket, head)

    def _sent_with(self, head: bytes, descriptor: int) -> int:
        """How many bytes there was room for."""
        try:
            return socket.send_fds(self._socket, [head], [descriptor])
        except BlockingIOError:
            return 0

    async def _exactly(self, loop: asyncio.AbstractEventLoop, size: int) -> bytearray:
        content = bytearray(size)
        view = memoryview(content)
        while view:
            count = await loop.sock_recv_into(self._socket, view)
            if not count:
                raise EndedError
            view = view[count:]
        return content
