"""What an operations centre has decrypted, on its own disk: each message once, in its place, with alarms and gaps.

Guarantee: what a message held is taken in one transaction, recognised by its stream and sequence number; the same
message again changes nothing but a count. So an answer can be fetched, killed and fetched again. Scores are what
encryption protects: the file is 0600. It is bounded: of scores and alarms the latest are kept.
"""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from securead import codec
from securead.client import drift
from securead.data.schema import Array
from securead.durable import Database
from securead.errors import FixInputError
from securead.models.bundle import PublicModel
from securead.protocols.parcel import Label

MOST_SCORES, MOST_ALARMS = 1_000_000, 10_000
_SCHEMA = """
CREATE TABLE memory (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE stream (
    stream TEXT PRIMARY KEY, gateway TEXT NOT NULL, highest INTEGER NOT NULL, taken INTEGER NOT NULL,
    windows INTEGER NOT NULL, flagged INTEGER NOT NULL, again INTEGER NOT NULL, rejected INTEGER NOT NULL);
CREATE TABLE gap (
    stream TEXT NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL, PRIMARY KEY (stream, first));
CREATE TABLE score (
    id INTEGER PRIMARY KEY AUTOINCREMENT, stream TEXT NOT NULL, reading INTEGER NOT NULL, time REAL,
    score REAL NOT NULL, flagged INTEGER NOT NULL);
CREATE INDEX score_of ON score (stream, reading);
CREATE TABLE alarm (
    id INTEGER PRIMARY KEY AUTOINCREMENT, stream TEXT NOT NULL, gateway TEXT NOT NULL, first INTEGER NOT NULL,
    last INTEGER NOT NULL, first_time REAL, last_time REAL, windows INTEGER NOT NULL, peak REAL NOT NULL);
CREATE INDEX alarm_of ON alarm (stream, last)
"""


@dataclass(frozen=True)
class Alarm:
    """Windows above the threshold that lie together: their last readings and times, how many, the highest score."""

    gateway: str
    first: int
    last: int
    first_time: float | None
    last_time: float | None
    windows: int
    peak: float


@dataclass(frozen=True)
class Stream:
    """One gateway's stream: messages taken, windows, of these flagged; messages that came again or were refused.

    `missing`: messages that were numbered and have not come.
    """

    stream: str
    gateway: str
    highest: int
    taken: int
    windows: int
    flagged: int
    again: int
    rejected: int
    missing: int


@dataclass(frozen=True, eq=False)
class Point:
    """One window's score."""

    reading: int
    time: float | None
    score: float
    flagged: bool


