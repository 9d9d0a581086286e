"""Detectors by name, loaded only when asked for, from the entry-point group `securead.detectors`.

A third party adds a detector by an entry point that names an `AnomalyDetector`; nothing here changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from typing import Any

from securead.errors import FixConfigurationError
from securead.models.estimator import AnomalyDetector
from securead.models.threshold import read_wish

GROUP = "securead.detectors"


def detector_names() -> tuple[str, ...]:
    """All registered detectors."""
    return tuple(sorted(point.name for point in metadata.entry_points(group=GROUP)))


def make_detector(name: str, parameters: Mapping[str, Any]) -> AnomalyDetector:
    """A detector by name; an unknown name or parameter is refused with those there are."""
    point = next(iter(metadata.entry_points(group=GROUP, name=name)), None)
    if point is None:
        raise FixConfigurationError(
            "no detector has this name", value=name, remedy="Registered: " + ", ".join(detector_names()) + "."
        )
    kind: type[AnomalyDetector] = point.load()
    # A recipe's schema and privacy plan have sections of their own.
    known = [parameter for parameter in kind().get_params() if parameter not in ("schema", "privacy")]
    unknown = [parameter for parameter in parameters if parameter not in known]
    if unknown:
        raise FixConfigurationError(
            f"the detector {name!r} has no such parameter", value=unknown, remedy="Known: " + ", ".join(known) + "."
        )
    if "threshold" in parameters:
        parameters = {**parameters, "threshold": read_wish(parameters["threshold"])}
    return kind(**parameters)
