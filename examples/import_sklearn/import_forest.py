"""A forest that scikit-learn fitted scores records that the service cannot see, and agrees with scikit-learn.

Run: python examples/import_sklearn/import_forest.py
"""

import numpy as np
from sklearn.ensemble import IsolationForest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import securead as sa
from securead.models import from_sklearn


def main() -> None:
    # Made-up machines: temperature, vibration and current go together; faults break the relation or the range.
    rng = np.random.default_rng(7)
    load = rng.uniform(0, 1, 5_000)
    X = np.column_stack([40 + 30 * load, 1 + 2 * load, 5 + 20 * load]) + rng.normal(0, [1, 0.1, 0.5], (5_000, 3))
    faults = np.column_stack([rng.normal(90, 5, 20), rng.normal(5, 1, 20), rng.normal(5, 2, 20)])
    records = np.vstack([X[:100], faults])

    # --- what you have ---
    theirs = make_pipeline(StandardScaler(), IsolationForest(n_estimators=50, contamination=0.01, random_state=0)).fit(
        X
    )

    # --- what you add ---
    detector = from_sklearn(theirs)  # splits become public, path lengths stay secret
    bundle = sa.make_bundle(detector, "machines")
    with sa.serve([bundle]) as service, sa.Client(service.url) as client:
        result = client.score("machines", records)  # encrypted here, scored there, decrypted here

    scores = detector.in_original_scale(result.scores)  # on scikit-learn's scale
    exact = -theirs.score_samples(records)
    apart, bound = np.abs(scores - exact).max(), detector.error_bound(records).max()
    assert apart <= bound
    agree = (result.is_anomaly == (theirs.predict(records) == -1)).mean()
    print(f"{result.is_anomaly[100:].mean():.0%} of the faults found under encryption")
    print(
        f"scores apart from scikit-learn's by {apart:.1e} at most (stated: {bound:.1e}); {agree:.1%} of verdicts agree"
    )
    print(f"{result.bytes_up / len(records):,.0f} bytes up a record")
    print(*bundle.public.privacy.in_words(), sep="\n")


if __name__ == "__main__":
    main()
