"""What several records of one neighbour are promised together: a reading that lies in many windows.

For the Gaussian mechanism, k records change a sum by k sensitivities: the noise multiplier counts as its k-th part,
exactly. For DP-SGD, of k records each joins a step's sample with probability q, so a step is dominated by the mixture
of Gaussians whose shift is a binomial count (Ganesh 2024, "Tight Group-Level DP Guarantees for DP-SGD with Sampling via
Mixture of Gaussians Mechanisms": Poisson sampling, records added or removed); its privacy loss distribution is composed
like any other. The generic lemma (k epsilon at a far larger delta) holds, too, and lies far above.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence

import numpy as np
from dp_accounting.pld import privacy_loss_distribution as pld
from scipy import special

from securead.data.schema import Array
from securead.privacy.plan import GRID_SHARE_OF_DELTA, Terms, epsilon_of

GroupTerms = tuple[Terms, int]
"""A mechanism, and how many records of a group it may meet."""
# Losses of groups are large, and rounding them up to multiples of this costs some thousandths of epsilon.
_DISCRETIZATION = 1e-2


def epsilon_of_groups(charges: Sequence[GroupTerms], delta: float) -> float:
    """The epsilon at `delta` of mechanisms together, for all records of one group."""
    if all(size == 1 for _, size in charges):
        return epsilon_of([terms for terms, _ in charges], delta)
    precision = 0.0
    counts: dict[tuple[float, float, int], int] = {}
    for (multiplier, prob, steps), size in charges:
        if prob >= 1:
            precision += steps * (size / multiplier) ** 2
        else:
            counts[multiplier, prob, size] = counts.get((multiplier, prob, size), 0) + steps
    everybody = gaussian_epsilon(math.sqrt(precision + _unsampled(counts)), delta)
    if not counts:
        return everybody
    sampled = tuple((*key, steps) for key, steps in sorted(counts.items()))
    # Sampling can only help; where losses outgrow their distribution, the bound without it still holds.
    return min(everybody, _composed(precision, sampled, delta))


def gaussian_epsilon(shift: float, delta: float) -> float:
    """The epsilon at `delta` of one Gaussian release with noise multiplier 1 / shift, exactly (Balle and Wang 2018)."""

    def log_delta(epsilon: float) -> float:
        first = special.log_ndtr(shift / 2 - epsilon / shift)
        second = epsilon + special.log_ndtr(-shift / 2 - epsilon / shift)
        return float(first + np.log1p(-np.exp(min(second - first, 0.0)))) if second < first else -math.inf

    low, high = 0.0, 1.0
    target = math.log(delta * (1 - GRID_SHARE_OF_DELTA))
    while log_delta(high) > target:
        low, high = high, 2 * high
    while high - low > 1e-6 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if log_delta(middle) > target else (low, middle)
    return high


def _unsampled(counts: Mapping[tuple[float, float, int], int]) -> float:
    return sum(steps * (size / multiplier) ** 2 for (multiplier, _, size), steps in counts.items())


@functools.lru_cache(maxsize=256)
def _composed(precision: float, sampled: tuple[tuple[float, float, int, int], ...], delta: float) -> float:
    # The coarser the larger the losses are: their distribution stays some hundred thousand points long.
    largest = max(size / multiplier for multiplier, _, size, _ in sampled)
    interval = _DISCRETIZATION * max(1.0, max(largest**2, precision) / 100)
    parts = [
        pld.from_mixture_gaussian_mechanism(
            multiplier,
            [float(count) for count in range(size + 1)],
            binomial(size, prob).tolist(),
            value_discretization_interval=interval,
        ).self_compose(steps)
        for multiplier, prob, size, steps in sampled
    ]
    if precision:
        parts.append(pld.from_gaussian_mechanism(1 / math.sqrt(precision), value_discretization_interval=interval))
    total = functools.reduce(lambda a, b: a.compose(b), parts)
    return float(total.get_epsilon_for_delta(delta * (1 - GRID_SHARE_OF_DELTA)))


def binomial(size: int, prob: float) -> Array:
    """Probabilities `(size + 1,)` that so many of `size` records join a sample."""
    counts = np.arange(size + 1)
    ways = np.array([math.comb(size, count) for count in range(size + 1)], dtype=float)
    found = ways * prob**counts * (1 - prob) ** (size - counts)
    probabilities: Array = found / found.sum()
    return probabilities
