"""A suite's records as CSV, Parquet and Markdown: the same columns everywhere, one line a case.

A column is a field by its path (`case.engine`, `accuracy.auroc`); what is a list in a record is JSON in its cell, so
that a row holds all of its record and `from_row` gives it back. Columns under `derived.` are sums for convenience.
Text in the CSV file that a spreadsheet would take for a formula gets an apostrophe in front, which `from_row` removes.
"""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import typing
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

from securead import codec, files
from securead.bench.drawing import printable
from securead.bench.findings import Finding
from securead.bench.measured import by_role, once_bytes, once_seconds, peak, row_bytes, row_seconds, settings
from securead.bench.records import Accuracy, Case, Fidelity, Privacy, Provenance, Record
from securead.bench.suite_tables import (
    CASES,
    Column,
    by_heading,
    cells,
    missing_reasons,
    script_rows,
    script_title,
    shown_columns,
)
from securead.bench.wording import counted

Row = dict[str, str | int | float | bool | None]
# What begins a formula in some spreadsheet (OWASP, CSV injection); and the apostrophe, so that it can be removed again.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "'")

_NESTED: dict[str, type] = {
    "case": Case,
    "provenance": Provenance,
    "accuracy": Accuracy,
    "fidelity": Fidelity,
    "privacy": Privacy,
}


def _words(cls: type) -> list[str]:
    """The fields of a dataclass that hold text."""
    hints = typing.get_type_hints(cls).items()
    return [name for name, kind in hints if kind is str or typing.get_origin(kind) is Literal]


_WORDS = {f"{name}.{field}" for name, cls in _NESTED.items() for field in _words(cls)} | set(_words(Record))


def to_row(record: Record) -> Row:
    """A record as one flat line."""
    row: Row = {}
    for name, value in codec.to_plain(record).items():
        if name in _NESTED and isinstance(value, dict):
            row |= {f"{name}.{inner}": _cell(held) for inner, held in value.items()}
        elif name == "privacy":
            row |= dict.fromkeys(f"privacy.{field.name}" for field in fields(Privacy))
        else:
            row[name] = _cell(value)
    online, offline = by_role(record), by_role(record, offline=True)
    derived: Row = {
        "id": record.case.id,
        "seconds_per_row": row_seconds(record),
        "offline_seconds_per_row": sum(offline.values()) if offline else None,
        "client_seconds_per_row": online.get("client"),
        "server_seconds_per_row": online.get("server"),
        "key_holder_seconds_per_row": online.get("key holder"),
        "bytes_per_row": row_bytes(record),
        "seconds_once": once_seconds(record),
        "bytes_once": once_bytes(record),
        "peak_bytes": peak(record),
    }
    return row | {f"derived.{name}": _cell(value) for name, value in derived.items()}


def from_row(row: Mapping[str, str], *, where: str) -> Record:
    """The record of a line of the CSV file; raises `FixInputError` for anything else."""
    plain: dict[str, Any] = {}
    for name, text in row.items():
        outer, _, inner = name.partition(".")
        if outer == "derived":
            continue
        if name in _WORDS:
            value: Any = text.removeprefix("'")
        else:
            value = json.loads(text) if text else None
        if inner:
            plain.setdefault(outer, {})[inner] = value
        else:
            plain[name] = value
    if not any(plain.get("privacy", {}).values()):
        plain["privacy"] = None
    return codec.from_plain(Record, plain, where=where)


def _cell(value: Any) -> str | int | float | bool | None:
    if isinstance(value, list | dict):
        return json.dumps(value, separators=(",", ":"))
    # Half of a pair of surrogates is no character, and no file of ours can hold it.
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else value


