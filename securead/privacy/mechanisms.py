"""The Gaussian mechanism on integers, and where its noise comes from.

Sums are exact integers on a fine grid and the noise is a discrete Gaussian on the same grid, drawn by OpenDP's exact
sampler from the operating system's randomness: no floating-point value ever carries noise, so the attacks of Mironov
(2012) have nothing to work on.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Protocol

import dp_accounting
import numpy as np

from securead.data.schema import Array
from securead.errors import FixConfigurationError, PrivacyRefusedError

GRID_BITS = 30
"""One unit of a released quantity is 2**30 grid steps: so fine that the grid costs next to no delta, and sums of 2**31
units still fit 62 bits."""

_MIN_SCALE = 2.0**20
_MAX_SCALE = 2.0**55


class NoiseSource(Protocol):
    """Draws discrete Gaussian noise of a given scale (in grid steps)."""

    def sample(self, shape: tuple[int, ...], scale: float, purpose: str) -> Array: ...


class SystemNoise:
    """OpenDP's exact discrete Gaussian sampler (Canonne, Kamath and Steinke 2020), seeded by the system."""

    def sample(self, shape: tuple[int, ...], scale: float, purpose: str) -> Array:
        """Integers int64 of the given shape; fresh at every call."""
        import opendp.prelude as dp

        dp.enable_features("contrib")
        measurement = dp.m.make_gaussian(
            dp.vector_domain(dp.atom_domain(T="i64")), dp.l2_distance(T="i64"), scale=scale
        )
        return np.array(measurement([0] * math.prod(shape)), dtype=np.int64).reshape(shape)


@dataclass(frozen=True)
class StudyNoise:
    """Predictable noise for repeatable studies: never private."""

    seed: int

    def sample(self, shape: tuple[int, ...], scale: float, purpose: str) -> Array:
        """Rounded normal draws that depend on the seed and the purpose alone."""
        key = hashlib.sha256(f"{self.seed}|{purpose}".encode()).digest()
        rng = np.random.default_rng(np.frombuffer(key, dtype=np.uint32))
        return np.rint(rng.normal(0.0, scale, shape)).astype(np.int64)


@dataclass(frozen=True)
class GaussianMechanism:
    """Adds N_Z(0, (noise_multiplier * l2_sensitivity)^2) to every entry of an integer vector.

    Guarantee: for neighbouring data sets whose integer vectors differ by at most `l2_sensitivity` (grid steps) in
    the L2 norm, the release is as private as the continuous Gaussian mechanism with `noise_multiplier`, up to
    `grid_delta`. Argument: rounding the continuous mechanism's output to integers is post-processing when the
    sensitivity is an integer vector; rounded and discrete Gaussian of scale s differ by at most 1/(24 s^2) in total
    variation per entry (midpoint rule) up to higher orders, so `entries / (8 s^2)` bounds the distance with room,
    and it enters delta at most (1 + e^epsilon) times.
    """

    l2_sensitivity: int
    noise_multiplier: float

    def __post_init__(self) -> None:
        if self.l2_sensitivity <= 0 or not self.noise_multiplier > 0:
            raise FixConfigurationError(
                "sensitivity and noise multiplier are positive", value=(self.l2_sensitivity, self.noise_multiplier)
            )
        if not _MIN_SCALE <= self.scale <= _MAX_SCALE:
            raise PrivacyRefusedError(
                "the noise does not fit the integer grid",
                value=self.scale,
                remedy="Ask for an epsilon between 0.001 and 50.",
            )

    @property
    def scale(self) -> float:
        """Standard deviation of the noise, in grid steps."""
        return self.noise_multiplier * self.l2_sensitivity

    @property
    def event(self) -> dp_accounting.GaussianDpEvent:
        """What is charged for one release."""
        return dp_accounting.GaussianDpEvent(self.noise_multiplier)

    def grid_delta(self, entries: int, epsilon: float) -> float:
        """The additional delta that the integer grid costs."""
        return (1 + math.exp(epsilon)) * entries / (8 * self.scale**2)

    def release(self, exact: Array, source: NoiseSource, *, purpose: str) -> Array:
        """`exact + noise`, int64 of the same shape. Raises `OverflowError` where int64 could not hold the result."""
        largest = int(np.abs(exact).max(initial=0))
        # 2**-1000 of the noise lies beyond 40 standard deviations.
        if largest + 40 * self.scale >= 2**62:
            raise OverflowError("the sum does not fit 62 bits")
        noised: Array = exact.astype(np.int64) + source.sample(exact.shape, self.scale, purpose)
        return noised
