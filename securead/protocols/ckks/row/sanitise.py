"""What makes an answer tell the scores and no more: a mask of both polynomials, and a flood over what leaves of c0.

A mask is a SEAL encryption of zero under the owner's public key plus integers uniform on [-2**f, 2**f), f the plan's
`flood_bits`, at every coefficient that an answer of any layout may send. It is added before the modulus is switched,
never after. No mask depends on a request, so masks can be made ahead of time; each is used once.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

import numpy as np
import tenseal.sealapi as seal

from securead.data.schema import Array
from securead.protocols.ckks.row.context import context_for
from securead.protocols.ckks.row.plan import RowPlan
from securead.protocols.residues import loops
from securead.protocols.seal import objects, publickeys
from securead.protocols.seal.publickeys import EvaluationKey


@dataclass(frozen=True, eq=False)
class Mask:
    """For one answer: residues int64, c0 at the places where scores may stand, `(primes, places)`, c1 `(primes, N)`."""

    c0: Array
    c1: Array


class Masks:
    """Makes masks, floods included, for one plan and one of SEAL's public keys. Safe to use from several threads."""

    def __init__(self, plan: RowPlan, public: Any) -> None:
        self._plan, self._encryptor = plan, seal.Encryptor(context_for(plan), public)
        self.places = score_places(plan)

    @property
    def mask_bytes(self) -> int:
        """What one weighs."""
        return 8 * len(self._plan.data_primes) * (self._plan.ring_dimension + len(self.places))

    def make(self) -> Mask:
        """A fresh mask, to be added to one group's sum of products."""
        words, _ = objects.residues(publickeys.encryption_of_zero(self._encryptor))
        zero = words.view(np.int64)
        c0 = np.ascontiguousarray(zero[0][:, self.places])
        for rows, flood, prime in zip(c0, self.flood(), self._plan.data_primes, strict=True):
            loops.add(rows[None], flood[None], prime)
        return Mask(c0, zero[1].copy())

    def flood(self) -> Array:
        """Residues int64 `(primes, places)` of integers uniform on [-2**f, 2**f) from the operating system."""
        bits = self._plan.flood_bits
        values = [secrets.randbits(bits + 1) - (1 << bits) for _ in range(len(self.places))]
        return np.array([[value % prime for value in values] for prime in self._plan.data_primes], dtype=np.int64)


def score_places(plan: RowPlan) -> Array:
    """Every coefficient that is a score in some layout, rising."""
    stride = [np.arange(layout.slots) * layout.stride(plan.ring_dimension) for layout in plan.layouts]
    return np.unique(np.concatenate(stride))


def evaluation_key(plan: RowPlan, key_id: str, public: Any) -> EvaluationKey[Mask]:
    """One of SEAL's public keys as an owner's at the service."""
    masks = Masks(plan, public)
    return EvaluationKey(plan.digest, key_id, masks.make, masks.mask_bytes)


def switched(residues: Array, primes: tuple[int, ...], kept: int) -> Array:
    """Residues int64 `(primes, n)` divided by all primes but the first `kept`, one at a time from the last, rounded.

    Coefficient by coefficient: (x - [x]_p) / p with [x]_p centred in (-p/2, p/2), as SEAL rounds.
    """
    for left in range(len(primes), kept, -1):
        last, remainder = primes[left - 1], np.ascontiguousarray(residues[left - 1 : left])
        result, lifted = np.empty((left - 1, residues.shape[1]), np.int64), np.empty_like(remainder)
        for at, prime in enumerate(primes[: left - 1]):
            loops.recentre(remainder, last, prime, lifted)
            loops.subtract_and_scale(residues[at : at + 1], lifted, pow(last, -1, prime), prime, result[at : at + 1])
        residues = result
    return residues
