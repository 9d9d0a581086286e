"""BFV lookups beside stock SEAL, in one run: time and traffic a row, sanitising included.

    python benchmarks/bfv_lookup.py --out bench-output/bfv_lookup.json

Processor time of this process (one core), bytes to bytes, medians and ranges of interleaved repeats: read ratios,
because the machine may be shared. Every score is compared with the exact one. A server's time contains the masks of its
answers, wherever they are made; `ready` is the part of it that a request waits for when idle time has made them, and
`bfv_ms_single_row` has both for one row of 50 x 64 in role same.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from peers.seal_lookup import make_peer

from securead.checks import programs
from securead.program.program import Program
from securead.protocols.bfv import blind, owner
from securead.protocols.bfv.plan import make_plan

PROGRAMS: dict[str, Callable[[], Program]] = {
    "50 x 64": lambda: programs.forest(50, 6),
    "100 x 256": lambda: programs.forest(100, 8),
}
STEPS = ("server", "encrypt", "decrypt")
OURS, PARTS = (*STEPS, "ready"), ("masks", "ready")
Case = dict[str, Any]


class Clock:
    """Processor milliseconds a row of named steps, over repeats; the first repeat warms up and does not count."""

    def __init__(self) -> None:
        self.found: dict[str, list[float]] = {}

    def time(self, name: str, rows: int, call: Callable[[], Any]) -> Any:
        start = time.process_time()
        result = call()
        self.found.setdefault(name, []).append(1e3 * (time.process_time() - start) / rows)
        return result

    def figures(self, name: str) -> dict[str, float]:
        values = self.found[name][1:] or self.found[name]
        return {"median": float(np.median(values)), "least": min(values), "most": max(values)}


def queries_of(program: Program, rows: int) -> np.ndarray:
    """Positions of uniform encoded records."""
    bound, width = program.public.encoder.bound, program.public.encoder.width
    return program.public.queries(np.random.default_rng(0).integers(-bound, bound + 1, (rows, width)))


def scores_of(program: Program, queries: np.ndarray) -> np.ndarray:
    """The exact integer scores of positions."""
    return sum(table[queries[:, at]] for at, table in enumerate(program.secret.tables))


def ours(name: str, program: Program, role: Any, full: bool, clock: Clock) -> Callable[[], Case]:
    """A full chunk or one row; each call repeats it and returns the figures so far."""
    plan = make_plan(program.public, role)
    rows = plan.rows_per_chunk if full else 1
    queries = queries_of(program, rows)
    exact = program.public.decode(scores_of(program, queries))
    secret, public = owner.generate_keys(plan)
    key = blind.read_evaluation_key(plan, public.to_bytes())
    encryptor = owner.make_encryptor(plan, secret if role == "same" else public)
    decryptor, evaluator = owner.make_decryptor(plan, secret), blind.make_evaluator(plan, program)
    title = f"{name}/{role}/{rows}"

    def repeat() -> Case:
        request = clock.time(f"{title}/encrypt", rows, lambda: encryptor.encrypt(queries))
        clock.time(f"{title}/masks", rows, lambda: [key.refill() for _ in plan.groups(rows)])
        answer = clock.time(f"{title}/ready", rows, lambda: evaluator.evaluate(request, key))
        clock.found.setdefault(f"{title}/server", []).append(sum(clock.found[f"{title}/{at}"][-1] for at in PARTS))
        scores = clock.time(f"{title}/decrypt", rows, lambda: decryptor.decrypt(answer, rows))
        if not (scores == exact).all():
            raise AssertionError(f"{title}: a score is wrong")
        return {
            "program": name,
            "role": role,
            "engine": "securead bfv",
            "rows": rows,
            "ring_dimension": plan.ring_dimension,
            "prime_bits": [p.bit_length() for p in plan.data_primes],
            "layouts": [[layout.slots, layout.pieces] for layout in plan.layouts],
            **{f"{step}_ms_per_row": clock.figures(f"{title}/{step}") for step in OURS},
            "upload_bytes_per_row": len(request) / rows,
            "download_bytes_per_row": len(answer) / rows,
            "evaluation_key_bytes": len(public.to_bytes()),
        }

    return repeat


def peer(name: str, program: Program, clock: Clock) -> Callable[[], Case]:
    """Stock SEAL in role `same`, one row a time."""
    plan, rows = make_plan(program.public, "same"), 16
    queries = queries_of(program, rows)
    exact = scores_of(program, queries)
    stock = make_peer(plan, np.concatenate(program.secret.tables))
    title = f"{name}/peer"

    def repeat() -> Case:
        requests = clock.time(f"{title}/encrypt", rows, lambda: [stock.encrypt(query) for query in queries])
        answers = clock.time(f"{title}/server", rows, lambda: [stock.evaluate(request) for request in requests])
        scores = clock.time(f"{title}/decrypt", rows, lambda: [stock.decrypt(answer) for answer in answers])
        if not (np.array(scores) == exact).all():
            raise AssertionError(f"{title}: a score is wrong")
        return {
            "program": name,
            "role": "same",
            "engine": "stock SEAL",
            "rows": 1,
            **{f"{step}_ms_per_row": clock.figures(f"{title}/{step}") for step in STEPS},
            "upload_bytes_per_row": sum(len(part) for request in requests for part in request) / rows,
            "download_bytes_per_row": sum(map(len, answers)) / rows,
            "evaluation_key_bytes": stock.key_bytes,
        }

    return repeat


def measure(names: tuple[str, ...], repeats: int) -> list[Case]:
    """Figures of every case of these programs, our own and the peer's, interleaved."""
    clock, cases = Clock(), list[Callable[[], Case]]()
    for name in names:
        program = PROGRAMS[name]()
        cases += [ours(name, program, role, full, clock) for role in ("same", "split") for full in (True, False)]
        cases.append(peer(name, program, clock))
    for _ in range(repeats + 1):
        figures = [repeat() for repeat in cases]
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path, help="write the figures as JSON, too")
    options = parser.parse_args()
    figures = measure(tuple(PROGRAMS), options.repeats)
    print(f"{'':44}{'server ms a row':>24}{'encrypt':>9}{'decrypt':>9}{'up, bytes':>11}{'down':>8}{'key':>9}")
    for case in figures:
        server = case["server_ms_per_row"]
        title = f"{case['program']}, role {case['role']}, {case['engine']}, {case['rows']} rows"
        spread = f"{server['median']:.2f} ({server['least']:.2f}-{server['most']:.2f})"
        client = "".join(f"{case[f'{step}_ms_per_row']['median']:>9.2f}" for step in ("encrypt", "decrypt"))
        bytes_ = f"{case['upload_bytes_per_row']:>11.0f}{case['download_bytes_per_row']:>8.0f}"
        print(f"{title:44}{spread:>24}{client}{bytes_}{case['evaluation_key_bytes']:>9}")
    ratios = {}
    for name in PROGRAMS:
        best, theirs = (
            next(c["server_ms_per_row"]["median"] for c in figures if c["program"] == name and c["engine"] == engine)
            for engine in ("securead bfv", "stock SEAL")
        )
        ratios[name] = theirs / best
        print(f"{name}, role same: a full chunk takes the server {best:.2f} ms a row, stock SEAL {theirs / best:.1f} x")
    single = next(c for c in figures if c["program"] == "50 x 64" and c["role"] == "same" and c["rows"] == 1)
    one = {"pool_ready": single["ready_ms_per_row"]["median"], "with_generation": single["server_ms_per_row"]["median"]}
    print(
        f"50 x 64, role same: one row takes {one['with_generation']:.2f} ms, {one['pool_ready']:.2f} with a mask ready"
    )
    report = {"cases": figures, "ratio_stock_server": ratios, "bfv_ms_single_row": one}
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
