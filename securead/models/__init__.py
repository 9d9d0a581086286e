"""Detectors. Imports of what others have fitted are reachable here; they are loaded when first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOMES = {
    "from_sklearn": "securead.models.imported.scikit",
    "from_torch": "securead.models.imported.pytorch",
    "from_pyod": "securead.models.imported.pyod_detectors",
    "Square": "securead.models.imported.pytorch",
}

if TYPE_CHECKING:
    from securead.models.imported.pyod_detectors import from_pyod as from_pyod
    from securead.models.imported.pytorch import Square as Square
    from securead.models.imported.pytorch import from_torch as from_torch
    from securead.models.imported.scikit import from_sklearn as from_sklearn

__all__ = ["Square", "from_pyod", "from_sklearn", "from_torch"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'securead.models' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)
