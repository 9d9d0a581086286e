"""Slots to coefficients and back in twice the precision of doubles.

Deep programs amplify: where the largest score is 2**50 of the tolerance, doubles in the encoder alone would cost more
than that. Slot i of a polynomial m with N real coefficients is the real part of m at exp(i pi (2 i + 1) / N), i < N /
2; a polynomial of real slots has c[N - j] = -c[j], and its first half is the cosine transform (DCT-II) of the slots.
Both ways take one complex Fourier transform of length N / 2 (Makhoul 1980) on pairs of doubles (Dekker 1971; errors
below 2**-102 an operation: Joldes, Muller and Popescu 2017). What is secret here is an owner's own; the work does not
depend on it. The order of slots is the engine's own, because nothing else encodes or decodes.
"""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import numpy as np

from securead.data.schema import Array

UNIT = 2.0**-102
LIMB_BITS = 24
_SPLITTER = float((1 << 27) + 1)
_FIXED = 192  # bits of the fixed-point numbers that tables come from


class Pair(NamedTuple):
    """Numbers high + low, |low| at most half a unit in the last place of high."""

    high: Array
    low: Array


def to_coefficients(slots: Array, bits: int, primes: tuple[int, ...]) -> Array:
    """Residues uint64 `(columns, primes, N)` of the integers nearest to 2**bits times the coefficients of the
    polynomials with these real slots, float64 `(columns, N / 2)`, or of neighbours of these integers.
    """
    columns, half = slots.shape
    found = np.empty((columns, len(primes), 2 * half), dtype=np.uint64)
    # Two at a time: what is between stays in a processor's cache.
    for start in range(0, columns, 2):
        two = slots[start : start + 2]
        pair = _cosines(np.vstack([two, np.zeros((2 - len(two), half))]))
        # The middle coefficient is zero, and the second half mirrors the first.
        parts = ((part, np.zeros((2, 1)), -part[:, :0:-1]) for part in pair)
        high, low = (np.concatenate(part, axis=1) * 2.0**bits for part in parts)
        limbs = _limbs(Pair(high, low))[:, : len(two)]
        for at, prime in enumerate(primes):
            found[start : start + 2, at] = _residues(limbs, prime)
    return found


def to_slots(residues: Array, scale: float, primes: tuple[int, ...]) -> Array:
    """Float64 `(N / 2,)`: the slots of a polynomial with residues uint64 `(primes, N)`, centred, over `scale`."""
    value = _integers(residues, primes)
    dimension = len(value.high)
    half = dimension // 2
    # c[j] - c[N - j], the part of a polynomial that real slots see.
    mirrored = Pair(-value.high[:half:-1], -value.low[:half:-1])
    both = _add(Pair(value.high[1:half], value.low[1:half]), mirrored)
    d = Pair(np.concatenate([2 * value.high[:1], both.high]), np.concatenate([2 * value.low[:1], both.low]))
    high, low = np.zeros(half + 1), np.zeros(half + 1)
    high[:half], low[:half] = d.high, d.low
    # X[j] - i X[M - j], turned by exp(i pi j / 2 M) and conjugated, is what the Fourier transform takes to the slots.
    table = _roots(half)
    cosine, sine = (Pair(t.high[:half], t.low[:half]) for t in table)
    near, far = Pair(high[:half], low[:half]), Pair(high[:0:-1], low[:0:-1])
    real = _add(_times(near, cosine), _times(far, sine))
    imaginary = _add(_times(far, cosine), _negative(_times(near, sine)))
    y, _ = _fourier(Pair(real.high[None], real.low[None]), Pair(imaginary.high[None], imaginary.low[None]))
    found = np.empty(half)
    order = _order(half)
    # The two halves of d count half each, but for d[0], which is doubled above.
    found[order] = (y.high[0] / 2 + y.low[0] / 2) / scale
    return found


