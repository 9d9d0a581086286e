"""Histograms: exact counts, exact sensitivity, estimates that find what is there and refuse where nothing is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from securead.errors import PrivacyRefusedError
from securead.privacy import preprocessing as pre

UNIT = 2**30


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


@given(hnp.arrays(np.int64, (9, 3), elements=st.integers(0, 4)))
def test_a_tally_counts_bin_numbers(index: np.ndarray) -> None:
    counts = pre.tally(index, 5)
    assert np.array_equal(counts // UNIT, [np.bincount(column, minlength=5) for column in index.T])


def test_range_is_found_through_noise(rng: np.random.Generator) -> None:
    values = np.column_stack([rng.normal(3.0, 2.0, 50_000), rng.exponential(1.0, 50_000), rng.uniform(-20, 20, 50_000)])
    edge = edges(-20, 20, 3)
    noised = pre.counts(pre.histogram(values, edge)) + rng.normal(0, 40, (3, pre.SCALING_BINS))
    center, spread = pre.quantile_scale(noised, edge, 40.0, ("a", "b", "c"), limit=8.0)
    low, high = center - 8 * spread, center + 8 * spread
    for column, (a, b) in enumerate(np.quantile(values, [0.01, 0.99], axis=0).T):
        # A tenth of the width on either side, where bounds allow it; of a long thin tail less is seen.
        assert low[column] == pytest.approx(max(a - 0.1 * (b - a), -20), abs=0.25 * (b - a))
        assert high[column] == pytest.approx(min(b + 0.1 * (b - a), 20), abs=0.25 * (b - a))


def test_range_without_noise_is_that_of_the_quantiles() -> None:
    edge = np.linspace(0.0, 64.0, 65)[None]
    counts = np.zeros((1, 64))
    counts[0, 20:40] = 50.0
    center, spread = pre.quantile_scale(counts, edge, 0.0, ("a",), limit=2.0)
    assert center == pytest.approx([30.0])
    assert spread == pytest.approx([6.0])  # 20 wide and 2 more on either side, in units of twice the limit


@pytest.mark.parametrize(("records", "noise"), [(1000, 42.0), (0, 0.0), (8000, 42.0)])
def test_range_refuses_tails_below_the_noise(records: int, noise: float) -> None:
    counts = np.full((2, 256), records / 256)
    with pytest.raises(PrivacyRefusedError, match=r"range of 2 columns .*Declare bounds"):
        pre.quantile_scale(counts, edges(-1, 1, 2), noise, ("a", "b"), limit=8.0)


@given(hnp.arrays(float, (3, 6), elements=st.floats(-50, 100)), st.floats(0.5, 200))
def test_nearest_counts_are_counts_and_nearest(noised: np.ndarray, total: float) -> None:
    nearest = pre.nearest_counts(noised, total)
    assert (nearest >= 0).all()
    assert nearest.sum(axis=1) == pytest.approx(np.full(3, total))
    # The nearest point of a convex set: no other makes an obtuse angle with the way back (projection theorem).
    for corner in np.eye(6) * total:
        assert ((noised - nearest) * (corner - nearest)).sum(axis=1).max() <= 1e-6 * total * 100


def test_exact_counts_are_their_own_nearest() -> None:
    counts = np.array([[3.0, 0.0, 7.0], [10.0, 0.0, 0.0]])
    assert pre.nearest_counts(counts, 10.0) == pytest.approx(counts)


def test_records_are_counted_or_refused() -> None:
    assert pre.records_counted(np.array([[90.0, 10.0], [60.0, 20.0]]), 5.0) == 90.0
    with pytest.raises(PrivacyRefusedError, match="too few records"):
        pre.records_counted(np.array([[9.0, 1.0]]), 5.0)
