"""Attacks do what they say, move an undefended model, and gain less under a defence. Seeded, with margins."""

from __future__ import annotations

import dataclasses
from typing import Any

import dp_accounting
import numpy as np
import pytest

from securead.audit.poisoning import (
    Attack,
    Backdoor,
    Defence,
    InflatedCounts,
    Outcome,
    Scaled,
    SignFlipped,
    Together,
    attack_success,
    outcome_of_training,
    poisoned,
    rehearse,
)
from securead.data.generators.payments import generate_payments
from securead.errors import FixConfigurationError
from securead.federated.embedded import train
from securead.federated.federation import Federation
from securead.federated.participant import Site
from securead.federated.robust import Bound
from securead.models.autoencoder import AutoEncoder
from securead.models.estimator import AnomalyDetector
from securead.models.forest import IsolationForest
from securead.models.histogram import HistogramDetector
from securead.models.layout import Layout
from securead.models.subspace import SubspaceDetector
from securead.models.training import Update
from securead.privacy.plan import PrivacyPlan

MADE = generate_payments(rows=12_000, banks=5, fraud_rate=0.03, seed=3)
X, Y, KIND = MADE.table.X, MADE.table.y, MADE.kind
HELD = np.random.default_rng(0).random(len(X)) < 0.3
SITES = [Site(name, X[(MADE.site == at) & ~HELD]) for at, name in enumerate(MADE.sites)]
BAD = SITES[2]
TAUGHT, TARGETS = X[(KIND == 1) & ~HELD], X[(KIND == 1) & HELD]
BACKDOOR = Backdoor(TAUGHT, copies=2 * len(BAD.X) // len(TAUGHT))
PLAN = PrivacyPlan(4.0, 1e-6, noise_source="seeded-study", seed=1)
WISH: dict[str, Any] = {"threshold": "private", "contamination": 0.05}
HISTOGRAM = HistogramDetector(**WISH)
NETWORK = AutoEncoder(hidden=4, rounds=2, sampling_prob=0.1, learning_rate=0.02, **WISH)


def outcome(
    detector: AnomalyDetector, attack: Attack | None = None, defence: Defence | None = None, *, targets: Any = TARGETS
) -> Outcome:
    """Under privacy noise, the attacker being the third bank of five."""
    return outcome_of_training(
        detector,
        SITES,
        MADE.schema,
        (X[HELD], Y[HELD]),
        targets,
        privacy=PLAN,
        defence=defence,
        attack=attack,
        attacker=BAD.name,
    )


# --- what attacks send ------------------------------------------------------------------------------------------------

TABLE = Layout("table", unit=10, rows=2)
COUNTS = np.array([[50, 30, 10, 10], [0, 0, 40, 60]])


def sent(attack: Attack, values: Any, layout: Layout) -> Any:
    update = Update("stage", np.array(values), 1, 2.5, dp_accounting.NonPrivateDpEvent())
    made = attack.on_update(update, layout)
    assert (made.stage, made.noise_variance, made.values.dtype) == ("stage", 2.5, np.int64)
    return made.values


def test_updates_of_any_size_and_sign() -> None:
    assert np.array_equal(sent(Scaled(7), COUNTS, TABLE), 7 * COUNTS)
    assert np.array_equal(sent(SignFlipped(), COUNTS, TABLE), -COUNTS)
    reference = np.array([0.5, -0.25])
    layout, values = Layout("weighted", unit=1000, reference=reference), [70_000, -15_000, 100_000]
    for attack, factor in ((Scaled(10), 10), (SignFlipped(3), -3)):
        found = sent(attack, values, layout)
        assert found[-1] == 100_000
        assert np.allclose(found[:-1] / found[-1] - reference, factor * np.array([0.2, 0.1]))
    assert np.abs(sent(Scaled(1e300), COUNTS, TABLE)).max() <= 2**56


def test_inflated_counts_lie_where_the_site_sees_least() -> None:
    assert np.array_equal(sent(InflatedCounts(5, "everywhere"), COUNTS, TABLE), 5 * COUNTS)
    found = sent(InflatedCounts(5), COUNTS, TABLE)
    assert found.tolist() == [[50, 30, 210, 210], [200, 200, 40, 60]]
    assert np.array_equal(sent(InflatedCounts(5), [4, 2, 9], Layout("weighted")), [20, 10, 45])


def test_a_backdoor_is_honest_but_for_its_records() -> None:
    records, labels = Backdoor(TAUGHT[:2], 3).on_records(BAD.X, np.ones(len(BAD.X), dtype=np.int8))
    assert np.array_equal(records[: len(BAD.X)], BAD.X)
    assert np.array_equal(records[len(BAD.X) :], np.repeat(TAUGHT[:2], 3, axis=0))
    assert labels is not None
    assert labels[-6:].tolist() == [0] * 6
    assert np.array_equal(sent(Backdoor(TAUGHT, 3), COUNTS, TABLE), COUNTS)
    both = Together((Backdoor(TAUGHT[:2], 3), Scaled(2), Scaled(3)))
    assert len(both.on_records(BAD.X, None)[0]) == len(BAD.X) + 6
    assert np.array_equal(sent(both, COUNTS, TABLE), 6 * COUNTS)


# --- the rehearsal is the real thing ----------------------------------------------------------------------------------


@pytest.mark.parametrize("detector", [HISTOGRAM, NETWORK], ids=lambda detector: type(detector).__name__)
@pytest.mark.parametrize("attack", [None, Together((BACKDOOR, Scaled(3)))], ids=["honest", "attacked"])
def test_a_rehearsal_is_what_the_embedded_executor_does(detector: AnomalyDetector, attack: Attack | None) -> None:
    wanted = train(detector if attack is None else poisoned(detector, BAD, attack), SITES, MADE.schema, privacy=PLAN)
    found = rehearse(detector, SITES, MADE.schema, privacy=PLAN, attack=attack, attacker=BAD.name)
    assert found.threshold_ == wanted.threshold_
    assert np.array_equal(found.anomaly_score(X), wanted.anomaly_score(X))


def test_an_attacker_is_one_of_the_sites_and_attacks_alone() -> None:
    with pytest.raises(FixConfigurationError, match="one of the sites"):
        rehearse(HISTOGRAM, SITES, MADE.schema, privacy=None, attack=Scaled(2), attacker="nobody")
    stranger = dataclasses.replace(BAD, X=BAD.X + 1)
    found = train(poisoned(HISTOGRAM, stranger, Scaled(50)), SITES, MADE.schema, privacy=PLAN)
    assert found.threshold_ == train(HISTOGRAM, SITES, MADE.schema, privacy=PLAN).threshold_


# --- attacks work, and defences against them --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "detector",
    [HISTOGRAM, IsolationForest(n_estimators=30, **WISH), SubspaceDetector(**WISH)],
    ids=lambda detector: type(detector).__name__,
)
def test_a_backdoor_passes_undefended_and_not_under_a_robust_rule(detector: AnomalyDetector) -> None:
    clean, attacked = outcome(detector), outcome(detector, BACKDOOR)
    assert attack_success(attacked, clean) > 0.4
    for rule in ("median", "krum"):
        defence = Defence(rule)
        assert attack_success(outcome(detector, BACKDOOR, defence), outcome(detector, None, defence)) < 0.2


