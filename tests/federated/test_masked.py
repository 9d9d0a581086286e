"""Masked sums on the embedded executor: the same models as plain ones, whoever drops out, and nothing to see."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import numpy as np
import pytest
from replay import SEED
from scipy import stats

from securead.data.partition import partition
from securead.data.schema import Schema
from securead.errors import FixConfigurationError, RetryLaterError
from securead.federated.checkpoint import Checkpoint
from securead.federated.coordinator import Coordinator
from securead.federated.embedded import finish, train
from securead.federated.events import Event, Joined, Left, RoundBegan, RoundDone
from securead.federated.federation import Federation, Terms
from securead.federated.messages import Answer, Ask, from_bytes, to_bytes
from securead.federated.participant import Participant, Site
from securead.models.estimator import AnomalyDetector
from securead.models.registry import detector_names, make_detector
from securead.models.training import Total
from securead.privacy.budget import Budget
from securead.privacy.plan import PrivacyPlan
from securead.privacy.site import Kept, Unprotected
from securead.protocols.masking.identity import Identity, Known

RNG = np.random.default_rng(SEED)
X = RNG.normal(size=(1200, 4)) @ RNG.normal(size=(4, 4))
SCHEMA = Schema.observed(X, widen=0.1).with_scale(X.mean(axis=0), X.std(axis=0))
STUDY = PrivacyPlan(epsilon=4.0, delta=1e-5, noise_source="seeded-study", seed=3)
NAMES = ("a", "b", "c", "d")
PARTS = [X[rows] for rows in partition(len(X), (1, 2, 3, 4), seed=0)]
MASKED = Federation(aggregation="masked", round_timeout=0.2)


def sites() -> list[Site]:
    return [Site(name, part) for name, part in zip(NAMES, PARTS, strict=True)]


@pytest.mark.parametrize("name", detector_names())
@pytest.mark.parametrize("privacy", [None, STUDY], ids=["exact", "noised"])
def test_masked_sums_give_the_same_model(name: str, privacy: PrivacyPlan | None) -> None:
    parameters = {"threshold": "private", "random_state": 1, "contamination": 0.4, "rounds": 2}
    known = make_detector(name, {}).get_params()
    parameters = {key: value for key, value in parameters.items() if key in known}
    plain, masked = (
        train(make_detector(name, parameters), sites(), SCHEMA, privacy=privacy, federation=federation)
        for federation in (Federation(), MASKED)
    )
    assert np.array_equal(plain.anomaly_score(X), masked.anomaly_score(X))
    assert plain.offset_ == masked.offset_
    if privacy is not None:
        assert plain.statement_ == masked.statement_


class Loopback:
    """Sites behind bytes, as they are elsewhere; `lose` decides which asks and answers are lost."""

    def __init__(self, participants: Mapping[str, Participant]) -> None:
        self.sites = dict(participants)
        self.gone: set[str] = set()
        self.lose: Callable[[str, Ask, str], bool] = lambda address, ask, way: False
        self.seen: list[tuple[str, bytes]] = []

    def present(self) -> Collection[str]:
        return [address for address in self.sites if address not in self.gone]

    def certified(self, address: str) -> str | None:
        return None

    def exchange(self, asks: Mapping[str, Ask], *, seconds: float, answered: Callable[[str, Answer], None]) -> None:
        for address, ask in asks.items():
            if address in self.gone or self.lose(address, ask, "to"):
                continue
            content = self.sites[address].reply(to_bytes(ask))
            if address in self.gone or self.lose(address, ask, "from"):
                continue
            self.seen.append((ask.kind, content))
            answered(address, from_bytes(Answer, content, where=address))

    def traffic(self, address: str) -> tuple[int, int]:
        return 0, 0


class Deployment:
    """A coordinator and its sites, each with a memory of its own, any of which may die and come back."""

    def __init__(
        self, folder: Path, federation: Federation, *, privacy: PrivacyPlan | None = STUDY, kind: str = "forest"
    ) -> None:
        self.folder, self.federation, self.privacy, self.kind = folder, federation, privacy, kind
        self.identities = {name: Identity.generate(name) for name in NAMES}
        self.roster = Known({name: identity.credential for name, identity in self.identities.items()})
        self.transport = Loopback({})
        self.events: list[Event] = []
        for name in NAMES:
            self.start(name)

    def terms(self) -> Terms:
        parameters = {"n_estimators": 5, "depth": 4, "random_state": 1} if self.kind == "forest" else {}
        detector = make_detector(self.kind, {**parameters, "threshold": "private", "contamination": 0.2})
        return Terms(detector, NAMES, SCHEMA, self.privacy, self.federation)

    def start(self, name: str) -> None:
        """A site's process, anew, with what it remembers."""
        site = Site(name, PARTS[NAMES.index(name)])
        kept = Kept(self.folder / name)
        self.transport.sites[name] = Participant(
            site, self.terms(), kept, identity=self.identities[name], roster=self.roster
        )
        self.transport.gone.discard(name)

    def train(self) -> AnomalyDetector:
        """The coordinator's process, anew, with what it wrote down."""
        terms = self.terms()
        memory = Checkpoint(self.folder / "coordinator", terms.fingerprint)
        coordinator = Coordinator(
            terms, self.transport, memory, roster=self.roster, listener=self.events.append, wait=0.3
        )
        state = coordinator.run()
        coordinator.finish(state)
        finish(terms, state, memory)
        return terms.detector

    def of(self, *names: str) -> AnomalyDetector:
        """What plain training among some of the sites gives."""
        chosen = [site for site in sites() if site.name in names]
        return train(self.terms().detector, chosen, SCHEMA, privacy=self.privacy)

    def left(self) -> list[str]:
        return [event.site for event in self.events if isinstance(event, Left)]

    def attempts(self) -> list[tuple[int, int, tuple[tuple[str, ...], ...]]]:
        return [(e.number, e.attempt, e.groups) for e in self.events if isinstance(e, RoundBegan)]


