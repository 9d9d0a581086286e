"""Public conformance suites: run them over your own detector, engine or executor before your first test.

Each suite loads only when it is asked for, so checking an engine needs no training package.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from securead.checks.detector import check_detector
    from securead.checks.engine import check_engine
    from securead.checks.executor import check_equivalence, check_executor

__all__ = ["check_detector", "check_engine", "check_equivalence", "check_executor"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    room = "executor" if name == "check_equivalence" else name.removeprefix("check_")
    return getattr(importlib.import_module(f"{__name__}.{room}"), name)
