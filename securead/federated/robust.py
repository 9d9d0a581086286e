"""Combining what a coordinator sees in a round, so that one bad site cannot decide on the model.

A *contribution* is one site's update, or the exact sum of a group of sites where sums are masked. `bounded` limits what
one contribution can do; a *rule* says how they are put together: "sum" adds them up exactly; "median" and "trimmed"
take every coordinate's median or trimmed mean (Yin, Chen, Ramchandran and Bartlett 2018); "krum" the mean of those that
lie closest together (Multi-Krum: Blanchard, El Mhamdi, Guerraoui and Stainer 2017; El Mhamdi, Guerraoui and Rouault
2018). All but the sum put contributions on one footing first - tables of counts become shares of their own records,
weighted sums become averages - and then give each one vote, however many records it claims: nobody can check a claim.
They cost accuracy: small sites' noise counts as much as large sites' records, and what few sites have seen is lost.

Pure functions of public values; nothing here looks at a record or spends a budget.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from securead.data.schema import Array
from securead.data.windows import WindowedSchema
from securead.errors import FixConfigurationError, FixInputError, PrivacyRefusedError
from securead.models.estimator import SCALING, THRESHOLD, AnomalyDetector
from securead.models.layout import Layout
from securead.models.local import LOCAL
from securead.models.threshold import Costs
from securead.models.training import State, Total
from securead.privacy import preprocessing

Rule = Literal["sum", "median", "trimmed", "krum"]
RULES: tuple[Rule, ...] = ("sum", "median", "trimmed", "krum")
# So many standard deviations of its own noise nobody's honest contribution strays: once in 10**9 entries.
_SURELY = 6.0
# A number of records within so many deviations of zero tells nothing.
_SIGNIFICANT = 3.0
# Medians of a row's shares may sum to less than one: what is missing is given back up to this factor.
_MOST_RESTORED = 4.0
_LARGEST = 2.0**62
# Noise is simulated so often, and for so many entries at least.
_DRAWS, _SIMULATED = 16, 4000
_FINEST = 2.0**40


@dataclass(frozen=True, eq=False)
class Contribution:
    """What the coordinator sees of `sites` sites, int64: one's update or a group's exact sum; its noise's variance."""

    values: Array
    sites: int = 1
    noise_variance: float = 0.0


@dataclass(frozen=True)
class Bound:
    """How far one site may move the model; public, so that a site can keep to it and a coordinator can insist.

    records: the most records that a site may claim. Tables are held to so many a row, and a sum's weight to as much;
        what a record can add to such a sum at most follows from the detector, and is held to, too.
    change: the largest L2 change of averaged weights in one round; of a group's average where only sums are seen.
    """

    records: int | None = None
    change: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("records", self.records), ("change", self.change)):
            if value is not None and not 0 < value < math.inf:
                raise FixConfigurationError(f"a bound's {name} is positive", value=value, remedy="Or leave it out.")


@dataclass(frozen=True, eq=False)
class Combined:
    """The total that the detector goes on from, and whose contributions were cut back or left out (positions)."""

    total: Total
    clipped: tuple[int, ...] = ()
    left_out: tuple[int, ...] = ()


def layout_of(detector: AnomalyDetector, state: State) -> Layout:
    """How the updates of the state's stage are laid out."""
    if state.stage == SCALING:
        return Layout("table", unit=preprocessing.sensitivity(1), rows=len(state.schema.columns))
    if state.stage == THRESHOLD:
        parts = 2 if isinstance(detector.threshold, Costs) else 1
        return Layout("table", unit=preprocessing.sensitivity(1), rows=parts, one_row=True)
    if state.stage == LOCAL:
        return Layout(
            "votes", rows=len(state.schema.window.channels) if isinstance(state.schema, WindowedSchema) else 1
        )
    return detector.model_layout(state)


def least_contributions(rule: Rule, attackers: int) -> int:
    """How many contributions a rule needs against so many bad ones."""
    return {"sum": 1, "median": max(3, 2 * attackers + 1), "trimmed": 2 * attackers + 1, "krum": 2 * attackers + 3}[
        rule
    ]


def refuse_impossible(rule: Rule, *, contributions: int, sites: int, attackers: int = 1) -> None:
    """Raise `FixConfigurationError` for a rule that cannot work on so many contributions of so many sites in all."""
    if rule not in RULES:
        raise FixConfigurationError(f"a rule is one of {', '.join(RULES)}", value=rule)
    if attackers < 1:
        raise FixConfigurationError("a robust rule assumes at least one bad site", value=attackers)
    if rule == "krum" and sites > contributions:
        raise FixConfigurationError(
            "Krum compares single sites' updates, and sums of groups hide them",
            value=f"{contributions} sums of {sites} sites",
            remedy="Use median or trimmed on the sums, or plain aggregation.",
        )
    if contributions < (least := least_contributions(rule, attackers)):
        raise FixConfigurationError(
            f"the rule {rule!r} withstands {attackers} bad site(s) among {least} contributions or more",
            value=contributions,
            remedy="Use more sites or groups, or the rule sum with a bound.",
        )


