"""The network 29-16-8-16-29 of squares (a score of degree 16) under deep CKKS beside TenSEAL, in one run; AUROC on real
sets.

    python benchmarks/deep.py --data-dir $SECUREAD_DATA --out bench-output/deep.json

Processor time of this process, all its threads (set OMP_NUM_THREADS=1 for one core), bytes to bytes, a full chunk,
role same; medians of repeats after one that warms up. `deep_us_per_row` contains the masks, wherever they are made;
`deep_us_per_row_pool_ready` is what a request waits for when idle time has made them. Read the ratios, because the
machine may be shared. The peer is TenSEAL with a vector a feature (8,192 records at once), the same weights, the
smallest parameters that carry its eight levels. Every score that is timed is compared with the exact one: of the first
`CHECKED` records, because exact integers of hundreds of bits take their time.

On real sets detectors are trained without noise on records clipped at two spreads, with weights of at most .15, which
keeps the largest possible score within what parameters have room for; `auroc_delta_max` is the largest difference
between the AUROC of the float detector and of the encrypted run on the same held-out records.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from peers import tenseal_deep
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from securead.checks import programs
from securead.data.partition import hold_out
from securead.data.readers import read_table
from securead.data.schema import Schema
from securead.errors import FixProgramError
from securead.federated.embedded import train
from securead.federated.participant import Site
from securead.models.autoencoder import AutoEncoder
from securead.program.program import Program
from securead.protocols import registry

NAME = "ckks-deep"
WIDTHS = (29, 16, 8, 16, 29)
SETS = ("creditcard_rounded", "6_cardio", "32_shuttle", "5_campaign")
CHECKED = 512
FIT_ROWS = 20_000


class Clock:
    """Processor seconds of named steps, over repeats; the first of several warms up and does not count."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}

    def time(self, name: str, call: Callable[[], Any]) -> Any:
        start = time.process_time()
        result = call()
        self.seconds.setdefault(name, []).append(time.process_time() - start)
        return result

    def us_per_row(self, name: str, rows: int) -> float:
        values = self.seconds[name]
        return 1e6 * float(np.median(values[1:] or values)) / rows


class Engine:
    """The engine for one program, an owner (role same) and the service, in this process."""

    def __init__(self, program: Program) -> None:
        owner, blind = registry.owner_module(NAME), registry.blind_module(NAME)
        self.program = program
        self.plan: Any = registry.plan_module(NAME).make_plan(program.public, "same")
        secret, shown = owner.generate_keys(self.plan)
        content = shown.to_bytes()
        self.public_key_bytes = len(content)
        self.encryptor, self.decryptor = (
            make(self.plan, secret) for make in (owner.make_encryptor, owner.make_decryptor)
        )
        self.evaluator: Any = blind.make_evaluator(self.plan, program)
        self.key: Any = blind.read_evaluation_key(self.plan, content)

    def decrypt(self, answer: bytes, Z: np.ndarray) -> np.ndarray:
        """Scores of encoded records, with the terms that the owner adds."""
        public = self.program.public
        return self.decryptor.decrypt(answer, len(Z)) + public.decode(public.public_term(Z))


def records(program: Program, rows: int) -> np.ndarray:
    """Encoded standard normal records, clipped as the encoder clips."""
    encoder = program.public.encoder
    Z = np.rint(np.random.default_rng(0).normal(size=(rows, encoder.width)) * 2**encoder.fraction_bits)
    return np.clip(Z, -encoder.bound, encoder.bound).astype(np.int64)


def exact_scores(program: Program, Z: np.ndarray) -> np.ndarray:
    return program.public.decode(program.evaluate(Z))


