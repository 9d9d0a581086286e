"""The public state of a run, as everybody can find it: from what it began with, and the sum of every round."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from securead.errors import RejectMessageError, SecureadError
from securead.federated.federation import Terms
from securead.models.training import State, Total

_REMEDY = "Use the same version of securead everywhere; else the coordinator does not do its sums."


class PublicWalk:
    """Takes the detector's public step, round after round, from sums that somebody else may have made up.

    Guarantees: whatever the sums, the state is one that the detector's own code made of sums of the right shape; it is
    finite; a round that was passed is not passed again with another sum.
    """

    def __init__(self, terms: Terms, initial: State) -> None:
        self._terms, self.state, self.rounds = terms, initial, 0

    def advance(
        self, totals: Sequence[Total], since: int, rounds: int, shape: Callable[[State], tuple[int, ...]]
    ) -> None:
        """Be where `rounds` rounds are over; `totals` are those after the first `since`.

        Raises `RejectMessageError` where that cannot be: rounds missing or passed already, or sums that are none.
        """
        if not since <= self.rounds <= rounds == since + len(totals):
            raise RejectMessageError(
                "the coordinator's rounds are not this site's",
                value=f"after {since} come {len(totals)}, to reach {rounds}; the site has passed {self.rounds}",
                remedy=_REMEDY,
            )
        for total in totals[self.rounds - since :]:
            self.state = self._after(total, shape)
            self.rounds += 1

    def _after(self, total: Total, shape: Callable[[State], tuple[int, ...]]) -> State:
        state, sites = self.state, len(self._terms.names)
        if state.done or total.stage != state.stage or total.sites > sites or total.values.shape != shape(state):
            raise RejectMessageError(
                f"the sum of round {self.rounds + 1} is not of its stage, {state.stage}",
                value=(total.stage[:80], total.values.shape, total.sites),
                remedy=_REMEDY,
            )
        try:
            after = self._terms.detector.next_state(state, total)
        except SecureadError:
            raise
        except Exception as error:  # of sums that no honest run has
            raise self._no_sum() from error
        if not all(np.isfinite(array).all() for array in after.values.values()):
            raise self._no_sum()
        return after

    def _no_sum(self) -> RejectMessageError:
        return RejectMessageError(f"no honest round has the sum of round {self.rounds + 1}", remedy=_REMEDY)
