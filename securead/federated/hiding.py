"""A site's half of sums that hide its update from the coordinator: masked by pairs, or encrypted under a common key."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from securead.data.schema import Array
from securead.errors import RejectMessageError
from securead.federated.federation import Terms
from securead.federated.messages import Answer, Ask, about_the_ask, in_words, word_bits
from securead.models.training import Update
from securead.privacy.site import Kept
from securead.protocols.masking.adverts import Advert
from securead.protocols.masking.identity import Identity, Roster
from securead.protocols.masking.masker import Masker
from securead.protocols.paillier.summing import Summing


class Hiding:
    """One site in one run: agrees to sets, and shows its update behind masks or under encryption only.

    Raises `InstallExtraError` where sums are to be encrypted and phe is missing.
    """

    def __init__(self, run: str, terms: Terms, kept: Kept, identity: Identity, roster: Roster) -> None:
        federation, self._sites = terms.federation, len(terms.names)
        least, attempts = federation.smallest_sum(self._sites), federation.attempts
        self._kept, self._where = kept, f"site {identity.name!r}"
        self._masker = Masker(run, identity, roster, kept, minimum=least, attempts=attempts)
        self._summing: Summing | None = None
        if federation.aggregation == "paillier":
            self._summing = Summing(run, self._masker, kept, sites=self._sites)

    def advert(self) -> Advert:
        """This site's key of the run under its signature."""
        return self._masker.advert()

    @property
    def group_key(self) -> str:
        """The name of the sites' key that it holds; "" for none."""
        return "" if self._summing is None else self._summing.key_name

    def agree(self, ask: Ask, update: Update, values: Array) -> str:
        """Its signature on the set of an attempt, in hex; what it agreed to send is kept."""
        with about_the_ask():
            if self._summing is not None:
                self._summing.packing(values, update.bits).check(values)
            signature = self._masker.agree(ask.round, ask.attempt, ask.adverts, values).hex()
        # To be sent when all have agreed, possibly by another process than this one.
        self._kept.put(_prepared(ask.round), values)
        self._kept.put(_bits_of(ask.round), np.array([update.bits]))
        for earlier in (_prepared(ask.round - 1), _bits_of(ask.round - 1)):
            self._kept.drop(earlier)
        return signature

    def send(self, ask: Ask) -> Answer:
        """The update of an attempt that all have signed: masked, or encrypted."""
        values, bits = self._agreed(ask)
        with about_the_ask():
            signatures = _signatures(ask, self._where)
            if self._summing is None:
                masked = self._masker.mask(ask.round, ask.attempt, signatures, values)
                width = word_bits(bits, self._sites)
                return self._answer(ask, {"values": in_words(masked, width)}, bits=width)
            message = self._summing.message(ask.round, ask.attempt, signatures, values, bits)
        arrays = {"ciphertexts": message, "shape": np.array(values.shape, dtype=np.int64)}
        return self._answer(ask, arrays, bits=bits)

    def hand_on(self, ask: Ask) -> Answer:
        """The modulus, and the run's key sealed for everyone asked."""
        with about_the_ask():
            summing = self._encrypting
            sealed = summing.hand_on(ask.adverts)
        arrays = {f"sealed-{at}": np.frombuffer(content, dtype=np.uint8) for at, content in enumerate(sealed)}
        return self._answer(ask, {"modulus": summing.modulus, **arrays})

    def take(self, ask: Ask) -> Answer:
        """The name of the key that it takes."""
        found = [ask.arrays.get(name) for name in ("modulus", "sealed")]
        with about_the_ask():
            if len(ask.adverts) != 1 or any(array is None or array.dtype != np.uint8 for array in found):
                raise RejectMessageError("asked to take a key, and there is none", where=self._where)
            modulus, sealed = (array.tobytes() for array in found if array is not None)
            self._encrypting.take(ask.adverts[0], modulus, sealed)
        return self._answer(ask, {})

    def open(self, ask: Ask) -> Answer:
        """The sum of all who signed; no values where it is none, for which nobody alone is to blame."""
        values, bits = self._agreed(ask)
        with about_the_ask():
            summing, total = self._encrypting, ask.arrays.get("sum")
            if total is None:
                raise RejectMessageError("asked to open a sum, and there is none", where=self._where)
            signatures = _signatures(ask, self._where)
            opened = summing.open(ask.round, ask.attempt, signatures, values, bits, total)
        return self._answer(ask, {} if opened is None else {"values": opened})

    @property
    def _encrypting(self) -> Summing:
        if self._summing is None:
            raise RejectMessageError("this run's sums are not encrypted", where=self._where)
        return self._summing

    def _agreed(self, ask: Ask) -> tuple[Array, int]:
        values, bits = self._kept.get(_prepared(ask.round)), self._kept.get(_bits_of(ask.round))
        with about_the_ask():
            if values is None or bits is None:
                raise RejectMessageError("asked to send what was never prepared", where=self._where, value=ask.round)
        return values, int(bits[0])

    def _answer(self, ask: Ask, arrays: Mapping[str, Array], *, bits: int = 64) -> Answer:
        name, key = self._masker.name, self.group_key
        return Answer(ask.kind, name, ask.round, ask.attempt, bits=bits, group_key=key, arrays=arrays)


def _signatures(ask: Ask, where: str) -> dict[str, bytes]:
    try:
        return {name: bytes.fromhex(signature) for name, signature in ask.signatures}
    except ValueError as error:
        raise RejectMessageError("a signature is not hexadecimal", where=where) from error


def _prepared(number: int) -> str:
    return f"prepared-{number}"


def _bits_of(number: int) -> str:
    return f"prepared-{number}-bits"
