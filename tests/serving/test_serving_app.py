"""The HTTP application in this process: what it offers and what it refuses, with which status."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import threading
import tracemalloc
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import httpx
import numpy as np
import pytest
from fastapi import FastAPI
from small_model import records, small_bundle

from securead import codec
from securead.client.keys import Keys, make_keys
from securead.client.service import Offers
from securead.client.workflow import key_message, seal, unseal
from securead.errors import FixConfigurationError, FixProgramError, PrivacyRefusedError, RejectMessageError
from securead.models.bundle import PublicModel
from securead.program.polynomial import Relu
from securead.protocols import wire
from securead.protocols.engine import EvaluationKey
from securead.serving.app import build_app
from securead.serving.desk import SECONDS_HEADER, read_body
from securead.serving.loaded import LoadedModel, load

BUNDLE = small_bundle()
X = records(50)
PATH = "/v1/models/tiny/score"


class Http:
    """Calls an application without a network."""

    def __init__(self, app: FastAPI) -> None:
        self._app = app

    def get(self, path: str) -> httpx.Response:
        return self._call("GET", path)

    def post(self, path: str, *, content: bytes, headers: dict[str, str] | None = None) -> httpx.Response:
        return self._call("POST", path, content=content, headers=headers)

    def put(self, path: str, *, content: bytes, headers: dict[str, str] | None = None) -> httpx.Response:
        return self._call("PUT", path, content=content, headers=headers)

    def _call(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        async def call() -> httpx.Response:
            transport = httpx.ASGITransport(self._app, raise_app_exceptions=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
                return await client.request(method, path, **arguments)

        return asyncio.run(call())


@pytest.fixture(scope="module")
def keys() -> Keys:
    return make_keys(BUNDLE.public, "same")


@pytest.fixture(scope="module")
def http() -> Http:
    return Http(build_app(load([BUNDLE])))


@pytest.fixture(scope="module")
def request_message(keys: Keys) -> wire.Envelope:
    return next(seal(keys.submitter, X)).envelope


def registered(http: Http, keys: Keys, request: wire.Envelope) -> None:
    """Have the service hold the key that a request was made with."""
    key = key_message(keys.submitter, request.header)
    assert key is not None
    path = f"/v1/models/tiny/keys/{key.header.key}"
    assert http.put(path, content=key.to_bytes()).status_code == 204


def altered(envelope: wire.Envelope, **fields: object) -> bytes:
    return replace(envelope, header=replace(envelope.header, **fields)).to_bytes()


def check_refusal(reply: httpx.Response, status: int, error: str) -> dict[str, str]:
    assert reply.status_code == status, reply.text
    plain = reply.json()
    assert set(plain) == {"error", "message", "remedy"}
    assert plain["error"] == error
    assert plain["message"]
    assert plain["remedy"]
    return dict(plain)


def test_what_is_offered(http: Http) -> None:
    assert http.get("/healthz").json() == {"status": "ok"}
    offers = codec.from_plain(Offers, http.get("/v1/models").json(), where="offers")  # the client's own type reads it
    assert [(o.name, o.digest) for o in offers.models] == [("tiny", BUNDLE.public.digest)]
    plain = http.get("/v1/models/tiny").json()
    assert codec.from_plain(PublicModel, plain, where="model") == BUNDLE.public


@pytest.mark.parametrize("role", ["same", "split"])
def test_a_request_is_scored(http: Http, role: str) -> None:
    pair = make_keys(BUNDLE.public, role)  # type: ignore[arg-type]
    sealed = next(seal(pair.submitter, X))
    registered(http, pair, sealed.envelope)
    reply = http.post(PATH, content=sealed.envelope.to_bytes())
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"] == "application/octet-stream"
    assert 0 <= float(reply.headers[SECONDS_HEADER]) < 60
    answer = wire.from_bytes(reply.content, max_payload=pair.plan.max_answer_bytes)
    assert answer.header == replace(sealed.envelope.header, kind="answer")
    scores = unseal(pair.holder, pair.holder.decryptor(), answer, sealed.local.terms)
    np.testing.assert_allclose(scores, BUNDLE.program.score(X), atol=1e-4)


def test_unknown_model_and_path(http: Http, request_message: wire.Envelope) -> None:
    body = request_message.to_bytes()
    assert "tiny" in check_refusal(http.post("/v1/models/other/score", content=body), 404, "FixInputError")["remedy"]
    check_refusal(http.get("/v1/models/" + "x" * 5000), 404, "FixInputError")
    check_refusal(http.get("/etc/passwd"), 404, "FixInputError")
    check_refusal(http.get(PATH), 405, "FixInputError")


@pytest.mark.parametrize(
    "fields",
    [{"program": "0" * 64}, {"plan": "0" * 64}, {"engine": "bfv"}, {"role": "split"}],
    ids=lambda f: next(iter(f)),
)
def test_a_request_for_something_else(http: Http, request_message: wire.Envelope, fields: dict[str, object]) -> None:
    check_refusal(http.post(PATH, content=altered(request_message, **fields)), 409, "UseOtherKeyError")


MALFORMED: dict[str, Callable[[wire.Envelope], bytes]] = {
    "nothing": lambda e: b"",
    "words": lambda e: b"hello, service",
    "truncated": lambda e: e.to_bytes()[:-7],
    "followed by more": lambda e: e.to_bytes() + b"x",
    "damaged": lambda e: e.to_bytes()[:-40] + bytes(8) + e.to_bytes()[-32:],
    "an answer": lambda e: altered(e, kind="answer"),
    "too many rows": lambda e: altered(e, rows=100_000),
    "no ciphertext": lambda e: replace(e, payload=b"\x00" * 1000).to_bytes(),
    "half a ciphertext": lambda e: replace(e, payload=e.payload[: len(e.payload) // 2]).to_bytes(),
    "an empty payload": lambda e: replace(e, payload=b"").to_bytes(),
    "random bytes": lambda e: replace(e, payload=np.random.default_rng(0).bytes(len(e.payload))).to_bytes(),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed_messages(http: Http, keys: Keys, request_message: wire.Envelope, name: str) -> None:
    registered(http, keys, request_message)
    check_refusal(http.post(PATH, content=MALFORMED[name](request_message)), 400, "RejectMessageError")


def test_too_large_by_its_length_and_while_it_streams(http: Http) -> None:
    limit = LoadedModel(BUNDLE).max_message_bytes
    check_refusal(http.post(PATH, content=b"x" * (limit + 1)), 413, "RejectMessageError")
    check_refusal(http.post(PATH, content=b"x" * 10, headers={"Content-Length": "9" * 30}), 413, "RejectMessageError")
    check_refusal(http.post(PATH, content=b"x", headers={"Content-Length": "-1"}), 400, "RejectMessageError")


def test_reading_stops_at_the_limit() -> None:
    taken = 0

    class Endless:
        async def stream(self) -> object:
            nonlocal taken
            while True:
                taken += 1000
                yield b"x" * 1000

    with pytest.raises(RejectMessageError, match="larger than the 5000 bytes"):
        asyncio.run(read_body(Endless(), 5000))  # type: ignore[arg-type]
    assert taken <= 6000


def test_a_silent_sender_loses_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    class Silent:
        async def stream(self) -> object:
            yield b"x"
            await asyncio.sleep(60)

    monkeypatch.setattr("securead.serving.desk._IDLE_SECONDS", 0.05)
    with pytest.raises(RejectMessageError, match="nothing arrived"):
        asyncio.run(read_body(Silent(), 5000))  # type: ignore[arg-type]


def test_a_trickling_sender_loses_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise a byte now and then would hold a place in the queue for hours."""

    class Trickling:
        async def stream(self) -> object:
            for _ in range(200):
                yield b"x"
                await asyncio.sleep(0.02)

    monkeypatch.setattr("securead.serving.desk._IDLE_SECONDS", 0.2)
    with pytest.raises(RejectMessageError, match="bytes a second"):
        asyncio.run(read_body(Trickling(), 5000))  # type: ignore[arg-type]


