"""The scoring service on one core and on two: chunks a second, memory, and what receiving costs.

    python benchmarks/pool.py --out bench-output/pool.json

Chunks of the 29-12-29 autoencoder (4,096 rows, CKKS, role same) are encrypted beforehand and sent over HTTP on
loopback by two clients for each worker, as bare sockets, because the clients share the machine with the service: with
two cores its work slows down what is measured, with one it has the other core. No program has less to compute for a
byte that is received. What is compared runs side by side: all services wait, and each round asks one after the other,
not counting the first messages, which use up masks made in idle time.

`pool_speedup`: rows a second of the whole service on two cores, with as many workers as `securead serve` starts there,
over those of one worker, the whole service on one core; the median over rounds. `pool_speedup_unpinned`: the same
where the system places the processes. `pool_speedup_by_processor_time`: what two cores would give that have nothing
else to do, twice the processor time of a chunk with one worker over that with several; to be read beside the others on
a machine that others use, too.
`front_ms_per_chunk`: processor time of the process that receives, a chunk. `pipe_ms_per_chunk`: what of both processes'
time is the way between them, measured by itself. `small_*`: single look-ups (BFV, one row) with two workers, with the
processor time a request of the process that receives and of the workers; `rss_*` in MB, before and after them, of these
processes. `start_seconds`: until the service accepts connections, by workers.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import statistics
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from securead.checks import programs
from securead.client.keys import Keys, make_keys
from securead.client.service import Service
from securead.client.workflow import key_message, seal, unseal
from securead.models.bundle import Bundle, PublicModel, Threshold
from securead.privacy.statement import PrivacyStatement
from securead.program.program import Program
from securead.protocols import wire
from securead.serving.process import RunningService, serve
from securead.serving.processes import usable_cores

SENDERS_A_WORKER = 2
QUIET_SECONDS = 1.0  # until those that were asked before have made what idle time makes
USED_UP = 4  # messages for each worker after which nothing is left that idle time made
_TICK = os.sysconf("SC_CLK_TCK")


def bundle_of(program: Program, name: str) -> Bundle:
    """A bundle around a program that nobody trained."""
    public = PublicModel(
        name=name,
        detector="random weights",
        program=program.public,
        threshold=Threshold(0.0, "none"),
        privacy=PrivacyStatement(private=False, noise_source="system"),
        created="2026-01-01",
        version="0",
    )
    return Bundle(public, program.secret)


@dataclass
class Prepared:
    """A model, keys for it, and one request message with the records in it."""

    bundle: Bundle
    keys: Keys
    X: np.ndarray
    request: wire.Envelope
    terms: tuple[int, ...]

    @classmethod
    def of(cls, program: Program, engine: str, rows: int | None = None) -> Prepared:
        bundle = bundle_of(program, engine)
        keys = make_keys(bundle.public, "same", engine=engine)
        schema = program.public.encoder.schema
        low, high = (np.array([getattr(c, side) for c in schema.columns]) for side in ("lower", "upper"))
        shape = (rows or keys.plan.rows_per_chunk, len(low))
        X = np.random.default_rng(0).normal(size=shape).clip(low, high)
        sealed = next(iter(seal(keys.submitter, X)))
        return cls(bundle, keys, X, sealed.envelope, sealed.local.terms)

    def register(self, service: RunningService) -> None:
        key = key_message(self.keys.submitter, self.request.header)
        if key is not None:
            with Service(service.url) as connection:
                connection.ensure_key(self.bundle.public.name, key)

    def check(self, reply: bytes) -> None:
        """A service is measured only if what it answers is right."""
        answer = wire.from_bytes(reply, max_payload=self.keys.plan.max_answer_bytes)
        scores = unseal(self.keys.holder, self.keys.holder.decryptor(), answer, self.terms)
        np.testing.assert_allclose(scores, self.bundle.program.score(self.X), atol=self.keys.plan.error_bound + 1e-9)


class Sender:
    """One kept connection, as cheap as can be."""

    def __init__(self, service: RunningService, prepared: Prepared) -> None:
        self._address = urlsplit(service.url)
        body = prepared.request.to_bytes()
        path = f"/v1/models/{prepared.bundle.public.name}/score"
        head = f"POST {path} HTTP/1.1\r\nHost: {self._address.netloc}\r\nContent-Length: {len(body)}\r\n\r\n"
        self._message = head.encode() + body
        self._link: socket.socket | None = None
        self._buffer = bytearray(1 << 20)

    def send(self) -> bytes | None:
        """The reply's body; None where the service had no room, as it says by 503."""
        if self._link is None:
            self._link = socket.create_connection((self._address.hostname, self._address.port))
        self._link.sendall(self._message)
        got = b""
        while b"\r\n\r\n" not in got:
            got += self._received()
        head, _, body = got.partition(b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        parts, left = [body], int(fields[b"content-length"]) - len(body)
        while left:
            parts.append(self._received())
            left -= len(parts[-1])
        if fields.get(b"connection") == b"close":
            self.close()
        status = int(head.split(b" ", 2)[1])
        if status not in (200, 503):
            raise RuntimeError(b"".join(parts).decode(errors="replace")[:300])
        return b"".join(parts) if status == 200 else None

    def _received(self) -> bytes:
        assert self._link is not None
        size = self._link.recv_into(self._buffer)
        if not size:
            raise RuntimeError("the service closed the connection")
        return bytes(self._buffer[:size])

    def close(self) -> None:
        if self._link is not None:
            self._link.close()
            self._link = None


def rate(service: RunningService, prepared: Prepared, messages: int, senders: int) -> float:
    """Messages a second: so many answered, by senders that never pause."""
    local, spares, replies = threading.local(), list[Sender](), list[bytes]()

    def work(_: int) -> None:
        if not hasattr(local, "sender"):
            local.sender = Sender(service, prepared)
            spares.append(local.sender)
        while (reply := local.sender.send()) is None:
            time.sleep(0.05)
        if not replies:
            replies.append(reply)

    with ThreadPoolExecutor(senders) as threads:
        start = time.perf_counter()
        list(threads.map(work, range(messages)))
        seconds = time.perf_counter() - start
    for each in spares:
        each.close()
    prepared.check(replies[0])  # not before, because it takes long and holds the interpreter
    return messages / seconds


@contextlib.contextmanager
def service_on(cores: set[int] | None, bundle: Bundle, engine: str, workers: int) -> Iterator[RunningService]:
    """A service all of whose processes have these cores; None: any."""
    before = os.sched_getaffinity(0)
    with contextlib.ExitStack() as stack:
        os.sched_setaffinity(0, cores or before)
        try:
            service = stack.enter_context(serve([bundle], workers=workers, engines=[engine], queue=64))
        finally:
            os.sched_setaffinity(0, before)
        yield service


def workers_of(service: RunningService) -> list[int]:
    """The processes that a service started."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(path.read_text().rpartition(")")[2].split()[1]) == service.pid:
                found.append(int(path.parent.name))
    return sorted(found)


def processor_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICK


def resident(pid: int) -> float:
    """Megabytes."""
    return int(Path(f"/proc/{pid}/status").read_text().split("VmRSS:")[1].split()[0]) / 1024


def measure_speedup(rounds: int, chunks: int) -> dict[str, Any]:
    """One core beside two, and both where the system places the processes; `chunks` for each core and round."""
    prepared = Prepared.of(programs.autoencoder(), "ckks")
    rows, cores = len(prepared.X), sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        raise SystemExit("this takes two cores")
    several = len(cores) + 1  # as `processes.default_workers` has it
    kinds: dict[str, tuple[set[int] | None, int]] = {
        "one_core": ({cores[0]}, 1),
        "two_cores": (set(cores), several),
        "one_unpinned": (None, 1),
        "two_unpinned": (None, several),
    }
    rates: dict[str, list[float]] = {kind: [] for kind in kinds}
    with contextlib.ExitStack() as stack:
        services, seconds = {}, {}
        for kind, (places, workers) in kinds.items():
            start = time.perf_counter()
            services[kind] = stack.enter_context(service_on(places, prepared.bundle, "ckks", workers))
            seconds[kind] = time.perf_counter() - start
            prepared.register(services[kind])
            rate(services[kind], prepared, USED_UP * workers, SENDERS_A_WORKER * workers)  # compiled
        processes = {kind: (one.pid, *workers_of(one)) for kind, one in services.items()}
        spent = {kind: [0.0] * len(pids) for kind, pids in processes.items()}
        for _ in range(rounds):
            for kind, (_, workers) in kinds.items():
                time.sleep(QUIET_SECONDS)
                senders, messages = SENDERS_A_WORKER * workers, chunks * min(workers, len(cores))
                rate(services[kind], prepared, USED_UP * workers, senders)
                before = [processor_seconds(pid) for pid in processes[kind]]
                rates[kind].append(rate(services[kind], prepared, messages, senders) * rows)
                for at, pid in enumerate(processes[kind]):
                    spent[kind][at] += 1e3 * (processor_seconds(pid) - before[at]) / (rounds * messages)
        memory = {kind: [resident(pid) for pid in pids] for kind, pids in processes.items()}

    def ratio(two: str, one: str) -> float:
        return statistics.median(a / b for a, b in zip(rates[two], rates[one], strict=True))

    return {
        "pool_speedup": ratio("two_cores", "one_core"),
        "pool_speedup_rounds": [a / b for a, b in zip(rates["two_cores"], rates["one_core"], strict=True)],
        "pool_speedup_unpinned": ratio("two_unpinned", "one_unpinned"),
        "rows_per_second": {kind: statistics.median(found) for kind, found in rates.items()},
        "pool_speedup_by_processor_time": 2 * sum(spent["one_core"]) / sum(spent["two_cores"]),
        "processor_ms_per_chunk": spent,
        "front_ms_per_chunk": spent["two_cores"][0],
        "pipe_ms_per_chunk": measure_pipe(len(prepared.request.payload)),
        "start_seconds": {"1": seconds["one_unpinned"], str(several): seconds["two_unpinned"]},
        "rss_mb": memory,
    }


def measure_pipe(size: int) -> float:
    """Processor milliseconds, of both ends, of so many bytes through a pair of sockets."""
    ours, theirs = socket.socketpair()
    content, times = bytes(size), []
    for end in (ours, theirs):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)

    def read() -> None:
        buffer = bytearray(size)
        while size and (view := memoryview(buffer)):
            while view:
                got = theirs.recv_into(view)
                if not got:
                    return
                view = view[got:]
            theirs.send(b"x")

    with ours, theirs:
        thread = threading.Thread(target=read)
        thread.start()
        for _ in range(20):
            start = time.process_time()
            ours.sendall(content)
            ours.recv(1)
            times.append(1e3 * (time.process_time() - start))
        ours.shutdown(socket.SHUT_WR)
        thread.join()
    return statistics.median(times)


def measure_small(requests: int) -> dict[str, Any]:
    """Single look-ups by two workers: rows a second, and memory before and after."""
    prepared = Prepared.of(programs.small_tables(), "bfv", rows=1)
    with service_on(None, prepared.bundle, "bfv", 2) as service:
        prepared.register(service)
        rate(service, prepared, 500, 4)
        pids = (service.pid, *workers_of(service))
        before, spent = [resident(pid) for pid in pids], [processor_seconds(pid) for pid in pids]
        found = rate(service, prepared, requests, 4)
        after = [resident(pid) for pid in pids]
        front, *workers = (1e3 * (processor_seconds(pid) - s) / requests for pid, s in zip(pids, spent, strict=True))
    return {
        "small_requests": requests,
        "small_rows_per_second": found,
        "small_front_ms": front,
        "small_workers_ms": sum(workers),
        "rss_before": before,
        "rss_after": after,
    }


def measure(rounds: int = 7, chunks: int = 20, requests: int = 10_000) -> dict[str, Any]:
    """All figures; `chunks` for each core and round."""
    return {**measure_speedup(rounds, chunks), **measure_small(requests), "cores": usable_cores()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--chunks", type=int, default=20, help="for each core and round")
    parser.add_argument("--requests", type=int, default=10_000, help="small ones")
    parser.add_argument("--quick", action="store_true", help="two rounds of four chunks, 500 small requests")
    parser.add_argument("--out", type=Path, help="write the figures as JSON, too")
    options = parser.parse_args()
    sizes = (2, 4, 500) if options.quick else (options.rounds, options.chunks, options.requests)
    report = measure(*sizes)
    for name, value in report.items():
        print(f"  {name:24} {value:,.4g}" if isinstance(value, float | int) else f"  {name:24} {json.dumps(value)}")
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
