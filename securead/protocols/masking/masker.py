"""One site's half of masked sums: agrees to sets, masks one update a round, and remembers both (SPEC.md, section 5).

Guarantee: whatever the coordinator asks, in whatever order, and however often the site is killed and started again
with its memory, this site signs one set an attempt and sends one message an attempt, the sets of a round only shrink,
and all its messages of a round hide the same values. What that takes is in the memory before anything is returned.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from securead import codec
from securead.data.schema import Array
from securead.errors import (
    FixConfigurationError,
    FixInputError,
    PrivacyRefusedError,
    RejectMessageError,
    UseOtherKeyError,
)
from securead.protocols.masking import masks
from securead.protocols.masking.adverts import (
    KEY_BYTES,
    MAX_NAME_BYTES,
    MAX_RUN_BYTES,
    Advert,
    agreement,
    check_text,
    set_hash,
    statement,
)
from securead.protocols.masking.identity import Identity, Roster

MAX_PARTICIPANTS, MAX_ROUND = 1024, 2**32
_KEY, _STATE = "masking.key", "masking.state"


class Memory(Protocol):
    """What outlives the process: `securead.privacy.site.Kept`. It is of one run of one site, one process at a time."""

    def get(self, name: str) -> Array | None: ...
    def put(self, name: str, array: Array) -> Array: ...


@dataclass(frozen=True)
class _Agreed:
    """One attempt's set, sorted by name, and this site's signature on it."""

    attempt: int
    participants: tuple[Advert, ...]
    signature: str

    @property
    def members(self) -> tuple[masks.Member, ...]:
        return tuple((advert.name, advert.key_bytes) for advert in self.participants)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(advert.name for advert in self.participants)


@dataclass(frozen=True)
class _State:
    """What the site is bound to: the attempts of its latest round, what it masks in it, and everyone's key so far."""

    run: str
    name: str
    advert: Advert | None = None
    round: int = -1
    values: str = ""
    agreed: tuple[_Agreed, ...] = ()
    keys: tuple[tuple[str, str], ...] = ()


