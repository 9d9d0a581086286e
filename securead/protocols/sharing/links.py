"""Who is at the other end: mutual TLS 1.3 within one private authority, the peer known by its certificate's name.

Guarantees of every channel made here: both ends showed a certificate of the one configured authority, valid now and
for this use; `Channel.peer` is its only DNS name (common names, wildcards and second names count for nothing); TLS is
1.3 (RFC 8446) with its AEAD ciphers; there are no session tickets, hence no resumption and no early data.
Certificates are read once for each `Identity`: a renewed one is used by the next process.
"""

from __future__ import annotations

import contextlib
import re
import select
import socket
import ssl
import time
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from securead import files
from securead.certificates import CA_CERTIFICATE, CERTIFICATE, KEY, NAME, read_member
from securead.errors import FixConfigurationError, UseOtherKeyError
from securead.protocols.sharing.channel import SILENCE, Channel, LinkError
from securead.protocols.sharing.outbox import Delay

__all__ = [
    "NAME",
    "Address",
    "Arrival",
    "Channel",
    "Delay",
    "Identity",
    "LinkError",
    "Listener",
    "UntrustedPeerError",
    "dial",
    "parse_address",
]

Address = tuple[str, int]
_MAX_KEY_BYTES = 1 << 16
_WELCOME = 0  # the kind of the first frame, from who was dialled: only then does a dialler know that it was accepted
# A machine that vanished is found out even on a link where silence is nothing unusual, after about 11 seconds.
_ALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 2),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
)
_GREETING = b"securead sharing link 1"


class UntrustedPeerError(LinkError):
    """The peer is not who it should be, or does not trust us: trying again will not help."""


@dataclass(frozen=True)
class Identity:
    """Who we are to others: a certificate, its private key, and the one authority that we believe."""

    name: str
    certificate: Path
    key: Path
    ca: Path
    passphrase: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not NAME.fullmatch(self.name):
            raise FixConfigurationError(
                "a name is 1 to 63 of a-z, 0-9, - and ., not - or . at an end", where="identity", value=self.name
            )

    @classmethod
    def load(cls, directory: Path | str, *, passphrase: str | None = None) -> Identity:
        """The identity in a directory as `securead certs` makes it; its name is the certificate's."""
        directory = Path(directory)
        name = read_member(directory).name
        return cls(name, directory / CERTIFICATE, directory / KEY, directory / CA_CERTIFICATE, passphrase)

    @cached_property
    def client(self) -> ssl.SSLContext:
        """For dialling."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = True
        context.hostname_checks_common_name = False
        return self._restricted(context)

    @cached_property
    def server(self) -> ssl.SSLContext:
        """For being dialled."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.num_tickets = 0
        return self._restricted(context)

    def _restricted(self, context: ssl.SSLContext) -> ssl.SSLContext:
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION
        for path in (self.certificate, self.ca):
            files.read_bytes(path, limit=_MAX_KEY_BYTES)  # an error that names the file
        key = files.read_secret(self.key, limit=_MAX_KEY_BYTES, passphrase=self.passphrase)
        try:
            with files.memory_path(key) as readable:
                # The password of a PEM file is never asked for at a terminal: our keys are sealed as a whole.
                context.load_cert_chain(self.certificate, readable, password=lambda: b"")
            context.load_verify_locations(self.ca)
        except (ssl.SSLError, ValueError) as error:
            raise UseOtherKeyError(
                f"{self.certificate} and those beside it are no certificate, key and authority: {error}",
                remedy="Make them anew with: securead certs",
            ) from error
        return context


def parse_address(text: str, *, where: str = "address") -> Address:
    """HOST:PORT, an IPv6 host in brackets, or `FixConfigurationError`."""
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535:
        raise FixConfigurationError(
            "an address is HOST:PORT", where=where, value=text, remedy='As in "10.0.0.2:7000" or "[::1]:7000".'
        )
    return host, int(port)


