"""What a user of TenSEAL would write for batches of a deeper network of squares: a `ckks_vector` a feature, one slot a
record, a level for each linear layer and for each square.

An honest peer: weights that are zero are skipped here too, and its parameters are the smallest that carry eight levels
at 128 bits by the standard of 2018.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tenseal as ts

RING_DIMENSION = 16384
PRIME_BITS = [50, *[38] * 8, 50]


@dataclass(frozen=True, eq=False)
class DeepPeer:
    """A context with its secret key, the server's without, and weights `(out, in)` and offsets of each layer."""

    context: ts.Context
    server: ts.Context
    layers: tuple[tuple[np.ndarray, np.ndarray], ...]
    rows = RING_DIMENSION // 2

    def encrypt(self, Z: np.ndarray) -> list[bytes]:
        """One serialised vector a feature, for floats `(rows, d)`."""
        return [ts.ckks_vector(self.context, column).serialize() for column in Z.T]

    def evaluate(self, request: list[bytes]) -> bytes:
        """The server: parse, score `|z - D h - c|^2` with h of squares of squares, serialise."""
        features = [ts.ckks_vector_from(self.server, vector) for vector in request]
        *hidden, (decode, center) = self.layers
        values = features
        for weight, offset in hidden:
            units = [_weighted(row, values) + float(bias) for row, bias in zip(weight, offset, strict=True)]
            for unit in units:
                unit.square_()
            values = units
        total = None
        for row, bias, feature in zip(decode, center, features, strict=True):
            gap = _weighted(row, values) + float(bias) - feature
            gap.square_()
            total = gap if total is None else total + gap
        return total.serialize()

    def decrypt(self, answer: bytes) -> np.ndarray:
        """Scores `(rows,)`."""
        return np.array(ts.ckks_vector_from(self.context, answer).decrypt())


def _weighted(row: np.ndarray, vectors: list[ts.CKKSVector]) -> ts.CKKSVector:
    total = None
    for weight, vector in zip(row, vectors, strict=True):
        if weight:
            total = vector * float(weight) if total is None else total + vector * float(weight)
    return total


def make_peer(layers: tuple[tuple[np.ndarray, np.ndarray], ...]) -> DeepPeer:
    """Keys and parameters for eight multiplications in a row."""
    context = ts.context(ts.SCHEME_TYPE.CKKS, RING_DIMENSION, coeff_mod_bit_sizes=PRIME_BITS)
    context.global_scale = 2**38
    server = ts.context_from(context.serialize(save_secret_key=False))
    return DeepPeer(context, server, layers)
