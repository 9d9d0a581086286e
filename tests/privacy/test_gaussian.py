"""The exact discrete Gaussian: its law, held against 2/3 and 3/2 of its deviation.

Draws come from the operating system, so every test has a rate of false alarms: at most 1e-6 each.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from securead.errors import FixInputError
from securead.privacy.gaussian import discrete_gaussian

ALPHA = 1e-6


def p_value(draws: np.ndarray, deviation: float) -> float:
    """Pearson's test of draws against the discrete Gaussian of a deviation, tails pooled."""
    edge = int(2.5 * deviation)
    support = np.arange(-20 * int(deviation + 1), 20 * int(deviation + 1) + 1)
    weights = np.exp(-(support**2) / (2 * deviation**2))
    folded, found = np.clip(support, -edge, edge), np.clip(draws, -edge, edge)
    values = np.unique(folded)
    expected = np.array([weights[folded == v].sum() for v in values]) / weights.sum() * len(draws)
    return float(stats.chisquare([np.sum(found == v) for v in values], expected).pvalue)


@pytest.mark.parametrize("deviation", [1, 2, 7])
def test_the_law(deviation: int) -> None:
    draws = np.array([discrete_gaussian(deviation) for _ in range(8000)])
    assert p_value(draws, deviation) > ALPHA
    assert p_value(draws, deviation * 2 / 3) < ALPHA
    assert p_value(draws, deviation * 3 / 2) < ALPHA


def test_large_deviations_are_gaussian() -> None:
    """At the sizes that sharing uses: the continuous law, by Kolmogorov and Smirnov."""
    deviation = 3 << 35
    draws = np.array([float(discrete_gaussian(deviation)) for _ in range(4000)]) / deviation
    assert stats.kstest(draws, "norm").pvalue > ALPHA
    assert stats.kstest(draws * 2 / 3, "norm").pvalue < ALPHA
    assert stats.kstest(draws * 3 / 2, "norm").pvalue < ALPHA


def test_low_bits_are_noise() -> None:
    draws = [discrete_gaussian(1 << 40) for _ in range(2000)]
    counts = np.bincount([draw & 7 for draw in draws], minlength=8)
    assert stats.chisquare(counts).pvalue > ALPHA


@pytest.mark.parametrize("deviation", [0, -3])
def test_no_deviation(deviation: int) -> None:
    with pytest.raises(FixInputError, match="1 or more"):
        discrete_gaussian(deviation)
