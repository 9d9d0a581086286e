"""The figures and tables of a report's detectors: values of runs in, elements of the page out.

Figures are drawn once for a fitted detector; tables set its runs side by side.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from securead.bench import wording
from securead.bench.drawing import HUES, Child, Curve, Pictures, element
from securead.bench.intervals import Certainty, auroc, average_precision
from securead.bench.results import DetectorRun, Phase, TrainingStep
from securead.bench.wording import NORM, Verdict, area, counted, number, row_time, seconds, size
from securead.data.schema import Array

Key = tuple[str, str]
"""The classes of a sign and the words beside it."""

# Of more sites than there are colours, all are drawn alike and only these many of them.
_ALIKE_DRAWN = 100
_STYLES = ("solid", "dashed", "dotted")
_MARKERS = ("o", "s", "^", "D", "v", "P")
_CONTROL_HUES = ("hue-2", "hue-4", "hue-3", "hue-6", "hue-5")
_SAID = {"wins": "beaten", "loses": "better than the detector", "even": "not clearly beaten"}


@dataclass(frozen=True, eq=False)
class Group:
    """Runs of one fitted detector: what it finds is drawn once, what it costs stands side by side."""

    title: str
    anchor: str
    runs: tuple[DetectorRun, ...]

    @property
    def main(self) -> DetectorRun:
        """The run with most rows: the one that is drawn."""
        return max(self.runs, key=lambda run: len(run.float_scores))

    @property
    def labelled(self) -> list[tuple[str, DetectorRun]]:
        """The runs with what tells them apart."""
        return list(zip(wording.run_labels(self.runs), self.runs, strict=True))


# --- figures


def found(run: DetectorRun, known: Certainty | None, pictures: Pictures) -> Iterator[ET.Element]:
    """Score histogram and, with labels, ROC and precision-recall curves beside every control's."""
    scores = run.encrypted_scores
    about = "What the key holder decrypts; higher is more anomalous."
    if run.y is None or not wording.has_both_classes(run):
        text = f"Histogram of {len(scores):,} decrypted scores; threshold {number(run.threshold)}."
        picture = pictures.histogram([(scores, "normal")], run.threshold, "Scores", text)
        yield figure("Scores", about, picture, [("normal", f"records ({len(scores):,})")])
        return
    y = run.y == 1
    series = [(scores[~y], "normal"), (scores[y], "anomaly")]
    key = [("normal", f"normal ({int(np.sum(~y)):,})"), ("anomaly", f"anomalies ({int(np.sum(y)):,})")]
    text = f"Histogram of the decrypted scores: {key[0][1]} and {key[1][1]}; threshold {number(run.threshold)}."
    yield figure("Scores", about, pictures.histogram(series, run.threshold, "Scores", text), key)
    yield from _curves(run, y, known, pictures)


def _curves(run: DetectorRun, y: Array, known: Certainty | None, pictures: Pictures) -> Iterator[ET.Element]:
    from sklearn.metrics import precision_recall_curve, roc_curve

    worlds = [
        (hue, wording.control_key(control.name), control.scores, style, 1.5)
        for control, (hue, style) in zip(run.controls, _control_strokes(run), strict=True)
    ]
    worlds.append(("float", "in the clear", run.float_scores, "solid", 5.0))
    worlds.append(("encrypted", "encrypted", run.encrypted_scores, "dashed", 1.6))
    roc, recalled, areas, precisions = [], [], [], []
    for colour, words, world, style, width in worlds:
        false_rate, true_rate, _ = roc_curve(y, world)
        precision, recall, _ = precision_recall_curve(y, world)
        roc.append(Curve((false_rate, true_rate), colour, style, width))
        recalled.append(Curve((recall, precision), colour, style, width, steps=True))
        sign = colour if colour in ("float", "encrypted") else f"{colour} {style}"
        areas.append((sign, f"{words} {area(auroc(y, world))}"))
        precisions.append((sign, f"{words} {area(average_precision(y, world))}"))
    # The key reads as the eye does: the detector first.
    areas, precisions = ([*key[-2:], *key[:-2]] for key in (areas, precisions))
    rest = [("band", "95\N{NO-BREAK SPACE}% interval, encrypted")] if known is not None else []
    rest.append(("level", "guessing"))
    within = wording.interval_words("Area", auroc(y, run.encrypted_scores), None if known is None else known.auroc)
    text = "ROC curves. Areas under them: " + "; ".join(word for _, word in areas) + f". {within}"
    diagonal = np.array([0.0, 1.0])
    names = ("false alarms among normal", "anomalies found")
    picture = pictures.curves(roc, (diagonal, diagonal), None if known is None else known.roc, names, "ROC", text)
    yield figure("ROC", "Anomalies found against false alarms. Area under the curve:", picture, [*areas, *rest])
    within = wording.interval_words(
        "Average precision",
        average_precision(y, run.encrypted_scores),
        None if known is None else known.average_precision,
    )
    text = "Precision-recall curves. Average precision: " + "; ".join(word for _, word in precisions) + f". {within}"
    level, title = (diagonal, np.full(2, float(np.mean(y)))), "Precision and recall"
    names = ("anomalies found", "alarms that are right")
    picture = pictures.curves(recalled, level, None if known is None else known.precision, names, title, text)
    yield figure(title, "What an alarm is worth. Average precision:", picture, [*precisions, *rest])


