"""Requests, answers and public keys as bytes: residues packed to the width of their prime, nothing else.

Request and answer begin with `rows u32 | key id (32 bytes)`. Their lengths are exact functions of plan and rows, so a
reader compares the length and then parses; whether residues are below their primes, SEAL checks when they are loaded.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np

from securead.data.schema import Array
from securead.errors import RejectMessageError
from securead.protocols.bfv import crs
from securead.protocols.bfv.context import context_for
from securead.protocols.bfv.plan import PREAMBLE_BYTES, SEED_BYTES, BfvPlan
from securead.protocols.seal import objects, packing, publickeys
from securead.protocols.seal.keyfiles import KeyFiles
from securead.protocols.seal.objects import REMEDY, Ciphertext

KEY_FILES = KeyFiles("bfv")
_PREAMBLE = struct.Struct("<I32s")


def preamble(rows: int, key_id: str) -> bytes:
    """What a request and an answer begin with."""
    return _PREAMBLE.pack(rows, bytes.fromhex(key_id))


def read_preamble(plan: BfvPlan, payload: bytes, kind: str) -> tuple[int, str]:
    """Rows and key id of a payload of exactly the right length, or `RejectMessageError`."""
    if len(payload) < PREAMBLE_BYTES:
        raise RejectMessageError(f"this is no {kind}", value=len(payload), remedy=REMEDY)
    rows, key_id = _PREAMBLE.unpack_from(payload)
    if not 1 <= rows <= plan.rows_per_chunk:
        raise RejectMessageError(f"a {kind} has an absurd number of rows", value=rows, remedy=REMEDY)
    expected = plan.request_bytes(rows) if kind == "request" else plan.answer_bytes(rows)
    if len(payload) != expected:
        raise RejectMessageError(
            f"a {kind} has another length than {expected} bytes", value=len(payload), remedy=REMEDY
        )
    return rows, key_id.hex()


def pack_ciphertext(plan: BfvPlan, value: Ciphertext) -> bytes:
    """A fresh ciphertext as it travels: its seed if it has one, then its polynomials, prime by prime."""
    words, seed = objects.residues(value)
    return seed + packing.pack_residues(words, plan.data_primes)


def ciphertexts(plan: BfvPlan, request: bytes) -> Iterator[Ciphertext]:
    """The request's ciphertexts, each loaded when it is its turn; `RejectMessageError` for one that is none."""
    context = context_for(plan)
    level, size = context.first_parms_id(), plan.ciphertext_bytes
    polynomials, seed_bytes = (1, SEED_BYTES) if plan.role == "same" else (2, 0)
    for at in range(PREAMBLE_BYTES, len(request), size):
        seed, body = request[at : at + seed_bytes], request[at + seed_bytes : at + size]
        words = packing.unpack_residues(body, polynomials, plan.data_primes, plan.ring_dimension)
        yield objects.encrypted_from_residues(context, level, words, ntt=False, seed=seed)


def pack_group(plan: BfvPlan, words: Array, kept: Array) -> bytes:
    """A group's part of the answer: c1 whole, and the kept coefficients of c0; residues `(2, 1, N)`."""
    width = plan.data_primes[0].bit_length()
    return packing.pack(words[1, 0], width) + packing.pack(words[0, 0, kept], width)


def groups(plan: BfvPlan, answer: bytes, rows: int) -> Iterator[tuple[Array, Array, Array]]:
    """For each group of an answer: c1 `(N,)`, the kept coefficients of c0 and where they stand, `(rows,)` each."""
    n, width = plan.ring_dimension, plan.data_primes[0].bit_length()
    at, polynomial = PREAMBLE_BYTES, packing.packed_bytes(n, width)
    for group in plan.groups(rows):
        after = at + polynomial + packing.packed_bytes(group.rows, width)
        c1 = packing.unpack(answer[at : at + polynomial], n, width)
        kept = packing.unpack(answer[at + polynomial : after], group.rows, width)
        yield c1, kept, np.arange(group.rows) * group.layout.stride(n)
        at = after


def pack_public_key(plan: BfvPlan, b: Array) -> bytes:
    """A public key's content: its half that is not uniform, residues `(primes, N)`."""
    return packing.pack_residues(b[None], plan.chain)


def unpack_public_key(plan: BfvPlan, content: bytes) -> object:
    """SEAL's public key (b, a), or `RejectMessageError`: its length is wrong, or a residue is not below its prime."""
    return publickeys.unpack(context_for(plan), plan.chain, crs.uniform_half(plan), content)
