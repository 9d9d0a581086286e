"""Mailboxes at a service: a gateway deposits with one token, the key holder fetches and acknowledges with another.

The key holder makes both tokens, 256 random bits each, keeps them in DIR/secret/mailbox.json and tells the service
their SHA-256 only. Each travels to the service when it is used (over TLS), in a header, never in an address.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from securead import codec, files
from securead.client.keys import SubmitterKeys, read_record, secret_half
from securead.client.service import ENVELOPE_BYTES, MAX_ERROR_BYTES, MAX_LIST_BYTES, Pieces, Service
from securead.client.watch import Watch
from securead.errors import FixConfigurationError, FixInputError, RegisterKeyError, RejectMessageError
from securead.protocols import parcel, wire
from securead.protocols.engine import Plan

MAILBOX_FILE = "mailbox.json"
_TOKEN_BYTES, _LONGEST_TOKEN = 32, 200


@dataclass(frozen=True)
class Tokens:
    """The two capabilities of a mailbox: hand `deposit` to gateways, keep `pickup`."""

    deposit: str = field(repr=False)
    pickup: str = field(repr=False)
    format: int = 1


@dataclass(frozen=True)
class Waiting:
    """One answer that waits: its number, which grows."""

    number: int
    model: str
    size: int


@dataclass(frozen=True)
class WaitingAnswers:
    """The reply to the question what waits."""

    answers: tuple[Waiting, ...]


def make_tokens(keys: Path | str) -> Tokens:
    """The tokens of a key directory's mailbox, made at the first call and kept with the secret key (0600).

    Raises `FixConfigurationError` for keys of role `same`, whose submitter reads answers itself.
    """
    half = secret_half(keys)
    if read_record(half).role != "split":
        raise FixConfigurationError(
            "mailboxes are for keys of role split",
            value=read_record(half).role,
            remedy="Make keys with: securead keygen --role split",
        )
    path = half / MAILBOX_FILE
    with files.locked(path):
        if path.exists():
            content = files.read_secret(path, limit=1 << 16)
            try:
                return codec.from_plain(Tokens, json.loads(content), where=str(path))
            except ValueError as error:
                raise FixInputError(f"{path} is damaged", remedy="Restore it, or make new keys.") from error
        tokens = Tokens(secrets.token_hex(_TOKEN_BYTES), secrets.token_hex(_TOKEN_BYTES))
        files.write_json(path, codec.to_plain(tokens), mode=0o600)
        return tokens


def write_token(path: Path, token: str) -> None:
    """Write the deposit token for a gateway (mode 0600)."""
    files.write_secret(path, (token + "\n").encode())


def read_token(path: Path) -> str:
    """Read what `write_token` wrote; a file that others can read is refused."""
    try:
        token = files.read_secret(path, limit=_LONGEST_TOKEN).decode("ascii").strip()
    except UnicodeDecodeError as error:
        raise FixInputError(f"{path} holds no token", remedy="`securead mailbox` writes one.") from error
    if not token or not token.isalnum():
        raise FixInputError(f"{path} holds no token", remedy="`securead mailbox` writes one.")
    return token


@dataclass(frozen=True)
class _Parcel:
    """A parcel as it is sent, again if need be."""

    opening: bytes
    message: Pieces

    def __len__(self) -> int:
        return len(self.opening) + len(self.message)

    def __iter__(self) -> Iterator[bytes]:
        yield self.opening
        yield from self.message


class Mailbox(Service):
    """A connection to one key's mailbox, with one of its tokens. Arguments: see `Service`."""

    def __init__(
        self,
        url: str,
        key: str,
        token: str,
        *,
        ca: Path | None = None,
        patience: float = 60.0,
        timeout: float = 300.0,
        watch: Watch | None = None,
    ) -> None:
        super().__init__(url, ca=ca, patience=patience, timeout=timeout, watch=watch)
        self._key = key
        self._http.headers["Authorization"] = f"Bearer {token}"

    def open(self, tokens: Tokens) -> None:
        """Open the mailbox, or find it open with these tokens."""
        digests = {name: hashlib.sha256(getattr(tokens, name).encode()).hexdigest() for name in ("deposit", "pickup")}
        content = json.dumps(digests).encode()
        self._call("PUT", f"/v1/keys/{self._key}/mailbox", content=content, limit=MAX_ERROR_BYTES)

    def deposit(self, keys: SubmitterKeys, label: parcel.Label, message: Pieces) -> None:
        """Have a message scored and its answer kept; it is when this returns.

        The owner's public key is sent where the service lacks it, by a restart say, and the message again.
        """
        path = f"/v1/models/{keys.model.name}/keys/{self._key}/deposit"
        content = _Parcel(parcel.opening(label), message)
        try:
            self._call("POST", path, content=content, limit=MAX_ERROR_BYTES)
            return
        except RegisterKeyError:
            if keys.evaluation_key is None:
                raise
        key = wire.Envelope(_key_header(keys), keys.evaluation_key)
        self.register_key(keys.model.name, key)
        self._call("POST", path, content=content, limit=MAX_ERROR_BYTES)

    def waiting(self, after: int = 0) -> tuple[Waiting, ...]:
        """The oldest answers with a number above `after`: some of them, none where there is none."""
        reply = self._call("GET", f"/v1/keys/{self._key}/answers?after={after}", limit=MAX_LIST_BYTES)
        found: WaitingAnswers = self._parse(WaitingAnswers, reply.body, "the list of answers")
        if any(
            later.number <= earlier for earlier, later in zip([after, *_numbers(found)], found.answers, strict=False)
        ):
            raise RejectMessageError("the service lists answers out of order", where=self.url)
        return found.answers

    def fetch(self, number: int, plan: Plan) -> bytes:
        """One answer's parcel. It stays at the service until it is acknowledged."""
        limit = plan.max_answer_bytes + ENVELOPE_BYTES + parcel.MAX_LABEL_BYTES + 64
        return self._call("GET", f"/v1/keys/{self._key}/answers/{number}", limit=limit).body

    def acknowledge(self, number: int) -> None:
        """Let the service delete an answer."""
        self._call("DELETE", f"/v1/keys/{self._key}/answers/{number}", limit=MAX_ERROR_BYTES)


def _key_header(keys: SubmitterKeys) -> wire.Header:
    record = keys.record
    request = wire.new_request_id()
    return wire.Header(
        "key", record.engine, record.role, record.program, record.plan, record.key, request, chunk=0, chunks=1, rows=0
    )


def _numbers(found: WaitingAnswers) -> list[int]:
    return [answer.number for answer in found.answers]
