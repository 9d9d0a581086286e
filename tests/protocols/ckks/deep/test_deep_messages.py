"""Hostile and mistaken input: payloads, residues beyond their primes, keys."""

from __future__ import annotations

import contextlib
import struct
from functools import cache
from typing import Any

import numpy as np
import pytest
from deep_setting import ROLES, records, small
from hypothesis import given, settings
from hypothesis import strategies as st

from securead.errors import FixInputError, RejectMessageError, UseOtherKeyError
from securead.protocols.ckks.deep import blind, messages, owner
from securead.protocols.ckks.deep.circuit import Circuit
from securead.protocols.ckks.deep.plan import PREAMBLE_BYTES, SEED_BYTES
from securead.protocols.ckks.deep.sanitise import DeepKey
from securead.protocols.engine import Role
from securead.protocols.seal import packing


def exchange(role: Role = "same") -> tuple[bytes, bytes]:
    return _exchange(role)


@cache
def _exchange(role: Role) -> tuple[bytes, bytes]:
    party = small(role)
    request = party.encryptor.encrypt(records(party.program, 2))
    return request, party.evaluator.evaluate(request, party.key)


def refused(payload: bytes, role: Role = "same") -> str:
    party = small(role)
    with pytest.raises(RejectMessageError) as caught:
        party.evaluator.evaluate(payload, party.key)
    return str(caught.value)


def changed(payload: bytes, data: st.DataObject) -> bytes:
    """One to three changes of a payload: bits, length, the preamble, large words."""
    content = bytearray(payload)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, max(0, len(content) - 1)))
        match data.draw(st.sampled_from(["flip", "cut", "grow", "ones", "head"])):
            case "flip":
                content[at : at + 1] = bytes([data.draw(st.integers(0, 255))])
            case "cut":
                del content[max(at, 1) :]
            case "grow":
                content += data.draw(st.binary(min_size=1, max_size=64))
            case "ones":
                content[at : at + 16] = b"\xff" * len(content[at : at + 16])
            case _:
                content[:4] = data.draw(st.sampled_from([b"\0\0\0\0", b"\1\0\0\0", b"\xff\xff\xff\xff"]))
    return bytes(content)


@settings(max_examples=10, deadline=None)
@given(data=st.data())
def test_changed_messages_never_crash(data: st.DataObject) -> None:
    """Any change is refused, or is another well-formed message; nothing else is ever raised."""
    party = small()
    request, answer = exchange()
    with contextlib.suppress(RejectMessageError):
        assert len(party.evaluator.evaluate(changed(request, data), party.key)) == party.plan.max_answer_bytes
    with contextlib.suppress(RejectMessageError, UseOtherKeyError):
        assert party.decryptor.decrypt(changed(answer, data), 2).shape == (2,)


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=300))
def test_noise_is_refused(noise: bytes) -> None:
    party = small()
    refused(noise)
    with pytest.raises(RejectMessageError):
        party.decryptor.decrypt(noise, 1)
    with pytest.raises(RejectMessageError):
        blind.read_evaluation_key(party.plan, noise)


@pytest.mark.parametrize("role", ROLES)
def test_payloads_of_other_lengths_rows_and_keys_are_refused(role: Role) -> None:
    request, answer = exchange(role)
    party = small(role)
    for bad in (b"", request[:-1], request + b"\0", answer, exchange("split" if role == "same" else "same")[0]):
        assert "length" in refused(bad, role)
    for rows in (0, party.plan.rows_per_chunk + 1, 2**32 - 1):
        assert "rows" in refused(struct.pack("<I", rows) + request[4:], role)
    assert "public key" in refused(request[:4] + bytes(32) + request[36:], role)
    with pytest.raises(RejectMessageError, match="public key"):
        party.evaluator.evaluate(request)
    with pytest.raises(RejectMessageError, match="number of rows"):
        party.evaluator.evaluate(request, party.key, rows=3)


