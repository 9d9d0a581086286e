"""Interval arithmetic over a program, from the encoder's public bounds and the secret weights.

Overflow is decided when a program is made, not when it runs: every intermediate value carries a proven bound, and
the same computation re-checks a program that was read from a file.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping

import numpy as np

from securead.data.schema import Array
from securead.errors import FixInputError
from securead.program.polynomial import (
    Affine,
    Input,
    Product,
    PublicPolynomial,
    Relu,
    SecretPolynomial,
    Step,
    Truncate,
    Weights,
)

Interval = tuple[Array, Array]


def bits_for(magnitude: int) -> int:
    """The smallest b with magnitude <= 2**b."""
    return max(0, (int(magnitude) - 1).bit_length()) if magnitude > 0 else 0


def magnitude(interval: Interval) -> int:
    """The largest absolute value in an interval of Python integers."""
    low, high = interval
    return max(abs(int(low.min())), abs(int(high.max())))


def step_interval(step: Step, known: list[Interval], bound: int, weights: Weights | None) -> Interval:
    """The interval of one step, `(low, high)` object arrays, given those of all earlier steps.

    Raises `FixInputError` for an affine step without weights.
    """
    match step:
        case Input():
            edge = np.full(step.width, bound, dtype=object)
            return -edge, edge
        case Affine():
            if weights is None:
                raise FixInputError("an affine step has no weights", where="program")
            low = high = weights.offset.astype(object)
            for source, matrix in zip(step.sources, weights.matrices, strict=True):
                positive = np.maximum(matrix, 0).astype(object)
                negative = np.minimum(matrix, 0).astype(object)
                source_low, source_high = known[source]
                low = low + positive.dot(source_low) + negative.dot(source_high)
                high = high + positive.dot(source_high) + negative.dot(source_low)
            return low, high
        case Product():
            (a, b), (c, d) = known[step.left], known[step.right]
            corners = np.stack([a * c, a * d, b * c, b * d])
            low, high = corners.min(axis=0), corners.max(axis=0)
            return (np.maximum(low, 0), high) if step.left == step.right else (low, high)
        case Relu():
            low, high = known[step.source]
            return np.maximum(low, 0), np.maximum(high, 0)
        case Truncate():
            low, high = known[step.source]
            return (low >> step.shift) - 1, (high >> step.shift) + 1  # an engine may be off by a unit


def row_sum(matrix: Array) -> int:
    """The largest row sum of absolute weights."""
    return int(np.abs(matrix).astype(object).sum(axis=1).max(initial=0))


def commit(weights: Mapping[int, Weights], key: bytes) -> str:
    """HMAC-SHA256 of all weights in a fixed order and width: binding, and hiding under a random 32-byte key."""
    mac = hmac.new(key, b"securead.program.weights.v1", hashlib.sha256)
    for at in sorted(weights):
        for array in (*weights[at].matrices, weights[at].offset):
            shape = ",".join(map(str, array.shape))
            mac.update(f"|{at}:{shape}:".encode())
            mac.update(b";".join(str(int(v)).encode() for v in array.ravel()))
    return mac.hexdigest()


def check_weights(public: PublicPolynomial, secret: SecretPolynomial) -> None:
    """Raise `FixInputError` unless the secret half has the public half's shape, ranges and commitment."""

    def require(condition: bool, what: str, value: object) -> None:
        if not condition:
            raise FixInputError(
                what, where="program", value=value, remedy="The halves do not belong together, or are damaged."
            )

    affine = {at: step for at, step in enumerate(public.steps) if isinstance(step, Affine)}
    require(set(secret.weights) == set(affine), "the secret half has other affine steps", sorted(secret.weights))
    known: list[Interval] = []
    for at, step in enumerate(public.steps):
        weights = secret.weights.get(at)
        if isinstance(step, Affine) and weights is not None:
            shapes = tuple((step.width, public.steps[s].width) for s in step.sources)
            require(tuple(m.shape for m in weights.matrices) == shapes, "weights of the wrong shape", at)
            require(weights.offset.shape == (step.width,), "an offset of the wrong shape", at)
            gains = tuple(bits_for(row_sum(m)) for m in weights.matrices)
            require(gains == step.gain_bits, "weights beyond the declared gain", at)
            require(bits_for(magnitude((weights.offset, weights.offset))) <= step.offset_bits, "offset too large", at)
        known.append(step_interval(step, known, public.encoder.bound, weights))
        require(bits_for(magnitude(known[-1])) <= step.bound_bits, "a step beyond its declared bound", at)
    total = magnitude(known[-1]) + sum(term.bound(public.encoder) for term in public.public_terms)
    require(bits_for(total) <= public.score_bits, "a score beyond its declared bound", public.score_bits)
    commitment = commit(secret.weights, secret.commitment_key)
    require(hmac.compare_digest(commitment, public.commitment), "the commitment does not match", public.commitment)
