"""Processes that play the roles of an engine, seen from the measurement: one half each, driven by messages."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from securead import codec, files
from securead.bench.frames import Frames
from securead.bench.halves import PLAN_FILE
from securead.errors import SecureadError
from securead.models.bundle import PUBLIC_FILE, Bundle
from securead.protocols.engine import Plan

_PATIENCE = 300.0


class HalfFailedError(SecureadError):
    """A half of an engine refused or died where it should have worked."""


@dataclass(frozen=True)
class Reply:
    """What a half returned, and what the call took there."""

    head: dict[str, Any]
    payload: bytes

    @property
    def spent(self) -> tuple[float, float]:
        """Processor and wall seconds."""
        return self.head["cpu"], self.head["wall"]

    @property
    def refused(self) -> str:
        """Why it would not, or nothing."""
        return str(self.head.get("refused", ""))


class Player:
    """One half of an engine in a process of its own, reached at `address`."""

    def __init__(self, half: Literal["owner", "blind"], package: str, folder: Path) -> None:
        self.name = half
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  (as long as the process)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "securead.bench.halves", half, package, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
        )
        self._frames: Frames | None = None
        self.peak = 0

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens; waits until it does."""
        if not hasattr(self, "_address"):
            out = self._process.stdout
            line = b"" if out is None else out.readline()
            if not line.strip().isdigit():
                raise HalfFailedError(f"the half {self.name!r} did not start: {self._said()}")
            self._address = ("127.0.0.1", int(line))
        return self._address

    def reach(self, address: tuple[str, int]) -> None:
        """Talk to it over another way from now on, a relay's."""
        if self._frames is not None:
            self._frames.close()
        self._frames = Frames(socket.create_connection(address, timeout=_PATIENCE))

    def ask(self, do: str, payload: bytes = b"", **fields: Any) -> Reply:
        """One operation, whether it is refused or not."""
        if self._frames is None:
            self.reach(self.address)
        frames = self._frames
        try:
            if frames is None:
                raise OSError("no connection")
            frames.send({"do": do, **fields}, payload)
            message = frames.receive()
        except (OSError, SecureadError) as error:
            raise HalfFailedError(f"the half {self.name!r} failed at {do!r}: {error}; {self._said()}") from error
        if message is None:
            raise HalfFailedError(f"the half {self.name!r} died at {do!r}: {self._said()}")
        self.peak = int(message[0]["peak"])
        return Reply(*message)

    def do(self, do: str, payload: bytes = b"", **fields: Any) -> Reply:
        """One operation that has to work, or `HalfFailedError`."""
        reply = self.ask(do, payload, **fields)
        if reply.refused:
            raise HalfFailedError(f"the half {self.name!r} refused {do!r}: {reply.refused}")
        return reply

    def crossed(self) -> tuple[int, int]:
        """Bytes of payloads that went to it and came from it so far, as counted at the connection."""
        return (0, 0) if self._frames is None else (self._frames.payload_sent, self._frames.payload_received)

    def close(self) -> None:
        """End the process."""
        if self._frames is not None:
            self._frames.close()
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._errors):
            if pipe is not None:
                pipe.close()

    def _said(self) -> str:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)
        self._errors.seek(0)
        return self._errors.read().decode(errors="replace").strip()[-800:] or "it said nothing"


class Cast:
    """All players of one plan: the service, the submitter, and in role `split` a key holder apart."""

    def __init__(self, package: str, plan: Plan, bundle: Bundle, folder: Path) -> None:
        public, whole = folder / "public", folder / "whole"
        bundle.save(whole)
        files.write_json(public / PUBLIC_FILE, codec.to_plain(bundle.public))
        for each in (public, whole):
            files.write_json(each / PLAN_FILE, codec.to_plain(plan))
        self.players: list[Player] = []
        try:
            self.service = self._start("blind", package, whole)
            self.submitter = self._start("owner", package, public)
            self.holder = self._start("owner", package, public) if plan.role == "split" else self.submitter
        except BaseException:
            self.close()
            raise

    def _start(self, half: Literal["owner", "blind"], package: str, folder: Path) -> Player:
        self.players.append(Player(half, package, folder))
        return self.players[-1]

    def __enter__(self) -> Cast:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End all of them."""
        for player in self.players:
            player.close()
