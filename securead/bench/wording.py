"""What a report says in words and figures about a run: values in, sentences out, nothing about the page.

The trained detector is compared with the baseline |z|^2 by DeLong, DeLong and Clarke-Pearson's interval (1988) for the
difference of two areas under paired ROC curves, so that a difference within chance is not sold as a win.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from securead.bench.results import DetectorResult, DetectorRun, Run
from securead.data.schema import Array

NORM = "|z|²"
_NORMAL_QUANTILE = 1.96
_FEW_ANOMALIES = 30
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


# --- figures ----------------------------------------------------------------------------------------------------------


def number(value: float, digits: int = 3) -> str:
    """A number for people: 12.3, 0.00123, 4.5 × 10⁻⁶."""
    if not math.isfinite(value) or value == 0 or 1e-3 <= abs(value) < 1e5:
        text = f"{value:.{digits}g}"
        return (f"{value:,.0f}" if "e" in text else text).replace("-", "−")
    mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")
    power = "10" + str(int(exponent)).translate(_SUPERSCRIPT)
    mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    return power if mantissa == "1" else f"{mantissa.replace('-', '−')} × {power}"


def counted(count: int, one: str, many: str = "") -> str:
    """ "1 record", "2,000 records"."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"


def percent(share: float) -> str:
    """A share in per cent; the sign stays on the number's line."""
    return f"{number(100 * share)}\N{NO-BREAK SPACE}%"


def area(value: float | None) -> str:
    """An area under a curve to four places, or a dash."""
    return "–" if value is None else f"{value:.4f}"


def seconds(value: float) -> str:
    """Seconds in the unit that fits."""
    if value < 0.9995:
        return f"{value * 1e3:.3g} ms"
    return f"{value:.3g} s" if value < 119.5 else f"{value / 60:.3g} min"


def size(count: float) -> str:
    """Bytes in decimal units."""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if count >= 0.9995 * factor:
            return f"{count / factor:.3g} {unit}"
    return f"{count:.0f} B"


def row_time(result: DetectorResult) -> str:
    """Server time per scored row in microseconds."""
    return f"{number(result.server_seconds / max(result.rows_scored, 1) * 1e6)} µs"


def correlation(value: float) -> str:
    """A rank correlation, its distance from 1 when that is all there is to see."""
    if value < 1 and value > 0.9999:
        return f"1 − {number(1 - value, 1)}"
    return f"{value:.4f}".rstrip("0").rstrip(".")


# --- sentences --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """Whether the trained detector is better than the baseline: in a sentence, in numbers, and what to know."""

    kind: Literal["wins", "loses", "even"]
    sentence: str
    numbers: str
    more: str


def has_both_classes(run: DetectorRun) -> bool:
    """Whether the run's labels can rank a detector: some rows are anomalies and some are not."""
    return run.y is not None and 0 < int(np.sum(run.y == 1)) < len(run.y)


def verdict(y: Array, trained: Array, baseline: Array) -> Verdict:
    """Whether scores `trained` rank the anomalies (`y` = 1) better than `baseline`; "even" where chance may decide."""
    anomalies = int(np.sum(y == 1))
    low, high = paired_interval(y, trained, baseline)
    numbers = (
        f"AUROC {area(auroc(y, trained))} against {area(auroc(y, baseline))}; {percent(0.95)} interval of the "
        f"difference {low:+.4f} to {high:+.4f}, from {counted(anomalies, 'anomaly', 'anomalies')}."
    ).replace("-", "−")
    ours, theirs = average_precision(y, trained), average_precision(y, baseline)
    precision = f"Average precision: {area(ours)} against {area(theirs)}"
    rough = " With so few anomalies all of these figures are rough." if anomalies < _FEW_ANOMALIES else ""
    what = f"{NORM}, the squared length of a standardised record, needs no training"
    if low > 0:
        turn = ", the other way round" if ours < theirs else ""
        sentence = f"The trained detector beats the baseline {NORM}."
        return Verdict("wins", sentence, numbers, f"{precision}{turn}. {what}.{rough}")
    if high < 0:
        turn = ", the other way round" if ours > theirs else ""
        sentence = f"The trained detector does not win: the baseline {NORM} is better."
        return Verdict(
            "loses", sentence, numbers, f"{precision}{turn}. {what} and ranks these anomalies better.{rough}"
        )
    sentence = f"The trained detector does not clearly win over the baseline {NORM}."
    more = f"{precision}. {what} and may do as well here: the interval contains 0.{rough}"
    return Verdict("even", sentence, numbers, more)


