"""An open session: requests agreed on and computed, one at a time, and beats while there are none.

Guarantees: each request is computed only after party 1 has compared the leader's view of it, header and client, with
what that client sent to party 1 itself; a set of correlations is used once. The first failure ends the session: both
parties notice, at once or when a beat stays away, and open another.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from securead.errors import RejectMessageError, RetryLaterError, SecureadError
from securead.observe import count, event
from securead.protocols.sharing.channel import LinkError
from securead.protocols.sharing.meeting import Doorway, Pair, Session, unexpected
from securead.protocols.sharing.messages import Agreed, Answer, Beat, Bind
from securead.protocols.sharing.reception import PARTIES, Pending, Reception
from securead.protocols.sharing.store import Dealt, Store

BEAT_SECONDS = 1.0
_ARRIVAL_SECONDS = 0.05


def serve_leader(
    session: Session,
    reception: Reception,
    store: Store,
    doorway: Doorway,
    *,
    wake: threading.Condition,
    stop: Callable[[], bool],
) -> None:
    """Serve requests until `stop()`; raises what ended the session.

    Another party 1 at the doorway is taken in only when the one of this session no longer answers.
    """
    pair, next_beat = session.pair, time.monotonic() + BEAT_SECONDS
    while True:
        store.check()
        if doorway.waiting:
            _beat(pair)
            doorway.refuse(_taken())
        with wake:
            pending = reception.take()
            if pending is None and not doorway.waiting:
                if stop():
                    return
                wake.wait(reception.pause(max(0.0, next_beat - time.monotonic())))
                pending = reception.take()
        if pending is not None:
            _lead_request(session, reception, store, pending)
        if time.monotonic() >= next_beat:
            _beat(pair)
            next_beat = time.monotonic() + BEAT_SECONDS


def _taken() -> RetryLaterError:
    return RetryLaterError(
        f"{PARTIES[0]} is in a session with a {PARTIES[1]} that answers",
        remedy=f"Is {PARTIES[1]} running twice, or with another one's `leader`? Stop one of them.",
    )


def _beat(pair: Pair) -> None:
    pair.say(Beat())
    if not isinstance(message := pair.hear(), Beat):
        raise unexpected(message)


def _lead_request(session: Session, reception: Reception, store: Store, pending: Pending) -> None:
    store.working(True)  # the machine is the request's; what comes next is prepared afterwards
    try:
        _propose(session, reception, store, pending)
    finally:
        store.working(False)


def _propose(session: Session, reception: Reception, store: Store, pending: Pending) -> None:
    """Agree with party 1 on a request and compute it, or tell the client why not."""
    need = (reception.facts.bucket(pending.request.rows), pending.request.verdict)
    while (dealt := store.take(need, timeout=BEAT_SECONDS)) is None:
        _beat(session.pair)
    if pending.cancelled:
        store.put_back(dealt)
        return
    session.pair.say(Bind(pending.request, pending.client, dealt.number))
    agreed = session.pair.hear()
    if not isinstance(agreed, Agreed):
        raise unexpected(agreed)
    match agreed.answer:
        case "ok":
            _compute(session, pending, dealt.number, dealt)
        case "later":  # party 1 has not touched its half of the set
            store.put_back(dealt)
            reception.postpone(pending)
        case "no":
            store.put_back(dealt)
            pending.fail(RejectMessageError(f"{PARTIES[1]} refused: {agreed.reason}", remedy="Send a new request."))


def serve_follower(session: Session, reception: Reception, *, stop: Callable[[], bool]) -> None:
    """Serve what the leader proposes until `stop()`; raises what ended the session."""
    while not stop():
        match session.pair.hear():
            case Beat():
                session.pair.say(Beat())
            case Bind() as bind:
                _follow_request(session, reception, bind)
            case message:
                raise unexpected(message)


def _follow_request(session: Session, reception: Reception, bind: Bind) -> None:
    asked = bind.request
    pending = reception.find(bind.client, asked.request, asked.attempt, timeout=_ARRIVAL_SECONDS)
    if pending is None:
        session.pair.say(Agreed("later"))
        return
    reason = ""
    if pending.request != asked:
        reason = "the client told the parties different things"
    need = (reception.facts.bucket(asked.rows), asked.verdict)
    if bind.set <= session.used.get(need, 0):
        raise LinkError("a set of correlations was offered twice", value=bind.set)
    if reason:
        session.pair.say(Agreed("no", reason))
        pending.fail(RejectMessageError(reason, remedy="Send both parties the same header."))
        return
    session.used[need] = bind.set
    session.pair.say(Agreed("ok"))
    _compute(session, pending, bind.set, None)


def _compute(session: Session, pending: Pending, number: int, dealt: Dealt | None) -> None:
    """Compute a request on which both parties agree, and hand this party's share out."""
    request = pending.request
    event(
        "sharing.compute",
        session=session.name,
        set=number,
        rows=request.rows,
        verdict=request.verdict,
        request=request.request,
        attempt=request.attempt,
    )
    share, cost = session.computing.compute(request, pending.payload, number, dealt)
    count("sharing.requests")
    count("sharing.rows", request.rows)
    count("sharing.second_attempts", request.attempt)
    answer = Answer(
        request=request.request,
        attempt=request.attempt,
        rows=request.rows,
        seconds=cost.seconds,
        rounds=cost.rounds,
        bytes_sent=cost.bytes_sent,
        bytes_received=cost.bytes_received,
        offline_bytes=len(dealt.corrections) if dealt is not None else 0,
    )
    pending.finish(answer, share)


def lost(error: BaseException, index: int) -> SecureadError:
    """What clients are told of a session that ended by `error`."""
    other = PARTIES[1 - index]
    why = error.what if isinstance(error, SecureadError) else f"{PARTIES[index]} failed ({type(error).__name__})"
    return RetryLaterError(
        f"the computation was given up, nothing was released: {why}",
        remedy=f"{PARTIES[index]} and {other} start anew; send the request again.",
    )
