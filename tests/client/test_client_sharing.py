"""Scores that leave the key holder: noised to size, counted for good, refused where noise would destroy them."""

from __future__ import annotations

import json
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import stats
from small_model import small_bundle

from securead.client import sharing
from securead.client.results import read_scores
from securead.client.sharing import SHARING_FILE, Sharing, SharingPlan, open_sharing
from securead.errors import FixConfigurationError, FixInputError, PrivacyRefusedError, RetryLaterError, UseOtherKeyError

KEY = "a" * 64
BOUND = 1e-9
ALPHA = 1e-6


def plan(bound: float = BOUND, at_most: int = 100) -> SharingPlan:
    return SharingPlan(KEY, bound, at_most)


@dataclass
class KeyDirectory:
    """A key directory as `Sharing` sees one: no engine is asked, so each bound can be tried."""

    path: Path
    bound: float = BOUND
    threshold: float = 6.0

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sharing, "secret_half", lambda directory: Path(directory))
        monkeypatch.setattr(sharing, "read_record", lambda directory: SimpleNamespace(key=KEY))
        model = SimpleNamespace(threshold=SimpleNamespace(value=self.threshold))
        monkeypatch.setattr(sharing, "read_plan", lambda d: (model, SimpleNamespace(error_bound=self.bound)))


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KeyDirectory:
    made = KeyDirectory(tmp_path)
    made.install(monkeypatch)
    return made


@pytest.mark.parametrize("bound", [3.7e-12, 1e-6, 2.0**-20, 0.4])
@pytest.mark.parametrize("at_most", [1, 12, 10**6])
def test_the_noise_has_the_size_that_the_proof_asks_for(bound: float, at_most: int) -> None:
    made = plan(bound, at_most)
    asked = bound * math.sqrt(12 * at_most) * 2**20
    assert asked <= made.deviation <= 1.003 * asked
    assert made.deviation / 8 < made.step <= made.deviation / 4
    assert math.log2(made.step) == round(math.log2(made.step))
    assert made.accuracy == pytest.approx(2.08 * made.deviation, rel=0.03)


def test_shared_scores_are_the_scores_and_that_noise() -> None:
    made = plan(at_most=4000)
    true = np.linspace(-50, 50, 4000)
    told = made.blur(true)
    assert (np.rint(told / made.step) * made.step == told).all(), "multiples of the step"
    noise = (told - true) / math.hypot(made.deviation, made.step / math.sqrt(12))
    assert stats.kstest(noise, "norm").pvalue > ALPHA
    assert stats.kstest(noise * 2 / 3, "norm").pvalue < ALPHA
    assert stats.kstest(noise * 3 / 2, "norm").pvalue < ALPHA
    assert 0.93 < np.mean(np.abs(told - true) <= made.accuracy) <= 1
    assert (made.blur(true) != told).any(), "fresh noise every time"


def test_verdicts_come_from_what_is_told() -> None:
    """Otherwise a verdict would tell the true score's side of the threshold, exactly."""
    one = Sharing(plan(at_most=500), 6.0)
    told = one.share_score(np.full(500, 6.0 + 1e-12), useful=10.0)
    assert (told.is_anomaly == (told.scores > 6.0)).all()
    assert 0 < told.is_anomaly.sum() < 500


def test_scores_that_noise_would_destroy_are_refused() -> None:
    usual = Sharing(plan(8e-3, 1000), 6.0)
    with pytest.raises(PrivacyRefusedError, match=r"destroy.*Nothing was shared.*tolerance") as caught:
        usual.share_score(np.array([5.0]))
    assert usual.shared == 0
    said = str(caught.value)
    bound = float(said.partition("tolerance would have to be ")[2].split()[0])
    SharingPlan(KEY, bound * 0.9, 1).refuse_useless(0.06)


