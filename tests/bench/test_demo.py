"""The demonstration with real processes: on generated data, on a user's file, and what it says when data is bad."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_model import Run

from securead.bench.results import DetectorResult

FIELDS = {field.name for field in dataclasses.fields(DetectorResult)}


def demo(*arguments: str, data_folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "SECUREAD_DATA"}
    if data_folder is not None:
        environment["SECUREAD_DATA"] = str(data_folder)
    return subprocess.run(
        [sys.executable, "-m", "securead", "demo", *arguments],
        capture_output=True,
        text=True,
        env=environment,
        timeout=280,
        check=False,
    )


def check_summary(out: Path, *, max_rel_error: float = 1e-4) -> dict[str, dict[str, float]]:
    """The promises of summary.json; returns the detectors by name and role."""
    summary = json.loads((out / "summary.json").read_text())
    found = {}
    for item in summary["detectors"]:
        assert set(item) == FIELDS
        # The autoencoder declares a tolerance of an eightieth of a typical score, and its engine uses what is declared.
        limit = max(max_rel_error, 0.02) if item["name"] == "autoencoder" else max_rel_error
        assert item["max_rel_error"] < limit
        assert item["rank_correlation"] > 0.9999
        found[f"{item['name']}/{item['engine']}/{item['role']}"] = item
    assert set(found) == {
        "forest/bfv/same",
        "forest/bfv/split",
        "forest/sharing/same",
        "autoencoder/ckks/same",
        "subspace-mahalanobis/ckks/same",
    }
    # The forest leads, and its encrypted scores are exact.
    assert [item["name"] for item in summary["detectors"]][:4] == ["forest", "forest", "forest", "autoencoder"]
    forests = [item for name, item in found.items() if name.startswith("forest")]
    assert {item["max_rel_error"] for item in forests} == {0}
    assert len({item["rows_scored"] for item in forests}) == 1
    network = found["autoencoder/ckks/same"]
    assert (network["auroc_untrained"] is None) == (network["auroc_float"] is None)
    return found


@pytest.mark.long
def test_without_data_it_uses_generated_payments_and_says_so(tmp_path: Path) -> None:
    done = demo("--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    assert "generated card payments" in done.stderr
    for item in check_summary(tmp_path / "out").values():
        assert item["epsilon"] <= 3
        assert abs(item["auroc_encrypted"] - item["auroc_float"]) < 0.005
        assert item["auroc_encrypted"] > 0.75
    report = (tmp_path / "out" / "report.html").read_text()
    assert "epsilon = 1" in report
    # The submitter of role split never had the secret key.
    split = tmp_path / "out" / "work" / "forest-split"
    assert sorted(path.name for path in split.iterdir() if path.is_dir()) == [
        "key-holder-keys",
        "keys",
        "submitter-keys",
    ]
    assert not list((split / "keys").iterdir())


def test_on_a_users_unlabelled_csv(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [",".join(f"{value:.4f}" for value in row) for row in rng.normal(size=(400, 4))]
    path = tmp_path / "mine.csv"
    path.write_text("a,b,c,d\n" + "\n".join(rows) + "\n")
    done = demo("--data", str(path), "--out", str(tmp_path / "out"))
    assert done.returncode == 0, done.stderr
    # Noise dwarfs 280 records, and some of their scores are next to nothing: a small error is a large part of those.
    for item in check_summary(tmp_path / "out", max_rel_error=1e-2).values():
        assert item["auroc_float"] is None
        assert item["rows_scored"] == 120


@pytest.mark.long
@pytest.mark.data
def test_on_the_real_payments(tmp_path: Path, data_folder: Path) -> None:
    done = demo("--out", str(tmp_path / "out"), data_folder=data_folder)
    assert done.returncode == 0, done.stderr
    found = check_summary(tmp_path / "out")
    # The autoencoder's weights have fewer bits, so its float detector and its program differ a little more.
    for name, item in found.items():
        subspace, lookup = name.startswith("subspace"), item["engine"] in ("bfv", "sharing")
        assert abs(item["auroc_encrypted"] - item["auroc_float"]) < (0.0005 if subspace else 0.005)
        assert item["auroc_encrypted"] > 0.85
        assert item["download_bytes_per_row"] <= (120 if subspace else 16_000 if lookup else 250)
        assert (item["rows_scored"] < 34_177) == lookup
    assert found["subspace-mahalanobis/ckks/same"]["upload_bytes_per_row"] <= 1600


@pytest.mark.parametrize(
    ("content", "named"),
    [("a,b\n1,2\n", "too small"), ("a,b\n1,x\n", "'x'"), ("", "no records"), ("a,b\n1\n", "1 cells")],
)
def test_bad_data_is_named(run: Run, tmp_path: Path, content: str, named: str) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(content)
    done = run("demo", "--data", path, "--out", tmp_path / "out")
    assert done.returncode == 2, done.stderr
    assert named in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_that_is_not_the_demonstrations_is_left_alone(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SECUREAD_DATA", raising=False)
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "thesis.tex").write_text("years of it")
    done = run("demo", "--out", tmp_path)
    assert done.returncode == 2
    assert "not from an earlier demonstration" in done.stderr
    assert (tmp_path / "work" / "thesis.tex").read_text() == "years of it"
