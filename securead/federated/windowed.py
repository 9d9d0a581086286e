"""Training on windows of readings: which series belong to which site, and the records that they become."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from securead.data.generators.generated import Generated
from securead.data.readings import Readings, read_readings
from securead.data.schema import Schema
from securead.data.streaming import windows_of
from securead.data.windows import Window, WindowedSchema
from securead.errors import FixConfigurationError, FixInputError, SecureadError
from securead.federated.participant import Site


@dataclass(frozen=True)
class WindowSection:
    """How readings become records (see `data.windows`), and where they stand in a file (see `data.readings`).

    `series` names the column that tells gateways apart in a file of several: each is a site of that name. `first`: only
    so many readings of each series are trained on. Readings of a site are in order of time.
    """

    length: int
    stride: int = 1
    period: float | None = None
    gap: float = 1.5
    fill: int = 0
    missing: Literal["refuse", "gap"] = "refuse"
    early: Literal["refuse", "drop"] = "refuse"
    time: str | None = None
    series: str | None = None
    ignore: tuple[str, ...] = ()
    first: int | None = None

    def schema(self, readings: Schema) -> WindowedSchema:
        """The schema of windows of readings that have a schema of their own."""
        window = Window(
            readings.columns, self.length, self.stride, self.period, self.gap, self.fill, self.missing, self.early
        )
        return WindowedSchema.of(window, out_of_bounds=readings.out_of_bounds, origin=readings.origin)

    def read(self, path: Path, schema: WindowedSchema, label: str | None) -> tuple[Readings, ...]:
        """The series of a file."""
        return read_readings(
            path, schema.window, time=self.time, series=self.series, label=label, ignore=self.ignore, reorder=True
        )


@dataclass(frozen=True)
class Place:
    """A site of a recipe: its name, its own file if it has one, and where its budget and its scale are kept."""

    name: str
    data: Path | None = None
    ledger: Path | None = None
    limit: float | None = None
    scale: Path | None = None


def generated_sites(section: WindowSection, schema: WindowedSchema, made: Generated) -> tuple[Site, ...]:
    """Every generated site's windows."""
    found = []
    for at, name in enumerate(made.sites):
        table = made.of_site(name)
        found.append(_site(Place(name), [Readings(table.X, made.time[made.site == at], table.y)], section, schema))
    return tuple(found)


def sites_of(
    section: WindowSection, schema: WindowedSchema, places: Sequence[Place], common: Path | None, label: str | None
) -> tuple[Site, ...]:
    """Every site's windows, from its own file or from its series in a common one."""
    if common is None:
        for place in places:
            if place.data is None:
                raise FixConfigurationError(
                    f"site {place.name!r} has no data",
                    remedy="Give each site a data file, or the recipe one with a series column (data = ..., --data).",
                )
        return tuple(
            _site(place, section.read(place.data, schema, label), section, schema)
            for place in places
            if place.data is not None
        )
    if section.series is None:
        raise FixConfigurationError(
            "readings of one file cannot be split by shares: windows need their order",
            remedy="Name the column that tells gateways apart (series, in [window]), or give each site its own file.",
        )
    series = {found.series: found for found in section.read(common, schema, label)}
    named = list(places) or [Place(name) for name in series]
    unknown = [place.name for place in named if place.name not in series]
    if unknown:
        raise FixInputError(
            f"{common} has no series of this name", value=unknown[0], remedy="It has " + ", ".join(series)[:200] + "."
        )
    return tuple(_site(place, [series[place.name]], section, schema) for place in named)


def _site(place: Place, series: Sequence[Readings], section: WindowSection, schema: WindowedSchema) -> Site:
    X, labels = [], []
    for readings in series:
        part = slice(section.first)
        times = None if readings.times is None else readings.times[part]
        try:
            windows = windows_of(schema, readings.X[part], times)
        except SecureadError as error:
            error.where = f"site {place.name!r}"
            raise
        X.append(windows.X)
        if readings.y is not None:
            labels.append(readings.y[windows.rows])
    y = np.concatenate(labels) if len(labels) == len(series) else None
    return Site(place.name, np.concatenate(X), place.ledger, place.limit, y, place.scale)
