"""How certain a run's figures are: areas under curves, their intervals, and bands around curves.

Two sources of intervals. A *difference* of two areas on the same rows has DeLong, DeLong and Clarke-Pearson's (1988). A
single curve and the areas under it have percentile bootstrap intervals (Efron and Tibshirani 1993, chapter 13) over
held-out rows, stratified: each resample keeps the number of anomalies.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from securead.data.schema import Array

LEVEL = 0.95
# Resampling fewer rows than this says more about the resampling than about the detector.
FEWEST_ROWS = 10
_NORMAL_QUANTILE = 1.96
_RESAMPLES = 500
_SEED = 0
# Thresholds at most, about: each class gives its own quantiles, and the normal rows their upper tail.
_THRESHOLDS = 1000
# Where bands are drawn; closer together at the left, where curves are steep.
_PLACES = np.unique(np.concatenate([np.geomspace(1e-3, 0.1, 30), np.linspace(0, 1, 101)]))

Interval = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Band:
    """A pointwise interval around a curve: `low` and `high` at each `at`, all `(n,)` in [0, 1]."""

    at: Array
    low: Array
    high: Array


@dataclass(frozen=True, eq=False)
class Certainty:
    """95 % intervals of one score's ROC (rate of anomalies found at a rate of false alarms), of its precision at a
    recall, and of the areas under both."""

    roc: Band
    precision: Band
    auroc: Interval
    average_precision: Interval


def certainty(y: Array, scores: Array, *, resamples: int = _RESAMPLES, seed: int = _SEED) -> Certainty | None:
    """Bootstrap intervals of `scores` `(n,)` against labels `y`; None where a class has fewer than ten rows.

    Rows are resampled within each class, and only the number of rows between neighbouring thresholds matters to a
    curve: so each resample is one multinomial draw of these numbers, whatever n is. With more than about 1,000 distinct
    scores the thresholds are quantiles. The same seed gives the same intervals.
    """
    anomalies, normal = scores[y == 1], scores[y != 1]
    if min(len(anomalies), len(normal)) < FEWEST_ROWS:
        return None
    rng, thresholds = np.random.default_rng(seed), _thresholds(anomalies, normal)
    found, false = (_flagged(rng, rows, thresholds, resamples) for rows in (anomalies, normal))
    recall, false_rate = found / len(anomalies), false / len(normal)
    precision = found / np.maximum(found + false, 1)
    roc = np.stack([np.interp(_PLACES, x, up) for x, up in zip(false_rate, recall, strict=True)])
    recalled = _PLACES[1:]
    # Precision is that of the highest threshold which finds as many, as average precision reads the curve.
    at = np.stack([np.searchsorted(one, recalled) for one in recall])
    precise = np.take_along_axis(precision, at.clip(max=len(thresholds)), axis=1)
    areas = (np.diff(false_rate) * (recall[:, 1:] + recall[:, :-1]) / 2).sum(axis=1)
    averages = (np.diff(recall) * precision[:, 1:]).sum(axis=1)
    return Certainty(_band(_PLACES, roc), _band(recalled, precise), _interval(areas), _interval(averages))


def _thresholds(anomalies: Array, normal: Array) -> Array:
    """Increasing scores, the smallest of all first, at which curves are read."""
    distinct = np.unique(np.concatenate([anomalies, normal]))
    if len(distinct) <= _THRESHOLDS:
        return distinct
    tail = 1 - np.geomspace(1 / len(normal), 1, _THRESHOLDS // 4)
    even = np.linspace(0, 1, 3 * _THRESHOLDS // 8)
    kept = [np.quantile(anomalies, even, method="inverted_cdf")]
    kept += [np.quantile(normal, np.append(even, tail), method="inverted_cdf"), distinct[:1]]
    return np.unique(np.concatenate(kept))


def _flagged(rng: np.random.Generator, rows: Array, thresholds: Array, resamples: int) -> Array:
    """Resampled rows at or above each threshold, from none at all to the lowest: `(resamples, thresholds + 1)`."""
    between = np.bincount(np.searchsorted(thresholds, rows, "right") - 1, minlength=len(thresholds))
    drawn = rng.multinomial(len(rows), between / len(rows), size=resamples)
    return np.pad(np.cumsum(drawn[:, ::-1], axis=1), ((0, 0), (1, 0)))


def _band(at: Array, drawn: Array) -> Band:
    low, high = np.quantile(drawn, ((1 - LEVEL) / 2, (1 + LEVEL) / 2), axis=0)
    return Band(at, low, high)


def _interval(drawn: Array) -> Interval:
    low, high = np.quantile(drawn, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return float(low), float(high)


def paired_interval(y: Array, one: Array, other: Array) -> Interval:
    """95 % interval of AUROC(`one`) - AUROC(`other`) on the same rows; (-1, 1) where a class has a single row."""
    if min(int(np.sum(y == 1)), int(np.sum(y != 1))) < 2:
        return -1.0, 1.0
    (over_one, under_one), (over_other, under_other) = _placements(y, one), _placements(y, other)
    over, under = over_one - over_other, under_one - under_other
    deviation = math.sqrt(float(over.var(ddof=1)) / len(over) + float(under.var(ddof=1)) / len(under))
    difference = float(over.mean())
    return difference - _NORMAL_QUANTILE * deviation, difference + _NORMAL_QUANTILE * deviation


def auroc(y: Array, scores: Array) -> float:
    """Area under the ROC curve; ties count half."""
    return float(_placements(y, scores)[0].mean())


def average_precision(y: Array, scores: Array) -> float:
    """scikit-learn's average precision."""
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(y == 1, scores))


def _placements(y: Array, scores: Array) -> tuple[Array, Array]:
    """For each anomaly the share of normal rows below it; for each normal row the share of anomalies above it."""
    anomalies, normal = scores[y == 1], scores[y != 1]
    return _share_below(normal, anomalies), 1 - _share_below(anomalies, normal)


def _share_below(these: Array, each: Array) -> Array:
    ordered = np.sort(these)
    below: Array = np.searchsorted(ordered, each, "left") + np.searchsorted(ordered, each, "right")
    return below / (2 * len(these))
