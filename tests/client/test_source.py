"""Readings from files that grow and from pipes: whole lines, once each, from where they were accepted."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from stations import CHANNELS, HEADER, lines_of, readings, windowed_bundle

from securead.client.source import Source
from securead.data.windows import Window, WindowedSchema
from securead.errors import FixInputError

X = readings(1300)


def window(**changes: object) -> Window:
    import dataclasses

    schema = windowed_bundle().public.program.encoder.schema
    assert isinstance(schema, WindowedSchema)
    return dataclasses.replace(schema.window, **changes)  # type: ignore[arg-type]


def source(path: Path, *, place: int = 0, follow: bool = False, time: str | None = None) -> Source:
    return Source(path, window(), time=time, follow=follow, place=place)


def test_a_file_is_read_once_and_in_order(tmp_path: Path) -> None:
    path = tmp_path / "readings.csv"
    path.write_text(HEADER + lines_of(X).rstrip("\n"))  # the last line without an end
    batches = list(source(path).batches())
    assert len(batches) > 2
    np.testing.assert_array_equal(np.concatenate([b.X for b in batches]), X)
    np.testing.assert_array_equal(np.concatenate([b.times for b in batches]), np.arange(1300) * 60.0)
    for at, batch in enumerate(batches):
        rest = list(source(path, place=batch.place).batches())
        np.testing.assert_array_equal(
            np.concatenate([b.X for b in rest]), np.concatenate([b.X for b in batches[at + 1 :]] or [X[:0]])
        )


def test_a_file_that_grows_is_followed_by_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "readings.csv"
    path.write_text("time,fl")
    batches = source(path, follow=True).batches(wait=0.01)
    text, got = (HEADER + lines_of(X[:50]))[7:], []
    with path.open("a") as stream:
        for at in range(0, len(text), 37):
            stream.write(text[at : at + 37])
            stream.flush()
            got.append(next(batches).X)
    got += [next(batches).X for _ in range(3)]
    np.testing.assert_array_equal(np.concatenate(got), X[:50])


@pytest.mark.parametrize("change", ["cut", "replaced", "gone"])
def test_a_file_that_is_followed_must_only_grow(tmp_path: Path, change: str) -> None:
    path = tmp_path / "readings.csv"
    path.write_text(HEADER + lines_of(X[:5]))
    batches = source(path, follow=True).batches(wait=0.01)
    assert sum(len(next(batches).X) for _ in range(3)) == 5
    if change == "cut":
        path.write_text(HEADER)
    else:
        path.unlink()
    if change == "replaced":
        path.write_text(HEADER + lines_of(X[:50]))
    with pytest.raises(FixInputError, match="or another file"):
        next(batches)


def test_a_place_within_a_line_is_another_files(tmp_path: Path) -> None:
    path = tmp_path / "readings.csv"
    path.write_text(HEADER + lines_of(X[:5]))
    with pytest.raises(FixInputError, match="or another file"):
        list(source(path, place=len(HEADER) + 5).batches())


def test_a_pipe_is_read_until_it_closes() -> None:
    script = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_source import window
from securead.client.source import Source
batches = list(Source(None, window(), follow=False, place=99).batches())
print(sum(len(b.X) for b in batches), batches[-1].ended)
"""
    folder = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": str(folder.parent)}
    done = subprocess.run(
        [sys.executable, "-c", script, str(folder)],
        input=HEADER + lines_of(X),
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["1300", "True"]


def test_columns_are_found_by_name_and_what_is_no_number_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "readings.csv"
    path.write_text(
        "\ufeffplant;pressure;when;flow\n"
        "x;1;1970-01-01T00:01:00;2\n"
        "x;;120;-\n"
        "x;inf;180;3\n"
        "too;few\n"
        "x;1;never;2\n"
        "\n"
        "x;1.5;240;2.5\r\n"
    )
    batches = list(source(path, time="when").batches())
    batch = max(batches, key=lambda each: len(each.X))
    assert CHANNELS == ("flow", "pressure")
    np.testing.assert_array_equal(batch.X, [[2, 1], [np.nan, np.nan], [3, np.nan], [2.5, 1.5]])
    np.testing.assert_array_equal(batch.times, [60, 120, 180, 240])
    assert [sum(len(each.X) for each in batches), batch.dropped, batches[-1].ended] == [4, 2, True]


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "readings.csv"
    for text, said in (("time,flow\n1,2\n", "pressure"), ("flow,pressure\n1,2\n", "no column of times")):
        path.write_text(text)
        with pytest.raises(FixInputError, match=said):
            list(source(path).batches())
    path.write_text(HEADER + "1,2,3\n")
    with pytest.raises(FixInputError, match="no column 'hour'"):
        list(source(path, time="hour").batches())
    with pytest.raises(FixInputError, match="shorter than what was read"):
        list(source(path, place=1000).batches())
    with pytest.raises(FixInputError, match="cannot read"):
        source(tmp_path / "nothing")
    path.write_bytes(b"x" * (3 << 20))
    with pytest.raises(FixInputError, match="more than"):
        list(source(path).batches())
