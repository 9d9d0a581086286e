"""SEAL's seeds, expanded as SEAL does: bit for bit, rejected words included."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from securead.errors import RejectMessageError
from securead.protocols.residues import blake2x
from securead.protocols.seal import primes as moduli

seal = pytest.importorskip("tenseal.sealapi")


def rejecting(dimension: int, times: int) -> int:
    """The least usable prime above 2**64 / `times`, which misses almost a whole multiple of it: one word in `times` is
    rejected.
    """
    step = 2 * dimension
    prime = (2**64 // times // step + 1) * step + 1
    while not moduli.is_usable(prime, dimension):
        prime += step
    assert 2**64 % prime > 0.9 * prime
    return prime


def chosen(dimension: int, *bits: int) -> tuple[int, ...]:
    found = moduli.choose(dimension, bits)
    assert found is not None
    return found


def context(dimension: int, data: tuple[int, ...]) -> Any:
    parameters = seal.EncryptionParameters(seal.SCHEME_TYPE.CKKS)
    parameters.set_poly_modulus_degree(dimension)
    parameters.set_coeff_modulus([seal.Modulus(p) for p in (*data, moduli.special_prime(dimension))])
    return seal.SEALContext(parameters, True, seal.SEC_LEVEL_TYPE.NONE)


def seals(made: Any, secret: Any) -> tuple[bytes, np.ndarray]:
    """A fresh seed, and the residues `(primes, N)` that SEAL expands it to."""
    from securead.protocols.seal import objects
    from securead.protocols.seal.sizes import METADATA_BYTES, SEED_BYTES

    value = seal.Encryptor(made, secret).encrypt_zero_symmetric()
    words, seed = objects.residues(value)
    body = objects.seeded(METADATA_BYTES + words.nbytes + SEED_BYTES)
    whole, _ = objects.residues(objects.load(seal.Ciphertext, made, objects.save(value), body))
    return seed, whole[1].astype(np.int64)


@pytest.mark.parametrize("slots", [512, 1024, 4096])
@pytest.mark.parametrize("bits", [(50, 20, 36), (38, 38, 37, 32, 31)])
def test_it_is_seals_expansion(bits: tuple[int, ...], slots: int) -> None:
    """To the place that was asked for, and to no other."""
    dimension, data = 4096, chosen(4096, *bits)
    made = context(dimension, data)
    secret = seal.KeyGenerator(made).secret_key()
    for _ in range(3):
        seed, expected = seals(made, secret)
        out = np.full((len(data), dimension // slots, 3, 2, slots), -1, dtype=np.int64)
        blake2x.expand(seed, data, out, 1, 1)
        np.testing.assert_array_equal(out[:, :, 1, 1].reshape(len(data), dimension), expected)
        out[:, :, 1, 1] = -1
        assert (out == -1).all()


def test_rejected_words_are_replaced_as_seal_does(monkeypatch: pytest.MonkeyPatch) -> None:
    dimension = 8192
    data = tuple(rejecting(dimension, times) for times in (17_000, 18_000, 20_000, 30_000))
    made = context(dimension, data)
    secret = seal.KeyGenerator(made).secret_key()
    rejected, most = 0, 0
    for _ in range(30):
        seed, expected = seals(made, secret)
        out = np.empty((len(data), 8, 1, 1, 1024), dtype=np.int64)
        blake2x.expand(seed, data, out, 0, 0)
        np.testing.assert_array_equal(out.reshape(len(data), dimension), expected)
        places = np.empty(64, dtype=np.int64)
        count = blake2x._expand(np.frombuffer(seed, "<u8"), np.array(data), blake2x._ORDER, out, 0, 0, places)
        rejected, most = rejected + count, max(most, count)
        if count > 1:
            monkeypatch.setattr(blake2x, "_MOST_REJECTED", count - 1)
            with pytest.raises(RejectMessageError, match="rejected"):
                blake2x.expand(seed, data, out, 0, 0)
            monkeypatch.undo()
    # More than 50 are expected; none in 30, and never two at once, have probability below 2**-40 together.
    assert rejected > 0
    assert most > 1


def test_absurd_arguments_are_errors() -> None:
    data, out = chosen(4096, 30, 31), np.zeros((2, 8, 1, 2, 512), dtype=np.int64)
    for seed, primes, into in (
        (bytes(32), data, out),
        (bytes(64), data[:1], out),
        (bytes(64), data, np.zeros((2, 16, 1, 2, 256), dtype=np.int64)),
    ):
        with pytest.raises(ValueError, match="seed"):
            blake2x.expand(seed, primes, into, 0, 1)
    blake2x.expand(bytes(64), data, out, 0, 1)
    assert all(0 <= part[:, 0, 1].min() <= part[:, 0, 1].max() < prime for part, prime in zip(out, data, strict=True))