def dial(
    address: Address, identity: Identity, expect: str, *, timeout: float = SILENCE, delay: Delay | None = None
) -> Channel:
    """Connect to the one whose certificate says `expect`, once; the whole takes at most about `timeout` seconds.

    `timeout` is also how long the channel bears silence. Raises `UntrustedPeerError` when either end refuses the
    other's certificate, `LinkError` when nobody answers.
    """
    at = f"{address[0]}:{address[1]}"
    context, deadline = identity.client, time.monotonic() + timeout
    try:
        plain = socket.create_connection(address, timeout)
    except OSError as error:
        raise LinkError(
            f"cannot reach {expect} at {at}: {error.strerror or error}",
            remedy="Is it running, and is the address right?",
        ) from error
    tls = _shake_hands(plain, context, expect, deadline)
    channel = Channel(tls, _peer_name(tls), timeout=timeout, delay=delay)
    try:
        if channel.peer != expect:
            raise UntrustedPeerError(f"{at} is {channel.peer}, not {expect}", remedy="Correct the address.")
        greeting = channel.receive(_WELCOME, limit=64, timeout=max(0.0, deadline - time.monotonic()))
    except LinkError as error:
        channel.close()
        if isinstance(error.__cause__, ssl.SSLError):  # an alert: the peer says why
            raise _distrust(expect, error.__cause__) from error
        if time.monotonic() >= deadline:  # the channel knows only what was left of the time
            raise LinkError(f"{expect} at {at} did not answer within {timeout:g} s", remedy=error.remedy) from error
        raise
    if greeting != _GREETING:
        channel.close()
        raise LinkError(f"{expect} speaks another version", value=bytes(greeting), remedy="Install the same securead.")
    return channel


class Arrival:
    """A connection whose handshake is still to be done: waited for by `handshake`, or step by step by `advance`.

    `deadline`: when its time is over, on the monotonic clock. `host`: where it comes from.
    """

    def __init__(self, plain: socket.socket, listener: Listener, host: str = "") -> None:
        self._plain, self._listener, self.host = plain, listener, host
        self._tls: ssl.SSLSocket | None = None
        self.deadline = time.monotonic() + listener.timeout

    def fileno(self) -> int:
        """For `select`, between the steps."""
        return (self._tls or self._plain).fileno()

    def handshake(self) -> Channel:
        """The channel to the verified peer, or `UntrustedPeerError` or `LinkError` and the connection closed."""
        self.deadline = time.monotonic() + self._listener.timeout
        return self._welcome(_shake_hands(self._plain, self._listener.identity.server, None, self.deadline))

    def advance(self) -> Channel | int:
        """Go on as far as one can without waiting: the channel, or the event of `select.poll` to wait for.

        Raises as `handshake` does.
        """
        if self._tls is None:
            self._tls = _wrap(self._plain, self._listener.identity.server, None, self.deadline)
            self._tls.setblocking(False)
        try:
            _finish(self._tls, None)
        except ssl.SSLWantReadError:
            return select.POLLIN
        except ssl.SSLWantWriteError:
            return select.POLLOUT
        return self._welcome(self._tls)

    def _welcome(self, tls: ssl.SSLSocket) -> Channel:
        channel = Channel(tls, _peer_name(tls), timeout=self._listener.timeout, delay=self._listener.delay)
        try:
            channel.send(_WELCOME, _GREETING)
        except LinkError:
            channel.close()
            raise
        return channel

    def close(self) -> None:
        """Turn it away."""
        (self._tls or self._plain).close()


