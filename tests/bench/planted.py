"""Engines that are broken on purpose, each in one way, around the engine bfv; for the suite's own checks to catch."""

from __future__ import annotations

import os
import secrets
import tempfile
from dataclasses import dataclass, fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from securead.protocols import registry
from securead.protocols.bfv import blind, owner, plan
from securead.protocols.engine import EngineSpec

HALVES = ("plan", "owner", "blind")


class _Around:
    """Everything of what it is around, but for what a subclass replaces."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def _encrypting(kind: type[_Around]) -> dict[str, Any]:
    return {"make_encryptor": lambda made, key: kind(owner.make_encryptor(made, key))}


def _evaluating(kind: type[_Around]) -> dict[str, Any]:
    return {"make_evaluator": lambda made, program: kind(blind.make_evaluator(made, program))}


class _TwiceTheScore(_Around):
    def decrypt(self, answer: bytes, rows: int) -> np.ndarray:
        return 2.0 * self._inner.decrypt(answer, rows)


class _SlightlyOff(_Around):
    def decrypt(self, answer: bytes, rows: int) -> np.ndarray:
        return (1 + 1e-7) * self._inner.decrypt(answer, rows)


class _PositionsBeside(_Around):
    def encrypt(self, queries: np.ndarray) -> bytes:
        return self._inner.encrypt(queries) + queries.astype("<i4").tobytes()


class _PositionsScrambled(_Around):
    def encrypt(self, queries: np.ndarray) -> bytes:
        return self._inner.encrypt(queries) + bytes(byte ^ 0x5A for byte in queries.astype(np.uint8).tobytes())


class _Cut(_Around):
    """Takes off what the encryptor put at the end."""

    width = 4

    def evaluate(self, request: bytes, key: Any = None, *, rows: int | None = None) -> bytes:
        extra = (rows or 0) * 5 * self.width  # a sample program has five tables
        return self._inner.evaluate(request[: len(request) - extra], key, rows=rows)


class _CutBytes(_Cut):
    width = 1


class _NoEncryption(_Around):
    """Nothing is encrypted: the request is the positions in some order, and so the answer is the score."""

    def encrypt(self, queries: np.ndarray) -> bytes:
        return os.urandom(64) + queries.astype(np.uint8).tobytes()


class _InTheClear(_Around):
    def evaluate(self, request: bytes, key: Any = None, *, rows: int | None = None) -> bytes:
        positions = np.frombuffer(request[64:], np.uint8).reshape(rows or 1, -1)
        tables = self._inner.planted
        scores = sum(table[at] for table, at in zip(tables, positions.T, strict=True))
        return os.urandom(64) + np.asarray(scores, dtype=np.float64).tobytes()


class _ReadsIt(_Around):
    def __init__(self, inner: Any, made: Any) -> None:
        super().__init__(inner)
        self._unit = made.unit

    def decrypt(self, answer: bytes, rows: int) -> np.ndarray:
        return np.frombuffer(answer[64:]) * self._unit


def _in_the_clear(made: Any, program: Any) -> _InTheClear:
    inner = SimpleNamespace(planted=program.secret.tables)
    return _InTheClear(inner)


class _ByFile(_Around):
    """The request is a file's name; the ciphertext goes through the file."""

    def encrypt(self, queries: np.ndarray) -> bytes:
        with tempfile.NamedTemporaryFile(delete=False) as file:
            file.write(self._inner.encrypt(queries))
        return f"{file.name:100}".encode()


class _FromFile(_Around):
    def evaluate(self, request: bytes, key: Any = None, *, rows: int | None = None) -> bytes:
        return self._inner.evaluate(Path(request.decode().strip()).read_bytes(), key, rows=rows)


@dataclass(frozen=True)
class _SaysLess(plan.BfvPlan):
    """A plan that owns up to half of what a request takes."""

    @property
    def max_request_bytes(self) -> int:  # type: ignore[override]
        return self.request_bytes(1) // 2

    @classmethod
    def of(cls, public: Any, role: Any) -> _SaysLess:
        made = plan.make_plan(public, role)
        return cls(**{field.name: getattr(made, field.name) for field in fields(made)})


class _Unmasked(_Around):
    """Answers without a mask, or with the flood alone, which c1 does not have."""

    flooded = False

    def __init__(self, inner: Any) -> None:
        super().__init__(inner)

        def sanitise(total: Any, mask: Any) -> None:
            if self.flooded:
                from securead.protocols.bfv.sanitise import Masks

                inner._evaluator.add_inplace(total, Masks.flood(self._masks))

        inner._sanitise = sanitise

    def evaluate(self, request: bytes, key: Any = None, *, rows: int | None = None) -> bytes:
        self._masks = key._masks._make.__self__ if self.flooded else None
        return self._inner.evaluate(request, key, rows=rows)


