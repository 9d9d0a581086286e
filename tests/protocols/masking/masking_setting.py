"""Sites of one process that mask for each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from securead.data.schema import Array
from securead.privacy.site import Kept
from securead.protocols.masking.identity import Identity, Known
from securead.protocols.masking.masker import Masker


class Sites:
    """Every site of one run, with its identity and its memory, which outlives its `Masker`."""

    def __init__(self, names: Sequence[str], *, run: str = "run", minimum: int = 2, attempts: int = 3) -> None:
        self.run, self.minimum, self.attempts = run, minimum, attempts
        self.identities = {name: Identity.generate(name) for name in names}
        self.memories = {name: Kept() for name in names}
        self.roster = Known({name: identity.credential for name, identity in self.identities.items()})
        self.maskers = {name: self.start(name) for name in names}
        self.adverts = {name: masker.advert() for name, masker in self.maskers.items()}

    def start(self, name: str) -> Masker:
        """A process of the site: with the same memory, the site that was killed."""
        return Masker(
            self.run,
            self.identities[name],
            self.roster,
            self.memories[name],
            minimum=self.minimum,
            attempts=self.attempts,
        )

    def agree(self, round: int, attempt: int, names: Sequence[str]) -> dict[str, bytes]:
        asked = [self.adverts[name] for name in names]
        return {name: self.maskers[name].agree(round, attempt, asked) for name in names}

    def masked(self, round: int, attempt: int, values: Mapping[str, Array]) -> dict[str, Array]:
        signatures = self.agree(round, attempt, list(values))
        return {name: self.maskers[name].mask(round, attempt, signatures, array) for name, array in values.items()}


def update(size: int, seed: int = 0) -> Array:
    """Small and repetitive, as updates are: nothing about it looks random."""
    return np.random.default_rng(seed).integers(-3, 4, size)
