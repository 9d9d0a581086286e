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

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response

from securead import codec
from securead.errors import FixInputError, RejectMessageError, SecureadError
from securead.observe import event
from securead.protocols import parcel as parcels
from securead.protocols import wire
from securead.serving.desk import Desk
from securead.serving.outbox import Outbox, Waiting, WrongTokenError
from securead.serving.turns import Turns

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
    streams = Turns()

    async def admit(key: str, right: str, request: Request) -> None:
        sent = request.headers.get("authorization", "")
        if not sent.lower().startswith(_BEARER) or len(sent) > _MOST_TOKEN:
            raise WrongTokenError("this needs a token", remedy=f"Give the {right} token that the key holder made.")
        await asyncio.to_thread(outbox.check, key, right, sent[len(_BEARER) :])

    @app.put("/v1/keys/{key}/mailbox")
    async def open_mailbox(key: str, request: Request) -> Response:
        async with desk.received(request, _OPENING_BYTES) as (body, _):
            opening = _read_opening(body)
        await asyncio.to_thread(outbox.open_mailbox, key, opening.deposit, opening.pickup)
        return Response(status_code=204)

    @app.post("/v1/models/{name}/keys/{key}/deposit")
    async def deposit(name: str, key: str, request: Request) -> Response:
        model = desk.model(name)
        await admit(key, "deposit", request)
        await asyncio.to_thread(outbox.refuse_full, key, max(p.max_answer_bytes for p in model.plans.values()))
        most = model.max_message_bytes + parcels.MAX_LABEL_BYTES + 64
        async with desk.received(request, most) as (body, limit):
            parcel = await asyncio.to_thread(_read_deposit, key, body, limit)
            # One of a stream at a time: a deposit that is repeated while it is worked on is found to be known.
            async with streams.turn((key, parcel.label.stream)):
                if await asyncio.to_thread(outbox.is_known, key, parcel.label, parcel.digest):
                    event("serving.deposit", model=model.name, repeated=True)
                    return Response(status_code=204)
                done = await desk.evaluate(model, parcel.message, limit, request)
                answer = parcels.to_bytes(parcel.label, done.answer.message)
                await asyncio.to_thread(outbox.put, key, model.name, parcel.label, parcel.digest, answer)
        event("serving.deposit", model=model.name, repeated=False, rows=done.answer.header.rows)
        desk.tell(model, len(body), done)
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


@dataclass(frozen=True)
class _Parcel:
    """A deposit that may be scored: its label, its request message, and SHA-256 of all of it."""

    label: parcels.Label
    message: bytes
    digest: bytes


def _read_deposit(key: str, body: bytes, limit: int) -> _Parcel:
    """In a thread: a parcel, if it is one that belongs into the mailbox."""
    label, view = parcels.from_bytes(body)
    message = bytes(view)
    header = wire.from_bytes(message, max_payload=limit).header
    if header.key != key or header.role != "split" or (header.chunk, header.chunks) != (0, 1):
        raise RejectMessageError(
            "a deposit is one request of a single chunk, for the mailbox's key, encrypted in role split",
            value=(header.role, header.chunk, header.chunks),
            remedy="Encrypt with the DIR/public that belongs to the mailbox.",
        )
    if header.rows != len(label.readings):
        raise RejectMessageError("a label has another number of rows than its message", value=header.rows)
    return _Parcel(label, message, hashlib.sha256(body).digest())


def _read_opening(body: bytes) -> Opening:
    try:
        return codec.from_plain(Opening, json.loads(body), where="mailbox")
    except (ValueError, RecursionError, SecureadError) as error:
        raise RejectMessageError(f"this opens no mailbox: {error}", remedy="Use `securead mailbox`.") from error


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise FixInputError("an answer's number is a whole number", value=text[:40])
    return int(text)
