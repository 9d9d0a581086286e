"""What accuracy costs: AUROC against time, bytes and epsilon, with the frontier of what nothing else betters.

The frontier is drawn among engines that hide records from the server; scoring in the clear stands beside it as what
hiding is compared with. Where there is scoring in the clear alone, the frontier is its own.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from securead.bench import wording
from securead.bench.drawing import COLOURS, HUES, Child, Pictures
from securead.bench.measured import Setting, again, engine_name, epsilon_words, is_protected, same_but, told_apart
from securead.bench.records import Spread
from securead.bench.signs import LABEL_SIZE, Mark, Sign, draw_marks, icon, line_sign, log_axis, plate
from securead.bench.wording import area, counted, number, size

SIZE = (4.0, 3.6)
_STYLES = ("-", (0, (4, 2)), (0, (1.2, 1.6)))
_MARKERS = ("o", "s", "^", "D", "v", "P", "p")
_NARROWEST = 0.02


def frontier(points: Sequence[tuple[float, float]]) -> list[int]:
    """Of points (cost, worth), those that no other betters in both, cheapest first; of equal ones the first."""
    best, kept = -math.inf, []
    for place in sorted(range(len(points)), key=lambda at: (points[at][0], -points[at][1], at)):
        if points[place][1] > best:
            best = points[place][1]
            kept.append(place)
    return kept


def cost_figure(
    found: Sequence[Setting], kind: str, signs: Mapping[str, Sign], pictures: Pictures, command: str
) -> ET.Element | None:
    """AUROC against "time" or "bytes" a row of one data set's settings; None where there is nothing to choose."""
    read: Callable[[Setting], float | None] = (
        (lambda one: None if one.seconds is None else one.seconds * 1e6) if kind == "time" else (lambda one: one.bytes)
    )
    points: list[tuple[Setting, float, Spread]] = []
    for one in found:
        cost, spread = read(one), one.auroc
        if cost is not None and spread is not None:
            points.append((one, cost, spread))
    # One detector under one engine at one epsilon has one accuracy: how its cost grows is drawn elsewhere.
    if len({(engine_name(one.case), one.case.detector, one.case.epsilon, one.case.role) for one, _, _ in points}) < 2:
        return None
    words: Callable[[float], str] = (lambda value: f"{number(value)} µs") if kind == "time" else size
    hidden = [place for place, (one, _, _) in enumerate(points) if is_protected(one.case)]
    ranked = hidden or list(range(len(points)))
    best = [ranked[at] for at in frontier([(points[at][1], points[at][2].median) for at in ranked])]
    shift = _zero_shift([cost for _, cost, _ in points])
    places = [shift if cost <= 0 else math.log10(cost) for _, cost, _ in points]
    names = told_apart([one.case for one, _, _ in points], known=("engine",), always=("detector",))
    marks = [
        Mark(x, spread.median, signs[engine_name(one.case)], name, _note(one, words(cost), spread), at in best)
        for at, ((one, cost, spread), x, name) in enumerate(zip(points, places, names, strict=True))
    ]
    line = _stairs([(places[at], points[at][2].median) for at in best])
    positive = [cost for _, cost, _ in points if cost > 0]

    def draw(axes: Any) -> None:
        axes.set_ylim(*_span([spread for _, _, spread in points]))
        margin = 0.09 * max(max(places) - min(places), 0.5)
        axes.set_xlim(min(places) - margin, max(places) + margin)
        if positive:
            log_axis(axes.xaxis, min(positive), max(positive), size if kind == "bytes" else number)
        if len(positive) < len(points):
            ticks = [shift, *(axes.get_xticks() if positive else [])]
            labels = ["0", *([text.get_text() for text in axes.get_xticklabels()] if positive else [])]
            axes.set_xticks(ticks, labels)
        axes.tick_params(labelsize=LABEL_SIZE)
        axes.set_ylabel("AUROC, held out", fontsize=LABEL_SIZE)
        named = "µs a row, all roles, online (log)" if kind == "time" else "bytes a row, all roles (log)"
        axes.set_xlabel(named, fontsize=LABEL_SIZE)
        right = axes.get_xlim()[1]
        reach = [*line, (right, line[-1][1])]
        axes.plot(*zip(*reach, strict=True), color=COLOURS["ink"], linewidth=1.3, linestyle=(0, (4, 2)), zorder=2)
        axes.fill_between(*zip(*reach, strict=True), axes.get_ylim()[0], color=COLOURS["grid"], alpha=0.1, zorder=0)
        _whiskers(axes, places, [spread for _, _, spread in points], marks)
        notes.update(draw_marks(axes, marks, [reach]))

    notes: dict[str, str] = {}
    what = "time" if kind == "time" else "bytes"
    title = f"Accuracy against {what}"
    best_words = "; ".join(f"{_who(points[at][0])} {area(points[at][2].median)}, {words(points[at][1])}" for at in best)
    text = f"AUROC against {what} a row of {counted(len(points), 'setting')}. On the frontier: {best_words}."
    picture = pictures.picture(draw, title, text, size=SIZE, notes=notes)
    about = "Up and to the left is better. "
    about += "The frontier runs over engines that hide records." if hidden else "Nothing here hides records."
    rows = sorted({one.records[0].rows for one, _, _ in points})
    if len(rows) > 1:
        about += f" Points stand for {rows[0]:,} to {rows[-1]:,} rows: accuracy differs by that too."
    key = _engine_key([one for one, _, _ in points], signs)
    key.append((line_sign("frontier"), "frontier"))
    return plate(title, about, picture, key, again(command, [one.case for one, _, _ in points]))


