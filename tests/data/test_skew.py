"""Skewed splits are disjoint, complete and repeatable; sites differ as much as was asked for, and in nothing else."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from securead.data.skew import (
    Skew,
    anomaly_clusters,
    anomaly_skew,
    direction,
    feature_skew,
    quantity_skew,
)
from securead.errors import FixConfigurationError, FixInputError, SecureadError

# Every test below is seeded: it passes always or never. Thresholds leave a false alarm of one in a million seeds.
ALPHA = 1e-6
SEEDS = st.integers(0, 2**40)
SHARES = st.lists(st.floats(0.05, 20), min_size=1, max_size=8)


def check(parts: list[np.ndarray], rows: int, sites: int) -> None:
    assert len(parts) == sites
    assert min(map(len, parts)) >= 1
    assert sorted(np.concatenate(parts).tolist()) == list(range(rows))
    for part in parts:
        assert (np.diff(part) > 0).all(), "each site keeps the table's order"


# --- every split is a partition -----------------------------------------------------------------------------------


@given(st.integers(1, 500), st.integers(1, 9), st.one_of(st.floats(0, 1e6), st.just(np.inf)), st.integers(1, 9), SEEDS)
@settings(max_examples=150)
def test_quantity_is_a_partition(rows: int, sites: int, concentration: float, minimum: int, seed: int) -> None:
    assume(rows >= sites * minimum)
    parts = quantity_skew(rows, sites, concentration=concentration, minimum=minimum, seed=seed)
    check(parts, rows, sites)
    assert min(map(len, parts)) >= minimum


@given(st.integers(1, 300), SHARES, st.floats(0, 1), st.sampled_from(["normal", "ties", "constant"]), SEEDS)
@settings(max_examples=150)
def test_feature_is_a_partition_by_shares(rows: int, shares: list[float], strength: float, law: str, seed: int) -> None:
    assume(rows >= len(shares))
    rng = np.random.default_rng(seed)
    along = {"normal": rng.normal(size=rows), "ties": rng.integers(0, 3, rows), "constant": np.ones(rows)}[law]
    parts = feature_skew(along, shares, strength=strength, seed=seed)
    check(parts, rows, len(shares))
    if min(exact := rows * np.array(shares) / sum(shares)) >= 2:
        assert np.abs([len(part) for part in parts] - exact).max() <= 1 + 1e-6


@given(st.integers(2, 300), SHARES, st.integers(2, 7), st.floats(0, 1), st.floats(0, 1), SEEDS)
@settings(max_examples=150)
def test_anomaly_is_a_partition_that_deals_normal_records_by_shares(
    rows: int, shares: list[float], kinds: int, anomalous: float, strength: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    kind = np.where(rng.random(rows) < anomalous, rng.integers(1, kinds + 1, rows), 0)
    normal = int((kind == 0).sum())
    assume(normal >= len(shares))
    assume(len(np.unique(kind[kind > 0])) >= 2)
    parts = anomaly_skew(kind, shares, strength=strength, seed=seed)
    check(parts, rows, len(shares))
    if min(exact := normal * np.array(shares) / sum(shares)) >= 2:
        assert np.abs([(kind[part] == 0).sum() for part in parts] - exact).max() <= 1 + 1e-6


X = np.random.default_rng(3).normal(size=(900, 4)) * [1, 100, 0.01, 1]
Y = (np.arange(900) % 5 == 0).astype(np.int8)


@pytest.mark.parametrize("kind", ["quantity", "feature", "anomaly"])
def test_a_seed_repeats_and_another_differs(kind: Any) -> None:
    skew = Skew(kind, strength=0.7)
    first, again, other = (skew.split(X, "abcd", Y, [3, 2, 1], seed=seed) for seed in (1, 1, 2))
    check(first, len(X), 3)
    assert [part.tolist() for part in first] == [part.tolist() for part in again]
    assert [part.tolist() for part in first] != [part.tolist() for part in other]


# --- sites differ as asked ----------------------------------------------------------------------------------------


def test_sizes_follow_the_dirichlet_law() -> None:
    """A site's proportion under Dirichlet(c) of 4 sites is Beta(c, 3c); the wrong concentrations are told apart."""
    draws = range(1200)
    for concentration in (0.5, 1.0, 5.0):
        first = [len(quantity_skew(20_000, 4, concentration=concentration, seed=seed)[0]) / 20_000 for seed in draws]
        fits = [stats.kstest(first, stats.beta(c, 3 * c).cdf).pvalue for c in np.multiply(concentration, (1, 0.5, 2))]
        assert fits[0] > ALPHA > max(fits[1:]), (concentration, fits)


