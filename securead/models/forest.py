"""Isolation forest with public splits: one round of noised counts per leaf makes it private.

Splits come from a public seed and the schema's bounds, so only counts depend on records. One record falls into one
leaf of each tree: L2 sensitivity sqrt(trees), or sqrt(trees * depth) where every level is counted. Isolation depth:
Liu, Ting and Zhou (2008); masses in place of samples: Tan, Ting and Liu (2011); hyperplanes: Hariri, Kind and Brunner
(2019).
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from typing import Literal

import numpy as np
from sklearn.utils.validation import check_is_fitted

from securead.data.schema import Array, Schema
from securead.errors import FixConfigurationError, FixProgramError
from securead.models.estimator import AnomalyDetector
from securead.models.geometry import Box, Splits, draw_splits, points_like
from securead.models.layout import Layout
from securead.models.threshold import Wish
from securead.models.training import State, Total, Update, release
from securead.privacy import preprocessing
from securead.privacy.plan import PrivacyPlan, Stage
from securead.privacy.site import Releaser
from securead.program.builder import table_program
from securead.program.geometry import MAX_TERMS, Trees
from securead.program.program import Program

COUNTS = "counts"
# The encoder's default: detector, integer program and encrypted run compute every position on this grid.
FRACTION_BITS = 14
ENTRY_BITS = 8
_MOST_TREES, _MOST_DEPTH = 1000, 12
# Public points that stand for the detector's own distribution.
_OWN_POINTS = 2048


class IsolationForest(AnomalyDetector):
    """Records that public random splits isolate early, counted privately.

    Parameters
    ----------
    n_estimators, depth: how many trees, and how many splits from root to leaf: `n_estimators * 2**depth` counts.
    max_features: trees draw on 1 to so many columns, in turn; None for all columns. Few keep splits from being spread
        thinly over many: by default half of the trees look at single columns closely, half at pairs.
    max_samples: a tree isolates as one grown on a subsample of this size would: where the expected number of its
        records in a cell is 1 or less, a record counts as isolated.
    extension: 0 splits one column at a time; k splits by a hyperplane in k + 1 of a tree's columns.
    noise: "leaves" releases a count for each leaf; "levels" one for each node, reconciled by least squares.
    random_state: seed of the splits. It is public, and so are the splits: neither depends on any record.
    Others: see `AnomalyDetector`; the threshold is "private" by default, as "model" is a rough guess here.

    The score is 1 - (mean isolation depth) / (largest possible), in [0, 1]. Bounds shape the splits: where they are
    some times wider than the records, splits are wasted on empty space.
    """

    def __init__(
        self,
        *,
        n_estimators: int = 100,
        depth: int = 5,
        max_features: int | None = 2,
        max_samples: int = 256,
        extension: int = 0,
        noise: Literal["leaves", "levels"] = "leaves",
        random_state: int | None = 0,
        scaling: Literal["schema", "private", "local"] = "schema",
        threshold: Wish = "private",
        contamination: float = 0.1,
        limit: float = 8.0,
        schema: Schema | None = None,
        privacy: PrivacyPlan | None = None,
    ) -> None:
        super().__init__(
            scaling=scaling,
            threshold=threshold,
            contamination=contamination,
            limit=limit,
            schema=schema,
            privacy=privacy,
        )
        self.n_estimators = n_estimators
        self.depth = depth
        self.max_features = max_features
        self.max_samples = max_samples
        self.extension = extension
        self.noise = noise
        self.random_state = random_state

    def model_stages(self) -> Mapping[str, Stage]:
        """One round."""
        return {COUNTS: Stage(share=1.0)}

    def stage_in_words(self, stage: str) -> str:
        """The counts, or what every detector may release."""
        what = "leaf" if self.noise == "leaves" else "node"
        return (
            f"the number of records in each {what} of each tree" if stage == COUNTS else super().stage_in_words(stage)
        )

    def initial_values(self, schema: Schema) -> Mapping[str, Array]:
        """The splits, drawn once and handed to all sites: int64 arrays, and the box that they are drawn over."""
        box = Box.of(self._encoder(schema, FRACTION_BITS))
        splits = draw_splits(
            box,
            trees=self.n_estimators,
            depth=self.depth,
            max_features=self.max_features,
            extension=self.extension,
            rng=np.random.default_rng(self.random_state),
        )
        return {
            "columns": splits.columns,
            "weights": splits.weights,
            "thresholds": splits.thresholds,
            "lower": box.lower,
            "upper": box.upper,
        }

    def scale_from(
        self, noised: Array, edges: Array, noise_deviation: float, names: tuple[str, ...]
    ) -> tuple[Array, Array]:
        """The range between private quantiles, which the encoder then clips to; refused where records are too few."""
        return preprocessing.quantile_scale(noised, edges, noise_deviation, names, limit=self.limit)

    def model_update(self, state: State, Z: Array, releaser: Releaser) -> Update:
        """Exact counts of leaves or of all nodes below the root, a row a tree; a record changes one in each (level)."""
        splits = _splits(state.values)
        counts = preprocessing.tally(splits.leaves(on_grid(Z)), 1 << splits.depth)
        entries = len(counts)
        if self.noise == "levels":
            counts = np.concatenate(_levels(counts)[1:], axis=1)
            entries *= splits.depth
        return release(state, counts, preprocessing.sensitivity(entries), releaser)

    def model_layout(self, state: State) -> Layout:
        """A row a tree; a record falls into one leaf of each, or one node of each level."""
        per_row = self.depth if self.noise == "levels" else 1
        return Layout("table", unit=preprocessing.sensitivity(1), rows=self.n_estimators, per_row=per_row)

    def model_state(self, state: State, total: Total) -> Mapping[str, Array]:
        """Each leaf's share of the records and its term of the score, both `(trees, leaves)`."""
        noise, noised = preprocessing.deviation(total.noise_variance), preprocessing.counts(total.values)
        if self.noise == "levels":
            noised = _reconciled(np.split(noised, np.cumsum(2 ** np.arange(1, self.depth)), axis=1))
            noise *= math.sqrt(2 / len(noised))  # of a tree's two children of the root, over the trees
        else:
            noise *= math.sqrt(noised.shape[1] / len(noised))
        # One number of records for all trees; each alone is noisier.
        records = preprocessing.records_counted(noised, noise)
        shares = preprocessing.nearest_counts(noised, records) / records
        sample = max(2.0, min(float(self.max_samples), records))
        depths = _isolation_depths(shares * sample)
        largest = self.depth + float(_further_depth(np.array([sample]))[0])
        return {"shares": shares, **on_entry_grid((1 - depths / largest) / len(depths))}

    def score_standardised(self, values: Mapping[str, Array], Z: Array) -> Array:
        """1 - mean isolation depth / largest, on the encoder's grid."""
        return look_up(values["tables"], _splits(values).leaves(on_grid(Z)))

    def score_quantile(self, values: Mapping[str, Array], share_above: float) -> float:
        """The quantile of points drawn from the trees' shares of records; the seed is public.

        An approximation, as trees tell nothing of relations that none of them looks at: on six public data sets a wish
        to flag 1 % flagged 0 to 4 %, and with hyperplanes next to nothing.
        """
        splits, box = _splits(values), Box(values["lower"], values["upper"])
        points = points_like(splits, values["shares"], box, _OWN_POINTS, np.random.default_rng(0))
        return float(np.quantile(look_up(values["tables"], splits.leaves(points)), 1 - share_above))

    def score_step(self, values: Mapping[str, Array]) -> float | None:
        """The step of the tables' entries."""
        return float(values["step"][0])

    def score_limits(self, values: Mapping[str, Array]) -> tuple[float, float]:
        """The sums of all trees' smallest and of all trees' largest terms."""
        return limits_of(list(values["tables"]))

    def compile(
        self, *, weight_bits: int | None = None, fraction_bits: int = FRACTION_BITS, ring_bits: int | None = None
    ) -> Program:
        """A table for each tree, its entries in `weight_bits` bits (by default 8).

        Sums fit 40 bits, so any `ring_bits`.

        Raises `FixProgramError` for other `fraction_bits` than the splits were drawn on.
        """
        check_is_fitted(self)
        refuse_other_grid(fraction_bits)
        splits, tables = _splits(self.values_), self.values_["tables"]
        geometry = Trees(
            splits.depth,
            tuple(splits.columns.ravel().tolist()),
            tuple(splits.weights.ravel().tolist()),
            tuple(splits.thresholds.ravel().tolist()),
        )
        return table_program(
            self._encoder(self.encoder_.schema, fraction_bits),
            geometry,
            list(tables),
            entry_bits=ENTRY_BITS if weight_bits is None else weight_bits,
            honest_extraction_rows=extraction_rows(list(tables)),
        )

    def _check_parameters(self) -> None:
        super()._check_parameters()
        refuse_unless_integer("n_estimators", self.n_estimators, 1, _MOST_TREES)
        refuse_unless_integer("depth", self.depth, 1, _MOST_DEPTH)
        refuse_unless_integer("max_samples", self.max_samples, 2, 1 << 31)
        refuse_unless_integer("extension", self.extension, 0, 1 << 12)
        terms = self.n_estimators * ((1 << self.depth) - 1) * (1 + self.extension)
        if terms > MAX_TERMS:
            raise FixConfigurationError(
                f"all trees together have at most {MAX_TERMS:,} terms of splits",
                value=terms,
                remedy="Use fewer or shallower trees, or a smaller extension.",
            )
        if self.max_features is not None:
            refuse_unless_integer("max_features", self.max_features, 1, 1 << 12)
        if self.random_state is not None:
            refuse_unless_integer("random_state", self.random_state, 0, (1 << 63) - 1)
        if self.noise not in ("leaves", "levels"):
            raise FixConfigurationError("noise is leaves or levels", value=self.noise, remedy="Correct it.")


