"""A site's side of a run: it answers what the coordinator asks, and nothing leaves it uncharged or twice.

Whatever transport carries the asks, the site does the same. It takes part in one run on its own terms, keeps every
update from the moment that it is made, and answers a repeated ask with the identical update. What is wrong with its own
records it says to its owner alone.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from securead import observe
from securead.data.schema import Array
from securead.data.windows import LocalScale, WindowedSchema
from securead.errors import FixConfigurationError, PrivacyRefusedError, RejectMessageError, SecureadError
from securead.federated import robust
from securead.federated.federation import Terms
from securead.federated.hiding import Hiding
from securead.federated.messages import (
    Answer,
    Ask,
    Refusal,
    Report,
    about_the_ask,
    from_bytes,
    in_words,
    plain_text,
    to_bytes,
    word_bits,
)
from securead.federated.walk import PublicWalk
from securead.models.local import LOCAL, TYPICAL, scale_of
from securead.models.protection import protect
from securead.models.training import State, Update
from securead.privacy.budget import Budget
from securead.privacy.site import Kept, Protected, Releaser, Unprotected
from securead.privacy.statement import SiteGuarantee
from securead.protocols.masking.identity import Identity, Roster
from securead.protocols.paillier import keys

T = TypeVar("T")
_IDENTITY, _BEGUN = "identity", "begun"


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


class Participant:
    """One site in one run.

    `kept` is its memory: with a folder it outlives the process, and the same run goes on. `identity` signs what it says
    to the others, whom `roster` knows; a run with plain sums needs neither. `trouble` is told what goes wrong, in full.

    The public state is never taken from the coordinator: the site begins with its own and takes the public step itself,
    from the sums that it is told. So what it computes on its records is what honest rounds compute, whatever the sums.
    """

    def __init__(
        self,
        site: Site,
        terms: Terms,
        kept: Kept,
        *,
        identity: Identity | None = None,
        roster: Roster | None = None,
        trouble: Callable[[SecureadError], None] = lambda error: None,
    ) -> None:
        if np.ndim(site.X) != 2 or not len(site.X):
            raise FixConfigurationError(
                f"site {site.name!r} has no records", value=np.shape(site.X), remedy="Leave it out of the run."
            )
        self.site, self.terms, self._kept, self._trouble = site, terms, kept, trouble
        self.identity, self.roster = identity, roster
        self._run: str | None = None
        self._releaser: Releaser = Unprotected(kept)
        self._hiding: Hiding | None = None
        self._walk: PublicWalk | None = None
        self._shapes: dict[str, tuple[int, ...]] = {}
        self.finished, self._scale_written = False, False
        self._own(lambda: terms.detector.check_labels(site.labels, len(site.X)))

    def check(self) -> None:
        """Raise what is wrong with parameters, budget or records, before anybody is told of them."""
        self.terms.detector.initial_state(self.terms.schema)
        if self.terms.federation.aggregation == "paillier":
            keys.phe()
        self.afford("check")
        self._own(lambda: self.terms.schema.bounded(self.site.X))

    def afford(self, run: str) -> Releaser:
        """The releaser of a run. Raises `PrivacyRefusedError` where the budget does not pay for all of it.

        No record is read, and nothing is charged.
        """
        site, plan = self.site, self.terms.privacy
        unprotected = plan is None or plan.noise_source == "seeded-study"
        if unprotected and (site.ledger is not None or site.limit is not None):
            raise PrivacyRefusedError(
                f"site {site.name!r} keeps a budget, and this run would release its sums without protection",
                value="no [privacy]" if plan is None else "noise from a known seed",
                remedy="No budget can pay for that: train with the system's noise, or leave ledger and limit out.",
            )
        if plan is None:
            return Unprotected(self._kept)
        limit = plan.epsilon if site.limit is None else site.limit
        budget = Budget(site.name, limit, plan.delta, path=site.ledger)
        return protect(self.terms.detector, plan, budget, job=run, schema=self.terms.schema, kept=self._kept)

    def answer(self, ask: Ask) -> Answer:
        """Do as asked. An error stays `confidential`, for the site's owner alone, unless it is about the ask itself."""
        if ask.kind == "join":
            return self._join(ask)
        with about_the_ask():
            if ask.kind == "refuse":
                raise FixConfigurationError(
                    plain_text(ask.text) or "the coordinator refuses this site", where=self._where
                )
            if ask.run != self._run:
                raise RejectMessageError("this ask is of another run", where=self._where, value=ask.run[:80])
        if ask.kind in ("prepare", "finish"):
            return self._prepare(ask) if ask.kind == "prepare" else self._finish(ask)
        hiding = self._hidden
        return {"send": hiding.send, "key": hiding.hand_on, "take": hiding.take, "open": hiding.open}[ask.kind](ask)

    def reply(self, content: bytes) -> bytes:
        """The same in bytes, for a coordinator elsewhere: what goes wrong is answered, too, without a record in it."""
        ask: Ask | None = None
        try:
            with about_the_ask():
                ask = from_bytes(Ask, content, where="the coordinator's message")
            answer = self.answer(ask)
        except SecureadError as error:
            self._trouble(error)
            hidden = "its records, its budget or its files are in the way; its own output says what"
            refusal = Refusal(type(error).__name__, hidden if error.confidential else str(error))
            at = (ask.kind, ask.round, ask.attempt) if ask is not None else ("refuse", 0, 0)
            answer = Answer(at[0], self.site.name, at[1], at[2], refusal=refusal)
        return to_bytes(answer)

    def scale(self) -> LocalScale | None:
        """The site's own scale, once it is found, where the detector has each find one."""
        if self.terms.detector.scaling != "local" or self._walk is None or TYPICAL not in self._walk.state.values:
            return None
        return scale_of(self.terms.schema, self._walk.state.values, self._releaser, self.site.name)

    @property
    def state(self) -> State:
        """The public state of the round that this site is in."""
        with about_the_ask():
            if self._walk is None:
                raise RejectMessageError("this site has not joined", where=self._where)
            return self._walk.state

    # --- what can be asked ----------------------------------------------------------------------------------------

    def _join(self, ask: Ask) -> Answer:
        with about_the_ask():
            mine, theirs = self.terms.digests(), dict(ask.digests)
            if differing := sorted(part for part in mine if mine[part] != theirs.get(part)):
                raise FixConfigurationError(
                    "the coordinator's recipe is another one: it differs in " + ", ".join(differing),
                    where=self._where,
                    remedy="Use the same recipe, and the same version of securead, everywhere.",
                )
        releaser = self.afford(ask.run)
        self._bind(ask.run)
        self._own(lambda: self.terms.schema.bounded(self.site.X))
        if isinstance(releaser, Protected):
            releaser.recall()  # not before it is certain that this is the same run
        if self._run != ask.run:
            self._walk = PublicWalk(self.terms, self.terms.detector.initial_state(self.terms.schema))
            self._run, self._releaser = ask.run, releaser
        advert, key = None, ""
        if self.identity is not None and self.roster is not None:
            self._hiding = Hiding(ask.run, self.terms, self._kept, self.identity, self.roster)
            advert, key = self._hiding.advert(), self._hiding.group_key
        elif self.terms.federation.hidden:
            raise FixConfigurationError("hidden sums need an identity and a roster", where=self._where)
        rounds = self._walk.rounds if self._walk else 0
        return Answer("join", self.site.name, advert=advert, rounds=rounds, group_key=key)

    def _prepare(self, ask: Ask) -> Answer:
        start, site, detector = time.perf_counter(), self.site, self.terms.detector
        state = self._advance(ask, ask.round - 1)
        with about_the_ask():
            if state.done:
                raise RejectMessageError("all rounds are over", where=self._where, value=ask.round)
        if self._kept.get(_BEGUN) is None:
            self._kept.put(_BEGUN, np.ones(1, dtype=np.uint8))
        with observe.span("site_update", site=site.name, stage=state.stage):
            update = self._own(lambda: detector.site_update(state, site.X, self._releaser, site.labels))
        if update.bits < 64 and np.abs(update.values).max(initial=0) >= 2 ** (update.bits - 1):
            raise OverflowError(f"the update of {state.stage} does not fit the {update.bits} bits that it says")
        self._shapes[state.stage] = update.values.shape
        values = self._within_bound(state, update)
        report = Report(site.name, time.perf_counter() - start, *self._guarantees())
        if not self.terms.federation.hidden:
            return Answer(
                "prepare",
                site.name,
                ask.round,
                noise_variance=update.noise_variance,
                loss=detector.site_loss(state, values),
                report=report,
                bits=word_bits(update.bits),
                arrays={"values": in_words(values, word_bits(update.bits))},
            )
        signature = self._hidden.agree(ask, update, values)
        return Answer(
            "prepare",
            site.name,
            ask.round,
            ask.attempt,
            signature=signature,
            noise_variance=update.noise_variance,
            report=report,
        )

    def _finish(self, ask: Ask) -> Answer:
        state = self._advance(ask, ask.round - 1)
        with about_the_ask():
            if not state.done:
                raise RejectMessageError("rounds are left", where=self._where, value=state.stage)
        self.finished = True
        return Answer("finish", self.site.name, ask.round)

    # --- what they rest on ----------------------------------------------------------------------------------------

    @property
    def _where(self) -> str:
        return f"site {self.site.name!r}"

    @property
    def _hidden(self) -> Hiding:
        with about_the_ask():
            if self._hiding is None:
                raise RejectMessageError("this run's sums are not hidden", where=self._where)
            return self._hiding

    def _own(self, work: Callable[[], T]) -> T:
        """Work on the site's own records: what goes wrong names the site."""
        try:
            return work()
        except SecureadError as error:
            error.where = self._where + (f", {error.where}" if error.where else "")
            raise

    def _advance(self, ask: Ask, rounds: int) -> State:
        """The public state after so many rounds, by the sums that the ask carries."""
        if self._walk is None:
            return self.state  # which says what is wrong
        with about_the_ask():
            if self.terms.detector.scaling == "local" and rounds and self._kept.get(LOCAL) is None:
                raise FixConfigurationError(
                    "this site was not there when sites found their scales, and cannot join any more",
                    where=self._where,
                    remedy="Take part in the next run from its first round.",
                )
            self._walk.advance(ask.totals, ask.since, rounds, self._shape)
        if self.site.scale is not None and not self._scale_written and (scale := self.scale()) is not None:
            scale.write(self.site.scale)
            self._scale_written = True
        return self._walk.state

    def _shape(self, state: State) -> tuple[int, ...]:
        """Of which shape the sums of a stage are: as the site's own update, or as what a few made-up records give."""
        if state.stage in self._shapes:
            return self._shapes[state.stage]
        if state.stage != LOCAL and (own := self._kept.get(state.stage)) is not None:
            return own.shape  # of this run, by an earlier process
        schema, made_up = self.terms.schema, Unprotected(Kept())
        if (own := self._kept.get(LOCAL)) is not None:
            made_up.kept.put(LOCAL, own)
        X = np.linspace([c.lower for c in schema.columns], [c.upper for c in schema.columns], 16)
        labels = np.arange(len(X)) % 2
        return self.terms.detector.site_update(state, X, made_up, labels).values.shape

    def _bind(self, run: str) -> None:
        """Once it has begun, a site is of one run over its records; what it holds of an earlier one is in the way."""
        identity, known = self._own(lambda: self._identify(run)), self._kept.get(_IDENTITY)
        if known is not None and np.array_equal(known, identity):
            return
        if self._kept.get(_BEGUN) is not None:
            with about_the_ask():
                raise FixConfigurationError(
                    "its folder is of another run or over other records",
                    where=self._where,
                    remedy="Restore them, or give every run a folder of its own; what was spent stays spent.",
                )
        self._kept.clear()
        self._kept.put(_IDENTITY, identity)

    def _identify(self, run: str) -> Array:
        """A digest of run, terms and records: what this site's memory belongs to."""
        identified = hashlib.sha256(f"{self.terms.fingerprint} {run}".encode())
        identified.update(np.ascontiguousarray(self.site.X).tobytes())
        if self.site.labels is not None:
            identified.update(b"labels" + np.ascontiguousarray(self.site.labels, dtype=np.int8).tobytes())
        return np.frombuffer(identified.digest(), dtype=np.uint8)

    def _within_bound(self, state: State, update: Update) -> Array:
        """The update as the run's bound allows it, so that the coordinator need not cut an honest site's back."""
        federation = self.terms.federation
        if federation.bound is None:
            return update.values
        layout = robust.layout_of(self.terms.detector, state)
        return robust.bounded(
            update.values, sites=1, noise_variance=update.noise_variance, layout=layout, bound=federation.bound
        )

    def _guarantees(self) -> tuple[SiteGuarantee | None, SiteGuarantee | None]:
        releaser = self._releaser
        if not isinstance(releaser, Protected):
            return None, None
        windowed = isinstance(self.terms.schema, WindowedSchema)
        return releaser.guarantee(), releaser.guarantee_of_readings() if windowed else None
