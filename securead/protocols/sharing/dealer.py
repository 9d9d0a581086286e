"""The dealer: a process that makes correlated randomness for two parties, and learns nothing else.

It knows one program's public half and derives the plan from it. Guarantees: it answers no one but `party0` and
`party1` of its authority, and nothing but `Deal` (`supply`); a seed is 32 bytes of the system's generator, leaves only
once both parties presented the same session and lane, and is neither logged nor kept longer than the session; set
numbers strictly increase within a session, so no set is dealt twice; a session ends for both parties when either's
link does; one set a session is in work at a time, and sessions, connections and rows are bounded. The dealer sees
neither shares nor results. If it colludes with a party, that party sees everything: the parties' security rests on it.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from dataclasses import dataclass, field
from pathlib import Path

from securead import codec, files
from securead.errors import FixConfigurationError, RejectMessageError, RetryLaterError, SecureadError
from securead.observe import count, event
from securead.program.polynomial import PublicPolynomial
from securead.program.program import PublicProgram
from securead.program.table import PublicTable
from securead.protocols.sharing import dealing, messages
from securead.protocols.sharing.links import Arrival, Channel, Identity, LinkError, Listener
from securead.protocols.sharing.settings import read_toml
from securead.protocols.sharing.supply import (
    BEAT_SECONDS,
    MAX_DEAL_BYTES,
    PARTIES,
    SEED_BYTES,
    SET_NUMBER,
    Deal,
    Dealing,
    Join,
    Kind,
)

_MAX_PROGRAM_BYTES = 64 << 20
_MAX_SET = 1 << 62
_ASIDE = 16  # connections beyond the sessions' own: handshakes, and sessions that end while others begin


@dataclass(frozen=True)
class DealerConfig:
    """The dealer's TOML file.

    `program`: the public half that `securead split` wrote. `identity`: a directory that `securead certs` made.
    `silence_seconds`: how long a party may be silent in the middle of a message, and wait for the other one to come.
    `sessions`: lanes served at a time. `workers`: sets computed at a time, 0: as many as there are processors.
    """

    program: str
    identity: str
    host: str = "127.0.0.1"
    port: int = 0
    silence_seconds: float = 3.0
    sessions: int = 64
    workers: int = 0

    PATHS = ("program", "identity")

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("port", self.port, 0, 65535),
            ("silence_seconds", self.silence_seconds, 0.1, 60),
            ("sessions", self.sessions, 1, 1024),
            ("workers", self.workers, 0, 1024),
        ):
            if not low <= value <= high:
                raise FixConfigurationError(
                    f"the entry {name!r} is wrong", value=value, remedy=f"Write {low} to {high}."
                )


def run(
    path: Path | str,
    *,
    passphrase: str | None = None,
    announce: Callable[[str], None],
    until_stdin_closes: bool = False,
) -> None:
    """Deal as the TOML file says until SIGTERM or SIGINT; `announce` is told HOST:PORT once it listens."""
    dealer = Dealer.open(read_toml(DealerConfig, path, paths=DealerConfig.PATHS), passphrase=passphrase)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: dealer.stop())
    if until_stdin_closes:
        threading.Thread(target=_stop_with_stdin, args=(dealer,), daemon=True).start()
    announce("{}:{}".format(*dealer.address))
    dealer.serve_forever()


def _stop_with_stdin(dealer: Dealer) -> None:
    """End when whoever started us is gone."""
    with contextlib.suppress(OSError, ValueError):
        while os.read(0, 4096):
            pass
    dealer.stop()


def read_program(path: Path | str) -> PublicProgram:
    """A program's public half from JSON, of either kind."""
    plain = files.read_json(Path(path), limit=_MAX_PROGRAM_BYTES)
    program: PublicProgram
    if isinstance(plain, dict) and plain.get("type") == PublicTable.type_tag:
        program = codec.from_plain(PublicTable, plain, where=str(path))
    else:
        program = codec.from_plain(PublicPolynomial, plain, where=str(path))
    return program


