"""`securead bench compare A B`: what run B says of its cases that run A did not, in words, and whether that is a fault.

Times may differ, and count as slower only where the whole confidence interval of their ratio is beyond a tolerance.
Everything else comes from seeds and has to be equal: accuracy, bytes, rounds, epsilon. How near an encryption's scores
are, which carry fresh noise, may differ by a hair, and so may other people's software. A may be a baseline of ratios
(`securead.bench.ratios`).
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from securead import files
from securead.bench import journal, ratios
from securead.bench.ratios import Kept
from securead.bench.records import Record, Spread, Timing
from securead.errors import FixInputError

TOLERANCE = 1.25

Sort = Literal["broken", "slower", "different", "faster", "note"]
_TITLES: dict[Sort, str] = {
    "broken": "Broken",
    "slower": "Slower",
    "different": "Different, though nothing but times may be",
    "faster": "Faster",
    "note": "To note",
}
_FAULTS: tuple[Sort, ...] = ("broken", "slower", "different")
_EXACT = ("auroc", "average_precision", "precision", "false_alarms", "auroc_float", "auroc_norm", "auroc_untrained")
_ERRORS = ("max_error_to_integer", "max_error_to_float")
_NEAR = ("auroc_of_scores", "average_precision_of_scores", "rank_correlation_to_integer", "rank_correlation_to_float")
_HAIR = 1e-3
_BYTES = 0.01
# Errors are largest values of random ones; a wrong scale makes them thousands of times as large.
_ERROR_GROWTH = 8.0
_ERROR_FLOOR = 1e-12
_MEMORY_GROWTH = 1.5


@dataclass(frozen=True)
class Finding:
    """One thing that B says and A did not. `case`: B's name of it, as `--only` takes it."""

    sort: Sort
    case: str
    text: str


@dataclass(frozen=True)
class Comparison:
    """All findings, and how much there was to compare."""

    findings: tuple[Finding, ...]
    compared: str

    @property
    def passed(self) -> bool:
        """Whether nothing is broken, slower or different."""
        return not any(finding.sort in _FAULTS for finding in self.findings)

    def in_words(self) -> str:
        """For people: faults first."""
        lines = []
        for sort, title in _TITLES.items():
            found = [finding for finding in self.findings if finding.sort == sort]
            if found:
                lines += [f"{title}:", *(f"  {f.case + ': ' if f.case else ''}{f.text}" for f in found), ""]
        counts = Counter(finding.sort for finding in self.findings if finding.sort in _FAULTS)
        verdict = ", ".join(f"{count} {sort}" for sort, count in counts.items()) or "nothing is worse"
        return "\n".join([*lines, f"{self.compared}: {verdict}."])


def compare(a: Path, b: Path, *, tolerance: float = TOLERANCE) -> Comparison:
    """What run `b` says that run `a` did not; each a folder of results or its records.jsonl.

    One of them may be a baseline: then its ratios are held against the other. Raises `FixInputError` for neither.
    """
    if tolerance < 1:
        raise FixInputError("a tolerance is a factor of at least 1", value=tolerance)
    for baseline, run in ((a, b), (b, a)):
        if _is_baseline(baseline):
            return _promises(ratios.hold(ratios.read_baseline(baseline), read_run(run)))
    return compare_records(read_run(a), read_run(b), tolerance=tolerance)


def read_run(path: Path) -> tuple[Record, ...]:
    """The records of a folder, or of the records.jsonl in it."""
    folder = path.parent if path.name == journal.RECORDS_FILE else path
    if not (folder / journal.RECORDS_FILE).is_file():
        raise FixInputError(f"no run: expected a folder with {journal.RECORDS_FILE}", value=path.name)
    return journal.read_records(folder)


def compare_records(a: Sequence[Record], b: Sequence[Record], *, tolerance: float = TOLERANCE) -> Comparison:
    """Cases that are equal but for their suite are compared; `a` is what was, `b` what is."""
    before, after = ({_key(record): record for record in side} for side in (a, b))
    both = [key for key in before if key in after]
    findings = list(_differences_of_runs(before, after, both))
    another_machine = any(_machine(before[key]) != _machine(after[key]) for key in both)
    times = 0
    for key in both:
        old, new = before[key], after[key]
        if usable(old, new):
            found = list(_times(old, new, tolerance))
            times += sum(1 for _ in _pairs(old, new))
            findings += [_as_note(f) if another_machine and f.sort == "slower" else f for f in found]
            findings += _rest(old, new)
        else:
            findings += _lost(old, new)
    compared = f"{len(both)} cases in both, {times} times within a factor of {tolerance:g} or named above"
    if not both:
        findings.append(Finding("broken", "", "the two runs have no case in common"))
    return Comparison(tuple(findings), compared)


