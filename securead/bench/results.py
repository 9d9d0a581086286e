"""Typed results of an end-to-end run; JSON is an export of these, not the other way round."""

from __future__ import annotations

from dataclasses import dataclass

from securead.data.schema import Array
from securead.federated.checkpoint import TrainingStep

NORM, UNTRAINED, NO_DATA = "|z|^2", "untrained", "no data"
__all__ = [
    "NORM",
    "NO_DATA",
    "UNTRAINED",
    "Control",
    "DetectorResult",
    "DetectorRun",
    "Phase",
    "Run",
    "Summary",
    "TrainingStep",
]


@dataclass(frozen=True)
class DetectorResult:
    """One detector on one engine in one role. Areas under curves are None without labels.

    `max_rel_error` and `rank_correlation` (Spearman) compare encrypted scores with the integer program's. Bytes are
    per scored row; `key_bytes` is what a submitter must fetch or the service must hold before the first row.
    """

    name: str
    engine: str
    role: str
    epsilon: float | None
    delta: float | None
    auroc_float: float | None
    auroc_encrypted: float | None
    ap_float: float | None
    ap_encrypted: float | None
    auroc_norm_baseline: float | None
    auroc_untrained: float | None
    rows_scored: int
    server_seconds: float
    client_encrypt_seconds: float
    client_decrypt_seconds: float
    upload_bytes_per_row: float
    download_bytes_per_row: float
    key_bytes: int
    max_rel_error: float
    rank_correlation: float


@dataclass(frozen=True)
class Summary:
    """What `demo-output/summary.json` holds."""

    dataset: str
    detectors: tuple[DetectorResult, ...]


@dataclass(frozen=True)
class Phase:
    """One step of the whole path: wall seconds and bytes that crossed between roles (0 where none did)."""

    name: str
    who: str
    seconds: float
    bytes: int = 0


@dataclass(frozen=True, eq=False)
class Control:
    """What the detector has to beat: scores `(n,)` of something that learnt nothing from the records.

    "|z|^2" is the norm of a standardised record, "untrained" the same network with its public initial weights (only
    networks have one), "no data" the same detector trained on noise in place of records.
    """

    name: str
    scores: Array
    auroc: float | None
    ap: float | None


@dataclass(frozen=True, eq=False)
class DetectorRun:
    """A result with what a report draws: held-out labels (or None), scores `(n,)` in three worlds and of controls."""

    result: DetectorResult
    y: Array | None
    float_scores: Array
    integer_scores: Array
    encrypted_scores: Array
    controls: tuple[Control, ...]
    training: tuple[TrainingStep, ...]
    threshold: float
    threshold_origin: str
    privacy: tuple[str, ...]
    phases: tuple[Phase, ...]
    parameters: tuple[tuple[str, str], ...]


@dataclass(frozen=True, eq=False)
class Run:
    """A whole demonstration: the data, who trained with how many records, and every detector's run."""

    dataset: str
    source: str
    sites: tuple[tuple[str, int], ...]
    rows_held_out: int
    anomalies_held_out: int | None
    detectors: tuple[DetectorRun, ...]
    version: str
    created: str

    @property
    def summary(self) -> Summary:
        """The typed summary."""
        return Summary(self.dataset, tuple(run.result for run in self.detectors))
