"""Where a threshold comes from, so that nobody has to guess a share of anomalies.

Three wishes: flag a share of records (`contamination`), raise false alarms at a rate (`FalseAlarms`), or spend the
least on missed anomalies and false alarms together (`Costs`). A private threshold is read off noised histograms of
scores, whose release is charged; everything here is done to what was already released.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from scipy import special, stats

from securead import codec
from securead.data.schema import Array
from securead.errors import FixConfigurationError, FixInputError, PrivacyRefusedError
from securead.models.bundle import Threshold

CONFIDENCE = 0.95


@dataclass(frozen=True)
class FalseAlarms:
    """Flag this share of the records that are no known anomalies: `rate` of 0.001 is one false alarm in a thousand."""

    type_tag: ClassVar[str] = "false_alarms"
    rate: float

    def __post_init__(self) -> None:
        refuse_no_number("a rate of false alarms", self.rate)
        if not 0 < self.rate <= 0.5:
            raise FixConfigurationError(
                "a rate of false alarms lies in (0, 0.5]", value=self.rate, remedy="0.001 is one record in a thousand."
            )


@dataclass(frozen=True)
class Costs:
    """Spend the least on labelled records: so much for a missed anomaly, so much for a false alarm (one currency)."""

    type_tag: ClassVar[str] = "costs"
    missed: float
    false_alarm: float

    def __post_init__(self) -> None:
        refuse_no_number("the cost of a missed anomaly", self.missed)
        refuse_no_number("the cost of a false alarm", self.false_alarm)
        if not (0 < self.missed < math.inf and 0 < self.false_alarm < math.inf):
            raise FixConfigurationError("costs are positive", value=(self.missed, self.false_alarm))


Wish = Literal["model", "private"] | FalseAlarms | Costs


@dataclass(frozen=True)
class Calibrator:
    """What a detector's threshold is asked for: the wish, and the share of records to flag where it names none."""

    wish: Wish
    contamination: float

    def __post_init__(self) -> None:
        refuse_no_number("contamination", self.contamination)
        if not 0 < self.contamination <= 0.5:
            raise FixConfigurationError(
                "contamination lies in (0, 0.5]", value=self.contamination, remedy="It is the share of records to flag."
            )
        if self.wish not in ("model", "private") and not isinstance(self.wish, FalseAlarms | Costs):
            raise FixConfigurationError(
                'threshold is "model", "private", FalseAlarms(rate) or Costs(missed, false_alarm)',
                value=self.wish,
                remedy='In a recipe, say threshold = { type = "false_alarms", rate = 0.001 }.',
            )

    @property
    def counts_scores(self) -> bool:
        """Whether histograms of scores are needed, which a private run releases and pays for."""
        return self.wish != "model"

    @property
    def bins(self) -> int:
        """How fine these are. Labelled anomalies are few, and fewer bins carry less noise."""
        return 32 if isinstance(self.wish, Costs) else 128

    @property
    def released(self) -> str:
        """What is released, for the privacy statement."""
        return _RELEASED.get(type(self.wish), "a histogram of scores")

    def checked(self, labels: Array | None, records: int) -> Array | None:
        """Labels as booleans, true for a known anomaly, where the wish looks at them, else None."""
        if not isinstance(self.wish, FalseAlarms | Costs):
            return None
        if labels is None and isinstance(self.wish, Costs):
            raise FixInputError(
                "a threshold by costs needs labelled records",
                remedy="Give labels (1 for anomalies), or ask for a rate of false alarms instead.",
            )
        return checked_labels(labels, records)

    def parts(self, scores: Array, anomalies: Array | None) -> list[Array]:
        """The scores to count: all, all but known anomalies, or both kinds apart. No record is in two parts."""
        match self.wish:
            case Costs():
                if anomalies is None:
                    raise ValueError("`checked` refuses costs without labels")
                return [scores[~anomalies], scores[anomalies]]
            case FalseAlarms() if anomalies is not None:
                return [scores[~anomalies]]
            case _:
                return [scores]

    def from_model(self, quantile: Callable[[float], float]) -> Threshold:
        """By the detector's own distribution: `quantile` gives the score that a share of normal records exceeds."""
        what = f"flags {self.contamination:.2%} of records by the detector's own distribution"
        return Threshold(quantile(self.contamination), what)

    def from_histograms(self, noised: Array, edges: Array, noise_deviation: float) -> Threshold:
        """From the noised counts of `parts`, `(parts, bins)`, of known deviation."""
        if isinstance(self.wish, Costs):
            return at_least_cost(noised, edges, self.wish, noise_deviation, self.origin("noised histograms of"))
        return at_rate(noised[0], edges, self._rate, noise_deviation, self.origin("noised histograms of"))

    def exactly(self, scores: Array, anomalies: Array | None) -> Threshold:
        """From the scores themselves: not private."""
        parts = self.parts(scores, anomalies)
        if isinstance(self.wish, Costs):
            marks = np.repeat([False, True], [len(part) for part in parts])
            return exact_at_least_cost(np.concatenate(parts), marks, self.wish, self.origin("the"))
        return exact_at_rate(parts[0], self._rate, self.origin("the"))

    def origin(self, source: str) -> str:
        """What was asked for, in words; `source` training scores told it."""
        match self.wish:
            case FalseAlarms(rate):
                wished = f"false alarms on {rate:.3%} of records that are no known anomalies"
            case Costs(missed, false_alarm):
                wished = f"least cost at {missed:g} a missed anomaly and {false_alarm:g} a false alarm"
            case _:
                wished = f"flags {self.contamination:.2%} of records"
        return f"{wished}, by {source} training scores"

    @property
    def _rate(self) -> float:
        return self.wish.rate if isinstance(self.wish, FalseAlarms) else self.contamination


