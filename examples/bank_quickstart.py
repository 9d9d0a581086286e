"""Three banks train one detector privately; a service scores transactions that it cannot read.

Run: python examples/bank_quickstart.py
"""

import numpy as np

import securead as sa


def main() -> None:
    # Made-up payments: an amount, an hour and a distance; frauds are large, at night and far from home.
    rng = np.random.default_rng(7)
    X = np.column_stack([rng.lognormal(3, 1, 60_000), rng.normal(14, 4, 60_000), rng.exponential(20, 60_000)])
    frauds = np.column_stack([rng.lognormal(6, 1, 100), rng.normal(3, 1, 100), rng.exponential(300, 100)])

    # --- the dozen lines of the README ---
    schema = sa.Schema(
        (
            sa.Column("amount", 0, 30_000, transform="log"),
            sa.Column("hour", 0, 24),
            sa.Column("distance_km", 0, 20_000, transform="log"),
        )
    )
    banks = [sa.Site(f"bank-{i}", X[rows]) for i, rows in enumerate(sa.partition(len(X), (6, 3, 1), seed=0))]
    detector = sa.IsolationForest(scaling="private", threshold=sa.FalseAlarms(0.01))
    sa.train(detector, banks, schema, privacy=sa.PrivacyPlan(epsilon=1.0, delta=1e-6))
    bundle = sa.make_bundle(detector, "payments")

    with sa.serve([bundle]) as service, sa.Client(service.url) as client:
        result = client.score("payments", frauds)  # encrypted here, scored there, decrypted here
    print(f"{result.is_anomaly.mean():.0%} of the frauds found, {result.bytes_up / len(frauds):,.0f} bytes up each")
    # --- end ---
    print(*bundle.public.privacy.in_words(), sep="\n")


if __name__ == "__main__":
    main()
