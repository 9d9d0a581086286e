"""Handshakes with all who call, side by side in one thread: who is silent delays nobody.

Guarantees: nothing is waited for but the next event of any connection, and each handshake ends with the listener's
timeout. At most `MOST` are open, from one address (of IPv6: one /64, which is what one caller gets) at most
`MOST_OF_ONE`; beyond that the oldest is dropped, of the address that has most. Who speaks is through after two round
trips, so it is those who do not that are dropped. Certificates are checked as in `links`.
"""

from __future__ import annotations

import contextlib
import ipaddress
import select
import time
import traceback
from collections import Counter
from collections.abc import Callable

from securead.observe import event
from securead.protocols.sharing.channel import Channel, LinkError
from securead.protocols.sharing.links import Arrival, Listener

MOST = 64
MOST_OF_ONE = 16
_LOOK_SECONDS = 0.5  # how soon the end of a listener is noticed that was closed in a bad moment


class Arrivals:
    """Takes in whoever calls at `listener`. `greet` is given verified connections, `refuse` why others failed.

    Both are called in the thread of `run` and must not wait for anybody.
    """

    def __init__(
        self, listener: Listener, *, greet: Callable[[Channel], None], refuse: Callable[[LinkError], None]
    ) -> None:
        self._listener, self._greet, self._refuse = listener, greet, refuse
        self._open: dict[Arrival, int] = {}  # and what each waits for; the oldest first

    def run(self) -> None:
        """Take connections in until the listener is closed."""
        while not self._listener.closed:
            try:
                self._round()
            except Exception as error:
                if not self._listener.closed:  # a bug: its place is worth knowing, and the door must stay open
                    event("sharing.failure", error=type(error).__name__)
                    traceback.print_exception(error)
                    time.sleep(0.05)
        for arrival in list(self._open):
            self._drop(arrival)

    def _round(self) -> None:
        poll, waiting = select.poll(), {arrival.fileno(): arrival for arrival in self._open}
        poll.register(self._listener, select.POLLIN)
        for number, arrival in waiting.items():
            poll.register(number, self._open[arrival])
        now = time.monotonic()
        left = min((arrival.deadline - now for arrival in self._open), default=_LOOK_SECONDS)
        ready = [number for number, _ in poll.poll(max(0.0, min(left, _LOOK_SECONDS)) * 1000)]
        # Whoever has spoken goes on before a new one can take its place.
        for number in ready:
            if number in waiting:
                self._advance(waiting[number])
        now = time.monotonic()
        for arrival in [each for each in self._open if each.deadline <= now]:
            self._drop(arrival)
            self._refuse(LinkError("no handshake with the caller: timed out"))
        if any(number not in waiting for number in ready) and (arrived := self._listener.take()) is not None:
            self._open[arrived] = select.POLLIN
            self._advance(arrived)
            self._make_room()

    def _advance(self, arrival: Arrival) -> None:
        try:
            reached = arrival.advance()
        except LinkError as error:
            self._open.pop(arrival)
            self._refuse(error)
            return
        except BaseException:
            self._drop(arrival)
            raise
        if isinstance(reached, int):
            self._open[arrival] = reached
            return
        self._open.pop(arrival)
        try:
            self._greet(reached)
        except BaseException:
            reached.close()
            raise

    def _make_room(self) -> None:
        places = Counter(_place(arrival.host) for arrival in self._open)
        for place, number in places.most_common(1):
            if number > MOST_OF_ONE or len(self._open) > MOST:
                self._drop(next(arrival for arrival in self._open if _place(arrival.host) == place))
                self._refuse(LinkError("no handshake with the caller: too many at a time"))

    def _drop(self, arrival: Arrival) -> None:
        self._open.pop(arrival, None)
        with contextlib.suppress(OSError):
            arrival.close()


def _place(host: str) -> str:
    """What an address counts as."""
    address = ipaddress.ip_address(host.partition("%")[0])
    return address.exploded[:19] if address.version == 6 else host
