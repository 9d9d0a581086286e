"""A line to both parties of one lane: their greetings compared, requests sent to both, answers heard from both."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from securead.errors import FixConfigurationError, RejectMessageError, RetryLaterError, SecureadError
from securead.protocols.sharing import messages
from securead.protocols.sharing.channel import Channel, LinkError
from securead.protocols.sharing.links import Address, Identity, UntrustedPeerError, dial
from securead.protocols.sharing.messages import Answer, Greeting, Kind, Refusal, Reply, Request, Waiting
from securead.protocols.sharing.plan import WORD_BYTES, SharingPlan

NAMES = ("party0", "party1")
DIAL_SECONDS = 3.0
SILENCE_SECONDS = 4.0  # longer than the parties', so that they find out first and say what happened
_IDLE_SECONDS = 45.0  # parties hang up after 60
_REQUESTS = 4000  # parties hang up after 4096
_ECHO_SECONDS = 0.3


@dataclass(frozen=True, eq=False)
class Done:
    """Both parties' shares of one request, what it took there, and the bytes that went up and came down."""

    shares: tuple[bytes, bytes] = field(repr=False)
    answers: tuple[Answer, Answer]
    sent: int
    received: int


class Line:
    """Connections to both parties, greeted. Closed by the first error; not for several threads."""

    def __init__(
        self, channels: tuple[Channel, Channel], greetings: tuple[Greeting, Greeting], plan: SharingPlan
    ) -> None:
        self._channels, self._greetings, self._plan = channels, greetings, plan
        self._requests, self._last = 0, time.monotonic()

    @classmethod
    def open(
        cls, party0: Address, party1: Address, lane: int, *, identity: Identity, plan: SharingPlan, verdict: bool
    ) -> Line:
        """Connect to a lane of both parties, at once, and compare what they say with what we want.

        Raises `RetryLaterError` for a party that is away, silent or not ready, `RejectMessageError` for one that has
        something else, `FixConfigurationError` for certificates.
        """
        addresses = (party0[0], party0[1] + lane), (party1[0], party1[1] + lane)
        calls = [_Call(address, name, identity) for address, name in zip(addresses, NAMES, strict=True)]
        try:
            for call in calls:
                call.thread.join()
            for call in calls:
                if call.error is not None:
                    raise call.error
            greetings = tuple(call.checked(index, lane, plan, verdict) for index, call in enumerate(calls))
            channels = tuple(call.channel for call in calls)
        except BaseException:
            for call in calls:
                call.close()
            raise
        return cls(channels, greetings, plan)  # type: ignore[arg-type]

    @property
    def busy(self) -> bool:
        """Whether others' requests were in work when we connected."""
        return any(greeting.busy for greeting in self._greetings)

    @property
    def fresh(self) -> bool:
        """Whether the parties still hold it."""
        idle = time.monotonic() - self._last
        return idle < _IDLE_SECONDS and self._requests < _REQUESTS and not any(c.broken for c in self._channels)

    def close(self) -> None:
        """Hang up."""
        for channel in self._channels:
            channel.close()

    def ask(self, request: str, attempt: int, payloads: tuple[bytes, bytes], rows: int, verdict: bool) -> Done:
        """Have both parties compute one request; their shares of the answer."""
        self._requests += 1
        header = messages.to_bytes(
            Request(
                request=request,
                attempt=attempt,
                program=self._plan.program_digest,
                plan=self._plan.digest,
                lane=self._greetings[0].lane,
                rows=rows,
                verdict=verdict,
                nonces=(self._greetings[0].nonce, self._greetings[1].nonce),
                hashes=(messages.hash_of(payloads[0]), messages.hash_of(payloads[1])),
            )
        )
        before = self._traffic()
        try:
            for channel, payload in reversed(list(zip(self._channels, payloads, strict=True))):
                # Party 1 first: when the leader has its share, which is longer, party 1 is there already.
                channel.send(Kind.REQUEST, header)
                channel.send(Kind.PAYLOAD, payload)
            shares, answers = self._hear_both(request, attempt, rows)
        except BaseException:
            self.close()
            raise
        self._last = time.monotonic()
        after = self._traffic()
        return Done(shares, answers, after[0] - before[0], after[1] - before[1])

    def _traffic(self) -> tuple[int, int]:
        return sum(c.bytes_sent for c in self._channels), sum(c.bytes_received for c in self._channels)

    def _hear_both(self, request: str, attempt: int, rows: int) -> tuple[tuple[bytes, bytes], tuple[Answer, Answer]]:
        heard: dict[int, tuple[Answer, bytes]] = {}
        failed: list[Exception] = []  # in the order of time

        def hear(index: int) -> None:
            try:
                heard[index] = _hear(self._channels[index], request, attempt, rows)
            except Exception as error:
                failed.append(error)
                if index == 1:
                    self._channels[0].close()  # wakes this thread's other half

        other = threading.Thread(target=hear, args=(1,), daemon=True)
        other.start()
        hear(0)
        if failed:
            # One party's failure reaches the other at once: a moment later both have said what they know.
            other.join(_ECHO_SECONDS)
            self._channels[1].close()
        other.join()
        if failed:
            raise _most_telling(failed)
        return (heard[0][1], heard[1][1]), (heard[0][0], heard[1][0])


