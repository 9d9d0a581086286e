"""How the two parties open a session: links paired, what they serve compared, keys exchanged, the dealer joined.

Guarantees: before anything is computed both parties have agreed on version, program, plan, split and lane; a session
is named by fresh randomness and keyed by fresh keys of both parties and the dealer, which die with it. Its two links
share their fate, so when one party gives up the other notices at once, or, when the one is stuck, after `silence`.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import threading
from dataclasses import dataclass, field
from typing import Protocol

from securead.errors import RejectMessageError, SecureadError
from securead.observe import event
from securead.protocols.sharing import messages
from securead.protocols.sharing.channel import Channel, LinkError
from securead.protocols.sharing.links import Address, Identity, dial
from securead.protocols.sharing.messages import (
    Hello,
    Kind,
    LinkMessage,
    Ready,
    Refusal,
    Request,
    Welcome,
)
from securead.protocols.sharing.reception import PARTIES, Facts
from securead.protocols.sharing.store import Dealt, Supplier

KEY_BYTES = 32
_MAX_TOKENS = 4


@dataclass(frozen=True)
class Cost:
    """What computing a request took at one party."""

    seconds: float
    rounds: int
    bytes_sent: int
    bytes_received: int


class Computing(Protocol):
    """The computation of one party, keyed for one session. Used by the main thread alone."""

    def compute(self, request: Request, payload: bytearray, number: int, dealt: Dealt | None) -> tuple[bytes, Cost]:
        """This party's share of the answer, from its payload and set `number` (`dealt` at the leader)."""

    def stop(self) -> None:
        """Forget keys, correlations and state."""


class Machine(Protocol):
    """What starts computations: CrypTen in a lane, something simpler in tests."""

    def supply(self, session: str) -> Supplier:
        """Join a session at the dealer; does not wait for the other party."""

    def start(self, pair: Pair, ring_key: bytes, seed: bytes) -> Computing:
        """Compute over these links with these keys."""


@dataclass(frozen=True, eq=False)
class Pair:
    """Two links: the leader sends on `down` and hears on `up`."""

    down: Channel
    up: Channel
    index: int

    @property
    def outgoing(self) -> Channel:
        return self.down if self.index == 0 else self.up

    @property
    def incoming(self) -> Channel:
        return self.up if self.index == 0 else self.down

    def say(self, message: LinkMessage) -> None:
        """Send a message to the other party."""
        self.outgoing.send(Kind.LINK, messages.to_bytes(message))

    def hear(self) -> LinkMessage:
        """The other party's next message; a `Refusal` is raised as what it says."""
        content = self.incoming.receive(Kind.LINK, limit=messages.MAX_HEADER_BYTES)
        message: LinkMessage = messages.from_bytes(LinkMessage, content, sender=self.incoming.peer)
        if isinstance(message, Refusal):
            raise message.to_error(self.incoming.peer)
        return message

    def close(self) -> None:
        """Hang up both."""
        self.down.close()
        self.up.close()


class Doorway:
    """At the leader: party 1's links as they arrive, until two make a pair. `wake` is notified then."""

    def __init__(self, facts: Facts, split: str, *, wake: threading.Condition) -> None:
        self._facts, self._split, self._wake = facts, split, wake
        self._halves: dict[str, tuple[str, Channel]] = {}
        self._pair: Pair | None = None
        self.problem = ""

    def offer(self, channel: Channel) -> None:
        """Take a link of party 1 in, or refuse and close it. Raises `LinkError` when it fails meanwhile."""
        try:
            content = channel.receive(Kind.HELLO, limit=messages.MAX_HEADER_BYTES)
            hello = messages.from_bytes(Hello, content, sender=channel.peer)
            compare(hello, self._facts, self._split, sender=channel.peer)
        except LinkError:
            channel.close()
            raise
        except SecureadError as error:
            with self._wake:
                self.problem = error.what
            event("sharing.link_refused", reason=error.what[:200])
            try:
                channel.send(Kind.LINK, messages.to_bytes(Refusal.of(error)))
            finally:
                channel.close()
            return
        with self._wake:
            direction, other = self._halves.pop(hello.token, ("", None))
            if other is None:
                self._halves[hello.token] = (hello.direction, channel)
                while len(self._halves) > _MAX_TOKENS:
                    self._halves.pop(next(iter(self._halves)))[1].close()
                return
            if direction == hello.direction:
                channel.close()
                other.close()
                return
            if self._pair is not None:
                self._pair.close()
            down, up = (channel, other) if hello.direction == "down" else (other, channel)
            down.share_fate(up)
            self._pair, self.problem = Pair(down, up, 0), ""
            self._wake.notify_all()

    @property
    def waiting(self) -> bool:
        """Whether a pair is there."""
        return self._pair is not None

    def refuse(self, error: SecureadError) -> None:
        """Turn the pair away that is there, if it has not given up."""
        if (pair := self.take(0.0)) is not None:
            event("sharing.link_refused", reason=error.what[:200])
            with contextlib.suppress(LinkError):
                pair.say(Refusal.of(error))
            pair.close()

    def take(self, timeout: float) -> Pair | None:
        """The newest pair, waiting for it up to `timeout` seconds."""
        with self._wake:
            self._wake.wait_for(lambda: self._pair is not None, timeout)
            pair, self._pair = self._pair, None
            return pair


