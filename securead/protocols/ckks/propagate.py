"""Scales, levels and error bounds of every step of a program, for given parameters.

A scale is a power of two times powers of the factors that rescaling divides by, kept as exponents: so two scales are
known to differ by exactly a power of two, and then their sources are aligned without an error.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from securead.errors import FixProgramError
from securead.program.polynomial import Affine, Input, Product, PublicPolynomial
from securead.protocols.ckks.noise import Tails

_EXACT_BITS = 53
_ALL_PRIMES = 1.001  # one rounding, and those that primes of at least 17 bits divide
_INEXACT = 2.0**-51  # a scale and its ratio, each rounded to a double


@dataclass(frozen=True)
class Scale:
    """`2**two * prod factors[j]**powers[j]`."""

    two: int
    powers: tuple[int, ...]

    def times(self, other: Scale) -> Scale:
        powers = tuple(a + b for a, b in zip(self.powers, other.powers, strict=True))
        return Scale(self.two + other.two, powers)

    def shifted(self, bits: int) -> Scale:
        return Scale(self.two + bits, self.powers)

    def divided(self, stage: int) -> Scale:
        return Scale(self.two, tuple(p - (j == stage) for j, p in enumerate(self.powers)))

    def value(self, factors: Sequence[int]) -> float:
        """Correctly rounded but for the few multiplications: exact where there is no factor."""
        result = math.ldexp(1.0, self.two)
        for factor, power in zip(factors, self.powers, strict=True):
            for _ in range(abs(power)):
                result = result * factor if power > 0 else result / factor
        return result


@dataclass(frozen=True)
class State:
    """One step under encryption: rescalings behind it, scale, polynomials, and the worst error in real units."""

    stage: int
    scale: Scale
    size: int
    error: float
    multipliers: tuple[float, ...] = ()


@dataclass(frozen=True)
class Chain:
    """The parameters that errors depend on. `factors[j]` is what the j-th rescaling divides by (0 or more of them)."""

    role: Literal["same", "split"]
    ring_dimension: int
    special_prime: int
    input_bits: int
    factors: tuple[int, ...]
    align_bits: int

    @property
    def input_scale(self) -> Scale:
        # With one rescaling factor p, an input scale of p times a power of two makes a rescaled product's scale
        # p times a power of two as well, and linear layers over both of them exact.
        single = len(self.factors) == 1
        bits = self.input_bits - ((self.factors[0] - 1).bit_length() if single else 0)
        return Scale(bits, (1,) if single else (0,) * len(self.factors))


def stages_needed(public: PublicPolynomial) -> int:
    """The number of rescalings on the longest path: products that feed another product."""
    stages = [0] * len(public.steps)
    feeds = products_before_products(public)
    for at, step in enumerate(public.steps):
        match step:
            case Affine():
                stages[at] = max(stages[s] for s in step.sources)
            case Product():
                stages[at] = max(stages[step.left], stages[step.right]) + (at in feeds)
            case _:
                pass
    return max(stages)


def products_before_products(public: PublicPolynomial) -> frozenset[int]:
    """The products from which a later product can be reached."""
    reaches = [False] * len(public.steps)
    for at in reversed(range(len(public.steps))):
        step = public.steps[at]
        match step:
            case Affine():
                for s in step.sources:
                    reaches[s] = reaches[s] or reaches[at]
            case Product():
                reaches[step.left] = reaches[step.right] = True
            case _:
                pass
    return frozenset(at for at, step in enumerate(public.steps) if isinstance(step, Product) and reaches[at])


def largest(public: PublicPolynomial, at: int) -> float:
    """The largest magnitude of a step in real units."""
    return math.ldexp(1.0, public.steps[at].bound_bits - public.steps[at].fraction_bits)


def public_term_bound(public: PublicPolynomial) -> float:
    """The largest magnitude of all public terms in real units."""
    total = sum(term.bound(public.encoder) for term in public.public_terms)
    return math.ldexp(float(total), -public.score_fraction_bits) * (1 + _INEXACT)


def tails_for(public: PublicPolynomial, ring_dimension: int) -> Tails:
    """The tail bounds for the polynomials that can occur in a chunk of this program."""
    components = sum(step.width for step in public.steps) + 2
    return Tails(ring_dimension, 32 * components)


def propagate(public: PublicPolynomial, chain: Chain, tails: Tails) -> list[State]:
    """The state of every step; the last one is the score before its final rescaling, public terms included."""
    feeds = products_before_products(public)
    scale = chain.input_scale
    fresh = tails.fresh(chain.role, chain.special_prime) / scale.value(chain.factors)
    states: list[State] = []
    for at, step in enumerate(public.steps):
        match step:
            case Input():
                bound = math.ldexp(float(public.encoder.bound), -step.fraction_bits)
                error = fresh + tails.encode(bound, scale.value(chain.factors)) + bound * _INEXACT
                states.append(State(0, scale, 2, error))
            case Affine():
                states.append(_affine(public, chain, states, at, step))
            case Product():
                states.append(_product(public, chain, tails, states, at, step, rescale=at in feeds))
            case _:
                raise FixProgramError(f"CKKS carries no {step.type_tag}", remedy="Use squares instead.")
    if chain.role == "split" and public.public_terms:
        states[-1] = _with_public_column(public, chain, tails, states[-1], fresh)
    return states


def _affine(public: PublicPolynomial, chain: Chain, states: list[State], at: int, step: Affine) -> State:
    stage = max(states[s].stage for s in step.sources)
    weight_bits = [step.fraction_bits - public.steps[s].fraction_bits for s in step.sources]
    natural = [states[s].scale.shifted(bits) for s, bits in zip(step.sources, weight_bits, strict=True)]
    target = max(natural, key=lambda scale: scale.value(chain.factors))
    shift = 0
    for scale in natural:
        if scale.powers != target.powers:
            ratio = target.value(chain.factors) / scale.value(chain.factors)
            shift = max(shift, chain.align_bits - math.frexp(ratio)[1] + 1)
    target = target.shifted(shift)
    error = math.ldexp(1.0, step.offset_bits - step.fraction_bits) * _INEXACT + 0.5 / target.value(chain.factors)
    multipliers = []
    for source, scale, gain_bits in zip(step.sources, natural, step.gain_bits, strict=True):
        state = states[source]
        gain = math.ldexp(1.0, gain_bits - step.fraction_bits + public.steps[source].fraction_bits)
        if scale.powers == target.powers:
            bits = target.two - state.scale.two
            multipliers.append(math.ldexp(1.0, bits))
            rounding = gain * _INEXACT if gain_bits > _EXACT_BITS else 0.0
        else:
            multipliers.append(target.value(chain.factors) / state.scale.value(chain.factors))
            rounding = 0.5 * public.steps[source].width / multipliers[-1] + gain * _INEXACT
        reach = largest(public, source) + state.error
        error += gain * state.error + rounding * reach + gain * reach * _INEXACT
    return State(stage, target, max(states[s].size for s in step.sources), error, tuple(multipliers))


def _product(
    public: PublicPolynomial, chain: Chain, tails: Tails, states: list[State], at: int, step: Product, *, rescale: bool
) -> State:
    left, right = states[step.left], states[step.right]
    a, b = largest(public, step.left), largest(public, step.right)
    error = a * right.error + b * left.error + left.error * right.error
    scale = left.scale.times(right.scale)
    stage, size = max(left.stage, right.stage), left.size + right.size - 1
    if rescale and chain.factors:
        scale = scale.divided(stage)
        # A factor of several primes is dropped one prime at a time; an earlier rounding is divided by the later primes.
        error += _ALL_PRIMES * tails.rescale(size) / scale.value(chain.factors)
        stage += 1
    return State(stage, scale, size, error + (a * b + error) * _INEXACT)


def _with_public_column(public: PublicPolynomial, chain: Chain, tails: Tails, score: State, fresh: float) -> State:
    column_scale, target = chain.input_scale.value(chain.factors), score.scale.value(chain.factors)
    bound, multiplier = public_term_bound(public), target / column_scale
    error = fresh + tails.encode(bound, column_scale) + bound * _INEXACT
    error += (bound + error) * (0.5 / multiplier + _INEXACT)
    return State(score.stage, score.scale, score.size, score.error + error, (*score.multipliers, multiplier))
