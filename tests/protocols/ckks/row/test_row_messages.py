"""Hostile and mistaken input: payloads, residues, keys."""

from __future__ import annotations

import contextlib
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from row_setting import ROLES, in_coefficients, network, read, small

from securead.errors import FixInputError, RejectMessageError, UseOtherKeyError
from securead.protocols.ckks.row import blind, messages, owner
from securead.protocols.ckks.row.context import context_for
from securead.protocols.ckks.row.plan import PREAMBLE_BYTES
from securead.protocols.engine import Role
from securead.protocols.residues.transforms import transform_for
from securead.protocols.seal import objects, packing, publickeys


def request_of(role: Role = "same", rows: int = 2) -> bytes:
    setting = small(role)
    return setting.encryptor.encrypt(np.ones((rows, setting.plan.width), dtype=np.int64))


@settings(max_examples=100, deadline=None)
@given(st.data(), st.sampled_from(ROLES))
def test_changed_requests_never_crash(data: st.DataObject, role: Role) -> None:
    """Any change is refused, or is another well-formed request; nothing else is ever raised."""
    setting, request = small(role), bytearray(request_of(role))
    for _ in range(data.draw(st.integers(1, 3))):
        match data.draw(st.sampled_from(["flip", "flip head", "cut", "grow", "fill"])):
            case "flip":
                request[data.draw(st.integers(0, len(request) - 1))] ^= data.draw(st.integers(1, 255))
            case "flip head":
                request[data.draw(st.integers(0, min(100, len(request) - 1)))] ^= data.draw(st.integers(1, 255))
            case "cut":
                del request[data.draw(st.integers(1, len(request) - 1)) :]
            case "grow":
                request += data.draw(st.binary(min_size=1, max_size=64))
            case _:
                at = data.draw(st.integers(0, len(request) - 1))
                request[at:] = bytes([data.draw(st.integers(0, 255))]) * (len(request) - at)
        if len(request) < 2:
            break
    with contextlib.suppress(RejectMessageError):
        answer = setting.evaluator.evaluate(bytes(request), setting.key)
        assert len(answer) == setting.plan.answer_bytes(struct.unpack_from("<I", request)[0])


@pytest.mark.parametrize("role", ROLES)
def test_ciphertexts_are_read_as_seal_reads_them(role: Role) -> None:
    """Seeds expanded by SEAL, and by the service: the same residues, of all pieces."""
    setting = network(role)
    plan, context = setting.plan, context_for(setting.plan)
    request = setting.encryptor.encrypt(np.ones((13, plan.width), dtype=np.int64))
    at, size, seed_bytes = PREAMBLE_BYTES, plan.ciphertext_bytes, 64 if role == "same" else 0
    for found in read(setting, request):
        words = packing.unpack_residues(
            request[at + seed_bytes : at + size], 1 if seed_bytes else 2, plan.data_primes, plan.ring_dimension
        )
        loaded = objects.encrypted_from_residues(
            context, context.first_parms_id(), words, ntt=False, seed=request[at : at + seed_bytes]
        )
        assert (in_coefficients(setting, loaded) == found).all()
        at += size
    assert at == len(request)


@settings(max_examples=60)
@given(st.binary(max_size=300))
def test_noise_is_refused(noise: bytes) -> None:
    setting = small("same")
    with pytest.raises(RejectMessageError):
        setting.evaluator.evaluate(noise, setting.key)
    with pytest.raises(RejectMessageError):
        setting.decryptor.decrypt(noise, 1)
    with pytest.raises(RejectMessageError):
        blind.read_evaluation_key(setting.plan, noise)


@pytest.mark.parametrize("role", ROLES)
def test_residues_beyond_their_prime_are_refused(role: Role) -> None:
    setting, request = small(role), bytearray(request_of(role))
    start = PREAMBLE_BYTES + (64 if role == "same" else 0)
    request[start : start + 16] = b"\xff" * 16
    with pytest.raises(RejectMessageError, match="not below its prime"):
        setting.evaluator.evaluate(bytes(request), setting.key)
    answer = bytearray(setting.evaluator.evaluate(request_of(role), setting.key))
    answer[PREAMBLE_BYTES : PREAMBLE_BYTES + 16] = b"\xff" * 16
    with pytest.raises(RejectMessageError, match="SEAL refuses"):
        setting.decryptor.decrypt(bytes(answer), 2)


