"""The engine `sharing`, measured: a dealer, two parties and a client as the processes that they are in life.

What processes used, and the bytes that they wrote, is what the system counted; what the parties and the client report
is held against it. The dealer works ahead of requests: its share, and what the parties expand of it, is offline, but
processor time of a party cannot be told apart and counts as online.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from securead.bench import soundness
from securead.bench.deployment import DEALER, ME, PARTIES, Parties
from securead.bench.engine_case import CLIENT, Measured
from securead.bench.players import HalfFailedError
from securead.bench.processes import Usage, usage_of
from securead.bench.records import Case, Timing, Traffic
from securead.bench.repeats import once, repeat, spread, timing
from securead.data.schema import Array
from securead.models.bundle import Bundle
from securead.planner.links import predicted_seconds
from securead.program.table import PublicTable
from securead.protocols.sharing import owner
from securead.protocols.sharing.plan import SEED_BYTES, SharingPlan, make_plan

ROLES = {DEALER: DEALER, PARTIES[0]: "party 0", PARTIES[1]: "party 1"}
_SETTLE = 0.5


def ways_of(plan: SharingPlan) -> int:
    """Messages of a request that wait for one another: it, the leader's word, the parties' rounds, the answer."""
    return plan.rounds(False) + 3


def run(case: Case, bundle: Bundle, X: Array, folder: Path) -> Measured:
    """Score records `(n, d)`, then measure batches of the case's size."""
    plan = make_plan(bundle.public.program, "same")
    batch = min(case.batch or plan.rows_per_chunk, plan.rows_per_chunk)
    rows = np.concatenate([X, np.resize(X, (batch, X.shape[1]))])
    records, out = folder / "records.npz", folder / "scores.npy"
    np.savez(records, X=rows)
    threshold, program = bundle.public.threshold.value, bundle.program
    start = time.perf_counter()
    with Parties(program, threshold, folder / "near") as parties, client_process(parties, records) as client:
        started = time.perf_counter() - start
        client.ask(0, len(X), out)
        scores = np.load(out, allow_pickle=False)
        client.ask(len(X), len(rows))  # warms up: a set of correlations for so many rows
        time.sleep(_SETTLE)
        before = {name: usage_of(process.pid) for name, process in parties.processes.items()}
        done = repeat(lambda: client.ask(len(X), len(rows)))
        time.sleep(_SETTLE)
        after = {name: usage_of(process.pid) for name, process in parties.processes.items()}
        peaks = {ROLES[name]: usage.peak_bytes for name, usage in after.items()}
        peaks[CLIENT] = usage_of(client.process.pid).peak_bytes
    seconds = float(np.median([each["wall"] for each in done]))
    last, ways = done[-1], ways_of(plan)
    # Both parties send at once, so that half of their bytes take turns with the client's.
    in_line = last["party_bytes"] / 2 + last["up"] + last["down"]
    failures = soundness.wrong_scores(scores, program.score(X), plan, bundle.public.program.tolerance)
    failures += _untold_bytes(done, before, after)
    failures += _told_by_requests(plan, bundle, X)
    return Measured(
        scores=scores,
        timings=(
            once(ROLES[PARTIES[0]], "start", case.threads, [(None, started)]),
            *_timings(case, done, before, after, batch),
        ),
        traffic=_traffic(plan, last, batch),
        rounds=plan.rounds(False) + 1,
        predicted_seconds=predicted_seconds(seconds, ways=ways, bytes_in_line=in_line, link=case.link),
        delayed_seconds=None if case.link == "loopback" else _delayed(case, bundle, records, folder, len(X), len(rows)),
        peak_bytes=tuple(sorted(peaks.items())),
        security_bits=float(plan.security_bits),
        notes=(
            f"timed in batches of {batch:,}; scored in chunks of {plan.rows_per_chunk:,}",
            "answers tell seconds, so that their length varies by some bytes",
            "parties' processor time holds what they expand ahead of requests",
        ),
        failures=tuple(failures),
    )


