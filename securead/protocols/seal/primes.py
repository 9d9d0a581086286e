"""Moduli: primes that SEAL can use, and how many bits of them are secure."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator

SECURITY_BITS = 128
MIN_PRIME_BITS, MAX_PRIME_BITS = 20, 60
# Ternary secrets, classical attacks, 128 bits: the largest modulus of any key or ciphertext, in bits. The standard of
# 2018 (Albrecht et al.; SEAL enforces it) and the guideline of 2024 (Bossuat et al.); both must hold.
STANDARD_2018 = {1024: 27, 2048: 54, 4096: 109, 8192: 218, 16384: 438, 32768: 881}
GUIDELINE_2024 = {2048: 53, 4096: 106, 8192: 214, 16384: 430, 32768: 868}
RING_DIMENSIONS = (4096, 8192, 16384)


def modulus_bits_limit(ring_dimension: int) -> int:
    """The largest modulus in bits that both tables allow."""
    return min(STANDARD_2018[ring_dimension], GUIDELINE_2024[ring_dimension])


def is_usable(prime: int, ring_dimension: int) -> bool:
    """Whether `prime` is a prime with a number-theoretic transform of that length."""
    return prime % (2 * ring_dimension) == 1 and prime.bit_length() <= MAX_PRIME_BITS and _is_prime(prime)


@functools.cache
def special_prime(ring_dimension: int, bits: int = 1) -> int:
    """The smallest usable prime of at least so many bits: SEAL always reserves one, and where no key is switched, or
    errors of switching are divided by primes anyway, its size does not matter.
    """
    start = (1 << bits - 1) // (2 * ring_dimension) * 2 * ring_dimension + 1
    candidates = itertools.count(max(start, 2 * ring_dimension + 1), 2 * ring_dimension)
    return next(n for n in candidates if n >> (bits - 1) and is_usable(n, ring_dimension))


def choose(ring_dimension: int, bits: tuple[int, ...]) -> tuple[int, ...] | None:
    """Distinct primes of exactly these widths, each the largest one left, or None where there are too few."""
    left: dict[int, Iterator[int]] = {}
    chosen = []
    for width in bits:
        stream = left.setdefault(width, iter(_of_width(ring_dimension, width, max(8, len(bits)))))
        prime = next(stream, None)
        if prime is None:
            return None
        chosen.append(prime)
    return tuple(chosen)


def other_than(ring_dimension: int, chain: tuple[int, ...]) -> int:
    """A usable prime that is not in `chain`."""
    return next(prime for prime in _of_width(ring_dimension, MAX_PRIME_BITS, 64) if prime not in chain)


@functools.cache
def _of_width(ring_dimension: int, bits: int, count: int) -> tuple[int, ...]:
    """The `count` largest primes of a width, the special prime excepted."""
    found: list[int] = []
    step = 2 * ring_dimension
    number = (((1 << bits) - 2) // step) * step + 1
    while number >> (bits - 1) and len(found) < count:
        if is_usable(number, ring_dimension) and number != special_prime(ring_dimension):
            found.append(number)
        number -= step
    return tuple(found)


def _is_prime(n: int) -> bool:
    """Miller and Rabin with the first twelve primes as bases: proven below 2**78 (Sorenson and Webster 2015)."""
    bases = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)
    if n < 2 or any(n % p == 0 for p in bases):
        return n in bases
    odd, twos = n - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    return all(_passes(n, base, odd, twos) for base in bases)


def _passes(n: int, base: int, odd: int, twos: int) -> bool:
    x = pow(base, odd, n)
    if x in (1, n - 1):
        return True
    for _ in range(twos - 1):
        x = x * x % n
        if x == n - 1:
            return True
    return False
