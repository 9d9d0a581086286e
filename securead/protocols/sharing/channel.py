"""Frames on one TLS connection: typed, numbered, limited in length and in time.

A frame is a header (kind u8, sequence u32, length u64, little endian) and a body. Guarantees: a frame of another kind
than expected, out of sequence (replayed, reordered, lost), over its limit or cut short is a `LinkError`, and so is a
peer that falls silent; after any of these the channel is of no more use. One thread may send while another receives:
the TLS object is entered by one thread at a time, and waiting happens outside. No session is resumed, so no early
data, which could be replayed (RFC 8446, section 8), is ever accepted.
"""

from __future__ import annotations

import contextlib
import functools
import math
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

from securead.errors import RetryLaterError
from securead.protocols.sharing.outbox import Delay, Outbox

HEADER = struct.Struct("<BIQ")
RECORD = 16384  # the most that one TLS record holds (RFC 8446, section 5.1)
SMALL = RECORD - HEADER.size  # a body that leaves in one record with its header
SILENCE = 3.0  # seconds after which a peer that says nothing is taken for gone
SLOWEST = 100_000  # bytes a second: who sends a frame more slowly, byte by byte, is cut off all the same
_CHUNK = 1 << 18  # what is encrypted at once: bounds how long a receiver waits for the TLS object
_LAST_SEQUENCE = (1 << 32) - 1
_LONGEST = 1e6  # seconds; what `poll` can still count in milliseconds
Piece = bytes | memoryview


class LinkError(RetryLaterError, OSError):
    """A peer is gone, silent or does not keep to the protocol; the link to it is of no more use.

    Not a `RuntimeError`: CrypTen catches that and goes on with another protocol (mpc/primitives/converters.py).
    """


