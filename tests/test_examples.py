"""Every example runs, and the README shows the very lines of one of them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = sorted((Path(__file__).parent.parent / "examples").glob("*.py"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_example_runs(path: Path) -> None:
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    assert "of the frauds found" in done.stdout
    assert "epsilon = 1" in done.stdout


def test_the_gateways_example_loses_nothing_and_finds_faults(root: Path) -> None:
    path = root / "examples" / "iot_gateway" / "run.py"
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    found, injected = map(int, re.search(r"spike +(\d+) of +(\d+) faults", done.stdout).groups())  # type: ignore[union-attr]
    assert found >= 0.9 * injected > 0
    for name in ("gateway-1", "gateway-2", "gateway-5"):
        said = re.search(rf"{name}: 1,436 windows in \d+ messages, 0 missing, .* peak memory (\d+) MB", done.stdout)
        assert said is not None, done.stdout
        assert int(said[1]) < 200
    assert done.stdout.count("killed") == 3


@pytest.mark.long
def test_three_banks_train_and_a_fourth_process_scores_what_it_cannot_see(root: Path) -> None:
    path = root / "examples" / "bank_consortium" / "run.py"
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, timeout=250, check=False)
    assert done.returncode == 0, done.stderr
    area = re.search(r"encrypted payments: AUROC (0\.\d+)", done.stdout)
    assert area is not None, done.stdout
    assert float(area[1]) > 0.85
    assert "per site: bank-a: 1, bank-b: 1, bank-c: 1" in done.stdout


def test_an_imported_forest_agrees_with_scikit_learn(root: Path) -> None:
    path = root / "examples" / "import_sklearn" / "import_forest.py"
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr
    assert "100.0% of verdicts agree" in done.stdout
    assert "No differential-privacy guarantee: imported from scikit-learn" in done.stdout


def test_the_readme_shows_the_example(root: Path) -> None:
    lines = (root / "examples" / "bank_quickstart.py").read_text().splitlines()
    start, end = (next(i for i, line in enumerate(lines) if mark in line) for mark in ("--- the dozen", "--- end"))
    shown = "\n".join(line.removeprefix("    ") for line in lines[start + 1 : end])
    assert shown in (root / "README.md").read_text()
