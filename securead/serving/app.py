"""The HTTP service: what it offers, what it refuses and when.

    GET  /healthz                       whether it is alive
    GET  /v1/models                     names and digests
    GET  /v1/models/{name}              the public half of a model, JSON
    GET  /v1/models/{name}/keys/{key}   whether the service holds this key, JSON
    PUT  /v1/models/{name}/keys/{key}   one key envelope in: an owner's public key, for engines that need it (204)
    POST /v1/models/{name}/score        one request envelope in, one answer envelope out
    GET  /metrics                       counts, seconds and bytes for Prometheus
    ...  with an outbox, what `mailboxes` adds

A refusal is JSON `{error, message, remedy}`, `error` being a class of `securead.errors`: 400 malformed, 403 when the
request's key has had as many rows as would rebuild the model and the operator refuses such keys, 404 unknown model, 409
made for another model or plan, 413 too large (decided by Content-Length before reading, and again while reading), 428
when the request's owner has to register its key first, 503 with Retry-After when the queue is full. Memory is bounded:
at most `queue` + 1 messages are held, of keys what `RegisteredKeys` allows, of what is made for their answers ahead of
time what `IdleRefill` does, of counts what `RowMeter` does.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from securead import codec
from securead.errors import (
    FixInputError,
    PrivacyRefusedError,
    RegisterKeyError,
    RejectMessageError,
    RetryLaterError,
    SecureadError,
    UseOtherKeyError,
)
from securead.observe import event
from securead.protocols import registry, wire
from securead.serving.loaded import LoadedModel, Offers
from securead.serving.mailboxes import add_mailboxes
from securead.serving.metering import Metered, RowMeter
from securead.serving.metrics import Metrics
from securead.serving.outbox import Outbox, WrongTokenError
from securead.serving.refilling import IdleRefill
from securead.serving.registered import RegisteredKeys

# To the millisecond: a finer clock of ours would help whoever looks for weights in how long crafted queries take.
SECONDS_HEADER = "X-Securead-Seconds"
RETRY_AFTER_SECONDS = 1
_IDLE_SECONDS = 30.0  # a sender that is silent this long loses its place in the queue,
_LEAST_BYTES_PER_SECOND = 8 << 10  # and so does one that keeps its place by a byte now and then
_OCTETS = "application/octet-stream"
T = TypeVar("T")


class _TooLargeError(RejectMessageError):
    """A body beyond the limit: HTTP 413."""


class _UnknownModelError(FixInputError):
    """No model of that name: HTTP 404."""


_STATUS: tuple[tuple[type[SecureadError], int, str], ...] = (
    (_TooLargeError, 413, "RejectMessageError"),
    (PrivacyRefusedError, 403, "PrivacyRefusedError"),
    (_UnknownModelError, 404, "FixInputError"),
    (WrongTokenError, 403, "UseOtherKeyError"),
    (UseOtherKeyError, 409, "UseOtherKeyError"),
    (RegisterKeyError, 428, "RegisterKeyError"),
    (RetryLaterError, 503, "RetryLaterError"),
)


class Desk:
    """Where messages wait: one is worked on at a time, at most `queue` more are held, the next is turned away.

    One at a time because SEAL's calls hold the interpreter: more threads would only share one core.
    """

    def __init__(
        self, models: Sequence[LoadedModel], metrics: Metrics, meter: RowMeter, *, queue: int, max_body: int | None
    ) -> None:
        self.models = {model.name: model for model in models}
        self.metrics, self.meter, self.keys = metrics, meter, RegisteredKeys()
        self.refill = IdleRefill(self.keys, metrics.refilled)
        self._queue, self._max_body = queue, max_body
        self._inside = 0
        self._turn = asyncio.Semaphore(1)

    def model(self, name: str) -> LoadedModel:
        """The model of that name, or an error that lists those there are."""
        try:
            return self.models[name]
        except KeyError:
            raise _UnknownModelError(
                "no model has this name", value=name[:64], remedy="Offered: " + ", ".join(self.models) + "."
            ) from None

    async def score(self, model: LoadedModel, request: Request) -> Response:
        """Read, check, evaluate and answer one message."""
        work = partial(_evaluate, model, self.keys, self.meter)
        size, done = await self.in_turn(request, model.max_message_bytes, work)
        self.tell(model, size, done)
        return Response(done.message, media_type=_OCTETS, headers={SECONDS_HEADER: f"{done.seconds:.3f}"})

    def evaluate(self, model: LoadedModel, request: wire.Envelope) -> Evaluated:
        """In a worker thread: the answer to a request message."""
        return _answer(model, self.keys, self.meter, request)

    def tell(self, model: LoadedModel, size: int, done: Evaluated) -> None:
        """Count and log one answer to a message of so many bytes."""
        header, seconds, metered = done.header, done.seconds, done.metered
        self.metrics.scored(
            model.name, rows=header.rows, metered=metered, seconds=seconds, read=size, sent=len(done.message)
        )
        event("serving.score", model=model.name, rows=header.rows, chunk=header.chunk, cpu_seconds=round(seconds, 6))
        if metered.reached:
            published = model.public.program.honest_extraction_rows
            event("serving.extraction", model=model.name, key=header.key, rows=metered.total, published=published)

    async def register(self, model: LoadedModel, key_id: str, request: Request) -> Response:
        """Read, check and hold one owner's public key."""
        if not model.max_key_bytes:
            raise RejectMessageError("no engine of this model takes a key", remedy="Send requests only.")
        work = partial(_register, model, self.keys, key_id)
        await self.in_turn(request, model.max_key_bytes, work)
        self.metrics.registered(model.name)
        self.metrics.keys_held.set(len(self.keys))
        event("serving.register", model=model.name, held=len(self.keys))
        return Response(status_code=204)

    async def in_turn(self, request: Request, most: int, work: Callable[[bytes, int], T]) -> tuple[int, T]:
        """Read a message of at most `most` bytes, wait for its turn, have a thread do `work`: its size, the result."""
        limit = min(most, self._max_body or most)
        refuse_by_length(request, limit)
        if self._inside > self._queue:
            raise RetryLaterError("the queue is full", remedy="Send the same message again in a moment.")
        self._inside += 1
        self.metrics.queue.set(self._inside)
        try:
            with self.refill.held_off():
                message = await read_body(request, limit)
                async with self._turn:
                    if await request.is_disconnected():
                        raise ClientDisconnect
                    return len(message), await asyncio.to_thread(work, message, limit)
        finally:
            self._inside -= 1
            self.metrics.queue.set(self._inside)


