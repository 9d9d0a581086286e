"""Hostile and mistaken input: payloads, residues beyond their primes, keys."""

from __future__ import annotations

import contextlib
import struct
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from securead.checks import programs
from securead.errors import FixInputError, RejectMessageError, UseOtherKeyError
from securead.program.program import Program
from securead.protocols.ckks import blind, messages, owner
from securead.protocols.ckks.circuit import Circuit
from securead.protocols.ckks.plan import PREAMBLE_BYTES, SEED_BYTES, CkksPlan, make_plan
from securead.protocols.seal import packing
from securead.protocols.seal.publickeys import EvaluationKey

Setting = tuple[Program, CkksPlan, owner.SecretKey, owner.PublicKey]


def setting(role: str = "same", seed: int = 0) -> Setting:
    return made(role, seed)


@cache
def made(role: str, seed: int) -> Setting:
    program = programs.small_quadratic(seed=seed)
    plan = make_plan(program.public, role)
    return program, plan, *owner.generate_keys(plan)


@cache
def service(role: str = "same", seed: int = 0) -> tuple[blind.Evaluator, blind.EvaluationKey]:
    program, plan, _, public = setting(role, seed)
    return blind.make_evaluator(plan, program), blind.read_evaluation_key(plan, public.to_bytes())


@cache
def exchange(role: str = "same") -> tuple[bytes, bytes]:
    _, plan, secret, public = setting(role)
    request = owner.make_encryptor(plan, secret if role == "same" else public).encrypt(np.ones((2, 4), dtype=np.int64))
    evaluator, key = service(role)
    return request, evaluator.evaluate(request, key)


def refused(payload: bytes, role: str = "same") -> str:
    evaluator, key = service(role)
    with pytest.raises(RejectMessageError) as caught:
        evaluator.evaluate(payload, key)
    return str(caught.value)


def changed(payload: bytes, data: st.DataObject) -> bytes:
    """One to three changes of a payload: bits, the preamble, length, a splice of large words."""
    content = bytearray(payload)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, max(0, len(content) - 1)))
        match data.draw(st.sampled_from(["flip", "head", "cut", "grow", "ones", "splice"])):
            case "flip":
                content[at : at + 1] = bytes([data.draw(st.integers(0, 255))])
            case "head":
                content[data.draw(st.integers(0, PREAMBLE_BYTES - 1)) :][:1] = b"\0"
                content[:4] = data.draw(st.sampled_from([content[:4], b"\0\0\0\0", b"\1\0\0\0", b"\xff\xff\xff\xff"]))
            case "cut":
                del content[max(at, 1) :]
            case "grow":
                content += data.draw(st.binary(min_size=1, max_size=64))
            case "ones":
                content[at : at + 16] = b"\xff" * len(content[at : at + 16])
            case _:
                content[at : at + 8] = data.draw(st.binary(min_size=8, max_size=8))
    return bytes(content)


@pytest.mark.parametrize("role", ["same", "split"])
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_changed_requests_never_crash(role: str, data: st.DataObject) -> None:
    """Any change is refused, or is another well-formed request; nothing else is ever raised."""
    evaluator, key = service(role)
    with contextlib.suppress(RejectMessageError):
        assert len(evaluator.evaluate(changed(exchange(role)[0], data), key)) == setting(role)[1].max_answer_bytes


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_changed_answers_never_crash(data: st.DataObject) -> None:
    _, plan, secret, _ = setting()
    with contextlib.suppress(RejectMessageError, UseOtherKeyError):
        assert owner.make_decryptor(plan, secret).decrypt(changed(exchange()[1], data), 2).shape == (2,)


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=300))
def test_noise_is_refused(noise: bytes) -> None:
    refused(noise)
    _, plan, secret, _ = setting()
    with pytest.raises(RejectMessageError):
        owner.make_decryptor(plan, secret).decrypt(noise, 1)


@pytest.mark.parametrize("role", ["same", "split"])
def test_payloads_of_other_lengths_rows_and_keys_are_refused(role: str) -> None:
    request, answer = exchange(role)
    for bad in (b"", request[:-1], request + b"\0", answer, exchange("split" if role == "same" else "same")[0]):
        assert "length" in refused(bad, role)
    for rows in (0, setting(role)[1].rows_per_chunk + 1, 2**32 - 1):
        assert "rows" in refused(struct.pack("<I", rows) + request[4:], role)
    assert "public key" in refused(request[:4] + bytes(32) + request[36:], role)
    evaluator, _ = service(role)
    with pytest.raises(RejectMessageError, match="public key"):
        evaluator.evaluate(request)
    with pytest.raises(RejectMessageError, match="number of rows"):
        evaluator.evaluate(request, service(role)[1], rows=3)
    assert evaluator.evaluate(request, service(role)[1], rows=2)


