"""Requests, answers and public keys as bytes: residues packed to the width of their prime, nothing else.

Request and answer begin with `rows u32 | key id (32 bytes)`. Every length is an exact function of the plan, so a reader
compares the length and then parses; a residue that is not below its prime is refused before anything is computed. A
public key's content is its b and, for each digit, the first polynomial of its relinearisation key; the uniform halves
of both follow from the plan's digest.
"""

from __future__ import annotations

import functools
import struct

import numpy as np

from securead.data.schema import Array
from securead.errors import RejectMessageError
from securead.protocols.ckks.deep.plan import PREAMBLE_BYTES, DeepPlan
from securead.protocols.residues.expansion import uniform_residues
from securead.protocols.seal import packing
from securead.protocols.seal.keyfiles import KeyFiles
from securead.protocols.seal.objects import REMEDY

KEY_FILES = KeyFiles("ckks-deep", mark="deep")
_KEY_DOMAIN = "securead.protocols.ckks-deep.a.v1"
_PREAMBLE = struct.Struct("<I32s")


def preamble(rows: int, key_id: str) -> bytes:
    """What a request and an answer begin with."""
    return _PREAMBLE.pack(rows, bytes.fromhex(key_id))


def read_preamble(plan: DeepPlan, payload: bytes, kind: str) -> tuple[int, str]:
    """Rows and key id of a payload of exactly the right length, or `RejectMessageError`."""
    expected = plan.max_request_bytes if kind == "request" else plan.max_answer_bytes
    if len(payload) != expected:
        raise RejectMessageError(
            f"a {kind} has another length than {expected} bytes", value=len(payload), remedy=REMEDY
        )
    rows, key_id = _PREAMBLE.unpack_from(payload)
    if not 1 <= rows <= plan.rows_per_chunk:
        raise RejectMessageError(f"a {kind} has an absurd number of rows", value=rows, remedy=REMEDY)
    return rows, key_id.hex()


@functools.lru_cache(maxsize=2)
def uniform_halves(plan: DeepPlan) -> Array:
    """The uniform half of every public key of a plan, and of each digit of its relinearisation keys, in that order:
    residues uint64 `(polynomials, primes, N)` in NTT form, read-only.
    """
    halves = np.empty((plan.key_polynomials, len(plan.chain), plan.ring_dimension), dtype=np.uint64)
    for at, half in enumerate(halves.view(np.int64)):
        domain = f"{_KEY_DOMAIN}.{at}".encode() + b"\0"
        for index, (prime, row) in enumerate(zip(plan.chain, half, strict=True)):
            uniform_residues(domain, plan.digest, index, prime, plan.ring_dimension, out=row)
    halves.setflags(write=False)
    return halves


def pack_key(plan: DeepPlan, polynomials: Array) -> bytes:
    """A public key's content: uint64 `(key_polynomials, primes, N)`."""
    return packing.pack_residues(polynomials, plan.chain)


def read_key(plan: DeepPlan, content: bytes) -> Array:
    """Invert `pack_key`, or `RejectMessageError`: its length is wrong, or a residue is not below its prime."""
    expected = packing.residue_bytes(plan.ring_dimension, plan.chain) * plan.key_polynomials
    if len(content) != expected:
        raise RejectMessageError("a public key has another length than the plan's", value=len(content), remedy=REMEDY)
    words = packing.unpack_residues(content, plan.key_polynomials, plan.chain, plan.ring_dimension)
    largest = words.max(axis=(0, 2))
    if (largest >= np.array(plan.chain, dtype=np.uint64)).any():
        raise RejectMessageError("a residue is not below its prime", value=int(largest.max()), remedy=REMEDY)
    return words


def pack_answer(plan: DeepPlan, score: Array) -> bytes:
    """An answer's polynomials, residues int64 `(primes, polynomials, N)`."""
    return packing.pack_residues(score.swapaxes(0, 1).view(np.uint64), plan.data_primes[: plan.answer_primes])


def answer_residues(plan: DeepPlan, answer: bytes) -> Array:
    """Invert `pack_answer`: uint64 `(polynomials, primes, N)`, as SEAL orders them; SEAL refuses what is too large."""
    kept = plan.data_primes[: plan.answer_primes]
    return packing.unpack_residues(answer[PREAMBLE_BYTES:], plan.answer_size, kept, plan.ring_dimension)
