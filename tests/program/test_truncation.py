"""Truncation: the oracle's floor, bounds that allow for an engine off by a unit, and what truncations cost."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_programs import encoded, programs, unit_encoder

from securead import codec
from securead.checks.programs import with_truncation
from securead.errors import FixInputError, FixProgramError
from securead.program.builder import ProgramBuilder
from securead.program.polynomial import Affine, Input, Product, PublicPolynomial, Relu, Truncate
from securead.program.program import Program
from securead.program.truncation import failure_probability, worst_error


@pytest.mark.parametrize("extra", [4, 70, 200], ids=["int64", "beyond a word", "Python integers"])
def test_the_oracle_rounds_towards_minus_infinity(extra: int) -> None:
    build = ProgramBuilder(unit_encoder(1, limit=8.0, fraction_bits=4))
    wide = build.affine([(np.ones((1, 1)), build.input)], np.array([2.0**-extra]), fraction_bits=4 + extra)
    build.affine([(np.ones((1, 1)), build.truncate(wide, extra + 2))], fraction_bits=2)
    program = build.finish(tolerance=1.0, honest_extraction_rows=1)
    Z = np.arange(-9, 10)[:, None]
    # The offset is 2**-extra on a grid of 2**-(4 + extra): sixteen.
    assert list(program.evaluate(Z)) == [(int(z) * 2**extra + 16) // 2 ** (extra + 2) for z in Z[:, 0]]


@given(st.data())
def test_values_of_an_engine_that_is_off_by_a_unit_stay_within_all_bounds(data: st.DataObject) -> None:
    """Each truncation of a random program moves by -1, 0 or 1, and the score by no more than `worst_error`."""
    _recipe, program = data.draw(programs())
    public = program.public
    Z = data.draw(encoded(public.encoder))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    exact, moved = (_values(program, Z, shifts) for shifts in (None, rng))
    for step, values in zip(public.steps, moved, strict=True):
        assert max(abs(int(v)) for v in values.ravel()) <= 1 << step.bound_bits
    difference = np.abs(exact[-1] - moved[-1]).max()
    assert difference <= worst_error(public.steps)
    if not any(isinstance(step, Truncate) for step in public.steps):
        assert worst_error(public.steps) == 0
    assert (exact[-1][:, 0] + public.public_term(Z) == program.evaluate(Z)).all()


def _values(program: Program, Z: np.ndarray, rng: np.random.Generator | None) -> list[np.ndarray]:
    values: list[np.ndarray] = []
    for at, step in enumerate(program.public.steps):
        match step:
            case Input():
                values.append(Z.astype(object))
            case Affine():
                weights = program.secret.weights[at]
                terms = [values[s].dot(m.astype(object).T) for s, m in zip(step.sources, weights.matrices, strict=True)]
                values.append(sum(terms) + weights.offset.astype(object))
            case Product():
                values.append(values[step.left] * values[step.right])
            case Relu():
                values.append(np.maximum(values[step.source], 0))
            case Truncate():
                moves = 0 if rng is None else rng.integers(-1, 1, size=values[step.source].shape, endpoint=True)
                values.append((values[step.source] >> step.shift) + moves)
    return values


def test_a_truncation_drops_fraction_bits_that_are_there() -> None:
    build = ProgramBuilder(unit_encoder(2, fraction_bits=6))
    for shift in (0, -1, 7):
        with pytest.raises(FixProgramError, match="6 fraction bits to drop"):
            build.truncate(build.input, shift)
    step = build.truncate(build.input, 6)
    assert build.fraction_bits(step) == 0
    assert build.steps[step].bound_bits == 4  # 8 and a unit more


def test_a_damaged_truncation_is_refused() -> None:
    public = with_truncation().public
    plain = json.loads(json.dumps(codec.to_plain(public)))
    assert codec.from_plain(PublicPolynomial, plain, where="program") == public
    at = next(at for at, step in enumerate(public.steps) if isinstance(step, Truncate))
    for key, value in (("shift", 0), ("shift", 9), ("source", at), ("source", 0), ("fraction_bits", 3)):
        damaged = json.loads(json.dumps(plain))
        damaged["steps"][at][key] = value
        with pytest.raises(FixInputError):
            codec.from_plain(PublicPolynomial, damaged, where="program")


def test_the_failure_probability_counts_elements_and_their_bounds() -> None:
    public = with_truncation().public
    expected = sum(
        step.width * 2 * (2 ** public.steps[step.source].bound_bits + 1) / 2**64
        for step in public.steps
        if isinstance(step, Truncate)
    )
    assert failure_probability(public.steps) == pytest.approx(expected)
    wider = [dataclasses.replace(step, bound_bits=step.bound_bits + 1) for step in public.steps]
    assert failure_probability(wider) == pytest.approx(2 * expected, rel=1e-3)
