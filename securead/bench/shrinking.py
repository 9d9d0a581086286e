"""Smaller models under a stated loss: candidates with fewer parts and bits, judged in the clear, one chosen.

Every candidate is a program of its own. Its AUROC on labelled validation records is that of its integers; its loss is
the whole program's AUROC less its own, with DeLong's paired interval; its cost is read off the engine's plan. A loss
was found on the records that chose the candidate: expect a little more on others.
"""

from __future__ import annotations

import dataclasses
import datetime
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from securead import __version__
from securead.bench.costs import Cost, cost_of
from securead.bench.intervals import FEWEST_ROWS, auroc, average_precision, paired_interval
from securead.bench.structure import Progress, Structure, structure_of
from securead.data.schema import Array
from securead.errors import FixConfigurationError, FixInputError, FixProgramError
from securead.models.bundle import Bundle, Threshold
from securead.models.threshold import exact_nearest
from securead.program.program import Program, PublicProgram
from securead.protocols.choice import carriers, choose
from securead.protocols.engine import Role

MOST_ROWS = 20_000
By = Literal["bytes", "work"]
# How far beyond the loss allowed its interval may reach.
_TELLING = 0.05
_SHAPES = 30
_SEED = 0


@dataclass(frozen=True, eq=False)
class Candidate:
    """A smaller program. `loss`: of AUROC, positive where it is worse; (`low`, `high`) is its 95 % interval.

    `cost` is None where the engine has no parameters for it. `flagged`: how many of the normal records a threshold can
    flag that comes as near as ties allow to the share flagged before.
    """

    parts: int
    bits: int
    program: Program
    auroc: float
    loss: float
    low: float
    high: float
    cost: Cost | None
    flagged: int

    @property
    def rows(self) -> int:
        """Honest scores from which the program can be solved for."""
        return self.program.public.honest_extraction_rows


@dataclass(frozen=True, eq=False)
class Shrinking:
    """All candidates that were looked at, the first of them the program as it was; and the one to take.

    `norm`: AUROC of |z|^2, which needs no model at all. `found` anomalies lie above the thresholds, and
    `precision` is average precision, before and after: neither is held to anything.
    """

    part: str
    engine: str
    role: Role
    by: By
    max_loss: float
    sure: bool
    records: int
    anomalies: int
    norm: float
    found: tuple[int, int]
    precision: tuple[float, float]
    candidates: tuple[Candidate, ...]
    chosen: Candidate
    bundle: Bundle

    @property
    def whole(self) -> Candidate:
        """The program as it was."""
        return self.candidates[0]

    @property
    def front(self) -> tuple[Candidate, ...]:
        """By falling cost: the whole program, those of which none costs less and ranks as well, and the chosen one."""
        best, found = -1.0, list[Candidate]()
        for one in sorted((c for c in self.candidates if c.cost), key=lambda c: (_price(c, self.by), -c.auroc)):
            if one.auroc > best or one in (self.whole, self.chosen):
                found.append(one)
                best = max(best, one.auroc)
        return tuple(reversed(found))


def shrink(
    bundle: Bundle,
    X: Array,
    y: Array | None,
    *,
    max_loss: float,
    engine: str | None = None,
    role: Role = "same",
    by: By = "bytes",
    sure: bool = False,
    progress: Progress | None = None,
) -> Shrinking:
    """The cheapest smaller model whose AUROC on labelled records `(n, d)` falls by `max_loss` at most.

    By the loss itself, or with `sure` by the upper end of its interval; and only where a threshold can flag as large a
    share of normal records as before. Of many records 20,000 are looked at, every anomaly among them as far as half of
    these. Raises `FixInputError` without labels of both kinds, where anomalies are so few that the interval reaches .05
    beyond `max_loss`, and where nothing cheaper keeps the loss.
    """
    if not 0 <= max_loss < 0.5:
        raise FixConfigurationError("a loss of AUROC lies in [0, 0.5)", value=max_loss, remedy="0.005 is a usual one.")
    y = _checked(y, len(X))
    judged = _judged(y)
    X, y = np.asarray(X, dtype=float)[judged], y[judged]
    name = _engine(bundle.public.program, role, engine)
    structure = structure_of(bundle.program, X, y)
    limits = _Limits(max_loss, sure, bundle.public.threshold.value)
    search = _Search(structure, y, name, role, limits, progress or (lambda what, done, total: None))
    candidates = search.run()
    fitting = [c for c in candidates if c.cost is not None and search.keeps(c)]
    chosen = min(fitting, key=lambda c: (_price(c, by), -c.auroc)) if fitting else candidates[0]
    _refuse_unless_telling(chosen, candidates, int(y.sum()), max_loss, sure)
    before, after = bundle.program.score(X), chosen.program.score(X)
    # The oracle has the last word on the two that count; float64 may take a few pairs of scores for ties.
    exact = auroc(y, before) - auroc(y, after)
    if abs(exact - chosen.loss) > 1e-5:
        raise FixProgramError("float64 does not rank this program's scores", value=(exact, chosen.loss))
    made = _bundle(bundle, chosen, structure, before, after, y)
    thresholds = (bundle.public.threshold.value, made.public.threshold.value)
    found = [int((scores[y == 1] > value).sum()) for scores, value in zip((before, after), thresholds, strict=True)]
    return Shrinking(
        part=structure.part,
        engine=name,
        role=role,
        by=by,
        max_loss=max_loss,
        sure=sure,
        records=len(y),
        anomalies=int(y.sum()),
        norm=auroc(y, (bundle.public.program.encoder.standardise(X) ** 2).sum(axis=1)),
        found=(found[0], found[1]),
        precision=(average_precision(y, before), average_precision(y, after)),
        candidates=tuple(candidates),
        chosen=chosen,
        bundle=made,
    )


