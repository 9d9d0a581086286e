"""The embedded executor: all sites in one process, for studies, tests and institutions that share a machine.

Coordinator and sites are those of any executor, masked sums included; only the transport is a call.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from securead import files
from securead.data.schema import Schema
from securead.errors import FixConfigurationError
from securead.federated.checkpoint import STATE_FILE, Checkpoint
from securead.federated.coordinator import Coordinator
from securead.federated.events import Answered, Event, Listener, RoundBegan
from securead.federated.federation import Federation, Terms
from securead.federated.messages import Answer, Ask
from securead.federated.participant import Participant, Site
from securead.models.estimator import AnomalyDetector
from securead.models.protection import statement
from securead.models.training import State
from securead.privacy.plan import PrivacyPlan
from securead.privacy.site import Kept
from securead.protocols.masking.identity import Identity, Known

D = TypeVar("D", bound=AnomalyDetector)
Progress = Callable[[str, int, int], None]
"""Called with what was done, steps so far and steps in all."""


def train(
    detector: D,
    sites: Sequence[Site],
    schema: Schema,
    *,
    privacy: PrivacyPlan | None,
    federation: Federation | None = None,
    progress: Progress | None = None,
    listener: Listener | None = None,
    checkpoint: Path | None = None,
) -> D:
    """Train `detector` over `sites` and return it fitted, its privacy statement in `statement_`.

    With `privacy`, every site adds its full noise and charges its own budget before anything leaves it; a site that
    cannot pay for the whole run is refused before a record is read (`PrivacyRefusedError`). With None, sums are exact
    and the statement says that there is no guarantee; that, and predictable noise, is refused to a site that keeps a
    budget, whose record would otherwise promise what no longer holds. Raises `FixConfigurationError` for no site, two
    sites of one name or an empty one, and `FixInputError` for ill-formed records, naming the site, before any release.

    `federation` chooses masked sums or a robust rule; by default sums are plain. With `checkpoint`, a folder, the state
    is written down after every round and each site keeps what it released; the same call after a crash goes on from the
    last whole round, sends identical updates again and charges nothing twice. The folder holds what sites keep to
    themselves: delete it when the run is done. `training_` tells what each site did in each round. With
    scaling="local", `scales_` holds every site's own scale, which elsewhere no other site sees.
    """
    names = tuple(site.name for site in sites)
    if not sites or len(set(names)) != len(names):
        raise FixConfigurationError("sites have distinct names and there is at least one", value=names)
    terms = Terms(detector, names, schema, privacy, federation or Federation())
    # What is wrong with parameters or labels is said before there is a folder, a release or a charge.
    detector.initial_state(schema)
    participants = [
        Participant(site, terms, Kept(None if checkpoint is None else checkpoint / f"site-{at}"))
        for at, site in enumerate(sites)
    ]
    # Two processes on one folder would release twice.
    with contextlib.nullcontext() if checkpoint is None else files.held(checkpoint, STATE_FILE, "site-0", "identities"):
        memory = Checkpoint(checkpoint, terms.fingerprint)
        with _settled(detector, memory.run):
            identities = _identities(names, checkpoint) if terms.federation.hidden else {}
            roster = Known({name: identity.credential for name, identity in identities.items()}) if identities else None
            for participant in participants:
                participant.identity, participant.roster = identities.get(participant.site.name), roster
                participant.afford(memory.run)
            tell = _Told(progress, listener, terms)
            coordinator = Coordinator(terms, _Calls(participants), memory, roster=roster, listener=tell)
            state = coordinator.run()
            coordinator.finish(state)
            finish(terms, state, memory)
    if detector.scaling == "local":
        detector.scales_ = {p.site.name: scale for p in participants if (scale := p.scale()) is not None}
    return detector


@contextlib.contextmanager
def _settled(detector: AnomalyDetector, run: str) -> Iterator[None]:
    """Where no seed is given, all participants draw the public geometry from the run's random name."""
    open_seed = detector.get_params(deep=False).get("random_state", 0) is None
    if open_seed:
        detector.set_params(random_state=int(run, 16))
    try:
        yield
    finally:
        if open_seed:
            detector.set_params(random_state=None)


def finish(terms: Terms, state: State, memory: Checkpoint) -> None:
    """Make the detector of `terms` a fitted one, with the privacy statement that the sites' reports amount to."""
    detector = terms.detector
    detector.finish(state)
    detector.training_ = memory.steps
    if terms.privacy is not None:
        reports = [memory.reports[name] for name in terms.names if name in memory.reports]
        records = [report.records for report in reports if report.records is not None]
        readings = [report.readings for report in reports if report.readings is not None]
        detector.statement_ = statement(
            detector, terms.privacy, terms.schema, [total.stage for total in memory.totals], records, readings
        )


def _identities(names: Sequence[str], checkpoint: Path | None) -> dict[str, Identity]:
    """A signing key for every site; with a folder the same ones when the run goes on."""
    kept = Kept(None if checkpoint is None else checkpoint / "identities")
    found = {}
    for at, name in enumerate(names):
        known = kept.get(f"site-{at}")
        if known is None:
            found[name] = Identity.generate(name)
            kept.put(f"site-{at}", np.frombuffer(found[name].private_bytes(), dtype=np.uint8))
        else:
            found[name] = Identity.from_private_bytes(name, known.tobytes())
    return found


class _Calls:
    """A transport without a wire: a site's answer is the return value, and its error is raised where it was asked."""

    def __init__(self, participants: Sequence[Participant]) -> None:
        self._participants = {participant.site.name: participant for participant in participants}

    def present(self) -> Collection[str]:
        return list(self._participants)

    def certified(self, address: str) -> str | None:
        return address

    def exchange(self, asks: Mapping[str, Ask], *, seconds: float, answered: Callable[[str, Answer], None]) -> None:
        for name, ask in asks.items():
            answered(name, self._participants[name].answer(ask))

    def traffic(self, address: str) -> tuple[int, int]:
        return 0, 0


class _Told:
    """Turns a run's events into steps of progress: one for every site in every round."""

    def __init__(self, progress: Progress | None, listener: Listener | None, terms: Terms) -> None:
        self._progress, self._listener = progress, listener
        self._sites, self._passed = len(terms.names), 0
        self._stages = list(terms.detector.stages())
        self._round: RoundBegan | None = None

    def __call__(self, event: Event) -> None:
        if isinstance(event, RoundBegan):
            self._round, self._passed = event, 0
        if isinstance(event, Answered) and event.kind == "prepare" and self._progress and self._round:
            self._passed = min(self._passed + 1, self._sites)
            before = self._stages.index(self._round.stage) * self._sites
            what = f"{self._round.stage} at {event.site}"
            self._progress(what, before + self._passed, len(self._stages) * self._sites)
        if self._listener:
            self._listener(event)