_RELEASED = {
    Costs: "histograms of scores by label",
    FalseAlarms: "a histogram of scores, known anomalies left out where there were labels",
}


def read_wish(plain: Any) -> Any:
    """A recipe's entry: "model", "private", or a table whose `type` is `false_alarms` or `costs`."""
    if not isinstance(plain, Mapping):
        return plain
    wished: _Wished = codec.from_plain(_Wished, {"threshold": plain}, where="detector")
    return wished.threshold


@dataclass(frozen=True)
class _Wished:
    threshold: FalseAlarms | Costs


def checked_labels(labels: Array | None, records: int) -> Array | None:
    """Booleans `(n,)`, true for a known anomaly, from labels 0 and 1; `FixInputError` for anything else."""
    if labels is None:
        return None
    labels = np.asarray(labels)
    if labels.shape != (records,) or not np.isin(labels, (0, 1)).all():
        raise FixInputError(
            "labels are 0 or 1, one for each record",
            value=(labels.shape, np.unique(labels)[:5].tolist()),
            remedy="Use 1 for anomalies and 0 for the rest (not -1 and 1), in one column.",
        )
    known: Array = labels == 1
    return known


def at_rate(noised: Array, edges: Array, rate: float, noise_deviation: float, origin: str) -> Threshold:
    """The bin edge above which at most about `rate` of the noised mass lies, `(bins,)` counts between `edges`.

    Raises `PrivacyRefusedError` when the noise on the tail exceeds half the mass that is looked for.
    """
    total = noised.sum()
    wanted = rate * total
    # The tail's noise adds over the bins from the top; only bins up to the answer contribute.
    tail = np.cumsum(noised[::-1])[::-1]
    spread = noise_deviation * np.sqrt(np.arange(len(noised), 0, -1))
    # The noise of a sum is not monotone: start from the first bin after which the tail stays below what is wanted.
    above = np.flatnonzero(tail > wanted)
    at = int(above[-1]) + 1 if len(above) else 0
    # Not judged at the place that the noise chose, because a lucky draw would look sure.
    plausible = np.flatnonzero(tail <= wanted + 2 * spread)
    doubt = float(spread[min(at, int(plausible[0]) if len(plausible) else at, len(noised) - 1)])
    if total <= 0 or doubt > wanted / 2:
        raise PrivacyRefusedError(
            f"too few records for a private threshold at a rate of {rate:g}",
            value=f"about {max(wanted, 0.0):.0f} records above it, noise {doubt:.0f}",
            remedy='Use threshold = "model", a higher rate, more records or a larger epsilon.',
        )
    return Threshold(float(edges[at]), origin, *_share_above(noised, at, noise_deviation))


def _share_above(noised: Array, at: int, noise_deviation: float) -> tuple[float, float, float]:
    """The share of mass from bin `at` on, and its interval.

    Half of the permitted error goes to the noise (normal, of known deviation) and half to the sample, so both together
    hold at `CONFIDENCE`.
    """
    bins, total, above = len(noised), float(noised.sum()), float(noised[at:].sum())
    share = min(max(above / total, 0.0), 1.0)
    # The tail minus its share of the total is a sum over all bins, weighted by 1 - share and by -share.
    reach = float(stats.norm.ppf(1 - (1 - CONFIDENCE) / 4))
    doubt = reach * noise_deviation * math.sqrt((bins - at) * (1 - share) ** 2 + at * share**2)
    low, high = max(share * total - doubt, 0.0), min(share * total + doubt, total)
    return share, *_interval(low, high, total, error=(1 - CONFIDENCE) / 2)


