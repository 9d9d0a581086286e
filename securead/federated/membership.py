"""Who takes part in a run, and asking them: sites may be late, die, come back elsewhere, or be somebody else."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from typing import Protocol

import numpy as np

from securead.data.windows import WindowedSchema
from securead.errors import FixInputError, RejectMessageError, RetryLaterError, SecureadError, UseOtherKeyError
from securead.federated.checkpoint import Checkpoint
from securead.federated.events import Answered, Joined, Left, Listener, Waiting
from securead.federated.federation import Terms
from securead.federated.messages import Answer, Ask, plain_text
from securead.protocols.masking.adverts import Advert
from securead.protocols.masking.identity import Roster
from securead.protocols.masking.masks import check_member

JOIN_SECONDS, POLL_SECONDS = 10.0, 0.1


class Transport(Protocol):
    """Carries asks to sites and answers back. Addresses are opaque; a site that restarts may have another one."""

    def present(self) -> Collection[str]:
        """Addresses that can be asked now."""

    def certified(self, address: str) -> str | None:
        """The name that the transport itself vouches for, or None where only signatures tell."""

    def exchange(self, asks: Mapping[str, Ask], *, seconds: float, answered: Callable[[str, Answer], None]) -> None:
        """Deliver asks to addresses and hand over each answer as it comes.

        Returns when all have answered, or can no longer, and after `seconds` at the latest. Late answers are dropped.
        """

    def traffic(self, address: str) -> tuple[int, int]:
        """Bytes to and from an address so far."""


class Membership:
    """The sites of one run as the coordinator knows them: who is where, under which key, and what it was told.

    Guarantees: a site is one process at a time, and one key throughout the run, where `roster` knows whose signature is
    whose; an answer that no honest site gives is its author's end in the run, and nobody else's.
    """

    def __init__(
        self, terms: Terms, transport: Transport, memory: Checkpoint, roster: Roster | None, tell: Listener
    ) -> None:
        self._terms, self._transport, self._memory, self._tell, self._roster = terms, transport, memory, tell, roster
        self._addresses: dict[str, str] = {}
        self._refused: set[str] = set()
        self._known_traffic: Counter[str] = Counter()
        self.adverts: dict[str, Advert] = {}
        self.rounds_told: Counter[str] = Counter()
        """Of how many rounds each site has the sums."""
        self.group_keys: dict[str, str] = {}
        """The name of the sites' key that each site says it holds; "" for none."""

    def gather(self, least: int, wait: float) -> None:
        """Wait for the sites of the recipe: for all of them, and after `wait` seconds for as few as `least`."""
        start, told = time.monotonic(), tuple[str, ...]()
        while True:
            self.admit_strangers()
            missing = tuple(name for name in self._terms.names if name not in self.present())
            left = start + wait - time.monotonic()
            if not missing or (left <= 0 and len(self._terms.names) - len(missing) >= least):
                return
            if left <= 0:
                raise RetryLaterError(
                    f"only {len(self._terms.names) - len(missing)} of at least {least} sites came",
                    value=", ".join(missing),
                    remedy="Start the missing ones, and then the coordinator again.",
                )
            if missing != told:
                self._tell(Waiting(missing, left))
                told = missing
            time.sleep(POLL_SECONDS)

    def incomplete(self) -> bool:
        """Whether a site of the recipe has not joined, or has left."""
        return len(self._addresses) < len(self._terms.names)

    def present(self) -> list[str]:
        """Sites that take part and can be asked, in the recipe's order."""
        there = set(self._transport.present())
        return [name for name in self._terms.names if self._addresses.get(name) in there]

    def admit_strangers(self) -> None:
        """Ask whoever is new to join, and tell whom not to."""
        known = {*self._addresses.values(), *self._refused}
        strangers = [address for address in self._transport.present() if address not in known]
        if not strangers:
            return
        join = Ask("join", self._memory.run, digests=tuple(self._terms.digests().items()))
        answers: dict[str, Answer] = {}
        seconds = min(JOIN_SECONDS, self._terms.federation.round_timeout)
        self._transport.exchange(dict.fromkeys(strangers, join), seconds=seconds, answered=answers.__setitem__)
        told: dict[str, Ask] = {}
        for address, answer in answers.items():
            try:
                self._admit(address, answer)
            except SecureadError as error:
                self._refused.add(address)
                self._tell(Left(self._transport.certified(address) or plain_text(answer.site), plain_text(str(error))))
                if answer.refusal is None:
                    told[address] = Ask("refuse", self._memory.run, text=str(error))
        if told:
            self._transport.exchange(told, seconds=seconds, answered=lambda address, answer: None)

    def _admit(self, address: str, answer: Answer) -> None:
        name, certified = answer.site, self._transport.certified(address)
        if answer.refusal is not None:
            raise RejectMessageError(f"it refuses: {answer.refusal.text}")
        if name not in self._terms.names or certified not in (None, name):
            raise UseOtherKeyError(
                "a stranger wants to take part",
                value=certified or name,
                remedy="A site's name is one of the recipe's, and the one in its certificate.",
            )
        advert = answer.advert
        if self._roster is not None:
            if advert is None or advert.name != name or advert.run != self._memory.run:
                raise RejectMessageError("it did not sign that it takes part in this run", value=name)
            self._roster.verify(name, advert.credential_bytes, advert.statement, advert.signature_bytes)
            # Handed on, such a key would make all others refuse.
            check_member((name, advert.key_bytes))
            theirs = {other: each.key for other, each in self.adverts.items()} | self._memory.keys
            if any(key == advert.key for other, key in theirs.items() if other != name):
                raise UseOtherKeyError("its key of the run is another site's", value=name)
        if name in self.present():
            raise FixInputError(
                f"another process takes part as {name!r} already",
                remedy="A site is one process: stop the other one, or wait until it is gone.",
            )
        if advert is not None and self._memory.keys.get(name, advert.key) != advert.key:
            raise UseOtherKeyError(
                f"site {name!r} has lost its memory of this run: its key is another one",
                remedy="It takes part again in the next run; the others go on without it.",
            )
        self._addresses[name] = address
        self.rounds_told[name] = max(0, min(answer.rounds, len(self._memory.totals)))
        self.group_keys[name] = answer.group_key
        if advert is not None:
            self.adverts[name] = advert
        self._tell(Joined(name))

    def leave(self, name: str, reason: str, *, for_good: bool = False) -> None:
        """Leave a site out; it may join again, unless it is `for_good`."""
        address = self._addresses.pop(name)
        if for_good:
            self._refused.add(address)
        self._tell(Left(name, plain_text(reason)))

    def ask(self, asks: Mapping[str, Ask], *, seconds: float | None = None) -> dict[str, Answer]:
        """Answers that fit, by site; whoever gives none in time or refuses leaves the run and may join again."""
        found: dict[str, Answer] = {}
        present = set(self.present())
        names = {self._addresses[name]: name for name in asks if name in present}

        def answered(address: str, answer: Answer) -> None:
            name, ask = names[address], asks[names[address]]
            if answer.refusal is not None:
                self.leave(name, answer.refusal.text, for_good=True)
            elif (answer.site, answer.kind, answer.round, answer.attempt) != (name, ask.kind, ask.round, ask.attempt):
                self.leave(name, "it answered what it was not asked", for_good=True)
            elif (wrong := self._wrong(name, answer)) is not None:
                self.leave(name, wrong, for_good=True)
            else:
                found[name] = answer
                self.rounds_told[name] = max(self.rounds_told[name], ask.since + len(ask.sums))
                if answer.report is not None:
                    self._memory.reports[name] = answer.report
                self._tell(self._answered(address, answer))

        by_address = {address: asks[name] for address, name in names.items()}
        limit = self._terms.federation.round_timeout if seconds is None else seconds
        if by_address:
            self._transport.exchange(by_address, seconds=limit, answered=answered)
        still = set(self._transport.present())
        for address, name in names.items():
            if name not in found and self._addresses.get(name) == address:
                self.leave(name, f"no answer in {limit:g} s" if address in still else "its connection ended")
        for name in asks:
            if name not in present and name in self._addresses:
                self.leave(name, "its connection ended")
        return found

    def _wrong(self, name: str, answer: Answer) -> str | None:
        """Why an answer is none that an honest site gives, or None."""
        plan, report, aggregation = self._terms.privacy, answer.report, self._terms.federation.aggregation
        if answer.kind == "prepare":
            records = None if report is None else report.records
            if report is None or report.site != name or (records is None) != (plan is None):
                return "it does not report what its budget has spent"
            limit = math.inf if plan is None else plan.epsilon * (1 + 1e-6)
            told = [each for each in (report.records, report.readings) if each is not None]
            if (
                any(each.site != name or each.epsilon < 0 or (each.spent or 0.0) < 0 for each in told)
                or (records is not None and records.epsilon > limit)
                or (report.readings is None) != (plan is None or not isinstance(self._terms.schema, WindowedSchema))
            ):
                return "its report of its budget cannot be"
        # What is encrypted is looked at where it is added up (`adding`).
        carries = {"plain": ("prepare",), "masked": ("send",), "paillier": ()}[aggregation]
        if answer.kind in carries:
            try:
                values = answer.values
            except RejectMessageError as error:
                return error.what
            if values.dtype != (np.uint64 if aggregation == "masked" else np.int64):
                return "its update has another form than it should"
            if aggregation == "plain" and max(-int(values.min(initial=0)), int(values.max(initial=0))) >= 2**62:
                return "its update is too large for a sum"
        return None

    def _answered(self, address: str, answer: Answer) -> Answered:
        sent, received = self._transport.traffic(address)
        before = self._known_traffic[f">{address}"], self._known_traffic[f"<{address}"]
        self._known_traffic[f">{address}"], self._known_traffic[f"<{address}"] = sent, received
        report = answer.report
        epsilon = None if report is None or report.records is None else report.records.epsilon
        seconds = None if report is None else report.seconds
        return Answered(answer.site, answer.kind, seconds, epsilon, answer.loss, sent - before[0], received - before[1])
