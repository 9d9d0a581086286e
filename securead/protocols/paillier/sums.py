"""The coordinator's half of packed sums: ciphertexts are numbers of Z*_{n^2}, and sums of plaintexts their products.

Guarantee: what is added is one message of every participant and no other, each a ciphertext under this modulus and the
same whenever its site is asked. It needs no key, no phe and no secret.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np

from securead.data.schema import Array
from securead.errors import RejectMessageError
from securead.protocols.paillier import keys


def to_array(ciphertexts: Sequence[int]) -> Array:
    """Ciphertexts as they travel: uint8 `(count, bytes of a ciphertext)`, little-endian."""
    size = keys.ciphertext_bytes()
    content = b"".join(ciphertext.to_bytes(size, "little") for ciphertext in ciphertexts)
    return np.frombuffer(content, dtype=np.uint8).reshape(-1, size)


def from_array(array: Array, n: int, *, where: str) -> list[int]:
    """The ciphertexts of `to_array`. Raises `RejectMessageError` for another form, or a number outside Z*_{n^2}."""
    if array.dtype != np.uint8 or array.ndim != 2 or array.shape[1] != keys.ciphertext_bytes() or not len(array):
        raise RejectMessageError(
            f"these are no ciphertexts of {keys.ciphertext_bytes()} bytes",
            where=where,
            value=f"{array.dtype} {array.shape}",
            remedy="Use the same version of securead everywhere.",
        )
    return [keys.check_ciphertext(int.from_bytes(row.tobytes(), "little"), n, where=where) for row in array]


def digest(message: Array) -> str:
    """What tells two messages apart."""
    return hashlib.sha256(repr(message.shape).encode() + message.tobytes()).hexdigest()


class Adder:
    """One round's messages under the modulus `n`; `sent` are digests of messages that came before, by site."""

    def __init__(self, n: int, sent: Mapping[str, str] | None = None) -> None:
        self._n = n
        self._ciphertexts: dict[str, list[int]] = {}
        self.sent = dict(sent or {})
        """The digest of every site's message, so that a resumed coordinator knows it again."""

    def add(self, site: str, message: Array) -> None:
        """Take a site's message. Raises `RejectMessageError` for what is none, or another than the site sent before."""
        found = digest(message)
        if self.sent.get(site, found) != found:
            raise RejectMessageError(
                f"site {site!r} sent two differing updates in one round",
                remedy="A site's message is made once and kept: two processes of one site are running, or it lies.",
            )
        self._ciphertexts[site] = from_array(message, self._n, where=f"site {site!r}")
        self.sent[site] = found

    def total(self, participants: Sequence[str]) -> Array:
        """Encryptions of the sums over `participants`, as `to_array` gives them.

        Raises `RejectMessageError` unless each of them, two at least, has sent equally many ciphertexts.
        """
        names = list(participants)
        missing = sorted(set(names) - set(self._ciphertexts))
        if len(set(names)) != len(names) or len(names) < 2 or missing:
            raise RejectMessageError(
                "a packed sum needs one message of every participant, two at least",
                value=f"participants {sorted(names)}, missing {missing}",
                remedy="Begin the next attempt with those who answered.",
            )
        lengths = {name: len(self._ciphertexts[name]) for name in names}
        if len(set(lengths.values())) != 1:
            raise RejectMessageError("sites sent different numbers of ciphertexts", value=lengths)
        products = [1] * len(self._ciphertexts[names[0]])
        for name in names:
            pairs = zip(products, self._ciphertexts[name], strict=True)
            products = [product * factor % (self._n * self._n) for product, factor in pairs]
        return to_array(products)
