"""The monomials of a record: in which order they stand, and their residues. NumPy only, for both halves.

A monomial of degree d in n variables is a multiset of d variables, written as a tuple i1 <= i2 <= ... <= id from 0 to
n - 1. Monomials of one degree stand in colexicographic order: by their largest variable, then by the next. So those of
degree d whose largest variable is m are z_m times the *first* C(m + d - 1, d - 1) of degree d - 1, and the place of a
tuple is sum_k C(i_k + k - 1, k) (the combinatorial number system, Knuth 2011, 7.2.1.3). Degrees follow one another,
from 1 upwards.
"""

from __future__ import annotations

import functools
import itertools
import math

import numpy as np

from securead.data.schema import Array


def count(width: int, degree: int) -> int:
    """How many monomials of degrees 1 to `degree` there are in `width` variables."""
    return math.comb(width + degree, degree) - 1


def of_degree(width: int, degree: int) -> int:
    """How many there are of exactly that degree."""
    return math.comb(width + degree - 1, degree)


@functools.lru_cache(maxsize=16)
def factors(width: int, degree: int) -> tuple[Array, Array]:
    """For each monomial of a degree of 1 or more, its largest variable and the place of what is left of it.

    What is left is a monomial of one degree less; that of degree 0 has the place 0.
    """
    sizes = [math.comb(m + degree - 1, degree - 1) for m in range(width)]
    largest = np.repeat(np.arange(width), sizes)
    rest = np.concatenate([np.arange(size) for size in sizes])
    return _fixed(largest), _fixed(rest)


@functools.lru_cache(maxsize=16)
def tuples(width: int, degree: int) -> Array:
    """The monomials of a degree as rising tuples of variables, `(monomials, degree)`."""
    if degree == 0:
        return _fixed(np.zeros((1, 0), dtype=np.int64))
    largest, rest = factors(width, degree)
    return _fixed(np.column_stack([tuples(width, degree - 1)[rest], largest]))


def places(monomials: Array) -> Array:
    """The places of rising tuples `(n, degree)` among the monomials of their degree."""
    found = np.zeros(len(monomials), dtype=np.int64)
    for k in range(1, monomials.shape[1] + 1):
        column = monomials[:, k - 1] + (k - 1)
        found += _binomials(int(column.max(initial=0)) + 1, k)[column]
    return found


def residues(Z: Array, degree: int, scale: int, prime: int) -> Array:
    """`scale` times every monomial of integers `(rows, width)`, modulo a prime below 2**50.

    Int64 `(rows, monomials)`.
    """
    width = Z.shape[1]
    first = np.mod(Z.astype(np.int64), prime)
    parts = [product(first, np.full_like(first, scale % prime), prime)]
    for d in range(2, degree + 1):
        largest, rest = factors(width, d)
        parts.append(product(first[:, largest], parts[-1][:, rest], prime))
    return np.concatenate(parts, axis=1)


def product(a: Array, b: Array, prime: int) -> Array:
    """The residues of a b, for residues int64 of equal shape modulo a prime below 2**50.

    The quotient in doubles is below 2**50 and off by less than 3.1 * 2**50 / 2**53 < 1/2 before the floor, hence by at
    most one after it; the remainder is taken modulo 2**64, where it is exact, and settled.
    """
    quotient = np.floor(a.astype(np.float64) * b * (1.0 / prime)).astype(np.uint64)
    left: Array = (a.view(np.uint64) * b.view(np.uint64) - quotient * np.uint64(prime)).view(np.int64)
    left += np.where(left < 0, prime, 0)
    left -= np.where(left >= prime, prime, 0)
    return left


def degrees(width: int, degree: int) -> tuple[slice, ...]:
    """Where the monomials of degrees 1, 2, ... stand in the line of all."""
    ends = itertools.accumulate(of_degree(width, d) for d in range(1, degree + 1))
    return tuple(slice(end - of_degree(width, d), end) for d, end in enumerate(ends, 1))


@functools.lru_cache(maxsize=64)
def _binomials(most: int, k: int) -> Array:
    return _fixed(np.array([math.comb(j, k) for j in range(most)], dtype=np.int64))


def _fixed(array: Array) -> Array:
    array.setflags(write=False)
    return array
