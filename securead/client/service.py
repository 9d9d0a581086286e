"""The scoring service as its client sees it: models, and one answer for each request chunk.

Guarantees: nothing travels unencrypted to another machine (http is for loopback only); a certificate that does not
verify ends the call; no reply is read beyond the size an honest one can have; a service that is restarted between
or during calls loses nothing, because a chunk is sent again, byte for byte, until `patience` runs out; a refusal
(4xx) is never repeated, but for one: a service that lacks the owner's public key is sent it, and the chunk again.
"""

from __future__ import annotations

import ipaddress
import json
import math
import random
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import httpx

from securead import codec, errors
from securead.client.watch import Silent, Watch
from securead.errors import (
    FixConfigurationError,
    FixInputError,
    RegisterKeyError,
    RejectMessageError,
    RetryLaterError,
    SecureadError,
    UseOtherKeyError,
)
from securead.models.bundle import MAX_PUBLIC_BYTES, PublicModel, check_name
from securead.protocols import wire
from securead.protocols.engine import Plan

MAX_LIST_BYTES = 1 << 20
MAX_ERROR_BYTES = 64 << 10
ENVELOPE_BYTES = wire.MAX_HEADER_BYTES + 64
SECONDS_HEADER = "X-Securead-Seconds"
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 5.0
_BUSY = {502, 503, 504}
_DONE = {200, 204, 206}
_OCTETS = "application/octet-stream"


