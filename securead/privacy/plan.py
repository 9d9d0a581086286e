"""The privacy plan: how much may leak in total, and how that is spread over the stages of a training run."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass

import dp_accounting
from dp_accounting import pld

from securead.errors import FixConfigurationError, PrivacyRefusedError
from securead.privacy.statement import NoiseSource

# Of the declared delta this part pays for the integer grid of the noise (`mechanisms.GaussianMechanism`).
GRID_SHARE_OF_DELTA = 1e-3
# PLD rounds every loss up to a multiple of this; finer costs time and gains nothing visible.
_DISCRETIZATION = 1e-4
MAX_EPSILON = 50.0


@dataclass(frozen=True)
class PrivacyPlan:
    """(epsilon, delta) for every single record, in the add-or-remove-one relation, at every site.

    `noise_source="seeded-study"` draws noise from `seed` so that a study repeats exactly; such a model is marked
    non-private and the service refuses it.
    """

    epsilon: float
    delta: float
    noise_source: NoiseSource = "system"
    seed: int | None = None

    def __post_init__(self) -> None:
        if not (0 < self.epsilon <= MAX_EPSILON):
            raise FixConfigurationError(
                f"epsilon lies in (0, {MAX_EPSILON:g}]", value=self.epsilon, remedy="Use 1 or less for strong privacy."
            )
        if not (0 < self.delta < 1e-2):
            raise FixConfigurationError(
                "delta lies in (0, 0.01)", value=self.delta, remedy="Use less than one over the number of records."
            )
        if (self.noise_source == "seeded-study") != (self.seed is not None):
            raise FixConfigurationError(
                'a seed belongs to noise_source "seeded-study" and to nothing else',
                value=(self.noise_source, self.seed),
                remedy="Predictable noise is no privacy: drop the seed, or say that this is a study.",
            )

    def noise_multipliers(self, shares: Mapping[str, float]) -> dict[str, float]:
        """A Gaussian noise multiplier for each stage, so that all stages together meet the plan.

        `shares` are positive weights of the budget: stage i gets multiplier s / sqrt(w_i), hence the stages compose
        to one Gaussian release with multiplier s, and s is calibrated with the PLD accountant.
        """
        total = sum(shares.values())
        if not shares or min(shares.values()) <= 0:
            raise FixConfigurationError("every stage has a positive share of the budget", value=dict(shares))
        scale = _calibrate(self.epsilon, self.delta)
        return {stage: scale / math.sqrt(w / total) for stage, w in shares.items()}


def epsilon_of(event: dp_accounting.DpEvent, delta: float) -> float:
    """The epsilon of an event at `delta`, by privacy loss distributions (Koskela et al. 2020; Doroshenko et al. 2022).

    Raises `PrivacyRefusedError` for a mechanism that the accountant does not know.
    """
    event = _merge_gaussians(event)
    if isinstance(event, dp_accounting.GaussianDpEvent):
        return _gaussian_epsilon(event.noise_multiplier, delta)
    return _pld_epsilon(event, delta)


@functools.lru_cache(maxsize=1024)
def _gaussian_epsilon(noise_multiplier: float, delta: float) -> float:
    """Every site charges the same events: compute each once."""
    return _pld_epsilon(dp_accounting.GaussianDpEvent(noise_multiplier), delta)


def _pld_epsilon(event: dp_accounting.DpEvent, delta: float) -> float:
    accountant = pld.PLDAccountant(dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE, _DISCRETIZATION)
    if not accountant.supports(event):
        raise PrivacyRefusedError(
            "the accountant does not know this mechanism", value=type(event).__name__, remedy="Nothing was released."
        )
    accountant.compose(event)
    return float(accountant.get_epsilon(delta * (1 - GRID_SHARE_OF_DELTA)))


def _merge_gaussians(event: dp_accounting.DpEvent) -> dp_accounting.DpEvent:
    """Gaussian releases compose to one: 1/s^2 = sum of 1/s_i^2, exactly; merging spares the rounding of each."""
    if not isinstance(event, dp_accounting.ComposedDpEvent):
        return event
    gaussian = [e for e in event.events if isinstance(e, dp_accounting.GaussianDpEvent) and e.noise_multiplier > 0]
    rest = [e for e in event.events if e not in gaussian]
    if gaussian:
        precision = math.fsum(e.noise_multiplier**-2 for e in gaussian)
        rest.append(dp_accounting.GaussianDpEvent(1 / math.sqrt(precision)))
    return rest[0] if len(rest) == 1 else dp_accounting.ComposedDpEvent(rest)


@functools.cache
def _calibrate(epsilon: float, delta: float) -> float:
    """The smallest Gaussian noise multiplier, to a part in 10,000, that meets (epsilon, delta)."""
    low, high = 1e-2, 4.0
    while epsilon_of(dp_accounting.GaussianDpEvent(high), delta) > epsilon:
        high *= 2
    while high / low > 1 + 1e-4:
        middle = math.sqrt(low * high)
        fits = epsilon_of(dp_accounting.GaussianDpEvent(middle), delta) <= epsilon
        low, high = (low, middle) if fits else (middle, high)
    # Merging the stages again rounds in the last bits: leave them room.
    return high * (1 + 1e-9)


def accountant_name() -> str:
    """The accountant and its version, for statements."""
    from importlib import metadata

    return f"PLD (dp_accounting {metadata.version('dp-accounting')})"
