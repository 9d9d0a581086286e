"""The isolation forest: public splits, exact counts, the noise they get, the score they give, compiled."""

from __future__ import annotations

import math
from typing import Any

import dp_accounting
import numpy as np
import pytest
from dp_accounting import pld
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from sklearn.ensemble import IsolationForest as SklearnForest
from sklearn.metrics import roc_auc_score

from securead.data.partition import partition
from securead.data.schema import Column, Schema
from securead.errors import FixConfigurationError, FixProgramError, PrivacyRefusedError
from securead.federated.embedded import train
from securead.federated.participant import Site
from securead.models.forest import IsolationForest, _further_depth, _isolation_depths, _levels, _reconciled
from securead.models.training import State, add_up
from securead.privacy.budget import Budget
from securead.privacy.plan import PrivacyPlan
from securead.privacy.site import Protected, Unprotected

UNIT = 2**30
RNG = np.random.default_rng(5)
X = np.vstack([RNG.normal(size=(3000, 4)) @ RNG.normal(size=(4, 4)), 4 * RNG.normal(size=(60, 4))])
Y = np.repeat([0, 1], [3000, 60])
SCHEMA = Schema.observed(X, widen=0.2)
PLAN = PrivacyPlan(epsilon=1.0, delta=1e-6)


def make(**parameters: Any) -> IsolationForest:
    return IsolationForest(**{"threshold": "model", **parameters})


def start(detector: IsolationForest, schema: Schema = SCHEMA) -> State:
    state = detector.initial_state(schema)
    assert state.stage == "counts"
    return state


# --- splits ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("extension", [0, 1, 3])
@pytest.mark.parametrize("max_features", [1, 2, None])
def test_splits_depend_on_public_values_alone(max_features: int | None, extension: int) -> None:
    parameters = {"max_features": max_features, "extension": extension, "n_estimators": 20}
    first, again = (start(make(**parameters)).values for _ in range(2))
    assert all(np.array_equal(first[name], again[name]) and first[name].dtype == np.int64 for name in first)
    other = start(make(random_state=1, **parameters)).values
    assert not np.array_equal(first["thresholds"], other["thresholds"])
    fitted = train(make(**parameters), [Site("a", X)], SCHEMA, privacy=None)
    assert np.array_equal(fitted.values_["thresholds"], first["thresholds"])
    for columns in first["columns"].reshape(20, -1):
        assert len(set(columns.tolist())) <= max(max_features or 4, extension + 1)


def test_axis_parallel_splits_part_every_node_and_use_columns_equally() -> None:
    splits = start(make(n_estimators=40, depth=5)).values
    # A uniform point of the box reaches every node from which a split can go two ways: no leaf is without a cell.
    box = RNG.integers(splits["lower"], splits["upper"] + 1, size=(200_000, 4))
    detector = make(n_estimators=40, depth=5)
    counts = detector.site_update(start(detector), _records(box), Unprotected()).values // UNIT
    assert (counts > 0).mean() > 0.97
    drawn = [set(tree.tolist()) for tree in splits["columns"][:, :, 0]]
    assert [len(columns) for columns in drawn] == [1, 2] * 20
    assert [sum(column in columns for columns in drawn) for column in range(4)] == [15] * 4


def _records(Z: np.ndarray) -> np.ndarray:
    """Raw records of encoded ones."""
    center, spread = SCHEMA.declared_scale()
    records: np.ndarray = Z / 2**14 * spread + center
    return records


def test_columns_of_no_width_on_the_grid_are_harmless() -> None:
    columns = (Column("a", 0.0, 1.0), Column("b", 0.0, 1e-9, center=0.0, spread=1.0))
    data = RNG.random((500, 2)) * [1, 1e-9]
    for extension in (0, 1):
        fitted = train(make(extension=extension), [Site("a", data)], Schema(columns), privacy=None)
        assert np.isfinite(fitted.anomaly_score(data)).all()


# --- counts -----------------------------------------------------------------------------------------------------------


@given(
    st.lists(st.floats(0.05, 1.0), min_size=1, max_size=6), st.integers(0, 1000), st.sampled_from(["leaves", "levels"])
)
def test_sums_do_not_depend_on_how_records_are_split(shares: list[float], seed: int, noise: str) -> None:
    detector = make(noise=noise)
    state, data = start(detector), X[:400]
    whole = detector.site_update(state, data, Unprotected()).values
    parts = partition(len(data), shares, seed=seed)
    updates = [detector.site_update(state, data[rows], Unprotected()) for rows in parts]
    total = add_up(state, updates)
    assert np.array_equal(total.values, whole)
    alone = detector.model_state(state, add_up(state, [detector.site_update(state, data, Unprotected())]))
    federated = detector.model_state(state, total)
    assert all(np.array_equal(alone[name], federated[name]) for name in alone)


