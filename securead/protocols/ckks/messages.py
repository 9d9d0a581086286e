"""Requests, answers and public keys as bytes: residues packed to the width of their prime, nothing else. `requests` has
the service's reader of requests.

Request and answer begin with `rows u32 | key id (32 bytes)`. Every length is an exact function of the plan, so a reader
compares the length and then parses; a residue that is not below its prime is refused before anything is computed.
"""

from __future__ import annotations

import struct

import numpy as np

from securead.data.schema import Array
from securead.errors import RejectMessageError
from securead.protocols.ckks.plan import PREAMBLE_BYTES, CkksPlan
from securead.protocols.seal import packing, publickeys
from securead.protocols.seal.keyfiles import KeyFiles
from securead.protocols.seal.objects import REMEDY

KEY_FILES = KeyFiles("ckks")
KEY_DOMAIN = b"securead.protocols.ckks.a.v1\0"
_PREAMBLE = struct.Struct("<I32s")


def preamble(rows: int, key_id: str) -> bytes:
    """What a request and an answer begin with."""
    return _PREAMBLE.pack(rows, bytes.fromhex(key_id))


def read_preamble(plan: CkksPlan, payload: bytes, kind: str) -> tuple[int, str]:
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


def uniform_half(plan: CkksPlan) -> Array:
    """The `a` of every public key of a plan, residues uint64 `(primes, N)` in NTT form."""
    return publickeys.uniform_half(KEY_DOMAIN, plan.digest, plan.chain, plan.ring_dimension)


def column(plan: CkksPlan, polynomials: Array, seed: bytes) -> list[bytes | memoryview]:
    """One ciphertext of a request, in parts: its seed if it has one, and residues uint64 `(polynomials, primes, N)`."""
    return [seed, *packing.packed_residues(polynomials, plan.data_primes)]


def pack_answer(plan: CkksPlan, score: Array) -> bytes:
    """An answer's polynomials, residues int64 `(primes, polynomials, N)`."""
    return packing.pack_residues(score.swapaxes(0, 1).view(np.uint64), plan.data_primes[: plan.answer_primes])


def answer_residues(plan: CkksPlan, answer: bytes) -> Array:
    """Invert `pack_answer`: uint64 `(polynomials, primes, N)`, as SEAL orders them; SEAL refuses what is too large."""
    kept = plan.data_primes[: plan.answer_primes]
    return packing.unpack_residues(answer[PREAMBLE_BYTES:], plan.answer_size, kept, plan.ring_dimension)