@dataclass(frozen=True)
class _Limits:
    """What a candidate must keep: the loss, or its upper bound, and what the threshold flags."""

    max_loss: float
    sure: bool
    threshold: float


class _Search:
    """Looks at candidates, each once."""

    def __init__(
        self, structure: Structure, y: Array, engine: str, role: Role, limits: _Limits, progress: Progress
    ) -> None:
        self._structure, self._y, self._engine, self._role = structure, y, engine, role
        self._limits, self._progress = limits, progress
        self._known: dict[tuple[frozenset[Hashable], int], Candidate] = {}
        self._whole = structure.scores(structure.program, ())
        self._flagged = int((self._whole[y != 1] > limits.threshold).sum())

    def keeps(self, candidate: Candidate) -> bool:
        """Whether a candidate's loss is small enough, and what it flags as many as before, up to chance."""
        loss = candidate.high if self._limits.sure else candidate.loss
        ties = abs(candidate.flagged - self._flagged) <= max(1.0, 2 * math.sqrt(self._flagged))
        return loss <= self._limits.max_loss and ties

    def run(self) -> list[Candidate]:
        """Nested shapes along each order with all bits, then by bisection the fewest bits that each can do with."""
        structure = self._structure
        most = structure.bits(())
        first = self._candidate((), most)
        shapes: list[Sequence[Hashable]] = [()]
        for together, order in structure.orders(self._progress):
            left = structure.parts - together
            sizes = sorted({round(size) for size in np.geomspace(1, max(left, 1), _SHAPES)}, reverse=True)
            shapes += [tuple(order[: structure.parts - size]) for size in sizes if 1 <= size <= left]
        for done, shape in enumerate(shapes):
            self._progress("judging", done, len(shapes))
            fewest, enough = 0, structure.bits(shape)
            if not self.keeps(self._candidate(shape, enough)):
                continue
            while enough - fewest > 1:
                middle = (fewest + enough) // 2
                if self.keeps(self._candidate(shape, middle)):
                    enough = middle
                else:
                    fewest = middle
        for bits in range(most - 1, 0, -1):  # the effect of bits alone, for who reads the table
            self._candidate((), bits)
        return [first, *(c for c in self._known.values() if c is not first)]

    def _candidate(self, dropped: Sequence[Hashable], bits: int) -> Candidate:
        key = (frozenset(dropped), bits)
        if key not in self._known:
            self._known[key] = self._made(dropped, bits)
        return self._known[key]

    def _made(self, dropped: Sequence[Hashable], bits: int) -> Candidate:
        structure, y = self._structure, self._y
        whole = not dropped and bits == structure.bits(())
        program = structure.program if whole else structure.smaller(dropped, bits)
        scores = self._whole if whole else structure.scores(program, dropped)
        low, high = paired_interval(y, self._whole, scores)
        try:
            cost = cost_of(program.public, self._engine, self._role)
        except FixProgramError:
            cost = None
        area = auroc(y, scores)
        return Candidate(
            parts=structure.parts - len(dropped),
            bits=bits,
            program=program,
            auroc=area,
            loss=auroc(y, self._whole) - area,
            low=low,
            high=high,
            cost=cost,
            flagged=self._flagged if whole else _reachable(scores[y != 1], self._flagged),
        )


def _reachable(scores: Array, wanted: int) -> int:
    """The number of scores above some threshold that comes nearest to `wanted`: ties may keep others away."""
    above = exact_nearest(scores, wanted, "").value
    return int((scores > above).sum())


def _price(candidate: Candidate, by: By) -> tuple[float, float]:
    cost = candidate.cost
    if cost is None:
        return float("inf"), float("inf")
    return (cost.traffic, cost.work) if by == "bytes" else (cost.work, cost.traffic)


