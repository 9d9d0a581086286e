"""Residues from a public seed: known answers, uniformity, and that every input counts."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from securead.protocols.residues.expansion import uniform_residues

DOMAIN, DIGEST, SEED, PRIME = b"test\0", "ab" * 32, bytes(range(32)), 1099510054913
KNOWN = [136343959198, 174086164726, 485400690436, 580973070123]


def plainly(domain: bytes, digest: str, index: int, prime: int, count: int, seed: bytes) -> list[int]:
    """The definition, one word after the other."""
    key = hashlib.sha256(domain + bytes.fromhex(digest) + bytes([index]) + seed).digest()
    stream, found = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor(), []
    while len(found) < count:
        word = int.from_bytes(stream.update(bytes(8)), "little") % 2 ** prime.bit_length()
        if word < prime:
            found.append(word)
    return found


def test_known_answer() -> None:
    """Source: the definition with `sha256sum` and `openssl enc -aes-256-ctr` on a command line."""
    found = uniform_residues(DOMAIN, DIGEST, 3, PRIME, 4, seed=SEED)
    assert found.tolist() == KNOWN


# From one just below a power of two, which rejects next to nothing, to one just above, which rejects almost half.
@pytest.mark.parametrize("prime", [PRIME, 2**40 + 15, 2**60 - 93, 2**59 + 55, 786433])
@pytest.mark.parametrize("seed", [b"", SEED])
@pytest.mark.parametrize("count", [1, 7, 8192])
def test_as_defined(prime: int, seed: bytes, count: int) -> None:
    found = uniform_residues(DOMAIN, DIGEST, 0, prime, count, seed=seed)
    assert found.dtype == np.int64
    assert found.tolist() == plainly(DOMAIN, DIGEST, 0, prime, count, seed)


@pytest.mark.parametrize("prime", [PRIME, 2**40 + 15])
def test_into_a_part_of_another_array(prime: int) -> None:
    room = np.full((4, 3, 64), -1)
    returned = uniform_residues(DOMAIN, DIGEST, 0, prime, 256, seed=SEED, out=room[:, 1])
    assert returned.base is room
    assert (room[:, 0] == -1).all()
    assert (room[:, 2] == -1).all()
    assert room[:, 1].ravel().tolist() == plainly(DOMAIN, DIGEST, 0, prime, 256, SEED)


@pytest.mark.parametrize(
    "change",
    [{"domain": b"tesu\0"}, {"digest": "ac" * 32}, {"index": 1}, {"seed": bytes(32)}, {"seed": b""}],
)
def test_every_input_counts(change: dict[str, Any]) -> None:
    inputs = {"domain": DOMAIN, "digest": DIGEST, "index": 0, "prime": PRIME, "count": 16, "seed": SEED}
    assert not np.array_equal(uniform_residues(**inputs), uniform_residues(**{**inputs, **change}))


def test_uniform_below_the_prime() -> None:
    """Chi-squared over 64 bins, alpha = 1e-6 once and for all: the input is fixed. A stream that is reduced instead of
    rejected has twice the density in its lower half here, and fails by orders of magnitude.
    """
    prime = 2**40 + 2**39 + 1
    found = uniform_residues(DOMAIN, DIGEST, 0, prime, 1 << 16, seed=SEED)
    observed = np.bincount(found * 64 // prime, minlength=64)
    expected = len(found) / 64
    assert ((observed - expected) ** 2 / expected).sum() < 133.5  # the quantile for 63 degrees of freedom
    reduced = np.random.default_rng(0).integers(0, 2**41, 1 << 16) % prime
    observed = np.bincount(reduced * 64 // prime, minlength=64)
    assert ((observed - expected) ** 2 / expected).sum() > 1000


@pytest.mark.parametrize(
    "change", [{"domain": b"test"}, {"domain": b"a\0b\0"}, {"domain": b""}, {"digest": "ab"}, {"seed": b"short"}]
)
def test_inputs_that_could_collide_are_refused(change: dict[str, Any]) -> None:
    inputs = {"domain": DOMAIN, "digest": DIGEST, "index": 0, "prime": PRIME, "count": 16, "seed": SEED}
    with pytest.raises(ValueError, match="zero byte"):
        uniform_residues(**{**inputs, **change})
