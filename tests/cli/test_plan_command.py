"""`securead plan` from the shell: tables, the choice, the commands to run next; refusals with the smallest change."""

from __future__ import annotations

import dataclasses
import json
import shlex
import sys
from pathlib import Path

import pytest
from made_up_costs import profile_for
from small_model import Run, securead, small_bundle

from securead.bench import calibration
from securead.bench.calibration import Calibration
from securead.checks import programs
from securead.cli import plan as plan_command
from securead.models.bundle import Bundle
from securead.planner import profile as profiles
from securead.planner.profile import Profile

SMALL = small_bundle()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle, and a cache with a profile of this machine whose costs are made up."""
    folder = tmp_path_factory.mktemp("plan")
    SMALL.save(folder / "bundle")
    tables = programs.small_tables()
    public = dataclasses.replace(SMALL.public, program=tables.public, name="tables")
    Bundle(public, tables.secret).save(folder / "tables")
    profiles.write(made_up(), folder / "cache" / "securead" / "profile.json")
    return folder


def made_up() -> Profile:
    return profile_for(SMALL.public.program, programs.small_tables().public)


def planned(place: Path, *arguments: object, cache: str = "cache") -> tuple[int, str, str]:
    done = securead("plan", *arguments, XDG_CACHE_HOME=str(place / cache))
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


def test_tables_the_choice_and_what_to_run_next(place: Path) -> None:
    code, printed, said = planned(place, place / "bundle", "--goal", "latency", "--link", "wan")
    assert (code, said) == (0, "")
    for part in (
        "Parameters",
        "bytes a record",
        "Predicted",
        "who is trusted",
        "Why",
        "Without parameters",
        "Chosen: ",
    ):
        assert part in printed
    for words in ("ckks", "ckks-row", "sharing", "bfv", "128 / 128", "must not collude", "it does not know"):
        assert words in printed
    last = printed.rstrip().splitlines()[-3:]
    assert [line.split()[1] for line in last] == ["serve", "keygen", "score"]
    assert str(place / "bundle") in last[0]
    engine = shlex.split(last[1])[shlex.split(last[1]).index("--engine") + 1]
    assert f"Chosen: {engine}" in printed


@pytest.mark.parametrize("arguments", [("bundle",), ("bundle", "--role", "split"), ("bundle", "--engine", "sharing")])
def test_the_commands_are_commands(place: Path, run: Run, arguments: tuple[str, ...]) -> None:
    """What it says to run next has those options."""
    told = json.loads(run("plan", place / arguments[0], *arguments[1:], "--no-calibrate", "--json").stdout)
    assert len(told["commands"]) >= 3
    for line in told["commands"]:
        for command in line.split("; "):
            words = shlex.split(command)
            helped = run(words[1], "--help").stdout
            assert all(word in helped for word in words if word.startswith("--")), command


def test_json_for_programs(place: Path) -> None:
    code, printed, said = planned(place, place / "tables", "--json", "--max-error", "0")
    assert code == 0
    told = json.loads(printed)
    assert told["fits"]
    assert told["chosen"]["error_bound"] == 0
    assert told["chosen"]["parties"] == 1
    assert f"chosen: {told['chosen']['engine']}" in said
    assert told["chosen"]["request_ms"] > 0


@pytest.mark.parametrize("as_json", [False, True])
def test_nothing_fits_is_exit_code_2_and_the_smallest_change(place: Path, as_json: bool) -> None:
    arguments = ["--role", "split", "--max-up", "0.001", *(["--json"] if as_json else [])]
    code, printed, said = planned(place, place / "bundle", *arguments)
    assert code == 2
    assert "error: no engine keeps these limits" in said
    assert "--max-up" in said
    if as_json:
        told = json.loads(printed)
        assert told["chosen"] is None
        assert told["smallest_change"] in said
    else:
        assert "KB up a record, over 0.001" in printed
        assert "Chosen" not in printed


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "no bundle is named"),
        (("bundle", "--link", "fast"), "100Mb/s,20ms"),
        (("bundle", "--engine", "none"), "no engine is called"),
        (("bundle", "--calibrate", "--no-calibrate"), "exclude each other"),
        (("nowhere",), "nowhere"),
    ],
)
def test_refusals_come_before_anything_is_measured(place: Path, arguments: tuple[str, ...], words: str) -> None:
    code, printed, said = planned(
        place, *(place / each if each in ("bundle", "nowhere") else each for each in arguments), cache="empty"
    )
    assert (code, printed) == (2, "")
    assert words in said
    assert "measuring" not in said


def test_without_a_profile_no_times_if_that_is_wished(place: Path) -> None:
    code, printed, _ = planned(place, place / "bundle", "--no-calibrate", cache="empty")
    assert code == 0
    assert "securead plan --calibrate measures this machine" in printed
    assert "Predicted" not in printed
    assert not (place / "empty").exists()


def test_anothers_profile_is_refused_where_it_is_named(place: Path) -> None:
    profiles.write(dataclasses.replace(made_up(), machine="another"), place / "theirs.json")
    code, _, said = planned(place, place / "bundle", "--profile", place / "theirs.json")
    assert code == 2
    assert "another machine" in said
    assert "--calibrate" in said


def test_several_bundles_are_candidates_of_one_detector(place: Path) -> None:
    code, printed, _ = planned(place, place / "bundle", place / "bundle" / "public.json")
    assert code == 0
    assert "bundle/public.json" in printed
    code, _, said = planned(place, place / "bundle", place / "tables")
    assert code == 2
    assert "not of one detector" in said


def asked(place: Path, monkeypatch: pytest.MonkeyPatch, *, old: Profile | None, path: Path | None = None) -> list[Path]:
    """Where `securead plan` measures to, with measuring itself left out."""
    measured: list[Path] = []

    def measure(to: Path, **_: object) -> Calibration:
        measured.append(to)
        profiles.write(made_up(), to)
        return Calibration(made_up(), (), (("paillier", "made up for tests"),), 1.0)

    monkeypatch.setattr(calibration, "calibrate", measure)
    monkeypatch.setenv("XDG_CACHE_HOME", str(place))
    if old is not None:
        profiles.write(old, place / "securead" / "profile.json")
    plan_command.command([_saved(place)], profile=path)
    return measured


def _saved(place: Path) -> Path:
    return SMALL.save(place / "bundle")


def test_a_missing_or_strange_profile_is_made_anew_with_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = tmp_path / "securead" / "profile.json"
    assert asked(tmp_path, monkeypatch, old=None) == [place]
    assert "measuring it once" in capsys.readouterr().err
    assert asked(tmp_path, monkeypatch, old=made_up()) == []
    strange = dataclasses.replace(made_up(), versions=(("python", "2.7"),))
    assert asked(tmp_path, monkeypatch, old=strange) == [place]
    said = capsys.readouterr().err
    assert "other versions" in said
    assert "measuring anew" in said
    assert "not measured: paillier: made up for tests" in said
    assert asked(tmp_path, monkeypatch, old=made_up(), path=tmp_path / "mine.json") == [tmp_path / "mine.json"]


@pytest.mark.long
def test_calibrating_takes_half_a_minute_and_predicts(tmp_path: Path) -> None:
    folder = SMALL.save(tmp_path / "bundle")
    done = securead("plan", folder, "--calibrate", "--json", XDG_CACHE_HOME=str(tmp_path), timeout=240)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["ranked_by"] == "rows per second"
    assert all(each["request_ms"] for each in told["options"]), done.stderr
    assert profiles.read(tmp_path / "securead" / "profile.json").of("bfv") is not None
    assert "measured bfv" in done.stderr
    assert sys.executable not in done.stderr
