"""How cost grows along one axis with all else equal: found in the records, fitted as a power, drawn on logarithms.

A slope b says that the cost grows as the axis to the power b. It is fitted by least squares on logarithms of medians;
its 95 % interval is Student's, so three points on a perfect line still say little more than that.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from securead.bench.drawing import COLOURS, HUES, Child, Pictures
from securead.bench.measured import Setting, again, engine_name, parameter_words, same_but, told_apart
from securead.bench.records import Record
from securead.bench.signs import Mark, Sign, draw_marks, icon, log_axis, plate
from securead.bench.wording import number, seconds, size

Cost = Literal["time", "bytes"]

FEWEST = 3
SIZE = (4.0, 3.6)
_MARKERS = ("o", "s", "^", "D", "v", "P")
# Two-sided 95 % quantiles of Student's distribution by degrees of freedom (Fisher and Yates, table III).
_STUDENT = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
# A cost that moves by less along the axis does not depend on it.
_MOVES = 1.02


@dataclass(frozen=True)
class Slope:
    """The power at which a cost grows, with its 95 % interval, and the line's height at 1 (both in natural logs)."""

    power: float
    low: float
    high: float
    height: float

    @property
    def words(self) -> str:
        return f"{_power(self.power)} ({_power(self.low)} to {_power(self.high)})"


@dataclass(frozen=True)
class Series:
    """Settings that differ along `axis` alone, in its order, with what each costs."""

    axis: str
    cost: Cost
    settings: tuple[Setting, ...]
    at: tuple[float, ...]
    costs: tuple[float, ...]
    slope: Slope


def fit(at: Sequence[float], costs: Sequence[float]) -> Slope:
    """The least squares line through three or more points of positive numbers, on logarithms."""
    x, y = np.log(np.asarray(at, dtype=float)), np.log(np.asarray(costs, dtype=float))
    spread = float(((x - x.mean()) ** 2).sum())
    power = float(((x - x.mean()) * (y - y.mean())).sum() / spread)
    height = float(y.mean() - power * x.mean())
    rest = y - height - power * x
    error = math.sqrt(max(float(rest @ rest), 0.0) / (len(x) - 2) / spread) * _student(len(x) - 2)
    return Slope(power, power - error, power + error, height)


def _power(value: float) -> str:
    return f"{value:.2f}".replace("-", "−")


def _at_words(value: float) -> str:
    return f"{value:,.0f}" if 1 <= value < 1e7 and value == int(value) else number(value, 4)


def _student(freedom: int) -> float:
    if freedom <= len(_STUDENT):
        return _STUDENT[freedom - 1]
    z = 1.959964  # Cornish and Fisher's expansion: good to three places from eleven degrees on
    return z + (z**3 + z) / (4 * freedom) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)


def all_series(found: Sequence[Setting]) -> tuple[Series, ...]:
    """Every series of three or more points along rows, batch, features, sites, threads or a number among parameters."""
    parameters = dict.fromkeys(
        name
        for one in found
        for name, value in one.case.parameters
        if isinstance(value, int | float) and not isinstance(value, bool)
    )
    made: list[Series] = []
    for axis in ("rows", "batch", "features", "sites", *(f"parameter {name}" for name in parameters)):
        groups: dict[Hashable, dict[float, Setting]] = {}
        for one in found:
            placed = _placed(one, axis)
            if placed is not None and placed[0] > 0:
                groups.setdefault(placed[1], {}).setdefault(placed[0], one)
        for own in groups.values():
            for cost in ("time", "bytes"):
                series = _series(axis, "time" if cost == "time" else "bytes", own)
                made += [series] if series is not None else []
    return tuple(made)


def _series(axis: str, cost: Cost, own: Mapping[float, Setting]) -> Series | None:
    points = [(at, value, one) for at, one in sorted(own.items()) if (value := _cost(one, cost, axis)) is not None]
    points = [point for point in points if point[1] > 0]
    if len(points) < FEWEST:
        return None
    at, costs = tuple(point[0] for point in points), tuple(point[1] for point in points)
    # Bytes are counted, not measured: where none depends on the axis there is nothing to see.
    if cost == "bytes" and max(costs) < _MOVES * min(costs):
        return None
    return Series(axis, cost, tuple(point[2] for point in points), at, costs, fit(at, costs))


