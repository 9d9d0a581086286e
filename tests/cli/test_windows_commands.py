"""A fleet's readings as people score them: train, inspect, encrypt with the gateway's own scale, scores with times."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from small_model import Run, securead, served

RECIPE = """
name = "pumps"
data = "readings.csv"
[window]
length = 5
period = 1.0
series = "gateway"
missing = "gap"
[detector]
type = "subspace"
scaling = "local"
[privacy]
epsilon = 4
delta = 1e-6
[schema]
[[schema.columns]]
names = ["flow", "heat"]
lower = -100
upper = 100
"""
FIRST = 1_600_000_000


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained bundle with scales, and one gateway's new readings with a gap and a fault."""
    folder = tmp_path_factory.mktemp("windows")
    rng, lines = np.random.default_rng(0), ["time,gateway,flow,heat"]
    for name in ("a", "b", "c"):
        level = rng.uniform(-50, 50, 2)
        for t in range(500):
            flow, heat = level + rng.normal(size=2)
            lines.append(f"{t},{name},{flow:.4f},{heat:.4f}")
    (folder / "readings.csv").write_text("\n".join(lines) + "\n")
    (folder / "recipe.toml").write_text(RECIPE)
    done = securead("train", folder / "recipe.toml", "--out", folder / "bundle")
    assert done.returncode == 0, done.stderr
    assert "lies in up to 5 windows" in done.stderr
    assert "3 gateways' own scales" in done.stderr
    scale = json.loads((folder / "bundle.scales" / "b.json").read_text())
    new = rng.normal(size=(40, 2)) + scale["center"]
    new[30] += 40
    new[35] = [1e4, 0]  # out of bounds: clipped, and said
    times = [FIRST + t for t in range(41) if t != 12]
    rows = [f"{t},{flow:.4f},{heat:.4f}" for t, (flow, heat) in zip(times, new, strict=True)]
    (folder / "new.csv").write_text("time,flow,heat\n" + "\n".join(rows) + "\n")
    return folder


def table(path: Path) -> list[list[str]]:
    header, *lines = path.read_text().splitlines()
    assert header == "row,score,anomaly,reading,time"
    return [line.split(",") for line in lines]


def test_inspect_shows_the_window_and_both_units(run: Run, place: Path) -> None:
    done = run("inspect", place / "bundle")
    assert done.returncode == 0, done.stderr
    for words in ("5 readings, one every 1 s", "each gateway's own", "5 record(s)", "lies in up to 5 windows", "flow"):
        assert words in done.stdout
    assert "flow[-4]" not in done.stdout
    public = json.loads((place / "bundle" / "public.json").read_text())
    assert public["program"]["encoder"]["schema"]["type"] == "windowed"
    assert public["privacy"]["readings"]["windows"] == 5


def test_score_and_the_three_commands_tell_the_same(place: Path, tmp_path: Path) -> None:
    scale = place / "bundle.scales" / "b.json"
    with served(tmp_path, place / "bundle") as service:
        whole = securead(
            *("score", place / "new.csv", "--server", service.url, "--model", "pumps"),
            *("--scale", scale, "--out", tmp_path / "whole.csv"),
        )
        assert whole.returncode == 0, whole.stderr
        keys = tmp_path / "keys"
        for arguments in (
            ("keygen", "--server", service.url, "--model", "pumps", "--out", keys),
            ("encrypt", place / "new.csv", "--keys", keys, "--scale", scale, "--out", tmp_path / "request"),
            ("submit", tmp_path / "request", "--server", service.url, "--out", tmp_path / "answer"),
            ("decrypt", tmp_path / "answer", "--keys", keys, "--out", tmp_path / "parts.csv"),
        ):
            done = securead(*arguments)
            assert done.returncode == 0, done.stderr
    assert "flow" in whole.stderr, "what was clipped is said by channel"
    one, other = table(tmp_path / "whole.csv"), table(tmp_path / "parts.csv")
    assert [[*a[:1], *a[2:]] for a in one] == [[*a[:1], *a[2:]] for a in other]
    # Twelve readings, a gap, twenty-eight more: windows of five end with these.
    assert [int(a[3]) for a in one] == [*range(4, 12), *range(16, 40)]
    assert one[0][4] == "2020-09-13T12:26:44Z"
    flagged = {int(a[3]) for a in one if a[2] == "1"}
    assert {30, 31, 32, 33, 34} <= flagged, "every window that holds the fault"
    assert (tmp_path / "request.windows").stat().st_mode & 0o777 == 0o600


def test_a_key_holder_without_the_notes_still_gets_scores(place: Path, tmp_path: Path) -> None:
    with served(tmp_path, place / "bundle") as service:
        keys, request = tmp_path / "keys", tmp_path / "gateway" / "request"
        for arguments in (
            ("keygen", "--server", service.url, "--model", "pumps", "--role", "split", "--out", keys),
            (
                *("encrypt", place / "new.csv", "--keys", keys / "public"),
                *("--scale", place / "bundle.scales" / "b.json", "--out", request),
            ),
            ("submit", request, "--server", service.url, "--out", tmp_path / "answer"),
            ("decrypt", tmp_path / "answer", "--keys", keys / "secret", "--out", tmp_path / "scores.csv"),
        ):
            done = securead(*arguments)
            assert done.returncode == 0, done.stderr
    assert (tmp_path / "scores.csv").read_text().startswith("row,score,anomaly\n")
    assert ".windows" in done.stderr


@pytest.mark.parametrize(
    ("content", "scaled", "named"),
    [
        (None, False, "--scale"),
        ("time,flow\n0,1\n", True, "missing"),
        ("flow,heat\n0,1\n", True, "no times"),
        ("time,flow,heat\n0,1,1\n1,1,1\n", True, "no 5 readings in a row"),
        ("time,flow,heat\n0,1,1\n0,1,1\n", True, "twice, out of order or too fast"),
    ],
    ids=["no scale", "no channel", "no times", "too short", "twice"],
)
def test_mistakes_exit_with_2_and_say_what_to_do(
    run: Run, place: Path, tmp_path: Path, content: str | None, scaled: bool, named: str
) -> None:
    from securead.client.keys import make_keys
    from securead.models.bundle import load_public

    make_keys(load_public(place / "bundle"), "same").save(tmp_path / "keys")
    data = place / "new.csv"
    if content is not None:
        data = tmp_path / "data.csv"
        data.write_text(content)
    scale = ("--scale", place / "bundle.scales" / "b.json") if scaled else ()
    done = run("encrypt", data, "--keys", tmp_path / "keys", *scale, "--out", tmp_path / "request")
    assert done.returncode == 2, done.stderr
    assert named in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "request").exists()
