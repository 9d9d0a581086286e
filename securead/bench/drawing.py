"""Elements of an HTML page and the pictures in a report: matplotlib's SVG, made to follow the page's theme.

Everything is an `xml.etree` element, so text that comes from data is escaped when the page is serialised and nowhere
else. Colours are drawn as place-holders and replaced by CSS variables: one picture serves light, dark and print.
"""

from __future__ import annotations

import io
import itertools
import re
import warnings
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np

from securead.bench.intervals import Band
from securead.bench.wording import counted, number
from securead.data.schema import Array
from securead.errors import InstallExtraError

Child = ET.Element | str
Point = tuple[Array, Array]

# A colour that stands for a CSS variable until the picture is part of a page.
HUES = tuple(f"hue-{serial}" for serial in range(1, 7))
_VARIABLES = ("ink", "grid", "float", "encrypted", "normal", "anomaly", *HUES)
COLOURS = {name: f"#0a00{index:02x}" for index, name in enumerate(_VARIABLES, start=1)}
# Styles that a key in CSS can show too.
_STROKES = {"solid": "-", "dashed": (0, (4, 2)), "dotted": (0, (1.2, 1.6))}
_CURVE_POINTS = 300
_SITES_DRAWN = 3
# Divisible by 3, see `histogram`.
_BINS = 48
_FEW_ROWS = 500
# Up to this ratio of the largest score to the median a linear axis shows both.
_SKEWED = 15.0
# As many names of stages stand side by side under an axis; of more, every second or third is shown.
_STAGES_NAMED = 16
# Neither XML nor HTML may hold these, and a column's name can.
_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")

# A hundredth of a point is finer than any screen.
_LONG = re.compile(r"(\d+\.\d\d)\d+")


def element(tag: str, *children: Child, **attributes: str) -> ET.Element:
    """An element: `class_` is the attribute class, `aria_label` is aria-label."""
    names = {name: name.rstrip("_").replace("_", "-") for name in attributes}
    made = ET.Element(tag, {names[name]: printable(value) for name, value in attributes.items()})
    for child in children:
        if not isinstance(child, str):
            made.append(child)
        elif len(made):
            made[-1].tail = (made[-1].tail or "") + printable(child)
        else:
            made.text = (made.text or "") + printable(child)
    return made


def printable(text: str) -> str:
    """`text` with every character that a page cannot hold replaced by a visible sign."""
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)


@dataclass(frozen=True)
class Curve:
    """A curve with the CSS variable that colours it and how it is stroked: `style` and `marker` are matplotlib's."""

    points: Point
    colour: str
    style: str = "solid"
    width: float = 1.6
    steps: bool = False
    marker: str = ""


