"""One record at a time over HTTP: what somebody waits for, from the record in the clear to its score in the clear.

    python benchmarks/latency.py --out bench-output/latency.json

A real service (`securead serve`, one worker, a process of its own) on loopback, a client that holds its keys and keeps
its connection, 200 records one after another after some that warm up, by wall clock. The engine ckks-row in both roles
on a subspace detector of 29 columns (degree 2) and on the 29-12-29 and 29-16-29 autoencoders with square units (degree
4); the engine ckks, whose requests have room for thousands of records, with one; and TenSEAL's `ckks_vector` for one
record as its tutorials have it, without HTTP. Every score is compared with the exact one.

`single_row_http_p95_ms` is the worse of both roles at degree 2, `latency_key_bytes` all that an owner holds of keys,
the secret one included, at its largest. Times are wall clock, of two processes that take turns, so other work on the
machine shows in them; `client_processor_ms` and `server_processor_ms` are what either process worked for a record, HTTP
included in the client's, and what the service says that evaluating took.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from ckks import check_close, layers_of
from peers import tenseal_row

from securead.checks import programs
from securead.client import Client
from securead.client.keys import make_keys
from securead.models.bundle import Bundle, PublicModel, Threshold
from securead.models.subspace import SubspaceDetector
from securead.privacy.statement import PrivacyStatement
from securead.program.program import Program
from securead.protocols.engine import Role
from securead.serving.process import serve

ENGINE, BATCH = "ckks-row", "ckks"
ROLES: tuple[Role, ...] = ("same", "split")
COLUMNS = 29
_WARM_UP = 8


def subspace() -> Program:
    """A Mahalanobis detector of correlated columns, fitted here, compiled as by default."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(4000, COLUMNS)) @ (np.eye(COLUMNS) + 0.2 * rng.normal(size=(COLUMNS, COLUMNS)))
    return SubspaceDetector(method="mahalanobis").fit(X).compile()


PROGRAMS = {
    "subspace": subspace,
    "autoencoder": lambda: programs.autoencoder(COLUMNS, 12),
    "autoencoder-16": lambda: programs.autoencoder(COLUMNS, 16),
}


def bundle(name: str, program: Program) -> Bundle:
    """What is served: a program with a threshold that somebody made up."""
    threshold, privacy = Threshold(1.0, "made up for a measurement"), PrivacyStatement(private=False)
    public = PublicModel(
        name=name,
        detector="for a measurement",
        program=program.public,
        threshold=threshold,
        privacy=privacy,
        created="2026-01-01",
        version="0",
    )
    return Bundle(public, program.secret)


def records(program: Program, rows: int) -> np.ndarray:
    """Standard normal records in the columns' own units, within their bounds."""
    schema = program.public.encoder.schema
    X = np.random.default_rng(1).normal(size=(rows, len(schema.columns)))
    X = X * [column.spread for column in schema.columns] + [column.center for column in schema.columns]
    return np.clip(X, [column.lower for column in schema.columns], [column.upper for column in schema.columns])


def one_by_one(url: str, made: Bundle, engine: str, role: Role, rows: int) -> dict[str, Any]:
    """Latencies of records scored one after another, and what each takes."""
    program, name = made.program, made.public.name
    X = records(program, rows + _WARM_UP)
    exact, keys = program.score(X), make_keys(made.public, role, engine=engine)
    seconds, worked, found, scores = list[float](), list[float](), list[Any](), list[float]()
    with Client(url) as client:
        for row in X:
            start, busy = time.perf_counter(), time.process_time()
            found.append(client.score(name, row[None], keys))
            seconds.append(time.perf_counter() - start)
            worked.append(time.process_time() - busy)
            scores.append(float(found[-1].scores[0]))
    check_close(f"{engine}, {role}, {name}", np.array(scores), exact, keys.plan.error_bound * (1 + 1e-9))
    taken, last = 1e3 * np.array(seconds[_WARM_UP:]), found[-1]

    def middle(part: str) -> float:
        return 1e3 * float(np.median([getattr(one.timings, part) for one in found[_WARM_UP:]]))

    return {
        "p50_ms": float(np.percentile(taken, 50)),
        "p95_ms": float(np.percentile(taken, 95)),
        "client_processor_ms": 1e3 * float(np.median(worked[_WARM_UP:])),
        "server_processor_ms": middle("server"),
        "client_encrypt_ms": middle("encrypt"),
        "client_decrypt_ms": middle("decrypt"),
        "up_bytes": last.bytes_up,
        "down_bytes": last.bytes_down,
        "key_bytes": len(keys.secret.to_bytes()) + len(keys.public.to_bytes()),
        "public_key_bytes": len(keys.public.to_bytes()),
        "largest_error": float(np.abs(np.array(scores) - exact).max()),
        "error_bound": keys.plan.error_bound,
        "ring_dimension": keys.plan.ring_dimension,
        "rows": rows,
    }


