"""Signs of additively shared words, as XOR-shared bits: a carry tree that ANDs no bit it need not.

The sign of x0 + x1 is the XOR of both top bits and of the carry into them. CrypTen finds it with a parallel prefix
adder that carries all 64 bits through six levels; here each level keeps only what the next one needs, half of the
bits, so that 43 instead of 208 bytes an element travel each way. Bits stand in bit-reversed order, so that
neighbours, which a level combines, are the halves of every word. (Damgard, Fitzi, Kiltz, Nielsen and Toft 2006, 6.3.)
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from securead.data.schema import Array
from securead.protocols.sharing import runtime
from securead.protocols.sharing.correlations import words_of_bytes

runtime.crypten()

from crypten.mpc.primitives import BinarySharedTensor, beaver  # noqa: E402


def _exchange(low: int, high: int) -> tuple[np.uint64, np.uint64]:
    """Shift and mask that exchange two index bits of all places: those with `low` set and `high` clear move up."""
    places = [at for at in range(64) if at >> low & 1 and not at >> high & 1]
    return np.uint64((1 << high) - (1 << low)), np.uint64(sum(1 << at for at in places))


_EXCHANGES = tuple(_exchange(at, 5 - at) for at in range(3))
_TOP = np.uint64(1 << 63)


def sign_bits(share: Array, rank: int) -> Array:
    """This party's XOR-shares, uint8 in {0, 1}, of whether the shared words (int64, any shape) are negative."""
    own = np.ascontiguousarray(share).reshape(-1).view(np.uint64)
    top = (own >> np.uint64(63)).astype(np.uint8)
    bits = _reversed(own)
    # Each party knows one summand: as XOR-shares the other holds zeros.
    zeros = np.zeros_like(bits)
    generate = and_words(bits if rank == 0 else zeros, bits if rank == 1 else zeros) & ~_TOP
    # The top bit's place holds the neutral element: it generates nothing and propagates what comes.
    propagate = (bits | _TOP) if rank == 0 else (bits & ~_TOP)
    for kind in (np.uint32, np.uint16, np.uint8):
        halves_g, halves_p = (np.ascontiguousarray(part).view(kind).reshape(-1, 2) for part in (generate, propagate))
        update = _and_bytes(halves_p[:, 1], np.stack([halves_g[:, 0], halves_p[:, 0]]))
        generate, propagate = halves_g[:, 1] ^ update[0], update[1]
    for half in (4, 2):
        mask = np.uint8((1 << half) - 1)
        high = propagate >> np.uint8(half)
        low = (generate & mask) | ((propagate & mask) << np.uint8(half))
        update = _and_bytes(high | (high << np.uint8(half)), low)
        generate, propagate = (generate >> np.uint8(half)) ^ (update & mask), update >> np.uint8(half)
    carry = (generate >> np.uint8(1)) ^ _and_bytes(propagate >> np.uint8(1), generate & np.uint8(1))
    signs: Array = (top ^ carry) & np.uint8(1)
    return signs.reshape(share.shape)


def either(left: Array, right: Array, rank: int) -> Array:
    """XOR-shares of left OR right, both XOR-shares uint8 in {0, 1} of equal shape."""
    flip = np.uint8(rank == 0)
    both_not = _and_bytes((left ^ flip).reshape(-1), (right ^ flip).reshape(-1))
    return ((both_not ^ flip) & np.uint8(1)).reshape(left.shape)


def and_words(left: Array, right: Array) -> Array:
    """XOR-shares of the bitwise AND of XOR-shared words; one round. `left` broadcasts."""
    kind = left.dtype
    product = beaver.AND(*(_binary(part.view(np.int64)) for part in (left, right)))
    result: Array = product.share.numpy().view(kind)
    return result


def _and_bytes(left: Array, right: Array) -> Array:
    """The same for arrays of narrower integers, which travel side by side in words; `right` may be two arrays."""
    kind, count = left.dtype, left.shape[-1]
    product = and_words(_padded(left), _padded(right))
    return product.view(kind)[..., :count]


def _padded(array: Array) -> Array:
    """Integers of any width as whole words along the last axis."""
    items = 8 // array.dtype.itemsize
    words = words_of_bytes(array.shape[-1] * array.dtype.itemsize)
    if array.shape[-1] != words * items:
        padded = np.zeros((*array.shape[:-1], words * items), dtype=array.dtype)
        padded[..., : array.shape[-1]] = array
        array = padded
    return np.ascontiguousarray(array).view(np.int64)


def _reversed(words: Array) -> Array:
    """Each word's bits in bit-reversed order: bit b moves to the place whose six index bits read backwards."""
    for shift, mask in _EXCHANGES:
        moved = ((words >> shift) ^ words) & mask
        words = words ^ moved ^ (moved << shift)
    return words


def _binary(words: Array) -> Any:
    return BinarySharedTensor.from_shares(torch.from_numpy(words), precision=0)