@given(st.integers(0, len(X) - 1), st.integers(0, 2))
def test_a_record_changes_the_counts_by_exactly_the_root_of_the_trees(at: int, extension: int) -> None:
    for noise, entries in (("leaves", 30), ("levels", 30 * 5)):
        detector = make(n_estimators=30, depth=5, noise=noise, extension=extension)
        state = start(detector)
        part = X[max(0, at - 5) : at + 5]
        with_it = detector.site_update(state, part, Unprotected())
        without = detector.site_update(state, np.delete(part, at - max(0, at - 5), axis=0), Unprotected())
        change = (with_it.values - without.values) // UNIT
        assert set(np.unique(change).tolist()) == {0, 1}
        assert int((change**2).sum()) == entries  # the square of the L2 norm, exactly
        sensitivity = with_it.l2_sensitivity
        assert sensitivity is not None
        assert 0 <= sensitivity**2 - entries * UNIT**2 < 2 * sensitivity


def test_counts_per_level_are_the_sums_of_leaves() -> None:
    leaves = make(noise="leaves")
    levels = make(noise="levels")
    exact = leaves.site_update(start(leaves), X, Unprotected()).values
    nodes = levels.site_update(start(levels), X, Unprotected()).values
    assert np.array_equal(nodes, np.concatenate(_levels(exact)[1:], axis=1))
    assert (exact.sum(axis=1) == len(X) * UNIT).all()


# --- privacy ----------------------------------------------------------------------------------------------------------


def test_calibration_is_that_of_as_many_one_dimensional_releases() -> None:
    """dp_accounting, told of each tree by itself: a Gaussian of sensitivity 1 for every one of them."""
    trees = IsolationForest().n_estimators
    multiplier = PLAN.noise_multipliers(make().stages())["counts"]
    of_one_tree = multiplier * math.sqrt(trees)  # the noise on one count; a record changes one a tree
    accountant = pld.PLDAccountant(dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE, 1e-3)
    accountant.compose(dp_accounting.GaussianDpEvent(of_one_tree), trees)
    assert accountant.get_epsilon(PLAN.delta) == pytest.approx(PLAN.epsilon, rel=0.01)
    one = pld.privacy_loss_distribution.from_discrete_gaussian_mechanism(
        of_one_tree, value_discretization_interval=1e-4
    )
    assert one.self_compose(trees).get_epsilon_for_delta(PLAN.delta) == pytest.approx(PLAN.epsilon, rel=0.01)
    # Two thirds of the noise, or three halves, are plainly something else.
    for factor, low, high in ((2 / 3, 1.3, 9.0), (3 / 2, 0.0, 0.75)):
        other = pld.PLDAccountant(dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE, 1e-3)
        other.compose(dp_accounting.GaussianDpEvent(factor * of_one_tree), trees)
        assert low < other.get_epsilon(PLAN.delta) < high


@pytest.mark.parametrize("noise", ["leaves", "levels"])
def test_released_counts_carry_the_planned_noise(noise: str) -> None:
    """A chi-square test of all released counts; a false alarm once in a million runs, the system's randomness."""
    alpha, detector = 1e-6, make(noise=noise)
    state, stages = start(detector), detector.stages()
    site = Protected("a", "job", PLAN, Budget("a", 1.0, PLAN.delta), stages, PLAN.noise_multipliers(stages))
    update = detector.site_update(state, X, site)
    exact = detector.site_update(state, X, Unprotected()).values
    entries = detector.n_estimators * (1 if noise == "leaves" else detector.depth)
    planned = PLAN.noise_multipliers(stages)["counts"] * math.sqrt(entries)
    drawn = (update.values - exact).ravel() / UNIT
    assert math.sqrt(update.noise_variance) / UNIT == pytest.approx(planned, rel=1e-6)

    def fits(scale: float) -> bool:
        low, high = stats.chi2.ppf([alpha / 2, 1 - alpha / 2], df=drawn.size)
        return bool(low < ((drawn / scale) ** 2).sum() < high)

    assert fits(planned)
    assert not fits(planned * 2 / 3)
    assert not fits(planned * 3 / 2)
    assert stats.kstest(drawn / planned, "norm").pvalue > alpha


def test_every_site_adds_its_full_noise() -> None:
    detector = make()
    state, stages, variances = start(detector), detector.stages(), []
    for name, part in (("a", X[:2500]), ("b", X[2500:])):
        site = Protected(name, "job", PLAN, Budget(name, 1.0, PLAN.delta), stages, PLAN.noise_multipliers(stages))
        variances.append(detector.site_update(state, part, site).noise_variance)
    assert variances[0] == variances[1] > 0


def test_private_bounds_are_charged_and_refused_where_records_are_few() -> None:
    rng = np.random.default_rng(2)
    data = rng.normal(size=(20_000, 20))
    wide = Schema(tuple(Column(f"x{i}", -20.0, 20.0) for i in range(20)))
    detector = train(make(scaling="private"), [Site("a", data)], wide, privacy=PLAN)
    assert detector.statement_.releases[0].what == "histograms of every column, for scaling"
    center, spread = detector.encoder_.schema.declared_scale()
    # The clipped range: the 1 % and 99 % quantiles, a margin and a bin further on either side.
    assert np.abs(center).max() < 0.7
    assert (spread * detector.limit).min() > 2.0
    assert (spread * detector.limit).max() < 4.0
    with pytest.raises(PrivacyRefusedError, match=r"range of 20 columns.*records; noise.*Declare bounds in the schema"):
        train(make(scaling="private"), [Site("a", data[:1000])], wide, privacy=PLAN)


