"""Peers: the protocol of their scripts, the models that they are given, and what is said where nothing is measured."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from securead.bench import fitting, peers
from securead.bench.datasets import NamedData, load
from securead.bench.records import Case, Record
from securead.errors import FixConfigurationError, InstallExtraError

ROWS = 24


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder with a data set of four columns, whose anomalies lie far out."""
    rng = np.random.default_rng(0)
    y = np.zeros(400, dtype=int)
    y[:40] = 1
    X = rng.normal(size=(400, 4)) @ rng.normal(size=(4, 4))
    X[y == 1] *= 6
    np.savez(tmp_path / "small.npz", X=X, y=y)
    return tmp_path


def case_of(peer: str, detector: str = "subspace", engine: str = "ckks", **parameters: Any) -> Case:
    return Case(
        "t", "peer", "small", detector, tuple(parameters.items()), engine=engine, role="same", peer=peer, rows=ROWS
    )


def measured(peer: str, folder: Path, *arguments: str, **parameters: Any) -> Record:
    found = peers.peer(case_of(peer, *arguments, **parameters), folder, {})
    assert found.failures == ()
    assert all(timing.wall_seconds_per_row or timing.wall_seconds_once for timing in found.timings)
    assert all(sent.bytes_per_row or sent.bytes_once for sent in found.traffic)
    return found


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, root: Path) -> Callable[[str], Path]:
    """Has the peer "sklearn" run this text instead."""

    def put(text: str) -> Path:
        folder = tmp_path / "scripts"
        folder.mkdir()
        exchange = (root / "benchmarks" / "peers" / "exchange.py").read_text()
        (folder / "exchange.py").write_text(exchange)
        (folder / "in_the_clear.py").write_text(text)
        monkeypatch.setattr(peers, "scripts_folder", lambda: folder)
        return folder

    return put


ECHO = """
from exchange import asked
exchange = asked()
X = exchange.arrays["X"]
for _ in range(3):
    scores = exchange.time("server", "score", lambda: X[:, 0] ** 2, rows=len(X))
exchange.sent("client", "server", "records", 80 * len(X), rows=len(X))
exchange.sent("client", "server", "keys", 7)
exchange.facts["threshold"] = 4.0
exchange.notes.append("an echo in " + exchange.order["detector"])
exchange.answer(scores, "numpy")
"""


def test_what_a_script_says_is_what_is_recorded(small: Path, script: Callable[[str], Path]) -> None:
    script(ECHO)
    found = measured("sklearn", small)
    (timing,) = found.timings
    assert (timing.role, timing.phase, timing.offline) == ("server", "score", False)
    assert timing.cpu_seconds_per_row is not None
    assert timing.cpu_seconds_per_row.repeats == 3
    assert [(sent.what, sent.bytes_per_row, sent.bytes_once) for sent in found.traffic] == [
        ("records", 80.0, None),
        ("keys", None, 7),
    ]
    assert found.notes[-1] == "an echo in subspace"
    assert found.rows == ROWS
    assert dict(found.provenance.versions)["numpy"] == np.__version__
    assert dict(found.peak_bytes)["peer"] > 1 << 20
    data = load("small", small, rows=ROWS)
    assert found.accuracy.false_alarms == np.mean(data.X_held[data.y_held == 0, 0] ** 2 > 4.0)


def test_a_script_that_refuses_says_why(small: Path, script: Callable[[str], Path]) -> None:
    script("from exchange import asked\nasked().refuse('no counterpart')\n")
    with pytest.raises(FixConfigurationError, match="not measured here: no counterpart"):
        measured("sklearn", small)


@pytest.mark.parametrize("text", ["raise ValueError('no luck')\n", "import os\nos._exit(9)\n", "pass\n"])
def test_a_script_that_fails_leaves_no_number(small: Path, script: Callable[[str], Path], text: str) -> None:
    script(text)
    found = peers.peer(case_of("sklearn"), small, {})
    assert "in_the_clear.py failed" in found.failures[0]
    assert (found.timings, found.accuracy.auroc, found.rows) == ((), None, 0)


def test_scores_that_are_no_numbers_are_a_failure(small: Path, script: Callable[[str], Path]) -> None:
    script(ECHO.replace("X[:, 0] ** 2", "X[:, 0] * float('nan')"))
    found = peers.peer(case_of("sklearn"), small, {})
    assert "not all finite" in found.failures[0]
    assert found.timings == ()