def test_nothing_that_the_coordinator_receives_holds_a_plaintext_update(tmp_path: Path) -> None:
    """Every byte of what arrives is searched for every update; a plain run, searched likewise, is full of them."""
    found = {}
    for federation in (MASKED, Federation(round_timeout=0.2)):
        run = Deployment(tmp_path / federation.aggregation, federation)
        run.train()
        kept = {name: list((run.folder / name).glob("*.npy")) for name in NAMES}
        stages = set(run.terms().detector.stages())
        for paths in kept.values():
            assert stages <= {path.stem for path in paths}
        words = {
            value.tobytes()
            for paths in kept.values()
            for path in paths
            if path.stem in stages
            for value in np.load(path).ravel()
            if abs(value) > 9
        }
        assert len(words) > 50
        received = b"".join(content for _, content in run.transport.seen)
        found[federation.aggregation] = sum(word in received for word in words) / len(words)
    assert found["plain"] == 1.0
    assert found["masked"] < 0.01


def test_single_masked_updates_look_uniform(tmp_path: Path) -> None:
    run = Deployment(tmp_path, MASKED)
    run.train()
    answers = [from_bytes(Answer, content, where="here") for kind, content in run.transport.seen if kind == "send"]
    assert len(answers) == 2 * len(NAMES)
    for answer in answers:
        assert answer.values.dtype == np.uint64
        counts = np.bincount(np.frombuffer(answer.values.tobytes(), np.uint8), minlength=256)
        assert stats.chisquare(counts).pvalue > 1e-7


@pytest.mark.parametrize("kind", ["prepare", "send"])
@pytest.mark.parametrize("way", ["to", "from"])
def test_a_site_that_drops_out_costs_an_attempt_and_nothing_else(tmp_path: Path, kind: str, way: str) -> None:
    """Lost before or after its update, once agreed or not: the others begin again, and the sum is theirs."""
    run = Deployment(tmp_path, MASKED)

    def lose(address: str, ask: Ask, direction: str) -> bool:
        if address == "c" and ask.kind == kind and direction == way:
            run.transport.gone.add("c")
        return address in run.transport.gone

    run.transport.lose = lose
    model = run.train()
    assert run.left() == ["c"]
    assert run.attempts() == [(1, 1, (NAMES,)), (1, 2, (("a", "b", "d"),)), (2, 1, (("a", "b", "d"),))]
    assert np.array_equal(model.anomaly_score(X), run.of("a", "b", "d").anomaly_score(X))
    # Who told that it has computed an update has paid for it, sent or not.
    paid = list("abd") if kind == "prepare" else list("abcd")
    assert [site.site for site in model.statement_.sites] == paid


