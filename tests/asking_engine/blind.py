"""Lookup and masking."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from asking_engine import keys
from asking_engine.keys import PublicKey
from asking_engine.plan import AskingPlan
from securead.errors import RejectMessageError
from securead.program.program import Program


@dataclass(frozen=True)
class Evaluator:
    plan: AskingPlan
    tables: tuple[np.ndarray, ...]

    def evaluate(self, request: bytes, key: PublicKey | None = None, *, rows: int | None = None) -> bytes:
        assert key is not None, "the service evaluates without the key that the plan asks for"
        assert key.plan_digest == self.plan.digest
        if len(request) < 16 or (len(request) - 16) % (8 * len(self.tables)):
            raise RejectMessageError("not a request")
        index = np.frombuffer(request[16:], dtype="<i8").reshape(-1, len(self.tables))
        if index.min() < 0 or (index >= [len(t) for t in self.tables]).any():
            raise RejectMessageError("a position beyond its table")
        scores = sum(table[index[:, t]] for t, table in enumerate(self.tables)).astype("<u8")
        nonce = os.urandom(16)
        return nonce + (scores + key.mask(nonce, len(index))).astype("<u8").tobytes()


def make_evaluator(plan: AskingPlan, program: Program) -> Evaluator:
    return Evaluator(plan, program.secret.tables)


def read_evaluation_key(plan: AskingPlan, content: bytes) -> PublicKey:
    return keys.read(plan, content)
