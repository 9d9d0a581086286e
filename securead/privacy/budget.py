"""The budget of one data owner: every noised release is charged here before it leaves.

The accountant checks first and mutates second; a refused charge changes nothing. With a path, the ledger is a file
that outlives the job: it is read when the budget is opened and rewritten atomically before a release is made, so a
crash can only over-count, never under-count, what was spent.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import dp_accounting

from securead import codec, files
from securead.errors import FixInputError, PrivacyRefusedError
from securead.privacy.plan import epsilon_of

_ROUNDING = 1e-9


@dataclass(frozen=True)
class Charge:
    """One entry of the ledger: what was released, and the Gaussian noise multiplier that covers it."""

    job: str
    purpose: str
    noise_multiplier: float


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
        self._path = path
        self._ledger = Ledger(owner, epsilon, delta)
        if path is not None and path.exists():
            stored = codec.from_plain(Ledger, files.read_json(path), where=str(path))
            if stored.owner != owner or stored.delta != delta:
                raise FixInputError(
                    f"{path} is the ledger of {stored.owner!r} at delta {stored.delta:g}",
                    value=(owner, delta),
                    remedy="Give this owner a ledger of its own, and keep one delta per ledger.",
                )
            # The limit may be raised or lowered by its owner; what was spent stays.
            self._ledger = Ledger(owner, epsilon, delta, stored.charges)

    @property
    def ledger(self) -> Ledger:
        """The record so far."""
        return self._ledger

    def spent(self) -> float:
        """Epsilon spent so far at the budget's delta; 0 before the first charge."""
        return _epsilon(self._ledger)

    def charge(self, event: dp_accounting.DpEvent, *, job: str, purpose: str) -> None:
        """Record a release, or raise `PrivacyRefusedError` and change nothing.

        Only Gaussian events are known here so far; any other is refused rather than guessed at.
        """
        if not isinstance(event, dp_accounting.GaussianDpEvent) or not event.noise_multiplier > 0:
            raise PrivacyRefusedError(
                "this ledger does not know the mechanism", value=str(event)[:100], remedy="Nothing was released."
            )
        charge = Charge(job, purpose, float(event.noise_multiplier))
        ledger = self._ledger
        after = Ledger(ledger.owner, ledger.epsilon, ledger.delta, (*ledger.charges, charge))
        epsilon = _epsilon(after)
        if epsilon > ledger.epsilon + _ROUNDING:
            raise PrivacyRefusedError(
                f"{purpose!r} would bring {ledger.owner!r} to epsilon {epsilon:.4g} of {ledger.epsilon:.4g}",
                value=f"{len(ledger.charges)} earlier charges",
                remedy="Nothing was released. Ask for less, or let the owner of the records raise the limit.",
            )
        if self._path is not None:
            files.write_json(self._path, codec.to_plain(after))
        self._ledger = after

    def refuse_unless(self, events: list[dp_accounting.GaussianDpEvent]) -> None:
        """Raise `PrivacyRefusedError` now, before any record is read, unless all `events` can be charged later."""
        trial = Budget(self._ledger.owner, self._ledger.epsilon, self._ledger.delta)
        trial._ledger = self._ledger
        for event in events:
            trial.charge(event, job="trial", purpose="the planned releases")


def _epsilon(ledger: Ledger) -> float:
    if not ledger.charges:
        return 0.0
    events = [dp_accounting.GaussianDpEvent(charge.noise_multiplier) for charge in ledger.charges]
    return epsilon_of(dp_accounting.ComposedDpEvent(events), ledger.delta)
