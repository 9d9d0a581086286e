"""Tables from files: what is read, and what every kind of damaged or foreign file says."""

from __future__ import annotations

import math
import pickle
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from securead.data.readers import LABEL_NAMES, read_table
from securead.data.schema import Column, Schema
from securead.errors import FixInputError, InstallExtraError

X = np.array([[1.0, 2.0], [3.5, -4e10], [0.1, 5e-324]])
Y = np.array([0, 1, 0])
KINDS = (".npz", ".csv", ".parquet")


def write(path: Path, columns: dict[str, Any]) -> Path:
    """One table in any of the three kinds; in an .npz every column is a feature column of X."""
    if path.suffix == ".npz":
        np.savez(path, X=np.column_stack([np.asarray(v, float) for v in columns.values()]), columns=list(columns))
    elif path.suffix == ".csv":
        rows = zip(*columns.values(), strict=True)
        path.write_text("\n".join([",".join(columns), *(",".join(map(repr, map(float, row))) for row in rows)]) + "\n")
    else:
        pa = pytest.importorskip("pyarrow")
        pytest.importorskip("pyarrow.parquet").write_table(pa.table(columns), path)
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_come_back_bit_for_bit(tmp_path: Path, kind: str) -> None:
    table = read_table(write(tmp_path / f"t{kind}", {"a": X[:, 0], "b": X[:, 1]}))
    np.testing.assert_array_equal(table.X, X)
    assert table.X.dtype == np.float64
    assert (table.columns, table.y, table.source) == (("a", "b"), None, f"t{kind}")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [*LABEL_NAMES, "Class", "IS_FRAUD"])
def test_a_label_column_is_found_by_name_in_any_case_and_place(tmp_path: Path, kind: str, name: str) -> None:
    table = read_table(write(tmp_path / f"t{kind}", {"a": X[:, 0], name: Y, "b": X[:, 1]}))
    np.testing.assert_array_equal(table.X, X)
    assert table.columns == ("a", "b")
    assert table.y is not None
    assert table.y.tolist() == [0, 1, 0]


@pytest.mark.parametrize("kind", KINDS)
def test_a_column_that_the_schema_has_is_no_label(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / f"t{kind}", {"a": X[:, 0], "class": Y})
    table = read_table(path, features=("a", "class"))
    assert (table.columns, table.y) == (("a", "class"), None)


@pytest.mark.parametrize("kind", KINDS)
def test_a_label_can_be_named_and_must_be_there(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / f"t{kind}", {"broken": Y, "a": X[:, 0]})
    table = read_table(path, label="broken")
    assert table.columns == ("a",)
    assert table.y is not None
    assert table.y.tolist() == [0, 1, 0]
    with pytest.raises(FixInputError, match=r"no label column 'Broken'.*Its columns: broken, a\."):
        read_table(path, label="Broken")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bad", [2.0, -1.0, 0.5, math.nan])
def test_a_label_other_than_0_and_1_is_refused(tmp_path: Path, kind: str, bad: float) -> None:
    with pytest.raises(FixInputError, match=f"a label is neither 0 nor 1 .got '{bad}'"):
        read_table(write(tmp_path / f"t{kind}", {"a": [1.0, 2.0], "y": [1.0, bad]}))


@pytest.mark.parametrize("kind", KINDS)
def test_nan_is_kept_so_that_the_schema_refuses_it_with_its_place(tmp_path: Path, kind: str) -> None:
    table = read_table(write(tmp_path / f"t{kind}", {"a": [1.0, 2.0], "b": [0.5, math.nan]}))
    assert math.isnan(table.X[1, 1])
    with pytest.raises(FixInputError, match="row 1, column 'b' is not a finite number"):
        Schema((Column("a", 0, 9), Column("b", 0, 9))).bounded(table.X)


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_without_rows_or_with_nothing_but_labels_is_refused(tmp_path: Path, kind: str) -> None:
    empty = np.empty(0)
    for columns in ({"a": empty, "b": empty}, {"y": Y}):
        with pytest.raises(FixInputError, match=r"holds no records.*at least one row"):
            read_table(write(tmp_path / f"t{kind}", columns))


