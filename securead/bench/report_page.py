"""A benchmark suite's records as a page that needs nothing else, and as tables for programs: `write_suite_report`.

Guarantees of the page: it names no external address and, by its own content policy, loads nothing and runs one script,
named by its digest, that sorts tables; text that comes from data is escaped (the page is a tree until it is written);
what failed stands first and enters no figure, table or finding.
"""

from __future__ import annotations

import base64
import hashlib
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib import resources
from pathlib import Path
from statistics import median

from securead import files
from securead.bench import exports, pareto, scaling, suite_bars, suite_tables, threads
from securead.bench.drawing import Child, Pictures, element, stylesheet
from securead.bench.findings import Finding, findings
from securead.bench.measured import (
    ALONE,
    Setting,
    Sorted,
    again,
    datasets,
    engine_name,
    engines,
    is_protected,
    joined,
    settings,
    sorted_out,
)
from securead.bench.records import Record
from securead.bench.scaling import seconds_words
from securead.bench.signs import Sign, shell, signs
from securead.bench.wording import area, counted
from securead.errors import FixInputError

_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'; base-uri 'none'; "
    "form-action 'none'"
)
_NOTES = 60
# What stands in one table.
_TABLES = {"Scoring": ("score", "peer"), "Training": ("train",), "Mechanisms": ("mechanism",)}
_READING = (
    "Times are processor time on the machine above, of the run with the fewest threads, medians of repeats: compare "
    "ratios within one run, not times between machines.",
    "A row's cost counts all roles together. Keys, one-time material and work that can be done before a row is there "
    "stand apart.",
    "Accuracy is on held-out records of public or generated data. It says nothing about other data: run the suite on "
    "yours.",
    "Noise for studies is drawn from a seed so that runs agree exactly. A model trained so is not private: ε is what "
    "unpredictable noise of the same size would promise.",
    "An engine hides records from the server under the assumptions of its own protocol; a lower cost under weaker "
    "assumptions is no win. Two parties that collude undo sharing.",
    "Links are predicted from measured bytes and rounds; where a run with that delay was made, it stands beside.",
)


def write_suite_report(records: Sequence[Record], folder: Path, *, command: str) -> Path:
    """Write report.html, report.md, records.csv and, where pyarrow is installed, records.parquet to `folder`.

    `command` is the shell command that measures the suite again. Returns the page's path. Raises `FixInputError`
    without records; `InstallExtraError` without matplotlib; `RetryLaterError` when a file cannot be written.
    """
    if not records:
        raise FixInputError("a report needs at least one record", remedy="Run a suite first.")
    sorted_ = sorted_out(records)
    said = findings(sorted_.measured)
    exports.write_csv(records, folder / "records.csv")
    stored = exports.write_parquet(records, folder / "records.parquet")
    title = _title(records)
    text = exports.markdown(title, said, sorted_.measured, sorted_.failed, sorted_.missing, command)
    files.write_atomic(folder / "report.md", text.encode())
    page = _page(title, records, sorted_, said, command, stored)
    path = folder / "report.html"
    files.write_atomic(
        path, ("<!DOCTYPE html>\n" + ET.tostring(page, encoding="unicode", method="html") + "\n").encode()
    )
    return path


def _title(records: Sequence[Record]) -> str:
    names = list(dict.fromkeys(record.case.suite for record in records if record.case.suite))
    return f"Benchmarks: {joined(names, most=5)}" if names else "Benchmarks"


def _page(
    title: str, records: Sequence[Record], sorted_: Sorted, said: Sequence[Finding], command: str, stored: bool
) -> ET.Element:
    script = resources.files("securead.bench").joinpath("suite.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    styles = stylesheet() + resources.files("securead.bench").joinpath("suite.css").read_text(encoding="utf-8")
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY.format(digest=digest)),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("link", rel="icon", href="data:,"),
        element("title", title),
        element("style", styles),
    )
    pictures, found = Pictures(), settings(sorted_.measured)
    names = engines(sorted_.measured)
    peers = [engine_name(record.case) for record in sorted_.measured if record.case.peer]
    signed = signs(names, hollow=peers)
    sections: list[tuple[str, str, list[ET.Element]]] = []
    if said:
        sections.append(("findings", "Findings", _findings(said)))
    for at, (heading, own) in enumerate(suite_tables.by_heading(sorted_.measured), start=1):
        sections.append((f"data-{at}", heading, _dataset(heading, own, signed, pictures, command)))
    gain = threads.figure(sorted_.measured, signed, pictures, command)
    if plots := [*scaling.figures(found, signed, pictures, command), *([] if gain is None else [gain])]:
        words = "Straight lines on logarithmic axes are powers; the number beside a line is the power."
        sections.append(
            ("scaling", "How cost grows", [element("p", words, class_="quiet"), element("div", *plots, class_="plots")])
        )
    if sorted_.missing:
        sections.append(("missing", "Not measured, and why", _missing(sorted_.missing)))
    sections.append(("reading", "How to read this", _reading(records, stored)))
    links = [element("a", heading, href=f"#{anchor}") for anchor, heading, _ in sections]
    parts = [_header(title, records, sorted_, found, command)]
    if sorted_.failed:
        parts.append(_failures(sorted_.failed, command))
    parts.append(element("nav", *links, aria_label="On this page"))
    parts += [
        element(
            "section",
            element("h2", heading, id=f"{anchor}-title"),
            *content,
            id=anchor,
            aria_labelledby=f"{anchor}-title",
        )
        for anchor, heading, content in sections
    ]
    newest = _moment(max(record.provenance.created for record in records))
    footer = element("footer", element("p", f"securead, {newest}. This page is complete in itself."))
    body = element("body", element("main", *parts), footer, element("script", script))
    return element("html", head, body, lang="en")


