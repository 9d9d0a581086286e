"""The public conformance suites over everything that is registered."""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Callable

import pytest

from securead.checks.detector import check_detector, detector_checks
from securead.checks.executor import AVERAGES, check_equivalence, check_executor
from securead.errors import FixConfigurationError
from securead.federated import embedded
from securead.federated.federation import Federation
from securead.models.averaging import Quantised, Server
from securead.models.estimator import AnomalyDetector
from securead.models.registry import detector_names, make_detector
from securead.models.subspace import SubspaceDetector
from securead.protocols.paillier import keys

VARIANTS = [
    ("autoencoder", {"rounds": 2, "sampling_prob": 0.1}),
    ("autoencoder", {"rounds": 1, "hidden": 4, "units": "square", "scaling": "private", "threshold": "private"}),
    ("forest", {}),
    ("forest", {"noise": "levels", "extension": 2, "max_features": None, "scaling": "private", "depth": 4}),
    ("forest", {"n_estimators": 20, "threshold": "model"}),
    ("histogram", {}),
    ("histogram", {"scaling": "private", "threshold": "model"}),
    ("subspace", {}),
    ("subspace", {"threshold": {"type": "costs", "missed": 9, "false_alarm": 1}}),
    ("subspace", {"method": "pca_residual", "threshold": {"type": "false_alarms", "rate": 0.2}}),
    ("subspace", {"method": "pca_residual", "components": 0, "scaling": "private", "threshold": "private"}),
]


@pytest.mark.parametrize(("name", "parameters"), VARIANTS)
@pytest.mark.parametrize("check", detector_checks(), ids=lambda check: check.__name__)
def test_detectors_conform(
    check: Callable[[Callable[[], AnomalyDetector]], None], name: str, parameters: dict[str, object]
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn's suite warns of the checks it skips
        check(functools.partial(make_detector, name, parameters))


def test_every_registered_detector_is_covered() -> None:
    assert detector_names()
    assert set(detector_names()) == {name for name, _ in VARIANTS}


def test_embedded_executor_conforms() -> None:
    check_executor(embedded.train)


class _Forgetful(SubspaceDetector):
    """Releases what it saw without noise."""

    def site_update(self, state, data, releaser, labels=None):  # type: ignore[no-untyped-def]
        from securead.privacy.site import Unprotected

        return super().site_update(state, data, Unprotected(), labels)


class _Loud(SubspaceDetector):
    """Lets one record move the sums further than it says."""

    def _radius(self, width: int) -> float:
        return super()._radius(width)

    def model_update(self, state, Z, releaser):  # type: ignore[no-untyped-def]
        import dataclasses

        update = super().model_update(state, Z, releaser)
        return dataclasses.replace(update, values=update.values * 2)


@pytest.mark.parametrize("broken", [_Forgetful, _Loud])
def test_the_suite_finds_broken_detectors(broken: type[AnomalyDetector]) -> None:
    failures = 0
    for check in detector_checks()[4:6]:
        try:
            check(broken)
        except (AssertionError, ZeroDivisionError):
            failures += 1
    assert failures >= 1


def test_the_suite_finds_an_executor_that_drops_a_site() -> None:
    def careless(detector, sites, schema, *, privacy):  # type: ignore[no-untyped-def]
        return embedded.train(detector, sites[:2], schema, privacy=privacy)

    with pytest.raises(AssertionError, match="sites"):
        check_executor(careless)


def test_masked_sums_make_the_same_models() -> None:
    masked = functools.partial(embedded.train, federation=Federation(aggregation="masked"))
    check_equivalence(masked, [("forest", {}), ("subspace", {}), *(("autoencoder", more) for more in AVERAGES)])


def test_encrypted_sums_make_the_same_models(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("phe")
    monkeypatch.setattr(keys, "KEY_BITS", 512)
    encrypted = functools.partial(embedded.train, federation=Federation(aggregation="paillier"))
    check_equivalence(encrypted, [("forest", {"n_estimators": 9}), ("subspace", {})])


def _with_another_seed(detector, sites, schema, *, privacy):  # type: ignore[no-untyped-def]
    other = privacy and dataclasses.replace(privacy, seed=privacy.seed + 1)
    return embedded.train(detector, sites, schema, privacy=other)


def _off_by(apart: float):  # type: ignore[no-untyped-def]
    def executor(detector, sites, schema, *, privacy):  # type: ignore[no-untyped-def]
        trained = embedded.train(detector, sites, schema, privacy=privacy)
        trained.values_ = {name: array * (1 + apart) for name, array in trained.values_.items()}
        return trained

    return executor


@pytest.mark.parametrize(
    ("executor", "name"),
    [(_with_another_seed, "subspace"), (_off_by(1e-15), "histogram"), (_off_by(1e-4), "autoencoder")],
)
def test_the_suite_finds_an_executor_whose_models_differ(executor: Callable[..., AnomalyDetector], name: str) -> None:
    with pytest.raises(AssertionError, match="differs from the embedded"):
        check_equivalence(executor, [(name, {})])


def test_networks_may_differ_by_a_millionth() -> None:
    check_equivalence(_off_by(1e-10), [("autoencoder", {})])


@pytest.mark.parametrize("forgotten", ["Adam's memory", "how many sites there are"])
def test_the_suite_finds_an_executor_that_loses_part_of_the_state(
    forgotten: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Server.step

    def careless(detector, sites, schema, *, privacy):  # type: ignore[no-untyped-def]
        with monkeypatch.context() as patch:
            if forgotten == "Adam's memory":
                patch.setattr(Server, "step", lambda self, before, average, values: step(self, before, average, {}))
            else:
                patch.setattr(Quantised, "unit", 1.0)
            return embedded.train(detector, sites, schema, privacy=privacy)

    with pytest.raises(AssertionError, match="differs from the embedded"):
        check_equivalence(careless, [("autoencoder", AVERAGES[forgotten != "Adam's memory"])])


def test_check_detector_by_name() -> None:
    with pytest.raises(FixConfigurationError, match="no detector"):
        check_detector("no-such-detector")
