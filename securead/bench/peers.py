"""Other people's software on the rows that our own case scores: a script a peer, run as a process of its own.

The scripts lie in benchmarks/peers (installed: securead/_peers); exchange.py there says what goes in and out. A peer
that sees records in the clear learns from the same training records. One that scores without seeing them is given the
model that our own case trained, as numbers: so both compute the same score, each in its own way. A peer that needs an
environment of its own is measured where one is named, and otherwise not at all.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from securead import codec
from securead.bench import accuracy, datasets, fitting, provenance
from securead.bench.datasets import NamedData
from securead.bench.records import Accuracy, Case, Fidelity, Privacy, Record, Spread, Timing, Traffic
from securead.data.schema import Array
from securead.errors import FixConfigurationError, InstallExtraError
from securead.models import network
from securead.models.autoencoder import AutoEncoder
from securead.models.estimator import AnomalyDetector
from securead.program.program import Program
from securead.program.table import PublicTable, SecretTable

Form = Literal["clear", "quadratic", "network", "tables"]
_CONTAMINATION = 0.01
_SAME_SCORE = 1e-6


@dataclass(frozen=True)
class Peer:
    """A script, the packages that it imports, and where they come from: an extra of ours, or only elsewhere."""

    script: str
    packages: tuple[str, ...]
    extra: str = ""
    clear: bool = False


PEERS: dict[str, Peer] = {
    "sklearn": Peer("in_the_clear.py", ("sklearn",), "train", clear=True),
    "pyod": Peer("in_the_clear.py", ("pyod",), "pyod", clear=True),
    "tenseal": Peer("tenseal_case.py", ("tenseal",), "ckks"),
    "crypten": Peer("crypten_case.py", ("crypten",), "mpc"),
    "phe": Peer("phe_unpacked.py", ("phe",), "paillier"),
    "concrete-ml": Peer("concrete_ml.py", ("concrete.ml",)),
    "spu": Peer("spu_simulated.py", ("spu", "jax")),
}


@dataclass(frozen=True)
class Seconds:
    """Repeats of one step of a peer's: for a row, or once."""

    role: str
    phase: str
    once: bool
    cpu: tuple[float, ...]
    wall: tuple[float, ...]


@dataclass(frozen=True)
class Sent:
    """Bytes from one role to another."""

    sender: str
    receiver: str
    what: str
    per_row: float | None = None
    once: int | None = None


@dataclass(frozen=True)
class Answer:
    """What a script wrote; `missing` says why it measured nothing."""

    missing: str = ""
    timings: tuple[Seconds, ...] = ()
    traffic: tuple[Sent, ...] = ()
    peak_bytes: tuple[tuple[str, int], ...] = ()
    versions: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    threshold: float | None = None
    security_bits: float | None = None
    rounds: float | None = None


@dataclass(frozen=True, eq=False)
class Task:
    """What a script is given, and what its scores are compared with."""

    form: Form
    arrays: Mapping[str, Array]
    order: Mapping[str, Any]
    integer: Array | None = None
    floats: Array | None = None
    threshold: float | None = None
    program: str = ""
    privacy: Privacy | None = None


def peer(case: Case, data: Path | None, environments: Mapping[str, Path]) -> Record:
    """Measure a case of kind "peer"; `environments` names an interpreter, or its environment's folder, by peer.

    Raises a `SecureadError` that says why nothing is measured: no such peer, package, environment, data or counterpart.
    """
    if case.peer not in PEERS:
        raise FixConfigurationError("no peer has this name", value=case.peer, remedy="Peers: " + ", ".join(PEERS) + ".")
    chosen = PEERS[case.peer]
    python = _interpreter(case.peer, chosen, environments)
    named = datasets.load(case.dataset, data, seed=case.seed, rows=case.rows)
    task = _clear_task(case, named) if chosen.clear else _model_task(case, named)
    try:
        answer, scores = _run(chosen, python, task)
    except ChildProcessError as error:
        return Record(case, provenance.collect(), failures=(str(error),), notes=named.notes)
    if answer.missing:
        raise FixConfigurationError(f"not measured here: {answer.missing}")
    if not len(scores) or not np.isfinite(scores).all():
        words = f"{case.peer} returned scores that are not all finite numbers"
        return Record(case, provenance.collect(), failures=(words,), notes=(*named.notes, *answer.notes))
    return _record(case, named, task, answer, scores)