@pytest.mark.parametrize("kind", KINDS)
def test_missing_and_foreign_files_are_refused_with_their_path(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"t{kind}"
    with pytest.raises(FixInputError, match=rf"cannot read .*t\{kind}"):
        read_table(path)
    for content in (b"", b"PK\x03\x04 no archive", b"PAR1 no table PAR1", b"\x80\x04\x95", bytes(range(256)) * 9):
        path.write_bytes(content)
        with pytest.raises(FixInputError, match=rf"t\{kind}"):
            read_table(path)
    path.unlink()
    path.mkdir()
    with pytest.raises(FixInputError, match=rf"t\{kind}"):
        read_table(path)


@pytest.mark.parametrize("name", ["t.xlsx", "t", "t.csv.gz", "t.npy"])
def test_an_unknown_kind_is_refused_before_it_is_opened(tmp_path: Path, name: str) -> None:
    with pytest.raises(FixInputError, match=r"of no known kind.*\.npz, \.csv or \.parquet"):
        read_table(tmp_path / name)


def test_the_kind_is_read_in_any_case_and_from_a_string(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", {"a": [1.0]})
    assert read_table(str(path.rename(tmp_path / "T.CSV"))).X.tolist() == [[1.0]]


def csv(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "t.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_csv_dialects_of_the_wild(tmp_path: Path) -> None:
    text = b'\xef\xbb\xbf" a" , b\r\n"1", 2e3 \r\n\r\n-0.5,+7\r\n'
    table = read_table(csv(tmp_path, text))
    assert table.columns == ("a", "b")
    assert table.X.tolist() == [[1.0, 2000.0], [-0.5, 7.0]]


def test_an_empty_csv_cell_is_a_missing_value(tmp_path: Path) -> None:
    table = read_table(csv(tmp_path, "a,b\n1,\n ,2\n"))
    np.testing.assert_array_equal(table.X, [[1.0, math.nan], [math.nan, 2.0]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,2\n3\n", r"line 3 has 1 cells, the header has 2"),
        ("a,b\n1,2\n\n3,4,5\n", r"line 4 has 3 cells, the header has 2"),
        ("a;b\n1;2,5\n", r"line 2 has 2 cells, the header has 1"),
        ("\n1,2\n", r"line 2 has 2 cells, the header has 0"),
        ("a,b\n1,2\n3,four\n", r"line 3, column 'b' is not a number \(got 'four'\)"),
        ("a,b\n1,2\n0x10,1\n", r"line 3, column 'a' is not a number \(got '0x10'\)"),
        ('a,b\n1,2\n"1,5",1\n', r"line 3, column 'a' is not a number \(got '1,5'\)"),
        ('a,b\n1,"x\ny"\n', r"line 3, column 'b' is not a number"),
        ("a,y\n1,normal\n", r"line 2, column 'y' is not a number \(got 'normal'\)"),
        ("a,b\n", "holds no records"),
        ("", "holds no records"),
        ("\n\n", "holds no records"),
    ],
)
def test_an_ill_formed_csv_is_refused_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(FixInputError, match=message):
        read_table(csv(tmp_path, text))


def test_a_csv_that_is_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FixInputError, match="line 2, column 'a' is not a number"):
        read_table(csv(tmp_path, b"a\n\xff\xfe\n"))


@pytest.mark.parametrize("place", ["header", "row"])
def test_a_quote_that_never_ends_is_refused_with_its_line(tmp_path: Path, place: str) -> None:
    endless = '"' + "1,2\n" * 60_000
    with pytest.raises(FixInputError, match=r"t\.csv, line \d+: field larger than field limit"):
        read_table(csv(tmp_path, endless if place == "header" else "a,b\n" + endless))


def npz(tmp_path: Path, **arrays: Any) -> Path:
    np.savez(tmp_path / "t.npz", **arrays)
    return tmp_path / "t.npz"


def test_npz_with_and_without_names_and_labels(tmp_path: Path) -> None:
    table = read_table(npz(tmp_path, X=X))
    assert (table.columns, table.y) == (("x0", "x1"), None)
    table = read_table(npz(tmp_path, X=X.astype(np.float32), y=Y[:, None].astype(bool), columns=["p", "q"]))
    assert table.columns == ("p", "q")
    assert table.y is not None
    assert table.y.tolist() == [0, 1, 0]
    assert table.X.dtype == np.float64
    assert read_table(npz(tmp_path, X=np.array([[1, 2]]))).X.tolist() == [[1.0, 2.0]]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"Z": X}, r"has no array X \(got \['Z'\]\)"),
        ({"X": X[0]}, r"X is not a table \(got \(2,\)\)"),
        ({"X": X[None]}, r"X is not a table \(got \(1, 3, 2\)\)"),
        ({"X": X, "y": Y[:2]}, "do not fit together"),
        ({"X": X, "columns": ["a"]}, "do not fit together"),
        ({"X": X, "y": Y + 1}, "neither 0 nor 1"),
        ({"X": np.array([["a", "b"]])}, "not a NumPy archive of numbers"),
    ],
)
def test_an_npz_of_the_wrong_content_is_refused(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    with pytest.raises(FixInputError, match=message):
        read_table(npz(tmp_path, **arrays))


class Bomb:
    """Leaves a trace if anybody unpickles it."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.trace,)


@pytest.mark.parametrize("name", ["X", "y", "columns"])
def test_an_array_of_pickled_objects_is_refused_and_nothing_is_executed(tmp_path: Path, name: str) -> None:
    trace = tmp_path / "executed"
    bomb = np.empty((1, 1), dtype=object)
    bomb[0, 0] = Bomb(trace)
    path = npz(tmp_path, **{"X": np.zeros((1, 1)), name: bomb})
    with pytest.raises(FixInputError, match=r"not a NumPy archive.*[Oo]bject arrays"):
        read_table(path)
    assert not trace.exists()
    with np.load(path, allow_pickle=True) as archive:
        archive[name]
    assert trace.exists(), "the bomb is live, so that the refusal above means something"


def test_a_plain_pickle_or_npy_under_the_name_of_an_archive_is_refused(tmp_path: Path) -> None:
    trace, path = tmp_path / "executed", tmp_path / "t.npz"
    path.write_bytes(pickle.dumps(Bomb(trace)))
    with pytest.raises(FixInputError, match=r"t\.npz"):
        read_table(path)
    assert not trace.exists()
    with path.open("wb") as file:
        np.save(file, X)
    with pytest.raises(FixInputError, match=r"t\.npz"):
        read_table(path)


@pytest.mark.parametrize("compress", [False, True])
def test_every_truncation_of_an_npz_is_refused(tmp_path: Path, compress: bool) -> None:
    (np.savez_compressed if compress else np.savez)(tmp_path / "whole.npz", X=X, y=Y)
    whole, path = (tmp_path / "whole.npz").read_bytes(), tmp_path / "t.npz"
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        with pytest.raises(FixInputError, match=r"t\.npz"):
            read_table(path)


def test_a_damaged_member_of_an_npz_is_refused(tmp_path: Path) -> None:
    path = npz(tmp_path, X=X)
    with zipfile.ZipFile(path) as archive:
        inside = archive.getinfo("X.npy").header_offset + 200
    content = bytearray(path.read_bytes())
    content[inside] ^= 1
    path.write_bytes(content)
    with pytest.raises(FixInputError, match=r"t\.npz is"):
        read_table(path)


def test_parquet_types_that_are_numbers_and_those_that_are_not(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    table = read_table(write(tmp_path / "t.parquet", {"i": [1, None], "b": [True, False], "f": [0.5, 1.5]}))
    np.testing.assert_array_equal(table.X, [[1.0, 1.0, 0.5], [math.nan, 0.0, 1.5]])
    for bad in (["x", "y"], [[1], [2]], [{"k": 1}, {"k": 2}]):
        with pytest.raises(FixInputError, match=r"t\.parquet, column 'kind' is not of numbers"):
            read_table(write(tmp_path / "t.parquet", {"a": [1, 2], "kind": bad}))


def test_every_truncation_of_a_parquet_file_is_refused(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.parquet", {"a": X[:, 0], "b": X[:, 1]}).read_bytes()
    path = tmp_path / "t.parquet"
    for length in range(0, len(whole), 29):
        path.write_bytes(whole[:length])
        with pytest.raises(FixInputError, match=r"t\.parquet"):
            read_table(path)


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InstallExtraError, match=r"pip install 'securead\[data\]'"):
        read_table(tmp_path / "t.parquet")
