"""A program's steps on residues: sums and products prime by prime, then relinearising and rescaling, which need all.

Exact integer arithmetic modulo the primes but for relinearising and rescaling, which round as the plan accounts for. A
weight is the program's integer times a power of two or, where a source is at another scale than its sum, times the
integer nearest to their ratio. No key that decrypts, and no randomness. The time depends on the plan and on which
weights are zero, not on residues.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from securead.data.schema import Array
from securead.errors import FixProgramError
from securead.program.polynomial import Affine, Input, Product, PublicPolynomial, SecretPolynomial, Step
from securead.protocols.ckks.deep.plan import DeepPlan
from securead.protocols.ckks.deep.scales import SMALL_WEIGHT_BITS, scales_of
from securead.protocols.ckks.stages import Stages
from securead.protocols.residues import loops
from securead.protocols.residues.layers import LinearMap, ProductSum
from securead.protocols.residues.numba_form import NumbaForm
from securead.protocols.residues.switching import Switcher, rescale_by

BLOCK_SLOTS = 2048  # a block's layers stay in a core's cache


@dataclass(frozen=True, eq=False)
class _Layer:
    """An affine step modulo one prime: its sources with their maps (None for one that is taken as it is) and what these
    are multiplied by, an offset, what is summed as products, and what public terms are multiplied by.
    """

    maps: tuple[tuple[int, LinearMap | None, int], ...]
    offsets: Array | None
    fused: tuple[int, ProductSum] | None
    column: int | None


class Circuit:
    """The program under a plan. One instance serves one thread at a time."""

    def __init__(self, plan: DeepPlan, public: PublicPolynomial, secret: SecretPolynomial, stages: Stages) -> None:
        self._plan, self._steps, self._stages = plan, public.steps, stages
        self._forms = [NumbaForm(prime) for prime in plan.data_primes]
        self._switcher = Switcher(plan.chain, plan.ring_dimension)
        self._scales = scales_of(plan, public)
        self._levels = [plan.level_primes[max(step.depth - 1, 0)] for step in plan.steps]
        self._factors = {f for step in self._steps if isinstance(step, Product) for f in (step.left, step.right)}
        self._users = [
            [at for at, step in enumerate(self._steps) if source in _sources(step)]
            for source in range(len(self._steps))
        ]
        self._layers: dict[tuple[int, int], _Layer] = {}
        for at, step in enumerate(public.steps):
            if isinstance(step, Affine):
                self._compile(at, step, secret)

    def score(self, columns: Array, digits: Array, halves: Array) -> Array:
        """The score's residues `(primes of the last level, polynomials, N)` from a request's columns `(primes, columns,
        2, N)`, an owner's relinearisation key and its uniform halves `(digits, primes, N)`, all int64. It must not
        leave.
        """
        # What is known of all primes and slots: steps as they are added up, and factors as they are multiplied.
        values = {0: columns[:, : self._steps[0].width]}
        factors: dict[int, Array] = {}
        public = columns[:, -1:] if self._plan.has_public_column else None
        last, waiting = len(self._steps) - 1, sorted(range(1, len(self._steps)), key=lambda at: self._depth(at))
        while waiting:
            # As many as need nothing of one another that is of all primes.
            count = next((i for i, at in enumerate(waiting) if {*self._rounded(at)} & {*waiting[:i]}), len(waiting))
            pending, waiting = waiting[:count], waiting[count:]
            later = [at for at in pending if at == last or {*self._users[at]} & {*waiting}]
            found = self._computed(pending, later, values, factors, public)
            for at in later:
                value = found.pop(at)
                if self._plan.steps[at].relinearised:
                    value = self._relinearised(value, digits, halves)
                values[at] = value
                if self._dropped(at):
                    factors[at] = rescale_by(value, self._plan.data_primes[: len(value)], self._dropped(at))
                    self._stages.end("rescale")
            self._forget({at for at in values if at != last and not {*self._users[at]} & {*waiting}}, values, factors)
        score: Array = values[last][:, 0]
        return score

    def _depth(self, at: int) -> int:
        return self._plan.steps[at].depth

    def _dropped(self, at: int) -> int:
        """By how many primes a step is rescaled before it is multiplied."""
        depth, groups = self._depth(at), self._plan.groups
        return groups[depth - 1] if at in self._factors and 0 < depth <= len(groups) else 0

    def _rounded(self, at: int) -> list[int]:
        """The sources of a step that are relinearised or rescaled, of all primes, before it is computed."""
        multiplied = isinstance(self._steps[at], Product)
        return [
            source
            for source in _sources(self._steps[at])
            if self._plan.steps[source].relinearised or (multiplied and self._dropped(source))
        ]

    def _computed(
        self,
        pending: Sequence[int],
        later: Sequence[int],
        values: dict[int, Array],
        factors: dict[int, Array],
        public: Array | None,
    ) -> dict[int, Array]:
        """Some steps, prime by prime and block by block: what of them is needed later."""
        n, found = self._plan.ring_dimension, dict[int, Array]()
        for index in range(max(self._levels[at] for at in pending)):
            for start in range(0, n, BLOCK_SLOTS):
                local: dict[int, Array] = {}
                for at in pending:
                    if index >= self._levels[at]:
                        continue
                    local[at] = self._step(at, index, slice(start, start + BLOCK_SLOTS), local, values, factors, public)
                    if at in later:
                        if at not in found:
                            found[at] = np.empty((self._levels[at], *local[at].shape[:2], n), np.int64)
                        found[at][index, :, :, start : start + BLOCK_SLOTS] = local[at]
        return found

    def _relinearised(self, value: Array, digits: Array, halves: Array) -> Array:
        result = np.empty((len(value), value.shape[1], 2, value.shape[3]), np.int64)
        for row in range(value.shape[1]):
            result[:, row] = self._switcher.relinearise(value[:, row], digits, halves)
        self._stages.end("relinearise")
        return result

    def _forget(self, done: set[int], values: dict[int, Array], factors: dict[int, Array]) -> None:
        for at in done:
            del values[at]
            factors.pop(at, None)

    def _step(
        self,
        at: int,
        index: int,
        slots: slice,
        local: dict[int, Array],
        values: dict[int, Array],
        factors: dict[int, Array],
        public: Array | None,
    ) -> Array:
        step, form = self._steps[at], self._forms[index]

        def known(source: int, *, multiplied: bool = False) -> Array:
            if multiplied and self._dropped(source):
                return factors[source][index, :, :, slots]
            return local[source] if source in local else values[source][index, :, :, slots]

        if isinstance(step, Product):
            if self._fused_into(at) is not None:
                return np.empty((0, 0, 0), np.int64)  # its sum computes it
            left = known(step.left, multiplied=True)
            same = step.left == step.right
            result = form.square(left) if same else form.multiply(left, known(step.right, multiplied=True))
            self._stages.end("products")
            return result
        layer, terms = self._layers[at, index], list[Array]()
        for source, matrix, factor in layer.maps:
            value = known(source)
            terms.append(_times(value if matrix is None else form.linear(matrix, value), factor, form.prime))
        if layer.fused:
            source, total = layer.fused
            inner = self._steps[source]
            assert isinstance(inner, Product)  # noqa: S101
            self._stages.end("linear")
            pair = known(inner.left, multiplied=True), known(inner.right, multiplied=True)
            terms.append(form.sum_of_products(total, *pair))
            self._stages.end("products")
        if layer.column is not None and public is not None:
            terms.append(_times(public[index, :, :, slots], layer.column, form.prime))
        terms.sort(key=lambda term: -term.shape[1])
        result = form.add(terms, layer.offsets)
        self._stages.end("linear")
        return result

    def _fused_into(self, at: int) -> int | None:
        """The score, if it is a sum of these products and nothing else needs them."""
        last = len(self._steps) - 1
        layer = self._layers.get((last, 0))
        return last if layer is not None and layer.fused is not None and layer.fused[0] == at else None

    def _compile(self, at: int, step: Affine, secret: SecretPolynomial) -> None:
        """The step modulo every prime of its level."""
        weights, scale = secret.weights[at], self._scales[at]
        integers: dict[int, Array] = {}  # a source may be named twice
        for source, matrix in zip(step.sources, weights.matrices, strict=True):
            whole = np.frompyfunc(int, 1, 1)(matrix)
            integers[source] = integers[source] + whole if source in integers else whole
        scaled = {source: self._at_scale(at, source, matrix) for source, matrix in integers.items()}
        unit = scale / 2**step.fraction_bits
        offsets = np.array([_nearest(unit * int(value)) for value in weights.offset], dtype=object)
        column = None
        if at == len(self._steps) - 1 and self._plan.has_public_column:
            column = _nearest(scale / (1 << self._plan.input_bits))
        kept = self._plan.data_primes[: self._levels[at]]
        summed: tuple[int, list[ProductSum]] | None = None  # the same source modulo every prime
        for source, (matrix, ratio) in scaled.items():
            totals = self._as_sums(at, source, matrix * ratio, kept) if summed is None else None
            summed = (source, totals) if totals is not None else summed
        for index, prime in enumerate(kept):
            maps = list[tuple[int, LinearMap | None, int]]()
            for source, (matrix, ratio) in scaled.items():
                if summed is not None and source == summed[0]:
                    continue
                as_it_is = _is_identity(matrix % prime)
                maps.append((source, None if as_it_is else LinearMap.compile(matrix, prime), ratio % prime))
            self._layers[at, index] = _Layer(
                tuple(maps),
                offsets if weights.offset.any() else None,
                None if summed is None else (summed[0], summed[1][index]),
                None if column is None else column % prime,
            )

    def _at_scale(self, at: int, source: int, integers: Array) -> tuple[Array, int]:
        """A source's weights in a sum, and one factor of them all: see `scales`."""
        bits = self._steps[at].fraction_bits - self._steps[source].fraction_bits
        ratio = self._scales[at] / (self._scales[source] * Fraction(2) ** bits)
        shared = int(np.bitwise_or.reduce(integers, axis=None))
        twos = (shared & -shared).bit_length() - 1 if shared else 0
        small, factor = integers >> twos, ratio * 2**twos
        if factor.denominator == 1 or int(np.abs(small).max()) >> SMALL_WEIGHT_BITS == 0:
            return small, _nearest(factor)
        rounded: Array = np.frompyfunc(lambda weight: _nearest(ratio * weight), 1, 1)(integers)
        return rounded, 1

    def _as_sums(self, at: int, source: int, integers: Array, primes: tuple[int, ...]) -> list[ProductSum] | None:
        """The score as one sum over products that nothing else needs, storing none, modulo each prime; None where it
        cannot be modulo all of them.
        """
        step = self._steps[source]
        if at != len(self._steps) - 1 or not isinstance(step, Product) or self._users[source] != [at]:
            return None
        if self._plan.steps[source].relinearised or not (integers == integers[0, 0]).all():
            return None
        sizes = self._plan.steps[step.left].size, self._plan.steps[step.right].size
        try:
            return [ProductSum.compile(integers[0] % prime, sizes, prime) for prime in primes]
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


def _nearest(value: Fraction) -> int:
    """The integer nearest to a fraction, halves upwards."""
    return (2 * value.numerator + value.denominator) // (2 * value.denominator)


def _times(x: Array, factor: int, prime: int) -> Array:
    """A value times a residue."""
    if factor == 1:
        return x
    result = np.array(x, order="C")
    loops.scale(result.reshape(len(result), -1), factor, prime)
    return result


def _is_identity(matrix: Array) -> bool:
    return len(matrix) == matrix.shape[1] and bool((matrix == np.eye(len(matrix), dtype=int)).all())


def _sources(step: Step) -> tuple[int, ...]:
    match step:
        case Affine():
            return step.sources
        case Product():
            return step.left, step.right
        case _:
            return ()
