"""Two parties, a dealer and a client run on samples, as the processes that they are: what calibration learns from.

Seconds of a party are those that clients are told, waiting for the other party included: on one machine that is what
a request takes, and the least of a few counts, because whatever else runs only adds. The dealer's are its processor
time.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from securead.bench import samples
from securead.bench.deployment import DEALER, Parties, random_records
from securead.bench.processes import usage_of
from securead.bench.sharing_case import Client, client_process
from securead.planner.fit import Observation, amounts_of
from securead.program.program import Program
from securead.protocols.sharing.plan import make_plan
from securead.protocols.sharing.work import work

_SIZES = (1, 64, 512, 2048)
_REPEATS, _SETTLE_SECONDS = 3, 0.25


def trial(engine: str, seconds: float) -> Iterator[Observation]:
    """Measurements of a network of ReLUs and of a forest; the largest requests only as far as `seconds` allow.

    Both programs' processes start at once: starting is most of the time.
    """
    end = time.monotonic() + seconds
    made = {"relu": samples.relu((29, 16, 8, 16, 29)), "forest": samples.forest(40, 5)}
    with tempfile.TemporaryDirectory(prefix="securead-trial-") as folder, contextlib.ExitStack() as open_ones:
        with ThreadPoolExecutor(len(made)) as starting:
            started = starting.map(lambda name: Parties(made[name], 1.0, Path(folder, name)), made)
        running = {name: open_ones.enter_context(parties) for name, parties in zip(made, started, strict=True)}
        clients = {}
        for name, parties in running.items():
            records = Path(folder, f"{name}.npz")
            np.savez(records, X=random_records(made[name], max(_SIZES)))
            clients[name] = open_ones.enter_context(client_process(parties, records))
        for rows in _SIZES:
            for name, program in made.items():
                if rows == _SIZES[-1] and time.monotonic() > end:
                    return
                yield _measured(engine, name, program, running[name], clients[name], rows)


def _measured(engine: str, name: str, program: Program, parties: Parties, client: Client, rows: int) -> Observation:
    plan = make_plan(program.public, "same")
    rows = min(rows, plan.rows_per_chunk)
    client.ask(0, rows)  # warms up: a set of correlations for so many rows
    time.sleep(_SETTLE_SECONDS)
    dealer = parties.processes[DEALER].pid
    before = usage_of(dealer).cpu_seconds
    done = [client.ask(0, rows) for _ in range(_REPEATS)]
    time.sleep(_SETTLE_SECONDS)
    seconds = {
        "client": min(max(each["wall"] - each["server"], 0.0) for each in done),
        "server": min(each["server"] for each in done),
        "offline": (usage_of(dealer).cpu_seconds - before) / _REPEATS,
        "holder": 0.0,
    }
    amounts = amounts_of(work(plan, program.public, rows))
    return Observation(engine, f"{name}, {plan.role}, {rows}", amounts, seconds)