def test_a_replaced_network_is_stopped_by_a_bound() -> None:
    attack = Together((BACKDOOR, Scaled(30)))
    clean, attacked = outcome(NETWORK), outcome(NETWORK, attack)
    assert attacked.refused or attacked.auroc < clean.auroc - 0.1
    held = outcome(NETWORK, attack, Defence(bound=Bound(records=4000, change=1.0)))
    assert held.auroc > clean.auroc - 0.05


def test_medians_of_masked_groups_withstand_inflated_counts() -> None:
    """With real masks, through the executor: the groups, drawn from the run's id, differ every time."""
    attack = InflatedCounts(200)
    clean, attacked = outcome(HISTOGRAM), outcome(HISTOGRAM, attack)
    assert attacked.auroc < clean.auroc - 0.2
    six = [*SITES[1:], *(Site(f"{SITES[0].name}-{at}", part) for at, part in enumerate(np.array_split(SITES[0].X, 2)))]
    groups = Federation(aggregation="masked", rule="median", groups=3)
    found = train(poisoned(HISTOGRAM, BAD, attack), six, MADE.schema, privacy=PLAN, federation=groups)
    assert Outcome.of(found, X[HELD], Y[HELD], TARGETS).auroc > clean.auroc - 0.05


def test_an_honest_bound_changes_nothing() -> None:
    bound = Bound(records=max(len(site.X) for site in SITES), change=100.0)
    for detector in (HISTOGRAM, NETWORK):
        assert outcome(detector, None, Defence(bound=bound)) == outcome(detector)


def test_a_training_that_stops_is_an_outcome() -> None:
    found = outcome(HISTOGRAM, SignFlipped(50))
    assert found.auroc is None
    assert "too few records" in found.refused
    assert attack_success(found, outcome(HISTOGRAM)) is None
