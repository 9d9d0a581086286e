"""A lane's front door: takes connections in, reads requests completely, checks them, and hands answers out.

Guarantees: a request is in memory completely, of the size that its rows need, and hashes to what its header says
before the lane hears of it; at most `connections` clients are held, of one name at most half as many, and each has at
most one request in work, so memory is bounded; a client that vanishes costs its connection and nothing else; neither
strangers nor clients can take the places of the peer's links. It imports no CrypTen: its threads never touch the
computation.
"""

from __future__ import annotations

import functools
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from securead.errors import FixConfigurationError, RejectMessageError, RetryLaterError, SecureadError
from securead.observe import count, event
from securead.protocols.sharing import messages
from securead.protocols.sharing.arrivals import Arrivals
from securead.protocols.sharing.channel import SLOWEST, Channel, LinkError
from securead.protocols.sharing.links import Listener
from securead.protocols.sharing.messages import Answer, Greeting, Kind, Refusal, Request, Waiting
from securead.protocols.sharing.plan import MAX_REQUEST_BYTES

PARTIES = ("party0", "party1")
RESERVED = (*PARTIES, "dealer")
REQUESTS_PER_CONNECTION = 4096  # request ids are remembered per connection: this bounds how many
_IDLE_SECONDS = 60.0
_WAITING_SECONDS = 60.0
# Party 1 has its share, a seed, before the client begins to send party 0 what may take as long as this.
_UPLOAD_SECONDS = MAX_REQUEST_BYTES / SLOWEST
_BEAT_SECONDS = 1.0
_LINKS = 4  # of the peer, taken in at a time
_REFUSALS, _REFUSALS_OF_ONE = 8, 2  # clients that are told at a time why not, of one name; on others we hang up
_POSTPONED_SECONDS = 0.01
_PATIENCE_SECONDS = 2.0
_LINGER_SECONDS = 0.5


@dataclass(frozen=True)
class Facts:
    """What a lane is, as it tells peers and clients.

    `payload_bytes(rows)`: what this party is sent for so many; `bucket(rows)`: with how many it computes them.
    """

    index: int
    lane: int
    program: str
    plan: str
    verdicts_only: bool
    max_rows: int
    payload_bytes: Callable[[int], int] = field(repr=False)
    bucket: Callable[[int], int] = field(repr=False)


@dataclass(eq=False)
class Pending:
    """A request that is here completely. `finish` and `fail` may be called once, from the computing thread."""

    request: Request
    client: str
    payload: bytearray = field(repr=False)
    since: float = field(default_factory=time.monotonic)
    not_before: float = 0.0
    computing: bool = False
    cancelled: bool = False
    done: threading.Event = field(default_factory=threading.Event, repr=False)
    answer: Answer | None = None
    share: bytes = field(default=b"", repr=False)
    error: SecureadError | None = None

    def finish(self, answer: Answer, share: bytes) -> None:
        """Hand the result out."""
        self.answer, self.share = answer, share
        self.done.set()

    def fail(self, error: SecureadError) -> None:
        """Hand an error out instead."""
        self.error = error
        self.done.set()