class Pictures:
    """Draws pictures whose element ids differ from each other's, so that one page can hold them all."""

    def __init__(self) -> None:
        self._serial = itertools.count(1)

    def histogram(self, series: Sequence[tuple[Array, str]], threshold: float, title: str, text: str) -> ET.Element:
        """Scores by class, each as a share of its own class: anomalies are too few to be seen as counts."""
        joined = np.concatenate([scores for scores, _ in series])
        edges, skewed = _edges(joined, threshold)

        def draw(axes: Any) -> None:
            if skewed:
                from matplotlib.ticker import LogLocator

                decades = np.log10(edges[-1] / edges[0])
                axes.set_xscale("log")
                axes.xaxis.set_major_locator(
                    LogLocator(subs=(1, 2, 5) if decades < 2 else (1, 3) if decades < 4 else (1,))
                )
                axes.xaxis.set_minor_formatter(lambda _value, _position: "")
            for scores, colour in series:
                # A class of few rows gets wider bins, of the same area: a comb of single rows says nothing.
                merged = 1 if len(scores) >= _FEW_ROWS else 3
                own = edges[::merged]
                share = np.histogram(np.clip(scores, own[0], own[-1]), bins=own)[0] / (merged * max(len(scores), 1))
                axes.stairs(share, own, fill=True, color=COLOURS[colour], alpha=0.28)
                axes.stairs(share, own, color=COLOURS[colour], linewidth=1.3)
            if edges[0] <= threshold <= edges[-1]:
                axes.axvline(threshold, color=COLOURS["ink"], linewidth=1.2, linestyle=(0, (4, 2)))
                right = axes.transData.transform((threshold, 0))[0] > axes.transAxes.transform((0.7, 0))[0]
                axes.annotate(
                    "threshold",
                    (threshold, 1),
                    xycoords=("data", "axes fraction"),
                    xytext=(-4 if right else 4, -9),
                    textcoords="offset points",
                    ha="right" if right else "left",
                    color=COLOURS["ink"],
                    fontsize=10,
                )
            axes.set_xlim(edges[0], edges[-1])
            axes.set_ylim(0, 1.12 * axes.get_ylim()[1])
            axes.set_yticks([])
            axes.set_xlabel("score, logarithmic axis" if skewed else "score")
            axes.set_ylabel("share of the class" if len(series) > 1 else "share of the records")

        return self.picture(draw, title, text)

    def curves(
        self, curves: Sequence[Curve], level: Point, band: Band | None, names: tuple[str, str], title: str, text: str
    ) -> ET.Element:
        """Curves in the unit square over the line `level` of a guess and an interval around the encrypted one."""

        def draw(axes: Any) -> None:
            if band is not None:
                axes.fill_between(band.at, band.low, band.high, color=COLOURS["encrypted"], alpha=0.2, linewidth=0)
            axes.plot(*level, color=COLOURS["grid"], linewidth=1.2, linestyle=(0, (2, 2)))
            _plot(axes, curves)
            axes.set_xlim(-0.015, 1.015)
            axes.set_ylim(-0.015, 1.03)
            axes.set_xlabel(names[0])
            axes.set_ylabel(names[1])

        return self.picture(draw, title, text)

    def by_round(self, curves: Sequence[Curve], name: str, title: str, text: str) -> ET.Element:
        """Curves over the rounds of training, from zero where that does not flatten them."""

        def draw(axes: Any) -> None:
            from matplotlib.ticker import MaxNLocator

            _plot(axes, curves)
            axes.margins(x=0.06, y=0.12)
            low = min(float(curve.points[1].min()) for curve in curves)
            high = max(float(curve.points[1].max()) for curve in curves)
            if 0 <= low < 0.7 * high:
                axes.set_ylim(0, 1.12 * high)
            axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True, min_n_ticks=1))
            axes.set_xlabel("round")
            axes.set_ylabel(name)

        return self.picture(draw, title, text)

    def by_stage(
        self, curves: Sequence[Curve], stages: Sequence[str], promised: float | None, name: str, title: str, text: str
    ) -> ET.Element:
        """Staircases with a step for each stage, from zero, below a line at what was promised."""

        def draw(axes: Any) -> None:
            _plot(axes, curves)
            if promised is not None:
                axes.axhline(promised, color=COLOURS["ink"], linewidth=1.2, linestyle=(0, (4, 2)))
                axes.annotate(
                    f"guarantee: {number(promised)}",
                    (0, promised),
                    xytext=(5, 4),
                    textcoords="offset points",
                    color=COLOURS["ink"],
                    fontsize=10,
                )
            each = -(-len(stages) // _STAGES_NAMED)
            axes.set_xticks([place + 0.5 for place in range(0, len(stages), each)])
            many = len(stages) > 3
            turned: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"} if many else {}
            axes.set_xticklabels([printable(name) for name in stages[::each]], fontsize=10, parse_math=False, **turned)
            axes.set_xlim(0, len(stages))
            top = max(float(curve.points[1].max()) for curve in curves)
            axes.set_ylim(0, 1.15 * max(top, promised or 0.0) or 1.0)
            axes.set_ylabel(name)

        return self.picture(draw, title, text)

    def picture(
        self,
        draw: Callable[[Any], None],
        title: str,
        text: str,
        *,
        size: tuple[float, float] = (4.4, 3.5),
        notes: Mapping[str, str] | None = None,
    ) -> ET.Element:
        """What `draw` puts on matplotlib's axes, `size` in inches; an artist whose gid is in `notes` says its note when
        pointed at.
        """
        with _matplotlib_style():
            from matplotlib.figure import Figure

            figure = Figure(figsize=size, layout="constrained")
            axes = figure.add_subplot()
            axes.grid(axis="y", color=COLOURS["grid"], linewidth=0.7, alpha=0.5)
            axes.set_axisbelow(True)
            for side in ("top", "right", "left"):
                axes.spines[side].set_visible(False)
            axes.tick_params(which="both", length=0)
            axes.xaxis.set_major_formatter(lambda value, _position: number(value))
            axes.yaxis.set_major_formatter(lambda value, _position: number(value))
            draw(axes)
            if axes.get_xscale() == "log":
                # A logarithmic scale brings its own formatter, whose mathematical text an SVG shows badly.
                axes.xaxis.set_major_formatter(lambda value, _position: number(value))
            canvas = io.StringIO()
            nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
            with warnings.catch_warnings():
                # The reader's browser has its own fonts; a sign that matplotlib's lack is only measured wrongly.
                warnings.filterwarnings("ignore", message="Glyph .* missing from font")
                figure.savefig(canvas, format="svg", transparent=True, metadata=nothing)
        return _adopted(canvas.getvalue(), f"picture-{next(self._serial)}", title, text, notes or {})


def _plot(axes: Any, curves: Sequence[Curve]) -> None:
    for curve in curves:
        axes.plot(
            *thinned(*curve.points),
            linestyle=_STROKES[curve.style],
            color=COLOURS[curve.colour],
            linewidth=curve.width,
            marker=curve.marker,
            markersize=6,
            drawstyle="steps-post" if curve.steps else "default",
        )


@contextmanager
def _matplotlib_style() -> Iterator[None]:
    """Matplotlib's own defaults and ours for a while: a reader's matplotlibrc does not change the report."""
    try:
        from matplotlib import style
    except ImportError as error:
        raise InstallExtraError(
            "drawing the report needs matplotlib", remedy="Run: pip install 'securead[bench]'."
        ) from error
    ours = {
        "svg.fonttype": "none",
        "svg.hashsalt": "securead",
        "font.size": 11,
        "axes.labelcolor": COLOURS["ink"],
        "axes.edgecolor": COLOURS["grid"],
        "xtick.labelcolor": COLOURS["ink"],
        "ytick.labelcolor": COLOURS["ink"],
        "text.color": COLOURS["ink"],
    }
    with style.context(["default", ours], after_reset=True):
        yield


def _adopted(svg: str, prefix: str, title: str, text: str, notes: Mapping[str, str]) -> ET.Element:
    """An SVG document as an element of our page: no namespaces or declarations, ids that are ours alone, a title."""
    root = ET.fromstring(svg)  # noqa: S314 - drawn by us a moment ago
    referenced = set(re.findall(r"[(\"]#([\w.-]+)", svg))
    noted = [(node, notes[node.attrib["id"]]) for node in root.iter() if node.attrib.get("id") in notes]
    for node in root.iter():
        node.tag = node.tag.rpartition("}")[2]
        for name, value in list(node.attrib.items()):
            del node.attrib[name]
            plain = name.rpartition("}")[2]
            if plain == "id" and value not in referenced:
                continue
            value = _LONG.sub(r"\1", value) if plain == "d" else value
            node.set(plain, _themed(f"{prefix}-{value}" if plain == "id" else value, prefix))
        node.text = node.text if node.tag == "text" else None
        node.tail = None
        for definitions in [child for child in node if child.tag.endswith("}style")]:
            node.remove(definitions)  # a rule for "*", which would reach the whole page
    for node, note in noted:
        node.insert(0, element("title", note))
    for size in ("width", "height", "version"):
        root.attrib.pop(size, None)
    return labelled(root, prefix, title, text)


def _themed(value: str, prefix: str) -> str:
    value = re.sub(r"(^|url\()#(?=[a-zA-Z])", rf"\g<1>#{prefix}-", value)
    value = re.sub(r"font-family: [^;]*", "font-family: inherit", value)
    for name, colour in COLOURS.items():
        value = value.replace(colour, f"var(--{name})")
    return re.sub(r"\s+", " ", value)


def labelled(svg: ET.Element, prefix: str, title: str, text: str) -> ET.Element:
    """`svg` as an image with a title and a description that a screen reader says."""
    svg.set("role", "img")
    svg.set("aria-labelledby", f"{prefix}-title {prefix}-text")
    svg.insert(0, element("desc", text, id=f"{prefix}-text"))
    svg.insert(0, element("title", title, id=f"{prefix}-title"))
    return svg


def roles_picture(sites: Sequence[tuple[str, int]], sums: str, text: str) -> ET.Element:
    """The roles and what goes between them; `sums` is what sites send. Only the first sites have room of their own."""
    shown = [
        (name if len(name) <= 14 else f"{name[:13]}…", counted(rows, "record")) for name, rows in sites[:_SITES_DRAWN]
    ]
    if len(sites) > _SITES_DRAWN:
        shown[-1] = (f"{len(sites) - _SITES_DRAWN + 1} more", "sites")
    slots = {"sums": sums.partition(" without")[0], "owner-sees": f"trains on {sums}; keeps the weights"}
    for place, (name, rows) in enumerate(shown, start=1):
        slots |= {f"site-{place}": name, f"rows-{place}": rows}
    drawing = ET.fromstring(_resource("roles.svg"))  # noqa: S314 - a file of this package
    for node in drawing.iter():
        slot = node.attrib.pop("data-slot", None)
        node.text = printable(slots.get(slot, "")) if slot else node.text
    return labelled(drawing, "roles-picture", "Roles", text)


def stylesheet() -> str:
    """The page's styles, with the variables that pictures are coloured by."""
    return _resource("report.css")


def _resource(name: str) -> str:
    return resources.files("securead.bench").joinpath(name).read_text(encoding="utf-8")


def thinned(x: Array, y: Array, points: int = _CURVE_POINTS) -> Point:
    """At most `points` points of a curve, evenly spaced along its length, both ends among them."""
    if len(x) <= points:
        return x, y
    length = np.concatenate([[0.0], np.cumsum(np.hypot(np.diff(x), np.diff(y)))])
    kept = np.unique(np.searchsorted(length, np.linspace(0, length[-1], points)).clip(0, len(x) - 1))
    kept[0] = 0
    return x[kept], y[kept]


def _edges(scores: Array, threshold: float) -> tuple[Array, bool]:
    """Edges of bins, logarithmic where a long tail would squeeze the rest into one; the ends take what lies outside."""
    positive = scores[scores > 0]
    skewed = (
        len(positive) > 0.99 * len(scores)
        and threshold > 0
        and float(positive.max()) > _SKEWED * float(np.median(positive))
    )
    if skewed:
        low, high = float(np.quantile(positive, 0.0005)), float(positive.max())
        low, high = min(low, threshold) * 0.9, max(high, threshold) * 1.1
        return np.geomspace(low, high, _BINS + 1), True
    low, high = (float(scores.min()), float(scores.max())) if len(scores) else (0.0, 1.0)
    low, high = min(low, threshold), max(high, threshold)
    margin = 0.02 * (high - low) or 0.5
    return np.linspace(low - margin, high + margin, _BINS + 1), False
