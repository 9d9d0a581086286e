"""Whether scores have left the range they were calibrated on, told from counts that the key holder keeps to itself.

The first `BLOCK` * `BLOCKS` scores that the key holder sees are the calibration. After every block of further scores:

* *share*: the scores above the threshold, beside the interval that the model states for them (two-sided, binomial);
* *shape*: the mean and the spread of the scores' ranks in the calibration, beside those of its blocks (Student's t).

Both look at a decayed count that forgets half with every block, so a small shift that stays shows better than a short
one. Neighbouring scores are seldom independent (windows overlap), and tests that assume it cry wolf. So blocks are
compared with blocks: t by the variance between the calibration's blocks (batch means, Conway 1963), the binomial by
their dispersion (Wedderburn 1974).

Guarantee, where further blocks are exchangeable with the calibration's and far longer than dependence lasts: a test
warns for nothing with a chance of about `FALSE_WARNINGS`. `tests/client/test_drift.py` measures rates and power. The
memory is a few kilobytes; while it calibrates, some hundred.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from securead import codec, files
from securead.data.schema import Array
from securead.errors import FixInputError, SecureadError
from securead.models.bundle import PublicModel, Threshold

BLOCK, BLOCKS, BINS = 250, 20, 16
FALSE_WARNINGS = 1e-4
DRIFT_FILE = "drift.json"
_KEEP = 0.5  # of the counts, with every block
_REMEMBERED = 64
_LIMIT = 8 << 20
_FEATURES = (("are lower", "are higher"), ("vary less", "vary more"))


@dataclass(frozen=True)
class Reference:
    """The calibration: inner edges of bins of equal mass, and what its blocks were like.

    `means`, `deviations`: of the blocks' features (see `_features`). `above`: its scores above the threshold, and
    `dispersion`, how much more their number varied between blocks than independent scores' would.
    """

    edges: tuple[float, ...]
    means: tuple[float, ...]
    deviations: tuple[float, ...]
    above: int
    dispersion: float


@dataclass(frozen=True)
class Summary:
    """What is remembered of scores. For the key holder's eyes only.

    `calibration`: scores collected so far, empty once there is a `reference`. `block`: the counts by bin of the block
    that is being filled, its scores above the threshold last. `recent`: the same decayed over whole blocks; `weight`
    and `squares` are the sums of the blocks' weights and of their squares, in scores. `warning`: what the last test
    said. `seen`: digests of what was counted last, so that nothing counts twice.
    """

    model: str
    threshold: float
    calibration: tuple[float, ...] = ()
    reference: Reference | None = None
    block: tuple[int, ...] = (0,) * (BINS + 1)
    filled: int = 0
    recent: tuple[float, ...] = (0.0,) * (BINS + 1)
    weight: float = 0.0
    squares: float = 0.0
    scores: int = 0
    tests: int = 0
    warning: str | None = None
    seen: tuple[str, ...] = ()
    format: int = 1


def fresh(model: PublicModel) -> Summary:
    """Nothing seen yet, of this model."""
    return Summary(model.program.digest, model.threshold.value)


def add(summary: Summary, scores: Array, threshold: Threshold, *, source: str | None = None) -> Summary:
    """The summary with more scores `(n,)`, in their order. `source` names where they come from: twice counts once."""
    if source is not None and source in summary.seen:
        return summary
    scores = np.asarray(scores, dtype=np.float64)
    if not np.isfinite(scores).all():
        raise FixInputError("scores are finite numbers", value=int((~np.isfinite(scores)).sum()))
    at = 0
    while at < len(scores):
        part = scores[at : at + BLOCK - summary.filled]
        at += len(part)
        summary = _fill(summary, part, threshold)
    seen = summary.seen if source is None else (*summary.seen, source)[-_REMEMBERED:]
    return replace(summary, seen=seen)


def _fill(summary: Summary, part: Array, threshold: Threshold) -> Summary:
    """With at most as many scores as the block has room for."""
    above = int((part > threshold.value).sum())
    bins = np.zeros(BINS, dtype=np.int64)
    collected = summary.calibration
    if summary.reference is None:
        collected = (*collected, *map(float, part))
    else:
        bins = _counts(part, summary.reference.edges)
    block = tuple(int(a) + int(b) for a, b in zip(summary.block, (*bins, above), strict=True))
    summary = replace(
        summary,
        block=block,
        calibration=collected,
        filled=summary.filled + len(part),
        scores=summary.scores + len(part),
    )
    return _close_block(summary, threshold) if summary.filled == BLOCK else summary


def _close_block(summary: Summary, threshold: Threshold) -> Summary:
    recent = tuple(_KEEP * old + new for old, new in zip(summary.recent, summary.block, strict=True))
    summary = replace(
        summary,
        recent=recent,
        weight=_KEEP * summary.weight + BLOCK,
        squares=_KEEP**2 * summary.squares + BLOCK,
        block=(0,) * (BINS + 1),
        filled=0,
    )
    said = _tested(summary, threshold)
    summary = replace(summary, tests=summary.tests + 1, warning="; ".join(said) or None)
    if summary.reference is None and len(summary.calibration) >= BLOCK * BLOCKS:
        reference = calibrate(np.array(summary.calibration), threshold.value)
        # What was counted before knew no bins.
        nothing = (0.0,) * (BINS + 1)
        summary = replace(summary, reference=reference, calibration=(), recent=nothing, weight=0.0, squares=0.0)
    return summary


def calibrate(scores: Array, threshold: float) -> Reference:
    """The reference from whole blocks of scores."""
    edges = tuple(map(float, np.quantile(scores, np.arange(1, BINS) / BINS)))
    blocks = scores.reshape(-1, BLOCK)
    features = np.array([_features(_counts(block, edges) / BLOCK) for block in blocks])
    above = (blocks > threshold).sum(axis=1)
    expected = above.mean()
    dispersion = above.var(ddof=1) / (expected * (1 - expected / BLOCK)) if 0 < expected < BLOCK else 1.0
    return Reference(
        edges,
        tuple(map(float, features.mean(axis=0))),
        tuple(map(float, features.std(axis=0, ddof=1))),
        int(above.sum()),
        max(1.0, float(dispersion)),
    )


def _features(shares: Array) -> Array:
    """Where scores with these shares `(bins,)` lie on average among the calibration's ranks, and how far apart."""
    rank = (np.arange(BINS) + 0.5) / BINS - 0.5
    found: Array = np.array([shares @ rank, shares @ np.abs(rank)])
    return found


