"""The leader's correlations, fetched ahead of demand by a thread that owns the link to the dealer.

Guarantees: set numbers strictly increase over a session; a set is handed out once, and what is put back was never
shown to anyone; what is held ahead stays below a limit of bytes. A failure of the dealer is told at once and ends the
session, and every set that was not used ends with it.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from securead.errors import RetryLaterError, SecureadError
from securead.observe import count

_REMEMBERED = 4  # kinds of request that are prepared for
_AHEAD = 2
_CHECK_SECONDS = 0.5

Need = tuple[int, bool]
"""Rows, as a power of two, and whether verdicts are asked for."""


class Supplier(Protocol):
    """A session's link to the dealer; a `supply.Supply`."""

    def seed(self) -> bytes:
        """This party's seed, once both parties have joined. Called once."""

    def deal(self, set_id: int, rows: int, verdict: bool) -> memoryview:
        """The leader's corrections of one set."""

    def check(self) -> None:
        """Raise when the dealer is gone."""

    def close(self) -> None: ...


@dataclass(frozen=True, eq=False)
class Dealt:
    """One set: its number, what it is for, and the leader's corrections."""

    number: int
    need: Need
    corrections: memoryview = field(repr=False)


class Store:
    """Sets from `supplier`, at most `limit` bytes ahead of demand; `size_of(rows, verdict)` is the size of one."""

    def __init__(
        self, supplier: Supplier, *, limit: int, size_of: Callable[[int, bool], int], wake: threading.Condition
    ) -> None:
        self._supplier, self._limit, self._size_of, self._wake = supplier, limit, size_of, wake
        self._sets: OrderedDict[Need, deque[Dealt]] = OrderedDict()  # the most recently used need last
        self._demand: Need | None = None
        self._busy = False
        self._number = 0
        self._failure: SecureadError | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="store", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise `RetryLaterError` when the dealer is gone."""
        if self._failure is not None:
            raise RetryLaterError(self._failure.what, remedy=self._failure.remedy) from self._failure

    def take(self, need: Need, *, timeout: float) -> Dealt | None:
        """A set for `need`, ordered from the dealer if none is there; None when it has not come within `timeout`."""
        with self._wake:
            self._demand = need
            self._sets.setdefault(need, deque())
            self._sets.move_to_end(need)
            self._wake.notify_all()
            self._wake.wait_for(lambda: self._sets[need] or self._failure is not None, timeout)
            self.check()
            if not self._sets[need]:
                return None
            self._demand = None
            return self._sets[need].popleft()

    def put_back(self, dealt: Dealt) -> None:
        """Return a set of which nothing was used or told: the next request of its kind gets it."""
        with self._wake:
            self._sets.setdefault(dealt.need, deque()).appendleft(dealt)

    def working(self, busy: bool) -> None:
        """While a request is computed nothing is fetched ahead."""
        with self._wake:
            self._busy = busy
            self._wake.notify_all()

    def close(self) -> None:
        """Forget all sets and hang up."""
        with self._wake:
            self._closed = True
            self._sets.clear()
            self._wake.notify_all()
        self._supplier.close()
        self._thread.join(1.0)

    def _run(self) -> None:
        try:
            while (need := self._next()) is not None:
                self._number += 1
                dealt = Dealt(self._number, need, self._supplier.deal(self._number, *need))
                count("sharing.sets_dealt")
                with self._wake:
                    if not self._closed:
                        self._sets.setdefault(need, deque()).append(dealt)
                        self._forget()
                    self._wake.notify_all()
                del dealt
        except SecureadError as error:
            with self._wake:
                self._failure = error
                self._wake.notify_all()

    def _next(self) -> Need | None:
        """What to fetch next; waits until there is something. None at the end."""
        checked = time.monotonic()
        while True:
            with self._wake:
                while (left := checked + _CHECK_SECONDS - time.monotonic()) > 0 and not self._closed:
                    if self._demand is not None and not self._sets[self._demand]:
                        return self._demand
                    if not self._busy and (ahead := self._worth_having()) is not None:
                        return ahead
                    self._wake.wait(left)
                if self._closed:
                    return None
            # Not holding `wake`, which everyone else in the lane needs: the dealer may be slow to answer.
            self._supplier.check()
            checked = time.monotonic()

    def _worth_having(self) -> Need | None:
        held = sum(len(dealt.corrections) for sets in self._sets.values() for dealt in sets)
        for need in reversed(self._sets):
            if len(self._sets[need]) < _AHEAD and held + self._size_of(*need) <= self._limit:
                return need
        return None

    def _forget(self) -> None:
        """Drop what has not been asked for lately."""
        while len(self._sets) > _REMEMBERED:
            self._sets.popitem(last=False)
