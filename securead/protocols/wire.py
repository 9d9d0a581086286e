"""The envelope of every message: who it is for, what it holds, and nothing executable.

    magic "SCAD" | version u16 | header length u32 | payload length u64 | header (JSON) | payload | SHA-256

Lengths are checked against limits before anything is read or parsed; the checksum finds damage (authenticity is
the transport's business). A file of chunks is a concatenation of envelopes. Of the three kinds, a "key" carries its
owner's public key to a service whose engine needs one; in a file it stands once, before the chunks of its request.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Literal, Protocol

from securead import codec
from securead.errors import RejectMessageError

MAGIC = b"SCAD"
VERSION = 1
MAX_HEADER_BYTES = 16 << 10
MAX_CHUNKS = 1 << 20
_PREFIX = struct.Struct("<4sHIQ")
_CHECKSUM_BYTES = 32
_DIGEST, _REQUEST = re.compile("[0-9a-f]{64}"), re.compile("[0-9a-f]{32}")
_REMEDY = "The message is damaged, truncated or not securead's: encrypt and send again."


@dataclass(frozen=True)
class Header:
    """What a message says about itself. `request` is random per request; `key` names the key that decrypts it.

    `program`, `plan` and `key` are 64 hex digits, `request` is 32. A key counts no chunks and no rows: it is one of
    one, with none.
    """

    kind: Literal["request", "answer", "key"]
    engine: str
    role: Literal["same", "split"]
    program: str
    plan: str
    key: str
    request: str
    chunk: int
    chunks: int
    rows: int

    def __post_init__(self) -> None:
        counts = (self.chunk, self.chunks, self.rows)
        sound = 0 <= self.chunk < self.chunks <= MAX_CHUNKS and 1 <= self.rows <= 1 << 24
        if not (counts == (0, 1, 0) if self.kind == "key" else sound):
            raise RejectMessageError("a message's counts are absurd", value=counts, remedy=_REMEDY)
        for name in ("program", "plan", "key", "request"):
            value = getattr(self, name)
            if not (_REQUEST if name == "request" else _DIGEST).fullmatch(value):
                raise RejectMessageError(
                    f"a message's entry {name!r} is no name that securead gives", value=value[:80], remedy=_REMEDY
                )


@dataclass(frozen=True)
class Envelope:
    """One message: a header and an engine's payload."""

    header: Header
    payload: bytes

    def to_bytes(self) -> bytes:
        """The envelope as it travels."""
        header = json.dumps(codec.to_plain(self.header), separators=(",", ":")).encode()
        head = _PREFIX.pack(MAGIC, VERSION, len(header), len(self.payload)) + header
        checksum = hashlib.sha256(head)
        checksum.update(self.payload)  # not copied: payloads are megabytes, and gateways small
        return b"".join((head, self.payload, checksum.digest()))


def new_request_id() -> str:
    """128 random bits, hex."""
    return secrets.token_hex(16)


class _Pieces:
    """A message as a stream of which only what is read is copied, be it in this process's memory or mapped."""

    def __init__(self, message: bytes | memoryview) -> None:
        self._left = memoryview(message)

    def read(self, size: int) -> bytes:
        piece, self._left = bytes(self._left[:size]), self._left[size:]
        return piece


def from_bytes(message: bytes | memoryview, *, max_payload: int) -> Envelope:
    """Parse exactly one envelope, or raise `RejectMessageError`."""
    stream = _Pieces(message)
    envelope = read(stream, max_payload=max_payload, left=len(message))
    if envelope is None or stream.read(1):
        raise RejectMessageError("a message is empty or followed by other bytes", remedy=_REMEDY)
    return envelope


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


def read(stream: _Readable, *, max_payload: int, left: int | None = None) -> Envelope | None:
    """Read the next envelope, or None at the end. Never reads more than the limits allow.

    `left`: how many bytes the stream still holds, where that is known. A message that claims more was cut short, and
    is called so whatever it claims.
    """
    prefix = stream.read(_PREFIX.size)
    if not prefix:
        return None
    if len(prefix) < _PREFIX.size:
        raise RejectMessageError("a message ends within its first bytes", remedy=_REMEDY)
    magic, version, header_size, payload_size = _PREFIX.unpack(prefix)
    if magic != MAGIC:
        raise RejectMessageError("these bytes are no securead message", value=magic, remedy=_REMEDY)
    if version != VERSION:
        raise RejectMessageError(
            "a message of another version", value=version, remedy=f"This release speaks version {VERSION}."
        )
    size = header_size + payload_size + _CHECKSUM_BYTES
    if left is not None and _PREFIX.size + size > left:
        raise RejectMessageError("a message is truncated", remedy=_REMEDY)
    if header_size > MAX_HEADER_BYTES or payload_size > max_payload:
        raise RejectMessageError("a message is too large", value=(header_size, payload_size), remedy=_REMEDY)
    # Piece by piece: payloads are megabytes, and each is copied once.
    text, payload, checksum = (stream.read(each) for each in (header_size, payload_size, _CHECKSUM_BYTES))
    if len(text) + len(payload) + len(checksum) < size:
        raise RejectMessageError("a message is truncated", remedy=_REMEDY)
    summed = hashlib.sha256(prefix + text)
    summed.update(payload)
    if summed.digest() != checksum:
        raise RejectMessageError("a message is damaged: its checksum differs", remedy=_REMEDY)
    try:
        header = codec.from_plain(Header, json.loads(text), where="message header")
    except RejectMessageError:
        raise
    except (ValueError, RecursionError) as error:  # not JSON, an endless integer, or `FixInputError`
        raise RejectMessageError(f"a message's header is ill-formed: {error}", remedy=_REMEDY) from error
    return Envelope(header, payload)


def read_all(stream: BinaryIO, *, max_payload: int) -> Iterator[Envelope]:
    """All envelopes of a file from where it stands, in order, one in memory at a time."""
    at = stream.tell()
    end = stream.seek(0, os.SEEK_END)
    stream.seek(at)
    while (envelope := read(stream, max_payload=max_payload, left=end - stream.tell())) is not None:
        yield envelope
