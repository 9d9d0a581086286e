"""The sites' key of a run: Paillier's factors and the secret that pads come from (AGGREGATION.md, sections 2 and 4).

Guarantee: sealed under a secret of two sites, it opens for these two only and is what one of them sealed for the other.
"""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from securead.errors import UseOtherKeyError
from securead.protocols.masking import masks
from securead.protocols.masking.adverts import statement
from securead.protocols.paillier import keys

SECRET_BYTES, NONCE_BYTES, _TAG_BYTES = 32, 12, 16
_EXCESS_BYTES = 16
"""By so many bytes a pad is longer than the modulus before it is reduced: its distribution is uniform to 2^-128."""


def name_of(n: int) -> bytes:
    """What a key is called: SHA-256 of its modulus."""
    return hashlib.sha256(n.to_bytes(keys.modulus_bytes(), "little")).digest()


def modulus_of(content: bytes, *, where: str) -> int:
    """The modulus in so many bytes. Raises `UseOtherKeyError` for a length or number that is none."""
    if len(content) != keys.modulus_bytes():
        raise UseOtherKeyError(
            f"a Paillier modulus has {keys.modulus_bytes()} bytes here",
            where=where,
            value=len(content),
            remedy="The message is damaged, or of a key of another size.",
        )
    return keys.check_modulus(int.from_bytes(content, "little"), where=where)


@dataclass(frozen=True, repr=False, eq=False)
class GroupKey:
    """What every site of a run holds and the coordinator does not. A secret."""

    private: keys.PrivateKey
    pad_secret: bytes

    @classmethod
    def generate(cls) -> GroupKey:
        """A new one, from the system's randomness."""
        return cls(keys.PrivateKey.generate(), secrets.token_bytes(SECRET_BYTES))

    @classmethod
    def from_bytes(cls, content: bytes, *, where: str) -> GroupKey:
        """The key whose `to_bytes` these are."""
        if len(content) <= SECRET_BYTES:
            raise UseOtherKeyError("a run's key is cut short", where=where, value=len(content))
        private = keys.PrivateKey.from_bytes(content[:-SECRET_BYTES], where=where)
        return cls(private, content[-SECRET_BYTES:])

    def to_bytes(self) -> bytes:
        """Both factors and the secret."""
        return self.private.to_bytes() + self.pad_secret

    @property
    def n(self) -> int:
        """The modulus, which the coordinator knows, too."""
        return self.private.n

    @property
    def name(self) -> bytes:
        """What it is called."""
        return name_of(self.n)

    def pads(self, run: str, round: int, member: masks.Member, count: int) -> list[int]:
        """The pads of a site's plaintexts in a round, uniform below n and always the same.

        With its key of the run, as signed sets name it: a site that lost its memory has another one, and other pads.
        """
        key = masks.derived(self.pad_secret, statement("paillier-pad", run, round, *member))
        size = keys.modulus_bytes() + _EXCESS_BYTES
        # The stream comes in words of 8 bytes.
        content = masks.stream(key, -(-count * size // 8)).tobytes()
        return [int.from_bytes(content[at * size : (at + 1) * size], "little") % self.n for at in range(count)]


def seal(key: GroupKey, shared: bytes) -> bytes:
    """The key for whoever shares these 32 bytes; other bytes each time."""
    nonce = secrets.token_bytes(NONCE_BYTES)
    return nonce + AESGCM(shared).encrypt(nonce, key.to_bytes(), None)


def sealed_bytes() -> int:
    """The length of a sealed key."""
    return NONCE_BYTES + 2 * keys.factor_bytes() + SECRET_BYTES + _TAG_BYTES


def unseal(sealed: bytes, shared: bytes, n: int, *, where: str) -> GroupKey:
    """The key of modulus `n` that was sealed. Raises `UseOtherKeyError` for anything else."""
    try:
        content = AESGCM(shared).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], None)
    except (InvalidTag, ValueError):
        raise UseOtherKeyError(
            "the run's key does not open: it was sealed for another site or key, or changed on its way",
            where=where,
            remedy="Let a site that holds the key seal it again.",
        ) from None
    key = GroupKey.from_bytes(content, where=where)
    if key.n != n:
        raise UseOtherKeyError("the sealed key is not of the modulus that was told", where=where)
    return key
