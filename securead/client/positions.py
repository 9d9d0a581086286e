"""Which reading each encrypted window ends with: the submitter's own notes beside a request, `<request>.windows`."""

from __future__ import annotations

import contextlib
import datetime
from dataclasses import dataclass
from pathlib import Path

from securead import codec, files
from securead.data.readings import read_readings
from securead.data.streaming import StreamingEncoder
from securead.data.windows import LocalScale, WindowedSchema, Windows
from securead.errors import FixInputError, SecureadError

WINDOWS_SUFFIX = ".windows"
_LIMIT = 1 << 30


@dataclass(frozen=True)
class Positions:
    """The row of every window's last reading, counted from 0, and its time in seconds where there are times."""

    request: str
    readings: tuple[int, ...]
    times: tuple[float, ...] | None = None
    format: int = 1

    @classmethod
    def of(cls, windows: Windows, request: str) -> Positions:
        """Those of the windows that a request holds."""
        times = None if windows.times is None else tuple(map(float, windows.times))
        return cls(request, tuple(map(int, windows.rows)), times)

    def told(self, row: int) -> str:
        """The cells reading,time of a window; a time from 1973 on is written as a date."""
        if self.times is None:
            return f"{self.readings[row]},"
        time = self.times[row]
        if 1e8 <= time < 1e11:
            moment = datetime.datetime.fromtimestamp(time, datetime.UTC)
            return f"{self.readings[row]},{moment.isoformat().removesuffix('+00:00')}Z"
        return f"{self.readings[row]},{time!r}"

    def write(self, path: Path) -> None:
        """Write them, whole or not at all, mode 0600."""
        files.write_json(path, codec.to_plain(self), mode=0o600)


def find_positions(answer: Path, request: str) -> Positions | None:
    """The notes of a request beside its answer, or None: who is sent the answer only has none."""
    beside = answer.with_name(answer.name + WINDOWS_SUFFIX)
    for path in (beside, *sorted(answer.parent.glob("*" + WINDOWS_SUFFIX))):
        with contextlib.suppress(SecureadError):
            found = codec.from_plain(Positions, files.read_json(path, limit=_LIMIT), where=str(path))
            if found.request == request:
                return found
    return None


def read_windows(
    path: Path,
    schema: WindowedSchema,
    *,
    scale: Path | None = None,
    time: str | None = None,
    reorder: bool = False,
) -> Windows:
    """The windows of one gateway's file of readings (see `data.readings`).

    `scale`: the gateway's own, where the model wants readings on it. Raises `FixInputError` for ill-formed readings
    and for a file that has no whole window.
    """
    encoder = StreamingEncoder(schema, None if scale is None else LocalScale.read(scale))
    (readings,) = read_readings(path, schema.window, time=time, reorder=reorder)
    windows = encoder.push(readings.X, readings.times)
    if not len(windows):
        raise FixInputError(
            f"{path} has no {schema.window.length} readings in a row",
            value=f"{len(readings.X)} readings, {encoder.state.gaps} gaps",
            remedy="Give a longer series, or declare in the window how gaps are filled.",
        )
    return windows
