"""Records as an imported detector sees them: scalers folded into one map a column, and a schema with public bounds."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn import preprocessing

from securead.data.schema import Array, Column, Schema
from securead.errors import FixConfigurationError, FixInputError

_SCALERS = "StandardScaler, MinMaxScaler, MaxAbsScaler and RobustScaler"


@dataclass(frozen=True, eq=False)
class Scaling:
    """x' = (clip(x, lower, upper) - center) / scale, all four float64 `(width,)`; scales are positive."""

    center: Array
    scale: Array
    lower: Array
    upper: Array

    @classmethod
    def none(cls, width: int) -> Scaling:
        """Records as they are."""
        return cls(np.zeros(width), np.ones(width), np.full(width, -np.inf), np.full(width, np.inf))

    @classmethod
    def of(cls, steps: list[Any], width: int) -> Scaling:
        """Fitted scalers of scikit-learn, one after the other; anything else is refused."""
        scaling = cls.none(width)
        for step in steps:
            if step is not None and step != "passthrough":
                scaling = scaling._then(*_read(step, width))
        return scaling

    def apply(self, X: Array) -> Array:
        """What the original's own model is given, for raw records `(n, width)`."""
        scaled: Array = (np.clip(X, self.lower, self.upper) - self.center) / self.scale
        return scaled

    def _then(self, center: Array, scale: Array, lower: Array, upper: Array) -> Scaling:
        return Scaling(
            self.center + self.scale * center,
            self.scale * scale,
            np.maximum(self.lower, self.center + self.scale * lower),
            np.minimum(self.upper, self.center + self.scale * upper),
        )


def _read(step: Any, width: int) -> tuple[Array, Array, Array, Array]:
    """Centre, scale and clip of one scaler, in its own input's unit."""
    name, kind = type(step).__name__, type(step)
    if kind not in (
        preprocessing.StandardScaler,
        preprocessing.MinMaxScaler,
        preprocessing.MaxAbsScaler,
        preprocessing.RobustScaler,
    ):
        raise FixInputError(
            f"a step in front of the detector changes columns in a way that cannot be folded in: {name}",
            remedy=f"Fit behind {_SCALERS} only; transform records before they are handed over, and declare the "
            "transformed columns in the schema.",
        )
    if getattr(step, "n_features_in_", None) != width:
        raise FixInputError(
            f"{name} is not fitted on the detector's {width} columns", value=getattr(step, "n_features_in_", None)
        )
    lower, upper = np.full(width, -np.inf), np.full(width, np.inf)
    scale = np.ones(width) if step.scale_ is None else np.asarray(step.scale_, dtype=float)
    if kind is preprocessing.MinMaxScaler:
        center, scale = -np.asarray(step.min_) / scale, 1 / scale
        if step.clip:
            low, high = step.feature_range
            lower, upper = center + scale * low, center + scale * high
        return center, scale, lower, upper
    if kind is preprocessing.MaxAbsScaler:
        return np.zeros(width), scale, *((-scale, scale) if getattr(step, "clip", False) else (lower, upper))
    found = step.mean_ if kind is preprocessing.StandardScaler and step.with_mean else getattr(step, "center_", None)
    return np.zeros(width) if found is None else np.asarray(found, dtype=float), scale, lower, upper


@dataclass(frozen=True, eq=False)
class Given:
    """What the caller of an import hands over beside the original: all of it optional, as `from_sklearn` explains."""

    schema: Schema | None = None
    X: Any = None
    threshold: float | None = None
    contamination: float | None = None

    def records(self, width: int) -> Array | None:
        """`X` as float64 `(n, width)`; raises `FixInputError` for another shape or a value that is not finite."""
        if self.X is None:
            return None
        X = np.asarray(self.X, dtype=np.float64)
        if X.ndim != 2 or X.shape[1] != width or len(X) < 2 or not np.isfinite(X).all():
            raise FixInputError(
                f"X is a table of two or more records with {width} finite columns, as the original was fitted on",
                value=X.shape,
            )
        return X


def make_schema(
    given: Given,
    scaling: Scaling,
    names: tuple[str, ...] | None,
    *,
    splits: tuple[Array, Array] | None = None,
) -> tuple[Schema, tuple[str, ...]]:
    """Bounds from the caller's schema, else from its records or from `splits`; and what they disclose, in words.

    `splits`: a range of each column that a forest's public splits span; all records score as if clipped to it. Centres
    and spreads of the caller's schema are dropped. What a scaler clips narrows the bounds.
    """
    width, X = len(scaling.center), given.records(len(scaling.center))
    said: tuple[str, ...] = ()
    names = names or (given.schema.names if given.schema else None) or _columns_of(given.X)
    if given.schema is not None:
        if len(given.schema.columns) != width:
            raise FixInputError(
                f"the original was fitted on {width} columns", value=given.schema.names, remedy="Declare each of them."
            )
        given.schema.order(names or given.schema.names)
        schema = given.schema
        said = (_OBSERVED,) if schema.origin == "observed" else ()
    elif X is not None:
        both = X if splits is None else np.vstack([X, *splits])
        schema, said = Schema.observed(both, names), (_OBSERVED,)
    elif splits is not None:
        names = names or tuple(f"x{i}" for i in range(width))
        columns = tuple(Column(n, float(a), float(b)) for n, a, b in zip(names, *splits, strict=True))
        schema = Schema(columns, origin="observed")
    else:
        raise FixInputError(
            "nothing says what values the columns may take",
            remedy="Give schema= with public bounds of every column, or X= to take them from records (which discloses "
            "their extremes).",
        )
    return _clipped(schema, scaling), said


_OBSERVED = "the column bounds, which were read off records and reveal extreme ones"


def _clipped(schema: Schema, scaling: Scaling) -> Schema:
    columns = []
    for column, low, high in zip(schema.columns, scaling.lower, scaling.upper, strict=True):
        lower, upper = max(column.lower, float(low)), min(column.upper, float(high))
        if column.transform != "identity" and (lower, upper) != (column.lower, column.upper):
            raise FixConfigurationError(
                f"column {column.name!r}: a scaler that clips and the transform {column.transform!r} do not go together"
            )
        if lower >= upper:
            raise FixConfigurationError(
                f"column {column.name!r}: the bounds lie outside what the scaler lets through",
                value=(column.lower, column.upper),
                remedy=f"Declare bounds that meet [{low:g}, {high:g}].",
            )
        columns.append(dataclasses.replace(column, lower=lower, upper=upper, center=None, spread=None))
    return dataclasses.replace(schema, columns=tuple(columns))


def refuse_transforms(schema: Schema) -> None:
    """Raise `FixConfigurationError` for a transformed column: the original knows records as they are."""
    changed = [column.name for column in schema.columns if column.transform != "identity"]
    if changed:
        raise FixConfigurationError(
            "the original saw these columns untransformed", value=changed[:10], remedy='Declare transform = "identity".'
        )


def _columns_of(X: Any) -> tuple[str, ...] | None:
    columns = getattr(X, "columns", None)
    return None if columns is None else tuple(map(str, columns))