def _control_strokes(run: DetectorRun) -> list[tuple[str, str]]:
    return [(_CONTROL_HUES[at % len(_CONTROL_HUES)], _STYLES[at % len(_STYLES)]) for at in range(len(run.controls))]


def trained(run: DetectorRun, pictures: Pictures) -> Iterator[ET.Element]:
    """Validation loss by round and epsilon by stage, a line for each site; nothing where nothing was recorded."""
    losses = [step for step in run.training if step.loss is not None and np.isfinite(step.loss)]
    if losses:
        yield _losses(losses, run.result.epsilon is not None, pictures)
    if any(step.epsilon is not None for step in run.training):
        yield _spending(run, pictures)


def _losses(steps: Sequence[TrainingStep], private: bool, pictures: Pictures) -> ET.Element:
    stages = list(dict.fromkeys(step.stage for step in steps))
    numbered = [stage.rpartition("-")[2] for stage in stages]
    proper = len(set(numbered)) == len(stages) and all(text.isascii() and text.isdigit() for text in numbered)
    rounds = {
        stage: int(text) if proper else place
        for place, (stage, text) in enumerate(zip(stages, numbered, strict=True), 1)
    }
    points: dict[str, list[tuple[int, float]]] = {}
    for step in steps:
        points.setdefault(step.site, []).append((rounds[step.stage], float(step.loss or 0.0)))
    lines = [((name,), np.array(sorted(own), dtype=float)) for name, own in points.items()]
    curves, key = _by_site(lines, markers=True)
    what = "Noised validation loss" if private else "Validation loss"
    last = "; ".join(f"{name[0]} {number(own[0, 1])} to {number(own[-1, 1])}" for name, own in lines[: len(HUES)])
    text = f"{what} by round, first and last: {last}."
    picture = pictures.by_round(curves, "loss a record", what, text)
    return figure(
        what, f"By site, a record, after each round{'; each point has its noise' if private else ''}.", picture, key
    )


def _spending(run: DetectorRun, pictures: Pictures) -> ET.Element:
    stages = list(dict.fromkeys(step.stage for step in run.training))
    spent: dict[str, dict[str, float]] = {}
    for step in run.training:
        if step.epsilon is not None and np.isfinite(step.epsilon):
            spent.setdefault(step.site, {})[step.stage] = step.epsilon
    same: dict[tuple[float, ...], list[str]] = {}
    for site, own in spent.items():
        reached, levels = 0.0, []
        for stage in stages:
            reached = own.get(stage, reached)
            levels.append(float(f"{reached:.4g}"))
        same.setdefault(tuple(levels), []).append(site)
    # A step is taken at its stage's left edge: what a stage costs is charged before it releases anything.
    at = np.arange(len(stages) + 1, dtype=float)
    lines = [
        (tuple(sites), np.column_stack([np.append(0.0, at), [0.0, *levels, levels[-1]]]))
        for levels, sites in same.items()
    ]
    curves, key = _by_site(lines, markers=False)
    final = max(levels[-1] for levels in same)
    promised = run.result.epsilon
    if promised is not None and final > 1.01 * promised:
        promised = None
    named = [wording.stage_words(stage) for stage in stages]
    ends = "; ".join(
        f"{', '.join(sites[:3])} {number(levels[-1])}" for levels, sites in list(same.items())[: len(HUES)]
    )
    text = f"Epsilon spent by step, at the end: {ends}. Steps: {', '.join(named[:30])}."
    short = [name if len(name) <= 16 else f"{name[:15]}…" for name in named]
    picture = pictures.by_stage(curves, short, promised, "ε spent", "Privacy spent", text)
    return figure("Privacy spent", "ε of each site so far, step by step.", picture, key)


