"""Published tables: what a service makes once, and what an owner checks before it trusts its positions to it.

Guarantee: after `read`, gcd(n, phi(n)) = 1 but for 2**-160 and every entry is a unit modulo n**2, whoever made them;
so a blinded product of entries tells nothing of which they are (the protocol's SPEC.md, sections 3 and 5).
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from typing import Any

from securead.errors import RejectMessageError, UseOtherKeyError
from securead.protocols.paillier import moduli
from securead.protocols.paillier.keys import PrivateKey, check_modulus
from securead.protocols.paillier.messages import SETUP_MAGIC
from securead.protocols.paillier.plan import HEAD_BYTES, NAME_BYTES, ROOTS, PaillierPlan
from securead.protocols.paillier.powers import powers, spread, whole
from securead.protocols.seal.pool import Pool
from securead.protocols.setup import Progress


class Published:
    """The modulus and the entries' ciphertexts, and the random factors made ahead for requests. One a process."""

    def __init__(self, name: bytes, n: int, entries: list[Any]) -> None:
        self.name, self.n, self.entries = name, whole(n), entries
        self.square = self.n * self.n
        self.factors: Pool[Any] = Pool(self._factor, 2 * (n.bit_length() // 8))

    def _factor(self) -> Any:
        """rho**n modulo n**2 for a uniform unit rho: it must be uniform, as who knows n's factors sees any subgroup."""
        return powers([moduli.random_unit(int(self.n))], self.n, self.square)[0]


def make(plan: PaillierPlan, key: PrivateKey, values: Sequence[int], progress: Progress | None) -> bytes:
    """The publication of entries `values`; threads share the work, and `progress(done, of)` is told how far it is."""
    n, square, size = whole(key.n), whole(key.n * key.n), 2 * plan.residue_bytes
    parts = [SETUP_MAGIC, bytes.fromhex(plan.digest), moduli.shown(plan.digest, key)]

    def encrypted(piece: Sequence[int]) -> list[bytes]:
        factors = key.nth_powers([moduli.random_unit(key.n) for _ in piece])
        return [
            int((1 + value * n) * factor % square).to_bytes(size, "little")
            for value, factor in zip(piece, factors, strict=True)
        ]

    done = 0
    for piece in spread(encrypted, values):
        parts += piece
        done += len(piece)
        if progress is not None:
            progress(done, len(values))
    return b"".join(parts)


@functools.lru_cache(maxsize=4)
def read(plan: PaillierPlan, content: bytes) -> Published:
    """A publication, checked; `RejectMessageError` for an unsound one, `UseOtherKeyError` for another program's."""
    if len(content) != plan.setup_bytes or not content.startswith(SETUP_MAGIC):
        raise RejectMessageError(
            f"these are no published tables of {plan.setup_bytes} bytes",
            value=len(content),
            remedy="Fetch them again: `securead keygen` does.",
        )
    at, size = HEAD_BYTES + NAME_BYTES, plan.residue_bytes
    if content[HEAD_BYTES:at].hex() != plan.digest:
        raise UseOtherKeyError(
            "the tables were published for another program or release", remedy="Fetch this model's: `securead keygen`."
        )
    numbers = [int.from_bytes(content[start : start + size], "little") for start in range(at, len(content), size)]
    n, roots = check_modulus(numbers[0], where="published tables"), numbers[1 : 1 + ROOTS]
    start = at + (1 + ROOTS) * size
    entries = [
        whole(int.from_bytes(content[place : place + 2 * size], "little"))
        for place in range(start, len(content), 2 * size)
    ]
    moduli.check_permutation(plan.digest, n, roots)
    moduli.check_units(n, entries, "a published entry")
    return Published(hashlib.sha256(content).digest(), n, entries)
