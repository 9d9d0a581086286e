"""`check_detector`: what every detector must satisfy, whoever wrote it."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from securead import codec
from securead.data.partition import partition
from securead.data.schema import Array, Schema
from securead.errors import FixInputError, PrivacyRefusedError
from securead.federated.embedded import train
from securead.federated.participant import Site
from securead.models import bundle
from securead.models.estimator import AnomalyDetector
from securead.models.protection import protect
from securead.models.registry import make_detector
from securead.models.threshold import Costs, FalseAlarms
from securead.models.training import add_up
from securead.privacy.budget import Budget
from securead.privacy.plan import PrivacyPlan, epsilon_of
from securead.privacy.site import Unprotected

_ROWS, _WIDTH = 4000, 6
_PLAN = PrivacyPlan(epsilon=8.0, delta=1e-5)


def check_detector(name: str, parameters: Mapping[str, Any] | None = None) -> None:
    """Run the whole suite over a registered detector; raises `AssertionError` naming the first broken promise.

    Promises: scikit-learn's estimator checks; the public half of the compiled program survives a round trip; float
    detector and integer program rank alike; exact sums do not depend on how records are split among sites; a record
    changes an update by no more than the stated sensitivity; a private run stays within its plan, charges every stage
    and adds noise of the stated size; what a budget cannot pay for is refused before data is read; bad input is named.
    """
    make = functools.partial(make_detector, name, parameters or {})
    for check in detector_checks():
        check(make)


def detector_checks() -> tuple[Callable[[Callable[[], AnomalyDetector]], None], ...]:
    """The single checks, for test runners that report each."""
    return (
        check_scikit_learn,
        check_program_agrees,
        check_public_half_travels,
        check_split_invariance,
        check_sensitivity,
        check_private_run,
        check_budget_refused_first,
        check_bad_input,
    )


def check_scikit_learn(make: Callable[[], AnomalyDetector]) -> None:
    """scikit-learn's own `check_estimator`, with a threshold that needs no labels: its labels are no anomalies."""
    from sklearn.utils.estimator_checks import check_estimator

    detector = make()
    if isinstance(detector.threshold, FalseAlarms | Costs):
        detector.set_params(threshold="private")
    check_estimator(detector)


def check_program_agrees(make: Callable[[], AnomalyDetector]) -> None:
    """The integer program ranks records as the float detector does (Spearman >= .999)."""
    from scipy.stats import spearmanr

    X, _ = _records()
    detector = make().fit(X, _labels(X))
    agreement = spearmanr(detector.anomaly_score(X), detector.compile().score(X)).statistic
    assert agreement >= 0.999, f"float detector and integer program disagree: Spearman {agreement}"
    # Records of few distinct values have few distinct scores, and a threshold falls among them.
    coarse = np.round(X).clip(-1, 1)
    detector = make().fit(coarse, _labels(X))
    program = detector.compile()
    if program.public.type_tag == "table":
        exact, integer = detector.anomaly_score(coarse), program.score(coarse)
        agree = np.array_equal(exact > detector.threshold_, integer > detector.threshold_)
        assert agree, "float detector and integer program flag other records"


def check_public_half_travels(make: Callable[[], AnomalyDetector]) -> None:
    """The public half is plain JSON and comes back equal, digest and all."""
    X, _ = _records()
    model = bundle.make(make().fit(X, _labels(X)), "check").public
    again = codec.from_plain(type(model.program), codec.to_plain(model.program), where="program")
    assert again == model.program and again.digest == model.program.digest, "the public half does not survive JSON"


def check_split_invariance(make: Callable[[], AnomalyDetector]) -> None:
    """Before noise, the first round's total is bit for bit the same however records are split among sites."""
    X, schema = _records()
    detector = make()
    state = detector.initial_state(schema)
    labels = _labels(X)
    whole = detector.site_update(state, X, Unprotected(), labels).values
    for shares in ((1, 1), (20, 2, 1), (1,) * 7):
        split = partition(len(X), shares, seed=3)
        parts = [detector.site_update(state, X[rows], Unprotected(), labels[rows]) for rows in split]
        assert np.array_equal(add_up(state, parts).values, whole), f"a split {shares} changes the sum"