def _by_site(lines: Sequence[tuple[tuple[str, ...], Array]], *, markers: bool) -> tuple[list[Curve], list[Key]]:
    """A curve and a sign for each line `(points, 2)`, which one or several sites share."""
    if len(lines) > len(HUES):
        sites = sum(len(names) for names, _ in lines)
        drawn = lines[:_ALIKE_DRAWN]
        shown = counted(sites, "site") if len(drawn) == len(lines) else f"the first {len(drawn)} of {sites:,} sites"
        return [Curve((own[:, 0], own[:, 1]), HUES[0], "solid", 0.8, steps=not markers) for _, own in drawn], [
            ("hue-1 solid", shown)
        ]
    curves, key = [], []
    for at, (names, own) in enumerate(lines):
        style, marker = _STYLES[at % len(_STYLES)], _MARKERS[at] if markers else ""
        curves.append(Curve((own[:, 0], own[:, 1]), HUES[at], style, 2.0, steps=not markers, marker=marker))
        shown = ", ".join(names) if len(names) <= 3 else f"{', '.join(names[:2])} and {len(names) - 2} more"
        key.append((f"{HUES[at]} {style}", shown + (" (all the same)" if len(lines) == 1 < len(names) else "")))
    return curves, key


def figure(title: str, text: str, picture: ET.Element, key: Sequence[Key]) -> ET.Element:
    """A picture under its title, with a key."""
    entries = [element("li", element("i", class_=colour, aria_hidden="true"), word) for colour, word in key]
    return element(
        "figure",
        element("figcaption", element("b", title), text),
        picture,
        *([element("ul", *entries, class_="key")] if entries else []),
    )


# --- tables


def table(title: str, *parts: ET.Element, kind: str) -> ET.Element:
    """A table in a box that scrolls sideways where the screen is narrow, with the keyboard too."""
    table = element("table", element("caption", title), *parts, class_=kind)
    return element("div", table, class_="table", role="region", aria_label=title, tabindex="0")


def overview(groups: Sequence[Group]) -> ET.Element:
    """All runs in a table: what they promise, find and cost."""
    networks = any(run.result.auroc_untrained is not None for group in groups for run in group.runs)
    heads = ["ε", "AUROC clear", "AUROC encrypted", f"AUROC {NORM}", "Server a row", "Upload a row"]
    heads[4:4] = ["AUROC untrained"] if networks else []
    rows = []
    for title, run in ((group.title, run) for group in groups for run in group.runs):
        result = run.result
        cells = ["none" if result.epsilon is None else number(result.epsilon)]
        cells += [area(value) for value in (result.auroc_float, result.auroc_encrypted, result.auroc_norm_baseline)]
        cells += [area(result.auroc_untrained)] if networks else []
        cells += [row_time(result), size(result.upload_bytes_per_row)]
        name = element("th", title, element("small", f"{result.engine}, role {result.role}"), scope="row")
        rows.append(element("tr", name, *(element("td", cell, class_="number") for cell in cells)))
    columns = [element("th", "Detector", scope="col")]
    columns += [element("th", head, scope="col", class_="number") for head in heads]
    return table("All runs", element("thead", element("tr", *columns)), element("tbody", *rows), kind="all-runs")


