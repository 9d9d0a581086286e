"""What a levelled evaluator does between products: relinearise, and rescale by several primes at once.

**Relinearising** takes a ciphertext of three polynomials to one of two under the same key, as SEAL computes it, bit for
bit. The third polynomial is cut into its residues, one digit a prime; each is multiplied by that digit's part of the
owner's relinearisation key, modulo one more prime, the special one, by which the sum is then divided and rounded. All
of it is public data: the key is one that its owner publishes.

**Rescaling** by the product Q of the last primes is round(x / Q), exactly: with h = Q // 2, x + h modulo Q is put
together from its residues in mixed radix (Garner 1959) and subtracted. That is what dropping one prime after the other
gives, too (for odd a and b, h of a b is a times h of b, plus h of a), which would transform a polynomial as often as
there are primes to drop, and not once.
"""

from __future__ import annotations

import math

import numpy as np

from securead.data.schema import Array
from securead.protocols.residues import loops
from securead.protocols.residues.layers import ProductSum
from securead.protocols.residues.loops import compiled
from securead.protocols.residues.numba_form import NumbaForm
from securead.protocols.residues.transforms import rescale, transform_for

_I, _D = np.int64, np.float64


class Switcher:
    """Relinearises for one chain of primes, the special one last. One instance serves one thread at a time."""

    def __init__(self, chain: tuple[int, ...], ring_dimension: int) -> None:
        self._chain, self._n = chain, ring_dimension
        self._forms = [NumbaForm(prime) for prime in chain]
        self._sums: dict[tuple[int, int], ProductSum] = {}

    def relinearise(self, x: Array, key: Array, half: Array) -> Array:
        """Residues int64 `(primes, 2, N)` of `x`, `(primes, 3, N)`, both in NTT form modulo the chain's first primes.

        `key` and `half`: the two polynomials of every digit, int64 `(digits, primes of the chain, N)` in NTT form.
        """
        if x.shape[1:] != (3, self._n):
            raise ValueError(f"residues {x.shape}, where three polynomials of {self._n} are relinearised")
        count, special = len(x), len(self._chain) - 1
        digits = np.empty((count, self._n), _I)
        for at in range(count):
            digits[at] = transform_for(self._chain[at], self._n).inverse(x[at, 2])
        sums, lifted = np.empty((count + 1, 2, self._n), _I), np.empty_like(digits)
        places = [*range(count), special]
        for row, place in enumerate(places):
            prime = self._chain[place]
            reduce(digits, prime, lifted)
            transformed = transform_for(prime, self._n).forward(lifted)
            if place < count:
                transformed[place] = x[place, 2]  # the same number, which is known already
            total, form = self._sum(place, count), self._forms[place]
            for polynomial, part in enumerate((key, half)):
                factors = part[:count, place, None]
                sums[row, polynomial] = form.sum_of_products(total, transformed[:, None], factors)[0, 0]
        down = rescale(sums, tuple(self._chain[place] for place in places))
        for prime, rows, added in zip(self._chain, down, x[:, :2], strict=False):
            loops.add(rows, np.ascontiguousarray(added), prime)
        return down

    def _sum(self, place: int, count: int) -> ProductSum:
        if (place, count) not in self._sums:
            ones = np.ones(count, dtype=np.int64)
            self._sums[place, count] = ProductSum.compile(ones, (1, 1), self._chain[place])
        return self._sums[place, count]


def rescale_by(residues: Array, primes: tuple[int, ...], dropped: int) -> Array:
    """Divide by the last `dropped` primes and round: `(primes, ..., N)` int64 in NTT form to so many primes fewer.

    Bit for bit what SEAL gives prime by prime. The error, beside the exact quotient, is at most one half in every
    coefficient, however many primes are dropped.
    """
    if len(residues) != len(primes) or not 0 <= dropped < len(primes):
        raise ValueError(f"{len(residues)} layers of residues, {len(primes)} primes, {dropped} to drop")
    kept, dimension = len(primes) - dropped, residues.shape[-1]
    result = np.empty((kept, *residues.shape[1:]), _I)
    if not dropped:
        result[:] = residues
        return result
    divisor = math.prod(primes[kept:])
    half = divisor // 2
    source, target = residues.reshape(len(primes), -1, dimension), result.reshape(kept, -1, dimension)
    digits, spare = np.empty((dropped, dimension), _I), np.empty((1, dimension), _I)
    for polynomial in range(source.shape[1]):
        for at, prime in enumerate(primes[kept:]):
            digits[at] = transform_for(prime, dimension).inverse(source[kept + at, polynomial])
        _mixed_radix(digits, primes[kept:], half, spare)
        for at, prime in enumerate(primes[:kept]):
            radices = [math.prod(primes[kept : kept + i]) % prime for i in range(dropped)]
            loops.combine(digits, np.array(radices, dtype=_I), -half % prime, prime, spare[0])
            subtrahend = transform_for(prime, dimension).forward(spare)
            minuend = np.ascontiguousarray(source[at, polynomial])[None]
            loops.subtract_and_scale(minuend, subtrahend, pow(divisor, -1, prime), prime, target[at, polynomial][None])
    return result


def _mixed_radix(digits: Array, primes: tuple[int, ...], constant: int, spare: Array) -> None:
    """Residues `(primes, N)` of x in place to digits d of x + constant: d[0] + primes[0] (d[1] + primes[1] (...))."""
    for at, prime in enumerate(primes):
        row = digits[at : at + 1]
        loops.combine(row.copy(), np.ones(1, dtype=_I), constant % prime, prime, row[0])
        for before in range(at):
            reduce(digits[before : before + 1], prime, spare)
            loops.subtract_and_scale(row.copy(), spare, pow(primes[before], -1, prime), prime, row)


@compiled
def reduce(x: Array, p: int, out: Array) -> None:
    """Residues modulo p of integers `(n, N)` in [0, 2**50]: the quotient is off by less than one."""
    inverse = 1.0 / p
    for n in range(x.shape[0]):
        source, target = x[n], out[n]
        for j in range(source.size):
            r = source[j] - _I(np.floor(_D(source[j]) * inverse)) * p
            r = r + p if r < 0 else r
            target[j] = r - p if r >= p else r
