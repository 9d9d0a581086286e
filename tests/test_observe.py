"""Logs carry sizes and digests, never records."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from securead import observe


@pytest.fixture(autouse=True)
def at_info(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    with caplog.at_level(logging.INFO, logger="securead"):
        yield


def logged(caplog: pytest.LogCaptureFixture) -> list[dict[str, object]]:
    return [json.loads(record.getMessage()) for record in caplog.records if record.name == "securead"]


def test_an_event_is_one_json_object_with_its_fields(caplog: pytest.LogCaptureFixture) -> None:
    before = time.time()
    observe.event("scored", rows=3, seconds=0.5, ok=True, model="tiny\nforged", note=None)
    (entry,) = logged(caplog)
    assert before - 1 <= entry.pop("time") <= time.time() + 1
    expected = {"event": "scored", "rows": 3, "seconds": 0.5, "ok": True, "model": "tiny\nforged", "note": None}
    assert entry == expected
    assert "\n" not in caplog.records[0].getMessage(), "a field cannot forge a second line"


PLAINTEXT = [
    np.zeros(3),
    np.float32(1.5),
    np.array(1.5),
    [1.0, 2.0],
    (1.0,),
    {"amount": 1.0},
    {1.0},
    b"records",
    bytearray(b"records"),
    memoryview(b"records"),
    "x" * 201,
    object(),
    ValueError("a message may quote a record"),
]


@pytest.mark.parametrize("value", PLAINTEXT, ids=lambda v: type(v).__name__)
def test_what_could_carry_records_is_refused_and_not_logged(caplog: pytest.LogCaptureFixture, value: object) -> None:
    with pytest.raises(TypeError, match=r"event field 'leak' is a .*never its content"):
        observe.event("scored", rows=1, leak=value)
    assert logged(caplog) == []


@pytest.mark.parametrize("level", [logging.WARNING, logging.CRITICAL])
def test_it_is_refused_even_when_nothing_would_be_logged(caplog: pytest.LogCaptureFixture, level: int) -> None:
    """Otherwise the leak would appear only on the day that somebody turns logging on."""
    with caplog.at_level(level, logger="securead"), pytest.raises(TypeError, match="leak"):
        observe.event("scored", leak=np.zeros(3))


def test_the_refusal_does_not_quote_the_value() -> None:
    with pytest.raises(TypeError) as refused:
        observe.event("scored", leak="4929123412341234 " * 20)
    assert "4929" not in str(refused.value)


def test_a_string_of_200_characters_passes(caplog: pytest.LogCaptureFixture) -> None:
    observe.event("scored", digest="x" * 200)
    assert logged(caplog)[0]["digest"] == "x" * 200


def test_a_span_logs_wall_and_cpu_seconds_and_its_fields(caplog: pytest.LogCaptureFixture) -> None:
    with observe.span("work", rows=5):
        time.sleep(0.05)
        assert logged(caplog) == [], "logged when the block ends"
    (entry,) = logged(caplog)
    assert (entry["event"], entry["rows"]) == ("work", 5)
    assert entry["wall_seconds"] >= 0.049
    assert 0 <= entry["cpu_seconds"] < entry["wall_seconds"], "sleeping costs wall time only"


def test_a_span_is_logged_when_the_work_fails_and_lets_the_error_pass(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(ZeroDivisionError), observe.span("work"):
        _ = 1 / 0
    assert [entry["event"] for entry in logged(caplog)] == ["work"]


def test_a_span_refuses_plaintext_before_the_work_not_in_place_of_its_error() -> None:
    worked = []
    with pytest.raises(TypeError, match="'leak' is a ndarray"), observe.span("work", leak=np.zeros(2)):
        worked.append(True)
    assert not worked


def test_counters_add_up_across_threads_and_come_as_a_copy() -> None:
    before = observe.counters().get("test.rows", 0)
    threads = [threading.Thread(target=lambda: [observe.count("test.rows", 2) for _ in range(500)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    observe.count("test.rows")
    assert observe.counters()["test.rows"] == before + 4001
    observe.counters()["test.rows"] = -1
    assert observe.counters()["test.rows"] == before + 4001


def test_the_library_is_silent_unless_the_application_listens() -> None:
    assert any(isinstance(handler, logging.NullHandler) for handler in logging.getLogger("securead").handlers)
