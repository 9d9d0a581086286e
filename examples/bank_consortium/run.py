"""Three banks train a fraud model over TLS that none could train alone; a service scores payments it cannot read.

Run: python examples/bank_consortium/run.py [FOLDER]    (about half a minute; FOLDER keeps all that was made)
"""

import csv
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from sklearn.metrics import roc_auc_score

from securead.data.generators.payments import generate_payments
from securead.federated.recipe import load_recipe

RECIPE = Path(__file__).parent / "recipe.toml"
BANKS = ("bank-a", "bank-b", "bank-c")


def write_payments(folder: Path) -> np.ndarray:
    """Every bank's own file, and one of new payments at bank-a to score; returns which of these are frauds."""
    columns = load_recipe(RECIPE).schema.names
    made = generate_payments(rows=60_000, banks=3, fraud_rate=0.01, seed=1)
    order = [made.schema.names.index(name) for name in columns]
    for bank in BANKS:
        table = made.of_site(bank)
        X, y = table.X[:, order], table.y
        parts = {bank: X[: len(X) * 3 // 4]} | ({"new": X[len(X) * 3 // 4 :]} if bank == "bank-a" else {})
        for name, rows in parts.items():
            (folder / name).mkdir()
            with (folder / name / "payments.csv").open("w", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(columns)
                writer.writerows(rows.tolist())
        if bank == "bank-a":
            frauds = y[len(X) * 3 // 4 :]
    return frauds


class Processes:
    """Every role is a process of the command line with a directory of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.running = folder, {}

    def start(self, name: str, *arguments: object) -> None:
        log = (self.folder / f"{name}.log").open("ab")
        command = [sys.executable, "-m", "securead", *map(str, arguments)]
        self.running[name] = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
        log.close()

    def said(self, name: str, pattern: str) -> str:
        """The first line of a process's output that has the pattern."""
        for line in self.running[name].stdout:
            if found := re.search(pattern, line):
                return found[1]
        raise SystemExit(f"{name} ended:\n" + (self.folder / f"{name}.log").read_text()[-2000:])

    def wait(self, name: str) -> None:
        if self.running.pop(name).wait(120):
            raise SystemExit(f"{name} failed:\n" + (self.folder / f"{name}.log").read_text()[-2000:])

    def end(self) -> None:
        for process in self.running.values():
            process.terminate()
        for process in self.running.values():
            process.wait()


def securead(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "securead", *map(str, arguments)], check=True, stderr=subprocess.PIPE)


def main(folder: Path) -> None:
    frauds, processes = write_payments(folder), Processes(folder)
    # Who runs the deployment does this once, and hands each member its directory.
    members = [argument for name in ("coordinator", *BANKS) for argument in ("--name", name)]
    securead("certs", "--out", folder / "certs", *members)
    try:
        start = time.perf_counter()
        certs, bundle = folder / "certs", folder / "fraud"
        processes.start("coordinator", "coordinator", RECIPE, "--certs", certs / "coordinator", "--out", bundle)
        address = processes.said("coordinator", r"listens at (\S+)")
        for bank in BANKS:
            data = folder / bank / "payments.csv"
            held = ["--certs", certs / bank, "--folder", folder / bank / "run"]
            processes.start(bank, "site", RECIPE, "--data", data, *held, "--coordinator", address)
        for name in ("coordinator", *BANKS):
            processes.wait(name)
        print(f"trained among {len(BANKS)} banks in {time.perf_counter() - start:.1f} s")

        # A fourth process scores what it cannot see; bank-a encrypts and decrypts.
        processes.start("service", "serve", bundle, "--no-tls", "--port", 0)
        server = processes.said("service", r"serves at (http://\S+)")
        new, scores = folder / "new" / "payments.csv", folder / "new" / "scores.csv"
        securead("score", new, "--server", server, "--model", "fraud", "--out", scores)
    finally:
        processes.end()
    with scores.open() as file:
        rows = list(csv.DictReader(file))
    found = np.array([float(row["score"]) for row in rows])
    flagged = np.array([row["anomaly"] == "1" for row in rows])
    print(f"scored {len(rows):,} encrypted payments: AUROC {roc_auc_score(frauds, found):.3f}")
    print(f"{flagged[frauds == 1].mean():.0%} of frauds flagged, {flagged[frauds == 0].mean():.1%} of genuine payments")
    print(*(folder / "coordinator.log").read_text().splitlines()[-6:], sep="\n")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        Path(sys.argv[1]).mkdir(parents=True)
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as temporary:
            main(Path(temporary))