def _interval(low: float, high: float, total: float, *, error: float) -> tuple[float, float]:
    """The shares that a sample with `low` to `high` hits among `total` cannot rule out (Clopper and Pearson 1934)."""
    lowest = float(special.betaincinv(low, total - low + 1, error / 2)) if low > 0 else 0.0
    highest = float(special.betaincinv(high + 1, total - high, 1 - error / 2)) if high < total else 1.0
    return lowest, highest


def _counted(scores: Array, value: float) -> tuple[float, float, float]:
    """The share of scores above a value, and its interval, without noise."""
    above, total = int((scores > value).sum()), len(scores)
    return above / total, *_interval(above, above, total, error=1 - CONFIDENCE)


def at_least_cost(noised: Array, edges: Array, costs: Costs, noise_deviation: float, origin: str) -> Threshold:
    """The bin edge with the least cost on the labelled records: `noised` `(2, bins)` counts others and anomalies.

    Raises `PrivacyRefusedError` where the noised number of anomalies cannot be told from its noise.
    """
    others, anomalies = noised
    doubt = noise_deviation * math.sqrt(len(anomalies))
    if not len(anomalies) or anomalies.sum() <= 3 * doubt or others.sum() <= 3 * doubt:
        raise PrivacyRefusedError(
            "too few labelled records for a threshold by costs",
            value=f"about {max(float(anomalies.sum()), 0.0):.0f} anomalies, noise {doubt:.0f}",
            remedy="Ask for a rate of false alarms instead, add labelled records, or allow a larger epsilon.",
        )
    false_alarms = np.concatenate([np.cumsum(others[::-1])[::-1], [0.0]])
    missed = np.concatenate([[0.0], np.cumsum(anomalies)])
    at = int(np.argmin(costs.false_alarm * false_alarms + costs.missed * missed))
    return Threshold(float(edges[at]), origin, *_share_above(others, min(at, len(others)), noise_deviation))


def exact_at_rate(scores: Array, rate: float, origin: str) -> Threshold:
    """The value that `rate` of the scores exceed, as NumPy's percentile has it."""
    value = float(np.percentile(scores, 100.0 * (1 - rate)))
    return Threshold(value, origin, *_counted(scores, value))


def exact_nearest(scores: Array, flagged: int, origin: str) -> Threshold:
    """Halfway between two neighbouring scores, above which as nearly as ties allow `flagged` of the scores lie."""
    values, counts = np.unique(scores, return_counts=True)
    above = np.append(np.cumsum(counts[::-1])[::-1], 0)  # at position i: those not below the i-th value
    cuts = np.concatenate([[values[0] - 1.0], (values[1:] + values[:-1]) / 2, [values[-1] + 1.0]])
    value = float(cuts[np.argmin(np.abs(above - flagged))])
    return Threshold(value, origin, *_counted(scores, value))


def exact_at_least_cost(scores: Array, anomalies: Array, costs: Costs, origin: str) -> Threshold:
    """The least cost on labelled records, halfway between two neighbouring scores."""
    if not anomalies.any() or anomalies.all():
        raise FixInputError(
            "a threshold by costs needs records of both labels",
            value=int(anomalies.sum()),
            remedy="Ask for a rate of false alarms instead.",
        )
    values = np.unique(scores)
    # At position i the i lowest values pass and the others are flagged.
    cuts = np.concatenate([[values[0] - 1.0], (values[1:] + values[:-1]) / 2, [values[-1] + 1.0]])
    missed = np.concatenate([[0], np.cumsum(np.histogram(scores[anomalies], [*values, np.inf])[0])])
    others = np.histogram(scores[~anomalies], [*values, np.inf])[0]
    false_alarms = others.sum() - np.concatenate([[0], np.cumsum(others)])
    value = float(cuts[np.argmin(costs.missed * missed + costs.false_alarm * false_alarms)])
    return Threshold(value, origin, *_counted(scores[~anomalies], value))


def refuse_no_number(name: str, value: object) -> None:
    """Raise `FixConfigurationError` unless a parameter is a real number: recipes and callers may give any type."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise FixConfigurationError(f"{name} is a number", value=value, remedy="Leave it out for its default.")
