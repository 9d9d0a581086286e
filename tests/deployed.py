"""What tests of secret-shared scoring share: a split model, certificates, and the processes, real ones."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from small_model import COLUMNS, ROOT, small_bundle

from securead.certificates import issue
from securead.client.parties import Parties, PartiesConfig
from securead.data.encoder import Encoder
from securead.data.schema import Column, Schema
from securead.errors import SecureadError
from securead.models.bundle import Bundle
from securead.program.builder import ProgramBuilder
from securead.serving.split import split_bundle

LISTENS = re.compile(r"securead (?:dealer|party\d lane \d+) listens at ([\w.:]+)\n")
START_SECONDS = 60.0


def free_port(count: int = 1) -> int:
    """The first of `count` ports that were free a moment ago: for processes that start again at the same place.

    Below those that Linux gives to whoever asks for any: no other test is given one of them while its process is away.
    """
    while True:
        first = random.SystemRandom().randrange(20_000, 32_000)
        try:
            for port in range(first, first + count):
                socket.create_server(("127.0.0.1", port)).close()
        except OSError:
            continue
        return first


def slow_bundle(*, seed: int = 3, width: int = 96) -> Bundle:
    """A sum of many ReLUs: 8192 rows take long enough for something to go wrong in the middle."""
    schema = Schema(tuple(Column(n, -4.0, 4.0, center=0.0, spread=1.0) for n in COLUMNS))
    rng = np.random.default_rng(seed)
    build = ProgramBuilder(Encoder(schema))
    hidden = build.relu(build.affine([(rng.normal(size=(width, len(COLUMNS))) / 4, build.input)], fraction_bits=24))
    build.affine([(rng.normal(size=(1, width)) / 4, hidden)], np.array([0.5]), fraction_bits=40)
    program = build.finish(tolerance=1e-3, honest_extraction_rows=20)
    return Bundle(replace(small_bundle().public, program=program.public), program.secret)


class Process:
    """A securead process whose words are read as they come."""

    def __init__(self, *arguments: object) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "securead", "-v", *map(str, arguments), "--until-stdin-closes"],
            cwd=ROOT,
            env={**os.environ, "COLUMNS": "200"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.out: list[str] = []
        self.err: list[str] = []
        self._readers = [
            threading.Thread(target=self._read, args=pair, daemon=True)
            for pair in ((self.process.stdout, self.out), (self.process.stderr, self.err))
        ]
        for reader in self._readers:
            reader.start()

    @staticmethod
    def _read(stream: Any, lines: list[str]) -> None:
        lines.extend(stream)  # one by one, as they come

    @property
    def address(self) -> str:
        """Where it listens, once it says so."""
        deadline = time.monotonic() + START_SECONDS
        while not (found := [match[1] for line in list(self.out) if (match := LISTENS.fullmatch(line))]):
            assert self.process.poll() is None, "".join(self.err)
            assert time.monotonic() < deadline, "".join(self.err)
            time.sleep(0.01)
        return found[0]

    def events(self, name: str) -> list[dict[str, Any]]:
        """The events of that name that it logged so far."""
        logged = [json.loads(line) for line in list(self.err) if line.startswith('{"event"')]
        return [each for each in logged if each["event"] == name]

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        """As a power cut would."""
        self.process.kill()
        self.process.wait()

    @property
    def resident(self) -> int:
        """Bytes of memory that it holds."""
        text = Path(f"/proc/{self.process.pid}/statm").read_text()
        return int(text.split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def close(self) -> None:
        if self.process.poll() is None:
            self.send(signal.SIGCONT)
            self.kill()
        for reader in self._readers:
            reader.join(5)
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()


class Deployment:
    """A folder with everything that a dealer, two parties and clients need, and the processes started so far.

    Ports are chosen beforehand, because processes that are killed come back at the same place.
    """

    def __init__(
        self, folder: Path, bundle: Bundle | None = None, *, lanes: int = 1, verdicts_only: bool = False
    ) -> None:
        self.folder, self.bundle, self.lanes = folder, bundle or small_bundle(), lanes
        self.bundle.save(folder / "bundle")
        split_bundle(folder / "bundle", folder, verdicts_only=verdicts_only)
        issue(folder / "certs", ("dealer", "party0", "party1", "bank-a", "bank-b"))
        dealer, *ports = free_port(), free_port(lanes), free_port(lanes)
        self.ports = {"dealer": dealer, "party0": ports[0], "party1": ports[1]}
        self.write("dealer", program="program.json", port=dealer)
        for index in (0, 1):
            leader = {"leader": f"127.0.0.1:{ports[0]}"} if index else {}
            self.write(
                f"party{index}",
                model=f"party{index}.model",
                port=ports[index],
                dealer=f"127.0.0.1:{dealer}",
                lanes=lanes,
                **leader,
            )
        self.write(
            "client",
            identity="certs/bank-a",
            model="model.json",
            party0=f"127.0.0.1:{ports[0]}",
            party1=f"127.0.0.1:{ports[1]}",
            lanes=lanes,
        )
        self.running: dict[str, Process] = {}

    def write(self, name: str, **entries: str | int | float) -> Path:
        """A TOML file, for the identity of its name."""
        entries = {"identity": f"certs/{name}", **entries}
        path = self.folder / f"{name}.toml"
        path.write_text("".join(f"{key} = {json.dumps(value)}\n" for key, value in entries.items()))
        return path

    def start(self, *names: str) -> None:
        """Start processes, in this order."""
        for name in names:
            config = self.folder / f"{name}.toml"
            arguments = ("dealer", config) if name == "dealer" else ("party", "--index", name[-1], config)
            self.running[name] = Process(*arguments)

    def restart(self, name: str) -> None:
        """Kill a process and start it again."""
        self.running[name].close()
        self.start(name)
        _ = self.running[name].address
        while name != "dealer" and not self.running[name].events("sharing.started"):
            assert self.running[name].process.poll() is None, "".join(self.running[name].err)
            time.sleep(0.01)

    def client(self, **changes: Any) -> Parties:
        """A client; `changes` to its configuration."""
        config = PartiesConfig.read(self.folder / "client.toml")
        return Parties(replace(config, **changes))

    def await_ready(self, seconds: float = START_SECONDS) -> float:
        """Seconds until both parties say that they are ready. Asks as a client does."""
        start = time.monotonic()
        while (problem := self._problem()) is not None:
            told = "".join(line for process in self.running.values() for line in process.err[-5:])
            assert time.monotonic() - start < seconds, f"{problem}\n{told}"
            time.sleep(0.02)
        return time.monotonic() - start

    def _problem(self) -> SecureadError | None:
        try:
            with self.client(patience=0.0) as client:
                client.greet()
        except SecureadError as error:
            return error
        return None

    def close(self) -> None:
        for process in self.running.values():
            process.close()


def deployed(folder: Path, *names: str, **options: Any) -> Iterator[Deployment]:
    """A deployment whose processes end with the block."""
    deployment = Deployment(folder, **options)
    try:
        deployment.start(*(names or ("dealer", "party0", "party1")))
        deployment.await_ready()
        yield deployment
    finally:
        deployment.close()