def on_grid(Z: Array) -> Array:
    """Standardised records to the integers that `Encoder.encode` makes of them."""
    integers: Array = np.rint(Z * 2**FRACTION_BITS).astype(np.int64)
    return integers


def on_entry_grid(tables: Array) -> dict[str, Array]:
    """Tables rounded to the entries that the integer program will have, so that both score alike, and their step."""
    step = float(tables.max()) / ((1 << ENTRY_BITS) - 1) or 1.0
    return {"tables": np.rint(tables / step) * step, "step": np.array([step])}


def look_up(tables: Array, index: Array) -> Array:
    """Sums `(n,)` of entries of tables `(tables, size)` at positions `(n, tables)`, table by table."""
    scores = np.zeros(len(index))
    for entries, positions in zip(tables, index.T, strict=True):
        scores += entries[positions]
    return scores


def limits_of(tables: list[Array]) -> tuple[float, float]:
    """Positive bounds of the sum of one entry of each table; the lower one at least a thousandth of the upper."""
    high = sum(float(entries.max()) for entries in tables)
    low = sum(float(entries.min()) for entries in tables)
    high = high if high > 0 else 1.0
    return min(max(low, high / 1000), high / 2), high * (1 + 1e-9)


def extraction_rows(tables: list[Array]) -> int:
    """As many honest scores determine all tables: entries less one a table, for constants move between tables."""
    return sum(len(entries) - 1 for entries in tables) + 1


