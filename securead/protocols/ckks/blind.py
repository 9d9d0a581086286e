"""The half that evaluates what it cannot read. It holds the weights and owners' public keys, never a key that decrypts.

One ciphertext a feature, one slot a record. A request is parsed to bare residues and evaluated prime by prime and block
by block with exact kernels (`circuit`); the score is masked and flooded (`sanitise`), and only then rescaled.
"""

from __future__ import annotations

import numpy as np
from threadpoolctl import ThreadpoolController

from securead.data.schema import Array
from securead.errors import FixInputError, FixProgramError, RejectMessageError
from securead.program.polynomial import PublicPolynomial, SecretPolynomial
from securead.program.program import Program
from securead.protocols import engine
from securead.protocols.ckks import messages
from securead.protocols.ckks.circuit import Circuit, depends_on_record
from securead.protocols.ckks.context import context_for
from securead.protocols.ckks.plan import CkksPlan
from securead.protocols.ckks.remedies import carried
from securead.protocols.ckks.sanitise import Sanitiser
from securead.protocols.residues.transforms import rescale
from securead.protocols.seal import publickeys
from securead.protocols.seal.publickeys import EvaluationKey

BLOCK_SLOTS = 1024  # a block's layers stay in a core's cache


def read_evaluation_key(plan: CkksPlan, content: bytes) -> EvaluationKey:
    """An owner's public key, or `RejectMessageError`: damaged, or of another plan.

    Its uniform half is the plan's: a key with a half of its own cannot be expressed.
    """
    half = messages.uniform_half(plan)
    return publickeys.read_evaluation_key(messages.KEY_FILES, plan.digest, content, context_for(plan), plan.chain, half)


def make_evaluator(plan: CkksPlan, program: Program) -> Evaluator:
    """Prepare a program for requests under `plan`, which must have been derived from it."""
    if plan.program_digest != program.digest:
        raise FixInputError(
            "the plan was made for another program",
            value=plan.program_digest[:16],
            remedy="Derive the plan from this program's public half.",
        )
    secret = program.secret
    if not isinstance(secret, SecretPolynomial):
        raise TypeError(secret)
    return Evaluator(plan, carried(program.public), secret)


class Evaluator:
    """Scores requests it cannot read. Holds the secret half; one instance serves any number of requests in turn."""

    def __init__(self, plan: CkksPlan, public: PublicPolynomial, secret: SecretPolynomial) -> None:
        if not depends_on_record(public, secret):
            raise FixProgramError("the score does not depend on the record", remedy="Compile another model.")
        self._plan = plan
        # A block's matrix products are far too small to share: threads of BLAS would only wait for each other.
        self._blas = ThreadpoolController()
        self._circuits = [Circuit(plan, public, secret, prime) for prime in plan.data_primes]
        self._sanitiser = Sanitiser(plan)
        # Compiled loops and tables, now rather than in the first request.
        self._circuits[0].block(np.zeros((plan.columns, 2, BLOCK_SLOTS), np.int64))
        self._rescaled(np.zeros((len(plan.data_primes), 1, plan.ring_dimension), np.int64))
        self._sanitiser.flood(self._sanitiser.draw())

    def evaluate(self, request: bytes, key: engine.EvaluationKey | None = None, *, rows: int | None = None) -> bytes:
        """The answer payload. Raises `RejectMessageError` for anything but a well-formed request, and without its key.

        Everything is checked before anything is computed. Every answer draws fresh randomness. A request for another
        number of rows than the message says is refused.
        """
        plan, claimed = self._plan, rows
        rows, key_id = messages.read_preamble(plan, request, "request")
        if claimed not in (None, rows):
            raise RejectMessageError("a request holds another number of rows than it claims", value=(claimed, rows))
        held = publickeys.require_key(key, plan.digest, key_id)
        score = self._score(messages.columns(plan, request, BLOCK_SLOTS))
        self._sanitiser.sanitise(score, held)
        return messages.preamble(rows, key_id) + messages.pack_answer(plan, self._rescaled(score))

    def _score(self, columns: Array) -> Array:
        """The program on a request: int64 `(primes, degree + 1, N)`; exact, and it must not leave."""
        plan = self._plan
        score = np.empty((len(plan.data_primes), plan.answer_size, plan.ring_dimension), np.int64)
        with self._blas.limit(limits=1, user_api="blas"):
            for circuit, blocks, result in zip(self._circuits, columns, score, strict=True):
                for block, start in zip(blocks, range(0, plan.ring_dimension, BLOCK_SLOTS), strict=True):
                    result[:, start : start + BLOCK_SLOTS] = circuit.block(block)
        return score

    def _rescaled(self, score: Array) -> Array:
        for left in range(len(score), self._plan.answer_primes, -1):
            score = rescale(score, self._plan.data_primes[:left])
        return score
