"""Layers with integer weights, compiled for one prime together with the proof that evaluating them is exact.

**Linear maps** are float64 matrix products (Bae, Cheon, Hanrot, Park, Stehlé, CRYPTO 2024, reduce plaintext-ciphertext
matrix products to plaintext ones in this way). A centred residue x, |x| <= (p - 1) / 2, is split into digits, all but
the top one in [0, 2**t), and weights into balanced digits. Let D bound a digit of the residues, and let a row's
positive digits of the weights sum to P and its negative ones to -N. Then *every* sum of *any* subset of a row's terms
is an integer in [-N D, P D] (for the signed top digit: |sum| <= (P + N) D), and below 2**53 such an integer is a
float64. So no partial sum rounds, whatever order, blocking, vector width or fused multiply-add a matrix product uses.

The digits' products are put together by Horner's rule in 64-bit integers, where `h * 2**t + l` is reduced with
|h|, |l| < 2**53. Its floating quotient has a relative error of at most 3.1 * 2**-53 (one addition, the rounded 1 / p,
one product), which is below one half in absolute terms as (2**t + 1) * 3.1 / p < 1/2: so t <= bits(p) - 4, and one
conditional addition and one subtraction settle the remainder.

**Sums of products** are accumulated without reducing: once modulo 2**64 and once in float64. See `ProductSum`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from securead.data.schema import Array
from securead.errors import FixInputError, FixProgramError

MIN_PRIME_BITS, MAX_PRIME_BITS = 20, 50
# With the widest primes and weights, 8,192 columns take nine products.
MOST_PRODUCTS = 9
_EXACT = 1 << 53


@dataclass(frozen=True, eq=False)
class LinearMap:
    """`y = W x mod p` for integers W `(outputs, inputs)`: `compile` is the only way to make one.

    Rows of zeros cost nothing, rows with a single weight of one are copied, and columns of zeros are not looked at.
    What is left, `rows` by `columns`, is `weight_digits * residue_digits` matrix products. `factor` is what the result
    is then multiplied by: the power of two that all weights share. `bound` is the largest magnitude of a partial sum.
    """

    prime: int
    outputs: int
    inputs: int
    rows: Array = field(repr=False)
    columns: Array = field(repr=False)
    copied_rows: Array = field(repr=False)
    copied_columns: Array = field(repr=False)
    matrix: Array = field(repr=False)
    weight_digits: int
    weight_shift: int
    residue_digits: int
    residue_shift: int
    factor: int
    bound: int

    @property
    def products(self) -> int:
        """How many float64 matrix products it takes."""
        return self.weight_digits * self.residue_digits if len(self.rows) else 0

    @classmethod
    def compile(cls, weights: Array, prime: int, *, most_products: int = MOST_PRODUCTS) -> LinearMap:
        """Compile integer weights of any size `(outputs, inputs)` with as few matrix products as can be proved exact.

        Raises `FixProgramError` where more than `most_products` would be needed, or for a prime that is not odd and
        of 20 to 50 bits; `FixInputError` for weights that are not integers.
        """
        check_prime(prime)
        W = _integers(weights, dimensions=2)
        ones, single = W % prime == 1, (W % prime != 0).sum(axis=1) == 1
        copied_rows, copied_columns = np.nonzero(ones & single[:, None])
        dense = (W % prime != 0).any(axis=1)
        dense[copied_rows] = False
        rows = np.flatnonzero(dense)
        columns = np.flatnonzero((W[rows] % prime != 0).any(axis=0))
        matrix, weights_in, residues_in, factor, bound = _fewest_products(
            W[np.ix_(rows, columns)], prime, most_products
        )
        return cls(
            prime=prime,
            outputs=len(W),
            inputs=W.shape[1],
            rows=rows,
            columns=columns,
            copied_rows=copied_rows,
            copied_columns=copied_columns,
            matrix=matrix,
            weight_digits=weights_in.number,
            weight_shift=weights_in.shift,
            residue_digits=residues_in.number,
            residue_shift=residues_in.shift,
            factor=factor,
            bound=bound,
        )


@dataclass(frozen=True, eq=False)
class ProductSum:
    """`sum_k w_k a_k(Y) b_k(Y) mod p`: `compile` is the only way to make one.

    With n products of residues in a sum of weight S (the sum of |w| over them), the sum V has |V| < S p**2. Its
    floating value is off by at most (n + 1) u S p**2, u = 2**-53 up to second order, its quotient by p therefore by
    E = 1.1 (n + 3) u S p, and V - q p, computed modulo 2**64, is exact as (E + 1) p < 2**62: that is what `compile`
    proves. A second quotient, of an integer below 2**62 by a prime above 2**19, is off by less than one.
    """

    prime: int
    sizes: tuple[int, int]
    weights: Array = field(repr=False)
    factor: int

    @classmethod
    def compile(cls, weights: Array, sizes: tuple[int, int], prime: int) -> ProductSum:
        """Compile integer weights `(elements,)` for factors of these numbers of polynomials.

        Raises `FixProgramError` for weights too large to be proved exact, `FixInputError` for others than integers.
        """
        check_prime(prime)
        w = _integers(weights, dimensions=1)
        for values, factor in _scalings(w, prime):
            if is_sum_exact(int(np.abs(values).sum()), len(w), min(sizes), prime):
                return cls(prime, sizes, values.astype(np.int64), factor)
        raise FixProgramError(
            "a weighted sum of products cannot be proved exact",
            value=f"{len(w)} products, {prime.bit_length()}-bit prime",
            remedy="Sum fewer at a time, or multiply and then apply a linear map.",
        )


def check_prime(prime: int) -> None:
    """Raise `FixProgramError` unless the proofs of this package hold for `prime`."""
    if not (MIN_PRIME_BITS <= prime.bit_length() <= MAX_PRIME_BITS and prime % 2):
        raise FixProgramError(
            f"residue arithmetic is proved for odd primes of {MIN_PRIME_BITS} to {MAX_PRIME_BITS} bits",
            value=prime,
            remedy="Choose other primes.",
        )


def is_sum_exact(weight: int, elements: int, terms: int, prime: int) -> bool:
    """Whether a sum over `elements` with |weights| summing to `weight`, `terms` products each, is proved exact."""
    n, mass = elements * terms, weight * terms
    error = 11 * (n + 3) * mass * prime // (10 << 53) + 1
    return (error + 1) * prime < 1 << 62 and 2 * mass * prime < 1 << 62


class _Digits(NamedTuple):
    """How integers are split: so many digits, all but the top one of `shift` bits."""

    number: int
    shift: int

    @classmethod
    def covering(cls, span: int, number: int) -> _Digits:
        """The narrowest digits that hold the integers of an interval of length `span`."""
        return cls(number, -(-span.bit_length() // number) if number > 1 else 0)


def _fewest_products(W: Array, prime: int, most: int) -> tuple[Array, _Digits, _Digits, int, int]:
    """The stacked digits of the weights, the digits of weights and of residues, the factor and the bound."""
    if not W.size:
        return np.zeros(W.shape), _Digits(1, 0), _Digits(1, 0), 1, 0
    numbers = [(a, b) for a in range(1, most + 1) for b in range(1, most // a + 1)]
    # Among equally many products, a square arrangement splits and folds the least.
    for weight_digits, residue_digits in sorted(numbers, key=lambda pair: (math.prod(pair), max(pair))):
        residues = _Digits.covering(prime, residue_digits)
        for values, factor in _scalings(W, prime):
            weights = _Digits.covering(2 * int(np.abs(values).max()), weight_digits)
            if max(weights.shift, residues.shift) > prime.bit_length() - 4:
                continue
            digits = _balanced_digits(values, weights)
            bound = _largest_sum(digits, prime, residues)
            if bound < _EXACT:
                return np.vstack(digits).astype(np.float64), weights, residues, factor, bound
    raise FixProgramError(
        f"a linear layer cannot be proved exact with {most} float64 matrix products",
        value=f"{W.shape[1]} inputs, {prime.bit_length()}-bit prime",
        remedy="Allow more products, narrower primes or smaller weights.",
    )


def _scalings(W: Array, prime: int) -> Iterator[tuple[Array, int]]:
    """Ways to write W modulo p as small integers times a factor: centred, and without the power of two they share."""
    centred = (W + prime // 2) % prime - prime // 2
    yield centred, 1
    shared = int(np.bitwise_or.reduce(W, axis=None)) if W.size else 0
    twos = (shared & -shared).bit_length() - 1
    if twos > 0:
        yield W >> twos, pow(2, twos, prime)


def _balanced_digits(W: Array, digits: _Digits) -> list[Array]:
    """Low digits first; all but the last in [-2**(shift-1), 2**(shift-1))."""
    found, half = [], (1 << digits.shift) >> 1
    for _ in range(digits.number - 1):
        low = ((W + half) & ((1 << digits.shift) - 1)) - half
        found.append(low)
        W = (W - low) >> digits.shift
    return [*found, W]


def _largest_sum(weights: list[Array], prime: int, residues: _Digits) -> int:
    """The largest magnitude of any partial sum of any of the matrix products."""
    above = residues.shift * (residues.number - 1)
    top, low = -(-(prime >> 1) >> above), (1 << residues.shift) - 1
    largest = 0
    for W in weights:
        positive, negative = np.maximum(W, 0).sum(axis=1), np.maximum(-W, 0).sum(axis=1)
        signed, one_sided = int((positive + negative).max()), int(np.maximum(positive, negative).max())
        largest = max(largest, signed * top, one_sided * low)
    return largest


def _integers(weights: Array, *, dimensions: int) -> Array:
    """As Python integers, so that nothing overflows."""
    W = np.asarray(weights)
    whole = W.dtype.kind in "iu" or (W.dtype == object and all(isinstance(w, int | np.integer) for w in W.ravel()))
    if not whole or W.ndim != dimensions or not W.size:
        raise FixInputError(
            "weights are integers, and not none", value=(W.dtype.name, W.shape), remedy="Quantise them first."
        )
    integers: Array = np.frompyfunc(int, 1, 1)(W)
    return integers
