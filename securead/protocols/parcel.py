"""A message with a label: what a gateway deposits for later pick-up, and what the key holder finds.

    magic "SCLB" | label length u32 | label (JSON) | one envelope (`wire`)

The label says which windows a message holds, in the clear: the service orders and recognises deposits by it, and the
key holder tells by it what is missing. It holds no reading and no score. Its authenticity is the transport's business.
"""

from __future__ import annotations

import json
import re
import struct
from dataclasses import dataclass

from securead import codec
from securead.errors import RejectMessageError

MAGIC = b"SCLB"
MAX_LABEL_BYTES = 1 << 20
_PREFIX = struct.Struct("<4sI")
_NAME, _STREAM = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"), re.compile("[0-9a-f]{32}")
_REMEDY = "The parcel is damaged or not securead's: deposit it again."


@dataclass(frozen=True)
class Label:
    """Which message of which gateway this is, and what its rows are.

    `stream`: random, made with the gateway's spool; `sequence` counts the stream's messages from 0, without gaps.
    `readings`: each row's last reading, counted from 0; `times`: when that was, in seconds, where there are times.
    """

    gateway: str
    stream: str
    sequence: int
    readings: tuple[int, ...]
    times: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if not (check_gateway(self.gateway) and _STREAM.fullmatch(self.stream) and 0 <= self.sequence < 1 << 62):
            raise RejectMessageError(
                "a label's names are none that securead gives",
                value=(self.gateway[:64], self.stream[:64], self.sequence),
                remedy=_REMEDY,
            )
        if not self.readings or not all(0 <= reading < 1 << 62 for reading in self.readings):
            raise RejectMessageError("a label's readings are absurd", remedy=_REMEDY)
        if self.times is not None and len(self.times) != len(self.readings):
            raise RejectMessageError("a label has not one time a row", value=len(self.times), remedy=_REMEDY)


def check_gateway(name: str) -> bool:
    """Whether `name` can name a gateway: 1 to 64 letters, digits, '-', '_' or '.', a letter or digit first."""
    return _NAME.fullmatch(name) is not None


def opening(label: Label) -> bytes:
    """What a parcel begins with, before its message."""
    told = json.dumps(codec.to_plain(label), separators=(",", ":"), allow_nan=False).encode()
    return _PREFIX.pack(MAGIC, len(told)) + told


def to_bytes(label: Label, message: bytes) -> bytes:
    """The parcel as it travels; `message` is an envelope's bytes."""
    return b"".join((opening(label), message))


def from_bytes(parcel: bytes) -> tuple[Label, memoryview]:
    """The label, and the message that follows it; or `RejectMessageError`."""
    if len(parcel) < _PREFIX.size:
        raise RejectMessageError("a parcel ends within its first bytes", remedy=_REMEDY)
    magic, size = _PREFIX.unpack_from(parcel)
    if magic != MAGIC or size > MAX_LABEL_BYTES or _PREFIX.size + size > len(parcel):
        raise RejectMessageError("these bytes are no securead parcel", value=magic, remedy=_REMEDY)
    try:
        plain = json.loads(parcel[_PREFIX.size : _PREFIX.size + size], parse_constant=_no_number)
        label = codec.from_plain(Label, plain, where="label")
    except RejectMessageError:
        raise
    except (ValueError, RecursionError) as error:
        raise RejectMessageError(f"a parcel's label is ill-formed: {error}", remedy=_REMEDY) from error
    return label, memoryview(parcel)[_PREFIX.size + size :]


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number")
