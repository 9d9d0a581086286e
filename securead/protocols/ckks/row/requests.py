"""A request's residues, as the service computes on them: unpacked, checked, and seeds expanded, in one pass each."""

from __future__ import annotations

import numpy as np

from securead.data.schema import Array
from securead.errors import RejectMessageError
from securead.protocols.ckks.row.plan import PREAMBLE_BYTES, SEED_BYTES, RowPlan
from securead.protocols.residues import blake2x, unpacking
from securead.protocols.seal import packing
from securead.protocols.seal.objects import REMEDY


def residues(plan: RowPlan, request: bytes, first: int, count: int) -> Array:
    """`count` ciphertexts of a request from number `first`, in coefficients: int64 `(primes, count, 2, N)`.

    `RejectMessageError` for a residue that is not below its prime, and for a ciphertext that is not encrypted. The
    payload has been through `messages.read_preamble`.
    """
    n, primes, seeded = plan.ring_dimension, plan.data_primes, plan.role == "same"
    words = np.empty((len(primes), 1, count, 2, n), np.int64)
    at = PREAMBLE_BYTES + first * plan.ciphertext_bytes
    for column in range(count):
        seed = request[at : at + SEED_BYTES] if seeded else b""
        at += len(seed)
        for polynomial in range(1 if seeded else 2):
            for index, prime in enumerate(primes):
                width = prime.bit_length()
                size = packing.packed_bytes(n, width)
                # Whole words, and one more that the last value does not reach.
                packed = np.frombuffer(request[at : at + size] + bytes(16 - size % 8), dtype="<u8")
                largest = unpacking.unpack(packed, width, words, index, column, polynomial)
                if largest >= prime:
                    raise RejectMessageError("a residue is not below its prime", value=largest, remedy=REMEDY)
                at += size
        if seeded:
            # SEAL draws the uniform half of a ciphertext of BFV in coefficients.
            blake2x.expand(seed, primes, words, column, 1)
        elif not words[:, 0, column, 1].any():
            raise RejectMessageError("a ciphertext is not encrypted", remedy=REMEDY)
    return words[:, 0]
