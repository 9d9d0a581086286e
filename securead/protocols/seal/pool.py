"""What an answer uses up, made ahead of time: every item is handed out once, by the process that made it.

Masks do not depend on the request, so idle time can make them. An item that was used twice would be no mask: the
difference of two answers would show the difference of two scores. So an item leaves the pool when it is taken, under a
lock; a pool cannot be copied or pickled; and a forked child finds every pool empty, because what its parent holds the
parent will use.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, NoReturn, TypeVar

T = TypeVar("T")


class Pool(Generic[T]):
    """Items of `item_bytes` bytes each that `make` makes; safe to use from several threads, as `make` must be."""

    def __init__(self, make: Callable[[], T], item_bytes: int) -> None:
        self._make, self._item_bytes = make, item_bytes
        self._empty()
        _POOLS.add(self)

    @property
    def held_bytes(self) -> int:
        """What the items that wait weigh."""
        return len(self._items) * self._item_bytes

    def take(self) -> T:
        """The item that has waited longest, never to be seen again; a fresh one, made at once, where none waits."""
        with self._lock:
            if self._items:
                return self._items.popleft()
        return self._make()

    def refill(self, limit: int | None = None) -> int:
        """Make one item, unless more than `limit` bytes would wait then: the bytes it added, 0 for none.

        Items that exceed the limit already are dropped unused: 0 empties the pool. Without a limit one is made.
        """
        with self._lock:
            while limit is not None and self.held_bytes > limit:
                self._items.pop()
            if limit is not None and self.held_bytes + (self._in_work + 1) * self._item_bytes > limit:
                return 0
            self._in_work += 1
        try:
            item = self._make()
        finally:
            with self._lock:
                self._in_work -= 1
        with self._lock:
            self._items.append(item)
        return self._item_bytes

    def _empty(self) -> None:
        self._items: deque[T] = deque()
        self._in_work = 0
        self._lock = threading.Lock()

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a pool is not copied: what it holds is used once")


_POOLS: weakref.WeakSet[Pool[Any]] = weakref.WeakSet()


def _empty_all() -> None:
    """In a forked child. Locks are new, too: another thread of the parent may have held one."""
    for pool in list(_POOLS):
        pool._empty()


# Where there is no fork there is nothing to guard.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_empty_all)
