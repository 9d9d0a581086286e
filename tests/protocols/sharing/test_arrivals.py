"""Handshakes side by side: who is dropped when there are too many, and who never is."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from queue import Queue

import pytest
from sharing_setting import Deployment

from securead.protocols.sharing import arrivals
from securead.protocols.sharing.arrivals import Arrivals
from securead.protocols.sharing.links import Channel, Identity, LinkError, Listener, UntrustedPeerError, dial

SOON = 20.0  # generous: only a hang takes so long


class Door:
    """Arrivals at a real listener, and what became of them."""

    def __init__(self, identity: Identity, timeout: float = SOON) -> None:
        self.greeted: Queue[Channel] = Queue()
        self.refused: Queue[LinkError] = Queue()
        self.listener = Listener(("127.0.0.1", 0), identity, timeout=timeout)
        self.strangers = ExitStack()
        one = Arrivals(self.listener, greet=self.greeted.put, refuse=self.refused.put)
        self.thread = threading.Thread(target=one.run, daemon=True)
        self.thread.start()

    def stranger(self, host: str) -> socket.socket:
        made = socket.create_connection(self.listener.address, SOON, source_address=(host, 0))
        return self.strangers.enter_context(made)

    def close(self) -> None:
        self.listener.close()
        self.thread.join(SOON)
        assert not self.thread.is_alive()
        self.strangers.close()
        while not self.greeted.empty():
            self.greeted.get().close()


@pytest.fixture
def door(deployment: Deployment) -> Iterator[Door]:
    made = Door(deployment.identity("party0"))
    yield made
    made.close()


def gone(stranger: socket.socket) -> bool:
    """Whether it was hung up on, or is soon."""
    try:
        return stranger.recv(1) == b""
    except ConnectionResetError:
        return True


def held(stranger: socket.socket) -> bool:
    stranger.setblocking(False)
    try:
        stranger.recv(1)
    except BlockingIOError:
        return True
    return False


def test_of_one_address_the_oldest_goes_first(door: Door) -> None:
    """And nobody else does."""
    other = door.stranger("127.0.0.3")
    strangers = [door.stranger("127.0.0.2") for _ in range(arrivals.MOST_OF_ONE + 3)]
    assert all(gone(each) for each in strangers[:3])
    assert all(held(each) for each in [other, *strangers[3:]])


def test_of_all_the_oldest_of_the_address_with_most(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrivals, "MOST", 4)
    single = door.stranger("127.0.0.2")
    many = [door.stranger("127.0.0.3") for _ in range(3)]
    late = door.stranger("127.0.0.4")
    assert gone(many[0])
    assert all(held(each) for each in [single, *many[1:], late])


def test_who_speaks_gets_through(door: Door, deployment: Deployment, strangers: Deployment) -> None:
    """Also while strangers call without end; and who is not trusted is told so."""
    ending = threading.Event()

    def flood() -> None:
        with ExitStack() as calls:
            while not ending.wait(0.002):
                calls.enter_context(socket.create_connection(door.listener.address))

    thread = threading.Thread(target=flood)
    thread.start()
    try:
        for name in ("party1", "bank-a", "party1"):
            with (
                dial(door.listener.address, deployment.identity(name), "party0", timeout=SOON),
                door.greeted.get(timeout=SOON) as greeted,
            ):
                assert greeted.peer == name
        with pytest.raises(UntrustedPeerError):
            dial(door.listener.address, strangers.identity("party1"), "party0", timeout=SOON)
    finally:
        ending.set()
        thread.join()


def test_a_handshake_ends_with_the_timeout(deployment: Deployment) -> None:
    door = Door(deployment.identity("party0"), timeout=0.3)
    try:
        stranger = door.stranger("127.0.0.1")
        for _ in range(3):  # who dribbles gains nothing
            stranger.sendall(b"\x16")
            time.sleep(0.05)
        assert gone(stranger)
        assert "timed out" in door.refused.get(timeout=SOON).what
    finally:
        door.close()


def test_the_end_of_the_listener_is_everyones(deployment: Deployment) -> None:
    door = Door(deployment.identity("party0"))
    stranger = door.stranger("127.0.0.1")
    door.listener.close()
    assert gone(stranger)
    door.close()


def test_a_bug_behind_the_door_does_not_close_it(deployment: Deployment, capsys: pytest.CaptureFixture[str]) -> None:
    calls: list[Channel] = []

    def greet(channel: Channel) -> None:
        calls.append(channel)
        raise ZeroDivisionError

    with Listener(("127.0.0.1", 0), deployment.identity("party0")) as listener:
        one = Arrivals(listener, greet=greet, refuse=lambda _: None)
        threading.Thread(target=one.run, daemon=True).start()
        for name in ("bank-a", "bank-b"):
            with dial(listener.address, deployment.identity(name), "party0") as channel, pytest.raises(LinkError):
                channel.receive(1, limit=1)
    assert [channel.peer for channel in calls] == ["bank-a", "bank-b"]
    assert "ZeroDivisionError" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("10.0.0.1", "10.0.0.1", True),
        ("10.0.0.1", "10.0.0.2", False),
        ("2001:db8::1", "2001:db8::ffff:2", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth1", True),
    ],
)
def test_what_counts_as_one_address(one: str, other: str, same: bool) -> None:
    assert (arrivals._place(one) == arrivals._place(other)) is same
