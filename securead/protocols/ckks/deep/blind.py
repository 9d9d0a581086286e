"""The half that evaluates what it cannot read. It holds the weights and owners' public keys, never a key that decrypts.

One ciphertext a feature, one slot a record. A request is parsed to bare residues and evaluated with exact kernels;
relinearising and rescaling round as SEAL does (`circuit`). The score is masked and flooded (`sanitise`), and only then
rescaled for the answer.
"""

from __future__ import annotations

import numpy as np

from securead.data.schema import Array
from securead.errors import FixInputError, FixProgramError, RejectMessageError, UseOtherKeyError
from securead.program.polynomial import PublicPolynomial, SecretPolynomial
from securead.program.program import Program
from securead.protocols import engine
from securead.protocols.ckks.deep import messages, requests
from securead.protocols.ckks.deep.circuit import Circuit, depends_on_record
from securead.protocols.ckks.deep.context import context_for
from securead.protocols.ckks.deep.plan import DeepPlan
from securead.protocols.ckks.deep.remedies import carried
from securead.protocols.ckks.deep.sanitise import DeepKey, sanitise
from securead.protocols.ckks.stages import Stages
from securead.protocols.residues.switching import rescale_by
from securead.protocols.seal import objects, packing, publickeys

STAGES = ("parse", "linear", "products", "relinearise", "rescale", "sanitise", "pack")


def read_evaluation_key(plan: DeepPlan, content: bytes) -> DeepKey:
    """An owner's public key, or `RejectMessageError`: damaged, or of another plan.

    Its uniform halves are the plan's: a key with halves of its own cannot be expressed.
    """
    limit = packing.residue_bytes(plan.ring_dimension, plan.chain) * plan.key_polynomials
    try:
        key_id, body = messages.KEY_FILES.read("public", plan.digest, content, limit=limit)
    except (FixInputError, UseOtherKeyError) as error:
        raise RejectMessageError(error.what, value=error.value, remedy=error.remedy) from error
    words = messages.read_key(plan, body)
    both = np.stack([words[0], messages.uniform_halves(plan)[0]])
    return DeepKey(plan, key_id, objects.public_key_from_residues(context_for(plan), both), words[1:].view(np.int64))


def make_evaluator(plan: DeepPlan, program: Program) -> Evaluator:
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

    def __init__(self, plan: DeepPlan, public: PublicPolynomial, secret: SecretPolynomial) -> None:
        if not depends_on_record(public, secret):
            raise FixProgramError("the score does not depend on the record", remedy="Compile another model.")
        self._plan, self._stages = plan, Stages(STAGES)
        self._halves = messages.uniform_halves(plan)[1:].view(np.int64)
        self._circuit = Circuit(plan, public, secret, self._stages)

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
        assert isinstance(held, DeepKey)  # noqa: S101  (of this plan)
        columns = requests.columns(plan, request)
        stages.end("parse")
        score = self._score(columns, held)
        del columns
        sanitise(plan, score, held.mask())
        stages.end("sanitise")
        kept = plan.data_primes[: plan.last_primes]
        score = rescale_by(score, kept, plan.last_primes - plan.answer_primes)
        answer = messages.preamble(rows, key_id) + messages.pack_answer(plan, score)
        stages.end("pack")
        return answer

    @property
    def stages(self) -> dict[str, float]:
        """Processor seconds so far by stage; masks made at once are in `sanitise`. It is public timing: it depends on
        the plan and on which weights are zero, and on nothing in a request.
        """
        return dict(self._stages.seconds)

    def _score(self, columns: Array, key: DeepKey) -> Array:
        """The program on a request, before masks; it must not leave."""
        return self._circuit.score(columns, key.digits, self._halves)
