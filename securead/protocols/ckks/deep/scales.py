"""Scales and error bounds of every step, for given parameters: exact fractions, as primes are no powers of two.

A step's value v is encrypted as v times its scale, plus an error. A sum is computed at one scale, S: that of its
deepest source times the scale of the weights, which are then the program's own integers, times a power of two. A source
at another scale has its weights times the ratio rounded, which errs by at most half a unit of each; or, where weights
are small but for a power of two, is multiplied by them and by the integer nearest to the ratio. The power of two in S
is the least for which either is below what rescaling adds.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

from securead.program.polynomial import Affine, Input, Product, PublicPolynomial
from securead.protocols.ckks.deep.structure import Structure
from securead.protocols.ckks.noise import Tails
from securead.protocols.ckks.propagate import largest, public_term_bound
from securead.protocols.engine import Role
from securead.protocols.seal.noise import LARGEST_ERROR

if TYPE_CHECKING:
    from securead.protocols.ckks.deep.plan import DeepPlan

_UP = 1 + 2.0**-40  # the few roundings of a step's own bound
SMALL_WEIGHT_BITS = 20
TRANSFORM_UNITS = 32  # see `ckks.noise`: 8 a butterfly, summed over stages, and the table's


@dataclass(frozen=True)
class Scaled:
    """All steps' scales and worst errors in real units, when everything of one step but rescaling has been done.

    `moduli`: what each group of primes divides by. `room`: what the modulus of the last level has to exceed, twice the
    largest value that has to fit one.
    """

    scales: tuple[Fraction, ...]
    lifts: tuple[int, ...]
    errors: tuple[float, ...]
    moduli: tuple[Fraction, ...]
    room: Fraction

    def factor_scale(self, structure: Structure, at: int) -> Fraction:
        """The scale of a step that is multiplied: it has been rescaled, unless it is of depth 0."""
        depth = structure.depths[at]
        return self.scales[at] / (self.moduli[depth - 1] if depth else 1)


@dataclass(frozen=True)
class Given:
    """What has been decided: the groups' moduli, and the power of two in every sum."""

    moduli: tuple[int, ...]
    lifts: tuple[int, ...]


@dataclass(frozen=True)
class Setting:
    """A program in one role at one ring dimension with one special prime."""

    public: PublicPolynomial
    role: Role
    structure: Structure
    tails: Tails
    special_prime: int

    @property
    def ring_dimension(self) -> int:
        return self.tails.ring_dimension

    @property
    def public_bound(self) -> float:
        """The largest magnitude of public terms where they are encrypted, else 0."""
        return public_term_bound(self.public) if self.role == "split" else 0.0

    @property
    def reach(self) -> float:
        """The largest score that is decrypted."""
        return largest(self.public, len(self.public.steps) - 1) + self.public_bound

    def switching_error(self, digits: int) -> float:
        """The most that relinearising adds to a slot, with certainty, in units of the ciphertext; digits' bits in sum.

        A digit is a residue below its prime, an error of the key at most 21, a product of polynomials at most N times
        the largest coefficients' product; then a division by the special prime, which rounds two polynomials.
        """
        n = self.ring_dimension
        coefficient = LARGEST_ERROR * n * (digits / self.special_prime) + (n + 1) / 2
        return n * coefficient * _UP


def scale(
    setting: Setting,
    precision: int,
    input_bits: int,
    digits: int,
    given: Given | None,
    *,
    encoding: bool = True,
) -> Scaled:
    """Scales and errors where records are encrypted at 2**input_bits.

    What is multiplied has errors of rescaling of at most 2**-precision of its largest value. Where nothing is `given`,
    each group's modulus is the largest power of two that keeps that, and one if there is no such.
    `digits`: the sum of all data primes, of which a product is relinearised. Without `encoding`, errors are those
    against the records that were encoded, and not against what they were encoded from.
    """
    public, structure = setting.public, setting.structure
    count = len(public.steps)
    scales, errors, lifts = [Fraction(0)] * count, [0.0] * count, [0] * count
    moduli: list[Fraction] = []
    switching = setting.switching_error(digits)
    for depth in range(structure.depth + 1):
        for at in (i for i in range(count) if structure.depths[i] == depth):
            step = public.steps[at]
            match step:
                case Input():
                    scales[at] = Fraction(1 << input_bits)
                    errors[at] = input_error(setting, float(scales[at]), largest(public, at), encoding)
                case Affine():
                    scales[at], lifts[at], errors[at] = _affine(
                        setting, at, precision, scales, errors, input_bits, encoding, given.lifts[at] if given else None
                    )
                case Product():
                    scales[at], errors[at] = _product(setting, at, precision, scales, errors, moduli)
            if at in structure.relinearised:
                errors[at] = (errors[at] + switching / float(scales[at])) * _UP
        if 1 <= depth < structure.depth:
            moduli.append(Fraction(given.moduli[depth - 1]) if given else _modulus(setting, depth, precision, scales))
    room = _room(setting, scales, errors, moduli)
    return Scaled(tuple(scales), tuple(lifts), tuple(errors), tuple(moduli), room)


def input_error(setting: Setting, scale: float, bound: float, encoding: bool) -> float:
    """Of fresh encryption, and of encoding: coefficients off by one at most, and a transform in pairs of doubles."""
    n = setting.ring_dimension
    error = setting.tails.fresh(setting.role, setting.special_prime) / scale
    return (error + (n / scale + transform_error(n, bound) if encoding else 0.0)) * _UP


