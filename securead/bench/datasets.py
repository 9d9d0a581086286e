"""The demonstration's data: the user's file, the real payments data where it is, else scikit-learn's bundled set."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from securead.data.readers import Table, read_table
from securead.errors import FixInputError

PAYMENTS_FILE = "creditcard_rounded.npz"
# The bundled set is 37 % malignant; an anomaly detector expects anomalies to be rare.
_BUNDLED_ANOMALIES = 20


@dataclass(frozen=True, eq=False)
class DemoData:
    """A table, what to call it, why it was chosen, and the zoo recipe that declares its schema (if one does)."""

    table: Table
    name: str
    why: str
    recipe: str | None = None


def demo_data(path: Path | None, label: str | None) -> DemoData:
    """`path` if given, else `$SECUREAD_DATA/creditcard_rounded.npz` if present, else scikit-learn's bundled set."""
    if path is not None:
        table = read_table(path, label=label)
        if len(table.X) < 60:
            raise FixInputError(f"{path} is too small to split among three banks", value=len(table.X))
        return DemoData(table, path.stem, f"your file {path.name}")
    folder = os.environ.get("SECUREAD_DATA")
    if folder and (Path(folder) / PAYMENTS_FILE).is_file():
        table = read_table(Path(folder) / PAYMENTS_FILE)
        return DemoData(
            table,
            "creditcard",
            f"{PAYMENTS_FILE} from SECUREAD_DATA: European card payments, September 2013 (ULB)",
            "payments_subspace",
        )
    return _breast_cancer("SECUREAD_DATA names no folder with " + PAYMENTS_FILE)


def _breast_cancer(because: str) -> DemoData:
    from sklearn.datasets import load_breast_cancer

    bunch = load_breast_cancer()
    y = (bunch.target == 0).astype(np.int8)
    rare = np.random.default_rng(0).choice(np.flatnonzero(y), _BUNDLED_ANOMALIES, replace=False)
    kept = np.sort(np.concatenate([np.flatnonzero(y == 0), rare]))
    columns = tuple(name.replace(" ", "_") for name in bunch.feature_names)
    table = Table(bunch.data[kept], columns, y[kept], source="scikit-learn")
    return DemoData(
        table,
        "breast-cancer",
        f"scikit-learn's bundled breast-cancer set, all benign and {_BUNDLED_ANOMALIES} malignant cases ({because})",
    )
