"""The coordinator's side of a run: rounds among sites that may be late, die and come back.

It sees public state, sums and, where aggregation is plain, updates that carry their noise already. Every executor runs
this code and brings a `Transport`. After each round the state is written down; a run that is killed goes on from there,
and a round that was under way is asked for again, which changes nothing: sites answer with the identical update.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from securead.errors import FixInputError, RetryLaterError, SecureadError
from securead.federated import robust
from securead.federated.adding import EncryptedSums, MaskedSums
from securead.federated.checkpoint import Checkpoint, Group, TrainingStep
from securead.federated.events import Listener, RoundBegan, RoundDone
from securead.federated.federation import Terms
from securead.federated.membership import JOIN_SECONDS, POLL_SECONDS, Membership, Transport
from securead.federated.messages import Answer, Ask, Kind, Report
from securead.models.training import State
from securead.protocols.masking.adverts import agreement, from_hex, set_hash
from securead.protocols.masking.identity import Roster

_MAX_SIGNATURE_BYTES = 128
_AWAY_SECONDS = 2.0


class Coordinator:
    """Drives one run to its end.

    `wait`: seconds until it begins without sites that have not come.
    """

    def __init__(
        self,
        terms: Terms,
        transport: Transport,
        memory: Checkpoint,
        *,
        roster: Roster | None = None,
        listener: Listener = lambda event: None,
        wait: float = 300.0,
    ) -> None:
        self._terms, self._memory, self._tell = terms, memory, listener
        self._roster, self._wait = roster, wait
        self._least = terms.federation.least(len(terms.names))
        federation = terms.federation
        robust.refuse_impossible(
            federation.rule,
            contributions=federation.groups or (1 if federation.hidden else len(terms.names)),
            sites=len(terms.names),
            attackers=federation.attackers,
        )
        self._initial = memory.initial or terms.detector.initial_state(terms.schema)
        self._stages = list(terms.detector.stages())
        self._sites = Membership(terms, transport, memory, roster, listener)
        self._sums: MaskedSums | EncryptedSums = MaskedSums()
        if federation.aggregation == "paillier":
            self._sums = EncryptedSums(terms, self._sites, memory)

    def run(self) -> State:
        """The state when all rounds are over.

        Raises `RetryLaterError` when too few sites are left: the same run can be resumed when they are back.
        """
        memory, state = self._memory, self._initial
        for total in memory.totals:
            state = self._terms.detector.next_state(state, total)
        if not state.done:
            self._sites.gather(self._least, self._wait)
        memory.save(state, memory.steps)
        while not state.done:
            state = self._round(state)
        return state

    def finish(self, state: State) -> None:
        """Tell every site that training is over, and wait a little for those who are away; they lose only this news."""
        begun, took_part = time.monotonic(), set(self._memory.reports)
        while True:
            self._sites.admit_strangers()
            here = self._sites.present()
            if took_part <= set(here) or time.monotonic() - begun > (_AWAY_SECONDS if here else JOIN_SECONDS):
                break
            time.sleep(POLL_SECONDS)
        asks = {name: self._with_totals("finish", name, len(self._memory.totals) + 1) for name in self._sites.present()}
        self._sites.ask(asks, seconds=min(JOIN_SECONDS, self._terms.federation.round_timeout))

    # --- rounds ---------------------------------------------------------------------------------------------------

    def _round(self, state: State) -> State:
        start, memory, detector = time.perf_counter(), self._memory, self._terms.detector
        number = len(memory.totals) + 1
        self._sites.admit_strangers()
        parts, steps = (self._hidden if self._terms.federation.hidden else self._plain)(state, number)
        federation = self._terms.federation
        combined = robust.combine(
            state,
            [contribution for _, contribution in parts],
            layout=robust.layout_of(detector, state),
            rule=federation.rule,
            attackers=federation.attackers,
            bound=federation.bound,
        )
        after = detector.next_state(state, combined.total)
        memory.totals.append(combined.total)
        memory.pending, memory.sent = (), {}
        memory.save(after, (*memory.steps, *steps))
        names = [members for members, _ in parts]
        clipped, left_out = ([names[at] for at in some] for some in (combined.clipped, combined.left_out))
        loss = detector.site_loss(state, combined.total.values)
        seconds = time.perf_counter() - start
        self._tell(RoundDone(number, state.stage, seconds, loss, tuple(clipped), tuple(left_out)))
        return after

    def _plain(self, state: State, number: int) -> tuple[list[_Part], list[TrainingStep]]:
        names = self._sites.present()
        self._tell(RoundBegan(number, len(self._stages), state.stage, 1, (tuple(names),)))
        answers = self._sites.ask({name: self._with_totals("prepare", name, number) for name in names})
        self._memory.note()
        answers = self._alike(answers, _form)
        if len(answers) < self._least:
            raise self._too_few(len(answers))
        found: list[_Part] = [
            ((name,), robust.Contribution(answers[name].values, 1, answers[name].noise_variance))
            for name in self._terms.names
            if name in answers
        ]
        return found, self._steps(state, answers)

    def _hidden(self, state: State, number: int) -> tuple[list[_Part], list[TrainingStep]]:
        memory, federation = self._memory, self._terms.federation
        groups = list(memory.pending)
        self._sums.ready(self._sites.present())
        if not groups:
            names = self._sites.present()
            if len(names) < self._least:
                raise self._too_few(len(names))
            groups = [Group(tuple(names))]
            if federation.groups:
                count = max(1, min(federation.groups, len(names) // 2))
                groups = [Group(g) for g in robust.groups_of(names, count, f"{memory.run}|{number}", smallest=2)]
        smallest = federation.smallest_sum(len(self._terms.names))
        sums: dict[int, robust.Contribution] = {}
        steps: dict[str, Answer] = {}
        while len(sums) < len(groups):
            groups = [group if at in sums else self._of_those_here(group, smallest) for at, group in enumerate(groups)]
            for name in (name for group in groups for name in group.members):
                memory.keys[name] = self._sites.adverts[name].key  # from now on this name is this key
            memory.begin(groups)
            open_ = {at: group for at, group in enumerate(groups) if at not in sums}
            attempt = max(group.attempt for group in open_.values())
            self._tell(
                RoundBegan(number, len(self._stages), state.stage, attempt, tuple(g.members for g in open_.values()))
            )
            prepared = self._sites.ask(self._to_prepare(number, open_.values()))
            for group in open_.values():
                self._drop_unsigned(number, group, prepared)
            memory.note()
            prepared = self._alike(prepared, _noise)
            steps |= prepared
            agreed = {at: g for at, g in open_.items() if all(name in prepared for name in g.members)}
            sent = self._sums.accepted(self._sites.ask(self._to_send(number, agreed.values(), prepared)))
            sent = self._alike(sent, self._sums.form)
            for at, group in open_.items():
                there = [name for name in group.members if name in (sent if at in agreed else prepared)]
                if len(there) == len(group.members):
                    messages = {name: sent[name] for name in there}
                    total = self._sums.total(number, group.attempt, messages, _signatures(group, prepared))
                    variance = sum(prepared[name].noise_variance for name in there)
                    sums[at] = robust.Contribution(total, len(there), variance)
                else:
                    groups[at] = self._smaller(group, there, smallest)
        return (
            [(groups[at].members, sums[at]) for at in sorted(sums)],
            self._steps(state, {name: steps[name] for group in groups for name in group.members}),
        )

    def _of_those_here(self, group: Group, smallest: int) -> Group:
        """The group, or the next attempt among those of it who are here."""
        here = [name for name in group.members if name in self._sites.present()]
        return group if len(here) == len(group.members) else self._smaller(group, here, smallest)

    def _smaller(self, group: Group, there: list[str], smallest: int) -> Group:
        """The next attempt of a group. What was written down stays where there is none: then the same is made again."""
        attempts = self._terms.federation.attempts
        if len(there) < smallest:
            raise self._too_few(len(there), smallest)
        if group.attempt >= attempts:
            raise RetryLaterError(
                f"{attempts} attempts at one sum have failed, the last without "
                + ", ".join(name for name in group.members if name not in there),
                remedy="Bring these sites back and resume the run, or begin a new one.",
            )
        return Group(tuple(there), group.attempt + 1)

    def _drop_unsigned(self, number: int, group: Group, prepared: dict[str, Answer]) -> None:
        """Whoever's signature is none leaves: handed on, it would make all others refuse."""
        if self._roster is None:
            return
        members = [(name, self._sites.adverts[name].key_bytes) for name in group.members]
        hashed = set_hash(self._memory.run, number, group.attempt, members)
        signed = agreement(self._memory.run, number, group.attempt, hashed)
        for name in [name for name in group.members if name in prepared]:
            try:
                signature = from_hex(prepared[name].signature, _MAX_SIGNATURE_BYTES, f"the signature of {name!r}")
                self._roster.verify(name, self._sites.adverts[name].credential_bytes, signed, signature)
            except SecureadError as error:
                del prepared[name]
                self._sites.leave(name, str(error), for_good=True)

    def _alike(self, answers: dict[str, Answer], form_of: Callable[[Answer], tuple[object, ...]]) -> dict[str, Answer]:
        """The answers of the most frequent form; whoever gives another leaves."""
        forms = {name: form_of(answer) for name, answer in answers.items()}
        if not forms:
            return answers
        (usual, votes), *others = Counter(forms.values()).most_common(2)
        if others and others[0][1] == votes:
            raise FixInputError(
                "sites answer in different forms, and none is more frequent",
                value={name: str(form) for name, form in forms.items()},
                remedy="Use the same version of securead everywhere, and resume the run.",
            )
        for name in [name for name, form in forms.items() if form != usual]:
            self._sites.leave(name, "its update has another form than the others'", for_good=True)
            del answers[name]
        return answers

    def _with_totals(self, kind: Kind, name: str, number: int, **fields: Any) -> Ask:
        since = self._sites.rounds_told[name]
        return Ask.with_totals(kind, self._memory.run, self._memory.totals, since, round=number, **fields)

    def _to_prepare(self, number: int, groups: Iterable[Group]) -> dict[str, Ask]:
        found = {}
        for group in groups:
            adverts = tuple(self._sites.adverts[member] for member in group.members)
            for name in group.members:
                found[name] = self._with_totals("prepare", name, number, attempt=group.attempt, adverts=adverts)
        return found

    def _to_send(self, number: int, groups: Iterable[Group], prepared: Mapping[str, Answer]) -> dict[str, Ask]:
        return {
            name: Ask("send", self._memory.run, number, group.attempt, signatures=_signatures(group, prepared))
            for group in groups
            for name in group.members
        }

    def _steps(self, state: State, answers: Mapping[str, Answer]) -> list[TrainingStep]:
        return [step_of(state, answers[name]) for name in self._terms.names if name in answers]

    def _too_few(self, count: int, needed: int | None = None) -> RetryLaterError:
        return RetryLaterError(
            f"{count} site(s) are left, and a round needs {needed or self._least}",
            remedy="What is done is written down: bring the sites back and resume the run.",
        )


_Part = tuple[tuple[str, ...], robust.Contribution]
"""Whose contribution, and what was seen of it."""


def _signatures(group: Group, prepared: Mapping[str, Answer]) -> tuple[tuple[str, str], ...]:
    return tuple((member, prepared[member].signature) for member in group.members)


def _noise(answer: Answer) -> tuple[object, ...]:
    """Of which noise a site's update is, to seven digits: the same at all sites of a run."""
    return (f"{answer.noise_variance:.7g}",)


def _form(answer: Answer) -> tuple[object, ...]:
    """Of which form it is."""
    return answer.values.shape, answer.values.dtype.str, answer.bits, *_noise(answer)


def step_of(state: State, answer: Answer) -> TrainingStep:
    """What a site's answer tells of a round."""
    report = answer.report or Report(answer.site, 0.0)
    epsilon = None if report.records is None else report.records.epsilon
    return TrainingStep(state.stage, answer.site, report.seconds, epsilon, answer.loss)
