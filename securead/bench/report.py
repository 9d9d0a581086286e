"""A run as one HTML page that needs nothing else: `write_report`.

Guarantees: the page names no external address and, by its own content policy, loads nothing; text that comes from data
is escaped (the page is a tree until it is written); it stays small whatever the number of rows.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import numpy as np

from securead import files
from securead.bench import wording
from securead.bench.drawing import Child, Curve, Pictures, element, roles_picture, stylesheet
from securead.bench.results import DetectorRun, Phase, Run
from securead.bench.wording import NORM, area, counted, number, percent, row_time, seconds, size
from securead.data.schema import Array
from securead.errors import FixInputError

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"


def write_report(run: Run, path: Path) -> None:
    """Write `run` as a self-contained page to `path`, all of it or nothing.

    Raises `FixInputError` for a run without detectors or with scores that are no numbers; `InstallExtraError` without
    matplotlib; `RetryLaterError` when the file cannot be written.
    """
    if not run.detectors:
        raise FixInputError("a report needs at least one detector's run", remedy="Score with a detector first.")
    page = "<!DOCTYPE html>\n" + ET.tostring(_page(run), encoding="unicode", method="html") + "\n"
    files.write_atomic(path, page.encode())


@dataclass(frozen=True, eq=False)
class _Group:
    """Runs of one fitted detector: what it finds is drawn once, what it costs stands side by side."""

    title: str
    anchor: str
    runs: tuple[DetectorRun, ...]

    @property
    def main(self) -> DetectorRun:
        """The run with most rows: the one that is drawn."""
        return max(self.runs, key=lambda run: len(run.float_scores))


def _groups(run: Run) -> tuple[_Group, ...]:
    found: list[list[DetectorRun]] = []
    for one in run.detectors:
        _check(one)
        same = next((runs for runs in found if _same_detector(runs[0], one)), None)
        if same is None:
            found.append([one])
        else:
            same.append(one)
    names = [runs[0].result.name for runs in found]
    titles = (
        name if names.count(name) == 1 else f"{name} · {names[: index + 1].count(name)}"
        for index, name in enumerate(names)
    )
    return tuple(
        _Group(title, f"detector-{serial}", tuple(runs))
        for serial, title, runs in zip(count(1), titles, found, strict=False)
    )


def _check(run: DetectorRun) -> None:
    for name in ("float_scores", "integer_scores", "encrypted_scores", "norm_scores"):
        scores: Array = getattr(run, name)
        if len(scores) == 0 or len(scores) != len(run.float_scores) or not np.isfinite(scores).all():
            raise FixInputError(
                f"{run.result.name}: {name} cannot be drawn", value=scores, remedy="Give one finite number a row."
            )


def _same_detector(one: DetectorRun, other: DetectorRun) -> bool:
    """Whether both runs score the same rows, or one of them the first of these, with the same fitted detector."""
    rows = min(len(one.float_scores), len(other.float_scores))
    same_scores = np.array_equal(one.float_scores[:rows], other.float_scores[:rows])
    return one.result.name == other.result.name and one.privacy == other.privacy and same_scores


def _page(run: Run) -> ET.Element:
    groups, pictures = _groups(run), Pictures()
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("link", rel="icon", href="data:,"),
        element("title", f"{run.dataset}: encrypted anomaly detection"),
        element("style", stylesheet()),
    )
    parts = [_header(run, groups)]
    parts += [_detector(group, pictures, cards=group is not groups[0]) for group in groups]
    parts += [_roles(run), _not_guaranteed(run)]
    footer = element("footer", element("p", f"securead {run.version}, {run.created}. This page is complete in itself."))
    return element("html", head, element("body", element("main", *parts), footer), lang="en")


def _header(run: Run, groups: Sequence[_Group]) -> ET.Element:
    records = sum(rows for _, rows in run.sites)
    held = counted(run.rows_held_out, "held-out record")
    if run.anomalies_held_out is not None:
        held += f" with {counted(run.anomalies_held_out, 'anomaly', 'anomalies')}"
    links = [(group.anchor, group.title) for group in groups]
    links += [("roles", "Who sees what"), ("limits", "What is not guaranteed")]
    lede: list[Child] = [element("strong", counted(len(run.sites), "site")), " trained together without pooling their "]
    lede += [element("strong", counted(records, "record")), ". Then ", element("strong", held)]
    lede += [" were scored by a service that saw ciphertexts only."]
    bars = [element("span", style=f"flex: {max(rows, 1)} 1 0") for _, rows in run.sites]
    names = [
        element(
            "li",
            element("b", name),
            f" {counted(rows, 'record')} ({percent(rows / max(records, 1))})",
        )
        for name, rows in run.sites
    ]
    parts = [
        element("p", "securead · encrypted anomaly detection", class_="eyebrow"),
        element("h1", run.dataset),
        element("p", *lede, class_="lede"),
        element("p", f"Data: {run.source}.", class_="quiet"),
        element("div", *bars, class_="sites", aria_hidden="true"),
        element("ul", *names, class_="site-names", aria_label="Sites and their training records"),
    ]
    if len(groups) > 1:
        parts.append(element("p", "In figures, for ", element("b", groups[0].title), ":", class_="cards-of"))
    parts.append(_cards(groups[0]))
    if len(groups) > 1:
        parts.append(_overview(groups))
    parts.append(element("nav", *(element("a", text, href=f"#{at}") for at, text in links), aria_label="On this page"))
    return element("header", *parts)


def _cards(group: _Group) -> ET.Element:
    main, result = group.main, group.main.result
    others = [(label, run.result) for label, run in _by_label(group) if run is not main]
    if result.epsilon is None:
        privacy = _card("Privacy in training", "none", "", "Training records are not protected.", alarm=True)
    else:
        delta = "" if result.delta is None else f"δ = {number(result.delta, 2)}. "
        privacy = _card("Privacy in training", f"ε = {number(result.epsilon)}", "", f"{delta}Smaller is stronger.")
    if result.auroc_encrypted is None:
        said = "At most, relative to the score in the clear. No labels, so no AUROC."
        quality = _card("Error of encryption", number(result.max_rel_error, 1), "", said)
    else:
        said = f"{area(result.auroc_float)} in the clear, {area(result.auroc_norm_baseline)} by the baseline {NORM}."
        quality = _card("AUROC, encrypted", area(result.auroc_encrypted), "", said)
    time = f"{seconds(result.server_seconds)} for {counted(result.rows_scored, 'row')}"
    time += "".join(f"; {label}: {row_time(other)}" for label, other in others)
    keys = f"keys {size(result.key_bytes)} once" if result.key_bytes else "no keys to send"
    traffic = f"{size(result.download_bytes_per_row)} down; {keys}"
    traffic += "".join(f"; {label}: {size(other.upload_bytes_per_row)} up" for label, other in others)
    cards = (
        privacy,
        quality,
        _card("Time on the server", row_time(result), "a row", f"{time}."),
        _card("Upload", size(result.upload_bytes_per_row), "a row", f"{traffic}."),
    )
    return element("dl", *cards, class_="cards")


def _card(name: str, value: str, unit: str, more: str, *, alarm: bool = False) -> ET.Element:
    shown = element("dd", value, *([element("small", unit)] if unit else []), class_="value")
    kind = "card alarm" if alarm else "card"
    return element("div", element("dt", name), shown, element("dd", more, class_="more"), class_=kind)


def _by_label(group: _Group) -> list[tuple[str, DetectorRun]]:
    return list(zip(wording.run_labels(group.runs), group.runs, strict=True))


def _overview(groups: Sequence[_Group]) -> ET.Element:
    heads = ("ε", "AUROC clear", "AUROC encrypted", f"AUROC {NORM}", "Server a row", "Upload a row")
    rows = []
    for title, run in ((group.title, run) for group in groups for run in group.runs):
        result = run.result
        cells = ["none" if result.epsilon is None else number(result.epsilon)]
        cells += [area(value) for value in (result.auroc_float, result.auroc_encrypted, result.auroc_norm_baseline)]
        cells += [row_time(result), size(result.upload_bytes_per_row)]
        name = element("th", title, element("small", f"{result.engine}, role {result.role}"), scope="row")
        rows.append(element("tr", name, *(element("td", cell, class_="number") for cell in cells)))
    columns = [element("th", "Detector", scope="col")]
    columns += [element("th", head, scope="col", class_="number") for head in heads]
    return _table("All runs", element("thead", element("tr", *columns)), element("tbody", *rows), kind="all-runs")


def _table(title: str, *parts: ET.Element, kind: str) -> ET.Element:
    """A table in a box that scrolls sideways where the screen is narrow, with the keyboard too."""
    table = element("table", element("caption", title), *parts, class_=kind)
    return element("div", table, class_="table", role="region", aria_label=title, tabindex="0")


def _detector(group: _Group, pictures: Pictures, *, cards: bool) -> ET.Element:
    run = group.main
    ran = "; ".join(f"{one.result.engine}, role {one.result.role}" for one in group.runs)
    rows = counted(len(run.float_scores), "record")
    parts = [
        element("h2", group.title, id=f"{group.anchor}-title"),
        element("p", f"{rows} scored under encryption ({ran}).", class_="quiet"),
    ]
    if cards:
        parts.append(_cards(group))
    if run.y is not None and wording.has_both_classes(run):
        said = wording.verdict(run.y, run.float_scores, run.norm_scores)
        sentences = element("p", element("strong", said.sentence), f" {said.numbers}"), element("p", said.more)
        parts.append(element("div", *sentences, class_=f"verdict {said.kind}"))
    shown = list(_pictures(run, pictures))
    parts += [
        element("h3", "What training gives away"),
        element("ul", *(element("li", sentence) for sentence in run.privacy), class_="privacy"),
        element("h3", "What it finds"),
        element("p", wording.threshold_words(run)),
        element("div", *shown, class_="pictures" if len(shown) > 1 else "pictures lone"),
        element("h3", "Does encryption change the answers?"),
    ]
    said_of: dict[str, list[str]] = {}
    for label, one in _by_label(group):
        said_of.setdefault(wording.error_words(one), []).append(label)
    for words, labels in said_of.items():
        who = ", ".join(labels)
        prefix = [element("b", f"{who[:1].upper()}{who[1:]}: ")] if len(said_of) > 1 else []
        parts.append(element("p", *prefix, words))
    parts += [element("h3", "What it costs"), _costs(group), element("h3", "Parameters"), _parameters(group)]
    return element("section", *parts, id=group.anchor, aria_labelledby=f"{group.anchor}-title")


def _pictures(run: DetectorRun, pictures: Pictures) -> Iterator[ET.Element]:
    scores = run.encrypted_scores
    about = "What the key holder decrypts; higher is more anomalous."
    if run.y is None or not wording.has_both_classes(run):
        text = f"Histogram of {len(scores):,} decrypted scores; threshold {number(run.threshold)}."
        picture = pictures.histogram([(scores, "normal")], run.threshold, "Scores", text)
        yield _figure("Scores", about, picture, [("normal", f"records ({len(scores):,})")])
        return
    from sklearn.metrics import precision_recall_curve, roc_curve

    y = run.y == 1
    series = [(scores[~y], "normal"), (scores[y], "anomaly")]
    key = [("normal", f"normal ({int(np.sum(~y)):,})"), ("anomaly", f"anomalies ({int(np.sum(y)):,})")]
    text = f"Histogram of the decrypted scores: {key[0][1]} and {key[1][1]}; threshold {number(run.threshold)}."
    yield _figure("Scores", about, pictures.histogram(series, run.threshold, "Scores", text), key)

    worlds = (
        ("float", "in the clear", run.float_scores, "-", 5.0),
        ("encrypted", "encrypted", scores, "--", 1.6),
        ("baseline", f"baseline {NORM}", run.norm_scores, "-", 1.6),
    )
    roc, recalled, areas, precisions = [], [], [], []
    for colour, words, world, style, width in worlds:
        false_rate, true_rate, _ = roc_curve(y, world)
        precision, recall, _ = precision_recall_curve(y, world)
        roc.append(Curve((false_rate, true_rate), colour, style, width))
        recalled.append(Curve((recall, precision), colour, style, width, steps=True))
        areas.append((colour, f"{words} {area(wording.auroc(y, world))}"))
        precisions.append((colour, f"{words} {area(wording.average_precision(y, world))}"))
    diagonal = np.array([0.0, 1.0])
    guess = ("level", "guessing")
    text = "ROC curves. Areas under them: " + "; ".join(word for _, word in areas) + "."
    picture = pictures.curves(roc, (diagonal, diagonal), ("false alarms among normal", "anomalies found"), "ROC", text)
    yield _figure("ROC", "Anomalies found against false alarms. Area under the curve:", picture, [*areas, guess])
    text = "Precision-recall curves. Average precision: " + "; ".join(word for _, word in precisions) + "."
    level = (diagonal, np.full(2, float(np.mean(y))))
    title = "Precision and recall"
    picture = pictures.curves(recalled, level, ("anomalies found", "alarms that are right"), title, text)
    yield _figure(title, "What an alarm is worth. Average precision:", picture, [*precisions, guess])


def _figure(title: str, text: str, picture: ET.Element, key: Sequence[tuple[str, str]]) -> ET.Element:
    entries = [element("li", element("i", class_=colour, aria_hidden="true"), word) for colour, word in key]
    return element(
        "figure",
        element("figcaption", element("b", title), text),
        picture,
        *([element("ul", *entries, class_="key")] if entries else []),
    )


def _costs(group: _Group) -> ET.Element:
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
    return _table(title, *parts, kind="wide")


def _serialised(phases: Sequence[Phase]) -> dict[tuple[str, int], Phase]:
    """Phases by name and occurrence: a phase that happens twice keeps both lines."""
    found: dict[tuple[str, int], Phase] = {}
    for phase in phases:
        found[phase.name, sum(name == phase.name for name, _ in found)] = phase
    return found


def _bar_cell(text: str, value: float, most: float, kind: str) -> ET.Element:
    bar = [element("span", class_=kind, style=f"width: {100 * value / most:.1f}%")] if value > 0 and most > 0 else []
    return element("td", text, *bar, class_="number")


def _parameters(group: _Group) -> ET.Element:
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
    return _table(title, element("thead", head), element("tbody", *rows), kind="words")


def _roles(run: Run) -> ET.Element:
    private = all(one.result.epsilon is not None for one in run.detectors)
    owner = "noised sums" if private else "sums without noise"
    text = f"Sites send {owner} to the model owner. A submitter sends encrypted records; a key holder decrypts scores."
    figure = _figure("Roles", "What goes where.", roles_picture(run.sites, owner, text), ())
    roles = {one.result.role for one in run.detectors}
    rows_ = (
        ("Site in training", "its own records", "others' records"),
        (
            "Coordinator, model owner",
            f"each site's {owner}; the weights",
            "a training record; a submitted record; a score",
        ),
        ("Submitter", "the records it submits", "the weights; others' records"),
        ("Key holder", "the scores; the secret key", "the weights, unless it solves for them (below)"),
    )
    body = [
        element("tr", element("th", who, scope="row"), element("td", sees), element("td", never))
        for who, sees, never in rows_
    ]
    head = element("tr", *(element("th", text, scope="col") for text in ("Role", "Sees", "Does not see")))
    table = _table("Who sees what", element("thead", head), element("tbody", *body), kind="words")
    meanings = {
        "same": "In role “same” the submitter is the key holder.",
        "split": "In role “split” the submitter has a public key only; someone else decrypts.",
    }
    said = " ".join(text for role, text in meanings.items() if role in roles)
    return element(
        "section",
        element("h2", "Who sees what", id="roles-title"),
        element("p", said, class_="quiet"),
        element("div", figure, table, class_="roles"),
        id="roles",
        aria_labelledby="roles-title",
    )


def _not_guaranteed(run: Run) -> ET.Element:
    items = [element("li", element("strong", head), f" {text}") for head, text in wording.not_guaranteed(run)]
    title = element("h2", "What is not guaranteed", id="limits-title")
    return element(
        "section", title, element("ul", *items), id="limits", class_="unsafe", aria_labelledby="limits-title"
    )
