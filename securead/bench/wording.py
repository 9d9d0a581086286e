"""What a report says in words and figures about a run: values in, sentences out, nothing about the page.

The trained detector is compared with each control by an interval for the difference of two areas under paired ROC
curves, so that a difference within chance is not sold as a win.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from securead.bench.intervals import FEWEST_ROWS, LEVEL, Interval, auroc, average_precision, paired_interval
from securead.bench.results import Control, DetectorResult, DetectorRun, Run, TrainingStep
from securead.data.schema import Array

NORM = "|z|²"
UNTRAINED = "the untrained network"
BOOTSTRAP = (
    "Intervals of the encrypted run, in words and as bands: bootstrap over held-out records, drawn within each class."
)
NO_LABELS = (
    "The held-out records have no labels of both kinds, so nothing here says whether training made the detector better "
    "than controls that learnt nothing."
)
_FEW_ANOMALIES = 30
_SITES_NAMED = 6
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


_LEVEL = f"{100 * LEVEL:.0f}\N{NO-BREAK SPACE}%"

# Control -> its name in a sentence and beside a figure, what it is, and what it means not to beat it.
_CONTROLS = {
    "|z|^2": (
        f"the baseline {NORM}",
        f"baseline {NORM}",
        "the squared length of a standardised record and needs no training",
        {
            "loses": "It ranks these anomalies better: prefer it here.",
            "even": "It may do as well here: the interval contains 0.",
        },
    ),
    "untrained": (
        UNTRAINED,
        "untrained",
        "the same network with the public weights it started from and has learnt nothing",
        {
            "loses": "On these records, training made the ranking worse.",
            "even": "On these records, training shows no clear benefit: the interval contains 0.",
        },
    ),
    "no data": (
        "the no-data control",
        "no data",
        "the same detector trained on noise in place of records",
        {
            "loses": "What is found here is not owed to the training records: noise in their place does better.",
            "even": "What is found here may be owed to the detector's shape and not to the training records.",
        },
    ),
}

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
    """Whether the trained detector ranks anomalies better than a control: in a sentence, in numbers, what to know."""

    control: str
    kind: Literal["wins", "loses", "even"]
    sentence: str
    numbers: str
    more: str
    lead: float
    interval: Interval


def control_name(name: str) -> str:
    """A control as sentences call it."""
    return _CONTROLS[name][0] if name in _CONTROLS else f"the control {name}"


def control_key(name: str) -> str:
    """A control as a key beside a figure and the head of a row call it."""
    return _CONTROLS[name][1] if name in _CONTROLS else name


def control_meaning(name: str) -> str:
    """What a control is, without a full stop; empty for one that is not known."""
    return _CONTROLS[name][2] if name in _CONTROLS else ""


def has_both_classes(run: DetectorRun) -> bool:
    """Whether the run's labels can rank a detector: some rows are anomalies and some are not."""
    return run.y is not None and 0 < int(np.sum(run.y == 1)) < len(run.y)


def verdict(y: Array, trained: Array, control: Control) -> Verdict:
    """Whether scores `trained` rank the anomalies (`y` = 1) better than `control`; "even" where chance may decide."""
    low, high = interval = paired_interval(y, trained, control.scores)
    ours, theirs = auroc(y, trained), auroc(y, control.scores)
    numbers = f"AUROC {area(ours)} against {area(theirs)}; {_LEVEL} interval of the difference {spanned(interval)}."
    kind: Literal["wins", "loses", "even"] = "wins" if low > 0 else "loses" if high < 0 else "even"
    name = control_name(control.name)
    sentence = {
        "wins": f"The trained detector beats {name}.",
        "loses": f"The trained detector does not win: {name} is better.",
        "even": f"The trained detector does not clearly win over {name}.",
    }[kind]
    ours_ap, theirs_ap = average_precision(y, trained), average_precision(y, control.scores)
    turned = (kind == "wins" and ours_ap < theirs_ap) or (kind == "loses" and ours_ap > theirs_ap)
    more = f"Average precision: {area(ours_ap)} against {area(theirs_ap)}{', the other way round' if turned else ''}."
    if control.name in _CONTROLS and kind != "wins":
        more += f" {name[:1].upper()}{name[1:]} is {control_meaning(control.name)}. {_CONTROLS[control.name][3][kind]}"
    return Verdict(control.name, kind, sentence, numbers, more, ours - theirs, interval)


def verdicts(run: DetectorRun) -> tuple[Verdict, ...]:
    """A verdict for each control of a run with both classes, else none."""
    if run.y is None or not has_both_classes(run):
        return ()
    return tuple(verdict(run.y, run.float_scores, control) for control in run.controls)


