"""`securead shrink` from the shell: generated payments, a real bundle, its table and picture, and refusals."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from small_model import Run, securead
from test_worlds import encrypted_scores

from securead.bench.intervals import auroc
from securead.cli.shrink import _labelled
from securead.data.generators.payments import generate_payments
from securead.data.readers import read_table
from securead.data.schema import Column
from securead.data.windows import Window, WindowedSchema
from securead.federated.embedded import train
from securead.federated.participant import Site
from securead.models import bundle
from securead.models.forest import IsolationForest
from securead.privacy.plan import PrivacyPlan


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A forest trained privately on generated payments, and others of them, labelled, to judge by."""
    folder = tmp_path_factory.mktemp("shrink")
    made = generate_payments(rows=12_000, seed=3)
    X, y = made.table.X, made.table.y
    assert y is not None
    detector = IsolationForest(n_estimators=40, depth=4, scaling="private", contamination=0.05)
    train(detector, [Site("a", X[:6000]), Site("b", X[6000:8000])], made.schema, privacy=PrivacyPlan(4.0, 1e-6))
    bundle.make(detector, "payments").save(folder / "bundle")
    names = (*made.table.columns, "fraud")
    lines = [",".join(names), *(",".join(map(repr, map(float, (*row, mark)))) for row, mark in zip(X, y, strict=True))]
    (folder / "labelled.csv").write_text("\n".join([lines[0], *lines[8001:]]) + "\n")
    np.savez(folder / "unlabelled.npz", X=X[8000:], columns=np.array(made.table.columns))
    return folder


def shrunk(place: Path, *arguments: object, **environment: str) -> tuple[int, str, str]:
    done = securead("shrink", *arguments, **environment)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


def test_a_smaller_bundle_its_table_and_its_picture(place: Path) -> None:
    out, table, plot = place / "small", place / "t.csv", place / "p.svg"
    code, printed, said = shrunk(
        place,
        *(place / "bundle", "--data", place / "labelled.csv", "--label", "fraud", "--max-loss", "0.01"),
        *("--out", out, "--table", table, "--plot", plot, "--json"),
    )
    assert code == 0, said
    assert "as trained" in said
    assert "chosen" in said
    assert "average precision" in said
    assert "protected by nothing" in said
    old, new = bundle.load(place / "bundle"), bundle.load(out)
    assert (out / "secret.json").stat().st_mode & 0o777 == 0o600
    assert new.public.digest != old.public.digest
    assert new.public.privacy.epsilon == old.public.privacy.epsilon
    summary = json.loads(printed)
    records = read_table(place / "labelled.csv", label="fraud")
    assert records.y is not None
    before, after = old.program.score(records.X), new.program.score(records.X)
    assert auroc(records.y, before) - auroc(records.y, after) == pytest.approx(summary["chosen"]["loss"], abs=1e-9)
    assert summary["chosen"]["loss"] <= 0.01
    assert summary["chosen"]["upload_bytes_per_row"] < summary["whole"]["upload_bytes_per_row"]
    assert len(list(csv.DictReader(table.open()))) > 10
    assert plot.read_text().startswith("<?xml")
    # Through the real engine, the scores are those of the shrunk program, exactly.
    X = records.X[:40]
    np.testing.assert_array_equal(encrypted_scores(new.program, X, "same"), new.program.score(X))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("{}/bundle", "--data", "{}/unlabelled.npz", "--out", "{}/x"), "without labels"),
        (("{}/bundle", "--data", "{}/labelled.csv", "--label", "scam", "--out", "{}/x"), "no label column 'scam'"),
        (("{}/bundle", "--data", "{}/labelled.csv", "--out", "{}/x"), "unknown"),
        (("{}/public", "--data", "{}/labelled.csv", "--label", "fraud", "--out", "{}/x"), "no secret half"),
        (("{}/bundle", "--data", "{}/labelled.csv", "--label", "fraud", "--out", "{}/bundle"), "the bundle itself"),
        (
            ("{}/bundle", "--data", "{}/labelled.csv", "--label", "fraud", "--out", "{}/x", "--plot", "{}/p.gif"),
            ".svg or .png",
        ),
        (
            ("{}/bundle", "--data", "{}/labelled.csv", "--label", "fraud", "--out", "{}/x", "--engine", "ckks"),
            "does not carry",
        ),
    ],
    ids=["no labels", "no such label", "unknown column", "no secret", "onto itself", "picture", "engine"],
)
def test_mistakes_write_nothing(run: Run, place: Path, arguments: tuple[str, ...], named: str) -> None:
    if not (place / "public").exists():
        (place / "public").mkdir()
        shutil.copy(place / "bundle" / "public.json", place / "public")
    done = run("shrink", *(a.replace("{}", str(place)) for a in arguments))
    assert done.returncode == 2
    assert named in done.stderr
    assert not (place / "x").exists()


def test_a_window_has_the_label_of_its_last_reading(tmp_path: Path) -> None:
    schema = WindowedSchema.of(Window((Column("flow", -9, 9),), length=3, period=1.0))
    # Without the reading at 4 there are two series: 0 to 3, and 5 to 8.
    lines = [f"{t},{t / 10},{int(t in (1, 3, 7))}" for t in range(9) if t != 4]
    (tmp_path / "r.csv").write_text("time,flow,broken\n" + "\n".join(lines) + "\n")
    X, y = _labelled(tmp_path / "r.csv", schema, "broken", scale=None, time=None, reorder=False)
    assert y is not None
    np.testing.assert_allclose(X[:, -1], [0.2, 0.3, 0.7, 0.8])
    assert y.tolist() == [0, 1, 1, 0]


def test_help_says_what_is_not_covered(run: Run) -> None:
    done = run("shrink", "--help")
    assert done.returncode == 0
    words = " ".join(done.stdout.replace("│", " ").split())
    assert "The records of FILE are not covered by any" in words