def _placed(one: Setting, axis: str) -> tuple[float, Hashable] | None:
    """Where a setting stands on an axis, and all of it that must be equal along the axis."""
    case, record = one.case, one.records[0]
    if axis == "rows":
        return (case.rows or record.rows, same_but(case, "rows")) if case.rows else None
    if axis == "features":
        # A data set of other width is another data set: what is compared is time, not accuracy.
        parameters = tuple(item for item in case.parameters if parameter_words(item[0]) != "features")
        return record.columns, (same_but(replace(case, parameters=parameters), "dataset"), record.rows)
    if axis in ("batch", "sites"):
        return getattr(case, axis), same_but(case, axis)
    name = axis.removeprefix("parameter ")
    value = dict(case.parameters).get(name)
    if parameter_words(name) == "features" or isinstance(value, bool) or not isinstance(value, int | float):
        return None
    parameters = tuple(item for item in case.parameters if item[0] != name)
    return value, same_but(replace(case, parameters=parameters))


def _cost(one: Setting, cost: Cost, axis: str) -> float | None:
    """A row's cost; along rows and batches, which change how many share a message, that of all of them together."""
    value = one.seconds if cost == "time" else one.bytes
    if value is None or axis not in ("rows", "batch"):
        return value
    return value * max(one.records[0].rows, 1) if axis == "rows" else value * one.case.batch


def axis_words(axis: str) -> str:
    """An axis as people call it."""
    return parameter_words(axis.removeprefix("parameter ")) if axis.startswith("parameter ") else axis


def figures(
    found: Sequence[Setting], signs: Mapping[str, Sign], pictures: Pictures, command: str
) -> Iterator[ET.Element]:
    """A figure for each axis and cost; of more series than there are colours, those with most points."""
    by_figure: dict[tuple[str, Cost], list[Series]] = {}
    for series in all_series(found):
        by_figure.setdefault((series.axis, series.cost), []).append(series)
    for (axis, cost), every in by_figure.items():
        drawn = sorted(every, key=lambda series: -len(series.at))[: len(HUES)]
        yield _figure(axis, cost, drawn, len(every) - len(drawn), signs, pictures, command)


def series_names(drawn: Sequence[Series]) -> list[str]:
    """What tells series apart, at least whose engine it is."""
    axis = drawn[0].axis
    cases = [series.settings[0].case for series in drawn]
    names = told_apart(cases, without=(axis,), always=("engine",))
    if axis == "features":
        return [name or engine_name(case) for name, case in zip(names, cases, strict=True)]
    several = len({case.dataset for case in cases}) > 1
    names = [f"{name}, {case.dataset}" if several and name else name for name, case in zip(names, cases, strict=True)]
    return [name or (case.dataset if several else engine_name(case)) for name, case in zip(names, cases, strict=True)]


