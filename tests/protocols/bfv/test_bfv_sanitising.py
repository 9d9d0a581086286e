"""What an answer gives away: the attack that bare answers allow, the flood's distribution, and honest extraction."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tenseal.sealapi as seal
from bfv_setting import Role, Setting, errors, forest, small, solve_for_table, transform

from securead.checks import programs
from securead.program.builder import table_program
from securead.program.geometry import Bins
from securead.protocols.bfv import messages, owner, sanitise
from securead.protocols.bfv.context import context_for
from securead.protocols.seal import objects, publickeys
from securead.protocols.seal.publickeys import EvaluationKey

ALPHA_CHI = 66.3  # the chi-squared distribution of 15 degrees of freedom exceeds it with probability 2e-8


def chi_squared(values: np.ndarray, low: float, high: float) -> float:
    """Pearson's statistic of values against the uniform distribution on [low, high), 16 bins."""
    counts, _ = np.histogram(values, bins=16, range=(low, high))
    expected = len(values) / 16
    return float(((counts - expected) ** 2).sum() / expected) + (np.inf if counts.sum() < len(values) else 0.0)


class OneAnswer:
    """A one-row answer of a 50 x 64 forest at every stage; c1 modulo the prime that remains."""

    def __init__(self, role: Role, key: Any = None) -> None:
        self.setting = setting = forest(role)
        self.prime = setting.plan.data_primes[0]
        rng = np.random.default_rng(0)
        request = setting.encryptor.encrypt(setting.random_queries(rng, 1))
        (query,) = messages.ciphertexts(setting.plan, request)
        self.query = self.c1(query)
        total = setting.evaluator._looked_up(setting.plan.layouts[0], messages.ciphertexts(setting.plan, request))
        self.bare = self.c1(total)
        setting.evaluator._sanitise(total, (key or setting.key).mask())
        self.masked = self.c1(total)
        answer = setting.evaluator.evaluate(request, setting.key)
        ((self.real, _, _),) = messages.groups(setting.plan, answer, 1)

    @staticmethod
    def c1(value: Any) -> np.ndarray:
        return objects.residues(value)[0][1, 0]

    @property
    def entries(self) -> np.ndarray:
        return np.concatenate(self.setting.program.secret.tables)

    def solve(self, answer: np.ndarray) -> np.ndarray:
        return solve_for_table(self.query, answer, self.prime)


@pytest.mark.parametrize("role", ["same", "split"])
def test_the_attack_recovers_the_table_from_a_bare_answer_and_nothing_from_a_real_one(role: Role) -> None:
    """In role `split` the key holder does not know the query's c1; grant it, the mask must hold all the same."""
    answers = OneAnswer(role)
    entries = answers.entries
    bare = answers.solve(answers.bare)
    assert (bare[: len(entries)] == entries).all()
    assert not bare[len(entries) :].any()
    for protected in (answers.masked, answers.real):
        found = answers.solve(protected)
        # Agreements of uniform residues: none, except with probability 3,200 / 2**27.
        assert not (found[: len(entries)] == entries).any()
        assert chi_squared(found, 0, answers.prime) < ALPHA_CHI


def test_the_mask_vanishes_under_a_uniform_half_of_the_owners_choice() -> None:
    """Why `a` is not the owner's: with a = 0 the attack works on a masked answer. Such a key has no encoding."""
    setting = forest("same")
    plan, context = setting.plan, context_for(setting.plan)
    words = np.zeros((2, len(plan.chain), plan.ring_dimension), dtype=np.uint64)
    encryptor = seal.Encryptor(context, objects.public_key_from_residues(context, words))
    hostile = EvaluationKey(
        plan.digest, setting.key.key_id, lambda: publickeys.encryption_of_zero(encryptor), mask_bytes=1
    )
    answers = OneAnswer("same", hostile)
    found = answers.solve(answers.masked)
    assert (found[: len(answers.entries)] == answers.entries).all()
    assert plan.public_key_bytes == len(setting.public._content) < 8 * plan.ring_dimension * len(plan.chain)


