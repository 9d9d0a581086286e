"""The half that evaluates what it cannot read. It holds the weights and owners' public keys, never a key that decrypts.

The program is expanded to the coefficients of its monomials when it is loaded. A request's ciphertexts are multiplied
by polynomials of these coefficients with exact kernels and added up; the sum is masked by an encryption of zero under
the owner's key and flooded, before the modulus is switched down, and only the coefficients that are scores leave. The
work depends on plan and rows alone, not on a weight.
"""

from __future__ import annotations

import numpy as np

from securead.data.schema import Array
from securead.errors import FixInputError, RejectMessageError
from securead.program.polynomial import PublicPolynomial, SecretPolynomial
from securead.program.program import Program
from securead.protocols import engine
from securead.protocols.bfv.layouts import Group, Layout
from securead.protocols.ckks.row import messages, requests
from securead.protocols.ckks.row.coefficients import expand
from securead.protocols.ckks.row.context import context_for
from securead.protocols.ckks.row.plan import RowPlan, carried
from securead.protocols.ckks.row.sanitise import Mask, evaluation_key, score_places, switched
from securead.protocols.residues import loops
from securead.protocols.residues.layers import ProductSum
from securead.protocols.residues.numba_form import NumbaForm
from securead.protocols.residues.transforms import transform_for
from securead.protocols.seal import publickeys
from securead.protocols.seal.publickeys import EvaluationKey

_AT_ONCE = 16  # products that are added up before they are reduced: proved exact for the widest primes


def read_evaluation_key(plan: RowPlan, content: bytes) -> EvaluationKey[Mask]:
    """An owner's public key, or `RejectMessageError`: damaged, or of another plan.

    Its uniform half is the plan's: a key with a half of its own cannot be expressed.
    """
    half = messages.uniform_half(plan)
    key_id, public = publickeys.read_key(messages.KEY_FILES, plan.digest, content, context_for(plan), plan.chain, half)
    return evaluation_key(plan, key_id, public)


def make_evaluator(plan: RowPlan, program: Program) -> Evaluator:
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
    return Evaluator(plan, carried(program.public, plan.role), secret)


class Evaluator:
    """Scores requests it cannot read. Holds the coefficients; one instance serves any number of requests in turn."""

    def __init__(self, plan: RowPlan, public: PublicPolynomial, secret: SecretPolynomial) -> None:
        self._plan = plan
        self._forms = [NumbaForm(prime) for prime in plan.data_primes]
        self._transforms = [transform_for(prime, plan.ring_dimension) for prime in plan.data_primes]
        self._places = score_places(plan)
        expanded = [expand(public, secret, plan.role, plan.degree, prime) for prime in plan.data_primes]
        self._constants = [
            c * pow(2, plan.scale_bits, p) % p for (c, _), p in zip(expanded, plan.data_primes, strict=True)
        ]
        lines = [line for _, line in expanded]
        self._tables = {layout: self._transformed(lines, layout) for layout in plan.layouts}
        self._warm_up()

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
        parts, first = [messages.preamble(rows, key_id)], 0
        for group in plan.groups(rows):
            total = self._multiplied(group.layout, request, first)
            parts.append(self._answer(group, total, held.mask()))
            first += group.layout.pieces
        return b"".join(parts)

    def _answer(self, group: Group, total: Array, mask: Mask) -> bytes:
        plan, places = self._plan, messages.group_places(self._plan, group)
        kept = self._sanitised(total, places, mask)
        left = switched(kept, plan.data_primes, plan.answer_primes).view(np.uint64)
        return messages.pack_group(plan, left[:, : len(places)], left[:, len(places) :])

    def _sanitised(self, total: Array, places: Array, mask: Mask) -> Array:
        """A sum of products masked, and flooded where it leaves: c0 at `places`, then c1, int64 `(primes, n)`.

        Before the modulus is switched, never after.
        """
        kept = np.concatenate([total[:, 0, places], total[:, 1]], axis=1)
        added = np.concatenate([mask.c0[:, np.searchsorted(self._places, places)], mask.c1], axis=1)
        for row, one, prime in zip(kept, added, self._plan.data_primes, strict=True):
            loops.add(row[None], one[None], prime)
        return kept

    def _multiplied(self, layout: Layout, request: bytes, first: int) -> Array:
        """The sum of a group's products, and the constant: int64 `(primes, 2, N)`, in coefficients.

        The group's ciphertexts begin with number `first`. Exact, but it must not leave, as the owner could solve it for
        the coefficients.
        """
        plan, tables = self._plan, self._tables[layout]
        total = np.zeros((len(plan.data_primes), 2, plan.ring_dimension), np.int64)
        for at in range(0, layout.pieces, _AT_ONCE):
            count = min(_AT_ONCE, layout.pieces - at)
            read = requests.residues(plan, request, first + at, count)
            every = zip(self._forms, self._transforms, tables, read, total, strict=True)
            for form, transform, table, queries, result in every:
                products = ProductSum.compile(np.ones(count, dtype=object), (1, 2), form.prime)
                factors = table[at : at + count, None]
                loops.add(result, form.sum_of_products(products, factors, transform.forward(queries))[0], form.prime)
        for transform, result, constant in zip(self._transforms, total, self._constants, strict=True):
            result[:] = transform.inverse(result)
            # Coefficients that are no scores get it, too, and do not leave.
            result[0] = (result[0] + constant) % transform.prime
        return total

    def _transformed(self, lines: list[Array], layout: Layout) -> Array:
        """A layout's polynomials, transformed: int64 `(primes, pieces, N)`; coefficient i at X**-i = -X**(N - i)."""
        plan, stride = self._plan, layout.stride(self._plan.ring_dimension)
        tables = np.zeros((len(lines), layout.pieces, plan.ring_dimension), np.int64)
        for line, transform, table in zip(lines, self._transforms, tables, strict=True):
            padded = np.zeros(layout.pieces * stride, np.int64)
            padded[: len(line)] = line
            pieces = padded.reshape(layout.pieces, stride)
            table[:, 0] = pieces[:, 0]
            table[:, plan.ring_dimension - stride + 1 :] = -pieces[:, :0:-1] % transform.prime
            table[:] = transform.forward(table)
        return tables

    def _warm_up(self) -> None:
        """Compiled loops, now rather than in the first request."""
        plan, layout = self._plan, self._plan.groups(1)[0].layout
        total = self._multiplied(layout, b"\1" * plan.request_bytes(1), 0)
        mask = Mask(total[:, 0, self._places], total[:, 1])
        switched(self._sanitised(total, self._places[:1], mask), plan.data_primes, plan.answer_primes)
