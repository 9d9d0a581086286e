"""Public keys on their way to the service: in key directories, in request files, and again after every restart.

The service is a real process and the engine, which asks for a key, a make-believe one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from asking_engine import install, installation, table_bundle
from small_model import Served, read_scores, served, small_bundle

from securead.client import Client, messages, workflow
from securead.client.keys import Keys, load_holder, load_keys, load_submitter, make_keys
from securead.client.service import Answered, Service
from securead.errors import FixInputError, RegisterKeyError, RejectMessageError, UseOtherKeyError
from securead.protocols import wire
from securead.protocols.ckks.plan import CkksPlan

BUNDLE = table_bundle()
X = np.random.default_rng(0).normal(size=(50, 3)).clip(-4, 4)  # four chunks of 16
EXPECTED = BUNDLE.program.score(X)
ROLES = pytest.mark.parametrize("role", ["same", "split"])


@pytest.fixture(autouse=True)
def asking(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)


class Restartable:
    """A service process that can be ended and started again at the same address."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._environment = folder, installation(folder / "site")
        self._bundles = (BUNDLE.save(folder / "bundle"), small_bundle().save(folder / "tiny"))
        self._stack, self.starts, self.port = contextlib.ExitStack(), 0, 0
        self.start()

    def start(self) -> None:
        running = served(self._folder, *self._bundles, port=self.port, **self._environment)
        self.running: Served = self._stack.enter_context(running)
        self.url, self.port = self.running.url, self.running.port
        self.starts += 1

    def restart(self) -> None:
        self.close()
        self.start()

    def close(self) -> None:
        self._stack.close()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Restartable]:
    with contextlib.closing(Restartable(tmp_path_factory.mktemp("service"))) as process:
        yield process


@pytest.fixture
def service(running: Restartable) -> Iterator[Service]:
    with Service(running.url, patience=20) as connected:
        yield connected


class Restarting:
    """A watch that restarts the service whenever another part of the work is done."""

    def __init__(self, running: Restartable, at: tuple[int, ...]) -> None:
        self._running, self._at = running, at

    def rows(self, phase: str, done: int, total: int) -> None:
        if done in self._at:
            self._running.restart()

    def waiting(self, what: str) -> None: ...


def envelopes(path: Path) -> list[wire.Envelope]:
    with path.open("rb") as stream:
        return list(wire.read_all(stream, max_payload=1 << 30))


def write(path: Path, parts: list[wire.Envelope]) -> Path:
    path.write_bytes(b"".join(part.to_bytes() for part in parts))
    return path


def keys(role: str) -> Keys:
    return make_keys(BUNDLE.public, role)  # type: ignore[arg-type]


# Key directories.


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_the_secret_half_of_role_same_is_enough_to_submit_with(tmp_path: Path) -> None:
    made = keys("same")
    place = made.save(tmp_path / "keys", passphrase="five words are quite good")
    assert names(place / "secret") == {"key.json", "model.json", "plan.json", "secret.key", "public.key"}
    moved = (place / "secret").rename(tmp_path / "moved")
    submitter = load_submitter(moved, passphrase="five words are quite good")
    assert submitter.evaluation_key == made.public.to_bytes() == made.submitter.evaluation_key
    assert load_keys(moved, passphrase="five words are quite good").public.to_bytes() == made.public.to_bytes()


@pytest.mark.parametrize("part", ["", "public", "secret"])
def test_the_public_key_is_found_wherever_it_lies(part: str, tmp_path: Path) -> None:
    made = keys("same")
    place = made.save(tmp_path / "keys")
    for half in {"public", "secret"} - {part}:
        if part:
            (place / half / "public.key").unlink()
    assert load_submitter(place).evaluation_key == made.public.to_bytes()


def test_the_other_roles_and_engines_need_no_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    split = keys("split").save(tmp_path / "split")
    assert "public.key" not in names(split / "secret")
    assert load_submitter(split / "public").evaluation_key == (split / "public" / "public.key").read_bytes()
    # An engine whose service needs no key.
    monkeypatch.setattr(CkksPlan, "evaluation_key_bytes", 0)
    plain = make_keys(small_bundle().public, "same")
    assert "public.key" not in names(plain.save(tmp_path / "plain") / "secret")
    assert plain.submitter.evaluation_key is None
    assert load_submitter(tmp_path / "plain" / "secret").evaluation_key is None


def test_a_missing_or_exchanged_public_key_is_said(tmp_path: Path) -> None:
    place, other = keys("same").save(tmp_path / "keys"), keys("same")
    (place / "secret" / "public.key").unlink()
    with pytest.raises(UseOtherKeyError, match=r"holds no public key.*DIR/public/public.key"):
        load_submitter(place / "secret")
    assert load_holder(place / "secret").record  # reading answers needs none
    (place / "secret" / "public.key").write_bytes(other.public.to_bytes())
    with pytest.raises(UseOtherKeyError, match="another key"):
        load_submitter(place / "secret")


