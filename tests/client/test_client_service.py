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
from securead.client.service import Answered, ModelReplacedError, Service
from securead.errors import (
    FixConfigurationError,
    FixInputError,
    RegisterKeyError,
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
        self.got: list[tuple[str, str, bytes]] = []
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
            scripted.got.append((self.command, self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.do_GET()

        def do_PUT(self) -> None:
            self.do_POST()

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Scripted) as server:
        scripted = Script(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
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
        (refusal(409, "UseOtherKeyError"), ModelReplacedError),
        (refusal(400, "UseOtherKeyError"), UseOtherKeyError),
        (refusal(409, "RejectMessageError"), RejectMessageError),
        (refusal(428, "RegisterKeyError"), RegisterKeyError),
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
        "request", "ckks", "same", keys.record.program, keys.plan.digest, keys.record.key, "d" * 32, 0, 2, 3
    )
    request, answer = wire.Envelope(header, b"sent"), wire.Envelope(replace(header, kind="answer"), b"came")
    foreign = wire.Envelope(replace(answer.header, **change), b"came")
    script.replies = [(200, {}, answer.to_bytes()), (200, {}, foreign.to_bytes())]
    with Service(script.url) as service:
        assert service.score("tiny", request, keys.plan).envelope == answer
        with pytest.raises(RejectMessageError, match="belongs to something else"):
            service.score("tiny", request, keys.plan)


# Evaluation keys. The plan is an engine's that asks for none: the service decides, and this service is a script.

REQUEST_HEADER = wire.Header("request", "ckks", "same", "a" * 64, "b" * 64, "c" * 64, "d" * 32, 0, 1, 3)
REQUEST = wire.Envelope(REQUEST_HEADER, b"sent")
ANSWER: Reply = (200, {}, wire.Envelope(replace(REQUEST_HEADER, kind="answer"), b"came").to_bytes())
KEY = wire.Envelope(replace(REQUEST_HEADER, kind="key", rows=0), b"a public key")
ASKED, TAKEN = refusal(428, "RegisterKeyError", "the service does not hold this key"), (204, {}, b"")


def score(script: Script, key: wire.Envelope | None = KEY, **options: Any) -> Answered:
    with Service(script.url, **options) as service:
        return service.score("tiny", REQUEST, make_keys(small_bundle().public, "same").plan, key)


def test_a_key_that_is_asked_for_is_registered_and_the_same_bytes_sent_again(script: Script) -> None:
    script.replies = [ASKED, TAKEN, ANSWER]
    answered = score(script)
    assert answered.envelope.payload == b"came"
    scoring = ("POST", "/v1/models/tiny/score", REQUEST.to_bytes())
    assert script.got == [scoring, ("PUT", f"/v1/models/tiny/keys/{'c' * 64}", KEY.to_bytes()), scoring]
    assert answered.sent == 2 * len(REQUEST.to_bytes()) + len(KEY.to_bytes())


def test_a_service_that_asks_again_at_once_is_an_error_and_no_loop(script: Script) -> None:
    script.replies = [ASKED, TAKEN, ASKED]
    with pytest.raises(RegisterKeyError, match="has just taken"):
        score(script)
    assert script.calls == 3


def test_a_service_that_is_merely_busy_has_forgotten_nothing(script: Script) -> None:
    script.replies = [ASKED, TAKEN, (503, {"Retry-After": "0"}, b"{}"), ASKED]
    with pytest.raises(RegisterKeyError, match="has just taken"):
        score(script)
    assert script.calls == 4


@pytest.mark.parametrize("broken", [None, (502, {}, b"a proxy's page")], ids=["directly", "behind a proxy"])
def test_a_service_that_broke_off_since_may_ask_again(script: Script, broken: Reply) -> None:
    """Restarted between the key and the request, it has forgotten the key."""
    script.replies = [ASKED, TAKEN, broken, ASKED, TAKEN, ANSWER]
    assert score(script).envelope.payload == b"came"


def test_a_service_that_breaks_off_and_asks_for_ever_outlasts_no_patience(script: Script) -> None:
    script.replies = [ASKED, *[TAKEN, None, ASKED] * 100]
    start = time.monotonic()
    with pytest.raises(RegisterKeyError, match="has just taken"):
        score(script, patience=1.0)
    assert time.monotonic() - start < 10


def test_a_refused_key_is_said(script: Script) -> None:
    script.replies = [ASKED, refusal(400, "RejectMessageError", "the key is damaged")]
    with pytest.raises(RejectMessageError, match="the key is damaged"):
        score(script)
    assert script.calls == 2


def test_without_a_key_to_register_the_remedy_is_to_encrypt_again(script: Script) -> None:
    script.replies = [ASKED]
    with pytest.raises(RegisterKeyError, match=r"does not hold this key.*encrypt again"):
        score(script, None)
    assert script.calls == 1
