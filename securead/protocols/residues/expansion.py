"""Uniform residues from a public seed: AES-256-CTR keyed by SHA-256, masked to the prime's width, with rejection.

A public expander, with AES as an ideal cipher; never a secret-key function. It gives the uniform half of a seeded
ciphertext to whoever reads the seed, and of a public key to every owner of a plan.
"""

from __future__ import annotations

import hashlib

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes

from securead.data.schema import Array

SEED_BYTES = 32


def key_stream(domain: bytes, digest: str, index: int, seed: bytes) -> CipherContext:
    """What encrypts zeros to the stream from which `uniform_residues` takes its words."""
    if domain.partition(b"\0")[1:] != (b"\0", b"") or len(digest) != 64 or len(seed) not in (0, SEED_BYTES):
        raise ValueError("a domain ends with its only zero byte, a digest has 64 hex digits, a seed 32 bytes or none")
    key = hashlib.sha256(domain + bytes.fromhex(digest) + bytes([index]) + seed).digest()
    return Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()


def uniform_residues(
    domain: bytes, digest: str, index: int, prime: int, count: int, *, seed: bytes = b"", out: Array | None = None
) -> Array:
    """`count` residues int64, uniform below `prime`: the first such words of the key stream.

    The stream's key is SHA-256(domain, digest, index, seed). `domain` ends with its only zero byte and names the
    purpose; `digest` is 64 hex digits that name the parameters; `index` is the prime's place, below 256; `seed` is
    32 bytes, or empty where the digest alone determines the residues. With these lengths no two inputs collide. A word
    is eight bytes, little-endian, of which the prime's bits are kept.

    `out`, int64 of `count` items in any shape, is filled in C order and returned.
    """
    stream = key_stream(domain, digest, index, seed)
    result = np.empty(count, dtype=np.int64) if out is None else out
    mask = (1 << prime.bit_length()) - 1
    words = np.frombuffer(stream.update(bytes(8 * count)), dtype="<i8")
    np.bitwise_and(words.reshape(result.shape), mask, out=result)
    # A prime just below a power of two rejects next to nothing, so looking first is the fast way.
    if result.max() < prime:
        return result
    found = (words & mask)[words & mask < prime]
    while len(found) < count:
        words = np.frombuffer(stream.update(bytes(8 * count)), dtype="<i8") & mask
        found = np.append(found, words[words < prime])
    result[...] = found[:count].reshape(result.shape)
    return result
