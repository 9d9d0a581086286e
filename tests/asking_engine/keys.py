"""What both halves know of a public key: its bytes, its name, the mask that it gives."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from asking_engine.plan import KEY_BYTES, AskingPlan
from securead.errors import RejectMessageError

MAGIC = b"asking-public-1\n"


@dataclass(frozen=True)
class PublicKey:
    """`material` is random; `key_id` is its digest together with the plan's, so that keys cannot be exchanged."""

    plan_digest: str
    material: bytes

    @property
    def key_id(self) -> str:
        return hashlib.sha256(bytes.fromhex(self.plan_digest) + self.material).hexdigest()

    def to_bytes(self) -> bytes:
        checksum = hashlib.sha256(self.material).digest()
        return MAGIC + bytes.fromhex(self.plan_digest) + checksum + self.material

    def mask(self, nonce: bytes, rows: int) -> np.ndarray:
        stream = hashlib.shake_256(self.material + nonce).digest(8 * rows)
        return np.frombuffer(stream, dtype="<u8")


def read(plan: AskingPlan, content: bytes) -> PublicKey:
    start = len(MAGIC)
    material = content[start + 64 :]
    sound = content.startswith(MAGIC) and len(material) == KEY_BYTES
    if not sound or hashlib.sha256(material).digest() != content[start + 32 : start + 64]:
        raise RejectMessageError("the key is damaged", remedy="Send it again.")
    if content[start : start + 32].hex() != plan.digest:
        raise RejectMessageError("the key was made for another plan", remedy="Send the right one.")
    return PublicKey(plan.digest, material)
