"""`Parties`: have records scored by two parties of which neither sees them.

Guarantees: each party is sent one share of the records, uniform by itself, made with the system's generator; records
and scores are whole in this process only. Whatever goes wrong at a party, dead, silent or of another mind, is an error
within about five seconds, or `patience` if that is longer. A score outside the range that the program can have is
computed once more with fresh shares, and counted: once for a chunk of records, whatever is lost meanwhile. Imports
neither torch nor CrypTen.
"""

from __future__ import annotations

import math
import random
import time
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from securead.client.line import Done, Line
from securead.client.results import Scores, Timings, named
from securead.client.scoring import as_records
from securead.client.watch import Silent, Watch
from securead.data.schema import Array
from securead.errors import FixConfigurationError, FixInputError, RejectMessageError, RetryLaterError
from securead.models.shared import SharedModel
from securead.observe import count, span
from securead.protocols.sharing import owner
from securead.protocols.sharing.links import Identity, parse_address
from securead.protocols.sharing.messages import new_id
from securead.protocols.sharing.plan import SharingPlan, make_plan
from securead.protocols.sharing.settings import read_toml

_PAUSE = 0.1


@dataclass(frozen=True)
class PartiesConfig:
    """A client's TOML file: where lane 0 of both parties listens, who we are, and the model's public half.

    Lane k is at the parties' ports + k. `identity`: a directory that `securead certs` made; `model`: model.json of
    `securead split`. `patience`: seconds for which a chunk is tried again while the parties are away or busy.
    """

    party0: str
    party1: str
    identity: str
    model: str
    lanes: int = 1
    patience: float = 3.0

    PATHS = ("identity", "model")

    def __post_init__(self) -> None:
        for name in ("party0", "party1"):
            parse_address(getattr(self, name), where=name)
        if not 1 <= self.lanes <= 64:
            raise FixConfigurationError("the entry 'lanes' is wrong", value=self.lanes, remedy="Write 1 to 64.")
        if not 0 <= self.patience <= 3600:
            raise FixConfigurationError("the entry 'patience' is wrong", value=self.patience, remedy="Write 0 to 3600.")

    @classmethod
    def read(cls, path: Path | str) -> PartiesConfig:
        """Read a TOML file; errors name the entry."""
        return read_toml(cls, path, paths=cls.PATHS)


@dataclass(frozen=True)
class Work:
    """What the parties did: rows computed a second time because their score was out of range, rounds of messages of
    the last chunk, bytes between the parties (both directions) and from the dealer, and their seconds (the slower)."""

    recomputed: int = 0
    rounds: int = 0
    party_bytes: int = 0
    offline_bytes: int = 0

    def after(self, done: Done, *, again: bool) -> Work:
        """With one more request."""
        first, second = done.answers
        return Work(
            recomputed=self.recomputed + (first.rows if again else 0),
            rounds=first.rounds,
            party_bytes=self.party_bytes + first.bytes_sent + second.bytes_sent,
            offline_bytes=self.offline_bytes + first.offline_bytes,
        )


@dataclass(frozen=True, eq=False)
class PartyScores(Scores):
    """Scores, and what they took at the parties."""

    work: Work = Work()


@dataclass(frozen=True, eq=False)
class Verdicts:
    """Verdicts of `n` records: `is_anomaly`, booleans `(n,)`. The rest as in `Scores`; nobody learns a score."""

    is_anomaly: Array
    clipped: dict[str, int]
    timings: Timings
    bytes_up: int
    bytes_down: int
    work: Work = Work()

    def __len__(self) -> int:
        return len(self.is_anomaly)


