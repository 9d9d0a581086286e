"""The demonstration: the whole path on real data, with every role in the process that it would have in life.

Training runs here on the embedded executor; the scoring service, and each of key generation, encryption, submission
and decryption, are processes of their own that share nothing but files and a socket, and so are the two parties, the
dealer and the client of secret sharing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from sklearn.base import clone

from securead import __version__, codec, files
from securead.bench.datasets import DemoData
from securead.bench.processes import run_command
from securead.bench.report import write_report
from securead.bench.results import NO_DATA, NORM, UNTRAINED, Control, DetectorResult, DetectorRun, Phase, Run
from securead.data.partition import hold_out
from securead.data.schema import Array, Column, Schema
from securead.errors import FixInputError
from securead.federated.embedded import train
from securead.federated.participant import Site
from securead.federated.recipe import Recipe, SiteSection, gather, load_recipe, train_recipe, zoo_recipe
from securead.models import bundle
from securead.models.autoencoder import AutoEncoder
from securead.models.estimator import AnomalyDetector
from securead.privacy.plan import PrivacyPlan
from securead.protocols import registry
from securead.protocols.choice import choose
from securead.protocols.engine import Plan, Role

HELD_OUT = 0.3
_SEED = 0
# From so many training records on, scale and threshold can be estimated privately at epsilon 1.
_ENOUGH_RECORDS = 30_000
# What each bank allows in total: detectors at epsilon 1, 3 and 1 compose to about 3.4.
_EPSILON_LIMIT = 4.0
# What is trained, in this order, and the roles in which it is then scored.
_ROLES: Mapping[str, tuple[Role, ...]] = {
    "forest": ("same", "split"),
    "autoencoder": ("same",),
    "subspace-mahalanobis": ("same",),
}
# What two parties then score as well, on shares.
_SHARED = ("forest",)
_PATIENCE_SECONDS = 60
_CONTROL_RECORDS = 20_000
# A look-up moves tens of kilobytes a record: beyond this upload in all, a sample of the records is scored.
_MOST_UPLOAD_BYTES = 128 << 20
_SUBMITTER, _RECORDS = "submitter", "records.npz"

Say = Callable[[str], None]


class Service(Protocol):
    """A running scoring service."""

    @property
    def url(self) -> str: ...


StartService = Callable[[Sequence[Path]], contextlib.AbstractContextManager[Service]]
"""Starts the scoring service over bundle directories; `securead.serving.serve` is one."""
StartParties = Callable[[Path, Path], contextlib.AbstractContextManager[Path]]
"""Starts a dealer and two parties over a bundle, in a folder, and yields a client's configuration;
`securead.serving.deployment.deploy` is one."""


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained detector, its bundle's directory and what training took."""

    detector: AnomalyDetector
    name: str
    path: Path
    seconds: float
    roles: tuple[Role, ...]


