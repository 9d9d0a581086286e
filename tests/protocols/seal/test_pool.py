"""The pool: an item is used once, whatever threads and forks do, and memory is bounded."""

from __future__ import annotations

import copy
import gc
import itertools
import os
import pickle
import threading
import weakref
from typing import Any

import pytest

from securead.protocols.seal.pool import Pool


def counting(item_bytes: int = 10) -> Pool[int]:
    numbers = itertools.count()
    return Pool(lambda: next(numbers), item_bytes)


def test_items_leave_in_order_and_are_made_at_once_when_none_waits() -> None:
    pool = counting()
    assert [pool.refill(), pool.refill()] == [10, 10]
    assert pool.held_bytes == 20
    assert [pool.take() for _ in range(4)] == [0, 1, 2, 3]
    assert pool.held_bytes == 0


def test_it_holds_no_more_than_the_limit() -> None:
    pool = counting()
    assert [pool.refill(25) for _ in range(4)] == [10, 10, 0, 0]
    assert pool.held_bytes == 20
    assert pool.refill(9) == 0
    assert pool.held_bytes == 0, "what exceeds the limit is dropped"
    assert counting(item_bytes=100).refill(99) == 0


def test_dropped_items_are_never_used() -> None:
    pool = counting()
    pool.refill()
    assert pool.refill(0) == 0
    assert pool.take() == 1


def test_threads_share_no_item() -> None:
    """Takers and fillers at once: every item is seen once, and the bound holds at every moment."""
    pool, taken, most = counting(), [], [0]

    def take() -> None:
        taken.extend(pool.take() for _ in range(5000))

    def fill() -> None:
        for _ in range(3000):
            pool.refill(50)
            most[0] = max(most[0], pool.held_bytes)

    threads = [threading.Thread(target=work) for work in (take, fill, take, fill, take)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == len(set(taken)) == 15_000
    assert most[0] <= 50


def test_fillers_at_work_count() -> None:
    """Two threads that make the last item that fits at the same time: one of them finds no room."""
    inside, leave = threading.Event(), threading.Event()

    def slow() -> int:
        inside.set()
        assert leave.wait(10)
        return 0

    pool = Pool(slow, 10)
    thread = threading.Thread(target=pool.refill, args=(10,))
    thread.start()
    assert inside.wait(10)
    assert pool.refill(10) == 0
    leave.set()
    thread.join()
    assert pool.held_bytes == 10


def test_a_failure_leaves_the_room_free() -> None:
    outcomes = iter([MemoryError(), None])

    def make() -> None:
        problem = next(outcomes)
        if problem:
            raise problem

    pool = Pool(make, 10)
    with pytest.raises(MemoryError):
        pool.refill(10)
    assert pool.refill(10) == 10


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a system without fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_finds_it_empty_even_in_the_middle_of_a_call() -> None:
    pool = counting()
    for _ in range(3):
        pool.refill()
    with pool._lock:  # as if another thread were at work
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                held = pool.held_bytes
                pool.refill(10)
                os.write(write, bytes([held, pool.held_bytes, pool.take()]))
            finally:
                os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 3) == bytes([0, 10, 3]), "the child made its own"
    os.close(read)
    os.close(write)
    assert [pool.take() for _ in range(3)] == [0, 1, 2], "the parent keeps what it has"


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps], ids=lambda f: f.__name__)
def test_it_cannot_be_copied(duplicate: Any) -> None:
    with pytest.raises(TypeError, match="used once"):
        duplicate(counting())


def test_it_goes_with_whoever_holds_it() -> None:
    pool = counting()
    gone = weakref.ref(pool)
    del pool
    gc.collect()
    assert gone() is None
