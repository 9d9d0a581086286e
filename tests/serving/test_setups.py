"""What an engine publishes once for a model: made beside the bundle, checked when it is served, handed out by HTTP."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from asking_engine import COLUMNS, table_bundle
from small_model import Run, served, small_bundle

from securead.client.keys import load_keys, make_keys
from securead.client.scoring import Client
from securead.client.service import ModelReplacedError, Service
from securead.client.setups import with_published
from securead.errors import FixConfigurationError, FixInputError, SecureadError, UseOtherKeyError
from securead.models.bundle import load_public
from securead.serving.app import build_app
from securead.serving.loaded import LoadedModel, load
from securead.serving.setups import publish

X = np.random.default_rng(3).normal(size=(40, len(COLUMNS))).clip(-4, 4)
PATH = "/v1/models/table/setup/paillier"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle that was published."""
    folder = table_bundle().save(tmp_path_factory.mktemp("published") / "bundle")
    publish(folder, "paillier")
    return folder


@pytest.fixture
def bundle(published: Path, tmp_path: Path) -> Path:
    """A copy of it, to be changed."""
    return Path(shutil.copytree(published, tmp_path / "bundle"))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "securead" / "setups"


def get(models: tuple[LoadedModel, ...], path: str, **headers: str) -> httpx.Response:
    async def call() -> httpx.Response:
        transport = httpx.ASGITransport(build_app(models), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            return await client.get(path, headers=headers)

    return asyncio.run(call())


def test_a_model_is_offered_by_the_engine_once_it_was_published(published: Path, bundle: Path) -> None:
    assert ("paillier", "same") in load([published])[0].plans
    assert (published / "setup/paillier.secret").stat().st_mode & 0o777 == 0o600
    shutil.rmtree(bundle / "setup")
    (model,) = load([bundle])
    engines = {engine for engine, _ in model.plans}
    assert "bfv" in engines
    assert "paillier" not in engines
    assert not model.engine_secrets
    with pytest.raises(FixConfigurationError, match="securead publish"):
        load([bundle], engines=["paillier"])
    assert set(load([published], engines=["paillier"])[0].plans) == {("paillier", "same")}
    assert not load([published], engines=["bfv"])[0].engine_secrets


def test_publishing_twice_is_refused_and_again_makes_another_key(bundle: Path) -> None:
    before = (bundle / "setup/paillier.secret").read_bytes()
    with pytest.raises(FixInputError, match="--again"):
        publish(bundle, "paillier")
    assert (bundle / "setup/paillier.secret").read_bytes() == before
    told = publish(bundle, "paillier", again=True)
    content = (bundle / "setup/paillier.public").read_bytes()
    assert (told.digest, told.bytes) == (hashlib.sha256(content).hexdigest(), len(content))
    assert (bundle / "setup/paillier.secret").read_bytes() != before
    assert load([bundle])[0].engine_secrets


@pytest.mark.parametrize("left", ["secret", "public"])
def test_a_call_that_was_cut_short_is_made_up_for_by_another(bundle: Path, left: str) -> None:
    (bundle / "setup" / ("paillier.public" if left == "secret" else "paillier.secret")).unlink()
    publish(bundle, "paillier")
    assert load([bundle])[0].engine_secrets


def test_a_sealed_bundle_s_key_is_sealed_with_it(tmp_path: Path, published: Path) -> None:
    folder = table_bundle().save(tmp_path / "sealed", passphrase="five words are much better")
    publish(folder, "paillier", passphrase="five words are much better")
    plain = (published / "setup/paillier.secret").read_bytes()
    sealed = (folder / "setup/paillier.secret").read_bytes()
    assert plain[:20] == b"securead-paillier-se"
    assert sealed[:15] == b"securead-sealed"
    assert plain[:20] not in sealed
    assert load([folder], passphrase="five words are much better")[0].engine_secrets
    with pytest.raises(UseOtherKeyError):
        load([folder], passphrase="four words are not")


@pytest.mark.parametrize(
    "change",
    [
        lambda at: (at / "paillier.public").write_bytes((at / "paillier.public").read_bytes()[:-1] + b"\0"),
        lambda at: (at / "paillier.public").write_bytes(b""),
        lambda at: (at / "paillier.public").unlink(),
        lambda at: (at / "paillier.secret").write_bytes((at / "paillier.secret").read_bytes()[:-1]),
        lambda at: (at / "paillier.secret").chmod(0o644),
    ],
)
def test_a_setup_that_is_damaged_or_mixed_is_refused_at_the_start(bundle: Path, change: Callable[[Path], Any]) -> None:
    change(bundle / "setup")
    with pytest.raises(SecureadError) as caught:
        load([bundle])
    assert caught.value.remedy


def test_another_program_s_tables_are_refused_at_the_start(bundle: Path) -> None:
    table_bundle(seed=9).save(bundle)  # trained again into the same directory
    with pytest.raises(UseOtherKeyError, match="another program"):
        load([bundle])
    publish(bundle, "paillier", again=True)
    assert load([bundle])[0].engine_secrets


def test_what_publishes_nothing_is_refused(tmp_path: Path) -> None:
    folder = small_bundle().save(tmp_path / "bundle")
    for engine in ("paillier", "ckks", "bfv"):
        with pytest.raises(FixConfigurationError, match="publishes nothing"):
            publish(folder, engine)


def test_it_is_handed_out_whole_and_in_ranges(published: Path) -> None:
    models = load([published])
    content = (published / "setup/paillier.public").read_bytes()
    offer = get(models, PATH).json()
    assert offer == {"digest": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    path = f"{PATH}/{offer['digest']}"
    whole = get(models, path)
    assert (whole.status_code, whole.content, whole.headers["accept-ranges"]) == (200, content, "bytes")
    for asked, first, last in (("0-9", 0, 9), ("100-", 100, len(content) - 1), ("7-99999999", 7, len(content) - 1)):
        part = get(models, path, Range=f"bytes={asked}")
        assert (part.status_code, part.content) == (206, content[first : last + 1])
        assert part.headers["content-range"] == f"bytes {first}-{last}/{len(content)}"
    for asked in (f"bytes={len(content)}-", "bytes=9-3"):
        assert get(models, path, Range=asked).status_code == 416
    for overlooked in ("bytes=-5", "bytes=1-2,4-5", "lines=1-2", "bytes=x-y"):
        assert get(models, path, Range=overlooked).content == content


@pytest.mark.parametrize(
    "path", [PATH.replace("paillier", "bfv"), PATH.replace("table", "other"), f"{PATH}/{'0' * 64}", f"{PATH}/../x"]
)
def test_what_is_not_there_is_not_found(published: Path, path: str) -> None:
    reply = get(load([published]), path)
    assert reply.status_code == 404
    assert reply.json()["remedy"]


def test_nobody_is_handed_the_secret(published: Path) -> None:
    models = load([published])
    secret = (published / "setup/paillier.secret").read_bytes()
    offer = get(models, PATH).json()
    told = b"".join(
        get(models, path).content
        for path in (PATH, f"{PATH}/{offer['digest']}", "/v1/models", "/v1/models/table", "/metrics")
    )
    for start in (96, 288):  # p and q
        assert secret[start : start + 24] not in told
        assert secret[start : start + 24].hex().encode() not in told


def test_keys_outlive_a_restart_and_are_replaced_with_the_tables(bundle: Path, tmp_path: Path, cache: Path) -> None:
    """Two workers, then a restart: the same key goes on. Published anew: the owner is told, and fetches it again."""
    exact = table_bundle().program.score(X)
    model = load_public(bundle)
    with served(tmp_path, bundle, arguments=("--no-tls", "--workers", "2")) as running, Service(running.url) as service:
        keys = with_published(service, make_keys(model, "same", engine="paillier"))
        directory = keys.save(tmp_path / "keys")
        with Client(running.url) as client:
            assert np.array_equal(client.score("table", X, keys).scores, exact)
    keys = load_keys(directory)
    with served(tmp_path, bundle) as running, Client(running.url) as client:
        assert np.array_equal(client.score("table", X, keys).scores, exact)
    assert len(list(cache.iterdir())) == 1
    publish(bundle, "paillier", again=True)
    with served(tmp_path, bundle) as running, Client(running.url) as client, Service(running.url) as service:
        with pytest.raises(ModelReplacedError, match="other published tables"):
            client.score("table", X, keys)
        keys = with_published(service, make_keys(model, "same", engine="paillier"))
        assert np.array_equal(client.score("table", X, keys).scores, exact)
    assert len(list(cache.iterdir())) == 2


def test_the_command_says_what_it_did(bundle: Path, run: Run) -> None:
    refused = run("publish", bundle)
    assert (refused.returncode, "--again" in refused.stderr) == (2, True)
    shutil.rmtree(bundle / "setup")
    done = run("publish", bundle, "--json")
    assert done.returncode == 0, done.stderr
    assert '"engine": "paillier"' in done.stdout
    assert "published 22.7 kB for paillier" in done.stderr
