"""Series of readings from files: CSV with a time column, NumPy archives, Parquet; SKAB's files among them."""

from __future__ import annotations

import csv
import datetime
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from securead.data.readers import LABEL_NAMES, read_table
from securead.data.schema import Array, Schema
from securead.data.windows import Window
from securead.errors import FixInputError, SecureadError

TIME_NAMES = ("time", "timestamp", "datetime")


@dataclass(frozen=True, eq=False)
class Readings:
    """One series: values `X` `(n, channels)` in the window's order, NaN where missing; times in seconds, labels.

    `rows` `(n,)`: where the readings stand in their file, counted from 0.
    """

    X: Array
    times: Array | None = None
    y: Array | None = None
    series: str = ""
    rows: Array | None = None


def read_readings(
    path: Path | str,
    window: Window,
    *,
    time: str | None = None,
    series: str | None = None,
    label: str | None = None,
    ignore: tuple[str, ...] = (),
    reorder: bool = True,
) -> tuple[Readings, ...]:
    """Read the series of a `.csv` (commas or semicolons), `.npz` or `.parquet` file, in the order they begin.

    `time` names the column of times: seconds, or dates and times as in ISO 8601 (without a zone they count as UTC);
    without it one called as in `TIME_NAMES` is taken. `series` names a column that tells several series apart, each a
    gateway or a run. Columns of labels and those in `ignore` are left out; any other that is no channel is refused. A
    `.npz` holds `X`, `columns`, and arrays by these names. SKAB's own files read with `label="anomaly",
    ignore=("changepoint",)`; raises `FixInputError` for what does not fit.
    """
    path = Path(path)
    columns = _text_columns(path) if path.suffix.lower() == ".csv" else _number_columns(path, (time, series))
    names = tuple(column.name for column in window.channels)
    when = _pick(columns, time, TIME_NAMES, names, path)
    marks = _pick(columns, label, LABEL_NAMES, names, path)
    if series is not None and series not in columns:
        raise FixInputError(f"{path} has no column {series!r}", remedy="Its columns: " + ", ".join(columns)[:300] + ".")
    rest = tuple(name for name in columns if name not in (when, marks, series, *ignore))
    try:
        order = Schema(window.channels).order(rest, reorder=reorder)
    except SecureadError as error:
        error.where = error.where or str(path)
        raise
    X = np.column_stack([_numbers(columns[rest[at]], rest[at], path) for at in order])
    times = None if when is None else _times(columns[when], when, path)
    y = None if marks is None else _numbers(columns[marks], marks, path)
    if y is not None and not np.isin(y, (0, 1)).all():
        raise FixInputError(f"{path}: a label is neither 0 nor 1", remedy="Use 1 for anomalies.")
    if not len(X):
        raise FixInputError(f"{path} holds no readings", remedy="Give at least one.")
    groups = [""] * len(X) if series is None else [_name(value) for value in columns[series]]
    found = []
    for name in dict.fromkeys(groups):
        rows = np.array([at for at, group in enumerate(groups) if group == name])
        found.append(
            Readings(
                X[rows],
                None if times is None else times[rows],
                None if y is None else y[rows].astype(np.int8),
                name,
                rows,
            )
        )
    return tuple(found)


Columns = dict[str, list[str] | Array]


def _text_columns(path: Path) -> Columns:
    try:
        with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
            head = file.readline()
            file.seek(0)
            lines = csv.reader(file, delimiter=";" if ";" in head and "," not in head else ",")
            names = [name.strip() for name in next(lines, [])]
            cells: list[list[str]] = [[] for _ in names]
            for line in filter(None, lines):
                if len(line) != len(names):
                    raise FixInputError(
                        f"{path}, line {lines.line_num} has {len(line)} cells, the header has {len(names)}",
                        remedy="Check separators and quoting.",
                    )
                for column, cell in zip(cells, line, strict=True):
                    column.append(cell.strip())
    except OSError as error:
        raise FixInputError(f"cannot read {path}: {error.strerror}", remedy="Check the path.") from error
    except csv.Error as error:
        raise FixInputError(f"{path} is no CSV: {error}", remedy="Check the quoting.") from error
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise FixInputError(f"{path} has the column {twice!r} twice", remedy="Give each column its own name.")
    return dict(zip(names, cells, strict=True))


def _number_columns(path: Path, extra: tuple[str | None, ...]) -> Columns:
    table = read_table(path)
    columns: Columns = {name: table.X[:, at] for at, name in enumerate(table.columns)}
    if table.y is not None:
        columns.setdefault("y", table.y)
    if path.suffix.lower() == ".npz":
        with np.load(path, allow_pickle=False) as archive:
            for name in (*extra, *TIME_NAMES):
                if name is not None and name in archive.files and name not in columns:
                    if archive[name].shape != (len(table.X),):
                        raise FixInputError(f"{path}: {name!r} has not one value a reading", value=archive[name].shape)
                    columns[name] = archive[name]
    return columns


def _pick(
    columns: Columns, asked: str | None, usual: tuple[str, ...], channels: tuple[str, ...], path: Path
) -> str | None:
    if asked is None:
        return next((name for name in columns if name.lower() in usual and name not in channels), None)
    if asked not in columns:
        raise FixInputError(f"{path} has no column {asked!r}", remedy="Its columns: " + ", ".join(columns)[:300] + ".")
    return asked


def _numbers(cells: list[str] | Array, name: str, path: Path) -> Array:
    if isinstance(cells, np.ndarray):
        return cells.astype(np.float64)
    try:
        return np.array([float(cell) if cell else np.nan for cell in cells])
    except ValueError:
        wrong = next(at for at, cell in enumerate(cells) if cell and not _is_number(cell))
        raise FixInputError(
            f"{path}, reading {wrong}, column {name!r} is not a number", value=cells[wrong], remedy="Correct the cell."
        ) from None


def _times(cells: list[str] | Array, name: str, path: Path) -> Array:
    if isinstance(cells, np.ndarray) or all(map(_is_number, cells)):
        return _numbers(cells, name, path)
    seconds = np.empty(len(cells))
    for at, cell in enumerate(cells):
        try:
            moment = datetime.datetime.fromisoformat(cell)
        except ValueError:
            raise FixInputError(
                f"{path}, reading {at}, column {name!r} is no time",
                value=cell,
                remedy="Give seconds, or dates and times as in ISO 8601.",
            ) from None
        seconds[at] = (moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)).timestamp()
    return seconds


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _name(value: object) -> str:
    number = isinstance(value, float | np.floating) and float(value).is_integer()
    return str(int(value)) if number else str(value)  # type: ignore[call-overload]
