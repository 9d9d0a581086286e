"""Links: what is predicted for one, and a relay that imitates it and counts."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from securead.bench.links import Relay
from securead.planner.links import LINKS, predicted_seconds
from securead.protocols.sharing.outbox import Delay


@pytest.fixture
def echo() -> Iterator[tuple[str, int]]:
    """A server on this machine that says back what it hears."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

        def answer(connection: socket.socket) -> None:
            with connection:
                while content := connection.recv(1 << 16):
                    connection.sendall(content)

        threading.Thread(target=serve, daemon=True).start()
        yield listener.getsockname()
        listener.shutdown(socket.SHUT_RDWR)


def said_back(address: tuple[str, int], content: bytes) -> tuple[bytes, float]:
    """What comes back, and in how many seconds."""
    with socket.create_connection(address, timeout=20) as connection:
        start = time.monotonic()
        threading.Thread(target=connection.sendall, args=(content,), daemon=True).start()
        heard = bytearray()
        while len(heard) < len(content):
            heard += connection.recv(1 << 16)
        return bytes(heard), time.monotonic() - start


def test_a_prediction_adds_every_way_and_every_byte() -> None:
    assert predicted_seconds(0.1, ways=4, bytes_in_line=1e9, link="loopback") == 0.1
    assert predicted_seconds(0.1, ways=4, bytes_in_line=12.5e6, link="wan") == pytest.approx(0.1 + 4 * 0.02 + 1)
    assert predicted_seconds(0.0, ways=2, bytes_in_line=125e6, link="lan") == pytest.approx(2 * 0.0002 + 1)


def test_a_relay_passes_everything_on_late_and_counts_it(echo: tuple[str, int]) -> None:
    content = bytes(range(256)) * 10
    with Relay(echo, Delay(0.05)) as relay:
        heard, seconds = said_back(relay.address, content)
        assert heard == content
        assert (relay.up, relay.down) == (len(content), len(content))
    assert seconds >= 2 * 0.05


def test_a_relay_keeps_to_the_links_rate(echo: tuple[str, int]) -> None:
    content = bytes(400_000)
    with Relay(echo, Delay(0.0, 2e6)) as relay:
        heard, seconds = said_back(relay.address, content)
    assert heard == content
    # Both directions at once: one after the other would be twice as long.
    assert seconds >= len(content) / 2e6


def test_a_relay_to_nobody_hangs_up_and_a_closed_one_takes_no_more() -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        nobody = unused.getsockname()
    with Relay(nobody, LINKS["wan"]) as relay, socket.create_connection(relay.address, timeout=5) as connection:
        assert connection.recv(1) == b""
    with pytest.raises(OSError, match=r".*"):
        socket.create_connection(relay.address, timeout=1)
