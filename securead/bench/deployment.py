"""A dealer and two parties for one program, processes of their own under mutual TLS, on this machine or as if apart."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType

import numpy as np

from securead import certificates, codec, files
from securead.bench.links import Relay
from securead.bench.records import Link
from securead.errors import RetryLaterError
from securead.models.bundle import Threshold
from securead.models.shared import SharedModel
from securead.planner.links import LINKS
from securead.privacy.statement import PrivacyStatement
from securead.program.program import Program
from securead.protocols.sharing.links import parse_address
from securead.protocols.sharing.shares import split_model

DEALER, PARTIES, ME = "dealer", ("party0", "party1"), "client"
_SILENCE, _PATIENCE = 30.0, 60.0


class Parties:
    """The processes, and in `folder`/client.toml what a client needs. Certificates are of a fresh authority.

    `link`: what lies between the two parties, and with `to_client` between them and their client, too; dealing, which
    happens ahead of requests, is not delayed.
    """

    def __init__(
        self, program: Program, threshold: float, folder: Path, *, link: Link = "loopback", to_client: bool = False
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.config = folder, folder / "client.toml"
        self.processes: dict[str, subprocess.Popen[str]] = {}
        self._relays: list[Relay] = []
        self._link: Link = link
        certificates.issue(folder / "certs", (DEALER, *PARTIES, ME))
        for name, half in zip(PARTIES, split_model(program, threshold), strict=True):
            half.write(folder / f"{name}.model")
        files.write_json(folder / "program.json", codec.to_plain(program.public))
        _model(program, threshold).write(folder / "model.json")
        try:
            dealer = self._begin(DEALER, (DEALER,), program="program.json")
            common: dict[str, str | float] = {"dealer": dealer, "silence_seconds": _SILENCE}
            first = self._begin(PARTIES[0], ("party", "--index", "0"), model="party0.model", **common)
            leader = self._apart(first)
            second = self._begin(PARTIES[1], ("party", "--index", "1"), model="party1.model", leader=leader, **common)
            reached = [self._apart(each) if to_client else each for each in (first, second)]
        except BaseException:
            self.close()
            raise
        self._write(ME, party0=reached[0], party1=reached[1], model="model.json", patience=_PATIENCE)

    def __enter__(self) -> Parties:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all processes."""
        for process in self.processes.values():
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()
        for relay in self._relays:
            relay.close()

    def _apart(self, address: str) -> str:
        """Where others find what is at `address`: behind the link, if there is one."""
        if self._link == "loopback":
            return address
        self._relays.append(Relay(parse_address(address), LINKS[self._link]))
        return "{}:{}".format(*self._relays[-1].address)

    def _write(self, name: str, **entries: str | float) -> Path:
        path = self.folder / f"{name}.toml"
        content = {"identity": f"certs/{name}", **entries}
        files.write_atomic(path, "".join(f"{key} = {json.dumps(value)}\n" for key, value in content.items()).encode())
        return path

    def _begin(self, name: str, command: tuple[str, ...], **entries: str | float) -> str:
        """Start a process; where it listens."""
        config = self._write(name, **entries)
        with (self.folder / f"{name}.log").open("wb") as log:
            process = self.processes[name] = subprocess.Popen(
                [sys.executable, "-m", "securead", *command, str(config), "--until-stdin-closes"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={"OMP_NUM_THREADS": "1", **os.environ},
                text=True,
            )
        line = "" if process.stdout is None else process.stdout.readline()
        if "listens at" not in line:
            said = (self.folder / f"{name}.log").read_text(errors="replace").strip()[-800:]
            raise RetryLaterError(f"{name} did not start: {said or line!r}")
        return line.rsplit(" ", 1)[1].strip()


def random_records(program: Program, rows: int) -> np.ndarray:
    """Standard normal records, clipped as the encoder clips."""
    encoder = program.public.encoder
    return np.random.default_rng(1).normal(size=(rows, encoder.width)).clip(-encoder.limit, encoder.limit)


def _model(program: Program, threshold: float) -> SharedModel:
    found = Threshold(threshold, "of a benchmark")
    statement = PrivacyStatement(private=False)
    return SharedModel("benchmark", "benchmark", program.public, found, statement, "2026-01-01T00:00:00+00:00", "0")
