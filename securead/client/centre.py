"""The operations centre at work: it fetches answers, decrypts them, takes each once and raises alarms.

An answer is acknowledged once what it held is on the centre's disk, so a centre that is killed anywhere finds it again.
It is acknowledged alike whether it could be decrypted or not, and after the same wait: a service that tampers with
answers must not learn by what the centre does next whether a tampered answer was opened.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from securead.client import messages, workflow
from securead.client.keys import HolderKeys
from securead.client.mailbox import Mailbox, Tokens
from securead.client.record import Alarm, Record
from securead.client.watch import Silent, Watch
from securead.errors import RejectMessageError, RetryLaterError, SecureadError
from securead.observe import event
from securead.protocols import parcel, wire


@dataclass
class Fetched:
    """What was done since the process was started."""

    taken: int = 0
    again: int = 0
    rejected: int = 0
    windows: int = 0
    alarms: int = 0


class Centre:
    """One key holder and its mailbox. `told` is called with every alarm that begins."""

    def __init__(
        self,
        keys: HolderKeys,
        mailbox: Mailbox,
        tokens: Tokens,
        record: Record,
        *,
        told: Callable[[Alarm], None] = lambda alarm: None,
        watch: Watch | None = None,
    ) -> None:
        self._keys, self._mailbox, self._tokens, self._record = keys, mailbox, tokens, record
        self._decryptor, self._told, self._watch = keys.decryptor(), told, watch or Silent()
        self._stop, self._opened = threading.Event(), False
        self.fetched = Fetched()

    def stop(self) -> None:
        """End `run` soon. Safe to call from a signal's function."""
        self._stop.set()

    def run(self, *, interval: float = 1.0, page: Callable[[], None] = lambda: None) -> Fetched:
        """Poll until `stop`; `page` is called at the start and whenever something came. A service that is away is
        waited for."""
        page()
        while not self._stop.is_set():
            try:
                if self.poll():
                    page()
                    continue
            except RetryLaterError as error:
                self._opened = False  # a service that has lost its mailboxes says so in this way
                self._watch.waiting(str(error))
            self._stop.wait(interval)
        return self.fetched

    def poll(self) -> int:
        """Fetch, take and acknowledge what waits now: how many answers there were.

        The mailbox is opened at the first call, and after every failure. Raises `RetryLaterError` while the service is
        away.
        """
        if not self._opened:
            self._mailbox.open(self._tokens)
            self._opened = True
        waiting = self._mailbox.waiting()
        for answer in waiting:
            self._take(self._mailbox.fetch(answer.number, self._keys.plan))
            self._mailbox.acknowledge(answer.number)
            if self._stop.is_set():
                break
        return len(waiting)

    def _take(self, content: bytes) -> None:
        try:
            label, message = parcel.from_bytes(content)
        except RejectMessageError:
            self.fetched.rejected += 1
            event("centre.rejected", labelled=False)
            return
        try:
            envelope = wire.from_bytes(bytes(message), max_payload=self._keys.plan.max_answer_bytes)
            messages.refuse_foreign(envelope.header, self._keys.record, where=label.gateway)
            if envelope.header.kind != "answer" or envelope.header.rows != len(label.readings):
                raise RejectMessageError("this is no answer to what its label says")
            scores = workflow.unseal(self._keys, self._decryptor, envelope, ())
        except SecureadError as error:
            scores = None
            event("centre.rejected", labelled=True, error=type(error).__name__)
        began = self._record.take(label, scores)
        if began is None:
            self.fetched.again += 1
            return
        self.fetched.rejected += scores is None
        self.fetched.taken += scores is not None
        self.fetched.windows += 0 if scores is None else len(scores)
        for alarm in began:
            self.fetched.alarms += 1
            self._told(alarm)
