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
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from peers import crypten_stock

from securead import certificates, codec, files
from securead.checks import programs
from securead.client.parties import Parties, PartyScores
from securead.models.bundle import Threshold
from securead.models.shared import SharedModel
from securead.privacy.statement import PrivacyStatement
from securead.program.program import Program
from securead.protocols.sharing.shares import split_model

WIDTHS = (29, 16, 8, 16, 29)
BATCHES = (1, 64, 1024, 8192)
GOALS = {"square": (4, 4, 2, 1.2), "relu": (4, 4, 2, 1.1)}
LINKS = {"lan": (0.0002, 1e9 / 8), "wan": (0.02, 100e6 / 8)}  # seconds one way, bytes a second
ME = "client"


@dataclass
class Deployment:
    """A dealer, two parties and their client for one program, each with a certificate of a fresh authority."""

    folder: Path
    processes: list[subprocess.Popen[str]]
    client: Parties

    @classmethod
    def start(cls, program: Program, folder: Path, link: tuple[float, float] | None = None) -> Deployment:
        """Processes that are ready; `link` puts a delay between the parties."""
        folder.mkdir(parents=True)
        certificates.issue(folder / "certs", ("dealer", "party0", "party1", ME))
        threshold = float(np.median(program.score(records(program, 256))))
        for index, half in enumerate(split_model(program, threshold)):
            half.write(folder / f"party{index}.model")
        files.write_json(folder / "program.json", codec.to_plain(program.public))
        shared_model(program, threshold).write(folder / "model.json")
        processes = []

        def begin(config: str, *command: str, text: str) -> str:
            (folder / config).write_text(text)
            delayed = [] if link is None else ["--delay", *map(str, link)]
            start = [sys.executable, __file__, *delayed, "--run"] if delayed else [sys.executable, "-m", "securead"]
            process = subprocess.Popen(
                [*start, *command, str(folder / config), "--until-stdin-closes"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                text=True,
            )
            processes.append(process)
            assert process.stdout is not None
            line = process.stdout.readline()
            if "listens at" not in line:
                raise RuntimeError(f"{command[0]} did not start: {line!r}")
            return line.rsplit(" ", 1)[1].strip()

        dealer = begin("dealer.toml", "dealer", text='program = "program.json"\nidentity = "certs/dealer"\n')
        common = f'dealer = "{dealer}"\nsilence_seconds = 30.0\n'
        party0 = begin(
            "party0.toml",
            *("party", "--index", "0"),
            text=f'model = "party0.model"\nidentity = "certs/party0"\n{common}',
        )
        party1 = begin(
            "party1.toml",
            *("party", "--index", "1"),
            text=f'model = "party1.model"\nidentity = "certs/party1"\nleader = "{party0}"\n{common}',
        )
        (folder / "client.toml").write_text(
            f'party0 = "{party0}"\nparty1 = "{party1}"\nidentity = "certs/{ME}"\n'
            'model = "model.json"\npatience = 60.0\n'
        )
        return cls(folder, processes, Parties(folder / "client.toml"))

    def close(self) -> None:
        self.client.close()
        for process in self.processes:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()


def shared_model(program: Program, threshold: float) -> SharedModel:
    statement = PrivacyStatement(private=False)
    found = Threshold(threshold, "the median of random records")
    return SharedModel("benchmark", "benchmark", program.public, found, statement, "2026-01-01T00:00:00+00:00", "0")


def records(program: Program, rows: int) -> np.ndarray:
    """Standard normal records, clipped as the encoder clips."""
    encoder = program.public.encoder
    return np.random.default_rng(1).normal(size=(rows, encoder.width)).clip(-encoder.limit, encoder.limit)


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


def predicted(figures: dict[str, Any], rows: int, link: tuple[float, float]) -> float:
    """Milliseconds over a link: what loopback took, for every round a way, and half of the bytes at its rate.

    One way more, because the leader begins when it hears that the other party has.
    """
    wait, rate = link
    ways = figures["rounds"] + 1
    return figures["ms"][str(rows)] + 1e3 * (ways * wait + figures["online_bytes"][str(rows)] / 2 / rate)


def check_links(program: Program, figures: dict[str, Any], folder: Path, repeats: int) -> dict[str, Any]:
    """Predicted and measured milliseconds over each kind of link, for one row and for 64."""
    found: dict[str, Any] = {}
    X = records(program, 64)
    for name, link in LINKS.items():
        ours = Deployment.start(program, folder / name, link)
        try:
            found[name] = {}
            for rows in (1, 64):
                took = [1e3 * ours.client.score(X[:rows]).timings.server for _ in range(repeats + 1)][1:]
                found[name][str(rows)] = {
                    "predicted_ms": predicted(figures, rows, link),
                    "measured_ms": float(np.median(took)),
                }
        finally:
            ours.close()
    return found


def run_delayed(seconds: float, rate: float, command: list[str]) -> None:
    """A `securead` command whose links to another party imitate a slower one."""
    from securead import cli
    from securead.protocols.sharing import channel
    from securead.protocols.sharing.outbox import Delay

    initialise = channel.Channel.__init__

    def delayed(self: Any, tls: Any, peer: str, **options: Any) -> None:
        if peer.startswith("party"):
            options["delay"] = Delay(seconds, rate)
        initialise(self, tls, peer, **options)

    channel.Channel.__init__ = delayed  # type: ignore[method-assign]
    sys.argv = ["securead", *command]
    cli.main()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="one repeat, no links")
    parser.add_argument("--out", type=Path, help="write the figures as JSON, too")
    parser.add_argument("--delay", nargs=2, type=float, help=argparse.SUPPRESS)
    parser.add_argument("--run", nargs=argparse.REMAINDER, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        run_delayed(*options.delay, options.run)
        return
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
        ours = Deployment.start(program, folder / units)
        try:
            found[units] = measure(program, ours, lambda rows: peer.score(units, rows)[0], repeats)  # noqa: B023
        finally:
            ours.close()
            peer.close()
    forest = programs.forest(100, 8)
    ours = Deployment.start(forest, folder / "forest")
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