def test_the_refusal_names_a_number_that_fits() -> None:
    with pytest.raises(PrivacyRefusedError, match="at most 1,000 shared") as caught:
        plan(1e-9, 1000).refuse_useless(0.06)
    fits = int(str(caught.value).partition("shares at most ")[2].split(";")[0].replace(",", ""))
    plan(1e-9, fits).refuse_useless(0.06)
    with pytest.raises(PrivacyRefusedError):
        plan(1e-9, int(fits * 1.1) + 1).refuse_useless(0.06)


def test_useful_is_the_callers_or_a_hundredth_of_the_threshold() -> None:
    one = Sharing(plan(1e-9, 10), 6.0)  # off by up to .025
    one.share_score(np.ones(2))
    with pytest.raises(PrivacyRefusedError, match=r"0\.01 is needed"):
        one.share_score(np.ones(2), useful=0.01)
    with pytest.raises(FixConfigurationError, match="--useful"):
        Sharing(plan(1e-9, 10), 0.0).share_score(np.ones(2))
    for useful in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(FixConfigurationError, match="positive"):
            one.share_score(np.ones(2), useful=useful)
    assert one.shared == 2


def test_no_more_than_declared_and_a_refusal_counts_nothing() -> None:
    one = Sharing(plan(at_most=5), 6.0)
    one.share_score(np.ones(3))
    with pytest.raises(PrivacyRefusedError, match="beyond the 5"):
        one.share_score(np.ones(3))
    one.share_score(np.ones(2))
    assert one.shared == 5
    with pytest.raises(PrivacyRefusedError):
        one.share_score(np.ones(1))


def test_exact_engines_add_nothing_and_count_nothing(directory: KeyDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    replace(directory, bound=0.0).install(monkeypatch)
    one, scores = open_sharing(directory.path), np.array([1.0, 6.0, 6.5])
    for _ in range(3):
        told = one.share_score(scores)
        assert (told.scores == scores).all()
        assert told.is_anomaly.tolist() == [False, False, True]
        assert told.accuracy == 0
    assert not (directory.path / SHARING_FILE).exists()


@pytest.mark.parametrize("scores", [np.array([1.0, math.nan]), np.array([math.inf]), np.ones((2, 2))])
def test_what_are_no_scores(scores: np.ndarray) -> None:
    with pytest.raises(FixInputError, match="finite"):
        Sharing(plan(), 6.0).share_score(scores)


@pytest.mark.parametrize("at_most", [0, -1, 10**9 + 1])
def test_an_absurd_declaration(at_most: int) -> None:
    with pytest.raises(FixConfigurationError, match="10\\*\\*9"):
        plan(at_most=at_most)


# The file.


def test_the_count_outlives_the_process(directory: KeyDirectory) -> None:
    path = directory.path / SHARING_FILE
    with pytest.raises(FixConfigurationError, match="--at-most"):
        open_sharing(directory.path)
    open_sharing(directory.path, at_most=10).share_score(np.ones(4))
    assert path.stat().st_mode & 0o777 == 0o600
    again = open_sharing(directory.path)
    assert (again.shared, again.plan.at_most) == (4, 10)
    with pytest.raises(PrivacyRefusedError, match="4 shared before"):
        again.share_score(np.ones(7))
    assert open_sharing(directory.path, at_most=10).shared == 4


def test_the_declaration_cannot_be_changed(directory: KeyDirectory) -> None:
    open_sharing(directory.path, at_most=10).share_score(np.ones(1))
    for other in (9, 11):
        with pytest.raises(FixConfigurationError, match="sized for that number"):
            open_sharing(directory.path, at_most=other)


def test_a_refused_release_leaves_no_file(directory: KeyDirectory) -> None:
    with pytest.raises(PrivacyRefusedError):
        open_sharing(directory.path, at_most=10**6).share_score(np.ones(1))
    assert not (directory.path / SHARING_FILE).exists()


def test_processes_at_the_same_time_share_one_count(directory: KeyDirectory) -> None:
    """All opened the file before any counted: none forgets the others."""
    every = [open_sharing(directory.path, at_most=20) for _ in range(30)]

    def share(one: Sharing) -> int:
        try:
            one.share_score(np.ones(1))
        except PrivacyRefusedError:
            return 0
        return 1

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(share, every)) == 20
    assert open_sharing(directory.path).shared == 20


