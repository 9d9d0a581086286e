"""Files of messages: requests, answers, the local notes that belong to a request, and how they come to disk.

A request or answer file is a concatenation of envelopes (`protocols.wire`), one a chunk, in order. `checked` reads
one and refuses what is missing, doubled, replayed or foreign. A request for an engine that masks its answers opens
with its owner's public key (`leading_key`), so that whoever submits the file needs no other. Every file here appears
whole or not at all.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import secrets
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal, TextIO, TypeVar

from securead import codec
from securead.client.keys import KEY_FILE, MODEL_FILE, PLAN_FILE, PUBLIC_KEY_FILE, SECRET_KEY_FILE, KeyRecord
from securead.errors import FixInputError, RejectMessageError, RetryLaterError, SecureadError, UseOtherKeyError
from securead.protocols import wire

LOCAL_SUFFIX, PART_SUFFIX = ".local", ".part"
_MAX_LINE = 64 << 20
T = TypeVar("T")


@contextlib.contextmanager
def fresh_file(path: Path, *, mode: int = 0o644) -> Iterator[BinaryIO]:
    """A stream whose content becomes `path` when the block ends without an error, and vanishes otherwise."""
    temporary = path.parent / f".{path.name}.{secrets.token_hex(6)}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(descriptor, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            os.unlink(temporary)


def refuse_overwriting(out: Path, *read: Path) -> None:
    """Raise `FixInputError` when `out` is one of the files that are read, or a file of a key directory among them."""
    names = {KEY_FILE, MODEL_FILE, PLAN_FILE, PUBLIC_KEY_FILE, SECRET_KEY_FILE}
    for path in read:
        inside = path.is_dir() and out.name in names and out.resolve().is_relative_to(path.resolve())
        if inside or out.resolve() == path.resolve():
            raise FixInputError(
                f"the result would overwrite {'the keys' if inside else 'what is read'}",
                value=str(out),
                remedy="Choose another --out.",
            )


def refuse_unwritable(path: Path) -> None:
    """Raise `RetryLaterError` when `path` cannot be written, before work is spent on its content; leaves no trace."""
    nearest = next(folder for folder in path.absolute().parents if folder.exists())
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise _unwritable(path, error) from error


@contextlib.contextmanager
def existing_file(path: Path) -> Iterator[BinaryIO]:
    """A stream of a file that must be there."""
    try:
        stream = path.open("rb")
    except OSError as error:
        raise FixInputError(f"cannot read {path}: {error.strerror}", remedy="Check the path.") from error
    with stream:
        yield stream


def checked(stream: BinaryIO, kind: Literal["request", "answer"], *, where: Path) -> Iterator[wire.Envelope]:
    """The envelopes of one request or one answer, complete and in order, one in memory at a time.

    The key that a request opens with is checked to be its own, and left out. Raises `RejectMessageError` for an empty,
    truncated or damaged file, a missing chunk (naming it), a chunk that occurs twice and one that belongs to another
    request.
    """
    size = os.fstat(stream.fileno()).st_size
    first: wire.Header | None = None
    key: wire.Header | None = None
    expected = 0
    for envelope in _located(wire.read_all(stream, max_payload=size), where):
        header = envelope.header
        if header.kind == "key" and kind == "request" and key is None and first is None:
            key = header
            continue
        if header.kind != kind:
            raise RejectMessageError(
                f"{where} holds a message of kind {header.kind!r}, wanted: {kind!r}",
                remedy="`securead encrypt` writes requests, `securead submit` turns them into answers.",
            )
        first = first or header
        if key is not None and _owner(header) != _owner(key):
            raise RejectMessageError(
                f"{where}: the key that it opens with belongs to another request",
                value=key.key,
                remedy="The file was mixed from several: encrypt again.",
            )
        if _common(header) != _common(first):
            raise RejectMessageError(
                f"{where}: chunk {header.chunk} belongs to another request than the chunks before it",
                value=header.request,
                remedy="The file was mixed from several: submit the request again.",
            )
        if header.chunk < expected:
            raise RejectMessageError(
                f"{where}: chunk {header.chunk} occurs twice", remedy="A message was replayed: submit again."
            )
        if header.chunk > expected:
            raise _missing(where, expected, first)
        expected += 1
        yield envelope
    if first is None:
        raise RejectMessageError(f"{where} is empty", remedy="Write it again.")
    if expected < first.chunks:
        raise _missing(where, expected, first)


def leading_key(stream: BinaryIO, *, where: Path) -> wire.Envelope | None:
    """The key that a request file opens with, if it does; the stream is at its start again afterwards."""
    size = os.fstat(stream.fileno()).st_size
    first = next(_located(wire.read_all(stream, max_payload=size), where), None)
    stream.seek(0)
    return first if first is not None and first.header.kind == "key" else None


def refuse_foreign(header: wire.Header, record: KeyRecord, *, where: object) -> None:
    """Raise `UseOtherKeyError` for a message that is not for this key, model and plan."""
    pairs = (
        ("model", header.program, record.program),
        ("plan", (header.engine, header.role, header.plan), (record.engine, record.role, record.plan)),
        ("key", header.key, record.key),
    )
    for what, got, own in pairs:
        if got != own:
            raise UseOtherKeyError(
                f"the message is for another {what} than these keys",
                where=str(where),
                value=got,
                remedy=f"These keys are for {own}: use the key directory that the request was encrypted with.",
            )


class AnswerFile:
    """The answer of a running submission: grows chunk by chunk in `<out>.part`, becomes `<out>` when complete.

    Chunks of the same request that an earlier, interrupted submission has left there are kept; a half-written last
    chunk is cut off. Holds a lock, so that two submissions do not write to one file.
    """

    def __init__(self, out: Path, request: wire.Header) -> None:
        self._out, self._part, self._request = out, out.with_name(out.name + PART_SUFFIX), request
        try:
            out.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self._part, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise _unwritable(self._part, error) from error
        self._stream = os.fdopen(descriptor, "r+b")
        try:
            self.done = self._resume()
        except BaseException:
            self._stream.close()
            raise

    def __enter__(self) -> AnswerFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def append(self, answer: bytes) -> None:
        """Add the next chunk; it is on disk when this returns."""
        try:
            self._stream.write(answer)
            self._stream.flush()
            os.fsync(self._stream.fileno())
        except OSError as error:
            raise _unwritable(self._part, error) from error
        self.done += 1

    def finish(self) -> None:
        """Put the complete answer in its place."""
        try:
            os.replace(self._part, self._out)
        except OSError as error:
            raise _unwritable(self._out, error) from error

    def _resume(self) -> int:
        try:
            fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise RetryLaterError(
                f"another submission is writing {self._part}", remedy="Let it finish, or choose another --out."
            ) from error
        size, done, end = os.fstat(self._stream.fileno()).st_size, 0, 0
        with contextlib.suppress(RejectMessageError):  # what follows `end` is a chunk that was cut short
            for envelope in wire.read_all(self._stream, max_payload=size):
                header = envelope.header
                if header.kind != "answer" or _common(header) != _common(self._request) or header.chunk != done:
                    raise FixInputError(
                        f"{self._part} holds chunks of another request",
                        value=header.request,
                        remedy="Remove it if that submission is not to be finished, or choose another --out.",
                    )
                done, end = done + 1, self._stream.tell()
        self._stream.seek(end)
        self._stream.truncate()
        return done


@dataclass(frozen=True)
class LocalHead:
    """The first line of a request's local notes: which request they belong to."""

    request: str
    program: str
    chunks: int
    format: int = 1


