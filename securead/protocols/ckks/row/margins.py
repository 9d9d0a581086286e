"""Bounds on noise that hold for every key and all randomness, and the parameters that they allow.

Everything is integers and fractions, so every machine derives the same plan. The protocol's SPEC.md, sections 4 and 5,
has the argument.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from securead.program.polynomial import Affine, Input, Product, PublicPolynomial
from securead.protocols.engine import Role
from securead.protocols.seal import primes
from securead.protocols.seal.noise import FLOOD_BITS, LARGEST_ERROR, public_error

MAX_PRIME_BITS = 50  # of data primes: the residue kernels are proved for these
MAX_SLOTS = 32  # coefficients of an answer that are scores, at most
MAX_PLAIN_BITS = 59  # the largest power of two of 60 bits, which are SEAL's limit
# Scores are that many bits finer than the tolerance asks where the ring has room, because a score's error is nearly all
# flood, which fills what it may; a few bits fewer where that saves a prime.
SPARE_BITS, LEAST_SPARE_BITS = 10, 6
_WIDER = 3  # bits by which primes may be wider than their sum says, as they fall short of powers of two


def norms(public: PublicPolynomial, role: Role) -> list[int]:
    """For each degree, a bound on the sum of absolute coefficients of the score's monomials of that degree.

    From the public bounds on row sums alone. Role `split` counts the public terms, which the service then adds.
    """
    known: list[list[int]] = []
    for step in public.steps:
        match step:
            case Input():
                known.append([0, 1])
            case Affine():
                total = [0] * max(len(known[source]) for source in step.sources)
                for source, gain in zip(step.sources, step.gain_bits, strict=True):
                    for d, norm in enumerate(known[source]):
                        total[d] += norm << gain
                total[0] += 1 << step.offset_bits
                known.append(total)
            case Product():
                left, right = known[step.left], known[step.right]
                total = [0] * (len(left) + len(right) - 1)
                for d, one in enumerate(left):
                    for e, other in enumerate(right):
                        total[d + e] += one * other
                known.append(total)
            case _:
                raise ValueError(step)
    found = known[-1]
    if role == "split" and public.public_terms:
        found = found + [0] * (3 - len(found))
        found[2] += sum(abs(term.multiplier) * public.encoder.width for term in public.public_terms)
    return found


@dataclass(frozen=True)
class Margins:
    """Noise in an answer before the modulus is switched down, in units of one.

    `norm_bits`: the absolute coefficients of all monomials sum to at most 2**norm_bits. `score_bits`: no integer score
    that an answer holds exceeds 2**score_bits in magnitude.
    """

    ring_dimension: int
    special_prime: int
    role: Role
    norm_bits: int
    score_bits: int

    @property
    def noise(self) -> int:
        """The largest error of a kept coefficient but for the flood: coefficients times fresh errors, and the mask."""
        zero = public_error(self.ring_dimension, self.special_prime)
        fresh = LARGEST_ERROR if self.role == "same" else zero
        return (fresh << self.norm_bits) + zero

    @property
    def flood_bits(self) -> int:
        """Flooding is uniform on [-F, F), F = 2**flood_bits the least power of two with F >= 2**40 MAX_SLOTS noise."""
        return (MAX_SLOTS * self.noise - 1).bit_length() + FLOOD_BITS

    def error(self, flood_bits: int, data_primes: tuple[int, ...], answer_primes: int, plain_bits: int) -> Fraction:
        """The worst error of a decrypted score times its scale: noise, flood, switching down, and reading.

        Each dropped prime adds at most (N + 1) / 2; divided by later primes, all together less than (N + 2) / 2. SEAL's
        decryption reads in steps of q / 2**plain_bits and is off by less than one.
        """
        q, dropped = math.prod(data_primes), math.prod(data_primes[answer_primes:])
        switched = Fraction((self.ring_dimension + 2) * dropped, 2) if dropped > 1 else Fraction(0)
        return (1 << flood_bits) + self.noise + switched + Fraction(q, 1 << plain_bits)

    def fits(self, scale_bits: int, error: Fraction, data_primes: tuple[int, ...]) -> bool:
        """Whether no score wraps around the modulus: 2 (2**(score_bits + scale_bits) + error) < q."""
        return 2 * ((1 << self.score_bits + scale_bits) + error) < math.prod(data_primes)


@dataclass(frozen=True)
class Found:
    """Parameters that fit."""

    margins: Margins
    data_primes: tuple[int, ...]
    scale_bits: int
    answer_primes: int
    plain_bits: int


def search(public: PublicPolynomial, role: Role, *, tolerance: Fraction | None = None) -> Found | None:
    """The smallest ring that carries the program, scores as fine in it as there is room; or None.

    `tolerance`: in score units, in the place of the program's.
    """
    norm = sum(norms(public, role)[1:])
    score_bits = public.steps[-1].bound_bits if role == "same" else public.score_bits
    asked = (tolerance or Fraction(public.tolerance)) * (1 << public.score_fraction_bits)
    units = min(asked, Fraction(1 << score_bits)) - rounding(score_bits)
    if units <= 0:
        return None
    for n in primes.RING_DIMENSIONS:
        margins = Margins(n, primes.special_prime(n), role, max(0, norm - 1).bit_length(), score_bits)
        found = [_with_error(margins, units / (1 << spare)) for spare in range(SPARE_BITS, LEAST_SPARE_BITS - 1, -1)]
        fits = [parameters for parameters in found if parameters is not None]
        if fits:
            return min(fits, key=lambda parameters: len(parameters.data_primes))  # of equals, the finest
        for spare in range(LEAST_SPARE_BITS - 1, -1, -1):
            coarser = _with_error(margins, units / (1 << spare))
            if coarser is not None:
                return coarser
    return None


def rounding(score_bits: int) -> Fraction:
    """How far a score of that many bits is off as a double, at most, in its own units."""
    return Fraction(1 << score_bits, 1 << 52)


def plain_bits_for(modulus: int) -> int:
    """Bits of SEAL's plaintext modulus: the finest below an answer's modulus that SEAL can use."""
    return min(MAX_PLAIN_BITS, modulus.bit_length() - 1)


def _with_error(margins: Margins, units: Fraction) -> Found | None:
    """The least scale and the fewest primes with which a score's error is at most `units`, or None.

    Half of it is for noise and flood, half for switching down and reading.
    """
    n, flooded = margins.ring_dimension, (1 << margins.flood_bits) + margins.noise
    scale_bits = max(0, (math.ceil(2 * flooded / units) - 1).bit_length())
    most = units * (1 << scale_bits)
    room = most - flooded
    least = math.ceil(2 * ((1 << margins.score_bits + scale_bits) + most)).bit_length()
    limit = primes.modulus_bits_limit(n)
    if least + margins.special_prime.bit_length() - 1 > limit:
        return None
    for bits in range(least, least + _WIDER):
        narrowest = max(primes.MIN_PRIME_BITS, bits - (math.floor(room / (n // 2 + 3)).bit_length() - 1))
        fits: list[Found] = []
        for answer_bits in range(narrowest, min(bits, narrowest + MAX_PRIME_BITS // 2) + 1):
            answer, rest = _even(answer_bits), _even(bits - answer_bits)
            chosen = primes.choose(n, (*answer, *rest)) if min(rest, default=64) >= primes.MIN_PRIME_BITS else None
            if chosen is None:
                continue
            plain_bits = plain_bits_for(math.prod(chosen[: len(answer)]))
            error = margins.error(margins.flood_bits, chosen, len(answer), plain_bits)
            secure = (math.prod(chosen) * margins.special_prime).bit_length() <= limit
            if secure and error <= most and margins.fits(scale_bits, error, chosen):
                fits.append(Found(margins, chosen, scale_bits, len(answer), plain_bits))
        if fits:
            return min(fits, key=lambda found: len(found.data_primes))  # of equals, the shortest answer
    return None


def _even(bits: int) -> list[int]:
    """A width as a sum of as few and as even ones as possible."""
    parts = -(-bits // MAX_PRIME_BITS)
    return [bits // parts + (at < bits % parts) for at in range(parts)]