@pytest.mark.parametrize("name", ["model.json", "plan.json"])
def test_a_missing_file_is_not_called_ill_formed(name: str, tmp_path: Path) -> None:
    place = keys("same").save(tmp_path / "keys")
    (place / "secret" / name).unlink()
    with pytest.raises(FixInputError, match=rf"cannot read .*{name}: No such file"):
        load_holder(place / "secret")


# Request files.


@ROLES
def test_a_request_opens_with_its_key_once(role: str, tmp_path: Path) -> None:
    pair, out = keys(role), tmp_path / "request"
    summary = workflow.encrypt_file(X, pair.submitter, out)
    first, *chunks = envelopes(out)
    assert (first.header.kind, first.payload) == ("key", pair.public.to_bytes())
    assert [part.header.kind for part in chunks] == ["request"] * 4
    assert first.header.request == chunks[0].header.request == summary.request
    assert summary.bytes == out.stat().st_size
    with out.open("rb") as stream:
        assert messages.leading_key(stream, where=out) == first
        assert list(messages.checked(stream, "request", where=out)) == chunks


def test_other_engines_requests_open_with_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CkksPlan, "evaluation_key_bytes", 0)
    pair, out = make_keys(small_bundle().public, "split"), tmp_path / "request"
    workflow.encrypt_file(np.zeros((2, 5)), pair.submitter, out)
    assert [part.header.kind for part in envelopes(out)] == ["request"]
    with out.open("rb") as stream:
        assert messages.leading_key(stream, where=out) is None
        assert len(list(messages.checked(stream, "request", where=out))) == 1


TAMPERINGS: dict[str, tuple[Callable[[list[wire.Envelope]], list[wire.Envelope]], str]] = {
    "two keys": (lambda e: [e[0], *e], "kind 'key'"),
    "a key in the middle": (lambda e: [e[1], e[0], *e[2:]], "kind 'key'"),
    "a key at the end": (lambda e: [*e[1:], e[0]], "kind 'key'"),
    "only a key": (lambda e: [e[0]], "empty"),
    "another request's key": (
        lambda e: [replace(e[0], header=replace(e[0].header, request="0" * 32)), *e[1:]],
        "belongs to another request",
    ),
    "another owner's key": (
        lambda e: [replace(e[0], header=replace(e[0].header, key="0" * 64)), *e[1:]],
        "belongs to another request",
    ),
    "a missing chunk": (lambda e: [*e[:2], *e[3:]], "chunk 1 of 4 is missing"),
}


@pytest.mark.parametrize("name", TAMPERINGS)
def test_tampered_requests_are_not_sent(name: str, service: Service, tmp_path: Path) -> None:
    tamper, reason = TAMPERINGS[name]
    workflow.encrypt_file(X, keys("same").submitter, tmp_path / "request")
    bad = write(tmp_path / "bad", tamper(envelopes(tmp_path / "request")))
    with pytest.raises(RejectMessageError, match=reason):
        workflow.submit_file(bad, service, tmp_path / "answer")
    assert names(tmp_path) == {"request", "bad"}


def test_a_request_that_was_cut_within_its_key_is_called_truncated(service: Service, tmp_path: Path) -> None:
    workflow.encrypt_file(X, keys("same").submitter, tmp_path / "request")
    content = (tmp_path / "request").read_bytes()
    (tmp_path / "cut").write_bytes(content[:2000])
    with pytest.raises(RejectMessageError, match="message is truncated"):
        workflow.submit_file(tmp_path / "cut", service, tmp_path / "answer")


def test_an_answer_with_a_key_in_it_is_refused(tmp_path: Path) -> None:
    pair = keys("same")
    workflow.encrypt_file(X, pair.submitter, tmp_path / "request")
    with pytest.raises(RejectMessageError, match="wanted: 'answer'"):
        workflow.decrypt_file(tmp_path / "request", pair.holder, tmp_path / "scores.csv")


# The service.