@dataclass(frozen=True, eq=False)
class HeldOut:
    """The records that are scored, in memory and as the file a client reads: what a bank would want scored."""

    X: Array
    y: Array | None
    columns: tuple[str, ...]
    path: Path

    def write(self) -> HeldOut:
        """Write the file, which has no labels."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(self.path, X=self.X, columns=np.array(self.columns))
        return self

    def sample(self, rows: int, path: Path) -> HeldOut:
        """At most so many records: every anomaly as far as half of them reach, the others drawn with a fixed seed."""
        if len(self.X) <= rows:
            return self
        order = np.random.default_rng(_SEED).permutation(len(self.X))
        if self.y is not None:
            anomalies = order[self.y[order] == 1][: rows // 2]
            order = np.concatenate([anomalies, order[self.y[order] == 0]])
        kept = np.sort(order[:rows])
        return HeldOut(self.X[kept], None if self.y is None else self.y[kept], self.columns, path).write()


def run_demo(data: DemoData, out: Path, *, start_service: StartService, start_parties: StartParties, say: Say) -> Run:
    """Run everything and write `out`/summary.json, `out`/report.html and the artefacts of each role below `out`/work.

    `say` is told each step as it begins. `out`/work of an earlier run is replaced.
    """
    work = out / "work"
    _clear(work)
    train_rows, held_rows = hold_out(len(data.table.X), data.table.y, HELD_OUT, seed=_SEED)
    y = None if data.table.y is None else data.table.y[held_rows]
    held = HeldOut(data.table.X[held_rows], y, data.table.columns, work / _SUBMITTER / _RECORDS).write()
    ledgers = (work / "banks").resolve()
    trained: list[Trained] = []
    sites: tuple[tuple[str, int], ...] = ()
    for kind in _ROLES:
        recipe = recipe_for(data, kind, len(train_rows), ledgers)
        say(f"training {recipe.name} privately among {len(recipe.sites)} banks")
        start = time.perf_counter()
        owner = None if data.owner is None else data.owner[train_rows]
        labels = None if data.table.y is None else data.table.y[train_rows]
        gathered = gather(
            recipe, Path(), X=data.table.X[train_rows], columns=data.table.columns, owner=owner, labels=labels
        )
        sites = tuple((site.name, len(site.X)) for site in gathered.sites)
        detector = train_recipe(recipe, gathered)
        path = bundle.make(detector, recipe.name).save(work / "model-owner" / recipe.name)
        trained.append(Trained(detector, recipe.name, path, time.perf_counter() - start, _ROLES[kind]))
    say("starting the scoring service, a process of its own")
    with start_service([model.path for model in trained]) as running:
        runs = [
            _score(model, role, held, running.url, work / f"{model.name}-{role}", say)
            for model in trained
            for role in model.roles
        ]
    runs += [
        _share(model, held, start_parties, work / f"{model.name}-sharing", say)
        for model in trained
        if model.name in _SHARED
    ]
    # Runs of one detector stand together.
    runs.sort(key=lambda one: [model.name for model in trained].index(one.result.name))
    run = Run(
        dataset=data.name,
        source=data.why,
        sites=sites,
        rows_held_out=len(held.X),
        anomalies_held_out=None if held.y is None else int(held.y.sum()),
        detectors=tuple(runs),
        version=__version__,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )
    say("writing summary.json and report.html")
    files.write_json(out / "summary.json", codec.to_plain(run.summary))
    write_report(run, out / "report.html")
    return run


def recipe_for(data: DemoData, kind: str, records: int, ledgers: Path) -> Recipe:
    """The zoo's recipe where the data set has one, else observed bounds; private preprocessing where n suffices.

    Each bank keeps a ledger, because all detectors are trained on the same records.
    """
    detector, _, method = kind.partition("-")
    if data.recipe is not None:
        recipe = load_recipe(zoo_recipe(f"{data.recipe}_{detector}"))
    else:
        enough = records >= _ENOUGH_RECORDS
        estimated = {"threshold": "private" if enough else "model"}
        if enough and data.schema is None:
            estimated["scaling"] = "private"
        recipe = Recipe(
            name=detector,
            sites=tuple(
                SiteSection(name, share=share) for name, share in zip(data.sites, (6.0, 3.0, 1.0), strict=True)
            ),
            detector=detector,
            parameters={"contamination": 0.01, **estimated},
            privacy=PrivacyPlan(epsilon=3.0 if detector == "autoencoder" else 1.0, delta=min(1e-6, 0.1 / records)),
            schema=data.schema,
        )
    return dataclasses.replace(
        recipe,
        name=kind,
        parameters={**recipe.parameters, **({"method": method.replace("-", "_")} if method else {})},
        sites=tuple(
            dataclasses.replace(site, ledger=str(ledgers / site.name / "ledger.json"), limit=_EPSILON_LIMIT)
            for site in recipe.sites
        ),
    )


def _clear(work: Path) -> None:
    """Remove what an earlier run left; a folder of that name that no demonstration made is somebody's own."""
    if work.exists() and not (work / _SUBMITTER / _RECORDS).is_file() and (not work.is_dir() or any(work.iterdir())):
        raise FixInputError(
            f"{work} is not from an earlier demonstration, and this one would replace it",
            remedy="Choose another --out.",
        )
    shutil.rmtree(work, ignore_errors=True)


