"""What a client's work yields: scores with what they cost, and the summary that a command prints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from securead.client.messages import fresh_file
from securead.data.schema import Array

CSV_HEADER = b"row,score,anomaly\n"


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


def write_rows(stream: BinaryIO, first_row: int, scores: Array, is_anomaly: Array) -> None:
    """Append lines `row,score,anomaly`; scores keep every bit (they read back as the same float)."""
    lines = (
        f"{first_row + at},{float(score)!r},{int(flag)}\n"
        for at, (score, flag) in enumerate(zip(scores, is_anomaly, strict=True))
    )
    stream.write("".join(lines).encode())


def write_scores(path: Path, scores: Scores) -> None:
    """Write a CSV file row,score,anomaly (mode 0600: scores are what encryption protects)."""
    with fresh_file(path, mode=0o600) as stream:
        stream.write(CSV_HEADER)
        write_rows(stream, 0, scores.scores, scores.is_anomaly)


def named(columns: tuple[str, ...], counts: Array | tuple[int, ...]) -> dict[str, int]:
    """Counts by column name, without the zeros."""
    return {name: int(count) for name, count in zip(columns, counts, strict=True) if count}