@pytest.mark.parametrize("role", ["same", "split"])
def test_residues_at_or_above_their_prime_are_refused_before_any_work(
    role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the first and last polynomial and modulo every prime, the prime itself and the largest packed number."""
    _, plan, *_ = setting(role)
    monkeypatch.setattr(Circuit, "block", lambda *_: pytest.fail("evaluated a bad request"))
    monkeypatch.setattr(EvaluationKey, "mask", lambda *_: pytest.fail("masked a bad request"))
    request, n = exchange(role)[0], plan.ring_dimension
    polynomial = packing.residue_bytes(n, plan.data_primes)
    starts = {
        "same": (PREAMBLE_BYTES + SEED_BYTES, len(request) - polynomial),
        "split": (PREAMBLE_BYTES, PREAMBLE_BYTES + polynomial, len(request) - polynomial),
    }
    for start in starts[role]:
        at = start
        for prime in plan.data_primes:
            size = packing.packed_bytes(n, prime.bit_length())
            words = packing.unpack(request[at : at + size], n, prime.bit_length())
            for place, value in ((0, prime), (n - 1, (1 << prime.bit_length()) - 1)):
                bad = words.copy()
                bad[place] = value
                content = packing.pack(bad, prime.bit_length())
                assert "below its prime" in refused(request[:at] + content + request[at + size :], role)
            at += size


def test_answers_with_residues_beyond_their_prime_are_refused() -> None:
    _, plan, secret, _ = setting()
    answer = bytearray(exchange()[1])
    answer[PREAMBLE_BYTES : PREAMBLE_BYTES + 16] = b"\xff" * 16
    with pytest.raises(RejectMessageError):
        owner.make_decryptor(plan, secret).decrypt(bytes(answer), 2)
    with pytest.raises(RejectMessageError, match="rows"):
        owner.make_decryptor(plan, secret).decrypt(exchange()[1], 1)


@pytest.mark.parametrize("role", ["same", "split"])
def test_a_wrong_key_is_noticed_with_certainty(role: str) -> None:
    """By its name; and, where a service lies about the name, by scores beyond the program's range."""
    _, plan, *_ = setting(role)
    answer = exchange(role)[1]
    for _ in range(3):
        other, _ = owner.generate_keys(plan)
        renamed = answer[:4] + bytes.fromhex(other.key_id) + answer[36:]
        for content in (answer, renamed):
            with pytest.raises(UseOtherKeyError, match="another key") as caught:
                owner.make_decryptor(plan, other).decrypt(content, 2)
            assert caught.value.remedy


def test_a_public_key_with_a_half_of_its_own_cannot_be_expressed() -> None:
    """Its content is b alone; every owner of a plan has the plan's `a`, and other plans have others."""
    _, plan, _, public = setting()
    assert len(public._content) == packing.residue_bytes(plan.ring_dimension, plan.chain)
    half = messages.uniform_half(plan)
    for row, prime in zip(half, plan.chain, strict=True):
        assert row.max() < prime
        counts, _ = np.histogram(row, bins=16, range=(0, prime))
        assert ((counts - 512) ** 2).sum() / 512 < 66.3
    assert not (messages.uniform_half(setting(seed=1)[1])[:, :8] == half[:, :8]).any()
    for longer in (public._content * 2, public._content + half.tobytes()):
        forged = messages.KEY_FILES.write("public", plan.digest, messages.KEY_FILES.key_id(plan.digest, longer), longer)
        with pytest.raises(RejectMessageError):
            blind.read_evaluation_key(plan, forged)


def test_keys_of_another_model_role_or_kind_are_refused() -> None:
    _, plan, secret, public = setting()
    _, foreign_plan, foreign, _ = setting(seed=1)
    _, split_plan, *_ = setting("split")
    attempts: list[Any] = [
        lambda: owner.secret_key_from_bytes(foreign_plan, secret.to_bytes()),
        lambda: owner.public_key_from_bytes(split_plan, public.to_bytes()),
        lambda: owner.secret_key_from_bytes(plan, public.to_bytes()),
        lambda: owner.public_key_from_bytes(plan, secret.to_bytes()),
        lambda: owner.make_encryptor(plan, foreign),
        lambda: owner.make_encryptor(plan, public),
        lambda: owner.make_decryptor(plan, foreign),
        lambda: owner.make_decryptor(plan, public),  # type: ignore[arg-type]
    ]
    for attempt in attempts:
        with pytest.raises(UseOtherKeyError):
            attempt()


def test_damaged_keys_are_refused() -> None:
    _, plan, secret, public = setting()
    for content, read in (
        (secret.to_bytes(), owner.secret_key_from_bytes),
        (public.to_bytes(), owner.public_key_from_bytes),
    ):
        flipped = bytearray(content)
        flipped[-5] ^= 1
        for bad in (b"", content[:50], content[:-1], content + b"\0", bytes(flipped), b"x" * len(content)):
            with pytest.raises(FixInputError):
                read(plan, bad)


def test_a_public_key_cannot_take_anothers_name() -> None:
    _, plan, secret, _ = setting("split")
    _, other = owner.generate_keys(plan)
    forged = owner.PublicKey(plan.digest, secret.key_id, other._content)
    with pytest.raises(FixInputError, match="name"):
        owner.public_key_from_bytes(plan, forged.to_bytes())


def test_keys_do_not_print_themselves() -> None:
    _, _, secret, public = setting()
    assert "_content" not in repr(secret)
    assert "_content" not in repr(public)


@pytest.mark.parametrize("rows", [0, -1, 1 << 20])
def test_an_absurd_number_of_rows_is_refused(rows: int) -> None:
    _, plan, secret, _ = setting()
    with pytest.raises(FixInputError):
        owner.make_decryptor(plan, secret).decrypt(exchange()[1], rows)
