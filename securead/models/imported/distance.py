"""Imported quadratic detectors: the squared length of affine forms of a record (Mahalanobis, PCA, linear networks)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from securead.data.encoder import MAX_FRACTION_BITS, Encoder
from securead.data.schema import Array, Schema
from securead.errors import FixProgramError
from securead.models.imported.detector import ImportedDetector
from securead.models.imported.records import Scaling, refuse_transforms
from securead.program.builder import ProgramBuilder
from securead.program.program import Program

# Without a declared scale an encoder puts a column's bounds at three on either side.
_LIMIT = 3.0
# How far rounding may move the length of the forms at worst, as a share of its value at the threshold.
_ROUNDING = 2.0**-9
_LEAST_FRACTION_BITS = 6
# Of the largest score: some thousands of what CKKS in float64 adds to it.
_RESOLVED = 2.0**-35


class ImportedDistance(ImportedDetector):
    """Scores |F x' + o|^2, x' the scaled record; `root` where the original's score is the length itself."""

    def __init__(self, forms: Array, offset: Array, scaling: Scaling, schema: Schema, *, root: bool = False) -> None:
        refuse_transforms(schema)
        super().__init__(Encoder(schema, _LIMIT))
        center, spread = schema.declared_scale()
        forms, offset = forms / scaling.scale, offset - forms @ (scaling.center / scaling.scale)
        offset, forms = offset + forms @ center, forms * spread
        # An orthogonal factor leaves the length unchanged: a triangular matrix has half of the products with weights.
        joint = np.linalg.qr(np.column_stack([forms, offset]))[1]
        self._forms, self._offset, self.root = joint[:, :-1], joint[:, -1], root

    def score_standardised(self, Z: Array) -> Array:
        """The squared length of all forms."""
        scores: Array = ((Z @ self._forms.T + self._offset) ** 2).sum(axis=1)
        return scores

    def in_original_scale(self, scores: Array) -> Array:
        """The score, or its root."""
        return np.sqrt(np.maximum(scores, 0.0)) if self.root else scores

    def from_original_scale(self, scores: Array) -> Array:
        """The score, or its square."""
        return np.square(scores) if self.root else scores

    def scale_in_words(self, threshold: float) -> str:
        """What the program's score is."""
        return squared_in_words(threshold) if self.root else super().scale_in_words(threshold)

    def error_bound(self, X: Any) -> Array:
        """An error e of the forms' length l moves its square by 2 l e + e^2 at most."""
        error = sum(self._length_errors(*self._bits()))
        scores = self.anomaly_score(X)
        return np.full(scores.shape, error) if self.root else 2 * error * np.sqrt(scores) + error**2

    def compile(
        self, *, weight_bits: int | None = None, fraction_bits: int | None = None, ring_bits: int | None = None
    ) -> Program:
        """Squares of affine forms, summed.

        By default inputs and weights have as few bits as keep `error_bound` at about a hundredth of the threshold. With
        `ring_bits`, as many of these as let the score fit.
        """
        defaults = self._bits()
        weights = defaults[1] if weight_bits is None else weight_bits
        inputs = defaults[0] if fraction_bits is None else fraction_bits
        program = self._compiled(inputs, weights)
        excess = 0 if ring_bits is None else program.public.score_bits - ring_bits
        if excess <= 0:
            return program
        less = math.ceil(excess / 2)
        from_weights = min(less // 2, weights)
        if inputs - (less - from_weights) < _LEAST_FRACTION_BITS:
            raise FixProgramError(
                f"the score does not fit {ring_bits} bits",
                value=program.public.score_bits,
                remedy="Import with narrower bounds of the columns.",
            )
        return self._compiled(inputs - (less - from_weights), weights - from_weights)

    def _compiled(self, fraction_bits: int, weight_bits: int) -> Program:
        builder = ProgramBuilder(Encoder(self.encoder_.schema, _LIMIT, fraction_bits))
        hidden = builder.affine([(self._forms, builder.input)], self._offset, fraction_bits=fraction_bits + weight_bits)
        squares = builder.product(hidden, hidden)
        builder.affine([(np.ones((1, len(self._forms))), squares)], fraction_bits=builder.fraction_bits(squares))
        largest = float(((np.abs(self._forms).sum(axis=1) * _LIMIT + np.abs(self._offset)) ** 2).sum())
        d = self.n_features_in_
        return builder.finish(
            tolerance=max(1e-6 * self._scale, largest * _RESOLVED),
            # A quadratic form in d variables has this many coefficients; as many honest scores determine it.
            honest_extraction_rows=(d + 1) * (d + 2) // 2,
        )

    @property
    def _scale(self) -> float:
        """A score worth resolving: the threshold, or where there is none above zero the middle of the bounds."""
        placed = getattr(self, "threshold_", 0.0)
        return placed if placed > 0 else float((self._offset**2).sum()) or 1.0

    def _bits(self) -> tuple[int, int]:
        """Fraction bits of the inputs and of the weights, so that either's error is half of what is allowed."""
        allowed = _ROUNDING * math.sqrt(self._scale) / 2
        inputs, weights = self._length_errors(0, 0)
        return (
            min(max(_LEAST_FRACTION_BITS, math.ceil(math.log2(inputs / allowed))), MAX_FRACTION_BITS),
            max(0, math.ceil(math.log2(weights / allowed))),
        )

    def _length_errors(self, fraction_bits: int, weight_bits: int) -> tuple[float, float]:
        """How far rounded inputs and rounded weights move the forms' length at most."""
        d, rank = self.n_features_in_, len(self._forms)
        inputs = float(np.linalg.norm(np.abs(self._forms).sum(axis=1))) * 2.0 ** -(fraction_bits + 1)
        # Every weight is off by half a step at most, and so is the offset.
        return inputs or 2.0**-40, math.sqrt(rank) * (d * _LIMIT + 2) * 2.0 ** -(weight_bits + 1)


def squared_in_words(threshold: float) -> str:
    """What the program's score is where the original's is a length."""
    return f"scores are squares of the original's, {threshold:.6g} there"
