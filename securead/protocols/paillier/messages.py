"""Requests, answers, key files and the service's secret as bytes; lengths are exact functions of plan and rows."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from securead.errors import FixInputError, RejectMessageError, UseOtherKeyError
from securead.protocols.paillier.keys import PrivateKey
from securead.protocols.paillier.plan import HEAD_BYTES, NAME_BYTES, PREAMBLE_BYTES, SALT_BYTES, PaillierPlan
from securead.protocols.seal.keyfiles import KeyFiles

KEY_FILES = KeyFiles("paillier", mark="pai")
REMEDY = "The message is damaged or was made for something else: encrypt and send again."
SETUP_MAGIC = b"securead-paillier-setup-1\n".ljust(HEAD_BYTES, b"\0")
SECRET_MAGIC = b"securead-paillier-secret-1\n".ljust(HEAD_BYTES, b"\0")
_PREAMBLE = struct.Struct("<I32s")
PUBLISH_AGAIN = "Publish the model's tables again: securead publish BUNDLE --again."


@dataclass(frozen=True)
class Request:
    """`name`: SHA-256 of what the owner took entries from."""

    rows: int
    key_id: bytes
    name: bytes
    salt: bytes
    ciphertext: int

    def to_bytes(self, plan: PaillierPlan) -> bytes:
        """The payload."""
        number = self.ciphertext.to_bytes(2 * plan.residue_bytes, "little")
        return _PREAMBLE.pack(self.rows, self.key_id) + self.name + self.salt + number


@dataclass(frozen=True)
class Answer:
    """`low`: the low score_bits x rows bits of what was decrypted."""

    rows: int
    key_id: bytes
    salt: bytes
    low: int

    def to_bytes(self, plan: PaillierPlan) -> bytes:
        """The payload."""
        low = self.low.to_bytes(plan.answer_bytes(self.rows) - PREAMBLE_BYTES - SALT_BYTES, "little")
        return _PREAMBLE.pack(self.rows, self.key_id) + self.salt + low


def read_request(plan: PaillierPlan, payload: bytes) -> Request:
    """A request of exactly the right length, or `RejectMessageError`. Its ciphertext is not looked at."""
    rows, key_id = _preamble(plan, payload, "request")
    if len(payload) != plan.request_bytes:
        raise _length("request", payload, plan.request_bytes)
    at = PREAMBLE_BYTES + NAME_BYTES
    name, salt = payload[PREAMBLE_BYTES:at], payload[at : at + SALT_BYTES]
    return Request(rows, key_id, name, salt, int.from_bytes(payload[at + SALT_BYTES :], "little"))


def read_answer(plan: PaillierPlan, payload: bytes) -> Answer:
    """An answer of exactly the right length, or `RejectMessageError`."""
    rows, key_id = _preamble(plan, payload, "answer")
    if len(payload) != plan.answer_bytes(rows):
        raise _length("answer", payload, plan.answer_bytes(rows))
    at = PREAMBLE_BYTES + SALT_BYTES
    low = int.from_bytes(payload[at:], "little")
    if low >> plan.score_bits * rows:
        raise RejectMessageError("an answer's padding is not zero", remedy=REMEDY)
    return Answer(rows, key_id, payload[PREAMBLE_BYTES:at], low)


def _preamble(plan: PaillierPlan, payload: bytes, kind: str) -> tuple[int, bytes]:
    if len(payload) < PREAMBLE_BYTES:
        raise RejectMessageError(f"this is no {kind}", value=len(payload), remedy=REMEDY)
    rows, key_id = _PREAMBLE.unpack_from(payload)
    if not 1 <= rows <= plan.rows_per_chunk:
        raise RejectMessageError(f"a {kind} has an absurd number of rows", value=rows, remedy=REMEDY)
    return rows, key_id


def _length(kind: str, payload: bytes, expected: int) -> RejectMessageError:
    return RejectMessageError(f"a {kind} has another length than {expected} bytes", value=len(payload), remedy=REMEDY)


def secret_to_bytes(plan: PaillierPlan, name: bytes, key: PrivateKey) -> bytes:
    """The service's secret: which publication it belongs to, and the key's factors."""
    return SECRET_MAGIC + bytes.fromhex(plan.digest) + name + key.to_bytes()


def secret_from_bytes(plan: PaillierPlan, content: bytes) -> tuple[bytes, PrivateKey]:
    """Invert `secret_to_bytes`. `FixInputError` for what is none, `UseOtherKeyError` for another program's."""
    at = HEAD_BYTES + 2 * NAME_BYTES
    if len(content) != at + plan.residue_bytes or not content.startswith(SECRET_MAGIC):
        raise FixInputError("this is no secret of published tables", value=len(content), remedy=PUBLISH_AGAIN)
    if content[HEAD_BYTES : HEAD_BYTES + NAME_BYTES].hex() != plan.digest:
        raise UseOtherKeyError("the tables were published for another program or release", remedy=PUBLISH_AGAIN)
    key = PrivateKey.from_bytes(content[at:], where="the secret of published tables")
    return content[at - NAME_BYTES : at], key
