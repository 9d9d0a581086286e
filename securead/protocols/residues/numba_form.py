"""Residue arithmetic on NumPy arrays: BLAS for matrix products, compiled loops for the rest. One core of a processor.

The BLAS that NumPy is linked with may use more threads; whoever owns the process limits it (`OPENBLAS_NUM_THREADS`).
Arrays that are not C-contiguous are copied first.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from securead.data.schema import Array
from securead.protocols.residues import loops
from securead.protocols.residues.form import check_affine, check_products, check_sum, refuse_unless, residues_of
from securead.protocols.residues.layers import LinearMap, ProductSum, check_prime


class NumbaForm:
    """See `securead.protocols.residues.form.Form`, with arrays int64."""

    def __init__(self, prime: int) -> None:
        check_prime(prime)
        self.prime = prime
        self._rooms: dict[tuple[str, tuple[int, ...]], Array] = {}

    def affine(self, terms: Sequence[tuple[LinearMap, Array]], offsets: Array | None = None) -> Array:
        """See `Form`."""
        outputs, size, slots = check_affine(self.prime, [(layer, x.shape) for layer, x in terms])

        def covers(term: tuple[LinearMap, Array]) -> bool:
            layer, x = term
            return len(layer.rows) == outputs and x.shape[1] == size and layer.factor == 1

        # A map that writes every output goes first; then nothing need be zeroed or added.
        first, *rest = sorted(terms, key=covers, reverse=True)
        if covers(first):
            result = np.empty((outputs, size, slots), np.int64)
            self._dense(first[0], _rows(first[1]), result.reshape(outputs, -1))
        else:
            result, rest = np.zeros((outputs, size, slots), np.int64), [first, *rest]
        for layer, x in rest:
            self._add(layer, _rows(x), result.reshape(outputs, -1))
        if offsets is not None:
            refuse_unless(len(offsets) == outputs, "there is one offset for each output")
            loops.add_constants(np.array(residues_of(offsets, self.prime), dtype=np.int64), self.prime, result)
        return result

    def square(self, x: Array) -> Array:
        """See `Form`."""
        result = np.empty(check_products(self.prime, x.shape, x.shape), np.int64)
        loops.squares(_whole(x), self.prime, *self._accumulators(x.shape[2]), result)
        return result

    def multiply(self, x: Array, y: Array) -> Array:
        """See `Form`."""
        result = np.empty(check_products(self.prime, x.shape, y.shape), np.int64)
        loops.products(_whole(x), _whole(y), self.prime, *self._accumulators(x.shape[2]), result)
        return result

    def sum_of_products(self, total: ProductSum, x: Array, y: Array) -> Array:
        """See `Form`."""
        result = np.empty(check_sum(self.prime, total, x.shape, y.shape), np.int64)
        accumulators = self._accumulators(x.shape[2])
        loops.sum_of_products(_whole(x), _whole(y), total.weights, self.prime, *accumulators, result[0])
        if total.factor != 1:
            loops.scale(_rows(result), total.factor, self.prime)
        return result

    def _add(self, layer: LinearMap, x: Array, out: Array) -> None:
        """Add W x to the first polynomials of `out`."""
        if len(layer.copied_rows):
            loops.copy(x, layer.copied_columns, layer.copied_rows, self.prime, out)
        if len(layer.rows):
            dense = self._room("dense", (len(layer.rows), x.shape[1]), np.int64)
            self._dense(layer, x, dense)
            loops.place(dense, layer.rows, layer.factor, self.prime, out)

    def _dense(self, layer: LinearMap, x: Array, out: Array) -> None:
        """The dense rows of W x `(rows, n)` without the factor, by Horner's rule over both kinds of digits."""
        a, b, n = layer.weight_digits, layer.residue_digits, x.shape[1]
        digits = self._room("digits", (b, len(layer.columns), n), np.float64)
        loops.split(x, layer.columns, self.prime, layer.residue_shift, digits)
        sums = self._room("sums", (b, len(layer.matrix), n), np.float64)
        np.matmul(layer.matrix, digits, out=sums)
        parts = sums.reshape(b, a, len(layer.rows), n)
        self._horner(parts[:, a - 1], layer.residue_shift, out)
        lower = self._room("lower", out.shape, np.int64) if a > 1 else out
        for digit in reversed(range(a - 1)):
            self._horner(parts[:, digit], layer.residue_shift, lower)
            loops.fold(out, lower, layer.weight_shift, self.prime, out)

    def _horner(self, parts: Array, shift: int, out: Array) -> None:
        """`sum_d parts[d] * 2**(shift d)` for float64 `(digits, rows, n)`."""
        if len(parts) == 1:
            loops.reduce(parts[0], self.prime, out)
        high = parts[-1]
        for low in parts[-2::-1]:
            loops.fold(high, low, shift, self.prime, out)
            high = out

    def _accumulators(self, slots: int) -> tuple[Array, Array]:
        return self._room("low", (slots,), np.uint64), self._room("high", (slots,), np.float64)

    def _room(self, name: str, shape: tuple[int, ...], dtype: type) -> Array:
        """Memory that is overwritten by the next call: a fresh array of this size would cost its page faults."""
        if (name, shape) not in self._rooms:
            self._rooms[name, shape] = np.empty(shape, dtype)
        return self._rooms[name, shape]


def _whole(x: Array) -> Array:
    return np.ascontiguousarray(x, dtype=np.int64)


def _rows(x: Array) -> Array:
    return _whole(x).reshape(len(x), -1)
