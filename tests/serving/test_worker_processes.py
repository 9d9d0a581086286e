"""Several workers: real processes that are killed, told to end, given messages that end them, and filled up."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
import pytest
from asking_engine import NAME, install, installation
from asking_engine.blind import DEADLY, WAITING
from small_model import Served, served
from test_serving_app import Http, check_refusal
from test_serving_keys import BAD_KEYS, BUNDLE, Owner, altered

from securead.client.keys import make_keys
from securead.client.service import Service
from securead.client.workflow import score_records
from securead.protocols import wire
from securead.serving.app import build_app
from securead.serving.loaded import LoadedModel

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up in /proc")

PASSPHRASE = "five words are quite good"


def children(pid: int) -> list[int]:
    """Processes that were started by another and have not ended."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = path.read_text().rpartition(")")[2].split()[:2]
            if int(parent) == pid and state != "Z":
                found.append(int(path.parent.name))
    return found


def until(condition: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.01)


class Pool:
    """A service of two workers that know the make-believe engine; in a folder, its evaluators say what they do."""

    def __init__(self, folder: Path, service: Served) -> None:
        self._folder, self.service = folder, service
        self.url, self.pid = service.url, service.process.pid
        self._before: dict[str, float] = {}

    @property
    def workers(self) -> list[int]:
        return children(self.pid)

    @property
    def evaluating(self) -> list[int]:
        """The workers that wait in the middle of an evaluation, and those that did."""
        return [int(path.name.removeprefix("evaluating-")) for path in self._folder.glob("evaluating-*")]

    def go_on(self) -> None:
        (self._folder / "go").touch()

    def begin_anew(self) -> None:
        """Forget what evaluators said and were told, and count from here."""
        for path in self._folder.iterdir():
            path.unlink()
        self._before = self._metrics()

    def metric(self, name: str) -> float:
        """A gauge, or how far a counter has come since `begin_anew`."""
        return self._metrics().get(name, 0.0) - (self._before.get(name, 0.0) if "_total" in name else 0.0)

    def _metrics(self) -> dict[str, float]:
        lines = httpx.get(f"{self.url}/metrics").text.splitlines()
        return {name: float(value) for name, value in (x.split() for x in lines if not x.startswith("#"))}

    def register(self, owner: Owner) -> httpx.Response:
        return httpx.put(self.url + owner.put, content=owner.key.to_bytes())

    def score(self, owner: Owner, start: bytes = b"", tag: int = 0) -> httpx.Response:
        return httpx.post(self.url + owner.post, content=told(owner, start, tag), timeout=60)


def told(owner: Owner, start: bytes = b"", tag: int = 0) -> bytes:
    """The owner's request, beginning with what tells an evaluator how to behave; a tag makes it another message."""
    header = replace(owner.request.header, request=f"{tag:032x}") if tag else owner.request.header
    return wire.Envelope(header, start + owner.request.payload[len(start) :]).to_bytes()


@contextlib.contextmanager
def pool_of_two(folder: Path, *arguments: str) -> Iterator[Pool]:
    place = folder / "place"
    place.mkdir()
    environment = installation(folder / "site") | {"ASKING_PLACE": str(place), "SECUREAD_PASSPHRASE": PASSPHRASE}
    bundle = BUNDLE.save(folder / "bundle", passphrase=PASSPHRASE)
    words = ("--no-tls", "--workers", "2", "--engine", NAME, *arguments)
    with served(folder, bundle, arguments=words, **environment) as service:
        yield Pool(place, service)


