"""The detector of a case, trained as the case says: every way of measuring one begins here.

Noise comes from a seed (`noise_source="seeded-study"`), so that two runs agree; the record says what it would promise
if it came from the system.
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from securead import codec
from securead.bench.datasets import NamedData
from securead.bench.records import Case, Privacy, Provenance
from securead.data.schema import Array
from securead.errors import FixConfigurationError
from securead.federated.embedded import train
from securead.federated.events import Answered, Event, RoundDone
from securead.federated.federation import Federation, Terms
from securead.federated.participant import Site
from securead.models.autoencoder import AutoEncoder
from securead.models.estimator import AnomalyDetector
from securead.models.registry import make_detector
from securead.privacy.plan import PrivacyPlan, accountant_name
from securead.program.layered import RING_BITS
from securead.program.program import Program, PublicProgram
from securead.program.storage import secret_to_bytes
from securead.protocols import registry

CLEAR = "clear"
_MOST_DELTA, _CONTAMINATION = 1e-5, 0.01
# From so many records on, at epsilon 1, scale and threshold can be estimated privately.
_ENOUGH_RECORDS = 30_000


@dataclass(frozen=True, eq=False)
class Fitted:
    """A fitted detector, and how the run that made it went."""

    detector: AnomalyDetector
    events: tuple[Event, ...]
    seconds: float

    @property
    def threshold(self) -> float:
        """Scores above it are anomalies."""
        return float(self.detector.threshold_)

    @property
    def rounds(self) -> tuple[RoundDone, ...]:
        """What ended each round."""
        return tuple(event for event in self.events if isinstance(event, RoundDone))

    @property
    def answers(self) -> tuple[Answered, ...]:
        """What sites did, in order."""
        return tuple(event for event in self.events if isinstance(event, Answered))


@dataclass(frozen=True)
class _Content:
    public: PublicProgram
    weights: str


def parameters_of(case: Case, data: NamedData) -> tuple[str, dict[str, Any]]:
    """The kind of the case's detector, and its parameters. `kind-method` names a kind with one of its methods, as
    "subspace-mahalanobis".

    Where the case does not say otherwise, the threshold flags one record in a hundred, calibrated on records where
    there are enough for its noise and by the model alone where not; columns are scaled by the schema where it declares
    a scale; what is drawn comes from the case's seed. Hidden layers are written as "16-8-16".
    """
    kind, _, method = case.detector.partition("-")
    enough = case.epsilon is None or len(data.X_train) * case.epsilon >= _ENOUGH_RECORDS
    threshold = "private" if enough else "model"
    given: dict[str, Any] = {"scaling": data.scaling, "threshold": threshold, "contamination": _CONTAMINATION}
    if method:
        given["method"] = method.replace("-", "_")
    given |= dict(case.parameters)
    if isinstance(given.get("hidden"), str):
        given["hidden"] = _widths(given["hidden"])
    if "random_state" in make_detector(kind, given).get_params():
        given.setdefault("random_state", case.seed)
    return kind, given


def _widths(text: str) -> tuple[int, ...]:
    """Units of hidden layers, "16-8-16"; raises `FixConfigurationError` for anything else."""
    parts = text.split("-")
    if not all(part.isdecimal() for part in parts):
        raise FixConfigurationError("hidden layers are written as 16-8-16", value=text)
    return tuple(map(int, parts))


def detector_of(case: Case, data: NamedData) -> AnomalyDetector:
    """The case's detector, not fitted."""
    return make_detector(*parameters_of(case, data))


def plan_of(case: Case, data: NamedData) -> PrivacyPlan | None:
    """The case's privacy plan, its noise from the case's seed; None without noise."""
    if case.epsilon is None:
        return None
    return PrivacyPlan(case.epsilon, delta_of(case, data), "seeded-study", case.seed)


def delta_of(case: Case, data: NamedData) -> float:
    """The case's delta, else 1e-5 or a tenth of one over the number of records, if that is less."""
    return min(_MOST_DELTA, 0.1 / len(data.X_train)) if case.delta is None else case.delta


def terms_of(case: Case, data: NamedData, sites: list[Site]) -> Terms:
    """What the participants of the case's training agree on."""
    names = tuple(site.name for site in sites)
    return Terms(detector_of(case, data), names, data.schema, plan_of(case, data), Federation(case.aggregation))


def fit(case: Case, data: NamedData, sites: list[Site] | None = None) -> Fitted:
    """Train on the embedded executor, among the case's sites unless others are given."""
    sites = data.sites(case.sites, seed=case.seed) if sites is None else sites
    terms, events = terms_of(case, data, sites), list[Event]()
    start = time.perf_counter()
    train(
        terms.detector,
        sites,
        terms.schema,
        privacy=terms.privacy,
        federation=terms.federation,
        listener=events.append,
    )
    return Fitted(terms.detector, tuple(events), time.perf_counter() - start)


def compiled(case: Case, detector: AnomalyDetector) -> Program:
    """The detector's program for the case's engine."""
    bits = ring_bits(case)
    return detector.compile() if bits is None else detector.compile(ring_bits=bits)


def ring_bits(case: Case) -> int | None:
    """What `compile` is given for the case's engine."""
    return None if case.engine == CLEAR or registry.spec(case.engine).parties == 1 else RING_BITS


def program_digest(program: Program) -> str:
    """SHA-256 of shape and weights: the same for two runs, as the program's own, which has a random key, is not."""
    weights = secret_to_bytes(dataclasses.replace(program.secret, commitment_key=bytes(32)))
    public = dataclasses.replace(program.public, commitment="0" * 64)
    return codec.digest(_Content(public, weights.decode()), domain="securead.bench.program.v1")


def privacy_of(detector: AnomalyDetector, plan: PrivacyPlan | None) -> Privacy:
    """What training promises, the worst of any site."""
    if plan is None:
        return Privacy(None, None)
    worst = max((site.epsilon for site in detector.statement_.sites), default=plan.epsilon)
    return Privacy(worst, plan.delta, accountant_name(), plan.noise_source)


def untrained_scores(detector: AnomalyDetector, X: Array) -> Array | None:
    """Scores of the same network with its public initial weights; only networks have one."""
    return detector.untrained_score(X) if isinstance(detector, AutoEncoder) else None


def norms(detector: AnomalyDetector, X: Array) -> Array:
    """|z|^2, on the detector's own scale: what learns nothing but that."""
    squares: Array = np.sum(detector.encoder_.standardise(X) ** 2, axis=1)
    return squares


def check_executor(case: Case, allowed: tuple[str, ...]) -> None:
    """Refuse a case that asks for another executor than these."""
    if case.executor not in allowed:
        raise FixConfigurationError(
            f"a case of kind {case.kind!r} is trained by {' or '.join(allowed)}", value=case.executor
        )


def provenance(program: str) -> Provenance:
    """Where and when, of this program."""
    from securead.bench.provenance import collect

    return collect(program=program)
