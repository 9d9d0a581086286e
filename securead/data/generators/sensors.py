"""Sensor streams of a fleet of gateways, each watching a pump, with typed faults. Synthetic: no plant is behind them.

Modelled on water-circulation rigs such as the one behind SKAB (Katser and Kozitsyn 2020, "Skoltech Anomaly Benchmark"),
whose channels are vibration, current, voltage, pressure, temperatures and flow. Each pump follows two hidden inputs:
its load (a daily cycle, slow demand, jitter) and how far a valve is open. The channels follow from textbook relations:
flow grows with speed and opening; pressure with the square of speed and less opening (affinity laws); current with the
hydraulic power; supply voltage sags with current; the motor warms with the square of current and lags by some forty
minutes; vibration grows with speed and with throttling. Gateways differ in gain, offset, noise and operating point, so
each has to be put on its own scale before a fleet shares a model: `standardised` does that.

Faults, each an interval on one gateway:

* drift: one channel leaves its true value on a ramp;
* spike: one channel jumps for one to three readings;
* stuck: one channel repeats its last value;
* correlation_break: one channel follows its own past of another hour, so that each value is plausible by itself
  and only its relation to the others is wrong.

Numbers in this file are round guesses of ours; nothing measured here says how a detector fares on a real plant.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from securead.data.generators.generated import Generated, check_share, check_whole, run_lengths, split_count
from securead.data.readers import Table
from securead.data.schema import Array, Column, Schema

KINDS = ("normal", "drift", "spike", "stuck", "correlation_break")
PERIOD = 60.0  # seconds between readings
READINGS_PER_DAY = 1440
_FAULT_SHARES = (0.35, 0.1, 0.25, 0.3)  # of faulty readings, in the order of KINDS[1:]
_DECIMALS = 4

# Name, bounds (the sensor's range), centre and spread (typical over such plants), and how much sensors differ.
_COLUMNS = (
    ("pressure_bar", 0.0, 16.0, 4.6, 1.0, 1.2),
    ("flow_l_min", 0.0, 300.0, 95.0, 15.0, 30.0),
    ("speed_rpm", 0.0, 4000.0, 2100.0, 250.0, 350.0),
    ("current_a", 0.0, 40.0, 9.7, 1.6, 3.0),
    ("voltage_v", 150.0, 300.0, 222.0, 10.0, 4.0),
    ("motor_celsius", -20.0, 150.0, 42.0, 9.0, 10.0),
    ("vibration_drive_g", 0.0, 5.0, 0.48, 0.08, 0.2),
    ("vibration_free_g", 0.0, 5.0, 0.39, 0.07, 0.15),
)
CHANNELS = tuple(column[0] for column in _COLUMNS)


@dataclass(frozen=True)
class Fault:
    """One fault: readings [start, stop) of a gateway, on one channel; both numbers count readings of that gateway."""

    kind: str
    gateway: str
    channel: str
    start: int
    stop: int


@dataclass(frozen=True, eq=False)
class Fleet(Generated):
    """Readings, gateway after gateway and each in order of time; sites are gateways.

    Each gateway's first `quiet` readings hold no fault: on them it can learn its own scale.
    """

    faults: tuple[Fault, ...]
    quiet: int

    def is_quiet(self) -> Array:
        """Which rows belong to their gateway's first `quiet` readings, as a mask."""
        rows: Array = np.tile(np.arange(len(self.site) // len(self.sites)) < self.quiet, len(self.sites))
        return rows


def sensors_schema() -> Schema:
    """The public schema of generated readings: 8 channels, bounds and typical scale declared, outside is clipped."""
    return Schema(tuple(Column(name, low, high, "identity", c, s) for name, low, high, c, s, _ in _COLUMNS))


def generate_sensors(*, gateways: int = 20, readings: int = 2_880, fault_rate: float = 0.05, seed: int = 0) -> Fleet:
    """A fleet's readings, one a minute, with labelled, typed faults in the second half of each stream.

    Exactly gateways * readings rows, round(rows * fault_rate) of them faulty: 35 % drift, 10 % spike, 25 % stuck,
    30 % correlation break. Faults never touch or overlap on a gateway; its first half is normal; every value lies
    within the schema's bounds; the same arguments give the same bytes (under one NumPy).

    Parameters
    ----------
    gateways: how many, 1 to 1,000.
    readings: of each gateway, 200 to 100,000; 1,440 are a day.
    fault_rate: the share of faulty readings among all, 0 to 0.25.
    seed: decides everything.

    Raises `FixConfigurationError` for arguments outside these ranges.
    """
    check_whole("gateways", gateways, 1, 1_000)
    check_whole("readings", readings, 200, 100_000)
    check_whole("seed", seed, 0, 2**63 - 1)
    check_share("fault_rate", fault_rate, 0.25)
    rng = np.random.default_rng([int(seed), 2])
    quiet = readings // 2
    values = _normal(rng, int(gateways), int(readings))
    names = tuple(f"gateway-{i + 1:0{len(str(gateways))}d}" for i in range(gateways))
    kind = np.zeros((gateways, readings), dtype=np.int8)
    faults = []
    # How far a channel moves on this gateway in ordinary operation: the measure of a fault's size.
    usual = values[:, :quiet].std(axis=1)
    for code, gateway, start, stop in _places(rng, int(gateways), int(readings), quiet, fault_rate):
        channel = int(rng.integers(len(CHANNELS)))
        _APPLY[code - 1](rng, values[gateway, :, channel], start, stop, usual[gateway, channel])
        kind[gateway, start:stop] = code
        faults.append(Fault(KINDS[code], names[gateway], CHANNELS[channel], start, stop))
    schema = sensors_schema()
    lower, upper = np.array([column[1:3] for column in _COLUMNS]).T
    X = np.clip(np.round(values.reshape(-1, len(CHANNELS)), _DECIMALS), lower, upper)
    return Fleet(
        table=Table(X, schema.names, (kind.ravel() > 0).astype(np.int8), source=f"synthetic sensors, seed {seed}"),
        schema=schema,
        kinds=KINDS,
        kind=kind.ravel(),
        sites=names,
        site=np.repeat(np.arange(gateways), readings).astype(np.int16),
        time=np.tile(np.arange(readings) * PERIOD, gateways),
        faults=tuple(faults),
        quiet=quiet,
    )


def standardised(fleet: Fleet, *, limit: float = 8.0) -> Array:
    """Every gateway's readings in deviations from its own quiet mean, `(rows, 8)`, clipped to [-limit, limit].

    Means and deviations come from a gateway's own readings: where those deserve protection, this must be charged to
    its budget. A private run does that when it scales each site by itself; this function does not.
    """
    shape = (len(fleet.sites), -1, len(CHANNELS))
    values = fleet.table.X.reshape(shape)
    quiet = values[:, : fleet.quiet]
    deviation = np.maximum(quiet.std(axis=1, keepdims=True), 1e-6)
    scaled: Array = np.clip((values - quiet.mean(axis=1, keepdims=True)) / deviation, -limit, limit)
    return scaled.reshape(-1, len(CHANNELS))


def _smooth(noise: Array, readings: float) -> Array:
    """A first-order lag with this time constant over the second axis, scaled to keep the variance of white noise."""
    n, keep = noise.shape[1], math.exp(-1 / readings)
    kernel = math.sqrt(1 - keep**2) * keep ** np.arange(n)
    smooth: Array = np.fft.irfft(np.fft.rfft(noise, 2 * n) * np.fft.rfft(kernel, 2 * n), 2 * n)[:, :n]
    return smooth


def _normal(rng: np.random.Generator, gateways: int, readings: int) -> Array:
    """Readings without a fault, `(gateways, readings, 8)`."""
    warm_up = 300  # readings before the record, so that lags have settled
    n = readings + warm_up

    def each(low: float, high: float) -> Array:
        return rng.uniform(low, high, (gateways, 1))

    def wandering(lag: float) -> Array:
        return _smooth(rng.normal(size=(gateways, n)), lag)

    day = 2 * np.pi * (np.arange(n) - warm_up) / READINGS_PER_DAY
    cycle = np.sin(day - each(0, 2 * np.pi))
    load = each(0.45, 0.65) + each(0.08, 0.14) * cycle + 0.07 * wandering(60) + 0.03 * wandering(4)
    valve = each(0.55, 0.75) + 0.06 * wandering(90) + 0.02 * wandering(5)
    speed = each(0.9, 1.1) * (0.45 + 0.5 * load)
    flow = speed * (0.55 + 0.7 * valve)
    pressure = speed**2 * (1.5 - 0.8 * valve)
    power = 0.25 + flow * pressure
    mains = 1 + 0.004 * wandering(45)
    current = power / mains
    voltage = mains - 0.06 * current
    # `_smooth` keeps the variance of noise; divided by its gain it keeps the mean, as a lag does.
    keep = math.exp(-1 / 40)
    heat = _smooth(current**2, 40) * math.sqrt((1 - keep) / (1 + keep))
    air = 18 + each(-4, 4) + 3 * np.sin(day - 2.2) + 0.3 * wandering(120)
    shaking = 0.15 + 0.6 * speed**2 + 0.5 * np.maximum(0.6 - valve, 0)
    rough = np.exp(0.04 * wandering(8))
    true = np.stack(
        [
            8.5 * pressure,
            130 * flow,
            2900 * speed,
            15 * current,
            235 * voltage,
            air + 55 * heat,
            shaking * rough,
            0.8 * shaking * rough**0.7,
        ],
        axis=-1,
    )[:, warm_up:]
    shape = (gateways, 1, len(CHANNELS))
    difference = np.array([column[5] for column in _COLUMNS])
    gain, offset = rng.uniform(0.92, 1.08, shape), rng.normal(0, 0.15, shape) * difference
    noise = rng.normal(size=true.shape) * rng.uniform(0.02, 0.05, shape) * difference
    measured: Array = true * gain + offset + noise
    return measured


def _places(
    rng: np.random.Generator, gateways: int, readings: int, quiet: int, fault_rate: float
) -> list[tuple[int, int, int, int]]:
    """Where faults lie: (kind, gateway, start, stop), apart from each other, in the readings from `quiet` on."""
    watched = readings - quiet
    counts = split_count(round(gateways * readings * fault_rate), _FAULT_SHARES)
    longest = max(4, min(240, watched // 8))
    ranges = ((longest // 4, longest), (1, 3), (longest // 4, longest), (longest // 4, longest))
    runs = [
        (int(length), code)
        for code, (count, (shortest, most)) in enumerate(zip(counts, ranges, strict=True), start=1)
        for length in run_lengths(rng, count, max(1, shortest), most)
    ]
    # Longest first, each to a gateway with the most room: then all fit, at half of the watched readings at most.
    free = np.full(gateways, watched) + rng.random(gateways)
    given: list[list[tuple[int, int]]] = [[] for _ in range(gateways)]
    for length, code in sorted(runs, reverse=True):
        gateway = int(np.argmax(free))
        free[gateway] -= length + 1
        given[gateway].append((length, code))
    places = []
    for gateway, faults in enumerate(given):
        room = watched - sum(length + 1 for length, _ in faults)
        gaps = np.sort(rng.integers(room + 1, size=len(faults)))
        at = quiet + 1
        for i, turn in enumerate(rng.permutation(len(faults))):
            length, code = faults[turn]
            start = at + int(gaps[i])
            places.append((code, gateway, start, start + length))
            at += length + 1
    return places


def _drift(rng: np.random.Generator, stream: Array, start: int, stop: int, usual: float) -> None:
    size = rng.choice((-1, 1)) * rng.uniform(2.0, 6.0) * usual
    stream[start:stop] += size * np.linspace(0, 1, stop - start + 1)[1:]


def _spike(rng: np.random.Generator, stream: Array, start: int, stop: int, usual: float) -> None:
    stream[start:stop] += rng.choice((-1, 1)) * rng.uniform(2.0, 6.0) * usual


def _stuck(rng: np.random.Generator, stream: Array, start: int, stop: int, usual: float) -> None:
    stream[start:stop] = stream[start - 1]


def _correlation_break(rng: np.random.Generator, stream: Array, start: int, stop: int, usual: float) -> None:
    # From the quiet half, so that no other fault is copied.
    source = int(rng.integers(len(stream) // 2 - (stop - start)))
    stream[start:stop] = stream[source : source + stop - start]


_APPLY = (_drift, _spike, _stuck, _correlation_break)
