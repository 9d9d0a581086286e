"""`check_executor`: what every executor of training rounds must satisfy; `check_equivalence`: the same models."""

from __future__ import annotations

import dataclasses
import functools
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from securead.data.partition import partition
from securead.data.schema import Schema
from securead.errors import FixConfigurationError, PrivacyRefusedError
from securead.federated import embedded
from securead.federated.participant import Site
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


PLAN = PrivacyPlan(epsilon=4.0, delta=1e-5)
STUDY = dataclasses.replace(PLAN, noise_source="seeded-study", seed=7)
# Ways of averaging that keep state between rounds, or draw numbers besides the noise.
AVERAGES: tuple[Mapping[str, Any], ...] = (
    {"server_optimizer": "adam", "proximal": 0.1},
    {"update_bits": 8, "average_last": 2},
)
TOLERANCE = 1e-6


def check_executor(executor: Executor) -> None:
    """Run the suite over an executor with every registered detector; raises `AssertionError` at the first breach.

    Promises: the exact result does not depend on the order of sites, nor on their number where every round is
    a sum over records; a private result differs from the exact
    one, states its guarantee for every site, and repeats only for a study's seed; two sites of one name, no site and an
    empty site are refused; a site whose ledger is spent stops the run before anything is released, and one that keeps
    a ledger takes part in no run without noise, or with noise that can be predicted. And `check_equivalence`.
    """
    X, schema = _records()
    sites, plan, study = functools.partial(_sites, X), PLAN, STUDY
    for name in detector_names():

        def scores(chosen: Sequence[Site], privacy: PrivacyPlan | None, name: str = name) -> np.ndarray:
            return executor(_make(name), chosen, schema, privacy=privacy).anomaly_score(X)

        exact = scores(sites(3), None)
        if _make(name).sums_only:
            for count in (1, 4):
                assert np.array_equal(scores(sites(count), None), exact), f"{name}: more sites change an exact result"
        assert np.array_equal(scores(sites(3)[::-1], None), exact), f"{name}: the order of sites changes a result"
        private = executor(_make(name), sites(3), schema, privacy=plan)
        assert not np.array_equal(private.anomaly_score(X), exact), f"{name}: a private run added no noise"
        statement = private.statement_
        assert statement.private and [s.site for s in statement.sites] == ["s0", "s1", "s2"], f"{name}: {statement}"
        assert all(0 < s.epsilon <= plan.epsilon for s in statement.sites), f"{name}: epsilon beyond the plan"
        assert not np.array_equal(scores(sites(3), plan), private.anomaly_score(X)), f"{name}: noise repeats"
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
    check_equivalence(executor)


def check_equivalence(executor: Executor, variants: Sequence[tuple[str, Mapping[str, Any]]] | None = None) -> None:
    """Hold an executor's models against the embedded one's; raises `AssertionError` at the first that differs.

    Promises, without noise and with a study's: every number of the public state and every score is the same for the
    same seeds, bit for bit where all rounds are sums over records, and within 1e-6 of the largest where networks are
    averaged; so are the threshold and what the privacy statement says. `variants`, names of detectors with parameters,
    are by default every registered detector and the ways of averaging networks.
    """
    X, schema = _records()
    if variants is None:
        variants = [*((name, {}) for name in detector_names()), *(("autoencoder", more) for more in AVERAGES)]
    for name, parameters in variants:
        for privacy in (None, STUDY):
            what = f"{name} {dict(parameters) or ''}, {'no noise' if privacy is None else 'seeded noise'}"
            mine, embeddeds = (
                run(_make(name, parameters), _sites(X, 3), schema, privacy=privacy)
                for run in (executor, embedded.train)
            )
            assert mine.statement_ == embeddeds.statement_, f"{what}: the statement differs"
            assert set(mine.values_) == set(embeddeds.values_), f"{what}: the public state differs"
            pairs = {value: (mine.values_[value], embeddeds.values_[value]) for value in mine.values_}
            pairs["scores"] = mine.anomaly_score(X), embeddeds.anomaly_score(X)
            pairs["threshold"] = np.array(mine.threshold_), np.array(embeddeds.threshold_)
            for value, (found, wanted) in pairs.items():
                assert found.shape == wanted.shape, f"{what}: {value} has another shape"
                apart = 0.0 if mine.sums_only else TOLERANCE * float(np.abs(wanted).max(initial=0))
                assert (np.abs(found - wanted) <= apart).all(), f"{what}: {value} differs from the embedded executor's"


def _make(name: str, parameters: Mapping[str, Any] | None = None) -> AnomalyDetector:
    """A quick one. Thresholds are the detector's affair, and these sites are too small for private ones."""
    quick = {"rounds": 3, "sampling_prob": 0.1} if name == "autoencoder" else {}
    return make_detector(name, {"threshold": "model", **quick, **(parameters or {})})


def _records() -> tuple[np.ndarray, Schema]:
    rng = np.random.default_rng(5)
    X = rng.normal(size=(900, 5)) @ rng.normal(size=(5, 5))
    return X, Schema.observed(X, widen=0.1).with_scale(X.mean(axis=0), X.std(axis=0))


def _sites(X: np.ndarray, count: int) -> list[Site]:
    """Sites of as many sizes."""
    return [Site(f"s{i}", X[rows]) for i, rows in enumerate(partition(len(X), range(1, count + 1), seed=2))]


def _expect(kind: type[Exception], call: Callable[[], object], otherwise: str) -> None:
    try:
        call()
    except kind:
        return
    raise AssertionError(otherwise)
