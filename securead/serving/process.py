"""The service as a process: `run` is one, `serve` starts one and ends it."""

from __future__ import annotations

import contextlib
import ipaddress
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from securead.errors import FixConfigurationError, InstallExtraError, RetryLaterError
from securead.models.bundle import Bundle
from securead.observe import event

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI

    from securead.serving.loaded import LoadedModel

URL_PREFIX = "securead serves at "
DRAIN_SECONDS = 20  # how long requests in work may take to finish at shutdown
_START_SECONDS, _END_SECONDS = 120.0, 30.0


@dataclass(frozen=True)
class Address:
    """Where to listen, and with which certificate. `port` 0 lets the system choose.

    Raises `FixConfigurationError` unless the service speaks TLS or is reachable from this machine only and says so.
    """

    host: str = "127.0.0.1"
    port: int = 0
    tls_cert: Path | None = None
    tls_key: Path | None = None
    no_tls: bool = False

    def __post_init__(self) -> None:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise FixConfigurationError(
                "a certificate and its key go together", remedy="Give both --tls-cert and --tls-key."
            )
        if self.no_tls and self.tls_cert is not None:
            raise FixConfigurationError("--no-tls contradicts --tls-cert", remedy="Leave one of them out.")
        if not self.no_tls and self.tls_cert is None:
            raise FixConfigurationError(
                "a service needs a certificate", remedy="Give --tls-cert and --tls-key, or --no-tls on 127.0.0.1."
            )
        if self.no_tls and not _is_loopback(self.host):
            raise FixConfigurationError(
                "--no-tls is for addresses of this machine only",
                value=self.host,
                remedy="Use --host 127.0.0.1, or give --tls-cert and --tls-key.",
            )
        if not 0 <= self.port <= 65535:
            raise FixConfigurationError("a port is 0 to 65535", value=self.port, remedy="0 lets the system choose.")

    def listen(self) -> socket.socket:
        """A listening socket."""
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        try:
            listening = socket.create_server((self.host, self.port), family=family, backlog=128)
            # Connections inherit it, and asyncio leaves theirs alone: without it, kept ones answer 40 ms late.
            listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return listening
        except OSError as error:
            raise FixConfigurationError(
                f"cannot listen at {self.host}:{self.port}: {_reason(error)}",
                remedy="Choose another --port (0 lets the system choose) or --host.",
            ) from error

    def url(self, listening: socket.socket) -> str:
        """The address that clients use."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'http' if self.no_tls else 'https'}://{host}:{listening.getsockname()[1]}"


def run(
    sources: Iterable[Bundle | Path | str],
    address: Address,
    *,
    passphrase: str | None = None,
    queue: int = 8,
    max_body: int | None = None,
    refuse_extraction: bool = False,
    outbox: Path | None = None,
    workers: int = 1,
    engines: Sequence[str] | None = None,
    announce: Callable[[str, Sequence[LoadedModel]], None],
    until_stdin_closes: bool = False,
) -> None:
    """Serve until SIGTERM or SIGINT; requests in work are finished first.

    `outbox`: the file in which answers wait for later pick-up. `workers`: how many messages are evaluated at a time;
    with 1, by a thread of this process, with more, by so many processes, of which one that ends is replaced and loses
    no request. `engines`: offer the models by these only. `announce` is called with the service's URL and models once
    it accepts connections. With `until_stdin_closes` the service also ends when its standard input does, and so
    never outlives the process that started it.
    """
    from securead.serving.processes import Processes

    if workers < 1:
        raise FixConfigurationError("a service needs a worker", value=workers, remedy="Give --workers 1 or more.")
    # First of all, so that they start while this process still imports what it needs.
    with Processes(workers) if workers > 1 else contextlib.nullcontext() as processes:
        try:
            import uvicorn

            from securead.serving.app import build_app
        except ImportError as error:
            raise InstallExtraError(
                f"serving needs a package that is not installed: {error.name}",
                remedy="Run: pip install 'securead[serve]'.",
            ) from error
        from securead.serving.loaded import load
        from securead.serving.outbox import Outbox

        models = load(sources, passphrase=passphrase, engines=engines)
        app = build_app(
            models,
            queue=queue,
            max_body=max_body,
            refuse_extraction=refuse_extraction,
            outbox=None if outbox is None else Outbox(outbox),
            processes=processes,
        )
        config = uvicorn.Config(
            app,
            http="h11",
            loop="asyncio",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=DRAIN_SECONDS,
            ssl_certfile=address.tls_cert,
            ssl_keyfile=address.tls_key,
        )
        _serve(config, app, address, lambda url: announce(url, models), until_stdin_closes=until_stdin_closes)
    event("serving.end")


def _serve(
    config: uvicorn.Config,
    app: FastAPI,
    address: Address,
    announce: Callable[[str], None],
    *,
    until_stdin_closes: bool,
) -> None:
    """Listen, and serve until told to end."""
    import uvicorn

    try:
        config.load()
    except OSError as error:  # ssl.SSLError is one
        raise FixConfigurationError(
            f"cannot use the certificate {address.tls_cert} with the key {address.tls_key}: {error.strerror or error}",
            remedy="Give PEM files that belong together and are readable.",
        ) from error
    listening = address.listen()

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await app.state.evaluation.start()
            await super().startup(sockets)
            if self.started:
                announce(address.url(listening))
                event("serving.start", port=listening.getsockname()[1])

    with listening:
        server = Server(config)
        # uvicorn finishes its work at SIGTERM and then raises the signal again, for whoever listened before.
        signal.signal(signal.SIGTERM, lambda *_: _end(server))
        if until_stdin_closes:
            threading.Thread(target=_end_with_stdin, args=(server,), daemon=True).start()
        try:
            server.run(sockets=[listening])
        finally:
            app.state.evaluation.stop()


@dataclass(frozen=True)
class RunningService:
    """A service in another process: its address and process id."""

    url: str
    pid: int


@contextlib.contextmanager
def serve(
    bundles: Iterable[Bundle | Path | str],
    *,
    passphrase: str | None = None,
    queue: int = 8,
    workers: int = 1,
    engines: Sequence[str] = (),
) -> Iterator[RunningService]:
    """Start the real service as a separate process on a free loopback port; end it when the block ends.

    `bundles`: directories, or `Bundle` objects (which are written to a private temporary directory for as long as
    the service runs). `passphrase` opens sealed ones. `workers`: 1 by default, because whoever starts a service here
    needs the other cores to encrypt. `engines`: the only ones to offer. Raises `RetryLaterError` with the service's own
    words when it does not start.
    """
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="securead-")))  # mode 0700
        paths = [
            item.save(folder / str(at), passphrase=passphrase) if isinstance(item, Bundle) else Path(item)
            for at, item in enumerate(bundles)
        ]
        errors = stack.enter_context((folder / "stderr").open("w+b"))
        command = [sys.executable, "-m", "securead", "serve", *map(str, paths), "--no-tls", "--port", "0"]
        command += [word for name in engines for word in ("--engine", name)]
        environment = dict(os.environ) if passphrase is None else {**os.environ, "SECUREAD_PASSPHRASE": passphrase}
        process = subprocess.Popen(
            [*command, "--queue", str(queue), "--workers", str(workers), "--until-stdin-closes"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env=environment,
        )
        stack.callback(_stop, process)
        yield RunningService(_await_url(process, errors), process.pid)


def _await_url(process: subprocess.Popen[bytes], errors: IO[bytes]) -> str:
    deadline = time.monotonic() + _START_SECONDS
    output = process.stdout
    if output is None:
        raise ValueError("the process was started without a pipe")
    text = b""
    with selectors.DefaultSelector() as selector:
        selector.register(output, selectors.EVENT_READ)
        while (left := deadline - time.monotonic()) > 0 and selector.select(left):
            part = os.read(output.fileno(), 4096)
            text += part
            for line in text.decode(errors="replace").splitlines(keepends=True):
                if line.startswith(URL_PREFIX) and line.endswith("\n"):
                    return line.removeprefix(URL_PREFIX).strip()
            if not part:
                break
    _stop(process)
    errors.seek(0)
    said = errors.read().decode(errors="replace").strip()
    raise RetryLaterError(
        f"the service did not start: {said[-1500:] or 'it said nothing'}", remedy="Correct this and start again."
    )


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


def _end(server: uvicorn.Server) -> None:
    server.should_exit = True


def _end_with_stdin(server: uvicorn.Server) -> None:
    with contextlib.suppress(OSError, ValueError):
        while os.read(0, 4096):
            pass
    _end(server)


def _reason(error: OSError) -> str:
    """The system's words for an error, without the address that `socket.create_server` appends to them."""
    return str(error.strerror).partition(" (while")[0]


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
