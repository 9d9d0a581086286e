"""The pool inside this process's event loop: what hangs, what does not start, who is next, what is shared out."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import logging
import socket
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import asking_engine.blind
import httpx
import pytest
from asking_engine import NAME, install, installation, table_bundle
from asking_engine.blind import DEADLY, SLEEPY
from small_model import small_bundle
from test_serving_keys import BUNDLE, Owner

from securead.errors import FixConfigurationError, FixProgramError, RejectMessageError, RetryLaterError
from securead.protocols import parcel as parcels
from securead.protocols import wire
from securead.serving import frames, processes
from securead.serving import pool as pool_module
from securead.serving.app import build_app
from securead.serving.desk import Desk
from securead.serving.evaluation import OwnThread
from securead.serving.loaded import LoadedModel, load
from securead.serving.metering import RowMeter
from securead.serving.metrics import Metrics
from securead.serving.outbox import Outbox
from securead.serving.pool import WorkerPool
from securead.serving.processes import Processes
from securead.serving.refilling import KEY_BYTES, KEYS
from securead.serving.worker import share


@pytest.fixture(autouse=True)
def asking(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The engine, in this process and in those that it starts."""
    install(monkeypatch)
    for place in installation(tmp_path / "site")["PYTHONPATH"].split(":"):
        monkeypatch.syspath_prepend(place)


async def wanted() -> None:
    """Somebody waits for the answer."""


def in_pool(play: Callable[[WorkerPool, LoadedModel, Metrics], Awaitable[None]], workers: int = 1) -> None:
    model, metrics = LoadedModel(BUNDLE, engines=[NAME]), Metrics()

    async def run() -> None:
        pool = WorkerPool(started, [model], RowMeter(), metrics)
        await pool.start()
        await play(pool, model, metrics)
        pool.stop()

    with Processes(workers) as started:
        asyncio.run(run())


def test_a_worker_that_hangs_is_replaced_and_its_message_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    owner = Owner()
    payload = SLEEPY + owner.request.payload[16:]
    hanging = wire.Envelope(owner.request.header, payload).to_bytes()

    async def play(pool: WorkerPool, model: LoadedModel, metrics: Metrics) -> None:
        await pool.register(model, owner.id, owner.key.to_bytes(), 10_000, wanted)
        monkeypatch.setattr(pool_module, "EVALUATION_SECONDS", 0.5)
        for _ in range(2):
            with pytest.raises(RejectMessageError, match="did not come to an end"):
                await pool.score(model, hanging, 10_000, wanted)
        monkeypatch.setattr(pool_module, "EVALUATION_SECONDS", 30.0)
        done = await pool.score(model, owner.request.to_bytes(), 10_000, wanted)
        assert done.metered.rows == 16
        assert b"securead_workers_ended_total 1.0" in metrics.exposition()

    in_pool(play)


def test_workers_that_cannot_start_are_said_so_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_MAIN", "raise SystemExit(3)")

    async def play(*_: object) -> None:
        pytest.fail("it started")

    with pytest.raises(RetryLaterError, match="ended before it was ready"):
        in_pool(play)


def test_who_waits_for_workers_that_cannot_be_replaced_is_turned_away(monkeypatch: pytest.MonkeyPatch) -> None:
    owner = Owner()
    deadly = wire.Envelope(owner.request.header, DEADLY + owner.request.payload[16:]).to_bytes()

    async def play(pool: WorkerPool, model: LoadedModel, metrics: Metrics) -> None:
        await pool.register(model, owner.id, owner.key.to_bytes(), 10_000, wanted)
        monkeypatch.setattr(processes, "_MAIN", "raise SystemExit(3)")
        with pytest.raises(RetryLaterError, match="can start no worker"):
            await pool.score(model, deadly, 10_000, wanted)

    in_pool(play)


