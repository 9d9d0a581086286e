"""Windows of readings: how a series of a sensor's readings becomes records, and where a series has gaps.

A record is `length` readings in a row of all channels, a new one every `stride` readings. What counts as in a row, the
bounds of each channel and how values are scaled are public and part of the schema, so of every program's digest.

| a reading | what happens |
|---|---|
| comes less than half a period after the last, or not after it | `early`: refused, or dropped and counted |
| comes more than `gap` periods after the last | the missing ones are filled if they are `fill` at most, else a gap |
| has a NaN | `missing`: refused, or counted as missing (its other channels stay) |
| is infinite, has another number of channels, or no time though there is a period | refused |
| lies out of its channel's bounds | clipped and counted, or refused: the schema's `out_of_bounds` |

A filled reading repeats the last one. No window spans a gap, and each ends with a reading that was really taken.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from securead import codec, files
from securead.data.schema import MAX_COLUMNS, Array, Column, Schema
from securead.errors import FixConfigurationError, FixInputError

LOCAL_LIMIT = 8.0
"""Locally standardised values are clipped to so many spreads."""


@dataclass(frozen=True)
class Window:
    """`length` readings of `channels`, a new window every `stride` readings; the table above says what breaks one.

    `period`: seconds between readings; without it only NaN makes a gap, because nothing else shows one. `local`: the
    record is in spreads of the gateway's own scale (`LocalScale`), not in the channels' units.
    """

    channels: tuple[Column, ...]
    length: int
    stride: int = 1
    period: float | None = None
    gap: float = 1.5
    fill: int = 0
    missing: Literal["refuse", "gap"] = "refuse"
    early: Literal["refuse", "drop"] = "refuse"
    local: bool = False

    def __post_init__(self) -> None:
        Schema(self.channels)  # refuses no channel, or one that is declared twice
        if not (self.length >= 1 and self.stride >= 1 and 1 <= self.length * len(self.channels) <= MAX_COLUMNS):
            raise FixConfigurationError(
                f"a window has a length and a stride of 1 or more, and {MAX_COLUMNS} values at most",
                value=(self.length, self.stride, len(self.channels)),
                remedy="Shorten it, or leave channels out.",
            )
        if self.period is not None and not 0 < self.period < math.inf:
            raise FixConfigurationError("a period is a positive number of seconds", value=self.period)
        if not 1 < self.gap <= 100:
            raise FixConfigurationError(
                "gap lies in (1, 100]", value=self.gap, remedy="1.5 periods after the last reading is the default."
            )
        if not 0 <= self.fill < self.length:
            raise FixConfigurationError(
                "fill is at least 0 and below the length", value=self.fill, remedy="0 fills nothing."
            )

    @property
    def names(self) -> tuple[str, ...]:
        """The record's columns: reading after reading, the oldest first, `name[-age]` with the age in readings."""
        return tuple(f"{c.name}[-{age}]" for age in range(self.length - 1, -1, -1) for c in self.channels)

    @property
    def windows_per_reading(self) -> int:
        """In how many windows one reading can lie: as itself, and where it fills in for missing ones."""
        return math.ceil((self.length + self.fill) / self.stride)

    @property
    def channels_digest(self) -> str:
        """What a local scale belongs to: the channels, however they are cut into windows."""
        return codec.digest(Schema(self.channels), domain="securead.data.channels.v1")


@dataclass(frozen=True)
class WindowedSchema(Schema):
    """A schema whose records are windows: its columns are the window's channels, reading after reading."""

    type_tag: ClassVar[str] = "windowed"
    window: Window = field(kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        bounds = [(c.lower, c.upper, c.transform) for c in _columns(self.window)]
        if self.names != self.window.names or [(c.lower, c.upper, c.transform) for c in self.columns] != bounds:
            raise FixConfigurationError(
                "the columns are not the window's", remedy="Make the schema with WindowedSchema.of(window)."
            )

    @classmethod
    def of(
        cls,
        window: Window,
        *,
        out_of_bounds: Literal["clip", "refuse"] = "clip",
        origin: Literal["declared", "observed"] = "declared",
    ) -> WindowedSchema:
        """The schema of a window's records."""
        return cls(_columns(window), out_of_bounds, origin, window=window)

    @property
    def readings(self) -> Schema:
        """The schema of a single reading, in the channels' units."""
        return Schema(self.window.channels, self.out_of_bounds, self.origin)

    def localised(self) -> WindowedSchema:
        """The same windows of readings that a gateway has put on its own scale."""
        window = dataclasses.replace(self.window, local=True)
        return WindowedSchema.of(window, out_of_bounds=self.out_of_bounds, origin=self.origin)


def _columns(window: Window) -> tuple[Column, ...]:
    if window.local:
        return tuple(Column(name, -LOCAL_LIMIT, LOCAL_LIMIT, "identity", 0.0, 1.0) for name in window.names)
    each = window.channels * window.length
    return tuple(dataclasses.replace(c, name=name) for c, name in zip(each, window.names, strict=True))


def windows_per_reading(schema: Schema) -> int:
    """How many records one reading can touch; 1 where records are no windows."""
    return schema.window.windows_per_reading if isinstance(schema, WindowedSchema) else 1


@dataclass(frozen=True, eq=False)
class Windows:
    """Records `X` `(n, length * channels)`, the row of each one's last reading, and its time where there are times.

    `rows` counts the readings given so far, from 0, also those that were dropped. `outside` `(channels,)` counts
    values that were out of their channel's bounds among the readings that these windows came from.
    """

    X: Array
    rows: Array
    times: Array | None
    outside: Array
    channels: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.X)

    @property
    def clipped(self) -> dict[str, int]:
        """`outside` by channel, without the zeros."""
        return {name: int(count) for name, count in zip(self.channels, self.outside, strict=True) if count}


@dataclass(frozen=True)
class LocalScale:
    """A gateway's own centre and spread of every channel, in the channel's transformed unit.

    Derived from its readings under noise and charged to its budget when `noise_multiplier` is set, so that its
    guarantee covers whoever sees the file; still nobody but the gateway needs it, and it is written for its eyes only.
    """

    site: str
    channels: str
    center: tuple[float, ...]
    spread: tuple[float, ...]
    noise_multiplier: float | None = None
    format: int = 1

    def __post_init__(self) -> None:
        if len(self.center) != len(self.spread) or not all(0 < s < math.inf for s in self.spread) or self.format != 1:
            raise FixInputError("a local scale has a centre and a positive spread a channel", value=self.spread)

    def standardise(self, readings: Schema, bounded: Array) -> Array:
        """Bounded readings `(n, channels)` in spreads from the centre, clipped to `LOCAL_LIMIT`."""
        scaled = (readings.transformed(bounded) - np.array(self.center)) / np.array(self.spread)
        clipped: Array = np.clip(scaled, -LOCAL_LIMIT, LOCAL_LIMIT)
        return clipped

    def check(self, window: Window) -> None:
        """Raise `FixInputError` unless the scale is of this window's channels."""
        if self.channels != window.channels_digest or len(self.center) != len(window.channels):
            raise FixInputError(
                "the local scale is of other channels",
                value=self.site,
                remedy="Give the scale that this gateway derived when a model with these channels was trained.",
            )

    def write(self, path: Path) -> None:
        """Write it, whole or not at all, mode 0600."""
        files.write_json(path, codec.to_plain(self), mode=0o600)

    @classmethod
    def read(cls, path: Path) -> LocalScale:
        """Read what `write` wrote."""
        return codec.from_plain(cls, files.read_json(path, limit=1 << 20), where=str(path))