def combine(
    state: State,
    contributions: Sequence[Contribution],
    *,
    layout: Layout,
    rule: Rule = "sum",
    attackers: int = 1,
    bound: Bound | None = None,
) -> Combined:
    """One round's total from what the coordinator sees, in any order of contributions.

    "sum" without a bound is what `add_up` gives, bit for bit. Any other rule withstands `attackers` bad sites, each of
    which spoils one contribution: "trimmed" drops so many largest and so many smallest values of a coordinate, so that
    what is left lies within the range of honest ones. A contribution whose noised number of records cannot be told from
    zero is left out. The total then stands for as many records as the sites have by the same rule.

    The stated `noise_variance` is exact for "sum". For the others it is simulated: the variance that the rule's result
    gets, on average over coordinates, when as much noise as the contributions hold is added to them once more. As they
    are spread by their noise already, that rather overstates it (tests measure by how much); the noise in numbers of
    records is neglected.

    Raises `FixInputError` for contributions of different shapes, `FixConfigurationError` by `refuse_impossible`,
    `PrivacyRefusedError` where too few contributions can be told from noise, `OverflowError` beyond 64 bits.
    """
    if not contributions:
        raise FixInputError("a round needs at least one contribution", where=state.stage)
    shape, sites = contributions[0].values.shape, sum(each.sites for each in contributions)
    for each in contributions:
        if each.values.shape != shape or each.values.dtype != np.int64 or each.sites < 1:
            raise FixInputError(
                "a contribution does not fit the round", value=(each.values.shape, each.sites), where=state.stage
            )
    refuse_impossible(rule, contributions=len(contributions), sites=sites, attackers=attackers)
    seen = list(contributions) if rule == "sum" and bound is None else _with_usual_noise(contributions)
    held = seen
    if bound is not None or layout.kind == "votes":
        held = [
            dataclasses.replace(
                each,
                values=bounded(
                    each.values, sites=each.sites, noise_variance=each.noise_variance, layout=layout, bound=bound
                ),
            )
            for each in seen
        ]
    clipped = tuple(at for at, each in enumerate(held) if not np.array_equal(each.values, seen[at].values))
    if rule == "sum" or layout.kind == "votes":
        values = _exact_sum([each.values for each in held])
        return Combined(Total(state.stage, values, sum(each.noise_variance for each in seen), sites), clipped)
    masses = np.array([_records(each, layout) for each in held])
    usable = [at for at, each in enumerate(held) if masses[at] > _SIGNIFICANT * _doubt(each, layout)]
    if len(usable) < least_contributions(rule, attackers):
        raise PrivacyRefusedError(
            f"too few contributions for the rule {rule!r}: the others' noised records cannot be told from none",
            value=len(usable),
            remedy="Add records, allow a larger epsilon, or use the rule sum.",
        )
    values, variance = _robustly([held[at] for at in usable], masses[usable], layout, rule, attackers)
    if not np.abs(values).max(initial=0.0) < _LARGEST:
        raise OverflowError("the combined contributions do not fit 64 bits")
    total = Total(state.stage, np.rint(values).astype(np.int64).reshape(shape), variance, sites)
    return Combined(total, clipped, tuple(at for at in range(len(held)) if at not in usable))


def middle(estimates: Array, trim: int) -> Array:
    """The mean `(p,)` of each coordinate's values `(k, p)` less `trim` smallest and largest.

    With `trim` of (k - 1) // 2 that is the median. Whatever `trim` of the rows hold, every coordinate lies within the
    range of the others.
    """
    found: Array = np.sort(estimates, axis=0)[trim : len(estimates) - trim].mean(axis=0)
    return found


def closest(estimates: Array, attackers: int) -> Array:
    """Multi-Krum: positions of the k - attackers - 2 rows `(k, p)` with the least distance to their neighbours.

    A row's score is the sum of squared distances to its k - attackers - 2 nearest others.
    """
    neighbours = len(estimates) - attackers - 2
    distances = np.stack([((estimates - row) ** 2).sum(axis=1) for row in estimates])
    np.fill_diagonal(distances, np.inf)
    scores = np.sort(distances, axis=1)[:, :neighbours].sum(axis=1)
    return np.sort(np.argsort(scores, kind="stable")[:neighbours])


