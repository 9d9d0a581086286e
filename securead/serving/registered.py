"""The owners' public keys that a service has been sent: in memory only, the least recently used forgotten first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from securead.errors import RegisterKeyError
from securead.protocols.engine import EvaluationKey, Plan

MAX_KEYS = 1024
MAX_BYTES = 256 << 20
UNPACKED = 5  # a BFV key, its half that need not travel included, takes 4.4 times its message's bytes in memory


@dataclass(frozen=True)
class _Held:
    key: EvaluationKey
    size: int


def bytes_in_memory(plan: Plan) -> int:
    """What a key takes once it is read: what its plan tells by `held_key_bytes`, else `UNPACKED` times its message."""
    return int(getattr(plan, "held_key_bytes", UNPACKED * plan.evaluation_key_bytes))


class RegisteredKeys:
    """Evaluation keys by model, plan and key id; safe to use from several threads.

    Holds at most `max_keys` keys and `max_bytes` bytes, each key counted as what `weigh` says of its plan; beyond that
    the key that was not used for the longest time goes. The newest is kept whatever it weighs, so the request it was
    sent for can be answered. A restart loses them all: owners' clients send them again by themselves.
    """

    def __init__(
        self, *, max_keys: int = MAX_KEYS, max_bytes: int = MAX_BYTES, weigh: Callable[[Plan], int] = bytes_in_memory
    ) -> None:
        self._max_keys, self._max_bytes, self._weigh = max_keys, max_bytes, weigh
        self._held: OrderedDict[tuple[str, str, str], _Held] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._held)

    def holds(self, model: str, key_id: str) -> bool:
        """Whether there is a key of that name for the model, in any plan: a key's name tells its plan."""
        with self._lock:
            return any((held[0], held[2]) == (model, key_id) for held in self._held)

    def put(self, model: str, plan: Plan, key: EvaluationKey) -> None:
        """Hold a key for a model and a plan; the same key again changes nothing but its turn to go."""
        name, new = (model, plan.digest, key.key_id), _Held(key, self._weigh(plan))
        with self._lock:
            if name in self._held:  # and keeps what it has made for its answers
                self._held.move_to_end(name)
                return
            self._held[name] = new
            self._bytes += new.size
            while len(self._held) > 1 and (len(self._held) > self._max_keys or self._bytes > self._max_bytes):
                self._drop(next(iter(self._held)))

    def get(self, model: str, plan: Plan, key_id: str) -> EvaluationKey:
        """The key of that name, or `RegisterKeyError`."""
        name = (model, plan.digest, key_id)
        with self._lock:
            if name not in self._held:
                raise RegisterKeyError(
                    "the service does not hold this key",
                    value=key_id,
                    remedy="Send DIR/public/public.key again: `securead submit` does it by itself.",
                )
            self._held.move_to_end(name)
            return self._held[name].key

    def recent(self) -> list[EvaluationKey]:
        """All keys, the one that was used last first. What a key holds for its answers is forgotten with it."""
        with self._lock:
            return [held.key for held in reversed(self._held.values())]

    def _drop(self, name: tuple[str, str, str]) -> None:
        if name in self._held:
            self._bytes -= self._held.pop(name).size
