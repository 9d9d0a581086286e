"""Public geometry of table programs: from an encoded record to one position in each table.

All of it is integers on the encoder's grid, so that every party computes the same positions on every machine.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from securead.data.encoder import Encoder
from securead.data.schema import Array
from securead.errors import FixInputError

MAX_DEPTH = 16
MAX_TERMS = 1 << 19
_CHUNK = 1 << 14


@dataclass(frozen=True)
class Trees:
    """Complete binary trees of one depth; a table for each tree, an entry for each leaf.

    Node after node in heap order (root, its two children, ...), tree after tree: node i goes right where
    `sum_j weights[i, j] * z[columns[i, j]] > thresholds[i]`. All three are flat; a node has
    `len(columns) // len(thresholds)` terms, one for an axis-parallel split.
    """

    type_tag: ClassVar[str] = "trees"
    depth: int
    columns: tuple[int, ...]
    weights: tuple[int, ...]
    thresholds: tuple[int, ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """2**depth leaves for every tree."""
        return (1 << self.depth,) * (len(self.thresholds) // ((1 << self.depth) - 1))

    @functools.cached_property
    def _arrays(self) -> tuple[Array, Array, Array]:
        """Columns and weights `(trees, nodes, terms)` and thresholds `(trees, nodes)`."""
        shape = (len(self.sizes), (1 << self.depth) - 1)
        columns, weights = (np.array(v, dtype=np.int64).reshape(*shape, -1) for v in (self.columns, self.weights))
        return columns, weights, np.array(self.thresholds, dtype=np.int64).reshape(shape)

    def index(self, Z: Array) -> Array:
        """The leaf of every tree, int64 `(n, trees)`, for encoded records `(n, width)`."""
        columns, weights, thresholds = self._arrays
        return leaf_index(columns, weights, thresholds, self.depth, Z)

    def check(self, encoder: Encoder) -> None:
        """Raise `FixInputError` unless this is a geometry over the encoder's records."""
        _require(1 <= self.depth <= MAX_DEPTH, f"a tree has a depth of 1 to {MAX_DEPTH}", self.depth)
        nodes, terms = len(self.thresholds), len(self.columns)
        whole = nodes > 0 and nodes % ((1 << self.depth) - 1) == 0
        _require(whole and terms > 0 and terms % nodes == 0, "trees are not complete", (nodes, terms))
        _require(len(self.weights) == terms, "every term has a weight", len(self.weights))
        _require(0 <= min(self.columns) and max(self.columns) < encoder.width, "a split on no column", terms)
        _require(terms <= MAX_TERMS and terms // nodes <= encoder.width, "splits have too many terms", terms)
        heaviest = max(max(self.weights), -min(self.weights))
        reach = heaviest * encoder.bound * (terms // nodes)
        _require(reach < 1 << 62, "a split's weights are absurd", heaviest)
        _require(max(max(self.thresholds), -min(self.thresholds)) < 1 << 62, "a threshold is absurd", nodes)


@dataclass(frozen=True)
class Bins:
    """Histograms of single columns: table j is on column `columns[j]`, cut at the rising `edges[j]`.

    The position is the number of edges that lie below the value.
    """

    type_tag: ClassVar[str] = "bins"
    columns: tuple[int, ...]
    edges: tuple[tuple[int, ...], ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """One entry more than edges."""
        return tuple(len(edges) + 1 for edges in self.edges)

    def index(self, Z: Array) -> Array:
        """The bin of every table, int64 `(n, tables)`, for encoded records `(n, width)`."""
        index = np.empty((len(Z), len(self.columns)), dtype=np.int64)
        for table, (column, edges) in enumerate(zip(self.columns, self.edges, strict=True)):
            index[:, table] = np.searchsorted(np.array(edges, dtype=np.int64), Z[:, column], side="left")
        return index

    def check(self, encoder: Encoder) -> None:
        """Raise `FixInputError` unless this is a geometry over the encoder's records."""
        _require(0 < len(self.columns) == len(self.edges), "every table has a column and edges", len(self.columns))
        _require(all(0 <= column < encoder.width for column in self.columns), "bins on no column", self.columns[:10])
        rising = all(a < b for edges in self.edges for a, b in itertools.pairwise(edges))
        _require(rising and all(self.edges), "the edges of bins rise", len(self.edges))
        _require(
            all(-encoder.bound <= e <= encoder.bound for edges in self.edges for e in edges), "edges off the grid", 0
        )


def leaf_index(columns: Array, weights: Array, thresholds: Array, depth: int, Z: Array) -> Array:
    """The leaves int64 `(n, trees)` of encoded records `(n, width)`; arrays as `Trees` has them, unflattened."""
    trees, nodes = thresholds.shape
    leaves = np.empty((len(Z), trees), dtype=np.int64)
    for start in range(0, len(Z), _CHUNK):
        block = Z[start : start + _CHUNK]
        # Column by column in memory, so that a node's values are one `take` of a flat array.
        flat, rows = np.ascontiguousarray(block.T).ravel(), np.arange(len(block))
        for tree in range(trees):
            terms = [(columns[tree, :, j] * len(block), weights[tree, :, j]) for j in range(columns.shape[2])]
            node = np.zeros(len(block), dtype=np.int64)
            for _ in range(depth):
                value = sum(
                    flat.take(first.take(node) + rows) * (1 if (weight == 1).all() else weight.take(node))
                    for first, weight in terms
                )
                node = 2 * node + 1 + (value > thresholds[tree].take(node))
            leaves[start : start + len(block), tree] = node - nodes
    return leaves


def _require(condition: bool, what: str, value: object) -> None:
    if not condition:
        raise FixInputError(what, where="program geometry", value=value, remedy="The program is damaged or foreign.")