def scripts_folder() -> Path:
    """The folder of the peers' scripts, in an installed package or a checkout."""
    package = Path(__file__).parent.parent
    installed = package / "_peers"
    return installed if installed.is_dir() else package.parent / "benchmarks" / "peers"


def _interpreter(name: str, chosen: Peer, environments: Mapping[str, Path]) -> Path:
    """The Python that runs the peer; paths stay out of messages."""
    if name in environments:
        given = environments[name]
        found = given / "bin" / "python" if given.is_dir() else given
        if not found.is_file():
            raise FixConfigurationError(
                f"not measured here: --peer-env {name} names no Python, nor the folder of an environment",
                value=given.name,
            )
        return found.absolute()
    for package in chosen.packages:
        try:
            present = importlib.util.find_spec(package) is not None
        except ModuleNotFoundError:
            present = False
        if not present and chosen.extra:
            raise InstallExtraError(
                f"not measured here: {package} is not installed", remedy=f"pip install 'securead[{chosen.extra}]'."
            )
        if not present:
            raise FixConfigurationError(
                f"not measured here: {name} needs an environment of its own",
                remedy=f"Give its Python: --peer-env {name}=PATH.",
            )
    return Path(sys.executable)


def _clear_task(case: Case, named: NamedData) -> Task:
    order = {"contamination": _CONTAMINATION, **_wanted(case)}
    return Task("clear", {"X_train": named.X_train, "X": named.X_held}, order, privacy=Privacy(None, None))


def _wanted(case: Case) -> dict[str, Any]:
    return {"peer": case.peer, "detector": case.detector, "parameters": dict(case.parameters), "seed": case.seed}


def _model_task(case: Case, named: NamedData) -> Task:
    """The model that a case of kind "score" with the same fields trains, and its rows as the program reads them."""
    fitted = fitting.fit(case, named)
    detector = fitted.detector
    program = fitting.compiled(case, detector)
    encoder = program.public.encoder

    def rows_of(X: Array) -> tuple[Array, Array]:
        integers, _ = encoder.encode(X)
        return integers, integers.astype(float) / 2.0**encoder.fraction_bits

    integers, Z = rows_of(named.X_held)
    train = named.X_train[:2000]
    form, arrays, more = _model(detector, program, Z, integers)
    given = {"Z": Z, "Z_train": rows_of(train)[1], "scores_train": program.score(train), **arrays}
    return Task(
        form,
        given,
        {**_wanted(case), **more},
        integer=program.score(named.X_held),
        floats=detector.anomaly_score(named.X_held),
        threshold=fitted.threshold,
        program=fitting.program_digest(program),
        privacy=fitting.privacy_of(detector, fitting.plan_of(case, named)),
    )


def _model(
    detector: AnomalyDetector, program: Program, Z: Array, integers: Array
) -> tuple[Form, dict[str, Array], dict[str, Any]]:
    """What the detector computes, as a peer would be told it: its form, arrays, and more for the order."""
    if isinstance(program.public, PublicTable) and isinstance(program.secret, SecretTable):
        tables = np.concatenate(program.secret.tables) * program.public.unit
        sizes = np.array(program.public.sizes)
        return "tables", {"positions": program.public.queries(integers), "tables": tables, "sizes": sizes}, {}
    if isinstance(detector, AutoEncoder):
        widths = detector.hidden if isinstance(detector.hidden, tuple | list) else (int(detector.hidden),)
        shape = network.Shape((Z.shape[1], *widths, Z.shape[1]), detector.units)
        layers = network.layers(shape, detector.values_["best"])
        units = "linear_square" if detector.units == "linear_and_square" else detector.units
        arrays = {f"w{i}": weight for i, (weight, _) in enumerate(layers)}
        arrays |= {f"b{i}": offset for i, (_, offset) in enumerate(layers)}
        return "network", arrays, {"layers": len(layers), "units": units}
    A, b = quadratic_form(detector, Z.shape[1])
    computed, exact = ((Z @ A.T + b) ** 2).sum(axis=1), detector.score_standardised(detector.values_, Z)
    if np.abs(computed - exact).max() > _SAME_SCORE * np.abs(exact).max():
        raise FixConfigurationError(
            "not measured here: peers compute squares of affine forms, networks and tables; this detector is neither"
        )
    return "quadratic", {"A": A, "b": b}, {}


