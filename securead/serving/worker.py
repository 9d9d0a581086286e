"""A worker process: holds the models, owners' keys and masks that idle time makes, and evaluates what it is sent.

Started by `link.spawn` with one connected socket and nothing else; says what `frames` says. It ends when that socket
closes. Signals do not end it: who interrupts or terminates the service lets it answer what is in work first.
"""

from __future__ import annotations

import contextlib
import json
import logging
import signal
import socket
from functools import partial

from securead.errors import RegisterKeyError, SecureadError
from securead.models.bundle import Bundle
from securead.program.storage import secret_from_bytes
from securead.protocols import registry, wire
from securead.protocols.engine import EvaluationKey, Plan
from securead.serving import frames
from securead.serving.evaluation import answer, read_key
from securead.serving.frames import Channel, EndedError
from securead.serving.loaded import LoadedModel
from securead.serving.refilling import KEY_BYTES, KEYS, IdleRefill
from securead.serving.registered import MAX_BYTES, MAX_KEYS, RegisteredKeys

_logger = logging.getLogger("securead")


def main(descriptor: int) -> None:
    """Serve the socket of that number until it closes."""
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, signal.SIG_IGN)
    with socket.socket(fileno=descriptor) as link, contextlib.suppress(EndedError):
        channel = Channel(link)
        start, content = channel.receive()
        if not isinstance(start, frames.Start):
            raise EndedError
        if start.logs:
            _logger.setLevel(logging.INFO)
            _logger.addHandler(_Forward(channel))
            _logger.propagate = False
        try:
            worker = Worker(channel, start, bytes(content))
        except SecureadError as error:
            raise SystemExit(f"a worker process cannot load the models: {error}") from None
        worker.run()


class _StoppedError(Exception):
    """The service wants no answer."""


class Worker:
    """What a worker holds, and one message at a time."""

    def __init__(self, channel: Channel, start: frames.Start, content: bytes) -> None:
        self._channel = channel
        self._models = {model.name: model for model in _models(start, content)}
        self._keys = RegisteredKeys(max_bytes=MAX_BYTES // start.workers, max_keys=max(1, MAX_KEYS // start.workers))
        keys_filled, key_bytes = share(start.workers)
        self._refill = IdleRefill(self._keys, self._made, keys_filled=keys_filled, key_bytes=key_bytes)
        self._held = contextlib.ExitStack()  # what keeps idle time from being used

    def run(self) -> None:
        """Until the service ends."""
        with self._refill:
            self._channel.send(frames.Ready())
            while True:
                frame, content = self._next()
                try:
                    with self._refill.held_off():
                        self._do(frame, content)
                except _StoppedError:
                    pass
                except SecureadError as error:
                    self._channel.send(frames.refused(error))
                except EndedError:
                    raise
                except Exception as error:
                    self._channel.send(frames.Failed(type(error).__name__))
                del content  # megabytes, and the next frame may be long in coming

    def _next(self) -> tuple[frames.Frame, bytes | memoryview]:
        while True:
            frame, content = self._channel.receive()
            if isinstance(frame, frames.Hold):
                self._held.enter_context(self._refill.held_off())
            elif isinstance(frame, frames.Release):
                self._held.close()
            else:
                return frame, content

    def _do(self, frame: frames.Frame, content: bytes | memoryview) -> None:
        match frame:
            case frames.Score():
                model = self._models[frame.model]
                done = answer(model, content, frame.limit, partial(self._gate, model))
                self._channel.send(frames.Answered(done.seconds), done.message)
            case frames.Register():
                model = self._models[frame.model]
                plan, key = read_key(model, frame.key, content, frame.limit, self._begin)
                self._keys.put(model.name, plan, key)
                self._channel.send(frames.Kept())
            case _:
                raise EndedError

    def _made(self, seconds: float) -> None:
        with contextlib.suppress(EndedError):  # the thread that serves the socket notices, too
            self._channel.send(frames.Made(seconds))

    def _begin(self, header: wire.Header) -> None:
        self._channel.send(frames.Begun(header, lacks_key=False))

    def _gate(self, model: LoadedModel, header: wire.Header, plan: Plan) -> EvaluationKey | None:
        key, lacks = None, False
        if plan.evaluation_key_bytes:
            try:
                key = self._keys.get(model.name, plan, header.key)
            except RegisterKeyError:
                lacks = True
        self._channel.send(frames.Begun(header, lacks_key=lacks))
        frame, message = self._next()
        if not isinstance(frame, frames.Go):
            raise _StoppedError if isinstance(frame, frames.Stop) else EndedError
        if lacks:
            _, key = read_key(model, header.key, message, frame.limit)
            self._keys.put(model.name, plan, key)
        return key


def share(workers: int) -> tuple[int, int]:
    """How many keys each of so many workers may make masks for, and how many bytes for each: in all, `KEYS` x
    `KEY_BYTES` at the most.
    """
    keys = max(1, KEYS // workers)
    return keys, min(KEY_BYTES, KEYS * KEY_BYTES // (workers * keys))


def _models(start: frames.Start, content: bytes) -> list[LoadedModel]:
    models, at = [], 0
    for parts in start.models:
        secret = secret_from_bytes(content[at : at + parts.secret_bytes])
        at += parts.secret_bytes
        engine_secrets = {}
        for each in parts.engine_secrets:
            engine_secrets[each.engine] = content[at : at + each.size]
            at += each.size
        plans = {
            (plan.engine, plan.role): registry.plan_module(plan.engine).plan_from_plain(json.loads(plan.text))
            for plan in parts.plans
        }
        models.append(LoadedModel(Bundle(parts.public, secret), plans=plans, engine_secrets=engine_secrets))
    return models


class _Forward(logging.Handler):
    """Has the service log what is logged here: one place, in one order."""

    def __init__(self, channel: Channel) -> None:
        super().__init__()
        self._channel = channel

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(EndedError):
            self._channel.send(frames.Said(record.levelno, record.getMessage()))
