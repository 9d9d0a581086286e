"""The front door's queue: who is next, and for how long."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from queue import Queue

import pytest
from sharing_setting import Deployment

from securead.errors import RejectMessageError, RetryLaterError
from securead.protocols.sharing import messages, reception
from securead.protocols.sharing.links import Channel, LinkError, Listener, dial
from securead.protocols.sharing.messages import Greeting, Kind, Refusal, Reply, Request, new_id
from securead.protocols.sharing.reception import Facts, Pending, Reception

DIGEST = "0" * 64
SOON = 20.0  # generous: only a hang takes so long
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


@contextmanager
def opened(deployment: Deployment, *, connections: int = 16) -> Iterator[tuple[Listener, Queue[Channel]]]:
    """A reception at a real listener, and the peer's links as it hands them on."""
    links: Queue[Channel] = Queue()
    listener = Listener(("127.0.0.1", 0), deployment.identity("party0"))
    door = Reception(listener, FACTS, wake=threading.Condition(), on_link=links.put, connections=connections)
    door.start()
    try:
        yield listener, links
    finally:
        door.close()
        while not links.empty():
            links.get().close()


def heard(channel: Channel) -> Reply:
    content = channel.receive(Kind.REPLY, limit=messages.MAX_HEADER_BYTES)
    reply: Reply = messages.from_bytes(Reply, content, sender=channel.peer)
    return reply


@pytest.mark.parametrize("said", [b"", b"\x16"])
def test_silent_strangers_keep_nobody_out(deployment: Deployment, said: bytes) -> None:
    """40 connections that never finish a handshake, or not even begin it: links and clients get in at once."""
    with opened(deployment) as (listener, links), ExitStack() as strangers:
        for _ in range(40):
            stranger = strangers.enter_context(socket.create_connection(listener.address))
            stranger.sendall(said)
        for _ in range(2):
            strangers.enter_context(dial(listener.address, deployment.identity("party1"), "party0"))
            assert strangers.enter_context(links.get(timeout=SOON)).peer == "party1"
        with dial(listener.address, deployment.identity("bank-a"), "party0") as client:
            assert isinstance(heard(client), Greeting)


def test_one_name_cannot_keep_the_others_out(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the places, rounded up; some are told why not, and the rest is hung up on. The peer has its own."""
    monkeypatch.setattr(reception, "_LINGER_SECONDS", SOON)
    with opened(deployment, connections=3) as (listener, links), ExitStack() as held:

        def called(name: str) -> Channel:
            return held.enter_context(dial(listener.address, deployment.identity(name), "party0"))

        first, second = called("bank-a"), called("bank-a")
        for channel in (first, second):
            assert isinstance(heard(channel), Greeting)
        for _ in range(2):
            refusal = heard(called("bank-a"))
            assert isinstance(refusal, Refusal)
            error = refusal.to_error("party0")
            assert isinstance(error, RetryLaterError)
            assert "2 connections of 'bank-a'" in error.what
        with pytest.raises(LinkError):
            heard(called("bank-a"))
        assert isinstance(heard(called("bank-b")), Greeting)
        refusal = heard(called("bank-b"))
        assert isinstance(refusal, Refusal)
        assert "holds 3 clients" in refusal.what
        called("party1")
        assert held.enter_context(links.get(timeout=SOON)).peer == "party1"
        first.close()
        deadline = time.monotonic() + SOON
        while True:  # once that is noticed, there is room
            try:
                assert isinstance(heard(called("bank-a")), Greeting)
                break
            except LinkError:
                assert time.monotonic() < deadline
                time.sleep(0.01)


def test_a_certificate_that_may_not_ask_takes_no_place(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reception, "_LINGER_SECONDS", SOON)
    with opened(deployment, connections=1) as (listener, _), ExitStack() as held:
        refusal = heard(held.enter_context(dial(listener.address, deployment.identity("dealer"), "party0")))
        assert isinstance(refusal, Refusal)
        assert "may not ask" in refusal.what
        client = held.enter_context(dial(listener.address, deployment.identity("bank-a"), "party0"))
        assert isinstance(heard(client), Greeting)
