"""Links over real sockets: who is let in, what a frame must be, and what silence and haste do."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sharing_setting import Deployment

from securead import certificates
from securead.errors import FixConfigurationError, FixInputError, UseOtherKeyError
from securead.protocols.sharing import links
from securead.protocols.sharing.channel import HEADER, RECORD, SMALL
from securead.protocols.sharing.links import Channel, Delay, Identity, LinkError, Listener, UntrustedPeerError

DATA = 7
SOON = 20.0  # generous: only a hang takes so long


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as executor:
        yield executor


@pytest.fixture
def listener(deployment: Deployment) -> Iterator[Listener]:
    with Listener(("127.0.0.1", 0), deployment.identity("party0")) as listening:
        yield listening


Pair = tuple[Channel, Channel]


@pytest.fixture
def pair(deployment: Deployment, listener: Listener, pool: ThreadPoolExecutor) -> Iterator[Pair]:
    """party1's end, then party0's."""
    accepted = pool.submit(listener.accept, SOON)
    with links.dial(listener.address, deployment.identity("party1"), "party0") as ours, accepted.result() as theirs:
        yield ours, theirs


def refusal(future: Future[Any]) -> BaseException:
    error = future.exception(timeout=SOON)
    assert error is not None
    return error


def test_both_ends_know_each_other(pair: Pair) -> None:
    ours, theirs = pair
    assert (ours.peer, theirs.peer) == ("party0", "party1")
    for channel in pair:
        assert channel._socket.version() == "TLSv1.3"
        assert not channel._socket.session_reused
        assert channel._socket.cipher()[0].startswith("TLS_")  # an AEAD suite of TLS 1.3


def test_there_are_no_tickets_to_resume_with(pair: Pair, deployment: Deployment) -> None:
    ours, theirs = pair
    theirs.send(DATA, b"after the handshake, when tickets would come")
    ours.receive(DATA, limit=100)
    assert ours._socket.session is None or not ours._socket.session.has_ticket
    assert deployment.identity("party0").server.num_tickets == 0


@pytest.mark.parametrize(
    "sizes", [(), (0,), (1,), (SMALL,), (SMALL + 1,), (3, 0, 20_000, 5, RECORD, 16_371), (1 << 20, 7), (5_000_000,)]
)
@pytest.mark.parametrize("way", ["send", "post"])
def test_what_is_sent_arrives(pair: Pair, pool: ThreadPoolExecutor, sizes: tuple[int, ...], way: str) -> None:
    ours, theirs = pair
    buffers = [np.random.default_rng(size).integers(0, 256, size, dtype=np.uint8) for size in sizes]
    sent = pool.submit(lambda: (getattr(ours, way)(DATA, *buffers), ours.flush()))
    expected = b"".join(buffer.tobytes() for buffer in buffers)
    assert theirs.receive(DATA, exact=len(expected)) == expected
    sent.result(SOON)
    # The stream is in step after any size, in both ways of receiving.
    ours.send(DATA, b"next")
    ours.send(DATA + 1, np.arange(3))
    assert theirs.receive(DATA, limit=4) == b"next"
    words = np.empty(3, np.int64)
    theirs.receive_into(DATA + 1, words)
    assert words.tolist() == [0, 1, 2]
    assert ours.bytes_sent == theirs.bytes_received == 3 * HEADER.size + len(expected) + 4 + 24
    assert ours.frames_sent == theirs.frames_received == 3


def test_several_small_frames_in_one_go(pair: Pair) -> None:
    ours, theirs = pair
    for number in range(100):
        ours.send(DATA, bytes([number]) * number)
    for number in range(100):
        assert theirs.receive_any({DATA: 200, DATA + 1: 0}) == (DATA, bytes([number]) * number)
    assert not theirs.pending


def test_both_send_32_mb_at_once(pair: Pair, pool: ThreadPoolExecutor) -> None:
    size = 32 << 20

    def exchange(channel: Channel, fill: int) -> bool:
        payload, received = np.full(size, fill, np.uint8), np.empty(size, np.uint8)
        channel.post(DATA, payload)
        channel.receive_into(DATA, received)
        channel.flush()
        return bool((received == 3 - fill).all())

    both = [pool.submit(exchange, channel, fill) for channel, fill in zip(pair, (1, 2), strict=True)]
    assert all(future.result(60) for future in both)


def test_one_thread_sends_while_another_receives(pair: Pair, pool: ThreadPoolExecutor) -> None:
    blob = np.random.default_rng(0).integers(0, 256, 300_000, dtype=np.uint8)

    def talk(channel: Channel) -> None:
        for _ in range(30):
            channel.send(DATA, blob)

    def listen(channel: Channel) -> bool:
        return all(channel.receive(DATA, exact=blob.size) == blob.tobytes() for _ in range(30))

    talking = [pool.submit(talk, channel) for channel in pair]
    assert all(future.result(60) for future in [pool.submit(listen, channel) for channel in pair])
    for future in talking:
        future.result(SOON)


# Who is not let in.


def test_another_authority(listener: Listener, strangers: Deployment, pool: ThreadPoolExecutor) -> None:
    accepted = pool.submit(listener.accept, SOON)
    with pytest.raises(UntrustedPeerError, match="party0"):
        links.dial(listener.address, strangers.identity("party1"), "party0")
    assert isinstance(refusal(accepted), LinkError)


def test_a_dialler_of_another_authority_that_trusts_ours(
    listener: Listener, deployment: Deployment, strangers: Deployment, pool: ThreadPoolExecutor
) -> None:
    """Only the server can refuse here; the dialler is told at once, not at its first request."""
    directory = strangers.directory / "party1"
    mixed = Identity("party1", directory / "identity.crt", directory / "identity.key", deployment.directory / "ca.crt")
    accepted = pool.submit(listener.accept, SOON)
    with pytest.raises(UntrustedPeerError, match="party0"):
        links.dial(listener.address, mixed, "party0")
    assert isinstance(refusal(accepted), UntrustedPeerError)


def test_another_name(listener: Listener, deployment: Deployment, pool: ThreadPoolExecutor) -> None:
    accepted = pool.submit(listener.accept, SOON)
    with pytest.raises(UntrustedPeerError, match="dealer"):
        links.dial(listener.address, deployment.identity("party1"), "dealer")
    refusal(accepted)


def test_a_client_cannot_serve(deployment: Deployment, pool: ThreadPoolExecutor) -> None:
    with Listener(("127.0.0.1", 0), deployment.identity("bank-a")) as listener:
        accepted = pool.submit(listener.accept, SOON)
        with pytest.raises(UntrustedPeerError):
            links.dial(listener.address, deployment.identity("party1"), "bank-a")
        refusal(accepted)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_1_2_and_no_certificate(
    listener: Listener, deployment: Deployment, pool: ThreadPoolExecutor, version: ssl.TLSVersion
) -> None:
    """With TLS 1.2 a certificate is shown, with TLS 1.3 none: each alone is refused."""
    context = ssl.create_default_context(cafile=str(deployment.directory / "ca.crt"))
    context.minimum_version = context.maximum_version = version
    if version == ssl.TLSVersion.TLSv1_2:
        folder = deployment.directory / "party1"
        context.load_cert_chain(folder / "identity.crt", folder / "identity.key")
    accepted = pool.submit(listener.accept, SOON)

    def call() -> bytes:
        with (
            socket.create_connection(listener.address, SOON) as plain,
            context.wrap_socket(plain, server_hostname="party0") as tls,
        ):
            return tls.recv(1)

    with pytest.raises(ssl.SSLError):
        call()
    assert isinstance(refusal(accepted), UntrustedPeerError)


def test_a_server_of_tls_1_2(deployment: Deployment, pool: ThreadPoolExecutor) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    folder = deployment.directory / "party0"
    context.load_cert_chain(folder / "identity.crt", folder / "identity.key")
    with socket.create_server(("127.0.0.1", 0)) as plain:

        def serve() -> None:
            with pytest.raises(ssl.SSLError):
                context.wrap_socket(plain.accept()[0], server_side=True)

        served = pool.submit(serve)
        with pytest.raises(UntrustedPeerError):
            links.dial(plain.getsockname(), deployment.identity("party1"), "party0")
        served.result(SOON)


def test_an_expired_certificate(
    tmp_path: Path,
    listener: Listener,
    deployment: Deployment,
    monkeypatch: pytest.MonkeyPatch,
    pool: ThreadPoolExecutor,
) -> None:
    now = certificates._now()
    certificates.issue(tmp_path, ("party0",))
    with monkeypatch.context() as past:
        past.setattr(certificates, "_now", lambda: now - certificates.datetime.timedelta(days=3))
        certificates.issue(tmp_path, ("party1",), days=1)
    with Listener(("127.0.0.1", 0), Identity.load(tmp_path / "party0")) as listening:
        accepted = pool.submit(listening.accept, SOON)
        with pytest.raises(UntrustedPeerError, match=r"(?i)expired"):
            links.dial(listening.address, Identity.load(tmp_path / "party1"), "party0")
        assert isinstance(refusal(accepted), UntrustedPeerError)


def test_not_even_tls(listener: Listener, pool: ThreadPoolExecutor) -> None:
    accepted = pool.submit(listener.accept, SOON)
    with socket.create_connection(listener.address) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert isinstance(refusal(accepted), LinkError)


# What a frame must be.


def forge(channel: Channel, *frames: bytes) -> None:
    """Past the channel: what a party that does not keep to the protocol could send."""
    for frame in frames:
        channel._socket.send(frame)


@pytest.mark.parametrize(
    ("frames", "complaint"),
    [
        ([HEADER.pack(DATA, 0, 1) + b"a"] * 2, "frame 0 from party1 where 1 was due"),
        ([HEADER.pack(DATA, 1, 1) + b"b", HEADER.pack(DATA, 0, 1) + b"a"], "frame 1 from party1 where 0 was due"),
        ([HEADER.pack(DATA + 1, 0, 1) + b"a"], "kind 8"),
        ([HEADER.pack(DATA, 0, 2) + b"ab"], "2 bytes"),
        ([HEADER.pack(DATA, 0, (1 << 64) - 1)], "18446744073709551615 bytes"),
    ],
    ids=["replayed", "reordered", "kind", "limit", "length"],
)
def test_a_frame_that_is_not_due(pair: Pair, frames: list[bytes], complaint: str) -> None:
    ours, theirs = pair
    forge(ours, *frames)
    if len(frames) > 1 and frames[0] == frames[1]:
        theirs.receive(DATA, limit=1)
    with pytest.raises(LinkError, match=complaint):
        theirs.receive(DATA, limit=1)
    assert theirs.broken
    with pytest.raises(LinkError, match="failed before"):  # nothing is read past it, nothing sent
        theirs.receive(DATA, limit=1)
    with pytest.raises(LinkError, match="failed before"):
        theirs.send(DATA)


def test_a_length_must_be_exact_where_it_is_known(pair: Pair) -> None:
    ours, theirs = pair
    ours.send(DATA, b"abc")
    with pytest.raises(LinkError, match="exactly 8"):
        theirs.receive_into(DATA, bytearray(8))


@pytest.mark.parametrize("frame", [HEADER.pack(DATA, 0, 50_000) + b"x" * 1000, HEADER.pack(DATA, 0, 1)[:5]])
def test_a_truncated_frame(pair: Pair, frame: bytes) -> None:
    ours, theirs = pair
    forge(ours, frame)
    ours.close()
    with pytest.raises(LinkError, match="closed the link"):
        theirs.receive(DATA, limit=50_000)


@pytest.mark.parametrize("frame", [b"", HEADER.pack(DATA, 0, 50_000) + b"x" * 1000, HEADER.pack(DATA, 0, 1)[:5]])
def test_a_silent_peer(pair: Pair, frame: bytes) -> None:
    ours, theirs = pair
    if frame:
        forge(ours, frame)
    theirs.timeout = 0.2
    assert theirs.ready(0.05) == bool(frame)  # asking does no harm
    start = time.monotonic()
    with pytest.raises(LinkError, match="silent"):
        theirs.receive(DATA, limit=50_000)
    assert time.monotonic() - start < SOON


def test_a_peer_that_sends_byte_by_byte(pair: Pair, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = pair
    forge(ours, HEADER.pack(DATA, 0, 100))
    theirs.timeout = 0.4

    def drip() -> None:
        for _ in range(100):
            forge(ours, b"x")
            time.sleep(0.05)

    pool.submit(drip)
    with pytest.raises(LinkError, match="silent"):
        theirs.receive(DATA, limit=100)
    assert theirs.broken


def test_a_peer_that_does_not_read(pair: Pair) -> None:
    ours, _ = pair
    ours.timeout = 0.2
    with pytest.raises(LinkError, match="silent"):
        ours.send(DATA, np.zeros(32 << 20, np.uint8))


def test_a_failure_in_the_background_is_told_by_flush_and_wakes_the_partner(
    pair: Pair, listener: Listener, deployment: Deployment, pool: ThreadPoolExecutor
) -> None:
    ours, _ = pair
    accepted = pool.submit(listener.accept, SOON)
    with links.dial(listener.address, deployment.identity("party1"), "party0") as other, accepted.result():
        ours.share_fate(other)
        waiting = pool.submit(other.receive, DATA, limit=1, timeout=SOON)
        ours.timeout = 0.2
        ours.post(DATA, np.zeros(32 << 20, np.uint8))
        with pytest.raises(LinkError, match="silent"):
            ours.flush()
        assert isinstance(refusal(waiting), LinkError)


def test_closing_wakes_who_waits(pair: Pair, pool: ThreadPoolExecutor) -> None:
    ours, theirs = pair
    waiting = [pool.submit(channel.receive, DATA, limit=1, timeout=SOON) for channel in pair]
    time.sleep(0.1)
    ours.close()
    assert all(isinstance(refusal(future), LinkError) for future in waiting)
    ours.close()
    with pytest.raises(LinkError, match="closed"):
        ours.send(DATA)
    with pytest.raises(LinkError):
        theirs.receive(DATA, limit=1)


def test_last_words_reach_a_peer_that_is_sending(pair: Pair, pool: ThreadPoolExecutor) -> None:
    ours, theirs = pair

    def refuse() -> None:
        theirs.receive_any({DATA: 10})
        theirs.send(DATA + 1, b"no")
        theirs.close(linger=SOON)

    refused = pool.submit(refuse)
    ours.send(DATA, b"request")
    ours.send(DATA, np.zeros(8 << 20, np.uint8))
    assert ours.receive(DATA + 1, limit=10) == b"no"
    ours.close()
    refused.result(SOON)


def test_a_delay_is_that_of_a_link(deployment: Deployment, pool: ThreadPoolExecutor) -> None:
    delay = Delay(0.05, 1_000_000)
    with Listener(("127.0.0.1", 0), deployment.identity("party0")) as listener:
        accepted = pool.submit(listener.accept, SOON)
        with (
            links.dial(listener.address, deployment.identity("party1"), "party0", delay=delay) as ours,
            accepted.result() as theirs,
        ):
            start = time.monotonic()
            for _ in range(3):
                ours.send(DATA, bytes(50_000))
            assert time.monotonic() - start < 0.1  # the sender goes on, as with a real link
            for _ in range(3):
                theirs.receive(DATA, exact=50_000)
            assert time.monotonic() - start >= 0.2


# Identities and addresses.


def test_a_sealed_key(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    certificates.issue(tmp_path, ("party0", "party1"), passphrase="five words are better here")
    with pytest.raises(UseOtherKeyError, match="passphrase"):
        Listener(("127.0.0.1", 0), Identity.load(tmp_path / "party0"))
    opened = [Identity.load(tmp_path / name, passphrase="five words are better here") for name in ("party0", "party1")]
    assert "five words" not in repr(opened)
    with Listener(("127.0.0.1", 0), opened[0]) as listener:
        accepted = pool.submit(listener.accept, SOON)
        with links.dial(listener.address, opened[1], "party0") as ours:
            assert ours.peer == "party0"
        accepted.result().close()


def test_a_key_that_others_can_read(tmp_path: Path) -> None:
    certificates.issue(tmp_path, ("party0",))
    (tmp_path / "party0" / "identity.key").chmod(0o644)
    with pytest.raises(FixInputError, match="chmod 600"):
        _ = Identity.load(tmp_path / "party0").client


def test_files_that_do_not_belong_together(deployment: Deployment, tmp_path: Path) -> None:
    a, b = deployment.directory / "party0", deployment.directory / "party1"
    with pytest.raises(UseOtherKeyError, match="securead certs"):
        _ = Identity("party0", a / "identity.crt", b / "identity.key", a / "ca.crt").client
    with pytest.raises(FixInputError, match="nowhere"):
        Identity.load(tmp_path / "nowhere")


def test_nobody_listens(deployment: Deployment) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = taken.getsockname()
    with pytest.raises(LinkError, match="cannot reach party0"):
        links.dial(address, deployment.identity("party1"), "party0")
    with socket.create_server(("127.0.0.1", 0)) as deaf, pytest.raises(LinkError, match="no handshake"):
        links.dial(deaf.getsockname(), deployment.identity("party1"), "party0", timeout=0.3)


def test_silence_after_the_handshake_is_told_with_the_time_that_was_given(
    deployment: Deployment, pool: ThreadPoolExecutor
) -> None:
    ending = threading.Event()

    def serve(plain: socket.socket) -> None:
        with plain.accept()[0] as one, deployment.identity("party0").server.wrap_socket(one, server_side=True):
            ending.wait(SOON)

    with socket.create_server(("127.0.0.1", 0)) as mute:
        served = pool.submit(serve, mute)
        with pytest.raises(LinkError, match=r"party0 at .* did not answer within 0\.7 s"):
            links.dial(mute.getsockname(), deployment.identity("party1"), "party0", timeout=0.7)
        ending.set()
        served.result(SOON)


def test_a_slow_stranger_ends_with_the_timeout(deployment: Deployment) -> None:
    with Listener(("127.0.0.1", 0), deployment.identity("party0"), timeout=0.3) as listener:
        with socket.create_connection(listener.address), pytest.raises(LinkError, match="no handshake"):
            listener.accept(SOON)
        with pytest.raises(LinkError, match="nobody called"):
            listener.wait(0.05)


def test_closing_a_listener_wakes_who_waits(listener: Listener) -> None:
    threading.Timer(0.1, listener.close).start()
    with pytest.raises(LinkError, match="closed"):
        listener.accept(SOON)


@pytest.mark.parametrize(
    ("text", "address"),
    [("a.example:7000", ("a.example", 7000)), ("[::1]:0", ("::1", 0)), ("127.0.0.1:65535", ("127.0.0.1", 65535))],
)
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert links.parse_address(text) == address


@pytest.mark.parametrize(
    "make",
    [
        lambda: links.parse_address("7000"),
        lambda: links.parse_address("host:"),
        lambda: links.parse_address("host:65536"),
        lambda: Delay(-1),
        lambda: Identity("Party 0", Path(), Path(), Path()),
    ],
)
def test_ill_formed_settings(make: Callable[[], object]) -> None:
    with pytest.raises(FixConfigurationError):
        make()


def test_the_header_is_what_the_specification_says() -> None:
    assert HEADER.pack(1, 2, 3) == struct.pack("<B", 1) + struct.pack("<I", 2) + struct.pack("<Q", 3)


def test_a_link_error_is_none_that_crypten_catches() -> None:
    assert issubclass(LinkError, OSError)
    assert not issubclass(LinkError, RuntimeError)
