"""Noise of the right distribution: the test accepts the right scale and rejects two thirds and three halves of it."""

from __future__ import annotations

import numpy as np
import opendp.prelude as dp
import pytest
from scipy import stats

from securead.errors import FixConfigurationError, PrivacyRefusedError
from securead.privacy.mechanisms import GRID_BITS, GaussianMechanism, StudyNoise, SystemNoise

ALPHA = 1e-6  # a false alarm once in a million runs; the draws are the system's and differ every time
DRAWS = 4000


def is_gaussian_of_scale(sample: np.ndarray, scale: float) -> bool:
    """Kolmogorov-Smirnov for the shape, a chi-square interval for the scale; each at ALPHA / 2."""
    shape = stats.kstest(sample / scale, "norm").pvalue > ALPHA / 2
    low, high = stats.chi2.ppf([ALPHA / 4, 1 - ALPHA / 4], df=len(sample))
    return bool(shape and low < ((sample / scale) ** 2).sum() < high)


@pytest.mark.parametrize("noise_multiplier", [0.5, 4.2])
def test_noise_scale_with_power(noise_multiplier: float) -> None:
    mechanism = GaussianMechanism(1 << GRID_BITS, noise_multiplier)
    exact = np.arange(DRAWS, dtype=np.int64)
    noise = (mechanism.release(exact, SystemNoise(), purpose="test") - exact).astype(float)
    assert is_gaussian_of_scale(noise, mechanism.scale)
    assert not is_gaussian_of_scale(noise, mechanism.scale * 2 / 3)
    assert not is_gaussian_of_scale(noise, mechanism.scale * 3 / 2)


def test_entries_are_independent_and_fresh() -> None:
    mechanism, zero = GaussianMechanism(1 << GRID_BITS, 1.0), np.zeros(DRAWS, dtype=np.int64)
    first, second = (mechanism.release(zero, SystemNoise(), purpose="same") for _ in range(2))
    bound = stats.norm.ppf(1 - ALPHA / 4) / np.sqrt(DRAWS)
    assert abs(np.corrcoef(first, second)[0, 1]) < bound
    assert abs(np.corrcoef(first[:-1], first[1:])[0, 1]) < bound * 1.01


def test_the_sampler_is_as_private_as_it_says() -> None:
    """OpenDP's own privacy map, zero-concentrated: rho = sensitivity^2 / (2 scale^2)."""
    dp.enable_features("contrib")
    mechanism = GaussianMechanism(3 << GRID_BITS, 2.0)
    measurement = dp.m.make_gaussian(
        dp.vector_domain(dp.atom_domain(T="i64")), dp.l2_distance(T="i64"), scale=mechanism.scale
    )
    assert measurement.map(3 << GRID_BITS) == pytest.approx(1 / (2 * 2.0**2))


def test_the_grid_costs_next_to_nothing() -> None:
    assert GaussianMechanism(1 << GRID_BITS, 1.0).grid_delta(100_000, epsilon=1.0) < 1e-9


def test_study_noise_repeats_and_depends_on_its_purpose() -> None:
    a, b = StudyNoise(7), StudyNoise(8)
    first = a.sample((DRAWS,), 1e7, "x|moments")
    assert np.array_equal(first, a.sample((DRAWS,), 1e7, "x|moments"))
    assert not np.array_equal(first, a.sample((DRAWS,), 1e7, "y|moments"))
    assert not np.array_equal(first, b.sample((DRAWS,), 1e7, "x|moments"))
    assert is_gaussian_of_scale(first.astype(float), 1e7)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(PrivacyRefusedError, match="grid"):
        GaussianMechanism(1, 1.0)
    with pytest.raises(PrivacyRefusedError, match="grid"):
        GaussianMechanism(1 << 60, 1.0)
    with pytest.raises(FixConfigurationError):
        GaussianMechanism(0, 1.0)
    with pytest.raises(FixConfigurationError):
        GaussianMechanism(1 << GRID_BITS, float("nan"))
    with pytest.raises(OverflowError):
        GaussianMechanism(1 << GRID_BITS, 1.0).release(np.array([2**62]), SystemNoise(), purpose="x")
