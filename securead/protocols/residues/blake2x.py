"""SEAL's expansion of a public seed: BLAKE2Xb, 4,096 bytes at a time, and words reduced below each prime. Bit for bit.

A seed of 64 bytes keys BLAKE2b (RFC 7693), buffer number i is BLAKE2Xb (Aumasson, Neves, Wilcox-O'Hearn, Winnerlein
2016) of i as eight bytes, little-endian: one root hash, and 64 leaves, each a hash of the root. The first words of the
buffers are the polynomial's, prime by prime; a word at or above the largest multiple of its prime is replaced by the
first word after all of them that is not, and every word is then reduced.

The leaves of one root differ in a single word of the parameter block, so 64 of them are computed side by side, as many
at a time as the processor's vectors hold. The compiled loops call nothing of another file: numba's cache would not
notice its changes. Public data only, as everywhere in this package.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from securead.data.schema import Array
from securead.errors import RejectMessageError
from securead.protocols.residues.loops import compiled

SEED_BYTES = 64
WORDS = 512  # in a buffer
_I, _U, _D = np.int64, np.uint64, np.float64
# More than any honest seed: a word is rejected with probability 2**-14 below the widest primes, 16 times among 2**18.
_MOST_REJECTED = 1024
# The parameter block's words 0 and 1 of a root (64 bytes of digest and of key, fanout and depth 1, 4,096 bytes in all)
# and words 0 to 2 of a leaf (64 bytes of digest and of leaf; its number; 64 bytes of inner hash).
_ROOT_0, _ROOT_1 = 64 | 64 << 8 | 1 << 16 | 1 << 24, 4096 << 32
_LEAF_0, _LEAF_1, _LEAF_2 = 64 | 64 << 32, 4096 << 32, 64 << 8
_INITIAL = np.array(
    [
        0x6A09E667F3BCC908, 0xBB67AE8584CAA73B, 0x3C6EF372FE94F82B, 0xA54FF53A5F1D36F1,
        0x510E527FADE682D1, 0x9B05688C2B3E6C1F, 0x1F83D9ABFB41BD6B, 0x5BE0CD19137E2179,
    ],
    dtype=np.uint64,
)  # fmt: skip
_ORDER = np.array(
    [
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
        [14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3],
        [11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4],
        [7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8],
        [9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13],
        [2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9],
        [12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11],
        [13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10],
        [6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5],
        [10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0],
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
        [14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3],
    ]
)


def expand(seed: bytes, primes: tuple[int, ...], out: Array, column: int, polynomial: int) -> None:
    """The uniform polynomial of SEAL's seed, residues to `out[:, :, column, polynomial]`.

    `out` int64 is `(primes, blocks, columns, polynomials, slots)`, slots a multiple of 512. `RejectMessageError` for a
    seed that nobody has found yet, whose words are rejected without end.
    """
    if len(seed) != SEED_BYTES or out.shape[4] % WORDS or len(out) != len(primes):
        raise ValueError(f"a seed of {len(seed)} bytes, {len(primes)} primes for residues {out.shape}")
    words, moduli = np.frombuffer(seed, dtype="<u8"), np.array(primes, dtype=np.int64)
    rejected = np.empty(_MOST_REJECTED, dtype=np.int64)
    count = _expand(words, moduli, _ORDER, out, column, polynomial, rejected)
    if count > _MOST_REJECTED:
        raise RejectMessageError("a seed expands to too many words that are rejected", value=count)
    if count:
        slots, dimension = out.shape[4], out.shape[1] * out.shape[4]
        spare = _buffers(words, len(primes) * dimension // WORDS)
        for at in rejected[:count].tolist():
            index, place = divmod(at, dimension)
            value = next(word for word in spare if word < _top(primes[index]))
            out[index, place // slots, column, polynomial, place % slots] = value % primes[index]


def _top(prime: int) -> int:
    """What accepted words are below: SEAL's multiple of the prime."""
    most = 2**64 - 1
    return most - most % prime - 1


