"""What the engines on SEAL know of its noise in the worst case, and how far flooding stands above it. Integers only."""

from __future__ import annotations

FLOOD_BITS = 40
LARGEST_ERROR = 21  # SEAL's centred binomial of 42 bits


def key_level_error(ring_dimension: int) -> int:
    """The largest coefficient of e u + e1 + e2 s, u and s ternary: of a public-key encryption that no prime is dropped
    from, for every key and all randomness.
    """
    return LARGEST_ERROR * (2 * ring_dimension + 1)


def public_error(ring_dimension: int, special_prime: int) -> int:
    """The largest coefficient of the error of a public-key encryption, for every key and all randomness.

    (e u + e1 + e2 s) / P, with u and s ternary, and rounding both parts.
    """
    switched = -(-LARGEST_ERROR * (2 * ring_dimension + 1) // special_prime)
    return switched + (ring_dimension + 2) // 2
