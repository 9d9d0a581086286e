"""What every picture of a suite shares: a sign for each engine, logarithmic axes, labels that do not overlap.

An engine has the same colour and shape in all pictures that compare engines, so that either alone tells it apart; what
is not ours is hollow. Logarithms are drawn on linear axes with ticks of our own: the words at them are ours too.
"""

from __future__ import annotations

import itertools
import math
import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from securead.bench.drawing import COLOURS, HUES, Child, element, printable
from securead.bench.exhibits import figure

# Shapes by matplotlib's letter, each with its outline in a box of 12 x 12 for the key beside a picture.
_SHAPES = {
    "o": "M6 1a5 5 0 1 0 0 10a5 5 0 1 0 0-10z",
    "s": "M1.5 1.5h9v9h-9z",
    "^": "M6 1l5.2 9.6h-10.4z",
    "D": "M6 .6l5.4 5.4-5.4 5.4-5.4-5.4z",
    "v": "M6 11l5.2-9.6h-10.4z",
    "P": "M4 1h4v3h3v4h-3v3h-4v-3h-3v-4h3z",
    "p": "M6 .8l5.2 3.8-2 6.2h-6.4l-2-6.2z",
}
LABEL_SIZE = 11.0
# The width of a letter and the height of a line, of the size of type.
_LETTER, _BOLD, _LINE = 0.6, 0.68, 1.2
_LONGEST = 24
# Of a picture's width, what its horizontal axis has; points between the words of two ticks.
_AXIS_SHARE, _GAP = 0.75, 6.0
# Ever finer steps within a decade: the first that give three ticks are taken.
_STEPS = (
    (1.0,),
    (1.0, 3.0),
    (1.0, 2.0, 5.0),
    (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0),
    tuple(v / 10 for v in range(10, 100)),
)


@dataclass(frozen=True)
class Sign:
    """The colour and the shape of an engine; hollow where it is somebody else's."""

    hue: str
    marker: str
    hollow: bool = False


@dataclass(frozen=True)
class Mark:
    """One point of a picture: where, what it looks like, what is written beside it and what it says when pointed at."""

    x: float
    y: float
    sign: Sign
    label: str
    note: str
    first: bool = False


def signs(names: Sequence[str], hollow: Sequence[str] = ()) -> dict[str, Sign]:
    """A sign for each name; with more names than colours the pairs of colour and shape still differ."""
    shapes = list(_SHAPES)
    return {name: Sign(HUES[at % len(HUES)], shapes[at % len(shapes)], name in hollow) for at, name in enumerate(names)}


def icon(sign: Sign) -> ET.Element:
    """A sign as a small picture for a key."""
    colour = f"var(--{sign.hue})"
    path = element(
        "path", d=_SHAPES[sign.marker], fill="none" if sign.hollow else colour, stroke=colour, stroke_width="1.6"
    )
    # The helper for attributes writes dashes for underscores, as SVG does.
    return element("svg", path, viewBox="0 0 12 12", class_="icon", aria_hidden="true")


def plate(title: str, text: str, picture: ET.Element, key: Sequence[tuple[Child, str]], command: str) -> ET.Element:
    """A figure with its key of signs and words, and under it the command that measures it again."""
    made = figure(title, text, picture, ())
    if key:
        entries = [element("li", sign, element("span", printable(words))) for sign, words in key]
        made.append(element("ul", *entries, class_="key"))
    made.append(element("p", "Again: ", shell(command), class_="again"))
    return made


def shell(command: str) -> ET.Element:
    """A command as one can copy it; it is broken between its words alone where there is room."""
    words: list[Child] = []
    for word in command.split(" "):
        words += [element("span", word), " "]
    return element("code", *words[:-1])


def line_sign(kind: str) -> ET.Element:
    """The sign of a line in a key, by its class."""
    return element("i", class_=kind, aria_hidden="true")


# --- axes -------------------------------------------------------------------------------------------------------------


def log_ticks(low: float, high: float) -> list[float]:
    """Round values between two positive ones, about four of them."""
    every = max(1, math.ceil(math.log10(high / low) / 5))
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for steps in _STEPS:
        each = every if len(steps) == 1 else 1
        found = [step * 10.0**power for power in range(first, last + 1) if power % each == 0 for step in steps]
        inside = [value for value in found if 0.93 * low <= value <= 1.07 * high]
        if len(inside) >= 3:
            return inside
    return [low] if high <= 1.05 * low else [low, high]


def log_axis(axis: Any, low: float, high: float, words: Callable[[float], str]) -> None:
    """Ticks for an axis that shows logarithms of values from `low` to `high`."""
    values = log_ticks(low, high)
    if axis.axis_name == "x":
        values = _apart(axis, values, words)
    axis.set_ticks([math.log10(value) for value in values])
    axis.set_ticklabels([words(value) for value in values])
    axis.set_tick_params(labelsize=LABEL_SIZE)
    axis.label.set_fontsize(LABEL_SIZE)


