"""Compiled loops that bring a request's residues to where blocks are computed. They call nothing of another file, as
numba's cache would not notice its changes.
"""

from __future__ import annotations

import numpy as np

from securead.data.schema import Array
from securead.protocols.residues.loops import compiled

_I, _U = np.int64, np.uint64


@compiled
def unpack(words: Array, width: int, out: Array, index: int, column: int, polynomial: int) -> int:
    """Values of `width` bits, packed without gaps, to `out[index, :, column, polynomial]`: the largest of them.

    `words` uint64 holds them and one word more; `out` int64 is `(primes, blocks, columns, polynomials, slots)`.
    """
    mask, most, at = (_U(1) << _U(width)) - _U(1), _I(0), 0
    for block in range(out.shape[1]):
        target = out[index, block, column, polynomial]
        for j in range(target.size):
            bit = (at + j) * width
            word, shift = bit >> 6, _U(bit & 63)
            # In two steps, because a shift by 64 is undefined.
            value = _I(((words[word] >> shift) | ((words[word + 1] << (_U(63) - shift)) << _U(1))) & mask)
            most = max(most, value)
            target[j] = value
        at += out.shape[4]
    return int(most)


@compiled
def keep(words: Array, width: int, out: Array, index: int, column: int, polynomial: int) -> int:
    """The low `width` bits of each of `words` uint64, to the same place: the largest of them."""
    mask, most, at = (_U(1) << _U(width)) - _U(1), _I(0), 0
    for block in range(out.shape[1]):
        target = out[index, block, column, polynomial]
        for j in range(target.size):
            value = _I(words[at + j] & mask)
            most = max(most, value)
            target[j] = value
        at += out.shape[4]
    return int(most)