def _checked(y: Array | None, records: int) -> Array:
    """Labels of both kinds, or `FixInputError`."""
    if y is None:
        raise FixInputError(
            "without labels nobody can tell what AUROC a smaller model loses",
            remedy="Name the column of known anomalies (1, else 0) with --label.",
        )
    y = np.asarray(y)
    if y.shape != (records,) or not np.isin(y, (0, 1)).all():
        raise FixInputError("labels are 0 or 1, one for each record", value=y.shape, remedy="Use 1 for anomalies.")
    anomalies = int(y.sum())
    if anomalies in (0, records):
        raise FixInputError(
            "the records are all of one class, so there is no AUROC",
            value=f"{anomalies} anomalies among {records}",
            remedy="Give records of both kinds.",
        )
    if min(anomalies, records - anomalies) < FEWEST_ROWS:
        raise FixInputError(
            f"fewer than {FEWEST_ROWS} records of a class tell no loss of AUROC",
            value=f"{anomalies} anomalies among {records}: one more or less moves AUROC by up to "
            f"{1 / min(anomalies, records - anomalies):.2g}",
            remedy="Label more records.",
        )
    return y


def _judged(y: Array) -> Array:
    """Rows to look at: all, or of many every anomaly (half of them at most) and normal ones drawn by a fixed seed."""
    if len(y) <= MOST_ROWS:
        return np.arange(len(y))
    rng = np.random.default_rng(_SEED)
    anomalies = rng.permutation(np.flatnonzero(y == 1))[: MOST_ROWS // 2]
    normal = rng.permutation(np.flatnonzero(y != 1))[: MOST_ROWS - len(anomalies)]
    return np.sort(np.concatenate([anomalies, normal]))


def _engine(public: PublicProgram, role: Role, wanted: str | None) -> str:
    """The engine whose costs count: the one named, else the first of a service that carries the program, else any."""
    among_two = [spec.name for spec in carriers(public, parties=2) if role in spec.roles]
    if wanted in among_two:
        return str(wanted)
    if wanted is None and among_two and not any(role in spec.roles for spec in carriers(public)):
        return among_two[0]
    return choose(public, role, engine=wanted).name


def _refuse_unless_telling(
    chosen: Candidate, candidates: Sequence[Candidate], anomalies: int, max_loss: float, sure: bool
) -> None:
    if chosen is candidates[0]:
        others = [c for c in candidates[1:] if c.cost is not None]
        nearest = min(others, key=lambda c: c.high if sure else c.loss, default=None)
        told = None if nearest is None else f"the least is {nearest.loss:.4f}, {nearest.low:.4f} to {nearest.high:.4f}"
        raise FixInputError(
            "nothing cheaper keeps the loss" if others else "there is nothing to make smaller",
            value=told,
            remedy="Allow a larger --max-loss, or give more labelled records.",
        )
    # An interval that reaches so far tells nothing that anyone would act upon.
    if chosen.high > max_loss + _TELLING:
        raise FixInputError(
            f"{anomalies} anomalies are too few to tell what is lost",
            value=f"{chosen.loss:.4f}, but as well anything from {chosen.low:.4f} to {chosen.high:.4f}",
            remedy="Label more records, or ask with --sure for a loss whose interval keeps the limit, too.",
        )


def _bundle(bundle: Bundle, chosen: Candidate, structure: Structure, before: Array, scores: Array, y: Array) -> Bundle:
    """The chosen program with a threshold of its own and a statement that says what it was chosen by."""
    most = structure.bits(())
    bits = f", {chosen.bits} of {most} bits" if most else ""
    replaced = structure.part == "units" and chosen.parts < structure.parts
    what = (
        f"{chosen.parts} of {structure.parts} {structure.part}{bits}"
        + ", constants in place of the others" * replaced
        + f" and the threshold, chosen by {len(y):,} labelled records"
    )
    earlier = bundle.public.privacy.shrunk
    statement = dataclasses.replace(bundle.public.privacy, shrunk=f"{earlier}; then {what}" if earlier else what)
    public = dataclasses.replace(
        bundle.public,
        program=chosen.program.public,
        threshold=_threshold(bundle.public.threshold, before, scores, y),
        privacy=statement,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        version=__version__,
    )
    return Bundle(public, chosen.program.secret)


def _threshold(old: Threshold, before: Array, scores: Array, y: Array) -> Threshold:
    """As large a share of normal records flagged as before; where that was none or all, on the line between scores."""
    normal = y != 1
    flagged = int((before[normal] > old.value).sum())
    if 0 < flagged < normal.sum():
        what = (
            f"flags as many as before ({flagged:,}) of {int(normal.sum()):,} validation records that are no anomalies"
        )
        return exact_nearest(scores[normal], flagged, what)
    slope, at_zero = np.polyfit(before, scores, 1)
    what = f"the threshold before ({old.value:.6g}) on the line that fits scores of validation records to those before"
    return Threshold(float(slope * old.value + at_zero), what)
