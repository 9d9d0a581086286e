"""Interval arithmetic holds every value, and the commitment tells any two sets of weights apart."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_programs import Recipe, programs, unit_encoder

from securead.errors import FixInputError
from securead.program.polynomial import Affine, Product, Relu, SecretPolynomial, Weights
from securead.program.program import Program
from securead.program.ranges import bits_for, commit, magnitude, row_sum, step_interval

KEY = bytes(range(32))


@given(st.integers(0, 2**600))
def test_bits_for_is_the_least_that_holds(value: int) -> None:
    bits = bits_for(value)
    assert value <= 2**bits
    assert bits == 0 or value > 2 ** (bits - 1)


def test_bits_for_at_its_edges() -> None:
    assert [bits_for(v) for v in (0, 1, 2, 3, 4, 5, 8, 9)] == [0, 0, 1, 2, 2, 3, 3, 4]
    assert bits_for(np.int64(2**62)) == 62


def test_magnitude_and_row_sum_beyond_int64() -> None:
    big = np.array([-(2**70), 5], dtype=object)
    assert magnitude((big, np.array([3, 2**69], dtype=object))) == 2**70
    assert row_sum(np.array([[1, -2], [-3, 1]])) == 4
    assert row_sum(np.array([[2**62, -(2**62), 2**62]])) == 3 * 2**62


def objects(values: list[int]) -> np.ndarray:
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array


pairs = st.tuples(st.integers(-9, 9), st.integers(-9, 9)).map(sorted)


@given(pairs, pairs)
@settings(max_examples=100)
def test_intervals_are_exactly_the_range_of_the_values(a: list[int], b: list[int]) -> None:
    """By trying every pair of integers: nothing outside, and both ends reached."""
    known = [(objects([lo]), objects([hi])) for lo, hi in (a, b)]
    A, B = range(a[0], a[1] + 1), range(b[0], b[1] + 1)

    def ends(step: Any, weights: Weights | None = None) -> tuple[int, int]:
        low, high = step_interval(step, known, 1, weights)
        return int(low[0]), int(high[0])

    products = [x * y for x, y in itertools.product(A, B)]
    assert ends(Product(1, 0, 0, 0, 1)) == (min(products), max(products))
    assert ends(Relu(1, 0, 0, 0)) == (max(0, a[0]), max(0, a[1]))
    squares = [x * x for x in A]
    low, high = ends(Product(1, 0, 0, 0, 0))
    assert 0 <= low <= min(squares), "an interval around zero may start above it only by knowing more than its ends"
    assert high == max(squares)
    sums = [3 * x - 2 * y + 7 for x, y in itertools.product(A, B)]
    weights = Weights((np.array([[3]]), np.array([[-2]])), np.array([7]))
    assert ends(Affine(1, 0, 0, (0, 1), (0, 0), 0), weights) == (min(sums), max(sums))


def test_an_affine_step_without_weights_is_refused() -> None:
    with pytest.raises(FixInputError, match="no weights"):
        step_interval(Affine(1, 0, 0, (0,), (0,), 0), [], 1, None)


def weights(matrix: list[list[int]], offset: list[int], kind: Any = np.int64) -> Weights:
    return Weights((np.array(matrix, dtype=kind),), np.array(offset, dtype=kind))


def test_the_commitment_tells_apart_what_could_run_together() -> None:
    alike = [
        {1: weights([[1, 23]], [0])},
        {1: weights([[12, 3]], [0])},
        {1: weights([[1], [23]], [0])},
        {1: weights([[1, 23, 0]], [])},
        {1: weights([[1]], [23, 0])},
        {1: weights([[1, -23]], [0])},
        {2: weights([[1, 23]], [0])},
        {11: weights([[1, 23]], [0])},
        {1: weights([[1, 23]], [0]), 2: weights([[1, 23]], [0])},
        {1: Weights((np.array([[1]]), np.array([[23]])), np.array([0]))},
        {1: Weights((), np.array([1, 23, 0]))},
        {},
    ]
    assert len({commit(w, KEY) for w in alike}) == len(alike)


def test_the_commitment_is_of_the_values_and_not_of_their_storage() -> None:
    a, b = weights([[1, -2], [3, 4]], [5, 6]), weights([[1, -2], [3, 4]], [5, 6], object)
    fortran = Weights((np.asfortranarray(a.matrices[0]),), a.offset)
    assert commit({1: a, 2: b}, KEY) == commit({2: a, 1: b}, KEY) == commit({1: fortran, 2: a}, KEY)


def test_the_commitment_depends_on_every_bit_of_the_key() -> None:
    w = {1: weights([[1]], [2])}
    keys = [bytes(32)] + [(1 << i).to_bytes(32, "big") for i in range(256)]
    commitments = {commit(w, key) for key in keys}
    assert len(commitments) == 257
    assert all(len(c) == 64 and set(c) <= set("0123456789abcdef") for c in commitments)


def changed(program: Program, at: int, array: int, place: tuple[int, ...], value: int) -> SecretPolynomial:
    """The secret half with one integer replaced; `array` counts the matrices, then the offset."""
    old = program.secret.weights[at]
    arrays = [a.astype(object) for a in (*old.matrices, old.offset)]
    arrays[array][place] = value
    new = Weights(tuple(arrays[:-1]), arrays[-1])
    return SecretPolynomial({**program.secret.weights, at: new}, program.secret.commitment_key)


@given(programs(most_steps=3), st.data())
@settings(max_examples=60)
def test_any_single_weight_bit_changes_the_commitment_and_is_refused(
    pair: tuple[Recipe, Program], data: st.DataObject
) -> None:
    program = pair[1]
    at = data.draw(st.sampled_from(sorted(program.secret.weights)))
    arrays = (*program.secret.weights[at].matrices, program.secret.weights[at].offset)
    which = data.draw(st.integers(0, len(arrays) - 1))
    place = tuple(data.draw(st.integers(0, n - 1)) for n in arrays[which].shape)
    old = int(arrays[which][place])
    secret = changed(program, at, which, place, old ^ (1 << data.draw(st.integers(0, 20))))
    assert commit(secret.weights, secret.commitment_key) != program.public.commitment
    with pytest.raises(FixInputError, match="do not belong together"):
        Program(program.public, secret)


def small() -> Program:
    steps = [
        ("affine", [([[0.5, 0.25], [1.0, -0.5]], 0)], [0.5, 0.0], 10),
        ("product", 1, 1),
        ("affine", [([[1.0, 1.0]], 2)], [2.0], 20),
    ]
    return Recipe(unit_encoder(2, 1.0, 4), steps).build()


def test_an_honest_pair_of_halves_is_accepted() -> None:
    program = small()
    assert Program(program.public, SecretPolynomial(dict(program.secret.weights), program.secret.commitment_key))


def test_a_changed_weight_within_all_ranges_is_refused_by_the_commitment() -> None:
    program = small()
    secret = changed(program, 1, 0, (0, 0), int(program.secret.weights[1].matrices[0][0, 0]) - 1)
    with pytest.raises(FixInputError, match="the commitment does not match"):
        Program(program.public, secret)


def test_another_key_for_the_same_weights_is_refused() -> None:
    program = small()
    with pytest.raises(FixInputError, match="the commitment does not match"):
        Program(program.public, SecretPolynomial(program.secret.weights, bytes(32)))


def refusals(program: Program) -> dict[str, tuple[Any, SecretPolynomial]]:
    """A message and a pair of halves that it refuses, each wrong in one way."""
    public, secret, key = program.public, program.secret, program.secret.commitment_key

    def with_step(at: int, **changes: Any) -> Any:
        steps = list(public.steps)
        steps[at] = dataclasses.replace(steps[at], **changes)
        return dataclasses.replace(public, steps=tuple(steps))

    first = secret.weights[1]
    return {
        "other affine steps": (public, SecretPolynomial({1: first}, key)),
        "the secret half has other affine steps": (
            public,
            SecretPolynomial({**secret.weights, 2: first}, key),
        ),
        "weights of the wrong shape": (
            public,
            SecretPolynomial({**secret.weights, 1: Weights((first.matrices[0].T[:1],), first.offset)}, key),
        ),
        "wrong shape": (
            public,
            SecretPolynomial({**secret.weights, 1: Weights((first.matrices[0],) * 2, first.offset)}, key),
        ),
        "an offset of the wrong shape": (
            public,
            SecretPolynomial({**secret.weights, 1: Weights(first.matrices, first.offset[:1])}, key),
        ),
        "weights beyond the declared gain": (with_step(1, gain_bits=(6,)), secret),
        "beyond the declared gain": (with_step(1, gain_bits=(8,)), secret),
        "offset too large": (with_step(3, offset_bits=20), secret),
        "a step beyond its declared bound": (with_step(2, bound_bits=20), secret),
        "a score beyond its declared bound": (dataclasses.replace(public, score_bits=21), secret),
        "the commitment does not match": (dataclasses.replace(public, commitment="0" * 64), secret),
    }


@pytest.mark.parametrize("message", list(refusals(small())))
def test_halves_that_do_not_fit_are_refused(message: str) -> None:
    public, secret = refusals(small())[message]
    with pytest.raises(FixInputError, match=message):
        Program(public, secret)
