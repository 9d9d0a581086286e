"""Key files of the engines on SEAL: kind (24 bytes), plan digest (32), key id (32), SHA-256 of the rest (32), the rest.

The key id is SHA-256 over a domain string, the plan's digest and the public key's content, so that a public key cannot
be passed off under another's id. Nothing here looks into a key.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from dataclasses import dataclass
from typing import Literal

from securead.errors import FixInputError, UseOtherKeyError

OTHER_KEY = "Use the key directory that was made for this model and role, or make a new one."
_REMEDY = "The file is damaged or foreign: restore it, or make new keys."
_KIND_BYTES = 24
_FIELDS = struct.Struct(f"<{_KIND_BYTES}s32s32s32s")
PREFIX_BYTES = _FIELDS.size


@dataclass(frozen=True)
class KeyFiles:
    """The key files of one engine. `mark`: what they begin with, five letters at most; by default the engine's name."""

    engine: str
    mark: str = ""

    def __post_init__(self) -> None:
        if len(self._magic("secret")) != _KIND_BYTES:
            raise ValueError(f"the files of the engine {self.engine!r} need a mark of five letters at most")

    def key_id(self, plan_digest: str, public: bytes) -> str:
        """The name of a key pair, hex."""
        domain = f"securead.protocols.{self.engine}.key.v1\0".encode()
        return hashlib.sha256(domain + bytes.fromhex(plan_digest) + public).hexdigest()

    def write(self, kind: Literal["secret", "public"], plan_digest: str, key_id: str, content: bytes) -> bytes:
        """A key file."""
        names = bytes.fromhex(plan_digest), bytes.fromhex(key_id)
        return _FIELDS.pack(self._magic(kind), *names, hashlib.sha256(content).digest()) + content

    def read(
        self, kind: Literal["secret", "public"], plan_digest: str, file: bytes, *, limit: int
    ) -> tuple[str, bytes]:
        """The key id and content of a key file whose content has at most `limit` bytes.

        `UseOtherKeyError` for the other file of a pair or a key of another plan; `FixInputError` for a file that is
        damaged or no key, and for a public key that does not have the name that it bears.
        """
        found, plan, key_id, checksum = _FIELDS.unpack_from(file.ljust(_FIELDS.size, b"\0"))
        if found in (self._magic("secret"), self._magic("public")) and found != self._magic(kind):
            raise UseOtherKeyError(f"this is not a {kind} key", remedy="Give the other file of the pair.")
        if found != self._magic(kind) or len(file) <= _FIELDS.size:
            raise FixInputError(f"this is no {kind} key of the engine {self.engine!r}", remedy=_REMEDY)
        same_plan(plan_digest, plan.hex())
        content = file[_FIELDS.size :]
        if len(content) > limit or not hmac.compare_digest(hashlib.sha256(content).digest(), checksum):
            raise FixInputError(f"a {kind} key is damaged: its checksum differs", remedy=_REMEDY)
        if kind == "public" and self.key_id(plan_digest, content) != key_id.hex():
            raise FixInputError("a public key does not have the name that it bears", remedy="The file was changed.")
        return key_id.hex(), content

    def _magic(self, kind: str) -> bytes:
        return f"securead-{self.mark or self.engine}-{kind}-1\n".encode().ljust(_KIND_BYTES, b"\0")


def same_plan(expected: str, found: str) -> None:
    """Raise `UseOtherKeyError` unless a key's plan digest is this plan's."""
    if found != expected:
        raise UseOtherKeyError(
            "the key was made for another model, role or release", value=found[:16], remedy=OTHER_KEY
        )
