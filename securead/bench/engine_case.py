"""An engine of a scoring service, measured: its real halves in processes of their own, every byte between them counted.

Calls are timed where they are made, in the half's own process. A request on this machine takes what the halves take and
what passing the bytes over a local connection takes; `links` says what it would take elsewhere.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from securead.bench import soundness
from securead.bench.links import Relay
from securead.bench.players import Cast, Player, Reply
from securead.bench.records import Case, Timing, Traffic
from securead.bench.repeats import once, repeat, timing
from securead.data.schema import Array
from securead.errors import FixConfigurationError
from securead.models.bundle import Bundle
from securead.planner.links import LINKS, predicted_seconds
from securead.protocols import registry
from securead.protocols.engine import EngineSpec, Plan, Role

CLIENT, SERVER, HOLDER = "client", "server", "key holder"
WAYS = 2  # a request, an answer
_MASKS, _MOST_MASKS = 4, 256


@dataclass(frozen=True, eq=False)
class Measured:
    """What a run through an engine measured; `scores` of all rows, or None where it failed before there were any."""

    scores: Array | None = None
    timings: tuple[Timing, ...] = ()
    traffic: tuple[Traffic, ...] = ()
    rounds: int | None = None
    predicted_seconds: float | None = None
    delayed_seconds: float | None = None
    peak_bytes: tuple[tuple[str, int], ...] = ()
    security_bits: float | None = None
    notes: tuple[str, ...] = ()
    failures: tuple[str, ...] = ()


def run(case: Case, bundle: Bundle, X: Array, folder: Path) -> Measured:
    """Score records `(n, d)` through the case's engine, in full chunks; then measure batches of the case's size.

    Raises `FixProgramError` where the engine does not carry the program, `InstallExtraError` where it is not installed.
    """
    spec = registry.spec(case.engine)
    role: Role = "same" if case.role == "none" else case.role
    if role not in spec.roles:
        raise FixConfigurationError(f"the engine {case.engine!r} has no role {role!r}", value=case.role)
    for half in (registry.owner_module, registry.blind_module):
        half(case.engine)  # installed, or an error that says what to install
    plan = registry.plan_module(case.engine).make_plan(bundle.public.program, role)
    batch = min(case.batch or plan.rows_per_chunk, plan.rows_per_chunk)
    with Cast(spec.package, plan, bundle, folder) as cast:
        return _Run(case, bundle, plan, cast, spec=spec).measure(X, batch)


def timed(engine: str, plan: Plan, bundle: Bundle, X: Array, sizes: Iterable[int], folder: Path) -> dict[int, Measured]:
    """What requests of several sizes take under one plan, by processes as in `run`; no score is looked at.

    Records are those of X `(n, d)`, over and over.
    """
    spec = registry.spec(engine)
    case = Case("timed", "score", "given", "given", engine=engine, role=plan.role)
    with Cast(spec.package, plan, bundle, folder) as cast:
        run = _Run(case, bundle, plan, cast, spec=spec)
        run._keys()
        return {rows: run._timed(np.resize(X, (rows, X.shape[1]))) for rows in sizes}


class _Run:
    """One measurement."""

    def __init__(self, case: Case, bundle: Bundle, plan: Plan, cast: Cast, *, spec: EngineSpec) -> None:
        self.case, self.bundle, self.plan, self.cast, self.spec = case, bundle, plan, cast, spec
        self.failures: list[str] = []
        self.opened: dict[str, list[int]] = {}

    def measure(self, X: Array, batch: int) -> Measured:
        start = time.perf_counter()
        for player in self.cast.players:
            player.do("hello")
        started = time.perf_counter() - start
        keys = self._keys()
        scores = np.concatenate([self._score(part) for part in _chunks(X, self.plan.rows_per_chunk)])
        program = self.bundle.program
        self.failures += soundness.wrong_scores(scores, program.score(X), self.plan, program.public.tolerance)
        found = self._timed(np.resize(X, (batch, X.shape[1])))
        self._check(X)
        words = f"timed in batches of {batch:,}; scored in chunks of {self.plan.rows_per_chunk:,}"
        return dataclasses.replace(
            found,
            scores=scores,
            timings=(once(SERVER, "start", self.case.threads, [(None, started)]), *keys[0], *found.timings),
            traffic=(*keys[1], *found.traffic),
            rounds=1,
            peak_bytes=self._peaks(),
            security_bits=float(self.plan.security_bits),
            notes=(words,),
            failures=tuple(dict.fromkeys(self.failures)),
        )

    # --- keys ---------------------------------------------------------------------------------------------------------

    def _keys(self) -> tuple[list[Timing], list[Traffic]]:
        cast, split = self.cast, self.plan.role == "split"
        owner = HOLDER if split else CLIENT
        published = self._published()
        made = [cast.holder.do("keys") for _ in range(3)]
        public = made[-1].payload
        timings = [once(owner, "make keys", self.case.threads, (reply.spent for reply in made))]
        traffic = published
        if split:
            cast.submitter.do("take", public)
            traffic.append(Traffic(HOLDER, CLIENT, "keys", bytes_once=len(public)))
        if self.plan.evaluation_key_bytes:
            read = cast.service.do("key", public)
            timings.append(once(SERVER, "read keys", self.case.threads, [read.spent]))
            traffic.append(Traffic(owner, SERVER, "keys", bytes_once=len(public)))
            if len(public) > self.plan.evaluation_key_bytes:
                self.failures.append(f"bytes: a public key of {len(public):,} bytes, more than the plan says")
        return timings, traffic

    def _published(self) -> list[Traffic]:
        """What the service publishes goes to whoever makes an encryptor of it, where an engine has a setup."""
        content = self.cast.service.do("setup").payload
        if not content:
            return []
        for player in {self.cast.submitter, self.cast.holder}:
            player.do("published", content)
        if len(content) != getattr(self.plan, "setup_bytes", 0):
            self.failures.append(f"bytes: {len(content):,} bytes are published, the plan says otherwise")
        return [Traffic(SERVER, CLIENT, "setup", bytes_once=len(content))]

    # --- requests -----------------------------------------------------------------------------------------------------

    def _ask(self, player: Player, what: str, do: str, payload: bytes, **fields: Any) -> Reply:
        """A call whose bytes are counted on both sides."""
        before = player.crossed()
        reply = player.do(do, payload, **fields)
        if "bytes" in reply.head:
            crossed = player.crossed()[1] - before[1]
            most = self.plan.max_request_bytes if do == "encrypt" else self.plan.max_answer_bytes
            self.failures += soundness.uncounted(int(reply.head["bytes"]), crossed, most, what)
        self.opened.setdefault(what, []).append(int(reply.head["opened"]))
        return reply

    def _encrypt(self, X: Array) -> Reply:
        return self._ask(self.cast.submitter, "a request", "encrypt", _bytes(X), shape=list(X.shape))

    def _evaluate(self, request: bytes, rows: int) -> Reply:
        return self._ask(self.cast.service, "an answer", "evaluate", request, rows=rows)

    def _decrypt(self, answer: bytes, rows: int) -> Reply:
        return self._ask(self.cast.holder, "decryption", "decrypt", answer, rows=rows)

    def _score(self, X: Array) -> Array:
        answer = self._evaluate(self._encrypt(X).payload, len(X)).payload
        return np.frombuffer(self._decrypt(answer, len(X)).payload)

    def _timed(self, X: Array) -> Measured:
        """Repeats of one batch, phase by phase: what idle time can make is made before every answer, and apart."""
        rows, threads = len(X), self.case.threads
        masks = self._masks(X)
        requests, refills, answers, opened, walls = [], [], [], [], list[float]()

        def one() -> None:
            request = self._encrypt(X)
            refill = self.cast.service.do("refill", times=masks)
            start = time.perf_counter()
            answer = self._evaluate(request.payload, rows)
            exchange = time.perf_counter() - start
            decrypted = self._decrypt(answer.payload, rows)
            requests.append(request)
            refills.append(refill)
            answers.append(answer)
            opened.append(decrypted)
            walls.append(request.spent[1] + exchange + decrypted.spent[1])

        repeat(one)
        reader = HOLDER if self.plan.role == "split" else CLIENT

        def timed(role: str, phase: str, replies: Iterable[Reply], *, offline: bool = False) -> Timing:
            spent = [reply.spent for reply in replies][1:]  # the first warms up
            return timing(role, phase, threads, spent, rows=rows, offline=offline)

        timings = [timed(CLIENT, "encode and encrypt", requests), timed(SERVER, "evaluate", answers)]
        if masks:
            timings.append(timed(SERVER, "masks", refills, offline=True))
        timings.append(timed(reader, "decrypt", opened))
        up, down = len(requests[-1].payload), len(answers[-1].payload)
        seconds = float(np.median(walls[1:]))
        predicted = predicted_seconds(seconds, ways=WAYS, bytes_in_line=up + down, link=self.case.link)
        return Measured(
            timings=tuple(timings),
            traffic=(
                Traffic(CLIENT, SERVER, "records", bytes_per_row=up / rows),
                Traffic(SERVER, reader, "scores", bytes_per_row=down / rows),
            ),
            predicted_seconds=predicted,
            delayed_seconds=None if self.case.link == "loopback" else self._delayed(one, walls),
        )

    def _delayed(self, one: Callable[[], None], walls: list[float]) -> float:
        """A request's seconds with the link's delay and rate between the service and everyone else."""
        service, before = self.cast.service, len(walls)
        with Relay(service.address, LINKS[self.case.link]) as relay:
            service.reach(relay.address)
            repeat(one, seconds=1.0)
            service.reach(service.address)
        return float(np.median(walls[before + 1 :]))

    def _masks(self, X: Array) -> int:
        """How many times an answer to such a request has to be refilled for; 0 where an engine makes nothing ahead."""
        service, request = self.cast.service, self._encrypt(X).payload
        if not service.do("refill", times=1).head["made"]:
            return 0
        times = _MASKS
        while times <= _MOST_MASKS:
            service.do("refill", times=times)
            before = service.do("held").head["held"]
            self._evaluate(request, len(X))
            after = service.do("held").head["held"]
            if after:
                item = int(service.do("refill", times=1).head["made"])
                return int((before - after) // item)
            times *= 2
        return times

    def _peaks(self) -> tuple[tuple[str, int], ...]:
        cast = self.cast
        found = [(CLIENT, cast.submitter.peak), (SERVER, cast.service.peak)]
        return (*found, (HOLDER, cast.holder.peak)) if cast.holder is not cast.submitter else tuple(found)

    # --- the suite's own checks ---------------------------------------------------------------------------------------

    def _check(self, X: Array) -> None:
        """What `soundness` looks for in requests and answers, of some records twice and of others once."""
        rows = min(len(X) // 2, self.plan.rows_per_chunk, 64) or 1
        ours, theirs = X[:rows], np.ascontiguousarray(X[-rows:])
        public = self.bundle.public.program
        Z, _ = public.encoder.encode(ours)
        requests = [self._encrypt(each).payload for each in (ours, ours, theirs)]
        # A service with a setup decrypts what the owner blinded: what is fresh in an answer comes from the request.
        again = requests[1] if self.spec.setup else requests[0]
        answers = [self._evaluate(each, rows).payload for each in (requests[0], again, requests[2])]
        exact = self.bundle.program.evaluate(Z)
        values = {"records": ours, "encoded records": Z, "queries": public.queries(Z)}
        self.failures += soundness.plaintext(requests[0], "requests", **values)
        self.failures += soundness.plaintext(answers[0], "answers", scores=public.decode(exact), **values)
        distinct = not np.array_equal(public.queries(Z), public.queries(public.encoder.encode(theirs)[0]))
        if distinct:
            self.failures += soundness.told_by(requests, "requests", "they tell of the records")
            if self.spec.sanitised:
                self.failures += soundness.told_by(answers, "answers", "they are not sanitised, or not all of them")
        if self.spec.sanitised:
            self._check_floods(requests[0], rows)
        if self.plan.role == "same":
            self._encrypt(ours)  # so that the half adds these records' public terms
        pried = self.cast.holder.ask("pry", answers[0], rows=rows)
        scores = None if pried.refused else np.frombuffer(pried.payload)
        self.failures += soundness.opened(scores, public.decode(exact), public.tolerance)
        for what, opened in self.opened.items():
            self.failures += soundness.elsewhere(min(opened), what)

    def _check_floods(self, request: bytes, rows: int) -> None:
        """Masks hide that a flood is missing, but not from the holder of the key."""
        first, found = self._evaluate(request, rows).payload, []
        for _ in range(soundness.answers_for_flood(rows)):
            both = self._evaluate(request, rows).payload + first
            reply = self.cast.holder.ask("floods", both, first=len(both) - len(first), rows=rows)
            if reply.refused:
                self.failures.append(f"answers: their flood cannot be read: {reply.refused}")
                return
            if not reply.head["told"]:
                return
            found.append(np.frombuffer(reply.payload))
        self.failures += soundness.flooded(np.array(found))


def _bytes(X: Array) -> bytes:
    return np.ascontiguousarray(X, dtype=np.float64).tobytes()


def _chunks(X: Array, rows: int) -> list[Array]:
    return [X[start : start + rows] for start in range(0, len(X), rows)]
