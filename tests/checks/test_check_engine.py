"""The public suite runs over everything that is registered, and it can fail."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import securead.checks
from securead.checks.engine import check_payloads, check_roles, engine_checks
from securead.protocols import registry
from securead.protocols.ckks import blind, owner


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
