"""How many rows each key was answered, beside the number from which a model can be rebuilt.

Honest scores give a model away, whatever the engine: a program states how many (`honest_extraction_rows`), and some
plans state fewer for queries that are made up (`crafted_rows`). Counting shows who comes near. It does not stop
anybody: keys are free to make, so whoever wants more rows takes a new key. That needs accounts, which are for the
network in front of the service.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

from securead.errors import PrivacyRefusedError
from securead.program.program import PublicProgram
from securead.protocols import registry
from securead.protocols.engine import Plan

MAX_KEYS = 1 << 16


def metered_rows(plan: Plan, rows: int) -> int:
    """How many scores the answer to a message of `rows` rows yields to its key holder, at the most."""
    return plan.rows_per_chunk if registry.spec(plan.engine).whole_chunks else rows


def rows_that_rebuild(program: PublicProgram, plan: Plan) -> int:
    """How many metered rows rebuild a model: honest ones, or those of queries made up for it where that is fewer.

    A plan that knows the latter has the property `crafted_rows`.
    """
    honest = program.honest_extraction_rows
    return min(honest, int(getattr(plan, "crafted_rows", honest)))


@dataclass(frozen=True)
class Metered:
    """One answer's count: its `rows`, the key's `total`, and whether this answer reached the published number."""

    rows: int
    total: int
    reached: bool


class RowMeter:
    """Rows answered by model and key; safe to use from several threads.

    Of at most `max_keys` keys, the one that was not answered for the longest time is forgotten first, and a restart
    forgets all. A message that is sent again counts again. With `refuse`, a key that was answered as many rows as the
    model's number is refused; the answer that reaches the number is still given, because one chunk may exceed it.
    """

    def __init__(self, *, refuse: bool = False, max_keys: int = MAX_KEYS) -> None:
        self.refuses, self._max_keys = refuse, max_keys
        self._totals: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._totals)

    def admit(self, model: str, program: PublicProgram, plan: Plan, key_id: str) -> None:
        """Raise `PrivacyRefusedError`, before any work, for a key that has had its rows, where such are refused."""
        if not self.refuses:
            return
        with self._lock:
            total = self._totals.get((model, key_id), 0)
        limit = rows_that_rebuild(program, plan)
        if total >= limit:
            raise PrivacyRefusedError(
                f"this key was answered {total:,} rows, from {limit:,} of which the model {model!r} can be rebuilt",
                remedy="Agree with the service's operator on more.",
            )

    def answered(self, model: str, program: PublicProgram, plan: Plan, key_id: str, rows: int) -> Metered:
        """Count one answer to a message of `rows` rows."""
        more, name = metered_rows(plan, rows), (model, key_id)
        with self._lock:
            before = self._totals.pop(name, 0)
            self._totals[name] = before + more
            while len(self._totals) > self._max_keys:
                self._totals.popitem(last=False)
        published = rows_that_rebuild(program, plan)
        return Metered(more, before + more, before < published <= before + more)
