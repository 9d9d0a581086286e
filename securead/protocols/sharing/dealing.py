"""The dealer's computation: from two keys and a sequence of correlations to what party 0 lacks of them.

Each set has keys of its own, derived from the parties' seeds of a session; whoever derives one forgets it after use.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Iterator, Sequence

import numpy as np

from securead.data.schema import Array
from securead.errors import RejectMessageError, RetryLaterError
from securead.protocols.sharing.correlations import (
    BinaryTriple,
    BitProduct,
    Correlation,
    MatrixTriple,
    SquarePair,
    Triple,
    size,
)
from securead.protocols.sharing.shares import Words

_NAME = b"securead.protocols.sharing.set.v1\0"
_SET = struct.Struct("<QQ?")


class DesynchronisedError(RetryLaterError):
    """A party asked for another correlation than comes next, or for one too many: all start a new session."""


def set_key(seed: bytes, set_id: int, rows: int, verdict: bool) -> bytes:
    """The key of one set under a party's seed of a session: HMAC-SHA256 of the set's number and what it is for."""
    return hmac.new(seed, _NAME + _SET.pack(set_id, rows, verdict), hashlib.sha256).digest()


def deal(correlations: Sequence[Correlation], key0: bytes, key1: bytes) -> bytes:
    """Party 0's corrections for one set: its shares of all results, in order, as little-endian words."""
    return b"".join(np.ascontiguousarray(part).tobytes() for part in _corrections(correlations, key0, key1))


def correction_words(correlations: Sequence[Correlation]) -> int:
    """Words of a set's corrections."""
    return sum(size(each.result) for each in correlations)


def read_corrections(correlations: Sequence[Correlation], corrections: bytes | bytearray | memoryview) -> Array:
    """Corrections as words; `RejectMessageError` when there are not as many as the set has."""
    if len(corrections) != 8 * correction_words(correlations):
        raise RejectMessageError("corrections of the wrong length", value=len(corrections))
    return np.frombuffer(corrections, dtype="<i8")


def _corrections(correlations: Sequence[Correlation], key0: bytes, key1: bytes) -> Iterator[Array]:
    left, right = Words(key0), Words(key1)
    for each in correlations:
        mine = [left.draw(shape) for shape in each.factors]
        theirs = [right.draw(shape) for shape in each.factors]
        other = right.draw(each.result)
        yield (
            _result(each, mine, theirs) ^ other
            if isinstance(each, BinaryTriple)
            else (_result(each, mine, theirs) - other)
        )


def _result(each: Correlation, mine: list[Array], theirs: list[Array]) -> Array:
    """The result of a correlation, in the clear."""
    value: Array
    match each:
        case MatrixTriple():
            value = matrix_product(mine[0] + theirs[0], mine[1] + theirs[1])
        case Triple():
            value = (mine[0] + theirs[0]) * (mine[1] + theirs[1])
        case SquarePair():
            value = (mine[0] + theirs[0]) ** 2
        case BinaryTriple():
            value = (mine[0] ^ theirs[0]) & (mine[1] ^ theirs[1])
        case BitProduct():
            bits = secret_bits(mine[1] ^ theirs[1], each.shape)
            value = np.stack([bits, bits * (mine[0] + theirs[0])])
    return value


def secret_bits(words: Array, shape: tuple[int, ...]) -> Array:
    """The lowest bit of each byte of words, int64 in the given shape."""
    content = np.ascontiguousarray(words).view(np.uint8)[: size(shape)]
    return (content & 1).astype(np.int64).reshape(shape)


def matrix_product(left: Array, right: Array) -> Array:
    """A product of int64 matrices modulo 2**64."""
    product: Array = left @ right
    return product
