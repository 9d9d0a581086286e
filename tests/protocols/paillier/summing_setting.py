"""Sites of one process that encrypt for each other, under keys small enough for a test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from securead.data.schema import Array
from securead.privacy.site import Kept
from securead.protocols.masking.identity import Identity, Known
from securead.protocols.masking.masker import Masker
from securead.protocols.paillier.summing import Summing
from securead.protocols.paillier.sums import Adder

BITS = 512
"""Of a test's keys: the test sets `keys.KEY_BITS` to it."""


class Summers:
    """Every site of one run, with its identity and its memory, which outlives its `Summing`."""

    def __init__(self, names: Sequence[str], *, run: str = "run") -> None:
        self.run, self.names = run, tuple(names)
        self.identities = {name: Identity.generate(name) for name in names}
        self.memories = {name: Kept() for name in names}
        self.roster = Known({name: identity.credential for name, identity in self.identities.items()})
        self.maskers: dict[str, Masker] = {}
        self.sites = {name: self.start(name) for name in names}
        self.adverts = {name: masker.advert() for name, masker in self.maskers.items()}

    def start(self, name: str) -> Summing:
        """A process of the site: with the same memory, the site that was killed."""
        memory = self.memories[name]
        masker = Masker(self.run, self.identities[name], self.roster, memory, minimum=2, attempts=3)
        self.maskers[name] = masker
        return Summing(self.run, masker, memory, sites=len(self.names))

    def share(self, giver: str | None = None) -> None:
        """Let the giver hand the run's key to all others."""
        giver = giver or self.names[0]
        others = [name for name in self.names if name != giver]
        sealed = self.sites[giver].hand_on([self.adverts[name] for name in others])
        for name, content in zip(others, sealed, strict=True):
            self.sites[name].take(self.adverts[giver], self.modulus, content)

    @property
    def modulus(self) -> bytes:
        """Of whoever holds a key."""
        return next(site for site in self.sites.values() if site.key_name).modulus.tobytes()

    @property
    def n(self) -> int:
        return int.from_bytes(self.modulus, "little")

    def agree(self, round: int, attempt: int, names: Sequence[str]) -> dict[str, bytes]:
        asked = [self.adverts[name] for name in names]
        return {name: self.maskers[name].agree(round, attempt, asked) for name in names}

    def send(
        self, round: int, attempt: int, values: Mapping[str, Array], bits: int
    ) -> tuple[dict[str, Array], dict[str, bytes]]:
        """Everyone's message of an attempt, and the signatures on its set."""
        signatures = self.agree(round, attempt, list(values))
        messages = {
            name: self.sites[name].message(round, attempt, signatures, array, bits) for name, array in values.items()
        }
        return messages, signatures

    def product(self, messages: Mapping[str, Array]) -> Array:
        """What the coordinator makes of messages."""
        adder = Adder(self.n)
        for name, message in messages.items():
            adder.add(name, message)
        return adder.total(list(messages))


def update(size: int, seed: int, bits: int = 16) -> Array:
    """Values of so many bits."""
    return np.random.default_rng(seed).integers(-(2 ** (bits - 1)), 2 ** (bits - 1), size)
