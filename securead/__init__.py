"""securead: train one anomaly detector privately among institutions, score records nobody else can see.

The names below are loaded when they are first used, so that a device which only encrypts needs no training library.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "Column": "securead.data.schema",
    "Schema": "securead.data.schema",
    "Window": "securead.data.windows",
    "WindowedSchema": "securead.data.windows",
    "LocalScale": "securead.data.windows",
    "StreamingEncoder": "securead.data.streaming",
    "read_readings": "securead.data.readings",
    "read_table": "securead.data.readers",
    "partition": "securead.data.partition",
    "hold_out": "securead.data.partition",
    "PrivacyPlan": "securead.privacy.plan",
    "AutoEncoder": "securead.models.autoencoder",
    "HistogramDetector": "securead.models.histogram",
    "IsolationForest": "securead.models.forest",
    "SubspaceDetector": "securead.models.subspace",
    "Costs": "securead.models.threshold",
    "FalseAlarms": "securead.models.threshold",
    "Bundle": "securead.models.bundle",
    "make_bundle": "securead.models.bundle",
    "load_bundle": "securead.models.bundle",
    "Site": "securead.federated.participant",
    "train": "securead.federated.embedded",
    "plan": "securead.planner.planning",
    "calibrate": "securead.bench.calibration",
    "serve": "securead.serving",
    "Client": "securead.client",
}
_RENAMED = {"make_bundle": "make", "load_bundle": "load"}

if TYPE_CHECKING:
    from securead.bench.calibration import calibrate as calibrate
    from securead.client import Client as Client
    from securead.data.partition import hold_out as hold_out
    from securead.data.partition import partition as partition
    from securead.data.readers import read_table as read_table
    from securead.data.readings import read_readings as read_readings
    from securead.data.schema import Column as Column
    from securead.data.schema import Schema as Schema
    from securead.data.streaming import StreamingEncoder as StreamingEncoder
    from securead.data.windows import LocalScale as LocalScale
    from securead.data.windows import Window as Window
    from securead.data.windows import WindowedSchema as WindowedSchema
    from securead.federated.embedded import train as train
    from securead.federated.participant import Site as Site
    from securead.models.autoencoder import AutoEncoder as AutoEncoder
    from securead.models.bundle import Bundle as Bundle
    from securead.models.bundle import load as load_bundle  # noqa: F401
    from securead.models.bundle import make as make_bundle  # noqa: F401
    from securead.models.forest import IsolationForest as IsolationForest
    from securead.models.histogram import HistogramDetector as HistogramDetector
    from securead.models.subspace import SubspaceDetector as SubspaceDetector
    from securead.models.threshold import Costs as Costs
    from securead.models.threshold import FalseAlarms as FalseAlarms
    from securead.planner.planning import plan as plan
    from securead.privacy.plan import PrivacyPlan as PrivacyPlan
    from securead.serving import serve as serve

__all__ = ["__version__", *sorted(_HOMES)]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'securead' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), _RENAMED.get(name, name))


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
