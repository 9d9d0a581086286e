"""What party 1 says to the leader's proposals, before it computes anything."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import Any

import pytest

from securead.protocols.sharing.links import LinkError
from securead.protocols.sharing.meeting import Cost, Session
from securead.protocols.sharing.messages import Agreed, Bind, Request, new_id
from securead.protocols.sharing.reception import Facts, Pending, Reception
from securead.protocols.sharing.session import serve_follower

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