def test_too_few_records_are_refused() -> None:
    with pytest.raises(PrivacyRefusedError, match="too few records"):
        train(make(), [Site("a", X[:3])], SCHEMA, privacy=PLAN)


# --- estimates and scores ---------------------------------------------------------------------------------------------


def test_reconciled_counts_are_the_least_squares_solution() -> None:
    rng = np.random.default_rng(0)
    leaves = rng.poisson(20, size=(3, 8)).astype(float)
    noised = [level + rng.normal(size=level.shape) for level in _levels(leaves)[1:]]
    design = np.concatenate([np.repeat(np.eye(2**level), 8 // 2**level, axis=1) for level in (1, 2, 3)])
    expected = [np.linalg.lstsq(design, np.concatenate([n[tree] for n in noised]), rcond=None)[0] for tree in range(3)]
    assert _reconciled(noised) == pytest.approx(np.array(expected))


def test_isolation_depth_is_that_of_the_first_light_node() -> None:
    masses = np.array([[10.0, 0.4, 0.5, 0.3], [1.0, 0.0, 5.0, 1.5], [0.2, 0.2, 0.2, 0.3]])
    c10, c5 = (2 * (math.log(m - 1) + np.euler_gamma) - 2 * (m - 1) / m for m in (10.0, 5.0))
    expected = [[2 + c10, 2, 1, 1], [1, 1, 2 + c5, 3], [0, 0, 0, 0]]
    assert _isolation_depths(masses) == pytest.approx(np.array(expected))
    # The mean depth of a search tree of m records: Liu, Ting and Zhou (2008).
    assert _further_depth(np.array([256.0])) == pytest.approx(10.244770)


def test_scores_rank_as_scikit_learn_does() -> None:
    theirs = -SklearnForest(random_state=0).fit(X).score_samples(X)
    for parameters in ({}, {"noise": "levels"}, {"max_features": None}, {"extension": 1}):
        ours = train(make(**parameters), [Site("a", X)], SCHEMA, privacy=None).anomaly_score(X)
        assert ours.min() >= 0
        assert ours.max() <= 1
        assert stats.spearmanr(ours, theirs).statistic > 0.7
        assert roc_auc_score(Y, ours) > roc_auc_score(Y, theirs) - 0.05
        noised = train(make(**parameters), [Site("a", X)], SCHEMA, privacy=PLAN).anomaly_score(X)
        assert roc_auc_score(Y, noised) > roc_auc_score(Y, theirs) - 0.08


def test_the_threshold_of_the_model_is_not_far_off() -> None:
    detector = train(make(contamination=0.05), [Site("a", X)], SCHEMA, privacy=PLAN)
    low, high = detector.score_limits(detector.values_)
    assert low < detector.threshold_ < high
    assert 0.001 < (detector.predict(X) == -1).mean() < 0.2
    oblique = train(make(extension=1), [Site("a", X)], SCHEMA, privacy=PLAN)
    assert low < oblique.threshold_ < high


def test_a_private_threshold_flags_what_was_asked_for() -> None:
    detector = IsolationForest(contamination=0.1)
    train(detector, [Site("a", X)], SCHEMA, privacy=PrivacyPlan(epsilon=8.0, delta=1e-6))
    assert 0.05 < (detector.predict(X) == -1).mean() < 0.2


# --- programs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("parameters", [{}, {"noise": "levels"}, {"extension": 2, "max_features": None}], ids=str)
def test_program_scores_as_the_detector(parameters: dict[str, Any]) -> None:
    detector = train(make(**parameters), [Site("a", X)], SCHEMA, privacy=PLAN)
    program = detector.compile()
    exact = detector.anomaly_score(X)
    assert np.abs(program.score(X) - exact).max() <= program.public.tolerance
    assert program.public.tolerance < 0.005
    assert roc_auc_score(Y, program.score(X)) == pytest.approx(roc_auc_score(Y, exact), abs=2e-3)
    trees, leaves = detector.values_["tables"].shape
    assert program.public.honest_extraction_rows == trees * (leaves - 1) + 1
    with pytest.raises(FixProgramError, match="fraction_bits"):
        detector.compile(fraction_bits=10)


@pytest.mark.parametrize(
    "parameters",
    [
        {"n_estimators": 0},
        {"n_estimators": 2.5},
        {"depth": 0},
        {"depth": 40},
        {"max_features": 0},
        {"max_samples": 1},
        {"extension": -1},
        {"extension": True},
        {"noise": "none"},
        {"random_state": -1},
        {"random_state": "x"},
        {"contamination": 0.0},
    ],
    ids=str,
)
def test_bad_parameters_are_named(parameters: dict[str, Any]) -> None:
    with pytest.raises(FixConfigurationError, match=next(iter(parameters))):
        make(**parameters).fit(X)
