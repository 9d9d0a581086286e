"""What a curious owner and a malicious service can learn from blind lookups; and the traps, each shown to work.

Statistical tests state their alpha. Their randomness is the operating system's, as the library's is.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence

import gmpy2
import numpy as np
import pytest
from lookup_setting import (
    Lookup,
    ciphertext_of,
    lookup,
    packed,
    queries,
    quickly_published,
    related_primes,
    served,
    service_key,
    submitter,
)

from securead.checks import programs
from securead.errors import RejectMessageError
from securead.protocols.paillier import messages, moduli, owner, published
from securead.protocols.paillier.messages import Request
from securead.protocols.paillier.plan import make_plan
from securead.protocols.paillier.published import Published

SAMPLES = 64  # of a fair coin: outside 12 to 52 heads once in 5 million times
FAIR = range(12, 53)


# --- tables against a curious owner -------------------------------------------------------------------------------


def test_the_whole_decryption_would_read_3200_entries_in_9_queries_and_its_low_bits_do_not() -> None:
    """50 trees of 64 leaves, 8 bits each. With the whole decryption: 9 queries. With what is returned: w bits a row."""
    program = programs.forest(50, 6)
    plan, key = make_plan(program.public, "same"), service_key()
    line, width = np.concatenate(program.secret.tables).tolist(), program.public.largest.bit_length()
    tables = quickly_published(plan, key, line)
    together = (plan.key_bits - 1) // width
    asked = [
        packed(tables, range(start, min(start + together, len(line))), width) for start in range(0, len(line), together)
    ]
    assert len(asked) == 9
    whole = [key.decrypt(int(ciphertext)) for ciphertext in asked]
    read = [value >> width * at & (1 << width) - 1 for value in whole for at in range(together)]
    assert read[: len(line)] == line, "the trap is none"

    service = served(plan, key)
    for rows in (1, 7):
        bits = rows * plan.score_bits
        for ciphertext, value in zip(asked, whole, strict=True):
            request = Request(rows, bytes(32), bytes(32), bytes(32), int(ciphertext)).to_bytes(plan)
            answer = service.evaluate(request, rows=rows)
            assert len(answer) == plan.answer_bytes(rows)
            assert messages.read_answer(plan, answer).low == value % (1 << bits)
    # Nine rows give nine times the bits of a score; the table has two hundred times as many.
    assert 9 * plan.score_bits < len(line) * width / 200
    assert plan.crafted_rows == -(-len(line) * width // plan.score_bits) > 1800


@pytest.mark.parametrize("rows", [1, 3, 200])
def test_an_answer_has_no_bit_beyond_its_rows_scores(rows: int) -> None:
    """Whatever a query packs above, the answer is the same, to the byte: a metered row yields a score's bits."""
    one = lookup()
    n, square, bits = one.key.n, one.key.n**2, rows * one.plan.score_bits
    low = secrets.randbits(bits)
    answers = set()
    for high in (0, 1, secrets.randbits(3071 - bits), (n - 1 - low) >> bits):
        plaintext = low + (high << bits)
        assert plaintext < n
        ciphertext = (1 + plaintext * n) * one.key.nth_power(one.key.random()) % square
        answers.add(one.evaluator.evaluate(one.crafted(ciphertext, rows)))
    assert len(answers) == 1
    assert one.low_bits(ciphertext, rows) == low
    assert len(answers.pop()) - 68 == -(-bits // 8)


def test_an_answer_to_an_honest_query_tells_its_owner_the_score_alone() -> None:
    """It is computed from the owner's own blind and the scores, so whoever knows these knows it, without any key."""
    one = lookup()
    positions = one.queries(5)
    request = one.encryptor.encrypt(positions)
    salt = messages.read_request(one.plan, request).salt
    width, integers = one.plan.score_bits, (one.exact(positions) / one.plan.unit).astype(int).tolist()
    scores = sum(score << width * row for row, score in enumerate(integers))
    simulated = (owner._blind(one.plan, one.secret, salt) + scores) % (1 << 5 * width)
    assert messages.read_answer(one.plan, one.evaluator.evaluate(request)).low == simulated


# --- records against a malicious service --------------------------------------------------------------------------


def told_apart(one: Lookup) -> tuple[np.ndarray, np.ndarray]:
    """Two positions whose products of entries have different Jacobi symbols modulo both factors of n."""
    rng = np.random.default_rng(1)
    wanted = symbols(one, [int(product_of(one, first := one.queries(1)))])[0]
    while True:
        other = rng.integers(0, one.plan.sizes, (1, len(one.plan.sizes)))
        found = symbols(one, [int(product_of(one, other))])[0]
        if found[0] != wanted[0] and found[1] != wanted[1]:
            return first, other


def product_of(one: Lookup, positions: np.ndarray) -> int:
    starts = np.cumsum(one.plan.sizes) - one.plan.sizes
    product = gmpy2.mpz(1)
    for place in (positions[0] + starts).tolist():
        product = product * one.tables.entries[place] % one.tables.square
    return int(product)


def symbols(one: Lookup, ciphertexts: Sequence[int]) -> np.ndarray:
    """Jacobi symbols modulo p, q and n, which who knows the factors computes of whatever is sent."""
    moduli = (one.key.p, one.key.q, one.key.n)
    return np.array([[gmpy2.jacobi(gmpy2.mpz(c), gmpy2.mpz(m)) for m in moduli] for c in ciphertexts])


def sent(one: Lookup, positions: np.ndarray, count: int = SAMPLES) -> list[int]:
    one.encryptor.prepare(count)
    return [ciphertext_of(one.plan, one.encryptor.encrypt(positions)) for _ in range(count)]


def test_a_selection_leaves_no_trace_in_a_query() -> None:
    """Jacobi symbols of queries are fair coins whichever entries they hold, and plaintexts are uniform (alpha 1e-6)."""
    one = lookup()
    for positions in told_apart(one):
        ciphertexts = sent(one, positions)
        for symbol in symbols(one, ciphertexts).T:
            assert (symbol == 1).sum() in FAIR
        plaintexts = [one.key.decrypt(c) for c in ciphertexts]
        shares = [plaintext / one.key.n for plaintext in plaintexts]
        assert abs(np.mean(shares) - 0.5) < 0.18  # 5 standard deviations
        assert len(set(ciphertexts)) == SAMPLES
        low = [plaintext >> bit & 1 for plaintext in plaintexts for bit in range(one.plan.score_bits)]
        assert abs(np.mean(low) - 0.5) < 5 * 0.5 / np.sqrt(len(low))


def test_the_same_test_finds_short_exponents_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Damgård, Jurik and Nielsen's h**(n a), h = -y**2: quicker, and what is looked up shows in every single query."""
    one = lookup()
    n, square = one.key.n, one.key.n**2
    h = pow(-pow(one.key.random(), 2, n), 1, n)
    base = gmpy2.powmod(h, n, square)
    monkeypatch.setattr(one.tables.factors, "take", lambda: gmpy2.powmod(base, 2 * secrets.randbits(400), square))
    first, other = (symbols(one, sent_now(one, positions))[:, :2] for positions in told_apart(one))
    assert (first == first[0]).all()
    assert (other == other[0]).all()
    assert (first[0] != other[0]).all()


def sent_now(one: Lookup, positions: np.ndarray) -> list[int]:
    return [ciphertext_of(one.plan, one.encryptor.encrypt(positions)) for _ in range(SAMPLES)]


def test_a_modulus_made_to_read_selections_is_refused_and_would_read_them() -> None:
    """n = p q with p | q - 1: entries in cosets of the p-th powers keep their names through any blinding."""
    program = programs.forest(1, 2, entry_bits=4)
    plan = make_plan(program.public, "same")
    p, q = related_primes()
    n = p * q
    assert n.bit_length() == plan.key_bits
    # A unit modulo n**2 that is 1 modulo p**2 and a generator's power modulo q**2, so no p-th power there.
    g = next(g for g in range(2, 99) if pow(g, (q - 1) // p, q) != 1)
    unit = (1 + p * p * ((g - 1) * pow(p * p, -1, q * q) % (q * q))) % n**2
    entries = [pow(unit, k + 1, n**2) for k in range(plan.entries)]
    names = {pow(g, (k + 1) * (q - 1) // p, q): k for k in range(plan.entries)}
    assert len(names) == plan.entries
    encryptor = submitter(plan, Published(bytes(32), n, [gmpy2.mpz(c) for c in entries]))
    for k in range(plan.entries):
        ciphertext = ciphertext_of(plan, encryptor.encrypt(np.array([[k]])))
        assert names[pow(ciphertext, (q - 1) // p, q)] == k, "the trap is none"
    # An owner that reads what this service publishes refuses it: nobody can show roots that do not exist.
    size = plan.residue_bytes
    numbers = [n, *moduli.challenges(plan.digest, n)]
    content = messages.SETUP_MAGIC + bytes.fromhex(plan.digest)
    content += b"".join(number.to_bytes(size, "little") for number in numbers)
    content += b"".join(c.to_bytes(2 * size, "little") for c in entries)
    assert len(content) == plan.setup_bytes
    with pytest.raises(RejectMessageError, match="not shown to hide"):
        published.read(plan, content)


@pytest.mark.parametrize(
    "poison", [lambda n, w: 1 << w, lambda n, w: n - 1, lambda n, w: n >> 1, lambda n, w: secrets.randbelow(n)]
)
def test_poisoned_entries_make_wrong_scores_and_no_failure(poison: Callable[[int, int], int]) -> None:
    """An entry out of range would tell who meets it if that failed: no step of the owner can."""
    program = programs.forest(2, 2, entry_bits=4)
    plan, key = make_plan(program.public, "same"), service_key()
    values = [1] * plan.entries
    values[2] = poison(key.n, plan.score_bits)
    encryptor, service = submitter(plan, quickly_published(plan, key, values)), served(plan, key)
    decryptor = owner.make_decryptor(plan, encryptor._key)
    for rows in (1, 5, plan.rows_per_chunk):
        for positions in (np.full((rows, 2), 2), np.zeros((rows, 2), dtype=np.int64), queries(plan, rows)):
            answer = service.evaluate(encryptor.encrypt(positions), rows=rows)
            scores = decryptor.decrypt(answer, rows)
            assert (0 <= scores).all()
            assert (scores < (1 << plan.score_bits) * plan.unit).all()


def test_whatever_an_answer_holds_opens_to_scores() -> None:
    """No content of the right form is an error: there is nothing for an owner to report."""
    one = lookup()
    rows, width = 9, one.plan.score_bits
    request = one.encryptor.encrypt(one.queries(rows))
    head = one.evaluator.evaluate(request)[:68]
    size = one.plan.answer_bytes(rows) - 68
    for low in (0, (1 << rows * width) - 1, *(secrets.randbits(rows * width) for _ in range(50))):
        scores = one.decryptor.decrypt(head + low.to_bytes(size, "little"), rows)
        assert scores.shape == (rows,)
        assert (0 <= scores).all()
        assert (scores < (1 << width) * one.plan.unit).all()
    other_salt = head[:36] + secrets.token_bytes(32) + head[68:]
    assert one.decryptor.decrypt(other_salt + bytes(size), rows).shape == (rows,)


def test_two_requests_of_the_same_records_share_nothing() -> None:
    one = lookup()
    first, again = (messages.read_request(one.plan, one.encryptor.encrypt(one.queries(3))) for _ in range(2))
    assert first.salt != again.salt
    assert one.key.decrypt(first.ciphertext) != one.key.decrypt(again.ciphertext)
    ratio = first.ciphertext * pow(again.ciphertext, -1, one.key.n**2)
    assert gmpy2.powmod(ratio, (one.key.p - 1) * (one.key.q - 1), one.key.n) == 1
    assert ratio % one.key.n != 1  # the factors differ, too
