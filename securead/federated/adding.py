"""The coordinator's half of hidden sums: what it does with messages of which it can read none."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from securead.data.schema import Array
from securead.errors import RejectMessageError, RetryLaterError, SecureadError
from securead.federated.checkpoint import Checkpoint
from securead.federated.federation import Terms
from securead.federated.membership import Membership
from securead.federated.messages import Answer, Ask, Pairs, same_bits
from securead.protocols.masking.masks import unmask
from securead.protocols.paillier import groupkey, keys
from securead.protocols.paillier.packed import Packing
from securead.protocols.paillier.sums import Adder


class MaskedSums:
    """Masks of pairs cancel when messages are added."""

    def ready(self, names: Sequence[str]) -> None:
        """Nothing is needed before a round."""

    def accepted(self, sent: dict[str, Answer]) -> dict[str, Answer]:
        """All of them: their form was looked at when they came."""
        return sent

    def form(self, answer: Answer) -> tuple[object, ...]:
        """Of which form a message is."""
        return answer.values.shape, answer.values.dtype.str, answer.bits

    def total(self, number: int, attempt: int, sent: Mapping[str, Answer], signatures: Pairs) -> Array:
        """The sum of what was sent. Raises `RejectMessageError` where masks do not cancel."""
        values = {name: answer.values for name, answer in sent.items()}
        return unmask(values, list(sent), bits=same_bits(list(sent.values())))


class EncryptedSums:
    """Ciphertexts multiply, and a site opens the product.

    Guarantee: all messages of a sum are under one key, which a site made for the others; a site that sends what no
    honest one does leaves the run alone; what one site cannot open, another one is asked for.
    """

    def __init__(self, terms: Terms, sites: Membership, memory: Checkpoint) -> None:
        self._terms, self._sites, self._memory = terms, sites, memory
        self._adder: Adder | None = None

    def ready(self, names: Sequence[str]) -> None:
        """Let every one of these sites hold the run's key; whoever does not afterwards has left.

        Raises `RetryLaterError` where none is there that could hand it on.
        """
        lacking = [name for name in names if name in self._sites.present() and not self._holds(name)]
        if not lacking:
            return
        for giver in self._givers(names):
            here = self._sites.present()  # without those who were asked for the key and left
            receivers = [name for name in lacking if name != giver and name in here]
            adverts = tuple(self._sites.adverts[name] for name in receivers)
            answer = self._sites.ask({giver: Ask("key", self._memory.run, adverts=adverts)}).get(giver)
            if answer is None:
                continue
            try:
                modulus, sealed = self._handed_on(giver, answer, len(receivers))
            except SecureadError as error:
                self._sites.leave(giver, str(error), for_good=True)
                continue
            self._sites.group_keys[giver] = self._name
            self._memory.note()
            taken = self._sites.ask(
                {
                    name: Ask(
                        "take",
                        self._memory.run,
                        adverts=(self._sites.adverts[giver],),
                        arrays={"modulus": modulus, "sealed": each},
                    )
                    for name, each in zip(receivers, sealed, strict=True)
                }
            )
            for name, told in taken.items():
                self._sites.group_keys[name] = told.group_key
                if not self._holds(name):
                    self._sites.leave(name, "it holds another key than the run's", for_good=True)
            return
        raise RetryLaterError(
            "no site that holds the run's key is here",
            value=", ".join(names),
            remedy="Bring one of them back and resume the run, or begin a new one.",
        )

    def accepted(self, sent: dict[str, Answer]) -> dict[str, Answer]:
        """Messages that are ciphertexts under the run's key and what their sites sent before; others' senders leave."""
        self._adder = Adder(self._modulus, self._memory.sent)
        found = {}
        for name, answer in sent.items():
            try:
                self._adder.add(name, self._ciphertexts(name, answer))
            except SecureadError as error:
                self._sites.leave(name, str(error), for_good=True)
                continue
            found[name] = answer
        self._memory.sent = self._adder.sent
        self._memory.note()
        return found

    def form(self, answer: Answer) -> tuple[object, ...]:
        """Of which form a message is."""
        return *_shape(answer), answer.arrays["ciphertexts"].shape, answer.bits

    def total(self, number: int, attempt: int, sent: Mapping[str, Answer], signatures: Pairs) -> Array:
        """The sum of what was sent, as a site of the set opens it.

        Raises `RejectMessageError` where sites find that it is none, `RetryLaterError` where none is left to ask.
        """
        if self._adder is None:
            raise RejectMessageError("a sum of nothing")
        first = next(iter(sent.values()))
        product = {"sum": self._adder.total(list(sent))}
        ask = Ask("open", self._memory.run, number, attempt, signatures=signatures, arrays=product)
        shape, limit = _shape(first), len(sent) * self._packing(first).bound
        found_none = False
        for name in sent:
            answer = self._sites.ask({name: ask}).get(name)
            if answer is None:
                continue
            values = answer.arrays.get("values")
            if values is None:
                found_none = True
            elif values.dtype != np.int64 or values.shape != shape or not _within(values, limit):
                self._sites.leave(name, "what it opened can be no sum", for_good=True)
            else:
                return values
        if found_none:
            raise RejectMessageError(
                "what sites sent adds up to no sum that their values can have",
                value=sorted(sent),
                remedy="A site encrypted for another round or set, or sent other bytes: nothing of it can be used.",
            )
        raise RetryLaterError(
            "no site is left that opens the sum", remedy="What is done is written down: bring them back and resume."
        )

    # --- what they rest on ----------------------------------------------------------------------------------------

    @property
    def _modulus(self) -> int:
        return int(self._memory.modulus or "0", 16)

    @property
    def _name(self) -> str:
        return groupkey.name_of(self._modulus).hex() if self._memory.modulus else ""

    def _holds(self, name: str) -> bool:
        return bool(self._memory.modulus) and self._sites.group_keys.get(name) == self._name

    def _givers(self, names: Sequence[str]) -> Iterator[str]:
        """Who may hand on the key: whoever holds it; while there is none, a site that made one, or else any."""
        if self._memory.modulus:
            yield from [name for name in names if self._holds(name)]
            return
        yield from sorted(names, key=lambda name: not self._sites.group_keys.get(name))

    def _handed_on(self, giver: str, answer: Answer, receivers: int) -> tuple[Array, list[Array]]:
        """The modulus and the sealed keys of an answer; the modulus is the run's from now on."""
        arrays = [answer.arrays.get(name) for name in ("modulus", *(f"sealed-{at}" for at in range(receivers)))]
        found = [array for array in arrays if array is not None and array.dtype == np.uint8]
        if len(found) != receivers + 1 or any(array.size != groupkey.sealed_bytes() for array in found[1:]):
            raise RejectMessageError("it was asked for the run's key, and its answer holds none")
        n = groupkey.modulus_of(found[0].tobytes(), where=f"site {giver!r}")
        if self._memory.modulus and n != self._modulus:
            raise RejectMessageError("the key that it hands on is another than the run's")
        self._memory.modulus = f"{n:x}"
        return found[0], found[1:]

    def _ciphertexts(self, name: str, answer: Answer) -> Array:
        message = answer.arrays.get("ciphertexts")
        if message is None or message.ndim != 2 or answer.group_key != self._name:
            raise RejectMessageError("it sent nothing under the run's key")
        packing = self._packing(answer)
        if len(message) != packing.plaintexts:
            raise RejectMessageError(
                "it sent another number of ciphertexts than its update has", value=(len(message), packing.plaintexts)
            )
        return message

    def _packing(self, answer: Answer) -> Packing:
        return Packing(len(self._terms.names), answer.bits, math.prod(_shape(answer)), keys.KEY_BITS)


def _shape(answer: Answer) -> tuple[int, ...]:
    """Of which shape an encrypted update says it is. Raises `RejectMessageError` where it does not."""
    shape = answer.arrays.get("shape")
    if shape is None or shape.dtype != np.int64 or shape.ndim != 1 or not 1 <= len(shape) <= 4 or shape.min() < 1:
        raise RejectMessageError("it does not say of which shape its update is")
    return tuple(shape.tolist())


def _within(values: Array, limit: int) -> bool:
    return -limit <= int(values.min(initial=0)) and int(values.max(initial=0)) <= limit
