"""The embedded executor: all sites in one process, for studies, tests and institutions that share a machine.

The rounds are the same pure functions that any executor runs; only the transport is missing.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from securead import observe
from securead.data.schema import Array, Schema
from securead.errors import FixConfigurationError, SecureadError
from securead.models.estimator import AnomalyDetector, protect, statement
from securead.models.training import State, Update, add_up
from securead.privacy.budget import Budget
from securead.privacy.plan import PrivacyPlan
from securead.privacy.site import Protected, Releaser, Unprotected

D = TypeVar("D", bound=AnomalyDetector)
Progress = Callable[[str, int, int], None]
"""Called with what was done, steps so far and steps in all."""


@dataclass(frozen=True, eq=False)
class Site:
    """A data owner: a name and its records `(n, d)`.

    `ledger` names the file that keeps its budget across jobs, and `limit` the epsilon that it allows in total; by
    default a run may spend its own plan and no more.
    """

    name: str
    X: Array
    ledger: Path | None = None
    limit: float | None = None


def train(
    detector: D,
    sites: Sequence[Site],
    schema: Schema,
    *,
    privacy: PrivacyPlan | None,
    progress: Progress | None = None,
) -> D:
    """Train `detector` over `sites` and return it fitted, its privacy statement in `statement_`.

    With `privacy`, every site adds its full noise and charges its own budget before anything leaves it; a site that
    cannot pay for the whole run is refused before a record is read (`PrivacyRefusedError`). With None, sums are exact
    and the statement says that there is no guarantee. Raises `FixConfigurationError` for no site, two sites of one
    name or an empty one, and `FixInputError` for ill-formed records, naming the site.
    """
    names = [site.name for site in sites]
    if not sites or len(set(names)) != len(names):
        raise FixConfigurationError("sites have distinct names and there is at least one", value=names)
    for site in sites:
        if np.ndim(site.X) != 2 or not len(site.X):
            raise FixConfigurationError(
                f"site {site.name!r} has no records", value=np.shape(site.X), remedy="Leave it out of the run."
            )
    job = uuid.uuid4().hex[:12]
    releasers: list[Releaser] = [_releaser(detector, site, privacy, job) for site in sites]
    state, rounds, done = detector.initial_state(schema), len(detector.stages()), 0
    while not state.done:
        updates = []
        for site, releaser in zip(sites, releasers, strict=True):
            with observe.span("site_update", site=site.name, stage=state.stage):
                updates.append(_site_update(detector, state, site, releaser))
            done += 1
            if progress is not None:
                progress(f"{state.stage} at {site.name}", done, rounds * len(sites))
        state = detector.next_state(state, add_up(state, updates))
    detector.finish(state)
    if privacy is not None:
        protected = [releaser for releaser in releasers if isinstance(releaser, Protected)]
        detector.statement_ = statement(detector, privacy, protected, schema)
    return detector


def _releaser(detector: AnomalyDetector, site: Site, privacy: PrivacyPlan | None, job: str) -> Releaser:
    if privacy is None:
        return Unprotected()
    limit = privacy.epsilon if site.limit is None else site.limit
    return protect(detector, privacy, Budget(site.name, limit, privacy.delta, path=site.ledger), job=job)


def _site_update(detector: AnomalyDetector, state: State, site: Site, releaser: Releaser) -> Update:
    try:
        return detector.site_update(state, site.X, releaser)
    except SecureadError as error:
        error.where = f"site {site.name!r}" + (f", {error.where}" if error.where else "")
        raise
