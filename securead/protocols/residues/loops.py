"""The compiled loops of the arithmetic. All of them are in this one file, because numba's cache notices changes of a
function's own file only: a caller elsewhere would keep old machine code of what it calls.

Arrays are C-contiguous, `int64` unless said otherwise, and outputs do not overlap inputs; the forms and `transforms`
see to that. Products are taken in `uint64`, where they wrap: numba may assume that `int64` never overflows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np

from securead.data.schema import Array
from securead.errors import InstallExtraError

try:
    import numba
except ImportError as error:
    raise InstallExtraError("residue arithmetic on NumPy arrays needs numba", remedy="pip install numba") from error

_F = TypeVar("_F", bound=Callable[..., Any])
_I, _U, _D = np.int64, np.uint64, np.float64
# A transform's last five layers work on 32 rows of the transposed array: their own strides are too short for vectors.
ROWS = 32
_TILE = 8


def compiled(function: _F) -> _F:
    """Compile at the first call and keep the machine code beside the source or in the user's cache, if either can be
    written; where neither can, every process compiles for itself.
    """
    try:
        return cast(_F, numba.njit(function, cache=True))
    except RuntimeError:  # numba found no place for a cache
        return cast(_F, numba.njit(function))


def contracted(function: _F) -> _F:
    """`compiled`, and a product and a sum may be one instruction that rounds once: where neither rounds at all."""
    try:
        return cast(_F, numba.njit(function, cache=True, fastmath={"contract"}))
    except RuntimeError:
        return cast(_F, numba.njit(function, fastmath={"contract"}))


@compiled
def _settled(r: Any, p: int) -> Any:
    """The residue of r in [-p, 2p)."""
    r = r + p if r < 0 else r
    return r - p if r >= p else r


@compiled
def _reduced(x: Any, p: int, inverse: float) -> Any:
    """The residue of |x| < 2**62: the quotient is off by less than 3.1 * 2**62 / (2**53 p) < 1/2 before the floor."""
    return _settled(x - _I(np.floor(_D(x) * inverse)) * p, p)


@compiled
def _times(x: Any, w: int, quotient: float, p: int) -> Any:
    """A number congruent to x w for a residue w and `quotient` = w / p, rounded.

    With |x| < B p its magnitude is below (1 + 3.1 * 2**-53 B p) p: one for the truncation, the rest for the rounding
    of x, of the quotient and of their product (Shoup's precomputed quotient, in floating point). Exact while below
    2**63.
    """
    return _I(_U(x) * _U(w) - _U(_I(_D(x) * quotient)) * _U(p))


# Linear maps.


@compiled
def _split(x: Array, columns: Array, start: int, width: int, p: int, shift: int, out: Array) -> None:
    """Digits float64 `(digits, columns, tile)`, low ones first, of the centred residues x[columns, start:][:width]."""
    half, mask, top = p >> 1, (_I(1) << shift) - 1, out.shape[0] - 1
    for c in range(columns.size):
        source = x[columns[c], start : start + width]
        for d in range(top + 1):
            target, down = out[d, c, :width], _I(d * shift)
            if top == 0:
                for j in range(width):
                    v = source[j]
                    target[j] = _D(v - p if v > half else v)
            elif d < top:
                for j in range(width):
                    v = source[j]
                    target[j] = _D(((v - p if v > half else v) >> down) & mask)
            else:
                for j in range(width):
                    v = source[j]
                    target[j] = _D((v - p if v > half else v) >> down)


@contracted
def _four_by_six(weights: Array, r: int, k: int, x: Array, width: int, out: Array) -> None:
    """Add six terms to four rows: 24 products for fourteen accesses to memory."""
    w, a, b, c = weights[r : r + 4, k : k + 6], x[k, :width], x[k + 1, :width], x[k + 2, :width]
    d, e, f = x[k + 3, :width], x[k + 4, :width], x[k + 5, :width]
    a0, b0, c0, d0, e0, f0 = w[0, 0], w[0, 1], w[0, 2], w[0, 3], w[0, 4], w[0, 5]
    a1, b1, c1, d1, e1, f1 = w[1, 0], w[1, 1], w[1, 2], w[1, 3], w[1, 4], w[1, 5]
    a2, b2, c2, d2, e2, f2 = w[2, 0], w[2, 1], w[2, 2], w[2, 3], w[2, 4], w[2, 5]
    a3, b3, c3, d3, e3, f3 = w[3, 0], w[3, 1], w[3, 2], w[3, 3], w[3, 4], w[3, 5]
    y0, y1, y2, y3 = out[r, :width], out[r + 1, :width], out[r + 2, :width], out[r + 3, :width]
    for j in range(width):
        g, h, q, m, n, o = a[j], b[j], c[j], d[j], e[j], f[j]
        y0[j] = y0[j] + a0 * g + b0 * h + c0 * q + d0 * m + e0 * n + f0 * o
        y1[j] = y1[j] + a1 * g + b1 * h + c1 * q + d1 * m + e1 * n + f1 * o
        y2[j] = y2[j] + a2 * g + b2 * h + c2 * q + d2 * m + e2 * n + f2 * o
        y3[j] = y3[j] + a3 * g + b3 * h + c3 * q + d3 * m + e3 * n + f3 * o


@contracted
def _multiply(weights: Array, x: Array, width: int, out: Array) -> None:
    """`weights @ x` in the first `width` columns, float64; weights have multiples of four rows and of six columns."""
    for r in range(0, weights.shape[0], 4):
        out[r : r + 4, :width] = 0.0
        for k in range(0, weights.shape[1], 6):
            _four_by_six(weights, r, k, x, width, out)


@compiled
def _reduce(values: Array, p: int, out: Array) -> None:
    """Residues of float64 integers below 2**53."""
    inverse = 1.0 / p
    for j in range(out.size):
        v = values[j]
        out[j] = _settled(_I(v) - _I(np.floor(v * inverse)) * p, p)


@compiled
def _fold(high: Array, low: Array, base: int, p: int, out: Array) -> None:
    """Residues of `high * base + low`, each int64 or float64 and integers below 2**53; `high` may be `out`."""
    inverse = 1.0 / p
    for j in range(out.size):
        h, v = high[j], low[j]
        q = _I(np.floor((_D(h) * _D(base) + _D(v)) * inverse))
        out[j] = _settled(_I(_U(_I(h)) * _U(base) + _U(_I(v)) - _U(q) * _U(p)), p)


@compiled
def _horner(parts: Array, row: int, base: int, p: int, out: Array) -> None:
    """Residues of `sum_d parts[d, row] * base**d`, float64 `(digits, rows, tile)`."""
    width, top = out.size, parts.shape[0] - 1
    if top == 0:
        _reduce(parts[0, row, :width], p, out)
        return
    _fold(parts[top, row, :width], parts[top - 1, row, :width], base, p, out)
    for d in range(top - 2, -1, -1):
        _fold(out, parts[d, row, :width], base, p, out)


@compiled
def linear(
    x: Array,
    columns: Array,
    matrix: Array,
    layout: tuple[Array, Array, Array, Array, Array],
    shift: int,
    p: int,
    digits: Array,
    sums: Array,
    spare: Array,
    out: Array,
) -> None:
    """The dense rows of W x, x `(inputs, n)`, to `out[rows]`, tile by tile, so that what is between stays in a cache.

    `matrix` is padded with zeros as `_multiply` needs; `layout` are a `LinearMap`'s rows, first, weight_digits, bases
    and factors. `digits` float64 `(digits, columns of the matrix, tile)`, finite (what is left beyond `columns` is
    multiplied by zero), `sums` `(digits, rows of the matrix, tile)` and `spare` int64 `(tile,)` are room.
    """
    rows, first, numbers, bases, factors = layout
    tile, radix = digits.shape[2], 1 << shift
    for start in range(0, x.shape[1], tile):
        width = min(tile, x.shape[1] - start)
        _split(x, columns, start, width, p, shift, digits)
        for d in range(digits.shape[0]):
            _multiply(matrix, digits[d], width, sums[d])
        for i in range(rows.size):
            target, row, top = out[rows[i], start : start + width], first[i], numbers[i] - 1
            if digits.shape[0] == 1 and top > 0:
                # Nothing needs reducing before the digits of the weights are put together.
                _fold(sums[0, row + top, :width], sums[0, row + top - 1, :width], bases[i], p, target)
                top -= 1
            else:
                _horner(sums, row + top, radix, p, target)
            for d in range(top - 1, -1, -1):
                if digits.shape[0] == 1:
                    _fold(target, sums[0, row + d, :width], bases[i], p, target)
                else:
                    _horner(sums, row + d, radix, p, spare[:width])
                    _fold(target, spare[:width], bases[i], p, target)
            if factors[i] != 1:
                quotient = _D(factors[i]) / p
                for j in range(width):
                    target[j] = _reduced(_times(target[j], factors[i], quotient, p), p, 1.0 / p)


@compiled
def scale(x: Array, factor: int, p: int) -> None:
    """Multiply residues `(rows, n)` in place."""
    quotient = _D(factor) / p
    for r in range(x.shape[0]):
        row = x[r]
        for j in range(row.size):
            row[j] = _reduced(_times(row[j], factor, quotient, p), p, 1.0 / p)


@compiled
def add_up(x: Array, y: Array, p: int, out: Array) -> None:
    """`x + y`; x is like `out` `(elements, polynomials, n)`, or is `out`, and y has as many polynomials or fewer."""
    for k in range(x.shape[0]):
        for c in range(x.shape[1]):
            left, target = x[k, c], out[k, c]
            if c < y.shape[1]:
                right = y[k, c]
                for j in range(target.size):
                    target[j] = _settled(left[j] + right[j], p)
            else:
                target[:] = left


@compiled
def add_constants(constants: Array, p: int, out: Array) -> None:
    """Add residues `(elements,)` to the first polynomial of `out`: in NTT form a constant is the same in every slot."""
    for k in range(constants.size):
        target = out[k, 0]
        for j in range(target.size):
            target[j] = _settled(target[j] + constants[k], p)


@compiled
def add(x: Array, y: Array, p: int) -> None:
    """Add residues y to residues x in place, `(rows, n)`."""
    for r in range(x.shape[0]):
        target, source = x[r], y[r]
        for j in range(target.size):
            target[j] = _settled(target[j] + source[j], p)


@compiled
def combine(x: Array, weights: Array, constant: int, p: int, out: Array) -> None:
    """`sum_i weights[i] * x[i] + constant` `(n,)`, all of them residues."""
    inverse = 1.0 / p
    out[:] = constant
    for i in range(x.shape[0]):
        source, weight, quotient = x[i], weights[i], _D(weights[i]) / p
        for j in range(out.size):
            out[j] = _settled(out[j] + _reduced(_times(source[j], weight, quotient, p), p, inverse), p)


# Pointwise products.


@compiled
def _accumulate(x: Array, y: Array, weight: int, low: Array, high: Array) -> None:
    """Add `weight * x * y` to `low` uint64 modulo 2**64 and to `high` float64 nearly."""
    factor = _U(weight)
    for j in range(low.size):
        low[j] += factor * _U(x[j]) * _U(y[j])
        high[j] += _D(weight) * _D(x[j]) * _D(y[j])


@compiled
def _accumulate_one(x: Array, y: Array, low: Array, high: Array) -> None:
    """`_accumulate` with the weight one."""
    for j in range(low.size):
        low[j] += _U(x[j]) * _U(y[j])
        high[j] += _D(x[j]) * _D(y[j])


@compiled
def _close(low: Array, high: Array, p: int, out: Array) -> None:
    """The residues of what was accumulated."""
    inverse = 1.0 / p
    for j in range(low.size):
        out[j] = _reduced(_I(low[j] - _U(_I(high[j] * inverse)) * _U(p)), p, inverse)


@compiled
def products(a: Array, b: Array, p: int, low: Array, high: Array, out: Array) -> None:
    """`out[k] = a[k] * b[k]` as polynomials in Y; `low` and `high` are room for one polynomial."""
    for k in range(a.shape[0]):
        for c in range(out.shape[1]):
            low[:], high[:] = 0, 0.0
            for i in range(max(0, c - b.shape[1] + 1), min(a.shape[1], c + 1)):
                _accumulate_one(a[k, i], b[k, c - i], low, high)
            _close(low, high, p, out[k, c])


@compiled
def squares(a: Array, p: int, low: Array, high: Array, out: Array) -> None:
    """`out[k] = a[k] * a[k]`, every mixed product taken once."""
    for k in range(a.shape[0]):
        for c in range(out.shape[1]):
            low[:], high[:] = 0, 0.0
            for i in range(max(0, c - a.shape[1] + 1), c // 2 + 1):
                if 2 * i == c:
                    _accumulate_one(a[k, i], a[k, i], low, high)
                else:
                    _accumulate(a[k, i], a[k, c - i], 2, low, high)
            _close(low, high, p, out[k, c])


@compiled
def sum_of_products(a: Array, b: Array, weights: Array, p: int, low: Array, high: Array, out: Array) -> None:
    """`out = sum_k weights[k] * a[k] * b[k]`, `out` `(polynomials, n)`."""
    for c in range(out.shape[0]):
        low[:], high[:] = 0, 0.0
        for i in range(max(0, c - b.shape[1] + 1), min(a.shape[1], c + 1)):
            for k in range(a.shape[0]):
                if weights[k] == 1:
                    _accumulate_one(a[k, i], b[k, c - i], low, high)
                elif weights[k] != 0:
                    _accumulate(a[k, i], b[k, c - i], weights[k], low, high)
        _close(low, high, p, out[c])


# Transforms: see `transforms` for what the tables hold and why nothing is reduced between layers.


@compiled
def _forward_pair(u: Array, v: Array, w: int, quotient: float, p: int) -> None:
    for j in range(u.size):
        x, t = u[j], _times(v[j], w, quotient, p)
        u[j], v[j] = x + t, x - t


@compiled
def _forward_pairs(u: Array, v: Array, w: Array, quotients: Array, p: int) -> None:
    for j in range(u.size):
        x, t = u[j], _times(v[j], w[j], quotients[j], p)
        u[j], v[j] = x + t, x - t


@compiled
def _forward_quad(a: Array, b: Array, c: Array, d: Array, w: Array, quotients: Array, i: int, p: int) -> None:
    """Two layers in one pass over memory: the factors are those of node i and of its two children."""
    w0, w1, w2 = w[i], w[2 * i], w[2 * i + 1]
    q0, q1, q2 = quotients[i], quotients[2 * i], quotients[2 * i + 1]
    for j in range(a.size):
        t, s = _times(c[j], w0, q0, p), _times(d[j], w0, q0, p)
        x, y, z, v = a[j] + t, b[j] + s, a[j] - t, b[j] - s
        t, s = _times(y, w1, q1, p), _times(v, w2, q2, p)
        a[j], b[j], c[j], d[j] = x + t, x - t, z + s, z - s


@compiled
def _inverse_pair(u: Array, v: Array, w: int, quotient: float, p: int) -> None:
    for j in range(u.size):
        x, y = u[j], v[j]
        u[j], v[j] = x + y, _times(x - y, w, quotient, p)


@compiled
def _inverse_pairs(u: Array, v: Array, w: Array, quotients: Array, p: int) -> None:
    for j in range(u.size):
        x, y = u[j], v[j]
        u[j], v[j] = x + y, _times(x - y, w[j], quotients[j], p)


@compiled
def _inverse_quad(a: Array, b: Array, c: Array, d: Array, w: Array, quotients: Array, i: int, p: int) -> None:
    w0, w1, w2 = w[i], w[2 * i], w[2 * i + 1]
    q0, q1, q2 = quotients[i], quotients[2 * i], quotients[2 * i + 1]
    for j in range(a.size):
        x, y, z, v = a[j] + b[j], _times(a[j] - b[j], w1, q1, p), c[j] + d[j], _times(c[j] - d[j], w2, q2, p)
        a[j], b[j], c[j], d[j] = x + z, y + v, _times(x - z, w0, q0, p), _times(y - v, w0, q0, p)


@compiled
def _to_rows(x: Array, rows: Array) -> None:
    for start in range(0, rows.shape[1], _TILE):
        for r in range(ROWS):
            for c in range(start, start + _TILE):
                rows[r, c] = x[c * ROWS + r]


@compiled
def _from_rows(rows: Array, p: int, x: Array) -> None:
    """Transpose back, reduced."""
    inverse = 1.0 / p
    for r in range(ROWS):
        row = rows[r]
        for c in range(row.size):
            row[c] = _reduced(row[c], p, inverse)
    for start in range(0, rows.shape[1], _TILE):
        for r in range(ROWS):
            for c in range(start, start + _TILE):
                x[c * ROWS + r] = rows[r, c]


@compiled
def forward(polynomials: Array, w: Array, quotients: Array, row_w: Array, row_quotients: Array, p: int) -> None:
    """Transform `(n, N)` in place: decimation in time from natural to bit-reversed order."""
    dimension = polynomials.shape[1]
    rows = np.empty((ROWS, dimension // ROWS), _I)
    for n in range(polynomials.shape[0]):
        x = polynomials[n]
        nodes, stride = 1, dimension >> 1
        while stride >= 2 * ROWS:
            h = stride >> 1
            for i in range(nodes):
                s = 2 * i * stride
                a, b, c, d = x[s : s + h], x[s + h : s + 2 * h], x[s + 2 * h : s + 3 * h], x[s + 3 * h : s + 4 * h]
                _forward_quad(a, b, c, d, w, quotients, nodes + i, p)
            nodes, stride = nodes << 2, stride >> 2
        if stride == ROWS:
            for i in range(nodes):
                s = 2 * i * stride
                _forward_pair(x[s : s + stride], x[s + stride : s + 2 * stride], w[nodes + i], quotients[nodes + i], p)
        _to_rows(x, rows)
        nodes, stride = 1, ROWS >> 1
        while stride >= 1:
            for i in range(nodes):
                for s in range(2 * i * stride, 2 * i * stride + stride):
                    _forward_pairs(rows[s], rows[s + stride], row_w[nodes + i], row_quotients[nodes + i], p)
            nodes, stride = nodes << 1, stride >> 1
        _from_rows(rows, p, x)


@compiled
def inverse(
    polynomials: Array, w: Array, quotients: Array, row_w: Array, row_quotients: Array, scale: int, p: int
) -> None:
    """Transform `(n, N)` back in place, times the residue `scale`; the tables are those of the inverse."""
    dimension = polynomials.shape[1]
    rows = np.empty((ROWS, dimension // ROWS), _I)
    scale_quotient, reciprocal = _D(scale) / p, 1.0 / p
    for n in range(polynomials.shape[0]):
        x = polynomials[n]
        _to_rows(x, rows)
        nodes, stride = ROWS >> 1, 1
        while nodes >= 1:
            for i in range(nodes):
                for s in range(2 * i * stride, 2 * i * stride + stride):
                    _inverse_pairs(rows[s], rows[s + stride], row_w[nodes + i], row_quotients[nodes + i], p)
            nodes, stride = nodes >> 1, stride << 1
        _from_rows(rows, p, x)
        nodes, stride = dimension // (2 * ROWS), ROWS
        while nodes >= 2:
            h = stride
            for i in range(nodes >> 1):
                s = 4 * i * h
                a, b, c, d = x[s : s + h], x[s + h : s + 2 * h], x[s + 2 * h : s + 3 * h], x[s + 3 * h : s + 4 * h]
                _inverse_quad(a, b, c, d, w, quotients, (nodes >> 1) + i, p)
            nodes, stride = nodes >> 2, stride << 2
        if nodes == 1:
            _inverse_pair(x[:stride], x[stride:], w[1], quotients[1], p)
        for j in range(dimension):
            x[j] = _reduced(_times(x[j], scale, scale_quotient, p), p, reciprocal)


@compiled
def recentre(x: Array, last: int, p: int, out: Array) -> None:
    """The centred residues modulo `last` of x `(n, N)`, as residues modulo p."""
    half, reciprocal = last >> 1, 1.0 / p
    for n in range(x.shape[0]):
        source, target = x[n], out[n]
        for j in range(source.size):
            v = source[j]
            target[j] = _reduced(v - last if v > half else v, p, reciprocal)


@compiled
def subtract_and_scale(x: Array, y: Array, scale: int, p: int, out: Array) -> None:
    """`(x - y) * scale` modulo p."""
    quotient, reciprocal = _D(scale) / p, 1.0 / p
    for n in range(x.shape[0]):
        left, right, target = x[n], y[n], out[n]
        for j in range(left.size):
            target[j] = _reduced(_times(left[j] - right[j], scale, quotient, p), p, reciprocal)
