"""Quantisation is exact, ranges are derived, and what does not fit is refused with a remedy."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_programs import Recipe, programs, unit_encoder

from securead.errors import FixInputError, FixProgramError
from securead.program.builder import MAX_VALUE_BITS, ProgramBuilder, _quantise
from securead.program.polynomial import Affine, Input, Product, Relu, SquaredNorm
from securead.program.program import Program
from securead.program.ranges import bits_for

ONE = np.ones((1, 1))


@given(
    st.lists(st.floats(-1e30, 1e30) | st.floats(-1e-3, 1e-3) | st.floats(-1, 1), min_size=1, max_size=6),
    st.integers(0, 300),
)
@settings(max_examples=200)
def test_weights_are_rounded_to_the_nearest_grid_point_at_any_size(values: list[float], bits: int) -> None:
    quantised = _quantise(np.array([values]), bits, MAX_VALUE_BITS)
    assert quantised.shape == (1, len(values))
    assert [int(q) for q in quantised[0]] == [round(Fraction(v) * 2**bits) for v in values]
    assert quantised.dtype in (np.int64, object)


@pytest.mark.parametrize("values", [[0.5, 1.5, 2.5, -0.5, -1.5], [0.5, 1.5, 2.0**52 + 1, 2.0**60, 5e-324]])
def test_halves_round_to_even_in_int64_and_beyond(values: list[float]) -> None:
    assert [int(q) for q in _quantise(np.array(values), 0, 512)] == [round(Fraction(v)) for v in values]


def test_positions_kinds_and_scales_follow_the_calls() -> None:
    build = ProgramBuilder(unit_encoder(2, 1.0, 4))
    a = build.affine([(np.ones((3, 2)), build.input)], fraction_bits=10)
    b = build.product(a, a)
    c = build.relu(b)
    d = build.affine([(np.ones((1, 3)), c), (np.ones((1, 2)), 0)], fraction_bits=20)
    assert (build.input, a, b, c, d) == (0, 1, 2, 3, 4)
    assert [build.fraction_bits(s) for s in range(5)] == [4, 10, 20, 20, 20]
    public = build.finish(tolerance=0.1, honest_extraction_rows=5).public
    assert [type(s) for s in public.steps] == [Input, Affine, Product, Relu, Affine]
    assert [s.width for s in public.steps] == [2, 3, 3, 3, 1]
    assert public.steps[4].sources == (3, 0)
    # Every bound is worked out by hand: 2 inputs of at most 2**4, weights 2**6, and so on.
    assert [s.bound_bits for s in public.steps[:4]] == [4, 11, 22, 22]
    assert public.steps[1].gain_bits == (7,)
    assert public.steps[4].gain_bits == (2, 17)
    assert public.steps[4].bound_bits == bits_for(3 * 2**22 + 2 * 2**20)
    assert (public.tolerance, public.honest_extraction_rows, public.degree) == (0.1, 5, 2)


@given(programs())
@settings(max_examples=60)
def test_declared_gains_and_score_range_are_the_least_that_hold(pair: tuple[Recipe, Program]) -> None:
    _, program = pair
    for at, weights in program.secret.weights.items():
        step = program.public.steps[at]
        assert isinstance(step, Affine)
        for gain, matrix in zip(step.gain_bits, weights.matrices, strict=True):
            largest = max(sum(abs(int(w)) for w in row) for row in matrix)
            assert largest <= 2**gain
            assert gain == 0 or largest > 2 ** (gain - 1)
        largest = max(abs(int(b)) for b in weights.offset)
        assert largest <= 2**step.offset_bits
        assert step.offset_bits == 0 or largest > 2 ** (step.offset_bits - 1)


def test_bounds_are_reached_by_some_record_of_a_linear_program() -> None:
    """A bound that is never reached costs precision under encryption."""
    W = np.array([[1.5, -2.25, 0.75]])
    recipe = Recipe(unit_encoder(3, 1.0, 6), [("affine", [(W.tolist(), 0)], [-0.5], 12)])
    program = recipe.build()
    corner = -np.sign(W).astype(int) * recipe.encoder.bound  # the side on which the offset adds up
    score = abs(program.evaluate(corner)[0])
    assert bits_for(score) == program.public.score_bits == program.public.steps[1].bound_bits


def test_a_square_is_known_not_to_be_negative() -> None:
    build = ProgramBuilder(unit_encoder(1, 1.0, 4))
    square = build.product(0, 0)
    # relu(-square) is always zero: interval arithmetic that forgot the square's sign would say 2**8.
    minus = build.relu(build.affine([(-ONE, square)], fraction_bits=8))
    build.affine([(ONE, minus)], fraction_bits=8)
    assert build.finish(tolerance=1, honest_extraction_rows=1).public.steps[3].bound_bits == 0


def test_a_step_needs_its_sources_fraction_bits() -> None:
    build = ProgramBuilder(unit_encoder(1, 8.0, 14))
    build.affine([(ONE, 0)], fraction_bits=14)
    with pytest.raises(FixProgramError, match=r"step 2 has fewer fraction bits than its source 0 \(got \(13, 14\)\)"):
        build.affine([(ONE, 0)], fraction_bits=13)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_weight_that_is_not_finite_is_refused(bad: float) -> None:
    build = ProgramBuilder(unit_encoder(1))
    with pytest.raises(FixProgramError, match=r"not finite.*fit again"):
        build.affine([(ONE * bad, 0)], fraction_bits=20)
    with pytest.raises(FixProgramError, match=r"not finite.*fit again"):
        build.affine([(ONE, 0)], np.array([bad]), fraction_bits=20)


def test_overflow_is_refused_when_it_is_added_with_bits_and_remedy() -> None:
    build = ProgramBuilder(unit_encoder(1, 1.0, 14))
    step, bits = 0, 14
    while 2 * bits <= 512:
        step, bits = build.product(step, step), 2 * bits
    with pytest.raises(FixProgramError, match=r"step 6 \(product\) needs 896 bits, only 512") as refused:
        build.product(step, step)
    assert refused.value.value == 896
    assert "fewer weight or fraction bits" in refused.value.remedy
    # The refused step left no trace: the program can still be finished, with the value at its full 448 bits.
    build.affine([(ONE, step)], fraction_bits=build.fraction_bits(step))
    assert build.finish(tolerance=1, honest_extraction_rows=1).public.steps[-1].bound_bits == 448


@pytest.mark.parametrize(("bits", "fits"), [(497, True), (498, False)])
def test_the_512_bits_are_exact(bits: int, fits: bool) -> None:
    build = ProgramBuilder(unit_encoder(1, 1.0, 14))  # the input is exactly 2**14 at its corner
    weight = ONE * 2.0**bits
    if fits:
        build.affine([(weight * 2, 0)], fraction_bits=14)
        assert build.finish(tolerance=1, honest_extraction_rows=1).public.score_bits == 512
    else:
        with pytest.raises(FixProgramError, match=r"step 1 \(affine\) needs 513 bits"):
            build.affine([(weight * 2, 0)], fraction_bits=14)


def test_a_weight_of_more_than_512_bits_is_refused() -> None:
    build = ProgramBuilder(unit_encoder(1))
    with pytest.raises(FixProgramError, match="a weight needs 521 bits"):
        build.affine([(ONE * 2.0**520, 0)], fraction_bits=14)


def test_the_public_term_is_exact_and_counts_towards_the_range() -> None:
    def finish(norm: float | None) -> Program:
        build = ProgramBuilder(unit_encoder(2, 1.0, 4))
        build.affine([(np.zeros((1, 2)), 0)], fraction_bits=10)
        return build.finish(tolerance=1, honest_extraction_rows=1, squared_norm=norm)

    assert finish(None).public.public_terms == ()
    assert finish(None).public.score_bits == 1
    assert finish(3.25).public.public_terms == (SquaredNorm(13),), "3.25 / 2**(2*4-10)"
    assert finish(3.25).public.score_bits == bits_for(13 * 2 * 16**2)
    assert finish(-1).public.public_terms == (SquaredNorm(-4),)
    assert finish(-1).evaluate(np.array([[3, -4]])).tolist() == [-100]


@pytest.mark.parametrize("factor", [0.3, 1 / 8, math.nan, math.inf])
def test_a_public_term_off_the_scores_grid_is_refused_with_a_remedy(factor: float) -> None:
    build = ProgramBuilder(unit_encoder(2, 1.0, 4))
    build.affine([(np.zeros((1, 2)), 0)], fraction_bits=10)
    with pytest.raises(FixProgramError, match="off the score's grid") as refused:
        build.finish(tolerance=1, honest_extraction_rows=1, squared_norm=factor)
    assert refused.value.remedy


def test_a_program_ends_in_one_affine_score() -> None:
    build = ProgramBuilder(unit_encoder(2))
    with pytest.raises(FixInputError, match="2 to 64 steps"):
        build.finish(tolerance=1, honest_extraction_rows=1)
    build.affine([(np.ones((2, 2)), 0)], fraction_bits=14)
    with pytest.raises(FixInputError, match="the last step is an affine score"):
        build.finish(tolerance=1, honest_extraction_rows=1)
    build.affine([(np.ones((1, 2)), 1)], fraction_bits=14)
    for bad in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(FixInputError, match="the tolerance is positive"):
            build.finish(tolerance=bad, honest_extraction_rows=1)
    with pytest.raises(FixInputError, match="the extraction count is positive"):
        build.finish(tolerance=1, honest_extraction_rows=0)
    assert build.finish(tolerance=1, honest_extraction_rows=1).public.steps[-1].width == 1
