"""Layers with integer weights, compiled for one prime together with the proof that evaluating them is exact.

**Linear maps** are float64 matrix products (Bae, Cheon, Hanrot, Park, Stehlé, CRYPTO 2024, reduce plaintext-ciphertext
matrix products to plaintext ones in this way). A centred residue x, |x| <= (p - 1) / 2, is split into digits, all but
the top one in [0, 2**t), and weights into balanced digits of any base. Let D bound a digit of the residues, and let a
row's positive digits of the weights sum to P and its negative ones to -N. Then *every* sum of *any* subset of a row's
terms is an integer in [-N D, P D] (for the signed top digit: |sum| <= (P + N) D), and below 2**53 such an integer is a
float64. So no partial sum rounds, whatever order, blocking, vector width or fused multiply-add a matrix product uses.

The digits' products are put together by Horner's rule in 64-bit integers, where `h * B + l` is reduced with |h|, |l| <
2**53. Its floating quotient has an absolute error below 4.2 (B + 1) / p (the first product, the addition, the rounded
1 / p and the second product each round once, by 2**-53 of at most 2**53 (B + 1)), which is below one half for
B <= 2**(bits(p) - 5); one conditional addition and one subtraction then settle the remainder.

**Sums of products** are accumulated without reducing: once modulo 2**64 and once in float64. See `ProductSum`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
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

    Rows of zeros cost nothing, rows with a single weight of one are copied, and columns of zeros are not looked at. Of
    what is left, dense row i is digits `first[i]`, `first[i] + 1`, ... (`weight_digits[i]` of them, low ones first, to
    the base `bases[i]`) among the rows of `matrix`, of which there is a product for every digit of the residues.
    `factors[i]` is what the result is then multiplied by: the power of two that weights share. `bound` is the largest
    magnitude of a partial sum.
    """

    prime: int
    outputs: int
    inputs: int
    rows: Array = field(repr=False)
    columns: Array = field(repr=False)
    copied_rows: Array = field(repr=False)
    copied_columns: Array = field(repr=False)
    matrix: Array = field(repr=False)
    first: Array = field(repr=False)
    weight_digits: Array
    bases: Array
    factors: Array
    residue_digits: int
    residue_shift: int
    bound: int

    @property
    def products(self) -> int:
        """How many float64 products a row takes at most."""
        return int(self.weight_digits.max(initial=0)) * self.residue_digits

    @property
    def multiplications(self) -> int:
        """How many float64 multiplications a slot takes."""
        return self.matrix.size * self.residue_digits

    @classmethod
    def compile(
        cls, weights: Array, prime: int, *, parts: Sequence[int] = (), most_products: int = MOST_PRODUCTS
    ) -> LinearMap:
        """Compile integer weights of any size `(outputs, inputs)` with as few multiplications as can be proved exact.

        Several maps of one x may be stacked, which splits x once: `parts` are their numbers of rows (by default, all
        rows are of one map). The digits of weights are chosen map by map, and not row by row.

        Raises `FixProgramError` where a row would need more than `most_products`, or for a prime that is not odd and
        of 20 to 50 bits; `FixInputError` for weights that are not integers; `ValueError` for other `parts`.
        """
        check_prime(prime)
        W = _integers(weights, dimensions=2)
        sizes = list(parts) or [len(W)]
        if sum(sizes) != len(W):
            raise ValueError(f"{len(W)} rows of weights in parts of {sizes}")
        ones, single = W % prime == 1, (W % prime != 0).sum(axis=1) == 1
        copied_rows, copied_columns = np.nonzero(ones & single[:, None])
        dense = (W % prime != 0).any(axis=1)
        dense[copied_rows] = False
        rows = np.flatnonzero(dense)
        columns = np.flatnonzero((W[rows] % prime != 0).any(axis=0))
        part_of = np.repeat(np.arange(len(sizes)), sizes)[rows]
        split = [W[np.ix_(rows[part_of == part], columns)] for part in np.unique(part_of)]
        residues, found = _fewest_multiplications(split, prime, most_products)
        digits = np.repeat([part.number for part in found], [len(w) for w in split]).astype(np.int64)
        return cls(
            prime=prime,
            outputs=len(W),
            inputs=W.shape[1],
            rows=rows,
            columns=columns,
            copied_rows=copied_rows,
            copied_columns=copied_columns,
            matrix=np.vstack([part.matrix for part in found]) if found else np.zeros((0, 0)),
            first=np.cumsum(digits) - digits,
            weight_digits=digits,
            bases=np.repeat([part.base for part in found], [len(w) for w in split]).astype(np.int64),
            factors=np.repeat([part.factor for part in found], [len(w) for w in split]).astype(np.int64),
            residue_digits=residues.number,
            residue_shift=residues.shift,
            bound=max((part.bound for part in found), default=0),
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


class _Residues(NamedTuple):
    """How residues are split: so many digits, all but the top one of `shift` bits."""

    number: int
    shift: int

    @classmethod
    def of(cls, prime: int, number: int) -> _Residues:
        """The narrowest digits that hold the residues of `prime`."""
        return cls(number, -(-prime.bit_length() // number) if number > 1 else 0)


class _Weights(NamedTuple):
    """How the weights of one map are split: `number` digits to `base`, a row's beside each other, low ones first."""

    number: int
    base: int
    matrix: Array
    factor: int
    bound: int


def _fewest_multiplications(maps: list[Array], prime: int, most: int) -> tuple[_Residues, list[_Weights]]:
    """The digits of the residues, which maps share, and of each map's weights."""
    best: tuple[_Residues, list[_Weights]] | None = None
    least = math.inf
    for number in range(1, most + 1):
        # More digits of residues pay only where weights are then split less.
        if number * sum(len(W) for W in maps) >= least:
            break
        residues, found = _Residues.of(prime, number), list[_Weights]()
        for W in maps:
            weights = _fewest_digits(W, prime, residues, most // number)
            if weights is None:
                break
            found.append(weights)
        else:
            cost = number * sum(len(weights.matrix) for weights in found)
            if cost < least:
                best, least = (residues, found), cost
    if best is None:
        raise FixProgramError(
            f"a linear layer cannot be proved exact with {most} float64 matrix products",
            value=f"{maps[0].shape[1]} inputs, {prime.bit_length()}-bit prime",
            remedy="Allow more products, narrower primes or smaller weights.",
        )
    return best


def _fewest_digits(W: Array, prime: int, residues: _Residues, most: int) -> _Weights | None:
    """The fewest digits of the weights of one map that are proved exact with `residues`; None where `most` are not."""
    limit = 1 << prime.bit_length() - 5
    if 1 << residues.shift > limit:
        return None
    for number in range(1, most + 1):
        for values, factor in _scalings(W, prime):
            base = _base(2 * int(np.abs(values).max()) + 1, number)
            if base > limit:
                continue
            digits = _balanced_digits(values, base, number)
            bound = _largest_sum(digits, prime, residues)
            if bound < _EXACT:
                matrix = np.stack(digits, axis=1).reshape(-1, W.shape[1]).astype(np.float64)
                return _Weights(number, base, matrix, factor, bound)
    return None


def _base(span: int, number: int) -> int:
    """The smallest base of which `number` digits take `span` values; 1 for a single digit."""
    if number == 1:
        return 1
    low, high = 2, 1 << -(-span.bit_length() // number)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if middle**number >= span else (middle + 1, high)
    return low


def _scalings(W: Array, prime: int) -> Iterator[tuple[Array, int]]:
    """Ways to write W modulo p as small integers times a factor: centred, and without the power of two they share."""
    centred = (W + prime // 2) % prime - prime // 2
    yield centred, 1
    shared = int(np.bitwise_or.reduce(W, axis=None)) if W.size else 0
    twos = (shared & -shared).bit_length() - 1
    if twos > 0:
        yield W >> twos, pow(2, twos, prime)


def _balanced_digits(W: Array, base: int, number: int) -> list[Array]:
    """Low digits first; all but the last in [-(base // 2), (base + 1) // 2)."""
    found, half = [], base // 2
    for _ in range(number - 1):
        low = (W + half) % base - half
        found.append(low)
        W = (W - low) // base
    return [*found, W]


def _largest_sum(weights: list[Array], prime: int, residues: _Residues) -> int:
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
