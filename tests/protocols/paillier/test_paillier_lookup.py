"""Blind lookups: exact scores, vectors, bad input, factors that serve once, and the same without gmpy2."""

from __future__ import annotations

import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lookup_setting import lookup, name_of, queries, quickly_published, scores_of, served, service_key, submitter

from securead.checks import programs
from securead.errors import FixInputError, FixProgramError, RejectMessageError, UseOtherKeyError
from securead.protocols.paillier import blind, keys, messages, moduli, owner, published
from securead.protocols.paillier.plan import PaillierPlan, make_plan, plan_from_plain
from securead.protocols.paillier.powers import nth_roots, powers

VECTORS = json.loads((Path(__file__).parents[3] / "protocols/paillier/vectors.json").read_text())


@pytest.mark.parametrize("rows", [1, 2, 17])
def test_scores_equal_the_oracle(rows: int) -> None:
    one = lookup()
    positions = one.queries(rows, rows)
    answer = one.evaluator.evaluate(one.encryptor.encrypt(positions), rows=rows)
    assert np.array_equal(one.decryptor.decrypt(answer, rows), one.exact(positions))


@settings(max_examples=8, deadline=None)
@given(st.data())
def test_scores_equal_the_oracle_whatever_the_program(data: st.DataObject) -> None:
    """Tables of any sizes, entries of any width, and as many rows as share a plaintext."""
    trees, depth = data.draw(st.integers(1, 12)), data.draw(st.integers(1, 5))
    program = programs.forest(
        trees, depth, entry_bits=data.draw(st.integers(1, 20)), seed=data.draw(st.integers(0, 99))
    )
    plan, key = make_plan(program.public, "same"), service_key()
    rows = data.draw(st.sampled_from([1, 2, plan.rows_per_chunk]))
    line = np.concatenate(program.secret.tables).tolist()
    encryptor = submitter(plan, quickly_published(plan, key, line))
    positions = queries(plan, rows)
    answer = served(plan, key).evaluate(encryptor.encrypt(positions), rows=rows)
    decryptor = owner.make_decryptor(plan, encryptor._key)
    assert np.array_equal(decryptor.decrypt(answer, rows), scores_of(program, positions))


def test_the_largest_scores_do_not_touch_one_another() -> None:
    """Rows whose scores are all ones and all zeros in turn, a full chunk of them."""
    program = programs.forest(3, 2, entry_bits=8)
    plan, key = make_plan(program.public, "same"), service_key()
    highest, rows = (1 << plan.score_bits) - 1, plan.rows_per_chunk
    values = [0] * plan.entries
    values[3] = highest
    encryptor = submitter(plan, quickly_published(plan, key, values))
    positions = np.zeros((rows, 3), dtype=np.int64)
    positions[::2, 0] = 3
    answer = served(plan, key).evaluate(encryptor.encrypt(positions), rows=rows)
    scores = owner.make_decryptor(plan, encryptor._key).decrypt(answer, rows)
    assert np.array_equal(scores, np.where(np.arange(rows) % 2, 0.0, highest * plan.unit))


def test_vectors_of_an_exchange() -> None:
    """What the library reads, answers and opens is what it did when the vectors were made."""
    told = VECTORS["exchange"]
    plan = plan_from_plain(VECTORS["programs"][0]["plans"][0])
    content = bytes.fromhex(told["published"])
    tables = published.read(plan, content)
    assert tables.name.hex() == told["published_digest"]
    assert hex(moduli.challenges(plan.digest, int(tables.n))[0]) == told["first_challenge"]
    evaluator = blind.Evaluator(plan, *messages.secret_from_bytes(plan, bytes.fromhex(told["service_secret"])))
    answer = evaluator.evaluate(bytes.fromhex(told["request"]), rows=told["rows"])
    assert answer.hex() == told["answer"]
    secret = owner.secret_key_from_bytes(plan, bytes.fromhex(told["secret_key"]))
    assert secret.key_id == told["key_id"]
    assert owner.make_decryptor(plan, secret).decrypt(answer, told["rows"]).tolist() == told["scores"]


def test_roots_and_powers_are_phe_s() -> None:
    key = service_key()
    values = [key.random() for _ in range(3)]
    assert powers(nth_roots(key, values), key.n, key.n) == values
    assert powers(values, key.n, key.n**2) == key.nth_powers(values)


