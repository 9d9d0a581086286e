"""The half that evaluates what it cannot read. It holds the weights and no key of any kind.

One ciphertext a feature, one slot a record: linear layers are sums of ciphertexts times constants, products are SEAL's.
A weight of zero is skipped, so the time of a request depends on how many there are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import tenseal.sealapi as seal

from securead.errors import FixInputError, FixProgramError, RejectMessageError
from securead.program.polynomial import Affine, Input, Product, PublicPolynomial, SecretPolynomial
from securead.program.program import Program
from securead.protocols.ckks.context import context_for
from securead.protocols.ckks.plan import CkksPlan, StepPlan
from securead.protocols.ckks.remedies import carried
from securead.protocols.engine import EvaluationKey
from securead.protocols.seal import objects, parts
from securead.protocols.seal.objects import Ciphertext
from securead.protocols.seal.sizes import compressed_limit


@dataclass(frozen=True)
class _Row:
    """One output of an affine step: real weights that are not zero by source and column, and the offset."""

    terms: tuple[tuple[int, int, float], ...]
    offset: float


@dataclass(frozen=True)
class _Constant:
    """A value that does not depend on the record, in real units: what a row of zero weights gives."""

    value: float


_Element = Ciphertext | _Constant


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


def read_evaluation_key(plan: CkksPlan, content: bytes) -> EvaluationKey:
    """Refused: this engine evaluates without a key of any kind."""
    raise RejectMessageError(
        "the engine ckks takes no evaluation key", value=len(content), remedy="Send requests only."
    )


class Evaluator:
    """Scores requests it cannot read. Holds the secret half; one instance serves any number of requests in turn."""

    def __init__(self, plan: CkksPlan, public: PublicPolynomial, secret: SecretPolynomial) -> None:
        self._plan, self._steps = plan, public.steps
        self._context = context_for(plan)
        self._levels = objects.level_ids(self._context)
        self._evaluator, self._encoder = seal.Evaluator(self._context), seal.CKKSEncoder(self._context)
        self._rows = {
            at: _rows(public, secret, at, step) for at, step in enumerate(self._steps) if isinstance(step, Affine)
        }
        self._last_use = _last_uses(public)
        if not self._depends_on_record():
            raise FixProgramError("the score does not depend on the record", remedy="Compile another model.")

    def evaluate(self, request: bytes, key: EvaluationKey | None = None, *, rows: int | None = None) -> bytes:
        """The answer payload. Raises `RejectMessageError` for anything but a well-formed request, before any work."""
        columns = self._load(request)
        try:
            return parts.pack([objects.save(self._score(columns))])
        except objects.SEAL_ERRORS as error:
            if "transparent" not in str(error):
                raise  # not the request's fault
            # Well-formed, but no honest encryptions: their sums cancel.
            raise RejectMessageError(f"SEAL cannot evaluate this request: {error}", remedy="Encrypt again.") from error

    def _load(self, request: bytes) -> list[Ciphertext]:
        plan = self._plan
        shape = objects.seeded if plan.role == "same" else objects.whole
        body = shape(plan.request_ciphertext_bytes)
        files = parts.unpack(request, count=plan.columns, limit=compressed_limit(body.length))
        top = self._levels[0]
        return [
            objects.load_ciphertext(self._context, part, body, parms_id=top, size=2, scale=plan.input_scale)
            for part in files
        ]

    def _score(self, columns: list[Ciphertext]) -> Ciphertext:
        values: list[list[_Element]] = []
        for at, (step, planned) in enumerate(zip(self._steps, self._plan.steps, strict=True)):
            match step:
                case Input():
                    values.append(list(columns[: step.width]))
                case Affine():
                    values.append(self._affine(step, planned, self._rows[at], values))
                case Product():
                    values.append(self._products(planned, values[step.left], values[step.right], step))
                case _:
                    raise AssertionError(step)
            for done in self._last_use.get(at, ()):
                values[done] = []
        score: Ciphertext = values[-1][0]
        if self._plan.has_public_column:
            self._add_scaled(score, columns[-1], self._plan.steps[-1])
        for _ in range(self._plan.final_rescales):
            self._evaluator.rescale_to_next_inplace(score)
        score.scale = self._plan.answer_scale
        return score

    def _affine(
        self, step: Affine, planned: StepPlan, rows: tuple[_Row, ...], values: list[list[_Element]]
    ) -> list[_Element]:
        sources = [self._at_level(values[source], planned.level) for source in step.sources]
        return [self._row(planned, row, sources) for row in rows]

    def _row(self, planned: StepPlan, row: _Row, sources: list[list[_Element]]) -> _Element:
        total: Ciphertext | None = None
        offset, level = row.offset, self._levels[planned.level]
        constant, term = seal.Plaintext(), seal.Ciphertext()
        for source, column, weight in row.terms:
            element = sources[source][column]
            if isinstance(element, _Constant):
                offset += weight * element.value
                continue
            self._encoder.encode(weight, level, planned.multipliers[source], constant)
            if weight == 1.0 == planned.multipliers[source]:  # an identity or a plain sum: nothing to multiply by
                if total is None:
                    total = self._copy(element)
                else:
                    self._evaluator.add_inplace(total, element)
                continue
            product = seal.Ciphertext() if total is None else term
            self._evaluator.multiply_plain(element, constant, product)
            # The plan's scale is this product, rounded to a double once; SEAL compares scales exactly.
            product.scale = planned.scale
            if total is None:
                total = product
            else:
                self._evaluator.add_inplace(total, product)
        if total is None:
            return _Constant(offset)
        if offset:
            self._encoder.encode(offset, level, planned.scale, constant)
            self._evaluator.add_plain_inplace(total, constant)
        return total

    def _products(
        self, planned: StepPlan, left: list[_Element], right: list[_Element], step: Product
    ) -> list[_Element]:
        steps, before = self._plan.steps, planned.level - planned.rescales
        square = step.left == step.right
        left = self._at_level(left, before)
        right = left if square else self._at_level(right, before)
        scales = steps[step.left].scale, steps[step.right].scale
        return [self._product(planned, a, b, scales, square=square) for a, b in zip(left, right, strict=True)]

    def _product(
        self, planned: StepPlan, a: _Element, b: _Element, scales: tuple[float, float], *, square: bool
    ) -> _Element:
        if isinstance(a, _Constant) and isinstance(b, _Constant):
            return _Constant(a.value * b.value)
        if isinstance(a, _Constant):
            return self._times_constant(planned, b, a.value, scales[0])
        if isinstance(b, _Constant):
            return self._times_constant(planned, a, b.value, scales[1])
        result = seal.Ciphertext()
        if square:
            self._evaluator.square(a, result)
        else:
            self._evaluator.multiply(a, b, result)
        return self._rescaled(planned, result)

    def _times_constant(self, planned: StepPlan, factor: Ciphertext, value: float, scale: float) -> _Element:
        constant, result = seal.Plaintext(), seal.Ciphertext()
        self._encoder.encode(value, factor.parms_id(), scale, constant)
        if constant.is_zero():
            return _Constant(0.0)
        self._evaluator.multiply_plain(factor, constant, result)
        return self._rescaled(planned, result)

    def _rescaled(self, planned: StepPlan, result: Ciphertext) -> Ciphertext:
        for _ in range(planned.rescales):
            self._evaluator.rescale_to_next_inplace(result)
        result.scale = planned.scale
        return result

    def _add_scaled(self, score: Ciphertext, column: Ciphertext, planned: StepPlan) -> None:
        """Add the column of public terms, brought to the score's level and scale."""
        (lowered,) = self._at_level([column], planned.level)
        one, scaled = seal.Plaintext(), seal.Ciphertext()
        self._encoder.encode(1.0, self._levels[planned.level], planned.multipliers[-1], one)
        self._evaluator.multiply_plain(lowered, one, scaled)
        scaled.scale = planned.scale
        self._evaluator.add_inplace(score, scaled)

    def _at_level(self, elements: list[_Element], level: int) -> list[_Element]:
        return [self._lowered(element, self._levels[level]) for element in elements]

    def _lowered(self, element: _Element, parms_id: Any) -> _Element:
        if isinstance(element, _Constant) or element.parms_id() == parms_id:
            return element
        lowered = seal.Ciphertext()
        self._evaluator.mod_switch_to(element, parms_id, lowered)
        return lowered

    def _copy(self, element: Ciphertext) -> Ciphertext:
        copied = seal.Ciphertext()
        self._evaluator.mod_switch_to(element, element.parms_id(), copied)
        return copied

    def _depends_on_record(self) -> bool:
        """Whether any chain of weights that are not zero leads from the record to the score."""
        alive: list[list[bool]] = []
        for at, step in enumerate(self._steps):
            match step:
                case Input():
                    alive.append([True] * step.width)
                case Affine():
                    rows = self._rows[at]
                    alive.append([any(alive[step.sources[s]][c] for s, c, _ in row.terms) for row in rows])
                case Product():
                    pairs = zip(alive[step.left], alive[step.right], strict=True)
                    alive.append([a or b for a, b in pairs])
                case _:
                    raise AssertionError(step)
        return alive[-1][0]