def flooded(setting: Setting, rng: np.random.Generator, answers: int) -> np.ndarray:
    """Errors of kept coefficients before the switch, in units of the flood."""
    plan, layout = setting.plan, setting.plan.layouts[-1]
    kept, found = np.arange(layout.slots) * layout.stride(plan.ring_dimension), []
    for _ in range(answers):
        queries = setting.random_queries(rng, layout.slots)
        encrypted = messages.ciphertexts(plan, setting.encryptor.encrypt(queries))
        total = setting.evaluator._looked_up(layout, encrypted)
        setting.evaluator._sanitise(total, setting.key.mask())
        found += errors(setting, total, kept, setting.integers(queries)).tolist()
    return np.array([float(v / (1 << plan.flood_bits)) for v in found])


def constant(value: float, role: Role) -> Setting:
    """Six tables full of one value: all zeros, or all the largest there is."""
    public = programs.forest(6, 3).public
    tables = [np.full(8, value)] * 6
    program = table_program(public.encoder, public.geometry, tables, entry_bits=8, honest_extraction_rows=43)
    return Setting(program, role)


@pytest.mark.parametrize("role", ["same", "split"])
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_the_flood_is_uniform_whatever_the_table(role: Role, value: float, rng: np.random.Generator) -> None:
    noise = flooded(constant(value, role), rng, 24)
    assert len(noise) == 24 * 32
    assert chi_squared(noise, -1, 1) < ALPHA_CHI
    # The power of this test: floods of two thirds and of three halves would be found.
    assert chi_squared(noise * 2 / 3, -1, 1) > ALPHA_CHI
    assert chi_squared(noise * 3 / 2, -1, 1) > ALPHA_CHI


@pytest.mark.parametrize("role", ["same", "split"])
def test_what_the_flood_hides_is_within_its_bound(role: Role, rng: np.random.Generator) -> None:
    """Without the flood, the error depends on the table and is at most `noise`; the flood is 2**40 times that."""
    setting = constant(1.0, role)
    plan, layout = setting.plan, setting.plan.layouts[-1]
    kept = np.arange(layout.slots) * layout.stride(plan.ring_dimension)
    queries = setting.random_queries(rng, layout.slots)
    total = setting.evaluator._looked_up(layout, messages.ciphertexts(plan, setting.encryptor.encrypt(queries)))
    encryptor = seal.Encryptor(context_for(plan), owner._load_public(plan, setting.public))
    setting.evaluator._evaluator.add_inplace(total, publickeys.encryption_of_zero(encryptor))
    noise = np.abs(errors(setting, total, kept, setting.integers(queries)))
    assert plan.margins.noise / 1000 < noise.max() <= plan.margins.noise
    assert 1 << plan.flood_bits >= plan.margins.noise << 40


def test_every_answer_is_fresh(rng: np.random.Generator) -> None:
    setting = small("same")
    request = setting.encryptor.encrypt(setting.random_queries(rng, 3))
    first, second = (setting.evaluator.evaluate(request, setting.key) for _ in range(2))
    assert first != second
    assert (setting.decryptor.decrypt(first, 3) == setting.decryptor.decrypt(second, 3)).all()


