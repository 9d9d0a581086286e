"""The gateway's disk: windows that wait to be encrypted, messages that wait to be sent, and the stream's memory.

Guarantees: a reading is *accepted* when the call that took it returns, and the windows it completed, the encoder's
state and the place in its source have then reached the disk in one transaction. From there on nothing loses it: windows
become a message in one transaction (its bytes a file of their own, on disk before that), a message is sent again byte
for byte until the service has confirmed it, in order, and only then deleted. Messages are numbered without gaps under a
random name made with the spool.

The spool is bounded, but for one message and one batch of readings. When it is full nothing is accepted and nothing
sealed any more (`RetryLaterError`): what feeds the gateway waits, and nothing that was accepted is ever dropped to make
room.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from securead import codec, files
from securead.data.schema import Array
from securead.data.streaming import StreamState
from securead.data.windows import Windows
from securead.durable import Database
from securead.errors import FixInputError, RetryLaterError, UseOtherKeyError
from securead.protocols.parcel import Label

MOST_BYTES = 1 << 30
FOLDER_SUFFIX = ".messages"
_PIECE = 256 << 10
_SCHEMA = """
CREATE TABLE memory (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE pending (
    id INTEGER PRIMARY KEY AUTOINCREMENT, reading INTEGER NOT NULL, time REAL, record BLOB NOT NULL,
    since REAL NOT NULL);
CREATE TABLE message (sequence INTEGER PRIMARY KEY, bytes INTEGER NOT NULL, label TEXT NOT NULL)
"""


@dataclass(frozen=True, eq=False)
class Pending:
    """Windows that wait to be encrypted: `X` `(n, d)`, their last readings, times, and since when the oldest waits."""

    ids: tuple[int, ...]
    X: Array
    readings: tuple[int, ...]
    times: tuple[float, ...] | None
    since: float


@dataclass(frozen=True)
class Spooled:
    """One message that waits to be sent: its label, its length, and its bytes from the disk as often as asked for."""

    label: Label
    size: int
    path: Path

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[bytes]:
        with self.path.open("rb") as stream:
            while piece := stream.read(_PIECE):
                yield piece


@dataclass(frozen=True)
class Held:
    """How much waits: windows not yet encrypted, messages not yet confirmed and their bytes; messages ever made."""

    windows: int
    messages: int
    bytes_: int
    made: int


class Spool:
    """One gateway's spool for one key.

    Raises `UseOtherKeyError` for a spool that was begun for another gateway or key: its messages could not be opened.
    """

    def __init__(self, path: Path | str, *, gateway: str, key: str, most_bytes: int = MOST_BYTES) -> None:
        self._db = Database(path, _SCHEMA, kind="securead spool")
        self._gateway, self._most_bytes = gateway, most_bytes
        self._folder = self._db.path.with_name(self._db.path.name + FOLDER_SUFFIX)
        try:
            with self._db.transaction() as db:
                fresh = {"gateway": gateway, "key": key, "stream": secrets.token_hex(16), "next": "0"}
                db.executemany("INSERT OR IGNORE INTO memory VALUES (?, ?)", fresh.items())
            kept = self._memory("gateway"), self._memory("key")
            if kept != (gateway, key):
                raise UseOtherKeyError(
                    f"{path} is the spool of another gateway or for another key",
                    value=kept[0],
                    remedy="Use that gateway's name and keys until it is empty, or begin another spool.",
                )
            self.stream = str(self._memory("stream"))
            self._tidy()
        except BaseException:
            self._db.close()
            raise

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def recall(self) -> tuple[StreamState | None, int]:
        """The encoder's state, if any reading was accepted, and the place in the source to go on from."""
        state, place = self._memory("state"), self._memory("place")
        if state is None or place is None:
            return None, 0
        return codec.from_plain(StreamState, json.loads(state), where=str(self._db.path)), int(place)

    def accept(self, windows: Windows, state: StreamState, place: int) -> None:
        """Keep what readings have become; they are accepted when this returns.

        `place` says where the source goes on. Raises `RetryLaterError`, having accepted nothing, when the spool or the
        disk is full.
        """
        now, times = time.time(), windows.times
        rows = [
            (int(reading), None if times is None else float(times[at]), np.asarray(record, "<f8").tobytes(), now)
            for at, (reading, record) in enumerate(zip(windows.rows, windows.X, strict=True))
        ]
        if rows:
            self._insist_on_room(self.held().bytes_)
        with self._db.transaction() as db:
            db.executemany("INSERT INTO pending (reading, time, record, since) VALUES (?, ?, ?, ?)", rows)
            memory = {"state": json.dumps(codec.to_plain(state), separators=(",", ":")), "place": str(place)}
            db.executemany("INSERT OR REPLACE INTO memory VALUES (?, ?)", memory.items())

    def pending(self, most: int) -> Pending | None:
        """The oldest windows that wait to be encrypted, `most` at most."""
        found = self._db.rows("SELECT id, reading, time, record, since FROM pending ORDER BY id LIMIT ?", most)
        if not found:
            return None
        ids, readings, times, records, since = zip(*found, strict=True)
        timed = None if None in times else tuple(map(float, times))
        return Pending(ids, np.array([np.frombuffer(r, "<f8") for r in records]), readings, timed, min(since))

    def insist_on_room_to_seal(self) -> None:
        """Raise `RetryLaterError` while the messages alone fill the spool: ask before a batch is encrypted.

        Windows do not count here: sealed they are sent and make room, so that nothing waits for itself.
        """
        self._insist_on_room(self._message_bytes()[1])

    def seal(self, pending: Pending, content: bytes) -> Label:
        """Put a message in the place of the windows that it holds encrypted: its label."""
        with self._db.transaction() as db:
            sequence = int(db.execute("SELECT value FROM memory WHERE name = 'next'").fetchone()[0])
            label = Label(self._gateway, self.stream, sequence, pending.readings, pending.times)
            told = json.dumps(codec.to_plain(label), separators=(",", ":"))
            gone = db.executemany("DELETE FROM pending WHERE id = ?", [(at,) for at in pending.ids]).rowcount
            if gone != len(pending.ids):
                raise FixInputError("these windows were encrypted before", where=str(self._db.path))
            # Whole and on disk before its row is; a kill in between leaves it to be written over.
            files.write_atomic(self._path(sequence), content, mode=0o600)
            db.execute("INSERT INTO message VALUES (?, ?, ?)", (sequence, len(content), told))
            db.execute("UPDATE memory SET value = ? WHERE name = 'next'", (str(sequence + 1),))
        return label

    def first(self) -> Spooled | None:
        """The oldest message that is not confirmed."""
        found = self._db.row("SELECT label, bytes FROM message ORDER BY sequence LIMIT 1")
        if found is None:
            return None
        label = codec.from_plain(Label, json.loads(found[0]), where=str(self._db.path))
        return Spooled(label, int(found[1]), self._path(label.sequence))

    def confirmed(self, label: Label) -> None:
        """Forget a message that the service has confirmed: its file first, so that a full disk cannot forbid it."""
        self._path(label.sequence).unlink(missing_ok=True)
        with self._db.transaction() as db:
            db.execute("DELETE FROM message WHERE sequence = ?", (label.sequence,))

    def held(self) -> Held:
        """How much waits."""
        windows = self._db.rows("SELECT count(*), coalesce(sum(length(record)), 0) FROM pending")[0]
        messages, size = self._message_bytes()
        made = int(self._memory("next") or 0)
        return Held(int(windows[0]), messages, int(windows[1]) + size, made)

    def _message_bytes(self) -> tuple[int, int]:
        """How many messages wait, and their bytes."""
        count, size = self._db.rows("SELECT count(*), coalesce(sum(bytes), 0) FROM message")[0]
        return int(count), int(size)

    def _insist_on_room(self, held: int) -> None:
        if held >= self._most_bytes:
            raise RetryLaterError(
                f"the spool holds {self._most_bytes:,} bytes, its most",
                where=str(self._db.path),
                remedy="It goes on when the service can be reached; allow more with --most-bytes where there is room.",
            )

    def _path(self, sequence: int) -> Path:
        return self._folder / f"{sequence:016d}"

    def _tidy(self) -> None:
        """End what a kill has interrupted: a file without a row was not sealed, a row without a file is confirmed."""
        files.make_secret_directory(self._folder)
        wanted = {self._path(int(row[0])).name: int(row[0]) for row in self._db.rows("SELECT sequence FROM message")}
        there = {path.name for path in self._folder.iterdir()}
        for name in there - wanted.keys():
            (self._folder / name).unlink()
        gone = [(wanted[name],) for name in wanted.keys() - there]
        if gone:
            with self._db.transaction() as db:
                db.executemany("DELETE FROM message WHERE sequence = ?", gone)

    def _memory(self, name: str) -> str | None:
        found = self._db.row("SELECT value FROM memory WHERE name = ?", name)
        return None if found is None else str(found[0])