def test_known_quantities() -> None:
    assert sorted(map(len, quantity_skew(100, 4, concentration=0, minimum=5, seed=0))) == [5, 5, 5, 85]
    assert [len(part) for part in quantity_skew(100, 4, concentration=np.inf, seed=0)] == [25] * 4
    assert sorted(map(len, Skew("quantity", 1.0, minimum=10).split(X, "abcd", None, [1, 1], seed=0))) == [10, 890]
    assert [len(part) for part in Skew("quantity", 0.0).split(X, "abcd", None, [9, 1], seed=0)] == [450, 450]
    assert [len(part) for part in quantity_skew(3, 3, concentration=0.01, seed=0)] == [1, 1, 1]


def test_records_are_dealt_to_uneven_sites_at_random() -> None:
    parts = quantity_skew(900, 3, concentration=1.0, minimum=50, seed=4)
    assert stats.f_oneway(*(X[part, 0] for part in parts)).pvalue > ALPHA


def test_a_feature_separates_sites_by_its_strength() -> None:
    """The share of the column's variance that lies between sites: none, then more and more, then nearly all of it."""
    along, between = np.random.default_rng(0).normal(size=6000), []
    for strength in (0.0, 0.25, 0.5, 0.75, 1.0):
        parts = feature_skew(along, [1, 1, 1, 1], strength=strength, seed=1)
        between.append(np.var([along[part].mean() for part in parts]) / along.var())
        assert strength == 0 or stats.f_oneway(*(along[part] for part in parts)).pvalue < ALPHA
    assert stats.f_oneway(*(along[part] for part in feature_skew(along, [1] * 4, strength=0.0, seed=1))).pvalue > ALPHA
    assert between == sorted(between)
    assert between[0] < 0.005
    # Four quarters of a Gaussian, sorted: 86 % (variance of the quarters' means).
    assert between[-1] == pytest.approx(0.861, abs=0.02)
    ends = [(along[part].min(), along[part].max()) for part in parts]
    assert all(above[0] >= below[1] for below, above in itertools.pairwise(ends))


def test_by_default_the_feature_is_a_direction_in_which_columns_count_alike() -> None:
    weights = [abs(np.corrcoef(direction(X, seed=seed), column)[0, 1]) for seed in range(200) for column in X.T]
    mean = np.reshape(weights, (200, 4)).mean(axis=0)
    assert mean.max() / mean.min() < 1.3
    parts = Skew("feature", 1.0).split(X, "abcd", None, [1, 1], seed=5)
    low, high = (direction(X, seed=5)[part] for part in parts)
    assert low.max() <= high.min()
    by_column = Skew("feature", 1.0, column="b").split(X, "abcd", None, [1, 1], seed=5)
    assert X[by_column[0], 1].max() <= X[by_column[1], 1].min()
    assert np.isfinite(direction(np.ones((5, 2)), seed=0)).all()


