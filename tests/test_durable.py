"""A SQLite file that keeps its promises: whole transactions, one process, a full disk."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from securead.durable import Database
from securead.errors import FixInputError, RetryLaterError

SCHEMA = "CREATE TABLE thing (id INTEGER PRIMARY KEY, size INTEGER, content BLOB)"
INSERT = "INSERT INTO thing VALUES (?, ?, zeroblob(?))"


def test_a_transaction_is_all_or_nothing(tmp_path: Path) -> None:
    with Database(tmp_path / "db", SCHEMA, kind="thing") as db:

        def breaks_off() -> None:
            with db.transaction() as inside:
                inside.execute("INSERT INTO thing VALUES (1, 2, x'03')")
                raise KeyError

        with pytest.raises(KeyError):
            breaks_off()
        assert db.rows("SELECT * FROM thing") == []
        with db.transaction() as inside:
            inside.execute("INSERT INTO thing VALUES (1, 2, x'03')")
    with Database(tmp_path / "db", SCHEMA, kind="thing") as db:
        assert db.rows("SELECT * FROM thing") == [(1, 2, b"\x03")]
        assert db.row("SELECT * FROM thing WHERE id = ?", 5) is None
        db.close()


def test_what_is_committed_outlives_a_kill_and_what_is_not_never_was(tmp_path: Path) -> None:
    script = f"""
import sys, time
from securead.durable import Database
db = Database({str(tmp_path / "db")!r}, {SCHEMA!r}, kind="thing")
with db.transaction() as inside:
    inside.execute("INSERT INTO thing VALUES (1, 0, x'')")
with db.transaction() as inside:
    inside.execute("INSERT INTO thing VALUES (2, 0, x'')")
    print("inside", flush=True)
    time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"inside\n"
    with pytest.raises(RetryLaterError, match="another process uses"):
        Database(tmp_path / "db", SCHEMA, kind="thing")
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    with Database(tmp_path / "db", SCHEMA, kind="thing") as db:
        assert db.rows("SELECT id FROM thing") == [(1,)]


def test_a_full_disk_changes_nothing_and_passes(tmp_path: Path) -> None:
    with Database(tmp_path / "db", SCHEMA, kind="thing") as db:
        pages = db.rows("PRAGMA page_count")[0][0]
        db.rows(f"PRAGMA max_page_count = {pages + 2}")

        def too_much() -> None:
            with db.transaction() as inside:
                inside.execute("INSERT INTO thing VALUES (1, 0, x'')")
                inside.execute(INSERT, (2, 0, 100_000))

        with pytest.raises(RetryLaterError, match=r"full.*Nothing is lost"):
            too_much()
        assert db.rows("SELECT id FROM thing") == []
        db.rows("PRAGMA max_page_count = 1000000")
        with db.transaction() as inside:
            inside.execute(INSERT, (2, 0, 100_000))
        assert db.rows("SELECT id FROM thing") == [(2,)]


def test_room_is_kept_for_deleting_and_given_back(tmp_path: Path) -> None:
    with Database(tmp_path / "db", SCHEMA, kind="thing") as db:
        db.refuse_little_room(1)
        with pytest.raises(RetryLaterError, match="nearly full"):
            db.refuse_little_room(1 << 60)
        for row in range(20):
            with db.transaction() as inside:
                inside.execute(INSERT, (row, 0, 100_000))
        before = db.rows("PRAGMA page_count")[0][0]
        for row in range(20):
            with db.transaction() as inside:
                inside.execute("DELETE FROM thing WHERE id = ?", (row,))
            db.shrink()
        assert db.rows("PRAGMA page_count")[0][0] < before / 10


def test_the_file_is_its_owners_and_synchronous(tmp_path: Path) -> None:
    with Database(tmp_path / "deep" / "db", SCHEMA, kind="thing") as db:
        with db.transaction() as inside:
            inside.execute("INSERT INTO thing VALUES (1, 2, x'03')")
        assert {path.stat().st_mode & 0o077 for path in (tmp_path / "deep").iterdir()} == {0}
        assert (db.rows("PRAGMA synchronous"), db.rows("PRAGMA journal_mode")) == ([(2,)], [("wal",)])


def test_other_files_are_refused(tmp_path: Path) -> None:
    Database(tmp_path / "db", SCHEMA, kind="thing").close()
    with pytest.raises(FixInputError, match="is no other of this version"):
        Database(tmp_path / "db", SCHEMA, kind="other")
    with pytest.raises(FixInputError, match="of this version"):
        Database(tmp_path / "db", SCHEMA, kind="thing", version=2)
    (tmp_path / "text").write_bytes(b"no database at all, but long enough to be read as one" * 50)
    with pytest.raises(FixInputError, match="damaged, or no thing"):
        Database(tmp_path / "text", SCHEMA, kind="thing")
    foreign = sqlite3.connect(tmp_path / "foreign")
    foreign.execute("CREATE TABLE a (b)")
    foreign.close()
    with pytest.raises(FixInputError, match="is no thing"):
        Database(tmp_path / "foreign", SCHEMA, kind="thing")
    with pytest.raises(RetryLaterError, match="cannot open"):
        Database(tmp_path / "text" / "db", SCHEMA, kind="thing")