def _moment(created: str) -> str:
    """ "2026-01-01 00:00:00 UTC" of ISO 8601; anything else as it is."""
    plain = created.removesuffix("Z").removesuffix("+00:00")
    return f"{plain.replace('T', ' ')} UTC" if plain != created else created


def _header(
    title: str, records: Sequence[Record], sorted_: Sorted, found: Sequence[Setting], command: str
) -> ET.Element:
    machines = joined(sorted({record.provenance.machine for record in records}), most=3)
    lede: list[Child] = [element("strong", counted(len(sorted_.measured), "case")), " measured"]
    if names := engines(sorted_.measured):
        sets = datasets(sorted_.measured)
        lede += [" with ", element("strong", joined(names)), " on ", element("strong", joined(sets)), "."]
    else:
        lede += ["."]
    if sorted_.failed:
        lede += [" ", element("strong", f"{counted(len(sorted_.failed), 'case')} failed", class_="bad"), "."]
    parts = [
        element("p", "securead · benchmarks", class_="eyebrow"),
        element("h1", title),
        element("p", *lede, class_="lede"),
        element("p", f"Machine: {machines}. Again: ", shell(command), class_="quiet"),
        element("dl", *_cards(sorted_, found), class_="cards"),
    ]
    return element("header", *parts)


def _cards(sorted_: Sorted, found: Sequence[Setting]) -> Iterator[ET.Element]:
    total = len(sorted_.measured) + len(sorted_.failed) + len(sorted_.missing)
    absent = f"{len(sorted_.missing)} not measured here" if sorted_.missing else "Nothing left out"
    yield _card("Cases measured", f"{len(sorted_.measured):,}", f"of {total:,}", f"{absent}.")
    failed = len(sorted_.failed)
    text = "They stand first and count nowhere." if failed else "The suite's own checks found nothing wrong."
    yield _card("Failures", f"{failed:,}", "", text, alarm=failed > 0)
    hidden = [one for one in found if one.case.kind == "score" and is_protected(one.case)]
    priced = [(one.seconds, one) for one in hidden if one.seconds is not None]
    if priced:
        quickest, one = min(priced, key=lambda item: item[0])
        more = f"{engine_name(one.case)}, {one.case.detector} on {one.case.dataset}; median of all {len(priced)}: "
        middle = seconds_words(median(value for value, _ in priced))
        yield _card("Quickest hidden row", seconds_words(quickest), "", f"{more}{middle}.")
    losses = [(s.median, one) for one in hidden if (s := one.lead("float")) is not None]
    if losses:
        worst, one = min(losses, key=lambda item: item[0])
        where = f"{engine_name(one.case)}, {one.case.detector} on {one.case.dataset}"
        yield _card("Most that hiding loses", area(max(-worst, 0.0)), "AUROC", f"To the model in the clear: {where}.")


def _card(name: str, value: str, unit: str, more: str, *, alarm: bool = False) -> ET.Element:
    shown = element("dd", value, *([element("small", unit)] if unit else []), class_="value")
    kind = "card alarm" if alarm else "card"
    return element("div", element("dt", name), shown, element("dd", more, class_="more"), class_=kind)


def _failures(failed: Sequence[Record], command: str) -> ET.Element:
    items = []
    for record in failed:
        case = record.case
        what = f"{engine_name(case)} {case.detector} on {case.dataset}"
        words = [element("p", text) for text in record.failures]
        rerun = element("p", shell(again(command, [case])), class_="again")
        items.append(element("li", element("strong", what), f" ({case.id})", *words, rerun))
    heading = element("h2", f"{counted(len(failed), 'case')} failed", id="failures-title")
    lead_in = element("p", "Their numbers are in no figure, table or finding below.")
    return element(
        "section",
        heading,
        lead_in,
        element("ul", *items),
        id="failures",
        class_="unsafe failures",
        aria_labelledby="failures-title",
    )


