"""A program's steps on the residues of one prime: exact integers, slot by slot, no key and no randomness.

Every weight under encryption is the program's integer times a power of two (`propagate`), compiled with the proof that
evaluating it is exact. Rows of zeros give the offset alone, as a ciphertext like any other. The time of a block depends
on the plan and on which weights are zero, not on residues.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from securead.data.schema import Array
from securead.errors import FixProgramError
from securead.program.polynomial import Affine, Input, Product, PublicPolynomial, SecretPolynomial
from securead.protocols.ckks.plan import CkksPlan
from securead.protocols.residues.layers import LinearMap, ProductSum
from securead.protocols.residues.numba_form import NumbaForm


@dataclass(frozen=True, eq=False)
class _Layer:
    """An affine step: a linear map by source, and its offsets. `fused` is the source that is summed as products."""

    maps: tuple[tuple[int, LinearMap], ...]
    offsets: Array | None
    fused: tuple[int, ProductSum] | None = None


class Circuit:
    """The program modulo one prime. One instance serves one thread at a time."""

    def __init__(self, plan: CkksPlan, public: PublicPolynomial, secret: SecretPolynomial, prime: int) -> None:
        self._plan, self._steps, self._prime = plan, public.steps, prime
        self._form = NumbaForm(prime)
        self._one = LinearMap.compile(np.ones((1, 1), dtype=int), prime)
        raised = plan.score_scale_bits - plan.input_fraction_bits - plan.excess_bits
        self._raise = LinearMap.compile(np.array([[1 << raised]], dtype=object), prime)
        self._layers = {
            at: self._compile(at, step, secret) for at, step in enumerate(public.steps) if isinstance(step, Affine)
        }
        self._fused = {layer.fused[0] for layer in self._layers.values() if layer.fused}

    def block(self, columns: Array) -> Array:
        """The score's polynomials `(degree + 1, slots)` from a request's columns `(columns, 2, slots)`, int64."""
        values: list[Array | None] = []
        for at, step in enumerate(self._steps):
            match step:
                case Input():
                    values.append(columns[: step.width])
                case Affine():
                    column = columns[-1:] if step is self._steps[-1] and self._plan.has_public_column else None
                    values.append(self._affine(self._layers[at], values, column))
                case Product():
                    values.append(None if at in self._fused else self._product(step, values))
                case _:
                    raise AssertionError(step)
        score: Array = _known(values[-1])[0]
        return score

    def _affine(self, layer: _Layer, values: list[Array | None], column: Array | None) -> Array:
        terms = [(linear, _known(values[source])) for source, linear in layer.maps]
        if layer.fused:
            source, total = layer.fused
            step = self._steps[source]
            assert isinstance(step, Product)  # noqa: S101  (`_compile` looked)
            terms.append(
                (self._one, self._form.sum_of_products(total, _known(values[step.left]), _known(values[step.right])))
            )
        if column is not None:
            terms.append((self._raise, column))
        return self._form.affine(terms, layer.offsets)

    def _product(self, step: Product, values: list[Array | None]) -> Array:
        left, right = _known(values[step.left]), _known(values[step.right])
        return self._form.square(left) if step.left == step.right else self._form.multiply(left, right)

    def _compile(self, at: int, step: Affine, secret: SecretPolynomial) -> _Layer:
        degrees = [planned.degree for planned in self._plan.steps]
        weights, excess = secret.weights[at], self._plan.excess_bits
        maps: list[tuple[int, LinearMap]] = []
        fused: tuple[int, ProductSum] | None = None
        for source, matrix in zip(step.sources, weights.matrices, strict=True):
            integers = matrix.astype(object) * (1 << excess * (degrees[at] - degrees[source]))
            total = self._as_sum(at, source, integers) if fused is None else None
            if total is not None:
                fused = source, total
            else:
                maps.append((source, LinearMap.compile(integers, self._prime)))
        offsets = weights.offset.astype(object) * (1 << excess * degrees[at])
        return _Layer(tuple(maps), offsets if weights.offset.any() else None, fused)

    def _as_sum(self, at: int, source: int, integers: Array) -> ProductSum | None:
        """A row over products that nothing else needs, as one sum that stores no product; None where it cannot be."""
        step, steps = self._steps[source], self._steps
        if not isinstance(step, Product) or len(integers) != 1 or any(source in _sources(s) for s in steps[at + 1 :]):
            return None
        if any(source in _sources(s) for s in steps[source + 1 : at]):
            return None
        sizes = self._plan.steps[step.left].degree + 1, self._plan.steps[step.right].degree + 1
        try:
            return ProductSum.compile(integers[0], sizes, self._prime)
        except FixProgramError:
            return None


def depends_on_record(public: PublicPolynomial, secret: SecretPolynomial) -> bool:
    """Whether any chain of weights that are not zero leads from the record to the score."""
    alive: list[Array] = []
    for at, step in enumerate(public.steps):
        match step:
            case Input():
                alive.append(np.ones(step.width, dtype=bool))
            case Affine():
                reached = np.zeros(step.width, dtype=bool)
                for source, matrix in zip(step.sources, secret.weights[at].matrices, strict=True):
                    reached |= (matrix[:, alive[source]] != 0).any(axis=1)
                alive.append(reached)
            case Product():
                alive.append(alive[step.left] | alive[step.right])
            case _:
                raise AssertionError(step)
    return bool(alive[-1][0])


def _sources(step: object) -> tuple[int, ...]:
    match step:
        case Affine():
            return step.sources
        case Product():
            return step.left, step.right
        case _:
            return ()


def _known(value: Array | None) -> Array:
    assert value is not None  # noqa: S101  (only what is fused is not stored, and nothing else reads that)
    return value
