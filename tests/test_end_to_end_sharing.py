"""Scoring by two parties with real processes: what works, and what may fail, at any time, without harm.

The limits are the issue's: a clear error at the client within 5 s, and the parties ready again within 2 s more.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from deployed import START_SECONDS, Deployment, Process, deployed, slow_bundle
from small_model import read_scores, records, securead, small_bundle, write_csv

from securead.certificates import issue
from securead.client.line import Line
from securead.errors import FixConfigurationError, RejectMessageError, RetryLaterError, SecureadError
from securead.protocols.sharing import messages
from securead.protocols.sharing.channel import Channel, LinkError
from securead.protocols.sharing.links import Identity, Listener, dial
from securead.protocols.sharing.messages import Greeting, Hello, Kind, Refusal, Reply, Request
from securead.protocols.sharing.owner import split_queries
from securead.protocols.sharing.plan import make_plan
from securead.protocols.sharing.shares import ModelShare

ERROR_SECONDS, READY_SECONDS = 5.0, 2.0
X = records(8192)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """Started in the least helpful order."""
    yield from deployed(tmp_path_factory.mktemp("parties"), "party1", "party0", "dealer", bundle=slow_bundle())


@pytest.fixture
def parties(service: Deployment) -> Iterator[Deployment]:
    """Before and after each test all is well, and no correlation was ever used twice."""
    service.await_ready()
    yield service
    service.await_ready(ERROR_SECONDS)
    check_scores(service)


def check_scores(service: Deployment, rows: int = 3) -> None:
    with service.client() as client:
        scores = client.score(X[:rows])
    np.testing.assert_allclose(scores.scores, service.bundle.program.score(X[:rows]), atol=1e-3)


def fails(service: Deployment, kind: type[SecureadError], rows: int = 8192) -> str:
    """A client that asks once gets this error in time; what it says."""
    start = time.monotonic()
    with service.client(patience=0.0) as client, pytest.raises(kind) as caught:
        client.score(X[:rows])
    assert time.monotonic() - start < ERROR_SECONDS
    assert str(caught.value)
    return str(caught.value)


def in_the_middle(service: Deployment, act: Callable[[], None]) -> str:
    """Do something harmful while 8192 rows are computed; what the client is told, in time."""
    leader = service.running["party0"]
    before = len(leader.events("sharing.compute"))
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(fails, service, RetryLaterError)
        while len(leader.events("sharing.compute")) == before:
            assert not asked.done(), asked.result()
            time.sleep(0.002)
        act()
        acted = time.monotonic()
        said = asked.result()
    assert time.monotonic() - acted < ERROR_SECONDS
    return said


def used(process: Process) -> list[tuple[str, int]]:
    return [(each["session"], each["set"]) for each in process.events("sharing.compute")]


# What works.


def test_scores_and_verdicts_from_the_command_line(parties: Deployment, tmp_path: Path) -> None:
    data, out, config = write_csv(tmp_path / "data.csv", X[:300]), tmp_path / "out.csv", parties.folder / "client.toml"
    base = ("score", data, "--engine", "sharing", "--parties", config, "--out", out)
    ended = securead(*base, "--json")
    assert ended.returncode == 0, ended.stderr
    scores, flags = read_scores(out)
    expected = parties.bundle.program.score(X[:300])
    np.testing.assert_allclose(scores, expected, atol=1e-3)
    summary = json.loads(ended.stdout)
    assert (summary["rows"], summary["anomalies"]) == (300, flags.sum())
    assert out.stat().st_mode & 0o077 == 0
    ended = securead(*base, "--verdicts")
    assert ended.returncode == 0, ended.stderr
    header, *lines = out.read_text().splitlines()
    assert header == "row,anomaly"
    assert lines == [f"{at},{int(flag)}" for at, flag in enumerate(parties.bundle.public.is_anomaly(expected))]


def test_several_clients_wait_for_their_turn(parties: Deployment) -> None:
    def score(_: int) -> np.ndarray:
        with parties.client() as client:
            return np.concatenate([client.score(X[:20]).scores for _ in range(5)])

    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(score, range(6)))
    for scores in found:
        np.testing.assert_allclose(scores, np.tile(parties.bundle.program.score(X[:20]), 5), atol=1e-3)


def test_out_of_range_scores_are_computed_once_more(parties: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether a truncation failed cannot be arranged; that a client thinks so can."""
    calls: list[int] = []

    def out_of_range(_: object, integers: np.ndarray) -> np.ndarray:
        calls.append(len(integers))
        return np.arange(len(integers)) != 2

    monkeypatch.setattr("securead.client.parties.owner.in_range", out_of_range)
    with parties.client() as client:
        # One row is computed anew, and one row has no third.
        found = client.score(X[:9])
        assert calls == [9, 1]
        assert found.work.recomputed == 1
        np.testing.assert_allclose(found.scores, parties.bundle.program.score(X[:9]), atol=1e-3)
        monkeypatch.setattr(
            "securead.client.parties.owner.in_range", lambda _, integers: np.zeros(len(integers), dtype=bool)
        )
        with pytest.raises(RejectMessageError, match="out of range twice"):
            client.score(X[:2])


