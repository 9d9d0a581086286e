"""What a data owner's side of training gets to release with: one object, so that nothing leaves uncharged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import dp_accounting

from securead.data.schema import Array
from securead.errors import PrivacyRefusedError
from securead.privacy.budget import Budget
from securead.privacy.mechanisms import GaussianMechanism, NoiseSource, StudyNoise, SystemNoise
from securead.privacy.plan import GRID_SHARE_OF_DELTA, PrivacyPlan, epsilon_of


class Releaser(Protocol):
    """Turns exact integer sums into what may leave a site."""

    def release(self, exact: Array, l2_sensitivity: int, *, stage: str) -> Array:
        """The sums as they may leave: noised and charged, or exact where no privacy was asked for."""

    def event(self, stage: str) -> dp_accounting.DpEvent:
        """What `release` charges for a stage."""


class Unprotected:
    """Central, non-private fitting: exact sums."""

    def release(self, exact: Array, l2_sensitivity: int, *, stage: str) -> Array:
        """The same array."""
        return exact

    def event(self, stage: str) -> dp_accounting.DpEvent:
        """Not private at all."""
        return dp_accounting.NonPrivateDpEvent()


@dataclass(frozen=True)
class Protected:
    """One site's releases under a privacy plan: charge first, then add this site's full noise.

    Every site adds the whole noise itself, so its guarantee holds even when all the others and the coordinator
    compare notes.
    """

    site: str
    job: str
    plan: PrivacyPlan
    budget: Budget
    noise_multipliers: Mapping[str, float]

    def event(self, stage: str) -> dp_accounting.GaussianDpEvent:
        """The Gaussian event of a stage."""
        return dp_accounting.GaussianDpEvent(self.noise_multipliers[stage])

    def epsilon(self) -> float:
        """What all stages of this run cost together."""
        events = [self.event(stage) for stage in self.noise_multipliers]
        return epsilon_of(dp_accounting.ComposedDpEvent(events), self.plan.delta)

    def release(self, exact: Array, l2_sensitivity: int, *, stage: str) -> Array:
        """Noised int64 sums. Raises `PrivacyRefusedError`, having released nothing, when the budget is spent."""
        mechanism = GaussianMechanism(l2_sensitivity, self.noise_multipliers[stage])
        grid_delta = mechanism.grid_delta(exact.size, self.plan.epsilon)
        if grid_delta > self.plan.delta * GRID_SHARE_OF_DELTA / len(self.noise_multipliers):
            raise PrivacyRefusedError(
                "the noise's integer grid is too coarse for this delta", value=grid_delta, remedy="Use a larger delta."
            )
        self.budget.charge(mechanism.event, job=self.job, purpose=stage)
        return mechanism.release(exact, self._source(), purpose=f"{self.site}|{stage}")

    def refuse_unless_affordable(self) -> None:
        """Raise `PrivacyRefusedError` before any record is read when the budget cannot pay for all stages."""
        self.budget.refuse_unless([self.event(stage) for stage in self.noise_multipliers])

    def _source(self) -> NoiseSource:
        return SystemNoise() if self.plan.seed is None else StudyNoise(self.plan.seed)
