"""A forest among three sites: over Flower with TLS and masked sums, in one process, centrally, and at each site alone.

    make bench-federation          (or: python benchmarks/federation.py --out bench-output/federation.json)

`forest_flower_seconds` counts from the start of the four processes to their end, with the bundle written;
`forest_embedded_seconds` the same for `securead train`. Card payments where SECUREAD_DATA is set, else generated ones,
split 6 : 3 : 1; 30 % are held out. AUROC: federated with epsilon 1 at every site, beside scikit-learn's forest on all
records and without privacy, and beside the best of three private forests that saw one site's records only.
"""

from __future__ import annotations

import argparse
import csv
import json
import logging
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
from masking import measure as measure_masking
from sklearn.ensemble import IsolationForest as StockForest
from sklearn.metrics import roc_auc_score

from securead import certificates
from securead.data.generators.payments import generate_payments
from securead.data.partition import hold_out, partition
from securead.data.readers import Table, read_table
from securead.errors import PrivacyRefusedError
from securead.federated.embedded import train
from securead.federated.events import Answered, Event
from securead.federated.flower.coordinating import coordinate
from securead.federated.participant import Site
from securead.federated.recipe import parse_recipe
from securead.federated.roles import terms_of
from securead.models import bundle

SITES, SHARES = ("bank-a", "bank-b", "bank-c"), (6, 3, 1)


def recipe_of(table: Table) -> str:
    """The recipe, with bounds twice as wide as the data: stand-ins for what a domain expert declares."""
    columns = []
    for name, low, high in zip(table.columns, table.X.min(axis=0), table.X.max(axis=0), strict=True):
        widen = (high - low) / 2 or 1.0
        columns.append(
            f'[[schema.columns]]\nnames = ["{name}"]\nlower = {low - widen:.6g}\nupper = {high + widen:.6g}\n'
        )
    sites = "".join(f'[[sites]]\nname = "{name}"\nshare = {share}\n' for name, share in zip(SITES, SHARES, strict=True))
    return f"""name = "forest"
{sites}
[federation]
aggregation = "masked"
[detector]
type = "forest"
n_estimators = 100
depth = 5
random_state = 0
scaling = "private"
threshold = {{ type = "false_alarms", rate = 0.01 }}
[privacy]
epsilon = 1.0
delta = 1e-6
[schema]
{"".join(columns)}"""


def payments() -> tuple[str, Table]:
    folder = os.environ.get("SECUREAD_DATA")
    if folder and (path := Path(folder) / "creditcard_rounded.npz").is_file():
        return "creditcard", read_table(path)
    return "generated payments", generate_payments(rows=60_000, seed=0).table


