"""The oracle against an evaluation that shares no code with it, on random programs and at the edges of int64."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_programs import Recipe, encoded, programs, unit_encoder

from securead.errors import FixInputError
from securead.program import evaluate as module
from securead.program.builder import ProgramBuilder
from securead.program.polynomial import SquaredNorm
from securead.program.program import Program


@given(programs(), st.data())
@settings(max_examples=150)
def test_integer_scores_and_all_bounds_on_random_programs(pair: tuple[Recipe, Program], data: st.DataObject) -> None:
    recipe, program = pair
    Z = data.draw(encoded(program.public.encoder))
    scores = program.evaluate(Z)
    assert scores.dtype == object
    assert scores.shape == (len(Z),)
    for z, score in zip(Z.tolist(), scores.tolist(), strict=True):
        values, expected = recipe.expected(z)
        assert type(score) is int
        assert score == expected
        assert abs(score) <= 2**program.public.score_bits
        for step, value in zip(program.public.steps, values, strict=True):
            assert max(map(abs, value)) <= 2**step.bound_bits


@given(programs(most_steps=3), st.data())
@settings(max_examples=60)
def test_both_paths_give_the_same_scores(pair: tuple[Recipe, Program], data: st.DataObject) -> None:
    _, program = pair
    Z = data.draw(encoded(program.public.encoder))
    before, module._INT64_BITS = module._INT64_BITS, -1
    try:
        by_objects = program.evaluate(Z)
    finally:
        module._INT64_BITS = before
    assert program.evaluate(Z).tolist() == by_objects.tolist()


def wide_affine(bits: int, *, square: bool = False) -> Recipe:
    """A program whose values grow to about 2**bits at the corners, with partial sums that cancel."""
    encoder = unit_encoder(2, 1.0, 14)
    weight = float(2 ** (bits - 28) - 1)
    terms = [([[weight, weight]], 0), ([[-weight, -weight]], 0), ([[weight, -2 * weight]], 0)]
    recipe = Recipe(encoder, [("affine", terms, [weight], 28)])
    if square:
        recipe.steps = [
            ("affine", [([[2.0 ** (bits / 2 - 15), 0.0]], 0)], None, 14),
            ("product", 1, 1),
            ("affine", [([[1.0]], 2)], None, 28),
        ]
    return recipe


@pytest.mark.parametrize("square", [False, True], ids=["affine", "product"])
@pytest.mark.parametrize("bits", range(54, 72, 2))
def test_no_overflow_around_the_size_of_int64(bits: int, square: bool) -> None:
    recipe = wide_affine(bits, square=square)
    program = recipe.build()
    b = recipe.encoder.bound
    Z = np.array([[b, b], [-b, -b], [b, -b], [-b, b], [1, 0], [b, b - 1]])
    assert program.evaluate(Z).tolist() == [recipe.expected(z)[1] for z in Z.tolist()]


@pytest.mark.parametrize("bits", range(56, 67))
@pytest.mark.parametrize("terms", [1, 2, 3, 4])
def test_no_overflow_in_a_sum_whose_terms_each_fit(terms: int, bits: int) -> None:
    """Each term is exactly 2**bits at the corner, and they all have one sign."""
    recipe = Recipe(unit_encoder(1, 1.0, 14), [("affine", [([[2.0 ** (bits - 14)]], 0)] * terms, None, 14)])
    assert recipe.build().evaluate(np.array([[2**14], [-(2**14)]])).tolist() == [terms * 2**bits, -terms * 2**bits]


def test_small_values_take_the_int64_path_and_large_ones_the_exact_path(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds: set[str] = set()
    real = module._as

    def note(array: np.ndarray, bits: int) -> np.ndarray:
        result = real(array, bits)
        kinds.add(str(result.dtype))
        return result

    monkeypatch.setattr(module, "_as", note)
    for bits, expected in ((40, {"int64"}), (70, {"object"})):
        kinds.clear()
        recipe = wide_affine(bits)
        assert recipe.build().evaluate(np.array([[3, -5]])).tolist() == [recipe.expected([3, -5])[1]]
        assert kinds == expected


def test_a_step_can_leave_int64_and_later_small_steps_stay_exact() -> None:
    """The difference of two huge equal values is small, but only exact arithmetic knows it."""
    encoder = unit_encoder(1, 1.0, 14)
    huge = ("affine", [([[2.0**60]], 0)], None, 14)
    recipe = Recipe(encoder, [huge, ("affine", [([[1.0]], 1), ([[-(2.0**60)]], 0), ([[1.0]], 0)], None, 14)])
    assert recipe.build().evaluate(np.array([[12345], [-16384]])).tolist() == [12345, -16384]


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 8])
def test_chunks_join_in_order(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    program = wide_affine(40).build()
    Z = np.arange(14).reshape(7, 2)
    whole = program.evaluate(Z).tolist()
    assert len(set(whole)) == 7
    monkeypatch.setattr(module, "_CHUNK", chunk)
    assert program.evaluate(Z).tolist() == whole


def test_no_records_have_no_scores() -> None:
    scores = wide_affine(40).build().evaluate(np.empty((0, 2), dtype=np.int64))
    assert scores.shape == (0,)
    assert scores.dtype == object


@pytest.mark.parametrize("kind", [np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint64])
def test_every_integer_type_is_evaluated_alike(kind: type[np.integer]) -> None:
    recipe = wide_affine(40)
    recipe.norm_multiplier = 3
    Z = np.array([[120, 7], [0, 127]])
    assert recipe.build().evaluate(Z.astype(kind)).tolist() == [recipe.expected(z)[1] for z in Z.tolist()]
    assert SquaredNorm(3).evaluate(Z.astype(kind)).tolist() == [3 * (120**2 + 49), 3 * 127**2]


@pytest.mark.parametrize(
    "Z",
    [
        np.zeros((2, 3), dtype=np.int64),
        np.zeros(2, dtype=np.int64),
        np.zeros((1, 2, 1), dtype=np.int64),
        np.zeros((2, 2)),
        np.zeros((2, 2), dtype=bool),
        np.zeros((2, 2), dtype=object),
    ],
    ids=lambda Z: f"{Z.shape} {Z.dtype}",
)
def test_records_that_are_not_integers_of_the_programs_width_are_refused(Z: np.ndarray) -> None:
    with pytest.raises(FixInputError, match="encoded records are integers"):
        wide_affine(40).build().evaluate(Z)


INT64 = np.iinfo(np.int64)


@pytest.mark.parametrize("value", [16385, -16385, INT64.max, INT64.min, INT64.min + 1])
def test_a_value_beyond_the_bound_is_refused_with_its_magnitude(value: int) -> None:
    with pytest.raises(FixInputError, match="exceeds the encoder's bound") as refused:
        wide_affine(40).build().evaluate(np.array([[0, 0], [value, 0]]))
    assert refused.value.value == abs(value)


def test_the_least_value_of_a_narrow_type_is_refused_too() -> None:
    """numpy's abs(int8(-128)) is -128, which is below any bound."""
    encoder = unit_encoder(1, 0.5, 7)
    assert encoder.bound == 64
    program = Recipe(encoder, [("affine", [([[1.0]], 0)], None, 7)]).build()
    with pytest.raises(FixInputError, match="exceeds the encoder's bound"):
        program.evaluate(np.array([[-128]], dtype=np.int8))
    with pytest.raises(FixInputError, match="exceeds the encoder's bound"):
        program.evaluate(np.array([[2**63]], dtype=np.uint64))


