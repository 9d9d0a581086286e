"""Smaller table programs: the score stays a mean, whichever tables and bits are left."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from securead.data.encoder import Encoder
from securead.data.schema import Column, Schema
from securead.errors import FixProgramError
from securead.program.builder import ProgramBuilder, table_program
from securead.program.fewer_tables import entry_bits, fewer_tables
from securead.program.geometry import Bins, Trees
from securead.program.program import Program

TREES, DEPTH = 6, 3
ENCODER = Encoder(Schema((Column("a", -4.0, 4.0), Column("b", -4.0, 4.0))))


def forest(seed: int = 0, *, trees: int = TREES) -> Program:
    """A forest whose score is the mean of its trees' entries."""
    rng = np.random.default_rng(seed)
    nodes = trees * ((1 << DEPTH) - 1)
    geometry = Trees(
        DEPTH,
        tuple(rng.integers(0, 2, nodes).tolist()),
        (1,) * nodes,
        tuple(rng.integers(-ENCODER.bound // 2, ENCODER.bound // 2, nodes).tolist()),
    )
    tables = list(rng.uniform(size=(trees, 1 << DEPTH)) / trees)
    return table_program(ENCODER, geometry, tables, entry_bits=8, honest_extraction_rows=trees * 7 + 1)


def histogram() -> Program:
    tables = [np.array([1.0, 2.0, 7.0]), np.array([3.0, 0.0])]
    return table_program(ENCODER, Bins((0, 1), ((-100, 500), (0,))), tables, entry_bits=6, honest_extraction_rows=4)


def records(seed: int = 1, rows: int = 200) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-4, 4, size=(rows, 2))


def means(program: Program, kept: list[int], X: np.ndarray) -> np.ndarray:
    """Mean over the trees `kept` times the number of all, tree by tree."""
    public, tables = program.public, program.secret.tables  # type: ignore[union-attr]
    index = public.queries(public.encoder.encode(X)[0])
    each = [tables[at][index[:, at]] * public.unit for at in kept]  # type: ignore[union-attr]
    return np.mean(each, axis=0) * len(tables)


@given(st.sets(st.integers(0, TREES - 1), min_size=1), st.integers(0, 3))
def test_a_shrunk_forest_scores_the_mean_over_the_trees_that_are_kept(kept: set[int], seed: int) -> None:
    program, X = forest(seed), records(seed)
    smaller = fewer_tables(program, sorted(kept))
    np.testing.assert_allclose(smaller.score(X), means(program, sorted(kept), X), rtol=1e-12)
    assert smaller.public.honest_extraction_rows == len(kept) * 7 + 1


@given(st.sets(st.integers(0, TREES - 1), min_size=1), st.integers(1, 8))
def test_fewer_bits_stay_within_the_tolerance(kept: set[int], bits: int) -> None:
    program, X = forest(), records()
    smaller = fewer_tables(program, sorted(kept), bits=bits)
    assert entry_bits(smaller) <= bits
    off = np.abs(smaller.score(X) - means(program, sorted(kept), X)).max()
    assert off <= smaller.public.tolerance - program.public.tolerance + 1e-12


def test_nothing_dropped_is_the_same_program_under_a_commitment_of_its_own() -> None:
    program, X = forest(), records()
    same = fewer_tables(program, range(TREES), bits=8)
    Z, _ = ENCODER.encode(X)
    np.testing.assert_array_equal(same.evaluate(Z), program.evaluate(Z))
    assert same.public.commitment != program.public.commitment
    assert same.public.tolerance == program.public.tolerance


def test_histograms_lose_columns() -> None:
    program, X = histogram(), records()
    smaller = fewer_tables(program, [1])
    assert smaller.public.sizes == (2,)  # type: ignore[union-attr]
    np.testing.assert_allclose(smaller.score(X), means(program, [1], X), rtol=1e-12)


@pytest.mark.parametrize("kept", [[], [TREES], [-1]])
def test_tables_that_are_not_there_are_refused(kept: list[int]) -> None:
    with pytest.raises(FixProgramError, match="keeps 1 to 6"):
        fewer_tables(forest(), kept)


def test_bits_and_polynomials_are_refused() -> None:
    with pytest.raises(FixProgramError, match="1 to 24 bits"):
        fewer_tables(forest(), [0], bits=0)
    build = ProgramBuilder(ENCODER)
    build.affine([(np.ones((1, 2)), build.input)], fraction_bits=20)
    with pytest.raises(FixProgramError, match="not a program of tables"):
        fewer_tables(build.finish(tolerance=1e-3, honest_extraction_rows=3), [0])
