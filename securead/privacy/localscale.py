"""A gateway's own centre and spread of every channel, from histograms of its windows at several widths of bins.

Sensors' bounds are wide and a gateway's readings narrow: thermocouples that may read 0 to 60 degrees move by
hundredths. So counts are released at three widths at once, each a sixteenth of the one before, and the finest at which
they stand out from their noise is read. A window counts once a channel and width, shared among its readings, so one
record changes the counts by sqrt(3 channels) in the L2 norm.

Sites of one fleet have sensors of the same kinds. So each tells, of what it has released to itself, the half-octave of
its spreads; their median helps those on which the noise played a trick. That is post-processing and costs nothing.
"""

from __future__ import annotations

import math

import numpy as np

from securead.data.schema import Array
from securead.errors import PrivacyRefusedError
from securead.privacy.mechanisms import GRID_BITS
from securead.privacy.preprocessing import sensitivity

_LEVELS = (16, 256, 4096)
_UNIT = 1 << GRID_BITS
# The bins that stand out must hold this share of the windows, give or take the noise of both numbers.
_KEPT_SHARE = 0.95
# Added to that threshold: a single bin of noise far away would widen a spread many times over.
_CAUTION = 1.0
OCTAVES = 48
# So many bins of a spread's width hold nearly all windows.
_ROW = 4
# A site's spread that differs from the fleet's by more than this factor is taken for a mistake of the noise.
_UNLIKE = 4.0
# Bins of one level are joined up to so many, until the next level is as wide.
_JOINED = (1, 2, 4, 8)


def local_sensitivity(channels: int) -> int:
    """L2 sensitivity of `local_counts` to one window, in grid steps."""
    return sensitivity(channels * len(_LEVELS))


