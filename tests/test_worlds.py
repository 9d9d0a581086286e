"""Three worlds, one assertion: float detector, integer program and encrypted run agree, on real data."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from securead.data.partition import hold_out, partition
from securead.data.readers import read_table
from securead.data.schema import Schema
from securead.federated.embedded import train
from securead.federated.participant import Site
from securead.models.estimator import AnomalyDetector
from securead.models.forest import IsolationForest
from securead.models.histogram import HistogramDetector
from securead.models.subspace import SubspaceDetector
from securead.privacy.plan import PrivacyPlan
from securead.program.program import Program
from securead.protocols import registry, setup
from securead.protocols.choice import choose
from securead.protocols.engine import Role


def encrypted_scores(program: Program, X: np.ndarray, role: Role, engine: str | None = None) -> np.ndarray:
    """Scores `(n,)` by encryption, evaluation and decryption, chunk by chunk, with the halves an engine offers."""
    public = program.public
    engine = choose(public, role, engine=engine).name
    plan = registry.plan_module(engine).make_plan(public, role)
    owner, blind = registry.owner_module(engine), registry.blind_module(engine)
    secret_key, public_key = owner.generate_keys(plan)
    made = setup.make_setup(plan, program)
    encryptor = setup.make_encryptor(plan, secret_key if role == "same" else public_key, made and made.published)
    decryptor = owner.make_decryptor(plan, secret_key)
    evaluator = setup.make_evaluator(plan, program, made and made.secret)
    key = blind.read_evaluation_key(plan, public_key.to_bytes()) if plan.evaluation_key_bytes else None
    Z, _ = public.encoder.encode(X)
    parts = []
    for start in range(0, len(Z), plan.rows_per_chunk):
        chunk = Z[start : start + plan.rows_per_chunk]
        answer = evaluator.evaluate(encryptor.encrypt(public.queries(chunk)), key)
        scores = decryptor.decrypt(answer, len(chunk))
        parts.append(scores + public.decode(public.public_term(chunk)) if role == "same" else scores)
    return np.concatenate(parts)


DETECTORS = {
    "mahalanobis": lambda: SubspaceDetector(method="mahalanobis"),
    "pca_residual": lambda: SubspaceDetector(method="pca_residual"),
    "forest": lambda: IsolationForest(threshold="model"),
    "hyperplanes": lambda: IsolationForest(threshold="model", extension=1, max_features=None),
    "histogram": lambda: HistogramDetector(threshold="model"),
}


@dataclass(frozen=True, eq=False)
class Clear:
    """Held-out records with their labels, and their scores in the two worlds without encryption."""

    X: np.ndarray
    y: np.ndarray
    program: Program
    exact: np.ndarray
    integer: np.ndarray


@lru_cache(maxsize=1)  # the roles, which vary fastest, differ in the third world only
def trained(name: str, kind: str, folder: Path) -> Clear:
    """A detector, trained privately among three uneven sites, and what it says of the held-out records."""
    detector: AnomalyDetector = DETECTORS[kind]()
    table = read_table(folder / f"{name}.npz")
    assert table.y is not None
    fit_rows, held = hold_out(len(table.X), table.y, 0.3, seed=0)
    schema = Schema.observed(table.X, table.columns, widen=0.2)
    sites = [
        Site(f"s{i}", table.X[fit_rows][rows]) for i, rows in enumerate(partition(len(fit_rows), (6, 3, 1), seed=1))
    ]
    train(detector, sites, schema, privacy=PrivacyPlan(epsilon=1.0, delta=1e-6))
    program, X = detector.compile(), table.X[held]
    return Clear(X, table.y[held], program, detector.anomaly_score(X), program.score(X))


@pytest.mark.data
@pytest.mark.parametrize("role", ["same", "split"])
@pytest.mark.parametrize("method", ["mahalanobis", "pca_residual"])
@pytest.mark.parametrize("name", ["creditcard_rounded", "6_cardio", "32_shuttle"])
def test_three_worlds_agree_on_real_data(data_folder: Path, name: str, method: str, role: Role) -> None:
    clear = trained(name, method, data_folder)
    integer, tolerance = clear.integer, clear.program.public.tolerance
    encrypted = encrypted_scores(clear.program, clear.X, role)
    areas = [roc_auc_score(clear.y, scores) for scores in (clear.exact, integer, encrypted)]

    relative = np.abs(encrypted - integer) / np.maximum(np.abs(integer), tolerance)
    apart = (abs(areas[2] - areas[1]), abs(areas[1] - areas[0]), relative.max(), 1 - spearmanr(encrypted, integer)[0])
    assert np.less_equal(apart, (0.0005, 0.005, 1e-4, 1e-4)).all(), f"AUROC {areas}, apart by {apart}"


@pytest.mark.data
@pytest.mark.parametrize("role", ["same", "split"])
@pytest.mark.parametrize("method", ["mahalanobis", "pca_residual"])
@pytest.mark.parametrize("name", ["creditcard_rounded", "6_cardio", "32_shuttle"])
def test_three_worlds_agree_a_few_records_at_a_time(data_folder: Path, name: str, method: str, role: Role) -> None:
    """The engine of low latency on some anomalies and others: the same scores, in the same order."""
    clear = trained(name, method, data_folder)
    some = np.concatenate([np.flatnonzero(clear.y == 1)[:20], np.flatnonzero(clear.y == 0)[:60]])
    integer, tolerance = clear.integer[some], clear.program.public.tolerance
    encrypted = encrypted_scores(clear.program, clear.X[some], role, "ckks-row")
    areas = [roc_auc_score(clear.y[some], scores) for scores in (integer, encrypted)]
    relative = np.abs(encrypted - integer) / np.maximum(np.abs(integer), tolerance)
    apart = (abs(areas[1] - areas[0]), relative.max(), 1 - spearmanr(encrypted, integer)[0])
    assert np.less_equal(apart, (0.0005, 1e-4, 1e-4)).all(), f"AUROC {areas}, apart by {apart}"


@pytest.mark.data
@pytest.mark.parametrize("role", ["same", "split"])
@pytest.mark.parametrize("kind", ["forest", "histogram", "hyperplanes"])
@pytest.mark.parametrize("name", ["creditcard_rounded", "6_cardio", "32_shuttle"])
def test_three_worlds_of_tables_agree_on_real_data(data_folder: Path, name: str, kind: str, role: Role) -> None:
    """Encrypted look-ups are exact; the integer program is off by the rounding of its entries and no more."""
    clear = trained(name, kind, data_folder)
    X, y, program, integer = clear.X, clear.y, clear.program, clear.integer
    assert np.abs(integer - clear.exact).max() <= program.public.tolerance
    assert abs(roc_auc_score(y, integer) - roc_auc_score(y, clear.exact)) <= 0.005

    some = np.concatenate([np.flatnonzero(y == 1)[:20], np.flatnonzero(y == 0)[:60]])
    assert np.array_equal(encrypted_scores(program, X[some], role), integer[some])
