"""What a machine's calibration found: seconds for each unit of work of each engine, kept in the user's cache.

A profile is of one machine and one set of packages: another one's is refused, because its predictions would be wrong
by more than anybody would notice. It names the processor and no host, user or folder.
"""

from __future__ import annotations

import functools
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from securead import __version__, codec, files
from securead.errors import FixInputError
from securead.protocols.engine import PHASES

FORMAT = 1
MAX_BYTES = 1 << 20
PROFILE_FILE = "profile.json"
# Packages whose version changes times.
_PACKAGES = ("numpy", "numba", "tenseal", "torch", "crypten", "phe", "gmpy2", "cryptography")


@dataclass(frozen=True)
class UnitCost:
    """Seconds that one unit of a kind of work takes in a phase."""

    phase: str
    unit: str
    seconds: float


@dataclass(frozen=True)
class EngineCosts:
    """What one engine's units cost. `error`: how far its own measurements lie from the fit, the relative median."""

    engine: str
    costs: tuple[UnitCost, ...]
    error: float
    measurements: int

    @functools.cached_property
    def _by_unit(self) -> Mapping[tuple[str, str], float]:
        return {(cost.phase, cost.unit): cost.seconds for cost in self.costs}

    def seconds(self, phase: str, amounts: Mapping[str, float]) -> float | None:
        """What these amounts take, or None where a kind of work was never measured."""
        known = self._by_unit
        if any((phase, unit) not in known for unit, amount in amounts.items() if amount):
            return None
        return sum(amount * known[phase, unit] for unit, amount in amounts.items() if amount)


@dataclass(frozen=True)
class Profile:
    """Costs of every engine that was installed. `versions`: of the packages that it was calibrated with."""

    machine: str
    versions: tuple[tuple[str, str], ...]
    created: str
    engines: tuple[EngineCosts, ...]
    format: int = FORMAT

    def __post_init__(self) -> None:
        costs = [cost for each in self.engines for cost in each.costs]
        if self.format != FORMAT or not all(cost.phase in PHASES and 0 <= cost.seconds < 1e6 for cost in costs):
            raise FixInputError("this is no profile", where="profile", value=self.format, remedy=REMEDY)

    def of(self, engine: str) -> EngineCosts | None:
        """One engine's costs; None where it was not there when the profile was made."""
        return next((each for each in self.engines if each.engine == engine), None)

    @property
    def strange(self) -> str:
        """Why it does not fit this machine or these packages; nothing where it does."""
        if self.machine != machine():
            return f"it is of another machine ({self.machine})"
        old, new = dict(self.versions), dict(versions())
        changed = [name for name in {**old, **new} if old.get(name) != new.get(name)]
        return f"it was made with other versions of {', '.join(sorted(changed))}" if changed else ""


REMEDY = "Calibrate again: securead plan --calibrate."


def default_path() -> Path:
    """Where a user's profile lies: in the folder that XDG_CACHE_HOME names, else in ~/.cache."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    folder = Path(cache) if os.path.isabs(cache) else Path.home() / ".cache"
    return folder / "securead" / PROFILE_FILE


def read(path: Path) -> Profile:
    """A profile that fits this machine, or `FixInputError` that says why it does not."""
    found = codec.from_plain(Profile, files.read_json(path, limit=MAX_BYTES), where=str(path))
    if found.strange:
        raise FixInputError(f"the profile does not fit: {found.strange}", where=str(path), remedy=REMEDY)
    return found


def write(profile: Profile, path: Path) -> None:
    """Write it whole or not at all; folders are made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_json(path, codec.to_plain(profile))


@functools.cache
def machine() -> str:
    """The processor and how many of its cores this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return f"{_processor()}, {cores} cores, {platform.system()} {platform.machine()}"


@functools.cache
def versions() -> tuple[tuple[str, str], ...]:
    """Of this package and of what its engines compute with, as far as it is installed."""
    found = [("python", platform.python_version()), ("securead", __version__)]
    for name in _PACKAGES:
        try:
            found.append((name, metadata.version(name)))
        except metadata.PackageNotFoundError:
            continue
    return tuple(found)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
