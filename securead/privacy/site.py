"""What a data owner's side of training gets to release with: one object, so that nothing leaves uncharged.

A release is charged, then made, then kept, then returned. A site that resumes a broken run therefore sends the
identical update again, and one that broke down between paying and keeping pays once: what was never kept never left.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import dp_accounting
import numpy as np

from securead import files
from securead.data.schema import Array
from securead.errors import FixInputError, PrivacyRefusedError
from securead.privacy.budget import Budget
from securead.privacy.groups import epsilon_of_groups
from securead.privacy.mechanisms import GaussianMechanism, NoiseSource, StudyNoise, SystemNoise
from securead.privacy.plan import GRID_SHARE_OF_DELTA, PrivacyPlan, Stage, epsilon_of, terms_of
from securead.privacy.randomness import Stream, StudyStream, SystemStream
from securead.privacy.statement import SiteGuarantee

PrivateTraining = Callable[[float, Stream], Array]
"""Local training whose every step is noised with a multiplier and samples drawn from a stream; int64 result."""


class Kept:
    """A site's own memory of one run, what it released and what it never will; with a folder it outlives the job."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._arrays: dict[str, Array] = {}

    @property
    def lasting(self) -> bool:
        """Whether it outlives the job."""
        return self._folder is not None

    def get(self, name: str) -> Array | None:
        """The array kept under a name, or None."""
        if name not in self._arrays and self._folder is not None and (self._folder / f"{name}.npy").is_file():
            content = files.read_secret(self._folder / f"{name}.npy", limit=1 << 32)
            try:
                self._arrays[name] = np.load(io.BytesIO(content), allow_pickle=False)
            except (ValueError, EOFError, OSError) as error:
                raise FixInputError(
                    f"{self._folder / name}.npy is damaged", remedy="Begin the run anew, in another folder."
                ) from error
        return self._arrays.get(name)

    def put(self, name: str, array: Array) -> Array:
        """Keep an array for good before anything is done with it."""
        if self._folder is not None:
            content = io.BytesIO()
            np.save(content, array, allow_pickle=False)
            files.write_secret(self._folder / f"{name}.npy", content.getvalue())
        self._arrays[name] = array
        return array

    def drop(self, name: str) -> None:
        """Forget one array, where there is one."""
        self._arrays.pop(name, None)
        if self._folder is not None:
            (self._folder / f"{name}.npy").unlink(missing_ok=True)

    def clear(self) -> None:
        """Forget everything: only where nothing was released yet."""
        for path in sorted(self._folder.glob("*.npy")) if self._folder is not None else ():
            path.unlink()
        self._arrays.clear()


class Releaser(Protocol):
    """Turns a site's results into what may leave it."""

    @property
    def kept(self) -> Kept:
        """What this site remembers of the run."""

    def release(self, exact: Array, l2_sensitivity: int, *, stage: str) -> Array:
        """Integer sums as they may leave: noised and charged, or exact where no privacy was asked for."""

    def train(self, exactly: Callable[[], Array], privately: PrivateTraining, *, stage: str) -> Array:
        """The result of local training: by DP-SGD and charged, or exact where no privacy was asked for."""

    def event(self, stage: str) -> dp_accounting.DpEvent:
        """What a stage is charged."""

    def coins(self, count: int, probability: float, *, purpose: str, seed: int) -> Array:
        """Booleans `(count,)` that the site keeps to itself, the same whenever it asks again for a purpose."""


