"""A profile whose costs are the same for every unit of work, and models to plan for: nothing is measured."""

from __future__ import annotations

from securead.models.bundle import PublicModel, Threshold
from securead.planner import profile as profiles
from securead.planner.profile import EngineCosts, Profile, UnitCost
from securead.privacy.statement import PrivacyStatement
from securead.program.program import Program, PublicProgram
from securead.protocols import registry
from securead.protocols.engine import PHASES, PlanModuleWithWork


def model(program: Program, name: str = "m") -> PublicModel:
    statement = PrivacyStatement(private=False)
    return PublicModel(name, "made up", program.public, Threshold(1.0, "by hand"), statement, "2026-01-01", "0")


def profile_for(*publics: PublicProgram, seconds: float = 1e-8, speed: dict[str, float] | None = None) -> Profile:
    """One in which every unit of every phase takes `seconds`, over an engine's `speed`."""
    found = []
    for name, spec in registry.engines().items():
        module, units = registry.plan_module(name), set[tuple[str, str]]()
        for public in publics:
            if not (isinstance(module, PlanModuleWithWork) and spec.carries(public)):
                continue
            for role in spec.roles:
                work = module.work(registry.plan_module(name).make_plan(public, role), public, 1)
                units |= {(phase, unit) for phase in PHASES for unit in work.of(phase)}
        each = seconds / (speed or {}).get(name, 1.0)
        costs = tuple(UnitCost(phase, unit, each) for phase, unit in sorted(units))
        if costs:
            found.append(EngineCosts(name, costs, 0.0, 1))
    return Profile(profiles.machine(), profiles.versions(), "2026-01-01T00:00:00+00:00", tuple(found))
