"""The HTTP service: what it offers, what it refuses and when.

    GET  /healthz                       whether it is alive
    GET  /v1/models                     names and digests
    GET  /v1/models/{name}              the public half of a model, JSON
    GET  /v1/models/{name}/keys/{key}   whether the service holds this key, JSON
    PUT  /v1/models/{name}/keys/{key}   one key envelope in: an owner's public key, for engines that need it (204)
    POST /v1/models/{name}/score        one request envelope in, one answer envelope out
    GET  /metrics                       counts, seconds and bytes for Prometheus
    ...  what `published` adds and, with an outbox, `mailboxes`

A refusal is JSON `{error, message, remedy}`, `error` being a class of `securead.errors`: 400 malformed, 403 when the
request's key has had as many rows as would rebuild the model and the operator refuses such keys, 404 unknown model, 409
made for another model or plan, 413 too large (decided by Content-Length before reading, and again while reading), 428
when the request's owner has to register its key first, 503 when the queue is full, with Retry-After from how long
answers have taken lately. Memory is bounded: at most `queue` messages are held beside the one that each worker
evaluates, of keys what `RegisteredKeys` allows, of what is made for their answers ahead of time what `IdleRefill` does,
of counts what `RowMeter` does.
"""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from securead import codec
from securead.errors import (
    PrivacyRefusedError,
    RegisterKeyError,
    RetryLaterError,
    SecureadError,
    UseOtherKeyError,
)
from securead.observe import event
from securead.serving.desk import Desk, UnknownModelError
from securead.serving.evaluation import OwnThread, TooLargeError, in_words
from securead.serving.loaded import LoadedModel, Offers
from securead.serving.mailboxes import add_mailboxes
from securead.serving.metering import RowMeter
from securead.serving.metrics import Metrics
from securead.serving.outbox import Outbox, WrongTokenError
from securead.serving.pool import WorkerPool
from securead.serving.processes import Processes
from securead.serving.published import add_published

_STATUS: tuple[tuple[type[SecureadError], int, str], ...] = (
    (TooLargeError, 413, "RejectMessageError"),
    (PrivacyRefusedError, 403, "PrivacyRefusedError"),
    (UnknownModelError, 404, "FixInputError"),
    (WrongTokenError, 403, "UseOtherKeyError"),
    (UseOtherKeyError, 409, "UseOtherKeyError"),
    (RegisterKeyError, 428, "RegisterKeyError"),
    (RetryLaterError, 503, "RetryLaterError"),
)


def build_app(
    models: Sequence[LoadedModel],
    *,
    queue: int = 8,
    max_body: int | None = None,
    refuse_extraction: bool = False,
    outbox: Outbox | None = None,
    processes: Processes | None = None,
) -> FastAPI:
    """The application for loaded models.

    `max_body`: a limit in bytes below the one that follows from the plans. `refuse_extraction`: refuse keys that were
    answered as many rows as a model can be rebuilt from, and not only count them (see `RowMeter`). `outbox`: answers
    are also kept for later pick-up (see `mailboxes`). `processes`: those that evaluate; without, a thread of this one
    does. `app.state.evaluation` is who evaluates, for whoever runs the application to start and to stop.
    """
    app = FastAPI(title="securead", docs_url=None, redoc_url=None, openapi_url=None)
    metrics = Metrics()
    meter = RowMeter(refuse=refuse_extraction)
    evaluation = (
        OwnThread(meter, metrics.refilled) if processes is None else WorkerPool(processes, models, meter, metrics)
    )
    desk = Desk(models, metrics, evaluation, queue=queue, max_body=max_body)
    app.state.evaluation = evaluation
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
        return JSONResponse({"held": evaluation.keys.holds(desk.model(name).name, key)})

    @app.put("/v1/models/{name}/keys/{key}")
    async def register(name: str, key: str, request: Request) -> Response:
        return await desk.register(desk.model(name), key, request)

    add_published(app, desk)
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
        message = in_words(error)
        headers = {"Retry-After": str(desk.retry_after)} if status == 503 else {}
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
