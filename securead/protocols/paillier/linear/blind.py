"""The half that evaluates what it cannot read: weights and owners' public keys, never a key that decrypts.

A weighted sum is a product of powers. Weights are taken digit by digit and ciphertexts multiplied into the bucket of
their digit (Pippenger 1976), so that the number of multiplications, all of numbers of full size, follows from the plan
alone. What leaves is masked by a fresh n-th power, and random above the bits of the rows that are metered.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

import numpy as np

from securead.errors import FixInputError, RejectMessageError, UseOtherKeyError
from securead.program.polynomial import Affine, PublicPolynomial, SecretPolynomial
from securead.program.program import Program
from securead.program.table import SecretTable
from securead.protocols import engine
from securead.protocols.paillier import moduli
from securead.protocols.paillier.linear import messages
from securead.protocols.paillier.linear.messages import KEY_FILES
from securead.protocols.paillier.linear.plan import DIGIT_BITS, LinearPlan, carried
from securead.protocols.paillier.powers import powers, whole
from securead.protocols.seal.pool import Pool


class EvaluationKey:
    """An owner's modulus, checked, and n-th powers made ahead of time: see `engine.RefillableKey`."""

    def __init__(self, plan_digest: str, key_id: str, n: int) -> None:
        self.plan_digest, self.key_id, self.n = plan_digest, key_id, whole(n)
        self._masks: Pool[Any] = Pool(self._mask, 2 * (n.bit_length() // 8))

    def _mask(self) -> Any:
        return powers([moduli.random_unit(int(self.n))], self.n, self.n * self.n)[0]

    def mask(self) -> Any:
        """rho**n modulo n**2 for a uniform unit rho, for one use."""
        return self._masks.take()

    @property
    def held_bytes(self) -> int:
        """What the masks that wait weigh."""
        return self._masks.held_bytes

    def refill(self, limit: int | None = None) -> int:
        """Make one mask ahead of its use, as far as `limit` bytes allow."""
        return self._masks.refill(limit)


def read_evaluation_key(plan: LinearPlan, content: bytes) -> EvaluationKey:
    """An owner's public key, or `RejectMessageError`: damaged, of another plan, or a modulus that would not mask."""
    try:
        key_id, body = KEY_FILES.read("public", plan.digest, content, limit=plan.public_key_bytes)
        n = messages.modulus(plan, body)
    except (FixInputError, UseOtherKeyError) as error:
        raise RejectMessageError(error.what, value=error.value, remedy=error.remedy) from error
    return EvaluationKey(plan.digest, key_id, n)


def make_evaluator(plan: LinearPlan, program: Program) -> Evaluator:
    """Prepare a program for requests under `plan`, which must have been derived from it."""
    carried(program.public)
    if plan.program_digest != program.digest:
        raise FixInputError(
            "the plan was made for another program",
            value=plan.program_digest[:16],
            remedy="Derive the plan from this program's public half.",
        )
    return Evaluator(plan, *_weights(program))


class Evaluator:
    """Scores requests it cannot read; one instance serves any number of requests, from any thread."""

    def __init__(self, plan: LinearPlan, weights: Sequence[int], constant: int) -> None:
        self._plan, self._constant = plan, constant
        self._lift = 1 << plan.weight_bits if plan.signed else 0
        lifted = [weight + self._lift for weight in weights]
        if not all(0 <= weight < 1 << DIGIT_BITS * plan.digits for weight in lifted):
            raise FixInputError("a weight beyond its declared range", where=plan.engine)
        mask = (1 << DIGIT_BITS) - 1
        self._digits = [[weight >> DIGIT_BITS * at & mask for weight in lifted] for at in range(plan.digits)]

    def evaluate(self, request: bytes, key: engine.EvaluationKey | None = None, *, rows: int | None = None) -> bytes:
        """The answer payload. Raises `RejectMessageError` for anything but a well-formed request, and without its key.

        A request for another number of rows than the message says is refused, because rows are what a service meters.
        """
        plan, claimed = self._plan, rows
        rows, key_id, ciphertexts = messages.unpack(plan, request, "request")
        if claimed not in (None, rows):
            raise RejectMessageError("a request holds another number of rows than it claims", value=(claimed, rows))
        if not isinstance(key, EvaluationKey) or (key.plan_digest, key.key_id) != (plan.digest, key_id):
            raise RejectMessageError(
                "no public key to mask the answer with", value=key_id[:16], remedy="Send the request's owner's key."
            )
        moduli.check_units(int(key.n), ciphertexts, "a feature's ciphertext")
        n, square = key.n, key.n * key.n
        total, added = self._multiplied(ciphertexts, n)
        if self._lift:
            product = whole(1)
            for ciphertext in ciphertexts:
                product = product * ciphertext % square
            total = total * whole(pow(int(product), -self._lift, int(square))) % square
        slots = plan.slot_bits * rows
        # One in every slot, times what each row has added: the constant, and what lifts it above zero.
        each = ((1 << slots) - 1) // ((1 << plan.slot_bits) - 1) * (self._constant + plan.lift)
        high = secrets.randbelow(int(n) >> slots) << slots
        total = total * (1 + (each + high - added) % n * n) % square
        return messages.pack(plan, rows, key_id, [total * key.mask() % square])

    def _multiplied(self, ciphertexts: Sequence[Any], n: Any) -> tuple[Any, int]:
        """An encryption of the weighted sum plus a number, and the number.

        Buckets begin as the encryption of a random number, so that no product is of a one.
        """
        square, total, added = n * n, whole(1), 0
        drawn = secrets.randbelow(int(n))
        begin = 1 + drawn * n
        for digits in reversed(self._digits):
            total = powers([total], 1 << DIGIT_BITS, square)[0]
            added <<= DIGIT_BITS
            buckets = [begin] * (1 << DIGIT_BITS)
            for digit, ciphertext in zip(digits, ciphertexts, strict=True):
                buckets[digit] = buckets[digit] * ciphertext % square
            running = whole(1)
            for bucket in reversed(buckets[1:]):
                running = running * bucket % square
                total = total * running % square
            added += drawn * sum(range(1 << DIGIT_BITS))
        return total, added


def _weights(program: Program) -> tuple[list[int], int]:
    """The weight of every feature in the score, and the constant: the program's steps, one after the other, exactly."""
    public, secret = program.public, program.secret
    if isinstance(secret, SecretTable):
        return np.concatenate(secret.tables).tolist(), 0
    if not isinstance(public, PublicPolynomial) or not isinstance(secret, SecretPolynomial):
        raise TypeError(public)
    width = public.encoder.width
    maps: list[tuple[Any, Any]] = [(np.eye(width, dtype=int).astype(object), np.zeros(width, dtype=object))]
    for at, step in enumerate(public.steps[1:], 1):
        if not isinstance(step, Affine):
            raise TypeError(step)
        own = secret.weights[at]
        matrices = [matrix.astype(object) for matrix in own.matrices]
        linear = sum(m @ maps[source][0] for source, m in zip(step.sources, matrices, strict=True))
        offset = sum(m @ maps[source][1] for source, m in zip(step.sources, matrices, strict=True))
        maps.append((linear, offset + own.offset.astype(object)))
    linear, offset = maps[-1]
    return [int(weight) for weight in linear[0]], int(offset[0])
