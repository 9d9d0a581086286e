"""What one benchmark case is and what it measured: one line of JSON each, the same for engines, peers and studies.

A record is written whole, when its case is finished. Every number has a unit in its name, and whatever was not measured
is absent and says why: there are no numbers from elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from securead import codec

Kind = Literal["score", "train", "peer", "mechanism", "script"]
Link = Literal["loopback", "lan", "wan"]


@dataclass(frozen=True)
class Case:
    """One point of a suite: what is measured, on what, and under which conditions.

    kind: "score" runs records through an engine; "train" trains and scores in the clear (privacy, federation); "peer"
    is somebody else's software on the same rows; "mechanism" a part of ours by itself; "script" a program of
    `benchmarks/`, named by `detector`, with `parameters` as its options. `epsilon` None: no noise.
    `executor`: who trains, "embedded" or "flower". `aggregation`: plain sums, masked or encrypted ones. `threads` 0:
    all cores.
    """

    suite: str
    kind: Kind
    dataset: str
    detector: str
    parameters: tuple[tuple[str, float | int | str | bool], ...] = ()
    epsilon: float | None = None
    delta: float | None = None
    engine: str = "clear"
    role: Literal["same", "split", "none"] = "none"
    batch: int = 0
    link: Link = "loopback"
    threads: int = 1
    seed: int = 0
    sites: int = 3
    executor: str = "embedded"
    aggregation: Literal["plain", "masked", "paillier"] = "plain"
    peer: str = ""
    rows: int = 0

    @property
    def id(self) -> str:
        """A short name that is the same for the same case: what a resumed run goes by."""
        parts = [self.kind, self.peer or self.engine, self.dataset, self.detector]
        return "-".join(parts) + "-" + codec.digest(self, domain="securead.bench.case.v1")[:12]


@dataclass(frozen=True)
class Spread:
    """Repeats of one number: their median and how far they lie apart (the smallest and the largest)."""

    median: float
    low: float
    high: float
    repeats: int


@dataclass(frozen=True)
class Timing:
    """Seconds of one role in one phase, a row: processor time and wall time. Offline work needs no record yet.

    `..._once`: of what is done once, however many records come, as making keys.
    """

    role: str
    phase: str
    threads: int
    offline: bool
    cpu_seconds_per_row: Spread | None
    wall_seconds_per_row: Spread | None
    cpu_seconds_once: Spread | None = None
    wall_seconds_once: Spread | None = None


@dataclass(frozen=True)
class Traffic:
    """Bytes from one role to another. `what`: "records", "scores", "keys", "one-time material", "updates"..."""

    sender: str
    receiver: str
    what: str
    bytes_per_row: float | None = None
    bytes_once: int | None = None


@dataclass(frozen=True)
class Accuracy:
    """How well a detector tells anomalies from the rest, held out. It repeats to the last bit, but for peers' noise.

    Under an engine of ours it is that of the integer program, whose scores the engine computes; in the clear that of
    the float model; of a peer that of the scores that it returned. What encryption made of the scores: `Fidelity`.
    `precision` and `false_alarms` (a share of the normal records) are at the calibrated threshold.
    `auroc_no_data`: of the same detector trained on noise in place of records; `auroc_central`: trained without noise
    on all sites' records; `auroc_best_site`: the best that one site reaches with its own records, without noise.
    """

    auroc: float | None = None
    average_precision: float | None = None
    precision: float | None = None
    false_alarms: float | None = None
    auroc_float: float | None = None
    auroc_norm: float | None = None
    auroc_untrained: float | None = None
    auroc_no_data: float | None = None
    auroc_central: float | None = None
    auroc_best_site: float | None = None


@dataclass(frozen=True)
class Fidelity:
    """How near the scores that came out are to those that they stand for: with an encryption's fresh noise in them.

    Errors and Spearman's correlations are against the integer program (relative to its typical score) and the float
    model. `auroc_of_scores`, `average_precision_of_scores`: what `Accuracy` has, of the scores that came out.
    `decisions_changed`: records that they put on the other side of the threshold than the integer program does.
    """

    max_error_to_integer: float | None = None
    rank_correlation_to_integer: float | None = None
    max_error_to_float: float | None = None
    rank_correlation_to_float: float | None = None
    auroc_of_scores: float | None = None
    average_precision_of_scores: float | None = None
    decisions_changed: int | None = None


@dataclass(frozen=True)
class Figure:
    """One number that a script of `benchmarks/` printed, by its path in the script's results."""

    name: str
    value: float


@dataclass(frozen=True)
class Privacy:
    """What training promises, or would under unpredictable noise: studies draw it from a seed, to repeat exactly."""

    epsilon: float | None
    delta: float | None
    accountant: str = ""
    noise_source: str = ""


@dataclass(frozen=True)
class Provenance:
    """Where and when, and of what exactly."""

    revision: str
    versions: tuple[tuple[str, str], ...]
    machine: str
    cores: int
    created: str
    program: str = ""


@dataclass(frozen=True)
class Record:
    """A finished case. `missing` says why nothing was measured, where nothing was; then the rest is empty.

    `rounds`: exchanges that wait for one another, for one request (a request and its answer is one), or of training.
    `predicted_seconds`: one request over the case's link, from measured bytes and rounds; `delayed_seconds`: the same
    run with that delay injected. `extraction_rows`: honest scores after which a submitter can have fitted a copy of the
    model. `security_bits`: of the encryption. `figures`: what a script found. `failures`: what the suite's own checks
    found wrong, or how the case's process ended: shown first in the report, and its numbers in no finding.
    """

    case: Case
    provenance: Provenance
    missing: str = ""
    rows: int = 0
    columns: int = 0
    accuracy: Accuracy = Accuracy()
    fidelity: Fidelity = Fidelity()
    timings: tuple[Timing, ...] = ()
    traffic: tuple[Traffic, ...] = ()
    rounds: int | None = None
    predicted_seconds: float | None = None
    delayed_seconds: float | None = None
    peak_bytes: tuple[tuple[str, int], ...] = ()
    privacy: Privacy | None = None
    security_bits: float | None = None
    extraction_rows: int | None = None
    seconds: float = 0.0
    figures: tuple[Figure, ...] = ()
    notes: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()


def to_line(record: Record) -> str:
    """One line of JSON."""
    return json.dumps(codec.to_plain(record), allow_nan=False, separators=(",", ":"))


def from_line(line: str, *, where: str) -> Record:
    """The record of a line; raises `FixInputError` for anything else."""
    try:
        plain = json.loads(line)
    except ValueError:
        plain = None
    return codec.from_plain(Record, plain, where=where)


def unique(cases: Iterable[Case]) -> tuple[Case, ...]:
    """The cases in order, each once."""
    return tuple({case.id: case for case in cases}.values())
