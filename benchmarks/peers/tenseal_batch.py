"""What a user of TenSEAL would write for batches: a `ckks_vector` a feature, one slot a record, tutorial parameters.

Honest peers: weights that are zero are skipped here too, the client's and server's work can be timed apart, and the
autoencoder's parameters are those that were faster a row (the smaller ring, with primes of 32 bits, took 1.2 times as
long and was a hundred times less accurate).
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


@dataclass(frozen=True, eq=False)
class AutoencoderPeer:
    """A context with its secret key, the server's without, and the score `|z - D (E z + b)^2 - c|^2`.

    The first `linear` units are not squared.
    """

    context: ts.Context
    server: ts.Context
    layers: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
    linear: int = 0
    rows = 8192

    def encrypt(self, Z: np.ndarray) -> list[bytes]:
        """One serialised vector a feature, for floats `(rows, d)`."""
        return [ts.ckks_vector(self.context, column).serialize() for column in Z.T]

    def evaluate(self, request: list[bytes]) -> bytes:
        """The server: parse, score, serialise."""
        E, b, D, c = self.layers
        features = [ts.ckks_vector_from(self.server, vector) for vector in request]
        hidden = []
        for row, offset in zip(E, b, strict=True):
            unit = _weighted(row, features) + offset
            if len(hidden) >= self.linear:
                unit.square_()
            hidden.append(unit)
        total = None
        for row, offset, feature in zip(D, c, features, strict=True):
            gap = _weighted(row, hidden) + offset - feature
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
            total = vector * weight if total is None else total + vector * weight
    return total


def make_autoencoder_peer(*layers: np.ndarray, linear: int = 0) -> AutoencoderPeer:
    """Keys and parameters for four multiplications in a row; `layers` are E, b, D and c."""
    context = ts.context(ts.SCHEME_TYPE.CKKS, 16384, coeff_mod_bit_sizes=[60, 40, 40, 40, 40, 60])
    context.global_scale = 2**40
    server = ts.context_from(context.serialize(save_secret_key=False))
    return AutoencoderPeer(context, server, tuple(layers), linear)
