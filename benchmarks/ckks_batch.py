"""CKKS in the batch layout: server and client time, bytes a row, at 29 features. `python benchmarks/ckks_batch.py`

Processor time of this process (SEAL evaluates on one core), the smallest of several runs: the machine may be shared.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from securead.checks import programs
from securead.program.polynomial import Program
from securead.protocols.ckks import blind, owner
from securead.protocols.ckks.plan import make_plan

PROGRAMS: dict[str, Callable[[], Program]] = {
    "Mahalanobis, 29 features": programs.mahalanobis,
    "autoencoder 29-12-29, square": programs.autoencoder,
}
COLUMNS = ("program", "role", "N", "primes", "server", "encrypt", "decrypt", "up", "down", "keys", "error", "relative")


def timed(call: Callable[[], Any], repeats: int) -> tuple[float, Any]:
    """The smallest processor time in seconds of several calls, and the last result."""
    best, result = float("inf"), None
    for _ in range(repeats):
        start = time.process_time()
        result = call()
        best = min(best, time.process_time() - start)
    return best, result


def measure(name: str, role: Any, repeats: int) -> tuple[str, ...]:
    program = PROGRAMS[name]()
    encoder, plan = program.public.encoder, make_plan(program.public, role)
    rows = plan.rows_per_chunk
    Z = np.rint(np.random.default_rng(0).normal(size=(rows, encoder.width)) * 2**encoder.fraction_bits)
    Z = np.clip(Z, -encoder.bound, encoder.bound).astype(np.int64)
    secret, public = owner.generate_keys(plan)
    key = secret if role == "same" else public
    encryptor, decryptor = owner.make_encryptor(plan, key), owner.make_decryptor(plan, secret)
    evaluator = blind.make_evaluator(plan, program)
    encrypt, request = timed(lambda: encryptor.encrypt(Z), repeats)
    server, answer = timed(lambda: evaluator.evaluate(request), repeats)
    decrypt, scores = timed(lambda: decryptor.decrypt(answer, rows), repeats)
    term = program.public.decode(program.public.public_term(Z)) if role == "same" else 0.0
    exact = program.public.decode(program.evaluate(Z))
    error = np.abs(scores + term - exact)
    return (
        name,
        role,
        str(plan.ring_dimension),
        "+".join(str(p.bit_length()) for p in plan.data_primes),
        *(f"{seconds / rows * 1e6:.1f}" for seconds in (server, encrypt, decrypt)),
        f"{len(request) / rows:.0f}",
        f"{len(answer) / rows:.0f}",
        f"{len(key.to_bytes())}",
        f"{error.max():.1e} <= {plan.error_bound:.1e}",
        f"{(error / np.abs(exact)).max():.1e}",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    table = [COLUMNS, *(measure(name, role, repeats) for name in PROGRAMS for role in ("same", "split"))]
    widths = [max(len(row[i]) for row in table) for i in range(len(COLUMNS))]
    print("times in us a row, traffic in bytes a row, keys in bytes; error: measured <= proven")
    for row in table:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)))


if __name__ == "__main__":
    main()