class Masker:
    """A site in one run, which it calls `run`; `minimum` (at least 2) participants an attempt, `attempts` a round.

    A memory that is empty begins the run with a new X25519 key; else the site goes on with what it holds. Raises
    `FixConfigurationError` for numbers that cannot be, `UseOtherKeyError` for the memory of another run or site.
    """

    def __init__(
        self, run: str, identity: Identity, roster: Roster, memory: Memory, *, minimum: int, attempts: int
    ) -> None:
        if minimum < 2:
            raise FixConfigurationError(
                "a masked sum has at least 2 participants", value=minimum, remedy="The sum of one update is the update."
            )
        if attempts < 1:
            raise FixConfigurationError("a round has at least 1 attempt", value=attempts)
        check_text(run, MAX_RUN_BYTES, "a run's id")
        check_text(identity.name, MAX_NAME_BYTES, "a site's name")
        self._run, self._identity, self._roster, self._memory = run, identity, roster, memory
        self._minimum, self._attempts = minimum, attempts
        self._lock = threading.RLock()
        self._state = self._recalled()
        self._private = self._recalled_key()
        self._key = self._private.public_key().public_bytes_raw()
        self._secrets: dict[masks.Member, bytes] = {}

    @property
    def name(self) -> str:
        """The site's."""
        return self._identity.name

    @property
    def bound(self) -> bool:
        """Whether it has agreed to a set in this run, hence may have sent something."""
        return bool(self._state.agreed)

    def advert(self) -> Advert:
        """This site's key under its signature: always the same, also after a restart."""
        with self._lock:
            known, credential = self._state.advert, self._identity.credential.hex()
            if known is not None and known.credential == credential:
                return known
            unsigned = Advert(self._identity.name, self._run, self._key.hex(), credential, "")
            made = dataclasses.replace(unsigned, signature=self._identity.sign(unsigned.statement).hex())
            self._remember(dataclasses.replace(self._state, advert=made))
            return made

    def agree(self, round: int, attempt: int, participants: Sequence[Advert], values: Array | None = None) -> bytes:
        """This site's signature on the set of an attempt; the same one whenever the same set is asked for again.

        `values` is what the site will mask in this round, where it knows already: what it could not send is then
        refused before anybody relies on it, and `mask` has nothing to write down.

        Raises, having signed nothing: `RejectMessageError` for adverts that are ill-formed, of another run, double or
        without this site; `UseOtherKeyError` for a key, a certificate or a signature that is not of who it should be,
        a key that changed during the run, or one of low order; `PrivacyRefusedError` for fewer participants than the
        minimum, too many attempts, another set for an attempt, a set that does not shrink, and what is over; for
        `values` as `mask` does.
        """
        with self._lock:
            where = f"round {round}, attempt {attempt}"
            self._refuse_numbers(round, attempt, where)
            asked = self._checked(participants, where)
            digest = self._bound(round, values, len(asked), where)
            members = tuple((advert.name, advert.key_bytes) for advert in asked)
            if (known := self._agreed(round, attempt)) is not None:
                if known.members != members:
                    raise PrivacyRefusedError(
                        f"this site has signed another set for this attempt: {', '.join(known.names)}",
                        where=where,
                        value=", ".join(advert.name for advert in asked),
                        remedy="An attempt has one set. Begin the next attempt with fewer sites.",
                    )
                if digest != self._state.values:
                    self._remember(dataclasses.replace(self._state, values=digest))
                return bytes.fromhex(known.signature)
            self._refuse_growth(round, attempt, asked, where)
            for member in members:
                self._secret(member)
            hashed = set_hash(self._run, round, attempt, members)
            signature = self._identity.sign(agreement(self._run, round, attempt, hashed))
            before = self._state.agreed if round == self._state.round else ()
            self._remember(
                dataclasses.replace(
                    self._state,
                    round=round,
                    values=digest,
                    agreed=(*before, _Agreed(attempt, asked, signature.hex())),
                    keys=tuple(sorted({**dict(self._state.keys), **{each.name: each.key for each in asked}}.items())),
                )
            )
            return signature

    def mask(self, round: int, attempt: int, signatures: Mapping[str, bytes], values: Array) -> Array:
        """`values` (int64) behind the masks of an agreed attempt; uint64, the same bytes whenever asked again.

        Raises, having returned nothing: `RejectMessageError` where nothing was agreed or not everyone's signature is
        there; `UseOtherKeyError` for a signature on another set; `FixInputError` for values that are not int64 or
        could overflow the sum; `PrivacyRefusedError` for other values than before in this round, and for an attempt
        that is over because a later one was agreed.
        """
        with self._lock:
            agreed, hashed = self._cleared(round, attempt, signatures, values)
            keys = {
                member[0]: masks.stream_key(self._secret(member), self._run, round, attempt, hashed)
                for member in agreed.members
                if member[0] != self._identity.name
            }
            return masks.masked(self._identity.name, keys, values)

    def cleared(
        self, round: int, attempt: int, signatures: Mapping[str, bytes], values: Array
    ) -> tuple[masks.Member, ...]:
        """The members of an agreed attempt that all of them signed, the round being bound to `values`.

        For sums that are hidden in another way; raises as `mask` does.
        """
        with self._lock:
            return self._cleared(round, attempt, signatures, values)[0].members

    def shared_key(self, advert: Advert, kind: str, *parts: bytes | str | int) -> bytes:
        """32 bytes that only this site and the advert's know, for a purpose of its own: the statement `kind`, `parts`.

        Raises, where the advert is not of another site of this run, as `agree` does.
        """
        with self._lock:
            where = f"the advert of {advert.name[:80]!r}"
            self._check_advert(advert, dict(self._state.keys), where)
            if advert.name == self._identity.name or advert.key_bytes == self._key:
                raise RejectMessageError("a site shares no secret with itself", where=where)
            secret = self._secret((advert.name, advert.key_bytes))
            return masks.derived(secret, statement(kind, self._run, *parts))

    def _cleared(
        self, round: int, attempt: int, signatures: Mapping[str, bytes], values: Array
    ) -> tuple[_Agreed, bytes]:
        """The attempt and the hash of its set, once its signatures are there and the round is bound to the values."""
        where = f"round {round}, attempt {attempt}"
        agreed = self._agreed(round, attempt)
        if agreed is None:
            raise RejectMessageError(
                "this site has agreed to no set here", where=where, remedy="Ask it to agree first."
            )
        if agreed is not self._state.agreed[-1]:
            raise self._over(where)
        hashed = set_hash(self._run, round, attempt, agreed.members)
        self._verify_all(agreed, signatures, agreement(self._run, round, attempt, hashed), where)
        digest = self._bound(round, values, len(agreed.participants), where)
        if digest != self._state.values:
            self._remember(dataclasses.replace(self._state, values=digest))
        return agreed, hashed

    def _bound(self, round: int, values: Array | None, participants: int, where: str) -> str:
        """The digest of what this round may mask, once that is known; "" before."""
        bound = self._state.values if round == self._state.round else ""
        if values is None:
            return bound
        masks.check_values(values, participants)
        digest = _digest(values)
        if bound not in ("", digest):
            raise PrivacyRefusedError(
                "these are other values than this site bound itself to in this round",
                where=where,
                remedy="A second update would be a second release: send the identical one.",
            )
        return digest

    def _over(self, where: str) -> PrivacyRefusedError:
        last = self._state.agreed[-1].attempt
        return PrivacyRefusedError(
            f"this attempt is over: attempt {last} was agreed", where=where, remedy="Ask for that one."
        )

    def _refuse_numbers(self, round: int, attempt: int, where: str) -> None:
        if not 0 <= round < MAX_ROUND or attempt < 1:
            raise RejectMessageError("rounds are numbered from 0 and attempts from 1", where=where)
        if attempt > self._attempts:
            raise PrivacyRefusedError(
                f"a round has {self._attempts} attempts", where=where, remedy="The round has failed: begin the next."
            )
        if round < self._state.round:
            raise PrivacyRefusedError(
                "this round is over", where=where, value=f"round {self._state.round} was agreed", remedy="Go on there."
            )

    def _checked(self, participants: Sequence[Advert], where: str) -> tuple[Advert, ...]:
        """The adverts sorted by name, all of them verified."""
        if len(participants) < self._minimum:
            raise PrivacyRefusedError(
                f"a masked sum has at least {self._minimum} participants here",
                where=where,
                value=", ".join(sorted(advert.name for advert in participants)),
                remedy="With fewer, the sum tells too much of each: wait for more sites.",
            )
        asked = tuple(sorted(participants, key=lambda advert: advert.name))
        names, keys = {advert.name for advert in asked}, {advert.key_bytes for advert in asked}
        if len(asked) > MAX_PARTICIPANTS or len(names) < len(asked) or len(keys) < len(asked):
            raise RejectMessageError(
                f"at most {MAX_PARTICIPANTS} sites take part, each under one name with one key",
                where=where,
                value=[advert.name for advert in asked][:20],
                remedy="Two sites of one name, or one site twice: stop one of them.",
            )
        own = next((advert for advert in asked if advert.name == self._identity.name), None)
        if own is None or own.key_bytes != self._key:
            raise RejectMessageError(
                f"site {self._identity.name!r} is not in the set, or with a key that is not its own",
                where=where,
                remedy="Ask every site for its advert in this run.",
            )
        known = dict(self._state.keys)
        for advert in asked:
            self._check_advert(advert, known, where)
        return asked

    def _check_advert(self, advert: Advert, known: Mapping[str, str], where: str) -> None:
        """Raise unless it is an advert of this run, of a key that is its name's, signed by who the roster knows."""
        check_text(advert.name, MAX_NAME_BYTES, "a site's name")
        if advert.run != self._run:
            raise RejectMessageError(
                f"the advert of {advert.name!r} is of another run", where=where, value=advert.run[:80]
            )
        if known.get(advert.name, advert.key) != advert.key:
            raise UseOtherKeyError(
                f"site {advert.name!r} has another key than before in this run",
                where=where,
                remedy="It lost its memory, or another site took its name: go on without it, or begin a new run.",
            )
        self._roster.verify(advert.name, advert.credential_bytes, advert.statement, advert.signature_bytes)

    def _refuse_growth(self, round: int, attempt: int, asked: tuple[Advert, ...], where: str) -> None:
        if round > self._state.round:
            return
        last, names = self._state.agreed[-1], tuple(advert.name for advert in asked)
        if attempt < last.attempt:
            raise self._over(where)
        if names == last.names:
            raise PrivacyRefusedError(
                f"a new attempt with the same set as attempt {last.attempt}",
                where=where,
                value=", ".join(names),
                remedy="A second message would mask the same sum anew: ask for the old attempt again, or leave out"
                " the sites that did not answer.",
            )
        if extra := sorted(set(names) - set(last.names)):
            raise PrivacyRefusedError(
                f"the sets of a round only shrink, and {', '.join(extra)} was not in attempt {last.attempt}",
                where=where,
                value=", ".join(names),
                remedy="A site that returns takes part in the next round.",
            )

    def _verify_all(self, agreed: _Agreed, signatures: Mapping[str, bytes], signed: bytes, where: str) -> None:
        if set(signatures) != set(agreed.names):
            raise RejectMessageError(
                "not exactly the participants have signed",
                where=where,
                value=f"participants {', '.join(agreed.names)}, signatures of {', '.join(sorted(signatures))}",
                remedy="Ask all to agree, or begin the next attempt without those who do not.",
            )
        for advert in agreed.participants:
            self._roster.verify(advert.name, advert.credential_bytes, signed, signatures[advert.name])

    def _agreed(self, round: int, attempt: int) -> _Agreed | None:
        if round != self._state.round:
            return None
        return next((entry for entry in self._state.agreed if entry.attempt == attempt), None)

    def _secret(self, member: masks.Member) -> bytes:
        own = self._identity.name, self._key
        if member == own:
            return b""
        if member not in self._secrets:
            self._secrets[member] = masks.pair_secret(self._private, self._run, own, member)
        return self._secrets[member]

    def _remember(self, state: _State) -> None:
        self._memory.put(_STATE, np.frombuffer(codec.canonical_bytes(state), dtype=np.uint8))
        self._state = state

    def _recalled(self) -> _State:
        kept = self._memory.get(_STATE)
        if kept is None:
            return _State(self._run, self._identity.name)
        try:
            plain = json.loads(kept.tobytes())
        except ValueError as error:
            raise FixInputError("what this site remembers of its sets is damaged", remedy="Begin a new run.") from error
        state = codec.from_plain(_State, plain, where=_STATE)
        if (state.run, state.name) != (self._run, self._identity.name):
            raise UseOtherKeyError(
                "this is the memory of another run or site",
                value=f"run {state.run!r}, site {state.name!r}",
                remedy="Every run of every site has a folder of its own.",
            )
        return state

    def _recalled_key(self) -> X25519PrivateKey:
        kept = self._memory.get(_KEY)
        if kept is None and self._state.advert is None and not self._state.agreed:
            private = X25519PrivateKey.generate()
            self._memory.put(_KEY, np.frombuffer(private.private_bytes_raw(), dtype=np.uint8))
            return private
        if kept is None or kept.nbytes != KEY_BYTES:
            raise FixInputError("this site's key of the run is lost or damaged", remedy="Begin a new run.")
        return X25519PrivateKey.from_private_bytes(kept.tobytes())


def _digest(values: Array) -> str:
    """SHA-256 of shape and content: what two messages of a round must agree in. It stays with the site."""
    content = np.ascontiguousarray(values).astype("<i8", copy=False).tobytes()
    return hashlib.sha256(statement("values", values.ndim, *values.shape, content)).hexdigest()