def test_nothing_secret_is_logged(parties: Deployment) -> None:
    for process in parties.running.values():
        text = "".join(process.out + process.err)
        assert "Traceback" not in text, text
        assert all(len(line) < 1000 for line in text.splitlines())


# Processes that die or fall silent.


@pytest.mark.long
@pytest.mark.parametrize("name", ["party0", "party1", "dealer"])
def test_killed_while_idle(parties: Deployment, name: str) -> None:
    check_scores(parties)
    parties.running[name].kill()
    time.sleep(0.1)
    said = fails(parties, RetryLaterError, rows=1)
    assert name in said
    parties.restart(name)
    assert parties.await_ready() < READY_SECONDS


@pytest.mark.long
@pytest.mark.parametrize("name", ["party0", "party1"])
def test_killed_in_the_middle(parties: Deployment, name: str) -> None:
    other = parties.running["party1" if name == "party0" else "party0"]
    before = used(other)
    in_the_middle(parties, parties.running[name].kill)
    parties.restart(name)
    assert parties.await_ready() < READY_SECONDS
    check_scores(parties)
    after = used(other)
    assert len(set(after)) == len(after), "no correlation is used twice"
    assert len(after) >= len(before) + 2
    assert {session for session, _ in after[len(before) + 1 :]}.isdisjoint({session for session, _ in after[:-1]})


@pytest.mark.long
def test_the_dealer_killed_in_the_middle(parties: Deployment) -> None:
    """What is being computed has its correlations already; the next request needs the dealer back."""
    with parties.client() as client:
        client.score(X[:1])
        parties.running["dealer"].kill()
    time.sleep(1.0)
    assert "dealer" in fails(parties, RetryLaterError)
    parties.restart("dealer")
    assert parties.await_ready() < READY_SECONDS


@pytest.mark.long
@pytest.mark.parametrize("name", ["party0", "party1", "dealer"])
def test_silent_while_idle(parties: Deployment, name: str) -> None:
    check_scores(parties)
    process = parties.running[name]
    process.send(signal.SIGSTOP)
    try:
        fails(parties, RetryLaterError, rows=5)
    finally:
        process.send(signal.SIGCONT)
    assert parties.await_ready() < READY_SECONDS


@pytest.mark.long
@pytest.mark.parametrize("name", ["party0", "party1"])
def test_silent_in_the_middle(parties: Deployment, name: str) -> None:
    process = parties.running[name]
    try:
        in_the_middle(parties, lambda: process.send(signal.SIGSTOP))
    finally:
        process.send(signal.SIGCONT)
    assert parties.await_ready() < READY_SECONDS


# Certificates.


def test_a_certificate_of_another_authority(parties: Deployment, tmp_path: Path) -> None:
    issue(tmp_path / "other", ("bank-a", "party0"))
    start = time.monotonic()
    with parties.client(identity=str(tmp_path / "other" / "bank-a")) as client, pytest.raises(FixConfigurationError):
        client.score(X[:1])
    assert time.monotonic() - start < ERROR_SECONDS


def test_a_certificate_with_another_name(parties: Deployment) -> None:
    """The addresses mixed up; a server's certificate as a client's; a party with another party's."""
    start = time.monotonic()
    swapped = {"party0": f"127.0.0.1:{parties.ports['party1']}", "party1": f"127.0.0.1:{parties.ports['party0']}"}
    with parties.client(**swapped) as client, pytest.raises(FixConfigurationError, match="party"):
        client.score(X[:1])
    with (
        parties.client(identity=str(parties.folder / "certs" / "dealer")) as client,
        pytest.raises(FixConfigurationError, match="may not ask"),
    ):
        client.score(X[:1])
    assert time.monotonic() - start < ERROR_SECONDS
    other = parties.folder / "wrong.toml"
    text = (parties.folder / "party1.toml").read_text()
    other.write_text(text.replace("certs/party1", "certs/bank-a").replace(str(parties.ports["party1"]), "0"))
    ended = securead("party", "--index", "1", other)
    assert ended.returncode == 2
    assert "the certificate is named 'bank-a'" in ended.stderr
    assert "certs --name party1" in ended.stderr


