"""Masks of pairs and sums without them: arithmetic modulo 2^64 and nothing else (SPEC.md, section 4).

Guarantee: for one set, the masks of all its sites add up to zero, so masked values add up to what the values do,
exactly. Nothing here remembers anything; what may be masked how often is `masker`'s business.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from securead.data.schema import Array
from securead.errors import FixInputError, RejectMessageError, UseOtherKeyError
from securead.protocols.masking.adverts import statement

SUM_BOUND = 2**62
MAX_VALUES = 2**30
Member = tuple[str, bytes]
"""A participant's name and X25519 public key."""


def pair_secret(private: X25519PrivateKey, run: str, own: Member, other: Member) -> bytes:
    """The 32 bytes that two sites share in a run (RFC 7748; RFC 5869).

    Raises `UseOtherKeyError` for a point of low order, with which the secret would be known to everyone.
    """
    try:
        shared = private.exchange(X25519PublicKey.from_public_bytes(other[1]))
    except ValueError:
        raise UseOtherKeyError(
            f"the X25519 key of {other[0]!r} is a point of low order, of which no secret can be made",
            remedy="It is not of an honest site: go on without it.",
        ) from None
    lower, higher = sorted((own, other))
    return HKDF(hashes.SHA256(), 32, None, statement("pair", run, *lower, *higher)).derive(shared)


def check_member(member: Member) -> None:
    """Raise `UseOtherKeyError` for a point of low order: every other site will refuse it."""
    pair_secret(X25519PrivateKey.generate(), "", ("", b""), member)


def stream_key(secret: bytes, run: str, round: int, attempt: int, set_hash: bytes) -> bytes:
    """The AES-256 key of a pair's mask in one attempt, used for nothing else."""
    return derived(secret, statement("mask", run, round, attempt, set_hash))


def derived(secret: bytes, info: bytes) -> bytes:
    """32 bytes of a secret for one purpose, which `info` states (HKDF-Expand-SHA256, RFC 5869)."""
    return HKDFExpand(hashes.SHA256(), 32, info).derive(secret)


def stream(key: bytes, count: int) -> Array:
    """The first `count` words of AES-256 in counter mode from zero, little-endian; uint64 `(count,)`."""
    encrypted = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor().update(bytes(8 * count))
    return np.frombuffer(encrypted, dtype="<u8")


def masked(own: str, keys: Mapping[str, bytes], values: Array) -> Array:
    """`values` (int64) plus the masks of the pairs (`own`, other), whose stream keys are `keys`; uint64, same shape.

    Of two names, the lower one adds their mask and the higher one subtracts it.
    """
    total = np.array(values, dtype=np.int64, order="C").reshape(-1).view(np.uint64)
    for other, key in keys.items():
        if own < other:
            total += stream(key, len(total))
        else:
            total -= stream(key, len(total))
    return total.reshape(values.shape)


def check_values(values: Array, participants: int) -> None:
    """Raise `FixInputError` unless `values` are int64 that cannot overflow when `participants` such arrays are added.

    Never names a value: the error may travel.
    """
    bound = SUM_BOUND // participants
    if values.dtype != np.int64 or values.size > MAX_VALUES:
        raise FixInputError(
            f"an update is at most 2**30 values of int64, not {values.size:,} of {values.dtype}",
            remedy="Round it to the grid first.",
        )
    if values.size and not (-bound < values.min() and values.max() < bound):
        raise FixInputError(
            f"an update has a value of 2**62 / {participants} or more, and the sum could overflow",
            remedy="Use a coarser grid, or fewer sites.",
        )


def signed(words: Array, bits: int) -> Array:
    """The numbers in [-2**(bits - 1), 2**(bits - 1)) that uint64 `words` are modulo 2**bits; int64."""
    beyond = np.uint64(64 - bits)
    return (words << beyond).view(np.int64) >> beyond.astype(np.int64)


def unmask(messages: Mapping[str, Array], participants: Sequence[str], *, bits: int = 64) -> Array:
    """The exact sum of what `participants` masked for one attempt; int64.

    With fewer `bits`, messages are words modulo 2**bits, which add up alike, and the sum is below 2**(bits - 2).
    Raises `RejectMessageError` unless there is one message of each and no other, all of one shape, and the sum is one
    that such values can have: where masks do not cancel, every word fails this with probability 1/2.
    """
    names = list(participants)
    if len(set(names)) != len(names) or len(names) < 2 or set(messages) != set(names):
        raise RejectMessageError(
            "a masked sum needs one message of every participant",
            value=f"participants {sorted(names)}, messages of {sorted(messages)}",
            remedy="Begin the next attempt with those who answered.",
        )
    shape = messages[names[0]].shape
    for name in names:
        if messages[name].dtype != np.uint64 or messages[name].shape != shape:
            found = f"{messages[name].dtype} {messages[name].shape}"
            raise RejectMessageError(f"the message of {name!r} is not uint64 of shape {shape}", value=found)
    total = np.zeros(messages[names[0]].size, dtype=np.uint64)
    for name in names:
        total += messages[name].reshape(-1)
    bound = len(names) * (SUM_BOUND // len(names) - 1) if bits == 64 else 2 ** (bits - 2) - 1
    added = signed(total, bits)
    if added.size and not (-bound <= added.min() and added.max() <= bound):
        raise RejectMessageError(
            "the masks do not cancel: the sum is none that these sites' values can have",
            value=sorted(names),
            remedy="A site masked for another set or sent other bytes: nothing of this sum can be used.",
        )
    return added.reshape(shape)
