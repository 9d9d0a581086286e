"""SEAL's arrays, read where they lie: the words of SEAL's own files, and those files wherever anything differs."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
import tenseal.sealapi as seal

from securead.protocols.seal import memory, objects, primes
from securead.protocols.seal.memory import Saved

N = 4096
CHAIN = (*(primes.choose(N, (30, 40)) or ()), primes.special_prime(N))
IN_MEMORY = os.path.exists(memory._PATH)


class Setting:
    """A context and its keys, and objects of every kind that is read."""

    def __init__(self) -> None:
        parameters = seal.EncryptionParameters(seal.SCHEME_TYPE.CKKS)
        parameters.set_poly_modulus_degree(N)
        parameters.set_coeff_modulus([seal.Modulus(prime) for prime in CHAIN])
        self.context = seal.SEALContext(parameters, True, seal.SEC_LEVEL_TYPE.TC128)
        self.secret = seal.KeyGenerator(self.context).secret_key()
        self.public = seal.PublicKey()
        seal.KeyGenerator(self.context, self.secret).create_public_key(self.public)
        self.encryptor = seal.Encryptor(self.context, self.public, self.secret)
        self.encoder = seal.CKKSEncoder(self.context)

    def plaintext(self, scale: float = 2.0**20) -> Any:
        value = seal.Plaintext()
        self.encoder.encode(np.random.default_rng().normal(size=8).tolist(), scale, value)
        return value

    def ciphertext(self) -> Any:
        value = seal.Ciphertext()
        self.encryptor.encrypt(self.plaintext(), value)
        return value

    def key_level(self) -> Any:
        value = seal.Ciphertext()
        self.encryptor.encrypt_zero(self.context.key_parms_id(), value)
        return value

    def seeded(self) -> Any:
        return self.encryptor.encrypt_symmetric(self.plaintext())


@pytest.fixture(scope="module")
def setting() -> Setting:
    return Setting()


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_places", {})
    monkeypatch.setattr(memory, "_kinds", {})


def saved(value: Any) -> Saved:
    return objects._saved_plaintext(value) if isinstance(value, seal.Plaintext) else objects._saved_ciphertext(value)


def same(found: Saved, expected: Saved) -> bool:
    return (
        found.words.shape == expected.words.shape
        and bool((found.words == expected.words).all())
        and found.tail == expected.tail
    )


def refuse() -> Saved:
    raise AssertionError("SEAL's file was asked for")


@pytest.mark.skipif(not IN_MEMORY, reason="a system that does not show a process its memory")
@pytest.mark.parametrize("kind", ["plaintext", "ciphertext", "key_level", "seeded"])
def test_from_the_second_object_of_a_kind_on_no_file_is_needed(setting: Setting, kind: str) -> None:
    make = getattr(setting, kind)
    first = make()
    assert same(memory.read(first, lambda: saved(first)), saved(first))
    for _ in range(3):
        value = make()
        assert same(memory.read(value, refuse), saved(value))
    # Others begin with other words: their first is compared again.
    asked = []
    other = setting.plaintext(2.0**21)
    memory.read(other, lambda: asked.append(1) or saved(other))  # type: ignore[func-returns-value]
    assert asked == [1]


def test_a_seed_is_the_one_of_seals_file(setting: Setting) -> None:
    for _ in range(3):
        value = setting.seeded()
        words, seed = objects.residues(value)
        assert words.shape == (1, 2, N)
        assert (len(seed), seed) == (64, saved(value).tail[-64:])


@pytest.mark.parametrize("missing", ["/nowhere/mem", "/dev/null", "/dev/zero"])
def test_where_memory_is_not_shown_files_are_used(
    setting: Setting, missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_PATH", missing)
    for _ in range(2):
        value = setting.ciphertext()
        assert same(memory.read(value, lambda: saved(value)), saved(value))  # noqa: B023 - called at once
    assert not memory._kinds


def test_an_object_that_keeps_its_words_elsewhere_is_saved(setting: Setting) -> None:
    elsewhere = Saved(np.arange(64, dtype=np.uint64).reshape(1, 2, 32), b"")
    for value in (object(), 7, setting.ciphertext()):
        assert memory.read(value, lambda: elsewhere) is elsewhere
    assert not memory._kinds


@pytest.mark.skipif(not IN_MEMORY, reason="a system that does not show a process its memory")
def test_an_array_that_differs_in_its_last_word_is_not_taken_for_it(setting: Setting) -> None:
    value = setting.ciphertext()
    words = saved(value).words.copy()
    words[-1, -1, -1] ^= np.uint64(1)
    memory.read(value, lambda: Saved(words, b""))
    assert not memory._kinds
    memory.read(value, lambda: Saved(saved(value).words, b"a tail that is not there"))
    assert not memory._kinds


@pytest.mark.skipif(not IN_MEMORY, reason="a system that does not show a process its memory")
def test_an_address_that_is_none_is_an_error_and_no_crash() -> None:
    descriptor = os.open(memory._PATH, os.O_RDONLY)
    try:
        for address in (0, 8, 2**47, 2**63 - 1):
            with pytest.raises((OSError, OverflowError)):
                memory._copy(descriptor, address, memory._Place(2, 14, (1, 2, N), 0, 0))
    finally:
        os.close(descriptor)


@pytest.mark.skipif(not (IN_MEMORY and hasattr(os, "fork")), reason="a system without fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_reads_its_own_memory(setting: Setting) -> None:
    """What it made itself, and not what its parent keeps at the same address."""
    first = setting.ciphertext()
    memory.read(first, lambda: saved(first))
    child = os.fork()
    if child == 0:
        outcome = 1
        try:
            for _ in range(3):
                value = setting.ciphertext()
                assert same(memory.read(value, refuse), saved(value))
            outcome = 0
        finally:
            os._exit(outcome)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_secret_keys_are_not_read_in_this_way(setting: Setting, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "read", refuse)
    assert objects.plaintext_residues(setting.secret).size == N * len(CHAIN)
