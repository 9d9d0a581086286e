"""What a client's work yields: scores with what they cost, and the summary that a command prints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from securead.client.messages import existing_file, fresh_file
from securead.client.positions import Positions
from securead.data.schema import Array
from securead.errors import FixInputError

CSV_HEADER = b"row,score,anomaly\n"
WINDOWS_HEADER = b"row,score,anomaly,reading,time\n"
"""Of windows of readings: also the row of each one's last reading in the file that was encrypted, and its time."""


@dataclass(frozen=True)
class Timings:
    """Wall seconds by phase; `server` is the CPU seconds that the service reports for evaluation."""

    encrypt: float = 0.0
    submit: float = 0.0
    decrypt: float = 0.0
    server: float = 0.0


@dataclass(frozen=True, eq=False)
class Scores:
    """Scores of `n` records, in their order.

    `scores`: float64 `(n,)`, higher is more anomalous. `is_anomaly`: booleans `(n,)`, scores above the model's
    threshold. `clipped`: by column, how many values lay outside the schema's bounds and were moved to them (columns
    without any are left out). `bytes_up`, `bytes_down`: what went to and came from the service.
    """

    scores: Array
    is_anomaly: Array
    clipped: Mapping[str, int]
    timings: Timings
    bytes_up: int
    bytes_down: int

    def __len__(self) -> int:
        return len(self.scores)


@dataclass(frozen=True)
class Summary:
    """What a command did. `None` means that this command cannot know it."""

    rows: int
    chunks: int
    seconds: float
    bytes: int
    clipped: Mapping[str, int] | None = None
    anomalies: int | None = None
    server_seconds: float | None = None
    encrypt_seconds: float | None = None
    decrypt_seconds: float | None = None
    bytes_up: int | None = None
    bytes_down: int | None = None
    request: str | None = None
    notes: tuple[str, ...] = field(default=())

    def to_plain(self) -> dict[str, Any]:
        """For `--json`; `clipped` is the number of values, `clipped_columns` says where they are."""
        plain = {name: value for name, value in vars(self).items() if name not in ("clipped", "notes")}
        plain["clipped"] = None if self.clipped is None else sum(self.clipped.values())
        plain["clipped_columns"] = None if self.clipped is None else dict(self.clipped)
        return plain


def write_header(stream: BinaryIO, positions: Positions | None) -> None:
    """The first line of a file of scores."""
    stream.write(CSV_HEADER if positions is None else WINDOWS_HEADER)


def write_rows(
    stream: BinaryIO, first_row: int, scores: Array, is_anomaly: Array, positions: Positions | None = None
) -> None:
    """Append lines `row,score,anomaly`, of windows also `reading,time`; scores keep every bit when they are read."""
    lines = (
        f"{first_row + at},{float(score)!r},{int(flag)}"
        + ("" if positions is None else "," + positions.told(first_row + at))
        + "\n"
        for at, (score, flag) in enumerate(zip(scores, is_anomaly, strict=True))
    )
    stream.write("".join(lines).encode())


def write_scores(path: Path, scores: Scores, positions: Positions | None = None) -> None:
    """Write a CSV file row,score,anomaly, of windows also reading,time (mode 0600, as encryption protects scores)."""
    with fresh_file(path, mode=0o600) as stream:
        write_header(stream, positions)
        write_rows(stream, 0, scores.scores, scores.is_anomaly, positions)


def write_verdicts(path: Path, is_anomaly: Array) -> None:
    """Write a CSV file row,anomaly (mode 0600)."""
    with fresh_file(path, mode=0o600) as stream:
        stream.write(b"row,anomaly\n")
        stream.write("".join(f"{at},{int(flag)}\n" for at, flag in enumerate(is_anomaly)).encode())


def read_scores(path: Path, rows: frozenset[int] | None = None) -> tuple[Array, Array]:
    """Row numbers and scores `(n,)` of a CSV file row,score,anomaly, of those `rows` alone where they are given.

    Raises `FixInputError` for anything but what `write_scores` wrote, and for a row that it does not hold. The column
    of verdicts is not read: it follows from the score.
    """
    found: dict[int, float] = {}
    with existing_file(path) as stream:
        if stream.readline(64) not in (CSV_HEADER, WINDOWS_HEADER):
            raise FixInputError(f"{path} holds no scores", remedy="Give what `securead decrypt` or `score` wrote.")
        for number, line in enumerate(iter(lambda: stream.readline(256), b""), 2):
            try:
                row, score, _ = line.decode("ascii").split(",")[:3]
                at, value = int(row), float(score)
            except ValueError:
                at, value = -1, 0.0
            if at < 0 or at in found or not np.isfinite(value):
                raise FixInputError(f"{path}, line {number} is no score", remedy="The file is damaged or was changed.")
            if rows is None or at in rows:
                found[at] = value
    missing = next((at for at in sorted(rows) if at not in found), None) if rows is not None else None
    if missing is not None:
        raise FixInputError(f"{path} has no such row", value=missing, remedy="Rows are counted from 0.")
    return np.array(sorted(found), dtype=np.int64), np.array([found[at] for at in sorted(found)])


def write_shared(path: Path, rows: Array, scores: Array | None, is_anomaly: Array) -> None:
    """Write a CSV file to be handed out: row,score,anomaly, or row,anomaly without `scores`."""
    with fresh_file(path) as stream:
        stream.write(CSV_HEADER if scores is not None else b"row,anomaly\n")
        for at, row in enumerate(rows.tolist()):
            told = "" if scores is None else f"{float(scores[at])!r},"
            stream.write(f"{row},{told}{int(is_anomaly[at])}\n".encode())


def named(columns: tuple[str, ...], counts: Array | tuple[int, ...]) -> dict[str, int]:
    """Counts by column name, without the zeros."""
    return {name: int(count) for name, count in zip(columns, counts, strict=True) if count}
