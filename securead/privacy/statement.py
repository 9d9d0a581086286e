"""The privacy statement: what a bundle guarantees to whom, and what it does not, as a value and in plain words."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

_NEXT_TO_NOTHING = 15.0
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
class ReadingGuarantee:
    """What a single reading is promised where a record is a window of `length` readings, one every `stride` readings.

    One reading touches `windows` of them (more than length / stride where it fills in for missing ones); the numbers
    are for all of these together, added or removed, at the statement's delta.
    """

    length: int
    stride: int
    windows: int
    sites: tuple[SiteGuarantee, ...] = ()

    @property
    def epsilon(self) -> float:
        """The largest epsilon of any site."""
        return max(site.epsilon for site in self.sites)


@dataclass(frozen=True)
class PrivacyStatement:
    """The record of a training run's privacy budget.

    `private` is False when no noise was added, or noise that can be predicted; then no other number counts.
    `observed_bounds` says that bounds came from the records, which no noise covers. `imported_from` names where a model
    was trained if not here; `not_covered` then says what its public half discloses. `readings` says what a single
    reading is promised where a record is a window of them. `shrunk` says what was made smaller after training and by
    which records.
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
    imported_from: str = ""
    readings: ReadingGuarantee | None = None
    shrunk: str = ""

    @property
    def epsilon(self) -> float | None:
        """The largest epsilon of any site, or None without a guarantee."""
        return max((site.epsilon for site in self.sites), default=None) if self.private else None

    def in_words(self) -> tuple[str, ...]:
        """Sentences for people, strongest first."""
        return (*self._of_training(), *self._of_shrinking())

    def _of_shrinking(self) -> tuple[str, ...]:
        """What the records that chose a smaller model are promised: nothing."""
        if not self.shrunk:
            return ()
        trained = (
            " What was trained keeps its guarantee only if none of them was a training record; nobody can check that"
            " here."
        )
        return (
            f"Made smaller after training: {self.shrunk}. These are protected by nothing: what was chosen by them may"
            " tell about them." + trained * (self.epsilon is not None),
        )

    def _of_training(self) -> tuple[str, ...]:
        epsilon = self.epsilon
        if epsilon is None and self.imported_from:
            return (
                f"No differential-privacy guarantee: imported from {self.imported_from}.",
                *(f"Disclosed to everyone who submits records: {item}." for item in self.not_covered),
            )
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
            *self._of_readings(),
            *self._together(),
            *(f"Not covered: {item}." for item in self.not_covered),
        )

    def _of_readings(self) -> tuple[str, ...]:
        """The two units of privacy where a record is a window: the window, and the reading."""
        found = self.readings
        if found is None:
            return ()
        epsilon = found.epsilon
        little = ", which for a single reading is next to no protection" if epsilon > _NEXT_TO_NOTHING else ""
        return (
            f"A record here is a window of {found.length} readings in a row, one every {found.stride}. A single "
            f"reading lies in up to {found.windows} windows; for all of them together epsilon = {epsilon:.3g} at the "
            f"same delta{little} (add or remove the windows that hold it).",
        )

    def _together(self) -> tuple[str, ...]:
        """What several models from the same records guarantee together, where a ledger knows of others."""
        more = [site for site in self.sites if site.spent is not None and site.spent > site.epsilon]
        if not more:
            return ()
        each = ", ".join(f"{site.site}: {site.spent:.3g}" for site in more)
        readings = () if self.readings is None else self.readings.sites
        groups = ", ".join(f"{site.site}: {site.spent:.3g}" for site in readings if site.spent is not None)
        return (
            f"Together with earlier releases from the same records, epsilon adds up to: {each}"
            + f"; for all windows of a single reading: {groups}" * bool(groups)
            + ".",
        )
