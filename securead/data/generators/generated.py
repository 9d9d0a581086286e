"""What a generator returns, and the checks of its arguments."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from securead.data.readers import Table
from securead.data.schema import Array, Schema
from securead.errors import FixConfigurationError


@dataclass(frozen=True, eq=False)
class Generated:
    """A synthetic table with its declared schema, and for every row its kind, its site and its time.

    `kind` `(n,)` indexes `kinds`, whose first name is "normal"; `table.y` is 1 wherever `kind` is not 0.
    `site` `(n,)` indexes `sites`. `time` `(n,)` is in seconds from the start of the record.
    """

    table: Table
    schema: Schema
    kinds: tuple[str, ...]
    kind: Array
    sites: tuple[str, ...]
    site: Array
    time: Array

    def of_kind(self, name: str) -> Array:
        """Which rows are of this kind, as a mask. Raises `FixConfigurationError` for an unknown name."""
        rows: Array = self.kind == _position(name, self.kinds, "kind")
        return rows

    def of_site(self, name: str) -> Table:
        """One site's rows, in order, as a table of their own. Raises `FixConfigurationError` for an unknown name."""
        rows = self.site == _position(name, self.sites, "site")
        y = None if self.table.y is None else self.table.y[rows]
        return Table(self.table.X[rows], self.table.columns, y, source=f"{self.table.source}, {name}")


def _position(name: str, names: tuple[str, ...], what: str) -> int:
    if name not in names:
        raise FixConfigurationError(f"there is no such {what}", value=name, remedy="One of: " + ", ".join(names) + ".")
    return names.index(name)


def check_whole(name: str, value: object, lowest: int, highest: int) -> None:
    """Refuse what is not a whole number in [lowest, highest]."""
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or not lowest <= int(value) <= highest:  # type: ignore[call-overload]
        raise FixConfigurationError(f"{name} is a whole number from {lowest:,} to {highest:,}", value=value)


def check_share(name: str, value: object, highest: float) -> None:
    """Refuse what is not a number in [0, highest]."""
    number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    if not number or not 0 <= float(value) <= highest:  # type: ignore[arg-type]
        raise FixConfigurationError(
            f"{name} lies in [0, {highest:g}]", value=value, remedy="It is a share of all rows."
        )


def split_count(total: int, shares: Sequence[float]) -> list[int]:
    """`total` split by `shares` into whole numbers that add up to it."""
    ends = np.round(np.cumsum(shares) / math.fsum(shares) * total).astype(int)
    return [int(size) for size in np.diff(ends, prepend=0)]


def run_lengths(rng: np.random.Generator, total: int, shortest: int, longest: int) -> Array:
    """Random lengths in [shortest, longest] that add up to `total`; the last one may be shorter."""
    ends = np.minimum(np.cumsum(rng.integers(shortest, longest + 1, size=total // shortest + 1)), total)
    lengths: Array = np.diff(ends, prepend=0)
    return lengths[lengths > 0]
