"""Where messages are received: a bounded number of them, each within its limits, and each counted when answered."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import AsyncIterator, Sequence

from fastapi import Request
from fastapi.responses import Response
from starlette.requests import ClientDisconnect

from securead.errors import FixInputError, RejectMessageError, RetryLaterError
from securead.observe import event
from securead.serving.evaluation import Evaluated, Evaluation, too_large
from securead.serving.loaded import LoadedModel
from securead.serving.metering import rows_that_rebuild
from securead.serving.metrics import Metrics

# To the millisecond: a finer clock of ours would help whoever looks for weights in how long crafted queries take.
SECONDS_HEADER = "X-Securead-Seconds"
_LEAST_RETRY_SECONDS, _MOST_RETRY_SECONDS = 1, 60
_NEWEST_WEIGHS = 0.2  # in the running mean of how long an answer keeps a worker busy
_IDLE_SECONDS = 30.0  # a sender that is silent this long loses its place in the queue,
_LEAST_BYTES_PER_SECOND = 8 << 10  # and so does one that keeps its place by a byte now and then
_OCTETS = "application/octet-stream"
_SMALL_BYTES = 1 << 16


class UnknownModelError(FixInputError):
    """No model of that name: HTTP 404."""


class Desk:
    """Where messages wait: as many are worked on as there are workers, at most `queue` more are held, the next is
    turned away.
    """

    def __init__(
        self,
        models: Sequence[LoadedModel],
        metrics: Metrics,
        evaluation: Evaluation,
        *,
        queue: int,
        max_body: int | None,
    ) -> None:
        self.models = {model.name: model for model in models}
        self.metrics, self.evaluation = metrics, evaluation
        self._places, self._max_body = queue + evaluation.workers, max_body
        self._inside, self._busy_seconds = 0, 0.0

    def model(self, name: str) -> LoadedModel:
        """The model of that name, or an error that lists those there are."""
        try:
            return self.models[name]
        except KeyError:
            raise UnknownModelError(
                "no model has this name", value=name[:64], remedy="Offered: " + ", ".join(self.models) + "."
            ) from None

    @property
    def retry_after(self) -> int:
        """Whole seconds until those who are inside now have been answered, as answers took lately: 1 to 60."""
        seconds = math.ceil(self._busy_seconds * self._inside / self.evaluation.workers)
        return min(max(seconds, _LEAST_RETRY_SECONDS), _MOST_RETRY_SECONDS)

    async def score(self, model: LoadedModel, request: Request) -> Response:
        """Read, check, evaluate and answer one message."""
        async with self.received(request, model.max_message_bytes) as (message, limit):
            done = await self.evaluate(model, message, limit, request)
        self.tell(model, len(message), done)
        headers = {SECONDS_HEADER: f"{done.answer.seconds:.3f}"}
        return Response(done.answer.message, media_type=_OCTETS, headers=headers)

    async def evaluate(self, model: LoadedModel, message: bytes, limit: int, request: Request) -> Evaluated:
        """The answer to a request message that was received, checked and counted by its key."""
        done = await self.evaluation.score(model, message, limit, lambda: _refuse_gone(request))
        before = self._busy_seconds or done.busy_seconds
        self._busy_seconds = before + _NEWEST_WEIGHS * (done.busy_seconds - before)
        return done

    def tell(self, model: LoadedModel, size: int, done: Evaluated) -> None:
        """Count and log one answer to a message of so many bytes."""
        header, seconds, metered = done.answer.header, done.answer.seconds, done.metered
        self.metrics.scored(
            model.name, rows=header.rows, metered=metered, seconds=seconds, read=size, sent=len(done.answer.message)
        )
        event("serving.score", model=model.name, rows=header.rows, chunk=header.chunk, cpu_seconds=round(seconds, 6))
        if metered.reached:
            published = rows_that_rebuild(model.public.program, model.plan(header))
            event("serving.extraction", model=model.name, key=header.key, rows=metered.total, published=published)

    async def register(self, model: LoadedModel, key_id: str, request: Request) -> Response:
        """Read, check and hold one owner's public key."""
        if not model.max_key_bytes:
            raise RejectMessageError("no engine of this model takes a key", remedy="Send requests only.")
        async with self.received(request, model.max_key_bytes) as (message, limit):
            await self.evaluation.register(model, key_id, message, limit, lambda: _refuse_gone(request))
        self.metrics.registered(model.name)
        self.metrics.keys_held.set(len(self.evaluation.keys))
        event("serving.register", model=model.name, held=len(self.evaluation.keys))
        return Response(status_code=204)

    @contextlib.asynccontextmanager
    async def received(self, request: Request, most: int) -> AsyncIterator[tuple[bytes, int]]:
        """A message and the limit that it kept, `most` bytes or less; it has its place while the block lasts."""
        limit = min(most, self._max_body or most)
        refuse_by_length(request, limit)
        if self._inside >= self._places:
            raise RetryLaterError("the queue is full", remedy="Send the same message again in a moment.")
        self._inside += 1
        self.metrics.queue.set(self._inside)
        try:
            with self.evaluation.held_off():
                yield await read_body(request, limit), limit
        finally:
            self._inside -= 1
            self.metrics.queue.set(self._inside)


async def _refuse_gone(request: Request) -> None:
    if await request.is_disconnected():
        raise ClientDisconnect


def refuse_by_length(request: Request, limit: int) -> None:
    """Raise before a byte of the body is read when its declared length is beyond the limit, or no number."""
    declared = request.headers.get("content-length")
    if declared is None:
        return
    if not (declared.isascii() and declared.isdigit()):
        raise RejectMessageError(
            "Content-Length is no number",
            value=declared[:20],
            remedy="Use an HTTP client that sends well-formed calls.",
        )
    if len(declared) > 18 or int(declared) > limit:
        raise too_large(limit)


async def read_body(request: Request, limit: int) -> bytes:
    """The body, of at most `limit` bytes; more is refused as soon as it arrives."""
    body, size = list[bytes | bytearray](), 0
    parts, start = request.stream().__aiter__(), time.monotonic()
    while True:
        left = start + _IDLE_SECONDS + size / _LEAST_BYTES_PER_SECOND - time.monotonic()
        try:
            async with asyncio.timeout(min(left, _IDLE_SECONDS)):
                part = await anext(parts)
        except StopAsyncIteration:
            return b"".join(body)
        except TimeoutError:
            raise RejectMessageError(
                f"nothing arrived for {_IDLE_SECONDS:g} s, or less than {_LEAST_BYTES_PER_SECOND:,} bytes a second",
                remedy="Send the message again, over a faster connection.",
            ) from None
        size += len(part)
        if size > limit:
            raise too_large(limit)
        # Small parts together: one by one they would take many times their size.
        if len(part) < _SMALL_BYTES and body and isinstance(body[-1], bytearray) and len(body[-1]) < _SMALL_BYTES:
            body[-1] += part
        else:
            body.append(bytearray(part) if len(part) < _SMALL_BYTES else part)
