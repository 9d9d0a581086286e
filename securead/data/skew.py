"""Splitting one table among sites that differ: in size, in where their records lie, in the anomalies they know.

For studies of federated training, where plain random shares are the easy case. Three kinds of the taxonomy of Li et
al. (2022), "Federated learning on non-IID data silos: an experimental study", section 4: quantity skew (sizes from a
Dirichlet law), feature distribution skew (here by a record's position along a column or a direction, rather than by
noise added to it), and label distribution skew (quantity-based: a site knows a few classes only), whose classes are
here the kinds of anomalies. That a law is drawn once per study from a Dirichlet prior, whose concentration is the
degree of skew, follows Hsu, Qi and Brown (2019), "Measuring the effects of non-identical data distribution".

Every split is repeatable under its seed, disjoint, and all rows together; each site keeps the table's order and gets
at least one row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from securead.data.partition import sizes
from securead.data.schema import Array
from securead.errors import FixConfigurationError, FixInputError

Kind = Literal["quantity", "feature", "anomaly"]


@dataclass(frozen=True)
class Skew:
    """How sites differ: a recipe's section [split].

    `strength`, from 0 (as alike as random shares) to 1 (as different as can be). `column`: along which "feature" sorts,
    by default a random direction; whose values are the kinds for "anomaly", by default clusters. `clusters`: how many
    of them, by default one a site. `minimum`: of records that "quantity" leaves each site.
    """

    kind: Kind
    strength: float = 0.5
    column: str | None = None
    clusters: int | None = None
    minimum: int = 1

    def __post_init__(self) -> None:
        if self.kind not in ("quantity", "feature", "anomaly"):
            raise FixConfigurationError("a split is by quantity, feature or anomaly", value=self.kind)
        _check_strength(self.strength)
        if self.minimum < 1 or (self.clusters is not None and self.clusters < 2):
            raise FixConfigurationError(
                "a split leaves each site 1 record at least and tells 2 kinds of anomalies at least",
                value={"minimum": self.minimum, "clusters": self.clusters},
            )
        belongs = {"column": ("feature", "anomaly"), "clusters": ("anomaly",), "minimum": ("quantity",)}
        given = {"column": self.column is not None, "clusters": self.clusters is not None, "minimum": self.minimum > 1}
        for name, kinds in belongs.items():
            if given[name] and self.kind not in kinds:
                raise FixConfigurationError(
                    f"{name} means nothing in a split by {self.kind}",
                    value=getattr(self, name),
                    remedy=f"Leave it out, or split by {' or '.join(kinds)}.",
                )

    def split(
        self, X: Array, columns: Sequence[str], labels: Array | None, shares: Sequence[float], *, seed: int
    ) -> list[Array]:
        """Row indices of each site. "quantity" finds the sites' shares itself; the others keep to `shares`."""
        if self.kind == "quantity":
            # Dirichlet(1), all sizes equally likely, in the middle; 0.5, Li et al.'s default, at a strength of 2/3.
            concentration = math.inf if self.strength == 0 else 1 / self.strength - 1
            return quantity_skew(len(X), len(shares), concentration=concentration, minimum=self.minimum, seed=seed)
        values = None if self.column is None else X[:, _position(self.column, columns)]
        if self.kind == "feature":
            along = direction(X, seed=seed) if values is None else values
            return feature_skew(along, shares, strength=self.strength, seed=seed)
        if labels is None:
            raise FixInputError(
                "a split by anomaly needs labels", remedy="Name the label column, or split by quantity or feature."
            )
        if values is None:
            kinds = anomaly_clusters(X, labels, self.clusters or max(len(shares), 2), seed=seed)
        else:
            kinds = np.where(labels == 1, np.unique(values, return_inverse=True)[1] + 1, 0)
        return anomaly_skew(kinds, shares, strength=self.strength, seed=seed)


def quantity_skew(rows: int, sites: int, *, concentration: float, minimum: int = 1, seed: int) -> list[Array]:
    """Sites of random sizes: `minimum` rows each, the rest in proportions drawn from Dirichlet(concentration).

    Infinity makes all equal, 0 gives all the rest to one site. Rows are dealt at random, so only sizes differ.
    """
    if not concentration >= 0 or minimum < 1 or sites < 1:
        raise FixConfigurationError(
            "concentration is at least 0, and there is 1 site with 1 row at least",
            value={"concentration": concentration, "sites": sites, "minimum": minimum},
        )
    if rows < sites * minimum:
        raise FixConfigurationError(
            f"{rows} rows do not give {sites} sites {minimum} each", remedy="Use fewer sites or a smaller minimum."
        )
    rng = np.random.default_rng(seed)
    if concentration == 0:
        proportions = np.eye(sites)[rng.integers(sites)]
    elif math.isinf(concentration):
        proportions = np.full(sites, 1 / sites)
    else:
        proportions = rng.dirichlet(np.full(sites, concentration))
    ends = np.rint(np.cumsum(proportions)[:-1] * (rows - sites * minimum)).astype(int)
    return _parts(rng.permutation(rows), ends + minimum * np.arange(1, sites))


