"""How much longer one thing takes than another, with an interval, and the ratios that the repository promises.

A baseline holds ratios and never times: both sides of a ratio were measured in one run, so that the machine's speed
cancels. It names, for each, the cases, what is taken of them, the range that may be, and the command that measures it.
"""

from __future__ import annotations

import functools
import json
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from securead import codec, files
from securead.bench import suites
from securead.bench.records import Record, Spread, Timing
from securead.errors import FixConfigurationError, FixInputError

LEVEL = 0.99
FORMAT = 1


@dataclass(frozen=True)
class Ratio:
    """`value` and its confidence interval at `LEVEL`; None where there are too few repeats for one."""

    value: float
    interval: tuple[float, float] | None

    def in_words(self) -> str:
        """As "2.1 (1.9 to 2.4)"."""
        if self.interval is None:
            return f"{self.value:.3g} (one repeat: how certain is unknown)"
        low, high = self.interval
        return f"{self.value:.3g}" if low == high else f"{self.value:.3g} ({low:.3g} to {high:.3g})"


def ratio_of(first: Spread, second: Spread) -> Ratio:
    """`second` over `first`, for repeats that are log-normal.

    A deviation is the range of the logarithms over its mean for so many normal values (Tippett 1925); of a median it is
    sqrt(pi / 2) times a mean's. The interval is Welch's, a range having about 0.9 (n - 1) degrees of freedom (Patnaik
    1950). It covers how repeats within a run differ, and not how runs do: a neighbour on the machine is in none of it.
    """
    value = second.median / first.median if first.median > 0 else math.inf if second.median > 0 else 1.0
    if min(first.repeats, second.repeats) < 2 or min(first.low, second.low) <= 0:
        return Ratio(value, None)
    from scipy import stats

    variances = [_variance(spread) for spread in (first, second)]
    total = sum(variances)
    if total == 0:
        return Ratio(value, (value, value))
    shares = [
        variance**2 / (0.9 * (spread.repeats - 1)) for variance, spread in zip(variances, (first, second), strict=True)
    ]
    reach = math.exp(float(stats.t.ppf((1 + LEVEL) / 2, df=total**2 / sum(shares))) * math.sqrt(total))
    return Ratio(value, (value / reach, value * reach))


def _variance(spread: Spread) -> float:
    """Of the logarithm of the median."""
    deviation = math.log(spread.high / spread.low) / mean_range(spread.repeats)
    return math.pi / 2 * deviation**2 / spread.repeats


@functools.cache
def mean_range(n: int) -> float:
    """The mean range of `n` standard normal values: the integral of 1 - F^n - (1 - F)^n."""
    x = np.linspace(-9, 9, 3601)
    below = np.array([statistics.NormalDist().cdf(float(at)) for at in x])
    return float(np.trapezoid(1 - below**n - (1 - below) ** n, x))


@dataclass(frozen=True)
class Side:
    """One side of a ratio: the only case that fits all patterns (as `--only` takes them), and what is taken of it.

    `of`: "ROLE seconds" or "seconds" (processor time a record, offline work included), "bytes" (a record, both ways),
    a field of `Accuracy` or `Fidelity`, or "figure NAME", what a script found.
    """

    cases: tuple[str, ...]
    of: str


@dataclass(frozen=True)
class Promise:
    """A ratio that has to stay within a range. `measured`: what it was when it was written down."""

    name: str
    claim: str
    numerator: Side
    denominator: Side
    low: float
    high: float | None
    measured: float
    command: str


@dataclass(frozen=True)
class Baseline:
    """A file of promises."""

    format: int
    about: str
    ratios: tuple[Promise, ...]


@dataclass(frozen=True)
class Kept:
    """A promise held against a run: `ratio` None where the run lacks a side, and why."""

    promise: Promise
    ratio: Ratio | None
    why: str = ""

    @property
    def broken(self) -> bool:
        """Whether the ratio, with all of its interval, is out of range."""
        if self.ratio is None:
            return False
        low, high = self.ratio.interval or (self.ratio.value, self.ratio.value)
        return high < self.promise.low or (self.promise.high is not None and low > self.promise.high)


def read_baseline(path: Path) -> Baseline:
    """Raises `FixInputError` for a file that is none, or of another format."""
    try:
        plain = json.loads(files.read_bytes(path, limit=1 << 20))
    except ValueError:
        plain = None
    baseline = codec.from_plain(Baseline, plain, where=path.name)
    if baseline.format != FORMAT:
        raise FixInputError("a baseline of another format", where=path.name, value=baseline.format)
    return baseline


def hold(baseline: Baseline, records: Sequence[Record]) -> tuple[Kept, ...]:
    """Every promise against the records of one run."""
    return tuple(_held(promise, records) for promise in baseline.ratios)


def _held(promise: Promise, records: Sequence[Record]) -> Kept:
    sides = []
    for side in (promise.denominator, promise.numerator):
        found = _fitting(side, records)
        if isinstance(found, str):
            return Kept(promise, None, found)
        value = quantity(found, side.of)
        if value is None:
            return Kept(promise, None, f"{found.case.id} has no {side.of}")
        sides.append(value)
    return Kept(promise, ratio_of(*sides))


def _fitting(side: Side, records: Sequence[Record]) -> Record | str:
    """The record of a side, or why there is none."""
    wanted = " and ".join(side.cases)
    try:
        ids = {case.id for case in suites.only((record.case for record in records), side.cases)}
    except FixConfigurationError:
        return f"no case fits {wanted}"
    found = [record for record in records if record.case.id in ids]
    if len(found) != 1:
        raise FixInputError(f"{len(found)} cases fit {wanted}, instead of one", remedy="Say more in the baseline.")
    if found[0].missing or found[0].failures:
        return f"{found[0].case.id}: {found[0].missing or '; '.join(found[0].failures)}"
    return found[0]


def quantity(record: Record, of: str) -> Spread | None:
    """What `Side.of` names, of a record; None where it was not measured."""
    for part in (record.accuracy, record.fidelity):
        if of in {field.name for field in fields(part)}:
            value: float | None = getattr(part, of)
            return None if value is None else Spread(value, value, value, 2)
    kind, _, name = of.partition(" ")
    if kind == "figure":
        found = [figure.value for figure in record.figures if figure.name == name]
        return Spread(found[0], found[0], found[0], 2) if found else None
    if of == "bytes":
        sizes = [t.bytes_per_row for t in record.traffic if t.bytes_per_row is not None]
        return Spread(sum(sizes), sum(sizes), sum(sizes), 2) if sizes else None
    role, _, unit = of.rpartition(" ")
    if unit != "seconds":
        raise FixInputError("a baseline takes seconds, bytes, a field of accuracy or fidelity, or a figure", value=of)
    chosen = [timing for timing in record.timings if role in ("", timing.role)]
    fewest = min((timing.threads or math.inf for timing in chosen), default=0)
    return added(seconds(timing) for timing in chosen if (timing.threads or math.inf) == fewest)


def seconds(timing: Timing) -> Spread | None:
    """A row's: processor time, or wall time where nobody knows that."""
    return timing.cpu_seconds_per_row or timing.wall_seconds_per_row


def added(spreads: Iterable[Spread | None]) -> Spread | None:
    """The sum of steps, with ranges as wide as they would be if all steps were slow together."""
    found = [spread for spread in spreads if spread is not None]
    if not found:
        return None
    return Spread(
        sum(spread.median for spread in found),
        sum(spread.low for spread in found),
        sum(spread.high for spread in found),
        min(spread.repeats for spread in found),
    )
