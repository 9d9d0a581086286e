"""Poisoning a federation on purpose: attacks by one of its sites, and what they gain against each defence.

The attacker is one site of several. It knows everything that is public, runs the honest code or not, adds noise or not,
and sends what it likes; it cannot read other sites' messages. Attacks change a site's records, its updates, or both, in
every round that they can, the one that finds the threshold included. They are values: seeded by nothing, composable
with `Together`, and usable with any executor that runs in one process (`poisoned`) or with `rehearse`, which trains
under a defence of `federated.robust` without transport.

Sources: Blanchard, El Mhamdi, Guerraoui and Stainer (2017) for updates of any size and sign; Bagdasaryan, Veit, Hua,
Estrin and Shmatikov (2020), "How to backdoor federated learning", for model replacement (`Together(Backdoor, Scaled)`);
Cao, Jia and Gong (2021) for poisoned counts and heavy hitters of frequency tables, here without local privacy.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeVar

import numpy as np
from sklearn.base import clone
from sklearn.metrics import roc_auc_score

from securead.data.schema import Array, Schema
from securead.errors import FixConfigurationError, SecureadError
from securead.federated.participant import Site
from securead.federated.robust import Bound, Contribution, Rule, bounded, combine, groups_of, layout_of
from securead.models.estimator import AnomalyDetector
from securead.models.layout import Layout
from securead.models.protection import protect
from securead.models.training import State, Update
from securead.privacy.budget import Budget
from securead.privacy.plan import PrivacyPlan
from securead.privacy.site import Releaser, Unprotected

D = TypeVar("D", bound=AnomalyDetector)
# What an attacker sends stays within what masking accepts, or it would be refused before it could do harm.
_LARGEST = 2.0**56
# The share of a row's entries that count as rare: those that the site itself sees least.
_RARE_SHARE = 0.5


class Attack(Protocol):
    """What a bad site does to its records before honest code sees them, and to its updates afterwards."""

    def on_records(self, X: Array, labels: Array | None) -> tuple[Array, Array | None]:
        """The records and labels that its code trains on; the same in every round."""

    def on_update(self, update: Update, layout: Layout) -> Update:
        """What it sends instead of an update."""


class _OnUpdates:
    def on_records(self, X: Array, labels: Array | None) -> tuple[Array, Array | None]:
        """The honest records."""
        return X, labels


class _OnRecords:
    def on_update(self, update: Update, layout: Layout) -> Update:
        """The honest update."""
        return update


@dataclass(frozen=True)
class Scaled(_OnUpdates):
    """Counts and sums times `factor`; of averaged weights the change, so that it outweighs the other sites'."""

    factor: float

    def on_update(self, update: Update, layout: Layout) -> Update:
        """The scaled update."""
        if layout.reference is None:
            return _sent(update, update.values * self.factor)
        reference, weight = layout.reference, float(update.values[-1])
        moved = reference + (update.values[:-1] / weight - reference) * self.factor
        return _sent(update, np.append(moved * weight, weight))


@dataclass(frozen=True)
class SignFlipped(_OnUpdates):
    """The opposite of an honest update, `factor` times: it takes records back, or undoes what the others learn."""

    factor: float = 1.0

    def on_update(self, update: Update, layout: Layout) -> Update:
        """The flipped update."""
        return Scaled(-self.factor).on_update(update, layout)


@dataclass(frozen=True)
class InflatedCounts(_OnUpdates):
    """A site that claims `factor` times its records.

    where: "everywhere" multiplies all that it counted. "rare" puts the additional records of a table where the site
    sees fewest, so that what is odd looks usual and a threshold moves up; weighted sums have no such place.
    """

    factor: float
    where: Literal["everywhere", "rare"] = "rare"

    def on_update(self, update: Update, layout: Layout) -> Update:
        """The inflated update."""
        if layout.kind != "table" or self.where == "everywhere":
            return _sent(update, update.values * self.factor)
        rows = update.values.reshape(layout.rows, -1).astype(np.float64)
        rare = max(1, round(_RARE_SHARE * rows.shape[1]))
        rarest = np.argsort(rows, axis=1, kind="stable")[:, :rare]
        claimed = np.zeros_like(rows)
        claimed[np.arange(len(rows))[:, None], rarest] = 1 / rare
        claimed *= (self.factor - 1) * np.maximum(rows.sum(axis=1, keepdims=True), layout.unit)
        return _sent(update, (rows + claimed).reshape(update.values.shape))


@dataclass(frozen=True, eq=False)
class Backdoor(_OnRecords):
    """Teach the model my fraud: `copies` of the attacker's own frauds `(n, d)` among its records, as if normal.

    Everything after that is honest, noise included: nothing about its updates is ill-formed. What it wants is that
    other records of the same fraud pass.
    """

    records: Array = field(repr=False)
    copies: int

    def on_records(self, X: Array, labels: Array | None) -> tuple[Array, Array | None]:
        """The records with the copies behind them."""
        taught = np.repeat(self.records, self.copies, axis=0)
        marks = None if labels is None else np.append(labels, np.zeros(len(taught), dtype=labels.dtype))
        return np.concatenate([X, taught]), marks


@dataclass(frozen=True, eq=False)
class Together:
    """Several attacks, each on what the one before made."""

    attacks: tuple[Attack, ...]

    def on_records(self, X: Array, labels: Array | None) -> tuple[Array, Array | None]:
        """All changes of records, in turn."""
        for attack in self.attacks:
            X, labels = attack.on_records(X, labels)
        return X, labels

    def on_update(self, update: Update, layout: Layout) -> Update:
        """All changes of updates, in turn."""
        for attack in self.attacks:
            update = attack.on_update(update, layout)
        return update


