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
    count = len(values)
    word, shift, first = _places(count, width)
    values = values.astype(np.uint64, copy=False)
    words = np.add.reduceat(values << shift, first)
    last = np.append(first[1:], np.intp(count)) - 1
    # In two steps, because a shift by 64 is undefined.
    carried = (values[last] >> (np.uint64(63) - shift[last])) >> np.uint64(1)
    words[1:] += carried[:-1]
    out = np.append(words, carried[-1:]) if word[-1] + 1 == len(words) else words
    return out.astype("<u8", copy=False).tobytes()[: packed_bytes(count, width)]


def unpack(content: bytes, count: int, width: int) -> Array:
    """Invert `pack`: uint64 `(count,)` from that many bytes; padding bits are not looked at."""
    word, shift, first = _places(count, width)
    padded = np.frombuffer(content + bytes(8 * (len(first) + 1) - len(content)), dtype="<u8")
    low = padded[word] >> shift
    high = (padded[word + 1] << (np.uint64(63) - shift)) << np.uint64(1)
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


def residue_bytes(ring_dimension: int, primes: tuple[int, ...]) -> int:
    """The length of one packed polynomial."""
    return sum(packed_bytes(ring_dimension, prime.bit_length()) for prime in primes)


def pack_residues(words: Array, primes: tuple[int, ...]) -> bytes:
    """Pack residues uint64 `(polynomials, primes, N)` prime by prime, each in the width of its prime."""
    widths = [prime.bit_length() for prime in primes]
    return b"".join(pack(row, width) for rows in words for row, width in zip(rows, widths, strict=True))


def unpack_residues(content: bytes, polynomials: int, primes: tuple[int, ...], count: int) -> Array:
    """Invert `pack_residues`: uint64 `(polynomials, primes, count)`, not compared with their primes."""
    words, at = np.empty((polynomials, len(primes), count), dtype=np.uint64), 0
    for polynomial in range(polynomials):
        for index, prime in enumerate(primes):
            size = packed_bytes(count, prime.bit_length())
            words[polynomial, index] = unpack(content[at : at + size], count, prime.bit_length())
            at += size
    return words
