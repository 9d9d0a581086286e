"""What coordinator and sites say to each other, as values and as bytes.

    magic "SCAF" | version u16 | header length u32 | header (JSON) | arrays, one after the other

The header names every array's type and shape. Nothing is executed, types are of a short list, and sizes are checked
against the limit before anything is parsed. Authenticity is the transport's business and that of the signatures inside.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import numpy as np

from securead import codec
from securead.data.schema import Array
from securead.errors import RejectMessageError, SecureadError
from securead.models.training import Total, bits_of_sum
from securead.privacy.statement import SiteGuarantee
from securead.protocols.masking.adverts import Advert
from securead.protocols.masking.masks import signed
from securead.protocols.seal import packing

MAGIC, VERSION = b"SCAF", 1
MAX_BYTES = 256 << 20
_MAX_HEADER_BYTES = 4 << 20
_LEAST_BITS = 8
_PREFIX = struct.Struct("<4sHI")
_TYPES = {name: np.dtype(name) for name in ("<f8", "<i8", "<u8", "<f4", "<i4", "|u1", "|b1")}
_MAX_TEXT = 400
_REMEDY = "The message is damaged or not of this program: use the same version of securead everywhere."

Kind = Literal["join", "prepare", "send", "finish", "refuse", "key", "take", "open"]
Pairs = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Report:
    """What a site tells of itself beside its update: how long it took, and what its budget has spent."""

    site: str
    seconds: float
    records: SiteGuarantee | None = None
    readings: SiteGuarantee | None = None


@dataclass(frozen=True)
class Refusal:
    """Why a site did not do as it was asked; never a word about its records."""

    kind: str
    text: str


@dataclass(frozen=True)
class Sum:
    """What a round's total says beside its values."""

    stage: str
    noise_variance: float
    sites: int


def of_totals(totals: Sequence[Total]) -> tuple[tuple[Sum, ...], dict[str, Array]]:
    """Totals as they are stored and sent."""
    heads = tuple(Sum(total.stage, total.noise_variance, total.sites) for total in totals)
    return heads, {f"sum-{at}": total.values for at, total in enumerate(totals)}


def to_totals(heads: Sequence[Sum], arrays: Mapping[str, Array]) -> tuple[Total, ...]:
    """The totals again. Raises `RejectMessageError` where values are missing or no integers, or numbers cannot be."""
    found = []
    for at, head in enumerate(heads):
        values = arrays.get(f"sum-{at}")
        if values is None or values.dtype != np.int64 or head.sites < 1 or head.noise_variance < 0:
            raise RejectMessageError("a round's sum is none", value=head.stage[:80], remedy=_REMEDY)
        found.append(Total(head.stage, values, head.noise_variance, head.sites))
    return tuple(found)


@contextlib.contextmanager
def about_the_ask() -> Iterator[None]:
    """What goes wrong in here is about what the coordinator sent, and it may be told so."""
    try:
        yield
    except SecureadError as error:
        error.confidential = False
        raise


def plain_text(text: str) -> str:
    """What the other end says, as it may be shown: one line without control characters, and not too long."""
    shown = "".join(character if character.isprintable() else " " for character in text)
    return shown if len(shown) <= _MAX_TEXT else shown[: _MAX_TEXT - 3] + "..."


@dataclass(frozen=True, eq=False)
class Ask:
    """What the coordinator wants of a site.

    "join": take part in `run` on the terms of these `digests`. "prepare": compute the update of the round, whose public
    state follows from the sums of all rounds before; where sums are masked, agree to be one of those with these
    `adverts`. "send": send it masked, now that all have signed. "finish": training is over after these sums. "refuse":
    be told in `text` why you cannot take part. `sums` and the arrays "sum-0", ... are of the rounds after the first
    `since`: what the site lacks. Where sums are encrypted (`hidden`): "key": seal the run's key for those with these
    `adverts`; "take": take what the site with this advert sealed; "open": open the sum of all who signed.
    """

    kind: Kind
    run: str
    round: int = 0
    attempt: int = 0
    digests: Pairs = ()
    adverts: tuple[Advert, ...] = ()
    signatures: Pairs = ()
    text: str = ""
    since: int = 0
    sums: tuple[Sum, ...] = ()
    arrays: Mapping[str, Array] = field(default_factory=dict, metadata={"stored": False})

    @classmethod
    def with_totals(cls, kind: Kind, run: str, totals: Sequence[Total], since: int, **fields: Any) -> Ask:
        """An ask that carries the sums of all rounds but the first `since`."""
        heads, arrays = of_totals(totals[since:])
        return cls(kind, run, since=since, sums=heads, arrays=arrays, **fields)

    @property
    def totals(self) -> tuple[Total, ...]:
        """The sums. Raises `RejectMessageError` where they are none."""
        return to_totals(self.sums, self.arrays)


