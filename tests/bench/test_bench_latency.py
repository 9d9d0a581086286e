"""The latency benchmark: real services and clients, few records, and a report of the promised shape."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest


@pytest.fixture
def bench(root: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    return importlib.import_module("latency")


def test_records_lie_within_the_schema_and_its_limit(bench: ModuleType) -> None:
    program = bench.subspace()
    assert program.public.degree == 2
    assert len(program.public.encoder.schema.columns) == bench.COLUMNS
    X = bench.records(program, 50)
    _, outside = program.public.encoder.encode(X)
    assert X.shape == (50, bench.COLUMNS)
    assert not outside.any(), "nothing is clipped to its bounds"
    assert len(np.unique(program.score(X))) == 50


@pytest.mark.long
def test_measured_over_http_in_both_roles(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench, "PROGRAMS", {"subspace": bench.subspace})
    out = tmp_path / "latency.json"
    monkeypatch.setattr(
        sys,
        "argv",
        ["latency", "--rows", "3", "--batch-rows", "1", "--peer-rows", "0", "--only", "subspace", "--out", str(out)],
    )
    bench.main()
    report = json.loads(out.read_text())
    assert set(report["cases"]) == {
        f"subspace, {role}{engine}" for role in ("same", "split") for engine in ("", ", engine ckks")
    }
    same, batch = report["cases"]["subspace, same"], report["cases"]["subspace, same, engine ckks"]
    assert report["single_row_http_p95_ms"] >= same["p95_ms"] >= same["p50_ms"] > 0
    assert report["latency_key_bytes"] < 8_000_000
    assert same["largest_error"] <= same["error_bound"]
    assert same["up_bytes"] < batch["up_bytes"] / 5
    assert "autoencoder" not in json.dumps(report["cases"])
    assert "subspace, split" in capsys.readouterr().out
