"""A dealer and two parties as processes on this machine, for a demonstration: TLS, and ports the system chooses."""

from __future__ import annotations

import contextlib
import json
import re
import selectors
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO

from securead import files
from securead.certificates import issue
from securead.errors import RetryLaterError
from securead.serving.split import MODEL_FILE, PARTY_FILES, PROGRAM_FILE, split_bundle

CLIENT = "bank"
_LISTENS = re.compile(rb"securead .* listens at ([\w.:\[\]]+)\n")
_START_SECONDS, _END_SECONDS = 120.0, 10.0


@contextlib.contextmanager
def deploy(bundle: Path, folder: Path) -> Iterator[Path]:
    """Split a bundle into `folder`, certify everyone, and run dealer and parties while the block lasts.

    Yields the client's configuration. Raises `RetryLaterError` with a process's own words when it does not start.
    The block begins when the parties are ready.
    """
    folder = folder.resolve()
    split_bundle(bundle, folder)
    issue(folder / "certs", ("dealer", "party0", "party1", CLIENT))
    with contextlib.ExitStack() as stack:
        dealer = _start(
            stack, folder, "dealer", ["dealer"], {"program": PROGRAM_FILE, "identity": "certs/dealer", "port": 0}
        )
        addresses: list[str] = []
        for index, half in enumerate(PARTY_FILES):
            entries: dict[str, str | int] = {
                "model": half,
                "identity": f"certs/party{index}",
                "dealer": dealer,
                "port": 0,
            }
            if index:
                entries["leader"] = addresses[0]
            addresses.append(_start(stack, folder, f"party{index}", ["party", "--index", str(index)], entries))
        _await_ready(folder / "party0.log")
        client = {"party0": addresses[0], "party1": addresses[1], "identity": f"certs/{CLIENT}", "model": MODEL_FILE}
        yield _write(folder / "client.toml", client)


def _write(path: Path, entries: Mapping[str, str | int]) -> Path:
    files.write_atomic(path, "".join(f"{name} = {json.dumps(value)}\n" for name, value in entries.items()).encode())
    return path


def _start(
    stack: contextlib.ExitStack, folder: Path, name: str, command: list[str], entries: Mapping[str, str | int]
) -> str:
    """Start a process that ends with the stack; where it listens."""
    config = _write(folder / f"{name}.toml", entries)
    errors = stack.enter_context((folder / f"{name}.log").open("w+b"))
    process = subprocess.Popen(
        [sys.executable, "-m", "securead", *command, str(config), "--until-stdin-closes"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
    )
    stack.callback(_stop, process)
    return _address(process, name, errors)


def _address(process: subprocess.Popen[bytes], name: str, errors: IO[bytes]) -> str:
    deadline, output = time.monotonic() + _START_SECONDS, process.stdout
    if output is None:
        raise ValueError("the process was started without a pipe")
    with selectors.DefaultSelector() as selector:
        selector.register(output, selectors.EVENT_READ)
        if selector.select(max(0.0, deadline - time.monotonic())) and (found := _LISTENS.fullmatch(output.readline())):
            return found[1].decode()
    _stop(process)
    errors.seek(0)
    said = errors.read().decode(errors="replace").strip()
    raise RetryLaterError(f"{name} did not start: {said[-1500:]}", remedy="Correct this and start again.")


def _await_ready(log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while b" is ready " not in log.read_bytes():
        if time.monotonic() > deadline:
            raise RetryLaterError("the parties did not get ready", where=str(log), remedy="See what they say there.")
        time.sleep(0.05)


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
