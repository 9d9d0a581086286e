"""The discrete Gaussian, exactly: integers and the operating system's randomness, no floating point, no dependency.

For key holders, who install neither OpenDP nor SciPy; training's releases use OpenDP's (`mechanisms`). A noise drawn in
floating point has holes in its low bits that show what it was added to (Mironov 2012); integers have none.

Source: Canonne, Kamath and Steinke 2020, "The Discrete Gaussian for Differential Privacy", algorithms 1 to 3.
"""

from __future__ import annotations

import secrets

from securead.errors import FixInputError


def discrete_gaussian(deviation: int) -> int:
    """An integer k with probability proportional to exp(-k**2 / (2 deviation**2)), independent of all others.

    `deviation` is a whole number, 1 or more; its law's standard deviation is that or a little less. The time it takes
    varies with the result's size, so it must not be visible to whom the noise is meant to blind.
    """
    if deviation < 1:
        raise FixInputError("a discrete Gaussian's deviation is 1 or more", value=deviation)
    variance, scale = deviation * deviation, deviation + 1
    while True:
        candidate = _discrete_laplace(scale)
        gap = abs(candidate) * scale - variance
        if _happens_exp(gap * gap, 2 * variance * scale * scale):
            return candidate


def _discrete_laplace(scale: int) -> int:
    """An integer k with probability proportional to exp(-abs(k) / scale)."""
    while True:
        low = secrets.randbelow(scale)
        if not _happens_exp(low, scale):
            continue
        high = 0
        while _happens_exp(1, 1):
            high += 1
        size, negative = low + scale * high, secrets.randbits(1)
        if size or not negative:  # zero would come twice
            return -size if negative else size


def _happens_exp(numerator: int, denominator: int) -> bool:
    """True with probability exp(-numerator / denominator), for a ratio of 0 or more."""
    whole, rest = divmod(numerator, denominator)
    return all(_happens_exp_below_one(1, 1) for _ in range(whole)) and _happens_exp_below_one(rest, denominator)


def _happens_exp_below_one(numerator: int, denominator: int) -> bool:
    """As above for a ratio of at most 1: von Neumann's series, the first k at which a 1/k-th chance fails is odd."""
    k = 1
    while secrets.randbelow(denominator * k) < numerator:
        k += 1
    return k % 2 == 1