def measure(repeats: int = 3, *, peer_repeats: int = 1) -> dict[str, Any]:
    """Times, bytes and errors of the engine and of its peer; `peer_repeats` of them after none that warms up."""
    program, clock = programs.deep_autoencoder(WIDTHS), Clock()
    ours = clock.time("keys", lambda: Engine(program))
    rows = ours.plan.rows_per_chunk
    Z = records(program, rows)
    exact = exact_scores(program, Z[:CHECKED])
    spent: list[dict[str, float]] = []
    for _ in range(repeats + 1):
        request = clock.time("encrypt", lambda: ours.encryptor.encrypt(Z))
        before = ours.evaluator.stages
        clock.time("refill", ours.key.refill)
        answer = clock.time("ready", lambda: ours.evaluator.evaluate(request, ours.key, rows=rows))  # noqa: B023
        after = ours.evaluator.stages
        spent.append({name: after[name] - before[name] for name in after})
        scores = clock.time("decrypt", lambda: ours.decryptor.decrypt(answer, rows))  # noqa: B023 - called at once
    found = scores[:CHECKED] + program.public.decode(program.public.public_term(Z[:CHECKED]))
    error = float(np.abs(found - exact).max())
    if not error <= ours.plan.error_bound:
        raise AssertionError(f"off by {error:.3g}, more than {ours.plan.error_bound:.3g}")
    clock.seconds["server"] = [sum(both) for both in zip(clock.seconds["refill"], clock.seconds["ready"], strict=True)]

    layers = tuple(programs.network_layers(WIDTHS, 0.25))
    peer = tenseal_deep.make_peer(layers)
    many = records(program, peer.rows)
    peer_request = peer.encrypt(many / 2.0**program.public.encoder.fraction_bits)
    for _ in range(peer_repeats):
        peer_answer = clock.time("peer", lambda: peer.evaluate(peer_request))
    peer_error = float(np.abs(peer.decrypt(peer_answer)[:CHECKED] - exact_scores(program, many[:CHECKED])).max())
    if not peer_error <= 2e-2 * float(exact.mean()):
        raise AssertionError(f"TenSEAL: off by {peer_error:.3g}")

    server, theirs = clock.us_per_row("server", rows), clock.us_per_row("peer", peer.rows)
    return {
        "deep_us_per_row": server,
        "deep_us_per_row_pool_ready": clock.us_per_row("ready", rows),
        "deep_tenseal_us_per_row": theirs,
        "deep_ratio_tenseal": theirs / server,
        "deep_client_encrypt_us_per_row": clock.us_per_row("encrypt", rows),
        "deep_client_decrypt_us_per_row": clock.us_per_row("decrypt", rows),
        "deep_upload_bytes_per_row": len(request) / rows,
        "deep_tenseal_upload_bytes_per_row": sum(map(len, peer_request)) / peer.rows,
        "deep_download_bytes_per_row": len(answer) / rows,
        "deep_public_key_bytes": ours.public_key_bytes,
        "deep_keys_seconds": clock.seconds["keys"][0],
        "deep_max_relative_error": float((np.abs(found - exact) / exact).max()),
        "deep_error_bound": ours.plan.error_bound,
        "deep_spearman": float(spearmanr(found, exact).statistic),
        "deep_ring_dimension": ours.plan.ring_dimension,
        "deep_modulus_bits": ours.plan.modulus_bits,
        "deep_share": {
            name: 1e6 * float(np.median([one[name] for one in spent[1:] or spent])) / rows for name in spent[0]
        },
    }


def compare_auroc(path: Path, most: int) -> tuple[float, float, float] | str:
    """AUROC of the float detector and of the encrypted run on held-out records of one set, and the rank correlation; or
    why the detector does not fit.
    """
    table = read_table(path)
    assert table.y is not None
    fit_rows, held = hold_out(len(table.X), table.y, 0.3, seed=0)
    rng = np.random.default_rng(0)
    fit_rows = rng.permutation(fit_rows)[:FIT_ROWS]
    detector = AutoEncoder(units="square", hidden=(16, 8, 16), rounds=3, limit=2.0, weight_limit=0.15)
    schema = Schema.observed(table.X, widen=0.2)
    detector = train(detector, [Site("one", table.X[fit_rows])], schema, privacy=None)
    try:
        engine = Engine(detector.compile())
    except FixProgramError as error:
        return str(error)
    Z, _ = engine.program.public.encoder.encode(table.X[held])
    _, once = np.unique(Z, axis=0, return_index=True)
    held, Z = held[once], Z[once]
    picked = rng.permutation(np.flatnonzero(table.y[held]))[: most // 2]
    others = rng.permutation(np.flatnonzero(table.y[held] == 0))[: most - len(picked)]
    rows = np.sort(np.concatenate([picked, others]))
    X, y, Z = table.X[held[rows]], table.y[held[rows]], Z[rows]
    scores = engine.decrypt(engine.evaluator.evaluate(engine.encryptor.encrypt(Z), engine.key), Z)
    plain, encrypted = (float(roc_auc_score(y, one)) for one in (detector.anomaly_score(X), scores))
    return plain, encrypted, float(spearmanr(scores, detector.anomaly_score(X)).statistic)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, default=os.environ.get("SECUREAD_DATA"), help="where the sets lie")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one repeat and one real set")
    parser.add_argument("--out", type=Path, help="write the figures as JSON, too")
    options = parser.parse_args()
    report = measure(1 if options.quick else options.repeats)
    folder = None if options.data_dir is None else Path(options.data_dir)
    deltas: list[float] = []
    for name in SETS[1:2] if options.quick else SETS:
        if folder is None or not (folder / f"{name}.npz").is_file():
            print(f"skipped {name}: needs {name}.npz in the folder that --data-dir or SECUREAD_DATA names")
            continue
        compared = compare_auroc(folder / f"{name}.npz", 1024 if options.quick else 4096)
        if isinstance(compared, str):
            print(f"{name:20} is refused: {compared}", flush=True)
            continue
        plain, encrypted, rank = compared
        print(f"{name:20} AUROC float {plain:.6f}, encrypted {encrypted:.6f}; Spearman 1 - {1 - rank:.1e}", flush=True)
        deltas.append(abs(plain - encrypted))
    report["deep_auroc_delta_max"] = max(deltas, default=None)
    for name, value in report.items():
        print(f"  {name:34} {value:,.4g}" if isinstance(value, float | int) else f"  {name:34} {json.dumps(value)}")
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