def epsilon_figure(found: Sequence[Setting], pictures: Pictures, command: str) -> ET.Element | None:
    """AUROC against epsilon, a line for each detector beside its controls; None with fewer than two epsilons."""
    studied = [one for one in found if one.auroc is not None and not one.case.peer]
    if len({one.case.epsilon for one in studied}) < 2:
        return None
    lines: dict[object, list[Setting]] = {}
    for one in studied:
        lines.setdefault(same_but(one.case, "epsilon", "delta"), []).append(one)
    kept = [sorted(own, key=_by_epsilon) for own in lines.values() if len({one.case.epsilon for one in own}) > 1]
    if not kept:
        return None
    kept = kept[: len(HUES)]
    names = told_apart([own[0].case for own in kept], without=("epsilon",), always=("detector",))
    names = [name or own[0].case.detector for name, own in zip(names, kept, strict=True)]
    values = sorted({one.case.epsilon for own in kept for one in own if one.case.epsilon is not None})
    free = any(one.case.epsilon is None for own in kept for one in own)
    beyond = math.log10(values[-1]) + 0.12 + 0.16 * max(math.log10(values[-1] / values[0]), 1.0)
    norms = [s for own in kept for one in own if (s := one.spread(lambda r: r.accuracy.auroc_norm)) is not None]
    spreads = [spread for own in kept for one in own if (spread := one.auroc) is not None]
    signs = [Sign(HUES[at], _MARKERS[at]) for at in range(len(kept))]
    marks, at_lines = [], []
    for own, name, sign in zip(kept, names, signs, strict=True):
        points = [
            (beyond if one.case.epsilon is None else math.log10(one.case.epsilon), spread)
            for one in own
            if (spread := one.auroc) is not None
        ]
        private = [(x, s.median) for x, s in points if x != beyond or not free]
        best = {private[at][0] for at in frontier(private)}
        at_lines.append([(x, s.median) for x, s in points])
        for (x, spread), one in zip(points, own, strict=True):
            note = _note(one, epsilon_words(one.case.epsilon), spread)
            label = name if one is own[-1] else ""
            marks.append(Mark(x, spread.median, sign, label, note, x in best))
    control = max((spread.median for spread in norms), default=None)

    def draw(axes: Any) -> None:
        axes.set_ylim(*_span([*spreads, *norms]))
        left, right = math.log10(values[0]), beyond if free else math.log10(values[-1])
        # Room for the names of lines at their ends.
        axes.set_xlim(left - 0.06 * (right - left) - 0.02, right + 0.36 * (right - left) + 0.05)
        ticks, texts = [math.log10(value) for value in values], [number(value) for value in values]
        axes.set_xticks([*ticks, beyond] if free else ticks, [*texts, "no noise"] if free else texts)
        axes.tick_params(labelsize=LABEL_SIZE)
        axes.set_xlabel("ε of training (log); smaller protects more", fontsize=LABEL_SIZE)
        axes.set_ylabel("AUROC, held out", fontsize=LABEL_SIZE)
        guide = []
        if control is not None:
            axes.axhline(control, color=COLOURS["ink"], linewidth=1.2, linestyle=(0, (1.2, 1.6)), zorder=1)
            guide = [[(axes.get_xlim()[0], control), (axes.get_xlim()[1], control)]]
        for at, (points, sign) in enumerate(zip(at_lines, signs, strict=True)):
            axes.plot(*zip(*points, strict=True), color=COLOURS[sign.hue], linewidth=1.6, linestyle=_STYLES[at % 3])
        _whiskers(axes, [mark.x for mark in marks], spreads, marks)
        notes.update(draw_marks(axes, marks, [*at_lines, *guide]))

    notes: dict[str, str] = {}
    said = "; ".join(
        f"{name}: "
        + ", ".join(f"{epsilon_words(one.case.epsilon)} {area(one.auroc.median)}" for one in own if one.auroc)
        for name, own in zip(names, kept, strict=True)
    )
    title, text = "Accuracy against ε", f"AUROC against epsilon. {said}."
    picture = pictures.picture(draw, title, text, size=SIZE, notes=notes)
    seeds = max(spread.repeats for spread in spreads)
    about = f"Medians of {seeds} seeds, from the lowest to the highest. " if seeds > 1 else "One seed. "
    about += "Large marks: no smaller ε does as well."
    key: list[tuple[Child, str]] = [(icon(sign), name) for sign, name in zip(signs, names, strict=True)]
    if control is not None:
        key.append((line_sign("control"), f"{wording.NORM}, no training"))
    return plate(title, about, picture, key, again(command, [one.case for own in kept for one in own]))


