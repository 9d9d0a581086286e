"""A SQLite file that survives its process: what a call has committed is on disk, and what it has not never happened.

Guarantee: a `transaction` is all or nothing, also when the process is killed or the power fails inside it (write-ahead
log, synchronous=FULL). The file is its owner's alone (0600) and one process's at a time; a full disk is
`RetryLaterError` and changes nothing. Safe to use from several threads.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from securead.errors import FixInputError, RetryLaterError

_WAL_BYTES = 32 << 20
SPARE_BYTES = 16 << 20
"""Kept free, so that the log of deletions always fits: else a full disk would forbid what empties it."""


class Database:
    """One open file. `kind` and `version` say what it is: another kind of file is refused before it is touched.

    Raises `RetryLaterError` where another process has it open, and `FixInputError` for a file of another kind.
    """

    def __init__(self, path: Path | str, schema: str, *, kind: str, version: int = 1) -> None:
        self.path, self._kind = Path(path), kind
        self._lock = threading.RLock()
        self._guard = self._claim()
        try:
            self._db = self._open(schema, version)
        except BaseException:
            os.close(self._guard)
            raise

    def __enter__(self) -> Database:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; twice is once."""
        with self._lock:
            self._db.close()
            if self._guard >= 0:
                os.close(self._guard)
                self._guard = -1

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """What the block does to the connection, all of it or nothing; durable when the block has ended."""
        with self._lock, self._translated():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def refuse_little_room(self, size: int) -> None:
        """Raise `RetryLaterError` unless the disk has room for `size` bytes more and for what deleting takes."""
        wanted = 2 * size + SPARE_BYTES
        if self._room() < wanted:
            with self._lock, self._translated():  # what was deleted may still stand in the log and at the file's end
                self._db.executescript("PRAGMA incremental_vacuum; PRAGMA wal_checkpoint(TRUNCATE)")
        if self._room() < wanted:
            raise RetryLaterError(
                f"the disk of {self.path} is nearly full", remedy="Nothing is lost: free space, then call again."
            )

    def shrink(self) -> None:
        """Give some of the room of what was deleted back to the disk."""
        with self._lock, self._translated():
            self._db.executescript("PRAGMA incremental_vacuum(256)")  # `execute` would move one page only

    def _room(self) -> int:
        found = os.statvfs(self.path.parent)
        return found.f_bavail * found.f_frsize

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """All rows of a query."""
        with self._lock, self._translated():
            return self._db.execute(query, values).fetchall()

    def row(self, query: str, *values: Any) -> tuple[Any, ...] | None:
        """The first row of a query, if there is one."""
        found = self.rows(query, *values)
        return found[0] if found else None

    def _claim(self) -> int:
        """A lock on a file beside it, which ends with the process however that ends."""
        lock = self.path.with_name(f".{self.path.name}.lock")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            guard = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600)
            # Made before SQLite does, which would let others read it; its companions get the same mode.
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o600))
            folder = os.open(self.path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise RetryLaterError(
                f"cannot open {self.path}: {error.strerror}", remedy="Fix the path or the permission; call again."
            ) from error
        try:
            fcntl.flock(guard, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(guard)
            raise RetryLaterError(
                f"another process uses {self.path}", remedy="Let it end, or give this one a file of its own."
            ) from error
        return guard

    def _open(self, schema: str, version: int) -> sqlite3.Connection:
        with self._translated():
            db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=30)
            try:
                db.execute("PRAGMA trusted_schema = OFF")
                db.execute("PRAGMA auto_vacuum = INCREMENTAL")  # of a new file
                db.execute("PRAGMA journal_mode = WAL")
                db.execute("PRAGMA synchronous = FULL")
                db.execute(f"PRAGMA journal_size_limit = {_WAL_BYTES}")
                db.execute("PRAGMA secure_delete = FAST")  # more would need room to make room
                db.execute("BEGIN IMMEDIATE")
                self._check(db, schema, version)
                db.execute("COMMIT")
            except BaseException:
                db.close()
                raise
            return db

    def _check(self, db: sqlite3.Connection, schema: str, version: int) -> None:
        if not db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
            for statement in filter(str.strip, schema.split(";")):
                db.execute(statement)
            db.execute("CREATE TABLE what_this_is (kind TEXT, version INTEGER)")
            db.execute("INSERT INTO what_this_is VALUES (?, ?)", (self._kind, version))
        found = db.execute("SELECT kind, version FROM what_this_is").fetchone()
        if found != (self._kind, version):
            raise FixInputError(
                f"{self.path} is no {self._kind} of this version", value=found, remedy="Give another file."
            )

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            if "no such table" in str(error) or "syntax" in str(error):
                raise FixInputError(
                    f"{self.path} is no {self._kind}", value=str(error), remedy="Give another file."
                ) from error
            raise RetryLaterError(
                f"cannot write {self.path}: {error}",
                remedy="Nothing is lost and nothing was changed: free space or fix the permission, then call again.",
            ) from error
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.IntegrityError | sqlite3.ProgrammingError):
                raise
            raise FixInputError(
                f"{self.path} is damaged, or no {self._kind}: {error}", remedy="Restore it, or give another file."
            ) from error