@pytest.mark.parametrize("denied", ["memfd_create", "ftruncate"])
def test_where_there_is_no_memory_to_share_large_messages_go_by_the_socket(
    denied: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, real = Owner(), frames.stands_elsewhere

    def refuse(*_: object) -> int:
        raise PermissionError(errno.EACCES, "not here")

    asked: list[bool] = []

    def stands(frame: frames.Frame, content: bytes) -> bool:
        asked.append(real(frame, content))
        return asked[-1]

    monkeypatch.setattr(frames, "_LARGE", 1)
    monkeypatch.setattr(frames, "stands_elsewhere", stands)

    async def play(pool: WorkerPool, model: LoadedModel, metrics: Metrics) -> None:
        await pool.register(model, owner.id, owner.key.to_bytes(), 10_000, wanted)
        scored = await pool.score(model, owner.request.to_bytes(), 10_000, wanted)
        with monkeypatch.context() as patch:
            patch.setattr(frames.os, denied, refuse)
            for link in pool._links:
                link._place = frames.Place()
            again = await pool.score(model, owner.request.to_bytes(), 10_000, wanted)
        assert again.answer.header == scored.answer.header
        assert sum(asked) == 3
        assert b"securead_workers_ended_total 0.0" in metrics.exposition()

    in_pool(play)


def test_what_cannot_be_said_to_a_worker_ends_it_and_another_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    owner, failures = Owner(), [OSError(errno.ETOOMANYREFS, "too many")]
    send = socket.send_fds

    def fails_once(*arguments: Any) -> int:
        if failures:
            raise failures.pop()
        return send(*arguments)

    monkeypatch.setattr(frames, "_LARGE", 1)
    monkeypatch.setattr(socket, "send_fds", fails_once)

    async def play(pool: WorkerPool, model: LoadedModel, metrics: Metrics) -> None:
        await pool.register(model, owner.id, owner.key.to_bytes(), 10_000, wanted)
        assert not failures
        assert b"securead_workers_ended_total 1.0" in metrics.exposition()

    in_pool(play)


def test_who_comes_first_is_served_first_and_who_leaves_is_passed_over() -> None:
    owner, order = Owner(), list[int]()

    async def play(pool: WorkerPool, model: LoadedModel, metrics: Metrics) -> None:
        await pool.register(model, owner.id, owner.key.to_bytes(), 10_000, wanted)

        async def one(number: int) -> None:
            await pool.score(model, owner.request.to_bytes(), 10_000, wanted)
            order.append(number)

        tasks = [asyncio.create_task(one(number)) for number in range(6)]
        await asyncio.sleep(0)
        tasks[3].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert tasks[3].cancelled()

    in_pool(play)
    assert order == [0, 1, 2, 4, 5]


def test_whose_sender_has_gone_is_not_evaluated() -> None:
    owner = Owner()

    class GoneError(Exception):
        pass

    async def gone() -> None:
        raise GoneError

    async def play(pool: WorkerPool, model: LoadedModel, metrics: Metrics) -> None:
        await pool.register(model, owner.id, owner.key.to_bytes(), 10_000, wanted)
        with pytest.raises(GoneError):
            await pool.score(model, owner.request.to_bytes(), 10_000, gone)
        await pool.score(model, owner.request.to_bytes(), 10_000, wanted)
        assert b"securead_workers_ended_total 0.0" in metrics.exposition()

    in_pool(play)


def test_what_a_worker_logs_is_logged_here(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    main = processes._MAIN.replace(
        "from securead.serving.worker import main;",
        "from securead.serving import worker; from securead.observe import event;"
        "old = worker.answer; worker.answer = lambda *a: (event('made.up', rows=3), old(*a))[1]; main = worker.main;",
    )
    monkeypatch.setattr(processes, "_MAIN", main)
    owner = Owner()

    async def play(pool: WorkerPool, model: LoadedModel, metrics: Metrics) -> None:
        await pool.register(model, owner.id, owner.key.to_bytes(), 10_000, wanted)
        await pool.score(model, owner.request.to_bytes(), 10_000, wanted)

    with caplog.at_level(logging.INFO, "securead"):
        in_pool(play)
    assert [e["rows"] for e in map(json.loads, caplog.messages) if e["event"] == "made.up"] == [3]


@pytest.mark.parametrize("workers", [1, 2, 3, 8, 16, 100])
def test_masks_are_bounded_in_all(workers: int) -> None:
    keys, size = share(workers)
    assert keys >= 1
    assert 0 < size <= KEY_BYTES
    assert workers * keys * size <= KEYS * KEY_BYTES
    assert share(1) == (KEYS, KEY_BYTES)


@pytest.mark.parametrize(
    ("seconds", "inside", "workers", "expected"),
    [(0.0, 9, 1, 1), (0.05, 9, 1, 1), (0.5, 9, 1, 5), (0.5, 9, 3, 2), (30.0, 9, 1, 60)],
)
def test_who_is_turned_away_is_told_when_there_will_be_room(
    seconds: float, inside: int, workers: int, expected: int
) -> None:
    desk = Desk([], Metrics(), OwnThread(RowMeter(), lambda _: None), queue=8, max_body=None)
    desk.evaluation.workers = workers  # type: ignore[misc]
    desk._inside, desk._busy_seconds = inside, seconds
    assert desk.retry_after == expected


# Engines that are named.


def test_only_the_engines_that_are_named_are_offered() -> None:
    model = small_bundle()
    every = {engine for engine, _ in load([model])[0].plans}
    assert len(every) > 1
    (only,) = load([model], engines=["ckks"])
    assert {engine for engine, _ in only.plans} == {"ckks"}
    two = load([model, table_bundle()], engines=["ckks", NAME])
    assert [{engine for engine, _ in one.plans} for one in two] == [{"ckks"}, {NAME}]
    with pytest.raises(FixProgramError, match="none of the engines that were named") as refused:
        load([model, table_bundle()], engines=["ckks"])
    assert NAME in refused.value.remedy


def test_engines_that_cannot_be_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    with pytest.raises(FixConfigurationError, match="no engine is called 'cks'"):
        load([small_bundle()], engines=["cks"])
    with pytest.raises(FixConfigurationError, match="among several parties"):
        load([small_bundle()], engines=["sharing"])


# Deposits.


def test_a_deposit_that_is_repeated_while_it_is_worked_on_is_scored_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, evaluated, release = Owner("split"), threading.Semaphore(0), threading.Event()
    real, times = asking_engine.blind.Evaluator.evaluate, list[int]()

    def slow(self: object, request: bytes, key: object, *, rows: int | None = None) -> bytes:
        times.append(1)
        evaluated.release()
        release.wait(20)
        return real(self, request, key, rows=rows)  # type: ignore[arg-type]

    monkeypatch.setattr(asking_engine.blind.Evaluator, "evaluate", slow)
    tokens = ("deposit", "pickup")
    box = Outbox(tmp_path / "outbox")
    box.open_mailbox(owner.id, *(hashlib.sha256(token.encode()).hexdigest() for token in tokens))
    app = build_app([LoadedModel(BUNDLE, engines=[NAME])], outbox=box)
    label = parcels.Label("pump-1", "0" * 32, 0, tuple(range(16)))
    body = parcels.to_bytes(label, owner.request.to_bytes())
    path, right = f"/v1/models/table/keys/{owner.id}/deposit", {"Authorization": "Bearer deposit"}

    async def play() -> list[httpx.Response]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            await client.put(owner.put, content=owner.key.to_bytes())
            calls = [asyncio.create_task(client.post(path, content=body, headers=right)) for _ in range(3)]
            while not evaluated.acquire(blocking=False):
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.05)
            release.set()
            return [await call for call in calls]

    assert [reply.status_code for reply in asyncio.run(play())] == [204] * 3
    assert (len(times), len(box)) == (1, 1)
    box.close()
