"""Building programs from float weights and tables: quantisation, ranges and commitment in one place."""

from __future__ import annotations

import dataclasses
import math
import secrets
from collections.abc import Sequence

import numpy as np

from securead.data.encoder import Encoder
from securead.data.schema import Array
from securead.errors import FixProgramError
from securead.program import table
from securead.program.geometry import Bins, Trees
from securead.program.polynomial import (
    Affine,
    Input,
    Product,
    PublicPolynomial,
    Relu,
    SecretPolynomial,
    SquaredNorm,
    Step,
    Truncate,
    Weights,
    refuse_overflow,
)
from securead.program.program import Program
from securead.program.ranges import (
    Interval,
    bits_for,
    commit,
    magnitude,
    row_sum,
    step_interval,
)

MAX_VALUE_BITS = 512
MAX_WEIGHT_BITS = 53


class ProgramBuilder:
    """Add steps, then `finish`. Each method returns the new step's position.

    Float weights are rounded to the fixed-point grid that the step's `fraction_bits` imply; the ranges of all
    values follow from the encoder's public bounds (interval arithmetic), and a value that would need more than
    `value_bits` (512, where a program does not ask for more) is refused when it is added.
    """

    def __init__(self, encoder: Encoder, *, value_bits: int = MAX_VALUE_BITS) -> None:
        self._encoder = encoder
        self._value_bits = value_bits
        self._steps: list[Step] = []
        self._weights: dict[int, Weights] = {}
        self._intervals: list[Interval] = []
        self.input = self._add(Input(encoder.width, encoder.fraction_bits, bits_for(encoder.bound)), None)

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps so far, with their proven bounds."""
        return tuple(self._steps)

    def fraction_bits(self, step: int) -> int:
        """The fraction bits of an earlier step."""
        return self._steps[step].fraction_bits

    def affine(self, terms: Sequence[tuple[Array, int]], offset: Array | None = None, *, fraction_bits: int) -> int:
        """`sum W v + b` at `fraction_bits`: float matrices `(width, source width)` with their source steps.

        A source's weights get `fraction_bits` minus the source's own bits. Raises `FixProgramError` when that is
        negative, or when a weight is not finite or needs more than `value_bits`.
        """
        width = len(terms[0][0])
        matrices = []
        for matrix, source in terms:
            bits = fraction_bits - self._steps[source].fraction_bits
            if bits < 0:
                raise FixProgramError(
                    f"step {len(self._steps)} has fewer fraction bits than its source {source}",
                    value=(fraction_bits, self._steps[source].fraction_bits),
                    remedy="Give it at least the source's fraction bits.",
                )
            matrices.append(_quantise(np.asarray(matrix, dtype=float), bits, self._value_bits))
        bias = np.zeros(width) if offset is None else np.asarray(offset, dtype=float)
        weights = Weights(tuple(matrices), _quantise(bias, fraction_bits, self._value_bits))
        step = Affine(
            width,
            fraction_bits,
            0,
            tuple(source for _, source in terms),
            tuple(bits_for(row_sum(m)) for m in matrices),
            bits_for(magnitude((weights.offset, weights.offset))),
        )
        return self._add(step, weights)

    def product(self, left: int, right: int) -> int:
        """The elementwise product of two steps of equal width."""
        a, b = self._steps[left], self._steps[right]
        return self._add(Product(a.width, a.fraction_bits + b.fraction_bits, 0, left, right), None)

    def relu(self, source: int) -> int:
        """`max(0, v)`; only secret sharing carries it."""
        step = self._steps[source]
        return self._add(Relu(step.width, step.fraction_bits, 0, source), None)

    def truncate(self, source: int, shift: int) -> int:
        """`floor(v / 2**shift)`: the source with `shift` fraction bits fewer; only secret sharing carries it.

        Raises `FixProgramError` unless 1 <= shift <= the source's fraction bits.
        """
        step = self._steps[source]
        if not 1 <= shift <= step.fraction_bits:
            raise FixProgramError(
                f"step {source} has {step.fraction_bits} fraction bits to drop",
                value=shift,
                remedy="Truncate by at least one bit and at most as many as there are.",
            )
        return self._add(Truncate(step.width, step.fraction_bits - shift, 0, source, shift), None)

    def finish(self, *, tolerance: float, honest_extraction_rows: int, squared_norm: float | None = None) -> Program:
        """Close the program; its last step is the score.

        `tolerance`: see `PublicPolynomial`. `squared_norm`: a public term, this factor (a power of two times an
        integer that the score's grid can hold) times |z|^2, which the submitter adds itself.
        """
        terms: tuple[SquaredNorm, ...] = ()
        if squared_norm is not None:
            multiplier = squared_norm * 2.0 ** (self._steps[-1].fraction_bits - 2 * self._encoder.fraction_bits)
            if not multiplier.is_integer():
                raise FixProgramError(
                    "the public term is off the score's grid",
                    value=squared_norm,
                    remedy="Give the score more fraction bits, or the term a factor that is a multiple of its grid.",
                )
            terms = (SquaredNorm(round(multiplier)),)
        total = magnitude(self._intervals[-1]) + sum(term.bound(self._encoder) for term in terms)
        key = secrets.token_bytes(32)
        public = PublicPolynomial(
            encoder=self._encoder,
            steps=tuple(self._steps),
            public_terms=terms,
            score_bits=max(1, bits_for(total)),
            tolerance=tolerance,
            honest_extraction_rows=honest_extraction_rows,
            commitment=commit(self._weights, key),
        )
        return Program(public, SecretPolynomial(dict(self._weights), key))

    def _add(self, step: Step, weights: Weights | None) -> int:
        interval = step_interval(step, self._intervals, self._encoder.bound, weights)
        bits = bits_for(magnitude(interval))
        refuse_overflow(bits, self._value_bits, f"step {len(self._steps)} ({step.type_tag})")
        self._steps.append(dataclasses.replace(step, bound_bits=bits))
        self._intervals.append(interval)
        if weights is not None:
            self._weights[len(self._steps) - 1] = weights
        return len(self._steps) - 1


def table_program(
    encoder: Encoder,
    geometry: Trees | Bins,
    tables: Sequence[Array],
    *,
    entry_bits: int,
    honest_extraction_rows: int,
    tolerance: float | None = None,
) -> Program:
    """A table program from non-negative float tables, one for each of the geometry's.

    The largest entry becomes 2**entry_bits - 1, so a score is off by at most half a step a table: the default of
    `tolerance`. Raises `FixProgramError` for an entry that is negative or not finite, or an absurd number of bits.
    """
    if not 1 <= entry_bits <= table.MAX_ENTRY_BITS:
        raise FixProgramError(
            f"an entry has 1 to {table.MAX_ENTRY_BITS} bits", value=entry_bits, remedy="Leave it out for the default."
        )
    values = [np.asarray(entries, dtype=float) for entries in tables]
    if not all(np.isfinite(entries).all() and (entries >= 0).all() for entries in values):
        raise FixProgramError(
            "a table entry is negative or not finite", remedy="The fit failed: fit again with other settings."
        )
    largest, top = (1 << entry_bits) - 1, max(float(entries.max()) for entries in values)
    unit = top / largest if top > 0 else 1.0
    return integer_table_program(
        encoder,
        geometry,
        [np.rint(entries / unit).astype(np.int64) for entries in values],
        largest=largest,
        unit=unit,
        tolerance=len(values) * unit / 2 * (1 + 1e-9) if tolerance is None else tolerance,
        honest_extraction_rows=honest_extraction_rows,
    )


def integer_table_program(
    encoder: Encoder,
    geometry: Trees | Bins,
    tables: Sequence[Array],
    *,
    largest: int,
    unit: float,
    tolerance: float,
    honest_extraction_rows: int,
) -> Program:
    """A table program from its entries, integers int64 in [0, largest], under a fresh commitment."""
    key = secrets.token_bytes(32)
    public = table.PublicTable(
        encoder=encoder,
        geometry=geometry,
        largest=largest,
        score_bits=max(1, sum(int(entries.max()) for entries in tables).bit_length()),
        unit=unit,
        tolerance=tolerance,
        honest_extraction_rows=honest_extraction_rows,
        commitment=table.commit(tables, key),
    )
    return Program(public, table.SecretTable(tuple(tables), key))


def _quantise(values: Array, bits: int, limit: int) -> Array:
    """`round(values * 2**bits)`, exactly: int64 where it fits, Python integers where it does not."""
    if not np.isfinite(values).all():
        raise FixProgramError("a weight is not finite", remedy="The fit diverged: fit again with other settings.")
    largest = float(np.abs(values).max(initial=0.0))
    needed = bits + (math.frexp(largest)[1] if largest else 0)
    refuse_overflow(needed, limit, "a weight")
    if needed <= MAX_WEIGHT_BITS:
        rounded: Array = np.rint(np.ldexp(values, bits)).astype(np.int64)
        return rounded
    # Beyond 2**53 a float is an integer times a power of two already: shift it exactly.
    exact = [
        int(math.ldexp(m, 53)) * 2 ** (e + bits - 53) if e + bits >= 53 else round(math.ldexp(m, e + bits))
        for m, e in map(math.frexp, map(float, values.ravel()))
    ]
    result = np.empty(len(exact), dtype=object)
    result[:] = exact
    return result.reshape(values.shape)