def test_only_listed_clients_may_ask(tmp_path: Path, parties: Deployment) -> None:
    config = parties.folder / "closed.toml"
    text = (parties.folder / "party1.toml").read_text()
    config.write_text(text.replace(f"port = {parties.ports['party1']}", 'port = 0\nclients = ["bank-b"]'))
    stranger = Process("party", "--index", "1", config)
    try:
        host, port = stranger.address.rsplit(":", 1)
        with dial((host, int(port)), identity(parties, "bank-a"), "party1") as channel:
            assert "may not ask" in refusal(channel)
    finally:
        stranger.close()


# Messages that are not what they should be, by a client of our own making.


def identity(service: Deployment, name: str) -> Identity:
    return Identity.load(service.folder / "certs" / name)


def heard(channel: Channel) -> Reply:
    content = channel.receive(Kind.REPLY, limit=messages.MAX_HEADER_BYTES)
    reply: Reply = messages.from_bytes(Reply, content, sender=channel.peer)
    return reply


def refusal(channel: Channel) -> str:
    reply = heard(channel)
    assert isinstance(reply, Refusal), reply
    return reply.what


class Raw:
    """Connections to both parties, and a request that is not sent yet."""

    def __init__(self, service: Deployment, rows: int = 4, name: str = "bank-b") -> None:
        plan = make_plan(service.bundle.public.program, "same")
        me = identity(service, name)
        self.channels = [dial(("127.0.0.1", service.ports[peer]), me, peer) for peer in ("party0", "party1")]
        greetings = [heard(channel) for channel in self.channels]
        assert all(isinstance(greeting, Greeting) and greeting.ready for greeting in greetings)
        self.payloads = split_queries(plan, np.zeros((rows, plan.input_width), dtype=np.int64))
        self.request = Request(
            messages.new_id(),
            0,
            plan.program_digest,
            plan.digest,
            0,
            rows,
            False,
            (greetings[0].nonce, greetings[1].nonce),  # type: ignore[union-attr]
            (messages.hash_of(self.payloads[0]), messages.hash_of(self.payloads[1])),
        )

    def send(self, index: int, **changes: object) -> None:
        plain = json.loads(messages.to_bytes(self.request)) | changes
        self.channels[index].send(Kind.REQUEST, json.dumps(plain).encode())
        self.channels[index].send(Kind.PAYLOAD, self.payloads[index])

    def answer(self, index: int) -> Reply:
        while getattr(reply := heard(self.channels[index]), "type_tag", "") == "waiting":
            pass
        if not isinstance(reply, Refusal):
            self.channels[index].receive(Kind.PAYLOAD, limit=1 << 20)
        return reply

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        for channel in self.channels:
            channel.close()


def test_replayed_on_the_same_connection(parties: Deployment) -> None:
    with Raw(parties) as raw:
        for index in (1, 0):
            raw.send(index)
        assert not isinstance(raw.answer(0), Refusal)
        assert not isinstance(raw.answer(1), Refusal)
        raw.send(0)
        assert "came twice" in refusal(raw.channels[0])


def test_replayed_on_another_connection(parties: Deployment) -> None:
    with Raw(parties) as first, Raw(parties) as second:
        for index in (1, 0):
            first.send(index)
        assert not isinstance(first.answer(0), Refusal)
        second.request, second.payloads = first.request, first.payloads
        second.send(0)
        assert "another connection" in refusal(second.channels[0])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"program": "0" * 64}, "another model"),
        ({"plan": "0" * 64}, "other parameters"),
        ({"rows": 1 << 20}, "too many rows"),
        ({"rows": 0}, "absurd"),
        ({"attempt": 1}, "second attempt"),
        ({"lane": 1}, "another connection"),
        ({"hashes": ["0" * 64, "0" * 64]}, "payload"),
        ({"unheard": 1}, "ill-formed"),
    ],
)
def test_a_wrong_header(parties: Deployment, changes: dict[str, object], said: str) -> None:
    with Raw(parties) as raw:
        raw.send(0, **changes)
        assert said in refusal(raw.channels[0])


