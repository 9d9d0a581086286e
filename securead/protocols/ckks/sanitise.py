"""What makes an answer tell the scores and no more: masks of every polynomial, and a flood over c0.

To a score C(Y) with coefficients c0 ... cd is added the sum over j < d of Y**j times a fresh SEAL encryption of zero
under the owner's public key, modulo the data primes alone, and to c0 a polynomial whose N coefficients are uniform on
[-2**f, 2**f), f the plan's `flood_bits`. Before anything is rescaled: rounding first would make errors that depend on
weights. The protocol's SPEC.md has the argument. No mask depends on a request, so masks can be made ahead of time; each
is used once.
"""

from __future__ import annotations

import itertools
import os
from typing import Any

import numpy as np
import tenseal.sealapi as seal

from securead.data.schema import Array
from securead.protocols.ckks.context import context_for
from securead.protocols.ckks.plan import CkksPlan
from securead.protocols.residues import loops
from securead.protocols.residues.transforms import transform_for
from securead.protocols.seal import objects, publickeys
from securead.protocols.seal.publickeys import EvaluationKey


class Masks:
    """Makes masks, floods included, for one plan and one of SEAL's public keys. Safe to use from several threads."""

    def __init__(self, plan: CkksPlan, public: Any) -> None:
        context = context_for(plan)
        self._plan, self._encryptor, self._level = plan, seal.Encryptor(context, public), context.key_parms_id()
        self._bits = plan.flood_bits + 1
        # Digits below every prime, so that they are residues as they are, and of whole words.
        self._digit = min(32, min(prime.bit_length() for prime in plan.data_primes) - 1)
        self.shape = (len(plan.data_primes), plan.answer_size, plan.ring_dimension)
        # Compiled loops and tables, now rather than in the first answer.
        self.flood(self.draw())

    @property
    def mask_bytes(self) -> int:
        """What one weighs."""
        return 8 * int(np.prod(self.shape))

    def make(self) -> Array:
        """A fresh mask: residues int64 `(primes, degree + 1, N)` in NTT form, to be added to one score."""
        # At SEAL's key level, and without the residues of the special prime: an encryption of zero modulo q P is one
        # modulo q, and SEAL need not round P away.
        primes = self._plan.data_primes
        mask = np.zeros(self.shape, np.int64)
        mask[:, 0] = self.flood(self.draw())
        for j in range(self._plan.degree):
            words, _ = objects.residues(publickeys.encryption_of_zero(self._encryptor, self._level))
            for half, at in itertools.product((0, 1), range(len(primes))):
                loops.add(mask[at, j + half][None], words[half, at][None].view(np.int64), primes[at])
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
        flood = np.empty((len(plan.data_primes), plan.ring_dimension), np.int64)
        for prime, row in zip(plan.data_primes, flood, strict=True):
            powers = np.array([pow(2, self._digit * i, prime) for i in range(len(digits))], dtype=np.int64)
            loops.combine(digits, powers, -(1 << plan.flood_bits) % prime, prime, row)
            row[:] = transform_for(prime, plan.ring_dimension).forward(row)
        return flood


def evaluation_key(plan: CkksPlan, key_id: str, public: Any) -> EvaluationKey[Array]:
    """One of SEAL's public keys as an owner's at the service."""
    masks = Masks(plan, public)
    return EvaluationKey(plan.digest, key_id, masks.make, masks.mask_bytes)


def sanitise(plan: CkksPlan, score: Array, mask: Array) -> None:
    """Add a mask that is used for nothing else to a score, residues int64 `(primes, degree + 1, N)`, in place."""
    for prime, rows, added in zip(plan.data_primes, score, mask, strict=True):
        loops.add(rows, added, prime)