def test_unencrypted_queries_are_refused() -> None:
    setting, request = small("split"), bytearray(request_of("split"))
    half = setting.plan.ciphertext_bytes // 2
    request[PREAMBLE_BYTES + half : PREAMBLE_BYTES + 2 * half] = bytes(half)
    with pytest.raises(RejectMessageError, match="not encrypted"):
        setting.evaluator.evaluate(bytes(request), setting.key)


def test_an_unmasked_answer_is_refused() -> None:
    """c1 = 0 is no ciphertext: the scores would have travelled in the clear."""
    setting = small("same")
    answer = bytearray(setting.evaluator.evaluate(request_of(), setting.key))
    polynomial = packing.residue_bytes(setting.plan.ring_dimension, setting.plan.kept_primes)
    answer[PREAMBLE_BYTES : PREAMBLE_BYTES + polynomial] = bytes(polynomial)
    with pytest.raises(RejectMessageError, match="not encrypted"):
        setting.decryptor.decrypt(bytes(answer), 2)


def test_a_service_can_answer_again_after_a_bad_request(rng: np.random.Generator) -> None:
    setting = network("same")
    Z = setting.records(rng, 13)
    request = bytearray(setting.encryptor.encrypt(Z))
    request[-40:] = b"\xff" * 40  # the second group's last residues
    with pytest.raises(RejectMessageError):
        setting.evaluator.evaluate(bytes(request), setting.key)
    assert np.abs(setting.score(Z) - setting.exact(Z)).max() <= setting.plan.error_bound


def test_an_answer_to_other_rows_is_refused() -> None:
    setting = small("same")
    answer = setting.evaluator.evaluate(request_of(rows=2), setting.key)
    with pytest.raises(RejectMessageError, match="another number"):
        setting.decryptor.decrypt(answer, 3)
    for rows in (0, -1, 1 << 20):
        with pytest.raises(FixInputError):
            setting.decryptor.decrypt(answer, rows)


def test_more_rows_than_claimed_are_refused() -> None:
    """A service meters the rows that a message claims, so the payload must hold as many."""
    setting, request = small("same"), request_of("same", rows=3)
    assert setting.evaluator.evaluate(request, setting.key, rows=3)
    for claimed in (1, 2, 4):
        with pytest.raises(RejectMessageError, match="another number of rows"):
            setting.evaluator.evaluate(request, setting.key, rows=claimed)


def test_a_wrong_key_is_always_noticed() -> None:
    """By name, and under a false name by the range, but for scores that happen to fall into it."""
    setting = small("same")
    for _ in range(3):
        answer = setting.evaluator.evaluate(request_of(rows=32), setting.key)
        other, _ = owner.generate_keys(setting.plan)
        decryptor = owner.make_decryptor(setting.plan, other)
        with pytest.raises(UseOtherKeyError, match="another key") as caught:
            decryptor.decrypt(answer, 32)
        assert caught.value.remedy
        renamed_answer = messages.preamble(32, other.key_id) + answer[PREAMBLE_BYTES:]
        with pytest.raises(UseOtherKeyError, match="outside"):
            decryptor.decrypt(renamed_answer, 32)


def test_keys_of_another_model_role_or_kind_are_refused() -> None:
    setting, foreign, split = small("same"), small("same", 1), small("split")
    plan, secret, public = setting.plan, setting.secret, setting.public
    attempts: list[Any] = [
        lambda: owner.secret_key_from_bytes(foreign.plan, secret.to_bytes()),
        lambda: owner.public_key_from_bytes(split.plan, public.to_bytes()),
        lambda: owner.secret_key_from_bytes(plan, public.to_bytes()),
        lambda: owner.public_key_from_bytes(plan, secret.to_bytes()),
        lambda: owner.make_encryptor(plan, foreign.secret),
        lambda: owner.make_encryptor(plan, public),
        lambda: owner.make_decryptor(plan, foreign.secret),
        lambda: owner.make_decryptor(plan, public),  # type: ignore[arg-type]
    ]
    for attempt in attempts:
        with pytest.raises(UseOtherKeyError):
            attempt()