class Listener:
    """A listening socket; `port` 0 lets the system choose. Several threads may accept at once."""

    def __init__(
        self, address: Address, identity: Identity, *, timeout: float = SILENCE, delay: Delay | None = None
    ) -> None:
        self.identity, self.timeout, self.delay = identity, timeout, delay
        _ = identity.server  # a wrong key is told now, not to the first caller
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        try:
            self._socket = socket.create_server(address, family=family, backlog=64)
        except OSError as error:
            raise FixConfigurationError(
                f"cannot listen at {address[0]}:{address[1]}: {error.strerror or error}", remedy="Choose another port."
            ) from error
        self._socket.setblocking(False)
        self.closed = False
        self.address: Address = (address[0], self._socket.getsockname()[1])

    @property
    def port(self) -> int:
        """The port, as the system chose it if it was 0."""
        return self.address[1]

    def fileno(self) -> int:
        """For `select`."""
        return self._socket.fileno()

    def wait(self, timeout: float | None = None) -> Arrival:
        """The next connection, not yet verified. Raises `LinkError` after `timeout` or when the listener is closed."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while not self.closed:
            poll = select.poll()
            left = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
            try:
                poll.register(self._socket, select.POLLIN)
                arrival = self.take() if poll.poll(left) else None
            except (OSError, ValueError):  # closed meanwhile
                time.sleep(0.01)
                continue
            if arrival is not None:
                return arrival
            if deadline is not None and time.monotonic() >= deadline:
                raise LinkError("nobody called in time", value=timeout)
        raise LinkError("the listener is closed")

    def take(self) -> Arrival | None:
        """A connection that is there already, not yet verified; or None."""
        try:
            plain, address = self._socket.accept()
        except BlockingIOError:  # another thread was quicker
            return None
        except OSError:  # closed meanwhile, a caller that hung up, or no descriptors left
            time.sleep(0.01)
            return None
        return Arrival(plain, self, address[0])

    def accept(self, timeout: float | None = None) -> Channel:
        """The next connection, verified in this thread."""
        return self.wait(timeout).handshake()

    def close(self) -> None:
        """Stop listening and wake whoever waits. May be called from any thread, repeatedly."""
        self.closed = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _shake_hands(plain: socket.socket, context: ssl.SSLContext, expect: str | None, deadline: float) -> ssl.SSLSocket:
    """TLS over a connected socket, within the deadline; the socket is closed when that fails."""
    tls = _wrap(plain, context, expect, deadline)
    _finish(tls, expect)
    return tls


def _wrap(plain: socket.socket, context: ssl.SSLContext, expect: str | None, deadline: float) -> ssl.SSLSocket:
    try:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for level, option, value in _ALIVE:
            plain.setsockopt(level, option, value)
        plain.settimeout(max(0.001, deadline - time.monotonic()))
        return context.wrap_socket(
            plain, server_side=expect is None, server_hostname=expect, do_handshake_on_connect=False
        )
    except OSError as error:
        plain.close()
        raise LinkError(f"the connection ended before it began: {error.strerror or error}") from error


def _finish(tls: ssl.SSLSocket, expect: str | None) -> None:
    """The handshake; over a socket that does not block, `SSLWantReadError` or `SSLWantWriteError` is no failure."""
    try:
        tls.do_handshake()
    except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
        raise
    except ssl.SSLError as error:
        tls.close()
        raise _distrust(expect or "the caller", error) from error
    except OSError as error:
        tls.close()
        raise LinkError(f"no handshake with {expect or 'the caller'}: {error.strerror or error}") from error


def _distrust(peer: str, error: ssl.SSLError) -> LinkError:
    if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return LinkError(f"{peer} hung up during the handshake")
    told = getattr(error, "verify_message", None) or error.reason or str(error)
    return UntrustedPeerError(
        f"no trust between us and {peer}: {told}",
        remedy="Check the names, the authority and the dates of both certificates.",
    )


def _peer_name(tls: ssl.SSLSocket) -> str:
    """The one DNS name of a verified certificate; several names, or of another kind, would leave room for doubt."""
    names: Any = (tls.getpeercert() or {}).get("subjectAltName", ())
    if len(names) == 1 and names[0][0] == "DNS" and NAME.fullmatch(names[0][1]):
        return str(names[0][1])
    tls.close()
    raise UntrustedPeerError(
        "a certificate must have exactly one name", value=names, remedy="Make it with: securead certs"
    )
