"""Who may ask the coordinator's Fleet API for what, and who is there: in front of Flower's own application.

Of Flower's HTTP interface only what a site needs passes: to activate its node, to fetch and to push messages, to say
that it is alive. There is no way to start a run, to fetch an app or to register a node. Every request comes over mutual
TLS 1.3, and its connection's certificate names the site; that site's node is known by a key made for one process, which
Flower verifies in every request and which this gate binds to the certificate's name. One node per name: a second is
refused while the first is there.

A site is there as long as one of its connections is open and not silent for long: a process that died is missed at
once, and one that computes for an hour is not. A request for messages is held until there is one.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from base64 import b64decode
from collections.abc import Collection
from dataclasses import dataclass, field

from flwr.common.constant import NOOP_FLWR_AID
from flwr.proto.fleet_pb2 import ActivateNodeRequest
from flwr.server.superlink.linkstate import InMemoryLinkState
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, NodeStatus
from google.protobuf.message import DecodeError
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from securead.federated.flower.fleet import (
    CLOSING,
    ELSEWHERE,
    HELD,
    MAX_REQUEST_BYTES,
    REPLACED,
    STRANGER,
    TAKEN,
    TOO_LARGE,
)
from securead.observe import event

FLEET = "/v1/fleet/"
ACTIVATE, DEACTIVATE, PULL = "activate-node", "deactivate-node", "pull-messages"
PASSES = {ACTIVATE, DEACTIVATE, PULL} | {
    "send-node-heartbeat",
    "confirm-message-received",
    "push-messages",
    "pull-object",
    "push-object",
}
GRACE = 3.0  # seconds without a connection after which a site is gone: one may break and come back
SILENCE = 60.0  # seconds without a request after which a machine is gone that could not even hang up


@dataclass(eq=False)
class _Seat:
    """One site's node: its key and id, its open connections, when it was last heard, and how often it came back."""

    name: str
    node: int
    key: bytes
    callers: set[Caller] = field(default_factory=set)
    heard: float = field(default_factory=time.monotonic)
    returns: int = 0
    message: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def taken(self) -> bool:
        """Whether its process is there, as far as connections tell."""
        return bool(self.callers) and time.monotonic() - self.heard < SILENCE


