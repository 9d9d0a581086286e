"""Residue arithmetic on NumPy arrays: compiled loops, on one core of a processor.

Matrices here are small, and a BLAS library would leave between every two steps what these loops keep in a core's cache.
Arrays that are not C-contiguous are copied first.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from securead.data.schema import Array
from securead.protocols.residues import loops
from securead.protocols.residues.form import check_linear, check_products, check_sum, check_terms, residues_of
from securead.protocols.residues.layers import LinearMap, ProductSum, check_prime

TILE = 256  # columns at a time: digits and sums of some hundred rows stay in a core's cache


class NumbaForm:
    """See `securead.protocols.residues.form.Form`, with arrays int64."""

    def __init__(self, prime: int) -> None:
        check_prime(prime)
        self.prime = prime
        self._padded: dict[int, tuple[LinearMap, Array]] = {}
        self._rooms: dict[tuple[str, tuple[int, ...]], Array] = {}

    def linear(self, layer: LinearMap, x: Array) -> Array:
        """See `Form`."""
        result = np.empty(check_linear(self.prime, layer, x.shape), np.int64)
        source, out = _rows(x), _rows(result)
        if len(layer.rows) + len(layer.copied_rows) < layer.outputs:
            out[:] = 0
        out[layer.copied_rows] = source[layer.copied_columns]
        if len(layer.rows):
            matrix = self._matrix(layer)
            digits = self._room("digits", (layer.residue_digits, matrix.shape[1], TILE), np.float64)
            sums = self._room("sums", (layer.residue_digits, matrix.shape[0], TILE), np.float64)
            spare = self._room("spare", (TILE,), np.int64)
            layout = (layer.rows, layer.first, layer.weight_digits, layer.bases, layer.factors)
            shift = layer.residue_shift
            loops.linear(source, layer.columns, matrix, layout, shift, self.prime, digits, sums, spare, out)
        return result

    def add(self, terms: Sequence[Array], offsets: Array | None = None) -> Array:
        """See `Form`."""
        result = np.empty(check_terms([x.shape for x in terms], offsets), np.int64)
        first, *rest = terms
        if rest:
            loops.add_up(_whole(first), _whole(rest[0]), self.prime, result)
        else:
            result[:] = first
        for x in rest[1:]:
            loops.add_up(result, _whole(x), self.prime, result)
        if offsets is not None:
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

    def _matrix(self, layer: LinearMap) -> Array:
        """With zeros, as the loops need them. The layer is kept beside it so that its identity stays its own."""
        if id(layer) not in self._padded:
            rows, columns = layer.matrix.shape
            self._padded[id(layer)] = layer, np.pad(layer.matrix, ((0, -rows % 4), (0, -columns % 6)))
        return self._padded[id(layer)][1]

    def _accumulators(self, slots: int) -> tuple[Array, Array]:
        return self._room("low", (slots,), np.uint64), self._room("high", (slots,), np.float64)

    def _room(self, name: str, shape: tuple[int, ...], dtype: type) -> Array:
        """Memory, never infinite, that the next call overwrites: a fresh array would cost its page faults."""
        if (name, shape) not in self._rooms:
            self._rooms[name, shape] = np.zeros(shape, dtype)
        return self._rooms[name, shape]


def _whole(x: Array) -> Array:
    return np.ascontiguousarray(x, dtype=np.int64)


def _rows(x: Array) -> Array:
    return _whole(x).reshape(len(x), -1)
