"""Readings as they come: lines of CSV from a file that may still grow, or from standard input.

A file is read from where the last accepted reading ended, so a gateway that was killed reads nothing twice. A stream
cannot be read again: what was not accepted before a kill is for its producer to send again. The first line names the
columns: the window's channels in any order, a time where the window has a period, and others, which are left out.

| in a line | what becomes of it |
|---|---|
| a cell that is empty or no number | a missing value, as the window treats one |
| another number of cells than the header, or no time | the line is dropped and counted |
"""

from __future__ import annotations

import csv
import datetime
import math
import os
import select
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from securead.data.readings import TIME_NAMES
from securead.data.schema import Array
from securead.data.windows import Window
from securead.errors import FixInputError

MOST_LINES = 512
_MOST_LINE, _BLOCK = 1 << 20, 1 << 16


@dataclass(frozen=True, eq=False)
class Batch:
    """Readings `X` `(n, channels)` and times `(n,)` that arrived together; `place` is where the source goes on.

    `dropped`: lines that were none. `idle`: nothing came for a while, or the source has ended (`ended`).
    """

    X: Array
    times: Array | None
    place: int
    dropped: int = 0
    ended: bool = False


class Source:
    """One gateway's readings. `path` None is standard input. `follow`: a file may grow, so its end is not the end.

    `place`: what `Batch.place` was when the last reading was accepted, a position in a file. Raises `FixInputError` for
    a file without these columns, or shorter than what was read.
    """

    def __init__(self, path: Path | None, window: Window, *, time: str | None = None, follow: bool, place: int) -> None:
        self._name, self._window, self._follow = "standard input" if path is None else str(path), window, follow
        try:
            self._file = 0 if path is None else os.open(path, os.O_RDONLY)
        except OSError as error:
            raise FixInputError(f"cannot read {path}: {error.strerror}", remedy="Check the path.") from error
        self._regular = stat.S_ISREG(os.fstat(self._file).st_mode)
        self._time, self._wanted = time, tuple(channel.name for channel in window.channels)
        self._columns: list[int] = []
        self._clock: int | None = None
        self._width = 0
        self._buffer, self._place, self._ended = b"", 0, False
        self._resume = place if self._regular else 0

    def close(self) -> None:
        """Close the file."""
        if self._file:
            os.close(self._file)
            self._file = 0

    def batches(self, wait: float = 0.2) -> Iterator[Batch]:
        """What has arrived, again and again, an empty batch after every `wait` seconds without; until it ends."""
        while not self._ended:
            lines = self._lines(wait)
            if not self._columns and lines:
                self._read_header(lines.pop(0))
            if self._resume and self._columns:
                self._skip()
                continue
            yield self._batch(lines)

    def _lines(self, wait: float) -> list[bytes]:
        """Whole lines, `MOST_LINES` at most; sets `_ended` once nothing can follow."""
        if self._buffer.count(b"\n") < MOST_LINES:
            part = b""
            if self._regular or select.select([self._file], [], [], wait)[0]:
                part = os.read(self._file, _BLOCK)
                ends = not part and not (self._regular and self._follow)
                if ends and self._buffer and not self._buffer.endswith(b"\n"):
                    self._buffer, self._place = self._buffer + b"\n", self._place - 1
                self._ended = ends
                if not part and not ends and not self._buffer.count(b"\n"):
                    if self._file:
                        self._check_still_there()
                    select.select([], [], [], wait)
            self._buffer += part
        most = 1 if not self._columns else MOST_LINES
        *whole, rest = self._buffer.split(b"\n", most)
        if len(rest) > _MOST_LINE and not whole:
            raise FixInputError(f"{self._name} has a line of more than {_MOST_LINE} bytes", remedy="Give CSV.")
        self._place += len(self._buffer) - len(rest)
        self._buffer = rest
        self._ended = self._ended and not rest.count(b"\n")
        return whole

    def _check_still_there(self) -> None:
        """What is followed must not be replaced or cut: lines between would be lost unnoticed."""
        here, read = os.fstat(self._file), self._place + len(self._buffer)
        try:
            same = os.stat(self._name).st_ino == here.st_ino
        except OSError:
            same = False
        if not same or here.st_size < read:
            raise _replaced(self._name)

    def _skip(self) -> None:
        """Go to where the last accepted reading ended: the end of a line, if it is still the same file."""
        size = os.fstat(self._file).st_size
        if size < self._resume or (size > self._resume and os.pread(self._file, 1, self._resume - 1) != b"\n"):
            raise _replaced(self._name)
        os.lseek(self._file, self._resume, os.SEEK_SET)
        self._buffer, self._place, self._resume, self._ended = b"", self._resume, 0, False

    def _read_header(self, line: bytes) -> None:
        names = [name.strip() for name in _cells(line.removeprefix(b"\xef\xbb\xbf"))]
        missing = [name for name in self._wanted if names.count(name) != 1]
        if missing:
            raise FixInputError(
                f"{self._name} has no column {missing[0]!r}, or has it twice",
                remedy="Its first line names the columns; wanted: " + ", ".join(self._wanted)[:300] + ".",
            )
        if self._time is not None and self._time not in names:
            raise FixInputError(f"{self._name} has no column {self._time!r}", remedy="Check --time.")
        usual = (name for name in names if name.lower() in TIME_NAMES and name not in self._wanted)
        clock = self._time or next(usual, None)
        if clock is None and self._window.period is not None:
            raise FixInputError(
                f"{self._name} has no column of times, and the model's windows have a period", remedy="Name it: --time."
            )
        self._columns, self._width = [names.index(name) for name in self._wanted], len(names)
        self._clock = None if clock is None else names.index(clock)

    def _batch(self, lines: list[bytes]) -> Batch:
        values, times, dropped = [], [], 0
        for line in lines:
            if not line.strip():
                continue
            cells = _cells(line)
            when = math.nan if self._clock is None or len(cells) != self._width else _seconds(cells[self._clock])
            if len(cells) != self._width or (self._clock is not None and math.isnan(when)):
                dropped += 1
                continue
            values.append([_number(cells[at]) for at in self._columns])
            times.append(when)
        X = np.array(values).reshape(len(values), len(self._wanted))
        return Batch(X, None if self._clock is None else np.array(times), self._place, dropped, self._ended)


def _replaced(name: str) -> FixInputError:
    return FixInputError(
        f"{name} is shorter than what was read of it, or another file",
        remedy="Let it only grow; where logs are rotated, use a pipe: tail -F FILE | securead gateway - ...",
    )


def _cells(line: bytes) -> list[str]:
    text = line.decode("utf-8", errors="replace").rstrip("\r")
    semicolons = ";" in text and "," not in text
    try:
        return next(csv.reader([text], delimiter=";" if semicolons else ","), [])
    except csv.Error:
        return []


def _number(cell: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        return math.nan
    return value if math.isfinite(value) else math.nan


def _seconds(cell: str) -> float:
    value = _number(cell)
    if not math.isnan(value):
        return value
    try:
        moment = datetime.datetime.fromisoformat(cell.strip())
    except ValueError:
        return math.nan
    return (moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)).timestamp()
