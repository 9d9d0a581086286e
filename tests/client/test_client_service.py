"""The HTTP side of the client against a scripted server: what is retried, what is refused, what is believed."""

from __future__ import annotations

import json
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from securead.client.keys import make_keys
from securead.client.service import Service
from securead.errors import (
    FixConfigurationError,
    FixInputError,
    RejectMessageError,
    RetryLaterError,
    SecureadError,
    UseOtherKeyError,
)
from securead.protocols import wire
from tests.small_model import small_bundle

MODELS = json.dumps({"models": [{"name": "tiny", "digest": "d", "program": "p"}]}).encode()
Reply = tuple[int, dict[str, str], bytes] | None  # None: close the connection without a word


class Script:
    """Replies one after the other; the last one for ever."""

    def __init__(self, server: ThreadingHTTPServer) -> None:
        self.replies: list[Reply] = []
        self.calls = 0
        self.url = f"http://127.0.0.1:{server.server_address[1]}"

    def next(self) -> Reply:
        self.calls += 1
        return self.replies[min(self.calls, len(self.replies)) - 1]


class Waits:
    def __init__(self) -> None:
        self.said: list[str] = []

    def rows(self, phase: str, done: int, total: int) -> None: ...

    def waiting(self, what: str) -> None:
        self.said.append(what)


@pytest.fixture
def script() -> Iterator[Script]:
    class Scripted(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            reply = scripted.next()
            if reply is None:
                self.connection.close()
                return
            status, headers, body = reply
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.do_GET()

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Scripted) as server:
        scripted = Script(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield scripted
        server.shutdown()


def refusal(status: int, error: object, message: str = "no", remedy: str = "Do so.") -> Reply:
    return status, {}, json.dumps({"error": error, "message": message, "remedy": remedy}).encode()


def test_models_are_read(script: Script) -> None:
    script.replies = [(200, {}, MODELS)]
    with Service(script.url) as service:
        assert [offer.name for offer in service.models()] == ["tiny"]


def test_what_passes_is_retried_and_said(script: Script) -> None:
    busy: Reply = (503, {"Retry-After": "0"}, b"{}")
    script.replies = [busy, None, (502, {}, b"a proxy's page"), (200, {}, MODELS)]
    waits = Waits()
    with Service(script.url, watch=waits) as service:
        assert service.models()
    assert script.calls == 4
    assert len(waits.said) == 3
    assert "busy" in waits.said[0]
    assert "broke" in waits.said[1]


def test_patience_ends(script: Script) -> None:
    script.replies = [(503, {"Retry-After": "3600"}, b"{}")]
    start = time.monotonic()
    with Service(script.url, patience=0.6) as service, pytest.raises(RetryLaterError, match=r"gave up after 0\.6 s"):
        service.models()
    assert time.monotonic() - start < 5


def test_a_refused_connection_is_retried_until_patience_ends() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    waits = Waits()
    with Service(f"http://127.0.0.1:{port}", patience=0.5, watch=waits) as service, pytest.raises(RetryLaterError):
        service.models()
    assert waits.said
    assert "refuses connections" in waits.said[0]


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        (refusal(400, "RejectMessageError"), RejectMessageError),
        (refusal(404, "FixInputError"), FixInputError),
        (refusal(409, "UseOtherKeyError"), UseOtherKeyError),
        (refusal(413, "RejectMessageError"), RejectMessageError),
        (refusal(400, "SystemExit"), RejectMessageError),  # not a name of ours
        (refusal(400, "Iterator"), RejectMessageError),
        (refusal(500, "InternalError"), RetryLaterError),
        (refusal(400, ["RejectMessageError"]), FixConfigurationError),
        ((404, {}, b"<html>not found</html>"), FixConfigurationError),
        ((302, {"Location": "http://example.org/"}, b""), FixConfigurationError),
    ],
)
def test_refusals_are_not_retried(script: Script, reply: Reply, expected: type[SecureadError]) -> None:
    script.replies = [reply]
    with Service(script.url) as service, pytest.raises(expected) as caught:
        service.models()
    assert type(caught.value) is expected
    assert script.calls == 1


def test_a_refusal_cannot_write_to_the_terminal(script: Script) -> None:
    script.replies = [refusal(400, "RejectMessageError", "\x1b[2Jgone\r\nalso", "\x07" * 5)]
    with Service(script.url) as service, pytest.raises(RejectMessageError) as caught:
        service.models()
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"models": [{"name": 1}]}', b"\xff", b"[" * 100_000, b"x" * (2 << 20)]
)
def test_ill_formed_or_oversized_replies_are_refused(script: Script, body: bytes) -> None:
    script.replies = [(200, {}, body)]
    with Service(script.url) as service, pytest.raises(RejectMessageError):
        service.models()


@pytest.mark.parametrize(
    "url",
    [
        "http://example.org",
        "http://192.168.0.1:8000",
        "http://127.0.0.1.example.org",
        "ftp://127.0.0.1",
        "https://user:secret@example.org",
        "127.0.0.1:8000",
        "https://",
        "https://example.org?x=1",
        "http://[::1",
    ],
)
def test_addresses_that_are_refused(url: str) -> None:
    with pytest.raises(FixConfigurationError) as caught:
        Service(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["http://localhost:1", "http://127.0.0.1", "http://[::1]:80/", "https://example.org/a/"]
)
def test_addresses_that_are_taken(url: str) -> None:
    with Service(url) as service:
        assert not service.url.endswith("/")


def test_a_model_name_cannot_leave_its_place(script: Script) -> None:
    with Service(script.url) as service, pytest.raises(FixInputError):
        service.model("../../metrics")
    assert script.calls == 0


@pytest.mark.parametrize(
    "change", [{"request": secrets.token_hex(16)}, {"chunk": 1}, {"rows": 4}, {"key": "0" * 64}, {"kind": "request"}]
)
def test_an_answer_to_something_else_is_refused(script: Script, change: dict[str, Any]) -> None:
    """A reply that was mixed up or replayed is well-formed: only its header tells."""
    keys = make_keys(small_bundle().public, "same")
    header = wire.Header(
        "request", "ckks", "same", keys.record.program, keys.plan.digest, keys.record.key, "r" * 32, 0, 2, 3
    )
    request, answer = wire.Envelope(header, b"sent"), wire.Envelope(replace(header, kind="answer"), b"came")
    foreign = wire.Envelope(replace(answer.header, **change), b"came")
    script.replies = [(200, {}, answer.to_bytes()), (200, {}, foreign.to_bytes())]
    with Service(script.url) as service:
        assert service.score("tiny", request, keys.plan).envelope == answer
        with pytest.raises(RejectMessageError, match="belongs to something else"):
            service.score("tiny", request, keys.plan)
