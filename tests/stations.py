"""What tests of the gateway's path share: a windowed bundle that needs no training, readings, and processes."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from small_model import ROOT, URL_PREFIX, securead

from securead.data.encoder import Encoder
from securead.data.schema import Column
from securead.data.windows import Window, WindowedSchema
from securead.models.bundle import Bundle, PublicModel, Threshold
from securead.privacy.statement import PrivacyStatement
from securead.program.builder import ProgramBuilder

CHANNELS = ("flow", "pressure")
LENGTH = 3


def windowed_bundle(*, local: bool = False) -> Bundle:
    """The squared length of windows of three readings of two channels, each at most 4 wide."""
    window = Window(tuple(Column(n, -4.0, 4.0, center=0.0, spread=1.0) for n in CHANNELS), LENGTH, period=60.0)
    schema = WindowedSchema.of(window)
    build = ProgramBuilder(Encoder(schema.localised() if local else schema))
    squares = build.product(build.input, build.input)
    build.affine([(np.ones((1, len(schema.columns))), squares)], fraction_bits=build.fraction_bits(squares))
    program = build.finish(tolerance=1e-3, honest_extraction_rows=50)
    public = PublicModel(
        name="pumps",
        detector="made up for tests",
        program=program.public,
        threshold=Threshold(30.0, "chosen by hand"),
        privacy=PrivacyStatement(private=False, noise_source="system"),
        created="2026-01-01",
        version="0",
    )
    return Bundle(public, program.secret)


def readings(count: int, *, seed: int = 3) -> np.ndarray:
    """Rounded, so that a line of CSV says them exactly."""
    return np.random.default_rng(seed).normal(size=(count, len(CHANNELS))).clip(-4, 4).round(4)


def lines_of(X: np.ndarray, first: int = 0) -> str:
    """Lines of CSV, one reading a minute."""
    return "".join(f"{(first + at) * 60},{','.join(map(repr, map(float, row)))}\n" for at, row in enumerate(X))


HEADER = "time," + ",".join(CHANNELS) + "\n"


def expected_scores(X: np.ndarray) -> np.ndarray:
    """The scores of all windows of a series."""
    squares = (X**2).sum(axis=1)
    return np.convolve(squares, np.ones(LENGTH), "valid")


@dataclass
class Stations:
    """A service with an outbox, gateways and a centre as processes, each to be killed and started again."""

    folder: Path
    bundle: Path
    gateways: tuple[str, ...] = ("pump-1",)
    port: int = 0
    batch: int = 20
    options: tuple[str, ...] = ()
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def prepare(self) -> None:
        """Start the service; make keys and tokens; give each gateway its own folder, with what it may have."""
        self.start("cloud")
        server = ("--server", self.url)
        self.must("keygen", *server, "--model", "pumps", "--role", "split", "--out", self.folder / "centre/keys")
        self.must("mailbox", *server, "--keys", self.folder / "centre/keys", "--out", self.folder / "deposit.token")
        for name in self.gateways:
            place = self.folder / name
            (place / "public").mkdir(parents=True)
            for file in (self.folder / "centre/keys/public").iterdir():
                (place / "public" / file.name).write_bytes(file.read_bytes())
            (place / "deposit.token").write_bytes((self.folder / "deposit.token").read_bytes())
            (place / "deposit.token").chmod(0o600)
            (place / "readings.csv").write_text(HEADER)

    def must(self, *arguments: object) -> None:
        ended = securead(*arguments)
        assert ended.returncode == 0, ended.stderr

    def command(self, name: str) -> list[str]:
        if name == "cloud":
            outbox = ("--outbox", self.folder / "cloud/outbox.sqlite")
            command: tuple[object, ...] = ("serve", self.bundle, "--no-tls", "--port", self.port, *outbox)
        elif name == "centre":
            place = self.folder / "centre"
            out = ("--record", place / "record.sqlite", "--page", place / "page.html", "--interval", 0.1)
            command = ("centre", "--server", self.url, "--keys", place / "keys", *out)
        else:
            place = self.folder / name
            own = ("--keys", place / "public", "--token", place / "deposit.token", "--spool", place / "spool.sqlite")
            rest = ("--name", name, "--follow", "--batch", self.batch, "--age", 0.5, *self.options)
            command = ("gateway", place / "readings.csv", "--server", self.url, *own, *rest)
        return [sys.executable, "-m", "securead", *map(str, command)]

    def start(self, name: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            pipe = subprocess.PIPE if name == "cloud" else (self.folder / f"{name}.out").open("ab")
            self.processes[name] = subprocess.Popen(self.command(name), cwd=ROOT, stdout=pipe, stderr=log)
            if name != "cloud":
                pipe.close()  # type: ignore[union-attr]
        if name == "cloud":
            output = self.processes[name].stdout
            assert output is not None
            line = output.readline().decode()
            assert line.startswith(URL_PREFIX), (self.folder / "cloud.log").read_text()
            self.port = int(line.rpartition(":")[2])

    def kill(self, name: str) -> None:
        process = self.processes.pop(name)
        process.send_signal(signal.SIGKILL)
        process.wait()
        if process.stdout is not None:
            process.stdout.close()

    def feed(self, name: str, X: np.ndarray, first: int) -> None:
        with (self.folder / name / "readings.csv").open("a") as stream:
            stream.write(lines_of(X, first))
            stream.flush()
            os.fsync(stream.fileno())

    def scores(self, name: str) -> dict[int, list[float]]:
        """What the centre has of a gateway: scores by the window's last reading, every time it was written down."""
        found: dict[int, list[float]] = {}
        path = self.folder / "centre/record.sqlite"
        if not path.exists():
            return found
        query = "SELECT reading, score FROM score JOIN stream USING (stream) WHERE gateway = ?"
        # An error before its tables stand.
        with contextlib.closing(sqlite3.connect(path, timeout=30)) as db, contextlib.suppress(sqlite3.OperationalError):
            for reading, score in db.execute(query, (name,)):
                found.setdefault(reading, []).append(score)
        return found

    def await_windows(self, counts: dict[str, int], seconds: float = 90) -> None:
        def arrived() -> bool:
            for name, process in self.processes.items():
                assert process.poll() is None, f"{name} ended: {(self.folder / f'{name}.log').read_text()[-2000:]}"
            return all(len(self.scores(name)) >= count for name, count in counts.items())

        wait_for(arrived, seconds)


def wait_for(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


@contextlib.contextmanager
def stations(folder: Path, **arguments: object) -> Iterator[Stations]:
    """Everything but the centre and the gateways started; all of it killed at the end."""
    found = Stations(folder, windowed_bundle().save(folder / "cloud/bundle"), **arguments)  # type: ignore[arg-type]
    try:
        found.prepare()
        yield found
    finally:
        for name in list(found.processes):
            found.kill(name)