def write_csv(records: Sequence[Record], path: Path) -> None:
    """One line a record; what is absent is an empty cell."""
    rows = [to_row(record) for record in records]
    lines = io.StringIO()
    writer = csv.DictWriter(lines, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows([{name: _harmless(value) for name, value in row.items()} for row in rows])
    files.write_atomic(path, lines.getvalue().encode())


def _harmless(value: str | int | float | bool | None) -> str | int | float | bool | None:
    """A cell that no spreadsheet evaluates; numbers stay numbers."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def read_csv(path: Path) -> tuple[Record, ...]:
    """The records of a file that `write_csv` wrote."""
    with path.open(encoding="utf-8", newline="") as lines:
        return tuple(from_row(row, where=f"{path.name}, line {at}") for at, row in enumerate(csv.DictReader(lines), 2))


def write_parquet(records: Sequence[Record], path: Path) -> bool:
    """The same columns with types; False, and no file, where pyarrow is not installed."""
    if importlib.util.find_spec("pyarrow") is None:
        path.unlink(missing_ok=True)  # an older run's would be taken for this one's
        return False
    import pyarrow
    from pyarrow import parquet

    rows = [to_row(record) for record in records]
    columns = {name: [_narrow(row[name]) for row in rows] for name in rows[0]}
    sink = io.BytesIO()
    parquet.write_table(pyarrow.table(columns), sink)
    files.write_atomic(path, sink.getvalue())
    return True


def _narrow(value: str | int | float | bool | None) -> str | int | float | bool | None:
    """A count that no column of 64 bits holds, as the nearest float."""
    return float(value) if isinstance(value, int) and abs(value) >= 1 << 63 else value


def markdown(
    title: str,
    said: Sequence[Finding],
    measured: Sequence[Record],
    failed: Sequence[Record],
    missing: Sequence[Record],
    command: str,
) -> str:
    """Failures first, findings, a table a data set, what was not measured."""
    lines = [f"# {_escaped(title)}", "", f"Again: `{_code(command)}`", ""]
    if failed:
        lines += [f"## {counted(len(failed), 'failure')}", ""]
        lines += [f"- **{_escaped(r.case.id)}**: {_escaped('; '.join(r.failures))}" for r in failed]
        lines += ["", "Nothing below counts these cases.", ""]
    lines += ["## Findings", ""]
    lines += [f"- {_escaped(one.sentence)} {_escaped(one.numbers)}".rstrip() for one in said] or ["Nothing to say."]
    for heading, own in by_heading(measured):
        if own[0].case.kind == "script":
            lines += ["", f"## {heading}", *_scripts(own)]
            continue
        columns = shown_columns(CASES, own)
        lines += ["", f"## {_escaped(heading)}", "", *_table(columns, own)]
    if missing:
        lines += ["", "## Not measured", ""]
        for reason, cases in missing_reasons(missing):
            lines.append(f"- {_escaped(reason)}: {_escaped(', '.join(cases))}")
    return "\n".join(lines) + "\n"


def _scripts(records: Sequence[Record]) -> list[str]:
    lines = list[str]()
    for record in records:
        lines += ["", f"### {_escaped(script_title(record))}", "", "| Figure | Value |", "| --- | ---: |"]
        lines += [f"| {_escaped(name)} | {_escaped(value)} |" for name, value in script_rows(record)]
    return lines


def _table(columns: Sequence[Column], records: Sequence[Record]) -> list[str]:
    heads = [_escaped(column.head) for column in columns]
    rule = ["---:" if column.is_number else "---" for column in columns]
    found = settings(records, every_link=True)
    rows = [
        [_escaped(f"{cell.text} ({cell.more})" if cell.more else cell.text) for cell in cells(columns, one)]
        for one in found
    ]
    return [f"| {' | '.join(line)} |" for line in (heads, rule, *rows)]


def _escaped(text: str) -> str:
    """Text that says in Markdown what it says: no markup, no line's end."""
    flat = " ".join(printable(text).split())
    return "".join(f"\\{sign}" if sign in "\\`*_[]<>|#~&!" else sign for sign in flat)


def _code(text: str) -> str:
    return " ".join(printable(text).replace("`", "'").split())
