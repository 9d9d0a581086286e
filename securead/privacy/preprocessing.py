"""Private preprocessing from noised histograms: centre and spread of columns, and quantiles of a score.

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


def histogram(values: Array, edges: Array) -> Array:
    """Counts per bin in grid steps, int64 `(columns, bins)`, of values `(n, columns)` and edges `(columns, bins + 1)`.

    Values beyond the edges fall into the outermost bins.
    """
    counts = np.empty((values.shape[1], edges.shape[1] - 1), dtype=np.int64)
    for column, (data, edge) in enumerate(zip(values.T, edges, strict=True)):
        index = np.clip(np.searchsorted(edge, data, side="right") - 1, 0, len(edge) - 2)
        counts[column] = np.bincount(index, minlength=len(edge) - 1)
    return counts * _UNIT


def sensitivity(columns: int) -> int:
    """L2 sensitivity of `histogram`, in grid steps, rounded up."""
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


def upper_quantile(noised: Array, edges: Array, share_above: float, noise_deviation: float) -> float:
    """The bin edge above which about `share_above` of the noised mass lies.

    Raises `PrivacyRefusedError` when the noise on the tail exceeds half the mass that is looked for.
    """
    total = noised.sum()
    wanted = share_above * total
    # The tail's noise adds over the bins from the top; only bins up to the answer contribute.
    tail = np.cumsum(noised[::-1])[::-1]
    # The noise of a sum is not monotone: start from the first bin after which the tail stays below what is wanted.
    above = np.flatnonzero(tail > wanted)
    at = int(above[-1]) + 1 if len(above) else 0
    doubt = noise_deviation * math.sqrt(max(len(noised) - at, 1))
    if total <= 0 or doubt > wanted / 2:
        raise PrivacyRefusedError(
            f"too few records for a private threshold at a rate of {share_above:g}",
            value=f"about {max(wanted, 0.0):.0f} records above it, noise {doubt:.0f}",
            remedy='Use threshold="model", a higher contamination, or a larger epsilon.',
        )
    return float(edges[at])