def test_a_count_that_cannot_be_written_shares_nothing(
    directory: KeyDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = open_sharing(directory.path, at_most=10)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    def never(*_: object) -> None:
        raise AssertionError("noise was drawn")

    monkeypatch.setattr("os.fsync", full)
    monkeypatch.setattr(sharing, "discrete_gaussian", never)
    with pytest.raises(RetryLaterError, match="No space left"):
        one.share_score(np.ones(1))
    assert one.shared == 0


@pytest.mark.parametrize(
    "change",
    [{"shared": -1}, {"shared": 11}, {"at_most": 0}, {"format": 2}, {"more": 1}, {"shared": "1"}],
    ids=str,
)
def test_a_damaged_count_is_refused(directory: KeyDirectory, change: dict[str, Any]) -> None:
    path = directory.path / SHARING_FILE
    open_sharing(directory.path, at_most=10).share_score(np.ones(1))
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(FixInputError):
        open_sharing(directory.path)


def test_anothers_count_is_refused(directory: KeyDirectory) -> None:
    path = directory.path / SHARING_FILE
    open_sharing(directory.path, at_most=10).share_score(np.ones(1))
    path.write_text(path.read_text().replace(KEY, "b" * 64))
    with pytest.raises(FixConfigurationError, match="another key"):
        open_sharing(directory.path)


def test_real_keys(tmp_path: Path) -> None:
    """The whole path with the engine that carries the model: refused as compiled, and not without the secret half."""
    from securead.client.keys import make_keys

    keys = make_keys(small_bundle().public, "split")
    keys.save(tmp_path / "keys", passphrase="five words would be better")  # never asked for: the key is not opened
    with pytest.raises(UseOtherKeyError, match="no secret key"):
        open_sharing(tmp_path / "keys" / "public", at_most=1)
    for place in (tmp_path / "keys", tmp_path / "keys" / "secret"):
        one = open_sharing(place, at_most=2)
        with pytest.raises(PrivacyRefusedError, match="destroy"):
            one.share_score(np.array([7.0]))
        one.share_score(np.array([7.0]), useful=1e9)
    assert json.loads((tmp_path / "keys" / "secret" / SHARING_FILE).read_text())["shared"] == 2
    assert Sharing.of(keys.holder, at_most=3).plan.deviation > one.plan.deviation


# The file of scores.


def test_rows_are_picked_by_number(tmp_path: Path) -> None:
    path = tmp_path / "scores.csv"
    path.write_text("row,score,anomaly\n0,1.5,0\n1,2.5,0\n2,7.25,1\n")
    rows, scores = read_scores(path, frozenset({2, 0}))
    assert (rows.tolist(), scores.tolist()) == ([0, 2], [1.5, 7.25])
    assert read_scores(path)[0].tolist() == [0, 1, 2]
    with pytest.raises(FixInputError, match=r"no such row \(got 3\)"):
        read_scores(path, frozenset({1, 3, 9}))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "row,anomaly\n0,1\n",
        "row,score,anomaly\n0,x,0\n",
        "row,score,anomaly\n0,nan,0\n",
        "row,score,anomaly\n0,1.0\n",
        "row,score,anomaly\n-1,1.0,0\n",
        "row,score,anomaly\n0,1.0,0\n0,2.0,0\n",
        "row,score,anomaly\n\xe9,1.0,0\n",
    ],
)
def test_a_file_of_something_else(tmp_path: Path, text: str) -> None:
    path = tmp_path / "scores.csv"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(FixInputError, match=r"scores\.csv"):
        read_scores(path)