def _score(model: Trained, role: Role, held: HeldOut, url: str, folder: Path, say: Say) -> DetectorRun:
    """Key generation, encryption, submission and decryption of held-out records, each a process."""
    plan, held = _sampled(model, role, held)
    keys, request, answer, scores = (folder / name for name in ("keys", "request", "answer", "scores.csv"))
    folder.mkdir(parents=True, exist_ok=True)
    say(f"{model.name}, role {role}: making keys")
    made = run_command("keygen", "--server", url, "--model", model.name, "--role", role, "--out", keys)
    submitter, holder = keys, keys
    if role == "split":
        # The two halves go to different parties; neither process below can see the other's.
        submitter = Path(shutil.move(keys / "public", folder / "submitter-keys"))
        holder = Path(shutil.move(keys / "secret", folder / "key-holder-keys"))
    say(f"{model.name}, role {role}: encrypting {len(held.X):,} records")
    encrypted = run_command("encrypt", held.path, "--keys", submitter, "--out", request)
    say(f"{model.name}, role {role}: scoring them unseen")
    submitted = run_command("submit", request, "--server", url, "--out", answer)
    say(f"{model.name}, role {role}: decrypting the scores")
    local = ["--local", f"{request}.local"] if Path(f"{request}.local").exists() else []
    decrypted = run_command("decrypt", answer, "--keys", holder, "--out", scores, *local)
    clear = np.loadtxt(scores, delimiter=",", skiprows=1, ndmin=2)[:, 1]
    return _compare(model, plan, held, clear, _costs(made, encrypted, submitted, decrypted, plan))


