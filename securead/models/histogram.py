"""Histogram detector (HBOS): columns taken one by one, from one round of noised counts over public bins.

One record falls into one bin of each column: L2 sensitivity sqrt(columns). Goldstein and Dengel (2012),
"Histogram-based outlier score (HBOS)"; here with bins from public bounds, so that only counts depend on records.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
from sklearn.utils.validation import check_is_fitted

from securead.data.schema import Array, Schema
from securead.errors import FixConfigurationError
from securead.models.estimator import AnomalyDetector
from securead.models.forest import (
    ENTRY_BITS,
    FRACTION_BITS,
    extraction_rows,
    limits_of,
    look_up,
    on_entry_grid,
    on_grid,
    refuse_other_grid,
    refuse_unless_integer,
)
from securead.models.geometry import Box
from securead.models.layout import Layout
from securead.models.threshold import Wish
from securead.models.training import State, Total, Update, release
from securead.privacy import preprocessing
from securead.privacy.plan import PrivacyPlan, Stage
from securead.privacy.site import Releaser
from securead.program.builder import table_program
from securead.program.geometry import Bins
from securead.program.program import Program
from securead.program.table import MAX_ENTRIES, MAX_TABLES

COUNTS = "counts"
_OWN_POINTS = 16384


class HistogramDetector(AnomalyDetector):
    """Records whose values are rare, column by column: the sum of log(highest bin / bin).

    Parameters
    ----------
    n_bins: bins of equal width over each column's bounds.
    Others: see `AnomalyDetector`; the threshold is "private" by default, as "model" takes columns as independent.

    To every bin half a standard deviation of its noise is added (one record at least), so that noise on nearly empty
    bins makes no difference between them. Relations between columns are not seen.
    """

    def __init__(
        self,
        *,
        n_bins: int = 32,
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
        self.n_bins = n_bins

    def model_stages(self) -> Mapping[str, Stage]:
        """One round."""
        return {COUNTS: Stage(share=1.0)}

    def stage_in_words(self, stage: str) -> str:
        """The counts, or what every detector may release."""
        return "histograms of every column" if stage == COUNTS else super().stage_in_words(stage)

    def initial_values(self, schema: Schema) -> Mapping[str, Array]:
        """The inner edges of all bins, int64 `(columns, n_bins - 1)`, on the encoder's grid."""
        encoder = self._encoder(schema, FRACTION_BITS)
        columns = len(schema.columns)
        if columns > MAX_TABLES or columns * self.n_bins > MAX_ENTRIES:
            raise FixConfigurationError(
                f"histograms of at most {MAX_TABLES} columns and {MAX_ENTRIES:,} bins in all",
                value=(columns, self.n_bins),
                remedy="Use fewer columns or bins.",
            )
        if self.n_bins > encoder.bound:
            raise FixConfigurationError(
                f"n_bins exceeds the grid of values within limit={self.limit:g}",
                value=self.n_bins,
                remedy="Use fewer bins or the default limit.",
            )
        box = Box.of(encoder)
        edges = np.rint(np.linspace(box.lower, box.upper, self.n_bins + 1)[1:-1].T).astype(np.int64)
        # Edges rise: a column narrower on the grid than its bins gets bins of one step, some beyond its bounds.
        steps = np.arange(1, self.n_bins)
        start = np.minimum(box.lower, encoder.bound - self.n_bins)[:, None]
        narrow = (box.upper - box.lower < 2 * self.n_bins)[:, None]
        return {"edges": np.where(narrow, start + steps, edges)}

    def scale_from(
        self, noised: Array, edges: Array, noise_deviation: float, names: tuple[str, ...]
    ) -> tuple[Array, Array]:
        """The range between private quantiles, which the encoder then clips to; refused where records are too few."""
        return preprocessing.quantile_scale(noised, edges, noise_deviation, names, limit=self.limit)

    def model_update(self, state: State, Z: Array, releaser: Releaser) -> Update:
        """Exact counts `(columns, n_bins)`; a record changes one in each column."""
        counts = preprocessing.tally(_bins(state.values).index(on_grid(Z)), self.n_bins)
        return release(state, counts, preprocessing.sensitivity(len(counts)), releaser)

    def model_layout(self, state: State) -> Layout:
        """A row a column; a record falls into one bin of each."""
        return Layout("table", unit=preprocessing.sensitivity(1), rows=len(state.schema.columns))

    def model_state(self, state: State, total: Total) -> Mapping[str, Array]:
        """Each bin's share of the records and its term of the score, both `(columns, n_bins)`."""
        noise, noised = preprocessing.deviation(total.noise_variance), preprocessing.counts(total.values)
        records = preprocessing.records_counted(noised, noise * (noised.shape[1] / len(noised)) ** 0.5)
        counts = preprocessing.nearest_counts(noised, records)
        raised = counts + max(1.0, noise / 2)
        terms = np.log(raised.max(axis=1, keepdims=True) / raised)
        return {"shares": counts / records, **on_entry_grid(terms)}

    def score_standardised(self, values: Mapping[str, Array], Z: Array) -> Array:
        """Sum over columns of log(highest bin / bin), on the encoder's grid."""
        return look_up(values["tables"], _bins(values).index(on_grid(Z)))

    def score_quantile(self, values: Mapping[str, Array], share_above: float) -> float:
        """The quantile of sums of terms drawn from each column's bins as if columns were independent."""
        rng, scores = np.random.default_rng(0), np.zeros(_OWN_POINTS)
        for shares, terms in zip(values["shares"], values["tables"], strict=True):
            scores += rng.choice(terms, size=_OWN_POINTS, p=shares / shares.sum())
        return float(np.quantile(scores, 1 - share_above))

    def score_step(self, values: Mapping[str, Array]) -> float | None:
        """The step of the tables' entries."""
        return float(values["step"][0])

    def score_limits(self, values: Mapping[str, Array]) -> tuple[float, float]:
        """From a thousandth of the largest score to the largest."""
        return limits_of(list(values["tables"]))

    def compile(
        self, *, weight_bits: int | None = None, fraction_bits: int = FRACTION_BITS, ring_bits: int | None = None
    ) -> Program:
        """A table for each column, its entries in `weight_bits` bits (by default 8).

        Sums fit 40 bits, so any `ring_bits`.

        Raises `FixProgramError` for other `fraction_bits` than the bins were laid on.
        """
        check_is_fitted(self)
        refuse_other_grid(fraction_bits)
        tables = list(self.values_["tables"])
        return table_program(
            self._encoder(self.encoder_.schema, fraction_bits),
            _bins(self.values_),
            tables,
            entry_bits=ENTRY_BITS if weight_bits is None else weight_bits,
            honest_extraction_rows=extraction_rows(tables),
        )

    def _check_parameters(self) -> None:
        super()._check_parameters()
        refuse_unless_integer("n_bins", self.n_bins, 2, 4096)


def _bins(values: Mapping[str, Array]) -> Bins:
    edges = values["edges"]
    return Bins(tuple(range(len(edges))), tuple(map(tuple, edges.tolist())))