class Gate:
    """Guards `inner`, Flower's application over `state`, for the sites of these names.

    `present`, `wake` and `close` are for other threads than the server's.
    """

    def __init__(self, inner: ASGIApp, state: InMemoryLinkState, sites: Collection[str]) -> None:
        self._inner, self._state, self._sites = inner, state, frozenset(sites)
        self._seats: dict[str, _Seat] = {}
        self._lock = threading.RLock()
        self._closing = False
        self.loop: asyncio.AbstractEventLoop | None = None

    def present(self) -> dict[int, tuple[str, int]]:
        """The nodes that are there: the site that each is, and how often its process came back to it."""
        now = time.monotonic()
        with self._lock:
            return {
                seat.node: (seat.name, seat.returns)
                for seat in self._seats.values()
                if (seat.taken or now - seat.heard < GRACE) and self._state.nodes[seat.node].last_activated_at
            }

    def wake(self, nodes: Collection[int]) -> None:
        """Tell these nodes' held requests that there is a message."""
        with self._lock:
            seats = [seat for seat in self._seats.values() if seat.node in nodes]
        if self.loop is not None and not self.loop.is_closed():
            for seat in seats:
                self.loop.call_soon_threadsafe(seat.message.set)

    def close(self) -> None:
        """Let go what is held, and refuse everything from now on."""
        self._closing = True
        self.wake({seat.node for seat in list(self._seats.values())})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Nobody comes here without a name: every connection has a `Caller`."""
        await _refuse(send, STRANGER, "no certificate")

    async def serve(self, caller: Caller, scope: Scope, receive: Receive, send: Send) -> None:
        """One request of a caller."""
        path, name = str(scope["path"]), caller.name
        action = path.removeprefix(FLEET)
        headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]}
        length = headers.get("content-length", "")
        refusal = None
        if scope["method"] != "POST" or path != FLEET + action or action not in PASSES:
            refusal = ELSEWHERE, "there is no such thing here"
        elif name not in self._sites:
            refusal = STRANGER, f"{name!r} is not one of the recipe's sites"
        elif not length.isdecimal() or int(length) > MAX_REQUEST_BYTES:
            refusal = TOO_LARGE, "the message is too large, or of unknown length"
        elif self._closing:
            refusal = CLOSING, "the coordinator is ending"
        if refusal is not None:
            return await _refuse(send, *refusal)
        body = await _read(receive)
        if body is None:
            return None
        seat = self._activated(name, body) if action == ACTIVATE else self._known(name, headers)
        if seat is None and action == ACTIVATE:
            return await _refuse(send, TAKEN, f"another process takes part as {name!r}")
        if seat is None:
            return await _refuse(send, REPLACED, f"this process does not, or no longer, take part as {name!r}")
        with self._lock:
            caller.seat, seat.heard = seat, time.monotonic()
            seat.callers.add(caller)
        if action == PULL and await self._hung_up_while_held(seat, receive):
            return None
        await self._inner(scope, _once(body, receive), send)
        if action == DEACTIVATE:
            self.left(caller, seat)
        return None

    def left(self, caller: Caller, good_bye_of: _Seat | None = None) -> None:
        """A connection ended; or its site said good-bye, and is gone without grace."""
        with self._lock:
            seat = caller.seat
            if good_bye_of is not None and seat is good_bye_of:
                seat.callers.clear()
                seat.heard = -GRACE
            elif seat is not None and caller in seat.callers:
                seat.callers.discard(caller)
                seat.heard = time.monotonic()

    def _known(self, name: str, headers: dict[str, str]) -> _Seat | None:
        try:
            key = b64decode(headers.get(FLEET_HTTP_PUBLIC_KEY_HEADER.lower(), ""), validate=True)
        except ValueError:
            return None
        seat = self._seats.get(name)
        return seat if seat is not None and seat.key == key else None

    def _activated(self, name: str, body: bytes) -> _Seat | None:
        """The seat for a process that activates its node, or None where another one has it and is there."""
        try:
            key = ActivateNodeRequest.FromString(body).public_key
        except DecodeError:
            key = b""  # Flower refuses it
        with self._lock:
            seat = self._seats.get(name)
            if seat is not None and seat.key == key:  # the same process, whose connection broke
                with self._state.lock:  # Flower activates only who is not active
                    self._state.nodes[seat.node].status = NodeStatus.OFFLINE
                seat.returns += 1
                return seat
            if seat is not None and seat.taken:
                return None
            if seat is not None:
                self._state.activate_node(seat.node, HELD)  # only who was active once can be deleted
                self._state.delete_node(NOOP_FLWR_AID, seat.node)
            node = self._state.create_node(NOOP_FLWR_AID, name, key, 0)
            seat = self._seats[name] = _Seat(name, node, key)
        event("federation.node", site=name, node=str(node))
        return seat

    async def _hung_up_while_held(self, seat: _Seat, receive: Receive) -> bool:
        """Wait until there is a message, or for as long as a request is held; whether the caller hung up."""
        seat.message.clear()
        if self._closing or self._has_message(seat.node):
            return False
        loop = asyncio.get_running_loop()
        hung_up, message = loop.create_task(_disconnected(receive)), loop.create_task(_set(seat.message))
        await asyncio.wait({hung_up, message}, timeout=HELD, return_when=asyncio.FIRST_COMPLETED)
        ended = hung_up.done()
        hung_up.cancel()
        message.cancel()
        return ended

    def _has_message(self, node: int) -> bool:
        state = self._state
        with state.lock:
            messages = [message.metadata for message in state.message_ins_store.values()]
        return any(each.dst_node_id == node and not each.delivered_at for each in messages)


class Caller:
    """One connection, of the site that its certificate names: an ASGI application of its own."""

    def __init__(self, gate: Gate, name: str) -> None:
        self.gate, self.name = gate, name
        self.seat: _Seat | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] == "http":
            await self.gate.serve(self, scope, receive, send)

    def hung_up(self) -> None:
        """The connection ended."""
        self.gate.left(self)


def _once(body: bytes, receive: Receive) -> Receive:
    """A body that was read already, for the application behind."""
    left = [body]

    async def again() -> Message:
        return {"type": "http.request", "body": left.pop(), "more_body": False} if left else await receive()

    return again


async def _read(receive: Receive) -> bytes | None:
    """A request's body, whose length was announced; None where the connection ended before."""
    parts = []
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _set(flag: asyncio.Event) -> None:
    await flag.wait()


async def _refuse(send: Send, status: int, text: str) -> None:
    content = json.dumps({"detail": text}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