def test_the_parties_are_told_different_things(parties: Deployment) -> None:
    with Raw(parties) as raw:
        raw.send(1)
        raw.send(0, hashes=[raw.request.hashes[0], "0" * 64])
        answer = raw.answer(0)
        assert isinstance(answer, Refusal)
        assert "different things" in answer.what


def test_only_one_party_is_asked(parties: Deployment) -> None:
    """Others are served meanwhile."""
    with Raw(parties) as raw:
        raw.send(0)
        check_scores(parties)
        answer = raw.answer(0)
        assert isinstance(answer, Refusal)
        assert "did not get its share" in answer.what


def test_reordered_and_truncated(parties: Deployment) -> None:
    with Raw(parties) as raw:
        raw.channels[0].send(Kind.PAYLOAD, raw.payloads[0])
        with pytest.raises(LinkError):
            heard(raw.channels[0])
    with Raw(parties) as raw:
        raw.channels[0].send(Kind.REQUEST, messages.to_bytes(raw.request))
        raw.channels[0].send(Kind.PAYLOAD, raw.payloads[0][:-8])
        with pytest.raises(LinkError):
            heard(raw.channels[0])


def test_a_client_disappears(parties: Deployment) -> None:
    """Before its payload is whole, and while it is computed."""
    with Raw(parties, rows=8192) as raw:
        raw.channels[0].send(Kind.REQUEST, messages.to_bytes(raw.request))
    check_scores(parties)
    with Raw(parties, rows=8192) as raw:
        for index in (1, 0):
            raw.send(index)
        time.sleep(0.2)
    check_scores(parties)


# Releases and models that do not fit.


def test_another_model_at_the_client(parties: Deployment, tmp_path: Path) -> None:
    other = Deployment(tmp_path, small_bundle(seed=9))
    with parties.client(model=str(tmp_path / "model.json")) as client, pytest.raises(RejectMessageError, match="model"):
        client.score(X[:1])
    assert not other.running


def test_another_release_at_a_party(parties: Deployment) -> None:
    """A stand-in for party 0 that greets with a version of the future."""
    with Listener(("127.0.0.1", 0), identity(parties, "party0")) as listener:

        def greet() -> None:
            with contextlib.suppress(LinkError), listener.accept() as channel:
                channel.send(Kind.REPLY, b'{"type": "greeting", "version": 2, "news": true}')
                channel.receive(Kind.REQUEST, limit=1)

        thread = threading.Thread(target=greet)
        thread.start()
        with (
            parties.client(party0=f"127.0.0.1:{listener.port}") as client,
            pytest.raises(RejectMessageError, match="another version"),
        ):
            client.score(X[:1])
        thread.join()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"version": 2}, "another version"),
        ({"program": "0" * 64}, "another model"),
        ({"plan": "0" * 64}, "other parameters"),
        ({"split": "0" * 32}, "another split"),
        ({"lane": 3}, "calls as lane 3"),
    ],
)
def test_another_release_or_model_at_party_1(parties: Deployment, changes: dict[str, object], said: str) -> None:
    """It is told why, and the session of the true party 1 goes on."""
    plan = make_plan(parties.bundle.public.program, "same")
    split = ModelShare.read(parties.folder / "party1.model").split
    hello = Hello(messages.VERSION, plan.program_digest, plan.digest, split, 0, messages.new_id(), "up")
    with dial(("127.0.0.1", parties.ports["party0"]), identity(parties, "party1"), "party0") as channel:
        channel.send(Kind.HELLO, json.dumps(json.loads(messages.to_bytes(hello)) | changes).encode())
        content = channel.receive(Kind.LINK, limit=messages.MAX_HEADER_BYTES)
        assert said in messages.from_bytes(Refusal, content, sender="party0").what


@pytest.mark.long
def test_halves_of_two_splits(tmp_path: Path) -> None:
    """The client learns within its time why the parties never get ready."""
    bundle = small_bundle()
    deployment, other = Deployment(tmp_path / "a", bundle), Deployment(tmp_path / "b", bundle)
    (deployment.folder / "party1.model").write_bytes((other.folder / "party1.model").read_bytes())
    try:
        deployment.start("dealer", "party0", "party1")
        leader = deployment.running["party0"]
        while not any("another split" in each["state"] for each in leader.events("sharing.state")):
            time.sleep(0.05)
        assert "another split" in fails(deployment, RetryLaterError, rows=1)
    finally:
        deployment.close()


