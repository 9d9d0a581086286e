"""Secret-shared scoring beside stock CrypTen, in one run: real processes, mutual TLS on loopback.

    python benchmarks/sharing.py --out bench-output/sharing.json

A dealer and two parties are started as `securead dealer` and `securead party`; this process is the client. The network
is 29-16-8-16-29, with squares and with ReLU; scores are squared reconstruction errors. Milliseconds are the slower
party's, from shares of the records to shares of the scores: correlations are dealt before (ahead of demand) and told
apart. The peer is CrypTen 0.4.1 over gloo with triples of its own third party, timed likewise, but it fetches triples
as it goes, as it does for its users. Medians of interleaved repeats; read ratios, because the machine may be shared.

Times on a LAN (1 Gb/s, .2 ms one way) and a WAN (100 Mb/s, 20 ms) are predicted from rounds and bytes, and checked by
runs with such delays injected between the parties.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from peers import crypten_stock

from securead.bench import deployment as bench
from securead.bench.deployment import random_records as records
from securead.bench.records import Link
from securead.checks import programs
from securead.client.parties import Parties, PartyScores
from securead.planner.links import predicted_seconds
from securead.program.program import Program

WIDTHS = (29, 16, 8, 16, 29)
BATCHES = (1, 64, 1024, 8192)
GOALS = {"square": (4, 4, 2, 1.2), "relu": (4, 4, 2, 1.1)}
SLOWER: tuple[Link, ...] = ("lan", "wan")


class Deployment(bench.Parties):
    """A dealer, two parties and their client for one program; `link` is what lies between the parties."""

    def __init__(self, program: Program, folder: Path, link: Link = "loopback") -> None:
        super().__init__(program, float(np.median(program.score(records(program, 256)))), folder, link=link)
        self.client = Parties(self.config)

    def close(self) -> None:
        if hasattr(self, "client"):
            self.client.close()
        super().close()


def measure(program: Program, ours: Deployment, peer: Callable[[int], float] | None, repeats: int) -> dict[str, Any]:
    """Milliseconds by batch for us and the peer, end to end too; bytes, rounds, error."""
    X = records(program, max(BATCHES))
    exact = program.public.decode(program.evaluate(program.public.encoder.encode(X)[0]))
    found: dict[str, Any] = {name: {} for name in ("ms", "end_to_end_ms", "stock_ms", "online_bytes", "offline_bytes")}
    worst, recomputed, total = 0.0, 0, 0
    for rows in BATCHES:
        ms, whole, stock = [], [], []
        for repeat in range(repeats + 1):  # the first warms up
            start = time.perf_counter()
            done: PartyScores = ours.client.score(X[:rows])
            took = time.perf_counter() - start
            seconds = peer(rows) if peer is not None else float("nan")
            if repeat:
                ms.append(1e3 * done.timings.server)
                whole.append(1e3 * took)
                stock.append(1e3 * seconds)
            recomputed, total = recomputed + done.work.recomputed, total + rows
            error = float(np.abs(done.scores - exact[:rows]).max() / exact.mean())
            if not error <= 1e-2:
                raise AssertionError(f"off by {error:.3g} of the mean score at {rows} rows")
            worst = error if rows == max(BATCHES) else worst
        key = str(rows)
        found["ms"][key], found["end_to_end_ms"][key] = float(np.median(ms)), float(np.median(whole))
        found["stock_ms"][key] = float(np.median(stock)) if peer is not None else None
        found["online_bytes"][key], found["offline_bytes"][key] = done.work.party_bytes, done.work.offline_bytes
        found["rounds"] = done.work.rounds
    return found | {"max_error": worst, "recomputed_rate": recomputed / total}


def predicted(figures: dict[str, Any], rows: int, link: Link) -> float:
    """Milliseconds over a link: what loopback took, for every round a way, and half of the bytes at its rate.

    One way more, because the leader begins when it hears that the other party has.
    """
    ways, seconds = figures["rounds"] + 1, figures["ms"][str(rows)] / 1e3
    return 1e3 * predicted_seconds(seconds, ways=ways, bytes_in_line=figures["online_bytes"][str(rows)] / 2, link=link)


def check_links(program: Program, figures: dict[str, Any], folder: Path, repeats: int) -> dict[str, Any]:
    """Predicted and measured milliseconds over each kind of link, for one row and for 64."""
    found: dict[str, Any] = {}
    X = records(program, 64)
    for link in SLOWER:
        ours = Deployment(program, folder / link, link)
        try:
            found[link] = {}
            for rows in (1, 64):
                took = [1e3 * ours.client.score(X[:rows]).timings.server for _ in range(repeats + 1)][1:]
                found[link][str(rows)] = {
                    "predicted_ms": predicted(figures, rows, link),
                    "measured_ms": float(np.median(took)),
                }
        finally:
            ours.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="one repeat, no links")
    parser.add_argument("--out", type=Path, help="write the figures as JSON, too")
    options = parser.parse_args()
    repeats = 1 if options.quick else options.repeats
    with tempfile.TemporaryDirectory() as temporary:
        report = run_all(Path(temporary), repeats, quick=options.quick)
    show(report)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(report, indent=2) + "\n")


def run_all(folder: Path, repeats: int, *, quick: bool) -> dict[str, Any]:
    networks = {"square": programs.square_network(WIDTHS), "relu": programs.relu_network(WIDTHS)}
    scales = {"square": 0.25, "relu": 1.0}
    found: dict[str, Any] = {}
    for units, program in networks.items():
        X = records(program, max(BATCHES))
        peer = crypten_stock.Peer(programs.network_layers(WIDTHS, scales[units]), X)
        ours = Deployment(program, folder / units)
        try:
            found[units] = measure(program, ours, lambda rows: peer.score(units, rows)[0], repeats)  # noqa: B023
        finally:
            ours.close()
            peer.close()
    forest = programs.forest(100, 8)
    ours = Deployment(forest, folder / "forest")
    try:
        # An eighth of the shares that this batch needs is 200 MB: the table is measured for one row.
        X = records(forest, 1)
        took = [ours.client.score(X) for _ in range(repeats + 1)][1:]
        table = {
            "ms": float(np.median([1e3 * one.timings.server for one in took])),
            "rounds": took[-1].work.rounds,
            "upload_bytes": took[-1].bytes_up,
            "online_bytes": took[-1].work.party_bytes,
            "offline_bytes": took[-1].work.offline_bytes,
            "error": float(np.abs(took[-1].scores - forest.score(X)).max()),
        }
    finally:
        ours.close()
    links = {} if quick else {u: check_links(p, found[u], folder / f"links-{u}", repeats) for u, p in networks.items()}
    square, relu, most = found["square"], found["relu"], str(max(BATCHES))
    return {
        "square_ms": square["ms"],
        "relu_ms": relu["ms"],
        "stock_square_ms": square["stock_ms"],
        "stock_relu_ms": relu["stock_ms"],
        "spu_relu_ms": None,
        "spu_reason": "SPU needs an environment of its own (NumPy 1.26, JAX 0.4.34), which none was given",
        "online_bytes_per_row": {u: found[u]["online_bytes"][most] / int(most) for u in found},
        "offline_bytes_per_row": {u: found[u]["offline_bytes"][most] / int(most) for u in found},
        "rounds": {u: found[u]["rounds"] for u in found} | {"table": table["rounds"]},
        "max_error_8192": max(square["max_error"], relu["max_error"]),
        "recomputed_rate": max(square["recomputed_rate"], relu["recomputed_rate"]),
        "table_ms_1": table["ms"],
        "ratio": {u: {b: found[u]["stock_ms"][b] / found[u]["ms"][b] for b in map(str, BATCHES)} for u in found},
        "end_to_end_ms": {u: found[u]["end_to_end_ms"] for u in found},
        "table": table,
        "links": links,
    }


def show(report: dict[str, Any]) -> None:
    for units, goals in GOALS.items():
        for rows, goal in zip(map(str, BATCHES), goals, strict=True):
            print(
                f"{units:6} {rows:>5} rows: {report[f'{units}_ms'][rows]:8.1f} ms, "
                f"stock {report[f'stock_{units}_ms'][rows]:8.1f} ms, ratio {report['ratio'][units][rows]:.1f} "
                f"(goal {goal}); end to end {report['end_to_end_ms'][units][rows]:.1f} ms"
            )
    for name in ("table", "rounds", "online_bytes_per_row", "offline_bytes_per_row", "max_error_8192", "links"):
        print(f"  {name}: {json.dumps(report[name])}")


if __name__ == "__main__":
    main()
