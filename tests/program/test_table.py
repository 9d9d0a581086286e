"""Table programs: geometry, the oracle against plain Python, ranges, digest, storage, hostile public halves."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_programs import unit_encoder

from securead import codec
from securead.errors import FixInputError, FixProgramError
from securead.program.builder import ProgramBuilder, table_program
from securead.program.geometry import Bins, Trees
from securead.program.program import Program
from securead.program.storage import secret_from_bytes, secret_to_bytes
from securead.program.table import PublicTable, SecretTable

ENCODER = unit_encoder(3)
BOUND = ENCODER.bound


def trees(seed: int, *, count: int = 3, depth: int = 3, terms: int = 1) -> Trees:
    rng = np.random.default_rng(seed)
    nodes = count * ((1 << depth) - 1)
    weights = np.ones((nodes, 1)) if terms == 1 else rng.integers(-9, 10, (nodes, terms))
    return Trees(
        depth,
        tuple(map(int, rng.integers(0, 3, nodes * terms))),
        tuple(map(int, weights.ravel())),
        tuple(map(int, rng.integers(-BOUND, BOUND, nodes))),
    )


def bins(seed: int, *, count: int = 3) -> Bins:
    rng = np.random.default_rng(seed)
    edges = tuple(tuple(sorted({int(e) for e in rng.integers(-BOUND, BOUND, 5)})) for _ in range(count))
    return Bins(tuple(range(count)), edges)


def program_over(geometry: Trees | Bins, seed: int = 0, *, entry_bits: int = 8) -> Program:
    rng = np.random.default_rng(seed)
    tables = [rng.random(size) for size in geometry.sizes]
    return table_program(ENCODER, geometry, tables, entry_bits=entry_bits, honest_extraction_rows=7)


GEOMETRIES = st.one_of(
    st.builds(trees, st.integers(0, 99), count=st.integers(1, 4), depth=st.integers(1, 4), terms=st.integers(1, 3)),
    st.builds(bins, st.integers(0, 99)),
)


def walk(geometry: Trees, tree: int, z: list[int]) -> int:
    """The leaf of one record in plain Python, from the flat description."""
    nodes = (1 << geometry.depth) - 1
    terms, node = len(geometry.columns) // len(geometry.thresholds), 0
    for _ in range(geometry.depth):
        at = tree * nodes + node
        value = sum(geometry.weights[at * terms + j] * z[geometry.columns[at * terms + j]] for j in range(terms))
        node = 2 * node + (2 if value > geometry.thresholds[at] else 1)
    return node - nodes


@given(GEOMETRIES, st.integers(0, 9))
@settings(deadline=None)
def test_oracle_adds_up_the_entries_that_plain_python_finds(geometry: Trees | Bins, seed: int) -> None:
    program = program_over(geometry, seed)
    rng = np.random.default_rng(seed)
    Z = rng.integers(-BOUND, BOUND + 1, (20, 3))
    secret = program.secret
    assert isinstance(secret, SecretTable)
    for z, score in zip(Z.tolist(), program.evaluate(Z), strict=True):
        if isinstance(geometry, Trees):
            index = [walk(geometry, t, z) for t in range(len(geometry.sizes))]
        else:
            index = [sum(e < z[c] for e in edges) for c, edges in zip(geometry.columns, geometry.edges, strict=True)]
        assert score == sum(int(table[i]) for table, i in zip(secret.tables, index, strict=True))
        assert 0 <= score < 1 << program.public.score_bits


@given(GEOMETRIES, st.integers(1, 12))
@settings(deadline=None)
def test_quantised_scores_stay_within_the_tolerance(geometry: Trees | Bins, entry_bits: int) -> None:
    rng = np.random.default_rng(3)
    tables = [rng.random(size) for size in geometry.sizes]
    program = table_program(ENCODER, geometry, tables, entry_bits=entry_bits, honest_extraction_rows=7)
    Z = rng.integers(-BOUND, BOUND + 1, (50, 3))
    index = program.public.queries(Z)
    exact = sum(table[index[:, t]] for t, table in enumerate(tables))
    assert np.abs(program.public.decode(program.evaluate(Z)) - exact).max() <= program.public.tolerance


def test_halves_survive_storage_and_nothing_secret_is_public() -> None:
    program = program_over(trees(1))
    plain = json.loads(json.dumps(codec.to_plain(program.public)))
    again = codec.from_plain(PublicTable, plain, where="program")
    assert again == program.public
    assert again.digest == program.public.digest
    secret = secret_from_bytes(secret_to_bytes(program.secret))
    assert Program(again, secret).digest == program.digest
    assert isinstance(program.secret, SecretTable)
    assert str(program.secret.tables[0].tolist())[1:-1] not in json.dumps(plain)
    assert "tables" not in repr(program)


def test_digest_binds_entries_and_geometry() -> None:
    program, same = program_over(trees(1)), program_over(trees(1))
    assert program.digest != same.digest, "equal tables under fresh keys must not be recognised"
    moved = dataclasses.replace(program.public.geometry, thresholds=(0, *program.public.geometry.thresholds[1:]))
    assert dataclasses.replace(program.public, geometry=moved).digest != program.digest


def changed_tables(program: Program, change: Any) -> SecretTable:
    secret = program.secret
    assert isinstance(secret, SecretTable)
    return SecretTable(tuple(change([t.copy() for t in secret.tables])), secret.commitment_key)


def raised(tables: list[np.ndarray]) -> list[np.ndarray]:
    tables[1][2] += 1
    return tables


def negative(tables: list[np.ndarray]) -> list[np.ndarray]:
    tables[0][0] = -1
    return tables


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (raised, "commitment|range"),
        (negative, "range"),
        (lambda tables: tables[1:], "sizes"),
        (lambda tables: [t + 1000 for t in tables], "range"),
        (lambda tables: [tables[1], tables[0], *tables[2:]], "commitment"),
    ],
)
def test_other_secret_halves_are_refused(change: Any, words: str) -> None:
    program = program_over(trees(1))
    with pytest.raises(FixInputError, match=words):
        Program(program.public, changed_tables(program, change))


def test_halves_of_two_kinds_do_not_fit() -> None:
    build = ProgramBuilder(ENCODER)
    build.affine([(np.ones((1, 3)), build.input)], fraction_bits=20)
    polynomial = build.finish(tolerance=1.0, honest_extraction_rows=4)
    tables = program_over(trees(1))
    with pytest.raises(FixInputError, match="another kind"):
        Program(tables.public, polynomial.secret)
    with pytest.raises(FixInputError, match="another kind"):
        Program(polynomial.public, tables.secret)


def replaced(plain: dict[str, Any], place: tuple[str, ...], value: Any) -> dict[str, Any]:
    copy = json.loads(json.dumps(plain))
    inner = copy
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return copy


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("geometry", "depth"), 0),
        (("geometry", "depth"), 60),
        (("geometry", "columns"), [3] * 21),
        (("geometry",), {"type": "trees", "depth": 1, "columns": [0] * 9, "weights": [1] * 9, "thresholds": [0]}),
        (("geometry", "columns"), []),
        (("geometry", "weights"), [1] * 20),
        (("geometry", "weights"), [2**62] * 21),
        (("geometry", "thresholds"), [2**70] * 21),
        (("geometry", "thresholds"), []),
        (("geometry",), {"type": "bins", "columns": [0], "edges": [[5, 5]]}),
        (("geometry",), {"type": "bins", "columns": [0], "edges": [[]]}),
        (("geometry",), {"type": "bins", "columns": [9], "edges": [[5]]}),
        (("geometry",), {"type": "bins", "columns": [], "edges": []}),
        (("geometry",), {"type": "bins", "columns": [0], "edges": [[2**40]]}),
        (("largest",), 0),
        (("largest",), 2**30),
        (("score_bits",), 0),
        (("score_bits",), 64),
        (("unit",), 0.0),
        (("unit",), -1.0),
        (("tolerance",), 0.0),
        (("honest_extraction_rows",), 0),
        (("commitment",), "00"),
        (("format",), 2),
    ],
)
def test_strangers_public_halves_are_refused(place: tuple[str, ...], value: Any) -> None:
    plain = replaced(codec.to_plain(program_over(trees(1)).public), place, value)
    with pytest.raises(FixInputError):
        codec.from_plain(PublicTable, plain, where="stranger")


def test_bad_tables_are_refused_when_compiled() -> None:
    geometry = trees(1)
    good = [np.ones(size) for size in geometry.sizes]
    for bad in (-1.0, np.nan, np.inf):
        tables = [table.copy() for table in good]
        tables[1][3] = bad
        with pytest.raises(FixProgramError):
            table_program(ENCODER, geometry, tables, entry_bits=8, honest_extraction_rows=7)
    for bits in (0, 25):
        with pytest.raises(FixProgramError):
            table_program(ENCODER, geometry, good, entry_bits=bits, honest_extraction_rows=7)


def test_queries_check_their_records() -> None:
    public = program_over(trees(1)).public
    for Z in (np.zeros((2, 2), dtype=int), np.zeros((2, 3)), np.full((2, 3), BOUND + 1)):
        with pytest.raises(FixInputError):
            public.queries(Z)
    assert public.queries(np.zeros((0, 3), dtype=int)).shape == (0, 3)
