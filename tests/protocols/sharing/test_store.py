"""The leader's store of correlations: numbers increase, nothing is handed out twice, failures are told."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from securead.errors import RetryLaterError
from securead.protocols.sharing.store import Store


class Dealer:
    """Deals eight bytes a row; can be made slow or dead."""

    def __init__(self) -> None:
        self.dealt: list[tuple[int, int, bool]] = []
        self.pause, self.dead, self.closed = 0.0, False, False

    def seed(self) -> bytes:
        return bytes(32)

    def deal(self, set_id: int, rows: int, verdict: bool) -> memoryview:
        time.sleep(self.pause)
        self.check()
        self.dealt.append((set_id, rows, verdict))
        return memoryview(bytes(8 * rows))

    def check(self) -> None:
        if self.dead:
            raise RetryLaterError("the dealer is gone")

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def dealer() -> Dealer:
    return Dealer()


@pytest.fixture
def store(dealer: Dealer) -> Iterator[Store]:
    made = Store(dealer, limit=64, size_of=lambda rows, verdict: 8 * rows, wake=threading.Condition())
    yield made
    made.close()
    assert dealer.closed


def test_each_set_once_and_in_order(store: Store, dealer: Dealer) -> None:
    sets = [store.take(need, timeout=5) for need in [(1, False), (1, False), (2, True), (1, False)] * 5]
    numbers = [dealt.number for dealt in sets if dealt is not None]
    assert len(set(numbers)) == len(sets)
    for need in ((1, False), (2, True)):
        mine = [dealt.number for dealt in sets if dealt is not None and dealt.need == need]
        assert mine == sorted(mine)
    assert [number for number, _, _ in dealer.dealt] == list(range(1, len(dealer.dealt) + 1))


def test_what_is_put_back_comes_next(store: Store) -> None:
    first = store.take((4, False), timeout=5)
    assert first is not None
    store.put_back(first)
    assert store.take((4, False), timeout=5) is first


def test_a_limit_ahead(store: Store, dealer: Dealer) -> None:
    """Eight words at most are kept: one set of four rows beside the first, none of sixteen beyond the one asked for."""
    assert store.take((4, False), timeout=5) is not None
    assert store.take((16, False), timeout=5) is not None
    time.sleep(0.3)
    assert sum(8 * rows for _, rows, _ in dealer.dealt) - 8 * 20 <= 64
    assert [rows for _, rows, _ in dealer.dealt].count(16) == 1


def test_nothing_ahead_while_busy(store: Store, dealer: Dealer) -> None:
    store.working(True)
    assert store.take((1, False), timeout=5) is not None
    time.sleep(0.2)
    assert len(dealer.dealt) == 1
    store.working(False)
    time.sleep(0.2)
    assert len(dealer.dealt) == 3


def test_a_slow_dealer_is_waited_for_in_pieces(store: Store, dealer: Dealer) -> None:
    dealer.pause = 0.3
    assert store.take((1, False), timeout=0.05) is None
    assert store.take((1, False), timeout=5) is not None


def test_a_dead_dealer_is_noticed_while_idle(store: Store, dealer: Dealer) -> None:
    store.check()
    dealer.dead = True
    time.sleep(1.2)
    with pytest.raises(RetryLaterError, match="gone"):
        store.check()
    with pytest.raises(RetryLaterError, match="gone"):
        store.take((1, False), timeout=5)


def test_a_dealer_that_is_slow_to_answer_is_in_nobodys_way(dealer: Dealer, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it is asked whether it is there, requests and clients are still heard."""
    asked, answer, wake = threading.Event(), threading.Event(), threading.Condition()

    def check() -> None:
        asked.set()
        answer.wait(10)

    monkeypatch.setattr(dealer, "check", check)
    made = Store(dealer, limit=64, size_of=lambda rows, verdict: 8 * rows, wake=wake)
    try:
        assert asked.wait(5)
        assert wake.acquire(timeout=1.0)
        wake.release()
    finally:
        answer.set()
        made.close()