def quadratic_form(detector: AnomalyDetector, width: int) -> tuple[Array, Array]:
    """The upper triangular A and the b with score |A z + b|^2, where the score is one, from scores at a few places.

    2 M_ij = f(e_i + e_j) - f(e_i) - f(e_j) + f(0) for the quadratic part M = A^T A.
    """
    unit = np.eye(width)
    first, second = np.triu_indices(width)

    def scores(Z: Array) -> Array:
        return detector.score_standardised(detector.values_, Z)

    origin, axes, pairs = scores(np.zeros((1, width)))[0], scores(unit), scores(unit[first] + unit[second])
    M = np.zeros((width, width))
    M[first, second] = M[second, first] = (pairs - axes[first] - axes[second] + origin) / 2
    linear = axes - origin - np.diag(M)
    values, vectors = np.linalg.eigh(M)
    kept = values > values.max(initial=0.0) * 1e-12
    A: Array = np.linalg.qr(np.sqrt(values[kept])[:, None] * vectors[:, kept].T).R
    b, *_ = np.linalg.lstsq(A.T, linear / 2, rcond=None)
    return A, b


def _run(chosen: Peer, python: Path, task: Task) -> tuple[Answer, Array]:
    """Run the script; raises `ChildProcessError` with its last words where it fails."""
    script = scripts_folder() / chosen.script
    own = python == Path(sys.executable)
    # Our own paths would be another Python's, too.
    variables = {name: value for name, value in os.environ.items() if own or not name.startswith("PYTHON")}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        np.savez(folder / "rows.npz", allow_pickle=False, **dict(task.arrays))
        (folder / "order.json").write_text(json.dumps({"form": task.form, **task.order}))
        done = subprocess.run(
            [str(python), str(script), str(folder)],
            cwd=folder,
            env=variables,
            capture_output=True,
            text=True,
            check=False,
        )
        written = folder / "answer.json"
        if done.returncode or not written.is_file():
            last = " ".join(done.stderr.strip().splitlines()[-3:])
            raise ChildProcessError(f"the peer's script {chosen.script} failed ({done.returncode}): {last[-500:]}")
        answer = codec.from_plain(Answer, json.loads(written.read_text()), where="answer.json")
        if answer.missing:
            return answer, np.empty(0)
        scores: Array = np.load(folder / "scores.npy", allow_pickle=False)
    return answer, scores


def _record(case: Case, named: NamedData, task: Task, answer: Answer, scores: Array) -> Record:
    found = provenance.collect(program=task.program)
    judged, fidelity = _judged(named, task, answer, scores)
    versions = dict(found.versions) | dict(answer.versions)
    return Record(
        case,
        dataclasses.replace(found, versions=tuple(versions.items())),
        rows=len(scores),
        columns=named.X_held.shape[1],
        accuracy=judged,
        fidelity=fidelity,
        timings=tuple(_timing(seconds, case.threads) for seconds in answer.timings),
        traffic=tuple(Traffic(s.sender, s.receiver, s.what, s.per_row, s.once) for s in answer.traffic),
        rounds=None if answer.rounds is None else round(answer.rounds),
        peak_bytes=answer.peak_bytes,
        privacy=task.privacy,
        security_bits=answer.security_bits,
        notes=(*named.notes, *answer.notes),
    )


def _judged(named: NamedData, task: Task, answer: Answer, scores: Array) -> tuple[Accuracy, Fidelity]:
    """Of all rows; of the first ones, where a peer scored no more, errors alone: they are no sample of the classes."""
    few = len(scores)
    if few < len(named.X_held):
        named = dataclasses.replace(named, y_held=None)
    integer, floats = (None if exact is None else exact[:few] for exact in (task.integer, task.floats))
    norm = (named.standardised(named.X_held[:few]) ** 2).sum(axis=1)
    threshold = task.threshold if answer.threshold is None else answer.threshold
    judged = accuracy.accuracy_of(named, scores, threshold=threshold, floats=floats, norm=norm)
    return judged, accuracy.fidelity_of(named, scores, integer=integer, floats=floats, threshold=threshold)


def _timing(seconds: Seconds, threads: int) -> Timing:
    cpu, wall = spread(seconds.cpu), spread(seconds.wall)
    if seconds.once:
        return Timing(seconds.role, seconds.phase, threads, True, None, None, cpu, wall)
    return Timing(seconds.role, seconds.phase, threads, False, cpu, wall)


def spread(values: tuple[float, ...]) -> Spread | None:
    """Repeats in short; None without any."""
    if not values:
        return None
    return Spread(float(np.median(values)), min(values), max(values), len(values))
