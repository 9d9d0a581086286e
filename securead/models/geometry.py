"""Drawing public geometry: random splits of a box, and points in their cells. No record is looked at.

A split is drawn from a public seed over the box that the schema's bounds span on the encoder's integer grid, so it
tells nothing about any record and costs no privacy (Tan, Ting and Liu 2011, "Fast anomaly detection for streaming
data"; here with the random thresholds of Liu, Ting and Zhou 2008).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from securead.data.encoder import Encoder
from securead.data.schema import Array
from securead.program.geometry import leaf_index

# A hyperplane's largest weight; the others are integers up to it. Fine enough for columns of very different widths.
_LARGEST_WEIGHT = 1 << 10
# Hyperplanes are placed among this many public points of the box, so that deep splits still part something.
_POOL, _POOL_A_LEAF = 4096, 16


@dataclass(frozen=True, eq=False)
class Box:
    """The integers that encoded records can take: `lower` to `upper`, int64 `(width,)`, both included."""

    lower: Array
    upper: Array

    @classmethod
    def of(cls, encoder: Encoder) -> Box:
        """The schema's bounds, encoded as records are."""
        columns = encoder.schema.columns
        bounds = np.array([[column.lower for column in columns], [column.upper for column in columns]])
        (lower, upper), _ = encoder.encode(bounds)
        return cls(lower, upper)

    def points(self, count: int, rng: np.random.Generator) -> Array:
        """Uniform points int64 `(count, width)`."""
        points: Array = rng.integers(self.lower, self.upper + 1, size=(count, len(self.lower)))
        return points


@dataclass(frozen=True, eq=False)
class Splits:
    """Complete binary trees in heap order: columns and weights `(trees, nodes, terms)`, thresholds `(trees, nodes)`.

    int64; the meaning is that of `securead.program.geometry.Trees`, which holds the same numbers.
    """

    columns: Array
    weights: Array
    thresholds: Array

    @property
    def depth(self) -> int:
        """Splits between root and leaf."""
        return int(self.thresholds.shape[1] + 1).bit_length() - 1

    def leaves(self, Z: Array) -> Array:
        """The leaf of every tree, int64 `(n, trees)`, for encoded records `(n, width)`."""
        return leaf_index(self.columns, self.weights, self.thresholds, self.depth, Z)


def draw_splits(
    box: Box, *, trees: int, depth: int, max_features: int | None, extension: int, rng: np.random.Generator
) -> Splits:
    """Random splits of a box; the same for the same arguments and state of `rng`.

    Trees draw on 1 to `max_features` columns, in turn (None: on all), or on as many as a split needs; columns are dealt
    out so that all serve equally often, and a path uses those that it has used least. With `extension` 0 a threshold is
    uniform in the node's box; else a split is a hyperplane in `extension + 1` columns (Hariri, Kind and Brunner 2019,
    "Extended isolation forest").
    """
    width = len(box.lower)
    terms, most = min(extension + 1, width), min(max_features or width, width)
    subsets = _deal(width, [most if max_features is None else max(1 + t % most, terms) for t in range(trees)], rng)
    nodes = (1 << depth) - 1
    columns, weights = np.zeros((trees, nodes, terms), np.int64), np.ones((trees, nodes, terms), np.int64)
    thresholds = np.zeros((trees, nodes), np.int64)
    for tree, subset in enumerate(subsets):
        part = Box(box.lower[subset], box.upper[subset])
        if terms == 1:
            chosen, thresholds[tree] = _parallel(part, depth, rng)
            columns[tree, :, 0] = subset[chosen]
        else:
            oblique, weights[tree], thresholds[tree] = _oblique(part, depth, terms, rng)
            columns[tree] = subset[oblique]
    return Splits(columns, weights, thresholds)


def points_like(splits: Splits, shares: Array, box: Box, count: int, rng: np.random.Generator) -> Array:
    """Points int64 `(at most count, width)` drawn from the leaves' shares of records `(trees, leaves)` alone.

    Where splits are axis-parallel a point passes all trees in random order: each narrows the region that it may lie in
    to one of its cells, drawn by share among those that meet the region; at the end the point is uniform in what is
    left. So every tree has its say on where points lie, as if trees were independent given the region.
    Hyperplanes leave regions that are hard to draw from; there a point follows one tree, among public points.
    """
    if splits.columns.shape[2] > 1:
        return _points_of_one_tree(splits, shares, box, count, rng)
    low, high = (np.tile(side, (count, 1)).astype(float) for side in (box.lower - 0.5, box.upper + 0.5))
    rows = np.arange(count)
    for tree in rng.permutation(len(shares)):
        columns, thresholds = splits.columns[tree, :, 0], splits.thresholds[tree] + 0.5
        masses = _subtree_sums(shares[tree])
        cell_low, cell_high = (np.tile(side, (count, 1)) for side in (box.lower - 0.5, box.upper + 0.5))
        node = np.zeros(count, np.int64)
        for _ in range(splits.depth):
            column, cut = columns[node], thresholds[node]
            a, b, cell_a, cell_b = (side[rows, column] for side in (low, high, cell_low, cell_high))
            # Records spread evenly over a cell: a side's claim is its mass times the part of it within the region.
            left = masses[2 * node + 1] * np.maximum(np.minimum(b, cut) - a, 0) / np.maximum(cut - cell_a, 1e-9)
            right = masses[2 * node + 2] * np.maximum(b - np.maximum(a, cut), 0) / np.maximum(cell_b - cut, 1e-9)
            # Without a claim on either side the point goes where more of the region lies.
            none = left + right <= 0
            right = np.where(none, b - cut, right)
            left = np.where(none, cut - a, left)
            goes_right = np.where(none, right > left, rng.random(count) * (left + right) < right)
            meets = (a < cut) & (cut < b)
            low[rows, column] = np.where(meets & goes_right, cut, a)
            high[rows, column] = np.where(meets & ~goes_right, cut, b)
            cell_low[rows, column] = np.where(goes_right, cut, cell_a)
            cell_high[rows, column] = np.where(goes_right, cell_b, cut)
            node = 2 * node + 1 + goes_right
    points: Array = np.clip(np.rint(low + rng.random(low.shape) * (high - low)).astype(np.int64), box.lower, box.upper)
    return points


