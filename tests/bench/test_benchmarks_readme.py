"""benchmarks/README.md: what it shows for adding a detector, an engine and a data set is short, and works as it is."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from securead.bench import suites
from securead.bench.journal import read_records
from securead.bench.peers import PEERS
from securead.bench.ratios import read_baseline

SECTIONS = ("A detector", "An engine", "A data set")
_BLOCK = re.compile(r"^```(?:python|toml)\n# (\S+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_MOST_LINES = 30


@pytest.fixture(scope="module")
def readme(root: Path) -> str:
    return (root / "benchmarks" / "README.md").read_text()


def blocks(readme: str, section: str) -> list[tuple[str, str]]:
    """File names and contents that a section shows."""
    _, _, rest = readme.partition(f"\n### {section}\n")
    return _BLOCK.findall(re.split(r"\n##+ ", rest)[0])


@pytest.mark.parametrize("section", SECTIONS)
def test_what_is_added_is_short(readme: str, section: str) -> None:
    found = blocks(readme, section)
    assert found, "the section shows no file"
    shown = [content for name, content in found if name != "pyproject.toml"]
    lines = [line for content in shown for line in content.splitlines() if line.strip()]
    assert len(lines) < _MOST_LINES, f"{section} takes {len(lines)} lines"
    for name, content in found:
        if name.endswith(".py"):
            compile(content, name, "exec")
        else:
            tomllib.loads(content)


def test_every_suite_and_peer_is_told_of(readme: str) -> None:
    for name in (*suites.suite_names(), *PEERS):
        assert f"`{name}`" in readme, f"the README does not name {name}"


def test_every_script_is_told_of(readme: str, root: Path) -> None:
    for script in (root / "benchmarks").glob("*.py"):
        assert f"]({script.name})" in readme, f"the README does not name {script.name}"


@pytest.mark.parametrize("name", ["README.md", "benchmarks/README.md"])
def test_commands_name_suites_that_exist(root: Path, name: str) -> None:
    found = re.findall(r"`securead bench ([a-z][a-z.]*)", (root / name).read_text())
    assert found
    for suite in found:
        assert suite in (*suites.suite_names(), "compare") or suite.endswith(".toml"), suite


def test_the_baselines_commands_name_suites(root: Path) -> None:
    for promise in read_baseline(root / "benchmarks" / "baseline.json").ratios:
        words = promise.command.split()
        assert words[:2] == ["securead", "bench"]
        suite = suites.load(words[2])
        for side in (promise.numerator, promise.denominator):
            assert len(suites.only(suite.cases, side.cases)) == 1, f"{promise.name}: {side.cases}"


def install(folder: Path, readme: str) -> dict[str, str]:
    """Write all that the sections show, installed the way a third party's is; the environment that has it."""
    points: dict[str, dict[str, str]] = {}
    for section in SECTIONS:
        for name, content in blocks(readme, section):
            if name == "pyproject.toml":
                points |= tomllib.loads(content)["project"]["entry-points"]
                continue
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
    information = folder / "mine-1.dist-info"
    information.mkdir()
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1\n")
    groups = [f"[{group}]\n" + "".join(f"{k} = {v}\n" for k, v in named.items()) for group, named in points.items()]
    (information / "entry_points.txt").write_text("\n".join(groups))
    paths = [str(folder), os.environ.get("PYTHONPATH")]
    return os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}


def run(folder: Path, environment: dict[str, str], *words: str) -> None:
    done = subprocess.run(
        [sys.executable, *words], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.long
def test_what_is_shown_works(readme: str, tmp_path: Path) -> None:
    environment = install(tmp_path, readme)
    run(tmp_path, environment, "make_my_data.py")
    run(tmp_path, environment, "-m", "securead", "bench", "my_suite.toml", "--data-dir", ".", "--out", "mine")
    found = {record.case.engine: record for record in read_records(tmp_path / "mine")}
    ckks, plain = found["ckks"], found["plain"]
    assert (ckks.failures, ckks.missing) == ((), "")
    assert (ckks.accuracy.auroc or 0.0) > 0.9
    assert (ckks.fidelity.max_error_to_integer or 0.0) < 1e-3
    # The engine computes the right scores, and the suite sees what it does not hide.
    assert plain.accuracy.auroc == ckks.accuracy.auroc
    assert any("as they are" in failure for failure in plain.failures), plain.failures


@pytest.mark.long
def test_the_detector_that_is_shown_passes_the_conformance_suite(readme: str, tmp_path: Path) -> None:
    check = "from securead.checks.detector import check_detector; check_detector('mean')"
    run(tmp_path, install(tmp_path, readme), "-c", check)
