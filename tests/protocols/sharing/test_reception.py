"""The front door's queue: who is next, and for how long."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest

from securead.errors import RejectMessageError, RetryLaterError
from securead.protocols.sharing import messages, reception
from securead.protocols.sharing.links import LinkError
from securead.protocols.sharing.messages import Greeting, Request, new_id
from securead.protocols.sharing.reception import Facts, Pending, Reception

DIGEST = "0" * 64
FACTS = Facts(0, 0, DIGEST, DIGEST, False, 8192, lambda rows: 8 * rows, lambda rows: rows)


class Nobody:
    """A listener whom nobody calls."""

    def accept(self) -> None:
        raise LinkError("closed")

    def close(self) -> None: ...


def pending(client: str) -> Pending:
    request = Request(new_id(), 0, DIGEST, DIGEST, 0, 1, False, (new_id(), new_id()), (DIGEST, DIGEST))
    return Pending(request, client, bytearray(8))


def test_who_never_sends_the_other_share_is_in_nobodys_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each request is tried once before any is tried again, however soon that may be."""
    monkeypatch.setattr(reception, "_POSTPONED_SECONDS", 0.0)
    wake = threading.Condition()
    door = Reception(Nobody(), FACTS, wake=wake, on_link=None)  # type: ignore[arg-type]
    all_ = [pending("bank-b") for _ in range(5)] + [pending("bank-a")]
    for each in all_:
        door._waiting[each.client, each.request.request, each.request.attempt] = each
    tried = []
    for _ in all_:
        with wake:
            taken = door.take()
        assert taken is not None
        tried.append(taken)
        door.postpone(taken)
    assert tried == all_


class Ear:
    """A client's connection: keeps what it is told, and hangs up instead of asking."""

    peer = "bank-a"

    def __init__(self) -> None:
        self.told: list[bytes] = []

    def send(self, kind: int, content: bytes) -> None:
        self.told.append(content)

    def receive(self, *_: object, **__: object) -> bytearray:
        raise LinkError("closed")


def test_a_greeting_carries_the_longest_state() -> None:
    """A peer's refusal of 2,000 characters becomes part of what clients are told."""
    door, ear = Reception(Nobody(), FACTS, wake=threading.Condition(), on_link=None), Ear()  # type: ignore[arg-type]
    door.set_state(False, "is not ready: party0 says: " + "x" * 2000)
    with pytest.raises(LinkError):
        door._converse(ear)  # type: ignore[arg-type]
    assert messages.from_bytes(Greeting, ear.told[0], sender="party0").state.startswith("is not ready")


@pytest.mark.parametrize(("index", "patient"), [(0, False), (1, True)])
def test_party_1_waits_for_the_upload_to_party_0(monkeypatch: pytest.MonkeyPatch, index: int, patient: bool) -> None:
    monkeypatch.setattr(reception, "_BEAT_SECONDS", 0.01)
    monkeypatch.setattr(reception, "_WAITING_SECONDS", 0.05)
    facts = replace(FACTS, index=index)
    door, ear, asked = Reception(Nobody(), facts, wake=threading.Condition(), on_link=None), Ear(), pending("bank-a")  # type: ignore[arg-type]
    threading.Timer(0.5, asked.fail, [RejectMessageError("waited")]).start()
    with pytest.raises(RejectMessageError if patient else RetryLaterError):
        door._answer(ear, asked)  # type: ignore[arg-type]


def test_one_name_cannot_keep_the_others_out() -> None:
    door = Reception(Nobody(), FACTS, wake=threading.Condition(), on_link=None, connections=4)  # type: ignore[arg-type]
    door._held.update({"bank-a": 2})
    assert door._reason_to_refuse("bank-a") is None
    door._held.update({"bank-a": 1, "bank-b": 1})
    error = door._reason_to_refuse("bank-a")
    assert isinstance(error, RetryLaterError)
    assert "2 connections of 'bank-a'" in error.what
    assert door._reason_to_refuse("bank-b") is None
