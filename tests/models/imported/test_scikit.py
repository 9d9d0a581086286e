"""What `from_sklearn` gives scores as scikit-learn does, on generated and real records, and says what it discloses."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
from scipy.stats import spearmanr
from sklearn.covariance import EllipticEnvelope, MinCovDet
from sklearn.decomposition import PCA, KernelPCA
from sklearn.ensemble import IsolationForest
from sklearn.feature_selection import VarianceThreshold
from sklearn.neighbors import LocalOutlierFactor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, RobustScaler, StandardScaler
from sklearn.svm import OneClassSVM

import securead as sa
from securead.data.readers import read_table
from securead.data.schema import Column, Schema
from securead.errors import FixConfigurationError, FixInputError, FixProgramError
from securead.models import bundle, from_sklearn
from securead.models.imported.forest import float32_threshold, read_trees


@pytest.fixture
def X(rng: np.random.Generator) -> np.ndarray:
    return rng.normal(size=(600, 4)) @ rng.normal(size=(4, 4)) * [1, 10, 0.1, 3] + [5, -100, 0, 1]


def scores(estimator: Any, X: np.ndarray) -> np.ndarray:
    """Higher is more anomalous; a PCA's squared reconstruction error."""
    if hasattr(estimator, "score_samples") and not isinstance(last(estimator), PCA):
        return -np.asarray(estimator.score_samples(X))
    front, pca = (estimator[:-1], estimator[-1]) if hasattr(estimator, "steps") else (None, estimator)
    Z = X if front is None else front.transform(X)
    return ((Z - pca.inverse_transform(pca.transform(Z))) ** 2).sum(axis=1)


def last(estimator: Any) -> Any:
    return estimator[-1] if hasattr(estimator, "steps") else estimator


ESTIMATORS = [
    IsolationForest(n_estimators=20, random_state=0),
    IsolationForest(n_estimators=10, max_features=0.5, max_samples=64, bootstrap=True, random_state=0),
    make_pipeline(StandardScaler(), IsolationForest(n_estimators=10, contamination=0.1, random_state=0)),
    make_pipeline(MinMaxScaler((-1, 2), clip=True), RobustScaler(), IsolationForest(n_estimators=10, random_state=0)),
    EllipticEnvelope(random_state=0),
    make_pipeline(MinMaxScaler(clip=True), EllipticEnvelope(random_state=0, contamination=0.02)),
    PCA(2),
    PCA(3, whiten=True),
    make_pipeline(StandardScaler(with_mean=False), "passthrough", MaxAbsScaler(), PCA(1)),
]


@pytest.mark.parametrize("estimator", ESTIMATORS, ids=str)
def test_scores_are_the_originals(X: np.ndarray, rng: np.random.Generator, estimator: Any) -> None:
    estimator.fit(X)
    beyond = np.vstack([X, rng.uniform(X.min(axis=0), X.max(axis=0), size=(300, 4))])
    exact = scores(estimator, beyond)
    detector = from_sklearn(estimator, X=X)
    program = detector.in_original_scale(detector.compile().score(beyond))
    bound = detector.error_bound(beyond)
    assert (np.abs(program - exact) <= bound + 1e-9).all()
    assert np.median(bound) < 0.02 * np.median(exact)  # worth stating
    # Ranks are equal but for records closer together than the bound.
    order = np.argsort(program, kind="stable")
    fallen = np.maximum.accumulate(exact[order]) - exact[order]
    assert (fallen <= 2 * bound.max() + 1e-9).all()
    assert spearmanr(program, exact).statistic > 0.9999
    assert detector.score_samples(beyond) == pytest.approx(-exact, abs=float(bound.max()), rel=1e-9)


@pytest.mark.parametrize("estimator", [e for e in ESTIMATORS if not isinstance(last(e), PCA)], ids=str)
def test_thresholds_are_the_originals(X: np.ndarray, estimator: Any) -> None:
    detector = from_sklearn(estimator.fit(X), X=X)
    assert detector.offset_ == pytest.approx(
        estimator[-1].offset_ if hasattr(estimator, "steps") else estimator.offset_
    )
    assert "scikit-learn's offset_" in detector.calibration_.origin
    sure = np.abs(estimator.decision_function(X)) > detector.error_bound(X) + 1e-9
    assert sure.mean() > 0.95
    assert np.array_equal(detector.predict(X)[sure], estimator.predict(X)[sure])
    assert np.array_equal(detector.predict(X) == -1, detector.anomaly_score(X) > detector.threshold_)
    assert np.allclose(detector.decision_function(X), estimator.decision_function(X), atol=0.02)


