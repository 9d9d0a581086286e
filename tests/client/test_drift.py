"""Drift warnings: their rate without drift, at a level where it can be measured, and their power with it.

Seeds are fixed. Rates are measured at `FALSE_WARNINGS` = 0.01, on 50 keys times 60 tests, with scores that are
independent, that come from overlapping windows, and that are strongly correlated.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import special, stats
from stations import windowed_bundle

from securead import codec
from securead.client import drift
from securead.errors import FixInputError
from securead.models.bundle import Threshold

MODEL = windowed_bundle().public
CALIBRATED = drift.BLOCK * drift.BLOCKS
VALUE = float(stats.chi2.ppf(0.99, 5))
THRESHOLD = Threshold(VALUE, "1 %", 0.01, 0.008, 0.012)


def independent(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.chisquare(5, n)


def overlapping(rng: np.random.Generator, n: int) -> np.ndarray:
    """Sums over five neighbours: the scores of windows of five readings, one a reading."""
    return np.convolve(rng.normal(size=n + 4) ** 2, np.ones(5), "valid")


def correlated(rng: np.random.Generator, n: int) -> np.ndarray:
    """First-order autoregressive with coefficient 0.9, put on the same distribution."""
    from scipy.signal import lfilter

    z = lfilter([np.sqrt(1 - 0.81)], [1, -0.9], rng.normal(size=n + 100))[100:]
    return stats.chi2.ppf(stats.norm.cdf(z), 5)


def warned(make: object, seeds: int, blocks: int, *, scale: float = 1.0, shift: float = 0.0) -> np.ndarray:
    """Which tests warned, `(seeds, blocks)`, after a calibration on scores that did not drift."""
    assert callable(make)
    found = np.zeros((seeds, blocks), dtype=bool)
    for seed in range(seeds):
        scores = make(np.random.default_rng(seed), CALIBRATED + blocks * drift.BLOCK)
        summary = drift.add(drift.fresh(MODEL), scores[:CALIBRATED], THRESHOLD)
        for at, block in enumerate(scores[CALIBRATED:].reshape(blocks, -1)):
            summary = drift.add(summary, block * scale + shift, THRESHOLD)
            found[seed, at] = summary.warning is not None
    return found


@pytest.mark.parametrize("make", [independent, overlapping, correlated], ids=lambda make: make.__name__)
def test_warnings_for_nothing_are_as_rare_as_stated(make: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drift, "FALSE_WARNINGS", 0.01)
    rate = warned(make, 50, 60).mean()
    # Tests of one key are not independent, because they share its calibration: three times the level is allowed.
    assert rate <= 0.03


@pytest.mark.parametrize("make", [independent, overlapping, correlated], ids=lambda make: make.__name__)
def test_at_the_level_in_use_a_hundred_keys_stay_silent(make: object) -> None:
    assert warned(make, 50, 20).mean() <= 0.002


@pytest.mark.parametrize(
    ("make", "change", "least"),
    [
        (independent, {"scale": 1.5}, 0.99),
        (independent, {"scale": 0.6}, 0.99),
        (independent, {"shift": 1.5}, 0.95),
        (overlapping, {"scale": 1.8}, 0.9),
        (correlated, {"scale": 3.0}, 0.8),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
def test_drift_is_told_within_four_blocks(make: object, change: dict[str, float], least: float) -> None:
    assert warned(make, 40, 4, **change).any(axis=1).mean() >= least


def test_a_change_of_the_share_above_the_threshold_alone_is_told() -> None:
    rng = np.random.default_rng(0)
    summary = drift.add(drift.fresh(MODEL), rng.chisquare(5, CALIBRATED), THRESHOLD)
    scores = rng.chisquare(5, 4 * drift.BLOCK)
    scores[rng.random(len(scores)) < 0.08] = 2 * VALUE
    summary = drift.add(summary, scores, THRESHOLD)
    assert summary.warning is not None
    assert "above the threshold" in summary.warning
    assert "For nothing, about one test in 10,000" in str(drift.in_words(summary))


def test_a_calibration_that_begins_off_the_models_share_is_told() -> None:
    scores = np.random.default_rng(0).chisquare(5, CALIBRATED + drift.BLOCK) * 1.4
    summary = drift.add(drift.fresh(MODEL), scores, THRESHOLD)
    assert "of the calibration lie above" in str(summary.warning)


def test_a_warning_passes_when_scores_come_back() -> None:
    scores = np.random.default_rng(0).chisquare(5, CALIBRATED + 30 * drift.BLOCK)
    scores[CALIBRATED : CALIBRATED + 4 * drift.BLOCK] *= 2
    summary = drift.add(drift.fresh(MODEL), scores[: CALIBRATED + 4 * drift.BLOCK], THRESHOLD)
    assert summary.warning is not None
    assert drift.add(summary, scores[CALIBRATED + 4 * drift.BLOCK :], THRESHOLD).warning is None


def test_the_summary_is_the_same_however_scores_are_cut_and_small(tmp_path: Path) -> None:
    scores = np.random.default_rng(1).chisquare(5, CALIBRATED + 3333)
    whole = drift.add(drift.fresh(MODEL), scores, THRESHOLD)
    parts = drift.fresh(MODEL)
    for part in np.split(scores, np.sort(np.random.default_rng(2).integers(0, len(scores), 40))):
        parts = drift.add(parts, part, THRESHOLD)
    assert parts == whole
    assert (whole.scores, whole.tests) == (len(scores), len(scores) // drift.BLOCK)
    assert len(codec.canonical_bytes(whole)) < 4096


def test_constant_and_few_scores_warn_of_nothing_and_fail_at_nothing() -> None:
    unknown = Threshold(VALUE, "chosen by hand")
    for scores in (np.ones(CALIBRATED + 1000), np.ones(3), np.array([])):
        assert drift.add(drift.fresh(MODEL), scores, unknown).warning is None
    with pytest.raises(FixInputError):
        drift.add(drift.fresh(MODEL), np.array([np.nan]), unknown)


def test_the_file_is_private_counts_once_and_belongs_to_one_model(tmp_path: Path) -> None:
    path, scores = tmp_path / "drift.json", np.random.default_rng(0).chisquare(5, 100)
    for source in ("r1", "r1", "r2"):
        assert drift.note(path, MODEL, scores, source=source) is None
    assert path.stat().st_mode & 0o077 == 0
    assert drift.recall(path, MODEL).scores == 200
    other = windowed_bundle(local=True).public
    assert drift.recall(path, other) == drift.fresh(other)
    path.write_text("[")
    with pytest.raises(FixInputError, match="damaged"):
        drift.recall(path, MODEL)
    path.write_text(json.dumps(codec.to_plain(drift.fresh(MODEL))))
    path.chmod(0o644)
    with pytest.raises(FixInputError, match="others on this machine"):
        drift.recall(path, MODEL)


def test_tails_agree_with_scipy(rng: np.random.Generator) -> None:
    a, b = 10 ** rng.uniform(-1, 4, (2, 2000))
    x = np.clip(a / (a + b) + 4 * rng.normal(size=2000) * np.sqrt(a * b) / (a + b) ** 1.5, 1e-9, 1 - 1e-9)
    got = [drift.beta_share(*each) for each in zip(x, a, b, strict=True)]
    np.testing.assert_allclose(got, special.betainc(a, b, x), rtol=1e-8, atol=1e-14)
    for value in (0.0, 0.3, -2.0, 7.0):
        assert drift.t_beyond(value, 19) == pytest.approx(2 * stats.t.sf(abs(value), 19), rel=1e-9)