@pytest.mark.long
def test_verdicts_only(tmp_path: Path) -> None:
    for service in deployed(tmp_path, verdicts_only=True):
        assert "chosen by hand" not in (tmp_path / "model.json").read_text()
        with service.client() as client:
            found = client.verdicts(X[:500])
            with pytest.raises(SecureadError, match="verdicts only"):
                client.score(X[:1])
            expected = service.bundle.public.is_anomaly(service.bundle.program.score(X[:500]))
            assert 0 < expected.sum() < 500
            np.testing.assert_array_equal(found.is_anomaly, expected)
            # A client that does not care what its file says.
            line = client._connected(True)
            assert isinstance(line, Line)
            words = np.zeros((1, client.plan.input_width), dtype=np.int64)
            with pytest.raises(RejectMessageError, match="verdicts only"):
                line.ask(messages.new_id(), 0, split_queries(client.plan, words), 1, False)


@pytest.mark.long
def test_two_processes_that_are_party_1(parties: Deployment) -> None:
    """An operator's mistake: the second is told, and takes over when the first is gone."""
    second, text = parties.folder / "second.toml", (parties.folder / "party1.toml").read_text()
    second.write_text(text.replace(f"port = {parties.ports['party1']}", "port = 0"))
    leader = parties.running["party0"]
    before = len(leader.events("sharing.session"))
    other = Process("party", "--index", "1", second)

    def states() -> list[str]:
        return [each["state"] for each in other.events("sharing.state")]

    def wait_for(said: str) -> None:
        start = time.monotonic()
        while not any(said in each for each in states()):
            assert time.monotonic() - start < START_SECONDS, states()
            time.sleep(0.05)

    try:
        wait_for("in a session with a party1 that answers")
        check_scores(parties, rows=8192)
        time.sleep(1.0)  # several calls
        assert len(leader.events("sharing.session")) == before
        assert "is ready" not in states()
        parties.running["party1"].kill()
        wait_for("is ready")
    finally:
        other.close()
        parties.restart("party1")


# Lanes, and what lasts.


@pytest.mark.long
def test_lanes(tmp_path: Path) -> None:
    """Two pairs serve at a time; a lane that dies is started again while the other goes on."""
    for service in deployed(tmp_path, lanes=2):
        check_scores(service)
        supervisor = service.running["party1"].process.pid
        children = Path(f"/proc/{supervisor}/task/{supervisor}/children")
        before = set(children.read_text().split())
        assert len(before) == 2
        gone = min(before)
        os.kill(int(gone), signal.SIGKILL)
        start = time.monotonic()
        while len(after := set(children.read_text().split()) - {gone}) < 2:
            assert time.monotonic() - start < READY_SECONDS
            time.sleep(0.01)
        assert len(before & after) == 1
        for _ in range(20):
            check_scores(service)


@pytest.mark.long
def test_memory_is_flat_over_a_thousand_requests(tmp_path: Path) -> None:
    for service in deployed(tmp_path):
        with service.client() as client:
            for _ in range(200):
                client.score(X[:1])
            before = {name: process.resident for name, process in service.running.items()}
            for _ in range(1000):
                client.score(X[:1])
        for name, process in service.running.items():
            assert process.resident - before[name] < 4 << 20, name


@pytest.mark.long
@pytest.mark.parametrize("lanes", [1, 2])
def test_processes_end_when_they_are_asked_to(tmp_path: Path, lanes: int) -> None:
    """And they leave no child behind: its port is free again."""
    for service in deployed(tmp_path, lanes=lanes):
        check_scores(service)
        for name in ("party1", "dealer", "party0"):
            process = service.running[name]
            process.send(signal.SIGTERM)
            assert process.process.wait(8) == 0, "".join(process.err)
        for name in ("party0", "party1"):
            for lane in range(lanes):
                with pytest.raises(LinkError):
                    dial(("127.0.0.1", service.ports[name] + lane), identity(service, "bank-b"), name)
        break


@pytest.mark.long
def test_a_port_in_use_is_said(parties: Deployment) -> None:
    for name, command in (("dealer", ("dealer",)), ("party0", ("party", "--index", "0"))):
        ended = securead(*command, parties.folder / f"{name}.toml")
        assert ended.returncode == 2
        assert "cannot listen at" in ended.stderr
