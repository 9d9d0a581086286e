"""scikit-learn and PyOD: detectors that see every record, trained without any privacy, with their own defaults.

A detector of ours has the nearest of theirs beside it. Records are scaled by the training records' mean and deviation,
for all but trees and histograms, as their manuals say.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from exchange import REPEATS, Exchange, asked

_AS_THEY_ARE = ("forest", "histogram")


def sklearn_detector(kind: str, order: dict[str, Any], columns: int) -> Any:
    """An object with `fit` and `scores`, or None."""
    from sklearn.covariance import EmpiricalCovariance
    from sklearn.decomposition import PCA
    from sklearn.ensemble import IsolationForest
    from sklearn.neural_network import MLPRegressor

    parameters, seed = order["parameters"], order["seed"]
    if kind == "forest":
        forest = IsolationForest(n_estimators=parameters.get("n_estimators", 100), random_state=seed)
        return forest.fit, lambda X: -forest.score_samples(X)
    if kind == "subspace-pca-residual":
        pca = PCA(n_components=parameters.get("components") or max(1, columns // 2))
        return pca.fit, lambda X: ((X - pca.inverse_transform(pca.transform(X))) ** 2).sum(axis=1)
    if kind.startswith("subspace"):
        covariance = EmpiricalCovariance()
        return covariance.fit, covariance.mahalanobis
    if kind == "autoencoder":
        network = MLPRegressor(hidden_layer_sizes=(parameters.get("hidden", 12),), random_state=seed)
        return lambda X: network.fit(X, X), lambda X: ((X - network.predict(X).reshape(X.shape)) ** 2).sum(axis=1)
    return None


def pyod_detector(kind: str, order: dict[str, Any], columns: int) -> Any:
    """An object with `fit` and `scores`, or None."""
    parameters, seed = order["parameters"], order["seed"]
    if kind == "forest":
        from pyod.models.iforest import IForest

        detector = IForest(n_estimators=parameters.get("n_estimators", 100), random_state=seed)
    elif kind == "histogram":
        from pyod.models.hbos import HBOS

        detector = HBOS()
    elif kind.startswith("subspace"):
        from pyod.models.pca import PCA

        detector = PCA(random_state=seed)
    elif kind == "autoencoder":
        from pyod.models.auto_encoder import AutoEncoder

        detector = AutoEncoder(hidden_neuron_list=[parameters.get("hidden", 12)], random_state=seed, verbose=0)
    else:
        return None
    return detector.fit, detector.decision_function


def measure(exchange: Exchange) -> None:
    order = exchange.order
    kind, peer = order["detector"], order["peer"]
    X_train, X = exchange.arrays["X_train"], exchange.arrays["X"]
    found = (sklearn_detector if peer == "sklearn" else pyod_detector)(kind, order, X.shape[1])
    if found is None:
        exchange.refuse(f"{peer} has no counterpart of the detector {kind!r}")
    fit, scores_of = found
    if kind not in _AS_THEY_ARE:
        mean, spread = X_train.mean(axis=0), X_train.std(axis=0)
        spread[spread == 0] = 1.0
        X_train, X = (X_train - mean) / spread, (X - mean) / spread
    exchange.time("server", "train", lambda: fit(X_train))
    for _ in range(REPEATS):
        scores = exchange.time("server", "score", lambda: scores_of(X), rows=len(X))
    exchange.facts["threshold"] = float(np.quantile(scores_of(X_train), 1 - order["contamination"]))
    exchange.notes.append("sees every record in the clear, and trains on all of them together without privacy")
    exchange.answer(scores, "scikit-learn", *(["pyod"] if peer == "pyod" else []))


if __name__ == "__main__":
    measure(asked())
