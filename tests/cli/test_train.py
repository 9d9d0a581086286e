"""`securead train` as people meet it: a bundle that serves, a refusal that names the mistake."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from small_model import Run

from securead.models import bundle

RECIPE = """
name = "m"
data = "records.csv"
[[sites]]
name = "a"
share = 2
ledger = "ledgers/a.json"
[[sites]]
name = "b"
[detector]
type = "subspace"
[privacy]
epsilon = 1
delta = 1e-6
[[schema.columns]]
names = ["p", "q"]
lower = -6
upper = 6
"""


def securead(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "securead", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    lines = [f"{p:.5f},{q:.5f}" for p, q in rng.normal(size=(900, 2))]
    (tmp_path / "records.csv").write_text("p,q\n" + "\n".join(lines) + "\n")
    path = tmp_path / "recipe.toml"
    path.write_text(RECIPE)
    return path


def test_train_writes_a_bundle_and_charges_the_ledger_once(recipe: Path) -> None:
    done = securead("train", recipe, "--out", recipe.parent / "bundle")
    assert done.returncode == 0, done.stderr
    assert "epsilon = 1" in done.stderr
    model = bundle.load(recipe.parent / "bundle").public
    assert model.privacy.epsilon is not None
    assert [site.site for site in model.privacy.sites] == ["a", "b"]
    # A second run on the same records is more than site a allows.
    again = securead("train", recipe, "--out", recipe.parent / "again")
    assert again.returncode == 2
    assert "'a'" in again.stderr
    assert "Nothing was released" in again.stderr
    assert not (recipe.parent / "again").exists()


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ('type = "subspace"', 'type = "subspice"', "no detector"),
        ("epsilon = 1", "epsilon = 0", "epsilon lies"),
        ("records.csv", "nothing.csv", "nothing.csv"),
        ('["p", "q"]', '["p", "r"]', "missing"),
        ("share = 2", "share = -2", "shares are positive"),
    ],
)
def test_mistakes_exit_with_2_and_no_traceback(run: Run, recipe: Path, old: str, new: str, named: str) -> None:
    recipe.write_text(RECIPE.replace(old, new))
    done = run("train", recipe, "--out", recipe.parent / "bundle")
    assert done.returncode == 2, done.stderr
    assert named in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("--out", "{}/records.csv"), "records.csv/public.json"),
        (("--out", "{}/b", "--passphrase-file", "{}/none"), "cannot read"),
    ],
    ids=["no place", "no passphrase"],
)
def test_what_would_waste_a_budget_is_refused_before_it_is_charged(
    run: Run, recipe: Path, arguments: tuple[str, ...], named: str
) -> None:
    done = run("train", recipe, *(a.replace("{}", str(recipe.parent)) for a in arguments))
    assert done.returncode == 2
    assert named in done.stderr
    assert done.stderr.startswith("error: ")
    assert not (recipe.parent / "ledgers").exists()
    assert not (recipe.parent / "b").exists()


def test_a_bad_record_at_one_site_costs_no_other_site_its_budget(run: Run, recipe: Path) -> None:
    folder = recipe.parent
    (folder / "bad.csv").write_text("p,q\n1,2\n3,\n")
    recipe.write_text(
        RECIPE.replace('data = "records.csv"\n', "")
        .replace("share = 2", 'data = "records.csv"')
        .replace('name = "b"', 'name = "b"\ndata = "bad.csv"')
    )
    done = run("train", recipe, "--out", folder / "bundle")
    assert done.returncode == 2
    assert "site 'b': row 1, column 'q'" in done.stderr
    assert not (folder / "ledgers").exists()
