"""Randomness that nobody can search: AES-256-CTR keyed by the operating system.

torch's generator is a Mersenne Twister with 32 effective seed bits: whoever sees one noised update can try them all and
subtract the noise. Every draw that a guarantee rests on comes from here (or from OpenDP, for integer releases).
"""

from __future__ import annotations

import abc
import hashlib
import math
import os
import secrets
from typing import Protocol

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from securead.data.schema import Array

_GAUSSIAN_TERMS = 4


class Stream(Protocol):
    """Where samples and noise come from."""

    def uniform(self, count: int) -> Array: ...
    def bernoulli(self, count: int, probability: float) -> Array: ...
    def normal(self, shape: tuple[int, ...], deviation: float) -> Array: ...


class _Draws(abc.ABC):
    """Laws made from uniform bits."""

    @abc.abstractmethod
    def bits64(self, count: int) -> Array:
        """Uniform uint64 `(count,)`."""

    def uniform(self, count: int) -> Array:
        """Uniform float64 `(count,)` in (0, 1): odd multiples of 2**-54, so neither end occurs."""
        values: Array = ((self.bits64(count) >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
        return values

    def bernoulli(self, count: int, probability: float) -> Array:
        """Independent booleans `(count,)`, each true with `probability` rounded to a multiple of 2**-53, upwards."""
        threshold = np.uint64(min(math.ceil(probability * 2.0**53), 2**53))
        return (self.bits64(count) >> np.uint64(11)) < threshold

    def normal(self, shape: tuple[int, ...], deviation: float) -> Array:
        """Gaussian float64 of `shape` (Box and Muller 1958).

        Each value is the sum of four independent draws, halved, so that an attacker who wants to read the float's low
        bits faces 2**159 candidates instead of 2**53 (Holohan and Braghin 2021, section 5.1).
        """
        count = math.prod(shape)
        draws = _GAUSSIAN_TERMS * count
        radius = np.sqrt(-2.0 * np.log(self.uniform((draws + 1) // 2)))
        angle = 2.0 * np.pi * self.uniform((draws + 1) // 2)
        pairs = np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:draws]
        values: Array = pairs.reshape(_GAUSSIAN_TERMS, count).sum(axis=0) * (deviation / math.sqrt(_GAUSSIAN_TERMS))
        return values.reshape(shape)


class SystemStream(_Draws):
    """A stream of uniform bits, 128-bit secure at the least; never seeded, never shared, never forked.

    The key is 32 fresh bytes from the operating system. A forked child would repeat its parent's draws, so a draw in
    another process than the one that made the stream raises `RuntimeError`.
    """

    def __init__(self) -> None:
        self._process = os.getpid()
        cipher = Cipher(algorithms.AES(secrets.token_bytes(32)), modes.CTR(bytes(16)))
        self._encryptor = cipher.encryptor()

    def bits64(self, count: int) -> Array:
        """Uniform uint64 `(count,)`."""
        if os.getpid() != self._process:
            raise RuntimeError("a stream of randomness was carried into a forked process, where it would repeat")
        return np.frombuffer(self._encryptor.update(bytes(8 * count)), dtype=np.uint64)


class StudyStream(_Draws):
    """Predictable draws for repeatable studies: never private."""

    def __init__(self, seed: int, purpose: str) -> None:
        key = hashlib.sha256(f"{seed}|{purpose}".encode()).digest()
        self._rng = np.random.default_rng(np.frombuffer(key, dtype=np.uint32))

    def bits64(self, count: int) -> Array:
        """uint64 `(count,)` that depend on seed and purpose alone."""
        return self._rng.integers(0, 2**64, count, dtype=np.uint64)