def feature_skew(along: Array, shares: Sequence[float], *, strength: float, seed: int) -> list[Array]:
    """Sites that hold neighbouring records: the first the lowest values `along` `(n,)`, the last the highest.

    Rows are sorted by a mixture of their rank, weighted by `strength`, and of chance: 0 is a random split, at 1 the
    sites' ranges do not overlap (equal values are dealt at random).
    """
    _check_strength(strength)
    rng = np.random.default_rng(seed)
    rows = len(along)
    chance = rng.random(rows)
    rank = np.empty(rows)
    rank[np.lexsort((chance, along))] = (np.arange(rows) + 0.5) / max(rows, 1)
    order = np.argsort(strength * rank + (1 - strength) * rng.random(rows), kind="stable")
    return _parts(order, np.cumsum(sizes(rows, shares))[:-1])


def anomaly_skew(kinds: Array, shares: Sequence[float], *, strength: float, seed: int) -> list[Array]:
    """Sites that each know some kinds of anomalies: `kinds` `(n,)` is 0 for a normal record, else the anomaly's kind.

    Kinds have homes by turns: with as many kinds as sites or more, one home each; with fewer, several. An anomaly goes
    to a home with probability `strength` and anywhere otherwise, both times by `shares`. Normal records are dealt at
    random. Raises `FixInputError` for fewer than two kinds, or fewer normal records than sites.
    """
    _check_strength(strength)
    rng = np.random.default_rng(seed)
    normal, found = np.flatnonzero(kinds == 0), np.unique(kinds[kinds != 0])
    if len(found) < 2 or len(normal) < len(shares):
        raise FixInputError(
            "a split by anomaly needs two kinds of anomalies, and as many normal records as sites",
            value={"kinds": len(found), "normal records": len(normal), "sites": len(shares)},
            remedy="Split by quantity or feature.",
        )
    weights = np.asarray(shares, dtype=float)
    parts = _parts(rng.permutation(normal), np.cumsum(sizes(len(normal), shares))[:-1])
    everywhere, turns = weights / weights.sum(), min(len(found), len(shares))
    for at, kind in enumerate(found):
        rows = np.flatnonzero(kinds == kind)
        homes = np.where(np.arange(len(shares)) % turns == at % turns, weights, 0.0)
        to_home = rng.random(len(rows)) < strength
        anywhere = rng.choice(len(shares), len(rows), p=everywhere)
        site = np.where(to_home, rng.choice(len(shares), len(rows), p=homes / homes.sum()), anywhere)
        parts = [np.append(part, rows[site == number]) for number, part in enumerate(parts)]
    return [np.sort(part) for part in parts]


def anomaly_clusters(X: Array, labels: Array, clusters: int, *, seed: int) -> Array:
    """Kinds `(n,)` of anomalies where none are known: 1, 2, ... by k-means on the anomalies, 0 for normal records.

    Columns count alike, up to eight standard deviations of all records. Raises `FixInputError` for fewer distinct
    anomalies than clusters.
    """
    from sklearn.cluster import KMeans  # takes longer to import than most of what needs this module runs

    rows = np.flatnonzero(labels == 1)
    Z = _standardised(X)[rows]
    distinct = len(np.unique(Z, axis=0))
    if distinct < clusters:
        raise FixInputError(
            f"{distinct} distinct anomalies do not make {clusters} kinds", remedy="Ask for fewer clusters."
        )
    kinds = np.zeros(len(X), dtype=int)
    kinds[rows] = KMeans(clusters, n_init=4, random_state=seed % 2**32).fit_predict(Z) + 1
    return kinds


def direction(X: Array, *, seed: int) -> Array:
    """Positions `(n,)` of records along a random direction in which every column counts alike."""
    return _standardised(X) @ np.random.default_rng([seed, 1]).normal(size=X.shape[1])


def _standardised(X: Array) -> Array:
    spread = X.std(axis=0)
    Z: Array = np.clip((X - X.mean(axis=0)) / np.where(spread > 0, spread, 1.0), -8.0, 8.0)
    return Z


def _parts(order: Array, ends: Array) -> list[Array]:
    return [np.sort(part) for part in np.split(order, ends)]


def _position(column: str, columns: Sequence[str]) -> int:
    if column not in columns:
        raise FixConfigurationError(
            "the split names a column that the records lack",
            value=column,
            remedy="One of: " + ", ".join(columns[:60]) + ".",
        )
    return list(columns).index(column)


def _check_strength(strength: float) -> None:
    if not 0 <= strength <= 1:
        raise FixConfigurationError(
            "a split's strength lies in [0, 1]", value=strength, remedy="0 is a random split, 1 the strongest skew."
        )