class Scene:
    """Files of one deployment, and its processes."""

    def __init__(self, folder: Path, table: Table) -> None:
        self.folder, self.columns = folder, table.columns
        self.training, self.held = hold_out(len(table.X), table.y, 0.3, seed=0)
        self.X, self.y = table.X, table.y
        self.parts = [self.training[rows] for rows in partition(len(self.training), SHARES, seed=0)]
        self.recipe = folder / "recipe.toml"
        self.recipe.write_text(recipe_of(table))
        for name, rows in [*zip(SITES, self.parts, strict=True), ("all", self.training)]:
            with (folder / f"{name}.csv").open("w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(self.columns)
                writer.writerows(self.X[rows].tolist())
        certificates.issue(folder / "certs", ["coordinator", *SITES])

    def site(self, name: str, address: str, run: str) -> subprocess.Popen[str]:
        held = ["--certs", self.folder / "certs" / name, "--folder", self.folder / f"{run}-{name}"]
        data = ["--data", self.folder / f"{name}.csv", "--coordinator", address]
        return self.process("site", self.recipe, *held, *data)

    def process(self, *arguments: object) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "securead", *map(str, arguments)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def over_flower(self, run: str) -> float:
        start = time.perf_counter()
        certs = self.folder / "certs" / "coordinator"
        coordinator = self.process("coordinator", self.recipe, "--certs", certs, "--out", self.folder / run)
        assert coordinator.stdout is not None
        found = re.search(r"listens at (\S+)", coordinator.stdout.readline())
        if found is None:
            raise SystemExit(coordinator.communicate()[1])
        ended([coordinator, *(self.site(name, found[1], run) for name in SITES)])
        return time.perf_counter() - start

    def bytes_over_flower(self) -> Counter[str]:
        """The same run with its coordinator in this process, which counts."""
        terms, counted, sites = terms_of(parse_recipe(self.recipe.read_text(), where="recipe")), Counter[str](), []

        def listener(event: Event) -> None:
            if isinstance(event, Answered):
                counted["down"] += event.sent
                counted["up"] += event.received

        coordinate(
            terms,
            self.folder / "certs" / "coordinator",
            self.folder / "counted",
            listener=listener,
            listening=lambda address: sites.extend(self.site(name, address, "counted") for name in SITES),
        )
        ended(sites)
        counted["rounds"] = len({step.stage for step in terms.detector.training_})
        return counted

    def embedded(self, run: str) -> float:
        start = time.perf_counter()
        ended([self.process("train", self.recipe, "--data", self.folder / "all.csv", "--out", self.folder / run)])
        return time.perf_counter() - start

    def auroc(self, scores: np.ndarray) -> float:
        return float(roc_auc_score(self.y[self.held], scores))

    def alone(self, at: int) -> float | None:
        """The same detector from one site's records; None where they are too few for its privacy."""
        terms = terms_of(parse_recipe(self.recipe.read_text(), where="recipe"))
        site = Site(SITES[at], self.X[self.parts[at]])
        try:
            detector = train(terms.detector, [site], terms.schema, privacy=terms.privacy)
        except PrivacyRefusedError:
            return None
        return self.auroc(detector.anomaly_score(self.X[self.held]))


def ended(processes: list[subprocess.Popen[str]]) -> None:
    for process in processes:
        said = process.communicate(timeout=300)[1]
        if process.returncode:
            raise SystemExit(said)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("bench-output/federation.json"))
    parser.add_argument("--repeats", type=int, default=3, help="runs over Flower and in one process, interleaved")
    options = parser.parse_args()
    logging.getLogger("flwr").setLevel(logging.WARNING)
    name, table = payments()
    with tempfile.TemporaryDirectory() as temporary:
        masked = measure_masking(Path(temporary) / "masking", 5, 2000, 21, on_disk=True)["later"]
        scene = Scene(Path(temporary), table)
        flower, embedded = [], []
        for repeat in range(options.repeats):
            flower.append(scene.over_flower(f"flower-{repeat}"))
            embedded.append(scene.embedded(f"embedded-{repeat}"))
            print(f"{repeat + 1}: {flower[-1]:.1f} s over Flower, {embedded[-1]:.1f} s in one process", flush=True)
        counted = scene.bytes_over_flower()
        federated = [
            scene.auroc(bundle.load(scene.folder / f"flower-{at}").program.score(scene.X[scene.held]))
            for at in range(options.repeats)
        ]
        single = [scene.alone(at) for at in range(len(SITES))]
        stock = StockForest(random_state=0).fit(scene.X[scene.training])
        central = scene.auroc(-stock.score_samples(scene.X[scene.held]))
    site_rounds = counted["rounds"] * len(SITES)
    results = {
        "dataset": name,
        "forest_flower_seconds": statistics.median(flower),
        "forest_flower_seconds_all": flower,
        "forest_embedded_seconds": statistics.median(embedded),
        "masked_ms_per_site": masked,
        "bytes_per_site_round": (counted["up"] + counted["down"]) / site_rounds,
        "bytes_up_per_site_round": counted["up"] / site_rounds,
        "auroc_central": central,
        "auroc_federated": statistics.fmean(federated),
        "auroc_federated_all": federated,
        "auroc_best_single": max(area for area in single if area is not None),
        "auroc_single": dict(zip(SITES, single, strict=True)),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
