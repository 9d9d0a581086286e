"""The privacy statement: what a bundle guarantees to whom, and what it does not, as a value and in plain words."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

NoiseSource = Literal["system", "seeded-study"]


@dataclass(frozen=True)
class Release:
    """What every site released under noise, at which noise multiplier, and in how many rounds."""

    what: str
    noise_multiplier: float
    times: int = 1


@dataclass(frozen=True)
class SiteGuarantee:
    """The epsilon of one site's records at the statement's delta: of this model, and of all that its ledger holds.

    `spent` composes this model with every earlier release from the same records; None where no ledger was kept.
    """

    site: str
    epsilon: float
    spent: float | None = None


@dataclass(frozen=True)
class PrivacyStatement:
    """The record of a training run's privacy budget.

    `private` is False when no noise was added, or noise that can be predicted; then no other number counts.
    `observed_bounds` says that bounds came from the records, which no noise covers.
    """

    private: bool
    delta: float = 0.0
    sites: tuple[SiteGuarantee, ...] = ()
    releases: tuple[Release, ...] = ()
    neighboring_relation: str = "add or remove one record"
    accountant: str = ""
    noise_source: NoiseSource = "system"
    not_covered: tuple[str, ...] = ()
    observed_bounds: bool = False

    @property
    def epsilon(self) -> float | None:
        """The largest epsilon of any site, or None without a guarantee."""
        return max((site.epsilon for site in self.sites), default=None) if self.private else None

    def in_words(self) -> tuple[str, ...]:
        """Sentences for people, strongest first."""
        epsilon = self.epsilon
        if epsilon is None:
            reason = (
                "its noise came from a seed that others can know (a study setting)"
                if self.noise_source == "seeded-study"
                else "no noise was added in training"
            )
            return (f"This model gives NO privacy guarantee for its training records: {reason}.",)
        each = ", ".join(f"{site.site}: {site.epsilon:.3g}" for site in self.sites)
        return (
            "Differential privacy for every single training record"
            + (", except for what the column bounds reveal, which were read off the records" * self.observed_bounds)
            + f": epsilon = {epsilon:.3g}, "
            f"delta = {self.delta:.3g} ({self.neighboring_relation}).",
            f"It holds against the coordinator, the other sites and everyone who sees the model (per site: {each}).",
            "Whatever someone concludes from the model about one record, they would have concluded with nearly the "
            f"same odds (within a factor {math.exp(epsilon):.3g}, but for a chance of delta) had that record never "
            "been used.",
            "Noised releases: "
            + "; ".join(
                f"{r.what} ({f'{r.times} times, ' if r.times > 1 else ''}noise multiplier {r.noise_multiplier:.3g})"
                for r in self.releases
            )
            + f". Accounted with {self.accountant}.",
            *self._together(),
            *(f"Not covered: {item}." for item in self.not_covered),
        )

    def _together(self) -> tuple[str, ...]:
        """What several models from the same records guarantee together, where a ledger knows of others."""
        more = [site for site in self.sites if site.spent is not None and site.spent > site.epsilon]
        if not more:
            return ()
        each = ", ".join(f"{site.site}: {site.spent:.3g}" for site in more)
        return (f"Together with earlier releases from the same records, epsilon adds up to: {each}.",)
