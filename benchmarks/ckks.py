"""The 29-12-29 autoencoder with square units under CKKS beside TenSEAL, in one run, and AUROC on real sets.

    python benchmarks/ckks.py --data-dir $SECUREAD_DATA --out bench-output/ckks.json

Processor time of this process, all its threads (set OMP_NUM_THREADS=1 for one core), bytes to bytes, a full chunk,
role same; medians of interleaved repeats after one that warms up. `server_us_per_row` contains the masks, wherever
they are made; `server_us_per_row_pool_ready` is the part of it that a request waits for when idle time has made them.
Read the ratios, because the machine may be shared. Peers: TenSEAL with a vector a feature (8,192 records at once), and
with a vector a record, as its tutorials have it (a few records). Every score is compared with the exact one.

Only the contract of `securead.protocols.engine` is used. Two things are looked for on an evaluator and not required:

    evaluator.stages   a mapping from stage (parse, linear, products, sanitise, pack) to processor seconds so far,
                       or a call that returns one: `share` then holds the seconds a chunk by stage, else null
    key.refill()       makes what answers of this key will use up: then called, and timed, before every request, so
                       that `sanitise` in `share` is what is left of it

`auroc_delta_max` is the largest difference, over five real sets, between the AUROC of the float detector and of the
encrypted run, both on the same held-out records; detectors are trained without noise, and compiled as by default, as
the timed one is. `spearman_min` is the smallest
rank correlation of encrypted scores with the integer program's. Records that occur twice are taken once: their scores
are ties, which the errors of encryption break at random. `evaluation_key_bytes` are keys for relinearisation and
rotation, which this engine's service does not have, `public_key_bytes` the key that it masks answers with.
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
from peers import tenseal_batch, tenseal_row
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from securead.checks import programs
from securead.data.partition import hold_out
from securead.data.readers import read_table
from securead.data.schema import Schema
from securead.federated.embedded import train
from securead.federated.participant import Site
from securead.models.autoencoder import AutoEncoder
from securead.program.polynomial import SecretPolynomial
from securead.program.program import Program
from securead.protocols import registry

SETS = ("6_cardio", "38_thyroid", "23_mammography", "32_shuttle", "5_campaign")
STAGES = ("parse", "linear", "products", "sanitise", "pack")
FIT_ROWS = 20_000
Layers = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


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
    """The engine ckks for one program, an owner (role same) and the service, in this process."""

    def __init__(self, program: Program) -> None:
        public, name = program.public, "ckks"
        owner, blind = registry.owner_module(name), registry.blind_module(name)
        self.program = program
        self.plan = registry.plan_module(name).make_plan(public, "same")
        secret, shown = owner.generate_keys(self.plan)
        self.encryptor = owner.make_encryptor(self.plan, secret)
        self.decryptor = owner.make_decryptor(self.plan, secret)
        self.evaluator = blind.make_evaluator(self.plan, program)
        self.public_key_bytes, self.key = 0, None
        if self.plan.evaluation_key_bytes:
            content = shown.to_bytes()
            self.public_key_bytes, self.key = len(content), blind.read_evaluation_key(self.plan, content)

    def refill(self) -> None:
        """The service's work for one request that does not depend on it, where the engine tells them apart."""
        refill = getattr(self.key, "refill", None)
        if callable(refill):
            refill()

    def evaluate(self, request: bytes, rows: int) -> bytes:
        """The service's work for one request, less what was made ahead of it."""
        return self.evaluator.evaluate(request, self.key, rows=rows)

    def decrypt(self, answer: bytes, Z: np.ndarray) -> np.ndarray:
        """Scores of encoded records, with the terms that the owner adds."""
        public = self.program.public
        return self.decryptor.decrypt(answer, len(Z)) + public.decode(public.public_term(Z))

    def stages(self) -> dict[str, float] | None:
        """Processor seconds by stage so far, if the evaluator tells."""
        found = getattr(self.evaluator, "stages", None)
        return None if found is None else dict(found() if callable(found) else found)


