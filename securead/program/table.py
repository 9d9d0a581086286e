"""Table programs: a score that is a sum of secret table entries at public positions.

`score(x) = unit * sum_t table_t[index_t(x)]`. The **public** half (`PublicTable`) holds the geometry, from which a data
owner computes every index itself; the **secret** half (`SecretTable`) holds the entries, integers from 0 to `largest`.
Forests with public splits and histograms compile to it.

The public half discloses, besides the geometry, a power of two above every score.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from securead import codec
from securead.data.encoder import Encoder
from securead.data.schema import Array
from securead.errors import FixInputError
from securead.program.geometry import Bins, Trees

MAX_TABLES = 1024
MAX_ENTRIES = 1 << 20
MAX_ENTRY_BITS = 24
FORMAT = 1
_DIGEST = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class PublicTable:
    """Everything about a table program that its data owner needs, and nothing secret.

    Entries lie in [0, `largest`] and every score, as an integer, below 2**score_bits; `unit` is the score that one
    integer step stands for. `tolerance`, `honest_extraction_rows` and `commitment` are as for a polynomial program:
    here engines are exact, and the tolerance says how far the integer program may lie from the float detector.
    """

    type_tag: ClassVar[str] = "table"
    encoder: Encoder
    geometry: Trees | Bins
    largest: int
    score_bits: int
    unit: float
    tolerance: float
    honest_extraction_rows: int
    commitment: str
    format: int = FORMAT

    def __post_init__(self) -> None:
        self.geometry.check(self.encoder)
        sizes = self.geometry.sizes
        _require(self.format == FORMAT, "unknown program format", self.format)
        _require(1 <= len(sizes) <= MAX_TABLES, f"a program has 1 to {MAX_TABLES} tables", len(sizes))
        _require(sum(sizes) <= MAX_ENTRIES, f"a program has at most {MAX_ENTRIES:,} entries", sum(sizes))
        _require(1 <= self.largest < 1 << MAX_ENTRY_BITS, "an entry's range is absurd", self.largest)
        _require(1 <= self.score_bits <= 40, "the score's range is absurd", self.score_bits)
        _require(0 < self.unit < math.inf, "the unit is positive", self.unit)
        _require(0 < self.tolerance < math.inf, "the tolerance is positive", self.tolerance)
        _require(self.honest_extraction_rows >= 1, "the extraction count is positive", self.honest_extraction_rows)
        _require(_DIGEST.fullmatch(self.commitment) is not None, "a commitment is 64 hex digits", self.commitment)

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 over this half; through `commitment` it also fixes every entry. Names the program everywhere."""
        return codec.digest(self, domain="securead.program.table.v1")

    @property
    def operations(self) -> frozenset[str]:
        """What an engine must be able to do: look up."""
        return frozenset({"lookup"})

    @property
    def sizes(self) -> tuple[int, ...]:
        """The number of entries of each table."""
        return self.geometry.sizes

    @property
    def public_terms(self) -> tuple[()]:
        """None: the submitter adds nothing itself."""
        return ()

    def queries(self, Z: Array) -> Array:
        """What an engine encrypts for encoded records `(n, width)`: positions int64 `(n, tables)`."""
        return self.geometry.index(self.encoder.encoded(Z))

    def public_term(self, Z: Array) -> Array:
        """Zeros `(n,)`."""
        return np.zeros(len(Z), dtype=object)

    def decode(self, integers: Array) -> Array:
        """Integer scores to float64 scores."""
        return np.asarray(integers, dtype=object).astype(float) * self.unit

    def check(self, secret: object) -> None:
        """Raise `FixInputError` unless `secret` is this program's secret half."""
        _require(
            isinstance(secret, SecretTable), "the secret half is of another kind of program", type(secret).__name__
        )
        assert isinstance(secret, SecretTable)  # noqa: S101  (for the type checker)
        _require(tuple(map(len, secret.tables)) == self.sizes, "tables of other sizes", len(secret.tables))
        low, high = (min(int(t.min()) for t in secret.tables), max(int(t.max()) for t in secret.tables))
        _require(0 <= low and high <= self.largest, "an entry beyond its declared range", (low, high))
        total = sum(int(table.max()) for table in secret.tables)
        _require(total < 1 << self.score_bits, "a score beyond its declared range", self.score_bits)
        commitment = commit(secret.tables, secret.commitment_key)
        _require(hmac.compare_digest(commitment, self.commitment), "the commitment does not match", self.commitment)

    def evaluate(self, secret: object, Z: Array) -> Array:
        """The oracle: exact integer scores `(n,)` (Python integers) of encoded records `(n, width)`."""
        assert isinstance(secret, SecretTable)  # noqa: S101  (`check` made sure)
        starts = np.concatenate([[0], np.cumsum(self.sizes)[:-1]])
        scores: Array = np.concatenate(secret.tables)[self.queries(Z) + starts].sum(axis=1)
        return scores.astype(object)


@dataclass(frozen=True, eq=False)
class SecretTable:
    """The entries, int64 `(size,)` for each table, and the key of the public half's commitment."""

    tables: tuple[Array, ...] = field(repr=False)
    commitment_key: bytes = field(repr=False)


def commit(tables: Sequence[Array], key: bytes) -> str:
    """HMAC-SHA256 of all entries in order: binding, and hiding under a random 32-byte key."""
    mac = hmac.new(key, b"securead.program.table.v1", hashlib.sha256)
    for table in tables:
        mac.update(f"|{len(table)}:".encode() + np.ascontiguousarray(table, dtype="<i8").tobytes())
    return mac.hexdigest()


def _require(condition: bool, what: str, value: object) -> None:
    """Raise `FixInputError` unless `condition`: a public half may come from a stranger."""
    if not condition:
        raise FixInputError(what, where="program", value=value, remedy="The program is damaged or foreign.")
