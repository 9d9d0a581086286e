"""Shares: they join, one alone is uniform, and a model's are two files that only belong together."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats

from securead.checks import programs
from securead.errors import FixInputError, FixProgramError, RejectMessageError, UseOtherKeyError
from securead.program.program import Program
from securead.protocols.sharing import messages, owner, shares
from securead.protocols.sharing.plan import make_plan

ALPHA = 1e-6  # for each test, over randomness that is fresh in every run


def uniform(words: np.ndarray) -> bool:
    """Whether the bytes of words may be uniform: chi-square at each of the eight places."""
    content = np.ascontiguousarray(words).view(np.uint8).reshape(-1, 8)
    counts = [np.bincount(column, minlength=256) for column in content.T]
    return min(stats.chisquare(count).pvalue for count in counts) > ALPHA / 8


@given(arrays.arrays(np.int64, st.integers(0, 50)))
def test_shares_join(words: np.ndarray) -> None:
    payload, seed = shares.split(words)
    assert len(seed) == 32
    assert (shares.join(np.frombuffer(payload, "<i8"), shares.stream(seed, len(words))) == words).all()


@given(st.lists(st.integers(-(2**200), 2**200), max_size=20))
def test_integers_of_any_size_are_reduced(integers: list[int]) -> None:
    reduced = shares.ring(np.array(integers, dtype=object))
    assert reduced.dtype == np.int64
    assert all((int(a) - b) % 2**64 == 0 for a, b in zip(reduced, integers, strict=True))


def test_the_stream_is_aes_256_in_counter_mode() -> None:
    """The first blocks of AES-256 under the key of FIPS 197, appendix C.3, on counters 0 and 1."""
    key = bytes(range(32))
    expected = b"".join(
        Cipher(algorithms.AES(key), modes.ECB()).encryptor().update(at.to_bytes(16, "big")) for at in (0, 1)
    )
    assert shares.stream(key, 4).astype("<i8").tobytes() == expected
    assert shares.stream(key, 4).tolist()[0] == int.from_bytes(bytes.fromhex("f29000b62a499fd0"), "little", signed=True)
    words = shares.Words(key)
    assert np.concatenate([words.draw((1,)), words.draw((2, 1)).ravel(), words.draw((0,))]).tolist() == (
        shares.stream(key, 3).tolist()
    )
    with pytest.raises(FixInputError):
        shares.Words(b"short")


def test_a_generator_does_not_survive_a_fork() -> None:
    words = shares.Words(bytes(32))
    words.draw((1,))
    child = os.fork()
    if child == 0:
        try:
            words.draw((1,))
        except RuntimeError:
            os._exit(7)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 7


def test_one_share_is_uniform() -> None:
    payload, seed = shares.split(np.zeros(1 << 16, dtype=np.int64))
    assert uniform(np.frombuffer(payload, "<i8"))
    assert uniform(shares.stream(seed, 1 << 16))
    assert not uniform(np.arange(1 << 16))
    assert shares.split(np.zeros(4, dtype=np.int64))[1] != seed


@pytest.mark.parametrize("make", [programs.with_truncation, programs.small_tables, programs.relu_network])
def test_a_model_is_two_files(make: object, tmp_path: Path) -> None:
    program: Program = make()  # type: ignore[operator]
    pair = shares.split_model(program, 1.5, verdicts_only=True)
    for share in pair:
        path = tmp_path / f"party{share.index}.model"
        share.write(path)
        assert path.stat().st_mode & 0o777 == 0o600
        again = shares.ModelShare.read(path)
        assert again.digest == share.digest
        assert (again.index, again.split, again.public, again.verdicts_only) == (
            share.index,
            share.split,
            program.public,
            True,
        )
    assert pair[0].split == pair[1].split != shares.split_model(program, 1.5)[0].split
    joined = {name: part + pair[1].parts[name] for name, part in pair[0].parts.items()}
    assert (
        joined["threshold"].tolist()
        == shares.ring(np.array([shares.threshold_integer(program.public, 1.5)], dtype=object)).tolist()
    )
    if "tables" in joined:
        assert (joined["tables"][:, 0] == np.concatenate(program.secret.tables)).all()
    else:
        for at, weights in program.secret.weights.items():
            assert (joined[f"offset {at}"] == shares.ring(weights.offset)).all()
            assert (joined[f"matrix {at}"] == shares.ring(np.concatenate([m.T for m in weights.matrices]))).all()


def test_a_model_that_sharing_does_not_carry_is_not_split() -> None:
    with pytest.raises(FixProgramError, match="ring_bits"):
        shares.split_model(programs.autoencoder(), 1.0)


def test_a_sealed_share_needs_its_passphrase(tmp_path: Path) -> None:
    share, _ = shares.split_model(programs.with_relu(), 1.0)
    share.write(tmp_path / "sealed", passphrase="correct horse")
    assert shares.ModelShare.read(tmp_path / "sealed", passphrase="correct horse").digest == share.digest
    with pytest.raises(UseOtherKeyError):
        shares.ModelShare.read(tmp_path / "sealed", passphrase="wrong")


def test_damaged_files_are_refused(tmp_path: Path) -> None:
    share, _ = shares.split_model(programs.with_relu(), 1.0)
    path = tmp_path / "share"
    share.write(path)
    content = path.read_bytes()
    start = content.index(b"{")
    header = content[start : start + int.from_bytes(content[start - 8 : start], "little")]
    forged = json.dumps({**json.loads(header), "index": 2}).encode()
    swapped = content[: start - 8] + len(forged).to_bytes(8, "little") + forged + content[start + len(header) :]
    deep = content[: start - 8] + (1 << 16).to_bytes(8, "little") + b"[" * (1 << 16)
    cases = (b"", b"anything", content[:-1], content[:-8], content + bytes(8), content[:40], swapped, deep)
    for damaged in cases:
        path.write_bytes(damaged)
        with pytest.raises(FixInputError):
            shares.ModelShare.read(path)
    path.write_bytes(content)
    path.chmod(0o644)
    with pytest.raises(FixInputError, match="chmod 600"):
        shares.ModelShare.read(path)


@pytest.mark.parametrize("make", [programs.small_quadratic, programs.histogram])
def test_the_threshold_is_on_the_scores_grid(make: object) -> None:
    public = make().public  # type: ignore[operator]
    for integer in (0, 1, 77, (1 << public.score_bits) - 1):
        exact = float(public.decode(np.array([integer], dtype=object))[0])
        assert shares.threshold_integer(public, exact) == integer
        assert shares.threshold_integer(public, np.nextafter(exact, -np.inf)) == integer - 1
    bound = 1 << public.score_bits
    assert shares.threshold_integer(public, 1e300) == bound
    assert shares.threshold_integer(public, -1e300) == -bound - 1
    with pytest.raises(FixInputError):
        shares.threshold_integer(public, float("nan"))


@pytest.mark.parametrize("make", [programs.small_quadratic, programs.with_truncation, programs.small_tables])
def test_requests_hold_what_the_oracle_needs(make: object) -> None:
    program: Program = make()  # type: ignore[operator]
    public = program.public
    plan = make_plan(public, "same")
    Z = np.random.default_rng(0).integers(-public.encoder.bound, public.encoder.bound, (5, public.encoder.width))
    payloads = owner.split_queries(plan, owner.words_of(plan, public, Z))
    assert [len(p) for p in payloads] == [plan.request_bytes(5), 32]
    words = sum(owner.read_queries(plan, index, payloads[index], 5) for index in (0, 1))
    if plan.sizes:
        assert (words.sum(axis=1) == len(plan.sizes)).all()
        assert (words @ np.concatenate(program.secret.tables) == program.evaluate(Z)).all()
    else:
        assert (words[:, : Z.shape[1]] == Z).all()
        assert words[:, Z.shape[1] :].ravel().tolist() == (
            public.public_term(Z).tolist() if public.public_terms else []
        )
    for index, payload in ((0, payloads[0][:-1]), (0, payloads[1]), (1, payloads[0]), (1, b"")):
        with pytest.raises(RejectMessageError):
            owner.read_queries(plan, index, payload, 5)


def test_a_payload_tells_nothing_of_the_records() -> None:
    plan = make_plan(programs.with_relu().public, "same")
    payload, seed = owner.split_queries(plan, np.full((8192, 4), 5))
    assert uniform(owner.read_queries(plan, 0, payload, 8192))
    assert uniform(owner.read_queries(plan, 1, seed, 8192))


def test_a_hash_of_the_others_payload_tells_nothing_of_the_records() -> None:
    """Headers name both payloads' hashes to both parties: party 1, who knows its share, must not try records on one."""
    program = programs.small_quadratic()
    plan = make_plan(program.public, "same")
    words = owner.words_of(plan, program.public, np.array([[1, 2, 3, 4]]))
    payloads = [owner.split_queries(plan, words) for _ in range(2)]
    for payload, seed in payloads:
        derived = (words.ravel() - shares.stream(seed, plan.input_width)).astype("<i8").tobytes()
        assert messages.hash_of(derived) != messages.hash_of(payload)
        assert payload[32:] == derived  # so all that party 1 lacks is the salt
    assert payloads[0][0][:32] != payloads[1][0][:32]


def test_answers_are_checked() -> None:
    program = programs.with_relu()
    plan = make_plan(program.public, "same")
    left, right = np.array([5, -(2**63), 2**62]), np.array([-6, 3, 1])
    scores = owner.join_scores(plan, left.tobytes(), right.tobytes(), 3)
    assert owner.in_range(plan, scores).tolist() == [True, False, False]
    with pytest.raises(RejectMessageError):
        owner.join_scores(plan, left.tobytes(), right.tobytes()[:-8], 3)
    assert owner.join_verdicts(plan, left.tobytes(), (left ^ [1, 0, 1]).tobytes(), 3).tolist() == [True, False, True]
    with pytest.raises(RejectMessageError, match="do not belong together"):
        owner.join_verdicts(plan, left.tobytes(), right.tobytes(), 3)
    with pytest.raises(FixInputError):
        owner.words_of(plan, programs.with_relu().public, np.zeros((1, 4), dtype=np.int64))
