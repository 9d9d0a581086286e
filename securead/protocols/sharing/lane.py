"""One lane of one party: a process that serves one request at a time and, after any failure, starts anew.

The main thread owns the computation and the links to the other party and the dealer; threads of the reception own the
clients. Whatever ends a session, the lane forgets the session's keys and correlations, tells the clients whose requests
it had, and opens another: party 1 dials, party 0 waits for it, neither minds the order in which processes start.
"""

from __future__ import annotations

import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass

from securead.errors import FixConfigurationError, RetryLaterError, SecureadError
from securead.observe import count, event
from securead.protocols.sharing.links import Identity, Listener
from securead.protocols.sharing.meeting import Doorway, Machine, Session, follow, lead
from securead.protocols.sharing.plan import SEED_BYTES, SharingPlan, make_plan
from securead.protocols.sharing.reception import PARTIES, Facts, Reception
from securead.protocols.sharing.session import lost, serve_follower, serve_leader
from securead.protocols.sharing.settings import PartyConfig
from securead.protocols.sharing.shares import ModelShare
from securead.protocols.sharing.store import Store

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 0.5  # between attempts to meet the others: ready again within 2 s needs no more
_LASTING_SECONDS = 1.0  # a session that lived so long had nothing wrong with it


@dataclass(frozen=True)
class Told:
    """What a lane tells its operator: where it listens, whether it is ready, and why not."""

    name: str
    lane: int
    address: str
    program: str
    ready: bool
    state: str


class Lane:
    """A lane, ready to `run`. `announce` is called when it listens, and with every change of its state.

    Raises `FixConfigurationError` for a certificate or a share of another party.
    """

    def __init__(
        self,
        config: PartyConfig,
        index: int,
        lane: int,
        *,
        identity: Identity,
        share: ModelShare,
        machine: Callable[[SharingPlan], Machine],
        announce: Callable[[Told], None],
    ) -> None:
        name = PARTIES[index]
        if identity.name != name:
            raise FixConfigurationError(
                f"the certificate is named {identity.name!r}, this is {name}",
                where="identity",
                remedy=f"Make one with: securead certs --name {name}",
            )
        if share.index != index:
            raise FixConfigurationError(
                f"the model's share is party {share.index}'s, this is {name}",
                where="model",
                remedy=f"Give the file {name}.model.",
            )
        plan = make_plan(share.public, "same")
        self._config, self._identity, self._split = config, identity, share.split
        self._facts = Facts(
            index=index,
            lane=lane,
            program=plan.program_digest,
            plan=plan.digest,
            verdicts_only=share.verdicts_only,
            max_rows=plan.rows_per_chunk,
            payload_bytes=plan.request_bytes if index == 0 else lambda _: SEED_BYTES,
            bucket=plan.bucket,
        )
        self._plan, self._make_machine, self._announce = plan, machine, announce
        self._wake = threading.Condition()
        self._stopping = False
        self._state = ""
        self._listener = Listener((config.host, config.port_of(lane)), identity, timeout=config.silence_seconds)
        self._doorway = Doorway(self._facts, self._split, wake=self._wake) if index == 0 else None
        self._reception = Reception(
            self._listener,
            self._facts,
            wake=self._wake,
            on_link=self._doorway.offer if self._doorway is not None else None,
            clients=config.clients,
            connections=config.connections,
        )
        self._session: Session | None = None

    @property
    def port(self) -> int:
        """Where it listens."""
        return self._listener.port

    def stop(self) -> None:
        """End `run` soon; a request in work is finished first. May be called from a signal handler."""
        self._stopping = True

    def run(self) -> None:
        """Serve until `stop`."""
        self._reception.start()
        self._say(False, "is starting")
        pause = _FIRST_PAUSE
        try:
            # Takes seconds: who needs this lane's address has it already, and starts meanwhile.
            machine = self._make_machine(self._plan)
            event("sharing.started", index=self._facts.index, lane=self._facts.lane, port=self.port)
            while not self._stopping:
                began = time.monotonic()
                if self._meet(machine):
                    began = time.monotonic()
                    self._serve()
                    if self._doorway is not None or time.monotonic() - began > _LASTING_SECONDS:
                        pause = _FIRST_PAUSE
                        continue
                if not self._stopping:
                    # Only party 1 may be refused, at once or soon (there may be two of it); party 0 waits in `_meet`.
                    time.sleep(max(0.0, pause - (time.monotonic() - began)))
                    pause = min(2 * pause, _LONGEST_PAUSE)
        finally:
            self._say(False, "is ending")
            self._reception.close()

    def _meet(self, machine: Machine) -> bool:
        """Open a session; False when that failed, or nobody came yet."""
        try:
            if self._doorway is None:
                self._session = follow(
                    self._config.leader_of(self._facts.lane),
                    self._identity,
                    self._facts,
                    self._split,
                    machine,
                    self._config.silence_seconds,
                )
                return True
            pair = self._doorway.take(_LONGEST_PAUSE)
            if pair is not None:
                self._session = lead(pair, self._facts, self._split, machine)
            else:
                self._say(False, f"waits for {PARTIES[1]}: {self._doorway.problem or 'it has not called'}")
            return pair is not None
        except SecureadError as error:
            self._say(False, f"is not ready: {error.what}")
        except Exception as error:
            self._report(error)
        return False

    def _serve(self) -> None:
        """Serve in the open session until it ends."""
        session = self._session
        if session is None:
            raise ValueError("there is no session")
        self._say(True, "is ready")
        event("sharing.session", session=session.name, index=self._facts.index, lane=self._facts.lane)
        count("sharing.sessions")
        error: BaseException | None = None
        store: Store | None = None
        try:
            if self._doorway is None:
                serve_follower(session, self._reception, stop=lambda: self._stopping)
            else:
                store = Store(
                    session.supplier,
                    limit=self._config.stock_bytes,
                    size_of=self._plan.offline_bytes,
                    wake=self._wake,
                )
                serve_leader(
                    session, self._reception, store, self._doorway, wake=self._wake, stop=lambda: self._stopping
                )
        except SecureadError as raised:
            error = raised
        except Exception as raised:
            error = raised
            self._report(raised)
        # From here on nothing of the session is used: first who waits is told, then everything is forgotten.
        told = lost(error or RetryLaterError("it is ending"), self._facts.index)
        self._say(False, f"starts anew: {told.what}"[:200])
        self._reception.fail_all(told)
        event("sharing.session_lost", session=session.name, reason=told.what[:200])
        self._session = None
        session.close()
        if store is not None:
            store.close()

    def _say(self, ready: bool, state: str) -> None:
        self._reception.set_state(ready, state)
        if state != self._state:
            self._state = state
            event("sharing.state", index=self._facts.index, lane=self._facts.lane, ready=ready, state=state[:200])
            address = f"{self._config.host}:{self.port}"
            self._announce(
                Told(PARTIES[self._facts.index], self._facts.lane, address, self._facts.program, ready, state)
            )

    def _report(self, error: Exception) -> None:
        """A bug, or a machine in trouble: its place is worth knowing, its values are not (tracebacks hold none)."""
        event("sharing.failure", error=type(error).__name__)
        traceback.print_exception(error)
