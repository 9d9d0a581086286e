"""Imported autoencoders: the squared reconstruction error of a network of linear maps, squares or ReLUs."""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np

from securead.data.encoder import Encoder
from securead.data.schema import Array, Schema
from securead.models.imported.detector import ImportedDetector, refuse
from securead.models.imported.distance import squared_in_words
from securead.models.imported.records import Scaling, refuse_transforms
from securead.models.imported.rounding import rounding_bound
from securead.program.layered import RING_BITS, layered_program
from securead.program.program import Program
from securead.program.reconstruction import TOLERANCE, Network, reconstruction_error

Layers = list[tuple[Array, Array]]
_MOST_REACH = 1024.0


class ImportedNetwork(ImportedDetector):
    """Scores |x' - network(x')|^2, x' the scaled record; `root` where the original's score is the length itself.

    `layers`: weights `(out, in)` and offsets `(out,)`, two at least; between them units of one kind.
    """

    def __init__(
        self, layers: Layers, units: Literal["square", "relu"], scaling: Scaling, schema: Schema, *, root: bool = False
    ) -> None:
        refuse_transforms(schema)
        lower, upper = schema.transformed_bounds()
        reach = max(np.abs(scaling.apply(lower)).max(), np.abs(scaling.apply(upper)).max(), 1.0)
        if reach > _MOST_REACH:
            raise refuse(
                "a network whose inputs reach far",
                f"{reach:.3g} at the bounds, {_MOST_REACH:g} is the most",
                "train it behind a StandardScaler and give that as scaler=, or declare narrower bounds",
            )
        # The program's public |z|^2 is a part of the score only where z is what the network sees.
        super().__init__(Encoder(schema.with_scale(scaling.center, scaling.scale), float(math.ceil(reach))))
        self._layers, self.units, self.root = layers, units, root

    def score_standardised(self, Z: Array) -> Array:
        """The squared reconstruction error, in float64."""
        values = Z
        *hidden, (last, center) = self._layers
        for weight, offset in hidden:
            values = values @ weight.T + offset
            values = values * values if self.units == "square" else np.maximum(values, 0.0)
        errors: Array = ((Z - values @ last.T - center) ** 2).sum(axis=1)
        return errors

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
        """Errors carried through the program beside each record's own values: some tens of times what occurs."""
        program = self.compile()
        Z, _ = program.public.encoder.encode(np.asarray(X, dtype=np.float64))
        error = rounding_bound(program, Z)
        if not self.root:
            return error
        scores = self.in_original_scale(self.anomaly_score(X))
        bound: Array = np.minimum(np.sqrt(error), error / np.maximum(scores, 1e-300))
        return bound

    def compile(
        self, *, weight_bits: int | None = None, fraction_bits: int | None = None, ring_bits: int | None = None
    ) -> Program:
        """A program of degree four for one hidden layer of squares; else one of all layers, for secret sharing only.

        As `AutoEncoder.compile`: `ring_bits` asks for the latter, which chooses its fraction bits itself.
        """
        schema, limit, scale = self.encoder_.schema, self.encoder_.limit, self._scale
        if ring_bits is not None or self.units == "relu" or len(self._layers) != 2:
            return layered_program(
                lambda bits: Encoder(schema, limit, bits),
                self._layers,
                self.units,
                ring_bits=RING_BITS if ring_bits is None else ring_bits,
                tolerance=TOLERANCE * scale,
                honest_extraction_rows=self._unknowns,
            )
        (encode, bias), (decode, center) = self._layers
        builder = reconstruction_error(
            Encoder(schema, limit, 14 if fraction_bits is None else fraction_bits),
            Network(encode, bias, decode, center),
            typical=scale,
            weight_bits=weight_bits,
        )
        return builder.finish(tolerance=TOLERANCE * scale, honest_extraction_rows=self._unknowns, squared_norm=1.0)

    @property
    def _unknowns(self) -> int:
        """Each weight is one; generically as many honest scores determine them."""
        return sum(weight.size + offset.size for weight, offset in self._layers) + self.n_features_in_

    @property
    def _scale(self) -> float:
        """A typical score: where a twentieth lies above the threshold, half lie above about a third of it."""
        placed = getattr(self, "threshold_", 0.0)
        return placed / 3 if placed > 0 else float(self.n_features_in_)


def plain_layers(maps: Layers, kinds: list[str]) -> Layers:
    """Check a network in normal form: widths that fit, and as many outputs as inputs; raises `FixInputError`."""
    width = maps[0][0].shape[1]
    if maps[-1][0].shape[0] != width:
        raise refuse(
            f"a network of {width} inputs and {maps[-1][0].shape[0]} outputs",
            "it does not reconstruct its input, so it has no reconstruction error",
            "AutoEncoder, trained here",
        )
    if len(set(kinds)) > 1:
        raise refuse(
            "a network with units of several kinds", "programs have one kind of unit", "all squares, or all ReLUs"
        )
    return maps
