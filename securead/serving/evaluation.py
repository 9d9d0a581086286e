"""What becomes of one message, whichever process does it; and the service that does it in a thread of its own.

`Evaluation` is what the HTTP side knows of whoever evaluates. `OwnThread` is one worker: a thread of this process.
`pool.WorkerPool` is several: processes. Both take the same steps, `read_key` and `answer`, in the same order.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from securead.errors import RejectMessageError, SecureadError
from securead.protocols import registry, wire
from securead.protocols.engine import EvaluationKey, Plan
from securead.serving.loaded import LoadedModel
from securead.serving.metering import Metered, RowMeter
from securead.serving.refilling import IdleRefill
from securead.serving.registered import RegisteredKeys

# Raises when whoever sent a message is no longer there to be answered.
Wanted = Callable[[], Awaitable[None]]
# Told a request's header and plan before anything is computed: gives the owner's key, or raises.
Gate = Callable[[wire.Header, Plan], EvaluationKey | None]


class TooLargeError(RejectMessageError):
    """A message beyond the limit: HTTP 413."""


@dataclass(frozen=True)
class Answer:
    """An answer message, its request's header, and the CPU seconds of the evaluation."""

    message: bytes
    header: wire.Header
    seconds: float


@dataclass(frozen=True)
class Evaluated:
    """An answer, what its key was counted for it, and the seconds for which it kept a worker busy."""

    answer: Answer
    metered: Metered
    busy_seconds: float


class Evaluation(Protocol):
    """Whoever evaluates messages, `workers` at a time; the others wait, first come, first served.

    Used from one event loop, from `start` (inside it) to `stop` (when it has ended); what is not started evaluates all
    the same, but makes nothing ahead of its use.
    """

    @property
    def workers(self) -> int: ...
    @property
    def keys(self) -> RegisteredKeys:
        """What is held of owners' keys, whatever it is that is held of each."""

    async def start(self) -> None: ...
    def stop(self) -> None: ...
    def held_off(self) -> AbstractContextManager[None]:
        """Inside this block a message is received, waits or is evaluated: nothing is made ahead of its use."""

    async def score(self, model: LoadedModel, message: bytes, limit: int, wanted: Wanted) -> Evaluated:
        """The answer to a request message, checked and counted."""

    async def register(self, model: LoadedModel, key_id: str, message: bytes, limit: int, wanted: Wanted) -> None:
        """Hold the key of a message, if it is sound and the one that was announced."""


class OwnThread:
    """One worker: a thread of this process, because SEAL's calls hold the interpreter, and two would share one core."""

    workers = 1

    def __init__(self, meter: RowMeter, made: Callable[[float], None]) -> None:
        self.keys = RegisteredKeys()
        self._meter, self._refill = meter, IdleRefill(self.keys, made)
        self._turn = asyncio.Semaphore(1)

    async def start(self) -> None:
        """From now on idle time makes masks."""
        self._refill.__enter__()

    def stop(self) -> None:
        """From now on it makes none."""
        self._refill.__exit__()

    def held_off(self) -> AbstractContextManager[None]:
        """Inside this block nothing is made ahead of its use."""
        return self._refill.held_off()

    async def score(self, model: LoadedModel, message: bytes, limit: int, wanted: Wanted) -> Evaluated:
        """The answer to a request message, checked and counted."""
        async with self._turn:
            await wanted()
            return await asyncio.to_thread(self._score, model, message, limit)

    async def register(self, model: LoadedModel, key_id: str, message: bytes, limit: int, wanted: Wanted) -> None:
        """Hold the key of a message, if it is sound and the one that was announced."""
        async with self._turn:
            await wanted()
            plan, key = await asyncio.to_thread(read_key, model, key_id, message, limit)
            self.keys.put(model.name, plan, key)

    def _score(self, model: LoadedModel, message: bytes, limit: int) -> Evaluated:
        start = time.monotonic()
        done = answer(model, message, limit, partial(self._admit, model))
        plan, program = model.plan(done.header), model.public.program
        metered = self._meter.answered(model.name, program, plan, done.header.key, done.header.rows)
        return Evaluated(done, metered, time.monotonic() - start)

    def _admit(self, model: LoadedModel, header: wire.Header, plan: Plan) -> EvaluationKey | None:
        key = self.keys.get(model.name, plan, header.key) if plan.evaluation_key_bytes else None
        self._meter.admit(model.name, model.public.program, plan, header.key)
        return key


def answer(model: LoadedModel, message: bytes | memoryview, limit: int, gate: Gate) -> Answer:
    """The answer to a request message. `gate` is asked when all that can be told from the header is right."""
    request = wire.from_bytes(message, max_payload=limit)
    header = request.header
    if header.kind != "request":
        raise RejectMessageError(
            f"this is of kind {header.kind!r}, not a request", remedy="Send what `securead encrypt` wrote."
        )
    plan = model.plan(header)
    if header.rows > plan.rows_per_chunk:
        raise RejectMessageError(
            "the request claims more rows than a chunk can hold",
            value=header.rows,
            remedy=f"Send at most {plan.rows_per_chunk} rows a chunk.",
        )
    key = gate(header, plan)
    evaluator = model.evaluator(plan)
    start = time.thread_time()
    payload = evaluator.evaluate(request.payload, key, rows=header.rows)
    seconds = time.thread_time() - start
    return Answer(wire.Envelope(replace(header, kind="answer"), payload).to_bytes(), header, seconds)


def read_key(
    model: LoadedModel,
    key_id: str,
    message: bytes | memoryview,
    limit: int,
    begin: Callable[[wire.Header], None] | None = None,
) -> tuple[Plan, EvaluationKey]:
    """The key of a message and the plan that it is for. `begin` is told the header before the engine sees the key."""
    sent = wire.from_bytes(message, max_payload=limit)
    if sent.header.kind != "key":
        raise RejectMessageError(
            f"this is of kind {sent.header.kind!r}, not a key", remedy="Send requests to /v1/models/NAME/score."
        )
    if sent.header.key != key_id:
        raise _misnamed(sent.header.key)
    plan = model.plan(sent.header)
    if not plan.evaluation_key_bytes:
        raise RejectMessageError("this engine takes no key in this role", remedy="Send requests only.")
    if len(sent.payload) > plan.evaluation_key_bytes:
        raise too_large(plan.evaluation_key_bytes)
    if begin is not None:
        begin(sent.header)
    key = registry.blind_module(plan.engine).read_evaluation_key(plan, sent.payload)
    if key.key_id != key_id:
        raise _misnamed(key.key_id)
    return plan, key


def too_large(limit: int) -> TooLargeError:
    """The refusal of what is larger than `limit` bytes."""
    return TooLargeError(
        f"the message is larger than the {limit} bytes that this service takes",
        remedy="Send one chunk a message, encrypted with keys for this model.",
    )


def in_words(error: SecureadError) -> str:
    """What an error says without its remedy, which travels in a field of its own."""
    return str(SecureadError(error.what, where=error.where, value=error.value))


def _misnamed(key_id: str) -> RejectMessageError:
    return RejectMessageError(
        "this is another key than the one that is announced",
        value=key_id,
        remedy="Send the public.key of the directory that the request was encrypted with.",
    )
