"""A site's half of packed sums: the run's key, one message a round, and opening sums (AGGREGATION.md).

Guarantee: whatever the coordinator asks, this site encrypts one message a round, uses one key a run, and what it
opens is a function of the sum over a set that it and all others in it signed. What that takes is in its memory before
anything is returned.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from securead.data.schema import Array
from securead.errors import FixInputError, RejectMessageError, UseOtherKeyError
from securead.protocols.masking.adverts import Advert
from securead.protocols.masking.masker import Masker
from securead.protocols.paillier import groupkey, keys, sums
from securead.protocols.paillier.groupkey import GroupKey
from securead.protocols.paillier.packed import Packing
from securead.protocols.paillier.powers import spread

_KEY = "paillier.key"


class Memory(Protocol):
    """What outlives the process: `securead.privacy.site.Kept`, the one that `Masker` has."""

    def get(self, name: str) -> Array | None: ...
    def put(self, name: str, array: Array) -> Array: ...
    def drop(self, name: str) -> None: ...


class Summing:
    """A site in one run of `sites` sites; `masker` agrees to sets and knows the other sites, `memory` is its own.

    Raises `InstallExtraError` without phe, and `UseOtherKeyError` where the kept key is damaged.
    """

    def __init__(self, run: str, masker: Masker, memory: Memory, *, sites: int) -> None:
        keys.phe()
        self._run, self._masker, self._memory, self._sites = run, masker, memory, sites
        self._lock = threading.RLock()
        kept = memory.get(_KEY)
        self._key = None if kept is None else GroupKey.from_bytes(kept.tobytes(), where="this site's key of the run")

    @property
    def key_name(self) -> str:
        """The name of the key that this site holds, in hex; "" for none."""
        return "" if self._key is None else self._key.name.hex()

    @property
    def modulus(self) -> Array:
        """The modulus of its key, uint8, little-endian. Raises `RejectMessageError` where it holds none."""
        content = self._held().n.to_bytes(keys.modulus_bytes(), "little")
        return np.frombuffer(content, dtype=np.uint8)

    def hand_on(self, receivers: Sequence[Advert]) -> list[bytes]:
        """The run's key, sealed for each of the receivers; made first where this site holds none.

        Raises as `Masker.shared_key` does, having kept and returned nothing.
        """
        with self._lock:
            key = self._key or GroupKey.generate()
            own = self._masker.name
            sealed = [groupkey.seal(key, self._shared(each, key.name, own, each.name)) for each in receivers]
            if self._key is None:
                self._keep(key)
            return sealed

    def take(self, sealer: Advert, modulus: bytes, sealed: bytes) -> None:
        """Take the key that another site sealed for this one; the same again changes nothing.

        Raises `UseOtherKeyError` for a modulus that is none, for what does not open, and where another key is held and
        a set was agreed: before, nothing was encrypted or opened under it, and it is replaced.
        """
        with self._lock:
            where = f"the key from {sealer.name[:80]!r}"
            n = groupkey.modulus_of(modulus, where=where)
            shared = self._shared(sealer, groupkey.name_of(n), sealer.name, self._masker.name)
            key = groupkey.unseal(sealed, shared, n, where=where)
            if self._key is not None and self._key.to_bytes() == key.to_bytes():
                return
            # One that it made, or took, and nobody has heard of: what it told was lost on its way.
            if self._key is None or not self._masker.bound:
                self._keep(key)
            else:
                raise UseOtherKeyError(
                    "this site holds another key of this run", where=where, remedy="A run has one key: begin a new one."
                )

    def packing(self, values: Array, bits: int) -> Packing:
        """How such values are packed in this run."""
        return Packing(self._sites, bits, values.size, keys.KEY_BITS)

    def message(self, round: int, attempt: int, signatures: Mapping[str, bytes], values: Array, bits: int) -> Array:
        """`values` (int64, known to fit `bits`) encrypted, as `sums.to_array` gives it; the same bytes all round.

        All cores share the work. Raises as `Masker.mask` and `Packing.check` do, having returned nothing.
        """
        with self._lock:
            packing, key, where = self.packing(values, bits), self._held(), f"paillier.sent-{round}"
            packing.check(values)  # first, so that the round is bound to nothing that cannot be sent
            members = self._masker.cleared(round, attempt, signatures, values)
            if (sent := self._recalled(where)) is not None:
                return sent
            own = next(member for member in members if member[0] == self._masker.name)
            pads = key.pads(self._run, round, own, packing.plaintexts)
            padded = [(e + pad) % key.n for e, pad in zip(packing.pack(values), pads, strict=True)]
            pieces = spread(key.private.nth_powers, [key.private.random() for _ in padded])
            powers = (power for piece in pieces for power in piece)
            ciphertexts = [key.private.joined(u, power) for u, power in zip(padded, powers, strict=True)]
            message = self._memory.put(where, sums.to_array(ciphertexts))
            self._memory.drop(f"paillier.sent-{round - 1}")
            return message

    def open(
        self, round: int, attempt: int, signatures: Mapping[str, bytes], values: Array, bits: int, total: Array
    ) -> Array | None:
        """The sum of the set's updates, int64 of this site's own shape, from the product of their messages.

        None for what is no sum of it. `values` and `bits` are this site's own, as `message` had them. Raises as
        `Masker.mask` does for a set that was not signed by all or is over, and `RejectMessageError` for no ciphertexts.
        """
        with self._lock:
            members = self._masker.cleared(round, attempt, signatures, values)
            packing, key = self.packing(values, bits), self._held()
            ciphertexts = sums.from_array(total, key.n, where=f"the sum of round {round}")
            if len(ciphertexts) != packing.plaintexts:
                raise RejectMessageError(
                    "a sum has another number of ciphertexts than this site's message",
                    value=(len(ciphertexts), packing.plaintexts),
                )
            left = [key.private.decrypt(ciphertext) for ciphertext in ciphertexts]
            for member in members:
                pads = key.pads(self._run, round, member, packing.plaintexts)
                left = [(plaintext - pad) % key.n for plaintext, pad in zip(left, pads, strict=True)]
            found = packing.unpack(left, len(members))
            return None if found is None else found.reshape(values.shape)

    def _recalled(self, name: str) -> Array | None:
        try:
            return self._memory.get(name)
        except FixInputError as error:  # which names a path: this may be told to the coordinator
            raise FixInputError("what this site keeps of the run is damaged", remedy="Begin a new run.") from error

    def _shared(self, other: Advert, key_name: bytes, sealer: str, receiver: str) -> bytes:
        return self._masker.shared_key(other, "paillier-seal", sealer, receiver, key_name)

    def _keep(self, key: GroupKey) -> None:
        self._memory.put(_KEY, np.frombuffer(key.to_bytes(), dtype=np.uint8))
        self._key = key

    def _held(self) -> GroupKey:
        if self._key is None:
            raise RejectMessageError(
                "this site does not hold the run's key", remedy="Let a site that holds it hand it on first."
            )
        return self._key
