"""A party's stock of correlated randomness, as CrypTen asks for it: one set at a time, each consumed once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from securead.data.schema import Array
from securead.protocols.sharing import runtime
from securead.protocols.sharing.correlations import (
    BinaryTriple,
    BitProduct,
    Correlation,
    MatrixTriple,
    SquarePair,
    Triple,
    size,
)
from securead.protocols.sharing.dealing import DesynchronisedError, read_corrections, secret_bits
from securead.protocols.sharing.shares import Words

runtime.crypten()

from crypten.mpc.primitives import ArithmeticSharedTensor, BinarySharedTensor  # noqa: E402
from crypten.mpc.provider.provider import TupleProvider  # noqa: E402


class Stock(TupleProvider):  # type: ignore[misc]
    """Hands out the correlations of the set that was loaded last, in order; any other request raises.

    A correlation leaves the stock when it is handed out, and a set when it is used up, dropped or replaced.
    """

    NAME = "SECUREAD"

    def __init__(self, index: int) -> None:
        super().__init__()
        self._index = index
        self._left = list[Correlation]()
        self._words: Words | None = None
        self._corrections, self._at = np.empty(0, dtype=np.int64), 0

    def load(
        self, correlations: Sequence[Correlation], key: bytes, corrections: bytes | bytearray | memoryview | None
    ) -> None:
        """Take a set: party 0's with the dealer's corrections, party 1's without. Raises when one is in use."""
        if self._left:
            raise DesynchronisedError("a set of correlations is still in use", value=len(self._left))
        if (corrections is not None) != (self._index == 0):
            raise DesynchronisedError("corrections are party 0's", value=self._index)
        if corrections is not None:
            self._corrections = read_corrections(correlations, corrections)
        self._left, self._words = list(reversed(correlations)), Words(key)

    def finish(self) -> None:
        """Raise `DesynchronisedError` unless the set was used up."""
        if self._left:
            raise DesynchronisedError("correlations are left over", value=len(self._left))
        self.drop()

    def drop(self) -> None:
        """Forget the set: what was not used never will be."""
        self._left, self._words = [], None
        self._corrections, self._at = np.empty(0, dtype=np.int64), 0

    def take(self, wanted: Correlation) -> list[Array]:
        """Shares of the factors and of the result of the next correlation, which must be the one wanted."""
        if not self._left or self._left[-1] != wanted or self._words is None:
            raise DesynchronisedError(
                "another correlation was asked for than comes next",
                value=(wanted, self._left[-1] if self._left else None),
                remedy="Start a new session: both parties and the dealer drop this one.",
            )
        self._left.pop()
        factors = [self._words.draw(shape) for shape in wanted.factors]
        if self._index == 1:
            return [*factors, self._words.draw(wanted.result)]
        count = size(wanted.result)
        result = self._corrections[self._at : self._at + count].reshape(wanted.result).copy()
        self._at += count
        return [*factors, result]

    # --- what CrypTen calls ---------------------------------------------------------------------------------------

    def generate_additive_triple(
        self, size0: Any, size1: Any, op: str, device: Any = None, *_: Any, **__: Any
    ) -> tuple[Any, ...]:
        """A triple for a matrix product or an elementwise one."""
        if op not in ("matmul", "mul"):
            raise DesynchronisedError("no plan has this operation", value=op)
        left, right = tuple(size0), tuple(size1)
        return tuple(map(_arithmetic, self.take(MatrixTriple(left, right) if op == "matmul" else Triple(left, right))))

    def square(self, shape: Any, device: Any = None) -> tuple[Any, ...]:
        """A mask and its square."""
        return tuple(map(_arithmetic, self.take(SquarePair(tuple(shape)))))

    def generate_binary_triple(self, size0: Any, size1: Any, device: Any = None) -> tuple[Any, ...]:
        """A triple for a bitwise AND."""
        parts = self.take(BinaryTriple(tuple(size0), tuple(size1)))
        return tuple(BinarySharedTensor.from_shares(torch.from_numpy(part), precision=0) for part in parts)

    def bit_product(self, shape: tuple[int, ...]) -> tuple[torch.Tensor, ...]:
        """Shares of a mask a, of bits r (a bit each), and of r and a r as words."""
        mask, bits, result = self.take(BitProduct(shape))
        return (
            torch.from_numpy(mask),
            torch.from_numpy(secret_bits(bits, shape)),
            torch.from_numpy(result[0]),
            torch.from_numpy(result[1]),
        )

    def wrap_rng(self, shape: Any, device: Any = None) -> tuple[Any, ...]:
        """Only three parties count wraps."""
        raise DesynchronisedError("no plan counts wraps", value=tuple(shape))

    def B2A_rng(self, shape: Any, device: Any = None) -> tuple[Any, ...]:
        """Bits are multiplied, not converted: see `bit_product`."""
        raise DesynchronisedError("no plan converts bits", value=tuple(shape))


def _arithmetic(words: Array) -> Any:
    return ArithmeticSharedTensor.from_shares(torch.from_numpy(words), precision=0)