def _counts(scores: Array, edges: tuple[float, ...]) -> Array:
    counts: Array = np.bincount(np.searchsorted(edges, scores, side="right"), minlength=BINS)
    return counts


def _tested(summary: Summary, threshold: Threshold) -> list[str]:
    """What the tests have to say about the recent scores, once there is a calibration."""
    reference, said, each = summary.reference, [], FALSE_WARNINGS / 4
    if reference is None:
        return []
    size, many = summary.weight**2 / summary.squares, BLOCK * BLOCKS
    if threshold.share is not None and threshold.low is not None and threshold.high is not None:
        shares = (
            ("recent scores", summary.recent[-1] / summary.weight, size),
            ("calibration", reference.above / many, many),
        )
        for what, share, count in shares:
            if _is_unlikely(share, count / reference.dispersion, threshold.low, threshold.high, each):
                expected = f"the model states {threshold.low:.3%} to {threshold.high:.3%}"
                said.append(f"{share:.2%} of the {what} lie above the threshold, {expected}")
    found = _features(np.array(summary.recent[:-1]) / summary.weight)
    for (less, more), value, mean, deviation in zip(
        _FEATURES, found, reference.means, reference.deviations, strict=True
    ):
        apart = deviation * math.sqrt(BLOCK / size + 1 / BLOCKS)
        if apart > 0 and t_beyond((value - mean) / apart, BLOCKS - 1) < each:
            said.append(f"recent scores {more if value > mean else less} than the first {many:,}")
    return said


def _is_unlikely(share: float, size: float, low: float, high: float, level: float) -> bool:
    """Whether `size` independent draws would show this share with a chance below `level` for any in [low, high]."""
    hits = share * size
    many = hits > 0 and share > high and beta_share(high, hits, size - hits + 1) < level / 2
    few = share < low and 1 - beta_share(low, hits + 1, max(size - hits, 1e-9)) < level / 2
    return bool(many or few)


def t_beyond(value: float, freedom: int) -> float:
    """The chance that a Student t variable lies at least this far from zero (Student 1908)."""
    return beta_share(freedom / (freedom + value**2), freedom / 2, 0.5)


def beta_share(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function I_x(a, b), by its continued fraction (Lentz 1976).

    Accurate to about 1e-12 relative. It gives binomial and t tails, for which gateways need no SciPy.
    """
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - beta_share(1 - x, b, a)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)) / a
    c, d = 1.0, 1 / _apart(1 - (a + b) * x / (a + 1))
    fraction = d
    for m in range(1, 10_000):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for term in (even, odd):
            d, c = 1 / _apart(1 + term * d), _apart(1 + term / c)
            fraction *= c * d
        if abs(c * d - 1) < 1e-14:
            break
    return min(front * fraction, 1.0)


def _apart(value: float) -> float:
    """From zero, so that it can divide."""
    return value if abs(value) > 1e-300 else 1e-300


def recall(path: Path, model: PublicModel) -> Summary:
    """What a file remembers of this model's scores; nothing where there is none, or where it is of another model.

    Raises `FixInputError` for a file that is no summary, or that others can read.
    """
    if not path.exists():
        return fresh(model)
    content = files.read_secret(path, limit=_LIMIT)
    try:
        found = codec.from_plain(Summary, json.loads(content), where=str(path))
    except (ValueError, RecursionError) as error:
        raise FixInputError(
            f"{path} is damaged: {error}", remedy="Remove it: the calibration then begins anew."
        ) from error
    same = (found.model, found.threshold) == (model.program.digest, model.threshold.value)
    return found if same else fresh(model)


def note(path: Path, model: PublicModel, scores: Array, *, source: str | None = None) -> str | None:
    """Count scores in the file (0600, replaced whole) and say what is to be warned of, if anything."""
    with files.locked(path):
        before = recall(path, model)
        summary = add(before, scores, model.threshold, source=source)
        if summary is not before:
            files.write_json(path, codec.to_plain(summary), mode=0o600)
    return in_words(summary)


def noted(path: Path, model: PublicModel, scores: Array, *, source: str | None = None) -> tuple[str, ...]:
    """`note` for a summary of work that is done: what went wrong here is told, and spoils nothing."""
    try:
        said = note(path, model, scores, source=source)
    except SecureadError as error:
        return (f"Drift is not watched: {error}",)
    return () if said is None else (said,)


def in_words(summary: Summary) -> str | None:
    """The warning of the last test, as a sentence with what to do."""
    if summary.warning is None:
        return None
    return (
        f"Drift: {summary.warning}. A true change warns like a fault or another population: look at recent alarms; "
        f"train or calibrate again if this is ordinary now. (For nothing, about one test in {1 / FALSE_WARNINGS:,.0f}.)"
    )