def build_app(
    models: Sequence[LoadedModel],
    *,
    queue: int = 8,
    max_body: int | None = None,
    refuse_extraction: bool = False,
    outbox: Outbox | None = None,
) -> FastAPI:
    """The application for loaded models.

    `max_body`: a limit in bytes below the one that follows from the plans. `refuse_extraction`: refuse keys that were
    answered as many rows as a model can be rebuilt from, and not only count them (see `RowMeter`). While the block
    `with app.state.refill` lasts, idle time makes masks ahead of their use. `outbox`: answers are also kept for later
    pick-up (see `mailboxes`).
    """
    app = FastAPI(title="securead", docs_url=None, redoc_url=None, openapi_url=None)
    metrics = Metrics()
    desk = Desk(models, metrics, RowMeter(refuse=refuse_extraction), queue=queue, max_body=max_body)
    app.state.refill = desk.refill
    offers = codec.to_plain(Offers(tuple(model.offer for model in models)))
    publics = {model.name: codec.to_plain(model.public) for model in models}

    @app.get("/healthz")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/v1/models")
    async def list_models() -> JSONResponse:
        return JSONResponse(offers)

    @app.get("/v1/models/{name}")
    async def public_half(name: str) -> JSONResponse:
        return JSONResponse(publics[desk.model(name).name])

    @app.post("/v1/models/{name}/score")
    async def score(name: str, request: Request) -> Response:
        return await desk.score(desk.model(name), request)

    @app.get("/v1/models/{name}/keys/{key}")
    async def held(name: str, key: str) -> JSONResponse:
        return JSONResponse({"held": desk.keys.holds(desk.model(name).name, key)})

    @app.put("/v1/models/{name}/keys/{key}")
    async def register(name: str, key: str, request: Request) -> Response:
        return await desk.register(desk.model(name), key, request)

    if outbox is not None:
        add_mailboxes(app, desk, outbox)

    @app.get("/metrics")
    async def scrape() -> Response:
        return Response(metrics.exposition(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.exception_handler(SecureadError)
    async def refuse(request: Request, error: SecureadError) -> JSONResponse:
        status, name = next(
            ((status, name) for kind, status, name in _STATUS if isinstance(error, kind)), (400, type(error).__name__)
        )
        metrics.refused(status)
        event("serving.refused", status=status, error=name)
        message = str(_without_remedy(error))
        headers = {"Retry-After": str(RETRY_AFTER_SECONDS)} if status == 503 else {}
        # The rest of a body that was not read cannot be told from a next request.
        headers |= {"Connection": "close"} if request.method in ("POST", "PUT") else {}
        content = {"error": name, "message": message, "remedy": error.remedy}
        return JSONResponse(content, status_code=status, headers=headers)

    @app.exception_handler(HTTPException)
    async def refuse_path(request: Request, error: HTTPException) -> JSONResponse:
        metrics.refused(error.status_code)
        content = {"error": "FixInputError", "message": str(error.detail), "remedy": "See GET /v1/models."}
        return JSONResponse(content, status_code=error.status_code, headers=error.headers)

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, error: ClientDisconnect) -> Response:
        metrics.refused(499)
        return Response(status_code=400)

    @app.exception_handler(Exception)
    async def bug(request: Request, error: Exception) -> JSONResponse:
        metrics.refused(500)
        event("serving.bug", error=type(error).__name__)
        content = {"error": "InternalError", "message": "the service met a bug", "remedy": "Tell its operator."}
        return JSONResponse(content, status_code=500)

    return app


def _without_remedy(error: SecureadError) -> SecureadError:
    """The error without its remedy, which travels in a field of its own."""
    return SecureadError(error.what, where=error.where, value=error.value)


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
        raise _too_large(limit)


async def read_body(request: Request, limit: int) -> bytes:
    """The body, of at most `limit` bytes; more is refused as soon as it arrives."""
    body = bytearray()
    parts, start = request.stream().__aiter__(), time.monotonic()
    while True:
        left = start + _IDLE_SECONDS + len(body) / _LEAST_BYTES_PER_SECOND - time.monotonic()
        try:
            body += await asyncio.wait_for(anext(parts), min(left, _IDLE_SECONDS))
        except StopAsyncIteration:
            return bytes(body)
        except TimeoutError:
            raise RejectMessageError(
                f"nothing arrived for {_IDLE_SECONDS:g} s, or less than {_LEAST_BYTES_PER_SECOND:,} bytes a second",
                remedy="Send the message again, over a faster connection.",
            ) from None
        if len(body) > limit:
            raise _too_large(limit)


def _too_large(limit: int) -> _TooLargeError:
    return _TooLargeError(
        f"the message is larger than the {limit} bytes that this service takes",
        remedy="Send one chunk a message, encrypted with keys for this model.",
    )


def _register(model: LoadedModel, keys: RegisteredKeys, key_id: str, message: bytes, limit: int) -> None:
    """In a worker thread: hold the key of a message, if it is sound and the one that was announced."""
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
        raise _too_large(plan.evaluation_key_bytes)
    key = registry.blind_module(plan.engine).read_evaluation_key(plan, sent.payload)
    if key.key_id != key_id:
        raise _misnamed(key.key_id)
    keys.put(model.name, plan, key)


def _misnamed(key_id: str) -> RejectMessageError:
    return RejectMessageError(
        "this is another key than the one that is announced",
        value=key_id,
        remedy="Send the public.key of the directory that the request was encrypted with.",
    )


@dataclass(frozen=True)
class Evaluated:
    """An answer message, its request's header, the CPU seconds of the evaluation and what the key was counted."""

    message: bytes
    header: wire.Header
    seconds: float
    metered: Metered


def _evaluate(model: LoadedModel, keys: RegisteredKeys, meter: RowMeter, message: bytes, limit: int) -> Evaluated:
    """In a worker thread: answer a message."""
    return _answer(model, keys, meter, wire.from_bytes(message, max_payload=limit))


def _answer(model: LoadedModel, keys: RegisteredKeys, meter: RowMeter, request: wire.Envelope) -> Evaluated:
    """The answer to a request message, checked and counted."""
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
    key = keys.get(model.name, plan, header.key) if plan.evaluation_key_bytes else None
    program = model.public.program
    meter.admit(model.name, program, header.key)
    evaluator = model.evaluator(plan)
    start = time.thread_time()
    payload = evaluator.evaluate(request.payload, key, rows=header.rows)
    seconds = time.thread_time() - start
    metered = meter.answered(model.name, program, plan, header.key, header.rows)
    return Evaluated(wire.Envelope(replace(header, kind="answer"), payload).to_bytes(), header, seconds, metered)