@dataclass(frozen=True)
class Unprotected:
    """Central, non-private fitting: exact sums."""

    kept: Kept = field(default_factory=Kept)

    def release(self, exact: Array, l2_sensitivity: int, *, stage: str) -> Array:
        """The same array."""
        return self._once(stage, lambda: exact)

    def train(self, exactly: Callable[[], Array], privately: PrivateTraining, *, stage: str) -> Array:
        """Exact training."""
        return self._once(stage, exactly)

    def _once(self, stage: str, make: Callable[[], Array]) -> Array:
        """What a run that outlives its process has kept; training again might end elsewhere in the last digit."""
        known = self.kept.get(stage) if self.kept.lasting else None
        return self.kept.put(stage, make()) if known is None else known

    def event(self, stage: str) -> dp_accounting.DpEvent:
        """Not private at all."""
        return dp_accounting.NonPrivateDpEvent()

    def coins(self, count: int, probability: float, *, purpose: str, seed: int) -> Array:
        """Repeatable coins of the public seed."""
        return np.random.default_rng(seed).random(count) < probability


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
    stages: Mapping[str, Stage]
    noise_multipliers: Mapping[str, float]
    kept: Kept = field(default_factory=Kept)
    windows_per_reading: int = 1

    def event(self, stage: str) -> dp_accounting.DpEvent:
        """The Gaussian event of a stage, sampled where it is DP-SGD."""
        return self.stages[stage].event(self.noise_multipliers[stage])

    def epsilon(self) -> float:
        """What this run has cost so far."""
        terms = [charge.terms for charge in self.budget.ledger.charges if charge.job == self.job]
        return epsilon_of(terms, self.plan.delta)

    def epsilon_per_reading(self) -> float:
        """The same for all windows that one reading lies in, together."""
        charges = [charge for charge in self.budget.ledger.charges if charge.job == self.job]
        return epsilon_of_groups([(c.terms, c.windows_per_reading) for c in charges], self.plan.delta)

    def guarantee(self) -> SiteGuarantee:
        """What a record of this site is promised: of this run, and of all that its budget has paid for."""
        return SiteGuarantee(self.site, self.epsilon(), self.budget.spent())

    def guarantee_of_readings(self) -> SiteGuarantee:
        """The same of a reading."""
        return SiteGuarantee(self.site, self.epsilon_per_reading(), self.budget.spent_per_reading())

    def release(self, exact: Array, l2_sensitivity: int, *, stage: str) -> Array:
        """Noised int64 sums. Raises `PrivacyRefusedError`, having released nothing, when the budget is spent."""
        mechanism = GaussianMechanism(l2_sensitivity, self.noise_multipliers[stage])
        grid_delta = mechanism.grid_delta(exact.size, self.plan.epsilon)
        if grid_delta > self.plan.delta * GRID_SHARE_OF_DELTA / len(self.noise_multipliers):
            raise PrivacyRefusedError(
                "the noise's integer grid is too coarse for this delta", value=grid_delta, remedy="Use a larger delta."
            )
        return self._once(stage, lambda: mechanism.release(exact, self._noise(), purpose=f"{self.site}|{stage}"))

    def train(self, exactly: Callable[[], Array], privately: PrivateTraining, *, stage: str) -> Array:
        """The result of DP-SGD. Raises `PrivacyRefusedError`, having trained nothing, when the budget is spent."""
        return self._once(stage, lambda: privately(self.noise_multipliers[stage], self._stream(stage)))

    def coins(self, count: int, probability: float, *, purpose: str, seed: int) -> Array:
        """Coins of the site's own, tossed once in a run."""
        known = self.kept.get(purpose)
        if known is None:
            known = self.kept.put(purpose, self._stream(purpose).bernoulli(count, probability))
        if len(known) != count:
            raise FixInputError(f"site {self.site!r} resumed with other records", value=(len(known), count))
        return known

    def recall(self) -> None:
        """Charge what this run paid for to a budget that no longer tells: without a ledger it ended with its job."""
        for stage in self.noise_multipliers:
            if self.kept.get(f"{stage}.paid") is not None and not self.budget.charged(self.job, stage):
                self._charge(stage)

    def refuse_unless_affordable(self) -> None:
        """Raise `PrivacyRefusedError` before any record is read when the budget cannot pay for all stages."""
        unpaid = [stage for stage in self.noise_multipliers if not self.budget.charged(self.job, stage)]
        self.budget.refuse_unless([self.event(stage) for stage in unpaid])

    def _once(self, stage: str, make: Callable[[], Array]) -> Array:
        """A stage's release: charged and made once in a run, whatever breaks down in between."""
        known = self.kept.get(stage)
        if known is not None:
            return known
        # Paid for but not kept means not released, provided that this memory was there when it was paid.
        terms, marker = np.array(terms_of(self.event(stage))), self.kept.get(f"{stage}.paid")
        if not self.budget.charged(self.job, stage):
            self.kept.put(f"{stage}.paid", terms)
            self._charge(stage)
        elif marker is None or not np.array_equal(marker, terms):
            raise PrivacyRefusedError(
                f"site {self.site!r} paid for {stage!r} in this run, and its memory of the release is lost",
                remedy="A second release costs a second time: begin a new run.",
            )
        return self.kept.put(stage, make())

    def _charge(self, stage: str) -> None:
        size = self.windows_per_reading
        self.budget.charge(self.event(stage), job=self.job, purpose=stage, windows_per_reading=size)

    def _noise(self) -> NoiseSource:
        return SystemNoise() if self.plan.seed is None else StudyNoise(self.plan.seed)

    def _stream(self, purpose: str) -> Stream:
        return SystemStream() if self.plan.seed is None else StudyStream(self.plan.seed, f"{self.site}|{purpose}")
