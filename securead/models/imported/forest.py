"""scikit-learn's isolation forest as a table program: its splits public, the path lengths at its leaves secret.

Trees are completed to one depth: a leaf above it becomes a subtree whose leaves all hold its path length, below random
splits that are drawn anew for each import. A record's leaf is exactly scikit-learn's, which compares in float32.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from securead.data.encoder import Encoder
from securead.data.schema import Array, Schema
from securead.errors import FixProgramError
from securead.models.forest import extraction_rows, look_up, refuse_unless_integer
from securead.models.imported.detector import ImportedDetector, refuse
from securead.models.imported.records import Scaling
from securead.program.builder import table_program
from securead.program.geometry import MAX_DEPTH, MAX_TERMS, Trees, leaf_index
from securead.program.program import Program
from securead.program.table import MAX_ENTRIES, MAX_TABLES

# The finest grid that an encoder has: positions are the owner's own, so precision costs nothing.
_LIMIT, _FRACTION_BITS = 1024.0, 30
ENTRY_BITS = 10
_SIDES = ("lower", "upper")


@dataclass(frozen=True, eq=False)
class Tree:
    """A fitted tree in scikit-learn's arrays: a leaf has `left` -1; thresholds in raw units; path lengths of leaves."""

    left: Array
    right: Array
    column: Array
    threshold: Array
    length: Array
    depth: int


class ImportedForest(ImportedDetector):
    """An isolation forest of scikit-learn, exact but for the rounding of path lengths to `2**entry_bits` steps.

    `anomaly_score` is the sum over trees of (longest path - path) / (trees * c), c the mean path of a subsample;
    scikit-learn's score is 2**(anomaly_score - longest / c), `shift` is added for PyOD's.
    """

    def __init__(self, trees: list[Tree], schema: Schema, mean_path: float, *, shift: float, entry_bits: int) -> None:
        refuse_unless_integer("entry_bits", entry_bits, 1, 24)
        super().__init__(_encoder(schema))
        self.entry_bits, self.shift = entry_bits, shift
        self.depth = max(1, max(tree.depth for tree in trees))
        _refuse_size(len(trees), self.depth)
        rng = np.random.default_rng()  # from the operating system: padding is not to be told from its seed
        completed = [_complete(tree, self.depth, self.encoder_, rng) for tree in trees]
        self._columns, self._thresholds, lengths = (np.stack(parts) for parts in zip(*completed, strict=True))
        longest = float(lengths.max())
        exact = (longest - lengths) / (len(trees) * mean_path)
        self._step = float(exact.max()) / ((1 << entry_bits) - 1) or 1.0
        # On the grid of the program's entries, so that detector and program score alike.
        self._tables = np.rint(exact / self._step) * self._step
        self._top = longest / mean_path
        self.slack = len(trees) * self._step  # no score exceeds 1, where 2**x is less steep than this

    def score_standardised(self, Z: Array) -> Array:
        """The sum of the trees' entries."""
        integers = np.rint(Z * 2**_FRACTION_BITS).astype(np.int64)
        columns = self._columns[:, :, None]
        return look_up(self._tables, leaf_index(columns, np.ones_like(columns), self._thresholds, self.depth, integers))

    def in_original_scale(self, scores: Array) -> Array:
        """2**(score - longest path / c), plus PyOD's shift."""
        return np.exp2(np.asarray(scores) - self._top) + self.shift

    def from_original_scale(self, scores: Array) -> Array:
        """The inverse; minus infinity for what no path is long enough for."""
        with np.errstate(divide="ignore"):
            return np.log2(np.maximum(np.asarray(scores) - self.shift, 0.0)) + self._top

    def scale_in_words(self, threshold: float) -> str:
        """The formula."""
        shift = f" {'+' if self.shift > 0 else '-'} {abs(self.shift):.6g}" if self.shift else ""
        return f"the original's score is 2**(score - {self._top:.6g}){shift}, {threshold:.6g} at the threshold"

    def place_threshold(self, value: float) -> float:
        """Between two possible scores."""
        return (math.floor(value / self._step + 1e-9) + 0.5) * self._step

    def error_bound(self, X: Any) -> Array:
        """Half a step a tree, in the exponent."""
        half_steps = len(self._tables) * self._step / 2
        # Seen from either side: the original's score lies at most so many half steps from ours.
        ours = np.exp2(self.anomaly_score(X) - self._top)
        bound: Array = ours * math.expm1(half_steps * math.log(2)) + 1e-12
        return bound

    def compile(
        self, *, weight_bits: int | None = None, fraction_bits: int | None = None, ring_bits: int | None = None
    ) -> Program:
        """A table for each tree, entries in `weight_bits` bits (by default those of the import).

        Sums fit 40 bits, so any `ring_bits`. Raises `FixProgramError` for other `fraction_bits` than the import's.
        """
        if fraction_bits not in (None, _FRACTION_BITS):
            raise FixProgramError(
                f"splits lie on a grid of {_FRACTION_BITS} fraction bits",
                value=fraction_bits,
                remedy="Leave fraction_bits out.",
            )
        columns = self._columns.ravel().tolist()
        geometry = Trees(self.depth, tuple(columns), (1,) * len(columns), tuple(self._thresholds.ravel().tolist()))
        return table_program(
            self.encoder_,
            geometry,
            list(self._tables),
            entry_bits=self.entry_bits if weight_bits is None else weight_bits,
            honest_extraction_rows=extraction_rows(list(self._tables)),
        )