def test_damaged_keys_are_refused() -> None:
    setting = small("same")
    for content, parse in (
        (setting.secret.to_bytes(), owner.secret_key_from_bytes),
        (setting.public.to_bytes(), owner.public_key_from_bytes),
    ):
        assert len(content.split(b"\0")[0]) <= 24, "a kind that fits its field"
        flipped = bytearray(content)
        flipped[-5] ^= 1
        for bad in (b"", content[:50], content[:-1], content + b"\0", bytes(flipped), b"x" * len(content)):
            with pytest.raises(FixInputError):
                parse(setting.plan, bad)


def renamed(plan: Any, content: bytes) -> bytes:
    """A public key's file with a name and checksum that fit its content."""
    return messages.KEY_FILES.write("public", plan.digest, messages.KEY_FILES.key_id(plan.digest, content), content)


def test_a_public_key_of_other_length_or_residues_is_refused_even_with_its_own_name() -> None:
    setting = small("same")
    content = setting.public._content
    for bad in (content[:-1], content[: len(content) // 2], b"\xff" * len(content)):
        with pytest.raises(RejectMessageError):
            blind.read_evaluation_key(setting.plan, renamed(setting.plan, bad))
        with pytest.raises(FixInputError):
            owner.public_key_from_bytes(setting.plan, renamed(setting.plan, bad))
    # Both halves of a key, as SEAL would have sent them: there is no place for a half of one's own.
    with pytest.raises(RejectMessageError):
        blind.read_evaluation_key(setting.plan, renamed(setting.plan, content * 2))


def test_a_public_key_cannot_take_anothers_name() -> None:
    setting = small("split")
    _, other = owner.generate_keys(setting.plan)
    forged = owner.PublicKey(setting.plan.digest, setting.secret.key_id, other._content)
    with pytest.raises(FixInputError, match="name"):
        owner.public_key_from_bytes(setting.plan, forged.to_bytes())
    with pytest.raises(RejectMessageError, match="name"):
        blind.read_evaluation_key(setting.plan, forged.to_bytes())


def test_public_keys_have_the_plans_uniform_half_and_seals_errors() -> None:
    """b + a s is an error polynomial of SEAL's: at most 21 to both sides, modulo every prime."""
    setting = small("same")
    plan = setting.plan
    (b, a), _ = objects.residues(messages.unpack_public_key(plan, setting.public._content))
    assert (a == messages.uniform_half(plan)).all()
    words = objects.plaintext_residues(owner._load_secret(plan, setting.secret)).reshape(b.shape)
    for at, prime in enumerate(plan.data_primes):
        products = [int(x) * int(y) % prime for x, y in zip(a[at], words[at], strict=True)]
        total = (b[at].astype(np.int64) + np.array(products)) % prime
        transform = transform_for(prime, plan.ring_dimension)
        error, secret = (transform.inverse(row) for row in (total, words[at].astype(np.int64)))
        error = np.where(error > prime // 2, error - prime, error)
        assert 9 < np.abs(error).max() <= 21
        assert 3.0 < error.std() < 3.5  # sqrt(10.5) = 3.24
        assert set(np.unique(secret)) == {0, 1, prime - 1}


def test_the_uniform_half_depends_on_plan_and_prime_and_engine() -> None:
    plan = small("same").plan
    half = messages.uniform_half(plan)
    assert all(row.max() < prime for row, prime in zip(half, plan.chain, strict=True))
    assert not (messages.uniform_half(small("same", 1).plan)[:, :4] == half[:, :4]).any()
    for domain in (b"securead.protocols.ckks.a.v1\0", b"securead.protocols.bfv.a.v1\0"):
        other = publickeys.uniform_half(domain, plan.digest, plan.chain, plan.ring_dimension)
        assert not (other[:, :4] == half[:, :4]).any()


def test_keys_do_not_print_themselves() -> None:
    setting = small("same")
    for key in (setting.secret, setting.public):
        assert "_content" not in repr(key)
    assert "_encryptor" not in repr(setting.key)
