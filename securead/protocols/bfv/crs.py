"""The uniform half `a` of every public key: a common reference string that no owner can choose.

An owner that chose `a` (zero, say) would receive answers whose mask vanishes. So `a` is expanded from the plan's
digest, which contains the program's commitment under the model owner's random key: AES-256-CTR keyed by SHA-256, as an
ideal cipher, a public expander and not a secret-key function. All owners of a plan share it.
"""

from __future__ import annotations

import functools
import hashlib

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from securead.data.schema import Array
from securead.protocols.bfv.plan import BfvPlan

_DOMAIN = b"securead.protocols.bfv.a.v1\0"


@functools.lru_cache(maxsize=8)
def uniform_half(plan: BfvPlan) -> Array:
    """Residues uint64 `(primes, N)` in NTT form, uniform below each prime of the plan's chain."""
    rows = [expand(plan.digest, at, prime, plan.ring_dimension) for at, prime in enumerate(plan.chain)]
    residues: Array = np.stack(rows)
    residues.setflags(write=False)
    return residues


def expand(plan_digest: str, index: int, prime: int, count: int) -> Array:
    """The first `count` of the key stream's 8-byte words, little-endian and masked to the prime's width, below it."""
    key = hashlib.sha256(_DOMAIN + bytes.fromhex(plan_digest) + bytes([index])).digest()
    stream = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
    mask, found = np.uint64((1 << prime.bit_length()) - 1), np.empty(0, dtype=np.uint64)
    while len(found) < count:
        words = np.frombuffer(stream.update(bytes(8 * count)), dtype="<u8") & mask
        found = np.append(found, words[words < prime])
    return found[:count]
