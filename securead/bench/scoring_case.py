"""A case of kind "score": a detector is trained, compiled, and held-out records run through the case's engine."""

from __future__ import annotations

import dataclasses
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from securead.bench import datasets, engine_case, fitting, sharing_case
from securead.bench.accuracy import accuracy_of, fidelity_of
from securead.bench.engine_case import SERVER, Measured
from securead.bench.fitting import CLEAR
from securead.bench.players import HalfFailedError
from securead.bench.processes import own_peak
from securead.bench.records import Case, Record, Timing
from securead.bench.repeats import repeat, timing
from securead.data.schema import Array
from securead.models import bundle as bundles
from securead.models.estimator import AnomalyDetector
from securead.program.program import Program
from securead.protocols import registry


def score(case: Case, data_dir: Path | None) -> Record:
    """The record of a case. Everything in it but times and `fidelity` repeats exactly; that, where scores are exact.

    Raises `FixInputError` for data that is not here, `InstallExtraError` for an engine that is not installed, and
    `FixProgramError` for one that does not carry the detector's program.
    """
    data = datasets.load(case.dataset, data_dir, seed=case.seed, rows=case.rows)
    if case.engine != CLEAR:
        registry.owner_module(case.engine)  # before anything is trained
    fitted = fitting.fit(case, data)
    detector, X = fitted.detector, data.X_held
    bundle = bundles.make(detector, "benchmark", ring_bits=fitting.ring_bits(case))
    program = bundle.program
    failure: tuple[str, ...] = ()
    with tempfile.TemporaryDirectory(prefix="securead-bench-") as folder:
        try:
            if case.engine == CLEAR:
                found = _clear(case, detector, program, X)
            elif registry.spec(case.engine).parties > 1:
                found = sharing_case.run(case, bundle, X, Path(folder))
            else:
                found = engine_case.run(case, bundle, X, Path(folder))
        except HalfFailedError as error:
            found, failure = Measured(), (str(error),)
    record = Record(
        case=case,
        provenance=fitting.provenance(fitting.program_digest(program)),
        rows=len(X),
        columns=X.shape[1],
        timings=found.timings,
        traffic=found.traffic,
        rounds=found.rounds,
        predicted_seconds=found.predicted_seconds,
        delayed_seconds=found.delayed_seconds,
        peak_bytes=found.peak_bytes,
        privacy=fitting.privacy_of(detector, fitting.plan_of(case, data)),
        security_bits=found.security_bits,
        extraction_rows=program.public.honest_extraction_rows,
        notes=(*data.notes, *found.notes),
        failures=(*found.failures, *failure),
    )
    if found.scores is None:
        return record
    integer, floats, threshold = program.score(X), detector.anomaly_score(X), fitted.threshold
    accuracy = accuracy_of(
        data,
        floats if case.engine == CLEAR else integer,
        threshold=threshold,
        floats=floats,
        norm=fitting.norms(detector, X),
        untrained=fitting.untrained_scores(detector, X),
    )
    fidelity = fidelity_of(data, found.scores, integer=integer, floats=floats, threshold=threshold)
    return dataclasses.replace(record, accuracy=accuracy, fidelity=fidelity)


def _clear(case: Case, detector: AnomalyDetector, program: Program, X: Array) -> Measured:
    """No engine: the float model, whose scores these are, and the integer program beside it."""
    batch = X if not case.batch else X[: case.batch]

    def timed(role: str, call: Callable[[Array], Array]) -> Timing:
        def one() -> tuple[float, float]:
            cpu, wall = time.process_time(), time.perf_counter()
            call(batch)
            return time.process_time() - cpu, time.perf_counter() - wall

        return timing(role, "score", case.threads, repeat(one, seconds=1.0), rows=len(batch))

    return Measured(
        scores=detector.anomaly_score(X),
        timings=(timed(SERVER, detector.anomaly_score), timed("integer program", program.score)),
        peak_bytes=(("process", own_peak()),),
        notes=(f"timed in batches of {len(batch):,}",),
    )