@given(st.integers(-(2**70), 2**70), st.lists(st.integers(-(2**40), 2**40), min_size=1, max_size=4))
def test_the_squared_norm_is_exact_at_any_size(multiplier: int, z: list[int]) -> None:
    scores = SquaredNorm(multiplier).evaluate(np.array([z, z]))
    assert scores.tolist() == [multiplier * sum(v * v for v in z)] * 2


def float_and_integer_scores(fraction_bits: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """|z|^2 - |Wz + c|^2 + relu(u.z) + b, in floats and through the program."""
    encoder = unit_encoder(4, 8.0, fraction_bits)
    W, c, u = rng.normal(size=(3, 4)) / 4, rng.normal(size=3), rng.normal(size=(1, 4))
    build = ProgramBuilder(encoder)
    hidden = build.affine([(W, build.input)], c, fraction_bits=2 * fraction_bits)
    squares = build.product(hidden, hidden)
    gate = build.relu(build.affine([(u, build.input)], fraction_bits=2 * fraction_bits))
    score_bits = build.fraction_bits(squares)
    build.affine([(-np.ones((1, 3)), squares), (np.ones((1, 1)), gate)], np.array([0.5]), fraction_bits=score_bits)
    program = build.finish(tolerance=1e-3, honest_extraction_rows=1, squared_norm=1.0)
    X = rng.normal(size=(100, 4)) * 2
    z = encoder.standardise(X)
    floats = (z**2).sum(1) - ((z @ W.T + c) ** 2).sum(1) + np.maximum(z @ u[0], 0) + 0.5
    return floats, program.score(X)


@pytest.mark.parametrize(("bits", "closest", "farthest"), [(6, 1e-3, 1.0), (14, 1e-6, 4e-3), (24, 1e-9, 4e-6)])
def test_float_and_integer_scores_agree_as_far_as_the_grid_allows(
    bits: int, closest: float, farthest: float, rng: np.random.Generator
) -> None:
    floats, integers = float_and_integer_scores(bits, rng)
    error = np.abs(floats - integers).max()
    assert closest < error < farthest, "and no closer, or the grid is not the one that was asked for"


def test_decoding_divides_exactly_and_reaches_the_largest_scores() -> None:
    program = wide_affine(40).build()
    assert program.public.score_fraction_bits == 28
    assert program.public.decode(np.array([2**28, -(2**27), 0], dtype=object)).tolist() == [1.0, -0.5, 0.0]
    assert program.public.decode(np.array([2**1023], dtype=object)).tolist() == [2.0**995]
