"""A party as a process: one lane, or a supervisor of several that starts a dead one again."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from securead.errors import FixConfigurationError
from securead.observe import event
from securead.protocols.sharing.lane import Lane, Told
from securead.protocols.sharing.links import Identity
from securead.protocols.sharing.meeting import Machine
from securead.protocols.sharing.plan import SharingPlan
from securead.protocols.sharing.settings import PartyConfig, load_party
from securead.protocols.sharing.shares import ModelShare

_LOOK_SECONDS = 0.1
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 1.6  # before a lane is started again
_LASTING_SECONDS = 10.0  # a lane that lived so long had started
_END_SECONDS = 5.0
_REFUSED = 2  # the exit code of what its operator has to correct


def run(
    path: Path | str,
    index: int,
    *,
    lane: int | None = None,
    passphrase: str | None = None,
    announce: Callable[[Told], None],
    until_stdin_closes: bool = False,
) -> None:
    """Serve as party `index` until SIGTERM or SIGINT; a request in work is finished first.

    With several lanes configured and no `lane` given, every lane is a process of its own. `announce` is called in the
    process that is the lane. Raises `FixConfigurationError` for what the configuration has wrong.
    """
    config = load_party(path, index)
    if lane is None and config.lanes > 1:
        _supervise(path, index, config.lanes, passphrase)
        return
    if not 0 <= (lane or 0) < config.lanes:
        raise FixConfigurationError("no such lane", value=lane, where=str(path), remedy=f"lanes = {config.lanes}.")
    one = make_lane(config, index, lane or 0, passphrase=passphrase, announce=announce)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: one.stop())
    if until_stdin_closes:
        threading.Thread(target=_stop_with_stdin, args=(one,), daemon=True).start()
    one.run()


def make_lane(
    config: PartyConfig, index: int, lane: int, *, passphrase: str | None, announce: Callable[[Told], None]
) -> Lane:
    """A lane that computes with CrypTen; listens already."""
    identity = Identity.load(config.identity, passphrase=passphrase)
    share = ModelShare.read(Path(config.model), passphrase=passphrase)

    def machine(plan: SharingPlan) -> Machine:
        from securead.protocols.sharing.machine import CryptenMachine

        return CryptenMachine(
            plan,
            share,
            dealer=config.dealer_address,
            identity=identity,
            lane=lane,
            silence=config.silence_seconds,
        )

    return Lane(config, index, lane, identity=identity, share=share, machine=machine, announce=announce)


def _stop_with_stdin(lane: Lane) -> None:
    """End when whoever started us is gone."""
    with contextlib.suppress(OSError, ValueError):
        while os.read(0, 4096):
            pass
    lane.stop()


@dataclass
class _Child:
    """A lane's process as its supervisor sees it."""

    lane: int
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    pause: float = _FIRST_PAUSE
    due: float = field(default=0.0)


def _supervise(path: Path | str, index: int, lanes: int, passphrase: str | None) -> None:
    """Keep `lanes` processes running until SIGTERM or SIGINT. They end with this process, however it ends."""
    ending = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ending.set())
    children = [_Child(lane) for lane in range(lanes)]
    try:
        while not ending.wait(_LOOK_SECONDS):
            for child in children:
                _look_after(child, path, index, passphrase)
    finally:
        _end(children)


def _look_after(child: _Child, path: Path | str, index: int, passphrase: str | None) -> None:
    now = time.monotonic()
    if child.process is not None and (code := child.process.poll()) is not None:
        lasted = now - child.started
        if code == _REFUSED and lasted < _LASTING_SECONDS:
            raise FixConfigurationError(f"lane {child.lane} cannot start", remedy="See its message above.")
        event("sharing.lane_died", index=index, lane=child.lane, code=code)
        child.pause = _FIRST_PAUSE if lasted > _LASTING_SECONDS else min(2 * child.pause, _LONGEST_PAUSE)
        child.process, child.due = None, now + child.pause
    if child.process is None and now >= child.due:
        child.process, child.started = _start(child.lane, path, index, passphrase), now


def _start(lane: int, path: Path | str, index: int, passphrase: str | None) -> subprocess.Popen[bytes]:
    verbose = ["-v"] if logging.getLogger("securead").isEnabledFor(logging.INFO) else []
    environment = dict(os.environ) if passphrase is None else {**os.environ, "SECUREAD_PASSPHRASE": passphrase}
    return subprocess.Popen(
        [
            *(sys.executable, "-m", "securead", *verbose),
            *("party", str(path), "--index", str(index), "--lane", str(lane), "--until-stdin-closes"),
        ],
        stdin=subprocess.PIPE,
        env=environment,
        start_new_session=True,  # a Ctrl-C at the terminal is the supervisor's to pass on
    )


def _end(children: list[_Child]) -> None:
    running = [child.process for child in children if child.process is not None]
    for process in running:
        process.terminate()
    deadline = time.monotonic() + _END_SECONDS
    for process in running:
        try:
            process.wait(max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdin is not None:
            process.stdin.close()
