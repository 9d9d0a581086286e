"""What a user of TenSEAL would write for the same quadratic form: a `ckks_vector` a feature, its tutorials' parameters.

An honest peer: weights that are zero are skipped here too, and the client's and server's work are timed apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import tenseal as ts

RING_DIMENSION = 8192
PRIME_BITS = [60, 40, 40, 60]


@dataclass(frozen=True, eq=False)
class Peer:
    """A context with its secret key, and the form `|A z + b|^2`."""

    context: ts.Context
    matrix: np.ndarray
    offset: np.ndarray

    def encrypt(self, Z: np.ndarray) -> list[bytes]:
        """One serialised vector a feature, for floats `(rows, d)`."""
        return [ts.ckks_vector(self.context, column).serialize() for column in Z.T]

    def evaluate(self, request: list[bytes]) -> bytes:
        """The server: parse, score, serialise."""
        features = [ts.ckks_vector_from(self.context, vector) for vector in request]
        total = None
        for row, offset in zip(self.matrix, self.offset, strict=True):
            form = None
            for weight, feature in zip(row, features, strict=True):
                if weight:
                    form = feature * weight if form is None else form + feature * weight
            if form is None:
                continue
            form = form + offset
            form.square_()
            total = form if total is None else total + form
        return total.serialize()

    def decrypt(self, answer: bytes) -> np.ndarray:
        """Scores `(rows,)`."""
        return np.array(ts.ckks_vector_from(self.context, answer).decrypt())


def make_peer(matrix: np.ndarray, offset: np.ndarray) -> Peer:
    """Keys and parameters as TenSEAL's tutorials choose them."""
    context = ts.context(ts.SCHEME_TYPE.CKKS, RING_DIMENSION, coeff_mod_bit_sizes=PRIME_BITS)
    context.global_scale = 2**40
    return Peer(context, matrix, offset)