def local_counts(values: Array, lower: Array, upper: Array) -> Array:
    """Counts in grid steps, int64 `(channels, bins of all widths)`, of windows `(n, length, channels)` within bounds.

    Each reading counts for a window's whole part: 1 / length, rounded down, so that no window counts more than once.
    """
    _, length, channels = values.shape
    finest = _LEVELS[-1]
    position = (values.reshape(-1, channels) - lower) / (upper - lower)
    index = np.clip((position * finest).astype(np.int64), 0, finest - 1)
    rows = []
    for column in index.T:
        counts = np.bincount(column, minlength=finest).astype(np.int64) * (_UNIT // length)
        rows.append(np.concatenate([counts.reshape(bins, -1).sum(axis=1) for bins in _LEVELS]))
    return np.array(rows)


def own_scale(noised: Array, lower: Array, upper: Array, noise_deviation: float) -> tuple[Array, Array]:
    """Centre and spread `(channels,)` from noised counts (windows, not grid steps) and their noise's deviation.

    Mean and deviation of the bins that stand out from their noise (the universal threshold of Donoho and Johnstone
    1994), at the finest width at which these hold nearly all windows; NaN for a channel where no width does.
    """
    windows = float(noised[:, : _LEVELS[0]].sum(axis=1).mean())
    center, spread = np.full(len(noised), np.nan), np.full(len(noised), np.nan)
    counting = noise_deviation * math.sqrt(_LEVELS[0] / len(noised))
    if windows <= 3 * counting:
        return center, spread  # their number cannot be told from zero
    for channel, row in enumerate(noised):
        for bins, joined in ((bins, joined) for bins in reversed(_LEVELS) for joined in _JOINED):
            counts, noise = _joined(row, bins, joined), noise_deviation * math.sqrt(joined)
            threshold = noise * (math.sqrt(2 * math.log(len(counts) * len(noised))) + _CAUTION)
            kept = np.where(counts > threshold, counts, 0.0)
            doubt = math.hypot(noise * math.sqrt(np.count_nonzero(kept)), counting)
            if kept.sum() > 0 and kept.sum() + doubt >= _KEPT_SHARE * windows:
                center[channel], spread[channel] = _moments(kept, lower[channel], upper[channel])
                break
    return center, spread


def octaves(spread: Array, lower: Array, upper: Array) -> Array:
    """One-hot rows int64 `(channels, OCTAVES)`: the half-octave of each spread below its range; zeros for NaN."""
    found = np.zeros((len(spread), OCTAVES), dtype=np.int64)
    for channel, share in enumerate(spread / (upper - lower)):
        if math.isfinite(share):
            found[channel, min(max(round(-2 * math.log2(share)), 0), OCTAVES - 1)] = 1
    return found


def typical_spread(counted: Array, lower: Array, upper: Array, names: tuple[str, ...]) -> Array:
    """The median `(channels,)` of sites' spreads from the sum of their `octaves`.

    Raises `PrivacyRefusedError` for a channel of which fewer than a quarter as many sites know as of the best known.
    """
    known = counted.sum(axis=1)
    if known.min() < max(1, known.max() / 4):
        raise PrivacyRefusedError(
            f"too few readings to find the scale of channel {names[int(known.argmin())]!r} privately",
            value=f"{known.min()} sites found one",
            remedy="Record for longer, allow a larger epsilon, or declare center and spread of every channel.",
        )
    middle = [int(np.searchsorted(np.cumsum(row), row.sum() / 2)) for row in counted]
    typical: Array = (upper - lower) * 2.0 ** (-np.array(middle) / 2)
    return typical


def agreed_scale(
    noised: Array, lower: Array, upper: Array, noise_deviation: float, typical: Array
) -> tuple[Array, Array]:
    """`own_scale`, and where it found none or one unlike the fleet's, the fleet's spread around the densest place."""
    center, spread = own_scale(noised, lower, upper, noise_deviation)
    for channel, row in enumerate(noised):
        usual = float(typical[channel])
        if usual / _UNLIKE <= spread[channel] <= usual * _UNLIKE:
            continue
        kept = _densest(row, float(upper[channel] - lower[channel]) / usual)
        center[channel], _ = _moments(kept, lower[channel], upper[channel])
        spread[channel] = usual
    return center, spread


def _densest(row: Array, bins_wanted: float) -> Array:
    """The counts of the `_ROW` bins in a row that hold most, bins about as wide as wanted, and zeros elsewhere.

    Looked for from wide bins to narrow ones, each time inside what was found before: so few places are compared that
    noise hardly ever wins.
    """
    low, high = 0.0, 1.0
    kept = _joined(row, _LEVELS[0], 1)
    for bins, joined in ((bins, joined) for bins in _LEVELS for joined in reversed(_JOINED)):
        number = bins // joined
        if number < _ROW or (number > _ROW and number > math.sqrt(2) * bins_wanted):
            continue
        counts = _joined(row, bins, joined)
        first = min(math.floor(low * number), number - _ROW)
        last = max(min(math.ceil(high * number), number) - _ROW, first)
        sums = [counts[at : at + _ROW].sum() for at in range(first, last + 1)]
        at = first + int(np.argmax(sums))
        kept = np.zeros(number)
        kept[at : at + _ROW] = np.maximum(counts[at : at + _ROW], 0.0)
        # Half a bin of room on either side, where the next, narrower bins may have more.
        low, high = max((at - 0.5) / number, 0.0), min((at + _ROW + 0.5) / number, 1.0)
    return kept


def _moments(counts: Array, lower: float, upper: float) -> tuple[float, float]:
    width = (upper - lower) / len(counts)
    middle, weight = lower + width * (np.arange(len(counts)) + 0.5), counts / max(counts.sum(), 1e-300)
    center = float(weight @ middle)
    # Below a quarter of a bin a spread cannot be told from zero.
    return center, max(math.sqrt(weight @ (middle - center) ** 2), width / 4)


def _joined(row: Array, bins: int, joined: int) -> Array:
    start = sum(_LEVELS[: _LEVELS.index(bins)])
    summed: Array = row[start : start + bins].reshape(-1, joined).sum(axis=1)
    return summed
