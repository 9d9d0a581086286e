"""The envelope of every message: who it is for, what it holds, and nothing executable.

    magic "SCAD" | version u16 | header length u32 | payload length u64 | header (JSON) | payload | SHA-256

Lengths are checked against limits before anything is read or parsed; the checksum finds damage (authenticity is
the transport's business). A file of chunks is a concatenation of envelopes.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, Literal

from securead import codec
from securead.errors import RejectMessageError

MAGIC = b"SCAD"
VERSION = 1
MAX_HEADER_BYTES = 16 << 10
MAX_CHUNKS = 1 << 20
_PREFIX = struct.Struct("<4sHIQ")
_REMEDY = "The message is damaged, truncated or not securead's: encrypt and send again."


@dataclass(frozen=True)
class Header:
    """What a message says about itself. `request` is random per request; `key` names the key that decrypts it."""

    kind: Literal["request", "answer"]
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
        if not (0 <= self.chunk < self.chunks <= MAX_CHUNKS and 1 <= self.rows <= 1 << 24):
            raise RejectMessageError("a message's counts are absurd", value=(self.chunk, self.chunks, self.rows))


@dataclass(frozen=True)
class Envelope:
    """One message: a header and an engine's payload."""

    header: Header
    payload: bytes

    def to_bytes(self) -> bytes:
        """The envelope as it travels."""
        header = json.dumps(codec.to_plain(self.header), separators=(",", ":")).encode()
        body = _PREFIX.pack(MAGIC, VERSION, len(header), len(self.payload)) + header + self.payload
        return body + hashlib.sha256(body).digest()


def new_request_id() -> str:
    """128 random bits, hex."""
    return secrets.token_hex(16)


def from_bytes(message: bytes, *, max_payload: int) -> Envelope:
    """Parse exactly one envelope, or raise `RejectMessageError`."""
    import io

    stream = io.BytesIO(message)
    envelope = read(stream, max_payload=max_payload)
    if envelope is None or stream.read(1):
        raise RejectMessageError("a message is empty or followed by other bytes", remedy=_REMEDY)
    return envelope


def read(stream: BinaryIO, *, max_payload: int) -> Envelope | None:
    """Read the next envelope, or None at the end. Never reads more than the limits allow."""
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
    if header_size > MAX_HEADER_BYTES or payload_size > max_payload:
        raise RejectMessageError("a message is too large", value=(header_size, payload_size), remedy=_REMEDY)
    rest = stream.read(header_size + payload_size + 32)
    if len(rest) < header_size + payload_size + 32:
        raise RejectMessageError("a message is truncated", remedy=_REMEDY)
    body, checksum = rest[:-32], rest[-32:]
    if hashlib.sha256(prefix + body).digest() != checksum:
        raise RejectMessageError("a message is damaged: its checksum differs", remedy=_REMEDY)
    try:
        header = codec.from_plain(Header, json.loads(body[:header_size]), where="message header")
    except RejectMessageError:
        raise
    except (ValueError, RecursionError) as error:  # not JSON, an endless integer, or `FixInputError`
        raise RejectMessageError(f"a message's header is ill-formed: {error}", remedy=_REMEDY) from error
    return Envelope(header, body[header_size:])


def read_all(stream: BinaryIO, *, max_payload: int) -> Iterator[Envelope]:
    """All envelopes of a file, in order, one in memory at a time."""
    while (envelope := read(stream, max_payload=max_payload)) is not None:
        yield envelope