class _Call:
    """A connection that is being made, in a thread of its own: both parties are given the same few seconds."""

    def __init__(self, address: Address, name: str, identity: Identity) -> None:
        self._address, self._name, self._identity = address, name, identity
        self.channel: Channel | None = None
        self.greeting: Greeting | None = None
        self.error: SecureadError | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.channel = dial(self._address, self._identity, self._name, timeout=DIAL_SECONDS)
            self.channel.timeout = SILENCE_SECONDS
            content = self.channel.receive(Kind.REPLY, limit=messages.MAX_HEADER_BYTES, timeout=1.0)
            reply: Reply = messages.from_bytes(Reply, content, sender=self._name)
            if isinstance(reply, Refusal):
                raise reply.to_error(self._name)
            if not isinstance(reply, Greeting):
                raise RejectMessageError(f"{self._name} does not greet")
            self.greeting = reply
        except UntrustedPeerError as error:
            self.error = FixConfigurationError(
                f"no connection to {self._name}: {error.what}",
                remedy="Check that `identity` and the addresses are those of this deployment: names, authority, dates.",
            )
        except SecureadError as error:
            self.error = error
        except OSError as error:
            self.error = RetryLaterError(f"no connection to {self._name}: {error.strerror or error}")

    def checked(self, index: int, lane: int, plan: SharingPlan, verdict: bool) -> Greeting:
        """Its greeting, if it is what we want."""
        greeting = self.greeting
        if greeting is None:
            raise RetryLaterError(f"{self._name} does not greet")
        messages.refuse_mismatch(
            greeting.program, greeting.plan, ours=(plan.program_digest, plan.digest), sender=self._name
        )
        if (greeting.index, greeting.lane) != (index, lane):
            raise RejectMessageError(
                f"{self._name} is party {greeting.index}, lane {greeting.lane}",
                value=f"{self._address[0]}:{self._address[1]}",
                remedy="Correct the addresses: lane k is at the parties' ports + k.",
            )
        if greeting.verdicts_only and not verdict:
            raise RejectMessageError(f"{self._name} tells verdicts only", remedy="Ask for verdicts.")
        if not greeting.ready:
            raise RetryLaterError(f"{self._name} {greeting.state}", remedy="Try again in a moment.")
        return greeting

    def close(self) -> None:
        """Hang up."""
        if self.channel is not None:
            self.channel.close()


def _hear(channel: Channel, request: str, attempt: int, rows: int) -> tuple[Answer, bytes]:
    """One party's answer; signs of life before it are heeded by not giving up."""
    while True:
        content = channel.receive(Kind.REPLY, limit=messages.MAX_HEADER_BYTES)
        reply: Reply = messages.from_bytes(Reply, content, sender=channel.peer)
        match reply:
            case Refusal():
                raise reply.to_error(channel.peer)
            case Waiting() if reply.request == request:
                continue
            case Answer() if (reply.request, reply.attempt, reply.rows) == (request, attempt, rows):
                return reply, bytes(channel.receive(Kind.PAYLOAD, exact=WORD_BYTES * rows))
        raise RejectMessageError(
            f"{channel.peer} answers something that was not asked", remedy="Tell its operator; nothing was scored."
        )


def _most_telling(failed: list[Exception]) -> Exception:
    """The error that says most: a party's own words before a link that broke."""
    spoken = [error for error in failed if isinstance(error, SecureadError) and not isinstance(error, LinkError)]
    return next((error for error in spoken if not isinstance(error, RetryLaterError)), (spoken or failed)[0])
