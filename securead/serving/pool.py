"""Several workers, each a process: two cores evaluate two messages, and a process that ends takes no request with it.

The service's own process receives, meters and answers and evaluates nothing, so nothing that an engine does with a
message can end it. Of owners' keys it holds the messages they came in, which a worker that lacks one is sent.

A message whose worker ends goes to another. Only what an engine had begun to look at counts against a message: two
workers that ended so, or one that gave no answer in `EVALUATION_SECONDS`, are enough to refuse it, and to know it again
by its checksum. While somebody's message is tried
for the second time, no other's is, so whoever sends such messages holds up one worker by it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

from securead import codec
from securead.errors import RejectMessageError, RetryLaterError
from securead.observe import event
from securead.program.storage import secret_to_bytes
from securead.protocols import wire
from securead.serving import frames
from securead.serving.evaluation import Answer, Evaluated, Wanted
from securead.serving.frames import EndedError
from securead.serving.link import EVALUATION_SECONDS, START_SECONDS, Link
from securead.serving.loaded import LoadedModel
from securead.serving.metering import RowMeter
from securead.serving.metrics import Metrics
from securead.serving.processes import Processes, Spawned
from securead.serving.registered import RegisteredKeys
from securead.serving.turns import Turns

ENOUGH_ENDED = 2  # workers that ended while an engine looked at a message: then it is refused
_MOST_TRIES = 5  # workers that ended, whatever the reason
_KNOWN = 256  # checksums of messages that ended workers
_CHECKSUM_BYTES = 32  # at the end of each message, and verified before an engine sees it
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
T = TypeVar("T")
Reply = TypeVar("Reply", frames.Ready, frames.Begun, frames.Answered, frames.Kept)


@dataclass(frozen=True)
class KeyMessage:
    """An owner's public key as it came: what a worker that lacks it is sent."""

    key_id: str
    message: bytes
    limit: int