@pytest.mark.parametrize(("bits", "rows"), [(1, 1024), (8, 367), (14, 210), (40, 73)], ids=lambda value: str(value))
def test_rows_leave_room_to_hide(bits: int, rows: int) -> None:
    program = programs.small_tables()
    plain = {**vars(make_plan(program.public, "same")), "score_bits": bits, "rows_per_chunk": rows}
    plain.pop("digest", None)
    assert PaillierPlan(**plain).packed_bits + 129 <= 3071
    if rows < 1024:
        with pytest.raises(FixInputError, match="rows share"):
            PaillierPlan(**plain | {"rows_per_chunk": rows + 1})


@pytest.mark.parametrize(
    ("field", "value"),
    [("key_bits", 2048), ("key_bits", 4096), ("role", "split"), ("sizes", ()), ("unit", 0.0), ("score_bits", 41)],
)
def test_a_plan_that_is_none_cannot_be_made(field: str, value: object) -> None:
    plain = {**vars(lookup().plan), field: value}
    plain.pop("digest", None)
    with pytest.raises(FixInputError):
        PaillierPlan(**plain)


def test_role_split_is_refused_with_a_remedy() -> None:
    with pytest.raises(FixProgramError, match="bfv"):
        make_plan(programs.small_tables().public, "split")


@pytest.mark.parametrize("what", ["zero", "n", "a factor", "square", "beyond the square"])
def test_a_ciphertext_outside_the_group_is_refused(what: str) -> None:
    one = lookup()
    n = one.key.n
    values = {"zero": 0, "n": n, "a factor": one.key.p * 12345, "square": n * n, "beyond the square": n * n + 1}
    with pytest.raises(RejectMessageError, match="outside Z"):
        one.evaluator.evaluate(one.crafted(values[what]))


def test_requests_that_do_not_fit_are_refused() -> None:
    one = lookup()
    request = one.encryptor.encrypt(one.queries(3))
    with pytest.raises(RejectMessageError, match="another number of rows"):
        one.evaluator.evaluate(request, rows=2)
    named = request[:36] + bytes(32) + request[68:]
    with pytest.raises(UseOtherKeyError, match="other published tables"):
        one.evaluator.evaluate(named)
    for rows in (0, one.plan.rows_per_chunk + 1, 1 << 31):
        with pytest.raises(RejectMessageError, match="rows"):
            one.evaluator.evaluate(struct.pack("<I", rows) + request[4:])
    with pytest.raises(RejectMessageError, match="takes no key"):
        blind.read_evaluation_key(one.plan, one.public.to_bytes())


def test_publications_that_do_not_fit_are_refused() -> None:
    one = lookup()
    content, plan, at = one.setup.published, one.plan, 64
    size, half = plan.residue_bytes, plan.residue_bytes // 2

    def with_modulus(n: int) -> bytes:
        return content[:at] + n.to_bytes(size, "little") + content[at + size :]

    start = at + (1 + 10) * size
    other = make_plan(programs.small_tables(seed=1).public, "same")
    cases: list[tuple[bytes, type[Exception], str]] = [
        (content[:-1], RejectMessageError, "no published tables"),
        (content.replace(b"setup-1", b"setup-2"), RejectMessageError, "no published tables"),
        (with_modulus(one.key.p * ((1 << half * 8 - 500) | 1)), UseOtherKeyError, "3072 bits"),
        (with_modulus(one.key.n + 1), UseOtherKeyError, "two large primes"),
        (with_modulus(one.key.n + 2), Exception, "shown to hide|two large primes"),
        (content[: at + size] + bytes(size) + content[at + 2 * size :], RejectMessageError, "shown to hide"),
        (content[:start] + bytes(2 * size) + content[start + 2 * size :], RejectMessageError, "outside Z"),
        (content[: -2 * size] + one.key.n.to_bytes(2 * size, "little"), RejectMessageError, "outside Z"),
        (content[: -2 * size] + (one.key.n**2 + 1).to_bytes(2 * size, "little"), RejectMessageError, "outside Z"),
        (content[: -2 * size] + (one.key.p * 7).to_bytes(2 * size, "little"), RejectMessageError, "outside Z"),
    ]
    for changed, kind, words in cases:
        with pytest.raises(kind, match=words):
            owner.make_encryptor(plan, one.secret, changed)
    with pytest.raises(FixInputError, match="keygen"):
        owner.make_encryptor(plan, one.secret)
    secret, _ = owner.generate_keys(other)
    with pytest.raises(UseOtherKeyError, match="another program"):
        owner.make_encryptor(other, secret, content)


