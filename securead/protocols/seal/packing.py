"""Integers of a fixed width without gaps: value i is bits `width * i` to `width * (i + 1) - 1`, little-endian.

A gather, not a loop: in 64-bit words, a value lies in one word or in two neighbours, and every word has a value that
begins in it, because no value is wider than a word.
"""

from __future__ import annotations

import functools

import numpy as np

from securead.data.schema import Array

MAX_WIDTH = 62


def packed_bytes(count: int, width: int) -> int:
    """The length of `count` packed values."""
    return (count * width + 7) // 8


def pack(values: Array, width: int) -> bytes:
    """Pack non-negative integers below 2**width, uint64 `(n,)`, n >= 1."""
    return packed(values, width).tobytes()


def packed(values: Array, width: int) -> Array:
    """`pack` as an array uint8."""
    count = len(values)
    _, shift, first = _places(count, width)
    others, last, right = _joints(count, width)
    values = values.astype(np.uint64, copy=False)
    shifted = values << shift
    words = np.zeros(len(first) + 1, dtype=np.uint64)
    # Clipping skips a check: the places are our own.
    np.take(shifted, first, out=words[:-1], mode="clip")
    for at, word in others:
        words[word] |= shifted.take(at)
    # In two steps, because a shift by 64 is undefined.
    words[1:] |= (values.take(last) >> right) >> np.uint64(1)
    return words.astype("<u8", copy=False).view(np.uint8)[: packed_bytes(count, width)]


def unpack(content: bytes, count: int, width: int) -> Array:
    """Invert `pack`: uint64 `(count,)` from that many bytes; padding bits are not looked at."""
    word, shift, first = _places(count, width)
    padded = np.frombuffer(content + bytes(8 * (len(first) + 1) - len(content)), dtype="<u8")
    low = padded.take(word) >> shift
    high = (padded[1:].take(word) << (np.uint64(63) - shift)) << np.uint64(1)
    values: Array = (low | high) & np.uint64((1 << width) - 1)
    return values


@functools.lru_cache(maxsize=64)
def _places(count: int, width: int) -> tuple[Array, Array, Array]:
    """For each value the word and bit where it begins, and for each word the first value that begins in it."""
    if not (1 <= width <= MAX_WIDTH and count >= 1):
        raise ValueError((count, width))
    start = np.arange(count, dtype=np.int64) * width
    word = start >> 6
    first = np.flatnonzero(np.diff(word, prepend=-1))
    return word, (start & 63).astype(np.uint64), first


@functools.lru_cache(maxsize=64)
def _joints(count: int, width: int) -> tuple[list[tuple[Array, Array]], Array, Array]:
    """What joins values into words: the second, third, ... values that begin in a word, with their words; the last
    value that begins in each word, and how far to shift it right, less one, for what is left in the next word.
    """
    word, shift, first = _places(count, width)
    rank = np.arange(count) - first[word]
    others = [(at, word[at]) for at in (np.flatnonzero(rank == r) for r in range(1, int(rank.max()) + 1))]
    last = np.append(first[1:], count) - 1
    return others, last, np.uint64(63) - shift[last]


def residue_bytes(ring_dimension: int, primes: tuple[int, ...]) -> int:
    """The length of one packed polynomial."""
    return sum(packed_bytes(ring_dimension, prime.bit_length()) for prime in primes)


def pack_residues(words: Array, primes: tuple[int, ...]) -> bytes:
    """Pack residues uint64 `(polynomials, primes, N)` prime by prime, each in the width of its prime."""
    return b"".join(packed_residues(words, primes))


def packed_residues(words: Array, primes: tuple[int, ...]) -> list[memoryview]:
    """`pack_residues` in parts that stand one behind the other."""
    widths = [prime.bit_length() for prime in primes]
    return [packed(row, width).data for rows in words for row, width in zip(rows, widths, strict=True)]


def unpack_residues(content: bytes, polynomials: int, primes: tuple[int, ...], count: int) -> Array:
    """Invert `pack_residues`: uint64 `(polynomials, primes, count)`, not compared with their primes."""
    words, at = np.empty((polynomials, len(primes), count), dtype=np.uint64), 0
    for polynomial in range(polynomials):
        for index, prime in enumerate(primes):
            size = packed_bytes(count, prime.bit_length())
            words[polynomial, index] = unpack(content[at : at + size], count, prime.bit_length())
            at += size
    return words
