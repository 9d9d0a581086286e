"""Three worlds, one assertion: float detector, integer program and encrypted run agree, on real data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from securead.data.partition import hold_out, partition
from securead.data.readers import read_table
from securead.data.schema import Schema
from securead.federated.embedded import Site, train
from securead.models.subspace import SubspaceDetector
from securead.privacy.plan import PrivacyPlan
from securead.program.polynomial import Program
from securead.protocols import registry
from securead.protocols.engine import Role


def encrypted_scores(program: Program, X: np.ndarray, role: Role, engine: str = "ckks") -> np.ndarray:
    """Scores `(n,)` by encryption, evaluation and decryption, chunk by chunk, with the halves an engine offers."""
    public = program.public
    plan = registry.plan_module(engine).make_plan(public, role)
    owner = registry.owner_module(engine)
    secret_key, public_key = owner.generate_keys(plan)
    encryptor = owner.make_encryptor(plan, secret_key if role == "same" else public_key)
    decryptor = owner.make_decryptor(plan, secret_key)
    evaluator = registry.blind_module(engine).make_evaluator(plan, program)
    Z, _ = public.encoder.encode(X)
    parts = []
    for start in range(0, len(Z), plan.rows_per_chunk):
        chunk = Z[start : start + plan.rows_per_chunk]
        scores = decryptor.decrypt(evaluator.evaluate(encryptor.encrypt(chunk)), len(chunk))
        parts.append(scores + public.decode(public.public_term(chunk)) if role == "same" else scores)
    return np.concatenate(parts)


@pytest.mark.data
@pytest.mark.parametrize("role", ["same", "split"])
@pytest.mark.parametrize("method", ["mahalanobis", "pca_residual"])
@pytest.mark.parametrize("name", ["creditcard_rounded", "6_cardio", "32_shuttle"])
def test_three_worlds_agree_on_real_data(data_folder: Path, name: str, method: str, role: Role) -> None:
    table = read_table(data_folder / f"{name}.npz")
    assert table.y is not None
    fit_rows, held = hold_out(len(table.X), table.y, 0.3, seed=0)
    schema = Schema.observed(table.X, table.columns, widen=0.2)
    sites = [
        Site(f"s{i}", table.X[fit_rows][rows]) for i, rows in enumerate(partition(len(fit_rows), (6, 3, 1), seed=1))
    ]
    detector = SubspaceDetector(method=method)
    train(detector, sites, schema, privacy=PrivacyPlan(epsilon=1.0, delta=1e-6))
    program = detector.compile()

    exact, integer = detector.anomaly_score(table.X[held]), program.score(table.X[held])
    encrypted = encrypted_scores(program, table.X[held], role)
    y = table.y[held]
    areas = [roc_auc_score(y, scores) for scores in (exact, integer, encrypted)]

    relative = np.abs(encrypted - integer) / np.maximum(np.abs(integer), program.public.tolerance)
    apart = (abs(areas[2] - areas[1]), abs(areas[1] - areas[0]), relative.max(), 1 - spearmanr(encrypted, integer)[0])
    assert np.less_equal(apart, (0.0005, 0.005, 1e-4, 1e-4)).all(), f"AUROC {areas}, apart by {apart}"
