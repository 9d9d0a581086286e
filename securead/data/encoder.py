"""The public encoder: a record to bounded, standardised fixed-point integers.

It is part of every program's public half, so owner, oracle and detector see the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from securead.data.schema import Array, Schema
from securead.data.windows import WindowedSchema
from securead.errors import FixConfigurationError, FixInputError

MAX_FRACTION_BITS = 30


@dataclass(frozen=True)
class Encoder:
    """Standardise with the schema's centre and spread, clip to [-limit, limit], round to `fraction_bits`.

    Guarantee: every integer of `encode` lies in [-bound, bound] with `bound = round(limit * 2**fraction_bits)`,
    whatever the record.
    """

    schema: Schema | WindowedSchema
    limit: float = 8.0
    fraction_bits: int = 14

    def __post_init__(self) -> None:
        if not 0 < self.limit <= 1024 or not 1 <= self.fraction_bits <= MAX_FRACTION_BITS:
            raise FixConfigurationError(
                f"an encoder has a limit in (0, 1024] and 1 to {MAX_FRACTION_BITS} fraction bits",
                value=(self.limit, self.fraction_bits),
                remedy="Use the defaults, 8.0 and 14, unless you know better.",
            )

    @property
    def bound(self) -> int:
        """The largest magnitude of an encoded value."""
        return round(self.limit * (1 << self.fraction_bits))

    @property
    def width(self) -> int:
        """The number of columns."""
        return len(self.schema.columns)

    def standardise(self, X: Array) -> Array:
        """Float view of the same map without rounding: `(n, width)` in [-limit, limit]."""
        bounded, _ = self.schema.bounded(X)
        return self._standardise(bounded)

    def encode(self, X: Array) -> tuple[Array, Array]:
        """Integers `(n, width)` int64, and per column the number of values that lay out of bounds."""
        bounded, outside = self.schema.bounded(X)
        return np.rint(self._standardise(bounded) * 2**self.fraction_bits).astype(np.int64), outside

    def encoded(self, Z: Array) -> Array:
        """`Z` as int64, checked to be encoded records `(n, width)`, or `FixInputError`."""
        Z = np.asarray(Z)
        if Z.ndim != 2 or Z.shape[1] != self.width or not np.issubdtype(Z.dtype, np.integer):
            raise FixInputError("encoded records are integers (n, width)", value=(Z.shape, str(Z.dtype)))
        # Not by np.abs: the magnitude of a type's least value does not fit the type.
        largest = max(int(Z.max()), -int(Z.min())) if Z.size else 0
        if largest > self.bound:
            raise FixInputError("an encoded value exceeds the encoder's bound", value=largest)
        return Z.astype(np.int64)

    def _standardise(self, bounded: Array) -> Array:
        center, spread = self.schema.declared_scale()
        with np.errstate(over="ignore"):  # a far centre or a tiny spread: the infinity is clipped like any other
            scaled = (self.schema.transformed(bounded) - center) / spread
        standardised: Array = np.clip(scaled, -self.limit, self.limit)
        return standardised
