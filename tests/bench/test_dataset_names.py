"""Data sets by name: every known layout, the same split for the same seed, and a clear word where one is not here."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn import datasets as stock

from securead.bench.datasets import NamedData, load, sample
from securead.errors import FixInputError

RNG = np.random.default_rng(0)
X = np.round(RNG.normal(size=(200, 3)), 3)
Y = (np.arange(200) % 10 == 0).astype(np.int8)


def save(path: Path, **arrays: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)


def all_records(data: NamedData) -> np.ndarray:
    whole = np.concatenate([data.X_train, data.X_held])
    return whole[np.lexsort(whole.T)]


@pytest.mark.parametrize("place", ["38_thyroid.npz", "Classical/38_thyroid.npz", "thyroid.npz"])
@pytest.mark.parametrize("name", ["thyroid", "THYROID"])
def test_adbenchs_layout(place: str, name: str, tmp_path: Path) -> None:
    save(tmp_path / place, X=X, y=Y)
    data = load(name, tmp_path)
    np.testing.assert_array_equal(all_records(data), X[np.lexsort(X.T)])
    assert data.y_train is not None
    assert data.y_held is not None
    assert (len(data.X_train), len(data.X_held)) == (140, 60)
    assert (data.y_train.mean(), data.y_held.mean()) == (0.1, 0.1)
    assert any("observed" in note for note in data.notes)


def test_the_same_seed_is_the_same_split_and_another_is_another(tmp_path: Path) -> None:
    save(tmp_path / "38_thyroid.npz", X=X, y=Y)
    one, again, other = (load("thyroid", tmp_path, seed=seed, rows=30) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.X_held, again.X_held)
    np.testing.assert_array_equal(one.X_train, again.X_train)
    assert not np.array_equal(one.X_held, other.X_held)
    assert [len(site.X) for site in one.sites(3, seed=1)] == [84, 42, 14]
    assert [len(site.X) for site in one.sites(2, seed=1)] == [70, 70]


def test_a_sample_keeps_anomalies_and_its_weights_stand_for_all(tmp_path: Path) -> None:
    save(tmp_path / "38_thyroid.npz", X=X, y=Y)
    data = load("thyroid", tmp_path, rows=20)
    assert data.y_held is not None
    assert (len(data.X_held), int(data.y_held.sum())) == (20, 6)
    assert data.weights_held[data.y_held == 1].sum() == pytest.approx(6)
    assert data.weights_held[data.y_held == 0].sum() == pytest.approx(54)
    assert len(sample(np.ones(10), 10, 8, seed=0)) == 8
    assert len(sample(None, 10, 8, seed=0)) == 8


@pytest.mark.parametrize("kind", ["csv", "parquet", "npz"])
def test_files_by_path_in_the_folder_or_anywhere(kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"mine.{kind}"
    names = ("a", "b", "c")
    if kind == "npz":
        save(path, X=X, y=Y, columns=np.array(names))
    elif kind == "csv":
        rows = np.column_stack([X, Y])
        path.write_text("a,b,c,label\n" + "".join(",".join(map(repr, row)) + "\n" for row in rows.tolist()))
    else:
        parquet = pytest.importorskip("pyarrow.parquet")
        import pyarrow

        parquet.write_table(pyarrow.table({**dict(zip(names, X.T, strict=True)), "label": Y}), path)
    for data in (load(path.name, tmp_path), load(str(path), None)):
        assert data.schema.names == names
        assert data.y_held is not None
        np.testing.assert_allclose(all_records(data), X[np.lexsort(X.T)])


def test_ulbs_file_has_the_declared_schema_and_no_time(tmp_path: Path) -> None:
    names = ["Time", *(f"V{at}" for at in range(1, 29)), "Amount", "Class"]
    rows = np.column_stack([np.arange(100), RNG.normal(size=(100, 28)), RNG.uniform(1, 99, 100), Y[:100]])
    lines = [",".join(names)] + [",".join(map(repr, row)) for row in rows.tolist()]
    (tmp_path / "creditcard.csv").write_text("\n".join(lines) + "\n")
    data = load("creditcard", tmp_path)
    assert data.schema.names == (*(f"V{at}" for at in range(28)), "Amount")
    assert data.schema.origin == "declared"
    assert data.scaling == "private"
    assert data.y_held is not None
    assert data.y_held.sum() == 3


def test_skab_trains_on_the_first_readings_of_each_run(tmp_path: Path) -> None:
    runs = np.repeat([3, 1], 500)
    values = np.column_stack([np.arange(1000.0), np.tile(np.arange(500), 2)])
    save(tmp_path / "skab.npz", X=values, y=np.zeros(1000, dtype=np.int8), experiment=runs)
    data = load("skab", tmp_path)
    assert (len(data.X_train), len(data.X_held)) == (800, 200)
    assert data.X_train[:, 1].max() == 399


@pytest.mark.parametrize("name", ["generated-payments", "generated-sensors"])
def test_generated_data_needs_no_folder_and_keeps_its_owners(name: str) -> None:
    data = load(name, None, rows=100)
    assert data.schema.origin == "declared"
    assert [site.name for site in data.sites(3, seed=0)] == list(data.owners)
    assert sum(len(site.X) for site in data.sites(3, seed=0)) == len(data.X_train)
    assert len(data.sites(5, seed=0)) == 5


@pytest.mark.parametrize("name", ["nowhere", "nowhere.csv", "creditcard"])
@pytest.mark.parametrize("named", [True, False])
def test_what_is_not_here_is_said(name: str, named: bool, tmp_path: Path) -> None:
    with pytest.raises(FixInputError, match="is not here"):
        load(name, tmp_path if named else None)


def test_records_with_missing_values_are_left_out_and_counted(tmp_path: Path) -> None:
    broken = X.copy()
    broken[:4, 1] = np.nan
    save(tmp_path / "a.npz", X=broken, y=Y)
    data = load("a.npz", tmp_path)
    assert len(data.X_train) + len(data.X_held) == 196
    assert any(note.startswith("4 records") for note in data.notes)


def test_data_of_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.array([[1.0, b"tcp", 2.0], [3.0, b"udp", 4.5]] * 60, dtype=object)
    kdd = SimpleNamespace(
        data=rows, target=np.array([b"normal."] * 110 + [b"smurf."] * 10), feature_names=["duration", "kind", "bytes"]
    )
    monkeypatch.setattr(stock, "fetch_kddcup99", lambda **options: kdd)
    data = load("kddcup99", None)
    assert data.schema.names == ("duration", "bytes")
    assert data.y_held is not None
    assert data.y_held.sum() == 3
    assert any("1 columns of text" in note for note in data.notes)
    oml = SimpleNamespace(
        data=rows[:, [0, 2]],
        target=np.array(["a", "b"] * 50 + ["c"] * 20),
        feature_names=["x", "y"],
        details={"name": "some set"},
    )
    monkeypatch.setattr(stock, "fetch_openml", lambda **options: oml)
    data = load("openml:42", None)
    assert data.y_train is not None
    assert data.y_train.sum() == 14


def test_without_internet_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(**options: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(stock, "fetch_kddcup99", fetch)
    monkeypatch.setattr(stock, "fetch_openml", fetch)
    for name in ("kddcup99", "openml:42"):
        with pytest.raises(FixInputError, match="could not be fetched"):
            load(name, None)
    with pytest.raises(FixInputError, match="by its number"):
        load("openml:adult", None)
