"""What a client of two parties asks for again, and how often."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from deployed import Deployment
from small_model import records

from securead.client import parties
from securead.client.line import Done
from securead.client.parties import Parties
from securead.errors import RejectMessageError, RetryLaterError
from securead.protocols.sharing.messages import Answer

X = records(9)


class Line:
    """Answers what it is asked; the requests of which `lost` says so are lost with the line."""

    busy = False

    def __init__(self, lost: tuple[int, ...], asked: list[tuple[Line, str, int, int]]) -> None:
        self.lost, self.asked, self.fresh = lost, asked, True

    def ask(self, request: str, attempt: int, payloads: tuple[bytes, bytes], rows: int, verdict: bool) -> Done:
        self.asked.append((self, request, attempt, rows))
        if len(self.asked) - 1 in self.lost:
            self.fresh = False
            raise RetryLaterError("the computation was given up")
        answer = Answer(request, attempt, rows, 0.0, 1, 1, 1, 1)
        return Done((bytes(8 * rows), bytes(8 * rows)), (answer, answer), 1, 1)

    def close(self) -> None: ...


class Asked:
    """A client without parties, what it asked, and which rows of each answer lie out of range."""

    def __init__(self, client: Parties, monkeypatch: pytest.MonkeyPatch) -> None:
        self.client, self.requests = client, list[tuple[Line, str, int, int]]()
        self.lost: tuple[int, ...] = ()
        self.outside: list[list[int]] = []
        monkeypatch.setattr(parties.Line, "open", lambda *_, **__: Line(self.lost, self.requests))
        monkeypatch.setattr(parties.owner, "in_range", self._in_range)

    def _in_range(self, _: object, integers: np.ndarray) -> np.ndarray:
        return ~np.isin(np.arange(len(integers)), self.outside.pop(0) if self.outside else [])

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Attempt and rows of each request."""
        return [(attempt, rows) for _, _, attempt, rows in self.requests]


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Asked]:
    with Deployment(tmp_path).client(patience=5.0) as client:
        yield Asked(client, monkeypatch)


def test_rows_out_of_range_are_asked_for_once_more(asked: Asked) -> None:
    asked.outside = [[2, 5]]
    assert asked.client.score(X).work.recomputed == 2
    assert asked.sizes == [(0, 9), (1, 2)]
    (first, one, *_), (second, two, *_) = asked.requests
    assert (first, one) == (second, two)


def test_once_for_a_chunk_also_when_the_second_attempt_is_lost(asked: Asked) -> None:
    """The line that knew of the first attempt is gone: those rows, and no others, are a new request."""
    asked.outside, asked.lost = [[2, 5]], (1,)
    assert asked.client.score(X).work.recomputed == 2
    assert asked.sizes == [(0, 9), (1, 2), (0, 2)]
    assert len({request for _, request, _, _ in asked.requests}) == 2


def test_out_of_range_on_both_sides_of_a_loss_is_out_of_range_twice(asked: Asked) -> None:
    asked.outside, asked.lost = [[2, 5], [1]], (1,)
    with pytest.raises(RejectMessageError, match="out of range twice"):
        asked.client.score(X)
    assert asked.sizes == [(0, 9), (1, 2), (0, 2)]


def test_a_request_that_is_lost_is_no_second_attempt(asked: Asked) -> None:
    asked.outside, asked.lost = [[3]], (0, 1)
    assert asked.client.score(X).work.recomputed == 1
    assert asked.sizes == [(0, 9), (0, 9), (0, 9), (1, 1)]
    assert len({request for _, request, _, _ in asked.requests}) == 3
