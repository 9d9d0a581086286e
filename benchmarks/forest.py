"""The private isolation forest and histograms beside scikit-learn's isolation forest without privacy.

    python benchmarks/forest.py --data-dir $SECUREAD_DATA --out bench-output/forest.json

Six public data sets, seven tenths for training (stratified), the rest scored; three uneven sites, each with its full
noise; one run a seed, which sets the held-out records, the split among sites, the public splits and scikit-learn's
forest. Bounds are the observed range widened on each side, which stands in for a declared schema: these models are
private except for what the range reveals. The threshold does not matter to the figures and is not paid for. `norm` is
|z|^2 of z-scored records, a control. Time to fit is of creditcard_rounded.npz, with a private threshold, from records
at three sites to a bundle; figures are of one machine, which may be shared.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

import bfv_lookup
import numpy as np
from sklearn.ensemble import IsolationForest as SklearnForest
from sklearn.metrics import average_precision_score, roc_auc_score
from sklearn.model_selection import train_test_split

from securead.data.partition import partition
from securead.data.readers import Table, read_table
from securead.data.schema import Schema
from securead.federated.embedded import train
from securead.federated.participant import Site
from securead.models import bundle
from securead.models.forest import IsolationForest
from securead.models.histogram import HistogramDetector
from securead.privacy.plan import PrivacyPlan

SETS = ("6_cardio", "38_thyroid", "23_mammography", "32_shuttle", "34_smtp", "5_campaign")
TIMED = "creditcard_rounded"
SHARES = (6, 3, 1)
DELTA = 1e-6
EPSILONS = {"eps1": 1.0, "eps05": 0.5}
Figures = dict[str, dict[str, list[float]]]
"""AUROC and average precision ("auroc", "ap") by method, a value for each seed."""


def sites_of(X: np.ndarray, seed: int) -> list[Site]:
    """Three uneven sites."""
    return [Site(f"site-{i}", X[rows]) for i, rows in enumerate(partition(len(X), SHARES, seed=seed))]


def scores_of(
    table: Table, seed: int, widen: float, forest: dict[str, Any]
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Labels of the held-out records and their scores by every method."""
    assert table.y is not None
    X, held, _, y = train_test_split(table.X, table.y, test_size=0.3, stratify=table.y, random_state=seed)
    schema, sites = Schema.observed(table.X, widen=widen), sites_of(X, seed)
    found = {}
    for name, epsilon in EPSILONS.items():
        plan = PrivacyPlan(epsilon, DELTA)
        ours = IsolationForest(**{"random_state": seed, "threshold": "model", **forest})
        found[f"forest_{name}"] = train(ours, sites, schema, privacy=plan).anomaly_score(held)
        histograms = HistogramDetector(threshold="model")
        found[f"hbos_{name}"] = train(histograms, sites, schema, privacy=plan).anomaly_score(held)
    theirs = SklearnForest(n_estimators=100, random_state=seed).fit(X)
    found["sklearn"] = -theirs.score_samples(held)
    deviation = X.std(axis=0)
    found["norm"] = (((held - X.mean(axis=0)) / np.where(deviation > 0, deviation, 1.0)) ** 2).sum(axis=1)
    return y, found


def compare(table: Table, seeds: int, widen: float, forest: dict[str, Any]) -> Figures:
    """All methods on one data set."""
    figures: Figures = {}
    for seed in range(seeds):
        y, found = scores_of(table, seed, widen, forest)
        for name, scores in found.items():
            method = figures.setdefault(name, {"auroc": [], "ap": []})
            method["auroc"].append(float(roc_auc_score(y, scores)))
            method["ap"].append(float(average_precision_score(y, scores)))
    return figures


def mean_over(per_dataset: dict[str, Figures], method: str, measure: str) -> float:
    """The mean over data sets of the means over seeds."""
    return float(np.mean([np.mean(figures[method][measure]) for figures in per_dataset.values()]))


def fit_seconds(table: Table, widen: float, forest: dict[str, Any]) -> float:
    """From the records of three sites to a bundle, calibration of the noise included."""
    schema, sites = Schema.observed(table.X, widen=widen), sites_of(table.X, 0)
    start = time.perf_counter()
    detector = IsolationForest(**{"contamination": 0.01, **forest})
    bundle.make(train(detector, sites, schema, privacy=PrivacyPlan(1.0, DELTA)), "forest")
    return time.perf_counter() - start


