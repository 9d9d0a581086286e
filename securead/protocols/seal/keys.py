"""Keys as owners hold them, for the engines on SEAL: bytes with a name, and which of a pair may do what."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

from securead.errors import UseOtherKeyError
from securead.protocols.engine import Plan
from securead.protocols.seal.keyfiles import OTHER_KEY, KeyFiles, same_plan


@dataclass(frozen=True)
class StoredKey:
    """One half of a pair. `key_id` is SHA-256 over plan and public key, so that a public key cannot be exchanged."""

    files: ClassVar[KeyFiles]
    kind: ClassVar[Literal["secret", "public"]]
    plan_digest: str
    key_id: str
    _content: bytes = field(repr=False)

    def to_bytes(self) -> bytes:
        """The key as a file's content: of a secret key, a secret; of a public key none, but whoever can exchange it
        reads what it encrypts.
        """
        return self.files.write(self.kind, self.plan_digest, self.key_id, self._content)


def check_encrypts(plan: Plan, key: object) -> None:
    """Raise `UseOtherKeyError` unless it is the plan's secret key in role `same`, its public key in role `split`."""
    kind = "secret" if plan.role == "same" else "public"
    _check(plan, key, kind, f"role {plan.role!r} encrypts with a {kind} key")


def check_decrypts(plan: Plan, key: object) -> None:
    """Raise `UseOtherKeyError` unless it is the plan's secret key."""
    _check(plan, key, "secret", "only a secret key decrypts")


def _check(plan: Plan, key: object, kind: str, otherwise: str) -> None:
    if not isinstance(key, StoredKey) or key.kind != kind:
        raise UseOtherKeyError(otherwise, value=type(key).__name__, remedy=OTHER_KEY)
    same_plan(plan.digest, key.plan_digest)