def compare(theirs: Hello | Welcome, facts: Facts, split: str, *, sender: str) -> None:
    """Raise `RejectMessageError` unless both parties serve the same thing."""
    messages.refuse_mismatch(theirs.program, theirs.plan, ours=(facts.program, facts.plan), sender=sender)
    messages.refuse_split(theirs.split, ours=split, sender=sender)
    if theirs.lane != facts.lane:
        raise RejectMessageError(
            f"{sender} calls as lane {theirs.lane}, this is lane {facts.lane}",
            remedy="Let `leader` name the port of party 0's lane 0, and give both parties as many lanes.",
        )


@dataclass(eq=False)
class Session:
    """An open session, as one party holds it."""

    name: str
    pair: Pair
    computing: Computing
    supplier: Supplier
    used: dict[tuple[int, bool], int] = field(default_factory=dict)

    def close(self) -> None:
        """Hang up and forget everything."""
        self.pair.close()
        self.supplier.close()
        self.computing.stop()


def lead(pair: Pair, facts: Facts, split: str, machine: Machine) -> Session:
    """Open a session as the leader. Whatever fails, party 1 is told and the pair is closed."""
    name = messages.new_id()
    supplier: Supplier | None = None
    try:
        try:
            supplier = machine.supply(name)
        except SecureadError as error:
            pair.say(Refusal.of(error))
            raise
        pair.say(Welcome(messages.VERSION, facts.program, facts.plan, split, facts.lane, name))
        computing = _start(pair, machine, supplier)
        return Session(name, pair, computing, supplier)
    except BaseException:
        pair.close()
        if supplier is not None:
            supplier.close()
        raise


def follow(leader: Address, identity: Identity, facts: Facts, split: str, machine: Machine, silence: float) -> Session:
    """Open a session as party 1, which dials."""
    token = messages.new_id()
    links: list[Channel] = []
    supplier: Supplier | None = None
    try:
        for direction in ("down", "up"):
            links.append(dial(leader, identity, PARTIES[0], timeout=silence))
            hello = Hello(messages.VERSION, facts.program, facts.plan, split, facts.lane, token, direction)
            links[-1].send(Kind.HELLO, messages.to_bytes(hello))
        pair = Pair(links[0], links[1], 1)
        pair.down.share_fate(pair.up)
        # The leader may first have to meet the dealer.
        welcome = pair.hear()
        if not isinstance(welcome, Welcome):
            raise unexpected(welcome)
        compare(welcome, facts, split, sender=PARTIES[0])
        try:
            supplier = machine.supply(welcome.session)
        except SecureadError as error:
            pair.say(Refusal.of(error))
            raise
        return Session(welcome.session, pair, _start(pair, machine, supplier), supplier)
    except BaseException:
        for link in links:
            link.close()
        if supplier is not None:
            supplier.close()
        raise


def _start(pair: Pair, machine: Machine, supplier: Supplier) -> Computing:
    """Exchange keys and start computing; each party's key is fresh, so neither alone determines the ring's."""
    mine = secrets.token_bytes(KEY_BYTES)
    if pair.index == 0:
        pair.outgoing.send(Kind.RING_KEY, mine)
        theirs = _ring_key(pair)
        keys = mine + theirs
    else:
        theirs = _ring_key(pair)
        pair.outgoing.send(Kind.RING_KEY, mine)
        keys = theirs + mine
    seed = supplier.seed()
    computing = machine.start(pair, hashlib.sha256(b"securead.sharing.ring\0" + keys).digest(), seed)
    try:
        pair.say(Ready())
        if not isinstance(message := pair.hear(), Ready):
            raise unexpected(message)
    except BaseException:
        computing.stop()
        raise
    return computing


def _ring_key(pair: Pair) -> bytes:
    kind, content = pair.incoming.receive_any({Kind.RING_KEY: KEY_BYTES, Kind.LINK: messages.MAX_HEADER_BYTES})
    if kind == Kind.LINK:
        message: LinkMessage = messages.from_bytes(LinkMessage, content, sender=pair.incoming.peer)
        raise message.to_error(pair.incoming.peer) if isinstance(message, Refusal) else unexpected(message)
    if len(content) != KEY_BYTES:
        raise LinkError("a key of the wrong length", value=len(content))
    return bytes(content)


def unexpected(message: object) -> LinkError:
    """The error for a message out of turn."""
    return LinkError(f"a {type(message).__name__} where another message was due", remedy="Use one release everywhere.")
