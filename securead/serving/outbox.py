"""Answers that wait for their key holder, on disk: deposited once each, kept until they are acknowledged.

A *mailbox* belongs to one key. Whoever opens it names two capabilities by their SHA-256, 256 random bits each: one lets
gateways deposit, the other lets the key holder list, fetch and acknowledge. The first to open a key's mailbox owns it;
opening it again with the same two changes nothing.

Guarantees: an answer whose deposit was confirmed is on disk. A deposit that is repeated is recognised by its stream,
sequence number and digest, also after its answer was acknowledged, and is neither scored nor counted again. Whatever
does not fit is refused with `RetryLaterError` and nothing that was confirmed is dropped for it.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import time
from dataclasses import dataclass
from pathlib import Path

from securead.durable import Database
from securead.errors import FixInputError, RejectMessageError, RetryLaterError, UseOtherKeyError
from securead.protocols.parcel import Label

MOST_MAILBOXES, MOST_STREAMS = 1024, 4096
MAILBOX_BYTES, ALL_BYTES = 256 << 20, 4 << 30
LISTED = 100
_HEX = re.compile("[0-9a-f]{64}")
_SCHEMA = """
CREATE TABLE mailbox (key TEXT PRIMARY KEY, deposit TEXT NOT NULL, pickup TEXT NOT NULL);
CREATE TABLE stream (
    key TEXT NOT NULL, stream TEXT NOT NULL, sequence INTEGER NOT NULL, digest BLOB NOT NULL, used REAL NOT NULL,
    PRIMARY KEY (key, stream));
CREATE TABLE answer (
    number INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL, model TEXT NOT NULL, bytes INTEGER NOT NULL,
    parcel BLOB NOT NULL);
CREATE INDEX answer_of ON answer (key, number)
"""


class WrongTokenError(UseOtherKeyError):
    """No capability, or not this mailbox's: HTTP 403."""


@dataclass(frozen=True)
class Waiting:
    """One answer in a mailbox: its number, which grows, and the bytes of its parcel."""

    number: int
    model: str
    size: int


