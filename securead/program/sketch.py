"""A polynomial program in real numbers: to drop units of it, then to round it anew with other bits.

Made of a program alone, so whoever fitted the detector. A *unit* is one coordinate of a product or a ReLU that only
sums use in the end: a hidden unit of a network, a form of a subspace. What is dropped is replaced by a constant, which
goes into the offsets of the sums; whatever then serves no other unit goes, too.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from securead.data.encoder import Encoder
from securead.data.schema import Array
from securead.errors import FixProgramError
from securead.program.builder import ProgramBuilder
from securead.program.polynomial import Affine, Input, Product, PublicPolynomial, Relu, SecretPolynomial, Step, Truncate
from securead.program.program import Program

Unit = tuple[int, int]
"""A step's position and a coordinate of it."""


@dataclass(frozen=True, eq=False)
class Sums:
    """An affine step in real numbers: as `Weights`, and the bits that its weights on the widest source have."""

    matrices: tuple[Array, ...]
    offset: Array
    bits: int


@dataclass(frozen=True, eq=False)
class Sketch:
    """A program's steps (whose scales and bounds no longer count), its sums, and what `finish` needs."""

    encoder: Encoder
    steps: tuple[Step, ...]
    sums: Mapping[int, Sums]
    squared_norm: float | None
    tolerance: float
    honest_extraction_rows: int

    @classmethod
    def of(cls, program: Program) -> Sketch:
        """Of a polynomial program: the very weights that its integers stand for."""
        public, secret = program.public, program.secret
        if not isinstance(public, PublicPolynomial) or not isinstance(secret, SecretPolynomial):
            raise FixProgramError("not a polynomial program", value=sorted(public.operations), remedy="It has tables.")
        scale = [step.fraction_bits for step in public.steps]
        sums = {}
        for at, step in enumerate(public.steps):
            if isinstance(step, Affine):
                weights, found = secret.weights[at], zip(step.sources, secret.weights[at].matrices, strict=True)
                sums[at] = Sums(
                    tuple(_real(matrix, scale[at] - scale[source]) for source, matrix in found),
                    _real(weights.offset, scale[at]),
                    scale[at] - max(scale[source] for source in step.sources),
                )
        factor = sum(term.multiplier for term in public.public_terms)
        grid = public.score_fraction_bits - 2 * public.encoder.fraction_bits
        return cls(
            encoder=public.encoder,
            steps=public.steps,
            sums=sums,
            squared_norm=math.ldexp(factor, -grid) if public.public_terms else None,
            tolerance=public.tolerance,
            honest_extraction_rows=public.honest_extraction_rows,
        )

    @property
    def weight_bits(self) -> int:
        """The most fraction bits that weights have."""
        return max(sums.bits for sums in self.sums.values())

    @property
    def truncates(self) -> bool:
        """Whether values are truncated: then bits are what fits the ring of secret sharing, and fewer save nothing."""
        return any(isinstance(step, Truncate) for step in self.steps)

    def units(self) -> tuple[Unit, ...]:
        """What can be dropped, in the order of steps."""
        return tuple(
            (at, unit)
            for at, step in enumerate(self.steps)
            if isinstance(step, Product | Relu) and self._summed(at)
            for unit in range(step.width)
        )

    def _summed(self, at: int) -> bool:
        """Whether a step ends in sums only, perhaps by way of truncations and ReLUs."""
        for later, step in enumerate(self.steps):
            match step:
                case Product() if at in (step.left, step.right):
                    return False
                case Relu() | Truncate() if step.source == at and not self._summed(later):
                    return False
        return True

    # --- evaluating -----------------------------------------------------------------------------------------------

    def values(self, Z: Array, constants: Mapping[Unit, float] | None = None) -> list[Array]:
        """Values float64 `(n, width)` of every step for encoded records; units in `constants` have that value."""
        real = math.ldexp(1.0, -self.encoder.fraction_bits) * Z
        values = list[Array]()
        for at, step in enumerate(self.steps):
            match step:
                case Input():
                    values.append(real)
                case Affine():
                    sums = self.sums[at]
                    terms = zip(step.sources, sums.matrices, strict=True)
                    values.append(sum((values[source] @ matrix.T for source, matrix in terms), sums.offset[None, :]))
                case Product():
                    values.append(values[step.left] * values[step.right])
                case Relu():
                    values.append(np.maximum(values[step.source], 0))
                case Truncate():
                    grid = math.ldexp(1.0, step.fraction_bits)
                    values.append(np.floor(values[step.source] * grid) / grid)
            for (where, unit), constant in (constants or {}).items():
                if where == at:
                    values[at][:, unit] = constant
        return values

    def scores(self, Z: Array, constants: Mapping[Unit, float] | None = None) -> Array:
        """Scores `(n,)` of encoded records in float64."""
        scores: Array = self.values(Z, constants)[-1][:, 0]
        if self.squared_norm is not None:
            real = math.ldexp(1.0, -self.encoder.fraction_bits) * Z
            scores = scores + self.squared_norm * (real**2).sum(axis=1)
        return scores

    # --- shrinking ------------------------------------------------------------------------------------------------

    def without(self, constants: Mapping[Unit, float]) -> Sketch:
        """The units in `constants` dropped: scores are those that `scores(Z, constants)` tells."""
        units = set(self.units())
        wrong = next((unit for unit in constants if unit not in units), None)
        if wrong is not None:
            raise FixProgramError("this is not a unit that can be dropped", value=wrong, remedy="See `units`.")
        sums = self._folded(constants)
        kept = self._needed(sums)
        steps, found, place = list[Step](), dict[int, Sums](), dict[int, int]()
        for at, step in enumerate(self.steps):
            if not kept[at].any():
                continue
            place[at] = len(steps)
            if isinstance(step, Affine):
                live = [i for i, source in enumerate(step.sources) if kept[source].any()]
                rows, sources = kept[at], tuple(place[step.sources[i]] for i in live)
                matrices = tuple(sums[at].matrices[i][rows][:, kept[step.sources[i]]] for i in live)
                if not live:  # a constant: all that it had is gone
                    sources, matrices = (0,), (np.zeros((int(rows.sum()), self.encoder.width)),)
                found[place[at]] = Sums(matrices, sums[at].offset[rows], sums[at].bits)
                step = dataclasses.replace(step, sources=sources)
            elif isinstance(step, Product):
                step = dataclasses.replace(step, left=place[step.left], right=place[step.right])
            elif isinstance(step, Relu | Truncate):
                step = dataclasses.replace(step, source=place[step.source])
            steps.append(dataclasses.replace(step, width=int(kept[at].sum())))
        smaller = dataclasses.replace(self, steps=tuple(steps), sums=found)
        share = smaller._unknowns() / max(self._unknowns(), 1)
        rows_needed = max(1, min(self.honest_extraction_rows, math.ceil(self.honest_extraction_rows * share)))
        return dataclasses.replace(smaller, honest_extraction_rows=rows_needed)

    def _folded(self, constants: Mapping[Unit, float]) -> dict[int, Sums]:
        """All sums with constants moved into offsets."""
        known: dict[int, dict[int, float]] = {}
        for (at, unit), constant in constants.items():
            known.setdefault(at, {})[unit] = constant
        folded = dict[int, Sums]()
        for at, step in enumerate(self.steps):
            if isinstance(step, Relu | Truncate) and step.source in known:
                rectified = isinstance(step, Relu)
                passed = {j: max(c, 0.0) if rectified else c for j, c in known[step.source].items()}
                known[at] = {**passed, **known.get(at, {})}
            if isinstance(step, Affine):
                sums = self.sums[at]
                matrices, offset = [m.copy() for m in sums.matrices], sums.offset.copy()
                for source, matrix in zip(step.sources, matrices, strict=True):
                    for unit, constant in known.get(source, {}).items():
                        offset += matrix[:, unit] * constant
                        matrix[:, unit] = 0.0
                folded[at] = Sums(tuple(matrices), offset, sums.bits)
        return folded

    def _needed(self, sums: Mapping[int, Sums]) -> list[Array]:
        """Which coordinates of each step the score still depends on; elementwise steps keep those of their sources."""
        needed = [np.zeros(step.width, dtype=bool) for step in self.steps]
        needed[0][:] = True
        needed[-1][:] = True
        before = -1
        while before != (before := sum(int(mask.sum()) for mask in needed)):
            for at in range(len(self.steps) - 1, 0, -1):
                match self.steps[at]:
                    case Affine(sources=sources):
                        for source, matrix in zip(sources, sums[at].matrices, strict=True):
                            needed[source] |= (matrix[needed[at]] != 0).any(axis=0)
                    case Product(left=left, right=right):
                        needed[at] |= needed[left] | needed[right]
                        needed[left] |= needed[at]
                        needed[right] |= needed[at]
                    case Relu(source=source) | Truncate(source=source):
                        needed[at] |= needed[source]
                        needed[source] |= needed[at]
        return needed

    def _unknowns(self) -> int:
        """Weights and offsets that are not zero."""
        arrays = [array for sums in self.sums.values() for array in (*sums.matrices, sums.offset)]
        return sum(int(np.count_nonzero(array)) for array in arrays)

    def program(self, *, fewer_bits: int = 0) -> Program:
        """A program of these weights, each sum's with `fewer_bits` less than before (1 at the least)."""
        builder = ProgramBuilder(self.encoder)
        for at, step in enumerate(self.steps):
            match step:
                case Affine():
                    sums = self.sums[at]
                    widest = max(builder.fraction_bits(source) for source in step.sources)
                    builder.affine(
                        list(zip(sums.matrices, step.sources, strict=True)),
                        sums.offset,
                        fraction_bits=widest + max(sums.bits - fewer_bits, min(sums.bits, 1)),
                    )
                case Product():
                    builder.product(step.left, step.right)
                case Relu():
                    builder.relu(step.source)
                case Truncate():
                    builder.truncate(step.source, step.shift)
        made = builder.finish(
            tolerance=self.tolerance,
            honest_extraction_rows=self.honest_extraction_rows,
            squared_norm=self.squared_norm,
        )
        return self._stated(made)

    def _stated(self, made: Program) -> Program:
        """`made` with as few extraction rows as its degree leaves unknowns: a polynomial has no more coefficients."""
        public = made.public
        assert isinstance(public, PublicPolynomial)  # noqa: S101  (for the type checker)
        if {"relu", "truncate"} & public.operations:
            return made
        coefficients = math.comb(public.encoder.width + public.degree, public.degree)
        if coefficients >= public.honest_extraction_rows:
            return made
        return Program(dataclasses.replace(public, honest_extraction_rows=coefficients), made.secret)


def _real(integers: Array, bits: int) -> Array:
    """What integers on a grid of so many fraction bits stand for."""
    real: Array = np.ldexp(integers.astype(float), -bits)
    return real