@pytest.fixture(autouse=True)
def asking(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    with pool_of_two(tmp_path_factory.mktemp("lasting")) as running:
        yield running


@pytest.fixture
def pool(lasting: Pool) -> Pool:
    """A service that tests share: all of its workers live, nobody is inside, nobody has evaluated yet."""
    until(lambda: lasting.metric("securead_workers") == 2)
    lasting.begin_anew()
    return lasting


@pytest.fixture
def passing(tmp_path: Path) -> Iterator[Pool]:
    """A service for a test that ends it."""
    with pool_of_two(tmp_path) as running:
        yield running


@pytest.fixture
def owner(asking: None) -> Owner:
    return Owner()


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as executor:
        yield executor


def begun(threads: ThreadPoolExecutor, pool: Pool, owner: Owner, *, tag: int = 0) -> Future[httpx.Response]:
    """A request that is in the middle of its evaluation."""
    before = len(pool.evaluating)
    reply = threads.submit(pool.score, owner, WAITING, tag)
    until(lambda: len(pool.evaluating) > before or reply.done())
    assert not reply.done(), reply.result().text
    return reply


def test_a_worker_that_is_killed_loses_no_request(pool: Pool, owner: Owner, threads: ThreadPoolExecutor) -> None:
    pool.register(owner)
    assert len(pool.workers) == 2
    reply = begun(threads, pool, owner)
    (first,) = pool.evaluating
    os.kill(first, signal.SIGKILL)
    until(lambda: len(pool.evaluating) == 2)
    pool.go_on()
    owner.check(reply.result())
    assert pool.metric('securead_rows_metered_total{model="table"}') == 16, "counted once"
    assert pool.metric("securead_workers_ended_total") == 1
    until(lambda: pool.metric("securead_workers") == 2)
    assert first not in pool.workers
    assert len(pool.workers) == 2


def test_workers_that_are_replaced_know_the_keys(pool: Pool, owner: Owner) -> None:
    """Also when all end at once, while they have nothing to do: that is held against no message."""
    pool.register(owner)
    for worker in pool.workers:
        os.kill(worker, signal.SIGKILL)
    for _ in range(3):
        owner.check(pool.score(owner))
    until(lambda: pool.metric("securead_workers") == 2)
    assert pool.metric("securead_workers_ended_total") == 2


def test_a_message_that_ends_two_workers_is_refused_and_known_again(pool: Pool, owner: Owner) -> None:
    stranger = Owner()
    pool.register(owner)
    pool.register(stranger)
    said = check_refusal(pool.score(owner, DEADLY), 400, "RejectMessageError")
    assert "ended while they evaluated this message" in said["message"]
    assert pool.metric("securead_workers_ended_total") == 2
    stranger.check(pool.score(stranger))
    check_refusal(pool.score(owner, DEADLY), 400, "RejectMessageError")
    assert pool.metric("securead_workers_ended_total") == 2, "not tried again"
    owner.check(pool.score(owner))
    assert pool.metric('securead_rows_metered_total{model="table"}') == 32
    until(lambda: pool.metric("securead_workers") == 2)


def test_deadly_messages_in_numbers_leave_others_their_answers(
    pool: Pool, owner: Owner, threads: ThreadPoolExecutor
) -> None:
    stranger = Owner()
    pool.register(owner)
    pool.register(stranger)
    deadly = [threads.submit(pool.score, owner, DEADLY, tag) for tag in (1, 2, 3)]
    for _ in range(3):
        stranger.check(pool.score(stranger))
    for each in deadly:
        check_refusal(each.result(), 400, "RejectMessageError")
    stranger.check(pool.score(stranger))


def test_sigterm_waits_for_what_is_in_work(passing: Pool, owner: Owner, threads: ThreadPoolExecutor) -> None:
    passing.register(owner)
    reply = begun(threads, passing, owner)
    workers = passing.workers
    for pid in (*workers, passing.pid):  # as an init system does that ends a whole group
        os.kill(pid, signal.SIGTERM)
    time.sleep(0.1)
    passing.go_on()
    owner.check(reply.result())
    assert passing.service.process.wait(30) == 0
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
    assert "Traceback" not in passing.service.errors.read_text()


def test_workers_end_with_the_service_however_it_ends(passing: Pool, owner: Owner) -> None:
    passing.register(owner)
    owner.check(passing.score(owner))
    workers = passing.workers
    assert len(workers) == 2
    os.kill(passing.pid, signal.SIGKILL)
    passing.service.process.wait()
    until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers))


def test_two_at_a_time_and_no_more_than_there_is_room_for(
    tmp_path: Path, owner: Owner, threads: ThreadPoolExecutor
) -> None:
    with pool_of_two(tmp_path, "--queue", "1") as pool:
        pool.register(owner)
        inside = [begun(threads, pool, owner, tag=1), begun(threads, pool, owner, tag=2)]
        assert sorted(pool.evaluating) == sorted(pool.workers), "one each"
        inside.append(threads.submit(pool.score, owner))
        until(lambda: pool.metric("securead_queue") == 3)
        turned_away = pool.score(owner)
        check_refusal(turned_away, 503, "RetryLaterError")
        assert int(turned_away.headers["retry-after"]) >= 1
        assert httpx.get(f"{pool.url}/healthz").status_code == 200
        pool.go_on()
        for each in inside:
            owner.check(each.result())