def told(service: Service, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The methods of all calls to the service from here on."""
    calls: list[str] = []
    real = service._once

    def counted(method: str, *arguments: Any) -> Any:
        calls.append(method)
        return real(method, *arguments)

    monkeypatch.setattr(service, "_once", counted)
    return calls


@ROLES
def test_a_submission_registers_its_key_once(
    role: str, service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair, calls = keys(role), told(service, monkeypatch)
    workflow.encrypt_file(X, pair.submitter, tmp_path / "request")
    summary = workflow.submit_file(tmp_path / "request", service, tmp_path / "answer")
    assert calls == ["GET", "GET", "GET", "PUT", *["POST"] * 4]
    assert {part.header.kind for part in envelopes(tmp_path / "answer")} == {"answer"}
    first, *_ = envelopes(tmp_path / "request")
    assert summary.bytes_up == (tmp_path / "request").stat().st_size, "everything is sent once"
    assert len(first.payload) > 3000
    workflow.decrypt_file(tmp_path / "answer", pair.holder, tmp_path / "scores.csv")
    np.testing.assert_allclose(read_scores(tmp_path / "scores.csv")[0], EXPECTED)
    calls.clear()
    workflow.encrypt_file(X, pair.submitter, tmp_path / "second")
    workflow.submit_file(tmp_path / "second", service, tmp_path / "second-answer")
    assert calls == ["GET", "GET", *["POST"] * 4]


def test_a_request_without_its_key_says_what_to_do(service: Service, tmp_path: Path) -> None:
    pair = keys("split")
    workflow.encrypt_file(X, pair.submitter, tmp_path / "request")
    bare = write(tmp_path / "bare", envelopes(tmp_path / "request")[1:])
    with pytest.raises(RegisterKeyError, match="encrypt again"):
        workflow.submit_file(bare, service, tmp_path / "answer")
    workflow.submit_file(tmp_path / "request", service, tmp_path / "first")
    workflow.submit_file(bare, service, tmp_path / "answer")  # the service holds it by now
    workflow.decrypt_file(tmp_path / "answer", pair.holder, tmp_path / "scores.csv")
    np.testing.assert_allclose(read_scores(tmp_path / "scores.csv")[0], EXPECTED)


@ROLES
def test_restarts_in_the_middle_of_a_submission(
    role: str, running: Restartable, service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair, calls, before = keys(role), told(service, monkeypatch), running.starts
    workflow.encrypt_file(X, pair.submitter, tmp_path / "request")
    watch = Restarting(running, (16, 48))
    workflow.submit_file(tmp_path / "request", service, tmp_path / "answer", watch=watch)
    assert running.starts == before + 2
    assert calls.count("PUT") == 3
    workflow.decrypt_file(tmp_path / "answer", pair.holder, tmp_path / "scores.csv")
    np.testing.assert_allclose(read_scores(tmp_path / "scores.csv")[0], EXPECTED)


@ROLES
def test_restarts_in_the_middle_of_scoring(
    role: str, running: Restartable, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair, calls = keys(role), told(service, monkeypatch)
    scores = workflow.score_records(service, pair, X, watch=Restarting(running, (16, 32)))
    np.testing.assert_allclose(scores.scores, EXPECTED)
    assert calls.count("PUT") == 3


def test_the_client_registers_by_itself_with_keys_of_every_origin(running: Restartable, tmp_path: Path) -> None:
    loaded = [load_keys(keys(role).save(tmp_path / role)) for role in ("same", "split")]
    with Client(running.url) as client:
        for pair in (None, *loaded):
            for _ in range(2):
                np.testing.assert_allclose(client.score("table", X, pair).scores, EXPECTED)
        running.restart()
        for pair in (None, *loaded):
            np.testing.assert_allclose(client.score("table", X, pair).scores, EXPECTED)


def test_a_failed_decryption_is_not_seen_by_the_service(running: Restartable, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that tampers with answers must not learn from the next call whether they still decrypted."""
    with Client(running.url) as client:
        client.score("table", X)
        calls, real = told(client._service, monkeypatch), client._service.score

        def tampered(*arguments: Any) -> Answered:
            answered = real(*arguments)
            payload = bytes(16) + answered.envelope.payload[16:]
            return replace(answered, envelope=replace(answered.envelope, payload=payload))

        with monkeypatch.context() as patch:
            patch.setattr(client._service, "score", tampered)
            with pytest.raises(UseOtherKeyError, match="another key"):
                client.score("table", X[:5])
        np.testing.assert_allclose(client.score("table", X[:5]).scores, EXPECTED[:5])
        assert calls == ["POST", "POST"], "neither the model nor a key was fetched or sent again"


def test_a_replaced_model_is_fetched_again(running: Restartable, monkeypatch: pytest.MonkeyPatch) -> None:
    with Client(running.url) as client:
        client._keys["table"] = make_keys(table_bundle(seed=2).public, "same")
        calls = told(client._service, monkeypatch)
        with pytest.raises(UseOtherKeyError, match="another model"):
            client.score("table", X)
        np.testing.assert_allclose(client.score("table", X).scores, EXPECTED)
        assert calls == ["GET", "PUT", "GET", "GET", "PUT", *["POST"] * 4]
