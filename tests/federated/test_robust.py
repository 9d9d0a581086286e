"""Rules against their definitions, what one bad contribution can do, bounds, and layouts against real updates."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from securead.data.generators.payments import generate_payments
from securead.data.schema import Column, Schema
from securead.data.windows import Window, WindowedSchema
from securead.errors import FixConfigurationError, FixInputError, PrivacyRefusedError
from securead.federated.robust import (
    RULES,
    Bound,
    Contribution,
    bounded,
    closest,
    combine,
    groups_of,
    layout_of,
    least_contributions,
    middle,
    refuse_impossible,
)
from securead.models.autoencoder import AutoEncoder
from securead.models.estimator import AnomalyDetector
from securead.models.forest import IsolationForest
from securead.models.histogram import HistogramDetector
from securead.models.layout import OPAQUE, Layout
from securead.models.subspace import SubspaceDetector
from securead.models.threshold import Costs
from securead.models.training import State, Update, add_up
from securead.privacy.site import Unprotected

STATE = State("stage", Schema((Column("x", 0.0, 1.0),)))
UNIT = 1 << 10
TABLE = Layout("table", unit=UNIT, rows=3)
WEIGHTED = Layout("weighted", unit=4.0)
ROBUST = [rule for rule in RULES if rule != "sum"]


def tables(sizes: list[int], seed: int = 0, noise: float = 0.0, bins: int = 8) -> list[Contribution]:
    """Honest tables of 3 rows with the same law at sites of these sizes; noise in records."""
    rng = np.random.default_rng(seed)
    law = rng.dirichlet(np.ones(bins), size=3)
    found = []
    for size in sizes:
        counts = np.stack([rng.multinomial(size, row) for row in law]) * UNIT
        noised = np.rint(counts + rng.normal(0, noise * UNIT, counts.shape)).astype(np.int64)
        found.append(Contribution(noised, 1, (noise * UNIT) ** 2))
    return found


def averages(values: Any, weights: Any) -> list[Contribution]:
    rows = (np.append(np.asarray(row) * weight, weight) for row, weight in zip(values, weights, strict=True))
    return [Contribution(np.rint(row * 1000).astype(np.int64)) for row in rows]


# --- rules ------------------------------------------------------------------------------------------------------------

arrays = st.lists(st.lists(st.integers(-(2**40), 2**40), min_size=3, max_size=3), min_size=1, max_size=6)


@given(arrays, st.randoms(use_true_random=False))
def test_the_sum_is_what_adding_up_gives(rows: list[list[int]], random: Any) -> None:
    updates = [Update("stage", np.array(row), 1, 0.1 * at, None) for at, row in enumerate(rows)]
    wanted = add_up(STATE, updates)
    contributions = [Contribution(update.values, 1, update.noise_variance) for update in updates]
    found = combine(STATE, contributions, layout=OPAQUE)
    assert np.array_equal(found.total.values, wanted.values)
    assert (found.total.noise_variance, found.total.sites) == (wanted.noise_variance, wanted.sites)
    assert found.clipped == found.left_out == ()
    random.shuffle(contributions)
    assert np.array_equal(combine(STATE, contributions, layout=OPAQUE).total.values, wanted.values)


@pytest.mark.parametrize("rule", ROBUST)
@pytest.mark.parametrize("layout", [TABLE, OPAQUE, Layout("weighted", unit=UNIT)], ids=lambda layout: layout.kind)
def test_the_order_of_contributions_does_not_matter(rule: Any, layout: Layout) -> None:
    seen = tables([900, 700, 500, 300, 2000, 800, 600], noise=2.0)
    if layout.kind == "weighted":
        seen = [dataclasses.replace(each, values=np.abs(each.values.ravel()) + UNIT) for each in seen]
    wanted = combine(STATE, seen, layout=layout, rule=rule).total
    for order in ([6, 5, 4, 3, 2, 1, 0], [3, 0, 6, 1, 5, 2, 4]):
        found = combine(STATE, [seen[at] for at in order], layout=layout, rule=rule).total
        assert np.abs(found.values - wanted.values).max() <= 1
        assert found.noise_variance == pytest.approx(wanted.noise_variance, rel=0.3)  # simulated


@settings(max_examples=50)
@given(st.integers(3, 8), st.integers(0, 10**6))
def test_medians_and_trimmed_means_are_what_their_names_say(count: int, seed: int) -> None:
    rows = np.random.default_rng(seed).normal(size=(count, 5))
    assert np.allclose(middle(rows, (count - 1) // 2), np.median(rows, axis=0), atol=1e-15)
    for trim in range((count - 1) // 2 + 1):
        by_hand = [np.mean(sorted(column)[trim : count - trim]) for column in rows.T]
        assert np.allclose(middle(rows, trim), by_hand)


@settings(max_examples=50)
@given(st.integers(5, 9), st.integers(1, 2), st.integers(0, 10**6))
def test_krum_is_what_its_authors_define(count: int, attackers: int, seed: int) -> None:
    if count < 2 * attackers + 3:
        return
    rows = np.random.default_rng(seed).normal(size=(count, 4))
    scores = []
    for i in range(count):
        others = sorted(float(((rows[i] - rows[j]) ** 2).sum()) for j in range(count) if j != i)
        scores.append(sum(others[: count - attackers - 2]))
    wanted = sorted(sorted(range(count), key=scores.__getitem__)[: count - attackers - 2])
    assert closest(rows, attackers).tolist() == wanted


@given(
    st.lists(st.tuples(st.floats(-1, 1), st.floats(-1, 1), st.integers(1, 1000)), min_size=4, max_size=7),
    st.lists(st.integers(-(2**62), 2**62), min_size=3, max_size=3),
    st.sampled_from(["median", "trimmed"]),
)
def test_one_bad_contribution_leaves_averages_within_the_range_of_the_honest(
    honest: list[tuple[float, float, int]], bad: list[int], rule: Any
) -> None:
    seen = averages([row[:2] for row in honest], [row[2] for row in honest])
    estimates = np.stack([each.values[:-1] / each.values[-1] for each in seen])
    layout = Layout("weighted", unit=1000, reference=np.zeros(2))
    total = combine(STATE, [*seen, Contribution(np.array(bad))], layout=layout, rule=rule).total
    found = total.values[:-1] / total.values[-1]
    assert (estimates.min(axis=0) - 1e-9 <= found).all()
    assert (found <= estimates.max(axis=0) + 1e-9).all()


@pytest.mark.parametrize("rule", ROBUST)
def test_sites_of_different_sizes_are_compared_by_their_shares(rule: Any) -> None:
    sizes = [10, 20, 40, 80, 1000]
    law = np.array([[1, 2, 3, 4], [4, 3, 2, 1], [0, 0, 5, 5]])
    seen = [Contribution(law * size * UNIT) for size in sizes]
    found = combine(STATE, seen, layout=TABLE, rule=rule).total
    shares = found.values / found.values.sum(axis=1, keepdims=True)
    assert np.allclose(shares, law / 10, atol=1e-6)
    if rule == "median":
        assert found.values.sum() / TABLE.per_record == pytest.approx(5 * 10 * 40, rel=1e-6)


@pytest.mark.parametrize("rule", ROBUST)
def test_a_liar_does_not_decide_on_a_table(rule: Any) -> None:
    seen = tables([900, 700, 500, 800, 600, 400])
    clean = combine(STATE, seen, layout=TABLE, rule=rule).total.values
    lie = np.zeros((3, 8), dtype=np.int64)
    lie[:, 3] = 10**6 * UNIT
    lied = combine(STATE, [*seen, Contribution(lie)], layout=TABLE, rule=rule).total.values
    undefended = combine(STATE, [*seen, Contribution(lie)], layout=TABLE).total.values
    clean, lied, undefended = (values / values.sum(axis=1, keepdims=True) for values in (clean, lied, undefended))
    assert np.abs(lied - clean).max() < 0.05
    assert np.abs(undefended - clean).max() > 0.5


def test_medians_work_on_sums_of_groups() -> None:
    seen = tables([900, 700, 500, 800, 600, 400])
    groups = [Contribution(seen[a].values + seen[b].values, 2) for a, b in ((0, 1), (2, 3), (4, 5))]
    lie = dataclasses.replace(groups[1], values=groups[1].values * np.array([1, 1, 50, 1, 1, 1, 1, 1]))
    clean = combine(STATE, seen, layout=TABLE).total.values
    found = combine(STATE, [groups[0], lie, groups[2]], layout=TABLE, rule="median").total
    assert found.sites == 6
    assert np.abs(found.values / found.values.sum() - clean / clean.sum()).max() < 0.03


def test_who_takes_records_back_is_left_out() -> None:
    seen = tables([900, 700, 500, 800], noise=1.0)
    bad = dataclasses.replace(seen[0], values=-seen[0].values)
    found = combine(STATE, [*seen, bad], layout=TABLE, rule="median")
    assert found.left_out == (4,)
    with pytest.raises(PrivacyRefusedError, match="too few contributions"):
        combine(STATE, [*seen[:2], bad], layout=TABLE, rule="median")


@pytest.mark.parametrize("rule", ROBUST)
@pytest.mark.parametrize("spread", [0.0, 30.0], ids=["alike", "different"])
def test_the_stated_noise_is_that_of_the_total(rule: Any, spread: float) -> None:
    """Against 300 repetitions of the noise: never below 0.9 of the true variance, at most 2.2 times it."""
    rng = np.random.default_rng(3)
    sizes = np.array([3000, 2500, 2000, 1800, 1500])
    exact = [np.full((1, 400), size * UNIT) + rng.normal(0, spread * UNIT, (1, 400)) for size in sizes]
    layout, noise, totals, stated = Layout("table", unit=UNIT), 10.0 * UNIT, [], []
    for _ in range(300):
        seen = [Contribution(np.rint(e + rng.normal(0, noise, e.shape)).astype(np.int64), 1, noise**2) for e in exact]
        total = combine(STATE, seen, layout=layout, rule=rule).total
        totals.append(total.values)
        stated.append(total.noise_variance)
    # Of a single number of records for all entries, so its own noise, which all share, is taken out.
    shares = np.stack(totals) / np.stack(totals).sum(axis=2, keepdims=True) * np.mean([t.sum() for t in totals])
    ratio = np.mean(stated) / shares.var(axis=0, ddof=1).mean()
    assert 0.9 < ratio < 2.2


def test_who_states_other_noise_than_the_rest_is_not_believed() -> None:
    seen = tables([900, 700, 500, 800, 600], noise=2.0)
    honest = combine(STATE, seen, layout=TABLE, rule="median").total
    for claim in (1e30, float("nan"), float("inf"), -1.0):
        seen[2] = dataclasses.replace(seen[2], noise_variance=claim)
        assert combine(STATE, seen, layout=TABLE, rule="median").total.noise_variance == honest.noise_variance
        assert combine(STATE, seen, layout=TABLE, bound=Bound(10)).clipped == (0, 1, 2, 3, 4)


# --- refusals ---------------------------------------------------------------------------------------------------------


def test_krum_is_refused_for_sums_of_groups() -> None:
    groups = [dataclasses.replace(each, sites=2) for each in tables([900, 700, 500, 800, 600])]
    with pytest.raises(FixConfigurationError, match="sums of groups hide them"):
        combine(STATE, groups, layout=TABLE, rule="krum")


@pytest.mark.parametrize("rule", ROBUST)
@pytest.mark.parametrize("attackers", [1, 2])
def test_too_few_contributions_are_refused(rule: Any, attackers: int) -> None:
    least = least_contributions(rule, attackers)
    refuse_impossible(rule, contributions=least, sites=least, attackers=attackers)
    with pytest.raises(FixConfigurationError, match="or more"):
        combine(STATE, tables([500] * (least - 1)), layout=TABLE, rule=rule, attackers=attackers)


def test_ill_formed_rounds_are_refused() -> None:
    one, two = tables([500, 600])
    other = Contribution(two.values[:2])
    for seen in ([], [one, other], [one, Contribution(two.values.astype(float))], [dataclasses.replace(one, sites=0)]):
        with pytest.raises(FixInputError):
            combine(STATE, seen, layout=TABLE)
    with pytest.raises(FixConfigurationError, match="one of"):
        combine(STATE, [one, two], layout=TABLE, rule="mean")  # type: ignore[arg-type]
    with pytest.raises(FixConfigurationError, match="at least one"):
        combine(STATE, [one, two], layout=TABLE, rule="median", attackers=0)
    with pytest.raises(FixConfigurationError, match="layout"):
        combine(STATE, [one, two], layout=OPAQUE, bound=Bound(100))
    for extreme in (2**63 - 1, -(2**63)):
        with pytest.raises(OverflowError):
            combine(STATE, [one, Contribution(np.full_like(one.values, extreme))], layout=TABLE)
    for bad in ({"records": 0}, {"change": -1.0}, {"change": float("inf")}):
        with pytest.raises(FixConfigurationError, match="positive"):
            Bound(**bad)


# --- bounds -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [0.0, 40.0])
@pytest.mark.parametrize("sites", [1, 3])
def test_honest_tables_pass_and_inflated_ones_are_cut_back(noise: float, sites: int) -> None:
    bound = Bound(records=1000)
    for seed in range(50):
        (each,) = tables([1000 * sites], seed, noise)
        given = {"sites": sites, "noise_variance": each.noise_variance, "layout": TABLE, "bound": bound}
        assert bounded(each.values, **given) is each.values
        for attack in (each.values * 30, -each.values * 3, each.values + np.eye(3, 8, dtype=np.int64) * 2**50):
            held = bounded(attack, **given)
            assert np.array_equal(bounded(held, **given), held)
            assert (held >= -6 * noise * UNIT).all()
            above = np.maximum(held, 0).sum(axis=1) / UNIT
            assert (above <= sites * 1000 + 8 * 0.4 * noise + 6 * np.sqrt(8 * 0.35) * noise).all()


def test_averages_are_held_to_their_weight_and_change() -> None:
    reference = np.array([0.5, -0.5, 0.0])
    layout, bound = Layout("weighted", unit=1000, reference=reference), Bound(records=100, change=0.2)
    given = {"sites": 1, "noise_variance": 0.0, "layout": layout, "bound": bound}

    def update(theta: Any, weight: float) -> Any:
        return averages([theta], [weight])[0].values

    honest = update(reference + 0.1, 100)
    assert bounded(honest, **given) is honest
    held = bounded(update(reference + np.array([3.0, 0.0, 4.0]), 5000), **given)
    assert 100 * 1000 - 1 <= held[-1] <= 100 * 1000
    moved = held[:-1] / held[-1] - reference
    assert np.linalg.norm(moved) == pytest.approx(0.2, rel=1e-4)
    assert np.allclose(moved / np.linalg.norm(moved), [0.6, 0.0, 0.8], atol=1e-3)
    assert np.array_equal(bounded(held, **given), held)
    assert not bounded(update(reference, -50), **given).any()
    with pytest.raises(FixInputError, match="fit the model"):
        bounded(np.ones(7, dtype=np.int64), **given)


def test_moments_are_held_to_what_their_records_can_add() -> None:
    X = np.random.default_rng(0).normal(size=(300, 4))
    schema = Schema.observed(X, widen=0.1)
    detector = SubspaceDetector()
    state = detector.initial_state(schema)
    layout, values = layout_of(detector, state), detector.site_update(state, X, Unprotected()).values
    given = {"sites": 1, "noise_variance": 0.0, "layout": layout, "bound": Bound(records=300)}
    assert bounded(values, **given) is values
    held = bounded(np.append(values[:-1] * 40, values[-1:]), **given)
    assert held[-1] == values[-1]
    assert np.linalg.norm(held[:-1].astype(float)) <= 300 * layout.l2_per_record * (1 + 1e-9)


def test_a_site_has_one_vote() -> None:
    layout = Layout("votes", rows=2)
    votes = np.array([[0, 1, 0], [1, 0, 0]])
    many = [Contribution(votes), Contribution(np.array([[9, 0, 0], [-5, 9, 9]])), Contribution(votes)]
    found = combine(STATE, many, layout=layout, rule="median")
    assert found.total.values.tolist() == [[1, 2, 0], [2, 0, 0]]
    assert found.clipped == (1,)


# --- groups -----------------------------------------------------------------------------------------------------------


@given(st.integers(1, 30), st.integers(1, 30), st.text(max_size=8))
def test_groups_are_a_partition_that_everybody_finds(count: int, groups: int, seed: str) -> None:
    names = [f"site-{at}" for at in range(count)]
    if groups > count:
        with pytest.raises(FixConfigurationError, match="fewer groups"):
            groups_of(names, groups, seed)
        return
    found = groups_of(names, groups, seed)
    assert sorted(name for group in found for name in group) == sorted(names)
    assert len(found) == groups
    assert max(map(len, found)) - min(map(len, found)) <= 1
    assert groups_of(names[::-1], groups, seed) == found


def test_groups_change_with_the_round_and_may_be_refused() -> None:
    names = [f"site-{at}" for at in range(12)]
    assert len({groups_of(names, 4, f"run|{number}") for number in range(20)}) == 20
    with pytest.raises(FixConfigurationError, match="of 2 or more"):
        groups_of(names[:5], 3, "run|1", smallest=2)
    with pytest.raises(FixConfigurationError, match="distinct"):
        groups_of(["a", "a"], 1, "")


# --- layouts are those of real updates --------------------------------------------------------------------------------

MADE = generate_payments(rows=1000, banks=2, fraud_rate=0.02)
DETECTORS: list[AnomalyDetector] = [
    IsolationForest(n_estimators=5, depth=4),
    IsolationForest(n_estimators=5, depth=4, noise="levels", threshold=Costs(10, 1)),
    HistogramDetector(n_bins=8),
    SubspaceDetector(threshold="private"),
    AutoEncoder(hidden=2, rounds=2, sampling_prob=0.5, threshold=Costs(10, 1)),
]


@pytest.mark.parametrize("detector", DETECTORS, ids=lambda detector: type(detector).__name__)
def test_layouts_say_how_many_records_an_update_holds(detector: AnomalyDetector) -> None:
    detector.scaling = "private"
    state, releaser, seen = detector.initial_state(MADE.schema), Unprotected(), set()
    X, y = MADE.table.X, MADE.table.y
    while not state.done:
        layout, update = layout_of(detector, state), detector.site_update(state, X, releaser, y)
        seen.add(layout.kind)
        assert bounded(update.values, sites=1, noise_variance=0.0, layout=layout, bound=Bound(1000)) is update.values
        if layout.kind == "table":
            assert update.values.sum() / layout.per_record == len(X)
            rows = update.values.reshape(layout.rows, -1).sum(axis=1) / layout.unit / layout.per_row
            assert rows.sum() == len(X) if layout.one_row else (rows == len(X)).all()
        elif layout.reference is not None:
            assert len(update.values) == len(layout.reference) + 1
            assert update.values[-1] / layout.unit == pytest.approx(len(X), rel=0.02)
        elif not state.stage.startswith("check-"):
            assert update.values[-1] / layout.unit == len(X)
        state = detector.next_state(state, combine(state, [Contribution(update.values)], layout=layout).total)
    assert "table" in seen
    assert "opaque" not in seen


def test_a_local_scale_is_a_vote() -> None:
    detector = SubspaceDetector(scaling="local")

    schema = WindowedSchema.of(Window((Column("a", -1, 1), Column("b", -1, 1)), length=3))
    layout = layout_of(detector, detector.initial_state(schema))
    assert (layout.kind, layout.rows) == ("votes", 2)