def _figure(
    axis: str,
    cost: Cost,
    drawn: Sequence[Series],
    left_out: int,
    signed: Mapping[str, Sign],
    pictures: Pictures,
    command: str,
) -> ET.Element:
    names, what = series_names(drawn), axis_words(axis)
    words: Callable[[float], str] = seconds_words if cost == "time" else size
    signs = [Sign(HUES[at], _MARKERS[at], bool(one.settings[0].case.peer)) for at, one in enumerate(drawn)]
    owners = [engine_name(series.settings[0].case) for series in drawn]
    if len(set(owners)) == len(owners):
        # One line an engine: each has the sign that it has in the page's other figures.
        signs = [signed[owner] for owner in owners]
    marks = []
    for series, name, sign in zip(drawn, names, signs, strict=True):
        label = f"{name.split(',')[0]} {_power(series.slope.power)}"
        for place, (x, y) in enumerate(zip(series.at, series.costs, strict=True)):
            last = place == len(series.at) - 1
            note = f"{name}: {_at_words(x)} {what}, {words(y)}"
            marks.append(Mark(math.log10(x), math.log10(y), sign, label if last else "", note))
    lows, highs = [min(series.costs) for series in drawn], [max(series.costs) for series in drawn]
    starts, ends = min(series.at[0] for series in drawn), max(series.at[-1] for series in drawn)

    def draw(axes: Any) -> None:
        margin = 0.09 * math.log10(ends / starts)
        axes.set_xlim(math.log10(starts) - margin, math.log10(ends) + 3.2 * margin)
        low, high = math.log10(min(lows)), math.log10(max(highs))
        room = 0.12 * max(high - low, 0.5)
        axes.set_ylim(low - room, high + room)
        log_axis(axes.xaxis, starts, ends, _at_words)
        log_axis(axes.yaxis, min(lows), max(highs), words)
        axes.set_xlabel(f"{what} (log)")
        axes.set_ylabel(f"{_total(axis, cost)} (log)")
        lines = []
        for series, sign in zip(drawn, signs, strict=True):
            reach = np.log10([series.at[0], series.at[-1]])
            line = series.slope.height / math.log(10) + series.slope.power * reach
            axes.plot(reach, line, color=COLOURS[sign.hue], linewidth=1.4, linestyle=(0, (4, 2)), zorder=2)
            lines.append([(float(x), float(y)) for x, y in zip(reach, line, strict=True)])
        for series, sign in zip(drawn, signs, strict=True):
            _whiskers(axes, series, sign)
        notes.update(draw_marks(axes, marks, lines))

    notes: dict[str, str] = {}
    title = f"{'Time' if cost == 'time' else 'Bytes'} by {what}"
    slopes = [f"{name}: slope {series.slope.words}" for name, series in zip(names, drawn, strict=True)]
    text = f"{title} on logarithmic axes. {'; '.join(slopes)}."
    about = f"{_total(axis, cost)[:1].upper()}{_total(axis, cost)[1:]}. Slopes with 95\N{NO-BREAK SPACE}% intervals."
    about += f" {left_out} further series are in the table." if left_out else ""
    picture = pictures.picture(draw, title, text, size=SIZE, notes=notes)
    key: list[tuple[Child, str]] = [(icon(sign), words_) for sign, words_ in zip(signs, slopes, strict=True)]
    cases = [one.case for series in drawn for one in series.settings]
    return plate(title, about, picture, key, again(command, cases))


def _whiskers(axes: Any, series: Series, sign: Sign) -> None:
    """How far repeats of a time lie apart, where every role's repeats are recorded."""
    if series.cost != "time":
        return
    for at, cost, one in zip(series.at, series.costs, series.settings, strict=True):
        low, high = _repeats(one.records[0])
        if 0 < low < high:
            x = math.log10(at)
            ends = [math.log10(cost * low), math.log10(cost * high)]
            axes.plot([x, x], ends, color=COLOURS[sign.hue], linewidth=1.1, alpha=0.6)


def _repeats(record: Record) -> tuple[float, float]:
    """The smallest and largest repeat of a row's online time, as multiples of the median."""
    found = [
        timing.cpu_seconds_per_row or timing.wall_seconds_per_row for timing in record.timings if not timing.offline
    ]
    spreads = [spread for spread in found if spread is not None]
    middle = sum(spread.median for spread in spreads)
    if middle <= 0:
        return 1.0, 1.0
    return sum(spread.low for spread in spreads) / middle, sum(spread.high for spread in spreads) / middle


def _total(axis: str, cost: Cost) -> str:
    unit = "a request" if axis in ("rows", "batch") else "a row"
    return f"time {unit}, all roles, online" if cost == "time" else f"bytes {unit}, all roles"


def seconds_words(value: float) -> str:
    """Seconds on an axis: 30 µs, 5 ms, 2 s."""
    return f"{number(value * 1e6)} µs" if value < 0.9995e-3 else seconds(value)
