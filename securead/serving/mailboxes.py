"""The routes of a service that keeps answers for later pick-up (`securead serve --outbox FILE`).

    PUT    /v1/keys/{key}/mailbox                open a key's mailbox, JSON: SHA-256 of both tokens (204)
    POST   /v1/models/{name}/keys/{key}/deposit  one parcel in: scored, and its answer kept (204)    deposit token
    GET    /v1/keys/{key}/answers?after=NUMBER   what waits, JSON                                    pick-up token
    GET    /v1/keys/{key}/answers/{number}       one parcel out                                      pick-up token
    DELETE /v1/keys/{key}/answers/{number}       acknowledge it: it is deleted (204)                 pick-up token

Tokens travel as `Authorization: Bearer`. A deposit is confirmed when its answer is on disk; repeated, it is confirmed
again and nothing else happens. A token is looked at before a byte of a body is read.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from securead import codec
from securead.errors import FixInputError, RejectMessageError, SecureadError
from securead.observe import event
from securead.protocols import parcel as parcels
from securead.protocols import wire
from securead.serving.loaded import LoadedModel
from securead.serving.outbox import Outbox, Waiting, WrongTokenError

if TYPE_CHECKING:
    from securead.serving.app import Desk, Evaluated

_BEARER, _MOST_TOKEN = "bearer ", 256
_OPENING_BYTES = 4096
_OCTETS = "application/octet-stream"


@dataclass(frozen=True)
class Opening:
    """What opens a mailbox: SHA-256 of its two tokens, hex."""

    deposit: str
    pickup: str


@dataclass(frozen=True)
class WaitingAnswers:
    """The reply to the question what waits."""

    answers: tuple[Waiting, ...]


def add_mailboxes(app: FastAPI, desk: Desk, outbox: Outbox) -> None:
    """Add the routes to an application."""

    async def admit(key: str, right: str, request: Request) -> None:
        sent = request.headers.get("authorization", "")
        if not sent.lower().startswith(_BEARER) or len(sent) > _MOST_TOKEN:
            raise WrongTokenError("this needs a token", remedy=f"Give the {right} token that the key holder made.")
        await asyncio.to_thread(outbox.check, key, right, sent[len(_BEARER) :])

    @app.put("/v1/keys/{key}/mailbox")
    async def open_mailbox(key: str, request: Request) -> Response:
        _, opening = await desk.in_turn(request, _OPENING_BYTES, _read_opening)
        await asyncio.to_thread(outbox.open_mailbox, key, opening.deposit, opening.pickup)
        return Response(status_code=204)

    @app.post("/v1/models/{name}/keys/{key}/deposit")
    async def deposit(name: str, key: str, request: Request) -> Response:
        model = desk.model(name)
        await admit(key, "deposit", request)
        await asyncio.to_thread(outbox.refuse_full, key, max(p.max_answer_bytes for p in model.plans.values()))
        most = model.max_message_bytes + parcels.MAX_LABEL_BYTES + 64
        size, done = await desk.in_turn(request, most, partial(_deposit, desk, outbox, model, key))
        if done is not None:
            desk.tell(model, size, done)
        return Response(status_code=204)

    @app.get("/v1/keys/{key}/answers")
    async def waiting(key: str, request: Request) -> JSONResponse:
        await admit(key, "pickup", request)
        after = _number(request.query_params.get("after", "0"))
        found = await asyncio.to_thread(outbox.waiting, key, after)
        return JSONResponse(codec.to_plain(WaitingAnswers(found)))

    @app.get("/v1/keys/{key}/answers/{number}")
    async def fetch(key: str, number: str, request: Request) -> Response:
        await admit(key, "pickup", request)
        return Response(await asyncio.to_thread(outbox.get, key, _number(number)), media_type=_OCTETS)

    @app.delete("/v1/keys/{key}/answers/{number}")
    async def acknowledge(key: str, number: str, request: Request) -> Response:
        await admit(key, "pickup", request)
        await asyncio.to_thread(outbox.acknowledge, key, _number(number))
        return Response(status_code=204)


def _deposit(desk: Desk, outbox: Outbox, model: LoadedModel, key: str, body: bytes, limit: int) -> Evaluated | None:
    """In a worker thread, one at a time: score a parcel and keep the answer; None for one that was kept before."""
    label, message = parcels.from_bytes(body)
    request = wire.from_bytes(bytes(message), max_payload=limit)
    header = request.header
    if header.key != key or header.role != "split" or (header.chunk, header.chunks) != (0, 1):
        raise RejectMessageError(
            "a deposit is one request of a single chunk, for the mailbox's key, encrypted in role split",
            value=(header.role, header.chunk, header.chunks),
            remedy="Encrypt with the DIR/public that belongs to the mailbox.",
        )
    if header.rows != len(label.readings):
        raise RejectMessageError("a label has another number of rows than its message", value=header.rows)
    digest = hashlib.sha256(body).digest()
    if outbox.is_known(key, label, digest):
        event("serving.deposit", model=model.name, repeated=True)
        return None
    done = desk.evaluate(model, request)
    outbox.put(key, model.name, label, digest, parcels.to_bytes(label, done.message))
    event("serving.deposit", model=model.name, repeated=False, rows=header.rows)
    return done


def _read_opening(body: bytes, limit: int) -> Opening:
    try:
        return codec.from_plain(Opening, json.loads(body), where="mailbox")
    except (ValueError, RecursionError, SecureadError) as error:
        raise RejectMessageError(f"this opens no mailbox: {error}", remedy="Use `securead mailbox`.") from error


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise FixInputError("an answer's number is a whole number", value=text[:40])
    return int(text)