class Record:
    """The centre's file for one model and key. `join`: flagged windows at most so many readings apart are one alarm.

    Raises `FixInputError` for a file that was begun for another key.
    """

    def __init__(self, path: Path | str, model: PublicModel, key: str, *, join: int = 30) -> None:
        self._model, self._join = model, join
        self._db = Database(path, _SCHEMA, kind="securead record")
        try:
            with self._db.transaction() as db:
                db.execute("INSERT OR IGNORE INTO memory VALUES ('key', ?)", (key,))
            kept = self._db.row("SELECT value FROM memory WHERE name = 'key'")
            if kept != (key,):
                raise FixInputError(f"{path} is the record of another key", remedy="Give this key a record of its own.")
        except BaseException:
            self._db.close()
            raise

    def __enter__(self) -> Record:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def take(self, label: Label, scores: Array | None) -> tuple[Alarm, ...] | None:
        """Take one message's scores `(rows,)`, or None for an answer that was refused: the alarms that it began.

        None where this message was taken before; only that is counted then.
        """
        with self._db.transaction() as db:
            if not _placed(db, label):
                db.execute("UPDATE stream SET again = again + 1 WHERE stream = ?", (label.stream,))
                return None
            if scores is None:
                db.execute("UPDATE stream SET rejected = rejected + 1 WHERE stream = ?", (label.stream,))
                return ()
            flags = self._model.is_anomaly(scores)
            times = label.times or (None,) * len(label.readings)
            rows = [
                (label.stream, reading, time, float(score), int(flag))
                for reading, time, score, flag in zip(label.readings, times, scores, flags, strict=True)
            ]
            db.executemany("INSERT INTO score (stream, reading, time, score, flagged) VALUES (?, ?, ?, ?, ?)", rows)
            db.execute(
                "UPDATE stream SET windows = windows + ?, flagged = flagged + ? WHERE stream = ?",
                (len(rows), int(flags.sum()), label.stream),
            )
            began = [self._raise(db, label, reading, time, score) for _, reading, time, score, flag in rows if flag]
            db.execute("DELETE FROM score WHERE id <= (SELECT max(id) FROM score) - ?", (MOST_SCORES,))
            db.execute("DELETE FROM alarm WHERE id <= (SELECT max(id) FROM alarm) - ?", (MOST_ALARMS,))
            seen = drift.add(self.drift(), scores, self._model.threshold)
            remembered = json.dumps(codec.to_plain(seen), separators=(",", ":"))
            db.execute("INSERT OR REPLACE INTO memory VALUES ('drift', ?)", (remembered,))
        return tuple(alarm for alarm in began if alarm is not None)

    def drift(self) -> drift.Summary:
        """What is remembered of the scores for `drift`."""
        found = self._db.row("SELECT value FROM memory WHERE name = 'drift'")
        if found is None:
            return drift.fresh(self._model)
        return codec.from_plain(drift.Summary, json.loads(found[0]), where=str(self._db.path))

    def streams(self) -> tuple[Stream, ...]:
        """All streams, by gateway."""
        missing = "(SELECT coalesce(sum(last - first + 1), 0) FROM gap WHERE gap.stream = stream.stream)"
        query = f"SELECT *, {missing} FROM stream ORDER BY gateway, stream"  # noqa: S608  (our own words)
        return tuple(Stream(*row) for row in self._db.rows(query))

    def alarms(self, most: int = MOST_ALARMS) -> tuple[Alarm, ...]:
        """The latest alarms, the newest first."""
        columns = "gateway, first, last, first_time, last_time, windows, peak"
        query = f"SELECT {columns} FROM alarm ORDER BY id DESC LIMIT ?"  # noqa: S608  (our own words)
        return tuple(Alarm(*row) for row in self._db.rows(query, most))

    def latest(self, stream: str, most: int) -> tuple[Point, ...]:
        """The latest scores of a stream, in the order of its readings."""
        query = "SELECT reading, time, score, flagged FROM score WHERE stream = ? ORDER BY reading DESC LIMIT ?"
        found = self._db.rows(query, stream, most)
        return tuple(Point(reading, time, score, bool(flag)) for reading, time, score, flag in reversed(found))

    def _raise(
        self, db: sqlite3.Connection, label: Label, reading: int, time: float | None, score: float
    ) -> Alarm | None:
        """Count a flagged window to an alarm nearby, or begin one: that is handed back."""
        near = db.execute(
            "SELECT id FROM alarm WHERE stream = ? AND last >= ? AND first <= ? ORDER BY last DESC LIMIT 1",
            (label.stream, reading - self._join, reading + self._join),
        ).fetchone()
        if near is not None:
            db.execute(
                "UPDATE alarm SET first = min(first, ?1), last = max(last, ?1), "
                "first_time = min(coalesce(first_time, ?2), coalesce(?2, first_time)), "
                "last_time = max(coalesce(last_time, ?2), coalesce(?2, last_time)), "
                "windows = windows + 1, peak = max(peak, ?3) WHERE id = ?4",
                (reading, time, score, near[0]),
            )
            return None
        columns = "stream, gateway, first, last, first_time, last_time, windows, peak"
        db.execute(
            f"INSERT INTO alarm ({columns}) VALUES (?, ?, ?, ?, ?, ?, 1, ?)",  # noqa: S608  (our own words)
            (label.stream, label.gateway, reading, reading, time, time, score),
        )
        return Alarm(label.gateway, reading, reading, time, time, 1, score)


def _placed(db: sqlite3.Connection, label: Label) -> bool:
    """Note that a message has come; False where it had. Numbers that it leaves out are gaps until they come."""
    found = db.execute("SELECT highest FROM stream WHERE stream = ?", (label.stream,)).fetchone()
    highest = -1 if found is None else int(found[0])
    if found is None:
        db.execute("INSERT INTO stream VALUES (?, ?, -1, 0, 0, 0, 0, 0)", (label.stream, label.gateway))
    if label.sequence > highest + 1:
        db.execute("INSERT INTO gap VALUES (?, ?, ?)", (label.stream, highest + 1, label.sequence - 1))
    elif label.sequence <= highest:
        hole = db.execute(
            "SELECT first, last FROM gap WHERE stream = ? AND first <= ? AND last >= ?",
            (label.stream, label.sequence, label.sequence),
        ).fetchone()
        if hole is None:
            return False
        db.execute("DELETE FROM gap WHERE stream = ? AND first = ?", (label.stream, hole[0]))
        for first, last in ((hole[0], label.sequence - 1), (label.sequence + 1, hole[1])):
            if first <= last:
                db.execute("INSERT INTO gap VALUES (?, ?, ?)", (label.stream, first, last))
    db.execute(
        "UPDATE stream SET highest = max(highest, ?), taken = taken + 1 WHERE stream = ?",
        (label.sequence, label.stream),
    )
    return True