def caution(y: Array) -> str:
    """From how many anomalies all intervals come, and when that is too few."""
    anomalies = int(np.sum(y == 1))
    words = f"All figures come from {counted(anomalies, 'anomaly', 'anomalies')} among {counted(len(y), 'record')}."
    return words + (" With so few anomalies they are rough." if anomalies < _FEW_ANOMALIES else "")


def signed(difference: float) -> str:
    """A difference of two areas."""
    return f"{difference:+.4f}".replace("-", "−")


def interval_words(areas: str, encrypted: float, interval: Interval | None) -> str:
    """An area under the encrypted run's curve with its interval, or why there is none."""
    if interval is None:
        few = f"a class with fewer than {FEWEST_ROWS} records gives no interval"
        return f"{areas} of the encrypted run: {area(encrypted)} ({few})."
    low, high = interval
    blind = " Resampling sees no errors where there were none: this is no certainty." if high - low < 1e-6 else ""
    return f"{areas} of the encrypted run: {area(encrypted)} ({_LEVEL} interval {area(low)} to {area(high)}).{blind}"


def spanned(interval: Interval) -> str:
    """An interval of a difference."""
    return f"{signed(interval[0])} to {signed(interval[1])}"


def scored_words(run: DetectorRun, held_out: int) -> str:
    """How many records were scored, and which where they are a sample."""
    rows = len(run.float_scores)
    if rows >= held_out:
        return f"{counted(rows, 'record')} scored under encryption"
    words = (
        f"A sample of {rows:,} of the {counted(held_out, 'held-out record')} scored under encryption, to keep uploads"
    )
    if run.y is None:
        return f"{words} small"
    share = percent(float(np.mean(run.y == 1)))
    return f"{words} small. Its anomalies, {share} of it, are not thinned out like the rest, which raises precision"


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


def stage_words(stage: str) -> str:
    """ "round-3" as "round 3"."""
    return " ".join(stage.replace("_", " ").replace("-", " ").split()) or stage


def busy_words(training: Sequence[TrainingStep]) -> str:
    """How many steps training took and how long each site was busy with its own."""
    sites: dict[str, float] = {}
    for step in training:
        sites[step.site] = sites.get(step.site, 0.0) + step.seconds
    steps = counted(len({step.stage for step in training}), "step")
    words = f"Training took {steps} at {counted(len(sites), 'site')}."
    if len(sites) > _SITES_NAMED:
        slowest = max(sites, key=lambda site: sites[site])
        return f"{words} The slowest, {slowest}, was busy for {seconds(sites[slowest])}."
    return f"{words} Busy with it: " + ", ".join(f"{name} {seconds(value)}" for name, value in sites.items()) + "."


def loss_words(*, private: bool) -> str:
    """What a point of a validation loss is: which noise is in it."""
    if not private:
        return (
            "A point is a site's validation loss a record after that round. This run has no privacy guarantee, and "
            "nothing protects these figures either."
        )
    return (
        "Validation losses are noised: a site released the sum of its validation records' clipped losses and their "
        "number, both with Gaussian noise and charged to ε, and a point is one divided by the other. It may lie above "
        "or below the true loss, the farther the fewer records the site has; a small rise may be noise."
    )


def spent_words(delta: float | None) -> str:
    """What a staircase of epsilon shows."""
    at = "" if delta is None else f" at δ = {number(delta, 2)}"
    return (
        f"ε is what a site has spent on this model so far{at}. Each step is charged before anything leaves the site; "
        "steps compose to less than their sum."
    )


def not_guaranteed(run: Run) -> tuple[tuple[str, str], ...]:
    """What this version does not guarantee: a heading and its explanation each."""
    results = [one.result for one in run.detectors]
    items = [
        (
            "Answers tell the scores, to keys that were made honestly.",
            "They are masked and flooded, so that nothing else of the model is in them; for a key holder that crafts "
            "its public key, that is not proven. A CKKS answer holds a score for every slot of its chunk, used or not.",
        ),
        (
            "Honest scores give a model away too.",
            "A quadratic score of d columns has (d+1)(d+2)/2 unknown coefficients (465 for 29 columns), a forest an "
            "unknown for nearly every leaf. Who knows about as many records with their scores, the count that the "
            "program publishes, can fit a copy.",
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
    if any(result.engine == "sharing" for result in results):
        items.append(
            (
                "The two parties do not collude, nor does the dealer with either.",
                "Any two of these three together read records, scores and the model. Each alone sees uniform shares, "
                "how many rows are asked for, and by whom.",
            )
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
