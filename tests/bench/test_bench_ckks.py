"""The CKKS benchmark: its peers compute the same score, and its report keeps its shape."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from securead.checks import programs

KEYS = [
    "server_us_per_row",
    "server_us_per_row_pool_ready",
    "tenseal_batch_us_per_row",
    "tenseal_row_us",
    "ratio_tenseal_batch",
    "ratio_tenseal_row",
    "upload_bytes_per_row",
    "download_bytes_per_row",
    "evaluation_key_bytes",
    "public_key_bytes",
    "client_encrypt_us_per_row",
    "auroc_delta_max",
    "spearman_min",
    "share",
]


@pytest.fixture
def bench(root: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    return importlib.import_module("ckks")


def test_the_peers_layers_are_the_programs_score(bench: ModuleType) -> None:
    program = programs.autoencoder()
    E, b, D, c = bench.layers_of(program)
    assert (E.shape, D.shape) == ((12, 29), (29, 12))
    Z = bench.records(program, 200)
    z = Z / 2.0**program.public.encoder.fraction_bits
    score = ((z - (z @ E.T + b) ** 2 @ D.T - c) ** 2).sum(axis=1)
    np.testing.assert_allclose(score, bench.exact_scores(program, Z), rtol=1e-9)


def test_a_peer_that_is_wrong_is_not_measured(bench: ModuleType) -> None:
    for wrong in (np.array([1.0, 2.2]), np.array([1.0, np.nan])):
        with pytest.raises(AssertionError, match="peer: off by"):
            bench.check_close("peer", wrong, np.array([1.0, 2.0]), 0.1)


@pytest.mark.parametrize("stages", [None, {"parse": 2.0}, lambda: {"parse": 2.0}], ids=["none", "mapping", "call"])
def test_stages_are_read_where_an_evaluator_tells_them(bench: ModuleType, stages: object) -> None:
    evaluator = SimpleNamespace() if stages is None else SimpleNamespace(stages=stages)
    told = bench.Engine.stages(SimpleNamespace(evaluator=evaluator))
    assert told == (None if stages is None else {"parse": 2.0})


@pytest.mark.long
def test_a_quick_run(bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out" / "ckks.json"
    monkeypatch.setattr("sys.argv", ["ckks.py", "--quick", "--out", str(out)])
    bench.main()
    report = json.loads(out.read_text())
    assert list(report) == KEYS
    assert report["server_us_per_row"] > 0
    assert report["ratio_tenseal_batch"] == pytest.approx(
        report["tenseal_batch_us_per_row"] / report["server_us_per_row"]
    )
    assert report["spearman_min"] > 1 - 1e-6
