"""The path of a gateway with real processes: kills at random moments, outages, and what each party holds."""

from __future__ import annotations

import json
import random
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from replay import SEED
from small_model import securead
from stations import HEADER, LENGTH, Stations, expected_scores, lines_of, readings, stations, wait_for

from securead.client.keys import load_holder
from securead.errors import UseOtherKeyError


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Stations]:
    with stations(tmp_path, gateways=("pump-1", "pump-2")) as found:
        yield found


def check_each_once(place: Stations, name: str, X: np.ndarray) -> None:
    """Every window of a gateway's readings has its score, once."""
    got, expected = place.scores(name), expected_scores(X)
    assert sorted(got) == list(range(LENGTH - 1, len(X)))
    assert {len(each) for each in got.values()} == {1}
    np.testing.assert_allclose([got[at][0] for at in sorted(got)], expected, atol=2e-3)


def streams(place: Stations) -> list[tuple[object, ...]]:
    with sqlite3.connect(place.folder / "centre/record.sqlite") as db:
        return db.execute("SELECT gateway, highest, taken, rejected FROM stream ORDER BY gateway").fetchall()


@pytest.mark.timeout(240)
def test_kills_at_random_moments_lose_nothing_and_score_nothing_twice(place: Stations) -> None:
    names = ("cloud", "centre", *place.gateways)
    chance = random.Random(SEED)
    series = {name: readings(320, seed=7 + at) for at, name in enumerate(place.gateways)}
    for name in names[1:]:
        place.start(name)
    deaths = ["cloud", "pump-1", "centre", "pump-2"] * 2
    chance.shuffle(deaths)
    for at, victim in enumerate(deaths):
        for name, X in series.items():
            place.feed(name, X[at * 40 : (at + 1) * 40], at * 40)
        time.sleep(chance.uniform(0.2, 2.5))
        place.kill(victim)
        time.sleep(chance.uniform(0, 0.4))
        place.start(victim)
    place.await_windows({name: len(X) - LENGTH + 1 for name, X in series.items()})
    for name, X in series.items():
        check_each_once(place, name, X)
    # Numbers without gaps, each taken once.
    for _, highest, taken, rejected in streams(place):
        assert (taken, rejected) == (int(str(highest)) + 1, 0)
    with sqlite3.connect(place.folder / "centre/record.sqlite") as db:
        assert db.execute("SELECT count(*) FROM gap").fetchone() == (0,)
    # All of it is acknowledged: nothing is kept longer than needed.
    wait_for(lambda: _answers(place) == 0)


def _answers(place: Stations) -> int:
    with sqlite3.connect(place.folder / "cloud/outbox.sqlite", timeout=30) as db:
        return int(db.execute("SELECT count(*) FROM answer").fetchone()[0])


def test_an_outage_is_spooled_and_replayed_in_order(place: Stations) -> None:
    X = readings(140)
    place.start("pump-1")
    place.start("centre")
    place.feed("pump-1", X[:40], 0)
    place.await_windows({"pump-1": 38})
    place.kill("cloud")
    place.feed("pump-1", X[40:], 40)
    spool = place.folder / "pump-1/spool.sqlite"

    def spooled() -> int:
        with sqlite3.connect(spool, timeout=30) as db:
            return int(db.execute("SELECT count(*) FROM message").fetchone()[0])

    wait_for(lambda: spooled() >= 5)
    place.kill("pump-1")
    place.start("pump-1")
    place.start("cloud")  # which has forgotten the public key
    place.await_windows({"pump-1": len(X) - LENGTH + 1})
    check_each_once(place, "pump-1", X)
    wait_for(lambda: spooled() == 0)
    with sqlite3.connect(place.folder / "centre/record.sqlite") as db:
        ordered = [row[0] for row in db.execute("SELECT reading FROM score ORDER BY id")]
    assert ordered == sorted(ordered)
    shown = securead("inspect", place.folder / "pump-1/public")
    assert shown.returncode == 0


def test_what_a_gateway_holds_and_imports(place: Stations) -> None:
    place.start("pump-1")
    place.start("centre")
    place.feed("pump-1", readings(60), 0)
    place.await_windows({"pump-1": 58})
    process = Path(f"/proc/{place.processes['pump-1'].pid}")
    loaded = process.joinpath("maps").read_text()
    assert "tenseal" in loaded
    assert not [name for name in ("torch", "numba", "llvmlite", "sklearn", "scipy") if f"/{name}" in loaded]
    peak = next(line for line in process.joinpath("status").read_text().splitlines() if line.startswith("VmHWM"))
    assert int(peak.split()[1]) < 200_000
    # No token is in an argument list, and none in a log.
    tokens = json.loads((place.folder / "centre/keys/secret/mailbox.json").read_text())
    said = b"".join(path.read_bytes() for path in place.folder.glob("*.log"))
    for each in place.processes.values():
        said += Path(f"/proc/{each.pid}/cmdline").read_bytes()
    assert not [name for name in ("deposit", "pickup") if tokens[name].encode() in said]
    # Nothing of the key holder's is in the gateway's folder or the cloud's.
    secret = (place.folder / "centre/keys/secret/secret.key").read_bytes()
    for name in ("pump-1", "cloud"):
        for path in (place.folder / name).rglob("*"):
            content = path.read_bytes() if path.is_file() else b""
            assert path.name != "secret.key"
            assert secret[64:128] not in content
            assert tokens["pickup"].encode() not in content
    with pytest.raises(UseOtherKeyError, match="holds no secret key"):
        load_holder(place.folder / "pump-1/public")
    for path in ("pump-1/spool.sqlite", "cloud/outbox.sqlite", "centre/record.sqlite", "centre/page.html"):
        assert (place.folder / path).stat().st_mode & 0o077 == 0