@pytest.mark.parametrize("role", ROLES)
def test_residues_at_or_above_their_prime_are_refused_before_any_work(
    role: Role, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the first and last polynomial and modulo every prime, the prime itself and the largest packed number."""
    plan, request = small(role).plan, exchange(role)[0]
    monkeypatch.setattr(Circuit, "score", lambda *_: pytest.fail("evaluated a bad request"))
    monkeypatch.setattr(DeepKey, "mask", lambda *_: pytest.fail("masked a bad request"))
    n, polynomial = plan.ring_dimension, packing.residue_bytes(plan.ring_dimension, plan.data_primes)
    for start in (PREAMBLE_BYTES + (SEED_BYTES if role == "same" else 0), len(request) - polynomial):
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


def test_keys_with_residues_beyond_their_prime_are_refused() -> None:
    """In the public key itself and in every digit of its relinearisation key; under a name that fits."""
    party = small()
    plan, n = party.plan, party.plan.ring_dimension
    content, polynomial = party.public._content, packing.residue_bytes(n, plan.chain)
    assert len(content) == polynomial * (1 + len(plan.data_primes))
    for number in range(plan.key_polynomials):
        bad = bytearray(content)
        bad[number * polynomial : number * polynomial + 16] = b"\xff" * 16
        name = messages.KEY_FILES.key_id(plan.digest, bytes(bad))
        forged = messages.KEY_FILES.write("public", plan.digest, name, bytes(bad))
        with pytest.raises(RejectMessageError, match="below its prime"):
            blind.read_evaluation_key(plan, forged)
        with pytest.raises(FixInputError):
            owner.public_key_from_bytes(plan, forged)


def test_a_public_key_with_halves_of_its_own_cannot_be_expressed() -> None:
    """Its content is first polynomials alone; halves are the plan's, uniform, and no two of them are alike."""
    party = small()
    plan = party.plan
    halves = messages.uniform_halves(plan)
    assert halves.shape == (plan.key_polynomials, len(plan.chain), plan.ring_dimension)
    assert len({row.tobytes() for half in halves for row in half[:, :64]}) == halves.shape[0] * halves.shape[1]
    for half in halves:
        for row, prime in zip(half, plan.chain, strict=True):
            assert row.max() < prime
    counts, _ = np.histogram(halves[1, 0], bins=16, range=(0, plan.chain[0]))
    assert ((counts - 1024) ** 2).sum() / 1024 < 66.3
    assert not (messages.uniform_halves(small(seed=1).plan)[:9, :9, :8] == halves[:9, :9, :8]).any()
    longer = party.public._content + halves[0].tobytes()
    forged = messages.KEY_FILES.write("public", plan.digest, messages.KEY_FILES.key_id(plan.digest, longer), longer)
    with pytest.raises(RejectMessageError):
        blind.read_evaluation_key(plan, forged)


def test_a_key_relinearises_and_no_other_does() -> None:
    """With another owner's relinearisation key an answer is noise, which its key holder notices with certainty."""
    party = small()
    _, stranger = owner.generate_keys(party.plan)
    foreign = blind.read_evaluation_key(party.plan, stranger.to_bytes())
    crossed = blind.read_evaluation_key(party.plan, party.public.to_bytes())
    crossed.digits = foreign.digits
    with pytest.raises(UseOtherKeyError, match="another key"):
        party.decryptor.decrypt(party.evaluator.evaluate(exchange()[0], crossed), 2)


@pytest.mark.parametrize("role", ROLES)
def test_a_wrong_key_is_noticed_with_certainty(role: Role) -> None:
    """By its name; and, where a service lies about the name, by scores beyond the program's range."""
    party, answer = small(role), exchange(role)[1]
    other, _ = owner.generate_keys(party.plan)
    for content in (answer, answer[:4] + bytes.fromhex(other.key_id) + answer[36:]):
        with pytest.raises(UseOtherKeyError, match="another key"):
            owner.make_decryptor(party.plan, other).decrypt(content, 2)


def test_answers_to_other_numbers_of_rows_are_refused() -> None:
    party, answer = small(), exchange()[1]
    with pytest.raises(RejectMessageError, match="rows"):
        party.decryptor.decrypt(answer, 1)
    for rows in (0, -1, 1 << 20):
        with pytest.raises(FixInputError):
            party.decryptor.decrypt(answer, rows)
    bad = bytearray(answer)
    bad[PREAMBLE_BYTES : PREAMBLE_BYTES + 16] = b"\xff" * 16
    with pytest.raises(RejectMessageError):
        party.decryptor.decrypt(bytes(bad), 2)


def test_keys_of_another_model_role_or_kind_and_damaged_ones_are_refused() -> None:
    one, foreign, split = small(), small(seed=1), small("split")
    attempts: list[Any] = [
        lambda: owner.secret_key_from_bytes(foreign.plan, one.secret.to_bytes()),
        lambda: owner.public_key_from_bytes(split.plan, one.public.to_bytes()),
        lambda: owner.secret_key_from_bytes(one.plan, one.public.to_bytes()),
        lambda: owner.public_key_from_bytes(one.plan, one.secret.to_bytes()),
        lambda: owner.make_encryptor(one.plan, foreign.secret),
        lambda: owner.make_encryptor(one.plan, one.public),
        lambda: owner.make_decryptor(one.plan, foreign.secret),
    ]
    for attempt in attempts:
        with pytest.raises(UseOtherKeyError):
            attempt()
    for content, read in (
        (one.secret.to_bytes(), owner.secret_key_from_bytes),
        (one.public.to_bytes(), owner.public_key_from_bytes),
    ):
        flipped = bytearray(content)
        flipped[-5] ^= 1
        for bad in (b"", content[:50], content[:-1], content + b"\0", bytes(flipped)):
            with pytest.raises(FixInputError):
                read(one.plan, bad)
    assert "_content" not in repr(one.secret) + repr(one.public)


def test_queries_that_are_none_are_refused() -> None:
    party = small()
    good = records(party.program, 4)
    for bad in (good[:0], good[:, :1], good.astype(float), good[0], good * 1000):
        with pytest.raises(FixInputError):
            party.encryptor.encrypt(bad)
