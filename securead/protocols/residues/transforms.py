"""The negacyclic number-theoretic transform in SEAL's order, and rescaling exactly as SEAL rounds.

`Transform` evaluates a polynomial modulo X**N + 1 at the odd powers of the smallest primitive 2N-th root of unity, in
bit-reversed order, which is SEAL's NTT form. Two ideas make it fast in plain compiled loops:

* Multiplication by a tabled factor w takes its quotient from w / p in floating point, as Shoup's does from
  floor(2**64 w / p) (Harvey 2014 describes it), and butterflies never reduce. Numbers stay *signed*: a product is at
  most (1 + 3.1 u B p) p in magnitude, u = 2**-53, for an argument of at most B p. Forward, B grows by that factor a
  layer: from 1 to below 2**9 in 15 layers at p = 2**50, so magnitudes stay below 2**59. Backward, sums double B: five
  layers, a reduction, then up to ten make 2**60. Both are exact in 64 bits and are reduced once at the end.
* The last five layers, whose strides are shorter than a vector, run on the array transposed into 32 rows.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from securead.data.schema import Array
from securead.errors import FixProgramError
from securead.protocols.residues import loops
from securead.protocols.residues.layers import check_prime
from securead.protocols.seal.primes import is_usable

# Ring dimensions for which the bounds above are proved and the transposition has whole tiles.
MIN_DIMENSION, MAX_DIMENSION = 256, 32768


class _Tables(NamedTuple):
    """Factors by node of the tree of butterflies, node 1 the root, and those of the last five layers by row."""

    w: Array
    quotients: Array
    row_w: Array
    row_quotients: Array

    @classmethod
    def of(cls, w: Array, prime: int) -> _Tables:
        columns = len(w) // loops.ROWS
        row_w = np.zeros((loops.ROWS, columns), np.int64)
        for node in range(1, loops.ROWS):
            layer = 1 << (node.bit_length() - 1)
            row_w[node] = w[columns * layer + np.arange(columns) * layer + node - layer]
        return cls(w, w / prime, row_w, row_w / prime)


@dataclass(frozen=True, eq=False)
class Transform:
    """The transform of one prime and ring dimension, with its tables. `transform_for` makes and remembers it."""

    prime: int
    ring_dimension: int
    root: int
    _down: _Tables = field(repr=False)
    _up: _Tables = field(repr=False)

    def forward(self, coefficients: Array) -> Array:
        """Residues int64 `(..., N)` to NTT form, as a new array."""
        values = self._copy(coefficients)
        loops.forward(values, *self._down, self.prime)
        return values.reshape(coefficients.shape)

    def inverse(self, values: Array) -> Array:
        """From NTT form back to coefficients, as a new array."""
        coefficients = self._copy(values)
        scale = pow(self.ring_dimension, -1, self.prime)
        loops.inverse(coefficients, *self._up, scale, self.prime)
        return coefficients.reshape(values.shape)

    def _copy(self, values: Array) -> Array:
        if values.shape[-1] != self.ring_dimension:
            raise ValueError(f"{values.shape[-1]} slots, where the ring dimension is {self.ring_dimension}")
        return np.array(values, dtype=np.int64, order="C").reshape(-1, self.ring_dimension)


@functools.lru_cache(maxsize=64)
def transform_for(prime: int, ring_dimension: int) -> Transform:
    """The transform modulo `prime`, or `FixProgramError` where there is none or its exactness is not proved."""
    check_prime(prime)
    supported = MIN_DIMENSION <= ring_dimension <= MAX_DIMENSION and ring_dimension & (ring_dimension - 1) == 0
    if not supported or not is_usable(prime, ring_dimension):
        raise FixProgramError(
            "there is no number-theoretic transform", value=(prime, ring_dimension), remedy="Choose another prime."
        )
    root = _smallest_root(prime, ring_dimension)
    down = _powers(root, prime, ring_dimension)
    up = _powers(pow(root, -1, prime), prime, ring_dimension)
    return Transform(prime, ring_dimension, root, _Tables.of(down, prime), _Tables.of(up, prime))


def rescale(residues: Array, primes: tuple[int, ...]) -> Array:
    """Divide by the last prime q and round: `(primes, ..., N)` in NTT form to one prime fewer, as a new array.

    Bit for bit SEAL's `rescale_to_next`: (x - [x]_q) / q with [x]_q centred in (-q/2, q/2). Its error, beside the exact
    quotient, is at most one half in every coefficient.
    """
    if len(residues) != len(primes) or len(primes) < 2:
        raise ValueError(f"{len(residues)} layers of residues, {len(primes)} primes")
    *kept, last = primes
    dimension = residues.shape[-1]
    remainder = transform_for(last, dimension).inverse(residues[-1]).reshape(-1, dimension)
    result = np.empty((len(kept), *residues.shape[1:]), np.int64)
    lifted = np.empty_like(remainder)
    for at, prime in enumerate(kept):
        loops.recentre(remainder, last, prime, lifted)
        subtrahend = transform_for(prime, dimension).forward(lifted)
        minuend = np.ascontiguousarray(residues[at], dtype=np.int64).reshape(-1, dimension)
        loops.subtract_and_scale(minuend, subtrahend, pow(last, -1, prime), prime, result[at].reshape(-1, dimension))
    return result


def _smallest_root(prime: int, dimension: int) -> int:
    """The smallest primitive 2N-th root of unity: SEAL's choice."""
    exponent = (prime - 1) // (2 * dimension)
    candidates = (pow(base, exponent, prime) for base in range(2, prime))
    root = next(candidate for candidate in candidates if pow(candidate, dimension, prime) == prime - 1)
    smallest, power, step = root, root, root * root % prime
    for _ in range(dimension - 1):
        power = power * step % prime
        smallest = min(smallest, power)
    return smallest


def _powers(root: int, prime: int, dimension: int) -> Array:
    """root**i at the bit-reversed place of i."""
    powers = np.empty(dimension, np.int64)
    bits, power = dimension.bit_length() - 1, 1
    for i in range(dimension):
        powers[int(f"{i:0{bits}b}"[::-1], 2)] = power
        power = power * root % prime
    return powers
