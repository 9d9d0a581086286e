"""What an answer gives away: the attack that bare answers allow, the flood, the masks' noise, and honest extraction."""

from __future__ import annotations

import itertools
import math
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import pytest
import tenseal.sealapi as seal

from securead.checks import programs
from securead.program.program import Program
from securead.protocols.ckks import blind, owner, requests
from securead.protocols.ckks.context import context_for
from securead.protocols.ckks.plan import CkksPlan, make_plan
from securead.protocols.ckks.propagate import tails_for
from securead.protocols.ckks.sanitise import Masks, sanitise
from securead.protocols.engine import Role
from securead.protocols.residues.transforms import transform_for
from securead.protocols.seal import objects, publickeys

ROLES: tuple[Role, ...] = ("same", "split")
Z_99 = 2.576  # 99 % of a normal distribution lie within so many deviations


class Service:
    """A program, its owner's keys, and the service's half.

    In role `same` the key holder knows the most; in role `split` the tests grant it the request that it may not see.
    """

    def __init__(self, program: Program, role: Role = "same", *, full_flood: bool = False) -> None:
        self.program = program
        self.plan: CkksPlan = make_plan(program.public, role, full_flood=full_flood)
        self.secret, self.public = owner.generate_keys(self.plan)
        self.key = blind.read_evaluation_key(self.plan, self.public.to_bytes())
        self.evaluator = blind.make_evaluator(self.plan, program)
        self.encryptor = owner.make_encryptor(self.plan, self.secret if role == "same" else self.public)
        self.decryptor = owner.make_decryptor(self.plan, self.secret)
        self.context = context_for(self.plan)

    def columns(self, request: bytes) -> np.ndarray:
        """A request's residues `(primes, blocks, columns, 2, slots)`; its sender knows them all."""
        return requests.columns(self.plan, request, blind.BLOCK_SLOTS)

    def bare(self, request: bytes) -> np.ndarray:
        """The score before anything is added, `(primes, polynomials, N)`."""
        return self.evaluator._score(self.columns(request))

    def masked(self, bare: np.ndarray) -> np.ndarray:
        """The score as it is before it is rescaled: a real answer is a function of it."""
        score = bare.copy()
        sanitise(self.plan, score, self.key.mask())
        return score

    def phase(self, score: np.ndarray) -> np.ndarray:
        """What a score decrypts to, by SEAL: integers modulo q, `(N,)`, centred."""
        words = score.swapaxes(0, 1).view(np.uint64)
        encrypted = objects.ciphertext_from_residues(self.context, self.context.first_parms_id(), words, ntt=True)
        plaintext = seal.Plaintext()
        seal.Decryptor(self.context, owner._load_secret(self.plan, self.secret)).decrypt(encrypted, plaintext)
        return self.integers(objects.plaintext_residues(plaintext).reshape(-1, self.plan.ring_dimension))

    def integers(self, residues: np.ndarray) -> np.ndarray:
        """NTT residues `(primes, N)` to centred integers `(N,)`."""
        q, total = math.prod(self.plan.data_primes), np.zeros(self.plan.ring_dimension, dtype=object)
        for prime, row in zip(self.plan.data_primes, residues, strict=True):
            coefficients = transform_for(prime, self.plan.ring_dimension).inverse(row.astype(np.int64))
            total = total + coefficients.astype(object) * (q // prime * pow(q // prime, -1, prime))
        total %= q
        return np.where(total > q // 2, total - q, total)

    def scores(self, Z: np.ndarray) -> np.ndarray:
        answer = self.evaluator.evaluate(self.encryptor.encrypt(Z), self.key)
        return self.decryptor.decrypt(answer, len(Z))


@cache
def quadratic(role: Role = "same") -> Service:
    return Service(programs.small_quadratic(), role)


def quadratic_form(program: Program) -> list[int]:
    """The program's integers that its quadratic part consists of: the coefficients of x_j x_k, j <= k."""
    first, last = program.secret.weights[1], program.secret.weights[3]
    A, w = first.matrices[0].astype(object), last.matrices[0][0].astype(object)
    full = sum(w[i] * np.outer(A[i], A[i]) for i in range(len(w)))
    n = len(full)
    return [int(full[j, k]) * (2 if j < k else 1) for j in range(n) for k in range(j, n)]


class Attack:
    """c2 = sum over j <= k of f_jk c1_j c1_k in every slot of the ring: linear equations in f, exact modulo a prime."""

    def __init__(self, service: Service, request: bytes) -> None:
        self.prime = service.plan.data_primes[0]
        # Without the column of public terms, which is in no product.
        c1 = service.columns(request)[0, 0, : service.plan.width, 1].astype(object)
        n = len(c1)
        pairs = [(j, k) for j in range(n) for k in range(j, n)]
        system = [[int(c1[j][slot] * c1[k][slot] % self.prime) for j, k in pairs] for slot in range(len(pairs))]
        self.inverse = inverse(system, self.prime)

    def solve(self, score: np.ndarray) -> list[int]:
        """The quadratic form, centred modulo the prime, from c2 of a score."""
        c2 = score[0, 2, : len(self.inverse)].tolist()
        found = [sum(a * b for a, b in zip(row, c2, strict=True)) % self.prime for row in self.inverse]
        return [value - self.prime if value > self.prime // 2 else value for value in found]


def inverse(matrix: list[list[int]], prime: int) -> list[list[int]]:
    """By Gauss and Jordan modulo a prime."""
    n = len(matrix)
    rows = [row + [int(i == j) for j in range(n)] for i, row in enumerate(matrix)]
    for column in range(n):
        pivot = next(r for r in range(column, n) if rows[r][column])
        rows[column], rows[pivot] = rows[pivot], rows[column]
        factor = pow(rows[column][column], -1, prime)
        rows[column] = [v * factor % prime for v in rows[column]]
        for r in range(n):
            if r != column and (times := rows[r][column]):
                rows[r] = [(v - times * w) % prime for v, w in zip(rows[r], rows[column], strict=True)]
    return [row[n:] for row in rows]


def one_request(service: Service) -> bytes:
    bound = service.program.public.encoder.bound
    return service.encryptor.encrypt(np.random.default_rng(0).integers(-bound, bound + 1, size=(50, 4)))


@pytest.mark.parametrize("role", ROLES)
def test_the_attack_recovers_the_weights_from_a_bare_answer(role: Role) -> None:
    service = quadratic(role)
    request = one_request(service)
    assert Attack(service, request).solve(service.bare(request)) == quadratic_form(service.program)


def right_signs(role: Role, answers: int) -> tuple[int, int]:
    """Of how many weights the attack finds the sign, over so many real answers; and of how many in all."""
    service = quadratic(role)
    request = one_request(service)
    attack, bare, truth = Attack(service, request), service.bare(request), quadratic_form(service.program)
    assert 0 not in truth
    right = 0
    for _ in range(answers):
        found = attack.solve(service.masked(bare))
        assert not set(found) & set(truth)
        right += sum((a > 0) == (b > 0) for a, b in zip(found, truth, strict=True))
    return right, answers * len(truth)


def right_signs_apart(role: Role, answers: int, processes: int) -> tuple[int, int]:
    """As `right_signs`, by so many processes at once, each with keys and a request of its own."""
    # Not forked: SEAL's generators would go on alike in every process.
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        counts = list(pool.map(right_signs, [role] * processes, [answers // processes] * processes))
    return sum(right for right, _ in counts), sum(guesses for _, guesses in counts)


def stays_with_guessing(role: Role, answers: int, processes: int = 1) -> None:
    """Within the 99 % interval of a fair coin; outside it twice in a row, on fresh answers, has probability 1e-4.

    Power: an attack that finds 55 % of signs is caught with probability .94 on 200 answers of ten signs each, one that
    finds 50.75 % with probability .97 on 10,000.
    """
    for _ in range(2):
        right, guesses = right_signs(role, answers) if processes == 1 else right_signs_apart(role, answers, processes)
        assert guesses >= 10 * answers
        if abs(right - guesses / 2) <= Z_99 * math.sqrt(guesses) / 2:
            return
    raise AssertionError(f"{right} of {guesses} signs are right")


@pytest.mark.parametrize("role", ROLES)
def test_the_attack_guesses_on_real_answers(role: Role) -> None:
    stays_with_guessing(role, 200)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("role", "answers"), [("same", 10_000), ("split", 2_500)])
def test_the_attack_guesses_on_thousands_of_real_answers(role: Role, answers: int) -> None:
    stays_with_guessing(role, answers, processes=2)


def words_of(zero: Any) -> np.ndarray:
    """Residues `(2, primes, N)` of an encryption of zero."""
    return objects.residues(zero)[0].view(np.int64)


def specified(masks: Masks, zeros: list[np.ndarray], digits: np.ndarray) -> np.ndarray:
    """The mask of these encryptions of zero, that of Y^0 first, and this flood, as the specification has it."""
    mask = np.zeros(masks.shape, np.int64)
    mask[:, 0] = masks.flood(digits)
    for j, zero in enumerate(zeros):
        # Without the special prime's residues.
        mask[:, j : j + 2] += zero.swapaxes(0, 1)[: len(mask)]
    return mask % np.array(masks._plan.data_primes)[:, None, None]


@pytest.mark.parametrize("role", ROLES)
def test_the_mask_vanishes_under_a_uniform_half_of_the_owners_choice(role: Role) -> None:
    """Why `a` is not the owner's: with a = 0 what is left of the mask are SEAL's errors, of 21 at most.

    The weights are then an error-corrected solution of thousands of equations in ten unknowns, which reducing a lattice
    finds; without the errors, the attack does. Such a key has no encoding.
    """
    service = quadratic(role)
    words = np.zeros((2, len(service.plan.chain), service.plan.ring_dimension), dtype=np.uint64)
    public = objects.public_key_from_residues(service.context, words)
    masks = Masks(service.plan, public)
    request = one_request(service)
    masked = service.bare(request)
    sanitise(service.plan, masked, masks.make())
    bare = service.bare(request)

    def added(score: np.ndarray) -> np.ndarray:
        return np.asarray(service.integers((score - bare)[:, -1] % np.array(service.plan.data_primes)[:, None]))

    assert 0 < np.abs(added(masked)).max() <= 21
    assert np.abs(added(service.masked(bare))).max() > math.prod(service.plan.data_primes) // 4
    for prime, rows in zip(service.plan.data_primes, masked, strict=True):
        errors = transform_for(prime, service.plan.ring_dimension).forward((added(masked) % prime).astype(np.int64))
        rows[-1] = (rows[-1] - errors) % prime
    assert Attack(service, request).solve(masked) == quadratic_form(service.program)


@pytest.mark.parametrize("role", ROLES)
def test_every_polynomial_of_every_answer_is_fresh(role: Role) -> None:
    """Two answers to one request share nothing but what they decrypt to; each polynomial looks uniform."""
    service = quadratic(role)
    bare = service.bare(one_request(service))
    first, second = service.masked(bare), service.masked(bare)
    for prime, rows in zip(service.plan.data_primes, first - second, strict=True):
        for row in rows % prime:
            counts, _ = np.histogram(row, bins=16, range=(0, prime))
            assert ((counts - 512) ** 2).sum() / 512 < 66.3  # 15 degrees of freedom, probability 2e-8


@cache
def service_of_degree(degree: int) -> Service:
    return quadratic() if degree == 2 else Service(programs.autoencoder(4, 2))


@pytest.mark.parametrize("degree", [2, 4])
def test_the_masks_noise_is_within_its_bound_and_the_flood_fills_its_range(degree: int) -> None:
    """From decryptions by SEAL, before and after, with the flood that was drawn."""
    service = service_of_degree(degree)
    plan = service.plan
    masks = Masks(plan, owner._load_public(plan, service.public))
    Z = np.zeros((1, plan.width), dtype=np.int64)
    bare = service.bare(service.encryptor.encrypt(Z))
    digits = masks.draw()
    exact = sum(row.astype(object) << (masks._digit * i) for i, row in enumerate(digits)) - (1 << plan.flood_bits)
    assert (service.integers(masks.flood(digits)) == exact).all()
    counts, _ = np.histogram((exact / (1 << plan.flood_bits)).astype(float), bins=16, range=(-1, 1))
    assert ((counts - plan.ring_dimension / 16) ** 2).sum() / (plan.ring_dimension / 16) < 66.3
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(masks, "draw", lambda: digits)
        masked = bare.copy()
        sanitise(plan, masked, masks.make())
    noise = np.abs(service.phase(masked) - service.phase(bare) - exact).max()
    # Measured: errors add up like random numbers, the bound takes the worst.
    assert plan.mask_bound / 2 ** (10 * degree) < noise <= plan.mask_bound
    assert plan.ring_dimension * plan.mask_bound <= 2 << (plan.flood_bits - 40)


@pytest.mark.parametrize("degree", [2, 4])
def test_a_mask_is_the_sum_of_fresh_encryptions_of_zero_times_powers_of_y(degree: int) -> None:
    """Residue by residue, as it is specified, whatever SEAL is asked to compute of it."""
    service = service_of_degree(degree)
    plan, zeros = service.plan, list[np.ndarray]()
    masks = Masks(plan, owner._load_public(plan, service.public))
    make = publickeys.encryption_of_zero

    def kept(encryptor: Any, level: Any) -> Any:
        zero = make(encryptor, level)
        zeros.append(words_of(zero))
        return zero

    digits = masks.draw()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(masks, "draw", lambda: digits)
        patch.setattr(publickeys, "encryption_of_zero", kept)
        mask = masks.make()
    assert len(zeros) == degree
    assert {zero.shape for zero in zeros} == {(2, len(plan.chain), plan.ring_dimension)}
    np.testing.assert_array_equal(mask, specified(masks, zeros, digits))


@cache
def flooded(role: Role) -> Service:
    return Service(programs.small_quadratic(), role, full_flood=True)


def encoded(service: Service, Z: np.ndarray) -> np.ndarray:
    """What encrypting adds its errors to: residues `(primes, columns, N)` of the encoded records."""
    plan, encoder, found = service.plan, seal.CKKSEncoder(service.context), []
    columns = list(np.ldexp(Z.astype(float), -plan.input_fraction_bits).T)
    if plan.has_public_column:
        columns.append(service.program.public.decode(service.program.public.public_term(Z)))
    for column in columns:
        plaintext = seal.Plaintext()
        encoder.encode(column.tolist(), plan.input_scale, plaintext)
        found.append(objects.plaintext_residues(plaintext).reshape(-1, plan.ring_dimension))
    return np.stack(found, axis=1).astype(np.int64)


def evaluated(service: Service, messages: np.ndarray) -> np.ndarray:
    """The program on such polynomials, as integers `(N,)`: on ciphertexts whose second half is zero."""
    primes, columns, n = messages.shape
    both = np.zeros((primes, columns, 2, n), np.int64)
    both[:, :, 0] = messages
    blocks = both.reshape(primes, columns, 2, n // blind.BLOCK_SLOTS, blind.BLOCK_SLOTS).transpose(0, 3, 1, 2, 4)
    return service.integers(service.evaluator._score(np.ascontiguousarray(blocks))[:, 0])


@pytest.mark.parametrize("role", ROLES)
def test_a_full_flood_covers_the_worst_errors_that_encrypting_can_add(role: Role) -> None:
    """Errors at the limit in every slot, with every pattern of signs, real or imaginary, at every corner of the input.

    None moves a coefficient of the score by more than the plan's bound, some by a good part of it, and the flood is
    2**40 N / 2 times as wide. A flood over the masks alone is not.
    """
    service = flooded(role)
    plan, n = service.plan, service.plan.ring_dimension
    corners = np.array([[1 - 2 * (i >> k & 1) for k in range(plan.width)] for i in range(2**plan.width)])
    messages = encoded(service, np.tile(corners * plan.input_bound, (n // 2 // len(corners), 1)))
    scores = evaluated(service, messages)
    limit = int(tails_for(service.program.public, n).fresh(role, plan.special_prime))
    worst = 0
    for signs, turn in itertools.product(corners[: len(corners) // 2], (0, n // 2)):
        monomial = np.zeros(n, np.int64)
        monomial[turn] = limit
        moved = messages.copy()
        for index, prime in enumerate(plan.data_primes):
            error = transform_for(prime, n).forward(monomial)
            for column in range(plan.columns):
                sign = signs[column] if column < plan.width else 1
                moved[index, column] = (moved[index, column] + sign * error) % prime
        worst = max(worst, int(np.abs(evaluated(service, moved) - scores).max()))
    bound = plan.hidden - plan.mask_bound
    assert bound / 64 < worst <= bound
    assert (1 << plan.flood_bits) >= (plan.mask_bound + worst) * (n // 2) << 40
    narrow = make_plan(service.program.public, role)
    needed = narrow.spread * 2.0**narrow.score_scale_bits * narrow.ring_dimension / 2 * 2.0**40
    assert (1 << narrow.flood_bits) < needed / 2**30


@pytest.mark.parametrize("role", ROLES)
def test_scores_under_a_full_flood_are_within_their_bound(role: Role, rng: np.random.Generator) -> None:
    service = flooded(role)
    bound, public = service.program.public.encoder.bound, service.program.public
    Z = rng.integers(-bound, bound + 1, size=(service.plan.rows_per_chunk, service.plan.width))
    exact = service.program.evaluate(Z) - (public.public_term(Z) if role == "same" else 0)
    assert 0 < np.abs(service.scores(Z) - public.decode(exact)).max() <= service.plan.error_bound <= public.tolerance


def test_honest_scores_give_the_model_away_at_the_published_count() -> None:
    """No sanitising changes that, so the count is published: as many scores determine every monomial."""
    service = quadratic()
    public = service.program.public
    rng, rows = np.random.default_rng(3), public.honest_extraction_rows
    bound, scale = public.encoder.bound, 2.0**public.encoder.fraction_bits

    def monomials(Z: np.ndarray) -> np.ndarray:
        x = Z / scale
        pairs = [x[:, j] * x[:, k] for j in range(4) for k in range(j, 4)]
        return np.column_stack([np.ones(len(x)), x, *pairs])

    candidates = [rng.integers(-bound, bound + 1, size=(rows, 4)) for _ in range(200)]
    chosen = min(candidates, key=lambda Z: float(np.linalg.cond(monomials(Z))))
    clone = np.linalg.solve(monomials(chosen), service.scores(chosen))
    fresh = rng.integers(-bound, bound + 1, size=(1000, 4))
    truth = public.decode(service.program.evaluate(fresh) - public.public_term(fresh))
    error = np.abs(monomials(fresh) @ clone - truth).max()
    assert error < 0.01 * np.ptp(truth)


@pytest.mark.parametrize("name", ["quadratic", "mahalanobis", "autoencoder"])
def test_no_search_finds_a_record_beyond_the_error_bound(name: str, rng: np.random.Generator) -> None:
    """Corners by coordinate ascent, from random ones: each round keeps the worst records and flips one coordinate."""
    makers = {
        "quadratic": programs.small_quadratic,
        "mahalanobis": lambda: programs.mahalanobis(6),
        "autoencoder": lambda: programs.autoencoder(6, 3),
    }
    service = Service(makers[name]())
    public, plan = service.program.public, service.plan
    bound, rows = public.encoder.bound, plan.rows_per_chunk
    Z = rng.choice([-bound, 0, bound], size=(rows, plan.width))
    Z[: rows // 4] = rng.integers(-bound, bound + 1, size=(rows // 4, plan.width))
    for _ in range(4):
        exact = public.decode(public_free(service.program, Z))
        errors = np.abs(service.scores(Z) - exact)
        assert errors.max() <= plan.error_bound
        worst = Z[np.argsort(errors)[-(rows // (4 * plan.width)) :]]
        neighbours = []
        for column in range(plan.width):
            for value in (-bound, 0, bound):
                moved = worst.copy()
                moved[:, column] = value
                neighbours.append(moved)
        Z = np.vstack([worst, *neighbours])[:rows]


def public_free(program: Program, Z: np.ndarray) -> np.ndarray:
    """The integer scores without the public terms, which a submitter in role `same` adds itself."""
    return np.asarray(program.evaluate(Z) - program.public.public_term(Z))