class Pieces(Protocol):
    """Bytes in pieces, from the start again at every iteration."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[bytes]: ...


Content = bytes | Pieces


@dataclass(frozen=True)
class Offer:
    """A model that a service offers: its name, the digest of its public half and that of its program."""

    name: str
    digest: str
    program: str


@dataclass(frozen=True)
class Offers:
    """The reply to a request for the list of models."""

    models: tuple[Offer, ...]


@dataclass(frozen=True)
class KeyHeld:
    """The reply to the question whether a service holds a key."""

    held: bool


@dataclass(frozen=True)
class Answered:
    """One answer chunk, parsed and as it came, the bytes sent for it and the CPU seconds the service says it took.

    `sent` includes what was sent in vain because the service lacked the key, and the key.
    """

    envelope: wire.Envelope
    message: bytes
    sent: int
    server_seconds: float


class ModelReplacedError(UseOtherKeyError):
    """The service has another model or other parameters by now (HTTP 409): keys for it are of no more use there."""


@dataclass(frozen=True)
class _Reply:
    status: int
    headers: httpx.Headers
    body: bytes


class Service:
    """A connection to one scoring service; close it, or use it as a context manager.

    `ca`: a file with the certificate (authority) to trust instead of the system's. `patience`: seconds to keep
    trying while the service cannot be reached or is busy. `timeout`: seconds to wait for a single reply.
    """

    def __init__(
        self,
        url: str,
        *,
        ca: Path | None = None,
        patience: float = 60.0,
        timeout: float = 300.0,
        watch: Watch | None = None,
    ) -> None:
        self.url, loopback = _check_url(url)
        self._ensured: set[tuple[str, str]] = set()
        self._patience, self._watch = patience, watch or Silent()
        self._breaks = 0  # connections that failed so far: behind each may be a service that was restarted
        self._http = httpx.Client(
            verify=_trust(ca),
            timeout=httpx.Timeout(timeout, connect=10.0),
            # A proxy named in the environment has no business with a service on this machine.
            trust_env=not loopback,
            # A compressed reply could be small on the wire and huge in memory.
            headers={"Accept-Encoding": "identity"},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def models(self) -> tuple[Offer, ...]:
        """What the service offers."""
        reply = self._call("GET", "/v1/models", limit=MAX_LIST_BYTES)
        offers: Offers = self._parse(Offers, reply.body, "the list of models")
        return offers.models

    def model(self, name: str) -> PublicModel:
        """The public half of a model. Raises `FixInputError` when the service has none of that name."""
        if not check_name(name):
            raise FixInputError("this cannot be a model's name", value=name[:100], remedy="Check its spelling.")
        reply = self._call("GET", f"/v1/models/{name}", limit=MAX_PUBLIC_BYTES)
        model: PublicModel = self._parse(PublicModel, reply.body, f"model {name}")
        if model.name != name:
            raise RejectMessageError(f"the service sent another model than {name!r}", value=model.name)
        return model

    def ensure_key(self, name: str, key: wire.Envelope) -> int:
        """Register an owner's public key unless the service holds it; the bytes sent for it.

        Asking first costs a few bytes, and saves a chunk that would be sent in vain. One connection asks once.
        """
        if (name, key.header.key) in self._ensured:
            return 0
        self._ensured.add((name, key.header.key))
        reply = self._call("GET", f"/v1/models/{name}/keys/{key.header.key}", limit=MAX_ERROR_BYTES)
        known: KeyHeld = self._parse(KeyHeld, reply.body, "whether a key is held")
        return 0 if known.held else self.register_key(name, key)

    def register_key(self, name: str, key: wire.Envelope) -> int:
        """Have the service hold an owner's public key, an envelope of kind "key"; the bytes sent for it."""
        message = key.to_bytes()
        self._call("PUT", f"/v1/models/{name}/keys/{key.header.key}", content=message, limit=MAX_ERROR_BYTES)
        return len(message)

    def score(self, name: str, request: wire.Envelope, plan: Plan, key: wire.Envelope | None = None) -> Answered:
        """Send one request chunk and check that the answer is the answer to it.

        `key`: the owner's public key, registered when the service says that it lacks it, and the same bytes sent
        again. Raises `RegisterKeyError` when there is none to register, or when the service lacks the key it has just
        taken although no connection broke since: one that restarts forgets keys, one that does not must keep them.
        """
        message = request.to_bytes()
        reply, sent = self._answered(name, message, plan, key)
        answer = wire.from_bytes(reply.body, max_payload=plan.max_answer_bytes)
        if answer.header != replace(request.header, kind="answer"):
            raise RejectMessageError(
                f"the service's answer to chunk {request.header.chunk} belongs to something else",
                where=self.url,
                value=_difference(request.header, answer.header),
                remedy="Something between you and the service mixes up replies, or replays them: tell its operator.",
            )
        return Answered(answer, reply.body, sent, _seconds(reply.headers.get(SECONDS_HEADER)))

    def _answered(self, name: str, message: bytes, plan: Plan, key: wire.Envelope | None) -> tuple[_Reply, int]:
        """The reply to a request chunk, the key registered where that is asked for, and all bytes sent."""
        start, sent, registered_at = time.monotonic(), 0, -1
        path, limit = f"/v1/models/{name}/score", plan.max_answer_bytes + ENVELOPE_BYTES
        while True:
            sent += len(message)
            try:
                return self._call("POST", path, content=message, limit=limit), sent
            except RegisterKeyError as error:
                if key is None:
                    raise RegisterKeyError(
                        error.what, remedy="The request does not carry its owner's public key: encrypt again."
                    ) from error
                if self._breaks == registered_at or (registered_at >= 0 and time.monotonic() - start > self._patience):
                    raise RegisterKeyError(
                        "the service lacks a key that it has just taken",
                        where=self.url,
                        value=key.header.key,
                        remedy="Tell its operator; if several services answer at this address, they share no keys.",
                    ) from error
            sent += self.register_key(name, key)
            registered_at = self._breaks

    def read(self, path: str, *, limit: int, part: str = "") -> bytes:
        """What the service has at a path of its own, at most `limit` bytes; `part`: a range of it, "FIRST-LAST"."""
        return self._call("GET", path, limit=limit, part=part).body

    def _parse(self, cls: type[Any], body: bytes, what: str) -> Any:
        try:
            return codec.from_plain(cls, json.loads(body), where=what)
        except (ValueError, RecursionError, SecureadError) as error:
            raise RejectMessageError(
                f"{what} from the service is ill-formed: {error}",
                where=self.url,
                remedy="Check that the address is that of a securead service of the same release.",
            ) from error

    def _call(self, method: str, path: str, *, limit: int, content: Content | None = None, part: str = "") -> _Reply:
        """One call, repeated while that can help and patience lasts."""
        start, pause = time.monotonic(), _FIRST_PAUSE
        while True:
            try:
                reply = self._once(method, path, content, limit, part)
                if reply.status not in _BUSY:
                    break
                problem, wished = f"{self.url} is busy", _seconds(reply.headers.get("Retry-After"))
                self._breaks += reply.status != 503  # a proxy that has lost its connection to the service
            except httpx.TransportError as error:
                problem, wished = self._passing(error), 0.0
                self._breaks += 1
            left = self._patience - (time.monotonic() - start)
            if left <= 0:
                raise RetryLaterError(
                    f"gave up after {self._patience:g} s: {problem}",
                    remedy="Nothing is lost: check the address and the service, then call again.",
                )
            self._watch.waiting(f"{problem}; trying for another {left:.0f} s")
            time.sleep(min(left, max(wished, pause) * random.uniform(0.8, 1.2)))  # noqa: S311  (jitter, no secret)
            pause = min(2 * pause, _LONGEST_PAUSE)
        if reply.status not in _DONE:
            raise self._refusal(reply)
        return reply

    def _once(self, method: str, path: str, content: Content | None, limit: int, span: str) -> _Reply:
        headers = {} if content is None else {"Content-Type": _OCTETS, "Content-Length": str(len(content))}
        headers |= {"Range": f"bytes={span}"} if span else {}
        with self._http.stream(method, self.url + path, content=content, headers=headers) as response:
            limit = limit if response.status_code in _DONE else MAX_ERROR_BYTES
            body = bytearray()
            for part in response.iter_raw():
                body += part
                if len(body) > limit:
                    raise RejectMessageError(
                        f"the service's reply is larger than {limit} bytes", where=self.url, remedy="It was not read."
                    )
            return _Reply(response.status_code, response.headers, bytes(body))

    def _passing(self, error: httpx.TransportError) -> str:
        """What is wrong, in words, when trying again may help; raises when it cannot."""
        causes = list(_causes(error))
        for cause in causes:
            if isinstance(cause, ssl.SSLCertVerificationError):
                raise FixConfigurationError(
                    f"the service's certificate is not trusted: {cause.verify_message}",
                    where=self.url,
                    remedy="If it is the right service, give the certificate of its authority with --ca.",
                ) from error
            if isinstance(cause, ssl.SSLError) and not isinstance(cause, ssl.SSLEOFError):
                raise FixConfigurationError(
                    f"no TLS connection: {cause.reason or cause}",
                    where=self.url,
                    remedy="Check the address: does this port speak https?",
                ) from error
            if isinstance(cause, socket.gaierror) and cause.errno != socket.EAI_AGAIN:
                raise FixConfigurationError(
                    f"the host is unknown: {cause.strerror}", where=self.url, remedy="Check the address."
                ) from error
        if isinstance(error, httpx.UnsupportedProtocol | httpx.LocalProtocolError):
            raise FixConfigurationError(f"the address cannot be called: {error}", where=self.url) from error
        if isinstance(error, httpx.TimeoutException):
            return f"{self.url} does not reply in time"
        refused = any(isinstance(cause, ConnectionRefusedError) for cause in causes)
        return f"{self.url} refuses connections" if refused else f"the connection to {self.url} broke"

    def _refusal(self, reply: _Reply) -> SecureadError:
        """The service's refusal as one of our errors. Its text comes from outside: cleaned and cut."""
        try:
            plain = json.loads(reply.body)
            name, message, remedy = (_clean(plain[key]) for key in ("error", "message", "remedy"))
        except (ValueError, KeyError, TypeError, RecursionError):
            return FixConfigurationError(
                f"HTTP {reply.status} from something that is no securead service",
                where=self.url,
                remedy="Check the address.",
            )
        known = getattr(errors, name, None)
        if not isinstance(known, type) or not issubclass(known, SecureadError):
            known = RetryLaterError if reply.status >= 500 else RejectMessageError
        if known is UseOtherKeyError and reply.status == 409:
            known = ModelReplacedError
        error: SecureadError = known(f"the service says: {message}", remedy=remedy)
        return error


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine's own."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_url(url: str) -> tuple[str, bool]:
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, TypeError) as error:
        raise FixConfigurationError(f"not an address: {error}", value=url) from error
    if parsed.scheme not in ("http", "https") or not parsed.host or parsed.query or parsed.fragment or parsed.userinfo:
        raise FixConfigurationError(
            "a service's address is https://HOST[:PORT][/PATH], nothing more",
            value=url if not parsed.userinfo else "(an address with a password)",
            remedy="For example https://scores.example.org.",
        )
    loopback = is_loopback(parsed.host)
    if parsed.scheme == "http" and not loopback:
        raise FixConfigurationError(
            "http is for a service on this machine only", value=url, remedy="Use https:// for another machine."
        )
    return url.rstrip("/"), loopback


def _trust(ca: Path | None) -> ssl.SSLContext | bool:
    if ca is None:
        return True
    try:
        return ssl.create_default_context(cafile=str(ca))
    except (OSError, ssl.SSLError) as error:
        raise FixConfigurationError(
            f"cannot use {ca} as a certificate authority: {error}", remedy="Give a PEM file."
        ) from error


def _causes(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def _seconds(text: str | None) -> float:
    try:
        value = float(text or 0.0)
    except ValueError:
        return 0.0
    return value if math.isfinite(value) and 0.0 <= value < 1e9 else 0.0


def _clean(text: object) -> str:
    if not isinstance(text, str):
        raise TypeError("not a text")
    return "".join(character if character.isprintable() else " " for character in text[:2000])


def _difference(sent: wire.Header, got: wire.Header) -> str:
    a, b = codec.to_plain(sent), codec.to_plain(got)
    return ", ".join(f"{key}: {b[key]!r}" for key in a if key != "kind" and a[key] != b[key]) or f"kind: {got.kind!r}"
