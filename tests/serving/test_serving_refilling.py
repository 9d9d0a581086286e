"""Idle time: what it makes, for whom, how much, and that it keeps out of the way of requests."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from securead.errors import RegisterKeyError
from securead.protocols.engine import RefillableKey
from securead.serving import refilling
from securead.serving.refilling import IdleRefill
from securead.serving.registered import RegisteredKeys


@dataclass(frozen=True)
class Plan:
    digest: str = "p"
    evaluation_key_bytes: int = 100


@dataclass(frozen=True)
class Plain:
    """A key of an engine that makes nothing ahead."""

    key_id: str


@dataclass(eq=False)
class Key:
    key_id: str
    held_bytes: int = 0
    made: int = 0
    on_make: Callable[[], None] = field(default=lambda: None, repr=False)

    def refill(self, limit: int | None = None) -> int:
        if limit is not None:
            self.held_bytes = min(self.held_bytes, limit // 10 * 10)
            if self.held_bytes + 10 > limit:
                return 0
        self.on_make()
        self.held_bytes += 10
        self.made += 1
        return 10


@pytest.fixture(autouse=True)
def short_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refilling, "QUIET_SECONDS", 0.01)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def kept(*all_keys: Key | Plain) -> RegisteredKeys:
    keys = RegisteredKeys()
    for key in all_keys:
        keys.put("m", Plan(), key)
    return keys


def settled(idle: IdleRefill) -> None:
    until(lambda: not idle._news)
    time.sleep(0.02)


def test_keys_that_can_are_filled_and_the_time_is_told() -> None:
    key, seconds = Key("a"), list[float]()
    assert isinstance(key, RefillableKey)
    assert not isinstance(Plain("b"), RefillableKey)
    with IdleRefill(kept(Plain("b"), key, Plain("c")), seconds.append, key_bytes=35) as idle:
        until(lambda: key.held_bytes == 30)
        settled(idle)
    assert (key.held_bytes, key.made, len(seconds)) == (30, 3, 3)


def test_only_the_keys_used_last_hold_anything() -> None:
    a, b, c = Key("a"), Key("b"), Key("c")
    keys = kept(a, b, c)
    with IdleRefill(keys, lambda _: None, keys_filled=2, key_bytes=20) as idle:
        until(lambda: c.held_bytes == b.held_bytes == 20)
        settled(idle)
        assert a.made == 0
        with idle.held_off():
            keys.get("m", Plan(), "a")
        until(lambda: a.held_bytes == 20)
    assert (b.held_bytes, c.held_bytes) == (0, 20), "the bound is on all of them together"


def test_many_keys_cost_less_than_an_item() -> None:
    """A service that holds its thousand keys looks for work in a fraction of a millisecond."""
    keys = kept(*(Key(str(at), held_bytes=20 if at >= 1016 else 0) for at in range(1024)))
    idle = IdleRefill(keys, lambda _: None, keys_filled=8, key_bytes=20)
    spent = []
    for _ in range(10):
        start = time.thread_time()
        assert not idle._make_one()
        spent.append(time.thread_time() - start)
    assert min(spent) < 0.003


def test_nothing_is_begun_while_a_request_is_in_progress() -> None:
    key = Key("a")
    idle = IdleRefill(kept(key), lambda _: None, key_bytes=20)
    with idle.held_off(), idle:
        with idle.held_off():
            time.sleep(0.05)
        time.sleep(0.05)
        assert key.made == 0, "the outer request is still there"
    with idle:
        until(lambda: key.held_bytes == 20)


def test_a_request_never_waits_for_the_thread() -> None:
    began, leave = threading.Event(), threading.Event()

    def slow() -> None:
        began.set()
        assert leave.wait(10)

    with IdleRefill(kept(Key("a", on_make=slow)), lambda _: None, key_bytes=10) as idle:
        assert began.wait(10)
        start = time.monotonic()
        with idle.held_off():
            assert time.monotonic() - start < 1
        leave.set()


def test_used_items_are_made_again_after_the_request() -> None:
    key = Key("a")
    with IdleRefill(kept(key), lambda _: None, key_bytes=20) as idle:
        until(lambda: key.held_bytes == 20)
        with idle.held_off():
            key.held_bytes -= 10
        until(lambda: key.held_bytes == 20)
    assert key.made == 3


def test_the_thread_ends_with_the_block_and_not_otherwise() -> None:
    idle = IdleRefill(kept(Key("a")), lambda _: None, key_bytes=20)
    before = threading.active_count()
    for _ in range(3):
        with idle:
            assert threading.active_count() == before + 1
        assert threading.active_count() == before


def test_a_failure_ends_the_filling_until_the_next_request() -> None:
    tried = []

    def fail_once() -> None:
        tried.append(1)
        if len(tried) == 1:
            raise MemoryError

    key = Key("a", on_make=fail_once)
    with IdleRefill(kept(key), lambda _: None, key_bytes=20) as idle:
        until(lambda: len(tried) == 1)
        settled(idle)
        assert (key.made, len(tried)) == (0, 1)
        with idle.held_off():
            pass
        until(lambda: key.held_bytes == 20)


def test_what_a_forgotten_key_held_is_forgotten() -> None:
    keys = RegisteredKeys(max_keys=1)
    key = Key("a")
    gone = weakref.ref(key)
    keys.put("m", Plan(), key)
    with IdleRefill(keys, lambda _: None, key_bytes=20) as idle:
        until(lambda: gone().held_bytes == 20)  # type: ignore[union-attr]
        settled(idle)
        del key
        with idle.held_off():
            keys.put("m", Plan(), Plain("b"))
        settled(idle)
        gc.collect()
        assert gone() is None
    with pytest.raises(RegisterKeyError):
        keys.get("m", Plan(), "a")


def test_the_same_key_again_keeps_what_it_holds() -> None:
    keys, key = RegisteredKeys(), Key("a", held_bytes=10)
    keys.put("m", Plan(), key)
    keys.put("m", Plan(), Key("a"))
    assert keys.get("m", Plan(), "a") is key


def test_the_bound_is_sensible() -> None:
    assert 32 << 20 <= refilling.KEYS * refilling.KEY_BYTES <= 128 << 20
