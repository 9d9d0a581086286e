"""Cases of kind "script": a program of benchmarks/ is run as people run it, and its numbers are kept."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from securead.bench import ratios, records, script_case, suites
from securead.bench.measure import measure
from securead.bench.records import Case, Figure, Record
from securead.bench.report_page import write_suite_report
from securead.errors import FixInputError

ECHO = """
import argparse, json, sys, neighbour
from pathlib import Path
import securead.bench.records
parser = argparse.ArgumentParser()
parser.add_argument("--out", type=Path, required=True)
parser.add_argument("--rows", type=int, default=5)
parser.add_argument("--quick", action="store_true")
parser.add_argument("--slow-way", action="store_true")
given = parser.parse_args()
print("what it prints is no figure")
given.out.write_text(json.dumps({
    "us": {"1": 2.5, "64": 0.5}, "list": [3, None], "rows": given.rows, "said": "as expected", "quick": given.quick,
    "nothing": float("nan"), "answer": neighbour.ANSWER, **({"slow": 1} if given.slow_way else {}),
}))
"""


@pytest.fixture
def put(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str], None]:
    """Writes the script "echo", in a checkout that has no other one."""
    folder = tmp_path / "checkout" / "benchmarks"
    folder.mkdir(parents=True)
    (folder / "neighbour.py").write_text("ANSWER = 42\n")
    monkeypatch.setattr(script_case, "scripts_folder", lambda: folder)
    return lambda text: (folder / "echo.py").write_text(text) and None


def run(name: str = "echo", data: Path | None = None, **fields: object) -> Record:
    return measure(Case("t", "script", **{"dataset": "none", "detector": name, **fields}), data, {})  # type: ignore[arg-type]


def test_numbers_are_figures_and_sentences_are_notes(put: Callable[[str], None]) -> None:
    put(ECHO)
    found = run()
    assert (found.failures, found.missing) == ((), "")
    wanted = {"us.1": 2.5, "us.64": 0.5, "list.0": 3.0, "rows": 5.0, "answer": 42.0}
    assert {figure.name: figure.value for figure in found.figures} == wanted
    assert found.notes == ("said: as expected",)
    assert found.provenance.machine
    assert dict(found.peak_bytes)["script"] > 1 << 20
    assert records.from_line(records.to_line(found), where="a test") == found
    assert ratios.quantity(found, "figure us.64") == records.Spread(0.5, 0.5, 0.5, 2)
    assert ratios.quantity(found, "figure us.65") is None


def test_parameters_are_options(put: Callable[[str], None]) -> None:
    put(ECHO)
    found = run(parameters=(("rows", 7), ("slow_way", True), ("quick", False)))
    assert {Figure("rows", 7.0), Figure("slow", 1.0)} <= set(found.figures)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("import sys; sys.exit('no luck')", "no luck"),
        ("pass", "failed (0)"),
        (ECHO.replace("json.dumps({", "json.dumps([{").replace("}))", "}]))"), "no JSON object"),
        (ECHO.replace("json.dumps({", "json.dumps({} and {"), "wrote 0 figures"),
    ],
)
def test_a_script_that_fails_is_a_failed_case(put: Callable[[str], None], text: str, words: str) -> None:
    put(text)
    found = run()
    assert found.figures == ()
    assert words in found.failures[0]


@pytest.mark.parametrize("name", ["absent", "../benchmarks/echo", "echo.py", "", "Echo"])
def test_only_scripts_of_the_checkout_are_run(put: Callable[[str], None], name: str) -> None:
    put(ECHO)
    found = run(name)
    assert "no such script" in found.missing
    assert found.failures == ()


def test_a_script_about_real_data_needs_a_folder_of_it(put: Callable[[str], None], tmp_path: Path) -> None:
    put(ECHO)
    assert "real data is not here" in run(dataset="real").missing
    assert run(data=tmp_path, dataset="real").figures


def test_a_report_shows_every_figure(put: Callable[[str], None], tmp_path: Path) -> None:
    put(ECHO)
    page = write_suite_report([run()], tmp_path, command="securead bench mine --out DIR").read_text()
    text = (tmp_path / "report.md").read_text()
    for content in (page, text.replace("\\", "")):
        assert "Scripts" in content
        assert "us.64" in content
        assert "echo: 5 figures" in content


def test_a_suite_names_scripts_and_their_options(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    block = (
        'title = "T"\n[[block]]\nkind = "script"\ndataset = "none"\ndetector = "ckks"\nparameters = { quick = true }\n'
    )
    path.write_text(block)
    assert suites.load(str(path)).cases == (Case("mine", "script", "none", "ckks", (("quick", True),)),)
    path.write_text(block + 'engine = "ckks"\nrole = "same"\n')
    with pytest.raises(FixInputError, match="own engines"):
        suites.load(str(path))


def test_every_script_that_a_suite_names_is_there(root: Path) -> None:
    named = {
        case.detector for name in suites.suite_names() for case in suites.load(name).cases if case.kind == "script"
    }
    assert named
    for name in named:
        source = (root / "benchmarks" / f"{name}.py").read_text()
        assert '"--out"' in source, name
