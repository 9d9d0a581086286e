"""A request's residues, as the service computes on them: unpacked, checked, and seeds expanded, in one pass each."""

from __future__ import annotations

import numpy as np

from securead.data.schema import Array
from securead.errors import RejectMessageError
from securead.protocols.ckks.deep.plan import PREAMBLE_BYTES, SEED_BYTES, DeepPlan
from securead.protocols.residues import blake2x, unpacking
from securead.protocols.seal import packing
from securead.protocols.seal.objects import REMEDY


def columns(plan: DeepPlan, request: bytes) -> Array:
    """A request's residues int64 `(primes, columns, 2, N)`, or `RejectMessageError`.

    The payload has been through `messages.read_preamble`.
    """
    n, primes = plan.ring_dimension, plan.data_primes
    residues = np.empty((len(primes), 1, plan.columns, 2, n), np.int64)
    at = PREAMBLE_BYTES
    for column in range(plan.columns):
        seed = request[at : at + SEED_BYTES] if plan.role == "same" else b""
        at += len(seed)
        for polynomial in range(1 if seed else 2):
            for index, prime in enumerate(primes):
                width = prime.bit_length()
                size = packing.packed_bytes(n, width)
                # Whole words, and one more that the last value does not reach.
                words = np.frombuffer(request[at : at + size] + bytes(16 - size % 8), dtype="<u8")
                largest = unpacking.unpack(words, width, residues, index, column, polynomial)
                if largest >= prime:
                    raise RejectMessageError("a residue is not below its prime", value=largest, remedy=REMEDY)
                at += size
        if seed:
            blake2x.expand(seed, primes, residues, column, 1)
    return residues[:, 0]
