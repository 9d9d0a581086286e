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
from securead.protocols.ckks.stages import Stages
from securead.protocols.residues.layers import LinearMap, ProductSum
from securead.protocols.residues.numba_form import NumbaForm

# Maps of one source are stacked unless this makes for more multiplications than that share of them.
_STACKED = 1.25


@dataclass(frozen=True, eq=False)
class _Layer:
    """An affine step: its sources, and whether each is taken as it is. `fused` is what is summed as products."""

    sources: tuple[tuple[int, bool], ...]
    offsets: Array | None
    fused: tuple[int, ProductSum] | None


@dataclass(frozen=True, eq=False)
class _Stack:
    """Maps of one source, stacked: the steps that they belong to, and where their rows begin."""

    layer: LinearMap
    steps: tuple[tuple[int, int], ...]


class Circuit:
    """The program modulo one prime. One instance serves one thread at a time."""

    def __init__(
        self, plan: CkksPlan, public: PublicPolynomial, secret: SecretPolynomial, prime: int, stages: Stages
    ) -> None:
        self._plan, self._steps, self._prime, self._stages = plan, public.steps, prime, stages
        self._form = NumbaForm(prime)
        raised = plan.score_scale_bits - plan.input_fraction_bits - plan.excess_bits
        self._raise = LinearMap.compile(np.array([[1 << raised]], dtype=object), prime)
        self._layers: dict[int, _Layer] = {}
        matrices: dict[int, list[tuple[int, Array]]] = {}
        for at, step in enumerate(public.steps):
            if isinstance(step, Affine):
                self._layers[at] = self._compile(at, step, secret, matrices)
        self._stacks = {source: self._stacked(by_step) for source, by_step in matrices.items()}
        self._fused = {layer.fused[0] for layer in self._layers.values() if layer.fused}

    def block(self, columns: Array) -> Array:
        """The score's polynomials `(degree + 1, slots)` from a request's columns `(columns, 2, slots)`, int64."""
        values: list[Array | None] = []
        # What each map gives, by source and step, from where the source is known.
        mapped: dict[tuple[int, int], Array] = {}
        for at, step in enumerate(self._steps):
            match step:
                case Input():
                    values.append(columns[: step.width])
                case Affine():
                    column = columns[-1:] if step is self._steps[-1] and self._plan.has_public_column else None
                    values.append(self._affine(at, values, mapped, column))
                    self._stages.end("linear")
                case Product():
                    values.append(None if at in self._fused else self._product(step, values))
                    self._stages.end("products")
                case _:
                    raise AssertionError(step)
            for stack in self._stacks.get(at, ()):
                result = self._form.linear(stack.layer, _known(values[at]))
                for target, start in stack.steps:
                    mapped[at, target] = result[start : start + self._steps[target].width]
                self._stages.end("linear")
        score: Array = _known(values[-1])[0]
        return score

    def _affine(
        self, at: int, values: list[Array | None], mapped: dict[tuple[int, int], Array], column: Array | None
    ) -> Array:
        layer = self._layers[at]
        terms = [_known(values[source]) if as_is else mapped.pop((source, at)) for source, as_is in layer.sources]
        if layer.fused:
            source, total = layer.fused
            step = self._steps[source]
            assert isinstance(step, Product)  # noqa: S101  (`_compile` looked)
            self._stages.end("linear")
            terms.append(self._form.sum_of_products(total, _known(values[step.left]), _known(values[step.right])))
            self._stages.end("products")
        if column is not None:
            terms.append(self._form.linear(self._raise, column))
        terms.sort(key=lambda term: -term.shape[1])
        return self._form.add(terms, layer.offsets)

    def _product(self, step: Product, values: list[Array | None]) -> Array:
        left, right = _known(values[step.left]), _known(values[step.right])
        return self._form.square(left) if step.left == step.right else self._form.multiply(left, right)

    def _compile(
        self, at: int, step: Affine, secret: SecretPolynomial, matrices: dict[int, list[tuple[int, Array]]]
    ) -> _Layer:
        """The step, but for its matrices, which are filed under their sources."""
        degrees = [planned.degree for planned in self._plan.steps]
        weights, excess = secret.weights[at], self._plan.excess_bits
        sources: list[tuple[int, bool]] = []
        fused: tuple[int, ProductSum] | None = None
        added: dict[int, Array] = {}  # a source may be named twice
        for source, matrix in zip(step.sources, weights.matrices, strict=True):
            integers = matrix.astype(object) * (1 << excess * (degrees[at] - degrees[source]))
            added[source] = added[source] + integers if source in added else integers
        for source, integers in added.items():
            total = self._as_sum(at, source, integers) if fused is None else None
            if total is not None:
                fused = source, total
                continue
            as_is = _is_identity(integers % self._prime)
            sources.append((source, as_is))
            if not as_is:
                matrices.setdefault(source, []).append((at, integers))
        offsets = weights.offset.astype(object) * (1 << excess * degrees[at])
        return _Layer(tuple(sources), offsets if weights.offset.any() else None, fused)

    def _stacked(self, by_step: list[tuple[int, Array]]) -> tuple[_Stack, ...]:
        """The maps of one source as one, which is split into digits once, or as they are where zeros make that less."""
        apart = [_Stack(LinearMap.compile(integers, self._prime), ((at, 0),)) for at, integers in by_step]
        sizes = [len(integers) for _, integers in by_step]
        together = LinearMap.compile(np.vstack([integers for _, integers in by_step]), self._prime, parts=sizes)
        if together.multiplications > _STACKED * sum(stack.layer.multiplications for stack in apart):
            return tuple(apart)
        starts = np.cumsum([0, *sizes[:-1]]).tolist()
        return (_Stack(together, tuple((at, start) for (at, _), start in zip(by_step, starts, strict=True))),)

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


def _is_identity(matrix: Array) -> bool:
    return len(matrix) == matrix.shape[1] and bool((matrix == np.eye(len(matrix), dtype=int)).all())


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
