"""What tests of the engine sharing have in common."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from securead.protocols.sharing.links import Identity

MEMBERS = ("dealer", "party0", "party1", "bank-a", "bank-b")


@dataclass(frozen=True)
class Deployment:
    """A directory as `securead certs` makes it."""

    directory: Path

    def identity(self, name: str) -> Identity:
        return Identity.load(self.directory / name)
