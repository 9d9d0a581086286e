"""What an answer gives away: the attack that bare answers allow, the flood over everything, and crafted requests."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import tenseal.sealapi as seal
from row_setting import (
    ROLES,
    Setting,
    in_coefficients,
    network,
    of_degree,
    phases,
    polynomial,
    read,
    request_from,
    signed,
    small,
)

from securead.checks import programs
from securead.program.builder import ProgramBuilder
from securead.program.program import Program
from securead.protocols.ckks.row import messages, monomials, owner, sanitise
from securead.protocols.ckks.row.context import context_for
from securead.protocols.engine import Role
from securead.protocols.residues import loops
from securead.protocols.residues.transforms import transform_for
from securead.protocols.seal import objects, publickeys
from securead.protocols.seal.publickeys import EvaluationKey

ALPHA_CHI = 66.3  # the chi-squared distribution of 15 degrees of freedom exceeds it with probability 2e-8


def chi_squared(values: np.ndarray, low: float, high: float) -> float:
    """Pearson's statistic of values against the uniform distribution on [low, high), 16 bins."""
    counts, _ = np.histogram(values.astype(float), bins=16, range=(low, high))
    expected = len(values) / 16
    return float(((counts - expected) ** 2).sum() / expected) + (np.inf if counts.sum() < len(values) else 0.0)


def coefficients(setting: Setting) -> list[int]:
    """The program's coefficients in the order of monomials, the constant apart: what is to be kept secret."""
    exact, plan = polynomial(setting.program, setting.role), setting.plan
    line = [tuple(m) for d in range(1, plan.degree + 1) for m in monomials.tuples(plan.width, d).tolist()]
    return [exact.get(monomial, 0) for monomial in line]


class OneAnswer:
    """A one-row answer at every stage; c1 modulo the first prime, which remains."""

    def __init__(self, setting: Setting, key: Any = None) -> None:
        self.setting, plan = setting, setting.plan
        self.prime = plan.data_primes[0]
        rng = np.random.default_rng(0)
        request = setting.encryptor.encrypt(setting.records(rng, 1))
        (query,) = read(setting, request)
        self.query = query[0, 1]
        layout = plan.groups(1)[0].layout
        self.bare = setting.evaluator._multiplied(layout, request, 0)
        self.masked = self.with_mask((key or setting.key).mask())
        ((words, _),) = messages.groups(plan, setting.evaluator.evaluate(request, setting.key), 1)
        self.real = words[1, 0].astype(np.int64)

    def with_mask(self, mask: sanitise.Mask) -> np.ndarray:
        kept = self.setting.evaluator._sanitised(self.bare, np.arange(1) * 0, mask)
        return np.asarray(kept[0, 1:])

    def solve(self, c1: np.ndarray) -> np.ndarray:
        """The polynomial by which c1 of the query was multiplied: its coefficients in the order of monomials."""
        transform = transform_for(self.prime, len(c1))
        divisor, dividend = (transform.forward(row).tolist() for row in (self.query, c1))
        quotient = [a * pow(b, -1, self.prime) % self.prime for a, b in zip(dividend, divisor, strict=True)]
        table = transform.inverse(np.array(quotient, dtype=np.int64))
        return np.concatenate([table[:1], (-table[:0:-1]) % self.prime])


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("make", [small, network], ids=["quadratic", "network"])
def test_the_attack_reads_all_coefficients_from_a_bare_answer_and_none_from_a_real_one(make: Any, role: Role) -> None:
    """In role `split` the key holder does not know the query's c1; grant it, the mask must hold all the same."""
    answers = OneAnswer(make(role))
    expected = np.array([c % answers.prime for c in coefficients(answers.setting)])
    bare = answers.solve(answers.bare[0, 1])
    assert (bare[: len(expected)] == expected).all()
    assert not bare[len(expected) :].any()
    for protected in (answers.masked, answers.real):
        found = answers.solve(protected)
        # Agreements of uniform residues: none, except with probability 1,000 / 2**38.
        assert not (found[: len(expected)] == expected).any()
        assert chi_squared(found, 0, answers.prime) < ALPHA_CHI


