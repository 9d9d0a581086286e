"""Histograms: exact counts, exact sensitivity, estimates that find what is there and refuse where nothing is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from securead.errors import PrivacyRefusedError
from securead.privacy import preprocessing as pre

UNIT = 2**24


def edges(low: float, high: float, columns: int) -> np.ndarray:
    return pre.scaling_edges(np.full(columns, low), np.full(columns, high))


@given(hnp.arrays(float, (7, 3), elements=st.floats(-20, 20)))
def test_every_record_lands_in_one_bin_of_each_column(values: np.ndarray) -> None:
    counts = pre.histogram(values, edges(-10, 10, 3))
    assert (counts.sum(axis=1) == 7 * UNIT).all()
    expected = [np.histogram(np.clip(values[:, c], -10, 10), edges(-10, 10, 3)[c])[0] for c in range(3)]
    assert np.array_equal(counts // UNIT, expected)
    change = np.linalg.norm((counts - pre.histogram(values[1:], edges(-10, 10, 3))).astype(float))
    assert change == pytest.approx(np.sqrt(3) * UNIT)
    assert change <= pre.sensitivity(3)


@pytest.mark.parametrize("columns", [1, 2, 29, 100])
def test_sensitivity_is_rounded_up_by_less_than_a_step(columns: int) -> None:
    assert 0 <= pre.sensitivity(columns) ** 2 - columns * UNIT**2 < 2 * pre.sensitivity(columns)


def test_scale_is_found_through_noise(rng: np.random.Generator) -> None:
    values = rng.normal([3.0, -1.0], [2.0, 0.5], size=(50_000, 2))
    edge = edges(-20, 20, 2)
    noised = pre.counts(pre.histogram(values, edge)) + rng.normal(0, 40, (2, pre.SCALING_BINS))
    center, spread = pre.estimate_scale(noised, edge, 40.0, ("a", "b"))
    assert center == pytest.approx([3.0, -1.0], abs=0.05)
    assert spread == pytest.approx([2.0, 0.5], rel=0.1)


def test_a_constant_column_gets_half_a_bin() -> None:
    edge = edges(-8, 8, 1)
    center, spread = pre.estimate_scale(pre.counts(pre.histogram(np.full((1000, 1), 3.0), edge)), edge, 0.0, ("a",))
    width = edge[0, 1] - edge[0, 0]
    assert center[0] == pytest.approx(3.0, abs=width)
    assert spread[0] == width / 2


def test_too_few_records_are_named() -> None:
    edge = edges(-8, 8, 2)
    noised = np.zeros((2, pre.SCALING_BINS))
    noised[0, 10] = 1000.0
    with pytest.raises(PrivacyRefusedError, match="'b'"):
        pre.estimate_scale(noised, edge, 40.0, ("a", "b"))


def test_quantile_is_found_through_noise(rng: np.random.Generator) -> None:
    scores = rng.chisquare(10, 100_000)
    edge = np.concatenate([[0], np.geomspace(0.01, 1000, 128)])
    noised = pre.counts(pre.histogram(scores[:, None], edge[None]))[0] + rng.normal(0, 15, 128)
    threshold = pre.upper_quantile(noised, edge, 0.01, 15.0)
    # One bin is 9 % wide.
    assert threshold == pytest.approx(np.quantile(scores, 0.99), rel=0.15)


def test_quantile_without_noise_is_the_bin_that_holds_it() -> None:
    edge = np.arange(11.0)
    counts = np.full(10, 10.0)
    assert pre.upper_quantile(counts, edge, 0.2, 0.0) == 8.0
    assert pre.upper_quantile(counts, edge, 0.001, 0.0) == 10.0


def test_quantile_refuses_a_rate_below_its_noise() -> None:
    with pytest.raises(PrivacyRefusedError, match="private threshold"):
        pre.upper_quantile(np.full(10, 10.0), np.arange(11.0), 0.2, 10.0)
    with pytest.raises(PrivacyRefusedError):
        pre.upper_quantile(np.zeros(10), np.arange(11.0), 0.2, 0.0)