def _cosines(slots: Array) -> Pair:
    """2 / N times the DCT-II of rows, an even number of them, two in each complex transform."""
    half = slots.shape[1]
    rows = slots[:, _order(half)]
    zeros = np.zeros((len(rows) // 2, half))
    real, imaginary = _fourier(Pair(rows[0::2].copy(), zeros), Pair(rows[1::2].copy(), zeros.copy()))
    back = (-np.arange(half)) % half
    mirror_real = Pair(real.high[:, back], real.low[:, back])
    mirror_imaginary = Pair(imaginary.high[:, back], imaginary.low[:, back])
    # Of V = A + i B: A = (V + V*) / 2 and B = (V - V*) / 2 i, V* the conjugate of the mirrored V.
    a = _add(real, mirror_real), _add(imaginary, _negative(mirror_imaginary))
    b = _add(imaginary, mirror_imaginary), _add(mirror_real, _negative(real))
    table = _roots(half)
    cosine, sine = (Pair(t.high[:half], t.low[:half]) for t in table)
    high, low = np.empty_like(slots), np.empty_like(slots)
    for at, (x, y) in enumerate((a, b)):
        turned = _add(_times(x, cosine), _times(y, sine))
        high[at::2], low[at::2] = turned.high / (2 * half), turned.low / (2 * half)
    return Pair(high, low)


def _fourier(real: Pair, imaginary: Pair) -> tuple[Pair, Pair]:
    """sum over n of x[n] exp(-2 pi i n k / M) of rows `(rows, M)`: Stockham's, radix two."""
    rows, length = real.high.shape
    cosine, sine = _roots(length)
    n, stride = length, 1
    while n > 1:
        m, shape = n // 2, (rows, 2, n // 2, stride)
        re, im = (Pair(x.high.reshape(shape), x.low.reshape(shape)) for x in (real, imaginary))
        (a, b), (c, d) = ((Pair(x.high[:, 0], x.low[:, 0]), Pair(x.high[:, 1], x.low[:, 1])) for x in (re, im))
        step = 4 * length // n
        w, v = (Pair(t.high[: m * step : step, None], t.low[: m * step : step, None]) for t in (cosine, sine))
        less_re, less_im = _add(a, _negative(b)), _add(c, _negative(d))
        # Times exp(-i t) = w - i v.
        turned_re = _add(_times(less_re, w), _times(less_im, v))
        turned_im = _add(_times(less_im, w), _negative(_times(less_re, v)))
        real = _stack(_add(a, b), turned_re, rows, length)
        imaginary = _stack(_add(c, d), turned_im, rows, length)
        n, stride = m, 2 * stride
    return real, imaginary


def _stack(first: Pair, second: Pair, rows: int, length: int) -> Pair:
    return Pair(
        np.stack([first.high, second.high], axis=2).reshape(rows, length),
        np.stack([first.low, second.low], axis=2).reshape(rows, length),
    )


def _limbs(value: Pair) -> Array:
    """Signed limbs float64 `(limbs, columns, N)` of the nearest integers, low ones first, of LIMB_BITS."""
    high, low = value
    largest = float(np.abs(high).max(initial=1.0))
    count = max(1, -(-(math.frexp(largest)[1] + 1) // LIMB_BITS))
    limbs = np.empty((count, *high.shape))
    for at in range(count - 1, -1, -1):
        unit = 2.0 ** (LIMB_BITS * at)
        np.rint(high / unit, out=limbs[at])
        high, low = _two_sum(high - limbs[at] * unit, low)
    return limbs


def _residues(limbs: Array, prime: int) -> Array:
    """Residues int64 `(columns, N)`. Sums of limbs times halves of residues stay below 2**53."""
    weights = [pow(2, LIMB_BITS * at, prime) for at in range(len(limbs))]
    halves = np.array([[w >> 25, w & ((1 << 25) - 1)] for w in weights], dtype=np.float64)
    high, low = (np.tensordot(halves[:, at], limbs, axes=1) for at in (0, 1))
    quotient = np.floor((high * 2.0**25 + low) / prime).astype(np.int64)
    # In 64 bits that wrap: the result is within a prime of its range.
    result = (high.astype(np.int64) << 25) + low.astype(np.int64) - quotient * prime
    result += np.where(result < 0, prime, 0)
    result -= np.where(result >= prime, prime, 0)
    return np.asarray(result)


def _integers(residues: Array, primes: tuple[int, ...]) -> Pair:
    """The centred integers with these residues, in mixed radix: digits d with |value - sum| below half the modulus."""
    digits: list[Array] = []
    for at, prime in enumerate(primes):
        rest = residues[at].astype(object)
        base = 1
        for digit, before in zip(digits, primes, strict=False):
            rest, base = rest - digit * base, base * before
        digits.append((rest * pow(base, -1, prime)) % prime)
    value = np.zeros(residues.shape[1], dtype=object)
    base = 1
    for digit, prime in zip(digits, primes, strict=True):
        value, base = value + digit * base, base * prime
    value = np.where(value > base // 2, value - base, value)
    high = value.astype(np.float64)
    exact = np.array([int(h) for h in high], dtype=object)
    return Pair(high, (value - exact).astype(np.float64))


def _order(half: int) -> Array:
    """Makhoul's order: even places forwards, then odd ones backwards."""
    return np.concatenate([np.arange(0, half, 2), np.arange(half - 1, 0, -2)])


@functools.lru_cache(maxsize=4)
def _roots(half: int) -> tuple[Pair, Pair]:
    """Cosines and sines of pi k / (2 half), 0 <= k < 2 half."""
    one = 1 << _FIXED
    c, s, angle = -one, 0, 1  # of pi / angle
    while angle < 2 * half:
        # Half the angle, in [0, pi / 2]: both are not negative.
        c, s = math.isqrt((one + c) * one // 2), math.isqrt((one - c) * one // 2)
        angle *= 2
    x, y, cosines, sines = one, 0, list[int](), list[int]()
    for _ in range(2 * half):
        cosines.append(x)
        sines.append(y)
        x, y = (x * c - y * s) >> _FIXED, (x * s + y * c) >> _FIXED
    return _pair(cosines), _pair(sines)


def _pair(fixed: list[int]) -> Pair:
    high = np.array([float(v) for v in fixed])
    low = np.array([float(v - int(h)) for v, h in zip(fixed, high, strict=True)])
    return Pair(np.ldexp(high, -_FIXED), np.ldexp(low, -_FIXED))


def _two_sum(a: Array, b: Array) -> Pair:
    total = a + b
    other = total - a
    return Pair(total, (a - (total - other)) + (b - other))


def _quick_two_sum(a: Array, b: Array) -> Pair:
    total = a + b
    return Pair(total, b - (total - a))


def _add(x: Pair, y: Pair) -> Pair:
    """With both halves summed exactly: three units of 2**-106 at most, whatever cancels."""
    s, t = _two_sum(x.high, y.high), _two_sum(x.low, y.low)
    first = _quick_two_sum(s.high, s.low + t.high)
    return _quick_two_sum(first.high, first.low + t.low)


def _negative(x: Pair) -> Pair:
    return Pair(-x.high, -x.low)


def _times(x: Pair, y: Pair) -> Pair:
    product = x.high * y.high
    a, b = _split(x.high), _split(y.high)
    error = ((a.high * b.high - product) + a.high * b.low + a.low * b.high) + a.low * b.low
    return _quick_two_sum(product, error + (x.high * y.low + x.low * y.high))


def _split(x: Array) -> Pair:
    t = _SPLITTER * x
    high = t - (t - x)
    return Pair(high, x - high)
