"""What tests of training between institutions share: a recipe, records, certificates, and the processes, real ones."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from small_model import ROOT

from securead.certificates import issue
from securead.data.schema import Array

LISTENS = re.compile(r"securead coordinator listens at ([\w.:]+)\n")
START_SECONDS, END_SECONDS = 90.0, 60.0
BANKS = ("bank-a", "bank-b", "bank-c")
COLUMNS = ("amount", "hour", "distance")

RECIPE = """
name = "fraud"
{sites}
[detector]
{detector}
[federation]
{federation}
{privacy}
[schema]
out_of_bounds = "clip"
[[schema.columns]]
names = ["amount", "distance"]
lower = 0.0
upper = 100.0
[[schema.columns]]
names = ["hour"]
lower = 0.0
upper = 24.0
"""
FOREST = 'type = "forest"\nn_estimators = 25\nrandom_state = 7\n'
PRIVACY = '[privacy]\nepsilon = 4.0\ndelta = 1e-6\nnoise_source = "system"\n'


def recipe(
    path: Path,
    *,
    banks: Sequence[str] = BANKS,
    detector: str = FOREST,
    federation: str = 'aggregation = "masked"\n',
    privacy: str = "",
    ledger: bool = False,
) -> Path:
    """A recipe's file."""
    sites = "".join(
        f'[[sites]]\nname = "{bank}"\n' + (f'ledger = "{bank}.ledger"\n' if ledger else "") for bank in banks
    )
    path.write_text(RECIPE.format(sites=sites, detector=detector, federation=federation, privacy=privacy))
    return path


def records(bank: str, rows: int = 3000) -> Array:
    """One bank's records."""
    rng = np.random.default_rng(sum(bank.encode()))
    return np.column_stack([rng.gamma(2.0, 10.0, rows), rng.uniform(0.0, 24.0, rows), rng.gamma(1.5, 8.0, rows)])


class Process:
    """A securead process whose words are read as they come."""

    def __init__(self, *arguments: object, cwd: Path = ROOT) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "securead", "-v", *map(str, arguments), "--until-stdin-closes"],
            cwd=cwd,
            env={**os.environ, "COLUMNS": "200", "PYTHONPATH": str(ROOT)},
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
    def text(self) -> str:
        """All that it said to people."""
        return "".join(self.err)

    def await_line(self, said: str, seconds: float = START_SECONDS, *, after: int = 0) -> int:
        """Wait for a line that has this in it; its number."""
        deadline = time.monotonic() + seconds
        while True:
            for number, line in enumerate(list(self.err)[after:], after):
                if said in line:
                    return number
            assert self.process.poll() is None or any(said in line for line in self.err), self.text
            assert time.monotonic() < deadline, f"{said!r} in\n{self.text}"
            time.sleep(0.01)

    @property
    def address(self) -> str:
        """Where the coordinator listens, once it says so."""
        deadline = time.monotonic() + START_SECONDS
        while not (found := [match[1] for line in list(self.out) if (match := LISTENS.fullmatch(line))]):
            assert self.process.poll() is None, self.text
            assert time.monotonic() < deadline, self.text
            time.sleep(0.01)
        return found[0]

    def ended(self, seconds: float = END_SECONDS) -> int:
        """How it ended."""
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still there after {seconds} s:\n{self.text}") from None
        for reader in self._readers:
            reader.join(5)
        return code

    def kill(self) -> None:
        """As a power cut would."""
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.kill()
        for reader in self._readers:
            reader.join(5)
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()


class Institutions:
    """A folder with recipe, certificates and records, and the processes started so far."""

    def __init__(self, folder: Path, **options: Any) -> None:
        self.folder = folder
        self.recipe = recipe(folder / "recipe.toml", **options)
        self.bundle = folder / "fraud"
        issue(folder / "certs", ("coordinator", *BANKS))
        for bank in BANKS:
            self.write(bank, records(bank))
        self.processes: list[Process] = []
        self.address = ""

    def write(self, bank: str, X: Array, columns: Sequence[str] = COLUMNS) -> None:
        """A bank's records."""
        rows = [",".join(map(repr, map(float, row))) for row in X]
        (self.folder / f"{bank}.csv").write_text("\n".join([",".join(columns), *rows]) + "\n")

    def coordinator(self, *options: object, port: int = 0) -> Process:
        """Start the coordinator, and wait until it listens."""
        process = Process(
            "coordinator",
            self.recipe,
            *("--certs", self.folder / "certs" / "coordinator"),
            *("--out", self.bundle, "--port", port),
            *options,
        )
        self.processes.append(process)
        self.address = process.address
        return process

    def site(self, bank: str, *options: object, certs: Path | None = None, recipe: Path | None = None) -> Process:
        """Start a site."""
        process = Process(
            "site",
            recipe or self.recipe,
            *("--certs", certs or self.folder / "certs" / bank),
            *("--data", self.folder / f"{bank}.csv"),
            *("--coordinator", self.address),
            *("--folder", self.folder / f"{bank}.training"),
            *options,
        )
        self.processes.append(process)
        return process

    def close(self) -> None:
        for process in self.processes:
            process.close()


def institutions(folder: Path, **options: Any) -> Iterator[Institutions]:
    """Institutions whose processes end with the block."""
    made = Institutions(folder, **options)
    try:
        yield made
    finally:
        made.close()


Start = Callable[..., Institutions]
