"""Private preprocessing from noised histograms: centre and spread of columns, or the range that most records fill.

A record falls into one bin of each histogram, so with d histograms the counts have L2 sensitivity sqrt(d) in the
add-or-remove-one relation. Bins are public.
"""

from __future__ import annotations

import math

import numpy as np

from securead.data.schema import Array
from securead.errors import PrivacyRefusedError
from securead.privacy.mechanisms import GRID_BITS

SCALING_BINS = 256
_UNIT = 1 << GRID_BITS
_SIGNIFICANT = 3.0
# Bins are joined until those that stand out from the noise hold this share of the records.
_KEPT_SHARE, _FEWEST_BINS = 0.95, 8
# A tail must outweigh a bin's noise this many times to be placed.
_TAIL_TO_NOISE = 2.0


def histogram(values: Array, edges: Array) -> Array:
    """Counts per bin in grid steps, int64 `(columns, bins)`, of values `(n, columns)` and edges `(columns, bins + 1)`.

    Values beyond the edges fall into the outermost bins.
    """
    index = np.empty(values.shape, dtype=np.int64)
    for column, (data, edge) in enumerate(zip(values.T, edges, strict=True)):
        index[:, column] = np.clip(np.searchsorted(edge, data, side="right") - 1, 0, len(edge) - 2)
    return tally(index, edges.shape[1] - 1)


def tally(index: Array, bins: int) -> Array:
    """Counts in grid steps, int64 `(columns, bins)`, of bin numbers `(n, columns)`."""
    counts = np.empty((index.shape[1], bins), dtype=np.int64)
    for column, numbers in enumerate(index.T):
        counts[column] = np.bincount(numbers, minlength=bins)
    return counts * _UNIT


def sensitivity(columns: int) -> int:
    """L2 sensitivity of counts of which one record changes `columns`, by one each: in grid steps, rounded up."""
    return math.isqrt(columns * _UNIT * _UNIT - 1) + 1


def counts(noised: Array) -> Array:
    """Noised grid steps to noised counts."""
    return noised / _UNIT


def deviation(noise_variance: float) -> float:
    """A noise variance in squared grid steps to a standard deviation in records."""
    return math.sqrt(noise_variance) / _UNIT


def scaling_edges(lower: Array, upper: Array) -> Array:
    """Equal-width bins over public bounds, `(columns, SCALING_BINS + 1)`."""
    return np.linspace(lower, upper, SCALING_BINS + 1).T


def estimate_scale(noised: Array, edges: Array, noise_deviation: float, names: tuple[str, ...]) -> tuple[Array, Array]:
    """Centre and spread (mean and standard deviation) of each column from noised histograms.

    Bins below three standard deviations of their noise are taken as empty. Raises `PrivacyRefusedError` when a
    column has no bin above: there are too few records for this noise.
    """
    center, spread = np.empty(len(noised)), np.empty(len(noised))
    for column, (row, edge) in enumerate(zip(noised, edges, strict=True)):
        kept = np.where(row > _SIGNIFICANT * noise_deviation, row, 0.0)
        if kept.sum() <= 0:
            raise PrivacyRefusedError(
                f"too few records to estimate the scale of {names[column]!r} privately",
                value=f"noise of {noise_deviation:.3g} records a bin",
                remedy="Declare center and spread in the schema, or allow a larger epsilon.",
            )
        middle, weight = (edge[1:] + edge[:-1]) / 2, kept / kept.sum()
        center[column] = weight @ middle
        # A spread below half a bin cannot be told from zero.
        spread[column] = max(math.sqrt(weight @ (middle - center[column]) ** 2), (edge[1] - edge[0]) / 2)
    return center, spread