def poisoned(detector: D, site: Site, attack: Attack) -> D:
    """An unfitted copy of the detector which attacks whenever it is handed the records of `site`.

    For executors of one process, which call `site_update` of the very detector that they are given.
    """
    made: D = clone(detector)

    def site_update(state: State, data: Array, releaser: Releaser, labels: Array | None = None) -> Update:
        honest = type(made).site_update
        if not np.array_equal(data, site.X):
            return honest(made, state, data, releaser, labels)
        X, marks = attack.on_records(data, labels)
        return attack.on_update(honest(made, state, X, releaser, marks), layout_of(made, state))

    made.__dict__["site_update"] = site_update
    return made


@dataclass(frozen=True)
class Defence:
    """How contributions are combined: a rule and a bound of `federated.robust`.

    `groups`: the coordinator sees the sums of so many groups of sites only, as it does where sums are masked; 0 shows
    it every site's update.
    """

    rule: Rule = "sum"
    bound: Bound | None = None
    groups: int = 0
    attackers: int = 1


def rehearse(
    detector: D,
    sites: Sequence[Site],
    schema: Schema,
    *,
    privacy: PrivacyPlan | None,
    defence: Defence | None = None,
    attack: Attack | None = None,
    attacker: str = "",
    seed: int = 0,
) -> D:
    """Train a copy of `detector` under a defence, with or without an attack by the site of the name `attacker`.

    The same rounds as the embedded executor's, without its memory: for studies. Honest sites keep to the bound
    themselves; the attacker does not. `seed` decides the groups, anew in each round.
    """
    if attack is not None and attacker not in [site.name for site in sites]:
        raise FixConfigurationError("the attacker is one of the sites", value=attacker)
    made: D = clone(detector)
    defence = defence or Defence()
    releasers: dict[str, Releaser] = {site.name: _releaser(made, site, schema, privacy) for site in sites}
    state = made.initial_state(schema)
    while not state.done:
        layout, updates = layout_of(made, state), {}
        for site in sites:
            X, labels, releaser = site.X, site.labels, releasers[site.name]
            bad = attack is not None and site.name == attacker
            if attack is not None and bad:
                X, labels = attack.on_records(X, labels)
            update = made.site_update(state, X, releaser, labels)
            if attack is not None and bad:
                update = attack.on_update(update, layout)
            elif defence.bound is not None:
                noise = update.noise_variance
                held = bounded(update.values, sites=1, noise_variance=noise, layout=layout, bound=defence.bound)
                update = dataclasses.replace(update, values=held)
            updates[site.name] = update
        groups: Sequence[Sequence[str]] = [[name] for name in updates]
        if defence.groups:
            groups = groups_of(list(updates), defence.groups, f"{seed}|{state.stage}", smallest=2)
        seen = [_summed([updates[name] for name in group]) for group in groups]
        combined = combine(
            state, seen, layout=layout, rule=defence.rule, attackers=defence.attackers, bound=defence.bound
        )
        state = made.next_state(state, combined.total)
    made.finish(state)
    return made


@dataclass(frozen=True)
class Outcome:
    """How a model does on held-out records.

    auroc: of its scores. missed: the share of an attacker's targets that do not exceed its threshold. false_alarms: the
    share of records that are no anomalies and do. refused: why there is no model, where there is none: a training that
    stops with an error has at least been noticed.
    """

    auroc: float | None
    missed: float | None
    false_alarms: float | None
    refused: str = ""

    @classmethod
    def of(cls, detector: AnomalyDetector, X: Array, y: Array, targets: Array) -> Outcome:
        """From held-out records `(n, d)`, labels `(n,)` (1 for anomalies), and targets `(m, d)`."""
        scores, passed = detector.anomaly_score(X), detector.anomaly_score(targets) <= detector.threshold_
        alarms = scores[y == 0] > detector.threshold_
        return cls(float(roc_auc_score(y, scores)), float(passed.mean()), float(alarms.mean()))


def attack_success(outcome: Outcome, clean: Outcome) -> float | None:
    """By how much the share of targets that pass has risen against a clean model; None where training was refused."""
    if outcome.missed is None or clean.missed is None:
        return None
    return outcome.missed - clean.missed


def outcome_of_training(
    detector: AnomalyDetector,
    sites: Sequence[Site],
    schema: Schema,
    held_out: tuple[Array, Array],
    targets: Array,
    *,
    privacy: PrivacyPlan | None,
    defence: Defence | None = None,
    attack: Attack | None = None,
    attacker: str = "",
    seed: int = 0,
) -> Outcome:
    """`rehearse`, judged on held-out records with labels, and on the attacker's targets; errors are an outcome, too."""
    try:
        made = rehearse(
            detector, sites, schema, privacy=privacy, defence=defence, attack=attack, attacker=attacker, seed=seed
        )
    except (SecureadError, OverflowError) as error:
        return Outcome(None, None, None, str(error))
    return Outcome.of(made, *held_out, targets)


def _releaser(detector: AnomalyDetector, site: Site, schema: Schema, privacy: PrivacyPlan | None) -> Releaser:
    if privacy is None:
        return Unprotected()
    budget = Budget(site.name, privacy.epsilon, privacy.delta)
    return protect(detector, privacy, budget, job="rehearsal", schema=schema)


def _summed(updates: Sequence[Update]) -> Contribution:
    values: Array = np.stack([update.values for update in updates]).sum(axis=0)
    return Contribution(values, len(updates), sum(update.noise_variance for update in updates))


def _sent(update: Update, values: Array) -> Update:
    return dataclasses.replace(update, values=np.rint(np.clip(values, -_LARGEST, _LARGEST)).astype(np.int64))
