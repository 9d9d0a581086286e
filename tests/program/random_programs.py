"""Random small programs, and an evaluation of them that shares no code with ours.

A `Recipe` is what was asked of the builder, in floats. `expected` works it out record by record in Python integers
and `Fraction`s: weights are rounded half to even on their grid, everything after that is exact.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st

from securead.data.encoder import Encoder
from securead.data.schema import Column, Schema
from securead.errors import FixProgramError
from securead.program.builder import ProgramBuilder
from securead.program.program import Program

Rows = list[list[float]]


@dataclass
class Recipe:
    """Steps after the input.

    ("affine", [(rows, source), ...], offset, bits), ("product", a, b), ("relu", a), ("truncate", a, shift).
    """

    encoder: Encoder
    steps: list[tuple] = field(default_factory=list)
    norm_multiplier: int = 0

    def build(self) -> Program:
        build = ProgramBuilder(self.encoder)
        for step in self.steps:
            if step[0] == "affine":
                _, terms, offset, bits = step
                arrays = [(np.array(rows), source) for rows, source in terms]
                build.affine(arrays, None if offset is None else np.array(offset), fraction_bits=bits)
            elif step[0] == "product":
                build.product(*step[1:])
            elif step[0] == "truncate":
                build.truncate(*step[1:])
            else:
                build.relu(step[1])
        scale = self.steps[-1][3] - 2 * self.encoder.fraction_bits
        norm = math.ldexp(self.norm_multiplier, -scale) if self.norm_multiplier else None
        return build.finish(tolerance=1e-3, honest_extraction_rows=1, squared_norm=norm)

    def expected(self, z: list[int]) -> tuple[list[list[int]], int]:
        """The values of all steps and the integer score, public term included, of one encoded record."""
        values, bits = [list(map(int, z))], [self.encoder.fraction_bits]
        for step in self.steps:
            if step[0] == "affine":
                _, terms, offset, at = step
                width = len(terms[0][0])
                total = [round(Fraction(b) * 2**at) for b in (offset or [0.0] * width)]
                for rows, source in terms:
                    for i, row in enumerate(rows):
                        for weight, value in zip(row, values[source], strict=True):
                            total[i] += round(Fraction(weight) * 2 ** (at - bits[source])) * value
                values.append(total)
                bits.append(at)
            elif step[0] == "product":
                values.append([a * b for a, b in zip(values[step[1]], values[step[2]], strict=True)])
                bits.append(bits[step[1]] + bits[step[2]])
            elif step[0] == "truncate":
                values.append([math.floor(Fraction(v, 2 ** step[2])) for v in values[step[1]]])
                bits.append(bits[step[1]] - step[2])
            else:
                values.append([max(0, v) for v in values[step[1]]])
                bits.append(bits[step[1]])
        return values, values[-1][0] + self.norm_multiplier * sum(int(v) ** 2 for v in z)


def unit_encoder(width: int, limit: float = 8.0, fraction_bits: int = 14) -> Encoder:
    columns = tuple(Column(f"c{i}", -2 * limit, 2 * limit, center=0.0, spread=1.0) for i in range(width))
    return Encoder(Schema(columns), limit, fraction_bits)


weights = st.one_of(st.floats(-4, 4), st.sampled_from([0.0, 1.0, -1.0, 0.5, -4.0]), st.integers(-3, 3).map(float))


@st.composite
def recipes(draw: st.DrawFn, *, most_steps: int = 5, most_extra_bits: int = 24) -> Recipe:
    recipe = Recipe(
        unit_encoder(draw(st.integers(1, 3)), draw(st.sampled_from([0.5, 1.0, 8.0, 1024.0])), draw(st.integers(1, 14)))
    )
    widths, bits = [recipe.encoder.width], [recipe.encoder.fraction_bits]

    def affine(width: int) -> None:
        known = st.integers(0, len(widths) - 1)
        sources = draw(st.lists(known, min_size=1, max_size=3))
        row = [st.lists(weights, min_size=widths[s], max_size=widths[s]) for s in sources]
        terms = [(draw(st.lists(r, min_size=width, max_size=width)), s) for r, s in zip(row, sources, strict=True)]
        offset = draw(st.none() | st.lists(weights, min_size=width, max_size=width))
        at = max(bits[s] for s in sources) + draw(st.integers(0, most_extra_bits))
        recipe.steps.append(("affine", terms, offset, at))
        widths.append(width)
        bits.append(at)

    for kind in draw(
        st.lists(st.sampled_from(["affine", "affine", "product", "relu", "truncate"]), max_size=most_steps)
    ):
        if kind == "affine":
            affine(draw(st.integers(1, 3)))
            continue
        left = draw(st.integers(0, len(widths) - 1))
        if kind == "relu":
            recipe.steps.append(("relu", left))
            widths.append(widths[left])
            bits.append(bits[left])
        elif kind == "truncate":
            shift = draw(st.integers(1, max(1, bits[left])))
            assume(shift <= bits[left])
            recipe.steps.append(("truncate", left, shift))
            widths.append(widths[left])
            bits.append(bits[left] - shift)
        else:
            right = draw(st.sampled_from([i for i, w in enumerate(widths) if w == widths[left]]))
            recipe.steps.append(("product", left, right))
            widths.append(widths[left])
            bits.append(bits[left] + bits[right])
    affine(1)
    recipe.norm_multiplier = draw(st.sampled_from([0, 0, 1, -3, 2**40]))
    return recipe


@st.composite
def programs(draw: st.DrawFn, **sizes: int) -> tuple[Recipe, Program]:
    recipe = draw(recipes(**sizes))
    assume(recipe.steps[-1][3] <= 512)
    try:
        return recipe, recipe.build()
    except FixProgramError:  # beyond 512 bits: refusing that is tested on its own
        assume(False)
        raise


@st.composite
def encoded(draw: st.DrawFn, encoder: Encoder, *, most_rows: int = 4) -> np.ndarray:
    """Encoded records with a liking for the corners, where overflow would happen."""
    value = st.integers(-encoder.bound, encoder.bound) | st.sampled_from([encoder.bound, -encoder.bound, 0])
    row = st.lists(value, min_size=encoder.width, max_size=encoder.width)
    return np.array(draw(st.lists(row, min_size=1, max_size=most_rows)), dtype=np.int64)