class Outbox:
    """The mailboxes of a service in one file."""

    def __init__(self, path: Path | str, *, mailbox_bytes: int = MAILBOX_BYTES, all_bytes: int = ALL_BYTES) -> None:
        self._db = Database(path, _SCHEMA, kind="securead outbox")
        self._mailbox_bytes, self._all_bytes = mailbox_bytes, all_bytes

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def open_mailbox(self, key: str, deposit: str, pickup: str) -> None:
        """Open a key's mailbox for two capabilities, given by their SHA-256 in hex; the same again changes nothing.

        Raises `WrongTokenError` where it was opened with others, and `RetryLaterError` where there are too many.
        """
        if not all(_HEX.fullmatch(text) for text in (key, deposit, pickup)) or deposit == pickup:
            raise RejectMessageError("a mailbox is opened with three different digests of 64 hex digits")
        with self._db.transaction() as db:
            found = db.execute("SELECT deposit, pickup FROM mailbox WHERE key = ?", (key,)).fetchone()
            if found == (deposit, pickup):
                return
            if found is not None:
                raise WrongTokenError(
                    "this key's mailbox was opened with other tokens",
                    remedy="Use DIR/secret/mailbox.json as it was then, or make new keys.",
                )
            if db.execute("SELECT count(*) FROM mailbox").fetchone()[0] >= MOST_MAILBOXES:
                raise RetryLaterError("the service holds as many mailboxes as it may", remedy="Tell its operator.")
            db.execute("INSERT INTO mailbox VALUES (?, ?, ?)", (key, deposit, pickup))

    def check(self, key: str, right: str, token: str) -> None:
        """Raise unless `token` is the capability `right` ("deposit" or "pickup") of the key's mailbox.

        `RetryLaterError` where there is no such mailbox: its holder opens it again by itself.
        """
        found = self._db.row(f"SELECT {_RIGHTS[right]} FROM mailbox WHERE key = ?", key)  # noqa: S608  (our own words)
        if found is None:
            raise RetryLaterError(
                "the key holder has not opened a mailbox here",
                remedy="Have it run `securead mailbox`, or its operations centre; then send the same again.",
            )
        digest = hashlib.sha256(token.encode()).hexdigest()
        if not hmac.compare_digest(digest, found[0]):
            raise WrongTokenError(
                "this token does not open the mailbox", remedy=f"Give the {right} token that its key holder made."
            )

    def is_known(self, key: str, label: Label, digest: bytes) -> bool:
        """Whether this very deposit was confirmed before.

        Raises `RejectMessageError` for a sequence number that was used for something else: a spool that was copied or
        restored, whose messages nobody could tell from those already scored.
        """
        found = self._db.row("SELECT sequence, digest FROM stream WHERE key = ? AND stream = ?", key, label.stream)
        if found is None or label.sequence > found[0]:
            return False
        if (label.sequence, digest) == found:
            return True
        raise RejectMessageError(
            "this number of the stream was deposited before, with something else or long ago",
            value=label.sequence,
            remedy="A spool was copied or restored from a backup: begin a new one.",
        )

    def refuse_full(self, key: str, size: int) -> None:
        """Raise `RetryLaterError`, before any work, where an answer of so many bytes would not fit."""
        own = self._db.row("SELECT coalesce(sum(bytes), 0) FROM answer WHERE key = ?", key)
        every = self._db.row("SELECT coalesce(sum(bytes), 0) FROM answer")
        if own is None or every is None:
            raise ValueError("a sum has a row")
        self._db.refuse_little_room(size)
        if own[0] + size > self._mailbox_bytes or every[0] + size > self._all_bytes:
            raise RetryLaterError(
                "the mailbox is full",
                remedy="Nothing is lost: keep the message and send it again once the key holder has fetched answers.",
            )

    def put(self, key: str, model: str, label: Label, digest: bytes, parcel: bytes) -> None:
        """Keep an answer and remember its deposit, in one: on disk when this returns."""
        with self._db.transaction() as db:
            if self.is_known(key, label, digest):
                return
            db.execute(
                "INSERT OR REPLACE INTO stream VALUES (?, ?, ?, ?, ?)",
                (key, label.stream, label.sequence, digest, time.time()),
            )
            db.execute(
                "DELETE FROM stream WHERE key = ? AND stream NOT IN "
                "(SELECT stream FROM stream WHERE key = ? ORDER BY used DESC LIMIT ?)",
                (key, key, MOST_STREAMS),
            )
            db.execute(
                "INSERT INTO answer (key, model, bytes, parcel) VALUES (?, ?, ?, ?)", (key, model, len(parcel), parcel)
            )

    def waiting(self, key: str, after: int = 0) -> tuple[Waiting, ...]:
        """The oldest answers with a number above `after`, `LISTED` at most."""
        query = "SELECT number, model, bytes FROM answer WHERE key = ? AND number > ? ORDER BY number LIMIT ?"
        return tuple(Waiting(*found) for found in self._db.rows(query, key, after, LISTED))

    def get(self, key: str, number: int) -> bytes:
        """One answer's parcel, or `FixInputError` where it was acknowledged already or never was."""
        found = self._db.row("SELECT parcel FROM answer WHERE key = ? AND number = ?", key, number)
        if found is None:
            raise FixInputError("no such answer waits", value=number, remedy="List what waits.")
        parcel: bytes = found[0]
        return parcel

    def acknowledge(self, key: str, number: int) -> None:
        """Delete one answer; one that is not there is acknowledged already."""
        with self._db.transaction() as db:
            db.execute("DELETE FROM answer WHERE key = ? AND number = ?", (key, number))
        self._db.shrink()

    def __len__(self) -> int:
        found = self._db.row("SELECT count(*) FROM answer")
        return 0 if found is None else int(found[0])


_RIGHTS = {"deposit": "deposit", "pickup": "pickup"}
