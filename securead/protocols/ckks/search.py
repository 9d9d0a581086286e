"""The cheapest parameters that carry a program within its tolerance at 128 bits.

The order of cheapness: ring dimension, bytes both ways, primes (which the time is proportional to). Candidates are
ranked with powers of two in the place of primes; the first that also holds with real primes is taken.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from securead.program.polynomial import PublicPolynomial
from securead.protocols.ckks.noise import Tails, flood_bits, mask_bound
from securead.protocols.ckks.propagate import State, largest, propagate, public_term_bound, spread, tails_for
from securead.protocols.engine import Role
from securead.protocols.seal import primes

MAX_ANSWER_PRIMES = 2  # SEAL's decoder is exact enough for two 64-bit digits
MIN_PRIME_BITS, MAX_PRIME_BITS = 20, 50  # what `residues` proves exact
_MOST_EXCESS, _MOST_EXCESS_FLOODED = 96, 160
_EXCESS_CHOICES = 8  # beyond the least: a larger scale leaves more of the tolerance to the answer's rounding
_MARGIN = 1.0 + 1.0 / 32
_LATER_PRIMES = 1.01  # earlier roundings are divided by later primes


@dataclass(frozen=True)
class Found:
    """Parameters and what follows from them. `data_primes` in the order in which they outlive rescaling."""

    ring_dimension: int
    special_prime: int
    excess_bits: int
    data_primes: tuple[int, ...]
    answer_primes: int
    flood_bits: int
    spread: float
    states: tuple[State, ...]
    error_bound: float
    result_bound: float


@dataclass(frozen=True, order=True)
class _Candidate:
    traffic: int
    words: int
    excess_bits: int
    answer: tuple[int, ...]
    dropped: tuple[int, ...]


@dataclass(frozen=True)
class _Setting:
    """A program in one role at one ring dimension, and what does not depend on the scale."""

    public: PublicPolynomial
    role: Role
    tails: Tails
    special_prime: int
    degree: int
    reach: float
    full_flood: bool

    @classmethod
    def of(cls, public: PublicPolynomial, role: Role, ring_dimension: int, full_flood: bool) -> _Setting:
        special = primes.special_prime(ring_dimension)
        score = largest(public, len(public.steps) - 1)
        reach = score + (public_term_bound(public) if role == "split" else 0.0)
        return cls(public, role, tails_for(public, ring_dimension), special, public.degree, reach, full_flood)

    def scale_bits(self, excess_bits: int) -> int:
        """Bits of the score's scale before it is rescaled."""
        return self.public.score_fraction_bits + self.degree * excess_bits

    def states(self, excess_bits: int) -> list[State]:
        return propagate(self.public, self.role, excess_bits, self.special_prime, self.tails)

    def spread(self, excess_bits: int) -> float:
        """The most by which encryption errors move the score."""
        states = self.states(excess_bits)
        return spread(self.public, self.role, excess_bits, self.special_prime, self.tails, states)

    def flood_bits(self, excess_bits: int) -> int:
        """The least flood over what it is to hide."""
        over = self.spread(excess_bits) if self.full_flood else 0.0
        n = self.tails.ring_dimension
        return flood_bits(n, mask_bound(n, self.degree) + in_coefficients(over, self.scale_bits(excess_bits)))

    def sanitised_error(self, excess_bits: int) -> float:
        """The worst error of the score with its masks and flood, before rescaling."""
        added = self.tails.sanitising(self.degree, self.flood_bits(excess_bits))
        return self.states(excess_bits)[-1].error + math.ldexp(added, -self.scale_bits(excess_bits))


def in_coefficients(slots: float, scale_bits: int) -> int:
    """A bound on the coefficients of a polynomial whose slots are at most `slots` at a scale of a power of two."""
    return math.ceil(math.ldexp(slots, scale_bits))


def search(public: PublicPolynomial, role: Role, *, full_flood: bool = False) -> Found | None:
    """The cheapest parameters, or None when nothing fits. A full flood hides what encryption errors do, too."""
    for ring_dimension in primes.RING_DIMENSIONS:
        setting = _Setting.of(public, role, ring_dimension, full_flood)
        for candidate in sorted(_candidates(setting)):
            found = _with_primes(setting, candidate)
            if found is not None:
                return found
    return None


def _candidates(setting: _Setting) -> Iterator[_Candidate]:
    ring_dimension = setting.tails.ring_dimension
    budget = primes.modulus_bits_limit(ring_dimension) - setting.special_prime.bit_length()
    least = _least_excess(setting)
    for excess_bits in range(least, least + _EXCESS_CHOICES) if least is not None else ():
        candidate = _lay_out(setting, excess_bits)
        if candidate is not None and sum(candidate.answer + candidate.dropped) <= budget:
            yield candidate


