"""What a suite's records say, read the same way everywhere: by figures, tables, findings and exports.

A number that was not measured is None, never 0. Records that failed or measured nothing are set apart first
(`sorted_out`), so that nothing below meets them. A time is processor time where a record has it and else wall time, of
the run with the fewest threads; offline work, which needs no record yet, is never added to online work.
"""

from __future__ import annotations

import math
import shlex
import statistics
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, fields, replace

from securead.bench.records import Case, Record, Spread
from securead.bench.wording import counted, number

# Roles in the order of a record's way; others follow by name.
ROLES = ("client", "server", "key holder", "parties", "dealer", "site")
# Timed for comparison; it is nobody's work when records are scored.
_REFERENCE = "integer program"
# What a parameter is called in a figure.
_PARAMETERS = {"n_estimators": "trees", "hidden": "width", "n_features": "features", "columns": "features"}
_WRITTEN = {
    "bfv": "BFV",
    "ckks": "CKKS",
    "ckks-row": "CKKS row",
    "ckks-deep": "CKKS deep",
    "paillier": "Paillier",
    "paillier-linear": "Paillier linear",
    "sklearn": "scikit-learn",
    "pyod": "PyOD",
    "tenseal": "TenSEAL",
    "crypten": "CrypTen",
    "concrete-ml": "Concrete ML",
    "spu": "SPU",
}
# Kinds of cases that stand by themselves and not below a data set.
ALONE = {"mechanism": "Mechanisms", "script": "Scripts"}
_LINKS = {"loopback": 0, "lan": 1, "wan": 2}


@dataclass(frozen=True)
class Sorted:
    """Records by what became of them: each is in exactly one of the three."""

    measured: tuple[Record, ...]
    failed: tuple[Record, ...]
    missing: tuple[Record, ...]


def sorted_out(records: Iterable[Record]) -> Sorted:
    """Failed ones first: a case that failed and has no numbers either is a failure."""
    kinds: dict[str, list[Record]] = {"measured": [], "failed": [], "missing": []}
    for record in records:
        kinds["failed" if record.failures else "missing" if record.missing else "measured"].append(record)
    return Sorted(tuple(kinds["measured"]), tuple(kinds["failed"]), tuple(kinds["missing"]))


# --- one record -------------------------------------------------------------------------------------------------------


def by_role(record: Record, *, offline: bool = False, all_threads: bool = False) -> dict[str, float]:
    """Seconds a row by role, phases added: with the fewest threads, or the most where `all_threads`.

    Thread counts: 0 stands for all cores and so is the most.
    """
    found = [timing for timing in record.timings if timing.offline == offline and timing.role != _REFERENCE]
    if not found:
        return {}
    counts = [timing.threads or math.inf for timing in found]
    chosen = max(counts) if all_threads else min(counts)
    sums: dict[str, float] = {}
    for timing, count in zip(found, counts, strict=True):
        # Threads share work in processor time: what more of them gain is in wall time alone.
        cpu, wall = timing.cpu_seconds_per_row, timing.wall_seconds_per_row
        spread = (wall or cpu) if all_threads else (cpu or wall)
        if count == chosen and spread is not None:
            sums[timing.role] = sums.get(timing.role, 0.0) + spread.median
    order = {role: place for place, role in enumerate(ROLES)}
    return dict(sorted(sums.items(), key=lambda item: (order.get(item[0], len(order)), item[0])))


def role_words(role: str) -> str:
    """A role as figures call it: parties of secret sharing are one."""
    return "parties" if role.startswith("party ") else role


def row_seconds(record: Record) -> float | None:
    """Seconds a row of all roles together, online."""
    found = by_role(record)
    return sum(found.values()) if found else None


def row_bytes(record: Record) -> float | None:
    """Bytes a row between all roles together; keys and one-time material apart. The clear engine sends none."""
    found = [traffic.bytes_per_row for traffic in record.traffic if traffic.bytes_per_row is not None]
    if not found and record.case.kind == "score" and record.case.engine == "clear":
        return 0.0
    return sum(found) if found else None


def once_bytes(record: Record) -> int | None:
    """Bytes sent once, whatever the number of rows: keys and one-time material."""
    found = [traffic.bytes_once for traffic in record.traffic if traffic.bytes_once is not None]
    return sum(found) if found else None


def once_seconds(record: Record) -> float | None:
    """Seconds spent once, whatever the number of rows: key generation, the start of a party, a peer's training."""
    found = [timing.cpu_seconds_once or timing.wall_seconds_once for timing in record.timings]
    known = [spread.median for spread in found if spread is not None]
    return sum(known) if known else None


def peak(record: Record) -> int | None:
    """Peak memory in bytes of the role that needed most."""
    return max((count for _, count in record.peak_bytes), default=None)


def lead(record: Record, over: str) -> float | None:
    """AUROC above a control's, "norm" or "untrained"; above the "float" model's, of the scores that came out."""
    own, other = record.accuracy.auroc, getattr(record.accuracy, f"auroc_{over}")
    if over == "float" and record.fidelity.auroc_of_scores is not None:
        own = record.fidelity.auroc_of_scores
    return None if own is None or other is None else own - other


# --- names ------------------------------------------------------------------------------------------------------------


def engine_name(case: Case) -> str:
    """Whose software scored, as people write it: the peer's name or our engine's."""
    name = case.peer or case.engine
    return _WRITTEN.get(name, name)


def is_protected(case: Case) -> bool:
    """Whether records stayed hidden from the server: neither our clear engine nor a peer that is set beside it."""
    return case.engine != "clear"


def epsilon_words(epsilon: float | None) -> str:
    """ "ε 1", or that there is no noise."""
    return "no noise" if epsilon is None else f"ε\N{NO-BREAK SPACE}{number(epsilon)}"


