"""What a user of TenSEAL would write for one record at a time: a `ckks_vector` a record, as its tutorials do.

A matrix product of TenSEAL's is as many rotations as there are columns, so it takes Galois keys, besides the keys for
relinearisation that every square needs. An honest peer: the smallest ring that carries four multiplications in a row,
the matrices as plain lists made once, the server without the secret key.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tenseal as ts

RING_DIMENSION = 8192
PRIME_BITS = [40, 32, 32, 32, 32, 40]
Matrix = list[list[float]]


@dataclass(frozen=True, eq=False)
class Peer:
    """A context with its secret key, the server's without, and the score `|z - D (E z + b)^2 - c|^2`."""

    context: ts.Context
    server: ts.Context
    encoder: Matrix
    encoder_offset: list[float]
    decoder: Matrix
    decoder_offset: list[float]

    def encrypt(self, z: np.ndarray) -> bytes:
        """One serialised vector for one record, floats `(d,)`."""
        return ts.ckks_vector(self.context, z).serialize()

    def evaluate(self, request: bytes) -> bytes:
        """The server: parse, score, serialise."""
        record = ts.ckks_vector_from(self.server, request)
        hidden = record.mm(self.encoder) + self.encoder_offset
        hidden.square_()
        gap = hidden.mm(self.decoder) + self.decoder_offset - record
        gap.square_()
        return gap.sum().serialize()

    def decrypt(self, answer: bytes) -> float:
        """The score."""
        return float(ts.ckks_vector_from(self.context, answer).decrypt()[0])


def make_peer(E: np.ndarray, b: np.ndarray, D: np.ndarray, c: np.ndarray) -> Peer:
    """Keys and parameters for four multiplications in a row."""
    context = ts.context(ts.SCHEME_TYPE.CKKS, RING_DIMENSION, coeff_mod_bit_sizes=PRIME_BITS)
    context.global_scale = 2 ** PRIME_BITS[1]
    context.generate_galois_keys()
    server = ts.context_from(context.serialize(save_secret_key=False))
    return Peer(context, server, E.T.tolist(), b.tolist(), D.T.tolist(), c.tolist())
