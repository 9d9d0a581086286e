"""How far rounding may move the scores of a polynomial program: errors carried along with each record's own values."""

from __future__ import annotations

import numpy as np

from securead.data.schema import Array
from securead.program.polynomial import Affine, Input, Product, PublicPolynomial, Relu, SecretPolynomial, Truncate
from securead.program.program import Program


def rounding_bound(program: Program, Z: Array) -> Array:
    """The most `(n,)` by which scores differ from those of unrounded weights and inputs, for encoded records.

    Every weight, offset and input is off by half a step of its grid; a matrix without fraction bits counts as exact,
    because programs have such for sums alone. A truncation loses a step, and an engine may lose a further one.
    """
    public, secret = program.public, program.secret
    assert isinstance(public, PublicPolynomial)  # noqa: S101  (for the type checker)
    assert isinstance(secret, SecretPolynomial)  # noqa: S101
    values, errors = list[Array](), list[Array]()
    for at, step in enumerate(public.steps):
        unit = 2.0**-step.fraction_bits
        match step:
            case Input():
                value = Z * unit
                error = np.full(value.shape, unit / 2)
            case Affine():
                weights = secret.weights[at]
                value = np.tile(weights.offset.astype(float) * unit, (len(Z), 1))
                error = np.full(value.shape, unit / 2)
                for source, matrix in zip(step.sources, weights.matrices, strict=True):
                    grid = 2.0 ** (public.steps[source].fraction_bits - step.fraction_bits)
                    W = matrix.astype(float) * grid
                    value = value + values[source] @ W.T
                    error = error + errors[source] @ np.abs(W).T
                    if grid < 1:
                        reach = np.abs(values[source]) + errors[source]
                        error = error + grid / 2 * reach.sum(axis=1, keepdims=True)
            case Product():
                (a, b), (e, f) = (values[step.left], values[step.right]), (errors[step.left], errors[step.right])
                value, error = a * b, np.abs(a) * f + np.abs(b) * e + e * f
            case Relu():
                value, error = np.maximum(values[step.source], 0.0), errors[step.source]
            case Truncate():
                value, error = values[step.source], errors[step.source] + 2 * unit
        values.append(value)
        errors.append(error)
    z, e = np.abs(values[0]), errors[0]
    factor = sum(abs(t.multiplier) for t in public.public_terms) * 2.0 ** (
        2 * public.encoder.fraction_bits - public.score_fraction_bits
    )
    # float64 itself is off by far less than this share of it.
    bound: Array = (errors[-1][:, 0] + factor * (2 * z * e + e * e).sum(axis=1)) * (1 + 1e-9)
    return bound
