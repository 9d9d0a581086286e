"""The cheapest parameters that carry a program within its tolerance at 128 bits.

The order of cheapness: ring dimension, words per coefficient (which the time is proportional to), bytes both ways.
Candidates are ranked with powers of two in the place of primes; the first that also holds with real primes is taken.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from securead.program.polynomial import PublicPolynomial
from securead.protocols.ckks.noise import Tails
from securead.protocols.ckks.propagate import (
    Chain,
    State,
    largest,
    propagate,
    public_term_bound,
    stages_needed,
    tails_for,
)
from securead.protocols.engine import Role
from securead.protocols.seal import primes

MAX_ANSWER_PRIMES = 2  # SEAL's decoder is exact enough for two 64-bit digits
MIN_PRIME_BITS = 20
_INPUT_BITS = (10, 110)
_STAGE_BITS = (24, 100)
_ALIGN_BITS = (8, 16, 24, 32, 40)
_MARGIN = 1.0 + 1.0 / 32
# Hundredths of a byte that a random word of 17, 18, ... 60 bits takes after SEAL's Zstandard (measured).
_WORD_COST = (
    *(287, 307, 320, 332, 343, 350, 348, 339),
    *(388, 406, 420, 433, 444, 447, 440, 429),
    *(486, 510, 531, 550, 570, 586, 596, 603),
    *(622, 640, 654, 665, 672, 678, 679, 684),
    *(704, 719, 732, 742, 749, 753, 754, 756),
    *(767, 777, 786, 800),
)


@dataclass(frozen=True)
class Found:
    """Parameters and what follows from them. `data_primes` in the order in which they outlive rescaling."""

    chain: Chain
    data_primes: tuple[int, ...]
    stage_sizes: tuple[int, ...]
    answer_primes: int
    states: tuple[State, ...]
    error_bound: float
    result_bound: float


@dataclass(frozen=True, order=True)
class _Candidate:
    words: int
    traffic: int
    bits: int
    stage_bits: int
    input_bits: int
    align_bits: int
    answer: tuple[int, ...]
    dropped: tuple[int, ...]


def search(public: PublicPolynomial, role: Role) -> Found | None:
    """The cheapest parameters, or None when nothing fits."""
    for ring_dimension in primes.RING_DIMENSIONS:
        tails = tails_for(public, ring_dimension)
        for candidate in sorted(_candidates(public, role, tails)):
            found = _with_primes(public, role, tails, candidate)
            if found is not None:
                return found
    return None


def _candidates(public: PublicPolynomial, role: Role, tails: Tails) -> Iterator[_Candidate]:
    stages = stages_needed(public)
    budget = primes.modulus_bits_limit(tails.ring_dimension)
    budget -= primes.special_prime(tails.ring_dimension).bit_length()
    stage_choices = [0, *range(_STAGE_BITS[0], _STAGE_BITS[1] + 1)] if stages else [0]
    for stage_bits in stage_choices:
        if stage_bits * stages >= budget:
            break
        for align_bits in _ALIGN_BITS:
            exact = _inexact_sources(public, role, tails, stage_bits) == 0
            low = _least_input_bits(public, role, tails, stage_bits, align_bits)
            for input_bits in range(low, min(low + 4, _INPUT_BITS[1])) if low is not None else ():
                candidate = _lay_out(public, role, tails, stage_bits, input_bits, align_bits)
                if candidate is not None and candidate.bits <= budget:
                    yield candidate
            if exact:
                break


def _inexact_sources(public: PublicPolynomial, role: Role, tails: Tails, stage_bits: int) -> int:
    """How many affine steps mix scales whose ratio is no power of two (only then does `align_bits` matter)."""
    states = propagate(public, _nominal(public, role, tails, stage_bits, 60, 20), tails)
    return sum(
        len({states[source].scale.powers for source in step.sources}) > 1
        for step in public.steps
        if hasattr(step, "sources")
    )


def _least_input_bits(
    public: PublicPolynomial, role: Role, tails: Tails, stage_bits: int, align_bits: int
) -> int | None:
    """The smallest input scale whose errors before the final rescaling stay within the tolerance (by bisection)."""

    def fits(input_bits: int) -> bool:
        chain = _nominal(public, role, tails, stage_bits, input_bits, align_bits)
        return propagate(public, chain, tails)[-1].error < public.tolerance

    low, high = _INPUT_BITS
    if not fits(high):
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle + 1, high)
    return low


def _nominal(
    public: PublicPolynomial, role: Role, tails: Tails, stage_bits: int, input_bits: int, align_bits: int
) -> Chain:
    factors = (1 << stage_bits,) * (stages_needed(public) if stage_bits else 0)
    special = primes.special_prime(tails.ring_dimension)
    return Chain(role, tails.ring_dimension, special, input_bits, factors, align_bits)


def _lay_out(
    public: PublicPolynomial, role: Role, tails: Tails, stage_bits: int, input_bits: int, align_bits: int
) -> _Candidate | None:
    """Split the modulus into what rescaling drops, what the final rescaling drops, and what the answer keeps."""
    chain = _nominal(public, role, tails, stage_bits, input_bits, align_bits)
    score = propagate(public, chain, tails)[-1]
    reach, scale = _result_bound(public, role) + public.tolerance, score.scale.value(chain.factors)
    room = public.tolerance - score.error - tails.decode(reach, 1.0, 0)
    if room <= 0:
        return None
    least_scale = (tails.rescale(score.size) * 1.01 + tails.ring_dimension * 2.0**12) / room
    total = max(_bits(2 * reach * scale * _MARGIN), _bits(scale) + 2, MIN_PRIME_BITS)
    keep = max(_bits(2 * reach * min(scale, least_scale) * _MARGIN), _bits(least_scale) + 2, MIN_PRIME_BITS)
    keep = min(keep, total)
    words = -(-total // primes.MAX_PRIME_BITS)
    for drops in range(words - 1, -1, -1):
        kept = max(keep, total - primes.MAX_PRIME_BITS * drops)
        answer_words = words - drops
        if kept <= primes.MAX_PRIME_BITS * answer_words and answer_words <= MAX_ANSWER_PRIMES:
            dropped = _split(total - kept, drops)
            stages = _split(stage_bits, -(-stage_bits // primes.MAX_PRIME_BITS)) * stages_needed(public)
            answer = _split(kept, answer_words)
            if min(*answer, *dropped, *stages, 99) < MIN_PRIME_BITS:
                continue
            bits = sum(answer) + sum(dropped) + sum(stages)
            length = len(answer) + len(dropped) + len(stages)
            columns = public.encoder.width + (role == "split" and bool(public.public_terms))
            up, down = _traffic(answer + dropped + stages), _traffic(answer)
            traffic = columns * up * (1 if role == "same" else 2) + score.size * down
            return _Candidate(length, traffic, bits, stage_bits, input_bits, align_bits, answer, dropped)
    return None


def _with_primes(public: PublicPolynomial, role: Role, tails: Tails, candidate: _Candidate) -> Found | None:
    """The candidate with real primes, if every inequality still holds."""
    stages = stages_needed(public) if candidate.stage_bits else 0
    group = -(-candidate.stage_bits // primes.MAX_PRIME_BITS)
    stage_bits = _split(candidate.stage_bits, group) * stages
    chosen = primes.choose(tails.ring_dimension, candidate.answer + candidate.dropped + stage_bits)
    special = primes.special_prime(tails.ring_dimension)
    limit = primes.modulus_bits_limit(tails.ring_dimension)
    if chosen is None or (math.prod(chosen) * special).bit_length() > limit:
        return None
    fixed = len(candidate.answer) + len(candidate.dropped)
    # SEAL drops the last prime first, so the first stage's primes come last.
    groups = [chosen[fixed + j * group : fixed + (j + 1) * group] for j in range(stages)]
    factors = tuple(math.prod(g) for g in groups)
    data = chosen[:fixed] + tuple(p for g in reversed(groups) for p in g)
    chain = Chain(role, tails.ring_dimension, special, candidate.input_bits, factors, candidate.align_bits)
    states = tuple(propagate(public, chain, tails))
    return _checked(public, role, tails, chain, data, (group,) * stages, len(candidate.answer), states)


def _checked(
    public: PublicPolynomial,
    role: Role,
    tails: Tails,
    chain: Chain,
    data: tuple[int, ...],
    stage_sizes: tuple[int, ...],
    answer_primes: int,
    states: tuple[State, ...],
) -> Found | None:
    score = states[-1]
    dropped = data[answer_primes : len(data) - sum(stage_sizes)]
    modulus, scale = math.prod(data[:answer_primes]), score.scale.value(chain.factors)
    for prime in reversed(dropped):
        scale /= prime
    result = _result_bound(public, role)
    error = score.error + (1.01 * tails.rescale(score.size) / scale if dropped else 0.0)
    error += tails.decode(result + error, scale, modulus)
    at_end = math.prod(data[: len(data) - sum(stage_sizes)]).bit_length()
    if error > public.tolerance or 2 * (result + error) * scale >= float(modulus):
        return None
    if _bits(score.scale.value(chain.factors)) >= at_end or _bits(scale) >= modulus.bit_length():
        return None  # SEAL wants room above every scale
    for at, state in enumerate(states):  # and above every constant, which no value is smaller than
        level = math.prod(data[: len(data) - sum(stage_sizes[: state.stage])]).bit_length()
        if _bits(largest(public, at) * state.scale.value(chain.factors)) >= level:
            return None
    return Found(chain, data, stage_sizes, answer_primes, states, error, result + error)


def _result_bound(public: PublicPolynomial, role: Role) -> float:
    """The largest magnitude of what is decrypted, in score units."""
    score = largest(public, len(public.steps) - 1)
    return score + (public_term_bound(public) if role == "split" else 0.0)


def _traffic(widths: tuple[int, ...]) -> int:
    return sum(_WORD_COST[width - 17] for width in widths)


def _bits(value: float) -> int:
    """The smallest b with value <= 2**b (or one more where value is a power of two)."""
    return math.frexp(value)[1]


def _split(bits: int, parts: int) -> tuple[int, ...]:
    """`bits` in `parts` nearly equal widths, wide ones first."""
    return tuple(bits // parts + (i < bits % parts) for i in range(parts))
