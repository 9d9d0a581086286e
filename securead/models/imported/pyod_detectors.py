"""`from_pyod`: PyOD's detectors that wrap what `from_sklearn` and `from_torch` know."""

from __future__ import annotations

from importlib import metadata
from typing import Any

import numpy as np

from securead.data.schema import Schema
from securead.errors import FixInputError
from securead.models.imported.detector import ImportedDetector, Origin, refuse
from securead.models.imported.forest import ENTRY_BITS
from securead.models.imported.records import Given, Scaling
from securead.models.imported.scikit import import_covariance, import_forest

_NEIGHBOURS = "it compares a record with its nearest training records, all of which would have to take part"
_NEIGHBOURLY = dict.fromkeys(
    ("KNN", "LOF", "COF", "CBLOF", "LOCI", "SOD", "SOS", "ABOD"), (_NEIGHBOURS, "IForest, or SubspaceDetector")
)
_REFUSED = {
    **_NEIGHBOURLY,
    "PCA": (
        "its score sums distances, which are square roots, and programs have none",
        "its residual, by from_sklearn(make_pipeline(detector.scaler_, detector.detector_)) where it leaves components "
        "out; or MCD",
    ),
    "OCSVM": ("it sums a kernel over training records", 'MCD, or SubspaceDetector(method="mahalanobis")'),
    "KDE": ("it sums a kernel over training records", "HistogramDetector"),
    "KPCA": ("it sums a kernel over training records", "scikit-learn's PCA, by from_sklearn"),
    "GMM": ("its score is a logarithm of a sum of exponentials", "MCD"),
    "HBOS": ("its bins are read off the records, with logarithms of densities", "HistogramDetector, trained here"),
    "ECOD": ("it ranks a record among all training records", "HistogramDetector, trained here"),
    "COPOD": ("it ranks a record among all training records", "HistogramDetector, trained here"),
    "VAE": (
        "it samples, and its units are neither squares nor ReLUs",
        "AutoEncoder with hidden_activation_name='relu'",
    ),
    "DeepSVDD": ("it is scored by a distance in a network's last layer", "AutoEncoder"),
}


def from_pyod(
    detector: Any,
    *,
    schema: Schema | None = None,
    X: Any = None,
    threshold: float | None = None,
    contamination: float | None = None,
    entry_bits: int = ENTRY_BITS,
) -> ImportedDetector:
    """A detector of ours from a fitted detector of PyOD: `IForest`, `MCD`, or `AutoEncoder` where its network fits.

    Scores, on PyOD's scale, equal `decision_function` up to `error_bound`; the threshold is PyOD's `threshold_`. What
    becomes public and all arguments are as in `from_sklearn`. An `AutoEncoder` has ReLUs, so it compiles for secret
    sharing only; its program's scores are squares of PyOD's.

    Raises `FixInputError` for what cannot be carried, with the reason and the nearest alternative.
    """
    given = Given(schema, X, threshold, contamination)
    kind, name = type(detector), type(detector).__name__
    where = f"{kind.__module__}.{kind.__qualname__}"
    importers = {
        "pyod.models.iforest.IForest": _forest,
        "pyod.models.mcd.MCD": _mcd,
        "pyod.models.auto_encoder.AutoEncoder": _autoencoder,
    }
    if where not in importers:
        why, nearest = _REFUSED.get(
            name, ("it is not known here", "IForest or MCD of PyOD, or a detector trained here")
        )
        if any(f"{base.__module__}.{base.__qualname__}" in importers for base in kind.__mro__[1:]):
            why, nearest = "a subclass may score in another way than its base", "its base class"
        raise refuse(f"{name} of {kind.__module__.split('.')[0]}", why, nearest)
    if not hasattr(detector, "decision_scores_"):
        raise FixInputError(f"{name} is not fitted", remedy="Fit it, then import it.")
    origin = Origin(
        f"PyOD {metadata.version('pyod')} ({name})",
        detector.decision_function,
        float(detector.threshold_),
        f"PyOD's threshold_ (contamination {detector.contamination})",
    )
    if importers[where] is _forest:
        return _forest(detector, given, origin, entry_bits)
    return importers[where](detector, given, origin, 0)


def _forest(detector: Any, given: Given, origin: Origin, entry_bits: int) -> ImportedDetector:
    inner = detector.detector_
    names = getattr(inner, "feature_names_in_", None)
    return import_forest(
        inner,
        Scaling.none(int(inner.n_features_in_)),
        None if names is None else tuple(map(str, names)),
        given,
        origin,
        shift=float(inner.offset_),  # PyOD turns decision_function round
        entry_bits=entry_bits,
    )


def _mcd(detector: Any, given: Given, origin: Origin, _: int) -> ImportedDetector:
    inner = detector.detector_
    return import_covariance(inner, Scaling.none(len(inner.location_)), None, given, origin)


def _autoencoder(detector: Any, given: Given, origin: Origin, _: int) -> ImportedDetector:
    from torch import nn

    from securead.models.imported.networks import plain_layers
    from securead.models.imported.pytorch import import_network, read_network

    parts: list[nn.Module] = []
    for block in (*detector.model.encoder, *detector.model.decoder):
        inner = [getattr(block, name, None) for name in ("linear", "bn", "activation")]  # in the order of its forward
        parts += [block] if isinstance(block, nn.Linear) else [part for part in inner if part is not None]
    maps, kinds = read_network(nn.Sequential(*parts))
    scaling = Scaling.none(int(detector.feature_size))
    if detector.preprocessing:
        # PyOD adds this to the deviation before it divides.
        center, scale = np.asarray(detector.X_mean, dtype=float), np.asarray(detector.X_std, dtype=float) + 1e-8
        scaling = Scaling(center, scale, scaling.lower, scaling.upper)
    return import_network(plain_layers(maps, kinds), kinds, scaling, None, given, origin, root=True)
