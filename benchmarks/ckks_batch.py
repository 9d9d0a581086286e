"""CKKS in the batch layout beside TenSEAL, in one run: time and traffic a row, at 29 features.

    python benchmarks/ckks_batch.py --out bench-output/ckks_batch.json

Processor time of this process (SEAL evaluates on one core), medians of interleaved repeats: read ratios, because the
machine may be shared.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from peers.tenseal_batch import make_peer

from securead.checks import programs
from securead.program.program import Program
from securead.protocols.ckks import blind, owner
from securead.protocols.ckks.plan import make_plan

PROGRAMS: dict[str, Callable[[], Program]] = {"mahalanobis": programs.mahalanobis, "autoencoder": programs.autoencoder}
Case = dict[str, Any]


class Clock:
    """Processor seconds of named steps, over repeats."""

    def __init__(self) -> None:
        self.seconds: dict[str, list[float]] = {}

    def time(self, name: str, call: Callable[[], Any]) -> Any:
        start = time.process_time()
        result = call()
        self.seconds.setdefault(name, []).append(time.process_time() - start)
        return result

    def us_per_row(self, name: str, rows: int) -> float:
        return 1e6 * float(np.median(self.seconds[name])) / rows


def records(program: Program, rows: int) -> np.ndarray:
    """Encoded standard normal records, clipped as the encoder clips."""
    encoder = program.public.encoder
    Z = np.rint(np.random.default_rng(0).normal(size=(rows, encoder.width)) * 2**encoder.fraction_bits)
    return np.clip(Z, -encoder.bound, encoder.bound).astype(np.int64)


def ours(name: str, program: Program, role: Any, clock: Clock) -> Callable[[], Case]:
    """One case; each call repeats it and returns the figures so far."""
    plan = make_plan(program.public, role)
    rows = plan.rows_per_chunk
    Z = records(program, rows)
    secret, public = owner.generate_keys(plan)
    encryptor = owner.make_encryptor(plan, secret if role == "same" else public)
    decryptor, evaluator = owner.make_decryptor(plan, secret), blind.make_evaluator(plan, program)
    key = blind.read_evaluation_key(plan, public.to_bytes())
    exact = program.public.decode(program.evaluate(Z))
    term = program.public.decode(program.public.public_term(Z)) if role == "same" else 0.0

    def repeat() -> Case:
        request = clock.time(f"{name}/{role}/encrypt", lambda: encryptor.encrypt(Z))
        answer = clock.time(f"{name}/{role}/server", lambda: evaluator.evaluate(request, key))
        scores = clock.time(f"{name}/{role}/decrypt", lambda: decryptor.decrypt(answer, rows)) + term
        error = np.abs(scores - exact)
        return {
            "program": name,
            "role": role,
            "engine": "securead ckks",
            "ring_dimension": plan.ring_dimension,
            "prime_bits": [p.bit_length() for p in plan.data_primes],
            "server_us_per_row": clock.us_per_row(f"{name}/{role}/server", rows),
            "client_encrypt_us_per_row": clock.us_per_row(f"{name}/{role}/encrypt", rows),
            "client_decrypt_us_per_row": clock.us_per_row(f"{name}/{role}/decrypt", rows),
            "upload_bytes_per_row": len(request) / rows,
            "download_bytes_per_row": len(answer) / rows,
            "evaluation_key_bytes": 0,
            "max_error": float(error.max()),
            "error_bound": plan.error_bound,
            "max_rel_error": float((error / np.abs(exact)).max()),
        }

    return repeat


def peer(program: Program, clock: Clock) -> Callable[[], Case]:
    """TenSEAL on the Mahalanobis program, role same."""
    encoder, weights = program.public.encoder, program.secret.weights[1]
    bits = program.public.steps[1].fraction_bits
    tenseal = make_peer(weights.matrices[0] / 2.0 ** (bits - encoder.fraction_bits), weights.offset / 2.0**bits)
    rows = 4096
    Z = records(program, rows)
    exact = program.public.decode(program.evaluate(Z))

    def repeat() -> Case:
        request = clock.time("peer/encrypt", lambda: tenseal.encrypt(Z / 2.0**encoder.fraction_bits))
        answer = clock.time("peer/server", lambda: tenseal.evaluate(request))
        scores = clock.time("peer/decrypt", lambda: tenseal.decrypt(answer))
        return {
            "program": "mahalanobis",
            "role": "same",
            "engine": "TenSEAL ckks_vector",
            "server_us_per_row": clock.us_per_row("peer/server", rows),
            "client_encrypt_us_per_row": clock.us_per_row("peer/encrypt", rows),
            "client_decrypt_us_per_row": clock.us_per_row("peer/decrypt", rows),
            "upload_bytes_per_row": sum(map(len, request)) / rows,
            "download_bytes_per_row": len(answer) / rows,
            "evaluation_key_bytes": len(tenseal.context.serialize(save_secret_key=False)),
            "max_rel_error": float((np.abs(scores - exact) / np.abs(exact)).max()),
        }

    return repeat


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, help="write the figures as JSON, too")
    options = parser.parse_args()
    clock, built = Clock(), {name: make() for name, make in PROGRAMS.items()}
    cases = [ours(name, program, role, clock) for name, program in built.items() for role in ("same", "split")]
    cases.append(peer(built["mahalanobis"], clock))
    for _ in range(options.repeats):
        figures = [repeat() for repeat in cases]
    theirs, best = figures[-1]["server_us_per_row"], figures[0]["server_us_per_row"]
    columns = ("server_us", "client_encrypt_us", "client_decrypt_us", "upload_bytes", "download_bytes")
    print(f"{'':42}" + "".join(f"{column:>19}" for column in columns) + f"{'max_rel_error':>15}")
    for case in figures:
        title = f"{case['program']}, role {case['role']}, {case['engine']}"
        cells = "".join(f"{case[column + '_per_row']:>19.1f}" for column in columns)
        print(f"{title:42}{cells}{case['max_rel_error']:>15.1e}")
    print(f"Mahalanobis, role same: the server is {theirs / best:.1f} x faster than TenSEAL's in the same run")
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        report = {"cases": figures, "ratio_tenseal_server": theirs / best}
        options.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
