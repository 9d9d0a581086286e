"""The whole path with real processes for engines that need the owner's public key: nobody has to think of it.

Once with a make-believe engine, installed as a third party's would be, and once with every real one that asks.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import pytest
from asking_engine import COLUMNS, NAME, install, installation, table_bundle
from small_model import Served, read_scores, securead, served, write_csv

from securead.client import Client, workflow
from securead.client.keys import make_keys
from securead.client.service import Service
from securead.protocols import registry

BUNDLE = table_bundle()
X = np.random.default_rng(5).normal(size=(40, 3)).clip(-4, 4)
EXPECTED = BUNDLE.program.score(X)
# Engines that publish something first have tests of their own.
REAL = [
    each.name
    for each in registry.engines().values()
    if each.parties == 1 and "lookup" in each.operations and not each.setup
]
ROLES = pytest.mark.parametrize("role", ["same", "split"])


@dataclass
class Place:
    """One engine, a service with a table program, and the environment in which processes know the engine."""

    engine: str
    folder: Path
    environment: dict[str, str]
    service: Served

    def call(self, *arguments: object) -> subprocess.CompletedProcess[str]:
        """A command that must succeed."""
        ended = securead(*arguments, **self.environment)
        assert ended.returncode == 0, ended.stderr
        return ended


@pytest.fixture(scope="module", params=[NAME, *REAL])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("place")
    environment = installation(folder / "site") if request.param == NAME else {}
    write_csv(folder / "data.csv", X, COLUMNS)
    with (
        pytest.MonkeyPatch.context() as patch,
        served(
            folder, BUNDLE.save(folder / "bundle"), arguments=("--no-tls", "--workers", "2"), **environment
        ) as running,
    ):
        if request.param == NAME:
            install(patch)
        yield Place(request.param, folder, environment, running)


def asks(place: Place, role: str) -> bool:
    plan = registry.plan_module(place.engine).make_plan(BUNDLE.public.program, role)  # type: ignore[arg-type]
    return plan.evaluation_key_bytes > 0


def held(place: Place) -> float:
    lines = httpx.get(f"{place.service.url}/metrics").text.splitlines()
    return next(float(line.split()[-1]) for line in lines if line.startswith("securead_keys_held"))


@ROLES
def test_step_by_step_with_the_parties_apart(place: Place, role: str, tmp_path: Path) -> None:
    """The submitter has the request file and nothing else: the key travels in it."""
    server, keys, before = ("--server", place.service.url), tmp_path / "keys", held(place)
    place.call("keygen", *server, "--model", "table", "--role", role, "--out", keys)
    half = keys / ("secret" if role == "same" else "public")
    place.call("encrypt", place.folder / "data.csv", "--keys", half, "--out", tmp_path / "at-the-owner" / "request")
    submitter = tmp_path / "submitter"
    submitter.mkdir()
    (tmp_path / "at-the-owner" / "request").rename(submitter / "request")
    shown = place.call("inspect", submitter / "request").stdout
    assert "Request in" in shown
    place.call("submit", submitter / "request", *server, "--out", submitter / "answer")
    assert sorted(path.name for path in submitter.iterdir()) == ["answer", "request"]
    place.call("decrypt", submitter / "answer", "--keys", keys / "secret", "--out", tmp_path / "scores.csv")
    np.testing.assert_allclose(read_scores(tmp_path / "scores.csv")[0], EXPECTED)
    if asks(place, role):
        assert held(place) == before + 1
        assert "public key" in shown
        assert "public key, sent once, at most" in place.call("inspect", half).stdout


@pytest.mark.parametrize("role", [None, "same", "split"])
def test_score_in_one(place: Place, role: str | None, tmp_path: Path) -> None:
    server = ("--server", place.service.url, "--model", "table")
    extra: tuple[object, ...] = ()
    if role is not None:
        place.call("keygen", *server, "--role", role, "--out", tmp_path / "keys")
        extra = ("--keys", tmp_path / "keys")
    out = ("--out", tmp_path / "scores.csv", "--json")
    summary = json.loads(place.call("score", place.folder / "data.csv", *server, *extra, *out).stdout)
    np.testing.assert_allclose(read_scores(tmp_path / "scores.csv")[0], EXPECTED)
    assert summary["rows"] == len(X)


def test_the_service_is_restarted_in_the_middle_of_a_job(place: Place, tmp_path: Path) -> None:
    """The second chunk meets a service that has never heard of the key."""
    pair = make_keys(BUNDLE.public, "split", engine=place.engine)
    many = np.random.default_rng(6).normal(size=(pair.plan.rows_per_chunk + 3, 3)).clip(-4, 4)
    workflow.encrypt_file(many, pair.submitter, tmp_path / "request")
    bundle, services = place.folder / "bundle", []

    class Restart:
        def rows(self, phase: str, done: int, total: int) -> None:
            if done < total:
                services[0].terminate()
                again = served(tmp_path, bundle, port=services[0].port, **place.environment)
                services.append(again.__enter__())
                services.append(again)

        def waiting(self, what: str) -> None: ...

    with served(tmp_path, bundle, **place.environment) as first:
        services.append(first)
        try:
            with Service(first.url, patience=30) as service:
                workflow.submit_file(tmp_path / "request", service, tmp_path / "answer", watch=Restart())
        finally:
            for again in services[2:]:
                again.__exit__(None, None, None)
    assert len(services) == 3
    workflow.decrypt_file(tmp_path / "answer", pair.holder, tmp_path / "scores.csv")
    np.testing.assert_allclose(read_scores(tmp_path / "scores.csv")[0], BUNDLE.program.score(many))


def test_the_sdk(place: Place) -> None:
    with Client(place.service.url) as client:
        for role in ("same", "split"):
            pair = make_keys(client.model("table"), role, engine=place.engine)  # type: ignore[arg-type]
            np.testing.assert_allclose(client.score("table", X, pair).scores, EXPECTED)
        np.testing.assert_allclose(client.score("table", X).scores, EXPECTED)


def test_nothing_of_a_key_is_logged(place: Place, tmp_path: Path) -> None:
    pair = make_keys(BUNDLE.public, "same", engine=place.engine)
    with (
        served(tmp_path, place.folder / "bundle", **place.environment) as running,
        Service(running.url) as service,
    ):
        workflow.score_records(service, pair, X)
        running.terminate()
        assert pair.record.key not in running.errors.read_text()
        assert "Traceback" not in running.errors.read_text()