class Channel:
    """One verified connection to `peer`, the name in its certificate. `links.dial` and `links.Listener` make them.

    Counts `bytes_sent`, `bytes_received` (headers included, TLS not), `frames_sent`, `frames_received`.
    """

    def __init__(self, tls: ssl.SSLSocket, peer: str, *, timeout: float = SILENCE, delay: Delay | None = None) -> None:
        self.peer, self.timeout = peer, timeout
        self.bytes_sent = self.bytes_received = self.frames_sent = self.frames_received = 0
        tls.setblocking(False)
        self._socket, self._delay = tls, delay
        self._tls = threading.Lock()  # held for one call into TLS
        self._sending, self._receiving = threading.Lock(), threading.Lock()  # held for one frame
        self._to_read, self._to_write = select.poll(), select.poll()
        self._to_read.register(tls, select.POLLIN)
        self._to_write.register(tls, select.POLLOUT)
        self._ahead = memoryview(bytearray(RECORD))  # what came with a record beyond what was asked for
        self._ahead_start = self._ahead_end = 0
        self._failure: BaseException | None = None
        self._unbroken = _Unbroken(self)
        self._closed = False
        self._outbox: Outbox | None = None
        self._partner: Channel | None = None

    def __repr__(self) -> str:
        return f"Channel(peer={self.peer!r})"

    def fileno(self) -> int:
        """For `select`; ask `pending` first, because a frame may be here already."""
        return self._socket.fileno()

    @property
    def pending(self) -> bool:
        """Whether bytes are here that no selector knows of."""
        with self._tls:
            return self._ahead_start < self._ahead_end or self._socket.pending() > 0

    @property
    def broken(self) -> bool:
        """Whether the link failed or was closed."""
        return self._closed or self._failure is not None

    def share_fate(self, other: Channel) -> None:
        """From now on, what breaks one of the two breaks the other at once, and wakes who waits on it."""
        self._partner, other._partner = other, self

    # Sending.

    def send(self, kind: int, *buffers: Any) -> None:
        """Send one frame whose body is the C-contiguous buffers, one after the other, and wait until it left.

        Large buffers are not copied. Raises `LinkError`.
        """
        if self._dispatch(kind, _views(buffers), wait=True):
            self.flush()

    def post(self, kind: int, *buffers: Any) -> None:
        """`send` that does not wait for the peer to read a large frame: both may send at once without deadlock.

        What the system does not take at once is written by a thread. The buffers must not change before `flush`
        returns. A frame that fails later breaks the link.
        """
        self._dispatch(kind, _views(buffers), wait=False)

    def flush(self) -> None:
        """Wait until what was posted has left. Raises `LinkError`. Frames held back by a `Delay` count as left."""
        if self._outbox is not None and self._delay is None:
            self._outbox.flush()
        if self._failure is not None:
            raise self._gone()

    def _dispatch(self, kind: int, parts: Sequence[memoryview], *, wait: bool) -> bool:
        """Begin a frame, or queue it behind others; whether something of it is left to the outbox."""
        length = sum(part.nbytes for part in parts)
        with self._sending, self._unbroken:
            if self._delay is not None:
                parts = [memoryview(bytes(part)) for part in parts]  # it leaves after `send` returned
            elif self._outbox is None or self._outbox.idle:
                rest = self._write(self._frame(kind, parts, length), self._deadline(length), wait=wait)
                if not rest:
                    return False
                self._put(functools.partial(self._write_later, rest, length), length)
                return True
            self._put(functools.partial(self._write_frame, kind, parts, length), length)
            return True

    def _put(self, write: Callable[[], None], length: int) -> None:
        if self._outbox is None:
            self._outbox = Outbox(self._break, self._delay)
        self._outbox.put(write, length)

    def _write_frame(self, kind: int, parts: Sequence[memoryview], length: int) -> None:
        with self._sending, self._unbroken:
            self._write(self._frame(kind, parts, length), self._deadline(length), wait=True)

    def _write_later(self, rest: Sequence[Piece], length: int) -> None:
        with self._sending, self._unbroken:
            self._write(rest, self._deadline(length), wait=True)

    def _deadline(self, length: int) -> float:
        return time.monotonic() + self.timeout + length / SLOWEST

    def _frame(self, kind: int, parts: Sequence[memoryview], length: int) -> Sequence[Piece]:
        if self.frames_sent > _LAST_SEQUENCE:
            raise LinkError("the link is worn out: 2^32 frames", remedy="Connect anew.")
        header = HEADER.pack(kind, self.frames_sent, length)
        self.frames_sent += 1
        self.bytes_sent += HEADER.size + length
        return list(_pieces(header, parts)) if length > SMALL else (b"".join((header, *parts)),)

    def _write(self, pieces: Sequence[Piece], deadline: float, *, wait: bool) -> Sequence[Piece]:
        """Write the pieces; without `wait` only what the system takes at once. Returns what is left."""
        for number, piece in enumerate(pieces):
            start = 0
            while start < len(piece):
                # A call that TLS could not finish must be repeated with the same bytes, which it is.
                chunk = piece[start : start + _CHUNK] if len(piece) > _CHUNK else piece
                try:
                    with self._tls:
                        start += self._socket.send(chunk)
                except ssl.SSLWantWriteError:
                    if not wait:
                        return [piece[start:], *pieces[number + 1 :]]
                    self._wait(self._to_write, deadline, self.timeout)
                except ssl.SSLWantReadError:
                    self._wait(self._polled(select.POLLIN), deadline, self.timeout)
        return ()

    # Receiving.

    def receive(
        self, kind: int, *, limit: int | None = None, exact: int | None = None, timeout: float | None = None
    ) -> bytearray:
        """The body of the next frame, which must be of `kind`, of at most `limit` or of `exact` bytes.

        `timeout`: how long to wait for it to begin, in place of the channel's. Raises `LinkError`.
        """
        bound = exact if exact is not None else limit
        if bound is None:
            raise TypeError("a frame needs a limit or an exact length")
        with self._receiving, self._unbroken:
            _, length = self._header({kind: bound}, exact, timeout)
            body = bytearray(length)
            self._fill(memoryview(body))
            return body

    def receive_any(self, limits: Mapping[int, int], *, timeout: float | None = None) -> tuple[int, bytearray]:
        """The kind and the body of the next frame, of one of the kinds in `limits`, within that kind's limit."""
        with self._receiving, self._unbroken:
            kind, length = self._header(limits, None, timeout)
            body = bytearray(length)
            self._fill(memoryview(body))
            return kind, body

    def receive_into(self, kind: int, buffer: Any, *, timeout: float | None = None) -> None:
        """Fill a writable C-contiguous buffer with the body of the next frame, which must be exactly as long."""
        view = memoryview(buffer)
        view = view.cast("B") if view.nbytes else memoryview(bytearray())
        with self._receiving, self._unbroken:
            self._header({kind: view.nbytes}, view.nbytes, timeout)
            self._fill(view)

    def ready(self, timeout: float) -> bool:
        """Whether a frame, or the link's end, arrives within `timeout` seconds; a link stays whole that is silent."""
        with self._receiving:
            return self.pending or bool(self._to_read.poll(math.ceil(timeout * 1000)))

    def _header(self, limits: Mapping[int, int], exact: int | None, timeout: float | None) -> tuple[int, int]:
        wait = self.timeout if timeout is None else timeout
        deadline = time.monotonic() + wait
        while (held := self._ahead_end - self._ahead_start) < HEADER.size:
            if self._ahead_start:  # what is left of the last record goes to the front
                self._ahead[:held] = self._ahead[self._ahead_start : self._ahead_end]
                self._ahead_start, self._ahead_end = 0, held
            if not held:
                with self._tls:
                    ready = self._socket.pending()
                if not ready:  # asking TLS first would cost a system call in vain
                    self._wait(self._to_read, deadline, wait)
            self._ahead_end += self._read(self._ahead[held:], deadline, wait)
        kind, sequence, length = HEADER.unpack_from(self._ahead, self._ahead_start)
        self._ahead_start += HEADER.size
        if sequence != self.frames_received:
            raise LinkError(f"frame {sequence} from {self.peer} where {self.frames_received} was due")
        if kind not in limits:
            raise LinkError(f"a frame of kind {kind} from {self.peer} where {sorted(limits)} was due")
        if length > limits[kind] or (exact is not None and length != exact):
            most = f"exactly {exact}" if exact is not None else f"at most {limits[kind]}"
            raise LinkError(f"a frame of {length} bytes from {self.peer} where {most} were due")
        self.frames_received += 1
        self.bytes_received += HEADER.size + length
        return kind, length

    def _fill(self, view: memoryview) -> None:
        ahead = min(len(view), self._ahead_end - self._ahead_start)
        view[:ahead] = self._ahead[self._ahead_start : self._ahead_start + ahead]
        self._ahead_start += ahead
        deadline = self._deadline(len(view))
        while ahead < len(view):
            ahead += self._read(view[ahead:], deadline, self.timeout)

    def _read(self, view: memoryview, deadline: float, silence: float) -> int:
        while True:
            try:
                with self._tls:
                    count = self._socket.recv_into(view)
            except ssl.SSLWantReadError:
                self._wait(self._to_read, deadline, silence)
            except ssl.SSLWantWriteError:
                self._wait(self._polled(select.POLLOUT), deadline, silence)
            else:
                if not count:
                    raise LinkError(f"{self.peer} closed the link", remedy="It ended or gave up: see its messages.")
                return count

    # Waiting, failing, closing.

    def _polled(self, events: int) -> select.poll:
        poll = select.poll()
        poll.register(self._socket, events)
        return poll

    def _wait(self, poll: select.poll, deadline: float, silence: float) -> None:
        left = min(silence, deadline - time.monotonic(), _LONGEST)
        if left <= 0 or not poll.poll(math.ceil(left * 1000)):
            raise LinkError(
                f"{self.peer} was silent for {silence:g} s",
                remedy="It is stuck, overloaded or out of reach: try again.",
            )

    def _judge(self, error: BaseException) -> NoReturn:
        """What fails in the middle of a frame leaves the stream without meaning: the link ends with it."""
        if self.broken and error is not self._failure:
            if isinstance(error, OSError | ValueError):
                raise self._gone() from error  # the cause rather than its echo
            raise error
        if isinstance(error, OSError | ValueError) and not isinstance(error, LinkError):
            # ValueError: a socket that was closed meanwhile
            failure = LinkError(f"the link to {self.peer} failed: {_reason(error)}")
            self._break(failure)
            raise failure from error
        self._break(error)
        raise error

    def _gone(self) -> LinkError:
        if self._failure is None:
            return LinkError(f"the link to {self.peer} is closed")
        return LinkError(f"the link to {self.peer} failed before: {self._failure}")

    def _break(self, failure: BaseException) -> None:
        if self._failure is None:
            self._failure = failure
            self._hang_up()
            if self._partner is not None:
                self._partner._break(failure)

    def _hang_up(self) -> None:
        # Not SSLSocket.shutdown, after which Python sends and receives in the clear. Wakes who waits on the socket.
        with contextlib.suppress(OSError):
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def close(self, *, linger: float = 0.0) -> None:
        """Hang up and wake whoever waits on this channel or its partner. May be called from any thread, repeatedly.

        `linger`: first wait as many seconds for the peer to hang up, discarding what it still sends. Without that, a
        peer in the middle of sending is told of the reset before it reads our last frame.
        """
        if self._closed:
            return
        if self._outbox is not None and self._delay is not None:
            self._outbox.flush()
        if linger and self._failure is None:
            self._drain(linger)
        self._closed = True
        self._hang_up()
        if self._partner is not None:
            self._partner._break(LinkError(f"the link to {self.peer} was closed"))
        if self._outbox is not None:
            self._outbox.close()
        with self._sending, self._receiving:  # a number of a closed socket may be another's the next moment
            self._socket.close()

    def _drain(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        rest = memoryview(bytearray(RECORD))
        with self._receiving, contextlib.suppress(OSError):
            with self._sending:
                socket.socket.shutdown(self._socket, socket.SHUT_WR)
            while True:
                self._read(rest, deadline, seconds)

    def __enter__(self) -> Channel:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class _Unbroken:
    """Entered for one frame: refuses a broken link, and breaks it when the frame fails. A class, because it is fast."""

    __slots__ = ("_channel",)

    def __init__(self, channel: Channel) -> None:
        self._channel = channel

    def __enter__(self) -> None:
        if self._channel.broken:
            raise self._channel._gone()

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None:
            self._channel._judge(error)


def _views(buffers: Sequence[Any]) -> list[memoryview]:
    views = [memoryview(buffer) for buffer in buffers]
    return [view.cast("B") for view in views if view.nbytes]


def _pieces(header: bytes, parts: Sequence[memoryview]) -> Iterator[Piece]:
    """A frame cut so that its records are full: what is small is joined, what is large is not copied."""
    small: list[Piece] = [header]
    held = len(header)
    for whole in parts:
        part = whole
        while part:
            if held + len(part) < RECORD:
                small.append(part)
                held += len(part)
                break
            if held:
                cut = RECORD - held
                small.append(part[:cut])
                yield b"".join(small)
                small, held = [], 0
            else:
                cut = len(part) - len(part) % RECORD
                yield part[:cut]
            part = part[cut:]
    if held:
        yield b"".join(small)


def _reason(error: Exception) -> str:
    return str(getattr(error, "reason", None) or getattr(error, "strerror", None) or error)
