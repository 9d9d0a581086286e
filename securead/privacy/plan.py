"""The privacy plan: how much may leak in total, and how that is spread over the stages of a training run."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import dp_accounting
from dp_accounting import pld

from securead.errors import FixConfigurationError, PrivacyRefusedError
from securead.privacy.statement import NoiseSource

# Of the declared delta this part pays for the integer grid of the noise (`mechanisms.GaussianMechanism`).
GRID_SHARE_OF_DELTA = 1e-3
# PLD rounds every loss up to a multiple of this; finer costs time and gains nothing visible.
_DISCRETIZATION = 5e-4
MAX_EPSILON = 50.0
_MAX_NOISE_MULTIPLIER = 1e5


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

    def noise_multipliers(self, stages: Mapping[str, Stage]) -> dict[str, float]:
        """A Gaussian noise multiplier for each stage, so that all stages together meet the plan.

        A single release with share w gets s / sqrt(w), where s alone would spend the whole plan: such releases compose
        to one with multiplier s / sqrt(sum of w). Sampled stages (DP-SGD) have no share; they have one multiplier
        among them, the smallest with which everything together stays within the plan.
        """
        single = {name: stage.share for name, stage in stages.items() if not stage.sampled}
        sampled = {name: stage for name, stage in stages.items() if stage.sampled}
        total = sum(single.values()) if not sampled else 1.0
        if not stages or min(single.values(), default=1.0) <= 0 or sum(single.values()) > total * (1 + 1e-9):
            raise FixConfigurationError("shares are positive and leave room for sampled stages", value=single)
        scale = _calibrate(self.epsilon, self.delta, (), ())
        found = {name: scale / math.sqrt(share / total) for name, share in single.items()}
        if sampled:
            others = tuple(Stage().event_terms(multiplier) for multiplier in found.values())
            wanted = tuple((stage.sampling_prob, stage.steps) for stage in sampled.values())
            multiplier = _calibrate(self.epsilon, self.delta, others, wanted)
            found |= dict.fromkeys(sampled, multiplier)
        return {name: found[name] for name in stages}


Terms = tuple[float, float, int]
"""A mechanism that the accountant knows: noise multiplier, Poisson sampling probability (1 = everybody), steps."""


@dataclass(frozen=True)
class Stage:
    """What one stage of training costs: one Gaussian release with a share of the budget, or steps of DP-SGD."""

    share: float = 0.0
    sampling_prob: float = 1.0
    steps: int = 1

    @property
    def sampled(self) -> bool:
        """Whether this is DP-SGD, whose cost depends on sampling."""
        return self.share == 0.0

    def event_terms(self, noise_multiplier: float) -> Terms:
        """The stage's terms at a noise multiplier."""
        return noise_multiplier, self.sampling_prob, self.steps

    def event(self, noise_multiplier: float) -> dp_accounting.DpEvent:
        """What running the stage costs at a noise multiplier."""
        return event_of(self.event_terms(noise_multiplier))


def event_of(terms: Terms) -> dp_accounting.DpEvent:
    """dp_accounting's event of `terms`."""
    noise_multiplier, sampling_prob, steps = terms
    event: dp_accounting.DpEvent = dp_accounting.GaussianDpEvent(noise_multiplier)
    if sampling_prob < 1:
        event = dp_accounting.PoissonSampledDpEvent(sampling_prob, event)
    return event if steps == 1 else dp_accounting.SelfComposedDpEvent(event, steps)


def terms_of(event: dp_accounting.DpEvent) -> Terms:
    """The terms of an event; a mechanism that they cannot express raises `PrivacyRefusedError`."""
    steps, sampling_prob, inner = 1, 1.0, event
    if isinstance(inner, dp_accounting.SelfComposedDpEvent):
        steps, inner = inner.count, inner.event
    if isinstance(inner, dp_accounting.PoissonSampledDpEvent):
        sampling_prob, inner = inner.sampling_probability, inner.event
    if not isinstance(inner, dp_accounting.GaussianDpEvent) or not inner.noise_multiplier > 0:
        raise PrivacyRefusedError(
            "the accountant does not know this mechanism", value=str(event)[:100], remedy="Nothing was released."
        )
    return float(inner.noise_multiplier), float(sampling_prob), int(steps)


def epsilon_of(terms: Sequence[Terms], delta: float) -> float:
    """The epsilon of mechanisms together at `delta`, by privacy loss distributions.

    Koskela, Jaelkoe and Honkela (2020); Doroshenko et al. (2022), "Connect the dots". 0 for no mechanism.
    """
    merged = _merge(terms)
    return _pld_epsilon(merged, delta) if merged else 0.0


def _merge(terms: Sequence[Terms]) -> tuple[Terms, ...]:
    """The same mechanisms with fewer terms, so that less is rounded and more is found in the cache.

    Gaussian releases compose to one with 1/s^2 = sum of 1/s_i^2, exactly; equal sampled ones add their steps.
    """
    precision = math.fsum(steps / multiplier**2 for multiplier, prob, steps in terms if prob >= 1)
    counts: dict[tuple[float, float], int] = {}
    for multiplier, prob, steps in terms:
        if prob < 1:
            counts[multiplier, prob] = counts.get((multiplier, prob), 0) + steps
    sampled = [(multiplier, prob, steps) for (multiplier, prob), steps in sorted(counts.items())]
    return tuple(([(1 / math.sqrt(precision), 1.0, 1)] if precision else []) + sampled)


@functools.lru_cache(maxsize=1024)
def _pld_epsilon(terms: tuple[Terms, ...], delta: float) -> float:
    accountant = pld.PLDAccountant(dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE, _DISCRETIZATION)
    for one in terms:
        accountant.compose(event_of(one))
    return float(accountant.get_epsilon(delta * (1 - GRID_SHARE_OF_DELTA)))


@functools.cache
def _calibrate(
    epsilon: float, delta: float, others: tuple[Terms, ...], sampled: tuple[tuple[float, int], ...]
) -> float:
    """The smallest noise multiplier, to a part in 10,000 (1,000 where sampled), that meets (epsilon, delta).

    Of one Gaussian release where nothing is `sampled`; else of all `sampled` (probability, steps) beside `others`.
    """

    def fits(multiplier: float) -> bool:
        own = [(multiplier, prob, steps) for prob, steps in sampled] or [(multiplier, 1.0, 1)]
        return epsilon_of([*others, *own], delta) <= epsilon

    low, high, precision = 1e-2, 1.0, 1e-3 if sampled else 1e-4
    while not fits(high):
        low, high = high, high * 2
        if high > _MAX_NOISE_MULTIPLIER:
            raise PrivacyRefusedError(
                "no amount of noise meets this plan", value=(epsilon, delta), remedy="Allow a larger epsilon."
            )
    while high / low > 1 + precision:
        middle = math.sqrt(low * high)
        low, high = (low, middle) if fits(middle) else (middle, high)
    # Merging the stages again rounds in the last bits: leave them room.
    return high * (1 + 1e-9)


def accountant_name() -> str:
    """The accountant and its version, for statements."""
    from importlib import metadata

    return f"PLD (dp_accounting {metadata.version('dp-accounting')})"