def parameter_words(name: str) -> str:
    """A parameter as people call it: n_estimators are trees."""
    return _PARAMETERS.get(name, name.replace("_", " "))


def traits(case: Case) -> dict[str, str]:
    """All that can tell cases apart, each in a word or two; most telling first."""
    found = {
        "engine": engine_name(case),
        "detector": case.detector,
        "epsilon": epsilon_words(case.epsilon),
        "role": f"role {case.role}" if case.role != "none" else "",
        "batch": f"batch {case.batch:,}" if case.batch else "",
        "rows": counted(case.rows, "row") if case.rows else "",
    }
    for name, value in case.parameters:
        shown = value if isinstance(value, str | bool) else number(value, 4)
        found[f"parameter {name}"] = f"{parameter_words(name)} {shown}"
    found["sites"] = counted(case.sites, "site")
    found["executor"], found["aggregation"] = case.executor, f"{case.aggregation} sums"
    found["link"] = case.link
    found["threads"] = counted(case.threads, "thread") if case.threads else "all cores"
    return found


def told_apart(
    cases: Sequence[Case], *, without: Sequence[str] = (), known: Sequence[str] = (), always: Sequence[str] = ()
) -> list[str]:
    """For each case as few traits, by their words, as tell it from the others; equal cases keep equal words.

    Traits in `known` are seen otherwise, as a colour or a heading, and not said; those in `always` are said wherever
    they are not all the same.
    """
    every = [traits(case) for case in cases]
    names = [name for name in dict.fromkeys(name for found in every for name in found) if name not in without]
    said: list[list[str]] = [[] for _ in cases]
    for name in [*known, *always, *(name for name in names if name not in (*known, *always))]:
        groups: dict[tuple[str, ...], list[int]] = {}
        for place, found in enumerate(every):
            seen = [] if name in always else [*said[place], *(found.get(one, "") for one in known)]
            groups.setdefault(tuple(seen), []).append(place)
        for own in groups.values():
            if name not in known and len({every[place].get(name, "") for place in own}) > 1:
                for place in own:
                    said[place].append(every[place].get(name, ""))
    return [", ".join(filter(None, words)) for words in said]


def again(command: str, cases: Iterable[Case]) -> str:
    """The command that measures these cases again: the suite's, narrowed to what all of them share."""
    found = list(cases)
    parts = [command]
    for name in ("kind", "dataset", "detector", "engine", "peer"):
        values = {str(getattr(case, name)) for case in found}
        if len(values) == 1 and (value := values.pop()):
            parts.append(f"--only {shlex.quote(f'{name}={_literal(value)}')}")
    return " ".join(parts)


def _literal(text: str) -> str:
    """A pattern that matches `text` only."""
    return "".join(f"[{sign}]" if sign in "*?[" else sign for sign in text)


# --- repeats of one setting -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Setting:
    """Records that differ in their seed alone; `case` is theirs with seed 0."""

    case: Case
    records: tuple[Record, ...]

    def spread(self, value: Callable[[Record], float | None]) -> Spread | None:
        """The median of a number over the seeds and how far they lie apart; None where no record has it."""
        found = [number for record in self.records if (number := value(record)) is not None]
        return Spread(statistics.median(found), min(found), max(found), len(found)) if found else None

    @property
    def auroc(self) -> Spread | None:
        return self.spread(lambda record: record.accuracy.auroc)

    def lead(self, over: str) -> Spread | None:
        """AUROC above a control's, see `lead`."""
        return self.spread(lambda record: lead(record, over))

    @property
    def seconds(self) -> float | None:
        found = self.spread(row_seconds)
        return None if found is None else found.median

    @property
    def bytes(self) -> float | None:
        found = self.spread(row_bytes)
        return None if found is None else found.median


def settings(records: Iterable[Record], *, every_link: bool = False) -> tuple[Setting, ...]:
    """Records by setting. Of the same on several links or with several threads, the nearest and the fewest stand.

    With `every_link` each link and each number of threads stands by itself.
    """
    found: dict[Case, list[Record]] = {}
    for record in records:
        case = replace(record.case, suite="", seed=0)
        case = case if every_link else replace(case, link="loopback", threads=1)
        found.setdefault(case, []).append(record)
    made = []
    for case, own in found.items():
        best = min(_plainness(record.case) for record in own)
        made.append(Setting(case, tuple(record for record in own if _plainness(record.case) == best)))
    return tuple(made)


def _plainness(case: Case) -> tuple[float, int]:
    return case.threads or math.inf, _LINKS[case.link]


def same_but(case: Case, *names: str) -> Hashable:
    """A key under which cases that differ in nothing but `names` meet."""
    return tuple(
        (field.name, getattr(case, field.name)) for field in fields(case) if field.name not in (*names, "suite")
    )


def datasets(records: Iterable[Record]) -> tuple[str, ...]:
    """Data sets in the order of the records; a mechanism has none, nor a script."""
    return tuple(dict.fromkeys(record.case.dataset for record in records if record.case.kind not in ALONE))


def engines(records: Iterable[Record]) -> tuple[str, ...]:
    """Engines in order, the clear one first, then ours, then peers."""
    cases = [record.case for record in records]
    found = {engine_name(case): (bool(case.peer), case.engine != "clear") for case in cases}
    return tuple(sorted(found, key=lambda name: found[name]))


def joined(names: Sequence[str], *, most: int = 6) -> str:
    """ "a, b and c"; "a, b and 7 more"."""
    shown = list(names) if len(names) <= most else [*names[: most - 1], f"{len(names) - most + 1} more"]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}" if shown else ""
