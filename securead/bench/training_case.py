"""A case of kind "train": what a detector reaches in the clear, what training it takes, and what it has to beat."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import numpy as np
from sklearn.base import clone

from securead.bench import datasets, federations, fitting
from securead.bench.accuracy import accuracy_of, auroc
from securead.bench.datasets import NamedData
from securead.bench.mechanisms import mechanism
from securead.bench.processes import own_peak
from securead.bench.records import Accuracy, Case, Record, Timing, Traffic
from securead.bench.repeats import once
from securead.data.schema import Array, Column, Schema
from securead.errors import PrivacyRefusedError
from securead.federated import embedded
from securead.federated.events import Answered, Event, RoundDone
from securead.federated.participant import Site
from securead.models.estimator import AnomalyDetector

__all__ = ["mechanism", "no_data_scores", "train"]

EMBEDDED, FLOWER = "embedded", "flower"
SITE, COORDINATOR = "site", federations.COORDINATOR
_CONTROL_RECORDS = 20_000


def train(case: Case, data_dir: Path | None) -> Record:
    """The record of a case: the detector trained among the case's sites, its controls, and what it stands beside.

    Everything in it but times repeats exactly. Raises `FixInputError` for data that is not here, `InstallExtraError`
    for an executor that is not installed, and `PrivacyRefusedError` where there are too few records for the noise.
    """
    fitting.check_executor(case, (EMBEDDED, FLOWER))
    data = datasets.load(case.dataset, data_dir, seed=case.seed, rows=case.rows)
    sites, events = data.sites(case.sites, seed=case.seed), list[Event]()
    if case.executor == FLOWER:
        with tempfile.TemporaryDirectory(prefix="securead-bench-") as folder:
            detector, peaks = federations.run_flower(case, data, sites, Path(folder), events.append)
    else:
        detector = federations.run_embedded(fitting.terms_of(case, data, sites), sites, events.append)
        peaks = {"process": own_peak()}
    rounds = [event for event in events if isinstance(event, RoundDone)]
    answers = [event for event in events if isinstance(event, Answered) and event.kind in ("prepare", "send")]
    X = data.X_held
    scores, beside = detector.anomaly_score(X), _beside(case, data, detector, sites)
    return Record(
        case=case,
        provenance=fitting.provenance(fitting.program_digest(detector.compile())),
        rows=len(X),
        columns=X.shape[1],
        accuracy=dataclasses.replace(
            accuracy_of(
                data,
                scores,
                threshold=float(detector.threshold_),
                floats=scores,
                norm=fitting.norms(detector, X),
                untrained=fitting.untrained_scores(detector, X),
            ),
            auroc_no_data=beside.auroc_no_data,
            auroc_central=beside.auroc_central,
            auroc_best_site=beside.auroc_best_site,
        ),
        timings=_timings(case, rounds, answers),
        traffic=_traffic(rounds, answers),
        rounds=len(rounds),
        peak_bytes=tuple(sorted(peaks.items())),
        privacy=fitting.privacy_of(detector, fitting.plan_of(case, data)),
        notes=(*data.notes, f"sites of {', '.join(f'{len(site.X):,}' for site in sites)} records"),
    )


def _timings(case: Case, rounds: list[RoundDone], answers: list[Answered]) -> tuple[Timing, ...]:
    """Wall seconds of a site's work in a round, and of a whole round."""
    spent = [(None, each.seconds) for each in answers if each.kind == "prepare" and each.seconds is not None]
    found = [once(COORDINATOR, "a round with its sites", case.threads, [(None, each.seconds) for each in rounds])]
    return (once(SITE, "a round", case.threads, spent), *found) if spent else tuple(found)


def _traffic(rounds: list[RoundDone], answers: list[Answered]) -> tuple[Traffic, ...]:
    """Bytes of a site in a round, the mean over both: asks with the public state one way, updates the other."""
    times = len(rounds) * len({each.site for each in answers})
    sent, received = (sum(getattr(each, way) for each in answers) for way in ("sent", "received"))
    return (
        Traffic(COORDINATOR, SITE, "public state, a round", bytes_once=round(sent / times)),
        Traffic(SITE, COORDINATOR, "updates, a round", bytes_once=round(received / times)),
    )


def _beside(case: Case, data: NamedData, detector: AnomalyDetector, sites: list[Site]) -> Accuracy:
    """The same detector without records, on all records without noise, and on one site's own."""
    exact = dataclasses.replace(case, epsilon=None, aggregation="plain")
    together = [Site("everyone", np.concatenate([site.X for site in sites]))]
    areas = [_exactly(exact, data, each) for each in (together, *([site] for site in sites if len(sites) > 1))]
    alone = [area for area in areas[1:] if area is not None]
    return Accuracy(
        auroc_no_data=auroc(data, no_data_scores(detector, data.X_held, seed=case.seed)),
        auroc_central=areas[0],
        auroc_best_site=max(alone, default=areas[0]),
    )


def _exactly(case: Case, data: NamedData, sites: list[Site]) -> float | None:
    """The area that a detector reaches without noise; None where these records are too few for it."""
    try:
        return auroc(data, fitting.fit(case, data, sites).detector.anomaly_score(data.X_held))
    except PrivacyRefusedError:
        return None


def no_data_scores(detector: AnomalyDetector, X: Array, *, seed: int) -> Array:
    """Scores by the same detector trained on noise in place of records, on the detector's own scale."""
    encoder = detector.encoder_
    noise = np.random.default_rng(seed).normal(size=(_CONTROL_RECORDS, encoder.width))
    scale = Schema(
        tuple(Column(f"z{i}", -encoder.limit, encoder.limit, "identity", 0.0, 1.0) for i in range(encoder.width))
    )
    blind = clone(detector).set_params(scaling="schema", threshold="model")
    embedded.train(blind, [Site("noise", noise)], scale, privacy=None)
    scores: Array = blind.anomaly_score(encoder.standardise(X))
    return scores
