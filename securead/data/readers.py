"""Tables from files: NumPy archives, CSV and Parquet, with an optional label column."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from securead.data.schema import Array
from securead.errors import FixInputError, InstallExtraError

PickLabel = Callable[[tuple[str, ...], bool], str | None]
"""From column names, and whether labels stand apart, to the label column."""
LABEL_NAMES = ("y", "label", "class", "is_fraud", "anomaly", "target")


@dataclass(frozen=True, eq=False)
class Table:
    """Records `X` float64 `(n, d)`, their column names, and labels `y` (1 = anomaly) where known."""

    X: Array
    columns: tuple[str, ...]
    y: Array | None = None
    source: str = ""


def read_table(path: Path | str, *, label: str | None = None, features: tuple[str, ...] = ()) -> Table:
    """Read `.npz` (arrays `X`, optional `y` and `columns`), `.csv` (with a header) or `.parquet`.

    `label` names the label column; without it a column called one of `LABEL_NAMES` (any case) is taken as labels,
    unless it is one of `features`. A `label` that is named is taken instead of an array `y`. An `.npz` without
    `columns` gets the names x0, x1, ...
    Raises `FixInputError` for an unknown kind, an empty table, a cell that is no number (naming it) or labels
    other than 0 and 1.
    """
    path = Path(path)
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise FixInputError(
            f"{path} is of no known kind", value=path.suffix, remedy="Give a .npz, .csv or .parquet file."
        )
    try:
        table = reader(path, lambda names, apart: _find_label(names, label, features, path, apart))
    except OSError as error:
        raise FixInputError(f"cannot read {path}: {error.strerror or error}", remedy="Check the path.") from error
    if table.X.ndim != 2 or not table.X.size:
        raise FixInputError(f"{path} holds no records", value=table.X.shape, remedy="Give at least one row.")
    return table


def _labels(values: Array, path: Path) -> Array:
    y = np.asarray(values).ravel()
    if not np.isin(y, (0, 1)).all():
        wrong = y[~np.isin(y, (0, 1))][0]
        raise FixInputError(f"{path}: a label is neither 0 nor 1", value=str(wrong), remedy="Use 1 for anomalies.")
    return y.astype(np.int8)


def _find_label(
    names: tuple[str, ...], label: str | None, features: tuple[str, ...], path: Path, apart: bool
) -> str | None:
    if apart and label in (None, "y"):
        return None
    if label is None:
        return next((name for name in names if name.lower() in LABEL_NAMES and name not in features), None)
    if label not in names:
        raise FixInputError(
            f"{path} has no label column {label!r}", remedy="Its columns: " + ", ".join(names[:60]) + "."
        )
    return label


def _split_label(X: Array, names: tuple[str, ...], pick: PickLabel, path: Path, y: Array | None = None) -> Table:
    label = pick(names, y is not None)
    if label is None:
        return Table(X, names, y, source=path.name)
    at = names.index(label)
    return Table(np.delete(X, at, axis=1), names[:at] + names[at + 1 :], _labels(X[:, at], path), source=path.name)


def _read_npz(path: Path, pick: PickLabel) -> Table:
    try:
        with np.load(path, allow_pickle=False) as archive:
            if "X" not in archive.files:
                raise FixInputError(f"{path} has no array X", value=archive.files, remedy="Save the records as X.")
            X = np.asarray(archive["X"], dtype=np.float64)
            y = _labels(archive["y"], path) if "y" in archive.files else None
            names = archive["columns"].tolist() if "columns" in archive.files else []
    except FixInputError:
        raise
    except (ValueError, EOFError, KeyError) as error:
        raise FixInputError(f"{path} is not a NumPy archive of numbers: {error}", remedy="Save it again.") from error
    except Exception as error:  # zipfile raises its own classes for a damaged archive
        if isinstance(error, OSError):
            raise
        raise FixInputError(f"{path} is damaged: {error}", remedy="Save it again.") from error
    if X.ndim != 2:
        raise FixInputError(f"{path}: X is not a table", value=X.shape, remedy="Save X with shape (rows, columns).")
    columns = tuple(map(str, names)) or tuple(f"x{i}" for i in range(X.shape[1]))
    if len(columns) != X.shape[1] or (y is not None and len(y) != len(X)):
        raise FixInputError(
            f"{path}: X, y and columns do not fit together",
            value=(X.shape, None if y is None else y.shape, len(columns)),
            remedy="Give one name a column and one label a row.",
        )
    return _split_label(X, columns, pick, path, y)


def _read_csv(path: Path, pick: PickLabel) -> Table:
    values: list[list[float]] = []
    with path.open(newline="", encoding="utf-8-sig", errors="replace") as file:
        rows = csv.reader(file)
        try:
            names = tuple(name.strip() for name in next(rows, []))
            for row in filter(None, rows):
                if len(row) != len(names):
                    raise FixInputError(
                        f"{path}, line {rows.line_num} has {len(row)} cells, the header has {len(names)}",
                        remedy="Check separators and quoting.",
                    )
                values.append([_number(cell, path, rows.line_num, n) for cell, n in zip(row, names, strict=True)])
        except csv.Error as error:  # a quote that never ends makes a cell without end
            raise FixInputError(f"{path}, line {rows.line_num}: {error}", remedy="Check the quoting.") from error
    return _split_label(np.array(values, dtype=np.float64).reshape(len(values), len(names)), names, pick, path)


def _number(cell: str, path: Path, line: int, name: str) -> float:
    try:
        return float(cell) if cell.strip() else float("nan")
    except ValueError:
        raise FixInputError(
            f"{path}, line {line}, column {name!r} is not a number",
            value=cell,
            remedy="Encode categories as numbers, and name the header in the first line.",
        ) from None


def _read_parquet(path: Path, pick: PickLabel) -> Table:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise InstallExtraError("reading Parquet needs pyarrow", remedy="Run: pip install 'securead[data]'.") from error
    try:
        table = parquet.read_table(path)
    except (pyarrow.ArrowException, ValueError) as error:
        raise FixInputError(f"{path} is not a Parquet table: {error}", remedy="The file is damaged.") from error
    names, columns = tuple(map(str, table.column_names)), []
    for name, column in zip(names, table.columns, strict=True):
        try:
            columns.append(np.asarray(column.to_numpy(), dtype=np.float64))
        except (pyarrow.ArrowException, ValueError, TypeError) as error:
            raise FixInputError(
                f"{path}, column {name!r} is not of numbers: {error}", remedy="Encode categories as numbers."
            ) from error
    X = np.column_stack(columns) if columns else np.empty((0, 0))
    return _split_label(X, names, pick, path)


_READERS: dict[str, Callable[[Path, PickLabel], Table]] = {
    ".npz": _read_npz,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}
