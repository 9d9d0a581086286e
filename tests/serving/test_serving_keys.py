"""Evaluation keys at the application: registered, asked for, refused, forgotten. The engine is a make-believe one."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import threading
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import asking_engine.blind
import httpx
import numpy as np
import pytest
from asking_engine import install, table_bundle
from asking_engine.keys import PublicKey
from small_model import small_bundle
from test_serving_app import Http, check_refusal

from securead.client.keys import Keys, make_keys
from securead.client.workflow import key_message, seal, unseal
from securead.protocols import wire
from securead.protocols.ckks.plan import CkksPlan
from securead.serving.app import build_app
from securead.serving.loaded import LoadedModel, load
from securead.serving.registered import RegisteredKeys

BUNDLE = table_bundle()
X = np.random.default_rng(0).normal(size=(16, 3)).clip(-4, 4)
SCORE = "/v1/models/table/score"


class Owner:
    """Someone with keys and one request."""

    def __init__(self, role: str = "same", *, model: str = "table") -> None:
        self.keys: Keys = make_keys(BUNDLE.public, role)  # type: ignore[arg-type]
        self.id = self.keys.record.key
        self.request = next(seal(self.keys.submitter, X)).envelope
        key = key_message(self.keys.submitter, self.request.header)
        assert key is not None
        self.key = key
        self.put, self.post = f"/v1/models/{model}/keys/{self.id}", f"/v1/models/{model}/score"

    def register(self, http: Http) -> httpx.Response:
        return http.put(self.put, content=self.key.to_bytes())

    def score(self, http: Http) -> httpx.Response:
        return http.post(self.post, content=self.request.to_bytes())

    def check(self, reply: httpx.Response) -> None:
        """The reply holds the right scores, masked under this owner's key and no other."""
        assert reply.status_code == 200, reply.text
        answer = wire.from_bytes(reply.content, max_payload=self.keys.plan.max_answer_bytes)
        scores = unseal(self.keys.holder, self.keys.holder.decryptor(), answer, ())
        np.testing.assert_allclose(scores, BUNDLE.program.score(X))


@pytest.fixture(autouse=True)
def asking(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)


@pytest.fixture
def http(asking: None) -> Http:
    return Http(build_app(load([BUNDLE])))


@pytest.fixture
def owner(asking: None) -> Owner:
    return Owner()


def metric(http: Http, line: str) -> float:
    lines = http.get("/metrics").text.splitlines()
    return next((float(x.split()[-1]) for x in lines if x.startswith(line)), 0.0)


@pytest.mark.parametrize("role", ["same", "split"])
def test_an_unknown_key_is_asked_for_and_then_used(http: Http, role: str) -> None:
    owner = Owner(role)
    said = check_refusal(owner.score(http), 428, "RegisterKeyError")
    assert "does not hold this key" in said["message"]
    assert "public.key" in said["remedy"]
    registered = owner.register(http)
    assert (registered.status_code, registered.content) == (204, b"")
    owner.check(owner.score(http))
    owner.check(owner.score(http))


