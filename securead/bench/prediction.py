"""What the planner predicts beside what a case measured: the same requests, phase by phase."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from securead.bench.records import Timing
from securead.planner.profile import EngineCosts
from securead.program.program import PublicProgram
from securead.protocols import registry
from securead.protocols.engine import PHASES, Plan, PlanModuleWithWork

# The names of `engine_case` and `sharing_case`; in the latter wall time counts, because parties wait for one another.
_PHASE_OF = {
    "encode and encrypt": "client",
    "evaluate": "server",
    "masks": "offline",
    "decrypt": "holder",
    "share, send and join": "client",
    "compute": "server",
    "deal": "offline",
}
_WAITING = ("share, send and join", "compute")


@dataclass(frozen=True)
class Comparison:
    """Seconds of a request of `rows` records. `measured` and `predicted` by phase; both have the same phases."""

    what: str
    engine: str
    rows: int
    measured: dict[str, float]
    predicted: dict[str, float]

    @property
    def request(self) -> tuple[float, float]:
        """Measured and predicted, from records to scores: what idle time can make is not in it."""
        online = [phase for phase in self.measured if phase != "offline"]
        return sum(self.measured[each] for each in online), sum(self.predicted[each] for each in online)

    @property
    def error(self) -> float:
        """How far the prediction of a request is off, as a share of what was measured."""
        measured, predicted = self.request
        return abs(predicted / measured - 1)

    def phase_errors(self) -> dict[str, float]:
        """The same for every phase that took a tenth of a millisecond."""
        return {each: abs(self.predicted[each] / spent - 1) for each, spent in self.measured.items() if spent >= 1e-4}


def measured_seconds(timings: Iterable[Timing], rows: int) -> dict[str, float]:
    """Seconds of a request of `rows` records by phase: the median, of parties that wait for one another the slower."""
    found: dict[str, float] = {}
    for each in timings:
        phase = _PHASE_OF.get(each.phase)
        spread = each.wall_seconds_per_row if each.phase in _WAITING else each.cpu_seconds_per_row
        if phase is not None and spread is not None:
            found[phase] = max(found.get(phase, 0.0), rows * spread.median)
    return found


def compare(
    what: str, plan: Plan, public: PublicProgram, rows: int, timings: Iterable[Timing], costs: EngineCosts
) -> Comparison | None:
    """Both for one case; None for an engine without predictions, or with work that calibration did not meet."""
    module, measured = registry.plan_module(plan.engine), measured_seconds(timings, rows)
    if not isinstance(module, PlanModuleWithWork):
        return None
    work = module.work(plan, public, rows)
    predicted = {phase: costs.seconds(phase, work.of(phase)) for phase in PHASES if phase in measured}
    known = {phase: seconds for phase, seconds in predicted.items() if seconds is not None}
    return Comparison(what, plan.engine, rows, measured, known) if known.keys() == measured.keys() else None
