"""Windows of sensor readings on SKAB: twenty gateways train one autoencoder, beside what it has to beat.

    python benchmarks/skab.py --data-dir $SECUREAD_DATA --out bench-output/skab.json

Every run of the rig is a gateway: its first 400 readings, all normal, train; the rest is scored. A record is a window
of 10 readings of 8 channels, scored when its last reading has come; AUROC is over all scored windows of all gateways
together, labelled by their last reading. Each gateway puts its readings on its own scale, found from its 391 training
windows; with privacy that is noised and charged like everything else, at window-level epsilon 8, 3 and 1 and delta
1e-5. |z|^2 and the untrained network see the same scales as the trained one.

No label is looked at before scoring. Without noise the candidates are the three widths of the study that this is to
reach, its hidden layer [h, h^2] included; all three are scored, so that anybody sees what the choice is worth. With
noise they are those and the estimator's half linear, half square units. `--choose` trains the candidates on each
gateway's first 300 readings, with the clipping, the scales and the noise of the real runs (from known seeds, so that
the choice can be repeated), and prints the share of |z|^2 that they fail to reconstruct in windows of the 100 readings
after them, mean of two seeds; those with the least stand in CHOSEN. Less is left the wider a network is, down to one
that copies its input and finds nothing, so nothing is wider than the study's 16. With privacy such a choice on real
readings would have to be paid for, too; here it is not. Needs skab.npz; figures are
of one machine.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from securead.data.readings import Readings, read_readings
from securead.data.schema import Column
from securead.data.streaming import windows_of
from securead.data.windows import Window, WindowedSchema
from securead.errors import PrivacyRefusedError
from securead.federated.embedded import train
from securead.federated.participant import Site
from securead.models.autoencoder import AutoEncoder
from securead.models.estimator import AnomalyDetector
from securead.models.forest import IsolationForest
from securead.models.subspace import SubspaceDetector
from securead.privacy.plan import PrivacyPlan

DATA, FIRST, LIMIT, DELTA = "skab.npz", 400, 5.0, 1e-5
# Ranges of such sensors, rounded; not read off the readings.
CHANNELS = (
    Column("Accelerometer1RMS", 0, 0.2),
    Column("Accelerometer2RMS", 0, 0.2),
    Column("Current", 0, 6),
    Column("Pressure", -2, 3),
    Column("Temperature", 0, 120),
    Column("Thermocouple", 0, 60),
    Column("Voltage", 150, 300),
    Column("Volume Flow RateRMS", 0, 60),
)
SCHEMA = WindowedSchema.of(Window(CHANNELS, length=10))
_PASSES: dict[str, Any] = {"rounds": 60, "sampling_prob": 0.1, "learning_rate": 0.005, "average_last": 10}
_FULL_BATCH: dict[str, Any] = {"rounds": 60, "sampling_prob": 1.0, "learning_rate": 0.05, "average_last": 10}
_BOTH = "linear_and_square"
# The widths of the study that this is to reach, [h, h^2] as there; nothing of ours.
WITHOUT_NOISE: tuple[dict[str, Any], ...] = (
    {"hidden": 4, "units": _BOTH, **_PASSES},
    {"hidden": 8, "units": _BOTH, **_PASSES},
    {"hidden": 16, "units": _BOTH, **_PASSES},
)
WITH_NOISE: tuple[dict[str, Any], ...] = (
    {"hidden": 8, **_FULL_BATCH},
    {"hidden": 16, **_FULL_BATCH},
    {"hidden": 8, "units": _BOTH, **_FULL_BATCH},
    {"hidden": 16, "units": _BOTH, **_FULL_BATCH},
    {"hidden": 8, "rounds": 30, "sampling_prob": 1.0, "learning_rate": 0.05},
    {"hidden": 16, "rounds": 40, "sampling_prob": 0.2, "learning_rate": 0.02},
)
EPSILONS = (None, 8.0, 3.0, 1.0)
# By --choose; the position among the candidates for each epsilon.
CHOSEN = {None: 2, 8.0: 1, 3.0: 0, 1.0: 4}
# For --choose: so many readings train, those up to FIRST are held out.
EARLIER = 300
NAMES = ("autoencoder", "untrained", "|z|^2", "mahalanobis", "pca residual", "forest")


def trained(
    detector: AnomalyDetector, runs: tuple[Readings, ...], epsilon: float | None, *, first: int = FIRST, **noise: Any
) -> AnomalyDetector:
    """The detector over all gateways' first readings."""
    sites = [Site(run.series, windows_of(SCHEMA, run.X[:first]).X) for run in runs]
    return train(detector, sites, SCHEMA, privacy=None if epsilon is None else PrivacyPlan(epsilon, DELTA, **noise))


