"""Series from files: SKAB's own CSV, archives of several gateways, times in every usual form; the rest is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from securead.data.readings import read_readings
from securead.data.schema import Column
from securead.data.windows import Window
from securead.errors import FixInputError, SecureadError

WINDOW = Window((Column("Current", 0, 6), Column("Pressure", -2, 3)), 2)
SKAB = """datetime;Current;Pressure;anomaly;changepoint
2020-03-09 16:16:30;1.5;0.25;0.0;0.0
2020-03-09 16:16:31;1.6;0.5;1.0;1.0
2020-03-09 16:16:33;1.7;;0.0;0.0
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "readings.csv"
    path.write_text(text)
    return path


def test_skab_s_own_files(tmp_path: Path) -> None:
    (found,) = read_readings(written(tmp_path, SKAB), WINDOW, ignore=("changepoint",))
    np.testing.assert_array_equal(found.X, [[1.5, 0.25], [1.6, 0.5], [1.7, np.nan]])
    assert found.times is not None
    assert (found.times - found.times[0]).tolist() == [0, 1, 3]
    assert found.times[0] == 1583770590, "without a zone a time counts as UTC"
    assert found.y is not None
    assert found.y.tolist() == [0, 1, 0]


def test_columns_are_matched_by_name_and_zones_are_heeded(tmp_path: Path) -> None:
    text = "Pressure,Current,when\n0.25,1.5,2020-03-09T17:16:30+01:00\n"
    (found,) = read_readings(written(tmp_path, text), WINDOW, time="when")
    assert found.X.tolist() == [[1.5, 0.25]]
    assert found.times is not None
    assert found.times.tolist() == [1583770590]
    with pytest.raises(FixInputError, match="another order"):
        read_readings(written(tmp_path, text), WINDOW, time="when", reorder=False)


def test_several_gateways_in_one_file(tmp_path: Path) -> None:
    text = "time,gateway,Current,Pressure\n0,b,1,0\n0,a,2,0\n1,b,3,0\n"
    b, a = read_readings(written(tmp_path, text), WINDOW, series="gateway")
    assert (b.series, a.series) == ("b", "a")
    assert b.X[:, 0].tolist() == [1, 3]
    assert b.rows is not None
    assert b.rows.tolist() == [0, 2]


def test_archives_hold_times_and_series_as_arrays(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    X, y = np.array([[1, 0], [2, 0], [3, 0.5]]), np.array([0, 0, 1])
    np.savez(path, X=X, y=y, columns=np.array(["Current", "Pressure"]), run=np.array([7, 7, 8]), time=np.arange(3.0))
    seven, eight = read_readings(path, WINDOW, series="run")
    assert (seven.series, eight.series) == ("7", "8")
    assert eight.y is not None
    assert eight.y.tolist() == [1]
    assert seven.times is not None
    assert seven.times.tolist() == [0, 1]
    np.savez(path, X=X, columns=np.array(["Current", "Pressure"]), run=np.array([7]))
    with pytest.raises(FixInputError, match="not one value a reading"):
        read_readings(path, WINDOW, series="run")


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("Current\n1\n", "missing"),
        ("Current,Pressure,speed\n1,0,3\n", "unknown"),
        ("Current,Pressure,Pressure\n1,0,3\n", "twice"),
        ("Current,Pressure\n1\n", "cells"),
        ("Current,Pressure\n1,low\n", "not a number"),
        ("time,Current,Pressure\nyesterday,1,0\n", "no time"),
        ("Current,Pressure\n", "no readings"),
        ("Current,Pressure,label\n1,0,2\n", "neither 0 nor 1"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(SecureadError, match=named):
        read_readings(written(tmp_path, text), WINDOW)


@pytest.mark.parametrize("option", ["time", "series", "label"])
def test_a_column_that_is_asked_for_must_be_there(tmp_path: Path, option: str) -> None:
    with pytest.raises(FixInputError, match="no column 'no'"):
        read_readings(written(tmp_path, "Current,Pressure\n1,0\n"), WINDOW, **{option: "no"})  # type: ignore[arg-type]
    with pytest.raises(FixInputError, match="cannot read"):
        read_readings(tmp_path / "none.csv", WINDOW)