def test_a_body_in_small_pieces_takes_no_more_than_it_weighs() -> None:
    content = os.urandom(150_000)

    class Pieces:
        def __init__(self, *sizes: int) -> None:
            self.sizes = itertools.cycle(sizes)

        async def stream(self) -> AsyncIterator[bytes]:
            at = 0
            while at < len(content):
                size = next(self.sizes)
                yield content[at : at + size]
                at += size
                await asyncio.sleep(0)

    for sizes in ((70_000,), (1, 70_000, 3, 65_535), (len(content),)):
        assert asyncio.run(read_body(Pieces(*sizes), len(content))) == content  # type: ignore[arg-type]
    tracemalloc.start()
    try:
        body = asyncio.run(read_body(Pieces(2), len(content)))  # type: ignore[arg-type]
        assert body == content
        assert tracemalloc.get_traced_memory()[1] < 4 * len(content)
    finally:
        tracemalloc.stop()


def test_max_body_lowers_the_limit(request_message: wire.Envelope) -> None:
    small = Http(build_app(load([BUNDLE]), max_body=1000))
    check_refusal(small.post(PATH, content=request_message.to_bytes()), 413, "RejectMessageError")


def test_a_full_queue_turns_away(keys: Keys, request_message: wire.Envelope) -> None:
    """One request is being evaluated, one waits, the third is told to come back; the first two are answered."""
    models = load([BUNDLE])
    entered, release = threading.Semaphore(0), threading.Event()
    real = models[0].evaluator(models[0].plan(request_message.header))

    class Slow:
        def evaluate(self, payload: bytes, key: EvaluationKey, *, rows: int) -> bytes:
            entered.release()
            release.wait(20)
            return real.evaluate(payload, key)

    models[0]._evaluators["ckks", "same"] = Slow()
    app = build_app(models, queue=1)
    registered(Http(app), keys, request_message)

    async def play() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            body = request_message.to_bytes()
            first = asyncio.create_task(client.post(PATH, content=body))
            while not entered.acquire(blocking=False):
                await asyncio.sleep(0.01)
            second = asyncio.create_task(client.post(PATH, content=body))
            while "securead_queue 2.0" not in (await client.get("/metrics")).text:
                await asyncio.sleep(0.01)
            third = await client.post(PATH, content=body)
            assert (await client.get("/healthz")).status_code == 200
            release.set()
            return [await first, await second, third]

    first, second, third = asyncio.run(play())
    assert first.status_code == second.status_code == 200
    check_refusal(third, 503, "RetryLaterError")
    assert third.headers["retry-after"] == "1"


