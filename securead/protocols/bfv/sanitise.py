"""What makes an answer tell the scores and no more: a mask of both polynomials, and a flood over what leaves of c0.

A mask is a SEAL encryption of zero under the owner's public key plus integers uniform on [-2**f, 2**f), f the plan's
`flood_bits`, at every coefficient that an answer of any layout may send. It is added before the modulus is switched,
never after. No mask depends on a request, so masks can be made ahead of time; each is used once.
"""

from __future__ import annotations

import secrets
from typing import Any

import numpy as np
import tenseal.sealapi as seal

from securead.data.schema import Array
from securead.protocols.bfv.context import context_for
from securead.protocols.bfv.plan import BfvPlan
from securead.protocols.seal import objects, publickeys
from securead.protocols.seal.objects import Ciphertext
from securead.protocols.seal.publickeys import EvaluationKey


class Masks:
    """Makes masks, floods included, for one plan and one of SEAL's public keys. Safe to use from several threads."""

    def __init__(self, plan: BfvPlan, public: Any) -> None:
        self._plan, self._context = plan, context_for(plan)
        self._encryptor, self._evaluator = seal.Encryptor(self._context, public), seal.Evaluator(self._context)
        n = plan.ring_dimension
        self.places = np.unique(np.concatenate([np.arange(x.slots) * x.stride(n) for x in plan.layouts]))

    @property
    def mask_bytes(self) -> int:
        """What one weighs."""
        return 16 * len(self._plan.data_primes) * self._plan.ring_dimension

    def make(self) -> Ciphertext:
        """A fresh mask, to be added to one group's sum of products."""
        mask = publickeys.encryption_of_zero(self._encryptor)
        self._evaluator.add_inplace(mask, self.flood())
        return mask

    def flood(self) -> Ciphertext:
        """A transparent ciphertext: the flood at every place where a score may stand, and 0 elsewhere."""
        plan = self._plan
        words = np.zeros((2, len(plan.data_primes), plan.ring_dimension), dtype=np.uint64)
        words[0][:, self.places] = self._draw(len(self.places))
        return objects.ciphertext_from_residues(self._context, self._context.first_parms_id(), words, ntt=False)

    def _draw(self, count: int) -> Array:
        """Residues `(primes, count)` of integers uniform on [-2**f, 2**f) from the operating system's generator."""
        bits = self._plan.flood_bits
        values = [secrets.randbits(bits + 1) - (1 << bits) for _ in range(count)]
        return np.array([[value % prime for value in values] for prime in self._plan.data_primes], dtype=np.uint64)


def evaluation_key(plan: BfvPlan, key_id: str, public: Any) -> EvaluationKey[Ciphertext]:
    """One of SEAL's public keys as an owner's at the service."""
    masks = Masks(plan, public)
    return EvaluationKey(plan.digest, key_id, masks.make, masks.mask_bytes)