@dataclass(frozen=True, eq=False)
class Answer:
    """What a site says to an ask of the same kind, round and attempt.

    `noise_variance`: of every entry of its update. `loss`: its own validation loss, where updates are plain.
    `signature`: on the set of participants, in hex. `bits`: of a value of its update; below 64, without gaps.
    `rounds`: of how many rounds it has the sums. `group_key`: the name of the sites' key that it holds, if any.
    """

    kind: Kind
    site: str
    round: int = 0
    attempt: int = 0
    advert: Advert | None = None
    signature: str = ""
    noise_variance: float = 0.0
    bits: int = 64
    loss: float | None = None
    report: Report | None = None
    refusal: Refusal | None = None
    rounds: int = 0
    group_key: str = ""
    arrays: Mapping[str, Array] = field(default_factory=dict, metadata={"stored": False})

    def __post_init__(self) -> None:
        if self.noise_variance < 0:
            raise RejectMessageError("a variance is not negative", where=f"site {self.site!r}", remedy=_REMEDY)

    @property
    def values(self) -> Array:
        """Its update, int64, or masked, uint64 modulo 2**bits. Raises `RejectMessageError` where there is none."""
        found = self.arrays.get("values")
        whole = found is not None and self.bits == 64 and found.dtype in (np.int64, np.uint64)
        packed = found is not None and _LEAST_BITS <= self.bits <= packing.MAX_WIDTH and found.dtype == np.uint8
        if found is None or not (whole or (packed and found.ndim == 1 and 8 * len(found) >= self.bits)):
            raise RejectMessageError("the answer carries no update", where=f"site {self.site!r}", remedy=_REMEDY)
        if whole:
            return found
        # A value has more bits than there are to fill up the last byte, so that their number is certain.
        words = packing.unpack(found.tobytes(), 8 * len(found) // self.bits, self.bits)
        return words if self.kind == "send" else signed(words, self.bits)


def word_bits(bits: int, sites: int | None = None) -> int:
    """In how many bits a value of `bits` signed bits travels: in as many, or masked among `sites`.

    Then in one bit more than the sum needs, so that masks which do not cancel show in every word with probability 1/2.
    """
    wide = max(bits if sites is None else bits_of_sum(bits, sites) + 1, _LEAST_BITS)
    return wide if wide <= packing.MAX_WIDTH else 64


def in_words(values: Array, bits: int) -> Array:
    """`values` (int64 or uint64) modulo 2**bits, without gaps: uint8; the same array for 64."""
    if bits == 64:
        return values
    words = np.ascontiguousarray(values).reshape(-1).view(np.uint64) & np.uint64((1 << bits) - 1)
    return np.frombuffer(packing.pack(words, bits), dtype=np.uint8)


def same_bits(answers: Sequence[Answer]) -> int:
    """In how many bits all of them send their values; raises `RejectMessageError` where they differ."""
    found = {answer.site: answer.bits for answer in answers}
    if len(set(found.values())) != 1:
        raise RejectMessageError("sites send their values in different numbers of bits", value=found, remedy=_REMEDY)
    return answers[0].bits


M = TypeVar("M", Ask, Answer)


def to_bytes(message: Ask | Answer) -> bytes:
    """A message as it travels."""
    return pack(codec.to_plain(message), message.arrays)


def from_bytes(cls: type[M], content: bytes, *, where: str) -> M:
    """The message that travelled. Raises `RejectMessageError` or `FixInputError` for anything else."""
    plain, arrays = unpack(content, where=where)
    return dataclasses.replace(codec.from_plain(cls, plain, where=where), arrays=arrays)


def pack(header: Mapping[str, Any], arrays: Mapping[str, Array]) -> bytes:
    """Bytes of a JSON object and named arrays."""
    plain = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    shapes = {name: [array.dtype.newbyteorder("<").str, list(array.shape)] for name, array in plain.items()}
    if unknown := {kind for kind, _ in shapes.values()} - set(_TYPES):
        raise TypeError(f"arrays of {unknown} have no place in a message")
    head = json.dumps({"header": header, "arrays": shapes}, allow_nan=False).encode()
    body = [array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes() for array in plain.values()]
    return b"".join([_PREFIX.pack(MAGIC, VERSION, len(head)), head, *body])


def unpack(content: bytes, *, where: str, limit: int = MAX_BYTES) -> tuple[dict[str, Any], dict[str, Array]]:
    """The JSON object and the arrays of `pack`; raises `RejectMessageError` for anything else."""
    try:
        if len(content) > limit:
            raise ValueError("too large")
        magic, version, length = _PREFIX.unpack_from(content)
        if magic != MAGIC or version != VERSION or length > _MAX_HEADER_BYTES:
            raise ValueError("not ours")
        at = _PREFIX.size + length
        head = json.loads(content[_PREFIX.size : at])
        arrays: dict[str, Array] = {}
        for name, (kind, shape) in head["arrays"].items():
            if not all(type(size) is int and size >= 0 for size in shape) or len(shape) > 4:
                raise ValueError("no shape")
            count, dtype = math.prod(shape), _TYPES[kind]
            if at + count * dtype.itemsize > len(content):
                raise ValueError("truncated")
            arrays[name] = np.frombuffer(content, dtype, count, at).reshape(shape).copy()
            at += count * dtype.itemsize
        if at != len(content) or not isinstance(head["header"], dict):
            raise ValueError("more than it says")
    except (ValueError, KeyError, TypeError, AttributeError, struct.error, RecursionError) as error:
        size = f"{len(content):,} bytes"
        raise RejectMessageError(
            "this is no message of a training run", where=where, value=size, remedy=_REMEDY
        ) from error
    return head["header"], arrays