class _FloodAlone(_Unmasked):
    flooded = True


class _MaskAlone(_Around):
    """Masks without a flood: fresh answers, whose noise tells of the tables."""

    narrower = 0

    def evaluate(self, request: bytes, key: Any = None, *, rows: int | None = None) -> bytes:
        masks = key._masks._make.__self__
        bits = masks._plan.flood_bits

        def draw(count: int) -> np.ndarray:
            low = 1 << (bits - self.narrower) if self.narrower else 1
            values = [secrets.randbelow(2 * low) - low for _ in range(count)]
            return np.array([[value % prime for value in values] for prime in masks._plan.data_primes], dtype=np.uint64)

        masks._draw = draw
        return self._inner.evaluate(request, key, rows=rows)


class _HalfAFlood(_MaskAlone):
    narrower = 1


class _OldMask(_Around):
    """One mask for all answers."""

    def evaluate(self, request: bytes, key: Any = None, *, rows: int | None = None) -> bytes:
        fresh, key.mask = key.mask, lambda: self._mask
        if not hasattr(self, "_mask"):
            self._mask = fresh()
        try:
            return self._inner.evaluate(request, key, rows=rows)
        finally:
            del key.mask


# By name: what replaces the parts of each half, and the beginning of what is found.
PLANTED: dict[str, tuple[dict[str, dict[str, Any]], str]] = {
    "honest": ({}, ""),
    "twice-the-score": (
        {"owner": {"make_decryptor": lambda made, key: _TwiceTheScore(owner.make_decryptor(made, key))}},
        "scores: off by",
    ),
    "slightly-off": (
        {"owner": {"make_decryptor": lambda made, key: _SlightlyOff(owner.make_decryptor(made, key))}},
        "scores: off by",
    ),
    "positions-beside": ({"owner": _encrypting(_PositionsBeside), "blind": _evaluating(_Cut)}, "requests: "),
    "positions-scrambled": ({"owner": _encrypting(_PositionsScrambled), "blind": _evaluating(_CutBytes)}, "requests: "),
    "no-encryption": (
        {
            "owner": {
                **_encrypting(_NoEncryption),
                "make_decryptor": lambda made, key: _ReadsIt(owner.make_decryptor(made, key), made),
            },
            "blind": {"make_evaluator": _in_the_clear},
        },
        "answers: another key opens them",
    ),
    "through-a-file": ({"owner": _encrypting(_ByFile), "blind": _evaluating(_FromFile)}, "bytes: "),
    "says-less": ({"plan": {"make_plan": _SaysLess.of}}, "bytes: "),
    "not-sanitised": ({"blind": _evaluating(_Unmasked)}, "answers: "),
    "flood-alone": ({"blind": _evaluating(_FloodAlone)}, "answers: "),
    "mask-alone": ({"blind": _evaluating(_MaskAlone)}, "answers: the flood that the plan promises is not there"),
    "half-a-flood": ({"blind": _evaluating(_HalfAFlood)}, "answers: the flood that the plan promises is not there"),
    "old-mask": ({"blind": _evaluating(_OldMask)}, "answers: "),
}


def half(name: str, which: str) -> dict[str, Any]:
    """The names of a broken engine's module."""
    honest = {"plan": plan, "owner": owner, "blind": blind}[which]
    return {**vars(honest), **PLANTED[name][0].get(which, {})}


def install(monkeypatch: pytest.MonkeyPatch, folder: Path, name: str) -> None:
    """Register a broken engine for one test, in this process and in those that it starts."""
    package = "planted_" + name.replace("-", "_")
    (folder / package).mkdir()
    (folder / package / "__init__.py").touch()
    for which in HALVES:
        (folder / package / f"{which}.py").write_text(
            f"import planted\nglobals().update({{k: v for k, v in planted.half({name!r}, {which!r}).items() "
            "if not k.startswith('__')})\n"
        )
    monkeypatch.syspath_prepend(str(folder))
    places = [str(folder), str(Path(__file__).parent), os.environ.get("PYTHONPATH")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, places)))
    spec = EngineSpec(name, package, ("same", "split"), ("lookup",), "bfv", "broken on purpose", sanitised=True)
    monkeypatch.setattr(registry, "engines", lambda: {name: spec})