def test_a_site_that_comes_back_takes_part_in_the_next_round(tmp_path: Path) -> None:
    run = Deployment(tmp_path, MASKED)

    def lose(address: str, ask: Ask, way: str) -> bool:
        if address == "b" and ask.kind == "send" and ask.round == 1:
            run.transport.gone.add("b")
        return address in run.transport.gone

    def back(event: Event) -> None:
        run.events.append(event)
        if isinstance(event, RoundDone) and event.number == 1:
            run.start("b")

    run.transport.lose = lose
    terms = run.terms()
    coordinator = Coordinator(
        terms, run.transport, Checkpoint(None, terms.fingerprint), roster=run.roster, listener=back, wait=0.3
    )
    coordinator.run()
    assert [groups for _, _, groups in run.attempts()] == [(NAMES,), (("a", "c", "d"),), (NAMES,)]
    assert [event.site for event in run.events if isinstance(event, Joined)] == [*NAMES, "b"]


class Killed(BaseException):
    """Stands for the coordinator's end."""


def test_a_coordinator_killed_at_any_message_resumes_to_the_same_model(tmp_path: Path) -> None:
    """Everything but the seeded noise is drawn anew, and sites are charged once: the model is that of a whole run."""
    whole = Deployment(tmp_path / "whole", MASKED)
    expected = whole.train()
    messages = len(whole.transport.seen)
    assert messages == 4 * (1 + 2 * 2 + 1)
    for at in range(0, messages, 3):
        run = Deployment(tmp_path / str(at), MASKED)

        def kill(address: str, ask: Ask, way: str, run: Deployment = run, at: int = at) -> bool:
            if len(run.transport.seen) == at:
                raise Killed
            return False

        run.transport.lose = kill
        with pytest.raises(Killed):
            run.train()
        run.transport.lose = lambda address, ask, way: False
        if at % 2:
            for name in NAMES[::2]:
                run.start(name)  # these died, too
        model = run.train()
        assert np.array_equal(model.anomaly_score(X), expected.anomaly_score(X)), [
            e for e in run.events if isinstance(e, Left | RoundBegan | RoundDone)
        ]
        assert model.statement_ == expected.statement_
        sent = [(kind, content) for kind, content in run.transport.seen if kind == "send"]
        forms: dict[tuple[str, int, int], set[bytes]] = {}
        for _, content in sent:
            answer = from_bytes(Answer, content, where="here")
            forms.setdefault((answer.site, answer.round, answer.attempt), set()).add(answer.values.tobytes())
        assert all(len(found) == 1 for found in forms.values())


def test_too_few_sites_end_the_run_and_may_come_back(tmp_path: Path) -> None:
    run = Deployment(tmp_path, Federation(aggregation="masked", minimum_sites=3, round_timeout=0.2))
    run.transport.lose = lambda address, ask, way: ask.kind == "send" and address in "ab"
    with pytest.raises(RetryLaterError, match=r"2 site.*needs 3"):
        run.train()
    run.transport.lose = lambda address, ask, way: False
    assert np.array_equal(run.train().anomaly_score(X), run.of(*NAMES).anomaly_score(X))


def test_attempts_are_bounded(tmp_path: Path) -> None:
    run = Deployment(tmp_path, Federation(aggregation="masked", attempts=2, round_timeout=0.2))
    run.transport.lose = lambda address, ask, way: ask.kind == "send" and address == "abcd"[ask.attempt - 1]
    with pytest.raises(RetryLaterError, match="2 attempts at one sum have failed"):
        run.train()


def test_sums_of_groups_add_up_to_the_same_model(tmp_path: Path) -> None:
    federation = Federation(aggregation="masked", groups=2, rule="sum", round_timeout=0.2)
    run = Deployment(tmp_path, federation)
    model = run.train()
    assert all(sorted(len(group) for group in groups) == [2, 2] for _, _, groups in run.attempts())
    assert np.array_equal(model.anomaly_score(X), run.of(*NAMES).anomaly_score(X))


def test_a_duplicate_and_a_stranger_are_told_and_refused(tmp_path: Path) -> None:
    run = Deployment(tmp_path, MASKED)
    told: list[tuple[str, str]] = []
    twin = Participant(
        Site("a", PARTS[0]), run.terms(), Kept(tmp_path / "twin"), identity=run.identities["a"], roster=run.roster,
        trouble=lambda error: told.append(("twin", str(error))),
    )  # fmt: skip
    impostor = Participant(
        Site("b", PARTS[1]), run.terms(), Kept(tmp_path / "impostor"), identity=Identity.generate("b"),
        roster=run.roster, trouble=lambda error: told.append(("impostor", str(error))),
    )  # fmt: skip
    run.transport.sites |= {"twin": twin, "impostor": impostor}
    model = run.train()
    assert {who for who, _ in told} == {"twin", "impostor"}
    assert "another process takes part as 'a'" in dict(told)["twin"]
    assert "another credential" in dict(told)["impostor"]
    assert np.array_equal(model.anomaly_score(X), run.of(*NAMES).anomaly_score(X))


