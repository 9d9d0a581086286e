"""Correlated randomness: what a computation on shares consumes, as values that all three parties derive alike.

Of each correlation both parties expand uniform shares of the factors, and party 1 of the result, too, from a key of
its own; the dealer, who knows both keys, sends party 0 what is missing of the result: `correction` words. Beaver (1991)
triples, a square pair as in CrypTen (Knott et al. 2021), and for a ReLU a secret bit r with its product with a mask.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

Shape = tuple[int, ...]


def size(shape: Shape) -> int:
    """The number of words of a shape."""
    return math.prod(shape)


def words_of_bytes(count: int) -> int:
    """Words of 64 bits that hold so many bytes."""
    return -(-count // 8)


@dataclass(frozen=True)
class MatrixTriple:
    """a of shape `left`, b of shape `right` and their matrix product."""

    tag: ClassVar[str] = "matrix"
    left: Shape
    right: Shape

    @property
    def factors(self) -> tuple[Shape, ...]:
        return self.left, self.right

    @property
    def result(self) -> Shape:
        return self.left[0], self.right[1]

    @property
    def opened(self) -> int:
        """Words that each party sends the other."""
        return size(self.left) + size(self.right)


@dataclass(frozen=True)
class Triple:
    """a, b and their elementwise product, which broadcasts."""

    tag: ClassVar[str] = "product"
    left: Shape
    right: Shape

    @property
    def factors(self) -> tuple[Shape, ...]:
        return self.left, self.right

    @property
    def result(self) -> Shape:
        return broadcast(self.left, self.right)

    @property
    def opened(self) -> int:
        return size(self.left) + size(self.right)


@dataclass(frozen=True)
class SquarePair:
    """a and its elementwise square."""

    tag: ClassVar[str] = "square"
    shape: Shape

    @property
    def factors(self) -> tuple[Shape, ...]:
        return (self.shape,)

    @property
    def result(self) -> Shape:
        return self.shape

    @property
    def opened(self) -> int:
        return size(self.shape)


@dataclass(frozen=True)
class BinaryTriple:
    """XOR-shared words a, b and their bitwise AND, which broadcasts."""

    tag: ClassVar[str] = "and"
    left: Shape
    right: Shape

    @property
    def factors(self) -> tuple[Shape, ...]:
        return self.left, self.right

    @property
    def result(self) -> Shape:
        return broadcast(self.left, self.right)

    @property
    def opened(self) -> int:
        return size(self.left) + size(self.right)


@dataclass(frozen=True)
class BitProduct:
    """For a product of shared words with XOR-shared bits: a mask a, a bit r each, and additive shares of r and a r.

    Both parties expand shares of a, and of r one byte an element, of which the lowest bit counts; the result is r and
    a r, stacked.
    """

    tag: ClassVar[str] = "bit product"
    shape: Shape

    @property
    def factors(self) -> tuple[Shape, ...]:
        return self.shape, (words_of_bytes(size(self.shape)),)

    @property
    def result(self) -> Shape:
        return (2, *self.shape)

    @property
    def opened(self) -> int:
        return size(self.shape) + words_of_bytes(size(self.shape))


Correlation = MatrixTriple | Triple | SquarePair | BinaryTriple | BitProduct


def broadcast(left: Shape, right: Shape) -> Shape:
    """The shape of an elementwise operation; `left` has no more dimensions than `right`, and they fit."""
    padded = (1,) * (len(right) - len(left)) + left
    return tuple(max(a, b) for a, b in zip(padded, right, strict=True))


def party_words(correlation: Correlation, index: int) -> int:
    """Words that a party expands: shares of the factors and, at party 1, of the result."""
    factors = sum(map(size, correlation.factors))
    return factors + size(correlation.result) if index == 1 else factors


# --- A sign on shares ------------------------------------------------------------------------------------------------

# The carry tree of 64 bits: bytes an element that a level's AND takes, and whether generate and propagate are ANDed
# with the same propagate as two arrays (above a byte) or side by side in one (within).
LEVELS = ((8, False), (4, True), (2, True), (1, True), (1, False), (1, False), (1, False))


def sign_correlations(elements: int) -> tuple[BinaryTriple, ...]:
    """What the sign bits of so many additively shared words consume, one round each."""
    found = []
    for width, doubled in LEVELS:
        words = words_of_bytes(elements * width)
        found.append(BinaryTriple((words,), (2, words) if doubled else (words,)))
    return tuple(found)


def or_correlation(elements: int) -> BinaryTriple:
    """What the OR of so many pairs of XOR-shared bits consumes, a byte each."""
    words = words_of_bytes(elements)
    return BinaryTriple((words,), (words,))
