"""What to change about a program that CKKS cannot carry: tried, not guessed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

from securead.errors import FixProgramError
from securead.program.polynomial import Affine, Input, Product, PublicPolynomial, Relu, Step, Truncate
from securead.program.program import PublicProgram
from securead.protocols.ckks.search import search
from securead.protocols.engine import Role

MAX_DEGREE = 4
_MOST_TOLERANCE_BITS = 64
_MOST_WEIGHT_BITS = 12
_MOST_LIMIT_HALVINGS = 5
_NAMES = {"relu": "ReLU", "truncate": "truncation"}


def carried(public: PublicProgram) -> PublicPolynomial:
    """The program, if this engine carries it; `FixProgramError` for another kind or degree, a ReLU, an idle step."""
    if not isinstance(public, PublicPolynomial):
        raise FixProgramError(
            "CKKS carries polynomial programs, this one looks up tables",
            where="ckks",
            value=public.type_tag,
            remedy="Serve it by the engine bfv.",
        )
    for at, step in enumerate(public.steps):
        if isinstance(step, Relu | Truncate):
            raise FixProgramError(
                f"CKKS evaluates sums and products only, this program has a {_NAMES[step.type_tag]}",
                where=f"ckks, step {at}",
                value=step.type_tag,
                remedy="Train with the square activation, or serve the program by secret sharing.",
            )
    if public.degree > MAX_DEGREE:
        raise FixProgramError(
            f"without relinearisation CKKS carries programs of total degree up to {MAX_DEGREE}",
            where="ckks",
            value=public.degree,
            remedy="Use one hidden square layer before a squared error (degree 4), or serve by secret sharing.",
        )
    needed = _needed(public)
    for at, step in enumerate(public.steps):
        if at not in needed:
            raise FixProgramError(
                "a step does not contribute to the score",
                where=f"ckks, step {at}",
                value=step.type_tag,
                remedy="Compile the program without it.",
            )
    return public


def _needed(public: PublicPolynomial) -> set[int]:
    """The steps from which the score can be reached."""
    needed = {len(public.steps) - 1}
    for at in reversed(range(len(public.steps))):
        step = public.steps[at]
        if at in needed and isinstance(step, Affine):
            needed |= set(step.sources)
        elif at in needed and isinstance(step, Product):
            needed |= {step.left, step.right}
    return needed


def smallest_changes(public: PublicPolynomial, role: Role, *, full_flood: bool = False) -> str:
    """Name, for each thing that can be given up, the least of it that makes the program fit."""
    fits: list[str] = ["the flood over masks alone"] if full_flood and search(public, role) is not None else []
    exponent = _least(_MOST_TOLERANCE_BITS, lambda k: _looser(public, k), role, full_flood)
    if exponent:
        tolerance = public.tolerance * 2.0**exponent
        fits.append(f"a tolerance of {tolerance:.3g} (2**{exponent} times looser)")
    bits = _least(_MOST_WEIGHT_BITS, lambda k: _coarser(public, k), role, full_flood)
    if bits:
        fits.append(f"{bits} fraction bit{'s' * (bits > 1)} fewer in every weight matrix")
    halvings = _least(_MOST_LIMIT_HALVINGS, lambda k: _narrower(public, k), role, full_flood)
    if halvings:
        fits.append(f"an encoder limit of {public.encoder.limit / 2**halvings:g} instead of {public.encoder.limit:g}")
    if not fits:
        return "Compile with fewer weight bits, a smaller encoder limit and a looser tolerance together."
    return "Any one of these fits: " + "; ".join(fits) + "."


def _least(most: int, change: Callable[[int], PublicPolynomial | None], role: Role, full_flood: bool) -> int | None:
    """The smallest k in 1..most for which the changed program fits; fitting is monotone in k."""

    def fits(k: int) -> bool:
        changed = change(k)
        return changed is not None and search(changed, role, full_flood=full_flood) is not None

    if not fits(most):
        return next((k for k in range(most - 1, 0, -1) if fits(k)), None) if most <= _MOST_WEIGHT_BITS else None
    low, high = 1, most
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle + 1, high)
    return low


def _looser(public: PublicPolynomial, bits: int) -> PublicPolynomial:
    return dataclasses.replace(public, tolerance=public.tolerance * 2.0**bits)


def _coarser(public: PublicPolynomial, bits: int) -> PublicPolynomial | None:
    """The public half as it would be with `bits` fraction bits fewer in every weight matrix, or None."""
    fewer: list[int] = []
    steps: list[Step] = []
    for step in public.steps:
        match step:
            case Input():
                fewer.append(0)
                steps.append(step)
            case Affine():
                cut = max(fewer[s] for s in step.sources) + bits
                fractions = step.fraction_bits - cut
                if any(fractions < steps[s].fraction_bits for s in step.sources):
                    return None
                fewer.append(cut)
                gains = tuple(
                    max(0, gain - cut + fewer[s]) for gain, s in zip(step.gain_bits, step.sources, strict=True)
                )
                steps.append(
                    dataclasses.replace(
                        step,
                        fraction_bits=fractions,
                        bound_bits=max(0, step.bound_bits - cut),
                        gain_bits=gains,
                        offset_bits=max(0, step.offset_bits - cut),
                    )
                )
            case Product():
                cut = fewer[step.left] + fewer[step.right]
                fewer.append(cut)
                fractions, bound = step.fraction_bits - cut, max(0, step.bound_bits - cut)
                steps.append(dataclasses.replace(step, fraction_bits=fractions, bound_bits=bound))
            case Relu() | Truncate():
                return None
    cut = fewer[-1]
    terms = tuple(
        dataclasses.replace(term, multiplier=math.ceil(abs(term.multiplier) / 2**cut)) for term in public.public_terms
    )
    return dataclasses.replace(public, steps=tuple(steps), public_terms=terms)


def _narrower(public: PublicPolynomial, halvings: int) -> PublicPolynomial | None:
    """The public half as it would be with the encoder's limit halved that often, offsets left out, or None."""
    encoder = dataclasses.replace(public.encoder, limit=public.encoder.limit / 2**halvings)
    if encoder.bound < 1:
        return None
    less: list[int] = []
    steps: list[Step] = []
    for step in public.steps:
        match step:
            case Input():
                less.append(halvings)
            case Affine():
                less.append(min(less[s] for s in step.sources))
            case Product():
                less.append(less[step.left] + less[step.right])
            case Relu() | Truncate():
                return None
        steps.append(dataclasses.replace(step, bound_bits=max(0, step.bound_bits - less[-1])))
    return dataclasses.replace(public, encoder=encoder, steps=tuple(steps))