def _by_epsilon(one: Setting) -> float:
    return math.inf if one.case.epsilon is None else one.case.epsilon


def _engine_key(found: Sequence[Setting], signs: Mapping[str, Sign]) -> list[tuple[Child, str]]:
    shown = {engine_name(one.case): is_protected(one.case) for one in found}
    return [
        (icon(sign), name if shown[name] else f"{name} (hides nothing)")
        for name, sign in signs.items()
        if name in shown
    ]


def _who(one: Setting) -> str:
    return f"{engine_name(one.case)} {one.case.detector} {epsilon_words(one.case.epsilon)}"


def _note(one: Setting, cost: str, spread: Spread) -> str:
    seeds = f", {area(spread.low)} to {area(spread.high)} over {spread.repeats} seeds" if spread.repeats > 1 else ""
    return f"{_who(one)}: AUROC {area(spread.median)}{seeds}; {cost}"


def _zero_shift(costs: Sequence[float]) -> float:
    """Where a cost of nothing stands on a logarithmic axis: left of all others, apart."""
    positive = [math.log10(cost) for cost in costs if cost > 0]
    if not positive:
        return 0.0
    return min(positive) - 0.5 - 0.12 * (max(positive) - min(positive))


def _stairs(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """A staircase through the frontier's points: what is paid for an accuracy buys it from there on."""
    line = [points[0]]
    for x, y in points[1:]:
        line += [(x, line[-1][1]), (x, y)]
    return line


def _span(spreads: Sequence[Spread]) -> tuple[float, float]:
    """Limits of an axis of areas: all of them with room for labels, never so narrow that chance looks like a gap."""
    low, high = min(spread.low for spread in spreads), max(spread.high for spread in spreads)
    missing = max(0.0, _NARROWEST - (high - low)) / 2
    low, high = low - missing, high + missing
    margin = 0.16 * (high - low)
    return low - margin, high + margin


def _whiskers(axes: Any, places: Sequence[float], spreads: Sequence[Spread], marks: Sequence[Mark]) -> None:
    for x, spread, mark in zip(places, spreads, marks, strict=True):
        if spread.repeats > 1 and spread.high > spread.low:
            axes.plot(
                [x, x], [spread.low, spread.high], color=COLOURS[mark.sign.hue], linewidth=1.1, alpha=0.6, zorder=3
            )