def bounded(values: Array, *, sites: int, noise_variance: float, layout: Layout, bound: Bound | None) -> Array:
    """A contribution within the bound: the same array where it is, else the nearest that is easy to find.

    A coordinator runs it on everything that it sees. A site runs it, with `sites=1`, on its own noised update before it
    is masked or sent: that looks at nothing but the update, so it costs no privacy, and every honest group's sum then
    passes unchanged. Room is left for the noise, so that honest updates of no more records than allowed pass as well.

    Tables: no entry lies further below zero than noise can be, and what a row holds above zero is scaled down to the
    records allowed. Weighted sums: so is the weight, with all else; what a record cannot add is taken back; averages
    stay within `change` of what they were; a weight below zero makes the contribution void. Opaque ones are refused.
    """
    if layout.kind == "opaque":
        raise FixConfigurationError(
            "this detector does not tell what an honest update looks like, so nothing can be bounded",
            remedy="Have it tell its layout (`model_layout`), or leave the bound out.",
        )
    if layout.kind == "votes":
        return _bounded_votes(values, sites)
    bound = bound or Bound()
    deviation = math.sqrt(noise_variance)
    if layout.kind == "table":
        return _bounded_table(values, sites, deviation, layout, bound)
    return _bounded_sums(values, sites, deviation, layout, bound)


def groups_of(names: Sequence[str], groups: int, seed: str, *, smallest: int = 1) -> tuple[tuple[str, ...], ...]:
    """A partition of sites into groups whose sizes differ by one at most, which everybody can recompute.

    `seed` names the run and the round; names are ordered by their digests under it. Whoever chooses the seed chooses
    the groups: it must be fixed before a site answers. Raises `FixConfigurationError` where a group would be too small.
    """
    if len(set(names)) != len(names):
        raise FixConfigurationError("sites have distinct names", value=list(names))
    if groups < 1 or len(names) // groups < max(1, smallest):
        raise FixConfigurationError(
            f"{len(names)} sites make no {groups} groups of {max(1, smallest)} or more",
            value=groups,
            remedy="Use fewer groups.",
        )
    order = sorted(names, key=lambda name: hashlib.sha256(f"{seed}\0{name}".encode()).digest())
    size, longer = divmod(len(names), groups)
    cuts = [at * size + min(at, longer) for at in range(groups + 1)]
    return tuple(tuple(order[a:b]) for a, b in itertools.pairwise(cuts))


