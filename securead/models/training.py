"""The training contract: what a detector offers so that any executor can train it, privately or not.

A trainable detector is a sequence of rounds over a public state:

    state = detector.initial_state(schema)
    while not state.done:
        total = sum of detector.site_update(state, data, releaser) over the sites
        state = detector.next_state(state, total)
    detector.finish(state)

The coordinator's step is a function of the *sum* of updates and of public state only, so any aggregation that
computes sums serves every detector. Updates are exact integers: their sum does not depend on the order of sites.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import dp_accounting
import numpy as np

from securead.data.schema import Array, Schema
from securead.errors import FixInputError
from securead.privacy.plan import Stage
from securead.privacy.site import PrivateTraining, Releaser

DONE = "done"


@dataclass(frozen=True, eq=False)
class State:
    """Public state between rounds: the next stage's name, the schema so far, and named float arrays."""

    stage: str
    schema: Schema
    values: Mapping[str, Array] = field(default_factory=dict)

    @property
    def done(self) -> bool:
        """Whether no round is left."""
        return self.stage == DONE


@dataclass(frozen=True, eq=False)
class Update:
    """What one site sends in one round.

    `values`: integers int64, already noised when the round is private. `l2_sensitivity`: of one record, in the same
    integers; None for local training, whose noise is inside. `noise_variance`: of every entry (0 without privacy); it
    adds up over sites. `dp_event`: what was charged. `bits`: signed bits that hold each value, whatever the records.
    """

    stage: str
    values: Array
    l2_sensitivity: int | None
    noise_variance: float
    dp_event: dp_accounting.DpEvent
    bits: int = 64


@dataclass(frozen=True, eq=False)
class Total:
    """The sum of all sites' updates of one round: all that a coordinator needs to see."""

    stage: str
    values: Array
    noise_variance: float
    sites: int


class Trainable(Protocol):
    """A detector that can be trained over rounds. Implementations are `securead.models` estimators."""

    def stages(self) -> Mapping[str, Stage]:
        """Every stage that releases something about records, in order, with what it costs."""

    def initial_state(self, schema: Schema) -> State: ...
    def site_update(self, state: State, data: Array, releaser: Releaser) -> Update: ...
    def next_state(self, state: State, total: Total) -> State: ...
    def finish(self, state: State) -> Any:
        """Set the fitted attributes from a done state; returns the detector."""


def release(state: State, exact: Array, l2_sensitivity: int, releaser: Releaser) -> Update:
    """Build the update of `state`'s stage from exact integer sums; all that leaves a site leaves through here."""
    event = releaser.event(state.stage)
    variance = (
        (event.noise_multiplier * l2_sensitivity) ** 2 if isinstance(event, dp_accounting.GaussianDpEvent) else 0.0
    )
    values = releaser.release(exact, l2_sensitivity, stage=state.stage)
    return Update(state.stage, values, l2_sensitivity, variance, event)


def release_trained(
    state: State, exactly: Callable[[], Array], privately: PrivateTraining, releaser: Releaser, *, bits: int = 64
) -> Update:
    """Build the update of a stage of local training: DP-SGD under a plan, exact training without one.

    The noise is in the training, so the update names neither a sensitivity nor a variance.
    """
    values = releaser.train(exactly, privately, stage=state.stage)
    return Update(state.stage, values, None, 0.0, releaser.event(state.stage), bits)


def bits_of_sum(bits: int, sites: int) -> int:
    """Signed bits that hold a sum of `sites` updates of `bits` bits, hence one update masked among them; 64 at most."""
    return min(bits + (sites - 1).bit_length(), 64)


def add_up(state: State, updates: Sequence[Update]) -> Total:
    """The exact sum of one round's updates.

    Raises `FixInputError` for an update of another stage or shape, and `OverflowError` when int64 cannot hold the sum.
    """
    for update in updates:
        if update.stage != state.stage or update.values.shape != updates[0].values.shape:
            raise FixInputError(
                "an update does not fit the round", value=(update.stage, update.values.shape), where=state.stage
            )
    if not updates:
        raise FixInputError("a round needs at least one update", where=state.stage)
    extremes = ((int(update.values.min(initial=0)), int(update.values.max(initial=0))) for update in updates)
    if sum(max(-low, high) for low, high in extremes) >= 2**63:
        raise OverflowError("the sum of updates does not fit 64 bits")
    values = np.zeros_like(updates[0].values)
    for update in updates:
        values = values + update.values
    return Total(state.stage, values, sum(update.noise_variance for update in updates), len(updates))