def transform_error(ring_dimension: int, bound: float) -> float:
    """What a transform in pairs of doubles errs by in a slot, for slots up to `bound`: as one in doubles, with their
    rounding replaced by 2**-102.
    """
    return TRANSFORM_UNITS * 2.0**-102 * math.sqrt(ring_dimension) * bound


def _affine(
    setting: Setting,
    at: int,
    precision: int,
    scales: Sequence[Fraction],
    errors: Sequence[float],
    input_bits: int,
    encoding: bool,
    lift: int | None,
) -> tuple[Fraction, int, float]:
    """An affine step's scale, the power of two in it, and its error."""
    public, depths = setting.public, setting.structure.depths
    step = public.steps[at]
    assert isinstance(step, Affine)  # noqa: S101
    weighed = [scales[s] * Fraction(2) ** (step.fraction_bits - public.steps[s].fraction_bits) for s in step.sources]
    base = max(w for w, s in zip(weighed, step.sources, strict=True) if depths[s] == depths[at])
    # What rounding an offset and ratios costs, times the sum's scale; `lift` makes the scale large enough for that.
    rounded, error = Fraction(1, 2), 0.0
    for source, scaled, gain in zip(step.sources, weighed, step.gain_bits, strict=True):
        error += math.ldexp(errors[source], gain - step.fraction_bits + public.steps[source].fraction_bits)
        # Of a lower depth: powers of two now, but not when there are primes.
        if depths[source] < depths[at] or (base / scaled).denominator != 1:
            # Of the source with its error, which is smaller than it: else nothing fits.
            width = public.steps[source].width
            rounded += scales[source] * (width << SMALL_WEIGHT_BITS) * Fraction(largest(public, source))
    if at == len(public.steps) - 1 and setting.public_bound:
        column = Fraction(1 << input_bits)
        error += input_error(setting, float(column), setting.public_bound, encoding)
        rounded += column * Fraction(setting.public_bound)
    needed = rounded * 2**precision / Fraction(largest(public, at) or 1.0)
    lift = max(0, _log2_up(needed / base)) if lift is None else lift
    result = base * 2**lift
    return result, lift, (error + float(rounded / result)) * _UP


def _product(
    setting: Setting,
    at: int,
    precision: int,
    scales: Sequence[Fraction],
    errors: Sequence[float],
    moduli: Sequence[Fraction],
) -> tuple[Fraction, float]:
    public, structure = setting.public, setting.structure
    step = public.steps[at]
    assert isinstance(step, Product)  # noqa: S101
    found: list[tuple[Fraction, float]] = []
    for factor in (step.left, step.right):
        depth = structure.depths[factor]
        divisor = moduli[depth - 1] if depth else Fraction(1)
        scaled, error = scales[factor] / divisor, errors[factor]
        if divisor != 1:
            error += setting.tails.rescale(structure.sizes[factor]) / float(scaled)
        found.append((scaled, error))
    (left, left_error), (right, right_error) = found
    a, b = largest(public, step.left), largest(public, step.right)
    return left * right, (a * right_error + b * left_error + left_error * right_error) * _UP


def _modulus(setting: Setting, depth: int, precision: int, scales: Sequence[Fraction]) -> Fraction:
    """The largest power of two by which the factors of one depth may be divided."""
    structure, bits = setting.structure, list[int]()
    for at in structure.factors:
        if structure.depths[at] == depth:
            unit = Fraction(largest(setting.public, at) or 1.0)
            needed = Fraction(setting.tails.rescale(structure.sizes[at])) * 2**precision / unit
            bits.append(-_log2_up(needed / scales[at]))
    return Fraction(2 ** max(0, min(bits, default=0)))


def _room(
    setting: Setting, scales: Sequence[Fraction], errors: Sequence[float], moduli: Sequence[Fraction]
) -> Fraction:
    """Twice the largest value that has to fit, as seen from the last level."""
    public, structure = setting.public, setting.structure
    room = Fraction(setting.reach + setting.public.tolerance) * scales[-1]
    for at in structure.factors:
        gone = math.prod(moduli[structure.level(at) :], start=Fraction(1))
        room = max(room, Fraction(largest(public, at) + errors[at]) * scales[at] / gone)
    return 2 * room


def _log2_up(value: Fraction) -> int:
    """The smallest e with value <= 2**e."""
    e = value.numerator.bit_length() - value.denominator.bit_length()
    while value > Fraction(2) ** e:
        e += 1
    while value <= Fraction(2) ** (e - 1):
        e -= 1
    return e


def scales_of(plan: DeepPlan, public: PublicPolynomial) -> tuple[Fraction, ...]:
    """Every step's scale under a plan: what `scale` gives."""
    scales: list[Fraction] = []
    moduli = [Fraction(modulus) for modulus in _moduli(plan)]

    def factor(at: int) -> Fraction:
        depth = plan.steps[at].depth
        return scales[at] / (moduli[depth - 1] if depth else 1)

    for step, planned in zip(public.steps, plan.steps, strict=True):
        match step:
            case Input():
                scales.append(Fraction(1 << plan.input_bits))
            case Affine():
                bits = [step.fraction_bits - public.steps[s].fraction_bits for s in step.sources]
                deepest = [
                    scales[s] * Fraction(2) ** b
                    for s, b in zip(step.sources, bits, strict=True)
                    if plan.steps[s].depth == planned.depth
                ]
                scales.append(max(deepest) * 2**planned.lift)
            case Product():
                scales.append(factor(step.left) * factor(step.right))
            case _:
                raise AssertionError(step)
    return tuple(scales)


def _moduli(plan: DeepPlan) -> list[int]:
    """What each group of primes divides by."""
    levels = plan.level_primes
    return [math.prod(plan.data_primes[end:start]) for start, end in itertools.pairwise(levels)]