def test_nothing_is_evaluated_without_the_key(http: Http, owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluated: list[bytes] = []
    monkeypatch.setattr(asking_engine.blind.Evaluator, "evaluate", lambda self, request, key: evaluated.append(request))
    check_refusal(owner.score(http), 428, "RegisterKeyError")
    assert not evaluated
    assert metric(http, 'securead_rows_total{model="table"}') == 0


def test_the_same_key_twice_is_fine(http: Http, owner: Owner) -> None:
    for _ in range(3):
        assert owner.register(http).status_code == 204
    owner.check(owner.score(http))
    assert metric(http, 'securead_keys_total{model="table"}') == 3
    assert metric(http, "securead_keys_held") == 1


def test_every_owner_is_answered_under_the_own_key(http: Http) -> None:
    owners = [Owner(), Owner(), Owner("split")]
    for each in owners:
        assert each.register(http).status_code == 204
    for each in owners:
        each.check(each.score(http))
    check_refusal(Owner().score(http), 428, "RegisterKeyError")


def altered(sent: wire.Envelope, payload: bytes | None = None, **fields: object) -> bytes:
    header = replace(sent.header, **fields)  # type: ignore[arg-type]
    return wire.Envelope(header, sent.payload if payload is None else payload).to_bytes()


def damaged(content: bytes, at: int) -> bytes:
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


BAD_KEYS: dict[str, Callable[[Owner], bytes]] = {
    "nothing": lambda o: b"",
    "words": lambda o: b"hello, service",
    "a bare key without its envelope": lambda o: o.key.payload,
    "a truncated message": lambda o: o.key.to_bytes()[:-9],
    "a truncated key": lambda o: altered(o.key, o.key.payload[:-9]),
    "an empty key": lambda o: altered(o.key, b""),
    "a key and more": lambda o: altered(o.key, o.key.payload + b"x"),
    "a damaged key": lambda o: altered(o.key, damaged(o.key.payload, 2000)),
    "a key of another plan inside": lambda o: altered(o.key, damaged(o.key.payload, 20)),
    "another owner's key inside": lambda o: altered(o.key, Owner().key.payload),
    "another owner's key named outside": lambda o: Owner().key.to_bytes(),
    "another name in the header": lambda o: altered(o.key, key="0" * 64),
    "the secret key": lambda o: altered(o.key, o.keys.secret.to_bytes()),
    "a request": lambda o: o.request.to_bytes(),
    "two": lambda o: o.key.to_bytes() * 2,
}


@pytest.mark.parametrize("name", BAD_KEYS)
def test_what_is_no_sound_key_of_that_name_is_refused(http: Http, owner: Owner, name: str) -> None:
    check_refusal(http.put(owner.put, content=BAD_KEYS[name](owner)), 400, "RejectMessageError")
    assert metric(http, "securead_keys_held") == 0
    assert metric(http, 'securead_keys_total{model="table"}') == 0
    check_refusal(owner.score(http), 428, "RegisterKeyError")


def test_a_bad_key_does_not_push_out_the_good_one(http: Http, owner: Owner) -> None:
    owner.register(http)
    for bad in BAD_KEYS.values():
        check_refusal(http.put(owner.put, content=bad(owner)), 400, "RejectMessageError")
    owner.check(owner.score(http))


@pytest.mark.parametrize("fields", [{"program": "0" * 64}, {"plan": "0" * 64}, {"engine": "ckks"}, {"role": "split"}])
def test_a_key_for_something_else(http: Http, owner: Owner, fields: dict[str, object]) -> None:
    check_refusal(http.put(owner.put, content=altered(owner.key, **fields)), 409, "UseOtherKeyError")


def test_a_key_of_a_foreign_plan_under_its_right_name(http: Http, owner: Owner) -> None:
    """Well-formed throughout, and made for another role: its own plan's digest gives it away."""
    foreign = PublicKey(make_keys(BUNDLE.public, "split").plan.digest, owner.key.payload[-3000:])
    message = altered(owner.key, foreign.to_bytes(), key=foreign.key_id)
    reply = http.put(f"/v1/models/table/keys/{foreign.key_id}", content=message)
    assert "another plan" in check_refusal(reply, 400, "RejectMessageError")["message"]


def test_a_key_whose_name_is_another_than_the_engine_finds(
    http: Http, owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine's word counts: a service must not mask one owner's answers under another's key."""
    stranger = Owner()
    monkeypatch.setattr(asking_engine.blind, "read_evaluation_key", lambda plan, content: stranger.keys.public)
    assert "another key" in check_refusal(owner.register(http), 400, "RejectMessageError")["message"]
    check_refusal(owner.score(http), 428, "RegisterKeyError")


def test_unknown_model_and_models_that_take_no_key(owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CkksPlan, "evaluation_key_bytes", 0)
    http = Http(build_app([LoadedModel(BUNDLE), LoadedModel(small_bundle(), engines=["ckks"])]))
    content = owner.key.to_bytes()
    check_refusal(http.put(f"/v1/models/other/keys/{owner.id}", content=content), 404, "FixInputError")
    reply = http.put(f"/v1/models/tiny/keys/{owner.id}", content=content)
    assert "takes a key" in check_refusal(reply, 400, "RejectMessageError")["message"]
    assert http.get(owner.put).json() == {"held": False}
    check_refusal(http.post(SCORE, content=content), 400, "RejectMessageError")


def test_too_large_by_its_length_before_a_byte_is_read(http: Http, owner: Owner) -> None:
    limit = LoadedModel(BUNDLE).max_key_bytes
    assert owner.keys.plan.evaluation_key_bytes < limit < owner.keys.plan.evaluation_key_bytes + (32 << 10)
    check_refusal(http.put(owner.put, content=b"x" * (limit + 1)), 413, "RejectMessageError")
    reply = http.put(owner.put, content=b"x" * 10, headers={"Content-Length": "9" * 30})
    check_refusal(reply, 413, "RejectMessageError")
    assert reply.headers["connection"] == "close"


def test_too_large_for_its_plan_though_not_for_the_door(http: Http, owner: Owner) -> None:
    most = owner.keys.plan.evaluation_key_bytes
    check_refusal(http.put(owner.put, content=altered(owner.key, bytes(most + 1))), 413, "RejectMessageError")
    check_refusal(http.put(owner.put, content=altered(owner.key, bytes(most))), 400, "RejectMessageError")


def test_too_large_while_it_streams(http: Http, owner: Owner) -> None:
    """Without Content-Length only counting helps."""
    taken = 0

    async def endless() -> object:
        nonlocal taken
        while True:
            taken += 1000
            yield b"x" * 1000

    reply = http.put(owner.put, content=endless())  # type: ignore[arg-type]
    check_refusal(reply, 413, "RejectMessageError")
    assert taken <= LoadedModel(BUNDLE).max_key_bytes + 2000


def test_beyond_capacity_the_least_recently_used_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("securead.serving.evaluation.RegisteredKeys", partial(RegisteredKeys, max_keys=2))
    http = Http(build_app(load([BUNDLE])))
    a, b, c = owners = Owner(), Owner(), Owner()
    a.register(http)
    b.register(http)
    a.check(a.score(http))
    c.register(http)
    check_refusal(b.score(http), 428, "RegisterKeyError")
    a.check(a.score(http))
    c.check(c.score(http))
    assert metric(http, "securead_keys_held") == 2
    assert metric(http, "securead_keys_total") == len(owners)


def test_models_do_not_share_keys(owner: Owner) -> None:
    """The same program under two names: one name's owners are not the other's."""
    twin = replace(BUNDLE, public=replace(BUNDLE.public, name="twin"))
    http = Http(build_app(load([BUNDLE, twin])))
    owner.register(http)
    check_refusal(http.post("/v1/models/twin/score", content=owner.request.to_bytes()), 428, "RegisterKeyError")


def test_many_register_and_score_at_once() -> None:
    owners = [Owner() for _ in range(12)]
    app = build_app(load([BUNDLE]), queue=100)

    async def one(client: httpx.AsyncClient, owner: Owner) -> None:
        for _ in range(2):
            replies = await asyncio.gather(
                *(client.put(owner.put, content=owner.key.to_bytes()) for _ in range(2)),
            )
            assert [reply.status_code for reply in replies] == [204, 204]
            owner.check(await client.post(SCORE, content=owner.request.to_bytes()))

    async def play() -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as client:
            await asyncio.gather(*(one(client, owner) for owner in owners))

    asyncio.run(play())
    assert metric(Http(app), "securead_keys_held") == 12


def test_keys_wait_in_the_queue_and_are_turned_away_when_it_is_full(
    owner: Owner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One key is being read, a request waits behind it, the next key is told to come back."""
    entered, release, at_once, most = threading.Semaphore(0), threading.Event(), [0], [0]
    real = asking_engine.blind.read_evaluation_key

    def slow(plan: object, content: bytes) -> object:
        at_once[0] += 1
        most[0] = max(most[0], at_once[0])
        entered.release()
        release.wait(20)
        at_once[0] -= 1
        return real(plan, content)  # type: ignore[arg-type]

    monkeypatch.setattr(asking_engine.blind, "read_evaluation_key", slow)
    app = build_app(load([BUNDLE]), queue=1)

    async def play() -> list[httpx.Response]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as client:
            first = asyncio.create_task(client.put(owner.put, content=owner.key.to_bytes()))
            while not entered.acquire(blocking=False):
                await asyncio.sleep(0.01)
            second = asyncio.create_task(client.post(SCORE, content=owner.request.to_bytes()))
            while "securead_queue 2.0" not in (await client.get("/metrics")).text:
                await asyncio.sleep(0.01)
            third = await client.put(owner.put, content=owner.key.to_bytes())
            release.set()
            return [await first, await second, third]

    first, second, third = asyncio.run(play())
    assert first.status_code == 204
    owner.check(second)
    check_refusal(third, 503, "RetryLaterError")
    assert third.headers["retry-after"] == "1"
    assert most[0] == 1


def test_only_counts_are_logged(http: Http, owner: Owner, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="securead"):
        owner.score(http)
        owner.register(http)
        owner.score(http)
        http.put(owner.put, content=altered(owner.key, key="0" * 64))
    written = "\n".join(each.getMessage() for each in caplog.records if each.name.startswith("securead"))
    assert "serving.register" in written
    written += http.get("/metrics").text
    for secret in (owner.id, owner.id[:16], owner.key.header.request, owner.key.payload[-40:].hex()):
        assert secret not in written


def test_the_fake_key_ids_are_bound_to_key_and_plan(owner: Owner) -> None:
    """Otherwise the refusals above might be for the wrong reason."""
    plan = owner.keys.plan.digest
    assert owner.id == hashlib.sha256(bytes.fromhex(plan) + owner.key.payload[-3000:]).hexdigest()
