"""`from_sklearn`: isolation forests, PCA and covariance models that scikit-learn has fitted."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import sklearn
from scipy import stats
from sklearn import covariance, decomposition, ensemble
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from securead.data.schema import Array, Schema
from securead.errors import FixInputError
from securead.models.bundle import Threshold
from securead.models.imported import forest
from securead.models.imported.detector import ImportedDetector, Origin, refuse
from securead.models.imported.distance import ImportedDistance
from securead.models.imported.records import Given, Scaling, make_schema

_COVARIANCES = (
    covariance.EllipticEnvelope,
    covariance.MinCovDet,
    covariance.EmpiricalCovariance,
    covariance.ShrunkCovariance,
    covariance.LedoitWolf,
    covariance.OAS,
)
_PCA = (decomposition.PCA, decomposition.IncrementalPCA)
_NEIGHBOURS = "it compares a record with its nearest training records, all of which would have to take part"
_KERNEL = "it sums a kernel over training records, which are no secret tables and no polynomial of low degree"
_REFUSED = {
    "LocalOutlierFactor": (_NEIGHBOURS, "IsolationForest or SubspaceDetector"),
    "NearestNeighbors": (_NEIGHBOURS, "IsolationForest or SubspaceDetector"),
    "OneClassSVM": (_KERNEL, 'SubspaceDetector(method="mahalanobis")'),
    "SGDOneClassSVM": ("it is one linear form, which few scores give away", 'SubspaceDetector(method="mahalanobis")'),
    "KernelDensity": (_KERNEL, "HistogramDetector or IsolationForest"),
    "KernelPCA": (_KERNEL, 'scikit-learn\'s PCA, or SubspaceDetector(method="pca_residual")'),
    "GaussianMixture": ("its score is a logarithm of a sum of exponentials", "scikit-learn's EllipticEnvelope"),
    "TruncatedSVD": ("it is not centred, and has no residual of its own", "scikit-learn's PCA"),
    "MLPRegressor": ("only PyTorch's networks are read", "from_torch, with the same weights"),
}
SPLITS_SAID = (
    "the forest's splits, which were drawn among training records and so tell roughly where these lie; only the path "
    "lengths at the leaves are secret, and who recognises splits that were padded can guess them"
)
_RANGES_SAID = "a power of two above each of the program's values"
_DEFAULT_SHARE = 0.1


def from_sklearn(
    estimator: Any,
    *,
    schema: Schema | None = None,
    X: Any = None,
    threshold: float | None = None,
    contamination: float | None = None,
    entry_bits: int = forest.ENTRY_BITS,
) -> ImportedDetector:
    """A detector of ours from a fitted scikit-learn estimator, or a `Pipeline` of scalers and one.

    Scores equal the original's up to `error_bound` for records within bounds; beyond them they are those at the bounds.
    There is no differential-privacy guarantee. What becomes public: the schema; of a forest its splits, which tell
    roughly where training records lie, while the path lengths at its leaves stay secret.

    estimator: `IsolationForest`; `PCA` or `IncrementalPCA`, scored by the squared reconstruction error, which whitening
        does not change; `EllipticEnvelope`, `MinCovDet` and other covariance models, scored by squared Mahalanobis
        distance. Scalers: `StandardScaler`, `MinMaxScaler`, `MaxAbsScaler`, `RobustScaler`. Subclasses are refused, as
        they may score in another way.
    schema: names and bounds of the columns in raw units; centres and spreads are not looked at.
    X: raw records: bounds where there is no schema, a threshold where one is asked for; 200 are compared.
        A forest needs neither: its splits bound it.
    threshold: on the original's scale, higher is more anomalous. contamination: the share of `X` to flag instead. By
        default the original's `offset_`, else a chi-square quantile.
    entry_bits: of a forest's path lengths.

    Raises `FixInputError` for what cannot be carried, with the reason and the nearest alternative.
    """
    given = Given(schema, X, threshold, contamination)
    steps, detector = _parts(estimator)
    kind, name = type(detector), type(detector).__name__
    known = (*_COVARIANCES, *_PCA, ensemble.IsolationForest)
    if kind not in known:
        if isinstance(detector, known):
            raise refuse(f"{name}, a subclass", "it may score in another way than its base", "its base class")
        why, nearest = _REFUSED.get(name, ("it is not known here", "train IsolationForest or SubspaceDetector"))
        raise refuse(name, why, nearest)
    try:
        check_is_fitted(detector)
    except NotFittedError as error:
        raise FixInputError(f"{name} is not fitted", remedy="Fit it, then import it.") from error
    width = int(detector.n_features_in_)
    scaling = Scaling.of(steps, width)
    names = getattr(estimator if not steps else steps[0], "feature_names_in_", None)
    known_names = None if names is None else tuple(map(str, names))
    said = f"scikit-learn {sklearn.__version__} ({name})"
    if kind is ensemble.IsolationForest:
        origin = Origin(
            said,
            lambda X: -detector.score_samples(scaling.apply(X)),
            -float(detector.offset_),
            f"scikit-learn's offset_ (contamination {detector.contamination})",
        )
        return import_forest(detector, scaling, known_names, given, origin, entry_bits=entry_bits)
    if kind in _PCA:
        return _import_pca(detector, scaling, known_names, given, said)
    return import_covariance(detector, scaling, known_names, given, _covariance_origin(detector, scaling, said))


def import_forest(
    detector: Any,
    scaling: Scaling,
    names: tuple[str, ...] | None,
    given: Given,
    origin: Origin,
    *,
    shift: float = 0.0,
    entry_bits: int = forest.ENTRY_BITS,
) -> ImportedDetector:
    """A fitted `IsolationForest` behind `scaling`; `shift` is what `origin` adds to its scores."""
    samples = float(forest.mean_path(np.array([detector.max_samples_]))[0])
    if samples <= 0:
        raise refuse("a forest of single records", "its trees have no splits", "fit it with max_samples=256")
    trees = forest.read_trees(detector, scaling)
    schema, disclosed = make_schema(given, scaling, names, splits=forest.split_range(trees, len(scaling.center)))
    imported = forest.ImportedForest(trees, schema, samples, shift=shift, entry_bits=entry_bits)
    with _quietly():
        imported.finish(origin, given, (SPLITS_SAID, *disclosed))
    return imported


def import_covariance(
    detector: Any, scaling: Scaling, names: tuple[str, ...] | None, given: Given, origin: Origin
) -> ImportedDetector:
    """A fitted covariance model behind `scaling`, scored by squared Mahalanobis distance."""
    schema, disclosed = make_schema(given, scaling, names)
    variances, vectors = np.linalg.eigh(np.asarray(detector.get_precision(), dtype=float))
    forms = (vectors * np.sqrt(np.maximum(variances, 0.0))).T
    location = np.asarray(detector.location_, dtype=float)
    imported = ImportedDistance(forms, -forms @ location, scaling, schema)
    width = len(location)
    guess = Threshold(
        float(stats.chi2.ppf(1 - _DEFAULT_SHARE, width)),
        f"would flag {_DEFAULT_SHARE:.0%} of normally distributed records (chi-square of {width} degrees)",
    )
    with _quietly():
        imported.finish(origin, given, (_RANGES_SAID, *disclosed), guess=guess)
    return imported


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without scikit-learn's warning that records bear no names."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="X does not have valid feature names")
        yield


def _covariance_origin(detector: Any, scaling: Scaling, said: str) -> Origin:
    def score(X: Array) -> Array:
        distances: Array = detector.mahalanobis(scaling.apply(X))
        return distances

    if type(detector) is covariance.EllipticEnvelope:
        offset_said = f"scikit-learn's offset_ (contamination {detector.contamination:g})"
        return Origin(said, score, -float(detector.offset_), offset_said)
    return Origin(said, score)


def _import_pca(
    detector: Any, scaling: Scaling, names: tuple[str, ...] | None, given: Given, said: str
) -> ImportedDetector:
    components, mean = np.asarray(detector.components_, dtype=float), np.asarray(detector.mean_, dtype=float)
    left_out = components.shape[1] - len(components)
    if left_out == 0:
        raise refuse(
            "a PCA that keeps all components",
            "nothing is left over to score by",
            "fit it with n_components below the number of columns, or import EllipticEnvelope",
        )
    schema, disclosed = make_schema(given, scaling, names)
    rest = np.linalg.svd(components, full_matrices=True)[2][len(components) :]
    imported = ImportedDistance(rest, -rest @ mean, scaling, schema)

    def score(X: Array) -> Array:
        inner = scaling.apply(X)
        back = detector.inverse_transform(detector.transform(inner))
        errors: Array = ((inner - back) ** 2).sum(axis=1)
        return errors

    noise = float(detector.noise_variance_)
    guess = Threshold(
        noise * float(stats.chi2.ppf(1 - _DEFAULT_SHARE, left_out)),
        f"would flag {_DEFAULT_SHARE:.0%} of records whose residual has PCA's noise_variance_, normally: rough",
    )
    with _quietly():
        imported.finish(Origin(said, score), given, (_RANGES_SAID, *disclosed), guess=guess if noise > 0 else None)
    return imported


def _parts(estimator: Any) -> tuple[list[Any], Any]:
    """The steps in front, and the detector, of a pipeline (nested ones, too) or of a detector alone."""
    if not isinstance(estimator, Pipeline):
        return [], estimator
    *front, last = [step for _, step in estimator.steps]
    before = [part for step in front for part in (_flat(step))]
    inner, detector = _parts(last)
    return [*before, *inner], detector


def _flat(step: Any) -> list[Any]:
    if not isinstance(step, Pipeline):
        return [step]
    return [part for _, inner in step.steps for part in _flat(inner)]


def scalers(scaler: Any) -> list[Any]:
    """The single steps of a fitted scaler or of a pipeline of them; none for None."""
    return [] if scaler is None else _flat(scaler)
