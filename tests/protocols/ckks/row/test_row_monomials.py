"""Monomials in their order, their residues, and programs expanded into them: against integers, one at a time."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from row_setting import ROLES, of_degree, polynomial

from securead.checks import programs
from securead.program.builder import ProgramBuilder
from securead.program.program import Program
from securead.protocols.ckks.row import monomials
from securead.protocols.ckks.row.coefficients import expand, squares_at
from securead.protocols.ckks.row.margins import norms
from securead.protocols.ckks.row.plan import lifted_degree
from securead.protocols.engine import Role
from securead.protocols.seal import primes

PRIME = 1125899906826241  # 50 bits, 1 modulo 2 * 8192


def line_of(width: int, degree: int) -> list[tuple[int, ...]]:
    """All monomials by degree and then by their largest variable, from the definition."""
    found: list[tuple[int, ...]] = []
    for d in range(1, degree + 1):
        found += sorted(itertools.combinations_with_replacement(range(width), d), key=lambda m: m[::-1])
    return found


@pytest.mark.parametrize(("width", "degree"), [(1, 4), (2, 1), (3, 4), (5, 3), (29, 2)])
def test_order_counts_and_places(width: int, degree: int) -> None:
    line = line_of(width, degree)
    assert monomials.count(width, degree) == len(line)
    for d, where in enumerate(monomials.degrees(width, degree), 1):
        assert monomials.tuples(width, d).tolist() == [list(m) for m in line[where]]
        assert monomials.places(monomials.tuples(width, d)).tolist() == list(range(monomials.of_degree(width, d)))
        assert len(line[where]) == monomials.of_degree(width, d)


def test_where_squares_stand() -> None:
    pairs = monomials.tuples(7, 2)
    assert pairs[squares_at(7)].tolist() == [[i, i] for i in range(7)]


@settings(max_examples=60, deadline=None)
@given(st.data(), st.sampled_from([20, 36, 45, 50]))
def test_lifted_records_are_exact(data: st.DataObject, bits: int) -> None:
    """The products of integers of any sign and up to 60 bits, times a scale beyond every word."""
    (prime,) = primes.choose(8192, (bits,)) or (0,)
    width, degree = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4))
    bound = 1 << data.draw(st.integers(0, 60))
    row = data.draw(st.lists(st.integers(-bound, bound), min_size=width, max_size=width))
    scale = 1 << data.draw(st.integers(0, 120))
    found = monomials.residues(np.array([row, row[::-1]], dtype=np.int64), degree, scale, prime)
    for z, residues in zip((row, row[::-1]), found, strict=True):
        exact = [scale * math.prod(z[i] for i in monomial) % prime for monomial in line_of(width, degree)]
        assert residues.tolist() == exact


@settings(max_examples=300, deadline=None)
@given(st.integers(0, PRIME - 1), st.integers(0, PRIME - 1))
def test_products_of_residues(a: int, b: int) -> None:
    found = monomials.product(np.array([a, PRIME - 1, 0]), np.array([b, PRIME - 1, b]), PRIME)
    assert found.tolist() == [a * b % PRIME, 1, 0]


def check_expanded(program: Program, role: Role) -> None:
    public, exact = program.public, polynomial(program, role)
    degree = lifted_degree(public, role)
    line = line_of(public.encoder.width, degree)
    assert set(exact) <= {(), *line}
    for prime in (PRIME, *(primes.choose(8192, (21,)) or ())):
        constant, found = expand(public, program.secret, role, degree, prime)  # type: ignore[arg-type]
        assert constant == exact.get((), 0) % prime
        assert found.tolist() == [exact.get(monomial, 0) % prime for monomial in line]
    # What parameters are derived from: public bounds on the coefficients of each degree.
    for d, norm in enumerate(norms(public, role)):
        assert sum(abs(c) for monomial, c in exact.items() if len(monomial) == d) <= norm


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("degree", [1, 2, 3, 4])
def test_any_degree_expands_to_its_own_integers(degree: int, role: Role) -> None:
    for seed in range(3):
        check_expanded(of_degree(degree, seed=seed), role)


@pytest.mark.parametrize("role", ROLES)
def test_detectors_expand_to_their_own_integers(role: Role) -> None:
    check_expanded(programs.small_quadratic(), role)
    check_expanded(programs.autoencoder(4, 2), role)
    check_expanded(programs.mahalanobis(6), role)


@pytest.mark.parametrize("role", ROLES)
def test_a_public_term_may_exceed_the_programs_degree(role: Role) -> None:
    """A linear score with |z|^2: in role `split` the service lifts to squares for it."""
    build = ProgramBuilder(programs.encoder(3, limit=4.0, fraction_bits=8))
    build.affine([(np.ones((1, 3)), build.input)], fraction_bits=16)
    program = build.finish(tolerance=1e-2, honest_extraction_rows=4, squared_norm=1.0)
    assert lifted_degree(program.public, role) == (1 if role == "same" else 2)
    check_expanded(program, role)


def test_steps_that_lead_nowhere_and_scores_of_zero() -> None:
    build = ProgramBuilder(programs.encoder(2, limit=4.0, fraction_bits=4))
    build.product(build.input, build.input)
    build.affine([(np.zeros((1, 2)), build.input)], fraction_bits=8)
    program = build.finish(tolerance=1.0, honest_extraction_rows=1)
    check_expanded(program, "same")
