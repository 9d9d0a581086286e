"""How large the errors of CKKS can get: the numbers that `plan` adds up.

All bounds are on the canonical embedding (the slots), where a product of polynomials is a product of values, and
hold together except with probability 2**-64 in a chunk. Let X = sum r_j zeta**j with independent r_j that are
sub-Gaussian with variance proxy v. In any direction X is sub-Gaussian with proxy v N / 2, because the squares of the
cosines of N consecutive odd multiples of a slot's angle sum to N / 2. The largest of 16 directions bounds |X| up to
a factor cos(pi / 16); a union over directions, slots and polynomials gives the number of deviations.

Variance proxies equal the variances: 2/3 for ternary secrets, 21/2 for SEAL's centred binomial of 42 bits, 1/12 for
rounding. That the roundings of a rescale are uniform and independent is exact for linear images of fresh ciphertexts
and an assumption for products; the protocol's SPEC.md has the whole argument.

Only operations that IEEE 754 rounds correctly are used, so every machine derives the same plan, bit for bit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from securead.protocols.engine import Role
from securead.protocols.seal.noise import FLOOD_BITS, key_level_error

FAILURE_BITS = 64
_DIRECTIONS_BITS = 4
_COS_PI_16 = 0.98  # below cos(pi / 16) = .98078
_LN_2 = 0.6931471805599453
_UNIT = 2.0**-53
# Rounding of one butterfly relative to its output in the Euclidean norm, root included: below 8 units (the complex
# product accounts for sqrt(5): Brent, Percival and Zimmermann 2007). Summed over all stages of a transform of
# length N as seen from one slot: below 8 units times sqrt(2) / (sqrt(2) - 1) times sqrt(N).
_TRANSFORM_UNITS = 8 * 3.4143


def mask_bound(ring_dimension: int, degree: int) -> int:
    """The largest coefficient of the masks' noise, sum over j < degree of s**j times an encryption of zero.

    For every ternary key and all randomness: multiplying by s adds at most N coefficients.
    """
    powers: int = sum(ring_dimension**j for j in range(degree))
    return key_level_error(ring_dimension) * powers


def flood_bits(ring_dimension: int, hidden: int) -> int:
    """Flooding is uniform on [-F, F), F = 2**flood_bits the least power of two from 2**40 N / 2 times `hidden` on.

    Then leaving out what is at most `hidden` in every coefficient changes the distribution of all N by at most 2**-40.
    """
    return (hidden * (ring_dimension // 2) - 1).bit_length() + FLOOD_BITS


@dataclass(frozen=True)
class Tails:
    """Bounds for ring dimension N when at most `polynomials` random polynomials occur in a chunk."""

    ring_dimension: int
    polynomials: int

    @property
    def deviations(self) -> float:
        """The number of standard deviations that no direction of any slot exceeds."""
        events = self.polynomials * (self.ring_dimension // 2)
        return math.sqrt(2 * _LN_2 * (FAILURE_BITS + _DIRECTIONS_BITS + events.bit_length()))

    @property
    def secret(self) -> float:
        """A bound on the embedding of a ternary secret."""
        return self._embedding(2 / 3)

    @property
    def rounding(self) -> float:
        """A bound on the embedding of a rounding error of one polynomial."""
        return self._embedding(1 / 12)

    def fresh(self, role: Role, special_prime: int) -> float:
        """A bound on the error of a fresh encryption, encoding apart.

        Role `same` is SEAL's symmetric encryption: one error polynomial. Role `split` is its public-key encryption,
        made one level up and rounded down: (e u + e1 + e2 s) / special prime, and a rescale's rounding.
        """
        noise = self._embedding(21 / 2)
        if role == "same":
            return noise
        return noise * (1 + 2 * self.secret) / special_prime + self.rescale(2)

    def rescale(self, size: int) -> float:
        """A bound on the error that dropping one prime adds to a ciphertext of `size` polynomials."""
        return self.rounding * self._powers(size)

    def sanitising(self, degree: int, flood: int) -> float:
        """A bound on what an answer's masks and flood, uniform on [-2**flood, 2**flood), add to a slot.

        A sum of the flood and an independent uniform real in a unit interval is uniform, so the flood's proxy is at
        most a continuous uniform variable's, a third of the square; its mean is -1/2.
        """
        zeros = self._embedding(21 / 2) * (1 + 2 * self.secret) * self._powers(degree)
        return zeros + math.ldexp(self._embedding(1 / 3), flood) + self.ring_dimension / 2

    def encode(self, largest: float, scale: float) -> float:
        """The encoder's error for values up to `largest`: rounded coefficients, and a transform in doubles."""
        return self.ring_dimension / 2 / scale + self._doubles(largest)

    def decode(self, largest: float, scale: float, modulus: int) -> float:
        """The decoder's error: coefficients to doubles, digit by digit beyond 64 bits, and a transform in doubles."""
        digits = self.ring_dimension * 2.0**12 / scale if modulus >> 64 else 0.0
        return digits + self._doubles(largest)

    def _powers(self, count: int) -> float:
        """1 + B + ... with `count` terms, B the bound on the secret."""
        power, total = 1.0, 0.0
        for _ in range(count):
            total, power = total + power, power * self.secret
        return total

    def _doubles(self, largest: float) -> float:
        return (_TRANSFORM_UNITS + 4) * _UNIT * math.sqrt(self.ring_dimension) * largest

    def _embedding(self, variance: float) -> float:
        return self.deviations * math.sqrt(variance * self.ring_dimension / 2) / _COS_PI_16
