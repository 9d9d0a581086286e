"""`securead share`: only the rows asked for, in files that may be handed out, or a refusal that leaves none."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import asking_engine.plan
import pytest
from asking_engine import install, table_bundle
from small_model import Run, small_bundle

from securead.cli.share import chosen_rows
from securead.client.keys import make_keys
from securead.client.sharing import SHARING_FILE
from securead.errors import FixInputError

SCORES = "row,score,anomaly\n0,1.5,0\n1,2.5,0\n2,7.25,1\n3,6.0,0\n"


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_keys(small_bundle().public, "same").save(tmp_path_factory.mktemp("real") / "keys")


@pytest.fixture
def scores(tmp_path: Path) -> Path:
    path = tmp_path / "scores.csv"
    path.write_text(SCORES)
    return path


def test_help_teaches(run: Run) -> None:
    said = run("share", "--help").stdout
    for word in ("Example", "securead share scores.csv", "--at-most", "noise", "verdicts", "counts"):
        assert word in said


def test_refused_as_models_are_usually_compiled(run: Run, keys: Path, scores: Path, tmp_path: Path) -> None:
    out = tmp_path / "shared.csv"
    undeclared = run("share", scores, "--keys", keys, "--rows", "1", "--out", out)
    assert (undeclared.returncode, "--at-most N" in undeclared.stderr) == (2, True)
    ended = run("share", scores, "--keys", keys, "--rows", "1", "--at-most", 5, "--out", out)
    assert ended.returncode == 2
    assert "noise that protects the key would destroy these scores" in ended.stderr
    assert "Nothing was shared" in ended.stderr
    assert not out.exists()
    assert not (keys / "secret" / SHARING_FILE).exists()


def test_noised_and_counted_where_the_caller_can_do_with_it(
    run: Run,
    keys: Path,
    scores: Path,
    tmp_path: Path,
) -> None:
    out = tmp_path / "shared.csv"
    options = ("--keys", keys, "--out", out, "--useful", "1e9", "--json")
    ended = run("share", scores, *options, "--rows", "0,2-3", "--at-most", 5)
    assert ended.returncode == 0, ended.stderr
    said = json.loads(ended.stdout)
    assert (said["rows"], said["shared"], said["at_most"], said["exact"]) == (3, 3, 5, False)
    header, *lines = out.read_text().splitlines()
    assert (header, [line.split(",")[0] for line in lines]) == ("row,score,anomaly", ["0", "2", "3"])
    assert [line.split(",")[1] for line in lines] != ["1.5", "7.25", "6.0"]
    assert all((float(line.split(",")[1]) > 6.0) == (line.split(",")[2] == "1") for line in lines)
    ended = run("share", scores, *options, "--rows", "1,3", "--verdicts")
    assert json.loads(ended.stdout)["shared"] == 5
    assert out.read_text().startswith("row,anomaly\n1,")
    before = out.read_text()
    ended = run("share", scores, *options, "--rows", "1")
    assert (ended.returncode, "beyond the 5" in ended.stderr) == (2, True)
    assert out.read_text() == before


def test_exact_scores_go_out_as_they_are(
    run: Run,
    scores: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install(monkeypatch)
    real = asking_engine.plan.make_plan
    monkeypatch.setattr(asking_engine.plan, "make_plan", lambda *given: replace(real(*given), error_bound=0.0))
    keys, out = make_keys(table_bundle().public, "same").save(tmp_path / "keys"), tmp_path / "shared.csv"
    ended = run("share", scores, "--keys", keys, "--rows", "all", "--out", out)
    assert ended.returncode == 0, ended.stderr
    assert "exact, so nothing was added" in ended.stderr
    assert out.read_text() == SCORES


def test_nothing_is_overwritten(run: Run, keys: Path, scores: Path) -> None:
    for out in (scores, keys / "secret" / "secret.key", keys / "secret" / SHARING_FILE):
        ended = run("share", scores, "--keys", keys, "--rows", "all", "--at-most", 9, "--out", out)
        assert (ended.returncode, "would overwrite" in ended.stderr) == (2, True)
    assert scores.read_text() == SCORES


def test_rows_of_a_list() -> None:
    assert chosen_rows("3, 17,40-42,3") == {3, 17, 40, 41, 42}
    for wrong in ("", "a", "3-", "-3", "5-3", "1,,2", "0-99999999", "\u0663", "1-2-3"):
        with pytest.raises(FixInputError, match="rows"):
            chosen_rows(wrong)
