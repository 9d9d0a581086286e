"""The embedded executor: all sites in one process, for studies, tests and institutions that share a machine.

The rounds are the same pure functions that any executor runs; only the transport is missing.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from securead import observe
from securead.data.schema import Array, Schema
from securead.errors import FixConfigurationError, PrivacyRefusedError, SecureadError
from securead.federated.checkpoint import Checkpoint, TrainingStep, fingerprint
from securead.models.estimator import AnomalyDetector, protect, statement
from securead.models.local import scale_of
from securead.models.training import Update, add_up
from securead.privacy.budget import Budget
from securead.privacy.plan import PrivacyPlan
from securead.privacy.site import Kept, Protected, Releaser, Unprotected

D = TypeVar("D", bound=AnomalyDetector)
T = TypeVar("T")
Progress = Callable[[str, int, int], None]
"""Called with what was done, steps so far and steps in all."""


@dataclass(frozen=True, eq=False)
class Site:
    """A data owner: a name, its records `(n, d)`, and labels `(n,)` where it knows some (1 for an anomaly).

    `ledger` names the file that keeps its budget across jobs, and `limit` the epsilon that it allows in total; by
    default a run may spend its own plan and no more. `scale` names the file into which its own scale is written, where
    the detector's scaling is "local": its gateway needs it to score.
    """

    name: str
    X: Array
    ledger: Path | None = None
    limit: float | None = None
    labels: Array | None = None
    scale: Path | None = None


def train(
    detector: D,
    sites: Sequence[Site],
    schema: Schema,
    *,
    privacy: PrivacyPlan | None,
    progress: Progress | None = None,
    checkpoint: Path | None = None,
) -> D:
    """Train `detector` over `sites` and return it fitted, its privacy statement in `statement_`.

    With `privacy`, every site adds its full noise and charges its own budget before anything leaves it; a site that
    cannot pay for the whole run is refused before a record is read (`PrivacyRefusedError`). With None, sums are exact
    and the statement says that there is no guarantee; that, and predictable noise, is refused to a site that keeps a
    budget, whose record would otherwise promise what no longer holds. Raises `FixConfigurationError` for no site, two
    sites of one name or an empty one, and `FixInputError` for ill-formed records, naming the site, before any release.

    With `checkpoint`, a folder, the state is written down after every round and each site keeps what it released; the
    same call after a crash goes on from the last whole round, sends identical updates again and charges nothing twice.
    The folder holds what sites keep to themselves: delete it when the run is done. `training_` tells what each site
    did in each round. With scaling="local", `scales_` holds every site's own scale, which elsewhere no other site sees.
    """
    names = [site.name for site in sites]
    if not sites or len(set(names)) != len(names):
        raise FixConfigurationError("sites have distinct names and there is at least one", value=names)
    for site in sites:
        if np.ndim(site.X) != 2 or not len(site.X):
            raise FixConfigurationError(
                f"site {site.name!r} has no records", value=np.shape(site.X), remedy="Leave it out of the run."
            )
    # What is wrong with parameters or labels is said before there is a folder, a release or a charge.
    fresh = detector.initial_state(schema)
    for site in sites:
        _at_site(site, functools.partial(detector.check_labels, site.labels, len(site.X)))
    memory = Checkpoint(checkpoint, fingerprint(detector, names, schema, privacy))
    releasers: list[Releaser] = [
        _releaser(detector, site, schema, privacy, memory.job, memory.kept(at)) for at, site in enumerate(sites)
    ]
    for site, releaser in zip(sites, releasers, strict=True):
        _at_site(site, functools.partial(memory.refuse_other_records, releaser.kept, site.X, site.labels))
        _at_site(site, functools.partial(schema.bounded, site.X))
    for releaser in releasers:
        if isinstance(releaser, Protected):
            releaser.recall()  # not before it is certain that this is the same run
    state = memory.state or fresh
    memory.save(state, memory.steps)
    stages = list(detector.stages())
    while not state.done:
        updates, steps = [], list(memory.steps)
        for at, (site, releaser) in enumerate(zip(sites, releasers, strict=True)):
            start = time.perf_counter()
            work = functools.partial(detector.site_update, state, site.X, releaser, site.labels)
            with observe.span("site_update", site=site.name, stage=state.stage):
                update: Update = _at_site(site, work)
            updates.append(update)
            spent = releaser.epsilon() if isinstance(releaser, Protected) else None
            seconds = time.perf_counter() - start
            steps.append(TrainingStep(state.stage, site.name, seconds, spent, detector.site_loss(state, update)))
            if progress is not None:
                passed = stages.index(state.stage) * len(sites) + at + 1
                progress(f"{state.stage} at {site.name}", passed, len(stages) * len(sites))
        state = detector.next_state(state, add_up(state, updates))
        memory.save(state, steps)
    detector.finish(state)
    detector.training_ = memory.steps
    if detector.scaling == "local":
        each = zip(sites, releasers, strict=True)
        detector.scales_ = {s.name: scale_of(schema, detector.values_, r, s.name) for s, r in each}
        for site in sites:
            if site.scale is not None:
                detector.scales_[site.name].write(site.scale)
    if privacy is not None:
        protected = [releaser for releaser in releasers if isinstance(releaser, Protected)]
        detector.statement_ = statement(detector, privacy, protected, schema)
    return detector


def _at_site(site: Site, work: Callable[[], T]) -> T:
    try:
        return work()
    except SecureadError as error:
        error.where = f"site {site.name!r}" + (f", {error.where}" if error.where else "")
        raise


def _releaser(
    detector: AnomalyDetector, site: Site, schema: Schema, privacy: PrivacyPlan | None, job: str, kept: Kept
) -> Releaser:
    unprotected = privacy is None or privacy.noise_source == "seeded-study"
    if unprotected and (site.ledger is not None or site.limit is not None):
        raise PrivacyRefusedError(
            f"site {site.name!r} keeps a budget, and this run would release its sums without protection",
            value="no [privacy]" if privacy is None else "noise from a known seed",
            remedy="No budget can pay for that: train with the system's noise, or leave ledger and limit out.",
        )
    if privacy is None:
        return Unprotected(kept)
    limit = privacy.epsilon if site.limit is None else site.limit
    budget = Budget(site.name, limit, privacy.delta, path=site.ledger)
    return protect(detector, privacy, budget, job=job, schema=schema, kept=kept)