def usable(old: Record, new: Record) -> bool:
    """Whether both hold numbers that their own checks found sound."""
    return not any(record.missing or record.failures for record in (old, new))


def _key(record: Record) -> str:
    return dataclasses.replace(record.case, suite="").id


def _machine(record: Record) -> tuple[str, int]:
    return record.provenance.machine, record.provenance.cores


def _as_note(finding: Finding) -> Finding:
    return dataclasses.replace(finding, sort="note", text=finding.text + " (another machine)")


def _differences_of_runs(
    before: Mapping[str, Record], after: Mapping[str, Record], both: Sequence[str]
) -> Iterator[Finding]:
    for here, there, words in ((before, after, "A has"), (after, before, "B has")):
        alone = [here[key].case.id for key in here if key not in there]
        if alone:
            more = ", ..." if len(alone) > 3 else ""
            yield Finding("note", "", f"{words} {len(alone)} cases that the other lacks: {', '.join(alone[:3])}{more}")
    changed: dict[str, str] = {}
    for key in both:
        old, new = before[key].provenance, after[key].provenance
        if (old.machine, old.cores) != (new.machine, new.cores):
            changed["machine"] = f"other machines ({old.machine} and {new.machine}): times are noted, not judged"
        versions = dict(old.versions)
        for name, version in new.versions:
            if versions.get(name, version) != version:
                changed[name] = f"{name} {versions[name]} became {version}"
    for text in changed.values():
        yield Finding("note", "", text)


def _lost(old: Record, new: Record) -> Iterator[Finding]:
    if new.failures:
        again = "still " if old.failures else ""
        yield Finding("broken", new.case.id, f"{again}failed: {'; '.join(new.failures)}")
    elif new.missing and not old.missing and not old.failures:
        yield Finding("broken", new.case.id, f"measured in A, not in B: {new.missing}")
    elif old.failures and not new.missing:
        yield Finding("note", new.case.id, "failed in A, and no longer")


# --- times ------------------------------------------------------------------------------------------------------------


def _pairs(old: Record, new: Record) -> Iterator[tuple[str, Spread, Spread]]:
    """What both timed, by a name for it: processor time where both have it, else wall time."""
    former = {_step(timing): timing for timing in old.timings}
    choices: tuple[Callable[[Timing], Spread | None], ...] = (
        lambda timing: timing.cpu_seconds_per_row,
        lambda timing: timing.wall_seconds_per_row,
    )
    once: tuple[Callable[[Timing], Spread | None], ...] = (
        lambda timing: timing.cpu_seconds_once,
        lambda timing: timing.wall_seconds_once,
    )
    for timing in new.timings:
        match = former.get(_step(timing))
        for options in (choices, once) if match is not None else ():
            assert match is not None  # noqa: S101  (for the type checker)
            pairs = ((option(match), option(timing)) for option in options)
            pair = next(((x, y) for x, y in pairs if x is not None and y is not None), None)
            if pair is not None:
                yield _step_in_words(timing), *pair


def _step(timing: Timing) -> tuple[str, str, int, bool]:
    return timing.role, timing.phase, timing.threads, timing.offline


def _step_in_words(timing: Timing) -> str:
    threads = {0: ", all cores", 1: ""}.get(timing.threads, f", {timing.threads} threads")
    return f"{timing.role}, {timing.phase}{threads}"


def _times(old: Record, new: Record, tolerance: float) -> Iterator[Finding]:
    for step, former, latter in _pairs(old, new):
        ratio = ratios.ratio_of(former, latter)
        if ratio.interval is None:
            continue
        low, high = ratio.interval
        if low > tolerance:
            yield Finding("slower", new.case.id, f"{step}: takes {ratio.in_words()} times as long")
        elif high < 1 / tolerance:
            yield Finding("faster", new.case.id, f"{step}: takes {ratio.in_words()} of the time")


# --- all else ---------------------------------------------------------------------------------------------------------


def _rest(old: Record, new: Record) -> Iterator[Finding]:
    name, theirs = new.case.id, new.case.kind == "peer"
    share = _BYTES if _varies(new) else 0.0
    accuracy = _differ(old.accuracy, new.accuracy, _EXACT, _HAIR if theirs else 0.0)
    for text in (*accuracy, *_fidelity(old, new), *_facts(old, new), *_traffic(old, new, share)):
        yield Finding("different", name, text)
    memory = dict(old.peak_bytes)
    for role, size in new.peak_bytes:
        if size > _MEMORY_GROWTH * memory.get(role, size):
            text = f"{role}: needs {size / memory[role]:.2g} times the memory"
            yield Finding("slower", name, text)
    if old.provenance.program != new.provenance.program:
        yield Finding("note", name, "the program that was scored is another one")


