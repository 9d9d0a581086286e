"""Splitting one table among sites, and into training and held-out rows, for studies and demonstrations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from securead.data.schema import Array
from securead.errors import FixConfigurationError


def partition(rows: int, shares: Sequence[float], *, seed: int) -> list[Array]:
    """Row indices for each site, disjoint and together all rows, dealt at random, as many as `sizes` says."""
    ends = np.cumsum(sizes(rows, shares))[:-1]
    return [np.sort(part) for part in np.split(np.random.default_rng(seed).permutation(rows), ends)]


def sizes(rows: int, shares: Sequence[float]) -> Array:
    """How many rows each site gets by its share; at least one.

    Raises `FixConfigurationError` for shares that are not positive or for fewer rows than sites.
    """
    weights = np.asarray(shares, dtype=float)
    if weights.ndim != 1 or not len(weights) or not (weights > 0).all() or not np.isfinite(weights).all():
        raise FixConfigurationError("shares are positive numbers", value=list(shares), remedy="For example 6, 3, 1.")
    if rows < len(weights):
        raise FixConfigurationError(
            f"{rows} rows cannot be split among {len(weights)} sites", remedy="Use fewer sites or more rows."
        )
    cuts = np.rint(np.cumsum(weights / weights.sum())[:-1] * rows).astype(int)
    # Strictly increasing cuts between 1 and rows - 1 leave no site empty.
    order = np.arange(len(cuts))
    cuts = np.maximum.accumulate(np.maximum(cuts, 1) - order) + order
    cuts = np.minimum(cuts, rows - len(cuts) + order)
    return np.diff(cuts, prepend=0, append=rows)


def hold_out(rows: int, y: Array | None, share: float, *, seed: int) -> tuple[Array, Array]:
    """Training and held-out row indices; with labels, both keep the anomalies' proportion."""
    rng = np.random.default_rng(seed)
    groups = [np.arange(rows)] if y is None else [np.flatnonzero(y == 0), np.flatnonzero(y == 1)]
    train, held = [], []
    for group in groups:
        shuffled = rng.permutation(group)
        cut = round(len(group) * share)
        held.append(shuffled[:cut])
        train.append(shuffled[cut:])
    return np.sort(np.concatenate(train)), np.sort(np.concatenate(held))