def test_a_bug_says_nothing_of_itself(keys: Keys, request_message: wire.Envelope) -> None:
    models = load([BUNDLE])

    class Broken:
        def evaluate(self, payload: bytes, key: EvaluationKey, *, rows: int) -> bytes:
            raise ZeroDivisionError("the weights are 1, 2, 3")

    models[0]._evaluators["ckks", "same"] = Broken()
    http = Http(build_app(models))
    registered(http, keys, request_message)
    reply = http.post(PATH, content=request_message.to_bytes())
    check_refusal(reply, 500, "InternalError")
    assert "weights" not in reply.text
    assert http.get("/healthz").status_code == 200


def test_metrics_count_and_name_no_caller(http: Http, keys: Keys, request_message: wire.Envelope) -> None:
    registered(http, keys, request_message)

    def value(line: str) -> float:
        lines = http.get("/metrics").text.splitlines()
        return next((float(x.split()[-1]) for x in lines if x.startswith(line)), 0.0)

    rows, refused = value('securead_rows_total{model="tiny"}'), value('securead_refused_total{status="404"}')
    http.post(PATH, content=request_message.to_bytes())
    http.post("/v1/models/chosen-by-a-stranger/score", content=b"")
    assert value('securead_rows_total{model="tiny"}') == rows + 50
    assert value('securead_refused_total{status="404"}') == refused + 1
    assert value('securead_evaluation_seconds_total{model="tiny"}') > 0
    assert "stranger" not in http.get("/metrics").text


def test_what_is_not_loaded() -> None:
    with pytest.raises(PrivacyRefusedError, match="known seed"):
        load([small_bundle(noise_source="seeded-study")])
    with pytest.raises(FixConfigurationError, match="two bundles"):
        load([BUNDLE, small_bundle(seed=4)])
    with pytest.raises(FixConfigurationError, match="nothing to serve"):
        load([])


def test_a_program_that_no_engine_carries_is_refused() -> None:
    from securead.data.encoder import Encoder
    from securead.program.builder import ProgramBuilder

    build = ProgramBuilder(Encoder(BUNDLE.public.program.encoder.schema))
    build.affine([(np.ones((1, 5)), build.relu(build.input))], fraction_bits=24)
    program = build.finish(tolerance=1e-3, honest_extraction_rows=6)
    assert any(isinstance(step, Relu) for step in program.public.steps)
    bundle = replace(BUNDLE, public=replace(BUNDLE.public, program=program.public), secret=program.secret)
    with pytest.raises(FixProgramError):
        load([bundle])


def test_replies_carry_nothing_secret(http: Http) -> None:
    text = json.dumps(http.get("/v1/models/tiny").json())
    assert BUNDLE.secret.commitment_key.hex() not in text
    assert "matrices" not in text