def read_trees(forest: Any, scaling: Scaling) -> list[Tree]:
    """The trees of a fitted `IsolationForest`, thresholds in raw units: x goes left where x <= threshold."""
    trees = []
    for estimator, features in zip(forest.estimators_, forest.estimators_features_, strict=True):
        tree = estimator.tree_
        column = np.asarray(features)[np.maximum(tree.feature, 0)]
        threshold = float32_threshold(tree.threshold) * scaling.scale[column] + scaling.center[column]
        length = _depths(tree) + mean_path(tree.n_node_samples)
        trees.append(Tree(tree.children_left, tree.children_right, column, threshold, length, tree.max_depth))
    return trees


def split_range(trees: list[Tree], width: int) -> tuple[Array, Array]:
    """Bounds that hold every split of every column with a tenth to spare; [-1, 1] for columns that no tree asks for."""
    lower, upper = np.full(width, np.inf), np.full(width, -np.inf)
    for tree in trees:
        inner = tree.left >= 0
        np.minimum.at(lower, tree.column[inner], tree.threshold[inner])
        np.maximum.at(upper, tree.column[inner], tree.threshold[inner])
    unused = lower > upper
    lower, upper = np.where(unused, -1.0, lower), np.where(unused, 1.0, upper)
    spare = np.maximum(0.1 * (upper - lower), 1e-3 * np.maximum(np.abs(lower), np.abs(upper)))
    spare = np.where(spare > 0, spare, 1.0)
    return lower - spare, upper + spare


def mean_path(samples: Array) -> Array:
    """c(n), the mean depth of a search tree of n records (Liu, Ting and Zhou 2008, eq. 1); 0 for n <= 1."""
    n = np.maximum(np.asarray(samples, dtype=float), 3.0)
    long: Array = 2 * (np.log(n - 1) + np.euler_gamma) - 2 * (n - 1) / n
    return np.where(samples > 2, long, np.where(samples == 2, 1.0, 0.0))


def float32_threshold(threshold: Array) -> Array:
    """The largest float64 that scikit-learn sends left: it rounds a value to float32, then compares it."""
    below = np.asarray(threshold).astype(np.float32)
    below = np.where(below > threshold, np.nextafter(below, np.float32(-np.inf)), below)
    above = np.nextafter(below, np.float32(np.inf))
    middle = (below.astype(float) + above.astype(float)) / 2
    # A value halfway rounds to the even neighbour.
    even = below.view(np.int32) % 2 == 0
    last: Array = np.where(even, middle, np.nextafter(middle, -np.inf))
    return last


def _depths(tree: Any) -> Array:
    """Splits above each node."""
    depths = np.zeros(tree.node_count)
    for node in range(tree.node_count):  # parents stand before their children
        if tree.children_left[node] >= 0:
            depths[[tree.children_left[node], tree.children_right[node]]] = depths[node] + 1
    return depths


def _encoder(schema: Schema) -> Encoder:
    lower, upper = schema.transformed_bounds()
    return Encoder(schema.with_scale(lower / 2 + upper / 2, (upper - lower) / 2 / _LIMIT), _LIMIT, _FRACTION_BITS)


def _complete(tree: Tree, depth: int, encoder: Encoder, rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """Columns and thresholds on the grid `(nodes,)` in heap order, and path lengths `(leaves,)`, of a complete tree."""
    nodes = (1 << depth) - 1
    columns, thresholds, lengths = np.zeros(nodes, np.int64), np.zeros(nodes, np.int64), np.zeros(nodes + 1)
    on_grid = _on_grid(tree, encoder)
    edge = encoder.bound
    # Heap position, the fitted tree's node, and the node's cell on the grid.
    open_ends = [(0, 0, np.full(encoder.width, -edge), np.full(encoder.width, edge))]
    while open_ends:
        at, node, low, high = open_ends.pop()
        if at >= nodes:
            lengths[at - nodes] = tree.length[node]
            continue
        inner = tree.left[node] >= 0
        if inner:
            column, threshold = int(tree.column[node]), int(on_grid[node])
        else:
            column = int(rng.choice(np.flatnonzero(high > low))) if (high > low).any() else 0
            threshold = int(rng.integers(low[column], max(high[column], low[column] + 1)))
        columns[at], thresholds[at] = column, threshold
        below, above = high.copy(), low.copy()
        below[column], above[column] = min(threshold, high[column]), max(threshold + 1, low[column])
        open_ends.append((2 * at + 1, tree.left[node] if inner else node, low, below))
        open_ends.append((2 * at + 2, tree.right[node] if inner else node, above, high))
    return columns, thresholds, lengths


def _on_grid(tree: Tree, encoder: Encoder) -> Array:
    """Thresholds as the encoder puts them on its grid; what every record exceeds lies just below the grid."""
    columns = encoder.schema.columns
    lower, upper = (np.array([getattr(column, side) for column in columns], dtype=float) for side in _SIDES)
    rows, at = np.arange(len(tree.threshold)), tree.column
    records = np.tile(lower, (len(rows), 1))
    records[rows, at] = np.clip(tree.threshold, lower[at], upper[at])
    integers: Array = encoder.encode(records)[0][rows, at]
    return np.where(tree.threshold < lower[at], -encoder.bound - 1, integers)


def _refuse_size(trees: int, depth: int) -> None:
    entries = trees << depth
    if depth > MAX_DEPTH or trees > MAX_TABLES or entries > min(MAX_ENTRIES, MAX_TERMS):
        raise refuse(
            f"an isolation forest of {trees} trees of depth {depth}",
            f"its {entries:,} leaves are more than {min(MAX_ENTRIES, MAX_TERMS):,}",
            "fit it with max_samples=256 (its default) and at most 1,000 trees",
        )