def _buffers(seed: Array, first: int) -> Iterator[int]:
    """All words of a seed from the beginning of one of its buffers."""
    while True:
        words = np.empty(WORDS, dtype=np.uint64)
        _buffer(seed, first, _ORDER, words)
        yield from words.tolist()
        first += 1


@compiled
def _turned(x: Any, bits: int) -> Any:
    return (x >> _U(bits)) | (x << _U(64 - bits))


@compiled
def _mix(a: Any, b: Any, c: Any, d: Any, x: Any, y: Any) -> Any:
    """BLAKE2b's function G."""
    a = a + b + x
    d = _turned(d ^ a, 32)
    c = c + d
    b = _turned(b ^ c, 24)
    a = a + b + y
    d = _turned(d ^ a, 16)
    c = c + d
    b = _turned(b ^ c, 63)
    return a, b, c, d


@compiled
def _compress(h: Array, m: Array, order: Array, length: int, last: bool) -> None:
    """One block m uint64 `(16,)` into the state h `(8,)`, `length` bytes having been read with it.

    `order` is an argument, and counts of leaves are sizes, so that no loop is unrolled: compiling would take long.
    """
    a, b, c, d, e, f, g, i = h[0], h[1], h[2], h[3], h[4], h[5], h[6], h[7]
    k, w, n, o = _INITIAL[0], _INITIAL[1], _INITIAL[2], _INITIAL[3]
    q, r, t, u = _INITIAL[4] ^ _U(length), _INITIAL[5], _INITIAL[6], _INITIAL[7]
    if last:
        t = ~t
    for turn in range(order.shape[0]):
        s = order[turn]
        a, e, k, q = _mix(a, e, k, q, m[s[0]], m[s[1]])
        b, f, w, r = _mix(b, f, w, r, m[s[2]], m[s[3]])
        c, g, n, t = _mix(c, g, n, t, m[s[4]], m[s[5]])
        d, i, o, u = _mix(d, i, o, u, m[s[6]], m[s[7]])
        a, f, n, u = _mix(a, f, n, u, m[s[8]], m[s[9]])
        b, g, o, q = _mix(b, g, o, q, m[s[10]], m[s[11]])
        c, i, k, r = _mix(c, i, k, r, m[s[12]], m[s[13]])
        d, e, w, t = _mix(d, e, w, t, m[s[14]], m[s[15]])
    h[0] ^= a ^ k
    h[1] ^= b ^ w
    h[2] ^= c ^ n
    h[3] ^= d ^ o
    h[4] ^= e ^ q
    h[5] ^= f ^ r
    h[6] ^= g ^ t
    h[7] ^= i ^ u


@compiled
def _round(v: Array, m: Array, s: Array) -> None:
    """A round of all leaves at once: word k of leaf j is `v[k * 64 + j]`, at an offset that the compiler knows."""
    x0, x1, x2, x3, x4, x5, x6, x7 = m[s[0]], m[s[1]], m[s[2]], m[s[3]], m[s[4]], m[s[5]], m[s[6]], m[s[7]]
    y0, y1, y2, y3, y4, y5, y6, y7 = m[s[8]], m[s[9]], m[s[10]], m[s[11]], m[s[12]], m[s[13]], m[s[14]], m[s[15]]
    for j in range(v.size >> 4):
        a, e, k, q = _mix(v[j], v[j + 256], v[j + 512], v[j + 768], x0, x1)
        b, f, w, r = _mix(v[j + 64], v[j + 320], v[j + 576], v[j + 832], x2, x3)
        c, g, n, t = _mix(v[j + 128], v[j + 384], v[j + 640], v[j + 896], x4, x5)
        d, i, o, u = _mix(v[j + 192], v[j + 448], v[j + 704], v[j + 960], x6, x7)
        a, f, n, u = _mix(a, f, n, u, y0, y1)
        b, g, o, q = _mix(b, g, o, q, y2, y3)
        c, i, k, r = _mix(c, i, k, r, y4, y5)
        d, e, w, t = _mix(d, e, w, t, y6, y7)
        v[j], v[j + 64], v[j + 128], v[j + 192] = a, b, c, d
        v[j + 256], v[j + 320], v[j + 384], v[j + 448] = e, f, g, i
        v[j + 512], v[j + 576], v[j + 640], v[j + 704] = k, w, n, o
        v[j + 768], v[j + 832], v[j + 896], v[j + 960] = q, r, t, u