def layers_of(program: Program) -> Layers:
    """E, b, D and c of `|z - D (E z + b)^2 - c|^2`, read back from the program's integers.

    The program has D = Q R, Q with orthonormal columns, as products with R and with -2 Q^T, and c as a product with
    -2 c^T (see `program.reconstruction`).
    """
    assert isinstance(program.secret, SecretPolynomial)
    weights, bits = program.secret.weights, [step.fraction_bits for step in program.public.steps]
    E, b = weights[1].matrices[0] / 2.0 ** (bits[1] - bits[0]), weights[1].offset / 2.0 ** bits[1]
    R = weights[3].matrices[0] / 2.0 ** (bits[3] - bits[2])
    Q = -weights[4].matrices[1].T / 2.0 ** (bits[4] - bits[0] + 1)
    c = -weights[6].matrices[1][0] / 2.0 ** (bits[6] - bits[0] + 1)
    return tuple(np.asarray(layer, dtype=np.float64) for layer in (E, b, Q @ R, c))  # type: ignore[return-value]


def records(program: Program, rows: int) -> np.ndarray:
    """Encoded standard normal records, clipped as the encoder clips."""
    encoder = program.public.encoder
    Z = np.rint(np.random.default_rng(0).normal(size=(rows, encoder.width)) * 2**encoder.fraction_bits)
    return np.clip(Z, -encoder.bound, encoder.bound).astype(np.int64)


def exact_scores(program: Program, Z: np.ndarray) -> np.ndarray:
    return program.public.decode(program.evaluate(Z))


def check_close(name: str, scores: np.ndarray, exact: np.ndarray, limit: float) -> None:
    """A peer is measured only if what it computes is right."""
    error = float(np.abs(scores - exact).max())
    if not error <= limit:
        raise AssertionError(f"{name}: off by {error:.3g}, more than {limit:.3g}")


def measure(repeats: int, few: int) -> tuple[dict[str, Any], float]:
    """Times and bytes, and the rank correlation of the timed chunk; `few`: records for the peer that takes one."""
    program, clock = programs.autoencoder(), Clock()
    ours = Engine(program)
    rows = ours.plan.rows_per_chunk
    Z = records(program, rows)
    exact = exact_scores(program, Z)
    layers = layers_of(program)
    batch, single = tenseal_batch.make_autoencoder_peer(*layers), tenseal_row.make_peer(*layers)
    many = records(program, batch.rows)
    floats, wanted = many / 2.0**program.public.encoder.fraction_bits, exact_scores(program, many)
    batch_request, row_requests = batch.encrypt(floats), [single.encrypt(row) for row in floats[:few]]
    spent: list[dict[str, float]] = []  # processor seconds by stage, for each repeat
    for _ in range(repeats + 1):
        request = clock.time("encrypt", lambda: ours.encryptor.encrypt(Z))
        before = ours.stages()
        clock.time("refill", ours.refill)
        answer = clock.time("ready", lambda: ours.evaluate(request, rows))  # noqa: B023 - called at once
        after = ours.stages()
        if before is not None and after is not None:
            spent.append({name: after[name] - before.get(name, 0.0) for name in after})
        scores = ours.decrypt(answer, Z)
        check_close("ours", scores, exact, ours.plan.error_bound)
        found = clock.time("batch", lambda: batch.evaluate(batch_request))
        check_close("TenSEAL batch", batch.decrypt(found), wanted, 1e-2 * float(wanted.mean()))
        answers = clock.time("row", lambda: [single.evaluate(one) for one in row_requests])
        got = np.array([single.decrypt(one) for one in answers])
        check_close("TenSEAL row", got, wanted[:few], 5e-2 * float(wanted.mean()))
    clock.seconds["server"] = [sum(both) for both in zip(clock.seconds["refill"], clock.seconds["ready"], strict=True)]
    server = clock.us_per_row("server", rows)
    batch_us, row_us = clock.us_per_row("batch", batch.rows), clock.us_per_row("row", few)
    names = [*STAGES, *sorted({name for one in spent for name in one} - set(STAGES))]
    figures = {
        "server_us_per_row": server,
        "server_us_per_row_pool_ready": clock.us_per_row("ready", rows),
        "tenseal_batch_us_per_row": batch_us,
        "tenseal_row_us": row_us,
        "ratio_tenseal_batch": batch_us / server,
        "ratio_tenseal_row": row_us / server,
        "upload_bytes_per_row": len(request) / rows,
        "download_bytes_per_row": len(answer) / rows,
        "evaluation_key_bytes": 0,
        "public_key_bytes": ours.public_key_bytes,
        "client_encrypt_us_per_row": clock.us_per_row("encrypt", rows),
        "share": {n: float(np.median([s.get(n, 0.0) for s in spent[1:] or spent])) for n in names} if spent else None,
    }
    return figures, float(spearmanr(scores, exact).statistic)