def test_the_flood_comes_from_the_operating_system(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    """At every place of every layout, drawn anew for each of the two groups."""
    asked: list[int] = []
    honest = sanitise.secrets.randbits
    monkeypatch.setattr(sanitise.secrets, "randbits", lambda bits: asked.append(bits) or honest(bits))
    setting = small("same")
    plan, n = setting.plan, setting.plan.ring_dimension
    places = {slot * layout.stride(n) for layout in plan.layouts for slot in range(layout.slots)}
    setting.score(setting.random_queries(rng, 5))
    assert asked == [plan.flood_bits + 1] * len(places) * len(plan.groups(5))


@pytest.mark.parametrize("role", ["same", "split"])
def test_honest_scores_give_the_program_away_at_the_published_count(role: Role) -> None:
    """No sanitising changes this: the count is what a service meters rows against."""
    setting = small(role)
    sizes, rows = setting.plan.sizes, setting.program.public.honest_extraction_rows
    queries = [[0] * len(sizes)]
    for table, size in enumerate(sizes):
        queries += [[i if at == table else 0 for at in range(len(sizes))] for i in range(1, size)]
    assert len(queries) == rows
    chosen = np.array(queries)
    starts = np.cumsum(sizes) - np.array(sizes)
    system = np.zeros((rows, sum(sizes)))
    for row, query in enumerate(chosen):
        system[row, starts + query] = 1
    scores = setting.score(chosen) / setting.plan.unit
    clone = np.linalg.lstsq(system, scores, rcond=None)[0]
    others = setting.random_queries(np.random.default_rng(1), 200)
    cloned = np.array([clone[starts + query].sum() for query in others])
    assert np.abs(cloned - setting.integers(others).astype(float)).max() < 1e-6
    assert np.linalg.matrix_rank(system) == rows, "no fewer rows determine it"


class Counting:
    """Stands before SEAL's evaluator and writes down what is asked of it."""

    def __init__(self, evaluator: Any) -> None:
        self._evaluator, self.asked = evaluator, list[str]()

    def __getattr__(self, name: str) -> Any:
        self.asked.append(name)
        return getattr(self._evaluator, name)


def test_the_work_does_not_depend_on_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables of zeros, where SEAL complains of transparent results, take the same operations as full ones."""
    asked = []
    for value in (0.0, 1.0):
        setting = constant(value, "same")
        counting = Counting(setting.evaluator._evaluator)
        monkeypatch.setattr(setting.evaluator, "_evaluator", counting)
        setting.score(np.zeros((40, 6), dtype=np.int64))
        asked.append(counting.asked)
    assert asked[0] == asked[1]
    assert asked[0].count("multiply_plain_inplace") == 2


def test_a_query_cannot_ask_whether_a_product_vanishes() -> None:
    """A table polynomial with a root, and a query that lives at that root alone: an answer, not SEAL's complaint.

    Were the complaint to reach the client, such queries would test the entries' linear relations one by one.
    """
    n, probe = 4096, np.zeros(4096, dtype=np.int64)
    probe[n - 1] = -1  # X**-1
    encoder = programs.encoder(1)

    def two_entries(a: int, b: int) -> Setting:
        geometry, tables = Bins((0,), ((0, 1),)), [np.array([a, b, 63.0])]
        program = table_program(encoder, geometry, tables, entry_bits=6, honest_extraction_rows=3)
        return Setting(program, "split")

    prime = two_entries(1, 2).plan.data_primes[0]
    inverse = transform(probe, prime)
    # a + b x + 63 x**2 = 0 at some root's inverse x, for small a and b
    found = (
        (int(a), b, int(at))
        for b in range(64)
        for a, at in zip(-(b * inverse + 63 * inverse % prime * inverse) % prime, range(n), strict=True)
        if a < 64
    )
    a, b, root = next(found)
    setting = two_entries(a, b)
    plan, context = setting.plan, context_for(setting.plan)
    assert np.concatenate(setting.program.secret.tables).tolist() == [a, b, 63]
    assert plan.data_primes[0] == prime
    words = np.zeros((2, len(plan.data_primes), n), dtype=np.uint64)
    words[1, 0] = transform(np.eye(1, n, root, dtype=np.int64)[0], prime, inverse=True)
    query = objects.encrypted_from_residues(context, context.first_parms_id(), words, ntt=False)
    total = setting.evaluator._looked_up(plan.layouts[0], iter([query]))
    assert total.is_transparent(), "this query does what it was made for"
    request = messages.preamble(1, setting.key.key_id) + messages.pack_ciphertext(
        plan, objects.encrypted_from_residues(context, context.first_parms_id(), words, ntt=False)
    )
    assert len(setting.evaluator.evaluate(request, setting.key)) == plan.answer_bytes(1)