def _rows(public: PublicPolynomial, secret: SecretPolynomial, at: int, step: Affine) -> tuple[_Row, ...]:
    """The affine step's weights in real units: an integer over a power of two, exact in a double up to 53 bits."""
    weights = secret.weights[at]
    shifts = [step.fraction_bits - public.steps[source].fraction_bits for source in step.sources]

    def terms(row: int) -> Iterator[tuple[int, int, float]]:
        for source, (matrix, shift) in enumerate(zip(weights.matrices, shifts, strict=True)):
            for column in matrix[row].nonzero()[0]:
                yield source, int(column), _real(int(matrix[row, column]), shift)

    return tuple(
        _Row(tuple(terms(row)), _real(int(weights.offset[row]), step.fraction_bits)) for row in range(step.width)
    )


def _real(integer: int, fraction_bits: int) -> float:
    """`integer / 2**fraction_bits`, correctly rounded."""
    return math.ldexp(float(integer), -fraction_bits)


def _last_uses(public: PublicPolynomial) -> dict[int, list[int]]:
    """By step, the earlier steps that nothing after it needs: their ciphertexts are freed."""
    last: dict[int, int] = {}
    for at, step in enumerate(public.steps):
        match step:
            case Affine():
                last.update(dict.fromkeys(step.sources, at))
            case Product():
                last.update({step.left: at, step.right: at})
            case _:
                pass
    freed: dict[int, list[int]] = {}
    for source, at in last.items():
        freed.setdefault(at, []).append(source)
    return freed
