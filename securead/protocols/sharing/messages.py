"""What clients and the two parties say to each other: small JSON headers, strict and bounded, beside binary payloads.

    client                 party 0 (the leader)            party 1
       <- Greeting            (one from each party, with a nonce that is fresh per connection)
       -> Request, payload    (to each: the same header, its own share)
                              Bind ->                  (the header as the leader has it, the client's name, a set)
                              <- Agreed                (ok, later, or no with a reason)
       <- Waiting             (each second until the answer is there)
       <- Answer, payload     (one from each party: its share of the scores or verdicts)
       <- Refusal             (at any time in place of the next message)

A header names everything that a computation depends on: program, plan, rows, kind of answer, both connections' nonces
and the hashes of both shares. The parties compare it before anything is computed, so a message that was replayed,
mixed up or cut short costs a comparison and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, ClassVar, Literal

from securead import codec, errors
from securead.errors import RejectMessageError, RetryLaterError, SecureadError

VERSION = 1
MAX_HEADER_BYTES = 16 << 10
MAX_ROWS = 1 << 24
MAX_TEXT = 2000
_HEX32, _HEX64 = re.compile("[0-9a-f]{32}"), re.compile("[0-9a-f]{64}")
_NAME = re.compile("[a-z0-9.-]{1,63}")
_REMEDY = "Both sides must run the same release of securead; if they do, something between them changes messages."


class Kind(IntEnum):
    """The kinds of frames; the dealer's own stand in `dealer`."""

    HELLO = 1
    LINK = 2
    RING_KEY = 3
    REQUEST = 4
    REPLY = 5
    PAYLOAD = 6


@dataclass(frozen=True)
class Hello:
    """Party 1 opens a link. Two links with one `token` are a pair: the leader sends on "down" and hears on "up"."""

    type_tag: ClassVar[str] = "hello"
    version: int
    program: str
    plan: str
    split: str
    lane: int
    token: str
    direction: Literal["down", "up"]

    def __post_init__(self) -> None:
        _check_names(self, digests=("program", "plan"), ids=("split", "token"))
        _check_counts(lane=self.lane)


@dataclass(frozen=True)
class Welcome:
    """The leader accepts a pair of links and names the session; what is compared is its own."""

    type_tag: ClassVar[str] = "welcome"
    version: int
    program: str
    plan: str
    split: str
    lane: int
    session: str

    def __post_init__(self) -> None:
        _check_names(self, digests=("program", "plan"), ids=("split", "session"))
        _check_counts(lane=self.lane)


@dataclass(frozen=True)
class Ready:
    """A party has its seed from the dealer and its computing started: the session is open."""

    type_tag: ClassVar[str] = "ready"


@dataclass(frozen=True)
class Beat:
    """A sign of life between the parties, answered by another."""

    type_tag: ClassVar[str] = "beat"


@dataclass(frozen=True)
class Greeting:
    """A party's first words to a client. `state` says in one sentence why it is not `ready`; `busy`: try another lane.

    `nonce` is fresh for each connection: a request that is replayed over another one is refused.
    """

    type_tag: ClassVar[str] = "greeting"
    version: int
    program: str
    plan: str
    index: int
    lane: int
    nonce: str
    ready: bool
    busy: bool
    verdicts_only: bool
    state: str

    def __post_init__(self) -> None:
        _check_names(self, digests=("program", "plan"), ids=("nonce",))
        _check_counts(index=self.index, lane=self.lane)
        _check_text(state=self.state)


@dataclass(frozen=True)
class Request:
    """What a client asks of both parties, word for word the same to each.

    `attempt` 1: a result lay out of range and is computed once more with fresh shares. `nonces`, `hashes`: of the
    connection to, and SHA-256 of the payload for, party 0 and party 1.
    """

    type_tag: ClassVar[str] = "request"
    request: str
    attempt: int
    program: str
    plan: str
    lane: int
    rows: int
    verdict: bool
    nonces: tuple[str, str]
    hashes: tuple[str, str]

    def __post_init__(self) -> None:
        _check_names(self, digests=("program", "plan"), ids=("request",))
        _check_counts(lane=self.lane)
        if not 1 <= self.rows <= MAX_ROWS or self.attempt not in (0, 1):
            raise RejectMessageError("a request's counts are absurd", value=(self.rows, self.attempt), remedy=_REMEDY)
        if not all(_HEX32.fullmatch(nonce) for nonce in self.nonces):
            raise RejectMessageError("a request's nonces are ill-formed", remedy=_REMEDY)
        if not all(_HEX64.fullmatch(digest) for digest in self.hashes):
            raise RejectMessageError("a request's hashes are ill-formed", remedy=_REMEDY)


@dataclass(frozen=True)
class Bind:
    """The leader proposes to compute a request with the set of correlations `set`."""

    type_tag: ClassVar[str] = "bind"
    request: Request
    client: str
    set: int

    def __post_init__(self) -> None:
        _check_counts(set=self.set)
        if not _NAME.fullmatch(self.client):
            raise RejectMessageError("a client's name is ill-formed", value=self.client[:80], remedy=_REMEDY)


@dataclass(frozen=True)
class Agreed:
    """Party 1's reply to `Bind`. `later`: the client's share has not arrived here yet."""

    type_tag: ClassVar[str] = "agreed"
    answer: Literal["ok", "later", "no"]
    reason: str = ""

    def __post_init__(self) -> None:
        _check_text(reason=self.reason)


@dataclass(frozen=True)
class Waiting:
    """A sign of life while a request waits for its turn or is computed."""

    type_tag: ClassVar[str] = "waiting"
    request: str
    state: Literal["waiting", "computing"]

    def __post_init__(self) -> None:
        _check_names(self, ids=("request",))