def check_sensitivity(make: Callable[[], AnomalyDetector]) -> None:
    """Removing any record, ordinary or extreme, changes each stage's sums by at most the stated L2 sensitivity."""
    X, schema = _records()
    X = np.vstack([X, [[1e9] * _WIDTH, [-1e9] * _WIDTH, [0.0] * _WIDTH]])
    labels, detector = _labels(X), make()
    state = detector.initial_state(schema)
    while not state.done:
        update = detector.site_update(state, X, Unprotected(), labels)
        for row in (0, 17, len(X) - 3, len(X) - 2, len(X) - 1):
            if update.l2_sensitivity is None:
                break
            rest, known = np.delete(X, row, axis=0), np.delete(labels, row)
            # The record goes last, because a site's own coins are tossed in the order of records.
            whole = detector.site_update(state, np.vstack([rest, X[row]]), Unprotected(), np.append(known, labels[row]))
            without = detector.site_update(state, rest, Unprotected(), known)
            change = float(np.linalg.norm((whole.values - without.values).astype(float)))
            # float64 rounds the norm itself in its last bits
            assert change <= update.l2_sensitivity * (1 + 1e-12), (
                f"stage {state.stage!r}: record {row} changes the sums by {change} > {update.l2_sensitivity}"
            )
        state = detector.next_state(state, add_up(state, [update]))


def check_private_run(make: Callable[[], AnomalyDetector]) -> None:
    """A private run charges every stage once, stays within epsilon, adds noise, and says so in its statement."""
    X, schema = _records()
    detector = make()
    budget = Budget("site", _PLAN.epsilon, _PLAN.delta)
    site = protect(detector, _PLAN, budget, job="check", schema=schema)
    state, charged = detector.initial_state(schema), list[str]()
    while not state.done:
        exact = detector.site_update(state, X, Unprotected(), _labels(X))
        update = detector.site_update(state, X, site, _labels(X))
        noise = (update.values - exact.values).astype(float)
        # The mean square of m Gaussians lies within 6 sqrt(2/m) of the variance but once in a billion; fewer than 150
        # entries cannot tell a noise scale from half of it.
        if noise.size >= 150 and update.l2_sensitivity is not None:
            ratio = float((noise**2).mean()) / update.noise_variance
            assert abs(ratio - 1) < 6 * np.sqrt(2 / noise.size), f"stage {state.stage!r}: noise variance off by {ratio}"
        assert noise.any(), f"stage {state.stage!r} left the site without noise"
        state = detector.next_state(state, add_up(state, [update]))
        charged.append(update.stage)
    purposes = [charge.purpose for charge in budget.ledger.charges]
    assert purposes == charged, f"charged {purposes}, not {charged}"
    assert [stage for stage in detector.stages() if stage in charged] == charged, f"stages out of order: {charged}"
    planned = epsilon_of(
        [stage.event_terms(site.noise_multipliers[name]) for name, stage in detector.stages().items()], _PLAN.delta
    )
    assert 0.98 * _PLAN.epsilon < planned <= _PLAN.epsilon, f"planned {planned} of {_PLAN.epsilon}"
    assert 0 < budget.spent() <= planned, f"spent {budget.spent()}, planned {planned}"
    halves = [
        Site(name, X[part], labels=_labels(X)[part]) for name, part in (("a", slice(300)), ("b", slice(300, None)))
    ]
    trained = train(make(), halves, schema, privacy=_PLAN)
    assert trained.statement_.private and len(trained.statement_.sites) == 2, "the statement does not claim privacy"
    assert not make().fit(X, _labels(X)).statement_.private, "an exact fit must not claim privacy"


def check_budget_refused_first(make: Callable[[], AnomalyDetector]) -> None:
    """A budget that cannot pay for all stages refuses the run when it is set up, before there are records."""
    budget = Budget("site", 1.0, _PLAN.delta)
    try:
        protect(make(), _PLAN, budget, job="check", schema=_records()[1])
    except PrivacyRefusedError:
        assert not budget.ledger.charges, "a refused run was charged"
    else:
        raise AssertionError("a run beyond the budget was not refused")


def check_bad_input(make: Callable[[], AnomalyDetector]) -> None:
    """NaN and a wrong width are refused in training with an error that names the site."""
    X, schema = _records()
    for bad in (np.where(np.arange(X.size).reshape(X.shape) == 7, np.nan, X), X[:, :-1]):
        try:
            train(
                make(), [Site("good", X, labels=_labels(X)), Site("bad", bad, labels=_labels(X))], schema, privacy=None
            )
        except FixInputError as error:
            assert "'bad'" in str(error), f"the error does not name the site: {error}"
        else:
            raise AssertionError("ill-formed records were accepted")


def _labels(X: Array) -> Array:
    """Known anomalies: the records farthest from the rest. They serve thresholds that ask for labels."""
    distance = np.abs(X).sum(axis=1)
    marks: Array = (distance > np.quantile(distance, 0.6)).astype(np.int8)
    return marks


def _records() -> tuple[Array, Schema]:
    rng = np.random.default_rng(11)
    X = rng.normal(size=(_ROWS, _WIDTH)) @ rng.normal(size=(_WIDTH, _WIDTH))
    schema = Schema.observed(X, widen=0.1).with_scale(X.mean(axis=0), X.std(axis=0))
    return X, schema
