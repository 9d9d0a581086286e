"""Which reading a score belongs to: notes that are found by their request, and files of scores that tell it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from securead.client.positions import Positions, find_positions
from securead.client.results import Scores, Timings, read_scores, write_scores
from securead.data.windows import Windows

SCORES = Scores(np.array([1.5, 2.5]), np.array([False, True]), {}, Timings(), 0, 0)


def positions(times: list[float] | None, request: str = "r") -> Positions:
    found = None if times is None else np.array(times)
    return Positions.of(Windows(np.zeros((2, 3)), np.array([4, 9]), found, np.zeros(0)), request)


def test_scores_of_windows_tell_the_reading_and_its_time_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    for times, cells in (
        ([1.6e9, 1.6e9 + 0.5], ["4,2020-09-13T12:26:40Z", "9,2020-09-13T12:26:40.500000Z"]),
        ([0.0, 7.25], ["4,0.0", "9,7.25"]),
        (None, ["4,", "9,"]),
    ):
        write_scores(path, SCORES, positions(times))
        assert path.read_text().splitlines() == [
            "row,score,anomaly,reading,time",
            f"0,1.5,0,{cells[0]}",
            f"1,2.5,1,{cells[1]}",
        ]
        rows, scores = read_scores(path)
        assert rows.tolist() == [0, 1]
        assert scores.tolist() == [1.5, 2.5]


def test_notes_are_found_by_their_request_only(tmp_path: Path) -> None:
    answer = tmp_path / "answer"
    assert find_positions(answer, "r") is None
    positions(None, "other").write(tmp_path / "answer.windows")
    (tmp_path / "damaged.windows").write_text("{")
    assert find_positions(answer, "r") is None
    positions([1.0, 2.0]).write(tmp_path / "request.windows")
    assert find_positions(answer, "r") == positions([1.0, 2.0])
    assert (tmp_path / "request.windows").stat().st_mode & 0o777 == 0o600