def lookup_figures() -> dict[str, float]:
    """Encrypted look-ups of 50 trees of 64 leaves, role same: a row of a full chunk, and one row alone."""
    full, alone = (case for case in bfv_lookup.measure(("50 x 64",), repeats=5)[:2])
    found: dict[str, float] = {}
    for prefix, case in (("bfv", full), ("bfv_single", alone)):
        found[f"{prefix}_ms_per_row"] = case["server_ms_per_row"]["median"]
        found[f"{prefix}_upload_bytes"] = case["upload_bytes_per_row"]
        found[f"{prefix}_download_bytes"] = case["download_bytes_per_row"]
    print(f"look-ups, ms and bytes a row: {json.dumps(found)}", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, default=os.environ.get("SECUREAD_DATA"), help="where the sets lie")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--widen", type=float, default=0.2, help="of the range's width, added to it on each side")
    parser.add_argument("--forest", type=json.loads, default={}, help="other parameters of the forest, as JSON")
    parser.add_argument("--out", type=Path, help="write the figures as JSON, too")
    options = parser.parse_args()
    names = (TIMED, *SETS)
    if options.data_dir is None or not all((Path(options.data_dir) / f"{name}.npz").is_file() for name in names):
        print(f"skipped: needs {', '.join(names)} (.npz) in the folder that --data-dir or SECUREAD_DATA names")
        return
    tables = {name: read_table(Path(options.data_dir) / f"{name}.npz") for name in names}

    seconds = fit_seconds(tables[TIMED], options.widen, options.forest)
    print(f"{len(tables[TIMED].X):,} records of three sites to a bundle: {seconds:.2f} s on {os.cpu_count()} cores")
    per_dataset: dict[str, Figures] = {}
    print(f"AUROC / average precision, {options.seeds} seeds, delta = {DELTA:g}, bounds widened by {options.widen:g}")
    for name in SETS:
        per_dataset[name] = compare(tables[name], options.seeds, options.widen, options.forest)
        row = (f"{m} {np.mean(f['auroc']):.3f}/{np.mean(f['ap']):.3f}" for m, f in per_dataset[name].items())
        print(f"  {name:15} " + "  ".join(row), flush=True)
    report: dict[str, Any] = {
        "parameters": IsolationForest(**options.forest).get_params(deep=False),
        "widen": options.widen,
        "delta": DELTA,
        "seeds": options.seeds,
        "per_dataset": per_dataset,
        "auroc_mean_eps1": mean_over(per_dataset, "forest_eps1", "auroc"),
        "auroc_mean_eps05": mean_over(per_dataset, "forest_eps05", "auroc"),
        "ap_mean_eps1": mean_over(per_dataset, "forest_eps1", "ap"),
        "ap_mean_eps05": mean_over(per_dataset, "forest_eps05", "ap"),
        "hbos_auroc_mean_eps1": mean_over(per_dataset, "hbos_eps1", "auroc"),
        "hbos_auroc_mean_eps05": mean_over(per_dataset, "hbos_eps05", "auroc"),
        "hbos_ap_mean_eps1": mean_over(per_dataset, "hbos_eps1", "ap"),
        "sklearn_auroc_mean": mean_over(per_dataset, "sklearn", "auroc"),
        "sklearn_ap_mean": mean_over(per_dataset, "sklearn", "ap"),
        "norm_auroc_mean": mean_over(per_dataset, "norm", "auroc"),
        "norm_ap_mean": mean_over(per_dataset, "norm", "ap"),
        "fit_seconds": seconds,
        **lookup_figures(),
    }
    for name, value in report.items():
        if isinstance(value, float) and "mean" in name:
            print(f"  {name:22} {value:.4f}")
    for name in EPSILONS:
        gap = report[f"auroc_mean_{name}"] - report["sklearn_auroc_mean"]
        print(f"  forest - scikit-learn at epsilon {EPSILONS[name]:g}: {gap:+.4f}")
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