def test_the_mask_vanishes_under_a_uniform_half_of_the_owners_choice() -> None:
    """Why `a` is not the owner's: with a = 0 the attack works on a masked answer. Such a key has no encoding."""
    setting = small("same")
    plan, context = setting.plan, context_for(setting.plan)
    words = np.zeros((2, len(plan.chain), plan.ring_dimension), dtype=np.uint64)
    masks = sanitise.Masks(plan, objects.public_key_from_residues(context, words))
    hostile = EvaluationKey(plan.digest, setting.key.key_id, masks.make, mask_bytes=1)
    answers = OneAnswer(setting, hostile)
    # SEAL divides by the special prime: its own errors e2, at most 21, are rounded away.
    found = answers.solve(answers.masked)
    expected = np.array([c % answers.prime for c in coefficients(setting)])
    assert (found[: len(expected)] == expected).all()
    content = publickeys.content_bytes(plan.chain, plan.ring_dimension)
    assert content == len(setting.public._content) < 8 * plan.ring_dimension * len(plan.chain)


def errors(setting: Setting, Z: np.ndarray, *, flooded: bool) -> np.ndarray:
    """What stands beside the exact scores in the kept coefficients before the modulus is switched: Python integers."""
    plan, found = setting.plan, []
    request, first = setting.encryptor.encrypt(Z), 0
    encryptor = seal.Encryptor(context_for(plan), owner._load_public(plan, setting.public))
    for group in plan.groups(len(Z)):
        places = messages.group_places(plan, group)
        total, first = setting.evaluator._multiplied(group.layout, request, first), first + group.layout.pieces
        if flooded:
            kept = setting.evaluator._sanitised(total, places, setting.key.mask())
            total[:, 0, places], total[:, 1] = kept[:, : len(places)], kept[:, len(places) :]
        else:
            zero = in_coefficients(setting, publickeys.encryption_of_zero(encryptor))
            for rows, added, prime in zip(total, zero, plan.data_primes, strict=True):
                loops.add(rows, added, prime)
        exact = setting.integers(Z[group.first : group.first + group.rows]) * (1 << plan.scale_bits)
        found += (phases(setting, total)[places] - exact).tolist()
    return np.array(found, dtype=object)


def in_flood_widths(setting: Setting, rng: np.random.Generator, answers: int) -> np.ndarray:
    flood = 1 << setting.plan.flood_bits
    every = [errors(setting, setting.records(rng, 32), flooded=True) for _ in range(answers)]
    return np.array([float(v / flood) for v in np.concatenate(every)])


def of_weights(value: float) -> Program:
    """All weights zero, or all as large as the public half allows (the public halves are alike)."""
    build = ProgramBuilder(programs.encoder(4, limit=4.0, fraction_bits=8))
    h = build.affine([(np.full((3, 4), value), build.input)], np.full(3, value), fraction_bits=16)
    build.affine([(np.full((1, 3), value), build.product(h, h))], fraction_bits=38)
    return build.finish(tolerance=1e-2, honest_extraction_rows=15)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_the_flood_is_uniform_whatever_the_weights(role: Role, value: float, rng: np.random.Generator) -> None:
    noise = in_flood_widths(Setting(of_weights(value), role), rng, 12)
    assert len(noise) == 12 * 32
    assert chi_squared(noise, -1, 1) < ALPHA_CHI
    # The power of this test: floods of two thirds and of three halves would be found.
    assert chi_squared(noise * 2 / 3, -1, 1) > ALPHA_CHI
    assert chi_squared(noise * 3 / 2, -1, 1) > ALPHA_CHI


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("degree", [1, 2, 4])
def test_what_the_flood_hides_is_within_its_bound(role: Role, degree: int, rng: np.random.Generator) -> None:
    """Without the flood, errors depend on weights and records' encryptions: at most `noise`, 2**45 below the flood."""
    setting = Setting(of_degree(degree), role)
    plan = setting.plan
    found = np.abs(errors(setting, setting.records(rng, 32), flooded=False))
    assert 0 < found.max() <= plan.margins.noise
    assert 1 << plan.flood_bits >= 32 * plan.margins.noise << 40


