"""The routes by which owners fetch what an engine publishes once for a model (see `setups`).

GET /v1/models/{name}/setup/{engine} says its SHA-256 and length, in JSON; .../setup/{engine}/{digest} has the bytes, or
a range of them (206).
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from securead import codec
from securead.serving.desk import Desk, UnknownModelError
from securead.serving.setups import PublishedSetup

_RANGE = re.compile(r"bytes=([0-9]{1,15})-([0-9]{0,15})")
_OCTETS = "application/octet-stream"
_AT_ONCE = 64 << 10


def add_published(app: FastAPI, desk: Desk) -> None:
    """Add the routes to an application."""
    offers = {
        (model.name, engine): (PublishedSetup(made.digest, len(made.published)), made.published)
        for model in desk.models.values()
        for engine, made in model.setups.items()
    }

    def published(name: str, engine: str) -> tuple[PublishedSetup, bytes]:
        model = desk.model(name)
        if (model.name, engine) not in offers:
            raise UnknownModelError(
                f"nothing is published of the model {model.name!r} for this engine",
                value=engine[:64],
                remedy="Served by: " + ", ".join(dict.fromkeys(each for each, _ in model.plans)) + ".",
            )
        return offers[model.name, engine]

    @app.get("/v1/models/{name}/setup/{engine}")
    async def offered(name: str, engine: str) -> JSONResponse:
        return JSONResponse(codec.to_plain(published(name, engine)[0]))

    @app.get("/v1/models/{name}/setup/{engine}/{digest}")
    async def content(name: str, engine: str, digest: str, request: Request) -> Response:
        offer, whole = published(name, engine)
        if digest != offer.digest:
            raise UnknownModelError(
                "this is not what is published now", value=digest[:64], remedy="Fetch it again: `securead keygen`."
            )
        return _ranged(whole, request.headers.get("range"))


def _ranged(whole: bytes, asked: str | None) -> Response:
    """All of it, or the one range that was asked for; RFC 9110 lets a server overlook ranges of other forms."""
    found = _RANGE.fullmatch(asked or "")
    headers = {"Accept-Ranges": "bytes"}
    if found is None:
        return _streamed(whole, 0, len(whole), 200, headers)
    first, last = int(found[1]), min(int(found[2] or len(whole)), len(whole) - 1)
    if first > last:
        return Response(status_code=416, headers={**headers, "Content-Range": f"bytes */{len(whole)}"})
    headers["Content-Range"] = f"bytes {first}-{last}/{len(whole)}"
    return _streamed(whole, first, last + 1, 206, headers)


def _streamed(whole: bytes, start: int, stop: int, status: int, headers: dict[str, str]) -> Response:
    """Piece by piece as it is read: who asks and does not read would else hold a copy of it in the memory here."""

    async def pieces() -> AsyncIterator[bytes]:
        for at in range(start, stop, _AT_ONCE):
            yield whole[at : min(at + _AT_ONCE, stop)]

    headers = {**headers, "Content-Length": str(stop - start)}
    return StreamingResponse(pieces(), status, media_type=_OCTETS, headers=headers)