@dataclass(eq=False)
class _Session:
    """Two links that share their fate, with a fresh seed each."""

    links: dict[str, Channel] = field(default_factory=dict)
    seeds: tuple[bytes, bytes] = field(
        default_factory=lambda: (os.urandom(SEED_BYTES), os.urandom(SEED_BYTES)), repr=False
    )

    @property
    def complete(self) -> bool:
        return len(self.links) == len(PARTIES)


class Dealer:
    """Serves both parties of all lanes at `listener`, with the sets of one plan."""

    def __init__(
        self, listener: Listener, plan: Dealing, *, silence: float = 3.0, sessions: int = 64, workers: int = 0
    ) -> None:
        self._listener, self._plan, self._silence = listener, plan, silence
        self._most = sessions
        self._sessions: dict[tuple[str, int], _Session] = {}
        self._changed = threading.Condition()
        self._channels: set[Channel] = set()
        self._places = threading.BoundedSemaphore(2 * sessions + _ASIDE)
        self._workers = ThreadPoolExecutor(workers or os.cpu_count() or 1, thread_name_prefix="deal")
        self._closed = False

    @classmethod
    def open(cls, config: DealerConfig, *, passphrase: str | None = None) -> Dealer:
        """The dealer that a configuration describes, listening but not yet serving."""
        from securead.protocols.sharing.plan import make_plan

        plan = make_plan(read_program(config.program), "same")
        identity = Identity.load(config.identity, passphrase=passphrase)
        if identity.name != "dealer":
            raise FixConfigurationError(
                "the certificate is not the dealer's", where="identity", value=identity.name, remedy="Name DIR/dealer."
            )
        listener = Listener((config.host, config.port), identity, timeout=config.silence_seconds)
        return cls(listener, plan, silence=config.silence_seconds, sessions=config.sessions, workers=config.workers)

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens."""
        return self._listener.address

    def serve_forever(self) -> None:
        """Serve until `stop` or `close` is called, then hang up on everyone."""
        try:
            while not self._closed:
                try:
                    arrival = self._listener.wait()
                except LinkError:
                    continue
                if self._places.acquire(blocking=False):
                    threading.Thread(target=self._receive, args=(arrival,), name="dealer link", daemon=True).start()
                else:
                    arrival.close()
                    count("dealer_connections_turned_away")
        finally:
            self.close()

    def stop(self) -> None:
        """Make `serve_forever` end. May be called from a signal's handler."""
        self._closed = True
        self._listener.close()

    def close(self) -> None:
        """Stop listening and hang up on everyone. May be called from any thread, repeatedly."""
        self.stop()
        with self._changed:
            channels = list(self._channels)
            self._changed.notify_all()
        for channel in channels:
            channel.close()
        self._workers.shutdown(wait=False, cancel_futures=True)

    # One link, in its own thread.

    def _receive(self, arrival: Arrival) -> None:
        try:
            channel = arrival.handshake()
        except LinkError as error:
            event("dealer.refused", reason=str(error)[:200])
            self._places.release()
            return
        with self._changed:
            self._channels.add(channel)
        if self._closed:  # between the two, `close` may have missed it
            channel.close()
        try:
            self._serve(channel)
        except LinkError as error:
            event("dealer.link_ended", peer=channel.peer, reason=str(error)[:200])
        except SecureadError as error:
            _refuse(channel, error)
            channel.close(linger=1.0)  # it may be sending
        finally:
            channel.close()
            with self._changed:
                self._channels.discard(channel)
            self._places.release()

    def _serve(self, channel: Channel) -> None:
        if channel.peer not in PARTIES:
            raise RejectMessageError("the dealer serves the two parties only", value=channel.peer)
        content = channel.receive(Kind.JOIN, limit=messages.MAX_HEADER_BYTES)
        join: Join = messages.from_bytes(Join, content, sender=channel.peer)
        messages.refuse_mismatch(
            join.program,
            join.plan,
            ours=(self._plan.program_digest, self._plan.digest),
            sender=channel.peer,
        )
        name, index = (join.session, join.lane), PARTIES.index(channel.peer)
        session = self._meet(name, channel)
        try:
            channel.send(Kind.SEED, session.seeds[index])
            if index == 0:
                event("dealer.session", lane=join.lane)
            self._answer(channel, session)
        except LinkError:
            raise
        except SecureadError as error:
            _refuse(channel, error)
        finally:
            channel.close()  # and with it the other party's: nothing more is taken from this session
            with self._changed:
                self._sessions.pop(name, None)

    def _meet(self, name: tuple[str, int], channel: Channel) -> _Session:
        """The session that both parties named, once both are there."""
        deadline = time.monotonic() + self._silence
        with self._changed:
            if name not in self._sessions and len(self._sessions) >= self._most:
                raise RetryLaterError("the dealer serves as many sessions as it may", value=self._most)
            session = self._sessions.setdefault(name, _Session())
            if channel.peer in session.links:
                raise RejectMessageError("this party is in this session already", remedy="Start a new session.")
            session.links[channel.peer] = channel
            if session.complete:
                first, second = session.links.values()
                first.share_fate(second)
                self._changed.notify_all()
            while not session.complete and not channel.broken:
                left = deadline - time.monotonic()
                if left <= 0 or self._closed:
                    self._sessions.pop(name, None)
                    raise RetryLaterError(
                        "the other party did not join the session", remedy="Is it running, with this dealer's address?"
                    )
                # While it waits, its link is not listened to: a party that leaves is found out by sending.
                if not self._changed.wait(min(left, BEAT_SECONDS)):
                    self._beat(name, channel)
            return session

    def _beat(self, name: tuple[str, int], channel: Channel) -> None:
        try:
            channel.send(Kind.BEAT)
        except LinkError:
            self._sessions.pop(name, None)
            raise

    def _answer(self, channel: Channel, session: _Session) -> None:
        """Answer heartbeats, and party 0's requests, until the link ends."""
        kinds = {int(Kind.BEAT): 0}
        if channel.peer == PARTIES[0]:
            kinds[int(Kind.DEAL)] = MAX_DEAL_BYTES
        last = -1
        while True:
            kind, body = channel.receive_any(kinds, timeout=math.inf)
            if kind == Kind.BEAT:
                channel.send(Kind.BEAT)
            else:
                last = self._deal(channel, session, body, last)

    def _deal(self, channel: Channel, session: _Session, body: bytearray, last: int) -> int:
        wanted: Deal = messages.from_bytes(Deal, body, sender=channel.peer)
        if not last < wanted.set < _MAX_SET:
            raise RejectMessageError("set numbers strictly increase", value=wanted.set, remedy="Start a new session.")
        if wanted.rows not in self._plan.buckets:
            raise RejectMessageError("no set has so many rows", value=wanted.rows, remedy="Ask for a power of two.")
        made = self._workers.submit(self._make, session, wanted)
        while (corrections := _ready(made)) is None:
            channel.send(Kind.BEAT)
        channel.send(Kind.CORRECTIONS, SET_NUMBER.pack(wanted.set), corrections)
        count("dealer_sets")
        return wanted.set

    def _make(self, session: _Session, wanted: Deal) -> bytes:
        if any(link.broken for link in session.links.values()):
            raise LinkError("the session ended")
        keys = (dealing.set_key(seed, wanted.set, wanted.rows, wanted.verdict) for seed in session.seeds)
        return dealing.deal(self._plan.correlations(wanted.rows, wanted.verdict), *keys)


def _refuse(channel: Channel, error: SecureadError) -> None:
    event("dealer.refused", peer=channel.peer, reason=str(error)[:200])
    with contextlib.suppress(LinkError):
        channel.send(Kind.REFUSAL, messages.to_bytes(messages.Refusal.of(error)))


def _ready(made: Future[bytes]) -> bytes | None:
    try:
        return made.result(BEAT_SECONDS)
    except NotYet:
        return None
