"""Local standardisation: every site puts its windows on a scale of its own, paid from its budget, told to nobody.

The stage releases noised histograms to the site itself, which tells the sizes of its spreads only. What leaves it later
follows from them and from sums that carry noise of their own, so the statistics must be private although nobody is sent
them: readings that are merely set aside for them would get no guarantee.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from securead.data.schema import Array, Schema
from securead.data.windows import LocalScale, WindowedSchema
from securead.errors import FixConfigurationError
from securead.models.training import State, Total, Update
from securead.privacy import localscale, preprocessing
from securead.privacy.site import Releaser
from securead.privacy.statement import ReadingGuarantee, SiteGuarantee

LOCAL, TYPICAL = "local_scale", "typical_spread"
LOCAL_SHARE = 0.5
"""Of the budget: on 400 readings a gateway, a wrong scale costs more than noise in training."""
WHAT = (
    "histograms of every channel, by which a site puts its readings on its own scale; they stay there, but for the "
    "size of its spreads, and are charged because all that it sends later follows from them"
)


def check_schema(schema: Schema) -> None:
    """Raise `FixConfigurationError` unless sites can put these records on their own scale."""
    if not isinstance(schema, WindowedSchema) or schema.window.local:
        raise FixConfigurationError(
            'scaling="local" is for windows of readings in their channels\' units',
            remedy="Declare a window (its length may be 1), or use another scaling.",
        )


def update(state: State, data: Array, releaser: Releaser) -> Update:
    """Release a site's histograms to itself; the update tells the half-octaves of its spreads, found in them."""
    schema = _windowed(state.schema)
    lower, upper = schema.readings.transformed_bounds()
    values = _readings(schema, data).reshape(len(data), schema.window.length, -1)
    sensitivity = localscale.local_sensitivity(len(lower))
    releaser.release(localscale.local_counts(values, lower, upper), sensitivity, stage=LOCAL)
    _, spread = localscale.own_scale(*_noised(schema, releaser))
    return Update(LOCAL, localscale.octaves(spread, lower, upper), None, 0.0, releaser.event(LOCAL))


def next_state(schema: Schema, total: Total) -> tuple[Schema, dict[str, Array]]:
    """The schema of windows on their gateways' own scale, and the fleet's typical spread of every channel.

    Raises `PrivacyRefusedError` where too few sites found theirs under this noise.
    """
    windowed = _windowed(schema)
    lower, upper = windowed.readings.transformed_bounds()
    typical = localscale.typical_spread(total.values, lower, upper, windowed.readings.names)
    return windowed.localised(), {TYPICAL: typical}


def scale_of(schema: Schema, values: Mapping[str, Array], releaser: Releaser, site: str = "") -> LocalScale:
    """The scale of a site, from what it keeps and the fleet's typical spreads."""
    windowed = _windowed(schema)
    center, spread = localscale.agreed_scale(*_noised(windowed, releaser), values[TYPICAL])
    multiplier = getattr(releaser.event(LOCAL), "noise_multiplier", None)
    channels = windowed.window.channels_digest
    return LocalScale(site, channels, tuple(map(float, center)), tuple(map(float, spread)), multiplier)


def _noised(schema: WindowedSchema, releaser: Releaser) -> tuple[Array, Array, Array, float]:
    noised = releaser.kept.get(LOCAL)
    if noised is None:
        raise ValueError("no scale was derived")
    lower, upper = schema.readings.transformed_bounds()
    multiplier = getattr(releaser.event(LOCAL), "noise_multiplier", 0.0)
    variance = (multiplier * localscale.local_sensitivity(len(lower))) ** 2
    return preprocessing.counts(noised), lower, upper, preprocessing.deviation(variance)


def standardised(state: State, data: Array, releaser: Releaser) -> Array:
    """A site's windows in its own spreads, as a gateway's `StreamingEncoder` makes them."""
    scale = scale_of(state.schema, state.values, releaser)
    return on_scale(_windowed(state.schema), data, scale)


def on_scale(schema: WindowedSchema, data: Array, scale: LocalScale) -> Array:
    """Windows `(n, length * channels)` in their channels' units, in spreads of a gateway's own scale."""
    scale.check(schema.window)
    bounded = _bounded(schema, data)
    scaled: Array = scale.standardise(schema.readings, bounded).reshape(len(data), -1)
    return scaled


def guarantee_of_readings(sites: Sequence[SiteGuarantee], schema: Schema) -> ReadingGuarantee | None:
    """What single readings are promised where a record is a window of them, else None."""
    if not isinstance(schema, WindowedSchema):
        return None
    window = schema.window
    return ReadingGuarantee(window.length, window.stride, window.windows_per_reading, tuple(sites))


def _windowed(schema: Schema) -> WindowedSchema:
    if not isinstance(schema, WindowedSchema):
        raise TypeError("these records are no windows")
    return schema


def _bounded(schema: WindowedSchema, data: Array) -> Array:
    bounded, _ = schema.readings.bounded(np.asarray(data, dtype=np.float64).reshape(-1, len(schema.window.channels)))
    return bounded


def _readings(schema: WindowedSchema, data: Array) -> Array:
    return schema.readings.transformed(_bounded(schema, data))
