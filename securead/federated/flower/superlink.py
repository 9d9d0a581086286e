"""The coordinator's end of Flower: its Fleet API behind a gate, served from a thread of this process.

Flower's own parts: the Fleet routes, the authentication of nodes, the state of nodes, messages and objects (in memory;
what must outlive the process is the coordinator's checkpoint). Flower's Control and Runtime API are not there.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import threading
from collections.abc import Collection
from types import TracebackType
from typing import Any

import uvicorn
from fastapi import FastAPI
from flwr.app import Context, RecordDict
from flwr.common.constant import NOOP_FLWR_AID, SUPERLINK_NODE_ID, SubStatus
from flwr.server.superlink.linkstate import InMemoryLinkState
from flwr.serverapp import ServerApp
from flwr.supercore.constant import NOOP_FEDERATION_ID, TaskType
from flwr.supercore.error import http_error_translator
from flwr.supercore.object_store.in_memory_object_store import InMemoryObjectStore
from flwr.supercore.protobuf.translation import ProtobufTranslationMiddleware
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity
from flwr.superlink.federation import NoOpFederationManager
from flwr.superlink.routers.fleet.node_auth import NodeAuthMiddleware
from flwr.superlink.routers.fleet.router import router
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from uvicorn.protocols.http.h11_impl import H11Protocol

from securead.errors import FixConfigurationError, RetryLaterError
from securead.federated.flower.fleet import ROLE
from securead.federated.flower.gate import Caller, Gate
from securead.federated.flower.grid import LinkGrid
from securead.protocols.sharing.links import NAME, Identity

_START_SECONDS, _END_SECONDS, _HEARTBEAT_SECONDS = 30.0, 5.0, 10.0


class _State:
    """What Flower's dependencies ask for its state."""

    def __init__(self, state: InMemoryLinkState) -> None:
        self._state = state

    def state(self) -> InMemoryLinkState:
        return self._state


class Superlink:
    """Serves the sites of these names while the block lasts. `port` 0 lets the system choose."""

    def __init__(self, identity: Identity, sites: Collection[str], *, host: str = "127.0.0.1", port: int = 0) -> None:
        if identity.name != ROLE:
            raise FixConfigurationError(
                f"the coordinator's certificate is for the name {ROLE!r}",
                value=identity.name,
                remedy=f"Make it with: securead certs --name {ROLE}",
            )
        context = identity.server
        self.state = InMemoryLinkState(NoOpFederationManager(), InMemoryObjectStore())
        self._gate = Gate(_application(self.state), self.state, sites)
        self.grid = LinkGrid(self.state, self._gate)
        try:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            self._socket = socket.create_server((host, port), family=family, backlog=128)
        except OSError as error:
            raise FixConfigurationError(
                f"cannot listen at {host}:{port}: {str(error.strerror or error).partition(' (while')[0]}",
                remedy="Choose another --port (0 lets the system choose) or --host.",
            ) from error
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.address = f"[{host}]" if ":" in host else host
        self.address += f":{self._socket.getsockname()[1]}"
        config = uvicorn.Config(
            self._gate,
            http=functools.partial(_Connection, gate=self._gate),  # type: ignore[arg-type]
            loop="asyncio",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=120,
            timeout_graceful_shutdown=2,
        )
        config.load()
        config.ssl = context
        self._server = uvicorn.Server(config)
        self._ended = threading.Event()
        self._threads = (
            threading.Thread(target=self._serve, daemon=True),
            threading.Thread(target=self._keep_alive, daemon=True),
        )

    def __enter__(self) -> Superlink:
        started = threading.Event()
        startup = self._server.startup

        async def announced(sockets: list[socket.socket] | None = None) -> None:
            self._gate.loop = asyncio.get_running_loop()
            await startup(sockets)
            started.set()

        self._server.startup = announced  # type: ignore[method-assign]
        self.begin()
        for thread in self._threads:
            thread.start()
        if not started.wait(_START_SECONDS):
            raise RetryLaterError("the coordinator's server did not start", value=self.address)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._gate.close()
        self._ended.set()
        self._server.should_exit = True
        for thread in self._threads:
            thread.join(_END_SECONDS)
        self._socket.close()

    def begin(self) -> None:
        """Begin a run of Flower's: what messages belong to. Ours outlives it, and the process."""
        state = self.state
        run_id = state.create_run(
            "securead/federation", None, None, {}, NOOP_FEDERATION_ID, None, NOOP_FLWR_AID, TaskType.SERVER_APP
        )
        (run,) = state.get_run_info(run_ids=[run_id])
        self._task = int(run.primary_task_id or 0)
        if state.claim_task(self._task) is None or not state.activate_task(self._task):
            raise RuntimeError("Flower does not begin the run")
        TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = run_id, self._task, SUPERLINK_NODE_ID
        self._run: Run = run
        self.grid.set_run(run)

    def run(self, app: ServerApp) -> None:
        """Run the coordinator's app over the sites."""
        run_id = self._run.run_id
        app(self.grid, Context(run_id, SUPERLINK_NODE_ID, {}, RecordDict(), {}))
        self.state.finish_task(self._task, SubStatus.COMPLETED, "")

    def stay_alive(self) -> None:
        """Flower ends a run whose app says nothing for a minute, as a machine that slept does: then another begins."""
        if not self.state.acknowledge_task_heartbeat(self._task):
            self.begin()

    def _serve(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            self._server.run(sockets=[self._socket])

    def _keep_alive(self) -> None:
        while not self._ended.wait(_HEARTBEAT_SECONDS):
            self.stay_alive()


def _application(state: InMemoryLinkState) -> FastAPI:
    """Flower's application, the Fleet API alone; the order of its middleware is Flower's."""
    app = FastAPI(
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        middleware=[
            Middleware(BaseHTTPMiddleware, dispatch=http_error_translator),
            Middleware(ProtobufTranslationMiddleware),
            Middleware(NodeAuthMiddleware),
        ],
    )
    app.state.linkstate_factory = _State(state)
    app.state.enable_supernode_auth = True
    app.include_router(router)
    return app


class _Connection(H11Protocol):
    """A connection whose certificate says who asks; its requests have an application of their own."""

    def __init__(self, *arguments: Any, gate: Gate, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._gate = gate
        self._caller: Caller | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        names = (transport.get_extra_info("peercert") or {}).get("subjectAltName", ())
        if len(names) == 1 and names[0][0] == "DNS" and NAME.fullmatch(names[0][1]):
            self._caller = self.app = Caller(self._gate, names[0][1])

    def connection_lost(self, exc: Exception | None) -> None:
        if self._caller is not None:
            self._caller.hung_up()
        super().connection_lost(exc)
