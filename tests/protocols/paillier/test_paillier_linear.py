"""Linear scores on encrypted features: exact in both roles; what answers tell, and the traps, each shown to work."""

from __future__ import annotations

import itertools
import secrets
import struct
from functools import cache
from typing import Any

import gmpy2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lookup_setting import related_primes, service_key

from securead.checks import programs
from securead.errors import FixInputError, FixProgramError, RejectMessageError, UseOtherKeyError
from securead.program.builder import ProgramBuilder
from securead.program.program import Program
from securead.protocols.paillier import moduli
from securead.protocols.paillier.linear import blind, messages, owner
from securead.protocols.paillier.linear.blind import EvaluationKey
from securead.protocols.paillier.linear.plan import LinearPlan, make_plan


class Linear:
    """A service and an owner."""

    def __init__(self, program: Program, role: Any = "same") -> None:
        self.program, self.plan = program, make_plan(program.public, role)
        self.key = service_key()
        self.secret, self.public = owner._pair(self.plan, self.key)
        self.encryptor = owner.make_encryptor(self.plan, self.secret if role == "same" else self.public)
        self.decryptor = owner.make_decryptor(self.plan, self.secret)
        self.evaluator = blind.make_evaluator(self.plan, program)
        self.held = blind.read_evaluation_key(self.plan, self.public.to_bytes())

    def records(self, rows: int) -> np.ndarray:
        encoder = self.program.public.encoder
        return np.random.default_rng(rows).integers(-encoder.bound, encoder.bound + 1, (rows, encoder.width))

    def scores(self, Z: np.ndarray) -> np.ndarray:
        request = self.encryptor.encrypt(self.program.public.queries(Z))
        return self.decryptor.decrypt(self.evaluator.evaluate(request, self.held, rows=len(Z)), len(Z))

    def exact(self, Z: np.ndarray) -> np.ndarray:
        public = self.program.public
        return public.decode(self.program.evaluate(Z) - public.public_term(Z))

    def crafted(self, plaintexts: list[int], rows: int = 1) -> bytes:
        """A request with features of one's choice; the randomness does not matter."""
        n, square = self.key.n, self.key.n**2
        factor = self.key.nth_power(self.key.random())
        ciphertexts = [(1 + m % n * n) * factor % square for m in plaintexts]
        return messages.pack(self.plan, rows, self.secret.key_id, ciphertexts)

    def decrypted(self, request: bytes) -> int:
        """All that an answer's ciphertext holds."""
        answer = self.evaluator.evaluate(request, self.held)
        return self.key.decrypt(int(messages.unpack(self.plan, answer, "answer")[2][0]))


@cache
def linear(role: Any = "same") -> Linear:
    return Linear(programs.small_linear(), role)


@pytest.mark.parametrize("role", ["same", "split"])
@pytest.mark.parametrize("rows", [1, 3, 94])
def test_scores_equal_the_oracle(role: str, rows: int) -> None:
    one = linear(role)
    assert one.plan.rows_per_chunk == 94
    Z = one.records(rows)
    assert np.array_equal(one.scores(Z), one.exact(Z))


@settings(max_examples=6, deadline=None)
@given(st.data())
def test_scores_equal_the_oracle_whatever_the_program(data: st.DataObject) -> None:
    """Weights of either sign and any width, several layers, public terms; extreme records."""
    draw = data.draw
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    width, hidden, bits = draw(st.integers(1, 6)), draw(st.integers(1, 4)), draw(st.integers(9, 40))
    build = ProgramBuilder(programs.encoder(width, limit=4.0, fraction_bits=8))
    first = build.affine([(rng.normal(size=(hidden, width)), build.input)], rng.normal(size=hidden), fraction_bits=bits)
    build.affine(
        [(rng.normal(size=(1, hidden)), first), (rng.normal(size=(1, width)), build.input)],
        rng.normal(size=1),
        fraction_bits=bits + 12,
    )
    terms = draw(st.sampled_from([None, 0.5]))
    one = Linear(build.finish(tolerance=1.0, honest_extraction_rows=width + 1, squared_norm=terms))
    rows = draw(st.sampled_from([1, min(7, one.plan.rows_per_chunk)]))
    bound = one.program.public.encoder.bound
    Z = np.vstack([one.records(rows), np.full((1, width), bound), np.full((1, width), -bound)])[-rows:]
    assert np.array_equal(one.scores(Z), one.exact(Z))


def test_extreme_values_do_not_touch_one_another() -> None:
    one = linear()
    bound, width = one.program.public.encoder.bound, one.program.public.encoder.width
    corners = np.array(list(itertools.product([-bound, bound], repeat=width)))
    assert np.array_equal(one.scores(corners), one.exact(corners))