def test_a_key_of_another_size_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A service cannot take up a smaller key, nor one whose factors are of other sizes."""
    one = lookup()
    monkeypatch.setattr(keys, "KEY_BITS", 1024)
    small = keys.PrivateKey.generate()
    monkeypatch.undo()
    content = one.setup.secret[:96] + small.to_bytes().ljust(384, b"\0")
    with pytest.raises(UseOtherKeyError):
        blind.make_evaluator(one.plan, one.program, content)
    with pytest.raises(FixInputError, match="publish"):
        blind.make_evaluator(one.plan, one.program)
    foreign = one.setup.secret[:32] + bytes(32) + one.setup.secret[64:]
    with pytest.raises(UseOtherKeyError, match="another program"):
        blind.make_evaluator(one.plan, one.program, foreign)


def test_factors_are_made_ahead_and_serve_once() -> None:
    one = lookup()
    pool = one.tables.factors
    pool.refill(0)
    one.encryptor.prepare(3)
    assert len(pool._items) == 3
    waiting = set(pool._items)
    used = set()
    for _ in range(4):  # the last one finds none
        before = set(pool._items)
        one.encryptor.encrypt(one.queries(1))
        used |= before - set(pool._items)
    assert used == waiting
    assert not pool._items


def test_the_service_s_factor_is_changed_for_every_answer() -> None:
    """What is exponentiated is never what was sent, nor twice the same multiple of it."""
    one = lookup()
    evaluator = blind.make_evaluator(one.plan, one.program, one.setup.secret)
    seen: list[int] = []
    honest = evaluator._key.decrypt

    class Spy:
        n = evaluator._key.n
        nth_power = evaluator._key.nth_power

        def decrypt(self, ciphertext: int) -> int:
            seen.append(ciphertext)
            return honest(ciphertext)

    evaluator._key = evaluator._factor._key = Spy()  # type: ignore[assignment]
    request = one.encryptor.encrypt(one.queries(1))
    sent = messages.read_request(one.plan, request).ciphertext
    answers = {evaluator.evaluate(request) for _ in range(35)}
    assert len(answers) == 1
    assert len({*seen, sent}) == 36


def test_publishing_tells_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    program = programs.forest(2, 2, entry_bits=4)
    plan, told = make_plan(program.public, "same"), []
    monkeypatch.setattr(keys.PrivateKey, "generate", service_key)
    setup = blind.make_setup(plan, program, progress=lambda done, of: told.append((done, of)))
    assert told[-1] == (8, 8)
    assert len(setup.published) == plan.setup_bytes
    assert setup.digest == name_of(setup.published).hex()
    line = np.concatenate(program.secret.tables).tolist()
    assert [service_key().decrypt(int(c)) for c in published.read(plan, setup.published).entries] == line


def test_without_gmpy2_the_numbers_are_the_same(tmp_path: Path) -> None:
    script = (
        "import sys; sys.modules['gmpy2'] = None\n"
        "import json; from securead.protocols.paillier import blind, messages, owner, published\n"
        "from securead.protocols.paillier.plan import plan_from_plain\n"
        "v = json.load(open(sys.argv[1])); told = v['exchange']; plan = plan_from_plain(v['programs'][0]['plans'][0])\n"
        "take = lambda name: bytes.fromhex(told[name])\n"
        "evaluator = blind.Evaluator(plan, *messages.secret_from_bytes(plan, take('service_secret')))\n"
        "secret = owner.secret_key_from_bytes(plan, take('secret_key'))\n"
        "assert evaluator.evaluate(take('request')) == take('answer')\n"
        "request = owner.make_encryptor(plan, secret, take('published')).encrypt(__import__('numpy').array([[1, 1]]))\n"
        "scores = owner.make_decryptor(plan, secret).decrypt(evaluator.evaluate(request), 1)\n"
        "print(type(published.whole(1)).__name__, scores[0])"
    )
    path = Path(__file__).parents[3] / "protocols/paillier/vectors.json"
    run = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == ["int", "15.0"]
