"""Averages of networks: whole or in few bits, FedAvg, FedProx and FedAdam; sums say all, and a resumed run repeats."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from securead.data.schema import Schema
from securead.errors import FixConfigurationError
from securead.federated.embedded import train
from securead.federated.participant import Site
from securead.models.autoencoder import AutoEncoder
from securead.models.averaging import FIRST, SECOND, Quantised, Server, Whole
from securead.models.training import DONE, State, Total, Update, add_up, bits_of_sum
from securead.privacy.plan import PrivacyPlan
from securead.privacy.site import Releaser, Unprotected

STUDY = PrivacyPlan(epsilon=3.0, delta=1e-6, noise_source="seeded-study", seed=4)
RNG = np.random.default_rng(8)
X = RNG.normal(size=(3000, 2)) @ RNG.normal(size=(2, 5)) + 0.2 * RNG.normal(size=(3000, 5))
SCHEMA = Schema.observed(X, widen=0.1).with_scale(X.mean(axis=0), X.std(axis=0))
SITES = [Site("a", X[:1500]), Site("b", X[1500:2400]), Site("c", X[2400:])]
VARIANTS: list[dict[str, Any]] = [
    {"proximal": 0.3},
    {"server_optimizer": "adam"},
    {"update_bits": 8},
    {"update_bits": 12, "server_optimizer": "adam", "proximal": 0.3, "average_last": 2},
]


def make(**parameters: Any) -> AutoEncoder:
    return AutoEncoder(**{"hidden": 4, "rounds": 3, "sampling_prob": 0.1, "patience": 9, **parameters})


# --- quantised changes --------------------------------------------------------------------------------------------


@given(
    st.integers(4, 32),
    st.lists(st.floats(1, 1e7), min_size=1, max_size=12),
    st.floats(1e-3, 4),
    st.floats(0.1, 10),
    st.integers(0, 2**32),
)
@settings(max_examples=200)
def test_values_and_sums_fit_their_bits(
    bits: int, records: list[float], reach: float, spread: float, seed: int
) -> None:
    rng, before = np.random.default_rng(seed), np.zeros(40)
    sites, top = len(records), 2 ** (bits - 1) - 1
    # The mean is a noised one: anything may be said of it without a bit too many.
    shipped = Quantised(bits, reach, float(np.mean(records)) * rng.uniform(0.1, 3), sites)
    updates = [shipped.values(spread * reach * rng.normal(size=40), before, n, rng.random) for n in records]
    for values in updates:
        assert values.dtype == np.int64
        assert np.abs(values).max() <= top
        assert 1 <= values[-1]
    total = np.sum(updates, axis=0)
    word = bits_of_sum(bits, sites)
    assert word == bits + int(np.ceil(np.log2(sites)))
    assert np.abs(total).max() < 2 ** (word - 1)
    # Sent modulo 2**word, as it may be under masks, the sum is the same.
    modulus = 1 << word
    wrapped = sum(values.astype(object) % modulus for values in updates) % modulus
    assert np.array_equal(np.where(wrapped >= modulus // 2, wrapped - modulus, wrapped), total)
    assert np.abs(shipped.average(before, total)).max() <= reach * (1 + 1e-12)


def test_bits_of_sums() -> None:
    assert [bits_of_sum(8, sites) for sites in (1, 2, 3, 4, 5, 16)] == [8, 9, 10, 10, 11, 12]
    assert bits_of_sum(64, 3) == 64


class _Constant:
    """Uniform numbers as close to an end as there are."""

    def __init__(self, value: float) -> None:
        self.value = value

    def __call__(self, count: int) -> np.ndarray:
        return np.full(count, self.value)


@pytest.mark.parametrize("uniform", [2.0**-54, 1 - 2.0**-53], ids=["low", "high"])
def test_whole_steps_are_never_rounded(uniform: float) -> None:
    shipped = Quantised(8, 0.5, mean_records=100.0, sites=1)
    change = np.array([-0.5, 0.0, 0.5, 9.0, -9.0])
    values = shipped.values(change, np.zeros(5), 100.0, _Constant(uniform))
    assert values.tolist() == [-127, 0, 127, 127, -127, 127]


def test_rounding_is_right_on_average_and_no_rounding_to_nearest() -> None:
    """Mean over 40,000 draws within five standard errors of the change; each value one of its two neighbours."""
    rng, change = np.random.default_rng(0), np.linspace(-0.9, 0.9, 37)
    shipped = Quantised(5, 1.0)
    draws = np.array([shipped.values(change, np.zeros(37), 1.0, rng.random)[:-1] for _ in range(40_000)])
    exact = change * 15
    deviation = np.sqrt((exact - np.floor(exact)) * (np.ceil(exact) - exact))
    assert (np.abs(draws.mean(axis=0) - exact) <= 5 * deviation / 200 + 1e-12).all()
    assert np.abs(draws - exact).max() < 1
    assert draws.std(axis=0) == pytest.approx(deviation, abs=0.01)


def test_weights_follow_records_up_to_four_average_sites() -> None:
    def weights(*records: float) -> list[int]:
        shipped = Quantised(10, 1.0, float(np.mean(records)), len(records))
        return [int(shipped.values(np.ones(1), np.zeros(1), n, np.random.default_rng(0).random)[-1]) for n in records]

    assert weights(600, 300, 100) == [307, 153, 51]
    assert weights(1) == [511]
    assert weights(*[1] * 9, 10**6) == [1] * 9 + [511]


def test_few_bits_come_close_to_whole_weights() -> None:
    """The average change's error: at most what rounding at random at each site gives, halved by every bit."""
    rng, before = np.random.default_rng(1), np.zeros(500)
    trained, records = [0.1 * rng.normal(size=500) for _ in range(3)], [600.0, 300.0, 100.0]
    whole = sum(Whole().values(t, before, n, rng.random) for t, n in zip(trained, records, strict=True))
    exact = Whole().average(before, whole)
    assert exact == pytest.approx(np.average(trained, axis=0, weights=records), abs=1e-7)
    errors = []
    for bits in (8, 12, 16, 20):
        shipped = Quantised(bits, 0.4, float(np.mean(records)), 3)
        total = sum(shipped.values(t, before, n, rng.random) for t, n in zip(trained, records, strict=True))
        errors.append(np.abs(shipped.average(before, total) - exact).max())
        assert errors[-1] < 0.4 * 3 * 3 / 2 ** (bits - 1) * 2
    assert all(finer < coarser / 8 for coarser, finer in itertools.pairwise(errors))


