"""What makes an answer tell the scores and no more: masks of every polynomial, and a flood over c0.

To a score C(Y) with coefficients c0 ... cd it adds the sum over j < d of Y**j times a fresh SEAL encryption of zero
under the owner's public key, and to c0 a polynomial whose N coefficients are uniform on [-2**f, 2**f), f the plan's
`flood_bits`. Before anything is rescaled: rounding first would make errors that depend on weights. The protocol's
SPEC.md has the argument.
"""

from __future__ import annotations

import os

import numpy as np

from securead.data.schema import Array
from securead.protocols.ckks.plan import CkksPlan
from securead.protocols.residues.layers import LinearMap
from securead.protocols.residues.numba_form import NumbaForm
from securead.protocols.residues.transforms import transform_for
from securead.protocols.seal import objects
from securead.protocols.seal.publickeys import EvaluationKey


class Sanitiser:
    """Adds masks and floods under one plan. Holds nothing that is used twice."""

    def __init__(self, plan: CkksPlan) -> None:
        self._plan = plan
        self._bits = plan.flood_bits + 1
        # Digits below every prime, so that they are residues as they are.
        self._digit = min(prime.bit_length() for prime in plan.data_primes) - 1
        number = -(-self._bits // self._digit)
        powers = np.array([[1 << self._digit * i for i in range(number)]], dtype=object)
        self._layers = [(NumbaForm(prime), LinearMap.compile(powers, prime)) for prime in plan.data_primes]

    def sanitise(self, score: Array, key: EvaluationKey) -> None:
        """Mask and flood a score int64 `(primes, degree + 1, N)` in place; fresh randomness every time."""
        primes = np.array(self._plan.data_primes, dtype=np.int64)[:, None, None]
        for j in range(self._plan.degree):
            zero, _ = objects.residues(key.encryption_of_zero())
            score[:, j : j + 2] += zero.swapaxes(0, 1).view(np.int64)
        score[:, 0] += self.flood(self.draw())
        score %= primes  # at most four residues were added up

    def draw(self) -> Array:
        """Uniform digits int64 `(digits, 1, N)` from the operating system: integers in [0, 2**(f + 1)), low first."""
        n, digits = self._plan.ring_dimension, []
        for start in range(0, self._bits, self._digit):
            width = min(self._digit, self._bits - start)
            words = np.frombuffer(os.urandom(8 * n), dtype="<i8")
            digits.append(words & ((1 << width) - 1))
        return np.stack(digits)[:, None]

    def flood(self, digits: Array) -> Array:
        """Residues int64 `(primes, N)` in NTT form of the polynomial with coefficients `digits` - 2**f."""
        centre = np.array([-(1 << self._plan.flood_bits)], dtype=object)
        return np.stack(
            [
                transform_for(form.prime, self._plan.ring_dimension).forward(form.affine([(layer, digits)], centre))[
                    0, 0
                ]
                for form, layer in self._layers
            ]
        )