def controls(run: DetectorRun, y: Array, said: Sequence[Verdict], known: Certainty | None) -> ET.Element:
    """The detector's areas under curves beside every control's, and its lead over each."""
    heads = ("AUROC", "Average precision", "The detector's lead in AUROC", "Verdict")
    intervals = (
        ("", "")
        if known is None
        else tuple(f"{area(low)} to {area(high)}" for low, high in (known.auroc, known.average_precision))
    )
    worlds = (
        ("This detector, in the clear", run.float_scores, ("", "")),
        ("This detector, encrypted", run.encrypted_scores, intervals),
    )
    rows = []
    for name, scores, within in worlds:
        values = auroc(y, scores), average_precision(y, scores)
        cells = [
            element("td", area(value), *_small(more), class_="number")
            for value, more in zip(values, within, strict=True)
        ]
        rows.append(
            element("tr", element("th", name, scope="row"), *cells, element("td", "–", class_="number"), element("td"))
        )
    for control, one in zip(run.controls, said, strict=True):
        name, meaning = wording.control_key(control.name), wording.control_meaning(control.name)
        values = auroc(y, control.scores), average_precision(y, control.scores)
        cells = [element("th", name, *_small(meaning), scope="row")]
        cells += [element("td", area(value), class_="number") for value in values]
        cells += [element("td", f"{wording.signed(one.lead)}", *_small(wording.spanned(one.interval)), class_="number")]
        rows.append(element("tr", *cells, element("td", _SAID[one.kind], class_=f"said {one.kind}")))
    columns = [element("th", "Scores", scope="col")]
    columns += [
        element("th", head, scope="col", **({} if head == heads[-1] else {"class_": "number"})) for head in heads
    ]
    title = "The detector and its controls; small figures are 95\N{NO-BREAK SPACE}% intervals"
    return table(title, element("thead", element("tr", *columns)), element("tbody", *rows), kind="controls")


def _small(text: str) -> list[Child]:
    return [element("small", text)] if text else []


def costs(group: Group) -> ET.Element:
    """Seconds and bytes by phase with bars, a pair of columns for each run."""
    tables = [_serialised(run.phases) for run in group.runs]
    names = list(dict.fromkeys(name for table in tables for name in table))
    longest = max((phase.seconds for run in group.runs for phase in run.phases), default=0.0)
    largest = max((phase.bytes for run in group.runs for phase in run.phases), default=0)
    rows = []
    for name in names:
        found = [table.get(name) for table in tables]
        who = " or ".join(dict.fromkeys(phase.who for phase in found if phase is not None))
        cells = [element("th", name[0], element("small", who), scope="row")]
        for phase in found:
            cells += (
                [element("td", "–", class_="number")] * 2
                if phase is None
                else [
                    _bar_cell(seconds(phase.seconds), phase.seconds, longest, "bar"),
                    _bar_cell(size(phase.bytes) if phase.bytes else "–", phase.bytes, largest, "bar bytes"),
                ]
            )
        rows.append(element("tr", *cells))
    totals = [element("th", "All", scope="row")]
    for run in group.runs:
        sums = seconds(sum(phase.seconds for phase in run.phases)), size(sum(phase.bytes for phase in run.phases))
        totals += [element("td", text, class_="number") for text in sums]
    lines = [element("tr", element("th", "Phase", scope="col"))]
    if len(group.runs) > 1:
        over = [
            element("th", text, scope="colgroup", colspan="2", class_="over") for text in wording.run_labels(group.runs)
        ]
        lines = [element("tr", element("th", "Phase", scope="col", rowspan="2"), *over), element("tr")]
    lines[-1].extend(
        element("th", text, scope="col", class_="number") for _ in group.runs for text in ("Time", "Bytes")
    )
    parts = element("thead", *lines), element("tbody", *rows), element("tfoot", element("tr", *totals))
    title = f"Wall time and bytes between roles, for {counted(group.main.result.rows_scored, 'record')}"
    return table(title, *parts, kind="wide")


def _serialised(phases: Sequence[Phase]) -> dict[tuple[str, int], Phase]:
    """Phases by name and occurrence: a phase that happens twice keeps both lines."""
    found: dict[tuple[str, int], Phase] = {}
    for phase in phases:
        found[phase.name, sum(name == phase.name for name, _ in found)] = phase
    return found


def _bar_cell(text: str, value: float, most: float, kind: str) -> ET.Element:
    bar = [element("span", class_=kind, style=f"width: {100 * value / most:.1f}%")] if value > 0 and most > 0 else []
    return element("td", text, *bar, class_="number")


def parameters(group: Group) -> ET.Element:
    """What the engine derived from the program, a column for each run unless they agree."""
    values = [dict(run.parameters) for run in group.runs]
    one = all(run.parameters == group.runs[0].parameters for run in group.runs)
    heads = ("Value",) if one else wording.run_labels(group.runs)
    rows = [
        element(
            "tr", element("th", name, scope="row"), *(element("td", v.get(name, "–")) for v in values[: len(heads)])
        )
        for name in dict.fromkeys(name for found in values for name in found)
    ]
    head = element("tr", element("th", "Parameter", scope="col"), *(element("th", text, scope="col") for text in heads))
    title = "Derived from the program"
    return table(title, element("thead", head), element("tbody", *rows), kind="words")
