"""What makes an answer tell the scores and no more: masks of every polynomial, and a flood over c0.

To a score C(Y) with coefficients c0 ... ck on the last level is added the sum over j < k of Y**j times a fresh SEAL
encryption of zero under the owner's public key, and to c0 a polynomial whose N coefficients are uniform on [-2**f,
2**f), f the plan's `flood_bits`: 2**40 N / 2 times all errors that depend on weights. Then it is rescaled. The
protocol's SPEC.md has the argument. No mask depends on a request, so masks can be made ahead of time; each is used
once.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import tenseal.sealapi as seal

from securead.data.schema import Array
from securead.protocols.ckks.deep.context import context_for, level_of
from securead.protocols.ckks.deep.plan import DeepPlan
from securead.protocols.residues import loops
from securead.protocols.residues.transforms import transform_for
from securead.protocols.seal import objects, publickeys
from securead.protocols.seal.publickeys import EvaluationKey


class DeepKey(EvaluationKey[Array]):
    """An owner's public key, checked: makes masks, and holds the first polynomials of its relinearisation key.

    `digits` int64 `(digits, primes, N)`; their uniform halves are the plan's.
    """

    def __init__(self, plan: DeepPlan, key_id: str, public: Any, digits: Array) -> None:
        self.masks = Masks(plan, public)
        super().__init__(plan.digest, key_id, self.masks.make, self.masks.mask_bytes)
        self.digits = digits


class Masks:
    """Makes masks, floods included, for one plan and one of SEAL's public keys. Safe to use from several threads."""

    def __init__(self, plan: DeepPlan, public: Any) -> None:
        self._plan = plan
        context = context_for(plan)
        self._encryptor, self._level = seal.Encryptor(context, public), level_of(context, plan.last_primes)
        self._primes = plan.data_primes[: plan.last_primes]
        self._bits = plan.flood_bits + 1
        # Digits below every prime, so that they are residues as they are, and of whole words.
        self._digit = min(32, min(prime.bit_length() for prime in self._primes) - 1)
        self.shape = (plan.last_primes, plan.answer_size, plan.ring_dimension)
        # Compiled loops and tables, now rather than in the first answer.
        self.flood(self.draw())

    @property
    def mask_bytes(self) -> int:
        """What one weighs."""
        return 8 * int(np.prod(self.shape))

    def make(self) -> Array:
        """A fresh mask: residues int64 `(primes, polynomials, N)` in NTT form, to be added to one score."""
        mask = np.zeros(self.shape, np.int64)
        for place in range(self._plan.answer_size - 1):
            words, _ = objects.residues(publickeys.encryption_of_zero(self._encryptor, self._level))
            zero = np.ascontiguousarray(words.swapaxes(0, 1).view(np.int64))
            for prime, rows, added in zip(self._primes, mask, zero, strict=True):
                loops.add(rows[place : place + 2], added, prime)
        for prime, rows, added in zip(self._primes, mask, self.flood(self.draw()), strict=True):
            loops.add(rows[:1], added[None], prime)
        return mask

    def draw(self) -> Array:
        """Uniform digits int64 `(digits, N)` from the operating system: integers in [0, 2**(f + 1)), low ones first."""
        widths = [min(self._digit, self._bits - start) for start in range(0, self._bits, self._digit)]
        words = np.frombuffer(os.urandom(4 * len(widths) * self._plan.ring_dimension), dtype="<u4")
        masks = np.array([(1 << width) - 1 for width in widths], dtype=np.int64)[:, None]
        digits: Array = words.reshape(len(widths), -1).astype(np.int64) & masks
        return digits

    def flood(self, digits: Array) -> Array:
        """Residues int64 `(primes, N)` in NTT form of the polynomial with coefficients `digits` - 2**f."""
        plan = self._plan
        flood = np.empty((len(self._primes), plan.ring_dimension), np.int64)
        for prime, row in zip(self._primes, flood, strict=True):
            powers = np.array([pow(2, self._digit * i, prime) for i in range(len(digits))], dtype=np.int64)
            loops.combine(digits, powers, -(1 << plan.flood_bits) % prime, prime, row)
            row[:] = transform_for(prime, plan.ring_dimension).forward(row)
        return flood


def sanitise(plan: DeepPlan, score: Array, mask: Array) -> None:
    """Add a mask that is used for nothing else to a score, residues int64 `(primes, polynomials, N)`, in place."""
    for prime, rows, added in zip(plan.data_primes, score, mask, strict=False):
        loops.add(rows, added, prime)