def test_another_recipe_is_told_in_what_it_differs(tmp_path: Path) -> None:
    run = Deployment(tmp_path, MASKED)
    run.privacy = PrivacyPlan(epsilon=9.0, delta=1e-5, noise_source="seeded-study", seed=3)
    run.start("d")
    run.privacy = STUDY
    run.train()
    reasons = [event.reason for event in run.events if isinstance(event, Left)]
    assert len(reasons) == 1
    assert "it differs in privacy" in reasons[0]


def test_a_site_keeps_what_is_wrong_with_its_records_to_itself(tmp_path: Path) -> None:
    run = Deployment(tmp_path, MASKED)
    bad, said = PARTS[3].copy(), list[str]()
    bad[7, 2] = np.nan
    run.transport.sites["d"] = Participant(
        Site("d", bad), run.terms(), Kept(tmp_path / "bad"), identity=run.identities["d"], roster=run.roster,
        trouble=lambda error: said.append(str(error)),
    )  # fmt: skip
    run.train()
    (reason,) = [event.reason for event in run.events if isinstance(event, Left)]
    assert "row 7" in said[0]
    assert "row" not in reason.replace("its own records", "")


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"aggregation": "masked", "minimum_sites": 1}, "at least 1, and 2"),
        ({"aggregation": "masked", "rule": "krum", "groups": 3}, "Krum"),
        ({"aggregation": "masked", "rule": "median"}, "groups = 3"),
        ({"groups": 2}, "masked"),
        ({"round_timeout": 0}, "round_timeout"),
        ({"attempts": 0}, "attempts"),
        ({"max_records": 0}, "max_records"),
        ({"max_change": -1}, "max_change"),
    ],
)
def test_federations_that_cannot_be_are_refused(wrong: dict[str, object], match: str) -> None:
    with pytest.raises(FixConfigurationError, match=match):
        Federation(**wrong)  # type: ignore[arg-type]


def test_one_site_cannot_be_masked() -> None:
    with pytest.raises(FixConfigurationError, match="too few sites"):
        train(make_detector("subspace", {}), sites()[:1], SCHEMA, privacy=None, federation=MASKED)


@pytest.mark.parametrize("kind", ["forest", "subspace"])
def test_no_state_is_taken_from_the_coordinator(tmp_path: Path, kind: str) -> None:
    """Sums of another stage, shape, number of sites or order are refused before a record is touched or paid for."""
    run = Deployment(tmp_path, MASKED, kind=kind)
    site, terms = run.transport.sites["a"], run.terms()
    site.answer(Ask("join", "r", digests=tuple(terms.digests().items())))
    (stage, *_), first = terms.detector.stages(), terms.detector.initial_state(SCHEMA)
    shape = terms.detector.site_update(first, X, Unprotected()).values.shape
    good = np.ones(shape, dtype=np.int64)
    for number, totals in (
        (2, [Total("nonsense", good, 1.0, 4)]),
        (2, [Total(stage, good[:-1], 1.0, 4)]),
        (2, [Total(stage, good, 1.0, 5)]),
        (2, []),
        (1, [Total(stage, good, 1.0, 4)]),
        (2, [Total(stage, good, 1.0, 4)] * 2),
    ):
        ask = Ask.with_totals("prepare", "r", totals, 0, round=number, attempt=1)
        answer = from_bytes(Answer, site.reply(to_bytes(ask)), where="x")
        assert answer.refusal is not None, (number, totals)
        assert "round" in answer.refusal.text
    assert not list((tmp_path / "a").glob("begun*"))
    assert not list((tmp_path / "a").glob("*.paid*"))


def test_a_run_is_not_over_because_the_coordinator_says_so(tmp_path: Path) -> None:
    run = Deployment(tmp_path, MASKED)
    site = run.transport.sites["a"]
    site.answer(Ask("join", "r", digests=tuple(run.terms().digests().items())))
    answer = from_bytes(Answer, site.reply(to_bytes(Ask("finish", "r", 1))), where="x")
    assert answer.refusal is not None
    assert "rounds are left" in answer.refusal.text
    assert not site.finished


