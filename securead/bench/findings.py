"""What a suite's numbers say, in sentences: every one computed from the records, none kept in a text.

A detector is said to beat a control on a data set when it does with every seed, not to beat it when it does with none,
and otherwise that it depends on the seed. Costs are medians. Records that failed say nothing here.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from securead.bench.measured import (
    Setting,
    by_role,
    engine_name,
    epsilon_words,
    is_protected,
    joined,
    row_seconds,
    settings,
)
from securead.bench.records import Case, Record
from securead.bench.scaling import all_series, axis_words, seconds_words, series_names
from securead.bench.wording import NORM, UNTRAINED, area, counted, number, percent, size

Kind = Literal["wins", "loses", "even"]

# Losses of area below this are shown as none: four places are what is shown.
_NOTHING = 5e-5
_FAR_LINK = 0.25
# Controls and what a sentence calls them.
_AGAINST = {
    "norm": f"the norm {NORM}",
    "untrained": UNTRAINED,
    "no_data": "the same trained on noise in place of records",
    "best_site": "the best that one site reaches alone",
}


@dataclass(frozen=True)
class Finding:
    """A sentence with its numbers, and whether it speaks for us: "loses" where a claim would be untrue."""

    topic: str
    kind: Kind
    sentence: str
    numbers: str = ""


def findings(measured: Sequence[Record]) -> tuple[Finding, ...]:
    """All that can be said of these records, in the order in which a reader asks."""
    found = settings(measured)
    return (
        *_encryption(found),
        *_controls(found),
        *_noise(found),
        *_peers(measured),
        *_links(measured),
        *_aggregation(measured),
        *_offline(found),
        *_extraction(found),
        *_growth(found),
        *_provenance(measured),
    )


# --- does encryption change the answers, and what does it cost --------------------------------------------------------


def _encryption(found: Sequence[Setting]) -> Iterator[Finding]:
    groups: dict[tuple[str, str], list[Setting]] = {}
    for one in found:
        if one.case.kind == "score" and is_protected(one.case) and one.lead("float") is not None:
            groups.setdefault((one.case.detector, engine_name(one.case)), []).append(one)
    for (detector, engine), own in groups.items():
        losses: dict[str, float] = {}
        for one in own:
            if (spread := one.lead("float")) is not None:
                losses[one.case.dataset] = max(losses.get(one.case.dataset, -1.0), -spread.median)
        worst = max(losses, key=lambda name: losses[name])
        where = f"On {worst}" if len(losses) == 1 else f"On {len(losses)} data sets"
        loss = losses[worst]
        what = _lost(loss) if len(losses) == 1 else f"{_lost(loss, most=True)} (on {worst})"
        said = f"{where}, the {detector} under {engine} {what} to the model in the clear"
        cost, several = _costs(own)
        sentence = f"{said} and costs {cost}." if cost else f"{said}."
        kind: Kind = "wins" if loss < 0.001 else "even" if loss < 0.01 else "loses"
        yield Finding("Encryption", kind, sentence, f"{_rank(own)} {several}".strip())


def _lost(loss: float, *, most: bool = False) -> str:
    if abs(loss) < _NOTHING:
        return "loses no AUROC"
    if loss < 0:
        return f"gains {area(-loss)} AUROC"
    return f"loses {'at most ' if most else ''}{area(loss)} AUROC"


def _costs(own: Sequence[Setting]) -> tuple[str, str]:
    """What a row costs at the median, and from what to what it costs where settings differ."""
    times = sorted(value for one in own if (value := one.seconds) is not None)
    sizes = sorted(value for one in own if (value := one.bytes) is not None)
    middle, ranges = [], []
    if times:
        middle.append(f"{seconds_words(median(times))} of processor time")
        ranges.append(f"{seconds_words(times[0])} to {seconds_words(times[-1])}")
    if sizes:
        middle.append(size(median(sizes)))
        ranges.append(f"{size(sizes[0])} to {size(sizes[-1])}")
    several = f"Over {len(own)} settings: {', '.join(ranges)}." if len(own) > 1 and ranges else ""
    return f"{' and '.join(middle)} a row" if middle else "", several


def _rank(own: Sequence[Setting]) -> str:
    errors = [s.high for one in own if (s := one.spread(lambda r: r.fidelity.max_error_to_integer)) is not None]
    if not errors:
        return ""
    if max(errors) == 0:
        return "Every score is the integer program's own."
    return f"A score moves by at most {number(max(errors), 2)} against the integer program's."


# --- is training worth it ---------------------------------------------------------------------------------------------


def _controls(found: Sequence[Setting]) -> Iterator[Finding]:
    for over, name in _AGAINST.items():
        groups: dict[str, dict[float | None, dict[str, Setting]]] = {}
        # Of the same detector under several engines the one in the clear speaks: engines are compared above.
        for one in sorted(found, key=_by_trust):
            if not one.case.peer and one.lead(over) is not None:
                own = groups.setdefault(one.case.detector, {}).setdefault(one.case.epsilon, {})
                own.setdefault(one.case.dataset, one)
        for detector, by_epsilon in groups.items():
            yield _against(detector, by_epsilon, over, name)


def _by_trust(one: Setting) -> tuple[bool, bool]:
    return one.case.kind != "train", is_protected(one.case)


def _strength(epsilon: float | None) -> float:
    return math.inf if epsilon is None else epsilon


def _against(detector: str, by_epsilon: dict[float | None, dict[str, Setting]], over: str, name: str) -> Finding:
    """The sentence speaks of the epsilon nearest to 1; the numbers under it of all."""
    order = sorted(by_epsilon, key=_strength)
    chosen = min(order, key=lambda epsilon: abs(math.log(_strength(epsilon))))
    ends = {epsilon: _endings(own, over) for epsilon, own in by_epsilon.items()}
    beaten, unsure, lost, leads = ends[chosen]
    rest, total = [*lost, *unsure], len(leads)
    subject = f"{detector} {_when(chosen)}"
    if total == 1:
        verb = "beats" if beaten else "does not beat" if lost else "beats, with some seeds only,"
        sentence = f"On {leads[0][1]}, the {subject} {verb} {name}."
    elif not rest:
        sentence = f"The {subject} beats {name} on all {total} data sets."
    else:
        sentence = f"The {subject} does not beat {name} on {len(rest)} of {total} data sets ({joined(rest)})."
    (worst, where), (best, at) = min(leads), max(leads)
    numbers = f"Lead in AUROC {_signed(best)}"
    numbers += f" at best (on {at}), {_signed(worst)} at worst (on {where})" if total > 1 else ""
    numbers += f"; {counted(max(len(one.records) for one in by_epsilon[chosen].values()), 'seed')}."
    numbers += f" It depends on the seed on {joined(unsure)}." if unsure and total > 1 else ""
    if len(order) > 1:
        shown = [f"{_when(epsilon)} on {len(ends[epsilon][0])} of {len(ends[epsilon][3])}" for epsilon in order]
        numbers += f" It beats it {joined(shown, most=9)}."
    kind: Kind = "wins" if not rest else "loses" if len(lost) * 2 >= total else "even"
    return Finding("Is training worth it?", kind, sentence, numbers)


def _endings(own: dict[str, Setting], over: str) -> tuple[list[str], list[str], list[str], list[tuple[float, str]]]:
    """Data sets where the control is beaten with every seed, with some, with none; the median lead on each."""
    beaten: list[str] = []
    unsure: list[str] = []
    lost: list[str] = []
    leads = []
    for dataset, one in own.items():
        if (spread := one.lead(over)) is not None:
            leads.append((spread.median, dataset))
            (beaten if spread.low > 0 else unsure if spread.high > 0 else lost).append(dataset)
    return beaten, unsure, lost, leads


def _when(epsilon: float | None) -> str:
    return "without noise" if epsilon is None else f"at {epsilon_words(epsilon)}"


def _signed(value: float) -> str:
    return f"{value:+.4f}".replace("-", "−")


# --- what privacy costs -----------------------------------------------------------------------------------------------


def _noise(found: Sequence[Setting]) -> Iterator[Finding]:
    free: dict[tuple[str, str], float] = {}
    noised: dict[str, dict[float, dict[str, float]]] = {}
    for one in sorted(found, key=_by_trust):
        if one.case.peer or (spread := one.auroc) is None:
            continue
        case = one.case
        if case.epsilon is None:
            free.setdefault((case.detector, case.dataset), spread.median)
        else:
            own = noised.setdefault(case.detector, {}).setdefault(case.epsilon, {})
            own.setdefault(case.dataset, spread.median)
    for detector, by_epsilon in noised.items():
        costs = {
            epsilon: {name: free[detector, name] - value for name, value in own.items() if (detector, name) in free}
            for epsilon, own in sorted(by_epsilon.items())
        }
        costs = {epsilon: own for epsilon, own in costs.items() if own}
        if not costs:
            continue
        prices = {epsilon: median(own.values()) for epsilon, own in costs.items()}
        shown = [f"{area(max(price, 0.0))} AUROC {_when(epsilon)}" for epsilon, price in prices.items()]
        names = list(dict.fromkeys(name for own in costs.values() for name in own))
        where = f"On {names[0]}, p" if len(names) == 1 else "P"
        sentence = f"{where}rivacy costs the {detector} {joined(shown, most=9)}."
        worst, at, epsilon = max((cost, name, epsilon) for epsilon, own in costs.items() for name, cost in own.items())
        numbers = f"Medians of {len(names)} data sets; at most {area(worst)}, on {at} {_when(epsilon)}."
        near = prices[min(prices, key=lambda epsilon: abs(math.log(epsilon)))]
        kind: Kind = "wins" if near < 0.01 else "even" if near < 0.03 else "loses"
        yield Finding("What privacy costs", kind, sentence, numbers if len(names) > 1 else "")


# --- peers ------------------------------------------------------------------------------------------------------------


def _peers(measured: Sequence[Record]) -> Iterator[Finding]:
    ours: dict[Hashable, list[Record]] = {}
    for record in measured:
        if record.case.kind == "score":
            ours.setdefault(_matched(record.case), []).append(record)
    ratios: dict[tuple[str, str, str], list[tuple[float, Record, int]]] = {}
    gaps: dict[tuple[str, str, str], list[tuple[float, str]]] = {}
    for record in measured:
        beside = ours.get(_matched(record.case), []) if record.case.kind == "peer" else []
        if not beside:
            continue
        named = engine_name(beside[0].case) if record.case.engine != "clear" else "our clear engine"
        key = engine_name(record.case), named, record.case.detector
        own = [value for one in beside if (value := row_seconds(one)) is not None]
        theirs = row_seconds(record)
        if own and theirs is not None and min(own) > 0 and theirs > 0:
            ratios.setdefault(key, []).append((theirs / median(own), record, beside[0].rows))
        # A peer that scored some of the rows, or a model of another epsilon, ranks something else.
        alike = [one for one in beside if one.rows == record.rows and one.case.epsilon == record.case.epsilon]
        areas = [value for one in alike if (value := one.accuracy.auroc) is not None]
        if areas and record.accuracy.auroc is not None:
            gaps.setdefault(key, []).append((median(areas) - record.accuracy.auroc, record.case.dataset))
    for (peer, engine, detector), found in ratios.items():
        yield _ratio(peer, engine, detector, found)
    for (peer, engine, detector), own_gaps in gaps.items():
        behind = [name for gap, name in own_gaps if gap < -0.001]
        worst, where = min(own_gaps)
        if behind:
            sentence = (
                f"{peer} ranks better than the {detector} {_under(engine)} on {joined(list(dict.fromkeys(behind)))}."
            )
        else:
            sentence = f"The {detector} {_under(engine)} ranks as well as {peer} or better on the same rows."
        yield Finding("Peers", "loses" if behind else "wins", sentence, f"AUROC {_signed(worst)} at worst, on {where}.")


def _under(engine: str) -> str:
    return f"in {engine}" if engine.startswith("our") else f"under {engine}"


def _ratio(peer: str, engine: str, detector: str, found: Sequence[tuple[float, Record, int]]) -> Finding:
    factors = [factor for factor, _, _ in found]
    middle = median(factors)
    sets = joined(list(dict.fromkeys(record.case.dataset for _, record, _ in found)))
    rows = sorted({record.rows for _, record, _ in found})
    counts = counted(rows[0], "row") if len(rows) == 1 else f"{rows[0]:,} to {rows[-1]:,} rows"
    if all(record.rows == own for _, record, own in found):
        sentence = f"{peer} took {number(middle)} × as long as {engine} on the same {counts} of {sets} ({detector})."
    else:
        sentence = f"{peer} took {number(middle)} × as long a row as {engine} on {counts} of {sets} ({detector})."
    numbers = ""
    if len(found) > 1:
        numbers = f"{number(min(factors))} to {number(max(factors))} × over {len(found)} comparisons."
    return Finding("Peers", "wins" if middle > 1.05 else "loses" if middle < 0.95 else "even", sentence, numbers)


def _matched(case: Case) -> Hashable:
    return case.dataset, case.detector, case.engine, case.rows, case.batch, case.parameters


# --- what else it costs -----------------------------------------------------------------------------------------------


def _links(measured: Sequence[Record]) -> Iterator[Finding]:
    for link, name in (("lan", "LAN"), ("wan", "WAN")):
        own = [record for record in measured if record.case.link == link and record.predicted_seconds is not None]
        times: dict[str, list[float]] = {}
        for record in own:
            times.setdefault(engine_name(record.case), []).append(record.predicted_seconds or 0.0)
        if not times:
            continue
        shown = [f"{engine} {seconds_words(median(values))}" for engine, values in times.items()]
        pairs = [(r.predicted_seconds, r.delayed_seconds) for r in own if r.delayed_seconds]
        misses = [abs(predicted / delayed - 1) for predicted, delayed in pairs if predicted and delayed]
        checked = f"Predictions miss runs with that delay injected by at most {percent(max(misses))}." if misses else ""
        kind: Kind = "loses" if misses and max(misses) > _FAR_LINK else "even"
        yield Finding(
            "Links",
            kind,
            f"A request over the {name} takes {joined(shown)}.",
            checked or "No run checked this prediction.",
        )


def _aggregation(measured: Sequence[Record]) -> Iterator[Finding]:
    masked: dict[object, dict[str, Record]] = {}
    for record in measured:
        if record.case.kind == "train":
            case = record.case
            key = case.dataset, case.detector, case.parameters, case.epsilon, case.sites, case.executor, case.seed
            masked.setdefault(key, {})[case.aggregation] = record
    ratios = []
    for own in masked.values():
        if {"plain", "masked"} <= set(own):
            plain, hidden = row_seconds(own["plain"]), row_seconds(own["masked"])
            if plain and hidden:
                ratios.append(hidden / plain)
    if ratios:
        sentence = f"Masked sums make training take {number(median(ratios))} × as long as plain ones."
        yield Finding("Federation", "even", sentence, f"Median of {counted(len(ratios), 'pair')} of runs.")


def _offline(found: Sequence[Setting]) -> Iterator[Finding]:
    shares: dict[str, list[float]] = {}
    for one in found:
        if one.case.kind != "score":
            continue
        ahead = one.spread(lambda record: sum(by_role(record, offline=True).values()))
        if ahead is not None and ahead.median > 0 and one.seconds:
            shares.setdefault(engine_name(one.case), []).append(ahead.median / (ahead.median + one.seconds))
    for engine, own in shares.items():
        yield Finding(
            "Offline work",
            "even",
            f"Of what {engine} computes for a row, {percent(median(own))} can be done before it is there.",
        )


def _extraction(found: Sequence[Setting]) -> Iterator[Finding]:
    counts: dict[str, int] = {}
    for one in found:
        for record in one.records:
            if record.extraction_rows is not None:
                counts[one.case.detector] = min(counts.get(one.case.detector, 1 << 62), record.extraction_rows)
    if counts:
        shown = [f"{detector} after {count:,}" for detector, count in counts.items()]
        yield Finding("Extraction", "loses", f"Honest scores give a model away: {joined(shown)} of them.")


def _growth(found: Sequence[Setting]) -> Iterator[Finding]:
    every = all_series(found)
    for axis in dict.fromkeys(series.axis for series in every):
        own = [series for series in every if series.axis == axis and series.cost == "time"][:6]
        if own:
            shown = [f"{name} {series.slope.words}" for name, series in zip(series_names(own), own, strict=True)]
            unit = "a request" if axis in ("rows", "batch") else "a row"
            sentence = f"Time {unit} grows as {axis_words(axis)} to the power of: {'; '.join(shown)}."
            yield Finding("Scaling", "even", sentence, "In brackets: 95\N{NO-BREAK SPACE}% intervals.")


def _provenance(measured: Sequence[Record]) -> Iterator[Finding]:
    for name, values in (
        ("machines", {record.provenance.machine for record in measured}),
        ("revisions", {record.provenance.revision for record in measured}),
    ):
        if len(values) > 1:
            sentence = f"These records come from {len(values)} {name}: their times are not comparable."
            yield Finding("Provenance", "loses", sentence, joined(sorted(values)) + ".")
