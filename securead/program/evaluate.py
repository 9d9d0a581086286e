"""Exact integer evaluation in the clear: the oracle that every engine is compared with.

int64 where the proven ranges allow it, Python integers where they do not; never floating point.
"""

from __future__ import annotations

import numpy as np

from securead.data.schema import Array
from securead.program.polynomial import Affine, Input, Product, PublicPolynomial, Relu, SecretPolynomial, Truncate

_CHUNK = 8192
_INT64_BITS = 62


def evaluate(public: PublicPolynomial, secret: SecretPolynomial, Z: Array) -> Array:
    """Integer scores `(n,)`, dtype object, of encoded records `(n, width)`.

    Raises `FixInputError` for a wrong shape, a non-integer array or a value beyond the encoder's bound.
    """
    Z = public.encoder.encoded(Z)
    parts = [_evaluate_chunk(public, secret, Z[i : i + _CHUNK]) for i in range(0, len(Z), _CHUNK)]
    return np.concatenate(parts) if parts else np.empty(0, dtype=object)


def _evaluate_chunk(public: PublicPolynomial, secret: SecretPolynomial, Z: Array) -> Array:
    values = list[Array]()
    for at, step in enumerate(public.steps):
        match step:
            case Input():
                values.append(Z)
            case Affine():
                weights = secret.weights[at]
                # A partial sum can exceed the bound of the whole sum, never the sum of its terms' bounds.
                terms = [public.steps[s].bound_bits + g for s, g in zip(step.sources, step.gain_bits, strict=True)]
                bits = max(*terms, step.offset_bits) + len(terms)
                total = _as(weights.offset[None, :], bits)
                for source, matrix in zip(step.sources, weights.matrices, strict=True):
                    total = total + _as(values[source], bits).dot(_as(matrix, bits).T)
                values.append(total)
            case Product():
                left, right = values[step.left], values[step.right]
                values.append(_as(left, step.bound_bits) * _as(right, step.bound_bits))
            case Relu():
                values.append(np.maximum(values[step.source], 0))
            case Truncate():
                wide = _as(values[step.source], step.shift)
                values.append(wide >> step.shift)  # rounds towards minus infinity, for Python integers, too
    scores: Array = values[-1][:, 0].astype(object) + public.public_term(Z)
    return scores


def _as(array: Array, bits: int) -> Array:
    return array if bits <= _INT64_BITS and array.dtype != object else array.astype(object)