def tenseal(rows: int) -> dict[str, Any]:
    """One record by `ckks_vector`, encryption and decryption included, in this process and without HTTP."""
    program = programs.autoencoder(COLUMNS, 12)
    peer = tenseal_row.make_peer(*layers_of(program))
    Z, _ = program.public.encoder.encode(records(program, rows + 1))
    exact, floats = program.public.decode(program.evaluate(Z)), Z / 2.0**program.public.encoder.fraction_bits
    seconds, scores, up, down = list[float](), list[float](), 0, 0
    for row in floats:
        start = time.perf_counter()
        request = peer.encrypt(row)
        answer = peer.evaluate(request)
        scores.append(peer.decrypt(answer))
        seconds.append(time.perf_counter() - start)
        up, down = len(request), len(answer)
    check_close("TenSEAL", np.array(scores), exact, 5e-2 * float(exact.mean()))
    keys = peer.server.serialize(save_galois_keys=True, save_relin_keys=True, save_public_key=True)
    taken = 1e3 * np.array(seconds[1:])
    return {
        "p50_ms": float(np.percentile(taken, 50)),
        "p95_ms": float(np.percentile(taken, 95)),
        "up_bytes": up,
        "down_bytes": down,
        "evaluation_key_bytes": len(keys),
        "rows": rows,
    }


def measure(rows: int = 200, *, batch_rows: int = 20, peer_rows: int = 5, only: str | None = None) -> dict[str, Any]:
    """All figures: `rows` records for each program and role, `batch_rows` for the batch engine, `peer_rows` TenSEAL."""
    cases: dict[str, dict[str, Any]] = {}
    for name, make in PROGRAMS.items():
        if only not in (None, name):
            continue
        made = bundle(name, make())
        with contextlib.ExitStack() as stack:
            service = stack.enter_context(serve([made], engines=[ENGINE, BATCH]))
            for role in ROLES:
                cases[f"{name}, {role}"] = one_by_one(service.url, made, ENGINE, role, rows)
                if name == "autoencoder" or only == name:
                    batch = one_by_one(service.url, made, BATCH, role, batch_rows)
                    cases[f"{name}, {role}, engine ckks"] = batch
    ours = {key: case for key, case in cases.items() if "engine" not in key}
    figures: dict[str, Any] = {
        "single_row_http_p95_ms": _worst(ours, "subspace", "p95_ms"),
        "single_row_http_p50_ms": _worst(ours, "subspace", "p50_ms"),
        "autoencoder_http_p95_ms": _worst(ours, "autoencoder", "p95_ms"),
        "latency_key_bytes": max(case["key_bytes"] for case in ours.values()),
        "cases": cases,
    }
    if peer_rows:
        figures["tenseal_row"] = tenseal(peer_rows)
    return figures


def _worst(cases: dict[str, dict[str, Any]], program: str, what: str) -> float | None:
    found = [case[what] for key, case in cases.items() if key in {f"{program}, {role}" for role in ROLES}]
    return max(found, default=None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200)
    parser.add_argument("--batch-rows", type=int, default=20, help="for the engine ckks, which takes longer")
    parser.add_argument("--peer-rows", type=int, default=5, help="for TenSEAL; 0 leaves it out")
    parser.add_argument("--only", choices=PROGRAMS, help="one of the programs")
    parser.add_argument("--quick", action="store_true", help="20 records, 3 for the others")
    parser.add_argument("--out", type=Path, help="write the figures as JSON, too")
    options = parser.parse_args()
    rows, batch_rows, peer_rows = options.rows, options.batch_rows, options.peer_rows
    if options.quick:
        rows, batch_rows, peer_rows = 20, 3, min(peer_rows, 2)
    report = measure(rows, batch_rows=batch_rows, peer_rows=peer_rows, only=options.only)
    print(f"{'':32} {'p50 ms':>8} {'p95 ms':>8} {'client':>8} {'server':>8} {'up B':>11} {'down B':>9} {'keys B':>10}")
    for name, case in report["cases"].items():
        times = [case[key] for key in ("p50_ms", "p95_ms", "client_processor_ms", "server_processor_ms")]
        sizes = f"{case['up_bytes']:11,} {case['down_bytes']:9,} {case['key_bytes']:10,}"
        print(f"{name:32} {' '.join(f'{value:8.1f}' for value in times)} {sizes}")
    if "tenseal_row" in report:
        peer = report["tenseal_row"]
        print(
            f"{'TenSEAL ckks_vector (no HTTP)':32} {peer['p50_ms']:8.1f} {peer['p95_ms']:8.1f} {'':17}"
            f" {peer['up_bytes']:11,} {peer['down_bytes']:9,} {peer['evaluation_key_bytes']:10,}"
        )
    for name, value in report.items():
        if isinstance(value, float | int):
            print(f"  {name:26} {value:,.4g}")
    print(f"  {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
