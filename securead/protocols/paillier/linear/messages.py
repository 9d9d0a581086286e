"""Requests and answers: rows u32, key id (32), then ciphertexts of 768 bytes, little-endian; and key files."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

from securead.errors import RejectMessageError
from securead.protocols.paillier import moduli
from securead.protocols.paillier.keys import check_modulus
from securead.protocols.paillier.linear.plan import LinearPlan
from securead.protocols.paillier.messages import REMEDY
from securead.protocols.paillier.plan import PREAMBLE_BYTES
from securead.protocols.paillier.powers import whole
from securead.protocols.seal.keyfiles import KeyFiles

KEY_FILES = KeyFiles("paillier-linear", mark="pail")
_PREAMBLE = struct.Struct("<I32s")


def pack(plan: LinearPlan, rows: int, key_id: str, ciphertexts: Sequence[Any]) -> bytes:
    """A request or an answer."""
    numbers = (int(ciphertext).to_bytes(2 * plan.residue_bytes, "little") for ciphertext in ciphertexts)
    return _PREAMBLE.pack(rows, bytes.fromhex(key_id)) + b"".join(numbers)


def unpack(plan: LinearPlan, payload: bytes, kind: str) -> tuple[int, str, list[Any]]:
    """Rows, key id and ciphertexts of a payload of exactly the right length, or `RejectMessageError`.

    Whether ciphertexts are units, who knows the modulus has to check.
    """
    expected = plan.request_bytes if kind == "request" else plan.max_answer_bytes
    if len(payload) != expected:
        raise RejectMessageError(
            f"a {kind} has another length than {expected} bytes", value=len(payload), remedy=REMEDY
        )
    rows, key_id = _PREAMBLE.unpack_from(payload)
    if not 1 <= rows <= plan.rows_per_chunk:
        raise RejectMessageError(f"a {kind} has an absurd number of rows", value=rows, remedy=REMEDY)
    size = 2 * plan.residue_bytes
    starts = range(PREAMBLE_BYTES, len(payload), size)
    return rows, key_id.hex(), [whole(int.from_bytes(payload[at : at + size], "little")) for at in starts]


def modulus(plan: LinearPlan, content: bytes) -> int:
    """The modulus of a public key's content, shown to be one; `RejectMessageError` or `UseOtherKeyError` otherwise."""
    if len(content) != plan.public_key_bytes:
        raise RejectMessageError("a public key has another length", value=len(content), remedy=REMEDY)
    size = plan.residue_bytes
    n, *roots = (int.from_bytes(content[at : at + size], "little") for at in range(0, len(content), size))
    moduli.check_permutation(plan.digest, check_modulus(n, where="public key"), roots)
    return n
