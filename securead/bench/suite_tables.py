"""The sortable tables of a suite's page, and their columns, which its Markdown shows too.

A cell is shown in the unit that fits and sorted by its number. Columns that no record of a table fills are left out.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from securead.bench import exhibits
from securead.bench.drawing import Child, element
from securead.bench.measured import (
    ALONE,
    Setting,
    by_role,
    engine_name,
    is_protected,
    once_bytes,
    once_seconds,
    parameter_words,
    peak,
    row_bytes,
    row_seconds,
    settings,
)
from securead.bench.records import Record
from securead.bench.scaling import seconds_words
from securead.bench.wording import area, correlation, counted, number, percent, size

_NONE = "–"
# A script's figures beyond so many are folded.
_OPEN = 40
# A correlation that is as near to 1 is 1, computed in floats.
_ROUNDING = 1e-13


@dataclass(frozen=True)
class Cell:
    """What is shown, what it is sorted by, and a second line."""

    text: str
    value: float | str | None
    more: str = ""


@dataclass(frozen=True)
class Column:
    """A head and how a record fills it; `value` None is a dash, and such records are sorted last."""

    head: str
    value: Callable[[Record], float | str | None]
    words: Callable[[float], str] | None = None
    more: Callable[[Record], str] | None = None
    spread: bool = False
    absent: str = _NONE

    @property
    def is_number(self) -> bool:
        return self.words is not None

    def cell(self, one: Setting) -> Cell:
        """The column's cell of a setting: the median over its seeds and, where they differ, from what to what."""
        first = one.records[0]
        more = self.more(first) if self.more else ""
        if self.words is None:
            text = str(self.value(first) or "")
            return Cell(text, text, more) if text else Cell(self.absent, None, more)
        spread = one.spread(self._number)
        if spread is None:
            return Cell(self.absent, None, more)
        low, high = self.words(spread.low), self.words(spread.high)
        return Cell(
            self.words(spread.median), spread.median, f"{low} to {high}" if self.spread and low != high else more
        )

    def _number(self, record: Record) -> float | None:
        value = self.value(record)
        return None if value is None or isinstance(value, str) else float(value)


def _conditions(record: Record) -> str:
    case = record.case
    parts = [f"{parameter_words(name)} {value}" for name, value in case.parameters]
    parts += [f"{case.sites} sites", case.executor, f"{case.aggregation} sums"] if case.kind == "train" else []
    parts += [f"role {case.role}"] if case.role != "none" else []
    parts += [f"batch {case.batch:,}"] if case.batch else []
    parts += [f"{case.rows:,} rows"] if case.rows else []
    return ", ".join(parts)


def _correlation(value: float) -> str:
    return "1" if abs(1 - value) < _ROUNDING else correlation(value)


def _moved(record: Record) -> float | None:
    """The AUROC of the scores that came out above that of the integer program."""
    own, exact = record.fidelity.auroc_of_scores, record.accuracy.auroc
    return None if own is None or exact is None or not is_protected(record.case) else own - exact


def _epsilon(record: Record) -> float | None:
    return record.case.epsilon if record.privacy is None or record.privacy.epsilon is None else record.privacy.epsilon


def _offline(record: Record) -> float | None:
    found = by_role(record, offline=True)
    return sum(found.values()) if found else None


def _all_cores(record: Record) -> float | None:
    """Wall time with the most threads, where a record has several numbers of them."""
    if len({timing.threads for timing in record.timings if not timing.offline}) < 2:
        return None
    return sum(by_role(record, all_threads=True).values())


def _role(name: str) -> Callable[[Record], float | None]:
    return lambda record: by_role(record).get(name)


def _rest(record: Record) -> float | None:
    found = [value for name, value in by_role(record).items() if name not in ("client", "server", "key holder")]
    return sum(found) if found else None


def _hides(record: Record) -> str:
    if record.case.kind == "score" or record.case.kind == "peer":
        return "" if is_protected(record.case) else "hides nothing"
    return record.case.kind