def is_noisy(record: Record) -> bool:
    """Whether scores carry noise that no seed decides: of encryption, or somebody else's."""
    return record.case.kind == "peer" or bool(record.fidelity.max_error_to_integer)


def _varies(record: Record) -> bool:
    """Whether messages differ a little in size: somebody else's are compressed, and parties tell each other seconds."""
    return record.case.kind == "peer" or any(sent.sender.startswith("party") for sent in record.traffic)


def _differ(old: object, new: object, names: Sequence[str], hair: float) -> Iterator[str]:
    for field in names:
        was, now = getattr(old, field), getattr(new, field)
        if was == now or (None not in (was, now) and abs(was - now) <= hair):
            continue
        yield f"{field.replace('_', ' ')} was {_number(was)} and is {_number(now)}"


def _fidelity(old: Record, new: Record) -> Iterator[str]:
    """What carries noise that no seed decides; without noise it is as exact as the rest."""
    hair = _HAIR if is_noisy(old) or is_noisy(new) else 0.0
    yield from _differ(old.fidelity, new.fidelity, _NEAR, hair)
    for field in _ERRORS:
        was, now = getattr(old.fidelity, field) or 0.0, getattr(new.fidelity, field) or 0.0
        if now > _ERROR_GROWTH * was + _ERROR_FLOOR:
            yield f"{field.replace('_', ' ')} was {was:.3g} and is {now:.3g}"
    moved, before = new.fidelity.decisions_changed or 0, old.fidelity.decisions_changed or 0
    if moved > before + hair * new.rows:
        yield f"verdicts that encryption moved: {before:,} became {moved:,}"


def _facts(old: Record, new: Record) -> Iterator[str]:
    facts: dict[str, Callable[[Record], object]] = {
        "rows": lambda record: record.rows,
        "rounds": lambda record: record.rounds,
        "epsilon": lambda record: record.privacy and record.privacy.epsilon,
        "delta": lambda record: record.privacy and record.privacy.delta,
        "the accountant": lambda record: record.privacy and record.privacy.accountant,
        "where noise comes from": lambda record: record.privacy and record.privacy.noise_source,
        "the bits of security": lambda record: record.security_bits,
        "the extraction count": lambda record: record.extraction_rows,
    }
    for fact, value in facts.items():
        was, now = value(old), value(new)
        if was != now:
            yield f"{fact}: {_number(was)} became {_number(now)}"


def _traffic(old: Record, new: Record, share: float) -> Iterator[str]:
    was, now = _bytes(old), _bytes(new)
    for key in dict.fromkeys((*was, *now)):
        first, second = was.get(key, 0.0), now.get(key, 0.0)
        if abs(first - second) > share * max(first, second):
            sender, receiver, what = key
            yield f"{what} from {sender} to {receiver}: {first:,.10g} bytes became {second:,.10g}"


def _bytes(record: Record) -> dict[tuple[str, str, str], float]:
    """A row's and those that are sent once, apart."""
    sums: dict[tuple[str, str, str], float] = {}
    for sent in record.traffic:
        for size, per in ((sent.bytes_per_row, "a record"), (sent.bytes_once, "once")):
            if size is not None:
                key = (sent.sender, sent.receiver, f"{sent.what} ({per})")
                sums[key] = sums.get(key, 0.0) + size
    return sums


def _number(value: object) -> str:
    return f"{value:.10g}" if isinstance(value, int | float) else "nothing" if value is None else str(value)


# --- a baseline -------------------------------------------------------------------------------------------------------


def _is_baseline(path: Path) -> bool:
    if path.suffix != ".json" or not path.is_file():
        return False
    try:
        plain = json.loads(files.read_bytes(path, limit=1 << 20))
    except ValueError:
        return False
    return isinstance(plain, dict) and "ratios" in plain


def _promises(held: Sequence[Kept]) -> Comparison:
    """A promise that could not be held against the run is no fault, unless that is so of all of them."""
    findings, checked = [], 0
    for kept in held:
        promise = kept.promise
        if kept.ratio is None:
            findings.append(Finding("note", promise.name, f"not checked ({kept.why}); measure it: {promise.command}"))
            continue
        checked += 1
        most = "or more" if promise.high is None else f"to {promise.high:g}"
        words = f"{promise.claim}: {kept.ratio.in_words()}, allowed {promise.low:g} {most}"
        findings.append(Finding("broken" if kept.broken else "note", promise.name, words))
    if not checked:
        findings.append(Finding("broken", "", "the run has the cases of none of the baseline's ratios"))
    return Comparison(tuple(findings), f"{checked} of {len(held)} ratios checked")
