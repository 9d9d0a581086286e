"""The centre's record: every message once, gaps and repetitions seen, flagged windows joined to alarms; its page."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from stations import windowed_bundle

from securead.client import page
from securead.client import record as module
from securead.client.record import Alarm, Record
from securead.errors import FixInputError
from securead.protocols.parcel import Label

MODEL = windowed_bundle().public  # its threshold is 30
KEY = "a" * 64
STREAM = "0" * 32


@pytest.fixture
def record(tmp_path: Path) -> Iterator[Record]:
    with Record(tmp_path / "record", MODEL, KEY, join=10) as found:
        yield found


def message(sequence: int, first: int = 0, rows: int = 10, stream: str = STREAM, timed: bool = True) -> Label:
    readings = tuple(range(first, first + rows))
    times = tuple(1.7e9 + 60.0 * at for at in readings) if timed else None
    return Label("pump-1", stream, sequence, readings, times)


def flagged(*places: int, rows: int = 10) -> np.ndarray:
    scores = np.full(rows, 5.0)
    scores[list(places)] = 40.0 + np.arange(len(places))
    return scores


def test_each_message_once_with_gaps_until_they_are_filled(record: Record) -> None:
    missing, again = [], 0
    for sequence in (0, 4, 4, 2, 9, 2, 3, 1, 0):
        taken = record.take(message(sequence, 10 * sequence), flagged())
        again += taken is None
        (stream,) = record.streams()
        missing.append(stream.missing)
    assert missing == [0, 3, 3, 2, 6, 6, 5, 4, 4]
    assert (again, stream.again, stream.taken, stream.highest, stream.windows) == (3, 3, 6, 9, 60)
    points = record.latest(STREAM, 100)
    assert [point.reading for point in points] == [*range(50), *range(90, 100)]


def test_a_message_is_taken_once_also_by_another_process(record: Record, tmp_path: Path) -> None:
    record.take(message(0), flagged(3))
    record.close()
    with Record(tmp_path / "record", MODEL, KEY) as again:
        assert again.take(message(0), flagged(3)) is None
        assert again.take(message(0, stream="1" * 32), flagged()) == ()  # another spool
        assert len(again.alarms()) == 1
    with pytest.raises(FixInputError, match="another key"):
        Record(tmp_path / "record", MODEL, "b" * 64)


def test_flagged_windows_near_each_other_are_one_alarm(record: Record) -> None:
    began = [
        record.take(message(0, 0), flagged(7, 9)),
        record.take(message(1, 10), flagged(0, 9)),
        record.take(message(2, 20), flagged()),
        record.take(message(3, 30), flagged(0)),
    ]
    assert [len(each or ()) for each in began] == [1, 0, 0, 1]
    later, first = record.alarms()
    assert (first.first, first.last, first.windows, first.peak) == (7, 19, 4, 41.0)
    assert (first.first_time, first.last_time) == (1.7e9 + 420, 1.7e9 + 1140)
    assert (later.first, later.last) == (30, 30)
    assert began[3] == (Alarm("pump-1", 30, 30, 1.7e9 + 1800, 1.7e9 + 1800, 1, 40.0),)


def test_what_was_refused_is_counted_and_not_taken_later(record: Record) -> None:
    assert record.take(message(0), None) == ()
    assert record.take(message(0), flagged(1)) is None
    (stream,) = record.streams()
    assert (stream.taken, stream.rejected, stream.windows, stream.missing) == (1, 1, 0, 0)


def test_what_is_kept_is_bounded(record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_SCORES", 25)
    monkeypatch.setattr(module, "MOST_ALARMS", 2)
    for at in range(6):
        record.take(message(at, 100 * at), flagged(0))
    assert len(record.latest(STREAM, 1000)) == 25
    assert [alarm.first for alarm in record.alarms()] == [500, 400]
    (stream,) = record.streams()
    assert stream.windows == 60


def test_the_page_shows_it_and_loads_nothing(record: Record, tmp_path: Path) -> None:
    for at in range(3):
        record.take(message(at + (at > 1), 10 * at, timed=at < 2), flagged(*range(at)))
    record.take(message(7, stream="1" * 32), None)
    name = "<script>alert(1)</script>"
    text = page.draw(record, dataclasses.replace(MODEL, name="pumps"))
    assert "pump-1" in text
    assert "2023-11-14" in text
    assert "8 messages are missing" in text
    assert "1 answers could not be decrypted" in text
    assert text.count("<svg") == 1
    assert not re.search(r"https?:|src=|href=|url\(|<script|@import", text)
    assert "default-src 'none'" in text
    assert name not in text
    page.write_page(tmp_path / "page.html", record, MODEL)
    assert (tmp_path / "page.html").stat().st_mode & 0o077 == 0
    with Record(tmp_path / "empty", MODEL, KEY) as empty:
        assert "None." in page.draw(empty, MODEL)


def test_moments_in_words() -> None:
    assert [page.moment(7, time) for time in (None, 90.0, 1.7e9)] == ["reading 7", "90 s", "2023-11-14 22:13:20"]
