"""What a program can lose, in which order, and how what is left scores: tables of a forest, units of a network.

An order is found without looking at labels: at each step that part goes without which scores stay closest to the whole
program's. Labels then judge how far to go along it, a choice among few, so that it hardly fits chance.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Protocol

import numpy as np
from scipy.stats import rankdata

from securead.data.schema import Array
from securead.program.fewer_tables import entry_bits, fewer_tables
from securead.program.geometry import Trees
from securead.program.polynomial import Product, PublicPolynomial, Relu
from securead.program.program import Program
from securead.program.sketch import Sketch, Unit
from securead.program.table import PublicTable, SecretTable

Progress = Callable[[str, int, int], None]
"""What is being done, steps done, steps in all."""
_ORDERING_ROWS = 2000
# Of more units than this, several go at a time.
_ONE_BY_ONE = 32
_SEED = 0
_FURTHEST = -np.finfo(float).max


class Structure(Protocol):
    """A program's parts. `orders`: ways to drop them one after the other; each may begin with several at once."""

    program: Program

    @property
    def part(self) -> str:
        """What a part is called, in the plural."""

    @property
    def parts(self) -> int:
        """How many there are."""

    def bits(self, dropped: Sequence[Hashable]) -> int:
        """The bits that a weight or an entry has without these parts; 0 where fewer would save nothing."""

    def orders(self, progress: Progress) -> list[tuple[int, Sequence[Hashable]]]:
        """Orders in which parts go, each with how many go first together."""

    def smaller(self, dropped: Sequence[Hashable], bits: int) -> Program:
        """The program without these parts, with so many bits."""

    def scores(self, program: Program, dropped: Sequence[Hashable]) -> Array:
        """Scores `(n,)` of `smaller(dropped, ...)` on the validation records, as its integers give them."""


def structure_of(program: Program, X: Array, y: Array) -> Structure:
    """The structure of a program, judged on records `(n, d)` with labels `(n,)`, 1 for anomalies."""
    Z, _ = program.public.encoder.encode(X)
    return Tables(program, Z, y) if isinstance(program.public, PublicTable) else Units(program, Z, y)


class Tables:
    """The tables of a program: trees of a forest, columns of histograms. Scores are exact."""

    def __init__(self, program: Program, Z: Array, y: Array) -> None:
        public = program.public
        assert isinstance(public, PublicTable)  # noqa: S101  (`structure_of` made sure)
        self.program = program
        self._index = public.queries(Z).astype(np.int32)
        self._sample = _sample(y)
        self.part = "trees" if isinstance(public.geometry, Trees) else "tables"
        self.parts = len(public.sizes)

    def bits(self, dropped: Sequence[Hashable]) -> int:
        """See `Structure`."""
        return entry_bits(fewer_tables(self.program, self._kept(dropped)))

    def orders(self, progress: Progress) -> list[tuple[int, Sequence[Hashable]]]:
        """One: the table goes without which the others' sum correlates best with that of all."""
        entries = self._entries(self.program, range(self.parts))[self._sample].astype(float)
        centred = entries - entries.mean(axis=0)
        covariance = centred.T @ centred / len(centred)
        with_all, kept, order = covariance.sum(axis=1), np.ones(self.parts, dtype=bool), list[Hashable]()
        with_kept = with_all.copy()
        for done in range(self.parts):
            variance = with_kept[kept].sum() - 2 * with_kept + np.diag(covariance)
            shared = with_all[kept].sum() - with_all
            with np.errstate(divide="ignore", invalid="ignore"):
                closeness = np.where(variance > 0, shared * np.abs(shared) / variance, _FURTHEST)
            worst = int(np.argmax(np.where(kept, closeness, -np.inf))) if kept.sum() > 1 else int(np.argmax(kept))
            kept[worst] = False
            with_kept -= covariance[:, worst]
            order.append(worst)
            progress("ordering", done + 1, self.parts)
        return [(1, order)]

    def smaller(self, dropped: Sequence[Hashable], bits: int) -> Program:
        """See `Structure`."""
        return fewer_tables(self.program, self._kept(dropped), bits=bits)

    def scores(self, program: Program, dropped: Sequence[Hashable]) -> Array:
        """See `Structure`."""
        sums = self._entries(program, self._kept(dropped)).sum(axis=1)
        return program.public.decode(sums)

    def _kept(self, dropped: Sequence[Hashable]) -> list[int]:
        gone = set(dropped)
        return [at for at in range(self.parts) if at not in gone]

    def _entries(self, program: Program, kept: Sequence[int]) -> Array:
        """The entries `(n, tables)` that records meet in a program of the tables `kept`."""
        secret = program.secret
        assert isinstance(secret, SecretTable)  # noqa: S101  (for the type checker)
        met = [table[self._index[:, at]] for at, table in zip(kept, secret.tables, strict=True)]
        return np.stack(met, axis=1)