def _subtree_sums(shares: Array) -> Array:
    """One tree's mass of every node in heap order, leaves last."""
    levels = [shares]
    while len(levels[0]) > 1:
        levels.insert(0, levels[0].reshape(-1, 2).sum(axis=1))
    return np.concatenate(levels)


def _points_of_one_tree(splits: Splits, shares: Array, box: Box, count: int, rng: np.random.Generator) -> Array:
    """Public points of the box, each in the cell that a random tree's shares chose; cells that none hits drop out."""
    pool = box.points(4 * _POOL, rng)
    reached, trees = splits.leaves(pool), rng.integers(len(shares), size=count)
    below = np.cumsum(shares, axis=1)[trees]
    leaves = np.count_nonzero(below <= rng.random((count, 1)) * below[:, -1:], axis=1)
    hits = []
    for tree in np.unique(trees):
        wanted, order = leaves[trees == tree], np.argsort(reached[:, tree], kind="stable")
        first, last = (np.searchsorted(reached[order, tree], wanted, side=side) for side in ("left", "right"))
        place = first + (rng.random(len(wanted)) * (last - first)).astype(np.int64)
        hits.append(order[place[first < last]])
    chosen: Array = pool[np.concatenate(hits)]
    return chosen if len(chosen) else pool


def _deal(width: int, hands: list[int], rng: np.random.Generator) -> list[Array]:
    """Distinct columns for each tree, so many in a hand, from shuffled decks of all of them."""
    dealt, deck = [], np.empty(0, np.int64)
    for cards in hands:
        if len(deck) < cards:
            # Columns that the old deck still holds come first, and not a second time in this hand.
            fresh = rng.permutation(width)
            clash = np.isin(fresh, deck)
            deck = np.concatenate([deck, fresh[~clash], fresh[clash]])
        dealt.append(deck[:cards])
        deck = deck[cards:]
    return dealt


def _parallel(box: Box, depth: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """One tree's columns and thresholds `(nodes,)`, level by level."""
    low, high = box.lower[None, :], box.upper[None, :]
    uses = np.zeros(low.shape)
    columns, thresholds = [], []
    for _ in range(depth):
        rows = np.arange(len(low))
        column = np.argmin(uses + 0.5 * rng.random(uses.shape), axis=1)
        a, b = low[rows, column], high[rows, column]
        threshold = rng.integers(a, np.maximum(b, a + 1))
        columns.append(column)
        thresholds.append(threshold)
        low, high, uses = (np.repeat(side, 2, axis=0) for side in (low, high, uses))
        high[2 * rows, column] = threshold
        low[2 * rows + 1, column] = np.minimum(threshold + 1, b)
        uses[2 * rows, column] += 1
        uses[2 * rows + 1, column] += 1
    return np.concatenate(columns), np.concatenate(thresholds)


def _oblique(box: Box, depth: int, terms: int, rng: np.random.Generator) -> tuple[Array, Array, Array]:
    """One tree's columns and weights `(nodes, terms)` and thresholds `(nodes,)`."""
    nodes, width = (1 << depth) - 1, len(box.lower)
    pool = box.points(max(_POOL, _POOL_A_LEAF << depth), rng)
    reached = np.zeros(len(pool), np.int64)
    columns, weights = np.zeros((nodes, terms), np.int64), np.zeros((nodes, terms), np.int64)
    thresholds = np.zeros(nodes, np.int64)
    extent = np.maximum(box.upper - box.lower, 1)
    for node in range(nodes):
        column = rng.permutation(width)[:terms]
        # A direction drawn uniformly where the box is a cube, put on the grid.
        normal = rng.normal(size=terms) / extent[column]
        weight = np.rint(normal * (_LARGEST_WEIGHT / np.abs(normal).max())).astype(np.int64)
        here = np.flatnonzero(reached == node)
        projected = pool[here][:, column] @ weight
        if len(here):
            low, high = int(projected.min()), int(projected.max())
            thresholds[node] = rng.integers(low, max(high, low + 1))
        columns[node], weights[node] = column, weight
        reached[here] = 2 * node + 1 + (projected > thresholds[node])
    return columns, weights, thresholds
