"""Bounds on noise that hold for every key and every randomness, not with high probability: why decryption never fails.

Everything is integers, so every machine derives the same plan. The protocol's SPEC.md, section 5, has the argument.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from securead.protocols.engine import Role
from securead.protocols.seal.noise import FLOOD_BITS, LARGEST_ERROR, public_error


def fresh_error(role: Role, ring_dimension: int, special_prime: int) -> int:
    """The largest error of a coefficient in a fresh encryption, apart from rounding the message.

    Role `same` is SEAL's symmetric encryption: one error polynomial. Role `split` is its public-key encryption.
    """
    return LARGEST_ERROR if role == "same" else public_error(ring_dimension, special_prime)


@dataclass(frozen=True)
class Margins:
    """Noise in an answer, before and after the modulus is switched down; the plaintext modulus is t = 2**plain_bits.

    q is the product of the data primes, of which the first remains in an answer. `entries`: of all tables together.
    """

    ring_dimension: int
    special_prime: int
    plain_bits: int
    role: Role
    entries: int
    largest: int

    @property
    def noise(self) -> int:
        """The largest error of a score's coefficient before flooding: lookup, rounding q / t, and the mask."""
        fresh = fresh_error(self.role, self.ring_dimension, self.special_prime)
        rounding = 1 << (self.plain_bits - 1)
        return self.entries * self.largest * fresh + rounding + public_error(self.ring_dimension, self.special_prime)

    @property
    def flood_bits(self) -> int:
        """Flooding is uniform on [-F, F) with F = 2**flood_bits, the smallest power of two above 2**40 times noise."""
        return (self.noise - 1).bit_length() + FLOOD_BITS

    @property
    def smallest_modulus(self) -> int:
        """For q at least this, noise and flooding fill at most half the step q / t: q / (4 t) to both sides."""
        return 4 * ((1 << self.flood_bits) + self.noise) << self.plain_bits

    @property
    def smallest_last_prime(self) -> int:
        """For a first prime p at least this, what switching down adds, and one unit for SEAL's own division, fit, too.

        Each dropped prime adds at most (N + 1) / 2; divided by later primes, all together add less than (N + 2) / 2.
        With half of p / (2 t) taken by the noise, (N + 4) / 2 must fit into the other half.
        """
        return 2 * (self.ring_dimension + 4) << self.plain_bits

    def hold(self, data_primes: tuple[int, ...], flood_bits: int) -> bool:
        """Whether flooding hides and decryption cannot fail."""
        fits = 4 * ((1 << flood_bits) + self.noise) << self.plain_bits <= math.prod(data_primes)
        return fits and flood_bits >= self.flood_bits and data_primes[0] >= self.smallest_last_prime


def plain_bits(score_bits: int, largest: int) -> int:
    """Bits of the plaintext modulus: it exceeds every score, and twice every entry, so that signs are unambiguous."""
    return max(score_bits, largest.bit_length() + 1)
