"""What sites say about themselves and sign, as values and as the one byte string of each (SPEC.md, section 3).

Guarantee: different statements are different bytes. Each begins with a label of its kind, and every part bears its
length, so that no statement is another one's beginning or reads as one of another kind.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from securead.errors import RejectMessageError

LABEL = "securead.protocols.masking.{}.v1\0"
KEY_BYTES = 32
MAX_RUN_BYTES = MAX_NAME_BYTES = 255
_MAX_CREDENTIAL_BYTES, _MAX_SIGNATURE_BYTES = 4096, 128
_PART = struct.Struct("<I")
_NUMBER = struct.Struct("<Q")


@dataclass(frozen=True)
class Advert:
    """A site's public key of one run, under its signature.

    `key`: X25519, `credential`: what the signature is verified with (`identity`); both and the signature in lower-case
    hex.
    """

    name: str
    run: str
    key: str
    credential: str
    signature: str

    @property
    def key_bytes(self) -> bytes:
        """The key. Raises `RejectMessageError` unless it is 32 bytes."""
        found = from_hex(self.key, KEY_BYTES, f"the key of {self.name[:80]!r}")
        if len(found) != KEY_BYTES:
            raise RejectMessageError(f"the key of {self.name[:80]!r} is not {KEY_BYTES} bytes", value=len(found))
        return found

    @property
    def credential_bytes(self) -> bytes:
        """The credential, at most 4,096 bytes."""
        return from_hex(self.credential, _MAX_CREDENTIAL_BYTES, f"the credential of {self.name[:80]!r}")

    @property
    def signature_bytes(self) -> bytes:
        """The signature, at most 128 bytes."""
        return from_hex(self.signature, _MAX_SIGNATURE_BYTES, f"the signature of {self.name[:80]!r}")

    @property
    def statement(self) -> bytes:
        """What is signed: run, name and key."""
        return statement("advert", self.run, self.name, self.key_bytes)


def statement(kind: str, *parts: bytes | str | int) -> bytes:
    """The label of the kind, then every part behind its length: text as UTF-8, numbers as 8 bytes, little-endian."""
    content = [LABEL.format(kind).encode()]
    for part in parts:
        raw = part if isinstance(part, bytes) else _NUMBER.pack(part) if isinstance(part, int) else part.encode()
        content += [_PART.pack(len(raw)), raw]
    return b"".join(content)


def set_hash(run: str, round: int, attempt: int, participants: Sequence[tuple[str, bytes]]) -> bytes:
    """SHA-256 of who takes part in one attempt: names with their X25519 keys, sorted by name, and run and numbers."""
    parts = [part for member in sorted(participants) for part in member]
    return hashlib.sha256(statement("set", run, round, attempt, len(participants), *parts)).digest()


def agreement(run: str, round: int, attempt: int, set_hash: bytes) -> bytes:
    """What every participant of an attempt signs."""
    return statement("agreement", run, round, attempt, set_hash)


def check_text(text: str, limit: int, what: str) -> None:
    """Raise `RejectMessageError` unless `text` has 1 to `limit` bytes."""
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        size = 0
    if not 1 <= size <= limit:
        raise RejectMessageError(f"{what} is 1 to {limit} bytes of UTF-8", value=text[:80], remedy="Shorten it.")


def from_hex(text: str, limit: int, what: str) -> bytes:
    """Bytes of exactly their lower-case hex; raises `RejectMessageError` for anything else or more than `limit`."""
    try:
        found = bytes.fromhex(text) if len(text) <= 2 * limit else None
    except ValueError:
        found = None
    if found is None or found.hex() != text:
        raise RejectMessageError(f"{what} is no hex of at most {limit} bytes", value=text[:80])
    return found
