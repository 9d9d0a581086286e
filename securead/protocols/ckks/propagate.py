"""Degrees and error bounds of every step of a program under encryption, for given parameters.

A step of degree d whose values have f fraction bits is encrypted at scale 2**(f + d x), x the plan's excess bits: its
ciphertext holds the integer program's own integers times 2**(d x), plus an error. So every weight under encryption is
the program's integer times a power of two, nothing is rounded before the score is complete, and errors come from fresh
encryptions alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from securead.errors import FixProgramError
from securead.program.polynomial import Affine, Input, Product, PublicPolynomial
from securead.protocols.ckks.noise import Tails
from securead.protocols.engine import Role

_UP = 1 + 2.0**-40  # the few roundings of a step's own bound


@dataclass(frozen=True)
class State:
    """One step under encryption: its degree in the inputs, and the worst error in real units."""

    degree: int
    error: float


def largest(public: PublicPolynomial, at: int) -> float:
    """The largest magnitude of a step in real units."""
    return math.ldexp(1.0, public.steps[at].bound_bits - public.steps[at].fraction_bits)


def public_term_bound(public: PublicPolynomial) -> float:
    """The largest magnitude of all public terms in real units."""
    total = sum(term.bound(public.encoder) for term in public.public_terms)
    return math.ldexp(float(total), -public.score_fraction_bits) * _UP


def tails_for(public: PublicPolynomial, ring_dimension: int) -> Tails:
    """The tail bounds for the polynomials that can occur in a chunk of this program."""
    components = sum(step.width for step in public.steps) + 2
    return Tails(ring_dimension, 32 * components)


def propagate(public: PublicPolynomial, role: Role, excess_bits: int, special_prime: int, tails: Tails) -> list[State]:
    """The state of every step; the last one is the score before masks, with public terms where they are encrypted."""
    scale = math.ldexp(1.0, public.encoder.fraction_bits + excess_bits)
    fresh = tails.fresh(role, special_prime) / scale
    states: list[State] = []
    for step in public.steps:
        match step:
            case Input():
                bound = math.ldexp(float(public.encoder.bound), -step.fraction_bits)
                states.append(State(1, (fresh + tails.encode(bound, scale)) * _UP))
            case Affine():
                error = 0.0
                for source, gain_bits in zip(step.sources, step.gain_bits, strict=True):
                    gain = gain_bits - step.fraction_bits + public.steps[source].fraction_bits
                    error += math.ldexp(states[source].error, gain)
                states.append(State(max(states[s].degree for s in step.sources), error * _UP))
            case Product():
                left, right = states[step.left], states[step.right]
                a, b = largest(public, step.left), largest(public, step.right)
                error = a * right.error + b * left.error + left.error * right.error
                states.append(State(left.degree + right.degree, error * _UP))
            case _:
                raise FixProgramError(f"CKKS carries no {step.type_tag}", remedy="Use squares instead.")
    if role == "split" and public.public_terms:
        # One more column, encoded at the input scale and then multiplied by a power of two.
        error = fresh + tails.encode(public_term_bound(public), scale)
        states[-1] = State(states[-1].degree, (states[-1].error + error) * _UP)
    return states


def spread(
    public: PublicPolynomial, role: Role, excess_bits: int, special_prime: int, tails: Tails, states: list[State]
) -> float:
    """The most by which encryption errors move the score in any slot, in real units: |f(m + e) - f(m)|.

    m is what was encrypted, encoded records with their roundings, and e what encrypting added. `states` are those of
    `propagate`: f(m) differs from the integer program by no more than they say. As inverse embeddings of such slots,
    coefficients of the difference are no larger.
    """
    fresh = tails.fresh(role, special_prime) / math.ldexp(1.0, public.encoder.fraction_bits + excess_bits)
    moved: list[float] = []
    for step in public.steps:
        match step:
            case Affine():
                total = 0.0
                for source, gain_bits in zip(step.sources, step.gain_bits, strict=True):
                    total += math.ldexp(
                        moved[source], gain_bits - step.fraction_bits + public.steps[source].fraction_bits
                    )
                moved.append(total * _UP)
            case Product():
                a, b = (largest(public, at) + states[at].error for at in (step.left, step.right))
                left, right = moved[step.left], moved[step.right]
                moved.append((a * right + b * left + left * right) * _UP)
            case _:
                moved.append(fresh * _UP)
    return (moved[-1] + (fresh if role == "split" and public.public_terms else 0.0)) * _UP
