"""Readings in, windows out, with a memory that outlives the process: what a gateway runs before it encrypts.

Guarantee: however readings are cut into calls, and wherever the state is saved and restored in between, the windows are
those of one call with all of them. A call that raises changes nothing. NumPy only.
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from securead import codec, files
from securead.data.schema import Array
from securead.data.windows import LocalScale, Window, WindowedSchema, Windows
from securead.errors import FixConfigurationError, FixInputError


@dataclass(frozen=True)
class StreamState:
    """What must be remembered between readings. It holds the last of them: for the gateway's eyes only.

    `position`: readings given so far; a source that can be replayed goes on from there. `run`: readings in a row,
    filled ones included, of which the last `held` are filled. `tail`: the last of these, as many as the next window
    may need. The rest are counts since the start.
    """

    stream: str
    outside: tuple[int, ...]
    position: int = 0
    run: int = 0
    held: int = 0
    last_time: float | None = None
    tail: tuple[tuple[float, ...], ...] = ()
    dropped: int = 0
    filled: int = 0
    gaps: int = 0
    windows: int = 0
    format: int = 1


class StreamingEncoder:
    """Cuts a stream of readings into records for one model.

    A model with local standardisation needs the gateway's `scale`; another takes none. Raises
    `FixConfigurationError` where these do not fit, and `FixInputError` for a scale of other channels.
    """

    def __init__(self, schema: WindowedSchema, scale: LocalScale | None = None) -> None:
        if not isinstance(schema, WindowedSchema):
            raise FixConfigurationError("this model's records are no windows", remedy="Score them as they are.")
        if schema.window.local and scale is None:
            raise FixConfigurationError(
                "this model wants readings on the gateway's own scale, and none is given",
                remedy="Give the file that training wrote for this gateway (--scale).",
            )
        if not schema.window.local and scale is not None:
            raise FixConfigurationError("this model takes no local scale", remedy="Leave it out.")
        if scale is not None:
            scale.check(schema.window)
        self._schema, self._readings, self._scale = schema, schema.readings, scale
        stream = codec.digest(schema, domain="securead.data.stream.v1")
        if scale is not None:
            stream = codec.digest(scale, domain=f"securead.data.stream.v1|{stream}")
        self._state = StreamState(stream, (0,) * len(schema.window.channels))

    @property
    def state(self) -> StreamState:
        """What the next reading will meet."""
        return self._state

    def restore(self, state: StreamState) -> None:
        """Go on from a state of the same stream. Raises `FixInputError` for one of another model or scale."""
        channels = len(self._schema.window.channels)
        sizes = {len(state.outside), *map(len, state.tail)}
        whole = len(state.tail) == _remembered(self._schema.window, state.run) and 0 <= state.held <= state.run
        if state.stream != self._state.stream or state.format != 1 or sizes != {channels} or not whole:
            raise FixInputError(
                "the saved state is of another model or another local scale",
                remedy="Remove it to begin anew: the first window then needs a full length of readings.",
            )
        self._state = state

    def save(self, path: Path) -> None:
        """Write the state, whole or not at all, mode 0600; it is on disk when this returns."""
        files.write_json(path, codec.to_plain(self._state), mode=0o600)

    def load(self, path: Path) -> None:
        """`restore` what `save` wrote."""
        self.restore(codec.from_plain(StreamState, files.read_json(path, limit=1 << 26), where=str(path)))

    def push(
        self, readings: Array, times: Array | float | None = None, *, channels: tuple[str, ...] | None = None
    ) -> Windows:
        """Take one reading `(channels,)` or many `(n, channels)` in order; the windows that they complete.

        `times`: seconds, one a reading; needed where the window has a period. `channels`: the readings' names, where
        their order may differ from the window's. Raises `FixInputError`, having taken nothing, for what the table in
        `windows` refuses.
        """
        X = np.asarray(readings, dtype=np.float64)
        X = X[None, :] if X.ndim == 1 else X
        if channels is not None:
            X = X[:, self._readings.order(tuple(channels), reorder=True)]
        names = self._readings.names
        if X.ndim != 2 or X.shape[1] != len(names):
            raise FixInputError(
                "a reading has another number of channels",
                value=X.shape,
                remedy=f"Give {len(names)} values: {', '.join(names)}.",
            )
        clock, first = self._clock(times, len(X)), self._state.position
        absent: Array = np.isnan(X)
        if absent.any() and self._schema.window.missing == "refuse":
            row, column = map(int, np.argwhere(absent)[0])
            raise FixInputError(
                f"reading {first + row}, channel {names[column]!r} is missing",
                remedy='Declare missing = "gap" in the window to go on after a gap.',
            )
        lower = np.array([c.lower for c in self._readings.columns])
        bounded, outside = self._readings.bounded(np.where(absent, lower, X))
        values = bounded if self._scale is None else self._scale.standardise(self._readings, bounded)
        progress = _Progress(self._schema.window, self._state)
        incomplete = set(np.flatnonzero(absent.any(axis=1)).tolist())
        for at, value in enumerate(values):
            progress.take(value, absent[at] if at in incomplete else None, None if clock is None else float(clock[at]))
        found = progress.windows(len(names), timed=clock is not None)
        self._state = progress.state(self._state, outside)
        return dataclasses.replace(found, outside=outside, channels=names)

    def _clock(self, times: Array | float | None, readings: int) -> Array | None:
        if times is None:
            if self._schema.window.period is not None and readings:
                raise FixInputError(
                    "the readings have no times, and the window has a period",
                    remedy="Give the time of every reading, in seconds.",
                )
            return None
        clock = np.atleast_1d(np.asarray(times, dtype=np.float64))
        if clock.shape != (readings,) or not np.isfinite(clock).all():
            raise FixInputError("there is one finite time, in seconds, a reading", value=clock.shape)
        return clock


class _Progress:
    """One call's work on copies, so that a refused call leaves the encoder as it was."""

    def __init__(self, window: Window, state: StreamState) -> None:
        self._window, self._run, self._held = window, state.run, state.held
        self._position, self._last = state.position, state.last_time
        self._pool = [np.array(row) for row in state.tail]
        self._dropped = self._filled = self._gaps = 0
        self._ends: list[int] = []
        self._rows: list[int] = []
        self._times: list[float] = []

    def take(self, value: Array, absent: Array | None, time: float | None) -> None:
        row, window = self._position, self._window
        self._position += 1
        if time is not None and self._last is not None and self._comes_early(row, time - self._last):
            return
        if time is not None and self._last is not None and window.period is not None:
            step = (time - self._last) / window.period
            if step > window.gap:
                self._miss(max(1, round(step) - 1))
        self._last = time if time is not None else self._last
        if absent is None:
            self._add(value, held=0)
        elif self._run and self._held < window.fill:
            self._add(np.where(absent, self._pool[-1], value), held=self._held + 1)
            self._filled += 1
        else:
            self._break()
            return
        if self._run >= window.length and (self._run - window.length) % window.stride == 0:
            self._ends.append(len(self._pool))
            self._rows.append(row)
            self._times.append(math.nan if time is None else time)

    def _comes_early(self, row: int, step: float) -> bool:
        least = 0.0 if self._window.period is None else self._window.period / 2
        if step > 0 and step >= least:
            return False
        if self._window.early == "refuse":
            raise FixInputError(
                f"reading {row} comes {step:g} s after the last: twice, out of order or too fast",
                remedy='Sort the readings, correct the period, or declare early = "drop" in the window.',
            )
        self._dropped += 1
        return True

    def _miss(self, readings: int) -> None:
        if self._run and self._held + readings <= self._window.fill:
            for _ in range(readings):
                self._add(self._pool[-1], held=self._held + 1)
            self._filled += readings
        else:
            self._break()

    def _add(self, value: Array, *, held: int) -> None:
        self._pool.append(value)
        self._run, self._held = self._run + 1, held

    def _break(self) -> None:
        self._gaps += self._run > 0
        self._run = self._held = 0

    def windows(self, channels: int, *, timed: bool) -> Windows:
        length = self._window.length
        at = np.array(self._ends, dtype=np.int64)[:, None] + np.arange(-length, 0)
        values = np.array(self._pool).reshape(-1, channels)
        return Windows(
            values[at].reshape(len(at), length * channels),
            np.array(self._rows, dtype=np.int64),
            np.array(self._times) if timed else None,
            np.zeros(channels, dtype=np.int64),
        )

    def state(self, before: StreamState, outside: Array) -> StreamState:
        keep = _remembered(self._window, self._run)
        return dataclasses.replace(
            before,
            position=self._position,
            run=self._run,
            held=self._held,
            last_time=self._last,
            tail=tuple(tuple(map(float, row)) for row in self._pool[len(self._pool) - keep :]),
            outside=tuple(a + int(b) for a, b in zip(before.outside, outside, strict=True)),
            dropped=before.dropped + self._dropped,
            filled=before.filled + self._filled,
            gaps=before.gaps + self._gaps,
            windows=before.windows + len(self._ends),
        )


def _remembered(window: Window, run: int) -> int:
    # One at least inside a run, because a filled reading repeats the last.
    return min(run, max(window.length - 1, 1))


def windows_of(
    schema: WindowedSchema, readings: Array, times: Array | None = None, *, scale: LocalScale | None = None
) -> Windows:
    """All windows of a whole series."""
    return StreamingEncoder(schema, scale).push(readings, times)