@pytest.mark.data
@pytest.mark.parametrize("name", ["6_cardio", "32_shuttle", "creditcard_rounded"])
def test_a_forest_on_real_data(data_folder: Path, name: str) -> None:
    X = read_table(data_folder / f"{name}.npz").X
    forest = IsolationForest(contamination=0.05, random_state=0).fit(X[::2])
    X = X[1::20]
    detector = from_sklearn(forest)
    exact, ours = -forest.score_samples(X), detector.in_original_scale(detector.compile().score(X))
    assert (np.abs(ours - exact) <= detector.error_bound(X)).all()
    assert detector.error_bound(X).max() < 5e-4
    assert spearmanr(ours, exact).statistic > 0.9999
    assert (detector.predict(X) == forest.predict(X)).mean() > 0.999


def test_a_forest_needs_no_records_and_clips_none(X: np.ndarray) -> None:
    forest = IsolationForest(n_estimators=10, random_state=0).fit(X)
    detector = from_sklearn(forest)
    far = np.array([[1e9, -1e9, 3e4, 0], [-1e9, 0, 0, 1e12]])
    assert detector.score_samples(far) == pytest.approx(forest.score_samples(far), abs=1e-3)


def test_float32_comparisons_are_followed(rng: np.random.Generator) -> None:
    thresholds = np.concatenate([rng.normal(size=200), rng.normal(size=200).astype(np.float32), [0.1, 1.0, 16777217.0]])
    bound = float32_threshold(thresholds)
    assert (bound.astype(np.float32).astype(float) <= thresholds).all()
    assert (np.nextafter(bound, np.inf).astype(np.float32).astype(float) > thresholds).all()


def test_records_next_to_a_split_go_where_scikit_learn_sends_them(X: np.ndarray) -> None:
    forest = IsolationForest(n_estimators=5, random_state=0).fit(X)
    tree = forest.estimators_[0].tree_
    inner = np.flatnonzero(tree.children_left >= 0)[:20]
    edge = float32_threshold(tree.threshold[inner])
    records = np.repeat(X[:1], 2 * len(inner), axis=0)
    records[np.arange(len(inner)), tree.feature[inner]] = edge
    # The first float32 above a split lies some hundreds of the grid's steps above it.
    above = np.nextafter(tree.threshold[inner].astype(np.float32), np.float32(np.inf))
    records[np.arange(len(inner)) + len(inner), tree.feature[inner]] = np.nextafter(above, np.float32(np.inf))
    detector = from_sklearn(forest)
    assert detector.score_samples(records) == pytest.approx(forest.score_samples(records), abs=1e-3)


def test_leaves_are_hidden_among_padding(X: np.ndarray) -> None:
    forest = IsolationForest(n_estimators=3, random_state=0).fit(X)
    one, other = from_sklearn(forest).compile().public, from_sklearn(forest).compile().public
    assert one.sizes == (256,) * 3  # type: ignore[union-attr]
    assert one.geometry.thresholds != other.geometry.thresholds  # type: ignore[union-attr]
    assert max(tree.depth for tree in read_trees(forest, _unscaled(4))) == 8


def _unscaled(width: int) -> Any:
    from securead.models.imported.records import Scaling

    return Scaling.none(width)


def test_a_bundle_travels_and_says_that_nothing_is_guaranteed(X: np.ndarray, tmp_path: Path) -> None:
    forest = IsolationForest(n_estimators=5, random_state=0).fit(X)
    made = bundle.make(from_sklearn(forest), "theirs")
    made.save(tmp_path / "bundle")
    loaded = bundle.load(tmp_path / "bundle")
    words = " ".join(loaded.public.privacy.in_words())
    assert words.startswith("No differential-privacy guarantee: imported from scikit-learn")
    assert "splits" in words
    assert "read off records" not in words
    assert loaded.public.digest == made.public.digest
    observed = " ".join(from_sklearn(PCA(2).fit(X), X=X).statement_.in_words())
    assert "read off records" in observed


def test_names_come_from_the_table(X: np.ndarray) -> None:
    frame = pandas.DataFrame(X, columns=["a", "b", "c", "d"])
    pipeline = make_pipeline(StandardScaler(), EllipticEnvelope(random_state=0)).fit(frame)
    detector = from_sklearn(pipeline, X=frame)
    assert detector.encoder_.schema.names == ("a", "b", "c", "d")
    assert detector.anomaly_score(frame) == pytest.approx(detector.anomaly_score(X))
    with pytest.raises(FixInputError, match="another order"):
        detector.anomaly_score(frame[["b", "a", "c", "d"]])
    schema = Schema(tuple(Column(name, -200, 200) for name in "dcba"))
    with pytest.raises(FixInputError, match="another order"):
        from_sklearn(pipeline, schema=schema)


