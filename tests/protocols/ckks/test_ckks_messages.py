"""Hostile and mistaken input: payloads, ciphertexts of other shapes, keys."""

from __future__ import annotations

import contextlib
import struct
from functools import cache
from typing import Any

import numpy as np
import pytest
import tenseal.sealapi as seal
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from securead.checks import programs
from securead.errors import FixInputError, RejectMessageError, UseOtherKeyError
from securead.program.program import Program
from securead.protocols.ckks import blind, owner
from securead.protocols.ckks.context import context_for
from securead.protocols.ckks.plan import CkksPlan, make_plan
from securead.protocols.seal import objects, parts


@cache
def setting(role: str = "same", seed: int = 0) -> tuple[Program, CkksPlan, owner.SecretKey, owner.PublicKey]:
    program = programs.small_quadratic(seed=seed)
    plan = make_plan(program.public, role)
    return program, plan, *owner.generate_keys(plan)


@cache
def exchange(role: str = "same") -> tuple[bytes, bytes]:
    program, plan, secret, public = setting(role)
    request = owner.make_encryptor(plan, secret if role == "same" else public).encrypt(np.ones((2, 4), dtype=np.int64))
    return request, blind.make_evaluator(plan, program).evaluate(request)


def parts_of(payload: bytes) -> list[bytes]:
    (count,) = struct.unpack_from("<I", payload)
    return parts.unpack(payload, count=count, limit=1 << 30)


def refused(payload: bytes, role: str = "same") -> str:
    program, plan, *_ = setting(role)
    with pytest.raises(RejectMessageError) as caught:
        blind.make_evaluator(plan, program).evaluate(payload)
    return str(caught.value)


def symmetric(plan: CkksPlan, *, scale: float | None = None, level: int = 0) -> bytes:
    """One ciphertext of a stranger with full control over its scale and level."""
    context = context_for(plan)
    encryptor = seal.Encryptor(context, seal.KeyGenerator(context).secret_key())
    plaintext = seal.Plaintext()
    level_id = objects.level_ids(context)[level]
    seal.CKKSEncoder(context).encode([1.0], level_id, scale or plan.input_scale, plaintext)
    return objects.save(encryptor.encrypt_symmetric(plaintext))


@settings(max_examples=150)
@given(st.data())
def test_changed_requests_never_crash(data: st.DataObject) -> None:
    """Any change is refused, or is another well-formed ciphertext; nothing else is ever raised."""
    program, plan, *_ = setting()
    request = bytearray(exchange()[0])
    for _ in range(data.draw(st.integers(1, 3))):
        match data.draw(st.sampled_from(["flip", "flip head", "cut", "grow", "splice"])):
            case "flip":
                request[data.draw(st.integers(0, len(request) - 1))] ^= data.draw(st.integers(1, 255))
            case "flip head":
                request[data.draw(st.integers(0, min(200, len(request) - 1)))] ^= data.draw(st.integers(1, 255))
            case "cut":
                del request[data.draw(st.integers(1, len(request) - 1)) :]
            case "grow":
                request += data.draw(st.binary(min_size=1, max_size=64))
            case _:
                at = data.draw(st.integers(0, len(request) - 1))
                request[at : at + 8] = data.draw(st.binary(min_size=8, max_size=8))
        if len(request) < 2:
            break
    with contextlib.suppress(RejectMessageError):
        assert blind.make_evaluator(plan, program).evaluate(bytes(request))


@settings(max_examples=60)
@given(st.binary(max_size=300))
def test_noise_is_refused(noise: bytes) -> None:
    refused(noise)
    _, plan, secret, _ = setting()
    with pytest.raises(RejectMessageError):
        owner.make_decryptor(plan, secret).decrypt(noise, 1)


def test_ciphertexts_of_other_shapes_are_refused() -> None:
    _, plan, *_ = setting()
    honest = parts_of(exchange()[0])
    whole = parts_of(exchange("split")[0])[0]
    assert "scale" in refused(parts.pack([*honest[:-1], symmetric(plan, scale=plan.input_scale * 2)]))
    assert "size" in refused(parts.pack([*honest[:-1], symmetric(plan, level=1)]))
    assert refused(parts.pack([*honest[:-1], whole]))
    assert refused(parts.pack([*honest, honest[0]]))
    assert refused(parts.pack(honest[:-1]))
    assert refused(exchange()[1])


def test_a_hidden_bomb_is_refused_before_seal_sees_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither an outer nor an inner compression can inflate beyond what the plan says."""
    _, plan, *_ = setting()
    honest = parts_of(exchange()[0])
    body = bytearray(zstandard.ZstdDecompressor().decompressobj().decompress(honest[0][16:]))

    def forge(content: bytes) -> bytes:
        compressed = zstandard.compress(content)
        return honest[0][:8] + struct.pack("<Q", 16 + len(compressed)) + compressed

    monkeypatch.setattr(seal, "Ciphertext", lambda: pytest.fail("SEAL was handed a bomb"))
    assert refused(parts.pack([forge(bytes(256 << 20)), *honest[1:]]))
    body[73 + 5] = 2
    assert refused(parts.pack([forge(bytes(body)), *honest[1:]]))
    assert len(body) == plan.request_ciphertext_bytes


def test_unencrypted_columns_are_refused() -> None:
    """A transparent ciphertext would make SEAL fail in the middle of the evaluation."""
    honest = parts_of(exchange("split")[0])
    body = bytearray(zstandard.ZstdDecompressor().decompressobj().decompress(honest[0][16:]))
    half = (len(body) - 97) // 2
    body[97 + half :] = bytes(half)
    compressed = zstandard.compress(bytes(body))
    forged = honest[0][:8] + struct.pack("<Q", 16 + len(compressed)) + compressed
    assert refused(parts.pack([forged, *honest[1:]]), "split")


def test_residues_beyond_their_prime_are_refused() -> None:
    honest = parts_of(exchange("split")[0])
    body = bytearray(zstandard.ZstdDecompressor().decompressobj().decompress(honest[0][16:]))
    body[97 : 97 + 8] = b"\xff" * 8
    compressed = zstandard.compress(bytes(body))
    forged = honest[0][:8] + struct.pack("<Q", 16 + len(compressed)) + compressed
    assert "SEAL refuses" in refused(parts.pack([forged, *honest[1:]]), "split")


@pytest.mark.parametrize("role", ["same", "split"])
def test_a_wrong_key_is_noticed_even_for_one_row(role: str) -> None:
    _, plan, *_ = setting(role)
    for _ in range(5):
        other, _ = owner.generate_keys(plan)
        with pytest.raises(UseOtherKeyError, match="another key") as caught:
            owner.make_decryptor(plan, other).decrypt(exchange(role)[1], 1)
        assert caught.value.remedy


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