def _apart(axis: Any, values: Sequence[float], words: Callable[[float], str]) -> list[float]:
    """Values whose words do not run into each other along the axis, the first of all and then each that has room."""
    start, end = axis.get_view_interval()
    across = _AXIS_SHARE * 72 * axis.figure.get_size_inches()[0] / max(end - start, 1e-9)
    kept, reach = list[float](), -math.inf
    for value in values:
        half = _LETTER * LABEL_SIZE * len(words(value)) / 2
        middle = across * math.log10(value)
        if middle - half > reach:
            kept.append(value)
            reach = middle + half + _GAP
    return kept


# --- points and their labels ------------------------------------------------------------------------------------------

Box = tuple[float, float, float, float]


def draw_marks(axes: Any, marks: Sequence[Mark], lines: Sequence[Sequence[tuple[float, float]]] = ()) -> dict[str, str]:
    """Points with as many labels as fit, those of `first` ones before others; what each says when pointed at, by gid.

    `lines` are what labels keep clear of, beside points and one another. Limits of the axes must be set before.
    """
    notes = {}
    for serial, mark in enumerate(marks):
        colour = COLOURS[mark.sign.hue]
        axes.plot(
            [mark.x],
            [mark.y],
            linestyle="none",
            marker=mark.sign.marker,
            markersize=9.5 if mark.first else 7,
            markerfacecolor="none" if mark.sign.hollow else colour,
            markeredgecolor=colour,
            markeredgewidth=1.7 if mark.sign.hollow else 0.8,
            gid=f"mark-{serial}",
            zorder=4,
            clip_on=False,
        )
        notes[f"mark-{serial}"] = mark.note
    axes.figure.draw_without_rendering()
    scale = axes.figure.dpi / 72
    at = [tuple(axes.transData.transform((mark.x, mark.y))) for mark in marks]
    taken: list[Box] = [(x - 5 * scale, y - 5 * scale, x + 5 * scale, y + 5 * scale) for x, y in at]
    for line in lines:
        taken += _beads([tuple(axes.transData.transform(point)) for point in line], scale)
    frame = axes.get_window_extent()
    inside = (frame.x0, frame.y0, frame.x1 + 6 * scale, frame.y1 + 6 * scale)
    order = sorted(range(len(marks)), key=lambda place: not marks[place].first)
    written: set[tuple[str, str]] = set()
    for place in order:
        mark, (x, y) = marks[place], at[place]
        if not mark.label or (mark.label, mark.sign.hue) in written:
            continue
        label = mark.label if len(mark.label) <= _LONGEST else f"{mark.label[: _LONGEST - 1]}…"
        width = (_BOLD if mark.first else _LETTER) * len(label)
        found = _room((x, y), width * LABEL_SIZE * scale, taken, inside, scale)
        if found is not None:
            box, align, shift = found
            taken.append(box)
            written.add((mark.label, mark.sign.hue))
            _write(axes, mark, label, align, shift)
    return notes


def _write(axes: Any, mark: Mark, label: str, align: str, shift: tuple[float, float]) -> None:
    axes.annotate(
        printable(label),
        (mark.x, mark.y),
        xytext=shift,
        textcoords="offset points",
        ha=align,
        va="center",
        color=COLOURS[mark.sign.hue],
        fontsize=LABEL_SIZE,
        fontweight="bold" if mark.first else "normal",
        annotation_clip=False,
        parse_math=False,
        zorder=5,
    ).set_in_layout(False)


def _room(
    point: tuple[float, float], width: float, taken: Sequence[Box], inside: Box, scale: float
) -> tuple[Box, str, tuple[float, float]] | None:
    """The first place around a point where a label of this width meets nothing, and how it is written there."""
    height = _LINE * LABEL_SIZE * scale
    for reach in (8.0, 14.0, 22.0):
        for across, up in ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1)):
            shift = (across * reach * (0.7 if up else 1.0), up * (reach + 3))
            x, y = point[0] + shift[0] * scale, point[1] + shift[1] * scale
            left = x if across > 0 else x - width if across < 0 else x - width / 2
            box = (left, y - height / 2, left + width, y + height / 2)
            if _within(box, inside) and not any(_meet(box, other) for other in taken):
                return box, ("left", "center", "right")[1 - across], shift
    return None


def _beads(line: Sequence[tuple[float, float]], scale: float) -> list[Box]:
    """Small boxes along a line, so that labels keep clear of it."""
    boxes = []
    for (x, y), (to_x, to_y) in itertools.pairwise(line):
        count = max(1, math.ceil(math.hypot(to_x - x, to_y - y) / (6 * scale)))
        for step in range(count + 1):
            a, b = x + (to_x - x) * step / count, y + (to_y - y) * step / count
            boxes.append((a - scale, b - scale, a + scale, b + scale))
    return boxes


def _within(box: Box, frame: Box) -> bool:
    return box[0] >= frame[0] and box[1] >= frame[1] and box[2] <= frame[2] and box[3] <= frame[3]


def _meet(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
