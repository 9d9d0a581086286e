"""Residue arithmetic on tensors of any device: float64 matrix products, int64 arithmetic that wraps, nothing else.

Tested on processors only; untested on a GPU, for want of one. What a device must do: IEEE 754 float64 with gradual
rounding to nearest, int64 that wraps, and matrix products that are sums of products in some order (so no float64
emulated from narrower formats by an approximate method, and no Strassen).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from securead.data.schema import Array
from securead.protocols.residues.form import check_linear, check_products, check_sum, check_terms, residues_of
from securead.protocols.residues.layers import LinearMap, ProductSum, check_prime

Tensor = torch.Tensor


class TorchForm:
    """See `securead.protocols.residues.form.Form`, with tensors int64 on `device`. Layers go to the device once."""

    def __init__(self, prime: int, device: torch.device | str = "cpu") -> None:
        check_prime(prime)
        self.prime, self._inverse = prime, 1.0 / prime
        self._device = torch.device(device)
        self._moved: dict[int, tuple[LinearMap, Tensor]] = {}

    def linear(self, layer: LinearMap, x: Tensor) -> Tensor:
        """See `Form`."""
        shape = check_linear(self.prime, layer, tuple(x.shape))
        flat = x.reshape(len(x), -1)
        result = torch.zeros((layer.outputs, flat.shape[1]), dtype=torch.int64, device=self._device)
        if len(layer.copied_rows):
            result[self._index(layer.copied_rows)] = flat[self._index(layer.copied_columns)]
        # Rows of equally many digits to the same base, with one factor: a map's rows, or several maps'.
        sums = self._sums(layer, flat) if len(layer.rows) else []
        kinds = np.stack([layer.weight_digits, layer.bases, layer.factors], axis=1)
        for number, base, factor in np.unique(kinds, axis=0).tolist():
            alike = np.flatnonzero((kinds == (number, base, factor)).all(axis=1))
            total: Tensor | None = None
            for digit in reversed(range(number)):
                at = self._index(layer.first[alike] + digit)
                value = self._horner([part[at] for part in sums], layer.residue_shift)
                total = value if total is None else self._folded(total, value, base)
            assert total is not None  # noqa: S101  (there is at least one digit)
            result[self._index(layer.rows[alike])] = self._times(total, factor)
        return result.reshape(shape)

    def add(self, terms: Sequence[Tensor], offsets: Array | None = None) -> Tensor:
        """See `Form`."""
        check_terms([tuple(x.shape) for x in terms], offsets)
        result = terms[0].clone()
        for x in terms[1:]:
            result[:, : x.shape[1]] = self._settled(result[:, : x.shape[1]] + x)
        if offsets is not None:
            constants = torch.tensor(residues_of(offsets, self.prime), dtype=torch.int64, device=self._device)
            result[:, 0] = self._settled(result[:, 0] + constants[:, None])
        return result

    def square(self, x: Tensor) -> Tensor:
        """See `Form`."""
        return self.multiply(x, x)

    def multiply(self, x: Tensor, y: Tensor) -> Tensor:
        """See `Form`."""
        _, size, _ = check_products(self.prime, tuple(x.shape), tuple(y.shape))
        return torch.stack([self._coefficient(x, y, c) for c in range(size)], dim=1)

    def sum_of_products(self, total: ProductSum, x: Tensor, y: Tensor) -> Tensor:
        """See `Form`."""
        _, size, _ = check_sum(self.prime, total, tuple(x.shape), tuple(y.shape))
        weights = torch.tensor(total.weights, device=self._device)[:, None]
        sums = [self._coefficient(x, y, c, weights) for c in range(size)]
        return self._times(torch.stack(sums)[None], total.factor)

    def _coefficient(self, x: Tensor, y: Tensor, at: int, weights: Tensor | None = None) -> Tensor:
        """The coefficient of Y**at by element, or summed over elements; see `ProductSum` for why it is exact."""
        low: Tensor | int = 0
        high: Tensor | float = 0.0
        for i in range(max(0, at - y.shape[1] + 1), min(x.shape[1], at + 1)):
            left, right = x[:, i], y[:, at - i]
            product, nearly = left * right, left.double() * right.double()
            if weights is not None:
                product, nearly = (product * weights).sum(dim=0), (nearly * weights).sum(dim=0)
            low, high = low + product, high + nearly
        quotient = (torch.as_tensor(high) * self._inverse).long()
        return self._reduced(torch.as_tensor(low) - quotient * self.prime)

    def _sums(self, layer: LinearMap, x: Tensor) -> list[Tensor]:
        """The products of the digits of the weights with each of the residues' digits."""
        matrix, columns = self._matrix(layer), self._index(layer.columns)
        source = x[columns] if len(columns) < len(x) else x
        centred = torch.where(source > self.prime >> 1, source - self.prime, source)
        shift, b = layer.residue_shift, layer.residue_digits
        mask = (1 << shift) - 1
        return [
            matrix @ ((centred >> (shift * d)) & mask if d < b - 1 else centred >> (shift * d)).double()
            for d in range(b)
        ]

    def _horner(self, parts: list[Tensor], shift: int) -> Tensor:
        total = self._reduced(parts[0].long()) if len(parts) == 1 else parts[-1]
        for low in parts[-2::-1]:
            total = self._folded(total, low, 1 << shift)
        return total

    def _folded(self, high: Tensor, low: Tensor, base: int) -> Tensor:
        quotient = torch.floor((high.double() * float(base) + low.double()) * self._inverse).long()
        return self._settled(high.long() * base + low.long() - quotient * self.prime)

    def _times(self, x: Tensor, factor: int) -> Tensor:
        if factor == 1:
            return x
        quotient = (x.double() * (factor / self.prime)).long()
        return self._reduced(x * factor - quotient * self.prime)

    def _reduced(self, x: Tensor) -> Tensor:
        return self._settled(x - torch.floor(x.double() * self._inverse).long() * self.prime)

    def _settled(self, x: Tensor) -> Tensor:
        x = torch.where(x < 0, x + self.prime, x)
        return torch.where(x >= self.prime, x - self.prime, x)

    def _matrix(self, layer: LinearMap) -> Tensor:
        # By identity; the layer is kept beside its tensor so that the identity stays its own.
        if id(layer) not in self._moved:
            self._moved[id(layer)] = layer, torch.tensor(layer.matrix, device=self._device)
        return self._moved[id(layer)][1]

    def _index(self, positions: Array) -> Tensor:
        return torch.tensor(positions, device=self._device)
