"""The side that has records: encrypt, submit, decrypt; or share among two parties. Needs no torch, numba, sklearn.

The names below are loaded when they are first used: who submits needs no parties, who encrypts no HTTP.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOMES = {
    "Client": "securead.client.scoring",
    "Keys": "securead.client.keys",
    "Parties": "securead.client.parties",
    "Scores": "securead.client.results",
    "Service": "securead.client.service",
    "Sharing": "securead.client.sharing",
    "load_keys": "securead.client.keys",
    "make_keys": "securead.client.keys",
    "open_sharing": "securead.client.sharing",
}

if TYPE_CHECKING:
    from securead.client.keys import Keys as Keys
    from securead.client.keys import load_keys as load_keys
    from securead.client.keys import make_keys as make_keys
    from securead.client.parties import Parties as Parties
    from securead.client.results import Scores as Scores
    from securead.client.scoring import Client as Client
    from securead.client.service import Service as Service
    from securead.client.sharing import Sharing as Sharing
    from securead.client.sharing import open_sharing as open_sharing

__all__ = ["Client", "Keys", "Parties", "Scores", "Service", "Sharing", "load_keys", "make_keys", "open_sharing"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'securead.client' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