def test_who_may_do_what_with_a_mailbox(place: Stations) -> None:
    place.start("pump-1")
    place.feed("pump-1", readings(60), 0)
    wait_for(lambda: _answers(place) >= 2)
    tokens = json.loads((place.folder / "centre/keys/secret/mailbox.json").read_text())
    key = json.loads((place.folder / "centre/keys/secret/key.json").read_text())["key"]
    answers = f"{place.url}/v1/keys/{key}/answers"

    def call(method: str, address: str, token: str | None = None, **more: object) -> httpx.Response:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return httpx.request(method, address, headers=headers, trust_env=False, **more)  # type: ignore[arg-type]

    first = call("GET", answers, tokens["pickup"]).json()["answers"][0]["number"]
    for wrong in (None, "x", "0" * 64, tokens["deposit"]):
        for method, address in (("GET", answers), ("GET", f"{answers}/{first}"), ("DELETE", f"{answers}/{first}")):
            refused = call(method, address, wrong)
            assert (refused.status_code, refused.json()["error"]) == (403, "UseOtherKeyError")
    deposit = f"{place.url}/v1/models/pumps/keys/{key}/deposit"
    assert call("POST", deposit, tokens["pickup"], content=b"x").status_code == 403
    assert call("POST", deposit, tokens["deposit"], content=b"x").status_code == 400
    assert call("POST", deposit, tokens["deposit"], content=b"x" * (40 << 20)).status_code == 413
    other = f"{place.url}/v1/models/pumps/keys/{'0' * 64}/deposit"
    assert call("POST", other, tokens["deposit"], content=b"x").status_code == 503
    opening = {"deposit": "1" * 64, "pickup": "2" * 64}
    assert call("PUT", f"{place.url}/v1/keys/{key}/mailbox", json=opening).status_code == 403
    assert call("PUT", f"{place.url}/v1/keys/{key}/mailbox", content=b"[[").status_code == 400
    assert call("GET", f"{answers}/999999", tokens["pickup"]).status_code == 400
    assert call("GET", f"{answers}?after=x", tokens["pickup"]).status_code == 400
    before = _answers(place)
    assert call("DELETE", f"{answers}/{first}", tokens["pickup"]).status_code == 204
    assert call("DELETE", f"{answers}/{first}", tokens["pickup"]).status_code == 204
    assert _answers(place) == before - 1


def test_a_pipe_once_and_an_orderly_end(place: Stations) -> None:
    """Standard input until it closes, the centre once; and SIGTERM ends each within seconds, with nothing lost."""
    X = readings(90)
    own = place.folder / "pump-1"
    keys = ("--keys", own / "public", "--token", own / "deposit.token", "--spool", own / "spool.sqlite")
    command = (*place.command("pump-1")[:4], "-", "--server", place.url, *keys, "--name", "pump-1", "--json")
    ended = subprocess.run(
        list(map(str, command)), input=HEADER + lines_of(X), capture_output=True, text=True, timeout=60, check=True
    )
    passed = json.loads(ended.stdout)
    assert (passed["readings"], passed["windows"], passed["sent"], passed["waiting_messages"]) == (90, 88, 1, 0)
    once = [each for each in place.command("centre") if each not in ("--interval", "0.1")]
    subprocess.run([*once, "--once"], capture_output=True, timeout=60, check=True)
    check_each_once(place, "pump-1", X)
    place.start("pump-2")
    place.start("centre")
    place.feed("pump-2", X[:60], 0)
    place.await_windows({"pump-2": 58})
    place.feed("pump-2", X[60:], 60)
    time.sleep(0.3)
    for name in ("pump-2", "centre", "cloud"):
        start = time.monotonic()
        place.processes[name].terminate()
        assert place.processes[name].wait(30) == 0, (place.folder / f"{name}.log").read_text()
        assert time.monotonic() - start < 10
        place.kill(name)  # closes its pipe
    for name in ("cloud", "pump-2", "centre"):
        place.start(name)
    place.await_windows({"pump-2": 88})
    check_each_once(place, "pump-2", X)
    assert "Traceback" not in "".join(path.read_text() for path in place.folder.glob("*.log"))
