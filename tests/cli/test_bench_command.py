"""`securead bench` and `securead bench compare`: what people type, and what they are told."""

from __future__ import annotations

import io
import json
import sys
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from subprocess import CompletedProcess

import pytest
from rich.console import Console

from securead.bench import journal, provenance, report_page, runner
from securead.bench.records import Case, Record
from securead.cli.bench import Screen, in_words

Run = Callable[..., "CompletedProcess[str]"]

STUB = (sys.executable, str(Path(__file__).parent.parent / "bench" / "stub_case.py"))
SUITE = """
title = "Mine"
limit_seconds = 60
[[block]]
kind = "score"
dataset = ["a", "b"]
detector = "forest"
parameters = { end = ["well", "absent"] }
"""


@pytest.fixture
def suite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A suite of four cases that take no time, of which two are not measured; the report only counts."""
    monkeypatch.setattr(runner, "COMMAND", STUB)
    monkeypatch.delenv("SECUREAD_DATA", raising=False)
    monkeypatch.chdir(tmp_path)

    def write(records: Sequence[Record], folder: Path, *, command: str) -> Path:
        (folder / "report.html").write_text(f"{len(records)} by {command}")
        return folder / "report.html"

    monkeypatch.setattr(report_page, "write_suite_report", write)
    (tmp_path / "mine.toml").write_text(SUITE)
    return tmp_path / "mine.toml"


def test_help_of_both_teaches(run: Run) -> None:
    for words, wanted in (
        (
            ("bench", "-h"),
            ("securead bench [OPTIONS] SUITE", "--resume", "--peer-env", "compare A B", "securead bench quick"),
        ),
        (
            ("bench", "compare", "-h"),
            ("securead bench compare [OPTIONS] A B", "Example", "securead bench compare runs"),
        ),
    ):
        said = run(*words).stdout
        assert all(text in said for text in wanted)
        assert "\b" not in said
    assert "bench" in run("-h").stdout


def test_a_suite_ends_with_the_path_of_its_report(run: Run, suite: Path) -> None:
    ended = run("bench", suite, "--out", "out")
    assert ended.returncode == 0
    assert ended.stdout == "out/report.html\n"
    assert Path("out/report.html").read_text() == "4 by securead bench mine.toml --out DIR"
    assert "Mine: 4 cases into out" in ended.stderr
    assert "1 of 4: score-clear-a-forest-" in ended.stderr
    assert "not measured: the engine is not here. Install it." in ended.stderr
    assert "2 measured, 2 not" in ended.stderr
    assert len(journal.read_records(Path("out"))) == 4
    assert json.loads(Path("out/environment.json").read_text())["suite"] == "mine"


def test_resume_and_only(run: Run, suite: Path) -> None:
    first = run("bench", suite, "--only", "dataset=a", "--only", "end=well")
    assert first.returncode == 0
    assert "Mine: 1 case into bench-output/mine" in first.stderr
    refused = run("bench", suite)
    assert refused.returncode == 2
    assert "--resume" in refused.stderr
    line = Path("bench-output/mine/records.jsonl").read_text()
    plain = json.loads(line)
    plain["provenance"]["revision"] = "0123456789ab"
    Path("bench-output/mine/records.jsonl").write_text(json.dumps(plain) + "\n")
    rest = run("bench", suite, "--resume", "--jobs", "2", "--data-dir", ".")
    assert rest.returncode == 0
    assert "1 of them have a record already" in rest.stderr
    assert "another revision (0123456789ab)" in rest.stderr
    assert rest.stderr.count(" of 4: ") == 3
    assert Path("bench-output/mine/report.html").read_text().startswith("4 by")


def test_list_prints_the_cases_and_measures_nothing(run: Run, suite: Path) -> None:
    ended = run("bench", suite, "--list", "--only", "*-a-*")
    assert [line.rpartition("-")[0] for line in ended.stdout.splitlines()] == ["score-clear-a-forest"] * 2
    assert not Path("bench-output").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nowhere",), "no suite has this name"),
        (("mine.toml", "--only", "*x*x*x*"), "no case fits"),
        (("mine.toml", "--peer-env", "spu"), "--peer-env takes NAME=PATH"),
        (("mine.toml", "--peer-env", "spu=nowhere"), "--peer-env spu names nothing that exists"),
        (("mine.toml", "--data-dir", "nowhere"), "--data-dir names nothing that exists"),
        (("mine.toml", "--out", "mine.toml"), "is no folder"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(
    run: Run, suite: Path, words: tuple[str, ...], message: str
) -> None:
    ended = run("bench", *words)
    assert ended.returncode == 2
    assert message in ended.stderr
    assert not Path("bench-output").exists()


def test_the_report_s_package_is_asked_for_before_hours_of_measuring(
    run: Run, suite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    ended = run("bench", suite)
    assert ended.returncode == 2
    assert "pip install 'securead[bench]'" in ended.stderr


@pytest.mark.parametrize("passed", [True, False])
def test_compare_says_what_the_gate_finds(run: Run, monkeypatch: pytest.MonkeyPatch, passed: bool) -> None:
    def compare(a: Path, b: Path, *, tolerance: float) -> object:
        return types.SimpleNamespace(passed=passed, in_words=lambda: f"{a} and {b} within {tolerance}")

    gate = types.ModuleType("securead.bench.gate")
    gate.compare = compare  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, gate.__name__, gate)
    monkeypatch.setattr("securead.bench.gate", gate, raising=False)
    ended = run("bench", "compare", "before", "after", "--tolerance", "1.5")
    assert ended.stdout == "before and after within 1.5\n"
    assert ended.returncode == (0 if passed else 1)


def test_a_terminal_shows_a_bar_and_what_is_amiss() -> None:
    stream = io.StringIO()
    cases = [Case("s", "score", "data", detector) for detector in ("forest", "subspace")]
    made = provenance.collect()
    with Screen(Console(file=stream, force_terminal=True, width=200, color_system=None)) as screen:
        for case in cases:
            screen.started(case, done=0, total=2, left=None)
        screen.finished(Record(cases[0], made, seconds=3.0), done=1, total=2, left=130.0)
        failed = Record(cases[1], made, rows=5, failures=("a record was seen",))
        screen.finished(failed, done=2, total=2, left=0.0)
    said = stream.getvalue()
    assert "2 of 2; about 0 s left" in said
    assert f"{cases[1].id}: 0.0 s; FAILED: a record was seen" in said
    assert f"{cases[0].id}: " not in said, "what went well leaves no line"


def test_durations_are_said_for_people() -> None:
    assert [in_words(s) for s in (0.4, 99, 100, 3600, 7800)] == ["0 s", "99 s", "2 min", "60 min", "2 h 10 min"]