@dataclass(frozen=True)
class LocalPart:
    """One line a chunk: the exact public terms of its rows, and values out of bounds by column."""

    chunk: int
    terms: tuple[int, ...]
    clipped: tuple[int, ...]


def write_local_line(stream: BinaryIO, value: LocalHead | LocalPart) -> None:
    """Append one line to local notes."""
    stream.write(json.dumps(codec.to_plain(value), separators=(",", ":")).encode() + b"\n")


def find_local(answer: Path, request: str) -> Path:
    """The local notes of a request: beside its answer under the answer's name, or any in that folder that fit."""
    beside = answer.with_name(answer.name + LOCAL_SUFFIX)
    for path in (beside, *sorted(answer.parent.glob("*" + LOCAL_SUFFIX))):
        with contextlib.suppress(SecureadError, OSError), path.open(encoding="utf-8") as stream:
            if _line(LocalHead, stream, path).request == request:
                return path
    raise FixInputError(
        f"the local notes of request {request[:12]}... are not beside {answer}",
        remedy="`securead encrypt` wrote them to <out>.local: give that file with --local. Without them the scores of "
        "this model cannot be completed; encrypt again if they are lost.",
    )


def read_local(path: Path, request: wire.Header) -> Iterator[LocalPart]:
    """The parts of local notes, in order. Raises `FixInputError` when they are another request's or damaged."""
    try:
        with path.open(encoding="utf-8") as stream:
            head = _line(LocalHead, stream, path)
            if (head.request, head.program, head.chunks) != (request.request, request.program, request.chunks):
                raise FixInputError(
                    f"{path} belongs to another request",
                    value=head.request,
                    remedy=f"Give the .local file of request {request.request}.",
                )
            for chunk in range(head.chunks):
                part = _line(LocalPart, stream, path)
                if part.chunk != chunk:
                    raise FixInputError(f"{path}: chunk {chunk} is missing", remedy="The file is damaged.")
                yield part
    except (OSError, UnicodeDecodeError) as error:
        raise FixInputError(f"cannot read {path}: {error}", remedy="Give the .local file of the request.") from error


def _line(cls: type[T], stream: TextIO, path: Path) -> T:
    try:
        return codec.from_plain(cls, json.loads(stream.readline(_MAX_LINE)), where=str(path))
    except (ValueError, RecursionError) as error:
        raise FixInputError(
            f"{path} is damaged, or holds no local notes", remedy="Give the .local file of the request."
        ) from error


def _common(header: wire.Header) -> tuple[object, ...]:
    """What all chunks of a request and of its answer share."""
    return (*_owner(header), header.chunks)


def _owner(header: wire.Header) -> tuple[object, ...]:
    """What a key shares with the request that it opens."""
    return (header.engine, header.role, header.program, header.plan, header.key, header.request)


def _located(envelopes: Iterable[wire.Envelope], where: Path) -> Iterator[wire.Envelope]:
    try:
        yield from envelopes
    except RejectMessageError as error:
        raise RejectMessageError(error.what, where=str(where), value=error.value, remedy=error.remedy) from error


def _missing(where: Path, chunk: int, header: wire.Header) -> RejectMessageError:
    return RejectMessageError(
        f"{where}: chunk {chunk} of {header.chunks} is missing",
        remedy="Submit the request again; chunks that are answered already are not sent twice.",
    )


def _unwritable(path: Path, error: OSError) -> RetryLaterError:
    return RetryLaterError(
        f"cannot write {path}: {error.strerror}", remedy="Free space, fix the permission or choose another place."
    )
