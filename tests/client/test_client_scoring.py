"""`Client`: the keys it makes, keeps and forgets, and the shapes of records it takes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from small_model import COLUMNS, Served, records, served, small_bundle

from securead.client import Client, load_keys, make_keys
from securead.client.scoring import as_records
from securead.errors import FixInputError, UseOtherKeyError

BUNDLE = small_bundle()
SCHEMA = BUNDLE.public.program.encoder.schema
X = records(40)


class Frame:
    """As much of a data frame as we look at."""

    def __init__(self, values: np.ndarray, columns: tuple[str, ...]) -> None:
        self._values, self.columns = values, columns

    def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
        return self._values


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("service")
    with served(folder, BUNDLE.save(folder / "bundle")) as running:
        yield running


def test_keys_are_made_once_a_model(service: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def counted(model: object, role: object) -> object:
        made.append("a pair")
        return make_keys(model, role)  # type: ignore[arg-type]

    monkeypatch.setattr("securead.client.scoring.make_keys", counted)
    with Client(service.url) as client:
        first, second = client.score("tiny", X), client.score("tiny", X)
    np.testing.assert_allclose(first.scores, second.scores, atol=1e-4)
    assert made == ["a pair"]


def test_keys_of_ones_own_in_both_roles(service: Served, tmp_path: Path) -> None:
    with Client(service.url) as client:
        for role in ("same", "split"):
            keys = make_keys(client.model("tiny"), role)  # type: ignore[arg-type]
            loaded = load_keys(keys.save(tmp_path / role))
            for pair in (keys, loaded):
                scores = client.score("tiny", X, pair)
                np.testing.assert_allclose(scores.scores, BUNDLE.program.score(X), atol=1e-4)
                assert (scores.is_anomaly == (scores.scores > 6.0)).all()


def test_keys_of_another_model(service: Served) -> None:
    with Client(service.url) as client:
        with pytest.raises(UseOtherKeyError, match="'other'"):
            client.score("tiny", X, make_keys(small_bundle(name="other").public, "same"))
        with pytest.raises(UseOtherKeyError, match="another model"):  # the same name, other weights
            client.score("tiny", X, make_keys(small_bundle(seed=6).public, "same"))


def test_stale_keys_are_forgotten(service: Served) -> None:
    with Client(service.url) as client:
        client._keys["tiny"] = make_keys(small_bundle(seed=6).public, "same")
        with pytest.raises(UseOtherKeyError):
            client.score("tiny", X)
        assert len(client.score("tiny", X)) == 40


def test_records_of_many_shapes() -> None:
    np.testing.assert_array_equal(as_records(X.tolist(), SCHEMA), X)
    np.testing.assert_array_equal(as_records(X.astype(np.float32), SCHEMA), X.astype(np.float32))
    np.testing.assert_array_equal(as_records(Frame(X[:, ::-1], COLUMNS[::-1]), SCHEMA), X)
    with pytest.raises(FixInputError, match="missing"):
        as_records(Frame(X[:, :4], COLUMNS[:4]), SCHEMA)
    with pytest.raises(FixInputError, match="not numbers"):
        as_records([["a"] * 5], SCHEMA)


@pytest.mark.parametrize("wrong", [X[:, :4], X[0], X[:0], [[]], np.full((2, 5), np.nan)], ids=str)
def test_records_that_do_not_fit(service: Served, wrong: object) -> None:
    with Client(service.url) as client, pytest.raises(FixInputError):
        client.score("tiny", wrong)


def test_notes_of_a_key_say_nothing_secret() -> None:
    keys = make_keys(BUNDLE.public, "same")
    for shown in (repr(keys), repr(keys.submitter), repr(keys.holder), repr(replace(keys))):
        assert "_content" not in shown
        assert "SecretKey" not in shown
