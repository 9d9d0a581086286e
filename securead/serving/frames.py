"""What a service and its worker processes say to each other, over a pair of connected sockets that nobody else has.

    JSON length u32 | content length u64 | whether it stands elsewhere u8 | JSON | content

Where the system has memory without a name (Linux), a large message to be evaluated stands there instead: its descriptor
comes with the first such frame, and again when it had to grow.

The JSON is one of the frozen values below, told apart by "type". The content, where there is one, is what came from the
network or goes back there, or a model's secret half: bytes that travel as they are. Nothing is pickled.

    service                                     worker
    Start (secrets)                ->
                                   <-           Ready
    Score (request message)        ->                       or Register (key message) -> Begun -> Kept
                                   <-           Begun       well-formed; the engine has not seen it yet
    Go (key message if it lacks it)->                       or Stop: then there is no answer
                                   <-           Answered (answer message)
    Hold, Release                  ->                       any time: whether idle time may be used
                                   <-           Made, Said  any time: idle time that was used, a line for the log

In place of a reply the worker may send Refused (an error of ours) or Failed (a bug).
"""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import socket
import struct
import threading
from dataclasses import dataclass
from typing import ClassVar

from securead import codec, errors
from securead.errors import SecureadError
from securead.models.bundle import PublicModel
from securead.protocols import wire
from securead.serving.evaluation import TooLargeError, in_words

PREFIX = struct.Struct("<IQ?")
_LARGE = 256 << 10
MOST_JSON, MOST_CONTENT = 1 << 28, 1 << 34  # our own processes speak; this only catches bytes that are no frame


@dataclass(frozen=True)
class PlanText:
    """A plan as its engine stores it, JSON."""

    engine: str
    role: str
    text: str


@dataclass(frozen=True)
class SecretSize:
    """How many bytes of the content are one engine's secret."""

    engine: str
    size: int


@dataclass(frozen=True)
class ModelParts:
    """A model without its secrets, which are in the content: first the program's, then those of engines."""

    public: PublicModel
    plans: tuple[PlanText, ...]
    secret_bytes: int
    engine_secrets: tuple[SecretSize, ...]


@dataclass(frozen=True)
class Start:
    """The first frame. `workers`: how many share the bounds on memory. `logs`: whether events are wanted."""

    type_tag: ClassVar[str] = "start"
    models: tuple[ModelParts, ...]
    workers: int
    logs: bool


@dataclass(frozen=True)
class Ready:
    """The models are loaded."""

    type_tag: ClassVar[str] = "ready"


@dataclass(frozen=True)
class Score:
    """Evaluate the request message in the content."""

    type_tag: ClassVar[str] = "score"
    model: str
    limit: int


@dataclass(frozen=True)
class Register:
    """Read the key message in the content, and keep it as long as there is room."""

    type_tag: ClassVar[str] = "register"
    model: str
    key: str
    limit: int


@dataclass(frozen=True)
class Begun:
    """A message is well-formed and of these words; for a request, `lacks_key` says what `Go` has to bring."""

    type_tag: ClassVar[str] = "begun"
    header: wire.Header
    lacks_key: bool


@dataclass(frozen=True)
class Go:
    """Evaluate."""

    type_tag: ClassVar[str] = "go"
    limit: int


@dataclass(frozen=True)
class Stop:
    """Do not evaluate, and say nothing more of this message."""

    type_tag: ClassVar[str] = "stop"


@dataclass(frozen=True)
class Answered:
    """The answer message is in the content; `seconds` are those of a processor."""

    type_tag: ClassVar[str] = "answered"
    seconds: float


@dataclass(frozen=True)
class Kept:
    """The key is sound."""

    type_tag: ClassVar[str] = "kept"


@dataclass(frozen=True)
class Refused:
    """An error of `securead.errors`."""

    type_tag: ClassVar[str] = "refused"
    error: str
    words: str
    remedy: str


@dataclass(frozen=True)
class Failed:
    """A bug: the name of what was raised and nothing of what it says, which may be weights."""

    type_tag: ClassVar[str] = "failed"
    error: str


@dataclass(frozen=True)
class Hold:
    """Somewhere in the service a message is received, waits or is evaluated."""

    type_tag: ClassVar[str] = "hold"


@dataclass(frozen=True)
class Release:
    """Nowhere any more."""

    type_tag: ClassVar[str] = "release"


@dataclass(frozen=True)
class Made:
    """Idle time made one item, in so many seconds of a processor."""

    type_tag: ClassVar[str] = "made"
    seconds: float


@dataclass(frozen=True)
class Said:
    """One line for the log, of a level of `logging`."""

    type_tag: ClassVar[str] = "said"
    level: int
    line: str


FromService = Start | Score | Register | Go | Stop | Hold | Release
FromWorker = Ready | Begun | Answered | Kept | Refused | Failed | Made | Said
Frame = FromService | FromWorker


@dataclass(frozen=True)
class _Any:
    frame: Frame


class EndedError(Exception):
    """The other process has ended, or says what is no frame."""