def test_the_worst_errors_that_an_owner_can_make_are_hidden() -> None:
    """Full flooding: errors chosen with the weights in hand, all of one sign, stay 2**45 below the flood.

    They reach a good part of the bound, which comes from the public half alone: nothing is averaged.
    """
    setting = small("split")
    plan, n = setting.plan, setting.plan.ring_dimension
    values = coefficients(setting)
    (words,) = read(setting, setting.encryptor.encrypt(np.zeros((1, 4), dtype=np.int64)))
    own, worst = phases(setting, words), (n + 2) // 2
    chosen = np.zeros(n, dtype=object)
    chosen[: len(values)] = [worst if c > 0 else -worst for c in values] - own[: len(values)]
    for prime, row in zip(plan.data_primes, words, strict=True):
        row[0] = (row[0] + (chosen % prime).astype(np.int64)) % prime
    total = setting.evaluator._multiplied(plan.groups(1)[0].layout, request_from(setting, [words], 1), 0)
    off = phases(setting, total)[0] - (setting.integers(np.zeros((1, 4), dtype=np.int64))[0] << plan.scale_bits)
    assert off == sum(abs(c) for c in values) * worst
    assert plan.margins.noise / 64 < off <= plan.margins.noise
    assert 1 << plan.flood_bits >= 32 * off << 40


def crafted(setting: Setting, vectors: list[dict[int, int]]) -> bytes:
    """A request whose rows are vectors of the sender's choice in the place of monomials: role `split`."""
    plan = setting.plan
    stride = plan.groups(len(vectors))[0].layout.stride(plan.ring_dimension)
    (words,) = read(setting, setting.encryptor.encrypt(np.zeros((1, plan.width), dtype=np.int64)))
    for row, vector in enumerate(vectors):
        for at, value in vector.items():
            for prime, both in zip(plan.data_primes, words, strict=True):
                both[0, row * stride + at] = (int(both[0, row * stride + at]) + value) % prime
    return request_from(setting, [words], len(vectors))


