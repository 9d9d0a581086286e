"""Options: one program on one engine in one role, with every figure that a choice goes by.

Everything but times follows from plans alone, which import no cryptography; times are predicted from the plan's work
and a profile, and are None where either is missing.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from securead.errors import FixProgramError, InstallExtraError
from securead.planner.links import carried_seconds, predicted_seconds
from securead.planner.profile import Profile
from securead.program.polynomial import Affine, PublicPolynomial
from securead.program.program import PublicProgram
from securead.protocols import registry
from securead.protocols.engine import PHASES, EngineSpec, Plan, PlanModuleWithWork, Role, Work
from securead.protocols.seal import primes
from securead.protocols.sharing.outbox import Delay


@dataclass(frozen=True)
class Times:
    """Predicted seconds of one request, each role on one core. `link`: what waits and passes on the link.

    `offline` is work that idle time can do; it counts for throughput, not for how long a request takes. `up` and `down`
    are the link's share of `link` in each direction without delays: what bounds throughput.
    """

    client: float
    server: float
    offline: float
    holder: float
    link: float
    up: float
    down: float

    @property
    def request(self) -> float:
        """From records to scores, with masks and the like made before."""
        return self.client + self.server + self.holder + self.link

    @property
    def slowest(self) -> float:
        """A request's share of the busiest: of client, service, holder and either direction of the link."""
        return max(self.client, self.server + self.offline, self.holder, self.up, self.down)


@dataclass(frozen=True)
class Option:
    """One way to score. `rows`: records in a request. Bytes are of one request; `reason` says why it is (not) taken.

    `up_bytes` and `down_bytes` are exact where the engine says what requests cost, else the most that there can be.
    `key_bytes`: what the service is sent once (an owner's public key) and an owner fetches once. `modulus_bits` and
    `ring_dimension` are None for engines without lattices, `security_2018` and `security_2024` then, too: bits by the
    homomorphic encryption standard of 2018 and by the guideline of 2024.
    """

    bundle: str
    model: str
    program: str
    engine: str
    role: Role
    parties: int
    sanitised: bool
    rows: int
    rows_per_chunk: int
    degree: int | None
    weight_bits: int
    ring_dimension: int | None
    modulus_bits: int | None
    up_bytes: int
    down_bytes: int
    between_bytes: int
    key_bytes: int
    error_bound: float
    security_bits: int
    security_2018: int | None
    security_2024: int | None
    leakage: str
    trust: str
    times: Times | None
    unpredicted: str
    reason: str = ""

    @property
    def up_per_row(self) -> float:
        """Bytes a record."""
        return self.up_bytes / self.rows

    @property
    def down_per_row(self) -> float:
        """Bytes a record."""
        return self.down_bytes / self.rows

    @property
    def rows_per_second(self) -> float | None:
        """Sustained, one core a role: what the busiest of them lets through."""
        return None if self.times is None or not self.times.slowest else self.rows / self.times.slowest

    @property
    def tier(self) -> int:
        """0: one service, sanitised answers. 1: parties that must not collude. 2: answers that tell of the weights.

        Speed never buys trust: of options that fit, one of a lower tier is taken.
        """
        return 2 if not self.sanitised else 1 if self.parties > 1 else 0

    def because(self, reason: str) -> Option:
        """The same with a reason."""
        return dataclasses.replace(self, reason=reason)


@dataclass(frozen=True)
class Refusal:
    """An engine that has no parameters for a program in a role, and what it says of that."""

    bundle: str
    engine: str
    role: Role
    reason: str


@dataclass(frozen=True)
class Candidate:
    """A program that may be served, by the name under which people know its bundle."""

    bundle: str
    model: str
    program: PublicProgram


@dataclass(frozen=True)
class Setting:
    """What requests are like: records in each (None: what fills a chunk), the link, and the profile, if any."""

    rows: int | None
    link: Delay
    profile: Profile | None


def look_at(candidate: Candidate, setting: Setting) -> tuple[list[Option], list[Refusal]]:
    """Every engine in every role that it has: an option where parameters exist, else a refusal.

    An engine that lacks one of the program's operations, or its degree, is refused, too: nothing is missing without a
    reason.
    """
    options, refusals = list[Option](), list[Refusal]()
    public = candidate.program
    for spec in registry.engines().values():
        for role in spec.roles:
            if not spec.carries(public):
                refusals.append(Refusal(candidate.bundle, spec.name, role, _lacks(spec, public)))
                continue
            try:
                plan = registry.plan_module(spec.name).make_plan(public, role)
            except (FixProgramError, InstallExtraError) as error:
                refusals.append(Refusal(candidate.bundle, spec.name, role, str(error)))
            else:
                options.append(_option(candidate, spec, plan, setting))
    return options, refusals


