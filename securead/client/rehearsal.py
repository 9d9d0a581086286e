"""`python -m securead.client.rehearsal CONFIG RECORDS.npz`: a client of two parties that scores when it is told to.

For measurements: a client in a process of its own, whose connections stay open between requests. Each line of input is
a JSON object, `{"start": 0, "stop": 64, "out": "scores.npy"}`, `out` being optional; each line of output says what
scoring these rows of X took, at the client and, as the parties say, there. It ends with its input.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from securead.client.parties import Parties


def run(parties: Parties, X: np.ndarray, order: dict[str, Any]) -> dict[str, Any]:
    """Score some rows, and say what it took."""
    rows = X[order["start"] : order["stop"]]
    cpu, wall = time.process_time(), time.perf_counter()
    found = parties.score(rows)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    if "out" in order:
        np.save(order["out"], found.scores, allow_pickle=False)
    return {
        "cpu": cpu,
        "wall": wall,
        "server": found.timings.server,
        "up": found.bytes_up,
        "down": found.bytes_down,
        **vars(found.work),
    }


def main() -> None:
    """The command line."""
    config, records = map(Path, sys.argv[1:])
    with np.load(records, allow_pickle=False) as archive:
        X = np.asarray(archive["X"], dtype=np.float64)
    with Parties(config) as parties:
        for line in sys.stdin:
            sys.stdout.write(json.dumps(run(parties, X, json.loads(line))) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