class Units:
    """Units of a polynomial program. What is dropped becomes its mean over validation records that are no anomalies.

    Scores are those of the integer weights, evaluated in float64.
    """

    part = "units"

    def __init__(self, program: Program, Z: Array, y: Array) -> None:
        self.program, self._Z, self._sample = program, Z, _sample(y)
        self._sketch = Sketch.of(program)
        self._units = self._sketch.units()
        means = [value.mean(axis=0) for value in self._sketch.values(Z[y != 1])]
        self._constants = {unit: float(means[unit[0]][unit[1]]) for unit in self._units}
        self.parts = len(self._units)

    def bits(self, dropped: Sequence[Hashable]) -> int:
        """See `Structure`. On shares a value takes a word whatever its bits."""
        return 0 if self._sketch.truncates else self._without(dropped).weight_bits

    def orders(self, progress: Progress) -> list[tuple[int, Sequence[Hashable]]]:
        """From all units on; and from those on that are left when a whole step goes that raises the degree."""
        starts = [(), *self._layers()]
        total = sum(self.parts - len(start) for start in starts)
        found, done = list[tuple[int, Sequence[Hashable]]](), 0
        for start in starts:
            order = self._ordered(start, lambda more, before=done: progress("ordering", before + more, total))  # type: ignore[misc]
            found.append((max(len(start), 1), order))
            done += self.parts - len(start)
        return found

    def smaller(self, dropped: Sequence[Hashable], bits: int) -> Program:
        """See `Structure`."""
        smaller = self._without(dropped)
        return smaller.program(fewer_bits=0 if smaller.truncates else smaller.weight_bits - bits)

    def scores(self, program: Program, dropped: Sequence[Hashable]) -> Array:
        """See `Structure`."""
        return Sketch.of(program).scores(self._Z)

    def _without(self, dropped: Sequence[Hashable]) -> Sketch:
        return self._sketch.without(self._replaced(dropped)) if dropped else self._sketch

    def _replaced(self, dropped: Sequence[Hashable]) -> dict[Unit, float]:
        gone = set(dropped)
        return {unit: constant for unit, constant in self._constants.items() if unit in gone}

    def _layers(self) -> list[tuple[Unit, ...]]:
        """All units of a step, for each without which there is less to multiply or no ReLU."""
        steps = self._sketch.steps
        last = max((at for at, step in enumerate(steps) if isinstance(step, Product)), default=-1)
        found = []
        for at in sorted({at for at, _ in self._units}):
            units = tuple(unit for unit in self._units if unit[0] == at)
            # The last one is all that the score consists of.
            if len(units) < self.parts and at != last:
                public = self._without(units).program().public
                assert isinstance(public, PublicPolynomial)  # noqa: S101  (for the type checker)
                fewer_relus = isinstance(steps[at], Relu)
                whole = self.program.public
                assert isinstance(whole, PublicPolynomial)  # noqa: S101  (for the type checker)
                if fewer_relus or public.degree < whole.degree:
                    found.append(units)
        return found

    def _ordered(self, start: tuple[Unit, ...], progress: Callable[[int], None]) -> tuple[Unit, ...]:
        """After `start`, one after the other what least changes the ranks of scores."""
        Z = self._Z[self._sample]
        whole, order = _ranks(self._sketch.scores(Z)), list(start)
        left = [unit for unit in self._units if unit not in set(start)]
        while left:
            constants = self._replaced(order)
            moved = [
                _distance(whole, self._sketch.scores(Z, {**constants, unit: self._constants[unit]})) for unit in left
            ]
            together = 1 if len(left) <= _ONE_BY_ONE else len(left) // 16
            gone = [left[at] for at in np.argsort(moved, kind="stable")[:together]]
            order += gone
            left = [unit for unit in left if unit not in gone]
            progress(len(order) - len(start))
        return tuple(order)


def _distance(whole: Array, scores: Array) -> float:
    """1 - the rank correlation of scores with those whose ranks are `whole`; 2 where all are the same."""
    ranks = _ranks(scores)
    return 1 - float(np.corrcoef(whole, ranks)[0, 1]) if ranks.std() > 0 and whole.std() > 0 else 2.0


def _ranks(scores: Array) -> Array:
    return np.asarray(rankdata(scores))


def _sample(y: Array) -> Array:
    """Rows to order parts by: as many of each class, as far as there are."""
    rng = np.random.default_rng(_SEED)
    parts = [rng.permutation(np.flatnonzero((y == 1) == anomaly))[:_ORDERING_ROWS] for anomaly in (False, True)]
    return np.sort(np.concatenate(parts))
