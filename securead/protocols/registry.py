"""Engines by name, loaded only when asked for, from the entry-point group `securead.engines`.

A third party adds an engine by an entry point that names an `EngineSpec`; nothing here changes.
"""

from __future__ import annotations

import functools
import importlib
from importlib import metadata
from typing import cast

from securead.errors import FixConfigurationError, InstallExtraError
from securead.protocols.engine import BlindModule, EngineSpec, OwnerModule, PlanModule

GROUP = "securead.engines"


@functools.cache
def engines() -> dict[str, EngineSpec]:
    """All registered engines by name."""
    found = {point.name: point.load() for point in metadata.entry_points(group=GROUP)}
    return dict(sorted(found.items()))


def spec(name: str) -> EngineSpec:
    """The engine called `name`, or `FixConfigurationError` that lists those there are."""
    try:
        return engines()[name]
    except KeyError:
        raise FixConfigurationError(
            f"no engine is called {name!r}", remedy="Registered engines: " + (", ".join(engines()) or "none") + "."
        ) from None


def plan_module(name: str) -> PlanModule:
    """The engine's public parameters; imports no cryptography."""
    return cast(PlanModule, _load(name, "plan"))


def owner_module(name: str) -> OwnerModule:
    """The half that can hold a data owner's key."""
    return cast(OwnerModule, _load(name, "owner"))


def blind_module(name: str) -> BlindModule:
    """The half that evaluates what it cannot read."""
    return cast(BlindModule, _load(name, "blind"))


def _load(name: str, half: str) -> object:
    engine = spec(name)
    try:
        return importlib.import_module(f"{engine.package}.{half}")
    except ImportError as error:
        raise InstallExtraError(
            f"the engine {name!r} needs a package that is not installed: {error.name}",
            remedy=f"Run: pip install 'securead[{engine.extra}{',serve' if half == 'blind' else ''}]'.",
        ) from error