def test_keys_that_had_their_rows_are_refused_however_many_workers_there_are(
    tmp_path: Path, owner: Owner, threads: ThreadPoolExecutor
) -> None:
    """16 rows a message, and 24 from which the model can be rebuilt: two answers and not a third."""
    with pool_of_two(tmp_path, "--refuse-extraction") as pool:
        pool.register(owner)
        replies = [threads.submit(pool.score, owner, b"", tag) for tag in range(1, 9)]
        assert sorted(each.result().status_code for each in replies) == [200] * 2 + [403] * 6
        assert pool.metric('securead_rows_metered_total{model="table"}') == 32


def test_refusals_are_the_same_as_without_processes(pool: Pool, owner: Owner) -> None:
    here = Http(build_app([LoadedModel(BUNDLE, engines=[NAME])]))
    stranger = Owner("split")
    request = owner.request
    messages = {
        "nothing": b"",
        "words": b"hello, service",
        "a key": owner.key.to_bytes(),
        "truncated": request.to_bytes()[:-9],
        "another model": altered(request, program="0" * 64),
        "another plan": altered(request, plan="0" * 64),
        "another engine": altered(request, engine="bfv"),
        "too many rows": altered(request, rows=100_000),
        "an empty payload": altered(request, b""),
        "a position beyond its table": altered(request, b"\xff" * len(request.payload)),
        "an unknown key": stranger.request.to_bytes(),
        "too large": b"x" * (LoadedModel(BUNDLE).max_message_bytes + 1),
    }
    calls: list[tuple[str, str, bytes]] = [("PUT", owner.put, bad(owner)) for bad in BAD_KEYS.values()]
    calls += [("PUT", owner.put, owner.key.to_bytes())]
    calls += [("POST", owner.post, message) for message in messages.values()]
    seen = set()
    for method, path, content in calls:
        theirs = httpx.request(method, pool.url + path, content=content)
        ours = (here.put if method == "PUT" else here.post)(path, content=content)
        assert (theirs.status_code, theirs.content) == (ours.status_code, ours.content)
        seen.add(theirs.status_code)
    assert seen == {204, 400, 409, 413, 428}
    owner.check(pool.score(owner))


def test_nothing_secret_is_in_arguments_environment_or_logs(pool: Pool, owner: Owner) -> None:
    pool.register(owner)
    owner.check(pool.score(owner))
    secrets = [PASSPHRASE.encode(), BUNDLE.secret.commitment_key.hex().encode()]
    for worker in pool.workers:
        for place in ("cmdline", "environ"):
            content = Path(f"/proc/{worker}/{place}").read_bytes()
            assert content
            assert not any(secret in content for secret in secrets)
        assert os.readlink(f"/proc/{worker}/fd/1") == "/dev/null"
    said = pool.service.errors.read_text()
    assert owner.id not in said
    assert "Traceback" not in said


def resident(pid: int) -> float:
    """Megabytes of memory that a process holds."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def grown(pool: Pool, owner: Owner, warm: int, requests: int, threads: ThreadPoolExecutor) -> float:
    """By how many megabytes service and workers together grow over so many requests, after some that warm them up."""
    pool.register(owner)
    local = threading.local()

    def score(_: int) -> None:
        if not hasattr(local, "client"):
            local.client = httpx.Client()
        assert local.client.post(pool.url + owner.post, content=told(owner)).status_code == 200

    list(threads.map(score, range(warm)))
    before = {pid: resident(pid) for pid in (pool.pid, *pool.workers)}
    list(threads.map(score, range(requests)))
    assert set(before) == {pool.pid, *pool.workers}, "nobody ended"
    return sum(resident(pid) - before[pid] for pid in before)


def test_memory_does_not_grow(pool: Pool, owner: Owner, threads: ThreadPoolExecutor) -> None:
    assert grown(pool, owner, 200, 400, threads) < 3


@pytest.mark.long
def test_memory_is_flat_over_ten_thousand_requests(pool: Pool, owner: Owner, threads: ThreadPoolExecutor) -> None:
    assert grown(pool, owner, 500, 10_000, threads) < 6


def test_a_client_that_sends_chunk_after_chunk(pool: Pool) -> None:
    """The SDK as it is: keys registered by itself, several chunks, right scores."""
    X = np.random.default_rng(3).normal(size=(50, 3)).clip(-4, 4)
    with Service(pool.url) as service:
        scores = score_records(service, make_keys(BUNDLE.public, "split", engine=NAME), X).scores
    np.testing.assert_allclose(scores, BUNDLE.program.score(X))
