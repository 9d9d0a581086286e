"""A gateway's own scale: what one window can change, how near the estimate comes, and what helps when it does not."""

from __future__ import annotations

import numpy as np
import pytest

from securead.errors import PrivacyRefusedError
from securead.privacy import localscale
from securead.privacy.mechanisms import GRID_BITS

LOWER, UPPER = np.array([0.0, -50.0, 0.0]), np.array([60.0, 50.0, 1.0])
NAMES = ("thermocouple", "wide", "discrete")


def windows(rng: np.random.Generator, n: int, length: int = 5) -> np.ndarray:
    """`(n, length, 3)` with deviations .02, 10 and a channel of two values."""
    values = np.stack(
        [
            rng.normal(25, 0.02, (n, length)),
            rng.normal(5, 10, (n, length)),
            np.where(rng.random((n, length)) < 0.8, 0.3, 0.35),
        ],
        axis=2,
    )
    return values.clip(LOWER, UPPER)


def noised(rng: np.random.Generator, values: np.ndarray, deviation: float) -> np.ndarray:
    counts = localscale.local_counts(values, LOWER, UPPER) / 2**GRID_BITS
    return counts + rng.normal(0, deviation, counts.shape) if deviation else counts


def test_one_window_changes_the_counts_by_the_sensitivity_at_most(rng: np.random.Generator) -> None:
    values = windows(rng, 40)
    values[0] = [25, 5, 0.3]  # all readings in one bin: the worst there is
    whole = localscale.local_counts(values, LOWER, UPPER)
    for row in range(40):
        change = whole - localscale.local_counts(np.delete(values, row, axis=0), LOWER, UPPER)
        assert np.linalg.norm(change.astype(float)) <= localscale.local_sensitivity(3) * (1 + 1e-12)
    reached = whole - localscale.local_counts(values[1:], LOWER, UPPER)
    assert np.linalg.norm(reached.astype(float)) > 0.999 * localscale.local_sensitivity(3), "no larger than needed"


def test_exact_counts_give_the_scale(rng: np.random.Generator) -> None:
    values = windows(rng, 2000)
    center, spread = localscale.own_scale(noised(rng, values, 0.0), LOWER, UPPER, 0.0)
    flat = values.reshape(-1, 3)
    np.testing.assert_allclose(center, flat.mean(axis=0), atol=0.02 * flat.std(axis=0).max())
    np.testing.assert_allclose(spread, flat.std(axis=0), rtol=0.1)


@pytest.mark.parametrize("deviation", [4.0, 12.0])
def test_under_noise_it_comes_near(rng: np.random.Generator, deviation: float) -> None:
    values = windows(rng, 400)
    flat = values.reshape(-1, 3)
    center, spread = localscale.agreed_scale(
        noised(rng, values, deviation), LOWER, UPPER, deviation, 1.3 * flat.std(axis=0)
    )
    assert (np.abs(center - flat.mean(axis=0)) < deviation / 5 * flat.std(axis=0)).all()
    assert (np.abs(np.log2(spread / flat.std(axis=0))) < 2.4).all()


def test_a_fleet_helps_a_gateway_that_finds_nothing(rng: np.random.Generator) -> None:
    fleet = [windows(rng, 400) for _ in range(9)]
    told = [localscale.own_scale(noised(rng, values, 8.0), LOWER, UPPER, 8.0)[1] for values in fleet]
    typical = localscale.typical_spread(
        sum(localscale.octaves(spread, LOWER, UPPER) for spread in told), LOWER, UPPER, NAMES
    )
    true = fleet[0].reshape(-1, 3).std(axis=0)
    assert (np.abs(np.log2(typical / true)) < 1).all()
    poor = windows(rng, 250)
    center, spread = localscale.agreed_scale(noised(rng, poor, 20.0), LOWER, UPPER, 20.0, typical)
    assert (np.abs(np.log2(spread / true)) <= 2.6).all(), "within the factor that counts as alike"
    assert (np.abs(center - poor.reshape(-1, 3).mean(axis=0)) < 4 * typical).all()


def test_too_much_noise_for_all_is_refused(rng: np.random.Generator) -> None:
    _, spread = localscale.own_scale(noised(rng, windows(rng, 30), 300.0), LOWER, UPPER, 300.0)
    assert np.isnan(spread).all()
    counted = localscale.octaves(spread, LOWER, UPPER)
    assert not counted.any()
    with pytest.raises(PrivacyRefusedError, match="thermocouple"):
        localscale.typical_spread(counted, LOWER, UPPER, NAMES)
