"""A stream cut anywhere, saved and restored anywhere, gives the windows of one call; what is odd is said or counted."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from securead import codec
from securead.data.schema import Column
from securead.data.streaming import StreamingEncoder, StreamState, windows_of
from securead.data.windows import LocalScale, Window, WindowedSchema
from securead.errors import FixConfigurationError, FixInputError, SecureadError

CHANNELS = (Column("a", -100, 100), Column("b", 0, 1000, "log"))
SCALE = LocalScale("g", Window(CHANNELS, 1).channels_digest, (0.5, 2.0), (3.0, 0.7))


def schema(length: int = 3, **options: object) -> WindowedSchema:
    return WindowedSchema.of(Window(CHANNELS, length, **options))  # type: ignore[arg-type]


def series(readings: int) -> np.ndarray:
    return np.column_stack([np.arange(readings, dtype=float), np.arange(readings) * 2.0])


@st.composite
def streams(draw: st.DrawFn) -> tuple[WindowedSchema, np.ndarray, np.ndarray | None, list[int]]:
    length = draw(st.integers(1, 5))
    timed = draw(st.booleans())
    window = Window(
        CHANNELS,
        length,
        stride=draw(st.integers(1, 7)),
        period=draw(st.sampled_from([None, 1.0, 0.25])) if timed else None,
        fill=draw(st.integers(0, length - 1)),
        missing="gap",
        early="drop",
        local=draw(st.booleans()),
    )
    n = draw(st.integers(0, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    X = rng.normal(size=(n, 2)) * 60 + [0, 300]
    X[rng.random((n, 2)) < draw(st.sampled_from([0.0, 0.1]))] = np.nan
    steps = rng.choice([1.0, 1.1, 2.0, 3.0, 9.0, 0.0, -1.0], size=n, p=[0.6, 0.1, 0.1, 0.05, 0.05, 0.05, 0.05])
    times = np.cumsum(steps) * (window.period or 1.0) + 1.6e9 if timed else None
    cuts = sorted(draw(st.lists(st.integers(0, n), max_size=6)))
    return WindowedSchema.of(window), X, times, [0, *cuts, n]


@given(streams())
def test_any_chunking_and_any_restart_gives_the_windows_of_one_call(
    stream: tuple[WindowedSchema, np.ndarray, np.ndarray | None, list[int]],
) -> None:
    made, X, times, cuts = stream
    scale = SCALE if made.window.local else None
    whole = windows_of(made, X, times, scale=scale)
    encoder, parts = StreamingEncoder(made, scale), []
    for start, stop in itertools.pairwise(cuts):
        parts.append(encoder.push(X[start:stop], None if times is None else times[start:stop]))
        saved = json.loads(json.dumps(codec.to_plain(encoder.state)))
        encoder = StreamingEncoder(made, scale)
        encoder.restore(codec.from_plain(StreamState, saved, where="state"))
    assert np.array_equal(np.concatenate([part.X for part in parts]), whole.X)
    assert np.array_equal(np.concatenate([part.rows for part in parts]), whole.rows)
    assert np.array_equal(sum(part.outside for part in parts), whole.outside)
    if times is not None:
        assert np.array_equal(np.concatenate([part.times for part in parts]), times[whole.rows])  # type: ignore[misc]
    everything = StreamingEncoder(made, scale)
    everything.push(X, times)
    assert encoder.state == everything.state
    assert encoder.state.windows == len(whole)


@given(streams(), st.integers(0, 39))
def test_no_reading_touches_more_windows_than_is_stated(
    stream: tuple[WindowedSchema, np.ndarray, np.ndarray | None, list[int]], at: int
) -> None:
    made, X, times, _ = stream
    if made.window.local or at >= len(X) or np.isnan(X[at]).any():
        return
    before, other = windows_of(made, X, times), X.copy()
    other[at] = [99.5, 999.5]
    after = windows_of(made, other, times)
    assert np.array_equal(before.rows, after.rows)
    assert (before.X != after.X).any(axis=1).sum() <= made.window.windows_per_reading


def test_the_statement_s_number_is_reached() -> None:
    for options in ({}, {"stride": 2}, {"fill": 2, "missing": "gap"}):
        made = schema(6, **options)
        X = series(40)
        X[21:23] = np.nan if options.get("fill") else X[21:23]
        other = X.copy()
        other[20] = [99.5, 999.5]
        touched = (windows_of(made, X).X != windows_of(made, other).X).any(axis=1).sum()
        assert touched == made.window.windows_per_reading


def test_one_reading_at_a_time_with_positions_and_times() -> None:
    encoder = StreamingEncoder(schema(period=1.0))
    found = [encoder.push(x, 50.0 + t, channels=("a", "b")) for t, x in enumerate(series(5))]
    assert [len(windows) for windows in found] == [0, 0, 1, 1, 1]
    assert [int(w.rows[0]) for w in found[2:]] == [2, 3, 4]
    assert [float(w.times[0]) for w in found[2:]] == [52.0, 53.0, 54.0]  # type: ignore[index]
    assert found[2].X.tolist() == [[0, 0, 1, 2, 2, 4]]
    swapped = StreamingEncoder(schema()).push(series(3)[:, ::-1], channels=("b", "a"))
    assert swapped.X.tolist() == found[2].X.tolist()


def test_a_window_never_spans_a_gap() -> None:
    times = np.array([0, 1, 2, 3, 7, 8, 9, 10.0])
    found = windows_of(schema(period=1.0), series(8), times)
    assert found.rows.tolist() == [2, 3, 6, 7]


def test_missing_readings_are_filled_where_asked_and_no_window_ends_with_one() -> None:
    times = np.array([0, 1, 2, 4, 5, 9.0])
    found = windows_of(schema(period=1.0, fill=1), series(6), times)
    assert found.rows.tolist() == [2, 3, 4]
    assert found.X[1].tolist() == [2, 4, 2, 4, 3, 6], "the reading at 3 s repeats that at 2 s"
    assert windows_of(schema(period=1.0), series(6), times).rows.tolist() == [2]


def test_jitter_is_no_gap() -> None:
    times = np.arange(8) + np.array([0, 0.3, -0.1, 0.2, 0.4, -0.05, 0.1, 0])
    assert len(windows_of(schema(period=1.0), series(8), times)) == 6


def test_a_missing_value_is_refused_or_a_gap_or_filled() -> None:
    X = series(8)
    X[4, 1] = np.nan
    with pytest.raises(FixInputError, match="reading 4, channel 'b' is missing"):
        windows_of(schema(), X)
    assert windows_of(schema(missing="gap"), X).rows.tolist() == [2, 3, 7]
    filled = windows_of(schema(missing="gap", fill=1), X)
    assert filled.rows.tolist() == [2, 3, 4, 5, 6, 7]
    assert filled.X[2].tolist() == [2, 4, 3, 6, 4, 6], "the other channel stays"


@pytest.mark.parametrize("time", [4.0, 3.5, 4.2], ids=["twice", "out of order", "too fast"])
def test_a_reading_that_comes_early_is_refused_or_dropped_and_counted(time: float) -> None:
    times = np.array([0, 1, 2, 3, 4, time, 5, 6])
    with pytest.raises(FixInputError, match="reading 5 comes"):
        windows_of(schema(period=1.0), series(8), times)
    encoder = StreamingEncoder(schema(period=1.0, early="drop"))
    assert encoder.push(series(8), times).rows.tolist() == [2, 3, 4, 6, 7]
    assert (encoder.state.dropped, encoder.state.position) == (1, 8)


def test_a_refused_call_changes_nothing() -> None:
    encoder = StreamingEncoder(schema(period=1.0))
    encoder.push(series(4), np.arange(4.0))
    before = encoder.state
    bad = [
        (series(2), None, None),
        (series(2), np.array([4.0, np.nan]), None),
        (series(2), np.array([4.0]), None),
        (series(2), np.array([4.0, 3.0]), None),
        (np.array([[1.0, np.inf]]), np.array([4.0]), None),
        (np.array([[1.0, np.nan]]), np.array([4.0]), None),
        (np.ones((2, 3)), np.array([4.0, 5.0]), None),
        (series(2), np.array([4.0, 5.0]), ("a", "c")),
    ]
    for readings, times, channels in bad:
        with pytest.raises(SecureadError):
            encoder.push(readings, times, channels=channels)
        assert encoder.state is before
    assert encoder.push(series(1), 4.0).rows.tolist() == [4]


def test_values_out_of_bounds_are_clipped_and_counted_or_refused() -> None:
    X = series(3)
    X[1, 0] = 1e6
    found = windows_of(schema(), X)
    assert found.X[0, 2] == 100
    assert found.outside.tolist() == [1, 0]
    assert found.clipped == {"a": 1}
    strict = WindowedSchema.of(Window(CHANNELS, 3), out_of_bounds="refuse")
    with pytest.raises(FixInputError, match="column 'a' is outside"):
        windows_of(strict, X)


def test_a_scale_is_needed_exactly_where_the_model_wants_one() -> None:
    with pytest.raises(FixConfigurationError, match="own scale"):
        StreamingEncoder(schema(local=True))
    with pytest.raises(FixConfigurationError, match="takes no local scale"):
        StreamingEncoder(schema(), SCALE)
    with pytest.raises(FixInputError, match="other channels"):
        StreamingEncoder(schema(local=True), LocalScale("g", "0" * 64, (0.0, 0.0), (1.0, 1.0)))


def test_state_on_disk_is_whole_private_and_bound_to_its_model_and_scale(tmp_path: Path) -> None:
    path, made = tmp_path / "state.json", schema(local=True, period=1.0)
    encoder = StreamingEncoder(made, SCALE)
    encoder.push(series(5), np.arange(5.0))
    encoder.save(path)
    assert path.stat().st_mode & 0o777 == 0o600
    again = StreamingEncoder(made, SCALE)
    again.load(path)
    assert again.state == encoder.state
    other = LocalScale("g", SCALE.channels, (0.0, 2.0), (3.0, 0.7))
    for stranger in (StreamingEncoder(made, other), StreamingEncoder(schema(period=1.0))):
        with pytest.raises(FixInputError, match="another model"):
            stranger.load(path)
    plain = json.loads(path.read_text())
    for change in ({"tail": plain["tail"][1:]}, {"run": 1}, {"tail": [[1.0]]}, {"held": 9}, {"outside": [0]}):
        path.write_text(json.dumps(plain | change))
        with pytest.raises(FixInputError):
            StreamingEncoder(made, SCALE).load(path)


def test_a_gateway_needs_neither_torch_nor_numba() -> None:
    import subprocess
    import sys

    script = (
        "import sys, securead.data.streaming, securead.client.positions\n"
        "print([p for p in ('torch', 'numba', 'sklearn', 'scipy', 'dp_accounting') if p in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