@dataclass(frozen=True)
class Answer:
    """What a request cost; its share of the result follows. `seconds`, `rounds`, bytes: of the computation here."""

    type_tag: ClassVar[str] = "answer"
    request: str
    attempt: int
    rows: int
    seconds: float
    rounds: int
    bytes_sent: int
    bytes_received: int
    offline_bytes: int

    def __post_init__(self) -> None:
        _check_names(self, ids=("request",))
        counts = (self.rows, self.rounds, self.bytes_sent, self.bytes_received, self.offline_bytes)
        if not all(0 <= count < 1 << 62 for count in counts) or not 0 <= self.seconds < 1e9:
            raise RejectMessageError("an answer's counts are absurd", value=counts, remedy=_REMEDY)


@dataclass(frozen=True)
class Refusal:
    """An error that the reader can act upon: a class of `securead.errors` by name, what happened and the remedy."""

    type_tag: ClassVar[str] = "refusal"
    error: str
    what: str
    remedy: str

    @classmethod
    def of(cls, error: SecureadError) -> Refusal:
        """What is told of an error; never its value, which may be a secret of this side."""
        what = f"{error.where}: {error.what}" if error.where else error.what
        return cls(type(error).__name__, what[:MAX_TEXT], error.remedy[:MAX_TEXT])

    def to_error(self, teller: str) -> SecureadError:
        """The error as an exception. Its words come from outside: cleaned and cut."""
        kind = getattr(errors, self.error, None)
        if not isinstance(kind, type) or not issubclass(kind, SecureadError):
            kind = RetryLaterError
        error: SecureadError = kind(f"{teller} says: {_clean(self.what)}", remedy=_clean(self.remedy))
        return error


Reply = Greeting | Waiting | Answer | Refusal
"""What a party says to a client."""
LinkMessage = Welcome | Ready | Beat | Bind | Agreed | Refusal
"""What the parties say to each other once they are linked."""


def to_bytes(message: object) -> bytes:
    """A header as it travels."""
    return codec.canonical_bytes(message)


def from_bytes(kind: Any, content: bytes | bytearray, *, sender: str) -> Any:
    """Read a header, or raise `RejectMessageError`. Another version is told apart from nonsense.

    `kind` may be a union, such as `Reply`.
    """
    if len(content) > MAX_HEADER_BYTES:
        raise RejectMessageError(f"a message from {sender} is too large", value=len(content), remedy=_REMEDY)
    try:
        plain = json.loads(bytes(content))
        if isinstance(plain, dict) and type(plain.get("version")) is int:
            refuse_version(plain["version"], sender=sender)
        return codec.from_plain(kind, plain, where=f"message from {sender}")
    except RejectMessageError:
        raise
    except (ValueError, RecursionError) as error:  # not JSON, an endless integer, or `FixInputError`
        raise RejectMessageError(f"a message from {sender} is ill-formed: {error}", remedy=_REMEDY) from error


def refuse_version(version: int, *, sender: str) -> None:
    """Raise `RejectMessageError` unless `sender` speaks this version of the protocol."""
    if version != VERSION:
        raise RejectMessageError(
            f"{sender} speaks another version of the protocol",
            value=version,
            remedy=f"This release speaks version {VERSION}: install the same release of securead on both sides.",
        )


def refuse_mismatch(program: str, plan: str, *, ours: tuple[str, str], sender: str) -> None:
    """Raise `RejectMessageError` unless `sender` has the program and the plan that we have, `ours`."""
    if program != ours[0]:
        raise RejectMessageError(
            f"{sender} has another model than this side",
            value=program,
            remedy=f"Here it is {ours[0]}: give all parties, the dealer and clients the files of one `securead split`.",
        )
    if plan != ours[1]:
        raise RejectMessageError(
            f"{sender} derives other parameters for the model than this side",
            value=plan,
            remedy=f"Here they are {ours[1]}: install the same release of securead on all machines.",
        )


def refuse_split(split: str, *, ours: str, sender: str) -> None:
    """Raise `RejectMessageError` unless `sender` has the other half of our split of the model."""
    if split != ours:
        raise RejectMessageError(
            f"{sender} has a share from another split of the model than this side",
            value=split,
            remedy="Give both parties the files of one and the same `securead split`.",
        )


def new_id() -> str:
    """128 random bits, hex: a request, a nonce, a session, a token."""
    return secrets.token_hex(16)


def hash_of(payload: bytes | bytearray | memoryview) -> str:
    """What a request says of a payload."""
    return hashlib.sha256(payload).hexdigest()


def _clean(text: str) -> str:
    return "".join(character if character.isprintable() else " " for character in text[:MAX_TEXT])


def _check_names(message: object, *, digests: tuple[str, ...] = (), ids: tuple[str, ...] = ()) -> None:
    for names, pattern in ((digests, _HEX64), (ids, _HEX32)):
        for name in names:
            value = getattr(message, name)
            if not pattern.fullmatch(value):
                raise RejectMessageError(
                    f"a message's entry {name!r} is no name that securead gives", value=value[:80], remedy=_REMEDY
                )


def _check_counts(**counts: int) -> None:
    for name, count in counts.items():
        if not 0 <= count < 1 << 62:
            raise RejectMessageError(f"a message's entry {name!r} is absurd", value=count, remedy=_REMEDY)


def _check_text(**texts: str) -> None:
    for name, text in texts.items():
        if len(text) > MAX_TEXT:
            raise RejectMessageError(f"a message's entry {name!r} is too long", value=len(text), remedy=_REMEDY)