def head(frame: Frame, content: bytes | memoryview = b"", *, elsewhere: bool = False) -> bytes:
    """Everything of a frame that stands before its content."""
    text = json.dumps(codec.to_plain(_Any(frame)), separators=(",", ":")).encode()
    return PREFIX.pack(len(text), len(content), elsewhere) + text


def sizes(prefix: bytes | bytearray) -> tuple[int, int, bool]:
    """The lengths of JSON and content, and whether it stands elsewhere; raises `EndedError` where they cannot be."""
    of_text, of_content, elsewhere = PREFIX.unpack(prefix)
    if of_text > MOST_JSON or of_content > MOST_CONTENT:
        raise EndedError
    return of_text, of_content, elsewhere


class Place:
    """Memory that both processes see, for one large content at a time; used again and again, and larger when needed.

    Through a socket each byte is copied twice, into pages that the system has to clear first. Nobody can make it
    smaller while the other uses it.
    """

    def __init__(self) -> None:
        self._memory: mmap.mmap | None = None

    def put(self, content: bytes) -> int | None:
        """Put a content there: a descriptor to be sent along and closed where the memory is another than before.

        Raises `OSError` where the system gives none; what there was stays.
        """
        descriptor = None
        if self._memory is None or len(self._memory) < len(content):
            descriptor = os.memfd_create("securead", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
            try:
                os.ftruncate(descriptor, len(content))
                fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
                self._memory = mmap.mmap(descriptor, len(content))
            except BaseException:
                os.close(descriptor)
                raise
        self._memory[: len(content)] = content
        return descriptor

    def take(self, size: int, descriptors: list[int]) -> memoryview:
        """The content that stands there until the next is put."""
        if descriptors:
            self._memory = mmap.mmap(descriptors[0], 0, prot=mmap.PROT_READ)
        if self._memory is None or len(self._memory) < size:
            raise EndedError
        return memoryview(self._memory)[:size]


def stands_elsewhere(frame: Frame, content: bytes) -> bool:
    """Whether a content goes by a `Place`: the messages that are evaluated one at a time, where they are large."""
    return isinstance(frame, Score | Register) and len(content) >= _LARGE and hasattr(os, "memfd_create")


def parse(text: bytes | bytearray) -> Frame:
    """The value of a frame's JSON; raises `EndedError` where it is none."""
    try:
        return codec.from_plain(_Any, json.loads(text), where="frame").frame
    except (ValueError, RecursionError, SecureadError) as error:
        raise EndedError from error


def refused(error: SecureadError) -> Refused:
    """An error as a frame: the nearest of the classes that `raised` knows, and its words."""
    known = next(kind for kind in type(error).__mro__ if _CLASSES.get(kind.__name__) is kind)
    return Refused(known.__name__, in_words(error), error.remedy)


def raised(frame: Refused) -> SecureadError:
    """The error that a frame tells of."""
    kind = _CLASSES.get(frame.error, SecureadError)
    return kind(frame.words, remedy=frame.remedy)


_CLASSES: dict[str, type[SecureadError]] = {
    kind.__name__: kind
    for kind in (*vars(errors).values(), TooLargeError)
    if isinstance(kind, type) and issubclass(kind, SecureadError)
}


class Channel:
    """A worker's end of the pair: blocking, and safe to send on from several threads."""

    def __init__(self, link: socket.socket) -> None:
        self._link, self._lock, self._place = link, threading.Lock(), Place()

    def send(self, frame: Frame, content: bytes = b"") -> None:
        """Send one frame; raises `EndedError` when there is nobody to take it."""
        try:
            with self._lock:
                self._link.sendall(head(frame, content))
                self._link.sendall(content)
        except OSError as error:
            raise EndedError from error

    def receive(self) -> tuple[Frame, bytes | memoryview]:
        """The next frame and its content; raises `EndedError` when there will be none."""
        prefix, descriptors = self._prefix()
        try:
            of_text, of_content, elsewhere = sizes(prefix)
            frame = parse(self._exactly(of_text))
            if not elsewhere:
                return frame, bytes(self._exactly(of_content))
            return frame, self._place.take(of_content, descriptors)
        except (OSError, ValueError) as error:
            raise EndedError from error
        finally:
            for each in descriptors:
                os.close(each)

    def _prefix(self) -> tuple[bytes, list[int]]:
        """The first bytes of a frame, and the descriptor that may come with them: with no later byte it can."""
        prefix, descriptors = b"", list[int]()
        while len(prefix) < PREFIX.size:
            try:
                more, given, *_ = socket.recv_fds(self._link, PREFIX.size - len(prefix), 1)
            except OSError as error:
                raise EndedError from error
            if not more:
                raise EndedError
            prefix += more
            descriptors += given
        return prefix, descriptors

    def _exactly(self, size: int) -> bytearray:
        content = bytearray(size)
        view = memoryview(content)
        while view:
            try:
                count = self._link.recv_into(view)
            except OSError as error:
                raise EndedError from error
            if not count:
                raise EndedError
            view = view[count:]
        return content