@pytest.mark.parametrize(("kinds", "sites"), [(4, 4), (6, 3), (2, 5)])
def test_kinds_have_homes_by_their_strength(kinds: int, sites: int) -> None:
    rng = np.random.default_rng(7)
    kind = np.where(rng.random(20_000) < 0.3, rng.integers(1, kinds + 1, 20_000), 0)
    turns = min(kinds, sites)
    for strength in (0.0, 0.6, 1.0):
        parts = anomaly_skew(kind, [1] * sites, strength=strength, seed=2)
        table = np.array([[(kind[part] == k).sum() for k in range(1, kinds + 1)] for part in parts])
        home = np.arange(sites)[:, None] % turns == np.arange(kinds)[None, :] % turns
        at_home, anomalies = int(table[home].sum()), int(table.sum())
        by_chance = home.mean(axis=0) @ table.sum(axis=0) / anomalies
        assert stats.binomtest(at_home, anomalies, strength + (1 - strength) * by_chance).pvalue > ALPHA
        if strength == 0:
            assert stats.chi2_contingency(table).pvalue > ALPHA
        if strength == 1:
            assert table[~home].sum() == 0
            assert (table[home] > 0).all()


def test_clusters_of_anomalies_are_found() -> None:
    rng = np.random.default_rng(9)
    true, labels = rng.integers(0, 3, 300), np.repeat([1, 0], [300, 2700])
    centres = np.array([[6, 0, 0], [0, 600, 0], [0, 0, -0.06]])
    records = np.vstack([centres[true], np.zeros((2700, 3))]) + rng.normal(size=(3000, 3)) * [1, 100, 0.01]
    found = anomaly_clusters(records, labels, 3, seed=0)
    assert (found[labels == 0] == 0).all()
    pairs = {(int(a), int(b)) for a, b in zip(true, found[:300], strict=True)}
    assert len(pairs) == 3, "each kind is one cluster"
    assert {b for _, b in pairs} == {1, 2, 3}
    sites = Skew("anomaly", 1.0).split(records, "abc", labels, [1, 1, 1], seed=0)
    assert sorted(len(np.unique(true[part[part < 300]])) for part in sites) == [1, 1, 1]


def test_a_column_may_name_the_kinds() -> None:
    kind = np.where(Y == 1, np.arange(900) % 2 + 5.0, 5.0)
    records = np.column_stack([X, kind])
    first, second = Skew("anomaly", 1.0, column="kind").split(records, ["a", "b", "c", "d", "kind"], Y, [1, 1], seed=0)
    assert {5.0} == set(kind[first[Y[first] == 1]])
    assert {6.0} == set(kind[second[Y[second] == 1]])


# --- refusals -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"kind": "time"}, "quantity, feature or anomaly"),
        ({"kind": "feature", "strength": 1.5}, r"strength lies in \[0, 1\]"),
        ({"kind": "feature", "strength": float("nan")}, r"strength lies in \[0, 1\]"),
        ({"kind": "quantity", "minimum": 0}, "1 record"),
        ({"kind": "anomaly", "clusters": 1}, "2 kinds"),
        ({"kind": "quantity", "column": "a"}, "column means nothing in a split by quantity.*feature or anomaly"),
        ({"kind": "feature", "clusters": 3}, "clusters means nothing"),
        ({"kind": "anomaly", "minimum": 3}, "minimum means nothing"),
    ],
)
def test_contradictions_are_named(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(FixConfigurationError, match=named):
        Skew(**fields)


@pytest.mark.parametrize(
    ("skew", "labels", "shares", "named"),
    [
        (Skew("feature", column="z"), Y, [1, 1], "a column that the records lack.*One of: a, b"),
        (Skew("anomaly"), None, [1, 1], "needs labels"),
        (Skew("anomaly"), np.zeros(900), [1, 1], "0 distinct anomalies"),
        (Skew("anomaly", clusters=181), Y, [1, 1], "180 distinct anomalies do not make 181"),
        (Skew("anomaly"), np.ones(900), [1, 1], "as many normal records as sites"),
        (Skew("quantity", minimum=500), Y, [1, 1], "do not give 2 sites 500"),
        (Skew("feature"), Y, [1, -1], "shares are positive"),
    ],
)
def test_what_cannot_be_split_is_refused(skew: Skew, labels: np.ndarray, shares: list[float], named: str) -> None:
    with pytest.raises(SecureadError, match=named):
        skew.split(X, "abcd", labels, shares, seed=0)
    with pytest.raises(FixInputError, match="two kinds"):
        anomaly_skew(Y, [1, 1], strength=1.0, seed=0)