def paired_interval(y: Array, one: Array, other: Array) -> tuple[float, float]:
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


def threshold_words(run: DetectorRun) -> str:
    """What the threshold flags among the decrypted scores and, with labels, what of that is right."""
    flagged = run.encrypted_scores > run.threshold
    alarms, rows = int(flagged.sum()), len(flagged)
    words = f"The threshold is {number(run.threshold, 4)} ({run.threshold_origin}). "
    words += f"It flags {alarms:,} of {counted(rows, 'record')} ({percent(alarms / rows)})"
    if not has_both_classes(run) or run.y is None:
        return words + "."
    anomalies, found = int(np.sum(run.y == 1)), int(np.sum(flagged & (run.y == 1)))
    words += f" and finds {found:,} of {counted(anomalies, 'anomaly', 'anomalies')} ({percent(found / anomalies)})"
    return words + (f"; {percent(found / alarms)} of its alarms are right." if alarms else ".")


def error_words(run: DetectorRun) -> str:
    """How far encrypted scores are from the integer program's, and those from the float detector's."""
    result, rows = run.result, counted(len(run.encrypted_scores), "record")
    said = [flagged > run.threshold for flagged in (run.float_scores, run.integer_scores, run.encrypted_scores)]
    rounded, encrypted = int(np.sum(said[0] != said[1])), int(np.sum(said[1] != said[2]))
    return (
        f"Encryption moves a score by at most {number(result.max_rel_error, 2)} of its value against the integer "
        f"program's (rank correlation {correlation(result.rank_correlation)}) and changes {_verdicts(encrypted, rows)} "
        f"at the threshold. Turning the detector into integers before that changes {_verdicts(rounded, rows)}."
    )


def _verdicts(changed: int, rows: str) -> str:
    return f"none of the verdicts on {rows}" if changed == 0 else f"{counted(changed, 'verdict')} on {rows}"


def not_guaranteed(run: Run) -> tuple[tuple[str, str], ...]:
    """What this version does not guarantee: a heading and its explanation each."""
    results = [one.result for one in run.detectors]
    items = [
        (
            "Answers are not sanitised in this version.",
            "The noise in an encrypted answer depends on the model: a key holder can solve for the model's weights. "
            "Serve only key holders to whom you would give the model.",
        ),
        (
            "Honest scores give a model away too.",
            "A quadratic score of d columns has (d+1)(d+2)/2 unknown coefficients (465 for 29 columns). Who knows "
            "about as many records with their scores, the count that the program publishes, can fit a copy.",
        ),
        (
            "Bounds are public.",
            "Column names, their bounds and scaling, and the shape of the model go to every submitter.",
        ),
        (
            "The service and the key holder together see everything.",
            "The secret key opens the submitted records as well as the scores: whoever holds both reads them.",
        ),
        (
            "Roles are assumed to follow the protocol.",
            "A service that answers something else than the model's score is not found out by cryptography.",
        ),
    ]
    if any(result.engine == "ckks" for result in results):
        items.insert(
            3,
            (
                "Decrypted scores stay with the key holder.",
                "A raw CKKS decryption carries a trace of the secret key: do not hand it to the service or publish it.",
            ),
        )
    if any(result.epsilon is None for result in results):
        unprotected = ", ".join(dict.fromkeys(result.name for result in results if result.epsilon is None))
        items.insert(0, ("Training records are not protected.", f"No privacy guarantee for: {unprotected}."))
    return tuple(items)


def run_labels(runs: Sequence[DetectorRun]) -> tuple[str, ...]:
    """What tells runs of one detector apart, for the head of a column."""
    engines = {run.result.engine for run in runs}
    return tuple(
        f"{run.result.engine}, role {run.result.role}" if len(engines) > 1 else f"role {run.result.role}"
        for run in runs
    )
