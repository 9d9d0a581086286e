"""Splits are disjoint, complete, sized as asked and repeatable."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from securead.data.partition import hold_out, partition
from securead.errors import FixConfigurationError


@given(st.integers(1, 400), st.lists(st.floats(1e-9, 1e9), min_size=1, max_size=12), st.integers(0, 2**32))
@settings(max_examples=150)
def test_sites_are_disjoint_complete_and_never_empty(rows: int, shares: list[float], seed: int) -> None:
    assume(rows >= len(shares))
    sites = partition(rows, shares, seed=seed)
    assert len(sites) == len(shares)
    assert min(map(len, sites)) >= 1
    assert sorted(np.concatenate(sites).tolist()) == list(range(rows))
    for site in sites:
        assert (np.diff(site) > 0).all(), "each site keeps the table's order"


@given(st.integers(1, 5000), st.lists(st.floats(0.1, 10), min_size=1, max_size=8))
def test_sites_have_their_share_of_the_rows_to_within_one(rows: int, shares: list[float]) -> None:
    exact = [rows * share / math.fsum(shares) for share in shares]
    assume(min(exact) >= 2)  # below that, no site being empty comes first
    for site, expected in zip(partition(rows, shares, seed=0), exact, strict=True):
        assert abs(len(site) - expected) <= 1 + 1e-6


def test_known_sizes_and_tiny_shares() -> None:
    assert [len(s) for s in partition(100, [6, 3, 1], seed=0)] == [60, 30, 10]
    assert [len(s) for s in partition(10, [1e-9, 1, 1e-9], seed=0)] == [1, 8, 1]
    assert [len(s) for s in partition(3, [1e9, 1, 1], seed=0)] == [1, 1, 1]
    assert [len(s) for s in partition(5, [1e-9, 1e-9, 1, 1e-9], seed=0)] == [1, 1, 2, 1]
    assert [len(s) for s in partition(7, [2], seed=0)] == [7]


def test_rows_are_shuffled_and_the_seed_decides_how() -> None:
    a, again, other = (partition(1000, [1, 1], seed=s) for s in (1, 1, 2))
    assert [x.tolist() for x in a] == [x.tolist() for x in again]
    assert a[0].tolist() != other[0].tolist()
    # A site that simply took the first half would have a mean rank of 250; 6 standard deviations are 55.
    assert abs(a[0].mean() - 499.5) < 55


@pytest.mark.parametrize("shares", [[], [1, 0], [1, -1], [1, math.nan], [1, math.inf], [[1, 2], [3, 4]]])
def test_shares_that_are_not_positive_numbers_are_refused(shares: list[float]) -> None:
    with pytest.raises(FixConfigurationError, match=r"shares are positive numbers.*6, 3, 1"):
        partition(10, shares, seed=0)


def test_more_sites_than_rows_are_refused() -> None:
    with pytest.raises(FixConfigurationError, match="2 rows cannot be split among 3 sites"):
        partition(2, [1, 1, 1], seed=0)


@given(st.integers(2, 300), st.floats(0, 1), st.floats(0.05, 0.95), st.integers(0, 2**32))
@settings(max_examples=100)
def test_a_hold_out_keeps_each_classs_proportion(rows: int, anomalous: float, share: float, seed: int) -> None:
    y = (np.random.default_rng(seed).random(rows) < anomalous).astype(np.int8)
    train, held = hold_out(rows, y, share, seed=seed)
    assert sorted([*train.tolist(), *held.tolist()]) == list(range(rows))
    assert (np.diff(train) > 0).all()
    assert (np.diff(held) > 0).all()
    for label in (0, 1):
        assert abs((y[held] == label).sum() - share * (y == label).sum()) <= 0.5 + 1e-9


def test_a_hold_out_without_labels_takes_its_share_and_shuffles() -> None:
    train, held = hold_out(1000, None, 0.3, seed=5)
    assert (len(train), len(held)) == (700, 300)
    assert sorted([*train.tolist(), *held.tolist()]) == list(range(1000))
    assert held.tolist() == hold_out(1000, None, 0.3, seed=5)[1].tolist()
    assert held.tolist() != hold_out(1000, None, 0.3, seed=6)[1].tolist()
    assert held.max() > 900
    assert held.min() < 100


def test_rare_anomalies_are_held_out_as_their_share_says() -> None:
    y = np.zeros(10_000, dtype=np.int8)
    y[:10] = 1  # plain sampling would give 2, 3 or 4 only by luck
    for seed in range(5):
        _, held = hold_out(10_000, y, 0.3, seed=seed)
        assert y[held].sum() == 3