def test_what_is_not_here_says_so(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for peer in ("concrete-ml", "spu"):
        with pytest.raises(FixConfigurationError, match=f"not measured here: {peer} needs an environment of its own"):
            peers.peer(case_of(peer), small, {})
    with pytest.raises(FixConfigurationError, match="names no Python"):
        peers.peer(case_of("spu"), small, {"spu": small})
    with pytest.raises(FixConfigurationError, match="no peer has this name"):
        peers.peer(case_of("oracle"), small, {})
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InstallExtraError, match="tenseal is not installed"):
        peers.peer(case_of("tenseal"), small, {})


def test_an_environment_of_its_own_is_used(small: Path, script: Callable[[str], Path]) -> None:
    """An interpreter, or the folder of its environment; without our own Python's variables."""
    script(ECHO)
    environment = small / "environment"
    (environment / "bin").mkdir(parents=True)
    python = environment / "bin" / "python"
    python.write_text(f'#!/bin/sh\necho "$PYTHONPATH" > "{small}/used"\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    for given in (environment, python):
        assert peers.peer(case_of("sklearn"), small, {"sklearn": given}).rows == ROWS
    assert (small / "used").read_text().strip() == ""


@pytest.mark.parametrize(
    ("detector", "parameters"),
    [
        ("subspace-mahalanobis", {}),
        ("subspace-pca-residual", {"components": 1}),
        ("autoencoder", {"rounds": 1, "hidden": 3}),
        ("autoencoder", {"rounds": 1, "hidden": 3, "units": "linear_and_square"}),
        ("histogram", {}),
    ],
)
def test_the_model_that_is_given_scores_as_ours(small: Path, detector: str, parameters: dict[str, Any]) -> None:
    """What the arrays say, computed here, is what the float model says, or the integer program where it has tables."""
    case = case_of("tenseal", detector, "clear", **parameters)
    data = load("small", small, rows=ROWS)
    task = peers._model_task(case, data)
    scores = computed(task)
    assert task.floats is not None
    assert task.integer is not None
    exact = task.integer if task.form == "tables" else task.floats
    # Records are rounded to the encoder's grid.
    np.testing.assert_allclose(scores, exact, rtol=0.01, atol=1e-2)
    assert task.threshold == fitting.fit(case, data).threshold
    json.dumps(task.order)


def computed(task: peers.Task) -> np.ndarray:
    arrays = task.arrays
    if task.form == "tables":
        starts = np.append(0, np.cumsum(arrays["sizes"])[:-1])
        return np.asarray(arrays["tables"][arrays["positions"] + starts].sum(axis=1))
    Z = arrays["Z"]
    if task.form == "quadratic":
        return np.asarray(((Z @ arrays["A"].T + arrays["b"]) ** 2).sum(axis=1))
    hidden = Z @ arrays["w0"].T + arrays["b0"]
    linear = (hidden.shape[1] + 1) // 2
    hidden = np.hstack([hidden[:, :linear], hidden[:, linear:] ** 2])
    return np.asarray(((Z - hidden @ arrays["w1"].T - arrays["b1"]) ** 2).sum(axis=1))


def test_rows_are_those_of_our_own_case(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[NamedData] = []

    def stop(case: Case, named: NamedData) -> peers.Task:
        given.append(named)
        raise FixConfigurationError("enough")

    monkeypatch.setattr(peers, "_clear_task", stop)
    with pytest.raises(FixConfigurationError, match="enough"):
        peers.peer(case_of("sklearn"), small, {})
    np.testing.assert_array_equal(given[0].X_held, load("small", small, rows=ROWS).X_held)


# --- scripts of packages that are not here, on make-believe ones: their own logic, not the packages' ------------------

STUBS = {
    "jax/__init__.py": "",
    "jax/numpy.py": "from numpy import *",
    "spu/__init__.py": "",
    "spu/libspu.py": "class ProtocolKind: SEMI2K = 1\nclass FieldType: FM64 = 3\n",
    "spu/utils/__init__.py": "",
    "spu/utils/simulation.py": """
class Simulator:
    simple = staticmethod(lambda parties, protocol, field: (parties, protocol, field))
def sim_jax(simulator, function):
    assert simulator == (2, 1, 3)
    return function
""",
    "spu-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: spu\nVersion: 1\n",
    "concrete/ml/torch/compile.py": """
def compile_torch_model(module, inputs, n_bits, rounding_threshold_bits):
    import torch
    return lambda Z: module(torch.tensor(Z)).detach().numpy()
""",
    "concrete/ml/deployment.py": """
import numpy as np
MODELS = {}
class FHEModelDev:
    def __init__(self, path_dir, model): self.path, self.model = path_dir, model
    def save(self): MODELS[self.path] = self.model
class FHEModelClient:
    def __init__(self, path_dir, key_dir): pass
    def generate_private_and_evaluation_keys(self): pass
    def get_serialized_evaluation_keys(self): return b"keys"
    def quantize_encrypt_serialize(self, Z): return Z.tobytes()
    def deserialize_decrypt_dequantize(self, answer): return np.frombuffer(answer, dtype=np.float32)
class FHEModelServer:
    def __init__(self, path_dir): self.path = path_dir
    def load(self): self.model = MODELS[self.path]
    def run(self, request, keys):
        assert keys == b"keys"
        return self.model(np.frombuffer(request, dtype=np.float32)[None, :]).tobytes()
""",
    "concrete_ml-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: concrete-ml\nVersion: 1\n",
}


@pytest.mark.parametrize("peer", ["spu", "concrete-ml"])
@pytest.mark.parametrize(("detector", "parameters"), [("subspace", {}), ("autoencoder", {"rounds": 1, "hidden": 3})])
def test_scripts_of_absent_packages(small: Path, peer: str, detector: str, parameters: dict[str, Any]) -> None:
    for name, content in STUBS.items():
        path = small / "stubs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    python = small / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{small}/stubs" exec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    found = peers.peer(case_of(peer, detector, "clear", **parameters), small, {peer: python})
    assert found.failures == ()
    assert (found.fidelity.max_error_to_float or 0.0) < 0.01
    assert dict(found.provenance.versions)[peer] == "1"


# --- the scripts that can run here ------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("peer", ["sklearn", "pyod"])
@pytest.mark.parametrize("detector", ["forest", "subspace", "subspace-pca-residual", "autoencoder", "histogram"])
def test_detectors_in_the_clear_tell_anomalies(small: Path, peer: str, detector: str) -> None:
    if (peer, detector) == ("sklearn", "histogram"):
        with pytest.raises(FixConfigurationError, match="no counterpart"):
            measured(peer, small, detector, "clear")
        return
    accuracy = measured(peer, small, detector, "clear").accuracy
    assert (accuracy.auroc or 0.0) > 0.7
    assert accuracy.false_alarms is not None


@pytest.mark.long
@pytest.mark.parametrize(
    ("peer", "detector", "engine", "parameters"),
    [
        ("tenseal", "subspace", "ckks", {}),
        ("tenseal", "autoencoder", "ckks", {"rounds": 1, "hidden": 3}),
        ("crypten", "subspace", "sharing", {}),
        ("crypten", "autoencoder", "sharing", {"rounds": 1, "hidden": 3, "units": "relu"}),
        ("crypten", "autoencoder", "sharing", {"rounds": 1, "hidden": 3}),
        ("phe", "subspace", "ckks", {}),
        ("phe", "forest", "bfv", {"n_estimators": 2, "depth": 2}),
    ],
)
def test_encrypted_peers_compute_our_score(
    small: Path, peer: str, detector: str, engine: str, parameters: dict[str, Any]
) -> None:
    found = measured(peer, small, detector, engine, **parameters)
    accuracy = found.accuracy
    assert (found.fidelity.max_error_to_integer or 0.0) < 0.05
    assert (found.fidelity.rank_correlation_to_integer or 0.0) > 0.99
    assert found.fidelity.auroc_of_scores == accuracy.auroc
    assert found.provenance.program
    if peer == "phe":  # the first records alone are no sample of the classes
        assert 3 <= found.rows <= ROWS
        assert (accuracy.auroc is None) == (found.rows < ROWS)
    else:
        assert accuracy.auroc == pytest.approx(accuracy.auroc_float, abs=0.02)
        assert found.traffic


@pytest.mark.long
@pytest.mark.parametrize(("peer", "detector"), [("tenseal", "forest"), ("crypten", "forest"), ("phe", "autoencoder")])
def test_what_a_library_cannot_do_it_says(small: Path, peer: str, detector: str) -> None:
    with pytest.raises(FixConfigurationError, match="not measured here"):
        measured(peer, small, detector, "clear", **({"rounds": 1} if detector == "autoencoder" else {}))
