"""Federated averaging: how trained weights leave a site, and how their average moves the coordinator's model.

Both halves meet in a sum of integers. A site's weight in it is its own noised number of records (McMahan et al. 2017);
it sends weight times network and the weight, whole or quantised. The coordinator takes the average for the new model,
or for a pseudo-gradient of an adaptive server optimizer (Reddi et al. 2021, algorithm 2): a function of the sum and of
public state, like every step of a coordinator.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from securead.data.schema import Array
from securead.errors import FixConfigurationError
from securead.models import network
from securead.models.layout import Layout
from securead.models.threshold import refuse_no_number

Optimizer = Literal["average", "adam"]
Uniform = Callable[[int], Array]
"""So many independent numbers from (0, 1), the site's own."""
# Averages travel as weight * parameter in steps of 2**-24 with weights up to 2**26 records: 2**52 for |parameter| <= 4.
_PARAMETER_STEPS = 1 << 24
# A site counts for so many average sites at most where weights are quantised; with no more sites it changes nothing.
_LARGEST_SITE = 4
FIRST, SECOND = "server_first", "server_second"


class Shipment(Protocol):
    """How a round's updates travel: integers whose sum tells the weighted average, and nothing else need be told."""

    @property
    def bits(self) -> int:
        """Signed bits that hold each value of one site."""

    def values(self, trained: Array, before: Array, records: float, uniform: Uniform) -> Array:
        """A site's update: its weights `(p,)` after training, from those `before` on, as int64 `(p + 1,)`."""

    def average(self, before: Array, total: Array) -> Array:
        """The weighted average of sites' weights `(p,)` from the sum of their updates, whose last entry is positive."""

    def layout(self, before: Array) -> Layout:
        """How such updates are laid out."""


@dataclass(frozen=True)
class Whole:
    """Weights times records in fine steps: averages are exact to 2**-24, at 64 bits a value."""

    bits: int = 64

    def values(self, trained: Array, before: Array, records: float, uniform: Uniform) -> Array:
        """Every weight times the number of records, and that number."""
        values = np.rint(np.append(trained, 1.0) * records * _PARAMETER_STEPS)
        if np.abs(values).max() >= 2.0**60:
            raise network.diverged("a weight is too large to be averaged")
        return values.astype(np.int64)

    def average(self, before: Array, total: Array) -> Array:
        """Sums over the sum of weights."""
        average: Array = total[:-1] / total[-1]
        return average

    def layout(self, before: Array) -> Layout:
        """Averages of weights."""
        return Layout("weighted", unit=_PARAMETER_STEPS, reference=before)


@dataclass(frozen=True)
class Quantised:
    """Changes of weights in few bits: clipped to [-reach, reach] and rounded to one of the two nearest steps at random.

    Stochastic rounding is right on average (as in QSGD, Alistarh et al. 2017), so its errors cancel over sites and
    rounds instead of adding up. A site's weight is rounded, too: 2**(bits - 1) - 1 is four average sites (or all
    sites, if fewer), `mean_records` and `sites` being public. Every value fits `bits` signed bits, and a sum over
    sites `bits + ceil(log2(sites))`.
    """

    bits: int
    reach: float
    mean_records: float = 1.0
    sites: int = 1

    def __post_init__(self) -> None:
        if not _is_whole(self.bits) or not 4 <= self.bits <= 32:
            raise FixConfigurationError(
                "update_bits is a whole number from 4 to 32", value=self.bits, remedy="Or leave it out: 64 bits, exact."
            )

    @property
    def top(self) -> int:
        """The largest weight, and value."""
        return int(2 ** (self.bits - 1) - 1)

    @property
    def unit(self) -> float:
        """What one record adds to a site's weight."""
        return self.top / (max(self.mean_records, 1.0) * min(max(self.sites, 1), _LARGEST_SITE))

    def values(self, trained: Array, before: Array, records: float, uniform: Uniform) -> Array:
        """The change of every weight times this site's weight, and that weight."""
        weight = float(np.clip(np.rint(records * self.unit), 1, self.top))
        exact = np.clip((trained - before) / self.reach, -1.0, 1.0) * weight
        below = np.floor(exact)
        return np.append(below + (uniform(len(exact)) < exact - below), weight).astype(np.int64)

    def average(self, before: Array, total: Array) -> Array:
        """The weights before, moved by the average change."""
        average: Array = before + total[:-1] / total[-1] * self.reach
        return average

    def layout(self, before: Array) -> Layout:
        """Averages of changes, in units of `reach`."""
        return Layout("weighted", unit=self.unit, reference=np.zeros(len(before)), scale=self.reach)


@dataclass(frozen=True)
class Server:
    """What the coordinator does with a round's average.

    "average" makes it the model (FedAvg). "adam" moves the model by `learning_rate` times the quotient of the moving
    averages of its changes and of their size (FedAdam), with `betas` their memories and `tau` the size below which
    changes count less; the moving averages are public state. Weights stay within [-limit, limit].
    """

    optimizer: Optimizer
    learning_rate: float
    betas: tuple[float, float]
    tau: float
    limit: float

    def __post_init__(self) -> None:
        if self.optimizer not in ("average", "adam"):
            raise FixConfigurationError("server_optimizer is average or adam", value=self.optimizer)
        for name, value in (("server_learning_rate", self.learning_rate), ("server_tau", self.tau)):
            refuse_no_number(name, value)
            if not 0 < value < math.inf:
                raise FixConfigurationError(f"{name} is positive and finite", value=value)
        if not _is_pair(self.betas):
            raise FixConfigurationError("server_betas are two numbers", value=self.betas, remedy="Say, 0.9 and 0.99.")
        for beta in self.betas:
            refuse_no_number("each of server_betas", beta)
            if not 0 <= beta < 1:
                raise FixConfigurationError("server_betas lie in [0, 1)", value=self.betas)

    def step(self, before: Array, average: Array, values: Mapping[str, Array]) -> dict[str, Array]:
        """The new weights under "theta", with what the next step needs to know."""
        if self.optimizer == "average":
            return {"theta": average}
        change = average - before  # the pseudo-gradient's opposite
        first, second = values.get(FIRST, np.zeros(len(change))), values.get(SECOND, np.full(len(change), self.tau**2))
        first = self.betas[0] * first + (1 - self.betas[0]) * change
        second = self.betas[1] * second + (1 - self.betas[1]) * change**2
        moved = before + self.learning_rate * first / (np.sqrt(second) + self.tau)
        return {"theta": np.clip(moved, -self.limit, self.limit), FIRST: first, SECOND: second}


def _is_whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _is_pair(value: Any) -> bool:
    return isinstance(value, tuple | list) and len(value) == 2


def shipment(bits: int | None, *, reach: float, mean_records: float, sites: int) -> Shipment:
    """Whole weights, or changes in `bits` bits."""
    return Whole() if bits is None else Quantised(bits, reach, mean_records, sites)
