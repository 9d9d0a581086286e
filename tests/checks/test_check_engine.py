"""The public suite runs over everything that is registered, and it can fail."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import securead.checks
from securead.checks.engine import check_payloads, check_roles, check_work, engine_checks
from securead.protocols import registry
from securead.protocols.bfv import plan as bfv_plan
from securead.protocols.ckks import blind, owner
from securead.protocols.engine import Work


@pytest.mark.parametrize(
    ("name", "check"),
    [
        pytest.param(name, check, id=f"{name}-{check.__name__}")
        for name in registry.engines()
        for check in engine_checks(name)
    ],
)
def test_registered_engine(name: str, check: Callable[[str], None]) -> None:
    check(name)


def test_suite_is_public() -> None:
    assert callable(securead.checks.check_engine)
    with pytest.raises(AttributeError):
        _ = securead.checks.check_nothing


def test_suite_notices_wrong_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = owner.Decryptor.decrypt

    def skewed(self: Any, answer: bytes, rows: int) -> np.ndarray:
        return honest(self, answer, rows) + 1.0

    monkeypatch.setattr(owner.Decryptor, "decrypt", skewed)
    with pytest.raises(AssertionError, match="error"):
        check_roles("ckks")


def test_suite_notices_accepted_garbage(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = blind.Evaluator.evaluate

    def tolerant(self: Any, request: bytes, key: Any = None) -> bytes:
        return honest(self, request, key) if len(request) > 1000 else b"anything"

    monkeypatch.setattr(blind.Evaluator, "evaluate", tolerant)
    with pytest.raises(AssertionError, match="bad request"):
        check_payloads("ckks")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"up_bytes": 7}, "7 bytes up"),
        ({"down_bytes": 7}, "7 bytes down"),
        ({"holder": {}}, "no work in the phase holder"),
        ({"client": lambda rows: {"request": 1 / rows}}, "less work for more records"),
        ({"server": lambda rows: {f"of {rows}": 1}}, "kinds of work depend on the number of records"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_suite_notices_wrong_counts_of_work(
    changes: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = bfv_plan.work

    def miscounted(plan: Any, public: Any, rows: int) -> Work:
        told = {name: change(rows) if callable(change) else change for name, change in changes.items()}
        return dataclasses.replace(honest(plan, public, rows), **told)

    monkeypatch.setattr(bfv_plan, "work", miscounted)
    with pytest.raises(AssertionError, match=words):
        check_work("bfv")