CASES: tuple[Column, ...] = (
    Column("Detector", lambda r: r.case.detector, more=_conditions),
    Column("Engine", lambda r: engine_name(r.case), more=_hides),
    Column("ε", _epsilon, number, absent="none"),
    Column("Link", lambda r: r.case.link),
    Column("Threads", lambda r: "all cores" if r.case.threads == 0 else str(r.case.threads)),
    Column("AUROC", lambda r: r.accuracy.auroc, area, spread=True),
    Column("AUROC float", lambda r: r.accuracy.auroc_float, area),
    Column("AUROC |z|²", lambda r: r.accuracy.auroc_norm, area),
    Column("AUROC untrained", lambda r: r.accuracy.auroc_untrained, area),
    Column("AUROC no data", lambda r: r.accuracy.auroc_no_data, area),
    Column("AUROC best site", lambda r: r.accuracy.auroc_best_site, area),
    Column("AUROC central", lambda r: r.accuracy.auroc_central, area),
    Column("Average precision", lambda r: r.accuracy.average_precision, area),
    Column("Precision at threshold", lambda r: r.accuracy.precision, percent),
    Column("False alarms", lambda r: r.accuracy.false_alarms, percent),
    Column("AUROC, moved", _moved, lambda v: "0" if v == 0 else f"{v:+.1e}"),
    Column("Verdicts, moved", lambda r: r.fidelity.decisions_changed, lambda v: f"{v:,.0f}"),
    Column("Error to integer", lambda r: r.fidelity.max_error_to_integer, lambda v: number(v, 2)),
    Column("Rank correlation", lambda r: r.fidelity.rank_correlation_to_integer, _correlation),
    Column("Time a row", row_seconds, seconds_words),
    Column("Client", _role("client"), seconds_words),
    Column("Server", _role("server"), seconds_words),
    Column("Key holder", _role("key holder"), seconds_words),
    Column("Other roles", _rest, seconds_words),
    Column("Offline", _offline, seconds_words),
    Column("All cores, wall", _all_cores, seconds_words),
    Column("Once", once_seconds, seconds_words),
    Column("Bytes a row", row_bytes, size),
    Column("Keys, once", once_bytes, size),
    Column("Rounds", lambda r: r.rounds, number),
    Column("Request, predicted", lambda r: r.predicted_seconds, seconds_words),
    Column("Request, delayed", lambda r: r.delayed_seconds, seconds_words),
    Column("Peak memory", peak, size),
    Column("Security bits", lambda r: r.security_bits, number),
    Column("Extraction", lambda r: r.extraction_rows, lambda v: f"{v:,.0f} rows"),
    Column("Rows", lambda r: r.rows or None, lambda v: f"{v:,.0f}"),
)


def shown_columns(columns: Sequence[Column], records: Sequence[Record]) -> list[Column]:
    """Columns that some record fills, without those of which there is nothing to compare (one link, one seed)."""
    kept = []
    for at, column in enumerate(columns):
        values = {column.value(record) for record in records}
        dull = column.head in ("Link", "Threads") and len(values) == 1
        if at == 0 or (values - {None, ""} and not dull):
            kept.append(column)
    return kept


def cells(columns: Sequence[Column], one: Setting) -> list[Cell]:
    """A setting's line of a table."""
    return [column.cell(one) for column in columns]


def by_heading(records: Sequence[Record]) -> list[tuple[str, list[Record]]]:
    """Records under a heading each: their data set's name, or that they are mechanisms or scripts."""
    found: dict[tuple[bool, str], list[Record]] = {}
    for record in records:
        alone = ALONE.get(record.case.kind)
        found.setdefault((alone is not None, alone or record.case.dataset), []).append(record)
    return [(name, own) for (alone, name), own in sorted(found.items(), key=lambda item: item[0][0])]


def sortable(title: str, columns: Sequence[Column], records: Sequence[Record]) -> ET.Element:
    """A table whose heads the page's script turns into buttons; without the script it is a table in suite's order."""
    heads = [
        element("th", column.head, scope="col", **({"class_": "number"} if column.is_number else {}))
        for column in columns
    ]
    rows = []
    for one in settings(records, every_link=True):
        found = cells(columns, one)
        parts = [
            _cell(cell, column, first=at == 0) for at, (cell, column) in enumerate(zip(found, columns, strict=True))
        ]
        rows.append(element("tr", *parts))
    body = element("tbody", *rows)
    return exhibits.table(title, element("thead", element("tr", *heads)), body, kind="sortable")


def _cell(cell: Cell, column: Column, *, first: bool) -> ET.Element:
    attributes = {"class_": "number"} if column.is_number else {}
    if cell.value is not None:
        attributes["data_value"] = repr(cell.value) if column.is_number else str(cell.value)
    children: list[Child] = [cell.text, *([element("small", cell.more)] if cell.more else [])]
    if first:
        return element("th", *children, scope="row", **attributes)
    return element("td", *children, **attributes)


def script_title(record: Record) -> str:
    """A script with its options, and how much it said."""
    options = "".join(f", {parameter_words(name)} {value}" for name, value in record.case.parameters)
    return f"{record.case.detector}{options}: {counted(len(record.figures), 'figure')}"


def script_rows(record: Record) -> list[tuple[str, str]]:
    """A script's figures, as it named them, with as many digits as one compares."""
    return [(figure.name, number(figure.value, 4)) for figure in record.figures]


def script_table(record: Record) -> ET.Element:
    """A script's figures; what is many can be opened."""
    heads = element("tr", element("th", "Figure", scope="col"), element("th", "Value", scope="col", class_="number"))
    rows = [
        element("tr", element("th", name, scope="row"), element("td", value, class_="number", data_value=value))
        for name, value in script_rows(record)
    ]
    title = script_title(record)
    made = exhibits.table(title, element("thead", heads), element("tbody", *rows), kind="words")
    return made if len(rows) <= _OPEN else element("details", element("summary", title), made)


def missing_reasons(missing: Sequence[Record]) -> list[tuple[str, list[str]]]:
    """What was not measured, by reason: each with names of cases, what is missing most often first."""
    found: dict[str, list[str]] = {}
    for record in missing:
        case = record.case
        name = f"{engine_name(case)} {case.detector} on {case.dataset}"
        own = found.setdefault(record.missing, [])
        if name not in own:
            own.append(name)
    return sorted(found.items(), key=lambda item: -len(item[1]))
