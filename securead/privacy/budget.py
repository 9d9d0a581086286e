"""The budget of one data owner: every noised release is charged here before it leaves.

The accountant checks first and mutates second; a refused charge changes nothing. With a path, the ledger is a file
that outlives the job: for each charge it is locked, read again and rewritten atomically before the release is made, so
neither a crash nor another job at the same time can make it forget what was spent; at worst it over-counts.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import dp_accounting

from securead import codec, files
from securead.errors import FixConfigurationError, FixInputError, PrivacyRefusedError
from securead.privacy.groups import epsilon_of_groups
from securead.privacy.plan import Terms, epsilon_of, terms_of

_ROUNDING = 1e-9


@dataclass(frozen=True)
class Charge:
    """One entry of the ledger: what was released, and the mechanism that covers it (see `plan.Terms`).

    `windows_per_reading`: how many of the records one reading could touch, where records are windows of readings.
    """

    job: str
    purpose: str
    noise_multiplier: float
    sampling_prob: float = 1.0
    steps: int = 1
    windows_per_reading: int = 1

    def __post_init__(self) -> None:
        # Beyond these bounds the accountant fails or sees no loss; every mechanism here refuses long before.
        sampled = 0 < self.sampling_prob <= 1 and 1 <= self.steps <= 1e9
        if not (1e-6 <= self.noise_multiplier <= 1e9 and sampled and 1 <= self.windows_per_reading <= 1 << 20):
            raise FixInputError("a charge is absurd", value=self.terms, remedy="The ledger is damaged.")

    @property
    def terms(self) -> Terms:
        """What the accountant reads."""
        return self.noise_multiplier, self.sampling_prob, self.steps


@dataclass(frozen=True)
class Ledger:
    """All charges against one owner's records, and the limit they are held to."""

    owner: str
    epsilon: float
    delta: float
    charges: tuple[Charge, ...] = ()


class Budget:
    """(epsilon, delta) that one owner allows in total, over all jobs that share the ledger.

    Adaptive composition of Gaussian releases whose noise multipliers were fixed in advance is accounted exactly; the
    limit itself is a hard stop ("privacy odometer with a fixed plan", not a data-dependent filter).
    """

    def __init__(self, owner: str, epsilon: float, delta: float, *, path: Path | None = None) -> None:
        if not (0 < epsilon < math.inf and 0 < delta < 1):
            raise FixConfigurationError(
                f"the budget of {owner!r} has a positive, finite epsilon and a delta in (0, 1)", value=(epsilon, delta)
            )
        self._path = path
        self._ledger = self._stored(Ledger(owner, epsilon, delta))

    @property
    def kept(self) -> bool:
        """Whether the record outlives this job."""
        return self._path is not None

    @property
    def ledger(self) -> Ledger:
        """The record so far."""
        return self._ledger

    def spent(self) -> float:
        """Epsilon spent so far at the budget's delta; 0 before the first charge."""
        return _epsilon(self._ledger)

    def spent_per_reading(self) -> float:
        """The same for all windows that one reading lies in, together: what that reading is promised."""
        charges = self._ledger.charges
        return epsilon_of_groups([(charge.terms, charge.windows_per_reading) for charge in charges], self._ledger.delta)

    def charged(self, job: str, purpose: str) -> bool:
        """Whether a job has paid for a purpose already."""
        return any(charge.job == job and charge.purpose == purpose for charge in self._stored(self._ledger).charges)

    def charge(self, event: dp_accounting.DpEvent, *, job: str, purpose: str, windows_per_reading: int = 1) -> None:
        """Record a release, or raise `PrivacyRefusedError` and change nothing.

        Gaussian releases and Poisson-sampled ones are known; any other mechanism is refused rather than guessed at.
        The limit is on single records, that is windows, where records are windows.
        """
        charge = Charge(job, purpose, *terms_of(event), windows_per_reading)
        # Two jobs that both read the file first would both charge what one may spend.
        with files.locked(self._path) if self._path is not None else contextlib.nullcontext():
            ledger = self._stored(self._ledger)
            after = Ledger(ledger.owner, ledger.epsilon, ledger.delta, (*ledger.charges, charge))
            epsilon = _epsilon(after)
            if not epsilon <= ledger.epsilon + _ROUNDING:
                raise PrivacyRefusedError(
                    f"{purpose!r} would bring {ledger.owner!r} to epsilon {epsilon:.4g} of {ledger.epsilon:.4g}",
                    value=f"{len(ledger.charges)} earlier charges",
                    remedy="Nothing was released. Ask for less, or let the owner of the records raise the limit.",
                )
            if self._path is not None:
                files.write_json(self._path, codec.to_plain(after))
            self._ledger = after

    def refuse_unless(self, events: Sequence[dp_accounting.DpEvent]) -> None:
        """Raise `PrivacyRefusedError` now, before any record is read, unless all `events` can be charged later."""
        trial = Budget(self._ledger.owner, self._ledger.epsilon, self._ledger.delta)
        trial._ledger = self._ledger
        for event in events:
            trial.charge(event, job="trial", purpose="the planned releases")

    def _stored(self, ledger: Ledger) -> Ledger:
        """`ledger` with the charges that stand in the file by now: other jobs may have added theirs."""
        path = self._path
        if path is None or not path.exists():
            return ledger
        stored = codec.from_plain(Ledger, files.read_json(path), where=str(path))
        if stored.owner != ledger.owner or stored.delta != ledger.delta:
            raise FixInputError(
                f"{path} is the ledger of {stored.owner!r} at delta {stored.delta:g}",
                value=(ledger.owner, ledger.delta),
                remedy="Give this owner a ledger of its own, and keep one delta per ledger.",
            )
        # The limit may be raised or lowered by its owner; what was spent stays.
        return Ledger(ledger.owner, ledger.epsilon, ledger.delta, stored.charges)


def _epsilon(ledger: Ledger) -> float:
    return epsilon_of([charge.terms for charge in ledger.charges], ledger.delta)
