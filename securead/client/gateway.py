"""What runs beside the sensors: readings in, encrypted windows out, nothing lost in between.

Two threads: one takes readings into the spool and encrypts what is complete, the other sends what waits. So a service
that is away holds up nothing until the spool is full. The process holds a public key and a deposit token, and neither
torch nor numba. It may be killed at any moment: started again with the same spool it goes on where it was.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from securead.client import workflow
from securead.client.keys import SubmitterKeys
from securead.client.mailbox import Mailbox
from securead.client.source import Batch, Source
from securead.client.spool import Spool
from securead.client.watch import Silent, Watch
from securead.data.schema import Array
from securead.data.streaming import StreamingEncoder
from securead.errors import FixConfigurationError, RetryLaterError
from securead.observe import event

_PAUSE = 0.5


@dataclass
class Passed:
    """What went through since the process was started."""

    readings: int = 0
    dropped_lines: int = 0
    windows: int = 0
    messages: int = 0
    sent: int = 0
    sent_bytes: int = 0


class Gateway:
    """One gateway at work. `batch`: windows a message, `age`: the most seconds that a window waits for others.

    An encryption fills a whole chunk, whatever it holds, so small batches cost upload and large ones delay. Raises
    `FixConfigurationError` unless the keys are of role `split` and a batch fits into a chunk.
    """

    def __init__(
        self,
        keys: SubmitterKeys,
        encoder: StreamingEncoder,
        spool: Spool,
        mailbox: Mailbox,
        *,
        batch: int = 256,
        age: float = 60.0,
        watch: Watch | None = None,
    ) -> None:
        if keys.record.role != "split":
            raise FixConfigurationError(
                "a gateway encrypts under somebody else's public key",
                value=keys.record.role,
                remedy="Make keys with: securead keygen --role split, and give it DIR/public.",
            )
        if not 1 <= batch <= keys.plan.rows_per_chunk:
            raise FixConfigurationError(f"a batch is 1 to {keys.plan.rows_per_chunk} windows", value=batch)
        self._keys, self._encoder, self._spool, self._mailbox = keys, encoder, spool, mailbox
        self._batch, self._age, self._watch = batch, age, watch or Silent()
        self._news, self._stop, self._drain = threading.Event(), threading.Event(), threading.Event()
        self._failed: BaseException | None = None
        self.passed = Passed()

    def stop(self) -> None:
        """End `run` soon; what was accepted stays in the spool. Safe to call from a signal's function."""
        self._stop.set()
        self._news.set()

    def run(self, source: Source) -> Passed:
        """Work until the source has ended and all is confirmed, or until `stop`.

        Raises what sending refuses for good (another model is served, a token is wrong); all is in the spool then.
        """
        state, _ = self._spool.recall()
        if state is not None:
            self._encoder.restore(state)
        sender = threading.Thread(target=self._send_all, name="securead-send", daemon=True)
        sender.start()
        try:
            for batch in source.batches():
                self._insist(partial(self._take, batch))
                while not self._stop.is_set() and self._insist(partial(self._seal, ended=False)):
                    pass
                if self._stop.is_set():
                    break
            while not self._stop.is_set() and self._insist(partial(self._seal, ended=True)):
                pass
        except BaseException:
            self._stop.set()
            raise
        finally:
            self._drain.set()
            self._news.set()
            sender.join()
        if self._failed is not None:
            raise self._failed
        return self.passed

    def _insist(self, work: Callable[[], object]) -> bool:
        """Do something that needs room on the disk; where there is none, wait for it."""
        while not self._stop.is_set():
            try:
                return bool(work())
            except RetryLaterError as error:
                self._watch.waiting(str(error))
                self._stop.wait(_PAUSE)
        return False

    def _take(self, batch: Batch) -> None:
        before = self._encoder.state
        windows = self._encoder.push(batch.X, batch.times)
        try:
            if len(batch.X) or batch.dropped:
                self._spool.accept(windows, self._encoder.state, batch.place)
        except BaseException:
            self._encoder.restore(before)
            raise
        self.passed.readings += len(batch.X)
        self.passed.dropped_lines += batch.dropped
        self.passed.windows += len(windows)

    def _seal(self, *, ended: bool) -> bool:
        """Encrypt one batch if it is due."""
        pending = self._spool.pending(self._batch)
        if pending is None:
            return False
        due = ended or len(pending.ids) >= self._batch or not 0 <= time.time() - pending.since < self._age
        if not due:
            return False
        self._spool.insist_on_room_to_seal()
        label = self._spool.seal(pending, self._encrypted(pending.X))
        self.passed.messages += 1
        event("gateway.sealed", sequence=label.sequence, windows=len(pending.ids))
        self._news.set()
        return True

    def _encrypted(self, X: Array) -> bytes:
        (sealed,) = workflow.seal(self._keys, X)
        return sealed.envelope.to_bytes()

    def _send_all(self) -> None:
        try:
            while not self._stop.is_set():
                self._news.clear()
                found = self._spool.first()
                if found is None:
                    if self._drain.is_set():
                        return
                    self._news.wait(1.0)
                    continue
                try:
                    self._mailbox.deposit(self._keys, found.label, found)
                    self._spool.confirmed(found.label)
                except RetryLaterError as error:
                    self._watch.waiting(str(error))
                    self._stop.wait(_PAUSE)
                    continue
                self.passed.sent, size = self.passed.sent + 1, len(found)
                self.passed.sent_bytes += size
                event("gateway.sent", sequence=found.label.sequence, bytes=size)
        except BaseException as error:
            self._failed = error
            self.stop()
