"""Public data sets that scikit-learn fetches, as tables of numbers; where they cannot be fetched, an error says so.

They go to scikit-learn's own cache (SCIKIT_LEARN_DATA). A column of text is left out rather than numbered.
"""

from __future__ import annotations

from collections.abc import Callable
from http.client import HTTPException
from typing import Any

import numpy as np

from securead.data.readers import Table
from securead.data.schema import Array
from securead.errors import FixInputError, InstallExtraError


def kddcup99() -> tuple[Table, str]:
    """KDD Cup 99, scikit-learn's subset SA of the tenth: attacks are anomalies. The table, and what was done to it."""
    from sklearn.datasets import fetch_kddcup99

    found = _fetched("kddcup99", lambda: fetch_kddcup99(subset="SA", percent10=True, n_retries=1, delay=0.1))
    X, columns, left_out = _numbers(np.asarray(found.data, dtype=object), [str(name) for name in found.feature_names])
    y = np.array([each != b"normal." for each in found.target], dtype=np.int8)
    return Table(X, columns, y, source="KDD Cup 99"), f"KDD Cup 99, subset SA of the tenth; {left_out}"


def openml(number: str) -> tuple[Table, str]:
    """A data set of openml.org by its number; its rarest class counts as anomalous."""
    from sklearn.datasets import fetch_openml

    if not number.isdecimal():
        raise FixInputError("a data set of OpenML is named by its number", value=number, remedy="As in openml:1597.")

    def fetch() -> Any:
        return fetch_openml(data_id=int(number), as_frame=False, parser="liac-arff", n_retries=1, delay=0.1)

    found = _fetched(f"openml:{number}", fetch)
    data = found.data.toarray() if hasattr(found.data, "toarray") else np.asarray(found.data, dtype=object)
    X, columns, left_out = _numbers(data, [str(name) for name in found.feature_names])
    note = f"OpenML {number}, {found.details.get('name', 'without a name')}; {left_out}"
    if found.target is None:
        return Table(X, columns, source=number), f"{note}; without labels"
    target = np.asarray(found.target).astype(str)
    classes, counts = np.unique(target, return_counts=True)
    rarest = classes[np.argmin(counts)]
    return Table(
        X, columns, (target == rarest).astype(np.int8), number
    ), f"{note}; class {rarest!r} counts as anomalous"


def _fetched(name: str, fetch: Callable[[], Any]) -> Any:
    try:
        return fetch()
    except ImportError as error:
        raise InstallExtraError(f"{name} needs {error.name}", remedy="Run: pip install 'securead[bench]'.") from error
    except (OSError, HTTPException, ValueError) as error:  # no internet, or no such data set
        raise FixInputError(
            f"the data set {name!r} could not be fetched: {type(error).__name__}: {str(error)[:120]}",
            remedy="It needs internet, or scikit-learn's cache of an earlier run.",
        ) from error


def _numbers(data: Array, names: list[str]) -> tuple[Array, tuple[str, ...], str]:
    """The columns that are of numbers, and how many are not."""
    kept, values = list[str](), list[Array]()
    for at, name in enumerate(names):
        try:
            values.append(data[:, at].astype(np.float64))
        except (ValueError, TypeError):
            continue
        kept.append(name)
    if not kept:
        raise FixInputError("no column is of numbers", value=names[:5])
    return np.column_stack(values), tuple(kept), f"{len(names) - len(kept)} columns of text are left out"