def _sampled(model: Trained, role: Role, held: HeldOut) -> tuple[Plan, HeldOut]:
    """The plan of the engine that the service has for a role, and the records to score: the same in every role."""
    public = bundle.load_public(model.path).program
    plans = {one: registry.plan_module(choose(public, one).name).make_plan(public, one) for one in model.roles}
    rows = min(_MOST_UPLOAD_BYTES * one.rows_per_chunk // one.max_request_bytes for one in plans.values())
    return plans[role], held.sample(rows, held.path.parent / f"sample-of-{rows}.npz")


def _share(model: Trained, held: HeldOut, start_parties: StartParties, folder: Path, say: Say) -> DetectorRun:
    """The same records scored by two parties and a dealer, three processes, and a client, the fourth."""
    _, held = _sampled(model, "same", held)
    plan = registry.plan_module("sharing").make_plan(bundle.load_public(model.path).program, "same")
    folder.mkdir(parents=True, exist_ok=True)
    say(f"{model.name}, secret sharing: splitting the model, starting the dealer and two parties")
    start = time.perf_counter()
    with start_parties(model.path, folder) as config:
        started = time.perf_counter() - start
        say(f"{model.name}, secret sharing: scoring {len(held.X):,} records on shares")
        scores = folder / "scores.csv"
        parties = ("--engine", "sharing", "--parties", config, "--patience", str(_PATIENCE_SECONDS))
        done = run_command("score", held.path, *parties, "--out", scores)
    encrypt, server = done["encrypt_seconds"], done["server_seconds"]
    phases = (
        Phase("split the model, start", "model owner, parties", started),
        Phase("share", "submitter", encrypt, done["bytes_up"]),
        Phase("score unseen", "two parties", server),
        Phase("send and receive", "submitter", max(done["seconds"] - encrypt - server, 0.0), done["bytes_down"]),
    )
    clear = np.loadtxt(scores, delimiter=",", skiprows=1, ndmin=2)[:, 1]
    costs = _Costs(0, done["bytes_up"], done["bytes_down"], server, encrypt, 0.0, phases)
    return _compare(model, plan, held, clear, costs)


@dataclass(frozen=True)
class _Costs:
    key_bytes: int
    up: int
    down: int
    server: float
    encrypt: float
    decrypt: float
    phases: tuple[Phase, ...]


def _costs(
    made: dict[str, Any], encrypted: dict[str, Any], submitted: dict[str, Any], decrypted: dict[str, Any], plan: Plan
) -> _Costs:
    # In role split the submitter must be given the public key; some engines' service needs it, too.
    key_bytes = made["public_bytes"] if plan.role == "split" or plan.evaluation_key_bytes else 0
    up, down, server = encrypted["bytes"], submitted["bytes_down"], submitted["server_seconds"]
    holder = "key holder" if plan.role == "split" else "submitter"
    phases = (
        Phase("make keys", holder, made["seconds"], key_bytes),
        Phase("encrypt", "submitter", encrypted["seconds"], up),
        Phase("score unseen", "service (CPU)", server),
        Phase("send and receive", "submitter", max(submitted["seconds"] - server, 0.0), down),
        Phase("decrypt", holder, decrypted["seconds"]),
    )
    return _Costs(key_bytes, up, down, server, encrypted["seconds"], decrypted["seconds"], phases)


def _compare(model: Trained, plan: Plan, held: HeldOut, encrypted: Array, costs: _Costs) -> DetectorRun:
    """Three worlds side by side: the float detector, the integer program, the encrypted run."""
    stored = bundle.load(model.path)
    public = stored.public
    integer = stored.program.score(held.X)
    exact = model.detector.anomaly_score(held.X)
    controls = _controls(model.detector, held)
    auroc_float, ap_float = _areas(held.y, exact)
    auroc_encrypted, ap_encrypted = _areas(held.y, encrypted)
    result = DetectorResult(
        name=model.name,
        engine=plan.engine,
        role=plan.role,
        epsilon=public.privacy.epsilon,
        delta=public.privacy.delta if public.privacy.private else None,
        auroc_float=auroc_float,
        auroc_encrypted=auroc_encrypted,
        ap_float=ap_float,
        ap_encrypted=ap_encrypted,
        auroc_norm_baseline=controls[0].auroc,
        auroc_untrained=next((control.auroc for control in controls if control.name == UNTRAINED), None),
        rows_scored=len(encrypted),
        server_seconds=costs.server,
        client_encrypt_seconds=costs.encrypt,
        client_decrypt_seconds=costs.decrypt,
        upload_bytes_per_row=costs.up / len(encrypted),
        download_bytes_per_row=costs.down / len(encrypted),
        key_bytes=costs.key_bytes,
        # A score of exactly zero has no relative error; the tolerance is the smallest score that counts as one.
        max_rel_error=float(
            (np.abs(encrypted - integer) / np.maximum(np.abs(integer), public.program.tolerance)).max()
        ),
        rank_correlation=_rank_correlation(encrypted, integer),
    )
    return DetectorRun(
        result=result,
        y=held.y,
        float_scores=exact,
        integer_scores=integer,
        encrypted_scores=encrypted,
        controls=controls,
        training=model.detector.training_,
        threshold=public.threshold.value,
        threshold_origin=public.threshold.in_words(),
        privacy=public.privacy.in_words(),
        phases=(Phase("train", "three banks", model.seconds), *costs.phases),
        parameters=plan.describe(),
    )


def _controls(detector: AnomalyDetector, held: HeldOut) -> tuple[Control, ...]:
    """What the detector has to beat: the norm, an untrained network, and the same detector trained on noise."""
    encoder = detector.encoder_
    found = {NORM: (encoder.standardise(held.X) ** 2).sum(axis=1)}
    if isinstance(detector, AutoEncoder):
        found[UNTRAINED] = detector.untrained_score(held.X)
    noise = np.random.default_rng(_SEED).normal(size=(_CONTROL_RECORDS, encoder.width))
    # Noise on the detector's own scale, which needs no transform, and held-out records on the same scale.
    scale = Schema(
        tuple(Column(f"z{i}", -encoder.limit, encoder.limit, "identity", 0.0, 1.0) for i in range(encoder.width))
    )
    blind = clone(detector).set_params(scaling="schema", threshold="model")
    train(blind, [Site("noise", noise)], scale, privacy=None)
    found[NO_DATA] = blind.anomaly_score(encoder.standardise(held.X))
    return tuple(Control(name, scores, *_areas(held.y, scores)) for name, scores in found.items())


def _rank_correlation(one: Array, other: Array) -> float:
    """Spearman's; 1 where all scores of both are equal, so that there is no order to keep."""
    from scipy.stats import spearmanr

    if np.ptp(one) == 0 or np.ptp(other) == 0:
        return float(np.ptp(one) == np.ptp(other))
    return float(spearmanr(one, other).statistic)


def _areas(y: Array | None, scores: Array) -> tuple[float | None, float | None]:
    """Area under the ROC curve and average precision, or None twice without both classes."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    if y is None or len(np.unique(y)) < 2:
        return None, None
    return float(roc_auc_score(y, scores)), float(average_precision_score(y, scores))
