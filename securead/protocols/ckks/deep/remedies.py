"""Which programs the engine carries, and what to change about one that does not fit: tried, not guessed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from securead.errors import FixProgramError
from securead.program.polynomial import Affine, Input, Product, PublicPolynomial, Relu, Step, Truncate
from securead.program.program import PublicProgram
from securead.protocols.ckks.deep.search import search
from securead.protocols.engine import Role

DEGREES = (5, 64)
_MOST_TOLERANCE_BITS = 96
_MOST_LIMIT_HALVINGS = 5
_NAMES = {"relu": "ReLU", "truncate": "truncation"}


def carried(public: PublicProgram) -> PublicPolynomial:
    """The program, if this engine carries it; `FixProgramError` for another kind or degree, a ReLU, an idle step."""
    if not isinstance(public, PublicPolynomial):
        raise FixProgramError(
            "CKKS carries polynomial programs, this one looks up tables",
            where="ckks-deep",
            value=public.type_tag,
            remedy="Serve it by the engine bfv.",
        )
    for at, step in enumerate(public.steps):
        if isinstance(step, Relu | Truncate):
            raise FixProgramError(
                f"CKKS evaluates sums and products only, this program has a {_NAMES[step.type_tag]}",
                where=f"ckks-deep, step {at}",
                value=step.type_tag,
                remedy="Train with the square activation, or serve the program by secret sharing.",
            )
    least, most = DEGREES
    if not least <= public.degree <= most:
        raise FixProgramError(
            f"this engine carries programs of total degree {least} to {most}",
            where="ckks-deep",
            value=public.degree,
            remedy="Serve it by the engine ckks." if public.degree < least else "Use fewer hidden square layers.",
        )
    needed = _needed(public)
    for at, step in enumerate(public.steps):
        if at not in needed:
            raise FixProgramError(
                "a step does not contribute to the score",
                where=f"ckks-deep, step {at}",
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


def smallest_changes(public: PublicPolynomial, role: Role) -> str:
    """Name, for each thing that can be given up, the least of it that makes the program fit."""
    fits: list[str] = []
    exponent = _least(_MOST_TOLERANCE_BITS, lambda k: _looser(public, k), role)
    if exponent:
        tolerance = public.tolerance * 2.0**exponent
        fits.append(f"a tolerance of {tolerance:.3g} (2**{exponent} times looser)")
    halvings = _least(_MOST_LIMIT_HALVINGS, lambda k: _narrower(public, k), role)
    if halvings:
        limit = public.encoder.limit / 2**halvings
        fits.append(f"an encoder limit of {limit:g} instead of {public.encoder.limit:g}")
    if not fits:
        return "Train with a smaller limit and a smaller weight_limit, or with fewer hidden layers."
    return "Any one of these fits: " + "; ".join(fits) + "."


def _least(most: int, change: Callable[[int], PublicPolynomial | None], role: Role) -> int | None:
    """The smallest k in 1..most for which the changed program fits; fitting is monotone in k."""

    def fits(k: int) -> bool:
        changed = change(k)
        return changed is not None and search(changed, role) is not None

    if not fits(most):
        return None
    low, high = 1, most
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle + 1, high)
    return low


def _looser(public: PublicPolynomial, bits: int) -> PublicPolynomial:
    return dataclasses.replace(public, tolerance=public.tolerance * 2.0**bits)


def _narrower(public: PublicPolynomial, halvings: int) -> PublicPolynomial | None:
    """The public half about as it would be with the encoder's limit halved that often and the same weights, or None.

    A sum falls by as much as the largest of its terms does, offsets included.
    """
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
                terms = [
                    gain + public.steps[s].bound_bits for gain, s in zip(step.gain_bits, step.sources, strict=True)
                ]
                fallen = [term - less[s] for term, s in zip(terms, step.sources, strict=True)]
                less.append(max(*terms, step.offset_bits) - max(*fallen, step.offset_bits))
            case Product():
                less.append(less[step.left] + less[step.right])
            case Relu() | Truncate():
                return None
        steps.append(dataclasses.replace(step, bound_bits=max(0, step.bound_bits - less[-1])))
    return dataclasses.replace(public, encoder=encoder, steps=tuple(steps))