class Reception:
    """A thread for each connection to `listener`; the lane's main thread takes requests from it.

    `wake` is notified when a request arrives. `on_link` is given the peer's connections. `clients`: the names that may
    ask, or none for all of this authority.
    """

    def __init__(
        self,
        listener: Listener,
        facts: Facts,
        *,
        wake: threading.Condition,
        on_link: Callable[[Channel], None] | None,
        clients: tuple[str, ...] = (),
        connections: int = 16,
    ) -> None:
        self.facts = facts
        self._listener, self._wake, self._on_link = listener, wake, on_link
        self._clients, self._limit = frozenset(clients), connections
        self._waiting: dict[tuple[str, str, int], Pending] = {}
        self._held, self._refused, self._links = Counter[str](), Counter[str](), Counter[str]()
        self._closing = False
        self._ready, self._state = False, "is starting"

    def start(self) -> None:
        """Accept connections from now on."""
        arrivals = Arrivals(self._listener, greet=self._admit, refuse=_turned_away)
        threading.Thread(target=arrivals.run, name="arrivals", daemon=True).start()

    def close(self) -> None:
        """Accept no more, and give answers that are ready a moment to leave."""
        self._closing = True
        deadline = time.monotonic() + 1.0
        while self._held.total() and time.monotonic() < deadline:
            with self._wake:
                if not any(pending.done.is_set() for pending in self._waiting.values()):
                    break
            time.sleep(0.01)
        self._listener.close()

    # For the lane's main thread.

    def set_state(self, ready: bool, state: str) -> None:
        """What clients are told from now on."""
        with self._wake:
            # What another process said may be in it, at length; a greeting has a limit.
            self._ready, self._state = ready, state[: messages.MAX_TEXT]

    def take(self) -> Pending | None:
        """The request that has waited longest and may be computed, marked so; or None. Call it holding `wake`."""
        now = time.monotonic()
        for pending in self._waiting.values():
            open_ = not (pending.computing or pending.cancelled or pending.done.is_set())
            if open_ and pending.not_before <= now:
                pending.computing = True
                return pending
        return None

    def pause(self, most: float) -> float:
        """How long to wait for `wake`, at most `most`: shorter while a request is postponed. Call it holding `wake`."""
        return _POSTPONED_SECONDS if any(not (p.computing or p.cancelled) for p in self._waiting.values()) else most

    def postpone(self, pending: Pending) -> None:
        """Try a request again in a moment: the other party does not have it yet. Not for ever."""
        with self._wake:
            pending.computing = False
            pending.not_before = time.monotonic() + _POSTPONED_SECONDS
            key = (pending.client, pending.request.request, pending.request.attempt)
            if self._waiting.get(key) is pending:  # behind all others: who never sends the rest is not to be in the way
                self._waiting[key] = self._waiting.pop(key)
        if time.monotonic() - pending.since > _PATIENCE_SECONDS:
            pending.fail(
                RetryLaterError(
                    f"{PARTIES[1]} did not get its share of this request",
                    remedy="Send both parties their shares; if you did, send the request again.",
                )
            )

    def find(self, client: str, request: str, attempt: int, *, timeout: float) -> Pending | None:
        """The request of that client, id and attempt, marked as being computed, once it has arrived; or None."""
        with self._wake:
            self._wake.wait_for(lambda: (client, request, attempt) in self._waiting, timeout)
            pending = self._waiting.get((client, request, attempt))
            if pending is None or pending.computing or pending.done.is_set():
                return None
            pending.computing = True
            return pending

    def fail_all(self, error: SecureadError) -> None:
        """Refuse whatever is in work: the session it would have been computed in is lost."""
        with self._wake:
            for pending in self._waiting.values():
                if not pending.done.is_set():
                    pending.fail(error)

    # Threads.

    def _admit(self, channel: Channel) -> None:
        """Give a verified connection a thread, or hang up; waits for nobody."""
        name, on_link = channel.peer, self._on_link
        with self._wake:
            if name == PARTIES[1] and on_link is not None:
                places, room, talk = self._links, self._links[name] < _LINKS, on_link
            elif (error := self._reason_to_refuse(name)) is None:
                places, room, talk = self._held, True, self._converse
            else:
                room = self._refused[name] < _REFUSALS_OF_ONE and self._refused.total() < _REFUSALS
                places, talk = self._refused, functools.partial(_refuse, error=error)
            if self._closing or not room:
                channel.close()
                count("sharing.connections_refused")
                return
            places[name] += 1
        try:
            threading.Thread(target=self._attend, args=(channel, places, talk), name="reception", daemon=True).start()
        except BaseException:
            self._leave(places, name)
            raise

    def _attend(self, channel: Channel, places: Counter[str], talk: Callable[[Channel], None]) -> None:
        try:
            talk(channel)
        except LinkError as error:
            event("sharing.client_left", client=channel.peer, reason=str(error)[:200])
        except Exception as error:  # a bug: its place is worth knowing
            event("sharing.failure", error=type(error).__name__)
            traceback.print_exception(error)
        finally:
            # A failure leaves no word: those that the client can act upon were sent before.
            if places is not self._links:
                channel.close()
            self._leave(places, channel.peer)

    def _leave(self, places: Counter[str], name: str) -> None:
        with self._wake:
            places[name] -= 1
            if not places[name]:
                del places[name]

    def _reason_to_refuse(self, name: str) -> SecureadError | None:
        here = PARTIES[self.facts.index]
        if name in RESERVED or (self._clients and name not in self._clients):
            return FixConfigurationError(
                f"a certificate named {name!r} may not ask {here} for scores",
                remedy=f"Use a client's certificate, or add the name to `clients` in {here}'s configuration.",
            )
        if self._held.total() >= self._limit:
            return RetryLaterError(f"{here} holds {self._limit} clients and takes no more", remedy="Try again soon.")
        most = (self._limit + 1) // 2  # so that nobody alone can keep all others out
        if self._held[name] >= most:
            return RetryLaterError(
                f"{here} holds {most} connections of {name!r} and takes no more", remedy="Close some, or ask in turn."
            )
        return None

    def _converse(self, channel: Channel) -> None:
        """Greet a client and serve its requests one after the other until it hangs up."""
        nonce, seen = messages.new_id(), set[tuple[str, int]]()
        with self._wake:
            greeting = Greeting(
                version=messages.VERSION,
                program=self.facts.program,
                plan=self.facts.plan,
                index=self.facts.index,
                lane=self.facts.lane,
                nonce=nonce,
                ready=self._ready,
                busy=bool(self._waiting),
                verdicts_only=self.facts.verdicts_only,
                state=self._state,
            )
        _reply(channel, greeting)
        while len(seen) < REQUESTS_PER_CONNECTION:
            header = channel.receive(Kind.REQUEST, limit=messages.MAX_HEADER_BYTES, timeout=_IDLE_SECONDS)
            try:
                pending = self._read_request(channel, bytes(header), nonce, seen)
                self._answer(channel, pending)
            except LinkError:
                raise
            except SecureadError as error:
                count("sharing.requests_refused")
                event("sharing.refused", client=channel.peer, error=type(error).__name__, reason=error.what[:200])
                _refuse(channel, error)
                return

    def _read_request(self, channel: Channel, header: bytes, nonce: str, seen: set[tuple[str, int]]) -> Pending:
        facts = self.facts
        request = messages.from_bytes(Request, header, sender=channel.peer)
        self._check(request, nonce, seen, channel.peer)
        seen.add((request.request, request.attempt))
        payload = channel.receive(Kind.PAYLOAD, exact=facts.payload_bytes(request.rows))
        if messages.hash_of(payload) != request.hashes[facts.index]:
            raise RejectMessageError(
                "a request's payload is not what its header says",
                remedy="It was mixed up or changed on the way: send the request again.",
            )
        pending = Pending(request, channel.peer, payload)
        with self._wake:
            if not self._ready:
                raise RetryLaterError(f"{PARTIES[facts.index]} {self._state}", remedy="Try again in a moment.")
            key = (pending.client, request.request, request.attempt)
            if key in self._waiting:
                raise RejectMessageError("this request is in work already", remedy="Wait for its answer.")
            self._waiting[key] = pending
            self._wake.notify_all()
        return pending

    def _check(self, request: Request, nonce: str, seen: set[tuple[str, int]], sender: str) -> None:
        facts = self.facts
        messages.refuse_mismatch(request.program, request.plan, ours=(facts.program, facts.plan), sender=sender)
        if request.nonces[facts.index] != nonce or request.lane != facts.lane:
            raise RejectMessageError(
                "a request was made for another connection",
                remedy="Requests cannot be replayed: make a new one.",
            )
        if (request.request, request.attempt) in seen:
            raise RejectMessageError("a request came twice", remedy="Requests cannot be replayed: make a new one.")
        if request.attempt == 1 and (request.request, 0) not in seen:
            raise RejectMessageError(
                "a second attempt at a request that was not made", remedy="A request is computed anew at most once."
            )
        if request.rows > facts.max_rows:
            raise RejectMessageError(
                "a request has too many rows", value=request.rows, remedy=f"At most {facts.max_rows} fit."
            )
        if facts.verdicts_only and not request.verdict:
            raise RejectMessageError(
                "the model's owner allows verdicts only", remedy="Ask for verdicts (securead score --verdicts)."
            )

    def _answer(self, channel: Channel, pending: Pending) -> None:
        request = pending.request
        most = _WAITING_SECONDS + (_UPLOAD_SECONDS if self.facts.index == 1 else 0.0)
        try:
            while not pending.done.wait(_BEAT_SECONDS):
                if not pending.computing and time.monotonic() - pending.since > most:
                    raise RetryLaterError("this request's turn did not come", remedy="Try again later.")
                _reply(channel, Waiting(request.request, "computing" if pending.computing else "waiting"))
            if pending.error is not None:
                raise pending.error
            if pending.answer is None:
                raise ValueError("a request was finished with neither an answer nor an error")
            _reply(channel, pending.answer)
            channel.send(Kind.PAYLOAD, pending.share)
        finally:
            with self._wake:
                pending.cancelled = True
                self._waiting.pop((pending.client, request.request, request.attempt), None)


def _reply(channel: Channel, message: Greeting | Waiting | Answer | Refusal) -> None:
    channel.send(Kind.REPLY, messages.to_bytes(message))


def _turned_away(error: LinkError) -> None:
    """A stranger, or somebody who gave up: theirs to notice."""
    count("sharing.connections_refused")
    event("sharing.connection_refused", reason=str(error)[:200])


def _refuse(channel: Channel, error: SecureadError) -> None:
    _reply(channel, Refusal.of(error))
    channel.close(linger=_LINGER_SECONDS)  # who is still sending shall read this rather than be told of a reset
