"""Seconds a unit of work, fitted to measurements: never negative, and so that relative errors are small.

Least squares of (predicted - measured) / measured with non-negative coefficients (Lawson and Hanson 1974), for each
engine and phase by itself: milliseconds and seconds weigh the same, and no kind of work can earn time back. Where
measurements do not tell kinds of work apart, a weak prior has them share the time, so that none of them gets it all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from securead.errors import FixInputError
from securead.planner.profile import EngineCosts, UnitCost
from securead.protocols.engine import PHASES, Work

Amounts = Mapping[str, Mapping[str, float]]
_PRIOR = 1e-3  # of the weight of a measurement: it decides nothing that measurements decide
_LEAST_SECONDS = 1e-7  # below what clocks tell apart


@dataclass(frozen=True)
class Observation:
    """One request that was measured: amounts of work and seconds by phase. `what` says of what, for people."""

    engine: str
    what: str
    work: Amounts
    seconds: Mapping[str, float]


def amounts_of(work: Work) -> dict[str, dict[str, float]]:
    """Amounts by phase."""
    return {phase: dict(work.of(phase)) for phase in PHASES}


def fit(engine: str, observations: Iterable[Observation]) -> EngineCosts:
    """The costs of one engine's units. Raises `FixInputError` where nothing was measured.

    A kind of work that no measurement contains has no cost: what needs it is not predicted. `error` is the median
    over measurements of how far the sum of all phases is off, relative to it.
    """
    ours = [each for each in observations if each.engine == engine]
    if not ours:
        raise FixInputError(f"nothing of the engine {engine!r} was measured")
    costs = tuple(cost for phase in PHASES for cost in _phase(phase, ours))
    fitted = EngineCosts(engine, costs, 0.0, len(ours))
    errors = [_off(fitted, each) for each in ours]
    return EngineCosts(engine, costs, float(np.median(errors)), len(ours))


def _phase(phase: str, observations: list[Observation]) -> list[UnitCost]:
    from scipy.optimize import nnls

    names = sorted({name for each in observations for name in each.work[phase]})
    seconds = np.array([each.seconds.get(phase, 0.0) for each in observations])
    A = np.array([[each.work[phase].get(name, 0.0) for name in names] for each in observations])
    told = (seconds > _LEAST_SECONDS) & (A.sum(axis=1) > 0) if names else np.zeros(len(seconds), dtype=bool)
    if not told.any():  # a phase without work, or one that takes no time that could be measured
        return [UnitCost(phase, name, 0.0) for name in names]
    A, seconds = A[told], seconds[told]
    # A unit costs at most what the cheapest request leaves for it; as its prior, an equal share of that.
    with np.errstate(divide="ignore"):
        most = np.where(A > 0, seconds[:, None] / A, np.inf).min(axis=0)
    present = np.isfinite(most)
    prior = most[present] / present.sum()
    weight = _PRIOR**0.5 * np.eye(len(prior))
    shares = np.vstack([A[:, present] * prior / seconds[:, None], weight])
    found, _ = nnls(shares, np.concatenate([np.ones(len(seconds)), weight.sum(axis=0)]))
    costs = dict(zip(np.array(names)[present].tolist(), (found * prior).tolist(), strict=True))
    return [UnitCost(phase, name, costs[name]) for name in names if name in costs]


def _off(costs: EngineCosts, observation: Observation) -> float:
    measured = sum(observation.seconds.values())
    predicted = sum(costs.seconds(phase, observation.work[phase]) or 0.0 for phase in PHASES)
    return abs(predicted - measured) / measured if measured > 0 else 0.0