class Parties:
    """Two parties that hold a model in shares, seen by someone with records. Not for several threads at once.

    `config`: a `PartiesConfig` or the path of its TOML file. `passphrase` opens a sealed key. `patience` replaces the
    configured one.
    """

    def __init__(
        self,
        config: PartiesConfig | Path | str,
        *,
        passphrase: str | None = None,
        patience: float | None = None,
        watch: Watch | None = None,
    ) -> None:
        self._config = config if isinstance(config, PartiesConfig) else PartiesConfig.read(config)
        self._patience = self._config.patience if patience is None else patience
        self._watch = watch or Silent()
        self._identity = Identity.load(self._config.identity, passphrase=passphrase)
        self.model = SharedModel.read(self._config.model)
        self.plan: SharingPlan = make_plan(self.model.program, "same")
        self._line: Line | None = None

    def __enter__(self) -> Parties:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        if self._line is not None:
            self._line.close()
            self._line = None

    def greet(self) -> None:
        """Connect to both parties and compare what they serve. Raises as `score` does, without waiting."""
        self._connected(self.model.verdicts_only)

    def score(self, X: Any) -> PartyScores:
        """Scores of records `(n, d)`, in the schema's column order or as a data frame with the schema's columns.

        Raises `FixInputError` for records that do not fit the schema; `RetryLaterError` when a party or the dealer is
        away, silent or was lost; `RejectMessageError` when the parties serve something else, or verdicts only;
        `FixConfigurationError` for certificates that are not trusted.
        """
        if self.model.verdicts_only:
            raise FixInputError("this model's parties tell verdicts only", remedy="Ask for verdicts.")
        values, clipped, times, up, down, work = self._run(X, verdict=False)
        scores = self.model.program.decode(values)
        return PartyScores(scores, self.model.is_anomaly(scores), clipped, times, up, down, work)

    def verdicts(self, X: Any) -> Verdicts:
        """Verdicts of records `(n, d)`: each is one bit, computed from the secret threshold by the parties.

        A score that is out of range, which this side cannot see, counts as an anomaly. Raises as `score` does.
        """
        values, clipped, times, up, down, work = self._run(X, verdict=True)
        return Verdicts(values, clipped, times, up, down, work)

    def _run(self, X: Any, *, verdict: bool) -> tuple[Array, dict[str, int], Timings, int, int, Work]:
        encoder, plan = self.model.program.encoder, self.plan
        records = as_records(X, encoder.schema)
        encoder.schema.bounded(records)
        if not len(records):
            raise FixInputError("there is no record to score", value=records.shape, remedy="Give at least one row.")
        parts: list[Array] = []
        clipped = np.zeros(encoder.width, dtype=int)
        times, up, down, work = Timings(), 0, 0, Work()
        with span("client.parties", rows=len(records), verdict=verdict):
            for chunk in range(math.ceil(len(records) / plan.rows_per_chunk)):
                start = time.perf_counter()
                Z, outside = encoder.encode(records[chunk * plan.rows_per_chunk :][: plan.rows_per_chunk])
                words = owner.words_of(plan, self.model.program, Z)
                began = time.perf_counter()
                values, done = self._chunk(words, verdict)
                for at, each in enumerate(done):
                    work = work.after(each, again=at > 0)
                    up, down = up + each.sent, down + each.received
                    times = replace(times, server=times.server + max(a.seconds for a in each.answers))
                times = replace(
                    times,
                    encrypt=times.encrypt + began - start,
                    submit=times.submit + time.perf_counter() - began,
                )
                parts.append(values)
                clipped = clipped + outside
                self._watch.rows("score", sum(map(len, parts)), len(records))
        count("client.rows_recomputed", work.recomputed)
        return np.concatenate(parts), named(encoder.schema.names, clipped), times, up, down, work

    def _chunk(self, words: Array, verdict: bool) -> tuple[Array, list[Done]]:
        """One chunk's integers or bits, and the requests that were answered for it."""
        plan, deadline = self.plan, time.monotonic() + self._patience
        done = self._asked(words, verdict, deadline, None)
        try:
            if verdict:
                return owner.join_verdicts(plan, *done.shares, len(words)), [done]
            values = owner.join_scores(plan, *done.shares, len(words))
            bad = np.flatnonzero(~owner.in_range(plan, values))
            if not len(bad):
                return values, [done]
            # Once, whatever happens meanwhile: if the session is lost, these rows are what is asked for again.
            again = self._asked(words[bad], verdict, deadline, done)
            values[bad] = owner.join_scores(plan, *again.shares, len(bad))
            if not owner.in_range(plan, values[bad]).all():
                raise RejectMessageError(
                    "the parties' scores are out of range twice",
                    value=len(bad),
                    remedy="They do not compute this model: tell their operators. Nothing was scored.",
                )
        except BaseException:
            self.close()
            raise
        return values, [done, again]

    def _asked(self, words: Array, verdict: bool, deadline: float, before: Done | None) -> Done:
        """The parties' answer, asked for with fresh shares while they are away until the deadline.

        A second attempt at what was answered `before` is one where that was; elsewhere nobody knows of the first.
        """
        asked_by = self._line
        while True:
            try:
                line = self._connected(verdict)
                second = before is not None and line is asked_by
                request = before.answers[0].request if before is not None and second else new_id()
                return line.ask(request, int(second), owner.split_queries(self.plan, words), len(words), verdict)
            except RetryLaterError as error:
                self.close()
                left = deadline - time.monotonic()
                if left <= 0:
                    raise RetryLaterError(error.what, where=error.where, remedy=error.remedy) from error
                self._watch.waiting(f"{error.what}; trying for another {left:.0f} s")
                time.sleep(min(left, _PAUSE))
            except BaseException:
                self.close()
                raise

    def _connected(self, verdict: bool) -> Line:
        """A line to both parties of one lane: the one in use, else the first that is not busy."""
        if self._line is not None and self._line.fresh:
            return self._line
        self.close()
        lanes = list(range(self._config.lanes))
        start = random.randrange(len(lanes))  # noqa: S311  (spreads load, no secret)
        problem: RetryLaterError | None = None
        for lane in lanes[start:] + lanes[:start]:
            try:
                line = Line.open(
                    parse_address(self._config.party0, where="party0"),
                    parse_address(self._config.party1, where="party1"),
                    lane,
                    identity=self._identity,
                    plan=self.plan,
                    verdict=verdict,
                )
            except RetryLaterError as error:
                problem = error
                continue
            if self._line is None or not line.busy:
                self.close()
                self._line = line
            else:
                line.close()
            if not line.busy:
                break
        if self._line is None:
            raise problem or RetryLaterError("no lane of the parties answers")
        return self._line
