"""Every example runs, and the README shows the very lines of one of them."""

from __future__ import annotations

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


def test_the_readme_shows_the_example(root: Path) -> None:
    lines = (root / "examples" / "bank_quickstart.py").read_text().splitlines()
    start, end = (next(i for i, line in enumerate(lines) if mark in line) for mark in ("--- the dozen", "--- end"))
    shown = "\n".join(line.removeprefix("    ") for line in lines[start + 1 : end])
    assert shown in (root / "README.md").read_text()
