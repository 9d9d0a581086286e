"""The planner: of programs, engines and roles the one that serves a goal best within limits, and why not the others.

It chooses among candidate programs and requantises none. Nothing is encrypted and no key is made: figures follow from
engines' plans, times from a profile of this machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from securead.errors import FixConfigurationError, FixInputError
from securead.models.bundle import Bundle, PublicModel, load_public
from securead.planner import profile as profiles
from securead.planner.limits import Change, Limits, RoleWanted, broken, smallest_change
from securead.planner.links import parse_link
from securead.planner.options import Candidate, Option, Refusal, Setting, look_at
from securead.planner.profile import Profile
from securead.protocols import registry
from securead.protocols.sharing.outbox import Delay

Goal = Literal["throughput", "latency"]
Model = Bundle | PublicModel | Path | str


@dataclass(frozen=True)
class Choice:
    """What was chosen, and all that it was chosen from. `options` by merit, the chosen one first; each has its reason.

    `ranked_by`: "rows per second", "milliseconds a request", or "bytes a record" where nothing is predicted. `notes`:
    what to know about the figures.
    """

    goal: Goal
    limits: Limits
    options: tuple[Option, ...]
    refusals: tuple[Refusal, ...]
    ranked_by: str
    notes: tuple[str, ...]
    fits: bool
    change: Change | None = None

    @property
    def chosen(self) -> Option:
        """The option to take; raises `NothingFitsError` where none keeps the limits."""
        if not self.fits:
            raise NothingFitsError(self)
        return self.options[0]


class NothingFitsError(FixConfigurationError):
    """No option keeps the limits. `choice` has all figures; the remedy is the smallest change that would do."""

    def __init__(self, choice: Choice) -> None:
        self.choice = choice
        if choice.change is not None:
            super().__init__("no engine keeps these limits", remedy=choice.change.words)
            return
        why = "; ".join(f"{each.engine}: {each.reason}" for each in choice.refusals)
        super().__init__(f"no engine carries this program: {why or 'none is registered'}")


def plan(
    models: Model | Sequence[Model],
    *,
    goal: Goal = "throughput",
    role: RoleWanted = "any",
    engine: str | None = None,
    rows: int | None = None,
    max_up: float | None = None,
    max_down: float | None = None,
    max_ms: float | None = None,
    max_error: float | None = None,
    link: str | Delay = "loopback",
    profile: Profile | Path | Literal["default"] | None = "default",
) -> Choice:
    """Choose an engine, its parameters and a role for a bundle, or for one of several that would all do.

    Whoever names several bundles, of one detector, says that any of them will do: what each loses is not seen here.
    `rows`: records in a request, by default 1 for the goal latency and a full chunk for throughput. `max_up` and
    `max_down` in KB (1,000 bytes) a record, `max_ms` of a request, `max_error` absolute. `link`: "loopback", "lan",
    "wan", or "100Mb/s,20ms". `profile`: a value, a file, None for no predictions, or the one in the user's cache, if it
    is there and fits this machine.

    Options that fit are ordered by trust, then by the goal: one service with sanitised answers before parties that must
    not collude before answers that are not sanitised. Without predictions the goal is bytes a record.

    Returns a choice; where nothing fits, `choice.chosen` raises `NothingFitsError` with the smallest change. Raises
    `FixConfigurationError` for limits, links, engines and bundles that make no sense.
    """
    candidates = _candidates(models)
    limits = Limits(max_up, max_down, max_ms, max_error, role, engine)
    if engine is not None:
        registry.spec(engine)
    if rows is not None and rows < 1:
        raise FixConfigurationError("a request has at least one record", value=rows, remedy="Leave out rows.")
    known, notes = _profile(profile)
    size = 1 if rows is None and goal == "latency" else rows
    setting = Setting(size, parse_link(link) if isinstance(link, str) else link, known)
    options, refusals = list[Option](), list[Refusal]()
    for candidate in candidates:
        found, refused = look_at(candidate, setting)
        options += found
        refusals += refused
    ranked_by = _measure(options, goal)
    if size is not None and any(option.rows < size for option in options):
        notes.append("engines whose chunk is smaller get requests of a full chunk")
    judged = _judged(options, limits, ranked_by)
    fits = bool(judged) and not broken(judged[0], limits)
    change = None if fits else smallest_change(judged, limits)
    return Choice(goal, limits, tuple(judged), tuple(refusals), ranked_by, tuple(notes), fits, change)


def _candidates(models: Model | Sequence[Model]) -> list[Candidate]:
    listed = [models] if isinstance(models, Bundle | PublicModel | Path | str) else list(models)
    if not listed:
        raise FixConfigurationError("there is no bundle to plan for", remedy="Name at least one.")
    found = list[Candidate]()
    for each in listed:
        public = (
            each.public if isinstance(each, Bundle) else each if isinstance(each, PublicModel) else load_public(each)
        )
        name = str(each) if isinstance(each, Path | str) else public.name
        if any(name == other.bundle for other in found):
            name = f"{name} ({public.program.digest[:8]})"
        found.append(Candidate(name, public.name, public.program))
    first = found[0].program.encoder.schema
    for other in found[1:]:
        if other.program.encoder.schema.names != first.names:
            raise FixConfigurationError(
                "these bundles are not of one detector: they score records of different columns",
                value=other.bundle,
                remedy="Plan for each by itself.",
            )
    return found


def _profile(profile: Profile | Path | Literal["default"] | None) -> tuple[Profile | None, list[str]]:
    """The profile to predict by, and what to say about it."""
    calibrate = "securead plan --calibrate measures this machine"
    if profile is None:
        return None, [f"times are not predicted: {calibrate}"]
    if isinstance(profile, Profile):
        if profile.strange:
            raise FixInputError(f"the profile does not fit: {profile.strange}", remedy=profiles.REMEDY)
        return profile, []
    if isinstance(profile, Path):
        return profiles.read(profile), []
    path = profiles.default_path()
    if not path.is_file():
        return None, [f"times are not predicted: {calibrate}"]
    try:
        return profiles.read(path), []
    except FixInputError as error:
        return None, [f"times are not predicted: {error.what}; {calibrate}"]


def _measure(options: list[Option], goal: Goal) -> str:
    if not any(option.times for option in options):
        return "bytes a record"
    return "rows per second" if goal == "throughput" else "milliseconds a request"


def _judged(options: list[Option], limits: Limits, ranked_by: str) -> list[Option]:
    """By merit: those that fit first; each with the reason why it is, or is not, the one."""
    order = sorted(options, key=lambda option: (len(broken(option, limits)), option.tier, _merit(option, ranked_by)))
    judged = list[Option]()
    for option in order:
        problems = broken(option, limits)
        if problems:
            judged.append(option.because("; ".join(problem.words for problem in problems)))
        elif not judged:
            judged.append(option.because(_why(option, order, limits, ranked_by)))
        else:
            judged.append(option.because(_why_not(option, judged[0], ranked_by)))
    return judged


def _merit(option: Option, ranked_by: str) -> tuple[bool, float, float]:
    """Less is better; what is not predicted comes last."""
    size = option.up_per_row + option.down_per_row
    times = option.times
    if ranked_by == "bytes a record":
        return False, size, option.error_bound
    if times is None:
        return True, size, option.error_bound
    seconds = times.slowest / option.rows if ranked_by == "rows per second" else times.request
    return False, seconds, size


def _why(option: Option, order: list[Option], limits: Limits, ranked_by: str) -> str:
    best = {"rows per second": "the most rows a second", "milliseconds a request": "the shortest request"}
    words = f"chosen: {best.get(ranked_by, 'the fewest bytes a record')}"
    rivals = [each for each in order if each is not option and not broken(each, limits)]
    if not rivals:
        words = "chosen: the only one that fits"
    elif any(each.tier > option.tier and _merit(each, ranked_by) < _merit(option, ranked_by) for each in rivals):
        words += " of those that need the least trust"
    if option.tier:
        words += ", and no option that needs less trust fits"
    return words


def _why_not(option: Option, chosen: Option, ranked_by: str) -> str:
    if option.tier > chosen.tier:
        return _LESS_TRUSTED[option.tier]
    if ranked_by != "bytes a record" and option.times is None:
        return f"fits, but its time is not predicted: {option.unpredicted}"
    worse = _merit(option, ranked_by)[1] / max(_merit(chosen, ranked_by)[1], 1e-12)
    kind = {"rows per second": "the time a row", "milliseconds a request": "the time"}.get(ranked_by, "the bytes")
    return "fits as well" if worse < 1.005 else f"fits, but takes {worse:.2g} x {kind}"


_LESS_TRUSTED = {
    1: "fits, but computes among parties that must not collude",
    2: "fits, but its answers are not sanitised: they tell a key holder of the weights",
}
