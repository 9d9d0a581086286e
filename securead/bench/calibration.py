"""Calibration: small real programs through every installed engine's real halves, and a profile of what they cost.

Each engine in a process of its own that keeps to one thread, so that times are processor times of one core; two engines
at a time where there are two cores, as in life a client and a service are at work. An engine that is not installed, or
fails, is left out, and the profile predicts nothing of it.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from securead.bench.provenance import cores
from securead.errors import RetryLaterError
from securead.planner import profile as profiles
from securead.planner.fit import Observation, fit
from securead.planner.profile import EngineCosts, Profile
from securead.protocols import registry
from securead.protocols.engine import EngineSpec, PlanModuleWithWork

SECONDS = 26.0
_JOBS = 2
_SHARE = 0.65  # of the time, for engines of one service, where there are others
_STARTING = 1.5  # seconds that an engine's process takes before it measures
_GRACE = 60.0  # beyond its share: starting takes longer on a busy machine
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")


class Watch(Protocol):
    """Who is told what is being measured."""

    def step(self, what: str, done: int, total: int) -> None: ...


@dataclass(frozen=True)
class Calibration:
    """A profile, what it was fitted to, and which engines are not in it and why."""

    profile: Profile
    observations: tuple[Observation, ...]
    left_out: tuple[tuple[str, str], ...]
    seconds: float


def calibrate(
    path: Path | None = None,
    *,
    seconds: float = SECONDS,
    engines: Sequence[str] | None = None,
    watch: Watch | None = None,
) -> Calibration:
    """Measure the engines (all that are registered) in about `seconds`, and write the profile to `path`.

    `path` None is the user's cache (`securead.planner.profile.default_path`). The file is replaced at once and whole,
    after everything is measured. Raises `RetryLaterError` where no engine could be measured.
    """
    start, told = time.monotonic(), _Told(watch)
    specs = [spec for name, spec in registry.engines().items() if engines is None or name in engines]
    alone = [spec for spec in specs if spec.parties > 1]  # they take several cores, and wait for one another
    services = [spec for spec in specs if spec.parties == 1]
    jobs = max(1, min(_JOBS, cores()))
    share = seconds * (_SHARE if alone else 1.0) * jobs / max(len(services), 1)
    found: dict[str, list[Observation] | RetryLaterError] = {}

    def measure(spec: EngineSpec, budget: float) -> None:
        told.step(f"calibrating {spec.name}", len(found), len(specs))
        try:
            found[spec.name] = []
            for each in _measure(spec, max(budget - _STARTING, 0.0)):
                told.step(f"{spec.name}: {each.what} records", len(found) - 1, len(specs))
                found[spec.name].append(each)  # type: ignore[union-attr]
        except RetryLaterError as error:
            found[spec.name] = error

    with ThreadPoolExecutor(jobs) as running:
        for done in [running.submit(measure, spec, share) for spec in services]:
            done.result()
    for at, spec in enumerate(alone):
        measure(spec, (seconds - (time.monotonic() - start)) / (len(alone) - at))
    costs, observations, left_out = list[EngineCosts](), list[Observation](), list[tuple[str, str]]()
    for spec in specs:
        match found[spec.name]:
            case RetryLaterError() as error:
                left_out.append((spec.name, error.what))
            case measured:
                observations += measured
                costs.append(fit(spec.name, measured))
    told.step("calibrated", len(specs), len(specs))
    if not costs:
        why = "; ".join(f"{name}: {what}" for name, what in left_out) or "none is registered"
        raise RetryLaterError(
            f"no engine could be measured: {why}", remedy="Install an engine: pip install securead[ckks]."
        )
    created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    made = Profile(profiles.machine(), profiles.versions(), created, tuple(costs))
    profiles.write(made, path or profiles.default_path())
    return Calibration(made, tuple(observations), tuple(left_out), time.monotonic() - start)


def _measure(spec: EngineSpec, seconds: float) -> Iterator[Observation]:
    """What a process of its own measures of an engine, as it comes; `RetryLaterError` where it is nothing."""
    try:
        if not isinstance(registry.plan_module(spec.name), PlanModuleWithWork):
            raise RetryLaterError("it does not say what its requests cost")
    except ImportError as error:
        raise RetryLaterError(str(error)) from error
    command = [sys.executable, "-m", "securead.bench.trial", spec.name, f"{seconds:.1f}"]
    found = 0
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=said, text=True, env={**os.environ, **dict.fromkeys(_THREADS, "1")}
        )
        with _ended(process, seconds + _GRACE):
            for line in process.stdout or ():
                observation = _observation(line)
                if observation is not None:
                    found += 1
                    yield observation
        if not found:
            said.seek(0)
            words = said.read().decode(errors="replace").strip().splitlines()
            raise RetryLaterError(words[-1][:300] if words else "nothing that it carries was measured in time")


@contextlib.contextmanager
def _ended(process: subprocess.Popen[str], seconds: float) -> Iterator[None]:
    """The process is over afterwards, whatever happens, and its output ends after `seconds` at the latest."""
    alarm = threading.Timer(seconds, process.kill)
    alarm.start()
    try:
        yield
    finally:
        alarm.cancel()
        if process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(1.0)
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _observation(line: str) -> Observation | None:
    """One line of a trial; None for one that was cut off."""
    try:
        plain: dict[str, Any] = json.loads(line)
        return Observation(**plain)
    except (ValueError, TypeError):
        return None


class _Told:
    """Passes on what is told, one thread at a time."""

    def __init__(self, watch: Watch | None) -> None:
        self._watch, self._lock = watch, threading.Lock()

    def step(self, what: str, done: int, total: int) -> None:
        with self._lock:
            if self._watch is not None:
                self._watch.step(what, done, total)
