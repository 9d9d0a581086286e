"""SEAL's objects from bare residues and back, and the strict reading of its files."""

from __future__ import annotations

import numpy as np
import pytest
import tenseal.sealapi as seal
import zstandard

from securead.errors import FixInputError, RejectMessageError, UseOtherKeyError
from securead.protocols.seal import objects, primes
from securead.protocols.seal.keyfiles import KeyFiles

N = 4096
CHAIN = (*(primes.choose(N, (30, 40)) or ()), primes.special_prime(N))


@pytest.fixture(scope="module")
def context() -> objects.Context:
    parameters = seal.EncryptionParameters(seal.SCHEME_TYPE.BFV)
    parameters.set_poly_modulus_degree(N)
    parameters.set_coeff_modulus([seal.Modulus(prime) for prime in CHAIN])
    parameters.set_plain_modulus(seal.Modulus(1 << 8))
    return seal.SEALContext(parameters, True, seal.SEC_LEVEL_TYPE.TC128)


def test_ciphertexts_survive_their_residues(context: objects.Context) -> None:
    """Whole and seeded, at every level: SEAL decrypts what was rebuilt."""
    secret = seal.KeyGenerator(context).secret_key()
    encryptor, decryptor = seal.Encryptor(context, secret), seal.Decryptor(context, secret)
    message, found = seal.Plaintext("7x^3 + 1"), seal.Plaintext()
    words, seed = objects.residues(encryptor.encrypt_symmetric(message))
    assert words.shape == (1, 2, N)
    assert len(seed) == 64
    value = objects.encrypted_from_residues(context, context.first_parms_id(), words, ntt=False, seed=seed)
    decryptor.decrypt(value, found)
    assert found.to_string() == "7x^3 + 1"
    seal.Evaluator(context).mod_switch_to_next_inplace(value)
    words, seed = objects.residues(value)
    assert words.shape == (2, 1, N)
    assert seed == b""
    again = objects.encrypted_from_residues(context, context.last_parms_id(), words, ntt=False)
    assert (objects.residues(again)[0] == words).all()
    decryptor.decrypt(again, found)
    assert found.to_string() == "7x^3 + 1"


def test_keys_survive_their_residues(context: objects.Context) -> None:
    generator, public = seal.KeyGenerator(context), seal.PublicKey()
    generator.create_public_key(public)
    words, _ = objects.residues(public)
    rebuilt = objects.public_key_from_residues(context, words)
    assert (objects.residues(rebuilt)[0] == words).all()
    secret = generator.secret_key()
    copy = objects.secret_key_from_words(context, objects.plaintext_residues(secret))
    value, found = seal.Ciphertext(), seal.Plaintext()
    seal.Encryptor(context, rebuilt).encrypt(seal.Plaintext("5"), value)
    seal.Decryptor(context, copy).decrypt(value, found)
    assert found.to_string() == "5"


def test_residues_beyond_a_prime_and_foreign_shapes_are_refused(context: objects.Context) -> None:
    level = context.first_parms_id()
    words = np.ones((2, 2, N), dtype=np.uint64)
    for bad in (words[:, :1], np.ones((2, 3, N), dtype=np.uint64), words[:, :, : N // 2]):
        with pytest.raises(RejectMessageError):
            objects.ciphertext_from_residues(context, level, bad, ntt=False)
    words[1, 0, 5] = CHAIN[0]
    with pytest.raises(RejectMessageError, match="SEAL refuses"):
        objects.ciphertext_from_residues(context, level, words, ntt=False)


def test_only_messages_may_not_be_transparent(context: objects.Context) -> None:
    words = np.zeros((2, 2, N), dtype=np.uint64)
    words[0] = 1
    assert objects.ciphertext_from_residues(context, context.first_parms_id(), words, ntt=False).is_transparent()
    with pytest.raises(RejectMessageError, match="not encrypted"):
        objects.encrypted_from_residues(context, context.first_parms_id(), words, ntt=False)


def test_a_file_is_read_only_at_its_expected_length(context: objects.Context) -> None:
    content = objects.save(seal.KeyGenerator(context).secret_key())
    assert objects.load(seal.SecretKey, context, content, objects.secret(3 * N))
    for bad in (objects.secret(3 * N - 1), objects.secret(3 * N + 1)):
        with pytest.raises(RejectMessageError):
            objects.load(seal.SecretKey, context, content, bad)
    bomb = zstandard.compress(bytes(64 << 20))
    forged = content[:8] + (16 + len(bomb)).to_bytes(8, "little") + bomb
    with pytest.raises(RejectMessageError, match="another size"):
        objects.load(seal.SecretKey, context, forged, objects.secret(3 * N))


def test_key_files_bind_engine_kind_plan_and_content() -> None:
    files, plan, other = KeyFiles("bfv"), "ab" * 32, "cd" * 32
    name = files.key_id(plan, b"public half")
    written = files.write("public", plan, name, b"public half")
    assert files.read("public", plan, written, limit=11) == (name, b"public half")
    assert len({name, KeyFiles("ckks").key_id(plan, b"public half"), files.key_id(other, b"public half")}) == 3
    for error, attempt in (
        (UseOtherKeyError, lambda: files.read("secret", plan, written, limit=11)),
        (UseOtherKeyError, lambda: files.read("public", other, written, limit=11)),
        (FixInputError, lambda: KeyFiles("ckks").read("public", plan, written, limit=11)),
        (FixInputError, lambda: files.read("public", plan, written, limit=10)),
        (FixInputError, lambda: files.read("public", plan, written[:-1], limit=11)),
        (FixInputError, lambda: files.read("public", plan, b"", limit=11)),
        (FixInputError, lambda: files.read("public", plan, files.write("public", plan, other, b"x"), limit=11)),
    ):
        with pytest.raises(error):
            attempt()