def test_a_refused_join_changes_nothing(tmp_path: Path) -> None:
    """What is released after it is still charged to the run that the site is in."""
    plan = PrivacyPlan(epsilon=4.0, delta=1e-5)
    run = Deployment(tmp_path, Federation(round_timeout=0.2), privacy=plan)
    ledger = tmp_path / "ledger.json"
    site = Participant(Site("a", PARTS[0], ledger, 99.0), run.terms(), Kept(tmp_path / "kept"))
    digests = tuple(run.terms().digests().items())
    site.answer(Ask("join", "r1", digests=digests))
    site.answer(Ask("prepare", "r1", 1))
    refused = from_bytes(Answer, site.reply(to_bytes(Ask("join", "r2", digests=digests))), where="x")
    assert refused.refusal is not None
    total = Total("counts", site.answer(Ask("prepare", "r1", 1)).values, 1.0, 1)
    site.answer(Ask.with_totals("prepare", "r1", [total], 0, round=2))
    assert {charge.job for charge in Budget("a", 99.0, 1e-5, path=ledger).ledger.charges} == {"r1"}


def test_a_site_that_lost_its_memory_is_left_out_and_hurts_nobody(tmp_path: Path) -> None:
    run = Deployment(tmp_path, MASKED)

    def amnesia(event: Event) -> None:
        run.events.append(event)
        if isinstance(event, RoundDone) and event.number == 1:
            shutil.rmtree(tmp_path / "b")
            del run.transport.sites["b"]
            run.start("b")
            run.transport.sites["b again"] = run.transport.sites.pop("b")

    terms = run.terms()
    memory = Checkpoint(None, terms.fingerprint)
    Coordinator(terms, run.transport, memory, roster=run.roster, listener=amnesia, wait=0.3).run()
    assert [groups for _, _, groups in run.attempts()] == [(NAMES,), (("a", "c", "d"),)]
    assert any("lost its memory" in event.reason for event in run.events if isinstance(event, Left))


@pytest.mark.parametrize("wrong", ["signature", "report", "epsilon", "values", "kind"])
def test_an_answer_that_no_honest_site_gives_is_its_author_s_end_alone(tmp_path: Path, wrong: str) -> None:
    run = Deployment(tmp_path, MASKED)
    honest = run.transport.sites["c"].answer

    def lying(ask: Ask) -> Answer:
        answer = honest(ask)
        if wrong == "signature" and answer.signature:
            return dataclasses.replace(answer, signature="00" * 70)
        if wrong == "kind" and ask.kind == "send":
            return dataclasses.replace(answer, round=7)
        if wrong == "values" and ask.kind == "send":
            return dataclasses.replace(answer, arrays={"values": answer.values.astype(np.int64)})
        if wrong in ("report", "epsilon") and answer.report is not None and answer.report.records is not None:
            lie = {"report": {"site": "a"}, "epsilon": {"epsilon": -7.0}}[wrong]
            records = dataclasses.replace(answer.report.records, **lie)  # type: ignore[arg-type]
            return dataclasses.replace(answer, report=dataclasses.replace(answer.report, records=records))
        return answer

    run.transport.sites["c"].answer = lying  # type: ignore[method-assign]
    model = run.train()
    assert run.left() == ["c"]
    assert np.array_equal(model.anomaly_score(X), run.of("a", "b", "d").anomaly_score(X))
    assert {site.site: site.epsilon for site in model.statement_.sites}["a"] > 0


def test_a_masked_round_is_resumed_without_those_who_are_gone(tmp_path: Path) -> None:
    run = Deployment(tmp_path, MASKED)

    def kill(address: str, ask: Ask, way: str) -> bool:
        if ask.kind == "send" and address == "b":
            raise Killed
        return False

    run.transport.lose = kill
    with pytest.raises(Killed):
        run.train()
    run.transport.lose = lambda address, ask, way: False
    run.transport.gone.add("d")
    model = run.train()
    assert np.array_equal(model.anomaly_score(X), run.of("a", "b", "c").anomaly_score(X))


def test_a_run_that_was_over_when_it_was_resumed_still_tells_its_sites(tmp_path: Path) -> None:
    run = Deployment(tmp_path, MASKED)

    def kill(address: str, ask: Ask, way: str) -> bool:
        if ask.kind == "finish":
            raise Killed
        return False

    run.transport.lose = kill
    with pytest.raises(Killed):
        run.train()
    run.transport.lose = lambda address, ask, way: False
    for name in NAMES:
        run.start(name)
    run.train()
    assert all(run.transport.sites[name].finished for name in NAMES)