def _least_excess(setting: _Setting) -> int | None:
    """The smallest excess whose errors before rescaling stay within the tolerance (by bisection)."""
    low, high = 0, _MOST_EXCESS_FLOODED if setting.full_flood else _MOST_EXCESS
    if setting.sanitised_error(high) >= setting.public.tolerance:
        return None
    while low < high:
        middle = (low + high) // 2
        fits = setting.sanitised_error(middle) < setting.public.tolerance
        low, high = (low, middle) if fits else (middle + 1, high)
    return low


def _lay_out(setting: _Setting, excess_bits: int) -> _Candidate | None:
    """Split the modulus into what the answer keeps and what rescaling drops."""
    public, tails, size = setting.public, setting.tails, setting.degree + 1
    reach, scale_bits = setting.reach + public.tolerance, setting.scale_bits(excess_bits)
    room = public.tolerance - setting.sanitised_error(excess_bits) - tails.decode(reach, 1.0, 0)
    if room <= 0:
        return None
    least_scale = (_LATER_PRIMES * tails.rescale(size) + tails.ring_dimension * 2.0**12) / room
    inputs = _bits(2 * public.encoder.limit) + public.encoder.fraction_bits + excess_bits
    total = max(_bits(2 * reach * _MARGIN) + scale_bits, scale_bits + 2, inputs + 2, MIN_PRIME_BITS)
    rest = scale_bits - _bits(least_scale)  # what rescaling may take from the score's scale
    keep = max(total - rest, _bits(least_scale) + 2, MIN_PRIME_BITS)
    rest = total - keep
    if rest < MIN_PRIME_BITS:
        keep, rest = total, 0
    answer_words = -(-keep // MAX_PRIME_BITS)
    if answer_words > MAX_ANSWER_PRIMES:
        return None
    answer, dropped = _split(keep, answer_words), _split(rest, -(-rest // MAX_PRIME_BITS))
    columns = public.encoder.width + (setting.role == "split" and bool(public.public_terms))
    polynomials = columns * (1 if setting.role == "same" else 2)
    traffic = polynomials * (keep + rest) + size * keep
    return _Candidate(traffic, len(answer) + len(dropped), excess_bits, answer, dropped)


def _with_primes(setting: _Setting, candidate: _Candidate) -> Found | None:
    """The candidate with real primes, if every inequality still holds."""
    n, public = setting.tails.ring_dimension, setting.public
    data = primes.choose(n, candidate.answer + candidate.dropped)
    if data is None or (math.prod(data) * setting.special_prime).bit_length() > primes.modulus_bits_limit(n):
        return None
    kept, scale_bits = len(candidate.answer), setting.scale_bits(candidate.excess_bits)
    modulus, scale = math.prod(data[:kept]), answer_scale(scale_bits, data[kept:])
    error = setting.sanitised_error(candidate.excess_bits)
    error += _LATER_PRIMES * setting.tails.rescale(setting.degree + 1) / scale if candidate.dropped else 0.0
    error += setting.tails.decode(setting.reach + error, scale, modulus)
    result = setting.reach + error
    if error > public.tolerance or 2 * result * scale >= float(modulus):
        return None
    if scale_bits >= math.prod(data).bit_length() or _bits(scale) >= modulus.bit_length():
        return None  # SEAL wants room above every scale
    return Found(
        ring_dimension=n,
        special_prime=setting.special_prime,
        excess_bits=candidate.excess_bits,
        data_primes=data,
        answer_primes=kept,
        flood_bits=setting.flood_bits(candidate.excess_bits),
        spread=setting.spread(candidate.excess_bits),
        states=tuple(setting.states(candidate.excess_bits)),
        error_bound=error,
        result_bound=result,
    )


def answer_scale(scale_bits: int, dropped: tuple[int, ...]) -> float:
    """A scale of a power of two after rescaling by `dropped`, last prime first."""
    scale = math.ldexp(1.0, scale_bits)
    for prime in reversed(dropped):
        scale /= prime
    return scale


def _bits(value: float) -> int:
    """The smallest b with value <= 2**b (or one more where value is a power of two)."""
    return math.frexp(value)[1]


def _split(bits: int, parts: int) -> tuple[int, ...]:
    """`bits` in `parts` nearly equal widths, wide ones first."""
    return tuple(bits // parts + (i < bits % parts) for i in range(parts))