def compare_auroc(path: Path, most: int) -> tuple[float, float, float]:
    """AUROC of the float detector and of the encrypted run on held-out records of one set; the rank correlation."""
    table = read_table(path)
    assert table.y is not None
    fit_rows, held = hold_out(len(table.X), table.y, 0.3, seed=0)
    rng = np.random.default_rng(0)
    fit_rows = rng.permutation(fit_rows)[:FIT_ROWS]
    schema = Schema.observed(table.X, widen=0.2)
    hidden = max(2, round(table.X.shape[1] * 12 / 29))  # as narrow as the timed one
    detector = AutoEncoder(units="square", hidden=hidden, rounds=3)
    detector = train(detector, [Site("one", table.X[fit_rows])], schema, privacy=None)
    engine = Engine(detector.compile())
    Z, _ = engine.program.public.encoder.encode(table.X[held])
    _, once = np.unique(Z, axis=0, return_index=True)
    held, Z = held[once], Z[once]
    # Every anomaly up to half of the records, so that areas are of more than a handful.
    most = min(most, engine.plan.rows_per_chunk)
    picked = rng.permutation(np.flatnonzero(table.y[held]))[: most // 2]
    others = rng.permutation(np.flatnonzero(table.y[held] == 0))[: most - len(picked)]
    rows = np.sort(np.concatenate([picked, others]))
    X, y, Z = table.X[held[rows]], table.y[held[rows]], Z[rows]
    scores = engine.decrypt(engine.evaluate(engine.encryptor.encrypt(Z), len(Z)), Z)
    plain, encrypted = (float(roc_auc_score(y, one)) for one in (detector.anomaly_score(X), scores))
    return plain, encrypted, float(spearmanr(scores, engine.program.score(X)).statistic)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, default=os.environ.get("SECUREAD_DATA"), help="where the sets lie")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one repeat, two records a time, one real set")
    parser.add_argument("--out", type=Path, help="write the figures as JSON, too")
    options = parser.parse_args()
    report, rank = measure(1 if options.quick else options.repeats, 2 if options.quick else 5)
    deltas, ranks = [], [rank]
    folder = None if options.data_dir is None else Path(options.data_dir)
    for name in SETS[:1] if options.quick else SETS:
        if folder is None or not (folder / f"{name}.npz").is_file():
            print(f"skipped {name}: needs {name}.npz in the folder that --data-dir or SECUREAD_DATA names")
            continue
        plain, encrypted, rank = compare_auroc(folder / f"{name}.npz", 512 if options.quick else 4096)
        print(f"{name:16} AUROC float {plain:.6f}, encrypted {encrypted:.6f}; Spearman 1 - {1 - rank:.1e}", flush=True)
        deltas.append(abs(plain - encrypted))
        ranks.append(rank)
    share = report.pop("share")
    report |= {"auroc_delta_max": max(deltas, default=None), "spearman_min": min(ranks), "share": share}
    for name, value in report.items():
        print(f"  {name:26} {value:,.4g}" if isinstance(value, float | int) else f"  {name:26} {json.dumps(value)}")
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