def _with_usual_noise(contributions: Sequence[Contribution]) -> list[Contribution]:
    """The same with the noise that most of them state for a site: all follow one plan, and whoever states more lies."""
    stated = [each.noise_variance / each.sites for each in contributions]
    usual = sorted(variance if 0 <= variance < math.inf else math.inf for variance in stated)[(len(stated) - 1) // 2]
    if not math.isfinite(usual):
        raise FixInputError("most contributions state no noise that there can be", value=max(stated))
    return [dataclasses.replace(each, noise_variance=usual * each.sites) for each in contributions]


def _exact_sum(arrays: Sequence[Array]) -> Array:
    if sum(max(int(each.max(initial=0)), -int(each.min(initial=0))) for each in arrays) >= 2**63:
        raise OverflowError("the sum of contributions does not fit 64 bits")
    total = np.zeros_like(arrays[0])
    for each in arrays:
        total = total + each
    return total


def _records(each: Contribution, layout: Layout) -> float:
    """How many records a contribution says that it holds, noised; its number of sites where it does not say."""
    if layout.kind == "table":
        return float(each.values.sum(dtype=np.float64)) / layout.per_record
    return float(each.values[-1]) / layout.unit if layout.kind == "weighted" else float(each.sites)


def _doubt(each: Contribution, layout: Layout) -> float:
    """The standard deviation of that number."""
    deviation = math.sqrt(each.noise_variance)
    if layout.kind == "table":
        return deviation * math.sqrt(each.values.size) / layout.per_record
    return deviation / layout.unit if layout.kind == "weighted" else 0.0


def _robustly(
    counted: Sequence[Contribution], masses: Array, layout: Layout, rule: Rule, attackers: int
) -> tuple[Array, float]:
    """The flat total and its noise variance; every contribution holds a number of records above zero."""
    estimates = np.stack([each.values.ravel() for each in counted]) / masses[:, None]
    rates = masses / np.array([each.sites for each in counted])
    trim = (len(counted) - 1) // 2 if rule == "median" else attackers

    def put_together(found: Array) -> Array:
        return found[closest(found, attackers)].mean(axis=0) if rule == "krum" else middle(found, trim)

    estimate = put_together(estimates)
    rate = float(rates[closest(estimates, attackers)].mean() if rule == "krum" else middle(rates[:, None], trim)[0])
    deviations = np.array([math.sqrt(each.noise_variance) for each in counted])[:, None] / masses[:, None]
    variance = _simulated_variance(put_together, estimates, deviations)
    if layout.kind == "table":
        table = estimate.reshape(1 if layout.one_row else layout.rows, -1)
        wanted = layout.unit * layout.per_row
        factors = wanted / np.maximum(table.sum(axis=1, keepdims=True), wanted / _MOST_RESTORED)
        estimate, variance = (table * factors).ravel(), variance * float((factors**2).mean())
    records = rate * sum(each.sites for each in counted)
    if layout.reference is not None:
        # Of averages only the ratio to the weight counts: as fine as float64 has it, however coarse the weights are.
        records *= max(1.0, _FINEST / (records * layout.unit))
    total: Array = estimate * records
    if layout.kind == "weighted":
        total[-1] = layout.unit * records
    return total, records**2 * variance


def _simulated_variance(rule: Callable[[Array], Array], estimates: Array, deviations: Array) -> float:
    """The variance that noise of these deviations gives a rule's result, on average over coordinates."""
    if not deviations.any():
        return 0.0
    # From a fixed seed: whoever sees the same contributions finds the same total.
    rng, draws = np.random.default_rng(0), max(_DRAWS, math.ceil(_SIMULATED / estimates.shape[1]))
    first, second = np.zeros(estimates.shape[1]), np.zeros(estimates.shape[1])
    center = rule(estimates)
    for _ in range(draws):
        moved = rule(estimates + deviations * rng.standard_normal(estimates.shape)) - center
        first, second = first + moved, second + moved**2
    return float(((second - first**2 / draws) / (draws - 1)).mean())


def _bounded_votes(values: Array, sites: int) -> Array:
    """At most one vote a site in every row, and none below zero."""
    rows = np.clip(values, 0, sites).reshape(len(values), -1)
    excess = np.maximum(rows.sum(axis=1, keepdims=True), sites)
    held: Array = (rows * sites // excess).reshape(values.shape)
    return values if np.array_equal(held, values) else held


def _bounded_table(values: Array, sites: int, deviation: float, layout: Layout, bound: Bound) -> Array:
    rows = np.maximum(values, -math.floor(_SURELY * deviation)).reshape(layout.rows, -1)
    if bound.records is not None:
        entries = rows.shape[1]
        # The part of Gaussian noise above zero has mean 1 / sqrt(2 pi) and variance 1/2 - 1 / (2 pi) an entry.
        noise = entries / math.sqrt(2 * math.pi) + _SURELY * math.sqrt(entries * (0.5 - 0.5 / math.pi))
        most = bound.records * sites * layout.unit * layout.per_row + deviation * noise
        above = np.maximum(rows, 0).sum(axis=1, keepdims=True, dtype=np.float64)
        scaled = np.floor(rows * (most / np.maximum(above, most)) * (1 - 1e-12)).astype(np.int64)
        rows = np.where((above > most) & (rows > 0), scaled, rows)
    held: Array = rows.reshape(values.shape)
    return values if np.array_equal(held, values) else held


def _bounded_sums(values: Array, sites: int, deviation: float, layout: Layout, bound: Bound) -> Array:
    noise = _SURELY * deviation / layout.unit
    weight = float(values[-1]) / layout.unit
    if weight < -noise or (weight <= 0 and not noise):
        return np.zeros_like(values)
    held = values
    if bound.records is not None and weight > bound.records * sites + noise:
        allowed = (bound.records * sites + noise) / weight
        held = np.trunc(values * allowed * (1 - 1e-12)).astype(np.int64)
        weight *= allowed
    if layout.l2_per_record is not None:
        most = (max(weight, 0.0) + noise) * layout.l2_per_record
        most += deviation * (math.sqrt(len(values)) + _SURELY)
        norm = float(np.linalg.norm(held[:-1].astype(np.float64)))
        if norm > most * (1 + 1e-9):
            held = np.append(np.trunc(held[:-1] * (most / norm)).astype(np.int64), held[-1:])
    if layout.reference is not None and bound.change is not None:
        held = _near(held, layout.reference, bound.change / layout.scale)
    return held


def _near(values: Array, reference: Array, change: float) -> Array:
    """Weighted averages within `change` of the reference, but for the rounding of their steps."""
    if values.shape != (len(reference) + 1,):
        raise FixInputError("a contribution does not fit the model", value=values.shape)
    weight = float(values[-1])
    if weight <= 0:
        return values
    moved = values[:-1] / weight - reference
    norm = float(np.linalg.norm(moved))
    if norm <= change * (1 + 1e-9) + math.sqrt(len(moved)) / weight:
        return values
    return np.append(np.rint((reference + moved * (change / norm)) * weight).astype(np.int64), values[-1:])
