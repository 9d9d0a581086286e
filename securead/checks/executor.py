"""`check_executor`: what every executor of training rounds must satisfy."""

from __future__ import annotations

import dataclasses
import functools
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from securead.data.partition import partition
from securead.data.schema import Schema
from securead.errors import FixConfigurationError, PrivacyRefusedError
from securead.federated.embedded import Site
from securead.models.estimator import AnomalyDetector
from securead.models.registry import detector_names, make_detector
from securead.privacy.plan import PrivacyPlan


class Executor(Protocol):
    """Trains a detector over sites; `securead.federated.embedded.train` is one."""

    def __call__(
        self,
        detector: AnomalyDetector,
        sites: Sequence[Site],
        schema: Schema,
        *,
        privacy: PrivacyPlan | None,
    ) -> AnomalyDetector: ...


def check_executor(executor: Executor) -> None:
    """Run the suite over an executor with every registered detector; raises `AssertionError` at the first breach.

    Promises: the exact result does not depend on the order of sites, nor on their number where every round is
    a sum over records; a private result differs from the exact
    one, states its guarantee for every site, and repeats only for a study's seed; two sites of one name, no site and an
    empty site are refused; a site whose ledger is spent stops the run before anything is released, and one that keeps
    a ledger takes part in no run without noise, or with noise that can be predicted.
    """
    rng = np.random.default_rng(5)
    X = rng.normal(size=(900, 5)) @ rng.normal(size=(5, 5))
    schema = Schema.observed(X, widen=0.1).with_scale(X.mean(axis=0), X.std(axis=0))
    plan = PrivacyPlan(epsilon=4.0, delta=1e-5)

    def sites(count: int) -> list[Site]:
        return [Site(f"s{i}", X[rows]) for i, rows in enumerate(partition(len(X), range(1, count + 1), seed=2))]

    # Thresholds are the detector's affair, and these sites are too small for private ones.
    parameters = {"threshold": "model"}
    for name in detector_names():

        def scores(chosen: Sequence[Site], privacy: PrivacyPlan | None, name: str = name) -> np.ndarray:
            return executor(make_detector(name, parameters), chosen, schema, privacy=privacy).anomaly_score(X)

        exact = scores(sites(3), None)
        if make_detector(name, parameters).sums_only:
            for count in (1, 4):
                assert np.array_equal(scores(sites(count), None), exact), f"{name}: more sites change an exact result"
        assert np.array_equal(scores(sites(3)[::-1], None), exact), f"{name}: the order of sites changes a result"
        private = executor(make_detector(name, parameters), sites(3), schema, privacy=plan)
        assert not np.array_equal(private.anomaly_score(X), exact), f"{name}: a private run added no noise"
        statement = private.statement_
        assert statement.private and [s.site for s in statement.sites] == ["s0", "s1", "s2"], f"{name}: {statement}"
        assert all(0 < s.epsilon <= plan.epsilon for s in statement.sites), f"{name}: epsilon beyond the plan"
        assert not np.array_equal(scores(sites(3), plan), private.anomaly_score(X)), f"{name}: noise repeats"
        study = PrivacyPlan(epsilon=4.0, delta=1e-5, noise_source="seeded-study", seed=7)
        assert np.array_equal(scores(sites(3), study), scores(sites(3), study)), f"{name}: a study does not repeat"
        for wrong in ([], [Site("a", X), Site("a", X)], [Site("a", X), Site("b", X[:0])]):
            _expect(FixConfigurationError, functools.partial(scores, wrong, None), f"{name}: bad sites accepted")
        with tempfile.TemporaryDirectory() as folder:
            ledger = Path(folder) / "ledger.json"
            rich, poor = sites(2)
            poor = dataclasses.replace(poor, ledger=ledger)
            scores([rich, poor], plan)
            spent = ledger.read_bytes()
            _expect(PrivacyRefusedError, functools.partial(scores, [rich, poor], plan), f"{name}: overspent a ledger")
            for unprotected in (None, study):
                refused = functools.partial(scores, [rich, poor], unprotected)
                _expect(PrivacyRefusedError, refused, f"{name}: a site with a ledger released without protection")
            assert ledger.read_bytes() == spent, f"{name}: a refused run changed the ledger"


def _expect(kind: type[Exception], call: Callable[[], object], otherwise: str) -> None:
    try:
        call()
    except kind:
        return
    raise AssertionError(otherwise)