@pytest.mark.parametrize("role", ["same", "split"])
def test_tables_are_linear_in_ones_and_zeros(role: str) -> None:
    one = Linear(programs.histogram(3), role)
    Z = one.records(20)
    assert np.array_equal(one.scores(Z), one.exact(Z))


def test_what_does_not_fit_is_refused_with_a_remedy() -> None:
    build = ProgramBuilder(programs.encoder(2, limit=4.0, fraction_bits=8))
    build.affine([(np.ones((1, 2)), build.input)], fraction_bits=20)
    terms = build.finish(tolerance=1.0, honest_extraction_rows=3, squared_norm=1.0).public
    assert make_plan(terms, "same").error_bound > 0
    for public, role, words in (
        (terms, "split", "role same"),
        (programs.forest(70, 6).public, "same", "4,096"),
        (programs.small_quadratic().public, "same", "degree"),
        (programs.with_relu().public, "same", "operations"),
    ):
        with pytest.raises(FixProgramError) as caught:
            make_plan(public, role)
        assert words in caught.value.remedy


@pytest.mark.parametrize(
    ("field", "value"), [("key_bits", 2048), ("features", 0), ("features", 5000), ("rows_per_chunk", 95), ("unit", 0.0)]
)
def test_a_plan_that_is_none_cannot_be_made(field: str, value: object) -> None:
    plain = {**vars(linear().plan), field: value}
    plain.pop("digest", None)
    with pytest.raises(FixInputError):
        LinearPlan(**plain)


# --- what answers tell --------------------------------------------------------------------------------------------


def test_without_what_is_added_above_one_answer_reads_every_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    """Features side by side in one plaintext: the trap works; with the service's random number it reads a slot."""
    one = linear()
    weights, _ = blind._weights(one.program)
    apart = 64
    request = one.crafted([1 << apart * (k + 1) for k in range(len(weights))])
    wanted = sum(weight << apart * (k + 1) for k, weight in enumerate(weights))
    monkeypatch.setattr(blind.secrets, "randbelow", lambda below: 0 if below != one.key.n else 5)
    found = one.decrypted(request) - wanted
    assert 0 <= found < 1 << one.plan.slot_bits, "the trap is none"
    monkeypatch.undo()
    answers = [one.decrypted(request) for _ in range(16)]
    low = {answer % (1 << one.plan.slot_bits) for answer in answers}
    assert low == {found}  # the constant: all that one metered row tells
    shares = [answer / one.key.n for answer in answers]
    assert len(set(answers)) == 16
    assert abs(np.mean(shares) - 0.5) < 0.36  # 5 standard deviations; without the number all are near 0


@pytest.mark.parametrize("rows", [1, 5])
def test_what_is_above_the_metered_rows_is_random(rows: int) -> None:
    """A crafted plaintext near n wraps or not; beyond that, an answer's high part says nothing of it (alpha 1e-6)."""
    one = linear()
    weights, constant = blind._weights(one.program)
    slots = one.plan.slot_bits * rows
    chosen = [secrets.randbelow(one.key.n) for _ in weights]
    each = sum((constant + one.plan.lift) << one.plan.slot_bits * row for row in range(rows))
    plaintext = (sum(w * m for w, m in zip(weights, chosen, strict=True)) + each) % one.key.n
    answers = [one.decrypted(one.crafted(chosen, rows)) for _ in range(24)]
    both = {plaintext % (1 << slots), (plaintext - one.key.n) % (1 << slots)}
    assert {answer % (1 << slots) for answer in answers} <= both
    assert abs(np.mean([answer / one.key.n for answer in answers]) - 0.5) < 0.3


def test_an_answer_is_masked_afresh() -> None:
    """One request, two answers, of which one finds a mask waiting: neither is the other."""
    one = linear()
    request = one.encryptor.encrypt(one.records(2))
    one.held.refill()
    first, again = (
        int(messages.unpack(one.plan, one.evaluator.evaluate(request, one.held), "answer")[2][0]) for _ in range(2)
    )
    assert first % one.key.n != again % one.key.n
    assert one.held.held_bytes == 0


