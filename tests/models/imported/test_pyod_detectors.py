"""What `from_pyod` gives scores as PyOD does; its other detectors are refused with the nearest alternative."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from securead.errors import FixInputError
from securead.models import from_pyod

pytest.importorskip("pyod", reason='needs PyOD: pip install "securead[pyod]"')


@pytest.fixture
def X(rng: np.random.Generator) -> np.ndarray:
    return rng.normal(size=(400, 4)) @ rng.normal(size=(4, 4)) * [1, 10, 0.1, 3] + [5, -100, 0, 1]


def isolation_forest() -> Any:
    from pyod.models.iforest import IForest

    return IForest(n_estimators=15, random_state=0, contamination=0.05)


def robust_covariance() -> Any:
    from pyod.models.mcd import MCD

    return MCD(random_state=0)


def autoencoder(**parameters: Any) -> Any:
    from pyod.models.auto_encoder import AutoEncoder

    return AutoEncoder(hidden_neuron_list=[3, 2], epoch_num=2, verbose=0, **parameters)


@pytest.mark.parametrize("make", [isolation_forest, robust_covariance, autoencoder])
def test_scores_and_thresholds_are_the_originals(X: np.ndarray, make: Any) -> None:
    original = make().fit(X)
    exact = original.decision_function(X)
    detector = from_pyod(original, X=X)
    assert detector.score_samples(X) == pytest.approx(-exact, rel=1e-4, abs=1e-3)
    program = detector.in_original_scale(detector.compile().score(X))
    rounding = 1e-4 * np.abs(exact)  # PyOD's networks compute in float32
    assert (np.abs(program - exact) <= detector.error_bound(X) + rounding).all()
    assert spearmanr(program, exact).statistic > 0.999
    assert -detector.offset_ == pytest.approx(original.threshold_)
    assert "PyOD's threshold_" in detector.calibration_.origin
    assert "imported from PyOD" in detector.statement_.in_words()[0]
    sure = np.abs(exact - original.threshold_) > 0.01 * np.abs(exact)
    assert np.array_equal((detector.predict(X) == -1)[sure], (original.predict(X) == 1)[sure])


def test_a_network_without_preprocessing(X: np.ndarray) -> None:
    original = autoencoder(preprocessing=False, batch_norm=False).fit(X / 10)
    detector = from_pyod(original, X=X / 10)
    assert detector.score_samples(X / 10) == pytest.approx(-original.decision_function(X / 10), rel=1e-4)


def refused(name: str) -> Any:
    import importlib

    return getattr(importlib.import_module(f"pyod.models.{name.lower()}"), name)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("PCA", ("square roots", "from_sklearn")),
        ("LOF", ("nearest training records", "IForest")),
        ("KNN", ("nearest training records", "IForest")),
        ("OCSVM", ("kernel", "MCD")),
        ("HBOS", ("bins", "HistogramDetector")),
        ("ECOD", ("ranks", "HistogramDetector")),
    ],
)
def test_other_detectors_are_refused(X: np.ndarray, name: str, words: tuple[str, str]) -> None:
    with pytest.raises(FixInputError) as error:
        from_pyod(refused(name)().fit(X), X=X)
    assert all(word in str(error.value) for word in words), error.value


def test_the_residual_that_a_refusal_names(X: np.ndarray) -> None:
    from sklearn.pipeline import make_pipeline

    from securead.models import from_sklearn

    original = refused("PCA")(n_components=2).fit(X)
    detector = from_sklearn(make_pipeline(original.scaler_, original.detector_), X=X)
    assert detector.compile().score(X).shape == (400,)


def test_further_refusals(X: np.ndarray) -> None:
    with pytest.raises(FixInputError, match="not fitted"):
        from_pyod(isolation_forest())
    with pytest.raises(FixInputError, match="Tanh"):
        from_pyod(autoencoder(hidden_activation_name="tanh").fit(X), X=X)
    with pytest.raises(FixInputError, match="not known here"):
        from_pyod(object())
