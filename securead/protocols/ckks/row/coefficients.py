"""A program as the coefficients of its monomials, modulo one prime: an algebraic identity of its integers.

Every step is a polynomial in the record; an affine map and a product of polynomials are exact modulo a prime, so what
comes out are the residues of the integer program's own coefficients. Nothing is quantised anew. How long it takes
depends on the program's shape, not on a request.
"""

from __future__ import annotations

import functools

import numpy as np

from securead.data.schema import Array
from securead.program.polynomial import Affine, Input, Product, PublicPolynomial, SecretPolynomial, Weights
from securead.protocols.ckks.row import monomials
from securead.protocols.engine import Role
from securead.protocols.residues.layers import LinearMap
from securead.protocols.residues.numba_form import NumbaForm

# For each degree from 0 upwards, residues int64 `(elements, monomials of that degree)`; None where all are zero.
Parts = list[Array | None]


def expand(
    public: PublicPolynomial, secret: SecretPolynomial, role: Role, degree: int, prime: int
) -> tuple[int, Array]:
    """The constant, and the coefficients of all monomials up to `degree` int64 `(monomials,)`, modulo the prime.

    In role `split` with the public terms, which nobody else adds.
    """
    width, form = public.encoder.width, NumbaForm(prime)
    values: list[Parts] = []
    for at, step in enumerate(public.steps):
        match step:
            case Input():
                values.append([None, np.eye(width, dtype=np.int64)])
            case Affine():
                values.append(_affine(form, step, secret.weights[at], values))
            case Product():
                values.append(_product(form, width, values[step.left], values[step.right]))
            case _:
                raise AssertionError(step)
    line = np.zeros(monomials.count(width, degree), dtype=np.int64)
    constant, *rest = values[-1]
    for part, where in zip(rest, monomials.degrees(width, degree), strict=False):
        if part is not None:
            line[where] = part[0]
    if role == "split" and public.public_terms:
        squares = monomials.degrees(width, degree)[1].start + squares_at(width)
        multiplier = sum(term.multiplier for term in public.public_terms) % prime
        line[squares] = (line[squares] + multiplier) % prime
    return (0 if constant is None else int(constant[0, 0])), line


def squares_at(width: int) -> Array:
    """The places of z_i**2 among the monomials of degree 2."""
    return monomials.places(np.repeat(np.arange(width)[:, None], 2, axis=1))


def _affine(form: NumbaForm, step: Affine, weights: Weights, values: list[Parts]) -> Parts:
    total: Parts = [None] * max(len(values[source]) for source in step.sources)
    for source, matrix in zip(step.sources, weights.matrices, strict=True):
        layer = LinearMap.compile(matrix.astype(object), form.prime)
        for d, part in enumerate(values[source]):
            if part is not None:
                total[d] = _sum(total[d], form.linear(layer, part[:, None])[:, 0], form.prime)
    offset = np.array([[int(value) % form.prime] for value in weights.offset], dtype=np.int64)
    total[0] = _sum(total[0], offset, form.prime)
    return total


def _product(form: NumbaForm, width: int, left: Parts, right: Parts) -> Parts:
    total: Parts = [None] * (len(left) + len(right) - 1)
    for d, a in enumerate(left):
        for e, b in enumerate(right):
            if a is not None and b is not None:
                total[d + e] = _sum(total[d + e], _of_parts(form, width, (d, a), (e, b)), form.prime)
    return total


def _of_parts(form: NumbaForm, width: int, left: tuple[int, Array], right: tuple[int, Array]) -> Array:
    """The product, element by element, of polynomials of one degree each."""
    (d, a), (e, b) = left, right
    first, second, starts = _pairs(width, d, e)
    result = np.empty((len(a), len(starts)), dtype=np.int64)
    # One element at a time: there are as many pairs as all monomials of one factor times those of the other.
    for row, x, y in zip(result, a, b, strict=True):
        products = form.multiply(x[first][None, None], y[second][None, None])[0, 0]
        # No monomial of degree 4 is a product in more than six ways, so sums of 50-bit residues fit a word.
        row[:] = np.add.reduceat(products, starts) % form.prime
    return result


@functools.lru_cache(maxsize=16)
def _pairs(width: int, left: int, right: int) -> tuple[Array, Array, Array]:
    """Every pair of monomials of two degrees, by their product: their places, and where each product's pairs begin."""
    a, b = monomials.tuples(width, left), monomials.tuples(width, right)
    first, second = np.repeat(np.arange(len(a)), len(b)), np.tile(np.arange(len(b)), len(a))
    joined = np.sort(np.concatenate([a[first], b[second]], axis=1), axis=1)
    products = monomials.places(joined)
    order = np.argsort(products, kind="stable")
    starts = np.flatnonzero(np.diff(products[order], prepend=-1))
    return first[order], second[order], starts


def _sum(total: Array | None, added: Array, prime: int) -> Array:
    return added if total is None else (total + added) % prime
