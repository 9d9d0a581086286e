"""What is public about a record: its columns, their bounds and how they are put on one scale.

Bounds are *declared*: they come from the domain (a card limit, a sensor's range), never from the records, or the
privacy guarantee does not cover them. `Schema.observed` exists for studies and says so in every statement.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from securead.errors import FixConfigurationError, FixInputError

Array = np.ndarray
MAX_COLUMNS = 4096


@dataclass(frozen=True)
class Column:
    """One feature: a name, public bounds in its own unit, an optional public centre and spread.

    `transform="log"` replaces x by log(1 + x - lower), for amounts and counts whose sizes span decades; `center` and
    `spread` are in the transformed unit and stand for "typical" and "typical deviation".
    """

    name: str
    lower: float
    upper: float
    transform: Literal["identity", "log"] = "identity"
    center: float | None = None
    spread: float | None = None

    def __post_init__(self) -> None:
        # A sixth of the width is the spread where none is declared: it must neither overflow nor vanish.
        if not (self.lower < self.upper and 0 < (self.upper - self.lower) / 6 < math.inf):
            raise FixConfigurationError(
                f"column {self.name!r}: the lower bound is not below the upper by a finite width",
                value=(self.lower, self.upper),
                remedy="Declare finite bounds with lower < upper.",
            )
        center, spread = self.center, self.spread
        if (center is None) != (spread is None) or not (
            center is None or spread is None or (math.isfinite(center) and 0 < spread < math.inf)
        ):
            raise FixConfigurationError(
                f"column {self.name!r}: center and spread go together, finite, and the spread is positive",
                value=(self.center, self.spread),
                remedy="Declare both or neither.",
            )


@dataclass(frozen=True)
class Schema:
    """The columns of a record, in order, and what to do with a value outside its bounds.

    `out_of_bounds`: "clip" moves it to the bound and counts it, "refuse" raises `FixInputError`.
    `origin`: "declared" from the domain, or "observed" from the data (not covered by a privacy guarantee).
    """

    columns: tuple[Column, ...]
    out_of_bounds: Literal["clip", "refuse"] = "clip"
    origin: Literal["declared", "observed"] = "declared"

    def __post_init__(self) -> None:
        if not 1 <= len(self.columns) <= MAX_COLUMNS:
            raise FixConfigurationError(
                f"a schema has 1 to {MAX_COLUMNS} columns", value=len(self.columns), remedy="List the columns."
            )
        names = [column.name for column in self.columns]
        if len(set(names)) != len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise FixConfigurationError(f"column {twice!r} is declared twice", remedy="Give each column its own name.")

    @classmethod
    def observed(cls, X: Array, names: tuple[str, ...] | None = None, *, widen: float = 0.0) -> Schema:
        """Bounds from the data, widened on each side by `widen` times the range: for studies, not a guarantee."""
        lower, upper = X.min(axis=0).astype(float), X.max(axis=0).astype(float)
        width = np.where(upper > lower, upper - lower, np.maximum(np.abs(upper), 1.0))
        lower, upper = lower - widen * width, upper + widen * width
        upper = np.where(upper > lower, upper, lower + width)
        names = names or tuple(f"x{i}" for i in range(X.shape[1]))
        columns = tuple(Column(n, float(a), float(b)) for n, a, b in zip(names, lower, upper, strict=True))
        return cls(columns, origin="observed")

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    def order(self, names: tuple[str, ...], *, reorder: bool = False) -> list[int]:
        """The positions of the schema's columns among `names`; extra, missing or reordered columns are refused.

        With `reorder`, columns that are all there but in another order are matched by name.
        """
        names = tuple(names)
        twice = [name for i, name in enumerate(names) if name in names[:i]]
        if twice:
            raise FixInputError("a column occurs twice", value=twice[0], remedy="Give each column its own name.")
        missing = [name for name in self.names if name not in names]
        extra = [name for name in names if name not in self.names]
        if missing or extra:
            raise FixInputError(
                "the columns are not the schema's",
                value={"missing": missing[:10], "unknown": extra[:10]},
                remedy="Give exactly these columns: " + ", ".join(self.names) + ".",
            )
        if names != self.names and not reorder:
            place = next(i for i, (a, b) in enumerate(zip(names, self.names, strict=False)) if a != b)
            raise FixInputError(
                f"the columns are in another order: position {place} should be {self.names[place]!r}",
                value=names[place],
                remedy="Reorder the file, or ask for matching by name (--reorder).",
            )
        return [names.index(name) for name in self.names]

    def bounded(self, X: Array) -> tuple[Array, Array]:
        """Check a matrix `(n, len(columns))` and bring it within bounds.

        Returns the bounded float64 matrix and, per column, how many values lay outside. Raises `FixInputError`
        for a wrong shape, NaN or infinity (naming row and column) and, when the schema says "refuse", for a value
        out of bounds.
        """
        X = np.asarray(X, dtype=np.float64)
        if X.ndim != 2 or X.shape[1] != len(self.columns):
            raise FixInputError(
                "the records have the wrong shape",
                value=X.shape,
                remedy=f"Give a table with {len(self.columns)} columns: {', '.join(self.names)}.",
            )
        finite = np.isfinite(X)
        if not finite.all():
            row, column = map(int, np.argwhere(~finite)[0])
            raise FixInputError(
                f"row {row}, column {self.names[column]!r} is not a finite number",
                value=float(X[row, column]),
                remedy="Fill in or drop such records before scoring.",
            )
        lower = np.array([column.lower for column in self.columns])
        upper = np.array([column.upper for column in self.columns])
        outside = (X < lower) | (X > upper)
        if self.out_of_bounds == "refuse" and outside.any():
            row, column = map(int, np.argwhere(outside)[0])
            raise FixInputError(
                f"row {row}, column {self.names[column]!r} is outside [{lower[column]:g}, {upper[column]:g}]",
                value=float(X[row, column]),
                remedy='Correct the value, or declare out_of_bounds = "clip" in the schema.',
            )
        return np.clip(X, lower, upper), outside.sum(axis=0)

    def transformed(self, bounded: Array) -> Array:
        """Apply each column's transform to a bounded matrix."""
        result = bounded.copy()
        for i, column in enumerate(self.columns):
            if column.transform == "log":
                result[:, i] = np.log1p(result[:, i] - column.lower)
        return result

    def transformed_bounds(self) -> tuple[Array, Array]:
        """Lower and upper bounds in the transformed unit."""
        edges = np.array([[column.lower, column.upper] for column in self.columns]).T
        lower, upper = self.transformed(edges)
        return lower, upper

    def with_scale(self, center: Array, spread: Array) -> Schema:
        """The same schema with centre and spread declared for every column."""
        columns = tuple(
            dataclasses.replace(column, center=float(c), spread=float(s))
            for column, c, s in zip(self.columns, center, spread, strict=True)
        )
        return dataclasses.replace(self, columns=columns)

    def declared_scale(self) -> tuple[Array, Array]:
        """Centre and spread of each column; where none is declared, the middle and a sixth of the bounds."""
        lower, upper = self.transformed_bounds()
        center, spread = lower / 2 + upper / 2, (upper - lower) / 6
        for i, column in enumerate(self.columns):
            if column.center is not None and column.spread is not None:
                center[i], spread[i] = column.center, column.spread
        return center, spread
