"""The half that evaluates what it cannot read. It holds the tables and owners' public keys, never a key that decrypts.

A group of rows is a sum of products of ciphertexts and table polynomials, transformed once; then it is masked by an
encryption of zero under the owner's key and flooded, before the modulus is switched down, and only the coefficients
that are scores leave. The work depends on public things alone, but for what SEAL takes to find that a product is zero
(the protocol's SPEC.md, section 6).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import tenseal.sealapi as seal

from securead.data.schema import Array
from securead.errors import FixInputError, RejectMessageError
from securead.program.program import Program
from securead.program.table import SecretTable
from securead.protocols import engine
from securead.protocols.bfv import crs, messages
from securead.protocols.bfv.context import context_for
from securead.protocols.bfv.layouts import Group, Layout
from securead.protocols.bfv.plan import BfvPlan, carried
from securead.protocols.bfv.sanitise import evaluation_key
from securead.protocols.seal import objects, publickeys
from securead.protocols.seal.objects import Ciphertext, Plaintext
from securead.protocols.seal.publickeys import EvaluationKey


def read_evaluation_key(plan: BfvPlan, content: bytes) -> EvaluationKey[Ciphertext]:
    """An owner's public key, or `RejectMessageError`: damaged, or of another plan.

    Its uniform half is the plan's: a key with a half of its own cannot be expressed.
    """
    half = crs.uniform_half(plan)
    key_id, public = publickeys.read_key(messages.KEY_FILES, plan.digest, content, context_for(plan), plan.chain, half)
    return evaluation_key(plan, key_id, public)


def make_evaluator(plan: BfvPlan, program: Program) -> Evaluator:
    """Prepare a program for requests under `plan`, which must have been derived from it."""
    carried(program.public)
    if plan.program_digest != program.digest:
        raise FixInputError(
            "the plan was made for another program",
            value=plan.program_digest[:16],
            remedy="Derive the plan from this program's public half.",
        )
    secret = program.secret
    if not isinstance(secret, SecretTable):
        raise TypeError(secret)
    return Evaluator(plan, np.concatenate(secret.tables))


class Evaluator:
    """Scores requests it cannot read. Holds the entries; one instance serves any number of requests in turn."""

    def __init__(self, plan: BfvPlan, entries: Array) -> None:
        self._plan = plan
        self._context = context_for(plan)
        self._evaluator = seal.Evaluator(self._context)
        self._tables = {layout: self._transformed(entries, layout) for layout in plan.layouts}

    def evaluate(self, request: bytes, key: engine.EvaluationKey | None = None, *, rows: int | None = None) -> bytes:
        """The answer payload. Raises `RejectMessageError` for anything but a well-formed request, and without its key.

        Every answer draws fresh randomness. A request for another number of rows than the message says is refused,
        because rows are what a service meters.
        """
        plan, claimed = self._plan, rows
        rows, key_id = messages.read_preamble(plan, request, "request")
        if claimed not in (None, rows):
            raise RejectMessageError("a request holds another number of rows than it claims", value=(claimed, rows))
        held = publickeys.require_key(key, plan.digest, key_id)
        queries = messages.ciphertexts(plan, request)
        parts = [self._answer(group, queries, held) for group in plan.groups(rows)]
        return messages.preamble(rows, key_id) + b"".join(parts)

    def _answer(self, group: Group, queries: Iterator[Ciphertext], key: EvaluationKey[Ciphertext]) -> bytes:
        total = self._looked_up(group.layout, queries)
        kept = np.arange(group.rows) * group.layout.stride(self._plan.ring_dimension)
        self._sanitise(total, key.mask())
        for _ in self._plan.data_primes[1:]:
            self._evaluator.mod_switch_to_next_inplace(total)
        words, _ = objects.residues(total)
        return messages.pack_group(self._plan, words, kept)

    def _sanitise(self, total: Ciphertext, mask: Ciphertext) -> None:
        """Mask both polynomials and flood what leaves: before the modulus is switched, never after."""
        self._evaluator.add_inplace(total, mask)

    def _looked_up(self, layout: Layout, queries: Iterator[Ciphertext]) -> Ciphertext:
        """The sum of a group's products: exact, but it must not leave, as the owner could solve it for the tables."""
        evaluator = self._evaluator
        total: Ciphertext | None = None
        for table in self._tables[layout]:
            query = next(queries)
            evaluator.transform_to_ntt_inplace(query)
            _even_if_transparent(lambda: evaluator.multiply_plain_inplace(query, table))  # noqa: B023
            if total is None:
                total = query
            else:
                _even_if_transparent(lambda: evaluator.add_inplace(total, query))  # noqa: B023
        _even_if_transparent(lambda: evaluator.transform_from_ntt_inplace(total))
        return total

    def _transformed(self, entries: Array, layout: Layout) -> list[Plaintext]:
        """A layout's table polynomials in NTT form: entry i of a piece at -X**(N - i), which is X**-i."""
        plan, stride = self._plan, layout.stride(self._plan.ring_dimension)
        tables = []
        for start in range(0, layout.pieces * stride, stride):
            piece = entries[start : start + stride].tolist()
            minus, n = 1 << plan.plain_bits, plan.ring_dimension
            terms = [f"{minus - v:X}x^{n - i}" for i, v in enumerate(piece) if i and v]
            terms += [f"{v:X}" for v in piece[:1] if v]
            polynomial = seal.Plaintext(" + ".join(terms) or "0")
            self._evaluator.transform_to_ntt_inplace(polynomial, self._context.first_parms_id())
            tables.append(polynomial)
        return tables


def _even_if_transparent(call: Callable[[], None]) -> None:
    """Let SEAL finish an operation in place, and overlook that its result hides nothing.

    SEAL raises after it has computed. Tables of zeros and hostile queries get there; the mask that is added later hides
    everything, and an error here would tell a client about the tables.
    """
    try:
        call()
    except objects.SEAL_ERRORS as error:
        if "transparent" not in str(error):
            raise