def test_a_declared_schema_discloses_no_record(X: np.ndarray) -> None:
    schema = Schema(tuple(Column(f"c{i}", -300, 300, center=7.0, spread=2.0) for i in range(4)))
    estimator = EllipticEnvelope(random_state=0).fit(X)
    detector = from_sklearn(estimator, schema=schema)
    assert all(column.center is None for column in detector.encoder_.schema.columns)
    assert not detector.statement_.observed_bounds
    assert detector.score_samples(X) == pytest.approx(estimator.score_samples(X))
    narrow = from_sklearn(estimator, schema=Schema(tuple(Column(f"c{i}", -1, 1) for i in range(4))))
    assert narrow.score_samples(X) == pytest.approx(estimator.score_samples(X.clip(-1, 1)))
    with pytest.raises(FixConfigurationError, match="untransformed"):
        from_sklearn(estimator, schema=Schema(tuple(Column(f"c{i}", -300, 300, "log") for i in range(4))))


def test_a_forest_takes_a_schema_with_logarithms(X: np.ndarray) -> None:
    schema = Schema(tuple(Column(f"c{i}", -300, 300, "log") for i in range(4)))
    forest = IsolationForest(n_estimators=10, random_state=0).fit(X)
    assert from_sklearn(forest, schema=schema).score_samples(X) == pytest.approx(forest.score_samples(X), abs=1e-3)


def test_other_thresholds(X: np.ndarray) -> None:
    estimator = EllipticEnvelope(random_state=0).fit(X)
    assert from_sklearn(estimator, X=X, threshold=12.5).offset_ == -12.5
    share = from_sklearn(estimator, X=X, contamination=0.25)
    assert (share.predict(X) == -1).mean() == pytest.approx(0.25, abs=0.01)
    assert share.calibration_.share == pytest.approx(0.25, abs=0.01)
    guessed = from_sklearn(MinCovDet(random_state=0).fit(X), X=X)
    assert "chi-square" in guessed.calibration_.origin
    assert "rough" in from_sklearn(PCA(2).fit(X), X=X).calibration_.origin
    with pytest.raises(FixInputError, match="needs records"):
        from_sklearn(IsolationForest(n_estimators=5).fit(X), contamination=0.1)
    with pytest.raises(FixConfigurationError, match="two answers"):
        from_sklearn(estimator, X=X, contamination=0.1, threshold=1.0)


@pytest.mark.parametrize(
    ("estimator", "words"),
    [
        (LocalOutlierFactor(novelty=True), ("nearest training records", "IsolationForest")),
        (OneClassSVM(), ("kernel", "mahalanobis")),
        (KernelPCA(2), ("kernel", "PCA")),
        (PCA(4), ("nothing is left over", "EllipticEnvelope")),
        (make_pipeline(PCA(3), EllipticEnvelope(random_state=0)), ("cannot be folded in: PCA", "StandardScaler")),
        (make_pipeline(VarianceThreshold(), PCA(2)), ("cannot be folded in: VarianceThreshold", "StandardScaler")),
        (IsolationForest(max_samples=1), ("no splits", "256")),
    ],
    ids=str,
)
def test_what_cannot_be_carried_is_refused(X: np.ndarray, estimator: Any, words: tuple[str, str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        estimator.fit(X)
    with pytest.raises(FixInputError) as refused:
        from_sklearn(estimator, X=X)
    assert all(word in str(refused.value) for word in words), refused.value


def test_further_refusals(X: np.ndarray, rng: np.random.Generator) -> None:
    class Mine(IsolationForest):  # type: ignore[misc]
        """Scores in its own way, for all we know."""

    with pytest.raises(FixInputError, match="subclass"):
        from_sklearn(Mine(n_estimators=2).fit(X))
    with pytest.raises(FixInputError, match="not fitted"):
        from_sklearn(IsolationForest())
    with pytest.raises(FixInputError, match="what values the columns may take"):
        from_sklearn(EllipticEnvelope(random_state=0).fit(X))
    with pytest.raises(FixInputError, match="leaves are more than"):
        from_sklearn(IsolationForest(n_estimators=300, max_samples=4000).fit(rng.normal(size=(4000, 3))))
    changed = IsolationForest(n_estimators=5, random_state=0).fit(X)
    changed.max_samples_ = 17  # not what it scores by
    with pytest.raises(FixProgramError, match="does not score as"):
        from_sklearn(changed)
    with pytest.raises(FixInputError, match="4 finite columns"):
        from_sklearn(EllipticEnvelope(random_state=0).fit(X), X=X[:, :3])


def test_values_fit_shares(X: np.ndarray) -> None:
    estimator = EllipticEnvelope(random_state=0).fit(X)
    detector = from_sklearn(estimator, X=X)
    program = detector.compile(ring_bits=48)
    assert program.public.score_bits <= 48
    assert spearmanr(program.score(X), -estimator.score_samples(X)).statistic > 0.99
    with pytest.raises(FixProgramError, match="does not fit"):
        detector.compile(ring_bits=16)


def test_the_face_is_lazy() -> None:
    import subprocess
    import sys

    script = "import sys, securead.models; print(*[p for p in ('sklearn', 'torch', 'pyod') if p in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
    assert sa.models.from_sklearn is from_sklearn
    with pytest.raises(AttributeError):
        _ = sa.models.from_nowhere
