"""Hostile and mistaken input: payloads, residues, keys."""

from __future__ import annotations

import contextlib
import struct
from typing import Any

import numpy as np
import pytest
import tenseal.sealapi as seal
from bfv_setting import Role, secret_coefficients, small, transform
from hypothesis import given, settings
from hypothesis import strategies as st

from securead.errors import FixInputError, RejectMessageError, UseOtherKeyError
from securead.protocols.bfv import blind, crs, messages, owner
from securead.protocols.bfv.context import context_for
from securead.protocols.bfv.plan import PREAMBLE_BYTES
from securead.protocols.seal import objects, publickeys


def request_of(role: Role = "same", rows: int = 2) -> bytes:
    setting = small(role)
    return setting.encryptor.encrypt(np.ones((rows, len(setting.plan.sizes)), dtype=np.int64))


@settings(max_examples=150)
@given(st.data(), st.sampled_from(["same", "split"]))
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


@pytest.mark.parametrize("role", ["same", "split"])
def test_residues_beyond_their_prime_are_refused(role: Role) -> None:
    setting, request = small(role), bytearray(request_of(role))
    start = PREAMBLE_BYTES + (64 if role == "same" else 0)
    request[start : start + 16] = b"\xff" * 16
    with pytest.raises(RejectMessageError, match="SEAL refuses"):
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


def test_a_service_can_answer_again_after_a_bad_request(rng: np.random.Generator) -> None:
    setting = small("same")
    with pytest.raises(RejectMessageError):
        setting.evaluator.evaluate(request_of()[:-1], setting.key)
    queries = setting.random_queries(rng, 2)
    assert (setting.score(queries) == setting.plan.unit * setting.integers(queries).astype(float)).all()


def test_an_answer_to_other_rows_is_refused() -> None:
    setting = small("same")
    answer = setting.evaluator.evaluate(request_of(rows=2), setting.key)
    with pytest.raises(RejectMessageError, match="another number"):
        setting.decryptor.decrypt(answer, 3)
    for rows in (0, -1, 1 << 20):
        with pytest.raises(FixInputError):
            setting.decryptor.decrypt(answer, rows)


def test_a_wrong_key_is_always_noticed() -> None:
    """By name: under another key every score would be uniform, and some would lie in the program's range."""
    setting = small("same")
    answer = setting.evaluator.evaluate(request_of(), setting.key)
    for _ in range(5):
        other, _ = owner.generate_keys(setting.plan)
        with pytest.raises(UseOtherKeyError, match="another key") as caught:
            owner.make_decryptor(setting.plan, other).decrypt(answer, 2)
        assert caught.value.remedy


def test_a_score_outside_the_range_is_no_score() -> None:
    """A second line, for a service that answers under a false name: most uniform scores are noticed."""
    setting, noticed = small("same"), 0
    other, _ = owner.generate_keys(setting.plan)
    for _ in range(5):
        answer = setting.evaluator.evaluate(request_of(rows=32), setting.key)
        renamed = messages.preamble(32, other.key_id) + answer[PREAMBLE_BYTES:]
        if setting.plan.plain_bits > setting.plan.score_bits:
            with pytest.raises(UseOtherKeyError, match="outside"):
                owner.make_decryptor(setting.plan, other).decrypt(renamed, 32)
            noticed += 1
    assert noticed in (0, 5)


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
    for content, read in (
        (setting.secret.to_bytes(), owner.secret_key_from_bytes),
        (setting.public.to_bytes(), owner.public_key_from_bytes),
    ):
        flipped = bytearray(content)
        flipped[-5] ^= 1
        for bad in (b"", content[:50], content[:-1], content + b"\0", bytes(flipped), b"x" * len(content)):
            with pytest.raises(FixInputError):
                read(setting.plan, bad)


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


def test_keys_do_not_print_themselves() -> None:
    setting = small("same")
    for key in (setting.secret, setting.public):
        assert "_content" not in repr(key)
    assert "_encryptor" not in repr(setting.key)


def test_public_keys_have_the_plans_uniform_half_and_seals_errors() -> None:
    """b + a s is an error polynomial of SEAL's: at most 21 to both sides, modulo every prime of the chain."""
    setting = small("same")
    plan = setting.plan
    key: Any = messages.unpack_public_key(plan, setting.public._content)
    (b, a), _ = objects.residues(key)
    assert (a == crs.uniform_half(plan)).all()
    words = objects.plaintext_residues(owner._load_secret(plan, setting.secret)).reshape(b.shape)
    lifted = []
    for at, prime in enumerate(plan.chain):
        products = [int(x) * int(y) % prime for x, y in zip(a[at], words[at], strict=True)]
        lifted.append((b[at] + np.array(products, dtype=np.uint64)) % np.uint64(prime))
    # Back from SEAL's transform by SEAL, as a ciphertext of data residues.
    context = context_for(plan)
    sums = np.stack([np.stack(lifted[:-1])] * 2)
    both = objects.ciphertext_from_residues(context, context.first_parms_id(), sums, ntt=True)
    seal.Evaluator(context).transform_from_ntt_inplace(both)
    residues = objects.residues(both)[0][0]
    centred = [
        np.where(row > prime // 2, row.astype(np.int64) - prime, row.astype(np.int64))
        for row, prime in zip(residues, plan.data_primes, strict=True)
    ]
    assert all((row == centred[0]).all() for row in centred)
    assert 9 < np.abs(centred[0]).max() <= 21
    assert 2.9 < centred[0].std() < 3.6  # sqrt(10.5) = 3.24
    assert set(np.unique(secret_coefficients(setting))) == {-1, 0, 1}
    assert (transform(transform(np.arange(16), 97), 97, inverse=True) == np.arange(16)).all()


def test_the_uniform_half_is_uniform_and_depends_on_plan_and_prime() -> None:
    plan = small("same").plan
    half = crs.uniform_half(plan)
    for row, prime in zip(half, plan.chain, strict=True):
        assert row.max() < prime
        counts, _ = np.histogram(row, bins=16, range=(0, prime))
        assert ((counts - 256) ** 2).sum() / 256 < 66.3
    assert not (crs.uniform_half(small("same", 1).plan) == half).all(axis=1).any()
    n, first = plan.ring_dimension, plan.chain[0]
    assert not (publickeys.uniform_half(crs.DOMAIN, plan.digest, (first, first), n)[1] == half[0]).any()


def test_more_rows_than_claimed_are_refused() -> None:
    """A service meters the rows that a message claims, so the payload must hold as many."""
    setting, request = small("same"), request_of("same", rows=3)
    assert setting.evaluator.evaluate(request, setting.key, rows=3)
    for claimed in (1, 2, 4):
        with pytest.raises(RejectMessageError, match="another number of rows"):
            setting.evaluator.evaluate(request, setting.key, rows=claimed)
