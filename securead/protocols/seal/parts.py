"""Payloads of several SEAL files: `count u32 | count times (length u32 | one file)`."""

from __future__ import annotations

import struct

from securead.errors import RejectMessageError
from securead.protocols.seal.objects import REMEDY

_COUNT = struct.Struct("<I")


def pack(parts: list[bytes]) -> bytes:
    """A payload of these parts."""
    return b"".join((_COUNT.pack(len(parts)), *(piece for part in parts for piece in (_COUNT.pack(len(part)), part))))


def unpack(payload: bytes, *, count: int, limit: int) -> list[bytes]:
    """The parts of a payload: exactly `count`, each of 1 to `limit` bytes, and nothing after them."""
    if len(payload) < _COUNT.size or _COUNT.unpack_from(payload)[0] != count:
        raise RejectMessageError(f"a payload does not hold {count} ciphertexts", value=len(payload), remedy=REMEDY)
    parts, at = [], _COUNT.size
    for _ in range(count):
        if at + _COUNT.size > len(payload):
            raise RejectMessageError("a payload is truncated", value=len(payload), remedy=REMEDY)
        (length,) = _COUNT.unpack_from(payload, at)
        at += _COUNT.size
        if not 1 <= length <= min(limit, len(payload) - at):
            raise RejectMessageError("a ciphertext is truncated or too large", value=length, remedy=REMEDY)
        parts.append(payload[at : at + length])
        at += length
    if at != len(payload):
        raise RejectMessageError("a payload is followed by other bytes", value=len(payload) - at, remedy=REMEDY)
    return parts