def refuse_other_grid(fraction_bits: int) -> None:
    """Raise `FixProgramError` unless the grid is that of the geometry."""
    if fraction_bits != FRACTION_BITS:
        raise FixProgramError(
            f"splits and bins lie on a grid of {FRACTION_BITS} fraction bits",
            value=fraction_bits,
            remedy="Leave fraction_bits out.",
        )


def refuse_unless_integer(name: str, value: object, low: int, high: int) -> None:
    """Raise `FixConfigurationError` unless a parameter is a whole number in [low, high]."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or not low <= int(value) <= high:
        raise FixConfigurationError(
            f"{name} is a whole number from {low} to {high}", value=value, remedy="Leave it out for its default."
        )


def _splits(values: Mapping[str, Array]) -> Splits:
    return Splits(values["columns"], values["weights"], values["thresholds"])


def _levels(leaves: Array) -> list[Array]:
    """Sums per node `(trees, 2**level)` for every level, root first."""
    levels = [leaves]
    while levels[0].shape[1] > 1:
        levels.insert(0, levels[0].reshape(len(leaves), -1, 2).sum(axis=2))
    return levels


def _reconciled(levels: list[Array]) -> Array:
    """Leaf counts `(trees, leaves)` by least squares from equally noised counts of all levels below the root.

    Hay, Rastogi, Miklau and Suciu (2010), section 4: upwards each node's count is averaged with its children's sum by
    their precisions, downwards what the children lack of it is shared between them.
    """
    estimates, variance = [levels[-1]], 1.0
    for counts in reversed(levels[:-1]):
        children = estimates[0].reshape(len(counts), -1, 2).sum(axis=2)
        weight = 2 * variance / (1 + 2 * variance)
        estimates.insert(0, weight * counts + (1 - weight) * children)
        variance = weight
    result = estimates[0]
    for below in estimates[1:]:
        lack = result - below.reshape(len(below), -1, 2).sum(axis=2)
        result = below + np.repeat(lack / 2, 2, axis=1)
    return result


def _isolation_depths(masses: Array) -> Array:
    """Isolation depth `(trees, leaves)` of expected subsample masses per leaf.

    The depth of the first node on the path whose mass is 1 or less; at a leaf with more, its depth and what a tree
    grown on would add.
    """
    levels = _levels(masses)
    depth = len(levels) - 1
    result = depth + _further_depth(masses)
    for level in range(depth, -1, -1):
        # Upwards, so that the first such node on the path has the last word.
        isolated = np.repeat(levels[level] <= 1, 1 << (depth - level), axis=1)
        result = np.where(isolated, float(level), result)
    return result


def _further_depth(masses: Array) -> Array:
    """c(m), the mean depth of a search tree of m records (Liu, Ting and Zhou 2008, eq. 1); 0 for m <= 1."""
    many = np.maximum(masses, 2.0 + 1e-12)
    mean = 2 * (np.log(many - 1) + np.euler_gamma) - 2 * (many - 1) / many
    return np.where(masses > 2, mean, np.where(masses > 1, 1.0, 0.0))