# --- the coordinator's step ---------------------------------------------------------------------------------------


def test_fedadam_follows_its_paper() -> None:
    """Two steps by hand, Reddi et al. 2021, algorithm 2, and none beyond the limit."""
    server = Server("adam", learning_rate=0.1, betas=(0.9, 0.99), tau=0.01, limit=1.0)
    before, values = np.array([0.0, 0.5, 0.99]), {}
    first, second = np.zeros(3), np.full(3, 0.01**2)
    for average in (np.array([0.2, 0.5, 1.0]), np.array([0.1, 0.4, 1.0])):
        change = average - before
        first = 0.9 * first + 0.1 * change
        second = 0.99 * second + 0.01 * change**2
        expected = np.clip(before + 0.1 * first / (np.sqrt(second) + 0.01), -1, 1)
        values |= server.step(before, average, values)
        assert values["theta"] == pytest.approx(expected)
        assert values[FIRST] == pytest.approx(first)
        assert values[SECOND] == pytest.approx(second)
        before = values["theta"]
    assert before[2] == 1.0


def test_an_average_is_taken_as_it_is() -> None:
    average = np.array([0.3, -2.0])
    found = Server("average", 1.0, (0.9, 0.99), 1e-3, 1.0).step(np.zeros(2), average, {})
    assert list(found) == ["theta"]
    assert found["theta"] is average


# --- in training --------------------------------------------------------------------------------------------------