def test_a_modulus_made_to_unmask_answers_is_refused_and_would_do_it() -> None:
    """n = p q with p | q - 1: the weighted sum's coset shows through any n-th power."""
    one = Linear(programs.histogram(3))
    weights, _ = blind._weights(one.program)
    p, q = related_primes()
    n = p * q
    g = next(g for g in range(2, 99) if pow(g, (q - 1) // p, q) != 1)
    unit = (1 + p * p * ((g - 1) * pow(p * p, -1, q * q) % (q * q))) % n**2
    request = messages.pack(one.plan, 1, "00" * 32, [pow(unit, 1 << 10 * at, n**2) for at in range(3)] + [1] * 15)
    held = EvaluationKey(one.plan.digest, "00" * 32, n)
    answer = int(messages.unpack(one.plan, one.evaluator.evaluate(request, held), "answer")[2][0])
    root = pow(g, (q - 1) // p, q)
    told = pow(answer, (q - 1) // p, q)
    wanted = sum(weight << 10 * at for at, weight in enumerate(weights[:3]))
    assert told == pow(root, wanted, q), "the trap is none"  # and small weights are found from it by search
    content = b"".join(number.to_bytes(384, "little") for number in (n, *moduli.challenges(one.plan.digest, n)))
    file = messages.KEY_FILES.write(
        "public", one.plan.digest, messages.KEY_FILES.key_id(one.plan.digest, content), content
    )
    with pytest.raises(RejectMessageError, match="not shown to hide"):
        blind.read_evaluation_key(one.plan, file)
    with pytest.raises(FixInputError, match="not shown to hide"):
        owner.public_key_from_bytes(one.plan, file)


def test_the_weighted_sum_takes_as_many_products_whatever_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of numbers of full size: no bucket begins as a one, and zeros are multiplied up like others."""
    one = linear()
    counts = set()
    for weights in ([0, 0, 0, 0], [1, -1, 1, -1], [(1 << one.plan.weight_bits) - 1] * 4):
        evaluator = blind.Evaluator(one.plan, weights, 0)
        request = one.crafted([3, 5, 7, 11])
        made = _Counted.made = 0
        ciphertexts = [_Counted(c) for c in messages.unpack(one.plan, request, "request")[2]]
        _, added = evaluator._multiplied(ciphertexts, gmpy2.mpz(one.key.n))
        assert added > 0
        counts.add(_Counted.made - made)
    assert len(counts) == 1


class _Counted:
    """A ciphertext that counts what is multiplied by it."""

    made = 0

    def __init__(self, value: Any) -> None:
        self.value = value

    def __rmul__(self, other: Any) -> Any:
        _Counted.made += 1
        assert other.bit_length() > 6000, "a product with a number that is not of full size"
        return other * self.value


# --- bad input ----------------------------------------------------------------------------------------------------


def test_requests_and_answers_that_do_not_fit_are_refused() -> None:
    one = linear()
    request = one.encryptor.encrypt(one.records(2))
    n = one.key.n
    for outside in (0, n, n * n, n * n + 1, one.key.p * 5):
        ciphertexts = [*messages.unpack(one.plan, request, "request")[2][1:], outside]
        with pytest.raises(RejectMessageError, match="outside Z"):
            one.evaluator.evaluate(messages.pack(one.plan, 2, one.secret.key_id, ciphertexts), one.held)
        with pytest.raises(RejectMessageError, match="outside Z"):
            one.decryptor.decrypt(messages.pack(one.plan, 2, one.secret.key_id, [outside]), 2)
    with pytest.raises(RejectMessageError, match="another number of rows"):
        one.evaluator.evaluate(request, one.held, rows=3)
    for rows in (0, one.plan.rows_per_chunk + 1):
        with pytest.raises(RejectMessageError, match="rows"):
            one.evaluator.evaluate(struct.pack("<I", rows) + request[4:], one.held)
    with pytest.raises(RejectMessageError, match="no public key"):
        one.evaluator.evaluate(request)
    with pytest.raises(UseOtherKeyError):
        one.decryptor.decrypt(messages.pack(one.plan, 2, "00" * 32, [5]), 2)


def test_keys_that_do_not_fit_are_refused() -> None:
    one = linear()
    content = one.public._content
    small = ((1 << 2047) + 5).to_bytes(384, "little") + content[384:]
    for changed, words in (
        (small, "3072 bits"),
        (content[:384] + content[768:] + content[384:768], "not shown to hide"),
        (content[:-1], "length"),
    ):
        file = messages.KEY_FILES.write(
            "public", one.plan.digest, messages.KEY_FILES.key_id(one.plan.digest, changed), changed
        )
        with pytest.raises(RejectMessageError, match=words):
            blind.read_evaluation_key(one.plan, file)
        with pytest.raises(FixInputError, match=words):
            owner.public_key_from_bytes(one.plan, file)
    other = messages.KEY_FILES.write("secret", one.plan.digest, one.secret.key_id, bytes(384))
    with pytest.raises(FixInputError, match="cannot be read"):
        owner.secret_key_from_bytes(one.plan, other)