class WorkerPool:
    """An `Evaluation` by processes. One that ends is replaced; what it had in work goes to another."""

    def __init__(self, processes: Processes, models: Sequence[LoadedModel], meter: RowMeter, metrics: Metrics) -> None:
        self.workers = processes.count
        self.keys = RegisteredKeys(weigh=lambda plan: plan.evaluation_key_bytes)
        self._processes, self._models, self._meter, self._metrics = processes, models, meter, metrics
        self._idle: list[Link] = []  # the one that worked last comes last, and works next: it has the keys and masks
        self._awaiting: deque[asyncio.Future[Link]] = deque()
        self._links: set[Link] = set()
        self._busy = 0
        self._replacing: set[asyncio.Task[None]] = set()
        self._suspects, self._metered = asyncio.Lock(), Turns()
        self._refused: OrderedDict[bytes, None] = OrderedDict()
        self._stopped = False

    async def start(self) -> None:
        """Give every process its models; returns when all are ready. Raises `RetryLaterError` where one is not."""
        try:
            await asyncio.gather(*(self._open(each) for each in self._processes.take()))
        except EndedError as error:
            raise RetryLaterError(
                "a worker process ended before it was ready", remedy="See what it says, and whether memory suffices."
            ) from error

    def stop(self) -> None:
        """Start no process any more. Those there are end with the block of their `Processes`."""
        self._stopped = True

    @contextlib.contextmanager
    def held_off(self) -> Iterator[None]:
        """Inside this block no worker uses idle time."""
        self._busy += 1
        if self._busy == 1:
            self._tell(frames.Hold())
        try:
            yield
        finally:
            self._busy -= 1
            if not self._busy:
                self._tell(frames.Release())

    async def score(self, model: LoadedModel, message: bytes, limit: int, wanted: Wanted) -> Evaluated:
        """The answer to a request message, checked and counted."""

        async def exchange(link: Link) -> Evaluated:
            start = time.monotonic()
            link.send(frames.Score(model.name, limit), message)
            begun, _ = await self._reply(link, frames.Begun)
            header = begun.header
            plan, program = model.plan(header), model.public.program
            name = (model.name, header.key)
            # Of one key's messages one is evaluated at a time where the next may be refused for it.
            async with self._metered.turn(name) if self._meter.refuses else contextlib.nullcontext():
                try:
                    key = self._key(model, header) if plan.evaluation_key_bytes else None
                    self._meter.admit(model.name, program, plan, header.key)
                except BaseException:
                    link.send(frames.Stop())
                    link.settled = True
                    raise
                wanting = key if begun.lacks_key else None
                link.begun = True
                link.send(frames.Go(wanting.limit if wanting else 0), wanting.message if wanting else b"")
                told, content = await self._reply(link, frames.Answered)
                link.settled = True
                metered = self._meter.answered(model.name, program, plan, header.key, header.rows)
            return Evaluated(Answer(content, header, told.seconds), metered, time.monotonic() - start)

        return await self._carry(message, wanted, exchange)

    async def register(self, model: LoadedModel, key_id: str, message: bytes, limit: int, wanted: Wanted) -> None:
        """Have one worker read the key of a message, and hold the message if it is sound."""

        async def exchange(link: Link) -> None:
            link.send(frames.Register(model.name, key_id, limit), message)
            begun, _ = await self._reply(link, frames.Begun)
            link.begun = True
            await self._reply(link, frames.Kept)
            link.settled = True
            self.keys.put(model.name, model.plan(begun.header), KeyMessage(key_id, message, limit))

        await self._carry(message, wanted, exchange)

    def _key(self, model: LoadedModel, header: wire.Header) -> KeyMessage:
        held = self.keys.get(model.name, model.plan(header), header.key)
        if not isinstance(held, KeyMessage):
            raise TypeError(held)
        return held

    async def _carry(self, message: bytes, wanted: Wanted, exchange: Callable[[Link], Awaitable[T]]) -> T:
        """What an exchange with a worker gives; with another worker where one ended in the middle."""
        if message[-_CHECKSUM_BYTES:] in self._refused:
            raise _deadly()
        ended = 0
        for _ in range(_MOST_TRIES):
            async with contextlib.AsyncExitStack() as stack:
                if ended:
                    await stack.enter_async_context(self._suspects)
                link = await stack.enter_async_context(self._worker())
                await wanted()
                try:
                    return await exchange(link)
                except EndedError:
                    ended += ENOUGH_ENDED if link.hung else link.begun
                    event("serving.worker", ended_in_work=True, begun=link.begun)
            if ended >= ENOUGH_ENDED:
                self._refused[message[-_CHECKSUM_BYTES:]] = None
                while len(self._refused) > _KNOWN:
                    self._refused.popitem(last=False)
                raise _deadly()
        raise RetryLaterError("worker processes keep ending", remedy="Tell the service's operator.")

    async def _reply(self, link: Link, kind: type[Reply], seconds: float | None = None) -> tuple[Reply, bytes]:
        """The reply of that kind, or what the worker says instead."""
        link.settled = False
        frame, content = await link.receive(seconds or EVALUATION_SECONDS)
        if isinstance(frame, kind):
            return frame, content
        link.settled = isinstance(frame, frames.Refused | frames.Failed)
        if isinstance(frame, frames.Refused):
            raise frames.raised(frame)
        raise RuntimeError(frame.error if isinstance(frame, frames.Failed) else type(frame).__name__)

    @contextlib.asynccontextmanager
    async def _worker(self) -> AsyncIterator[Link]:
        """A worker for this block alone; afterwards it is idle, or ended if it was left in the middle of something."""
        link = await self._next()
        link.begun, link.settled = False, True
        try:
            yield link
        finally:
            if link.settled:
                self._give(link)
            else:
                link.end()

    async def _next(self) -> Link:
        if self._idle and not self._awaiting:
            return self._idle.pop()
        future: asyncio.Future[Link] = asyncio.get_running_loop().create_future()
        self._awaiting.append(future)
        try:
            return await future
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():
                self._give(future.result())
            raise

    def _give(self, link: Link) -> None:
        """A worker that has nothing to do, for whoever has waited longest."""
        if link not in self._links:
            return
        while self._awaiting:
            future = self._awaiting.popleft()
            if not future.done():
                future.set_result(link)
                return
        self._idle.append(link)

    def _turn_away(self) -> None:
        """Those who wait, when there is no worker and none can be started."""
        while self._awaiting:
            future = self._awaiting.popleft()
            if not future.done():
                future.set_exception(
                    RetryLaterError("the service can start no worker process", remedy="Tell its operator.")
                )

    def _tell(self, frame: frames.Hold | frames.Release) -> None:
        for link in self._links:
            link.send(frame)

    async def _open(self, spawned: Spawned) -> None:
        """Give a process its models and count it among the idle when it is ready."""
        link = Link(spawned, self._ended, self._metrics.refilled)
        start, content = self._start_frame()
        link.send(start, content)
        try:
            await self._reply(link, frames.Ready, START_SECONDS)
        except RuntimeError as error:
            link.end()
            raise EndedError from error
        link.settled = True
        self._links.add(link)
        if self._busy:
            link.send(frames.Hold())
        self._metrics.workers.set(len(self._links))
        self._give(link)

    def _start_frame(self) -> tuple[frames.Start, bytes]:
        models, secrets = [], []
        for model in self._models:
            own = secret_to_bytes(model.secret)
            secrets += [own, *model.engine_secrets.values()]
            plans = (
                frames.PlanText(engine, role, json.dumps(codec.to_plain(plan)))
                for (engine, role), plan in model.plans.items()
            )
            sizes = (frames.SecretSize(engine, len(content)) for engine, content in model.engine_secrets.items())
            models.append(frames.ModelParts(model.public, tuple(plans), len(own), tuple(sizes)))
        logs = logging.getLogger("securead").isEnabledFor(logging.INFO)
        return frames.Start(tuple(models), self.workers, logs), b"".join(secrets)

    def _ended(self, link: Link) -> None:
        if link not in self._links:  # before it was ready: whoever opened it knows
            return
        self._links.discard(link)
        if link in self._idle:
            self._idle.remove(link)
        self._metrics.workers.set(len(self._links))
        self._metrics.worker_ended()
        event("serving.worker", ended_in_work=False)
        if not self._stopped:
            task = asyncio.create_task(self._replace())
            self._replacing.add(task)
            task.add_done_callback(self._replacing.discard)

    async def _replace(self) -> None:
        pause = _FIRST_PAUSE
        while not self._stopped:
            try:
                await self._open(await asyncio.to_thread(self._processes.spawn))
                return
            except (OSError, EndedError) as error:
                event("serving.worker", not_started=type(error).__name__, pause=pause)
                if not self._links:
                    self._turn_away()
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)


def _deadly() -> RejectMessageError:
    return RejectMessageError(
        "worker processes ended while they evaluated this message, or did not come to an end",
        remedy="Encrypt again. If that is refused, too, tell the service's operator; this message is not tried again.",
    )