def rest(
    detector: AnomalyDetector, runs: tuple[Readings, ...], *, start: int = FIRST, stop: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """All windows that end at readings from `start` on (and before `stop`), on their gateways' scales, and labels."""
    X, y = [], []
    for run in runs:
        windows = windows_of(SCHEMA.localised(), run.X[:stop], scale=detector.scales_[run.series])
        later = windows.rows >= start
        X.append(windows.X[later])
        y.append(run.y[windows.rows[later]])
    return np.concatenate(X), np.concatenate(y)


def candidates(epsilon: float | None) -> tuple[dict[str, Any], ...]:
    return WITHOUT_NOISE if epsilon is None else WITH_NOISE


def autoencoder(parameters: dict[str, Any], seed: int) -> AutoEncoder:
    return AutoEncoder(scaling="local", limit=LIMIT, random_state=seed, patience=parameters["rounds"], **parameters)


def areas(
    runs: tuple[Readings, ...], epsilon: float | None, seed: int
) -> tuple[dict[str, float], AnomalyDetector | None]:
    """AUROC of every detector; one whose training is refused for too few windows is left out."""
    found: dict[str, float] = {}
    try:
        network = trained(autoencoder(candidates(epsilon)[CHOSEN[epsilon]], seed), runs, epsilon)
    except PrivacyRefusedError as error:
        print(f"  autoencoder, epsilon {epsilon}, seed {seed}: refused: {error}")
        return found, None
    X, y = rest(network, runs)
    Z = np.clip(X, -LIMIT, LIMIT)
    found["autoencoder"] = roc_auc_score(y, network.anomaly_score(X))
    found["untrained"] = roc_auc_score(y, network.untrained_score(X))
    found["|z|^2"] = roc_auc_score(y, (Z**2).sum(axis=1))
    others = {
        "mahalanobis": SubspaceDetector(scaling="local", limit=LIMIT),
        "pca residual": SubspaceDetector(method="pca_residual", components=20, scaling="local", limit=LIMIT),
        "forest": IsolationForest(scaling="local", threshold="model", limit=LIMIT, random_state=seed),
    }
    for name, detector in others.items():
        try:
            fitted = trained(detector, runs, epsilon)
        except PrivacyRefusedError as error:
            print(f"  {name}, epsilon {epsilon}: refused: {error}")
            continue
        X, y = rest(fitted, runs)
        found[name] = roc_auc_score(y, fitted.anomaly_score(X))
    return {name: float(value) for name, value in found.items()}, network


def every(runs: tuple[Readings, ...], seeds: int) -> list[dict[str, Any]]:
    """What all candidates come to without noise: reported, and no choice hangs on it."""
    found = []
    for parameters in WITHOUT_NOISE:
        values = []
        for seed in range(seeds):
            network = trained(autoencoder(parameters, seed), runs, None)
            X, y = rest(network, runs)
            values.append(float(roc_auc_score(y, network.anomaly_score(X))))
        found.append({"parameters": parameters, "auroc": values})
        print(f"without noise, {parameters['hidden']} hidden: {np.mean(values):.4f} ({_error(np.array(values)):.4f})")
    return found


def verdict(epsilon: float | None, rows: list[dict[str, float]]) -> str:
    """Whether the autoencoder still wins, in words; a lead within two standard errors is none."""
    own = np.array([row["autoencoder"] for row in rows])
    told: dict[str, list[str]] = {"beats": [], "is level with": [], "loses to": []}
    for name in NAMES[1:]:
        other = np.array([row[name] for row in rows if name in row])
        if len(other):
            doubt = 2 * float(np.hypot(_error(own), _error(other)))
            lead = float(own.mean() - other.mean())
            word = "beats" if lead > doubt else "loses to" if lead < -doubt else "is level with"
            told[word].append(f"{name} ({other.mean():.3f})")
    where = "without noise" if epsilon is None else f"at epsilon {epsilon:g}"
    words = "; ".join(f"{word} {', '.join(names)}" for word, names in told.items() if names)
    return f"{where} the autoencoder ({own.mean():.4f}) {words}"


def _error(values: np.ndarray) -> float:
    return float(values.std(ddof=1)) / len(values) ** 0.5 if len(values) > 1 else 0.0


def left(parameters: dict[str, Any], runs: tuple[Readings, ...], epsilon: float | None, seed: int) -> float:
    """The share of |z|^2 left in windows that lie wholly in the readings held out from the training ones."""
    noise = {} if epsilon is None else {"noise_source": "seeded-study", "seed": seed}
    network = trained(autoencoder(parameters, seed), runs, epsilon, first=EARLIER, **noise)
    X, _ = rest(network, runs, start=EARLIER + SCHEMA.window.length - 1, stop=FIRST)
    return float(network.anomaly_score(X).sum() / (np.clip(X, -LIMIT, LIMIT) ** 2).sum())


def choose(runs: tuple[Readings, ...], epsilons: Sequence[float | None], seeds: int) -> None:
    for epsilon in epsilons:
        found = []
        for at, parameters in enumerate(candidates(epsilon)):
            each = [left(parameters, runs, epsilon, seed) for seed in range(seeds)]
            found.append(float(np.mean(each)))
            print(
                f"epsilon {epsilon}: {at} {parameters}: {found[-1]:.4f} of |z|^2 left ({np.ptp(each):.4f})", flush=True
            )
        print(f"epsilon {epsilon}: least at {int(np.argmin(found))}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, default=os.environ.get("SECUREAD_DATA"), help=f"where {DATA} lies")
    parser.add_argument("--seeds", type=int, help="5 by default, 2 for --choose")
    parser.add_argument(
        "--choose", action="store_true", help="compare the candidates on held-out training windows and stop"
    )
    parser.add_argument("--only", type=float, help="this epsilon only; 0 for no noise")
    parser.add_argument("--out", type=Path, help="write the figures as JSON, too")
    options = parser.parse_args()
    if options.data_dir is None or not (Path(options.data_dir) / DATA).is_file():
        print(f"skipped: needs {DATA} in the folder that --data-dir or SECUREAD_DATA names")
        return
    runs = read_readings(Path(options.data_dir) / DATA, SCHEMA.window, series="experiment")
    epsilons = EPSILONS if options.only is None else [options.only or None]
    if options.choose:
        choose(runs, epsilons, options.seeds or 2)
        return
    seeds = options.seeds or 5
    report: dict[str, Any] = {"window": 10, "delta": DELTA, "seeds": seeds, "settings": []}
    for epsilon in epsilons:
        start, rows, network = time.perf_counter(), [], None
        for seed in range(seeds):
            row, fitted = areas(runs, epsilon, seed)
            if fitted is not None:
                rows.append(row)
                network = fitted
        if network is None:
            report["settings"].append({"asked": epsilon, "refused": seeds})
            continue
        stated = network.statement_
        report["settings"].append(
            {
                "epsilon_window": stated.epsilon,
                "epsilon_reading": None if stated.readings is None else stated.readings.epsilon,
                "refused": seeds - len(rows),
                "parameters": candidates(epsilon)[CHOSEN[epsilon]],
                "auroc": {name: [row[name] for row in rows if name in row] for name in NAMES},
                "verdict": verdict(epsilon, rows),
                "seconds": time.perf_counter() - start,
            }
        )
        print(report["settings"][-1]["verdict"], flush=True)
        if epsilon is None:
            report["settings"][-1]["candidates"] = every(runs, seeds)
        if options.out:
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(json.dumps(report, indent=2) + "\n")
    print_table(report)


def print_table(report: dict[str, Any]) -> None:
    settings = [found for found in report["settings"] if "auroc" in found]

    def told(epsilon: float | None) -> str:
        return "no noise" if epsilon is None else f"{epsilon:.3g}"

    print(f"{'epsilon, of a window':22}" + "".join(f"{told(s['epsilon_window']):>16}" for s in settings))
    print(f"{'epsilon, of a reading':22}" + "".join(f"{told(s['epsilon_reading']):>16}" for s in settings))
    for name in NAMES:
        cells = []
        for values in (np.array(s["auroc"][name]) for s in settings):
            spread = values.std(ddof=1) if len(values) > 1 else 0.0
            cells.append(f"{values.mean():.3f} ({spread:.3f})" if len(values) else "refused")
        print(f"{name:22}" + "".join(f"{cell:>16}" for cell in cells))


if __name__ == "__main__":
    main()
