"""The histogram detector: public bins, exact counts, their noise, the textbook score, compiled."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from securead.data.partition import partition
from securead.data.schema import Column, Schema
from securead.errors import FixConfigurationError, PrivacyRefusedError
from securead.federated.embedded import train
from securead.federated.participant import Site
from securead.models.histogram import HistogramDetector
from securead.models.training import add_up
from securead.privacy.budget import Budget
from securead.privacy.plan import PrivacyPlan
from securead.privacy.site import Protected, Unprotected

UNIT = 2**30
RNG = np.random.default_rng(6)
X = np.vstack([RNG.normal(size=(3000, 5)), 4 * RNG.normal(size=(60, 5))])
Y = np.repeat([0, 1], [3000, 60])
SCHEMA = Schema.observed(X, widen=0.2)
PLAN = PrivacyPlan(epsilon=1.0, delta=1e-6)


def make(**parameters: Any) -> HistogramDetector:
    return HistogramDetector(**{"threshold": "model", **parameters})


def test_the_score_is_the_textbook_sum() -> None:
    detector = train(make(n_bins=10), [Site("a", X)], SCHEMA, privacy=None)
    expected = np.zeros(len(X))
    for column, values in zip(SCHEMA.columns, X.T, strict=True):
        edges = np.linspace(column.lower, column.upper, 11)
        counts = np.histogram(values, edges)[0] + 1.0
        expected += np.log(counts.max() / counts)[np.searchsorted(edges[1:-1], values)]
    # A record within a grid step of an edge may fall on its other side; entries are rounded to their step.
    rounding = X.shape[1] * float(detector.values_["step"][0]) / 2
    assert np.quantile(np.abs(detector.anomaly_score(X) - expected), 0.99) < 0.02 + rounding


@given(st.lists(st.floats(0.05, 1.0), min_size=1, max_size=6), st.integers(0, 1000))
def test_sums_do_not_depend_on_how_records_are_split(shares: list[float], seed: int) -> None:
    detector = make()
    state, data = detector.initial_state(SCHEMA), X[:400]
    whole = detector.site_update(state, data, Unprotected()).values
    updates = [
        detector.site_update(state, data[rows], Unprotected()) for rows in partition(len(data), shares, seed=seed)
    ]
    assert np.array_equal(add_up(state, updates).values, whole)


@given(st.integers(0, len(X) - 1))
def test_a_record_changes_the_counts_by_exactly_the_root_of_the_columns(at: int) -> None:
    detector = make()
    state = detector.initial_state(SCHEMA)
    with_it = detector.site_update(state, X, Unprotected())
    change = (with_it.values - detector.site_update(state, np.delete(X, at, axis=0), Unprotected()).values) // UNIT
    assert set(np.unique(change).tolist()) == {0, 1}
    assert int((change**2).sum()) == 5
    sensitivity = with_it.l2_sensitivity
    assert sensitivity is not None
    assert 0 <= sensitivity**2 - 5 * UNIT**2 < 2 * sensitivity


def test_released_counts_carry_the_planned_noise() -> None:
    """A chi-square test of all released counts; a false alarm once in a million runs, the system's randomness."""
    alpha, detector = 1e-6, make(n_bins=256)
    state, stages = detector.initial_state(SCHEMA), detector.stages()
    site = Protected("a", "job", PLAN, Budget("a", 1.0, PLAN.delta), stages, PLAN.noise_multipliers(stages))
    noised = detector.site_update(state, X, site).values
    drawn = (noised - detector.site_update(state, X, Unprotected()).values).ravel() / UNIT
    planned = PLAN.noise_multipliers(stages)["counts"] * math.sqrt(5)
    low, high = stats.chi2.ppf([alpha / 2, 1 - alpha / 2], df=drawn.size)
    sums = {factor: ((drawn / planned / factor) ** 2).sum() for factor in (1, 2 / 3, 3 / 2)}
    assert low < sums[1] < high
    assert not low < sums[2 / 3] < high
    assert not low < sums[3 / 2] < high


def test_detects_under_privacy_and_flags_what_was_asked_for() -> None:
    detector = HistogramDetector(contamination=0.1)
    sites = [Site("a", X[:2000]), Site("b", X[2000:])]
    train(detector, sites, SCHEMA, privacy=PrivacyPlan(epsilon=8.0, delta=1e-6))
    assert roc_auc_score(Y, detector.anomaly_score(X)) > 0.9
    assert 0.05 < (detector.predict(X) == -1).mean() < 0.2


def test_the_model_knows_the_quantiles_of_independent_columns() -> None:
    detector = train(make(contamination=0.05), [Site("a", X[:3000])], SCHEMA, privacy=None)
    assert 0.03 < (detector.predict(X[:3000]) == -1).mean() < 0.07
    low, high = detector.score_limits(detector.values_)
    assert 0 < low < detector.threshold_ < high


@pytest.mark.parametrize("privacy", [None, PLAN], ids=["exact", "private"])
def test_program_scores_as_the_detector(privacy: PrivacyPlan | None) -> None:
    detector = train(make(), [Site("a", X)], SCHEMA, privacy=privacy)
    program = detector.compile()
    assert np.abs(program.score(X) - detector.anomaly_score(X)).max() <= program.public.tolerance
    assert program.public.honest_extraction_rows == 5 * 31 + 1
    assert detector.compile(weight_bits=16).public.tolerance < program.public.tolerance / 100


def test_columns_of_no_width_on_the_grid_are_harmless() -> None:
    columns = (Column("a", 0.0, 1.0), Column("b", 7.0, 7.0 + 1e-9, center=0.0, spread=0.5))
    data = RNG.random((500, 2)) * [1, 1e-9] + [0, 7]
    detector = train(make(), [Site("a", data)], Schema(columns), privacy=None)
    assert (np.diff(detector.values_["edges"], axis=1) > 0).all()
    assert np.isfinite(detector.compile().score(data)).all()


def test_private_bounds_are_refused_where_records_are_few() -> None:
    data = np.random.default_rng(2).normal(size=(20_000, 20))
    wide = Schema(tuple(Column(f"x{i}", -20.0, 20.0) for i in range(20)))
    detector = train(make(scaling="private"), [Site("a", data)], wide, privacy=PLAN)
    assert (detector.encoder_.schema.declared_scale()[1] * detector.limit).max() < 4.0
    with pytest.raises(PrivacyRefusedError, match="range of 20 columns"):
        train(make(scaling="private"), [Site("a", data[:1000])], wide, privacy=PLAN)


@pytest.mark.parametrize("parameters", [{"n_bins": 1}, {"n_bins": 2.5}, {"n_bins": 4096, "limit": 0.1}], ids=str)
def test_bad_parameters_are_named(parameters: dict[str, Any]) -> None:
    with pytest.raises(FixConfigurationError, match="n_bins"):
        make(**parameters).fit(X)