def phase_read(setting: Setting, answer: bytes, rows: int) -> np.ndarray:
    """What a key holder reads beside the range check: phases of the kept coefficients modulo q, centred integers."""
    plan, decryptor, found = setting.plan, setting.decryptor, []
    for words, places in messages.groups(plan, answer, rows):
        plaintext = seal.Plaintext()
        decryptor._decryptor.decrypt(
            objects.encrypted_from_residues(decryptor._context, decryptor._level, words, ntt=False), plaintext
        )
        found += [plaintext.data(int(p)) if p < plaintext.coeff_count() else 0 for p in places]
    q, steps = math.prod(plan.data_primes), 1 << plan.plain_bits
    return signed([v * q // steps for v in found], q)


def test_a_crafted_request_reads_inner_products_and_no_more_than_the_stated_bits() -> None:
    """One number a row: any coefficient, or several at once, until `answer_bits` are used up; below is flood."""
    setting = small("split")
    plan, values = setting.plan, coefficients(setting)
    q, flood = math.prod(plan.data_primes), 1 << plan.flood_bits
    constant = polynomial(setting.program, "split").get((), 0) << plan.scale_bits
    # One coefficient a row, at a scale that brings its bits above the flood as far as the modulus goes.
    scale = q // (4 * max(abs(c) for c in values))
    answer = setting.evaluator.evaluate(crafted(setting, [{at: scale} for at in range(len(values))]), setting.key)
    read_off = signed(phase_read(setting, answer, len(values)) - constant, q)
    assert len(read_off) == len(values) == 14
    for found, c in zip(read_off.tolist(), values, strict=True):
        assert abs(found - c * scale) < 2 * flood, "the inner product with a unit vector, and a flood"
    # So many bits of the largest coefficient and its sign; more scale would wrap around the modulus.
    told = math.log2(2 * max(abs(c) for c in values) * scale / (2 * flood))
    assert plan.answer_bits - 2 < told < plan.answer_bits
    # A row for each: no row tells of another's vector.
    alone = setting.evaluator.evaluate(crafted(setting, [{}, {3: scale}]), setting.key)
    first, second = signed(phase_read(setting, alone, 2) - constant, q).tolist()
    assert abs(first) < 2 * flood
    assert abs(second - values[3] * scale) < 2 * flood


def test_every_answer_is_fresh(rng: np.random.Generator) -> None:
    setting = small("same")
    request = setting.encryptor.encrypt(setting.records(rng, 3))
    first, second = (setting.evaluator.evaluate(request, setting.key) for _ in range(2))
    assert first != second
    apart = setting.decryptor.decrypt(first, 3) - setting.decryptor.decrypt(second, 3)
    assert apart.all(), "the flood is drawn anew"
    assert np.abs(apart).max() <= 2 * setting.plan.error_bound


def test_the_flood_comes_from_the_operating_system(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    """At every place of every layout, drawn anew for each of the groups."""
    asked: list[int] = []
    honest = sanitise.secrets.randbits
    monkeypatch.setattr(sanitise.secrets, "randbits", lambda bits: asked.append(bits) or honest(bits))
    setting = network("same")
    plan, n = setting.plan, setting.plan.ring_dimension
    places = {slot * layout.stride(n) for layout in plan.layouts for slot in range(layout.slots)}
    assert len(plan.groups(13)) == 2
    setting.score(setting.records(rng, 13))
    assert asked == [plan.flood_bits + 1] * len(places) * 2


@pytest.mark.parametrize("role", ROLES)
def test_what_it_says_of_its_flood_is_what_leaves(role: Role, rng: np.random.Generator) -> None:
    """`in_floods` of answers to one request and another: they differ by floods."""
    setting = small(role)
    request = setting.encryptor.encrypt(setting.records(rng, 32))
    first, *more = (setting.evaluator.evaluate(request, setting.key) for _ in range(13))
    shown = [setting.decryptor.in_floods(each, first, 32) for each in more]
    spread = np.var(np.array(shown), axis=0, ddof=1).mean()
    # 352 degrees of freedom of uniform numbers: the standard error of the mean is below .06.
    assert 0.75 < spread < 1.3


@pytest.mark.parametrize("role", ROLES)
def test_honest_scores_give_the_program_away_at_the_published_count(role: Role) -> None:
    """No sanitising changes this: the count is what a service meters rows against."""
    setting = small(role)
    rows, width = setting.program.public.honest_extraction_rows, setting.plan.width
    bound = setting.program.public.encoder.bound
    Z = np.random.default_rng(0).integers(-bound, bound + 1, (rows, width))

    def lifted(X: np.ndarray) -> np.ndarray:
        real = X / bound
        products = [real[:, i] * real[:, j] for i in range(width) for j in range(i + 1)]
        return np.column_stack([np.ones(len(X)), real, *products])

    clone = np.linalg.solve(lifted(Z), setting.score(Z))
    others = np.random.default_rng(1).integers(-bound, bound + 1, (200, width))
    exact = setting.exact(others)
    assert np.abs(lifted(others) @ clone - exact).max() < 1e-2 * np.abs(exact).max()
    assert np.linalg.matrix_rank(lifted(Z[:-1])) == rows - 1, "no fewer rows determine it"


def of_row_sums(few: bool) -> Program:
    """Three squares of forms whose weights are alike, or all in one column: of 14 coefficients, two are left then."""
    build = ProgramBuilder(programs.encoder(4, limit=4.0, fraction_bits=8))
    weights = np.full((3, 4), 0.25) if not few else np.eye(1, 4).repeat(3, axis=0)
    h = build.affine([(weights, build.input)], np.ones(3), fraction_bits=16)
    build.affine([(np.ones((1, 3)), build.product(h, h))], fraction_bits=38)
    return build.finish(tolerance=1e-2, honest_extraction_rows=15)


class Counting:
    """Stands before the kernels of one prime and writes down what is asked of them."""

    def __init__(self, form: Any, asked: list[tuple[Any, ...]]) -> None:
        self._form, self._asked, self.prime = form, asked, form.prime

    def sum_of_products(self, total: Any, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        self._asked.append((total.weights.tolist(), total.factor, x.shape, y.shape))
        return np.asarray(self._form.sum_of_products(total, x, y))


def test_the_work_does_not_depend_on_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs alike in public, one of them mostly zeros: the same operations on the same shapes."""
    asked = []
    for few in (False, True):
        setting, calls = Setting(of_row_sums(few), "same"), list[tuple[Any, ...]]()
        forms = [Counting(form, calls) for form in setting.evaluator._forms]
        monkeypatch.setattr(setting.evaluator, "_forms", forms)
        Z = np.ones((3, 4), dtype=np.int64)
        assert np.abs(setting.score(Z) - setting.exact(Z)).max() <= setting.plan.error_bound
        asked.append(calls)
    assert asked[0] == asked[1]
    assert len(asked[0]) == len(forms)