def _lacks(spec: EngineSpec, public: PublicProgram) -> str:
    missing = sorted(public.operations - {*spec.operations})
    if missing:
        return f"it does not know {', '.join(missing)}"
    degree = public.degree if isinstance(public, PublicPolynomial) else 0
    return f"it carries degrees {' to '.join(map(str, spec.degrees))}, this program's is {degree}"


def _option(candidate: Candidate, spec: EngineSpec, plan: Plan, setting: Setting) -> Option:
    module, public = registry.plan_module(spec.name), candidate.program
    rows = plan.rows_per_chunk if setting.rows is None else min(setting.rows, plan.rows_per_chunk)
    work = module.work(plan, public, rows) if isinstance(module, PlanModuleWithWork) else None
    times, unpredicted = _times(spec, work, setting)
    told = dict(plan.describe())
    n, modulus = getattr(plan, "ring_dimension", None), getattr(plan, "modulus_bits", None)
    return Option(
        bundle=candidate.bundle,
        model=candidate.model,
        program=public.digest,
        engine=spec.name,
        role=plan.role,
        parties=spec.parties,
        sanitised=spec.sanitised,
        rows=rows,
        rows_per_chunk=plan.rows_per_chunk,
        degree=public.degree if isinstance(public, PublicPolynomial) else None,
        weight_bits=weight_bits(public),
        ring_dimension=n,
        modulus_bits=modulus,
        up_bytes=plan.max_request_bytes if work is None else work.up_bytes,
        down_bytes=plan.max_answer_bytes if work is None else work.down_bytes,
        between_bytes=0 if work is None else work.between_bytes,
        key_bytes=plan.evaluation_key_bytes + int(getattr(plan, "setup_bytes", 0)),
        error_bound=plan.error_bound,
        security_bits=plan.security_bits,
        security_2018=_bits_by(primes.STANDARD_2018, n, modulus),
        security_2024=_bits_by(primes.GUIDELINE_2024, n, modulus),
        leakage=_leakage(spec, told),
        trust=_trust(spec, plan.role, told),
        times=times,
        unpredicted=unpredicted,
    )


def _times(spec: EngineSpec, work: Work | None, setting: Setting) -> tuple[Times | None, str]:
    """What a request takes, or why that is not known."""
    if work is None:
        return None, "the engine does not say what requests cost"
    if setting.profile is None:
        return None, "there is no profile of this machine"
    costs = setting.profile.of(spec.name)
    if costs is None:
        return None, "the profile knows nothing of the engine: calibrate again"
    found = {phase: costs.seconds(phase, work.of(phase)) for phase in PHASES}
    client, server, offline, holder = (found[phase] for phase in PHASES)
    if client is None or server is None or offline is None or holder is None:
        return None, "calibration had no work of this kind"
    line = work.up_bytes + work.down_bytes + work.between_bytes
    link = predicted_seconds(0.0, ways=work.ways, bytes_in_line=line, link=setting.link)
    up, down = (carried_seconds(count, setting.link) for count in (work.up_bytes, work.down_bytes))
    return Times(client, server, offline, holder, link, up, down), ""


def weight_bits(public: PublicProgram) -> int:
    """Bits of the largest row sum of the weights that records meet first, or of the largest entry of a table."""
    if not isinstance(public, PublicPolynomial):
        return public.largest.bit_length()
    first = next(step for step in public.steps if isinstance(step, Affine))
    return max(first.gain_bits)


def _bits_by(table: dict[int, int], ring_dimension: int | None, modulus_bits: int | None) -> int | None:
    """Bits of security that a table of the largest moduli promises; 0 beyond it, None without a lattice."""
    if ring_dimension is None or modulus_bits is None:
        return None
    return primes.SECURITY_BITS if modulus_bits <= table.get(ring_dimension, 0) else 0


def _leakage(spec: EngineSpec, told: dict[str, str]) -> str:
    reveals = told.get("reveals", "the scores, and no more")
    return reveals if spec.sanitised else f"answers tell a key holder of the weights, too: {reveals}"


def _trust(spec: EngineSpec, role: Role, told: dict[str, str]) -> str:
    if spec.parties > 1:
        return told.get("assumption", f"{spec.parties} parties do not collude")
    if role == "same":
        return "none in the service, which sees neither records nor scores; the submitter holds the key"
    return "none in the service; the key holder reads scores, and records if it taps the submitter's line"
