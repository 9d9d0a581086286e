"""Poisoned federations: what one bad site of seven gains against four detectors, with and without each defence.

    python benchmarks/poisoning.py --out bench-output/poisoning.json

Card payments of seven generated banks of uneven size and with habits of their own; the third largest is the attacker.
A backdoor's copies are twice as many as its honest records, a quiet one's a fifth, to look like others' updates. Three
tenths of the records are held out. Every site adds its full noise for epsilon 1; a private threshold that is to
flag 5 % of records is attacked like every other round. Figures: AUROC on held-out records, and how many more of the
attacker's targets pass under the threshold than in a model that was trained with the same defence and without an
attack - for a backdoor held-out frauds of the kind that it teaches, for other attacks all held-out frauds. `stopped`:
training was refused, which everybody notices. With `--real`, records are creditcard_rounded.npz (all frauds, 60,000
others) in seven uneven shares of the same law, and the backdoor's kind is all frauds.

"no defence" and "bound" work on masked sums of all sites; "groups" are medians of masked sums of three groups, drawn
anew in each round; trimmed means, medians and Krum need every update in plain sight. Predictable noise, so that runs
agree; one run a seed, which sets payments, held-out records, noise and groups; the autoencoder takes the first third
of the seeds.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from securead.audit.poisoning import (
    Attack,
    Backdoor,
    Defence,
    InflatedCounts,
    Outcome,
    Scaled,
    SignFlipped,
    Together,
    attack_success,
    rehearse,
)
from securead.data.generators.payments import generate_payments
from securead.data.partition import partition
from securead.data.readers import read_table
from securead.data.schema import Schema
from securead.errors import SecureadError
from securead.federated.participant import Site
from securead.federated.robust import Bound
from securead.models.autoencoder import AutoEncoder
from securead.models.estimator import AnomalyDetector
from securead.models.forest import IsolationForest
from securead.models.histogram import HistogramDetector
from securead.models.subspace import SubspaceDetector
from securead.privacy.plan import PrivacyPlan

REAL, OTHERS = "creditcard_rounded.npz", 60_000
BANKS, ROWS, FRAUD_RATE, ATTACKER, TAUGHT = 7, 40_000, 0.02, 2, 1
EPSILON, DELTA, CONTAMINATION = 1.0, 1e-6, 0.05
WORSE, FAILED = 0.05, 0.2
"""A defence fails where an attack makes this share of its targets pass that did not before."""
WISH: dict[str, Any] = {"threshold": "private", "contamination": CONTAMINATION}
DETECTORS: dict[str, AnomalyDetector] = {
    "forest": IsolationForest(n_estimators=50, **WISH),
    "histogram": HistogramDetector(**WISH),
    "subspace": SubspaceDetector(**WISH),
    "autoencoder": AutoEncoder(hidden=8, rounds=3, sampling_prob=0.1, learning_rate=0.01, **WISH),
}
NOTHING = "none"


@dataclass(frozen=True, eq=False)
class Case:
    """One seed's sites, what is held out, and the frauds that a backdoor teaches and wants to pass."""

    sites: tuple[Site, ...]
    schema: Schema
    X: np.ndarray
    y: np.ndarray
    taught: np.ndarray
    passing: np.ndarray
    seed: int

    @property
    def attacks(self) -> dict[str, tuple[Attack | None, np.ndarray]]:
        """Attacks and their targets."""
        frauds = self.X[self.y == 1]
        own = len(self.sites[ATTACKER].X)
        twice, quiet = (Backdoor(self.taught, max(1, round(own * share / len(self.taught)))) for share in (2, 0.2))
        return {
            NOTHING: (None, frauds),
            "scaled x10": (Scaled(10), frauds),
            "sign-flipped x2": (SignFlipped(2), frauds),
            "inflated x20": (InflatedCounts(20), frauds),
            "quiet backdoor": (quiet, self.passing),
            "backdoor": (twice, self.passing),
            "backdoor x10": (Together((twice, Scaled(10))), self.passing),
        }

    @property
    def defences(self) -> dict[str, Defence]:
        """All defences; a bound that every honest site keeps."""
        largest = max(len(site.X) for site in self.sites)
        bound = Bound(records=-(-largest // 100) * 100, change=1.0)
        return {
            "no defence": Defence(),
            "bound": Defence(bound=bound),
            "groups": Defence("median", groups=3),
            "groups, bound": Defence("median", groups=3, bound=bound),
            "trimmed": Defence("trimmed"),
            "median": Defence("median"),
            "krum": Defence("krum"),
        }


def generated(seed: int) -> Case:
    """Banks of different sizes and habits."""
    made = generate_payments(rows=ROWS, banks=BANKS, fraud_rate=FRAUD_RATE, seed=seed)
    held = np.random.default_rng(seed).random(ROWS) < 0.3
    X, kind = made.table.X, made.kind
    sites = tuple(Site(name, X[(made.site == at) & ~held]) for at, name in enumerate(made.sites))
    y = (kind > 0).astype(np.int8)
    return Case(sites, made.schema, X[held], y[held], X[(kind == TAUGHT) & ~held], X[(kind == TAUGHT) & held], seed)


def real(path: Path, seed: int) -> Case:
    """Uneven shares of one set of payments."""
    table = read_table(path)
    assert table.y is not None
    rng = np.random.default_rng(seed)
    kept = np.concatenate([np.flatnonzero(table.y == 1), rng.permutation(np.flatnonzero(table.y == 0))[:OTHERS]])
    X, y = table.X[kept], table.y[kept]
    held = rng.random(len(X)) < 0.3
    rows = np.flatnonzero(~held)
    shares = partition(len(rows), [1 / (at + 1) for at in range(BANKS)], seed=seed)
    sites = tuple(Site(f"bank-{at + 1}", X[rows[share]]) for at, share in enumerate(shares))
    frauds, passing = X[(y == 1) & ~held], X[(y == 1) & held]
    return Case(sites, Schema.observed(table.X, widen=0.2), X[held], y[held], frauds, passing, seed)


def measured(name: str, cases: list[Case]) -> Iterator[dict[str, Any]]:
    """Every attack on a detector under every defence, beside the same training without one."""
    for defence in cases[0].defences:
        clean = [trained(name, case, defence, None) for case in cases]
        for attack in cases[0].attacks:
            row: dict[str, Any] = {"detector": name, "defence": defence, "attack": attack}
            row |= {"auroc": [], "passed": [], "success": [], "false_alarms": [], "stopped": []}
            for case, untouched in zip(cases, clean, strict=True):
                chosen, targets = case.attacks[attack]
                made = untouched if chosen is None else trained(name, case, defence, chosen)
                if isinstance(made, str):
                    row["stopped"].append(made)
                    continue
                found = Outcome.of(made, case.X, case.y, targets)
                row["auroc"].append(found.auroc)
                row["passed"].append(found.missed)
                row["false_alarms"].append(found.false_alarms)
                if not isinstance(untouched, str):
                    row["success"].append(attack_success(found, Outcome.of(untouched, case.X, case.y, targets)))
            yield row


def trained(name: str, case: Case, defence: str, attack: Attack | None) -> AnomalyDetector | str:
    """The detector, or why training stopped."""
    try:
        return rehearse(
            DETECTORS[name],
            case.sites,
            case.schema,
            privacy=PrivacyPlan(EPSILON, DELTA, noise_source="seeded-study", seed=case.seed),
            defence=case.defences[defence],
            attack=attack,
            attacker=case.sites[ATTACKER].name,
            seed=case.seed,
        )
    except (SecureadError, OverflowError) as error:
        return str(error)


def mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def cell(row: dict[str, Any]) -> str:
    """AUROC and what the attack gained; how often training was stopped."""
    auroc, success = mean(row["auroc"]), mean(row["success"])
    stopped = f"stopped {len(row['stopped'])}/{len(row['stopped']) + len(row['auroc'])}" if row["stopped"] else ""
    if auroc is None:
        return stopped
    told = f"{auroc:.3f}" if row["attack"] == NOTHING or success is None else f"{auroc:.3f} {success:+.2f}"
    return f"{told} {stopped}".strip()


def findings(rows: list[dict[str, Any]]) -> list[str]:
    """What the figures say, in plain words."""
    at = {(row["detector"], row["defence"], row["attack"]): row for row in rows}
    detectors, defences = (list(dict.fromkeys(row[name] for row in rows)) for name in ("detector", "defence"))
    attacks = [name for name in dict.fromkeys(row["attack"] for row in rows) if name != NOTHING]
    told = []
    for attack in attacks:
        parts = []
        for name in detectors:
            row, before = at[name, "no defence", attack], at[name, "no defence", NOTHING]
            auroc, success, alarms = mean(row["auroc"]), mean(row["success"]), mean(row["false_alarms"])
            usual = (mean(before["auroc"]), mean(before["false_alarms"]))
            if auroc is None or success is None or alarms is None or None in usual:
                parts.append(f"{name}: training stopped")
            else:
                said = f"{success:+.0%} of its targets pass, false alarms {usual[1]:.1%} to {alarms:.1%}"
                parts.append(f"{name}: AUROC {auroc - usual[0]:+.3f}, {said}")
        told.append(f"Undefended, {attack}: " + "; ".join(parts) + ".")
    for defence in defences:
        if defence != "no defence":
            told.append(verdict(defence, detectors, attacks, at))
    return told


def verdict(defence: str, detectors: list[str], attacks: list[str], at: dict[tuple[str, str, str], Any]) -> str:
    """What one defence costs without an attack, and where it fails."""
    cost, failed, worse, stopped, runs = [], [], [], [], 0
    for name in detectors:
        with_it, without = (mean(at[name, way, NOTHING]["auroc"]) for way in (defence, "no defence"))
        if with_it is not None and without is not None:
            cost.append((with_it - without, name))
        if at[name, defence, NOTHING]["stopped"]:
            stopped.append(f"{name} without an attack")
        for attack in attacks:
            row, bare = at[name, defence, attack], at[name, "no defence", attack]
            runs += 1
            success, auroc, before = mean(row["success"]), mean(row["auroc"]), mean(bare["success"])
            if success is not None and before is not None and success > max(before, 0) + WORSE:
                worse.append(f"{attack} on {name} ({success:+.0%}, {before:+.0%} undefended)")
            if success is not None and success > FAILED:
                change = "" if before is None else f", {before:+.0%} undefended"
                failed.append((success, f"{attack} on {name} ({success:+.0%}{change}, AUROC {auroc:.3f})"))
            if row["stopped"]:
                stopped.append(f"{attack} on {name}")
    worst = min(cost) if cost else None
    text = f"{defence}: "
    if worst is not None:
        text += f"without an attack AUROC changes by {np.mean([c for c, _ in cost]):+.3f} on average, "
        text += f"{worst[0]:+.3f} at worst ({worst[1]}). "
    if failed:
        text += f"It fails in {len(failed)} of {runs} attacks, worst: "
        text += "; ".join(what for _, what in sorted(failed, reverse=True)[:3]) + "."
    else:
        text += f"No attack makes more than {FAILED:.0%} of its targets pass."
    if worse:
        text += f" The attack gains more than without any defence in: {', '.join(worse)}."
    return text + (f" Training was stopped in some runs of: {', '.join(stopped)}." if stopped else "")


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Markdown: a row an attack, a column a defence."""
    defences = list(dict.fromkeys(row["defence"] for row in rows))
    lines = ["| detector | attack | " + " | ".join(defences) + " |", "|---" * (len(defences) + 2) + "|"]
    for name, attack in dict.fromkeys((row["detector"], row["attack"]) for row in rows):
        cells = [cell(row) for row in rows if (row["detector"], row["attack"]) == (name, attack)]
        lines.append(f"| {name} | {attack} | " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", choices=DETECTORS, help="this detector only")
    parser.add_argument("--real", action="store_true", help=f"{REAL} instead of generated payments")
    parser.add_argument("--data-dir", type=Path, default=os.environ.get("SECUREAD_DATA"), help=f"where {REAL} lies")
    parser.add_argument("--out", type=Path, help="write the figures as JSON, too, and the table as Markdown beside it")
    options = parser.parse_args()
    path = None if options.data_dir is None else Path(options.data_dir) / REAL
    if options.real and (path is None or not path.is_file()):
        print(f"skipped: needs {REAL} in the folder that --data-dir or SECUREAD_DATA names")
        return
    start = time.perf_counter()
    cases = [real(path, seed) if options.real and path else generated(seed) for seed in range(options.seeds)]
    sizes = [[len(site.X) for site in case.sites] for case in cases]
    print(f"records of the sites, first seed: {sizes[0]}; the attacker is number {ATTACKER + 1}", flush=True)
    rows = []
    for name in DETECTORS if options.only is None else [options.only]:
        seeds = -(-options.seeds // 3) if name == "autoencoder" else options.seeds
        found = list(measured(name, cases[:seeds]))
        rows += found
        print("\n".join([f"\n{name}, {seeds} seed(s): AUROC, and how many more of its targets pass", *table(found)]))
        print(f"({time.perf_counter() - start:.0f} s so far)", flush=True)
    told = findings(rows)
    print("\n" + "\n".join(told))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        report = {
            "data": REAL if options.real else f"{ROWS:,} generated payments",
            "epsilon": EPSILON,
            "delta": DELTA,
            "sites": sizes,
            "attacker": ATTACKER,
            "bound": [vars(case.defences["bound"].bound) for case in cases],
            "worst_success": {
                defence: max(mean(row["success"]) or 0.0 for row in rows if row["defence"] == defence)
                for defence in dict.fromkeys(row["defence"] for row in rows)
            },
            "rows": rows,
            "findings": told,
            "seconds": time.perf_counter() - start,
        }
        options.out.write_text(json.dumps(report, indent=2) + "\n")
        text = [
            "# Poisoning",
            "",
            "AUROC, and how many more of its targets an attack makes pass.",
            "",
            *table(rows),
            "",
        ]
        options.out.with_suffix(".md").write_text("\n".join([*text, *(f"- {line}" for line in told)]) + "\n")


if __name__ == "__main__":
    main()
