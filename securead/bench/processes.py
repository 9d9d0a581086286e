"""Commands as the separate processes that they are in life, and what processes use."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from securead.errors import SecureadError


class CommandFailedError(SecureadError):
    """A command that the demonstration ran did not succeed; its own message is part of this one's."""


def run_command(*arguments: str | Path) -> dict[str, Any]:
    """Run `securead ARGUMENTS --json` in a process of its own and return what it printed for programs."""
    said = [str(argument) for argument in arguments]
    done = subprocess.run(
        [sys.executable, "-m", "securead", *said, "--json"], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise CommandFailedError(
            f"`securead {' '.join(said)}` failed: {done.stderr.strip()[-1500:]}",
            remedy="Run that command by itself to see more.",
        )
    plain: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return plain


def own_peak() -> int:
    """The most memory that this process has held, in bytes; 0 where the system does not tell."""
    return _held("self")


@dataclass(frozen=True)
class Usage:
    """What a process and its children have used: processor seconds, the sum of their peaks, bytes written."""

    cpu_seconds: float
    peak_bytes: int
    written: int


def usage_of(pid: int) -> Usage:
    """Of a running process and everything that it started and that still runs. Written bytes count its sockets, too."""
    tree = [str(pid)]
    for at in tree:
        for children in Path("/proc", at, "task").glob("*/children"):
            with contextlib.suppress(OSError):
                tree += children.read_text().split()
    cpu = sum(_cpu(each) for each in tree)
    return Usage(cpu, sum(_held(each) for each in tree), sum(_written(each) for each in tree))


def _cpu(pid: str) -> float:
    try:
        fields = Path("/proc", pid, "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _held(pid: str) -> int:
    try:
        lines = Path("/proc", pid, "status").read_text().splitlines()
    except OSError:
        return 0
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))


def _written(pid: str) -> int:
    try:
        lines = Path("/proc", pid, "io").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) for line in lines if line.startswith("wchar:"))
