"""Lookup and masking."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from asking_engine import keys
from asking_engine.keys import PublicKey
from asking_engine.plan import AskingPlan
from securead.errors import RejectMessageError
from securead.program.program import Program

# Instead of the random bytes that a request begins with.
DEADLY, WAITING, SLEEPY = b"end this process", b"wait for a file.", b"never come back."


def behave(start: bytes) -> None:
    """As the first bytes of a request say. Who waits says so in a file, and waits for another."""
    if start == DEADLY:
        os.kill(os.getpid(), signal.SIGKILL)
    if start == WAITING:
        place = Path(os.environ["ASKING_PLACE"])
        (place / f"evaluating-{os.getpid()}").touch()
        deadline = time.monotonic() + 30
        while not (place / "go").exists() and time.monotonic() < deadline:
            time.sleep(0.005)
    if start == SLEEPY:
        time.sleep(60)


@dataclass(frozen=True)
class Evaluator:
    plan: AskingPlan
    tables: tuple[np.ndarray, ...]

    def evaluate(self, request: bytes, key: PublicKey | None = None, *, rows: int | None = None) -> bytes:
        assert key is not None, "the service evaluates without the key that the plan asks for"
        assert key.plan_digest == self.plan.digest
        if len(request) < 16 or (len(request) - 16) % (8 * len(self.tables)):
            raise RejectMessageError("not a request")
        behave(request[:16])
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
