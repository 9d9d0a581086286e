"""Where numbers come from: revision, versions and machine, but nobody's name, host or folders."""

from __future__ import annotations

import datetime
import functools
import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path

from securead.bench.records import Provenance

# Packages whose version changes numbers.
PACKAGES = (
    "securead",
    "numpy",
    "scipy",
    "scikit-learn",
    "numba",
    "torch",
    "opacus",
    "dp-accounting",
    "opendp",
    "tenseal",
    "crypten",
    "phe",
    "gmpy2",
    "flwr",
    "pyod",
)
# Two parts at least, so that "and/or" and "kB/s" stay; not within a URL.
_PATH = re.compile(r"(?<![\w:/.~])(?:~|\.{1,2})?/(?:[^\s/'\":;,()]+/)+([^\s/'\":;,()]*)")


def collect(program: str = "") -> Provenance:
    """Of this process, now; `program` is the digest of the program that was run, where there is one."""
    return Provenance(
        revision=revision(),
        versions=_versions(),
        machine=f"{_processor()}; {platform.system()} {platform.machine()}",
        cores=cores(),
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        program=program,
    )


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def without_paths(text: str) -> str:
    """The text with every path cut to its last part: the rest would say whose machine it was."""
    return _PATH.sub(lambda found: found[1] or "(a folder)", text)


@functools.cache
def revision() -> str:
    """The checkout's git revision, "+dirty" where files differ from it; "" for a package that was installed."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return ""
    head = _git(root, "rev-parse", "--short=12", "HEAD")
    return head + "+dirty" if head and _git(root, "status", "--porcelain") else head


def _git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments],  # noqa: S607 - the git that people use
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


@functools.cache
def _versions() -> tuple[tuple[str, str], ...]:
    found = [("python", platform.python_version())]
    for name in PACKAGES:
        try:
            found.append((name, metadata.version(name)))
        except metadata.PackageNotFoundError:
            continue
    return tuple(found)


@functools.cache
def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