def test_no_parameter_means_federated_averaging() -> None:
    """Equal to the weighted mean of what the sites train, rounded to 2**-24."""
    detector, state = make(), make().initial_state(SCHEMA)
    releasers = [Unprotected() for _ in SITES]
    for _ in range(2):
        updates = [detector.site_update(state, s.X, r) for s, r in zip(SITES, releasers, strict=True)]
        state = detector.next_state(state, add_up(state, updates))
    assert {update.bits for update in updates} == {64}
    weights = [update.values[-1] / (1 << 24) for update in updates]
    assert weights == [1500, 900, 600]
    means = np.average([update.values[:-1] / update.values[-1] for update in updates], axis=0, weights=weights)
    assert state.values["theta"] == pytest.approx(means, abs=1e-9)


@pytest.mark.parametrize("privacy", [None, STUDY], ids=["exact", "study"])
@pytest.mark.parametrize("parameters", VARIANTS, ids=str)
def test_variants_repeat_and_do_not_see_the_order_of_sites(
    parameters: dict[str, Any], privacy: PrivacyPlan | None
) -> None:
    found, again, reordered, plain = (
        train(make(**chosen), sites, SCHEMA, privacy=privacy).values_["theta"]
        for chosen, sites in ((parameters, SITES), (parameters, SITES), (parameters, SITES[::-1]), ({}, SITES))
    )
    assert np.array_equal(found, again)
    assert np.array_equal(found, reordered)
    assert not np.array_equal(found, plain)
    assert np.abs(found).max() <= 1


@pytest.mark.parametrize("parameters", [{}, *VARIANTS], ids=str)
def test_variants_learn(parameters: dict[str, Any]) -> None:
    rng = np.random.default_rng(1)
    odd = rng.permuted(X[:600], axis=0)  # each column is as it should be, their relation is broken
    detector = train(make(rounds=6, learning_rate=0.02, **parameters), SITES, SCHEMA, privacy=None)
    held, y = np.vstack([X[600:1200], odd]), np.repeat([0, 1], 600)
    areas = [roc_auc_score(y, score(held)) for score in (detector.anomaly_score, detector.untrained_score)]
    assert areas[0] > areas[1] + 0.1, areas


def test_a_stronger_pull_keeps_sites_together() -> None:
    """How far a round's sites end from the common model, over mu: less and less."""
    apart = []
    for proximal in (0.0, 10.0, 1000.0):
        detector = make(proximal=proximal)
        state, releasers = detector.initial_state(SCHEMA), [Unprotected() for _ in SITES]
        for _ in range(2):
            updates = [detector.site_update(state, s.X, r) for s, r in zip(SITES, releasers, strict=True)]
            before, state = state, detector.next_state(state, add_up(state, updates))
        ends = [update.values[:-1] / update.values[-1] for update in updates]
        apart.append(max(float(np.linalg.norm(end - before.values["theta"])) for end in ends))
    assert apart[0] > 1.1 * apart[1] > 1.1 * 1.1 * apart[2] > 0, apart


def test_the_plan_is_charged_the_same_whatever_the_averaging() -> None:
    plan = PrivacyPlan(epsilon=3.0, delta=1e-6)
    plain, varied = (train(make(**chosen), SITES, SCHEMA, privacy=plan) for chosen in ({}, VARIANTS[-1]))
    assert varied.statement_ == plain.statement_


@pytest.mark.parametrize("bits", [8, 16])
def test_a_detector_s_updates_fit_the_bits_that_they_name(bits: int) -> None:
    seen = list[Update]()

    class Watched(AutoEncoder):
        def model_update(self, state: State, Z: np.ndarray, releaser: Releaser) -> Update:
            seen.append(super().model_update(state, Z, releaser))
            return seen[-1]

    plan = PrivacyPlan(epsilon=3.0, delta=1e-6)
    parameters = make(update_bits=bits).get_params()
    train(Watched(**parameters), SITES, SCHEMA, privacy=plan)
    rounds = [update for update in seen if update.stage.startswith("round-")]
    assert len(rounds) == 9
    assert {update.bits for update in rounds} == {bits}
    assert {update.bits for update in seen if update not in rounds} == {64}
    for update in rounds:
        assert np.abs(update.values).max() < 2 ** (bits - 1)
        assert update.values[-1] >= 1