class Client:
    """A client's process."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self.process, self._log = process, log

    def ask(self, start: int, stop: int, out: Path | None = None) -> dict[str, Any]:
        """Have these rows scored; what it took."""
        order = {"start": start, "stop": stop, **({} if out is None else {"out": str(out)})}
        told = ""
        if self.process.stdin is not None and self.process.stdout is not None:
            with contextlib.suppress(OSError):
                self.process.stdin.write(json.dumps(order) + "\n")
                self.process.stdin.flush()
                told = self.process.stdout.readline()
        if not told:
            said = self._log.read_text(errors="replace").strip()[-800:]
            raise HalfFailedError(f"the client of the two parties failed: {said}")
        found: dict[str, Any] = json.loads(told)
        return found


@contextlib.contextmanager
def client_process(parties: Parties, records: Path) -> Iterator[Client]:
    """A client's process that scores rows of an archive when it is asked to."""
    log = parties.folder / f"{ME}.log"
    command = [sys.executable, "-m", "securead.client.rehearsal", str(parties.config), str(records)]
    with log.open("wb") as errors:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True)
    try:
        yield Client(process, log)
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


def _timings(
    case: Case, done: list[dict[str, Any]], before: dict[str, Usage], after: dict[str, Usage], rows: int
) -> tuple[Timing, ...]:
    def cpu(name: str) -> float:
        return max(after[name].cpu_seconds - before[name].cpu_seconds, 0.0) / (len(done) + 1)

    mine = [(each["cpu"], max(each["wall"] - each["server"], 0.0)) for each in done]
    wall = spread((each["server"] for each in done), rows)
    found = [timing(CLIENT, "share, send and join", case.threads, mine, rows=rows)]
    for name in PARTIES:
        found.append(Timing(ROLES[name], "compute", case.threads, False, spread([cpu(name)], rows), wall))
    found.append(Timing(DEALER, "deal", case.threads, True, spread([cpu(DEALER)], rows), None))
    return tuple(found)


def _traffic(plan: SharingPlan, done: dict[str, Any], rows: int) -> tuple[Traffic, ...]:
    first, second = ROLES[PARTIES[0]], ROLES[PARTIES[1]]
    head = (done["up"] - plan.request_bytes(rows) - SEED_BYTES) / 2  # both parties get the same
    return (
        Traffic(CLIENT, first, "records", (plan.request_bytes(rows) + head) / rows),
        Traffic(CLIENT, second, "records", (SEED_BYTES + head) / rows),
        *(Traffic(each, CLIENT, "scores", done["down"] / 2 / rows) for each in (first, second)),
        Traffic(first, second, "shares", done["party_bytes"] / 2 / rows),
        Traffic(second, first, "shares", done["party_bytes"] / 2 / rows),
        Traffic(DEALER, first, "one-time material", done["offline_bytes"] / rows),
    )


def _untold_bytes(done: list[dict[str, Any]], before: dict[str, Usage], after: dict[str, Usage]) -> list[str]:
    """What the parties wrote, as the system counted it, against what they and the client report."""
    times = len(done) + 1  # one warmed up
    reported = times * (done[-1]["party_bytes"] + done[-1]["down"])
    written = sum(after[name].written - before[name].written for name in PARTIES)
    frames = times * (2 * int(done[-1]["rounds"]) + 8)
    return soundness.uncounted_traffic(reported, written, "the parties", frames=frames)


def _told_by_requests(plan: SharingPlan, bundle: Bundle, X: Array) -> list[str]:
    """Either party's payload by itself, as `engine_case` looks at requests."""
    public = bundle.public.program
    rows = min(len(X) // 2, 64, plan.rows_per_chunk) or 1
    Z, W = (public.encoder.encode(each)[0] for each in (X[:rows], X[-rows:]))
    if np.array_equal(public.queries(Z), public.queries(W)):
        return []
    made = [owner.split_queries(plan, owner.words_of(plan, public, each)) for each in (Z, Z, W)]
    found = []
    values = {"records": X[:rows]} if isinstance(public, PublicTable) else {"records": X[:rows], "encoded records": Z}
    for at, name in enumerate(ROLES[each] for each in PARTIES):
        payloads = [each[at] for each in made]
        found += soundness.told_by(payloads, f"requests to {name}", "they tell of the records")
        found += soundness.plaintext(payloads[0], f"requests to {name}", **values)
    return found


def _delayed(case: Case, bundle: Bundle, records: Path, folder: Path, start: int, stop: int) -> float:
    """A request's seconds with the link between the parties, and between them and the client."""
    threshold = bundle.public.threshold.value
    with (
        Parties(bundle.program, threshold, folder / "apart", link=case.link, to_client=True) as parties,
        client_process(parties, records) as client,
    ):
        client.ask(start, stop)
        time.sleep(_SETTLE)
        return float(np.median([each["wall"] for each in repeat(lambda: client.ask(start, stop), seconds=1.0)]))
