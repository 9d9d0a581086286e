"""The half that evaluates what it cannot read. It holds the weights and owners' public keys, never a key that decrypts.

One ciphertext a feature, one slot a record. A request is parsed to bare residues and evaluated prime by prime and block
by block with exact kernels (`circuit`); the score is masked and flooded (`sanitise`), and only then rescaled.
"""

from __future__ import annotations

import numpy as np

from securead.data.schema import Array
from securead.errors import FixInputError, FixProgramError, RejectMessageError
from securead.program.polynomial import PublicPolynomial, SecretPolynomial
from securead.program.program import Program
from securead.protocols import engine
from securead.protocols.ckks import messages, requests
from securead.protocols.ckks.circuit import Circuit, depends_on_record
from securead.protocols.ckks.context import context_for
from securead.protocols.ckks.plan import CkksPlan
from securead.protocols.ckks.remedies import carried
from securead.protocols.ckks.sanitise import evaluation_key, sanitise
from securead.protocols.ckks.stages import Stages
from securead.protocols.residues.transforms import rescale
from securead.protocols.seal import publickeys
from securead.protocols.seal.publickeys import EvaluationKey

BLOCK_SLOTS = 1024  # a block's layers stay in a core's cache


def read_evaluation_key(plan: CkksPlan, content: bytes) -> EvaluationKey[Array]:
    """An owner's public key, or `RejectMessageError`: damaged, or of another plan.

    Its uniform half is the plan's: a key with a half of its own cannot be expressed.
    """
    half = messages.uniform_half(plan)
    key_id, public = publickeys.read_key(messages.KEY_FILES, plan.digest, content, context_for(plan), plan.chain, half)
    return evaluation_key(plan, key_id, public)


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
        self._stages = Stages()
        self._circuits = [Circuit(plan, public, secret, prime, self._stages) for prime in plan.data_primes]
        # Compiled loops and tables, now rather than in the first request.
        self._circuits[0].block(requests.columns(plan, bytes(plan.max_request_bytes), BLOCK_SLOTS)[0, 0])
        score = np.zeros((len(plan.data_primes), plan.answer_size, plan.ring_dimension), np.int64)
        sanitise(plan, score, score.copy())
        self._rescaled(score)
        self._stages.clear()

    def evaluate(self, request: bytes, key: engine.EvaluationKey | None = None, *, rows: int | None = None) -> bytes:
        """The answer payload. Raises `RejectMessageError` for anything but a well-formed request, and without its key.

        Everything is checked before anything is computed. Every answer draws fresh randomness. A request for another
        number of rows than the message says is refused.
        """
        plan, claimed, stages = self._plan, rows, self._stages
        stages.start()
        rows, key_id = messages.read_preamble(plan, request, "request")
        if claimed not in (None, rows):
            raise RejectMessageError("a request holds another number of rows than it claims", value=(claimed, rows))
        held = publickeys.require_key(key, plan.digest, key_id)
        columns = requests.columns(plan, request, BLOCK_SLOTS)
        stages.end("parse")
        score = self._score(columns)
        sanitise(plan, score, held.mask())
        stages.end("sanitise")
        answer = messages.preamble(rows, key_id) + messages.pack_answer(plan, self._rescaled(score))
        stages.end("pack")
        return answer

    @property
    def stages(self) -> dict[str, float]:
        """Processor seconds so far by stage: parse, linear, products, sanitise (masks made at once included), and pack,
        which rescales, too. It is public timing: it depends on the plan and on which weights are zero or one, and on
        nothing in a request.
        """
        return dict(self._stages.seconds)

    def _score(self, columns: Array) -> Array:
        """The program on a request: int64 `(primes, degree + 1, N)`; exact, and it must not leave."""
        plan = self._plan
        score = np.empty((len(plan.data_primes), plan.answer_size, plan.ring_dimension), np.int64)
        for circuit, blocks, result in zip(self._circuits, columns, score, strict=True):
            for block, start in zip(blocks, range(0, plan.ring_dimension, BLOCK_SLOTS), strict=True):
                result[:, start : start + BLOCK_SLOTS] = circuit.block(block)
        return score

    def _rescaled(self, score: Array) -> Array:
        for left in range(len(score), self._plan.answer_primes, -1):
            score = rescale(score, self._plan.data_primes[:left])
        return score
