"""Circuits between two processes against the oracle, consumption against the plan, and what leaves a party."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from scipy import stats
from two_parties import TwoParties, answers, run, two_parties

from securead.checks import programs
from securead.program.program import Program
from securead.program.truncation import worst_error
from securead.protocols.sharing import dealing, owner, shares
from securead.protocols.sharing.correlations import BinaryTriple, MatrixTriple, SquarePair, Triple, sign_correlations
from securead.protocols.sharing.plan import make_plan

EXACT = (
    programs.small_quadratic,
    programs.with_relu,
    programs.ring_mahalanobis,
    programs.small_tables,
    programs.forest,
    programs.histogram,
)
TRUNCATING = (programs.with_truncation, programs.relu_network, programs.square_network)


@pytest.fixture(scope="module")
def parties() -> Iterator[TwoParties]:
    with two_parties() as both:
        yield both


def records(program: Program, rows: int) -> np.ndarray:
    """Encoded records, extremes first."""
    bound, width = program.public.encoder.bound, program.public.encoder.width
    rng = np.random.default_rng(rows)
    Z = rng.integers(-bound, bound, size=(rows, width), endpoint=True)
    Z[: min(rows, 4)] = rng.choice([-bound, bound], size=(min(rows, 4), width))
    return Z


@pytest.mark.parametrize("make", EXACT, ids=lambda make: make.__name__)
def test_scores_without_truncation_are_exact(parties: TwoParties, make: Any) -> None:
    program = make()
    chunks = [records(program, rows) for rows in (1, 2, 3, 64, 300)]
    for Z, scores in zip(chunks, answers(parties, program, chunks), strict=True):
        assert scores.tolist() == program.evaluate(Z).tolist()


@pytest.mark.parametrize("make", TRUNCATING, ids=lambda make: make.__name__)
def test_scores_with_truncations_lie_within_the_bound(parties: TwoParties, make: Any) -> None:
    program = make()
    Z = records(program, 700)
    errors = np.abs((run(parties, program, Z) - program.evaluate(Z)).astype(float))
    assert errors.max() <= worst_error(program.public.steps)
    # The bound is for the worst of all weights; what is typical is far below.
    typical = float(np.median(program.public.decode(program.evaluate(Z))))
    assert np.median(errors) / 2.0**program.public.score_fraction_bits <= 1e-3 * typical


@pytest.mark.parametrize("make", [programs.small_quadratic, programs.with_relu, programs.histogram])
def test_verdicts_are_the_oracles(parties: TwoParties, make: Any) -> None:
    program = make()
    Z = records(program, 129)
    scores = program.public.decode(program.evaluate(Z))
    for threshold in (float(np.median(scores)), float(scores.max()), float(scores.min()) - 1.0):
        verdicts = run(parties, program, Z, threshold=threshold, verdict=True)
        assert (verdicts == (scores > threshold)).all()


def raw_verdicts(
    rank: int, communicator: Any, stock: Any, plan: Any, model: Any, key: Any, dealt: Any, share: Any
) -> Any:
    from securead.protocols.sharing.circuit import Circuit

    stock.load(plan.correlations(len(share), True), key, dealt)
    return Circuit(plan, model, stock).verdict(share)


def test_scores_out_of_range_count_as_anomalies(parties: TwoParties) -> None:
    """A score that no record has, as after a truncation that failed: the last column carries it in."""
    program = programs.small_quadratic()
    plan, public = make_plan(program.public, "same"), program.public
    lowest, highest = plan.lowest_score, plan.highest_score
    Z = np.zeros((9, 4), dtype=np.int64)
    wanted = np.array([0, lowest, highest, lowest - 1, highest + 1, 2**62, -(2**62), 2**63 - 1, -(2**63)], dtype=object)
    terms = shares.ring(wanted - (program.evaluate(Z) - public.public_term(Z)))
    words = np.column_stack([Z, terms])
    left = shares.stream(os.urandom(32), words.size).reshape(words.shape)
    models, keys = shares.split_model(program, 1e300), (os.urandom(32), os.urandom(32))
    dealt = dealing.deal(plan.correlations(9, True), *keys)
    both = parties.run(
        raw_verdicts, ((plan, models[0], keys[0], dealt, left), (plan, models[1], keys[1], None, words - left))
    )
    assert owner.join_verdicts(plan, both[0].tobytes(), both[1].tobytes(), 9).tolist() == [False] * 3 + [True] * 6


def test_made_up_words_turn_verdicts_into_a_score_and_the_threshold(parties: TwoParties) -> None:
    """What SPEC.md says of a client that deviates: it moves the score by its public term, and searches both ends."""
    program, asked = programs.small_quadratic(), 0
    plan, public = make_plan(program.public, "same"), program.public
    Z = np.array([[5, -40, 17, 3]])
    models = shares.split_model(program, 0.125, verdicts_only=True)

    def last(low: int, high: int, verdict: bool) -> int:
        """The last public term with this verdict; `low` has it, `high` has the other."""
        nonlocal asked
        while high - low > 1:
            step = max(1, (high - low) // 1024)
            tried = list(range(low, high, step))
            words = np.column_stack([np.repeat(Z, len(tried), axis=0), shares.ring(np.array(tried, dtype=object))])
            left, keys = (
                shares.stream(os.urandom(32), words.size).reshape(words.shape),
                (os.urandom(32), os.urandom(32)),
            )
            dealt = dealing.deal(plan.correlations(len(tried), True), *keys)
            both = parties.run(
                raw_verdicts, ((plan, models[0], keys[0], dealt, left), (plan, models[1], keys[1], None, words - left))
            )
            found = owner.join_verdicts(plan, both[0].tobytes(), both[1].tobytes(), len(tried))
            low = tried[np.flatnonzero(found == verdict)[-1]]
            high, asked = min(low + step, high), asked + 1
        return low

    lowest, room = plan.lowest_score, 1 << (public.score_bits - 1)
    base = lowest - (last(lowest - room, lowest + room, True) + 1)
    assert base + int(public.public_term(Z)[0]) == int(program.evaluate(Z)[0])
    assert base + last(-base, plan.highest_score + 1 - base, False) == shares.threshold_integer(public, 0.125)
    assert asked <= 10


def signs(rank: int, communicator: Any, stock: Any, share: Any, key: Any, dealt: Any) -> Any:
    from securead.protocols.sharing.signs import sign_bits

    stock.load(sign_correlations(share.size), key, dealt)
    bits = sign_bits(share, rank)
    stock.finish()
    return bits


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 4099])
def test_signs_of_all_words(parties: TwoParties, count: int) -> None:
    rng = np.random.default_rng(count)
    words = rng.integers(-(2**63), 2**63 - 1, count, endpoint=True) >> rng.integers(0, 64, count)
    edges = [0, -1, 1, -(2**63), 2**63 - 1, 2**62, -(2**62)]
    words[: len(edges)] = edges[:count]
    left = shares.stream(os.urandom(32), count)
    keys = os.urandom(32), os.urandom(32)
    dealt = dealing.deal(sign_correlations(count), *keys)
    both = parties.run(signs, ((left, keys[0], dealt), (words - left, keys[1], None)))
    assert ((both[0] ^ both[1]) == (words < 0)).all()
    assert max(both[0].max(), both[1].max()) <= 1


def truncated(rank: int, communicator: Any, stock: Any, share: Any, shift: int) -> Any:
    import torch

    from securead.protocols.sharing.circuit import truncate

    return truncate(torch.from_numpy(share.copy()), shift).numpy()


@pytest.mark.parametrize(("bits", "shift"), [(40, 14), (56, 20), (57, 3)])
def test_truncation_is_off_by_a_unit_or_fails_as_often_as_stated(parties: TwoParties, bits: int, shift: int) -> None:
    """Failures of a million values of 2**bits each: between the quantiles of their distribution, alpha 1e-6."""
    count = 1 << 20
    values = np.random.default_rng(bits).choice([-1, 1], count) * ((1 << bits) - np.arange(count) % 1000)
    left = shares.stream(os.urandom(32), count)
    both = parties.run(truncated, ((left, shift), (values - left, shift)))
    error = both[0] + both[1] - (values >> shift)
    failed = np.abs(error) > 1
    # A wrapped sum is off by 2**(64 - shift); this is half of the stated probability, equal signs the other half.
    rate = 2.0 ** (bits - 64)
    assert failed.sum() <= stats.binom.isf(1e-6, count, 2 * rate)
    assert failed.sum() >= stats.binom.ppf(1e-6, count, 0.9 * rate)
    wrapped = np.abs(error.astype(float)) > 2
    assert np.abs(np.abs(error[wrapped].astype(float)) - 2.0 ** (64 - shift)).max(initial=0) <= 4
    assert set(np.unique(error[~failed])) <= {-1, 0, 1}


def one_answer(rank: int, communicator: Any, stock: Any, plan: Any, model: Any, verdict: bool, sent: Any) -> Any:
    from securead.protocols.sharing.circuit import Circuit

    circuit, words = Circuit(plan, model, stock), []
    for payload, rows, key, dealt in sent:
        stock.load(plan.correlations(rows, verdict), key, dealt)
        share = owner.read_queries(plan, rank, payload, rows)
        words.append((circuit.verdict if verdict else circuit.score)(share))
    opened = np.frombuffer(b"".join(communicator.transcript), dtype="<i8")
    return np.concatenate(words), opened


@pytest.mark.parametrize("verdict", [False, True])
def test_what_leaves_a_party_is_uniform(parties: TwoParties, verdict: bool) -> None:
    """One share of constant answers; and everything that a party sees of the other, for constant records."""
    program = programs.small_quadratic()
    plan = make_plan(program.public, "same")
    models = shares.split_model(program, 0.0)
    sent: tuple[list[Any], list[Any]] = ([], [])
    for _ in range(4):
        payloads = owner.split_queries(plan, np.full((8192, plan.input_width), 3))
        keys = os.urandom(32), os.urandom(32)
        dealt = dealing.deal(plan.correlations(8192, verdict), *keys)
        for rank in (0, 1):
            sent[rank].append((payloads[rank], 8192, keys[rank], None if rank else dealt))
    both = parties.run(one_answer, tuple((plan, models[rank], verdict, sent[rank]) for rank in (0, 1)))
    for words, opened in both:
        for sample in (words, opened):
            counts = [np.bincount(c, minlength=256) for c in sample.view(np.uint8).reshape(-1, 8).T]
            assert min(stats.chisquare(count).pvalue for count in counts) > 1e-6 / 16
    joined = both[0][0] ^ both[1][0] if verdict else both[0][0] + both[1][0]
    assert len(np.unique(joined)) == 1


def test_what_a_relu_opens_is_uniform(parties: TwoParties) -> None:
    """Words that are masked, but for the signs' bytes, of which only the lowest bit is set: half of them."""
    program = programs.with_relu()
    plan = make_plan(program.public, "same")
    models, keys = shares.split_model(program, 0.0), (os.urandom(32), os.urandom(32))
    payloads = owner.split_queries(plan, np.full((8192, 4), -3))
    dealt = dealing.deal(plan.correlations(8192, False), *keys)
    sent = [[(payloads[rank], 8192, keys[rank], None if rank else dealt)] for rank in (0, 1)]
    both = parties.run(one_answer, tuple((plan, models[rank], False, sent[rank]) for rank in (0, 1)))
    start = sum(each.opened for each in plan.correlations(8192, False)[:9])
    elements = 8192 * 4
    for _, opened in both:
        signs = opened[start - elements // 8 : start].view(np.uint8)
        assert set(np.unique(signs)) == {0, 1}
        assert stats.binomtest(int(signs.sum()), elements).pvalue > 1e-6
        masked = np.concatenate([opened[: start - elements // 8], opened[start:]])
        counts = [np.bincount(c, minlength=256) for c in masked.view(np.uint8).reshape(-1, 8).T]
        assert min(stats.chisquare(count).pvalue for count in counts) > 1e-6 / 16


def stolen(rank: int, communicator: Any, stock: Any, plan: Any, key: Any, dealt: Any) -> list[str]:
    """What a stock says to requests that are not the plan's, by the errors' names."""
    from securead.protocols.sharing.dealing import DesynchronisedError

    correlations, found = plan.correlations(1, False), []

    def attempt(what: Any) -> None:
        try:
            what()
            found.append("nothing")
        except DesynchronisedError:
            found.append("desynchronised")

    attempt(lambda: stock.square((1, 3)))
    stock.load(correlations, key, dealt)
    attempt(lambda: stock.load(correlations, key, dealt))
    attempt(lambda: stock.square((1, 3)))
    attempt(lambda: stock.generate_additive_triple((2, 4), (4, 3), "matmul"))
    attempt(lambda: stock.generate_additive_triple((1, 4), (4, 3), "conv1d"))
    attempt(lambda: stock.wrap_rng((1,)))
    attempt(lambda: stock.B2A_rng((1,)))
    attempt(stock.finish)
    for each in correlations:
        stock.take(each)
    stock.finish()
    attempt(lambda: stock.take(correlations[-1]))
    attempt(lambda: stock.load(correlations, key, None if rank == 0 else b""))
    return found


def test_a_stock_gives_each_correlation_once_and_no_other(parties: TwoParties) -> None:
    plan = make_plan(programs.small_quadratic().public, "same")
    keys = os.urandom(32), os.urandom(32)
    dealt = dealing.deal(plan.correlations(1, False), *keys)
    for found in parties.run(stolen, ((plan, keys[0], dealt), (plan, keys[1], None))):
        assert found == ["desynchronised"] * 10


def test_corrections_of_another_length_are_refused() -> None:
    from securead.errors import RejectMessageError

    plan = make_plan(programs.small_quadratic().public, "same")
    dealt = dealing.deal(plan.correlations(1, False), bytes(32), bytes(32))
    assert len(dealing.read_corrections(plan.correlations(1, False), dealt)) * 8 == len(dealt)
    with pytest.raises(RejectMessageError):
        dealing.read_corrections(plan.correlations(2, False), dealt)


def test_each_set_has_a_key_of_its_own() -> None:
    made = {
        dealing.set_key(seed, number, rows, verdict)
        for seed in (bytes(32), b"\1" * 32)
        for number in (0, 1, 2**40)
        for rows in (1, 2)
        for verdict in (False, True)
    }
    assert len(made) == 24
    assert {len(key) for key in made} == {32}


def test_corrections_complete_every_kind_of_correlation() -> None:
    wanted = (
        MatrixTriple((3, 4), (4, 2)),
        Triple((3, 4), (3, 4)),
        SquarePair((5,)),
        BinaryTriple((6,), (2, 6)),
        *make_plan(programs.with_relu().public, "same").correlations(2, True),
    )
    keys = bytes(32), b"\1" * 32
    corrections = dealing.read_corrections(wanted, dealing.deal(wanted, *keys))
    words, at = [shares.Words(key) for key in keys], 0
    for each in wanted:
        mine, theirs = ([w.draw(shape) for shape in each.factors] for w in words)
        other = words[1].draw(each.result)
        own = corrections[at : at + other.size].reshape(each.result)
        at += other.size
        if isinstance(each, BinaryTriple):
            assert ((own ^ other) == (mine[0] ^ theirs[0]) & (mine[1] ^ theirs[1])).all()
            continue
        factors = [a + b for a, b in zip(mine, theirs, strict=True)]
        if isinstance(each, MatrixTriple):
            expected = factors[0] @ factors[1]
        elif isinstance(each, Triple):
            expected = factors[0] * factors[1]
        elif isinstance(each, SquarePair):
            expected = factors[0] * factors[0]
        else:
            bits = dealing.secret_bits(mine[1] ^ theirs[1], each.shape)
            expected = np.stack([bits, bits * factors[0]])
        assert (own + other == expected).all()
    assert at == len(corrections)
