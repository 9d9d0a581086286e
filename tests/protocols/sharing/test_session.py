"""What party 1 says to the leader's proposals before it computes, and what the leader says to another party 1."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import pytest

from securead.errors import RetryLaterError
from securead.protocols.sharing import messages
from securead.protocols.sharing.links import LinkError
from securead.protocols.sharing.meeting import Cost, Doorway, Pair, Session
from securead.protocols.sharing.messages import Agreed, Beat, Bind, Refusal, Request, new_id
from securead.protocols.sharing.reception import Facts, Pending, Reception
from securead.protocols.sharing.session import serve_follower, serve_leader

DIGEST = "0" * 64
FACTS = Facts(1, 0, DIGEST, DIGEST, False, 8192, lambda _: 32, lambda rows: rows)


class Leader:
    """Proposes, keeps the replies, and hangs up."""

    def __init__(self, *binds: Bind) -> None:
        self._binds, self.replies = list(binds), list[Any]()

    def hear(self) -> Bind:
        if not self._binds:
            raise LinkError("gone")
        return self._binds.pop(0)

    def say(self, message: object) -> None:
        self.replies.append(message)


class Computing:
    def __init__(self) -> None:
        self.sets: list[int] = []

    def compute(self, request: Request, payload: bytearray, number: int, dealt: object) -> tuple[bytes, Cost]:
        self.sets.append(number)
        return bytes(8), Cost(0.0, 1, 1, 1)


def asked(rows: int = 1) -> Request:
    return Request(new_id(), 0, DIGEST, DIGEST, 0, rows, False, (new_id(), new_id()), (DIGEST, DIGEST))


def followed(requests: list[Request], *binds: Bind) -> tuple[list[int], list[Agreed], str]:
    """Sets that were used, replies, and how it ended; `requests` came from bank-a."""
    door = Reception(None, FACTS, wake=threading.Condition(), on_link=None)  # type: ignore[arg-type]
    for each in requests:
        door._waiting["bank-a", each.request, each.attempt] = Pending(each, "bank-a", bytearray(32))
    leader, computing = Leader(*binds), Computing()
    session = Session("s", leader, computing, None)  # type: ignore[arg-type]
    with pytest.raises(LinkError) as ended:
        serve_follower(session, door, stop=lambda: False)
    return computing.sets, leader.replies, ended.value.what


def test_a_set_is_used_once() -> None:
    first, second = asked(), asked()
    assert followed([first, second], Bind(first, "bank-a", 5), Bind(second, "bank-a", 6))[0] == [5, 6]
    for number in (5, 4, 0):
        used, replies, why = followed([first, second], Bind(first, "bank-a", 5), Bind(second, "bank-a", number))
        assert (used, [reply.answer for reply in replies]) == ([5], ["ok"])
        assert "offered twice" in why


def test_a_request_is_computed_once() -> None:
    one = asked()
    used, replies, _ = followed([one], Bind(one, "bank-a", 5), Bind(one, "bank-a", 6))
    assert (used, [reply.answer for reply in replies]) == ([5], ["ok", "later"])


def test_one_clients_share_never_meets_anothers() -> None:
    one = asked()
    used, replies, _ = followed([one], Bind(one, "bank-b", 5))
    assert (used, [reply.answer for reply in replies]) == ([], ["later"])


@pytest.mark.parametrize("entry", ["rows", "verdict", "lane", "nonces", "hashes", "program", "plan"])
def test_every_entry_is_compared(entry: str) -> None:
    one = asked()
    ones, twos = "1" * 32, "1" * 64
    other: dict[str, Any] = {"rows": 2, "verdict": True, "lane": 1, "nonces": (ones, ones), "hashes": (twos, DIGEST)}
    told = replace(one, **{entry: other.get(entry, twos)})
    used, replies, _ = followed([one], Bind(told, "bank-a", 5))
    assert (used, [reply.answer for reply in replies]) == ([], ["no"])


class Wire:
    """A link of a party 1 at the doorway: keeps what it is told."""

    peer = "party1"

    def __init__(self) -> None:
        self.told: list[bytes] = []
        self.closed = False

    def send(self, kind: int, content: bytes) -> None:
        self.told.append(content)

    def close(self) -> None:
        self.closed = True


class Follower:
    """The party 1 of the session: answers beats while it is alive."""

    def __init__(self, alive: bool) -> None:
        self.alive, self.beats = alive, 0

    def say(self, message: object) -> None:
        assert isinstance(message, Beat)
        self.beats += 1

    def hear(self) -> Beat:
        if not self.alive:
            raise LinkError("party1 closed the link")
        return Beat()


class Store:
    def check(self) -> None: ...


@pytest.mark.parametrize("alive", [True, False])
def test_another_party_1_is_let_in_when_the_first_no_longer_answers(alive: bool) -> None:
    wake, wire, follower = threading.Condition(), Wire(), Follower(alive)
    doorway = Doorway(FACTS, "", wake=wake)
    doorway._pair = Pair(wire, wire, 0)  # type: ignore[arg-type]
    door = Reception(None, FACTS, wake=wake, on_link=None)  # type: ignore[arg-type]
    session = Session("s", follower, Computing(), None)  # type: ignore[arg-type]

    def serve() -> None:
        serve_leader(session, door, Store(), doorway, wake=wake, stop=lambda: True)  # type: ignore[arg-type]

    if alive:
        serve()
        (told,) = wire.told
        refusal = messages.from_bytes(Refusal, told, sender="party0")
        assert isinstance(refusal.to_error("party0"), RetryLaterError)
        assert "a party1 that answers" in refusal.what
        assert wire.closed
        assert not doorway.waiting
    else:
        with pytest.raises(LinkError, match="closed"):
            serve()
        assert not wire.told
        assert doorway.waiting
    assert follower.beats == 1
