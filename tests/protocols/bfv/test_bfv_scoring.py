"""Owner and blind halves together: three worlds, exactly, in both roles and every shape of chunk."""

from __future__ import annotations

import math

import numpy as np
import pytest
from bfv_setting import Role, Setting, errors, forest, small
from hypothesis import given, settings
from hypothesis import strategies as st

from securead.checks import programs
from securead.errors import FixInputError
from securead.program.builder import table_program
from securead.program.geometry import Bins, Trees
from securead.program.program import Program
from securead.protocols.bfv import blind, messages, sanitise
from securead.protocols.bfv.plan import make_plan
from securead.protocols.seal import objects


@st.composite
def table_programs(draw: st.DrawFn) -> Program:
    seed, bits = draw(st.integers(0, 2**32 - 1)), draw(st.integers(1, 16))
    if draw(st.booleans()):
        trees, depth = draw(st.integers(1, 12)), draw(st.integers(1, 5))
        return programs.forest(trees, depth, entry_bits=bits, seed=seed, empty=draw(st.integers(0, trees)))
    return programs.histogram(draw(st.integers(1, 9)), bins=draw(st.integers(2, 40)), entry_bits=bits, seed=seed)


@settings(max_examples=25)
@given(table_programs(), st.sampled_from(["same", "split"]), st.integers(1, 70))
def test_three_worlds(program: Program, role: Role, rows: int) -> None:
    """Float tables, integer tables and encrypted tables: the last two agree exactly."""
    setting, public = Setting(program, role), program.public
    bound, width = public.encoder.bound, public.encoder.width
    Z = np.random.default_rng(rows).integers(-bound, bound + 1, (min(rows, setting.plan.rows_per_chunk), width))
    Z[0] = bound
    exact = public.decode(program.evaluate(Z))
    assert (setting.score(public.queries(Z)) == exact).all()


@pytest.mark.parametrize("role", ["same", "split"])
@pytest.mark.parametrize("rows", [1, 2, 5, 6, 31, 32, 33, 64, 100])
def test_every_shape_of_chunk(role: Role, rows: int, rng: np.random.Generator) -> None:
    setting = forest(role)
    queries = setting.random_queries(rng, rows)
    queries[0], queries[-1] = 0, np.array(setting.plan.sizes) - 1
    assert (setting.score(queries) == setting.program.public.decode(setting.integers(queries))).all()


@pytest.mark.parametrize("role", ["same", "split"])
def test_a_full_chunk_within_its_sizes(role: Role, rng: np.random.Generator) -> None:
    """50 trees of 64 leaves: in role `same` at most 45 KB up and 16 KB down, also for a single row."""
    setting = forest(role)
    plan = setting.plan
    queries = setting.random_queries(rng, plan.rows_per_chunk)
    request = setting.encryptor.encrypt(queries)
    answer = setting.evaluator.evaluate(request, setting.key)
    scores = setting.decryptor.decrypt(answer, len(queries))
    assert (scores == setting.program.public.decode(setting.integers(queries))).all()
    assert len(request) == plan.request_bytes(len(queries)) <= plan.max_request_bytes
    assert len(answer) == plan.answer_bytes(len(queries)) <= plan.max_answer_bytes
    if role == "same":
        assert plan.ring_dimension == 4096
        for rows in (1, 2, *range(5, plan.rows_per_chunk + 1)):
            assert plan.request_bytes(rows) <= 45_000 * rows
        for rows in range(1, plan.rows_per_chunk + 1):
            assert plan.answer_bytes(rows) <= 16_000 * rows
            assert plan.request_bytes(rows) + plan.answer_bytes(rows) <= 61_000 * rows


def of_entries(tables: list[np.ndarray], bits: int) -> Program:
    """Histograms with these entries, whatever the edges."""
    encoder = programs.encoder(len(tables))
    edges = tuple(tuple(range(len(entries) - 1)) for entries in tables)
    geometry = Bins(tuple(range(len(tables))), edges)
    return table_program(encoder, geometry, tables, entry_bits=bits, honest_extraction_rows=1)


@pytest.mark.parametrize("role", ["same", "split"])
@pytest.mark.parametrize(
    "tables",
    [
        [np.zeros(3)],
        [np.array([0.0, 1.0])],
        [np.ones(2)],
        [np.full(300, 1.0), np.zeros(5), np.full(7, 0.5)],
        [np.zeros(9000), np.full(200, 1.0)],
        [np.full(2000, 1.0)] * 5,
    ],
    ids=["zeros", "one bit", "a constant", "mixed", "pieces of zeros", "largest everywhere"],
)
def test_extreme_tables(role: Role, tables: list[np.ndarray], rng: np.random.Generator) -> None:
    """Zeros make products that SEAL calls transparent; a single table's largest entry is the largest score."""
    setting = Setting(of_entries(tables, 8), role)
    queries = setting.random_queries(rng, min(3, setting.plan.rows_per_chunk))
    queries[0] = [int(np.argmax(entries)) for entries in tables]
    exact = setting.program.public.decode(setting.integers(queries))
    assert (setting.score(queries) == exact).all()