class Died(BaseException):
    """Stands for the process's end."""


@pytest.mark.parametrize("privacy", [STUDY, dataclasses.replace(STUDY, noise_source="system", seed=None)], ids=str)
def test_a_resumed_run_sends_what_it_had_sent(tmp_path: Path, privacy: PrivacyPlan) -> None:
    sent, dies_at = dict[tuple[str, int], set[bytes]](), list[str]()

    class Dying(AutoEncoder):
        def site_update(
            self, state: State, data: np.ndarray, releaser: Releaser, labels: np.ndarray | None = None
        ) -> Update:
            update = super().site_update(state, data, releaser, labels)
            sent.setdefault((state.stage, len(data)), set()).add(update.values.tobytes())
            if dies_at and state.stage == dies_at[0] and len(data) == len(SITES[1].X):
                raise Died(dies_at.pop(0))
            return update

    parameters = make(**VARIANTS[-1]).get_params()
    dies_at[:] = ["round-1", "round-2", "check-2", "round-3"]
    while True:
        try:
            resumed = train(Dying(**parameters), SITES, SCHEMA, privacy=privacy, checkpoint=tmp_path / "running")
            break
        except Died:
            continue
    assert not dies_at
    assert {len(forms) for forms in sent.values()} == {1}
    if privacy is STUDY:
        whole = train(AutoEncoder(**parameters), SITES, SCHEMA, privacy=privacy)
        assert {name: array.tolist() for name, array in resumed.values_.items()} == {
            name: array.tolist() for name, array in whole.values_.items()
        }


def test_sites_round_by_their_own_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two sites of one size with the same change: if they rounded alike, their errors would add up."""
    monkeypatch.setattr("securead.models.network.train_exactly", lambda shape, theta, *_: theta + 0.006)
    detector = make(update_bits=4)
    start = detector.next_state(detector.initial_state(SCHEMA), Total("records", np.array([2000 << 20]), 0.0, 2))
    first, again, other = (
        detector.site_update(start, part, Unprotected()).values for part in (X[:1000], X[:1000], X[1000:2000])
    )
    assert np.array_equal(first, again)
    assert set(first[:-1]) == {0, 1}
    assert 0.2 < (first != other).mean() < 0.8


def test_central_fits_take_the_parameters_too() -> None:
    detector = make(**VARIANTS[-1]).fit(X)
    assert np.isfinite(detector.anomaly_score(X)).all()
    assert detector.compile().score(X[:10]).shape == (10,)
    assert State(DONE, SCHEMA, detector.values_).values[FIRST].shape == detector.values_["theta"].shape


@pytest.mark.parametrize(
    "parameters",
    [
        {"proximal": -0.1},
        {"proximal": float("nan")},
        {"proximal": "strong"},
        {"server_optimizer": "yogi"},
        {"server_learning_rate": 0.0},
        {"server_learning_rate": float("inf")},
        {"server_betas": 0.9},
        {"server_betas": (0.9,)},
        {"server_betas": (0.9, 1.0)},
        {"server_betas": ("a", 0.9)},
        {"server_tau": 0},
        {"update_bits": 3},
        {"update_bits": 33},
        {"update_bits": 8.0},
        {"update_bits": True},
        {"update_bits": "8"},
    ],
    ids=str,
)
def test_bad_parameters_are_named(parameters: dict[str, Any]) -> None:
    name = next(iter(parameters))
    with pytest.raises(FixConfigurationError, match=name):
        make(**parameters).fit(X)
    with pytest.raises(FixConfigurationError, match=name):
        train(make(**parameters), SITES, SCHEMA, privacy=STUDY)


def test_a_recipe_s_lists_will_do() -> None:
    detector = make(server_optimizer="adam", server_betas=[0.8, 0.9])
    assert train(detector, SITES, SCHEMA, privacy=None).values_[FIRST].any()