def _findings(said: Sequence[Finding]) -> list[ET.Element]:
    legend: list[Child] = [element("b", "✓"), " holds; ", element("b", "✗"), " speaks against us; "]
    legend += [element("b", "·"), " for information. Every sentence is computed from the records."]
    parts = [element("p", *legend, class_="legend")]
    topics = []
    for topic in dict.fromkeys(one.topic for one in said):
        items = []
        for one in said:
            if one.topic == topic:
                more = [element("p", one.numbers, class_="more")] if one.numbers else []
                items.append(element("li", element("div", element("p", one.sentence), *more), class_=one.kind))
        topics.append(element("div", element("h3", topic), element("ul", *items, class_="findings"), class_="topic"))
    return [*parts, element("div", *topics, class_="topics")]


def _dataset(
    dataset: str, own: Sequence[Record], signed: dict[str, Sign], pictures: Pictures, command: str
) -> list[ET.Element]:
    found = settings(own)
    scored = [one for one in found if one.case.kind in ("score", "peer")]
    trained = [one for one in found if one.case.kind == "train"]
    figures = [
        pareto.cost_figure(scored, "time", signed, pictures, command),
        pareto.cost_figure(scored, "bytes", signed, pictures, command),
        suite_bars.time_figure(scored, pictures, command),
        suite_bars.bytes_figure(scored, pictures, command),
        pareto.epsilon_figure(trained, pictures, command) or pareto.epsilon_figure(scored, pictures, command),
    ]
    plots = [plot for plot in figures if plot is not None]
    shape = {(record.rows, record.columns) for record in own if record.rows}
    rows, columns = {rows for rows, _ in shape}, {columns for _, columns in shape if columns}
    words = [f"{min(rows):,}" + (f" to {max(rows):,}" if len(rows) > 1 else "") + " rows scored"] if rows else []
    words += [f"{joined([str(c) for c in sorted(columns)])} columns"] if columns else []
    parts = [element("p", f"{', '.join(words)}.", class_="quiet")] if words else []
    ranked = any(record.accuracy.auroc is not None for record in own)
    if not ranked and own[0].case.kind not in ALONE:
        parts.append(
            element("p", "No AUROC here: nothing says how well scores tell anomalies apart.", class_="verdict even")
        )
    if plots:
        parts.append(element("div", *plots, class_="plots"))
    if own[0].case.kind != "script":
        parts.append(element("p", "A click on a head sorts. Repeats with other seeds share a line.", class_="small"))
    parts += [suite_tables.script_table(record) for record in own if record.case.kind == "script"]
    for what, kinds in _TABLES.items():
        if some := [record for record in own if record.case.kind in kinds]:
            title = f"{what}, {counted(len(some), 'case')}"
            shown = suite_tables.shown_columns(suite_tables.CASES, some)
            shown[0] = replace(shown[0], head="Mechanism" if what == "Mechanisms" else shown[0].head)
            parts.append(suite_tables.sortable(title, shown, some))
    parts.append(element("p", "Again: ", shell(again(command, [r.case for r in own])), class_="again"))
    return parts


def _missing(missing: Sequence[Record]) -> list[ET.Element]:
    items: list[ET.Element] = []
    for reason, cases in suite_tables.missing_reasons(missing):
        items += [element("dt", reason), element("dd", joined(cases, most=12))]
    words = "There are no numbers from elsewhere: what could not be measured here has none."
    return [element("p", words, class_="quiet"), element("dl", *items, class_="absent")]


def _reading(records: Sequence[Record], stored: bool) -> list[ET.Element]:
    places = [record.provenance for record in records]
    versions = dict(pair for place in places for pair in place.versions)
    facts = (
        ("Revision", joined(sorted({place.revision for place in places}))),
        ("Machine", joined(sorted({f"{place.machine}, {counted(place.cores, 'core')}" for place in places}))),
        ("Measured", " to ".join(sorted({_moment(created(p.created for p in places)) for created in (min, max)}))),
        ("Versions", ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))),
        (
            "Files",
            "records.csv, report.md" + (", records.parquet" if stored else "; no Parquet: pyarrow is not installed"),
        ),
    )
    items = [part for name, text in facts for part in (element("dt", name), element("dd", text or "–"))]
    notes = list(dict.fromkeys(note for record in records for note in record.notes))
    parts = [element("ul", *(element("li", text) for text in _READING), class_="reading")]
    if notes:
        listed = element("ul", *(element("li", note) for note in notes[:_NOTES]), class_="reading small")
        parts.append(element("details", element("summary", counted(len(notes), "note") + " of the cases"), listed))
    return [*parts, element("h3", "Where this comes from"), element("dl", *items, class_="facts")]
