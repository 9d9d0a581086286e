"""How a caller follows work that takes time: two calls, both optional to heed."""

from __future__ import annotations

from typing import Protocol


class Watch(Protocol):
    """Told what is done and what is awaited. Called from the working thread: return quickly."""

    def rows(self, phase: str, done: int, total: int) -> None:
        """`done` of `total` records have passed `phase` ("encrypt", "submit", "decrypt" or "score"; bytes, "fetch")."""

    def waiting(self, what: str) -> None:
        """The service cannot be reached or is busy; `what` says so in one sentence, and until when we try."""


class Silent:
    """Heeds nothing."""

    def rows(self, phase: str, done: int, total: int) -> None:
        """Ignore progress."""

    def waiting(self, what: str) -> None:
        """Ignore waits."""