def quantile_scale(
    noised: Array,
    edges: Array,
    noise_deviation: float,
    names: tuple[str, ...],
    *,
    limit: float,
    tail: float = 0.01,
    margin: float = 0.1,
) -> tuple[Array, Array]:
    """Centre and spread `(columns,)` with which values clipped at `limit` spreads are those that most records have.

    A column's range goes from its `tail` to its `1 - tail` quantile, and beyond by `margin` of its width on either
    side where the bounds allow it. Quantiles are read off the bins that stand out from their noise, at the finest
    width at which these hold nearly all records. Raises `PrivacyRefusedError` where a tail is too few records for this
    noise: at epsilon 1 with some twenty columns that takes about ten thousand records.
    """
    records = float(noised.sum(axis=1).mean()) if len(noised) else 0.0
    needed = _TAIL_TO_NOISE * noise_deviation / tail
    if records <= 0 or records < needed:
        raise PrivacyRefusedError(
            f"too few records to find the range of {len(names)} columns privately",
            value=f"about {max(records, 0.0):.0f} records; noise of {noise_deviation:.3g} a bin needs {needed:.0f}",
            remedy='Declare bounds in the schema and use scaling="schema", add records, or allow a larger epsilon.',
        )
    lower, upper = np.empty(len(noised)), np.empty(len(noised))
    for column, (row, edge) in enumerate(zip(noised, edges, strict=True)):
        kept, edge = _standing_out(row, edge, noise_deviation, records, len(noised))
        cumulated = np.cumsum(kept) / kept.sum()
        low = edge[int(np.searchsorted(cumulated, tail, side="right"))]
        high = edge[int(np.searchsorted(cumulated, 1 - tail)) + 1]
        beyond = margin * (high - low)
        lower[column], upper[column] = max(low - beyond, edge[0]), min(high + beyond, edge[-1])
    return lower / 2 + upper / 2, (upper - lower) / (2 * limit)


def records_counted(noised: Array, doubt: float) -> float:
    """The number of records behind noised histograms of them all `(rows, bins)`: the mean over the rows.

    Raises `PrivacyRefusedError` when it lies within three times its standard deviation `doubt` of zero.
    """
    records = float(noised.sum(axis=1).mean())
    if records <= _SIGNIFICANT * doubt:
        raise PrivacyRefusedError(
            "too few records: their noised number cannot be told from zero",
            value=f"{records:.1f} records, noise {doubt:.1f}",
            remedy="Add records or allow a larger epsilon.",
        )
    return records


def nearest_counts(noised: Array, total: float) -> Array:
    """The non-negative rows that sum to `total` and lie nearest to the noised rows `(rows, bins)`.

    Noise on empty bins goes and none of it is left as records; exact counts that sum to `total` stay what they are.
    The projection onto a simplex (Held, Wolfe and Crowder 1974).
    """
    falling = -np.sort(-noised, axis=1)
    excess = (np.cumsum(falling, axis=1) - total) / np.arange(1, noised.shape[1] + 1)
    support = np.count_nonzero(falling > excess, axis=1)
    nearest: Array = np.maximum(noised - excess[np.arange(len(noised)), support - 1][:, None], 0.0)
    return nearest


def _standing_out(row: Array, edge: Array, noise_deviation: float, records: float, columns: int) -> tuple[Array, Array]:
    """The bins that stand out from their noise, at the finest width at which they hold nearly all records; edges.

    The threshold is the universal one of Donoho and Johnstone (1994): among all bins of all columns hardly any is
    above it by noise alone.
    """
    while True:
        threshold = noise_deviation * math.sqrt(2 * math.log(columns * len(row)))
        kept = np.where(row > threshold, row, 0.0)
        doubt = 2 * noise_deviation * math.sqrt(np.count_nonzero(kept))
        if kept.sum() + doubt >= _KEPT_SHARE * records or len(row) // 2 < _FEWEST_BINS or len(row) % 2:
            # With nothing left, no part of the range is known to be empty.
            return (kept if kept.sum() > 0 else np.ones(len(row))), edge
        row, edge, noise_deviation = row[::2] + row[1::2], edge[::2], noise_deviation * math.sqrt(2)
