"""Ways of averaging an autoencoder over sites that differ: FedAvg, FedProx and FedAdam, and updates in few bits.

    python benchmarks/federated_averaging.py --data-dir $SECUREAD_DATA --out bench-output/averaging.json

Five sites share seven tenths of Satellite's records (anomalies included, labels unseen) and score the rest: at random;
with sizes from Dirichlet(0.5); each its own stretch of a random direction; each its own cluster of anomalies. Every
combination runs without noise and with that of a study (DP-SGD at record-level epsilon 3, delta 1e-5, from a seed, so
that it repeats); one run a seed, which sets the held-out records, the split, the initial weights and the noise.
Columns are standardised by the training records, which stands for a declared scale. Figures are of one machine.

`unexplained` is the share of |z|^2 of held-out normal records that the network fails to reconstruct: what training
minimises, as against AUROC, which it only hopes for. FedAdam's and FedProx's parameters were chosen by it, at random
shares and without noise.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats
from sklearn.metrics import roc_auc_score

from securead.data.partition import hold_out
from securead.data.readers import Table, read_table
from securead.data.schema import Schema
from securead.data.skew import Skew
from securead.federated.embedded import train
from securead.federated.messages import word_bits
from securead.federated.participant import Site
from securead.models.autoencoder import AutoEncoder
from securead.privacy.plan import PrivacyPlan

DATA, SITES = "30_satellite.npz", 5
NETWORK = {"hidden": 9, "rounds": 10, "sampling_prob": 0.1, "learning_rate": 0.01, "patience": 10}
WAYS: dict[str, dict[str, Any]] = {
    "FedAvg": {},
    "FedProx": {"proximal": 0.1},
    "FedAdam": {"server_optimizer": "adam"},
}
SPLITS = {
    "random": Skew("feature", strength=0.0),
    "quantity": Skew("quantity", strength=2 / 3, minimum=50),
    "feature": Skew("feature", strength=1.0),
    "anomaly": Skew("anomaly", strength=1.0),
}
BITS = (None, 16, 8)
EPSILONS = (None, 3.0)


def one_run(
    table: Table, split: Skew, epsilon: float | None, seed: int, parameters: dict[str, Any]
) -> tuple[AutoEncoder, dict[str, float]]:
    """A trained detector, and what it and its controls reach on held-out records."""
    assert table.y is not None
    fit, held = hold_out(len(table.X), table.y, 0.3, seed=seed)
    X, y = table.X[fit], table.y[fit]
    spread = X.std(axis=0)
    schema = Schema.observed(X, table.columns, widen=0.1).with_scale(X.mean(axis=0), np.where(spread > 0, spread, 1.0))
    parts = split.split(X, table.columns, y, [1.0] * SITES, seed=seed)
    plan = None if epsilon is None else PrivacyPlan(epsilon, 1e-5, "seeded-study", seed)
    detector = AutoEncoder(**NETWORK, random_state=seed, **parameters)
    sites = [Site(f"site-{at}", X[rows]) for at, rows in enumerate(parts)]
    train(detector, sites, schema, privacy=plan)
    scores, norms = (
        detector.anomaly_score(table.X[held]),
        (detector.encoder_.standardise(table.X[held]) ** 2).sum(axis=1),
    )
    labels, normal = table.y[held], table.y[held] == 0
    return detector, {
        "auroc": float(roc_auc_score(labels, scores)),
        "unexplained": float(scores[normal].sum() / norms[normal].sum()),
        "untrained": float(roc_auc_score(labels, detector.untrained_score(table.X[held]))),
        "norm": float(roc_auc_score(labels, norms)),
    }


def bytes_per_round(parameters: int, bits: int | None) -> int:
    """Of a site's masked update of the network: every value in as many bits as a sum over all sites needs, and one."""
    return (parameters * word_bits(bits or 64, SITES) + 7) // 8