@pytest.mark.parametrize("role", ["same", "split"])
@pytest.mark.parametrize("extreme", ["lowest", "highest"])
def test_decryption_cannot_fail_at_the_floods_extremes(
    role: Role, extreme: str, monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    """The largest noise that tables can make, and a flood at its ends: inside half the step, before and after."""
    setting = Setting(of_entries([np.full(64, 1.0)] * 50, 8), role)
    monkeypatch.setattr(sanitise.secrets, "randbits", lambda bits: 0 if extreme == "lowest" else (1 << bits) - 1)
    queries = setting.random_queries(rng, 64)
    assert (setting.score(queries) == setting.plan.unit * 50 * 255).all()
    plan, layout = setting.plan, setting.plan.layouts[-1]
    kept = np.arange(layout.slots) * layout.stride(plan.ring_dimension)
    total = setting.evaluator._looked_up(
        layout, messages.ciphertexts(plan, setting.encryptor.encrypt(queries[: layout.slots]))
    )
    setting.evaluator._sanitise(total, setting.key.mask())
    scores, step = setting.integers(queries[: layout.slots]), 1 << plan.plain_bits
    assert np.abs(errors(setting, total, kept, scores)).max() * 4 * step <= math.prod(plan.data_primes)
    for _ in plan.data_primes[1:]:
        setting.evaluator._evaluator.mod_switch_to_next_inplace(total)
    assert np.abs(errors(setting, total, kept, scores)).max() * 2 * step < plan.data_primes[0]


def test_a_lookup_is_the_negacyclic_product(rng: np.random.Generator) -> None:
    """On a ciphertext of noise: coefficient by coefficient what the specification says, on exact integers."""
    setting = small("same")
    plan, layout = setting.plan, setting.plan.layouts[-1]
    request = setting.encryptor.encrypt(setting.random_queries(rng, layout.slots))
    assert layout.pieces == 1
    ((words, _),) = (objects.residues(value) for value in messages.ciphertexts(plan, request))
    total = setting.evaluator._looked_up(layout, messages.ciphertexts(plan, request))
    found, entries = objects.residues(total)[0], np.concatenate(setting.program.secret.tables)
    for half in range(2):
        for at, prime in enumerate(plan.data_primes):
            row = words[half, at].astype(object)
            expected = np.zeros_like(row)
            for i, entry in enumerate(entries.tolist()):
                # Times X**-i: down by i; what falls below degree 0 returns at the top with its sign changed.
                expected += entry * np.concatenate([row[i:], -row[:i]])
            assert (found[half, at] == (expected % prime).astype(np.uint64)).all()


def test_split_and_same_agree(rng: np.random.Generator) -> None:
    same, split = small("same"), small("split")
    queries = same.random_queries(rng, 7)
    assert (same.score(queries) == same.plan.unit * same.integers(queries).astype(float)).all()
    assert (split.score(queries) == split.plan.unit * split.integers(queries).astype(float)).all()


def test_a_deeper_forest(rng: np.random.Generator) -> None:
    """100 trees of 256 leaves."""
    for role in ("same", "split"):
        setting = Setting(programs.forest(100, 8), role)
        queries = setting.random_queries(rng, 3)
        assert (setting.score(queries) == setting.plan.unit * setting.integers(queries).astype(float)).all()


def test_a_plan_of_another_program_is_refused() -> None:
    with pytest.raises(FixInputError, match="another program"):
        blind.make_evaluator(small("same", 1).plan, small("same").program)


def test_trees_of_unequal_weights_share_the_engine() -> None:
    """Oblique splits change positions only."""
    encoder = programs.encoder(2, fraction_bits=4)
    geometry = Trees(1, (0, 1, 0, 1), (1, 2, -1, 1), (0, 3))
    tables = [np.array([1.0, 0.25]), np.array([0.5, 0.0])]
    program = table_program(encoder, geometry, tables, entry_bits=6, honest_extraction_rows=3)
    setting, Z = Setting(program, "same"), np.array([[0, 0], [1, 0], [-3, 5], [16, -16]])
    assert make_plan(program.public, "same") == setting.plan
    assert (setting.score(program.public.queries(Z)) == program.public.decode(program.evaluate(Z))).all()