@compiled
def _leaves(root: Array, order: Array, m: Array, v: Array, h: Array) -> None:
    """A buffer from its root: word k of leaf j to `h[k * 64 + j]`; `m` `(16,)` and `v` `(1024,)` are room."""
    leaves = h.size >> 3
    m[:8] = root
    m[8:] = 0
    for k in range(8):
        initial = _INITIAL[k]
        for j in range(leaves):
            h[k * 64 + j] = initial
            v[k * 64 + j + 512] = initial
    for j in range(leaves):
        h[j] ^= _U(_LEAF_0)
        h[j + 64] ^= _U(_LEAF_1 | j)
        h[j + 128] ^= _U(_LEAF_2)
        v[j + 768] ^= _U(64)
        v[j + 896] = ~v[j + 896]
    for k in range(h.size):
        v[k] = h[k]
    for turn in range(order.shape[0]):
        _round(v, m, order[turn])
    for k in range(h.size):
        h[k] ^= v[k] ^ v[k + 512]


@compiled
def _keyed(seed: Array, order: Array) -> Array:
    """The state of a root's hash after its key, which all buffers of a seed share."""
    h, m = _INITIAL.copy(), np.zeros(16, _U)
    h[0] ^= _U(_ROOT_0)
    h[1] ^= _U(_ROOT_1)
    m[:8] = seed
    _compress(h, m, order, 128, False)
    return h


@compiled
def _hashed(keyed: Array, number: int, order: Array, m: Array, v: Array, h: Array) -> None:
    """Buffer `number`, as `_leaves` has it."""
    root = keyed.copy()
    m[:] = 0
    m[0] = _U(number)
    _compress(root, m, order, 136, True)
    _leaves(root, order, m, v, h)


@compiled
def _buffer(seed: Array, number: int, order: Array, out: Array) -> None:
    """The words of one buffer, in order."""
    m, v, h = np.empty(16, _U), np.empty(1024, _U), np.empty(512, _U)
    _hashed(_keyed(seed, order), number, order, m, v, h)
    for k in range(8):
        for j in range(h.size >> 3):
            out[j * 8 + k] = h[k * 64 + j]


@compiled
def _expand(seed: Array, primes: Array, order: Array, out: Array, column: int, polynomial: int, rejected: Array) -> int:
    """Residues of all words, and how many were rejected: their places, prime times N plus slot, to `rejected`."""
    m, v, h = np.empty(16, _U), np.empty(1024, _U), np.empty(512, _U)
    keyed, slots = _keyed(seed, order), out.shape[4]
    buffers, count = out.shape[1] * slots // 512, _I(0)
    for i in range(primes.size):
        p = primes[i]
        inverse, modulus = 1.0 / p, _U(p)
        top = ~_U(0) - ~_U(0) % modulus - _U(1)
        for b in range(buffers):
            _hashed(keyed, i * buffers + b, order, m, v, h)
            start = b * 512
            target = out[i, start // slots, column, polynomial, start % slots : start % slots + 512]
            above = _I(0)
            for k in range(8):
                for j in range(h.size >> 3):
                    x = h[k * 64 + j]
                    above += _I(x >= top)
                    # The quotient is off by less than one, as p >= 2**19.
                    r = _I(x - _U(_I(_D(x) * inverse)) * modulus)
                    r = r + p if r < 0 else r
                    target[j * 8 + k] = r - p if r >= p else r
            if above:
                for j in range(h.size):
                    if h[(j & 7) * 64 + (j >> 3)] >= top:
                        if count < rejected.size:
                            rejected[count] = (i * buffers + b) * 512 + j
                        count += 1
    return int(count)