def findings(runs: list[dict[str, Any]], sizes: dict[str, int]) -> list[str]:
    """What the figures say; a difference counts where a paired t-test over splits and seeds finds it, at 5 %."""
    said = []

    def of(value: str = "auroc", **fixed: Any) -> np.ndarray:
        """In the order of the runs, so that two selections that differ in one respect are paired."""
        return np.array([run[value] for run in runs if all(run[key] == wanted for key, wanted in fixed.items())])

    def against(new: np.ndarray, old: np.ndarray) -> str:
        gap = new - old
        unsure = np.inf if len(gap) < 2 else stats.t.ppf(0.975, len(gap) - 1) * gap.std(ddof=1) / np.sqrt(len(gap))
        word = "within chance" if abs(gap.mean()) <= unsure else ("better" if gap.mean() > 0 else "worse")
        return f"{gap.mean():+.3f} AUROC ({word})"

    for epsilon in EPSILONS:
        where = "without noise" if epsilon is None else f"at epsilon {epsilon:g}"
        plain = {"way": "FedAvg", "bits": None, "epsilon": epsilon}
        shown = of(**plain, split="random")
        controls = (of(control, **plain, split="random").mean() for control in ("untrained", "norm"))
        beside = "untrained {:.3f}, |z|^2 {:.3f}".format(*controls)
        said.append(f"{where}, FedAvg at random shares: AUROC {shown.mean():.3f}; {beside}")
        for split in list(SPLITS)[1:]:
            said.append(f"{where}, skew by {split} instead: {against(of(**plain, split=split), shown)}")
        for way in list(WAYS)[1:]:
            other = {**plain, "way": way}
            left, before = of("unexplained", **other).mean(), of("unexplained", **plain).mean()
            change = against(of(**other), of(**plain))
            said.append(
                f"{where}, {way} instead of FedAvg, all splits: {change}; unexplained {left:.3f} for {before:.3f}"
            )
        for bits in BITS[1:]:
            chosen = [way for way in WAYS if len(of(way=way, bits=bits, epsilon=epsilon))]
            new, old = (np.concatenate([of(way=w, bits=b, epsilon=epsilon) for w in chosen]) for b in (bits, None))
            share = sizes[str(bits)] / sizes["None"]
            said.append(f"{where}, {bits} bits a value: {against(new, old)} for {share:.0%} of the bytes")
    return said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, default=os.environ.get("SECUREAD_DATA"), help=f"where {DATA} lies")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="write the figures as JSON, too")
    options = parser.parse_args()
    if options.data_dir is None or not (Path(options.data_dir) / DATA).is_file():
        print(f"skipped: needs {DATA} in the folder that --data-dir or SECUREAD_DATA names")
        return
    table, start, runs, parameters = read_table(Path(options.data_dir) / DATA), time.process_time(), [], 0
    # FedProx changes nothing about what is sent: bits are varied for the other two.
    ways = [(way, bits) for way, bits in itertools.product(WAYS, BITS) if bits is None or way != "FedProx"]
    print(f"{'split':10}{'way':10}{'bits':>6}{'epsilon':>9}{'AUROC':>8}{'deviation':>11}{'unexplained':>13}")
    for split, (way, bits), epsilon in itertools.product(SPLITS, ways, EPSILONS):
        found = []
        for seed in range(options.seeds):
            chosen = {**WAYS[way], "update_bits": bits}
            detector, reached = one_run(table, SPLITS[split], epsilon, seed, chosen)
            parameters = len(detector.values_["theta"]) + 1  # and the weight
            found.append(reached)
            runs.append({"split": split, "way": way, "bits": bits, "epsilon": epsilon, "seed": seed, **reached})
        areas = np.array([each["auroc"] for each in found])
        deviation = areas.std(ddof=1) if len(areas) > 1 else 0.0
        left = np.mean([each["unexplained"] for each in found])
        print(f"{split:10}{way:10}{bits or 64:6}{epsilon or '-':>9}{areas.mean():8.3f}{deviation:11.3f}{left:13.3f}")
    sizes = {str(bits): bytes_per_round(parameters, bits) for bits in BITS}
    print(f"bytes of a site's masked update of its network ({parameters} values, {SITES} sites): ", end="")
    print(", ".join(f"{size:,} at {bits} bits" for bits, size in zip((64, *BITS[1:]), sizes.values(), strict=True)))
    said, seconds = findings(runs, sizes), time.process_time() - start
    print("\n".join(said))
    print(f"{len(runs)} runs in {seconds:.0f} s of processor time")
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        report = {
            "data": DATA,
            "sites": SITES,
            "network": NETWORK,
            "bytes_per_site_round": sizes,
            "findings": said,
            "seconds": seconds,
            "runs": runs,
        }
        options.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
