"""The sharing benchmark: its peer computes the same network, and its report keeps its shape."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from securead.checks import programs

KEYS = {
    "square_ms",
    "relu_ms",
    "stock_square_ms",
    "stock_relu_ms",
    "spu_relu_ms",
    "online_bytes_per_row",
    "offline_bytes_per_row",
    "rounds",
    "max_error_8192",
    "recomputed_rate",
    "table_ms_1",
}


@pytest.fixture
def bench(root: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    return importlib.import_module("sharing")


@pytest.mark.parametrize(("units", "scale"), [("square", 0.25), ("relu", 1.0)])
def test_the_peers_network_is_the_programs(bench: ModuleType, units: str, scale: float) -> None:
    program = {"square": programs.square_network, "relu": programs.relu_network}[units](bench.WIDTHS)
    X = bench.records(program, 200)
    hidden = X
    *inner, last = programs.network_layers(bench.WIDTHS, scale)
    for weight, offset in inner:
        hidden = hidden @ weight.T + offset
        hidden = hidden**2 if units == "square" else np.maximum(hidden, 0)
    exact = ((X - hidden @ last[0].T - last[1]) ** 2).sum(axis=1)
    np.testing.assert_allclose(program.score(X), exact, atol=1e-3 * exact.mean())


def test_a_links_prediction_counts_rounds_and_half_of_both_directions(bench: ModuleType) -> None:
    figures = {"ms": {"1": 5.0}, "rounds": 10, "online_bytes": {"1": 2_500_000}}
    assert bench.predicted(figures, 1, "wan") == pytest.approx(5 + 11 * 20 + 100)


@pytest.mark.long
def test_quick_run_reports_every_figure(bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "sharing.json"
    monkeypatch.setattr("sys.argv", ["sharing.py", "--quick", "--out", str(out)])
    bench.main()
    report = json.loads(out.read_text())
    assert set(report) >= KEYS
    batches = list(map(str, bench.BATCHES))
    for name in ("square_ms", "relu_ms", "stock_square_ms", "stock_relu_ms"):
        assert list(report[name]) == batches
        assert all(value > 0 for value in report[name].values())
    assert report["max_error_8192"] <= 1e-3
    assert report["recomputed_rate"] <= 1e-3
    assert report["rounds"]["table"] == 1
