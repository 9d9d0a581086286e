"""Requests, answers and public keys as bytes: residues packed to the width of their prime, nothing else.

Request and answer begin with `rows u32 | key id (32 bytes)`. Their lengths are exact functions of plan and rows, so a
reader compares the length and then parses. Residues are compared with their primes: of requests by `requests`, of
answers and keys by SEAL when they are loaded.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np

from securead.data.schema import Array
from securead.errors import RejectMessageError
from securead.protocols.bfv.layouts import Group
from securead.protocols.ckks.row.context import context_for
from securead.protocols.ckks.row.plan import PREAMBLE_BYTES, RowPlan
from securead.protocols.seal import packing, publickeys
from securead.protocols.seal.keyfiles import KeyFiles
from securead.protocols.seal.objects import REMEDY

KEY_FILES = KeyFiles("ckks-row", mark="row")
KEY_DOMAIN = b"securead.protocols.ckks-row.a.v1\0"
_PREAMBLE = struct.Struct("<I32s")


def preamble(rows: int, key_id: str) -> bytes:
    """What a request and an answer begin with."""
    return _PREAMBLE.pack(rows, bytes.fromhex(key_id))


def read_preamble(plan: RowPlan, payload: bytes, kind: str) -> tuple[int, str]:
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


def uniform_half(plan: RowPlan) -> Array:
    """The `a` of every public key of a plan, residues uint64 `(primes, N)` in SEAL's transformed order."""
    return publickeys.uniform_half(KEY_DOMAIN, plan.digest, plan.chain, plan.ring_dimension)


def pack_ciphertext(plan: RowPlan, words: Array, seed: bytes) -> bytes:
    """A ciphertext as it travels: its seed if it has one, then residues uint64 `(polynomials, primes, N)`."""
    return seed + packing.pack_residues(words, plan.data_primes)


def pack_group(plan: RowPlan, c0: Array, c1: Array) -> bytes:
    """A group's part of an answer: c1 `(primes, N)`, then the kept coefficients of c0 `(primes, rows)`."""
    return packing.pack_residues(c1[None], plan.kept_primes) + packing.pack_residues(c0[None], plan.kept_primes)


def group_places(plan: RowPlan, group: Group) -> Array:
    """The coefficients that are the scores of a group's rows."""
    return np.arange(group.rows) * group.layout.stride(plan.ring_dimension)


def groups(plan: RowPlan, answer: bytes, rows: int) -> Iterator[tuple[Array, Array]]:
    """For each group of an answer, the ciphertext `(2, primes, N)`, 0 where c0 was not sent; and its scores' places."""
    n, kept, at = plan.ring_dimension, plan.kept_primes, PREAMBLE_BYTES
    polynomial = packing.residue_bytes(n, kept)
    for group in plan.groups(rows):
        after = at + plan.group_bytes(group.rows)
        words, places = np.zeros((2, len(kept), n), dtype=np.uint64), group_places(plan, group)
        words[1] = packing.unpack_residues(answer[at : at + polynomial], 1, kept, n)[0]
        words[0][:, places] = packing.unpack_residues(answer[at + polynomial : after], 1, kept, group.rows)[0]
        yield words, places
        at = after


def unpack_public_key(plan: RowPlan, content: bytes) -> object:
    """SEAL's public key (b, a), or `RejectMessageError`: its length is wrong, or a residue is not below its prime."""
    return publickeys.unpack(context_for(plan), plan.chain, uniform_half(plan), content)
