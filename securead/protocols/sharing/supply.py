"""A party's link to the dealer, and what the two say to each other.

party                    dealer
  -> Join                 (who asks is in its certificate; session, lane, and what it computes)
  <- SEED                 (32 fresh bytes, once the other party of the session is there too)
  -> Deal                 (party 0 only; sets strictly increase)
  <- BEAT ...             (each second while it computes or waits)
  <- CORRECTIONS          (the set's number, then the words that party 0 lacks)
  -> BEAT, <- BEAT        (at any time between requests, either party)
  <- REFUSAL              (in place of an answer; the link ends with it)
"""

from __future__ import annotations

import struct
import threading
from dataclasses import dataclass
from enum import IntEnum
from typing import ClassVar, Literal, Protocol

from securead.errors import RejectMessageError
from securead.protocols.sharing import messages
from securead.protocols.sharing.channel import SILENCE, LinkError
from securead.protocols.sharing.correlations import Correlation
from securead.protocols.sharing.links import Address, Identity, dial

DEALER, PARTIES = "dealer", ("party0", "party1")
SEED_BYTES = 32
SET_NUMBER = struct.Struct("<Q")
MAX_DEAL_BYTES = 512
BEAT_SECONDS = 1.0


class Kind(IntEnum):
    """The kinds of frames between a party and the dealer."""

    JOIN = 32
    SEED = 33
    DEAL = 34
    CORRECTIONS = 35
    BEAT = 36
    REFUSAL = 37


class Dealing(Protocol):
    """What a dealer and its parties need of a `SharingPlan`."""

    @property
    def program_digest(self) -> str: ...
    @property
    def digest(self) -> str: ...
    @property
    def buckets(self) -> tuple[int, ...]: ...
    def correlations(self, rows: int, verdict: bool) -> tuple[Correlation, ...]: ...
    def offline_bytes(self, rows: int, verdict: bool) -> int: ...


@dataclass(frozen=True)
class Join:
    """A party's first words. Two parties that name the same session and lane, which are fresh, share it."""

    type_tag: ClassVar[str] = "join"
    version: int
    program: str
    plan: str
    session: str
    lane: int


@dataclass(frozen=True)
class Deal:
    """All that can be asked for: one set of the plan's correlations, for `rows` rows, a power of two."""

    op: Literal["deal"]
    set: int
    rows: int
    verdict: bool


class Supply:
    """The link of party `index` to the dealer, for one session. Its methods may be called from different threads.

    Making one dials and says who asks; it does not wait for the other party. Raises `LinkError` when the dealer is out
    of reach, `UntrustedPeerError` when certificates do not fit.
    """

    def __init__(
        self,
        address: Address,
        identity: Identity,
        *,
        index: int,
        session: str,
        lane: int,
        plan: Dealing,
        timeout: float = SILENCE,
    ) -> None:
        if identity.name != PARTIES[index]:
            raise ValueError("the identity of another party")
        self._plan, self._index, self._last = plan, index, 0
        self._turn = threading.Lock()
        self._link = dial(address, identity, DEALER, timeout=timeout)
        try:
            join = Join(messages.VERSION, plan.program_digest, plan.digest, session, lane)
            self._link.send(Kind.JOIN, messages.to_bytes(join))
        except LinkError:
            self._link.close()
            raise

    def seed(self) -> bytes:
        """This party's seed of the session, once both parties are there. Call it once.

        Raises what the dealer refuses with, or `LinkError` when the other party does not come in time.
        """
        with self._turn:
            return bytes(self._answer(Kind.SEED, SEED_BYTES))

    def deal(self, set_id: int, rows: int, verdict: bool) -> memoryview:
        """Party 0's corrections for a new set; waits as long as the dealer shows signs of life."""
        with self._turn:
            request = Deal("deal", set_id, rows, verdict)
            length = self._plan.offline_bytes(rows, verdict)
            self._link.send(Kind.DEAL, messages.to_bytes(request))
            body = self._answer(Kind.CORRECTIONS, SET_NUMBER.size + length)
            (number,) = SET_NUMBER.unpack_from(body)
            if number != set_id or len(body) != SET_NUMBER.size + length:
                self._link.close()
                raise LinkError("the dealer answered with another set", value=number)
            return memoryview(body)[SET_NUMBER.size :]

    def check(self) -> None:
        """Raise `LinkError` when the dealer is gone or ended the session; a request in work is a sign of life."""
        if self._link.broken:
            raise LinkError("the link to the dealer is closed", remedy="A new session will dial it again.")
        if self._turn.acquire(blocking=False):
            try:
                self._link.send(Kind.BEAT)
                self._link.receive(Kind.BEAT, exact=0)
            finally:
                self._turn.release()

    def close(self) -> None:
        """Hang up, which ends the session at the dealer for both parties. Wakes who waits."""
        self._link.close()

    def _answer(self, kind: Kind, limit: int) -> bytearray:
        while True:
            found, body = self._link.receive_any({kind: limit, Kind.BEAT: 0, Kind.REFUSAL: messages.MAX_HEADER_BYTES})
            if found == Kind.REFUSAL:
                self._link.close()
                try:
                    refusal = messages.from_bytes(messages.Refusal, body, sender=DEALER)
                except RejectMessageError as error:
                    raise LinkError("the dealer refused, and not in our words") from error
                raise refusal.to_error(DEALER)
            if found == kind:
                return body
