"""How well scores tell anomalies from the rest, and how far they are from what they stand for."""

from __future__ import annotations

import numpy as np

from securead.bench.datasets import NamedData
from securead.bench.records import Accuracy, Fidelity
from securead.data.schema import Array


def accuracy_of(
    data: NamedData,
    scores: Array,
    *,
    threshold: float | None = None,
    floats: Array | None = None,
    norm: Array | None = None,
    untrained: Array | None = None,
) -> Accuracy:
    """What scores `(n,)` of `data`'s held-out records reach, higher being more anomalous.

    Above `threshold` they count as anomalies. `floats`: what the float model says of the same records. `norm`,
    `untrained`: scores of controls. What needs labels of both classes is None without.
    """
    y, weights = data.y_held, data.weights_held
    both = y is not None and 0 < int(np.sum(y)) < len(y)
    precision = alarms = None
    if both and y is not None and threshold is not None:
        flagged = scores > threshold
        right, wrong = float(weights[flagged & (y == 1)].sum()), float(weights[flagged & (y == 0)].sum())
        precision = right / (right + wrong) if right + wrong > 0 else None
        alarms = float(np.mean(flagged[y == 0]))
    return Accuracy(
        auroc=auroc(data, scores),
        average_precision=average_precision(data, scores),
        precision=precision,
        false_alarms=alarms,
        auroc_float=None if floats is None else auroc(data, floats),
        auroc_norm=None if norm is None else auroc(data, norm),
        auroc_untrained=None if untrained is None else auroc(data, untrained),
    )


def fidelity_of(
    data: NamedData,
    scores: Array,
    *,
    integer: Array | None = None,
    floats: Array | None = None,
    threshold: float | None = None,
) -> Fidelity:
    """How near scores `(n,)` are to the integer program's and the float model's of the same records.

    Errors are divided by the mean magnitude of what they are errors of.
    """
    changed = None
    if integer is not None and threshold is not None:
        changed = int(np.sum((scores > threshold) != (integer > threshold)))
    return Fidelity(
        max_error_to_integer=None if integer is None else largest_error(scores, integer),
        rank_correlation_to_integer=None if integer is None else rank_correlation(scores, integer),
        max_error_to_float=None if floats is None else largest_error(scores, floats),
        rank_correlation_to_float=None if floats is None else rank_correlation(scores, floats),
        auroc_of_scores=auroc(data, scores),
        average_precision_of_scores=average_precision(data, scores),
        decisions_changed=changed,
    )


def auroc(data: NamedData, scores: Array) -> float | None:
    """The area under the ROC curve, or None without both classes."""
    from sklearn.metrics import roc_auc_score

    if data.y_held is None or len(np.unique(data.y_held)) < 2:
        return None
    return float(roc_auc_score(data.y_held, scores))


def average_precision(data: NamedData, scores: Array) -> float | None:
    """Average precision over all held-out records that the scored ones stand for."""
    from sklearn.metrics import average_precision_score

    if data.y_held is None or len(np.unique(data.y_held)) < 2:
        return None
    return float(average_precision_score(data.y_held, scores, sample_weight=data.weights_held))


def largest_error(scores: Array, exact: Array) -> float:
    """The largest difference, by the mean magnitude of the exact scores."""
    return float(np.abs(scores - exact).max() / max(float(np.abs(exact).mean()), 1e-300))


def rank_correlation(one: Array, other: Array) -> float:
    """Spearman's; 1 where all scores of both are equal, so that there is no order to keep."""
    from scipy.stats import spearmanr

    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return float(np.ptp(one) == np.ptp(other))
    return float(spearmanr(one, other).statistic)
