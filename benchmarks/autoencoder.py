"""The autoencoder on card payments: what privacy and encryption cost it, beside its controls.

    python benchmarks/autoencoder.py --data-dir $SECUREAD_DATA --out bench-output/autoencoder.json

Trains by models/payments_autoencoder/recipe.toml, three uneven sites, on seven tenths of the records and scores the
rest: privately, the same network without noise or clipping, untrained, and the plain norm |z|^2; one run a seed, which
sets the held-out records, the split among sites and the initial weights. The first seed's model is compiled and scores
every held-out record under CKKS. Needs creditcard_rounded.npz; figures are of one machine, which may be shared.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from securead.data.partition import hold_out
from securead.data.readers import Table, read_table
from securead.federated.embedded import train
from securead.federated.recipe import Recipe, gather, load_recipe
from securead.models.autoencoder import AutoEncoder
from securead.program.program import Program
from securead.protocols.ckks import blind, owner
from securead.protocols.ckks.plan import make_plan

RECIPE = Path(__file__).resolve().parent.parent / "models" / "payments_autoencoder" / "recipe.toml"
DATA = "creditcard_rounded.npz"
CHUNK = 4096
DETECTORS = ("private", "without_noise", "untrained", "norm")


def trained(recipe: Recipe, table: Table, rows: np.ndarray, seed: int, *, private: bool) -> AutoEncoder:
    """The recipe's detector over its sites on some rows, with or without its privacy plan."""
    chosen = dataclasses.replace(recipe, split_seed=seed)
    data = gather(chosen, RECIPE.parent, X=table.X[rows], columns=table.columns)
    detector = AutoEncoder(**{**recipe.parameters, "random_state": seed})
    return train(detector, data.sites, data.schema, privacy=recipe.privacy if private else None)


def areas_of(recipe: Recipe, table: Table, seed: int) -> tuple[dict[str, float], AutoEncoder, np.ndarray]:
    """AUROC on held-out records of the detector and its controls; the private detector and the held-out rows."""
    assert table.y is not None
    fit_rows, held = hold_out(len(table.X), table.y, 0.3, seed=seed)
    private = trained(recipe, table, fit_rows, seed, private=True)
    exact = trained(recipe, table, fit_rows, seed, private=False)
    X = table.X[held]
    scores = {
        "private": private.anomaly_score(X),
        "without_noise": exact.anomaly_score(X),
        "untrained": private.untrained_score(X),
        "norm": (private.encoder_.standardise(X) ** 2).sum(axis=1),
    }
    return {name: float(roc_auc_score(table.y[held], score)) for name, score in scores.items()}, private, held


def encrypted(program: Program, X: np.ndarray, y: np.ndarray, repeats: int) -> dict[str, Any]:
    """AUROC of all records under CKKS (role same) beside the integer program's, and the server's time a row."""
    public = program.public
    plan = make_plan(public, "same")
    secret, shown = owner.generate_keys(plan)
    key = blind.read_evaluation_key(plan, shown.to_bytes())
    encryptor, decryptor = owner.make_encryptor(plan, secret), owner.make_decryptor(plan, secret)
    evaluator = blind.make_evaluator(plan, program)
    Z, _ = public.encoder.encode(X)
    parts = []
    for start in range(0, len(Z), plan.rows_per_chunk):
        chunk = Z[start : start + plan.rows_per_chunk]
        answer = evaluator.evaluate(encryptor.encrypt(chunk), key)
        parts.append(decryptor.decrypt(answer, len(chunk)) + public.decode(public.public_term(chunk)))
    scores, integer = np.concatenate(parts), program.score(X)

    request, seconds = encryptor.encrypt(Z[:CHUNK]), []
    for _ in range(repeats):
        start_seconds = time.process_time()
        evaluator.evaluate(request, key)
        seconds.append(time.process_time() - start_seconds)
    return {
        "auroc_encrypted": float(roc_auc_score(y, scores)),
        "auroc_integer": float(roc_auc_score(y, integer)),
        "max_error": float(np.abs(scores - integer).max()),
        "tolerance": public.tolerance,
        "ring_dimension": plan.ring_dimension,
        "rows_per_chunk": plan.rows_per_chunk,
        "prime_bits": [prime.bit_length() for prime in plan.data_primes],
        "server_us_per_row": 1e6 * float(np.median(seconds)) / min(CHUNK, len(Z)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, default=os.environ.get("SECUREAD_DATA"), help=f"where {DATA} lies")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=5, help="of the encrypted chunk")
    parser.add_argument("--out", type=Path, help="write the figures as JSON, too")
    options = parser.parse_args()
    if options.data_dir is None or not (options.data_dir / DATA).is_file():
        print(f"skipped: needs {DATA} in the folder that --data-dir or SECUREAD_DATA names")
        return
    recipe, table = load_recipe(RECIPE), read_table(options.data_dir / DATA)
    assert recipe.privacy is not None
    assert table.y is not None

    start = time.perf_counter()
    whole = trained(recipe, table, np.arange(len(table.X)), 0, private=True)
    seconds = time.perf_counter() - start
    rounds = sum(step.stage.startswith("round-") for step in whole.training_) // len(recipe.sites)
    in_rounds = sum(step.seconds for step in whole.training_ if step.stage.startswith("round-"))
    print(f"{rounds} rounds over {len(table.X):,} records of {len(recipe.sites)} sites: {seconds:.1f} s", end="")
    print(f" ({in_rounds:.1f} s of them in DP-SGD) on {os.cpu_count()} cores")

    runs = [areas_of(recipe, table, seed) for seed in range(options.seeds)]
    areas = {name: np.array([found[name] for found, _, _ in runs]) for name in DETECTORS}
    print(f"AUROC on held-out records, {options.seeds} seeds, epsilon = {recipe.privacy.epsilon:g}:")
    for name, values in areas.items():
        print(
            f"  {name:14} mean {values.mean():.4f}  deviation {values.std(ddof=1) if len(values) > 1 else 0:.4f}",
            end="",
        )
        print("  each " + " ".join(f"{value:.4f}" for value in values))
    gap = areas["without_noise"] - areas["private"]
    print(f"  lost to privacy: mean {gap.mean():+.4f}, at most {gap.max():+.4f}")

    _, detector, held = runs[0]
    cipher = encrypted(detector.compile(), table.X[held], table.y[held], options.repeats)
    print(f"encrypted AUROC {cipher['auroc_encrypted']:.6f}, integer program {cipher['auroc_integer']:.6f}; ", end="")
    print(f"server {cipher['server_us_per_row']:.0f} us a row of a chunk of {CHUNK:,} (processor time)")
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        report = {
            "epsilon": recipe.privacy.epsilon,
            "delta": recipe.privacy.delta,
            "training": {"rounds": rounds, "records": len(table.X), "seconds": seconds, "seconds_dp_sgd": in_rounds},
            "auroc": {name: values.tolist() for name, values in areas.items()},
            "auroc_float_first_seed": runs[0][0]["private"],
            "encrypted": cipher,
        }
        options.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
