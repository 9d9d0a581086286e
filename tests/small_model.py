"""What tests of the service, the client and the command line share: a bundle that needs no training, and processes."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from securead.data.encoder import Encoder
from securead.data.schema import Column, Schema
from securead.models.bundle import Bundle, PublicModel, Threshold
from securead.privacy.statement import NoiseSource, PrivacyStatement
from securead.program.builder import ProgramBuilder

ROOT = Path(__file__).resolve().parent.parent
COLUMNS = ("amount", "age", "hour", "distance", "count")
URL_PREFIX = "securead serves at "
Run = Callable[..., subprocess.CompletedProcess[str]]  # the fixture `run`


def small_bundle(
    name: str = "tiny",
    *,
    seed: int = 1,
    public_term: bool = True,
    out_of_bounds: str = "clip",
    noise_source: NoiseSource = "system",
    columns: tuple[str, ...] = COLUMNS,
) -> Bundle:
    """|z|^2 - |Wz|^2 + bias over five columns with bounds [-4, 4] and a spread of 1."""
    schema = Schema(
        tuple(Column(n, -4.0, 4.0, center=0.0, spread=1.0) for n in columns),
        out_of_bounds=out_of_bounds,  # type: ignore[arg-type]
    )
    weights = np.random.default_rng(seed).normal(size=(3, len(columns))) / 4
    build = ProgramBuilder(Encoder(schema))
    hidden = build.affine([(weights, build.input)], fraction_bits=24)
    squares = build.product(hidden, hidden)
    build.affine([(-np.ones((1, 3)), squares)], np.array([0.5]), fraction_bits=build.fraction_bits(squares))
    program = build.finish(tolerance=1e-4, honest_extraction_rows=20, squared_norm=1.0 if public_term else None)
    public = PublicModel(
        name=name,
        detector="made up for tests",
        program=program.public,
        threshold=Threshold(6.0, "chosen by hand"),
        privacy=PrivacyStatement(private=False, noise_source=noise_source),
        created="2026-01-01",
        version="0",
    )
    return Bundle(public, program.secret)


def records(rows: int, *, seed: int = 2, columns: int = len(COLUMNS)) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(rows, columns)).clip(-4, 4)


def write_csv(path: Path, X: np.ndarray, columns: tuple[str, ...] = COLUMNS) -> Path:
    lines = [",".join(columns), *(",".join(repr(float(v)) for v in row) for row in X)]
    path.write_text("\n".join(lines) + "\n")
    return path


def read_scores(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Scores and flags of a CSV file, after checking its header and row numbers."""
    header, *lines = path.read_text().splitlines()
    assert header == "row,score,anomaly"
    cells = [line.split(",") for line in lines]
    assert [int(c[0]) for c in cells] == list(range(len(cells)))
    return np.array([float(c[1]) for c in cells]), np.array([int(c[2]) for c in cells], dtype=bool)


def securead(*arguments: object, timeout: float = 120, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "securead", *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "COLUMNS": "200", **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@dataclass
class Served:
    """A service process."""

    url: str
    port: int
    process: subprocess.Popen[str]
    errors: Path

    def terminate(self) -> int:
        self.process.terminate()
        return self.process.wait(30)


@contextlib.contextmanager
def served(
    tmp: Path, *bundles: Path, port: int = 0, arguments: tuple[str, ...] = ("--no-tls",), **environment: str
) -> Iterator[Served]:
    """`securead serve` on a port that the system chooses; killed at the end whatever happens.

    One worker, which starts soonest, unless the arguments say otherwise.
    """
    arguments = arguments if "--workers" in arguments else (*arguments, "--workers", "1")
    errors = tmp / f"service-{len(list(tmp.glob('service-*')))}.stderr"
    command = [sys.executable, "-m", "securead", "serve", *map(str, bundles), "--port", str(port), *arguments]
    with errors.open("wb") as stderr:
        process = subprocess.Popen(
            command, cwd=ROOT, env={**os.environ, **environment}, stdout=subprocess.PIPE, stderr=stderr, text=True
        )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()  # pytest-timeout ends a service that never says anything
        assert line.startswith(URL_PREFIX), errors.read_text()
        url = line.removeprefix(URL_PREFIX).strip()
        yield Served(url, int(url.rpartition(":")[2]), process, errors)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
