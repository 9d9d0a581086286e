"""The subspace detector against closed forms, under noise, and compiled."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from sklearn.covariance import EmpiricalCovariance
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError

from securead.data.schema import Column, Schema
from securead.errors import FixConfigurationError, FixProgramError, PrivacyRefusedError
from securead.federated.embedded import train
from securead.federated.participant import Site
from securead.models.subspace import SubspaceDetector
from securead.models.training import add_up
from securead.privacy.plan import PrivacyPlan
from securead.privacy.site import Unprotected


@pytest.fixture
def X(rng: np.random.Generator) -> np.ndarray:
    # Well conditioned, so that no eigenvalue meets its floor.
    return rng.normal(size=(3000, 6)) @ (np.eye(6) + 0.2 * rng.normal(size=(6, 6))) + rng.normal(size=6)


def test_mahalanobis_is_the_textbook_distance(X: np.ndarray) -> None:
    ours = SubspaceDetector(l2_clip_norm=50.0, limit=100.0).fit(X).anomaly_score(X)
    theirs = EmpiricalCovariance().fit(X).mahalanobis(X)
    # Records are rounded towards zero to a grid of 50 / 2**16 in training: close, not equal.
    assert ours == pytest.approx(theirs, rel=0.01, abs=0.01)
    assert stats.spearmanr(ours, theirs).statistic > 0.9999


def test_pca_residual_is_the_textbook_residual(X: np.ndarray) -> None:
    detector = SubspaceDetector(method="pca_residual", components=3, l2_clip_norm=50.0, limit=100.0).fit(X)
    Z = detector.encoder_.standardise(X)
    pca = PCA(3).fit(Z)
    residual = ((Z - pca.inverse_transform(pca.transform(Z))) ** 2).sum(axis=1)
    assert detector.anomaly_score(X) == pytest.approx(residual, rel=0.05, abs=0.02)


@pytest.mark.parametrize("components", [0, 1, 3, 5])
@pytest.mark.parametrize("method", ["mahalanobis", "pca_residual"])
def test_program_scores_as_the_detector(X: np.ndarray, method: str, components: int) -> None:
    detector = SubspaceDetector(method=method, components=components).fit(X)
    program = detector.compile()
    exact, integer = detector.anomaly_score(X), program.score(X)
    assert np.abs(integer - exact).max() < 5e-3 * np.median(exact) + 5e-3 * exact.max()
    assert program.public.degree == 2
    # The residual subtracts from the public |z|^2 only where that takes fewer products.
    assert bool(program.public.public_terms) == (method == "pca_residual" and components == 1)


def test_weights_are_triangular(X: np.ndarray) -> None:
    program = SubspaceDetector().fit(X).compile()
    matrix = program.secret.weights[1].matrices[0]
    assert np.array_equal(matrix, np.triu(matrix))
    assert np.count_nonzero(matrix) > 10


def test_private_moments_are_unbiased_and_as_noisy_as_stated(X: np.ndarray) -> None:
    schema = Schema.observed(X).with_scale(X.mean(axis=0), X.std(axis=0))
    detector = SubspaceDetector()
    state = detector.initial_state(schema)
    exact = detector.next_state(state, add_up(state, [detector.site_update(state, X, Unprotected())])).values
    plan = PrivacyPlan(epsilon=2.0, delta=1e-6)
    errors = []
    for _ in range(60):
        trained = train(SubspaceDetector(), [Site("a", X)], schema, privacy=plan)
        errors.append((trained.values_["covariance"] - exact["covariance"])[np.triu_indices(6, 1)])
    deviation = float(trained.values_["noise"][0]) / np.sqrt(2)
    # 60 draws of 15 entries, almost independent: the mean square lies within 25 % but once in a million.
    assert np.mean(np.square(errors)) == pytest.approx(deviation**2, rel=0.25)
    assert abs(np.mean(errors)) < 5 * deviation / np.sqrt(len(errors) * 15) + 0.01 * deviation


def test_rounding_never_lengthens_a_wide_record() -> None:
    """1,498 entries of 1,514.507 grid steps: rounded to the nearest, they would exceed the sensitivity."""
    schema = Schema(tuple(Column(f"x{i}", -8.0, 8.0, center=0.0, spread=1.0) for i in range(1498)))
    detector = SubspaceDetector()
    update = detector.site_update(detector.initial_state(schema), np.full((1, 1498), 8.0), Unprotected())
    squared = sum(int(value) ** 2 for value in update.values)
    assert 0.998 * update.l2_sensitivity**2 < squared <= update.l2_sensitivity**2


def test_a_study_is_not_private(X: np.ndarray) -> None:
    plan = PrivacyPlan(epsilon=1.0, delta=1e-6, noise_source="seeded-study", seed=1)
    detector = train(SubspaceDetector(), [Site("a", X)], Schema.observed(X), privacy=plan)
    assert not detector.statement_.private
    assert detector.statement_.epsilon is None


def test_detects_under_privacy(rng: np.random.Generator) -> None:
    mix = rng.normal(size=(5, 5))
    X, odd = rng.normal(size=(50_000, 5)) @ mix, rng.normal(size=(200, 5)) * 3
    schema = Schema.observed(np.vstack([X, odd]), widen=0.2)
    sites = [Site("a", X[:30_000]), Site("b", X[30_000:])]
    detector = SubspaceDetector(scaling="private", threshold="private", contamination=0.01)
    train(detector, sites, schema, privacy=PrivacyPlan(epsilon=1.0, delta=1e-6))
    assert 0.0003 < (detector.predict(X) == -1).mean() < 0.03  # the threshold is noised, too: .003 to .013 is usual
    assert (detector.predict(odd) == -1).mean() > 0.3
    assert detector.statement_.epsilon is not None
    assert 0.99 < detector.statement_.epsilon <= 1.0


def test_constant_columns_and_few_records() -> None:
    rng = np.random.default_rng(3)
    X = np.column_stack([rng.normal(size=500), np.ones(500), rng.normal(size=500)])
    detector = SubspaceDetector().fit(X)
    assert np.isfinite(detector.anomaly_score(X)).all()
    schema = Schema.observed(X, widen=0.1)
    with pytest.raises(PrivacyRefusedError, match="too few records"):
        train(SubspaceDetector(), [Site("a", X[:2])], schema, privacy=PrivacyPlan(epsilon=0.1, delta=1e-6))


def test_a_private_fit_needs_schema_and_plan(X: np.ndarray) -> None:
    with pytest.raises(FixConfigurationError, match="schema"):
        SubspaceDetector(privacy=PrivacyPlan(epsilon=1.0, delta=1e-6)).fit(X)
    schema = Schema.observed(X).with_scale(X.mean(axis=0), X.std(axis=0))
    fitted = SubspaceDetector(schema=schema, privacy=PrivacyPlan(epsilon=1.0, delta=1e-6)).fit(X)
    assert fitted.statement_.private
    assert fitted.threshold_ == -fitted.offset_


@pytest.mark.parametrize(
    "parameters",
    [
        {"method": "kmeans"},
        {"scaling": "guess"},
        {"threshold": "guess"},
        {"contamination": 0.0},
        {"contamination": 0.7},
        {"components": 6, "method": "pca_residual"},
        {"components": -1, "method": "pca_residual"},
        {"l2_clip_norm": -1.0},
        {"l2_clip_norm": 1e-300},
        {"l2_clip_norm": 5e-324},
        {"l2_clip_norm": 1e300},
        {"l2_clip_norm": float("nan")},
    ],
)
def test_bad_parameters_are_named(X: np.ndarray, parameters: dict[str, object]) -> None:
    with pytest.raises(FixConfigurationError):
        SubspaceDetector(**parameters).fit(X)  # type: ignore[arg-type]


@pytest.mark.parametrize("scale", [1e160, 1e300, 1e-300])
def test_huge_and_tiny_units_are_like_any_other(X: np.ndarray, scale: float) -> None:
    factor = np.where(np.arange(X.shape[1]) == 1, max(scale, 1e-6), 1.0)
    plain, scaled = SubspaceDetector().fit(X), SubspaceDetector().fit(X * factor)
    assert np.allclose(plain.anomaly_score(X), scaled.anomaly_score(X * factor), rtol=1e-6)


def test_records_that_never_vary_compile() -> None:
    data = np.tile([7.0, 0.0, 1e-9], (500, 1))
    schema = Schema.observed(data, widen=0.1)
    detector = train(SubspaceDetector(), [Site("a", data)], schema, privacy=None)
    assert np.isfinite(detector.threshold_)
    assert detector.threshold_ > 0
    assert np.allclose(detector.compile().score(data), detector.anomaly_score(data), atol=1e-3 * detector.threshold_)


def test_what_is_not_fitted_does_not_compile() -> None:
    with pytest.raises(NotFittedError):
        SubspaceDetector().compile()


@pytest.mark.parametrize(
    "parameters",
    [{"contamination": "auto"}, {"limit": "8"}, {"l2_clip_norm": "x"}, {"method": "pca_residual", "components": 2.5}],
    ids=str,
)
def test_parameters_of_another_type_are_named(X: np.ndarray, parameters: dict[str, object]) -> None:
    with pytest.raises(FixConfigurationError, match=list(parameters)[-1]):
        SubspaceDetector(**parameters).fit(X)  # type: ignore[arg-type]


@pytest.mark.parametrize("parameters", [{}, {"method": "pca_residual"}, {"method": "pca_residual", "components": 3}])
def test_compiled_for_shares_the_score_fits_and_stays(parameters: dict[str, object]) -> None:
    rng = np.random.default_rng(5)
    data = rng.normal(size=(600, 29)) @ rng.normal(size=(29, 29)) * 0.4
    detector = SubspaceDetector(**parameters).fit(data)
    program, scores = detector.compile(ring_bits=62), detector.anomaly_score(data)
    assert program.public.score_bits <= 62
    assert np.abs(program.score(data) - scores).max() <= 3e-3 * np.median(scores)
    with pytest.raises(FixProgramError, match="does not fit 30 bits"):
        detector.compile(ring_bits=30)
