"""Sums under the sites' Paillier key, on the embedded executor and behind bytes: the same models, whoever drops out."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from test_masked import NAMES, PARTS, SCHEMA, STUDY, Deployment, Killed, Loopback, X, sites

from securead.errors import FixConfigurationError, InstallExtraError, RejectMessageError, RetryLaterError
from securead.federated.checkpoint import Checkpoint
from securead.federated.coordinator import Coordinator
from securead.federated.embedded import train
from securead.federated.events import Event, Joined, Left, RoundDone
from securead.federated.federation import Federation
from securead.federated.messages import Answer, Ask, from_bytes, to_bytes
from securead.federated.participant import Participant, Site
from securead.federated.recipe import parse_recipe
from securead.models.autoencoder import AutoEncoder
from securead.models.registry import detector_names, make_detector
from securead.models.training import Update
from securead.privacy.plan import PrivacyPlan
from securead.privacy.site import Kept
from securead.protocols.masking.identity import Identity
from securead.protocols.paillier import keys, sums
from securead.protocols.paillier.groupkey import GroupKey

pytest.importorskip("phe")
ENCRYPTED = Federation(aggregation="paillier", round_timeout=0.2)


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "KEY_BITS", 512)
    # Ends of processes are played here, none of the machine's: nothing has to wait for a disk.
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.mark.parametrize(
    ("name", "privacy"),
    [
        pytest.param(name, privacy, id=f"{name}-{what}", marks=[pytest.mark.long] if long else [])
        for name in detector_names()
        for what, privacy in (("exact", None), ("noised", STUDY))
        for long in [name == "autoencoder" and privacy is not None]
    ],
)
def test_encrypted_sums_give_the_same_model(name: str, privacy: PrivacyPlan | None) -> None:
    parameters = {"threshold": "private", "random_state": 1, "contamination": 0.4, "rounds": 2, "n_estimators": 20}
    known = make_detector(name, {}).get_params()
    parameters = {key: value for key, value in parameters.items() if key in known}
    plain, encrypted = (
        train(make_detector(name, parameters), sites(), SCHEMA, privacy=privacy, federation=federation)
        for federation in (Federation(), ENCRYPTED)
    )
    assert set(plain.values_) == set(encrypted.values_)
    assert all(np.array_equal(plain.values_[value], encrypted.values_[value]) for value in plain.values_)
    assert np.array_equal(plain.anomaly_score(X), encrypted.anomaly_score(X))
    assert plain.offset_ == encrypted.offset_
    if privacy is not None:
        assert plain.statement_ == encrypted.statement_


def test_updates_in_few_bits_take_fewer_ciphertexts() -> None:
    """A bound that the detector states makes slots as narrow as it allows, and the model is the same."""
    found = {}
    for bits in (8, None):

        def make(bits: int | None = bits) -> AutoEncoder:
            return AutoEncoder(hidden=4, rounds=2, sampling_prob=0.1, patience=9, random_state=1, update_bits=bits)

        sent = list[tuple[int, int]]()
        before = Participant.answer

        def watch(self: Participant, ask: Ask, sent: list[tuple[int, int]] = sent, before=before) -> Answer:  # type: ignore[no-untyped-def]
            answer = before(self, ask)
            if ask.kind == "send":
                sent.append((int(np.prod(answer.arrays["shape"])), len(answer.arrays["ciphertexts"])))
            return answer

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Participant, "answer", watch)
            encrypted = train(make(), sites(), SCHEMA, privacy=None, federation=ENCRYPTED)
        plain = train(make(), sites(), SCHEMA, privacy=None, federation=Federation())
        assert np.array_equal(plain.anomaly_score(X), encrypted.anomaly_score(X))
        found[bits] = np.mean([values / ciphertexts for values, ciphertexts in sent])
    assert found[8] > 4 * found[None]


class Altering(Loopback):
    """A loopback whose coordinator sees other answers than were given, where `alter` says so."""

    alter: Callable[[str, Ask, Answer], Answer] = staticmethod(lambda address, ask, answer: answer)

    def exchange(self, asks: Mapping[str, Ask], *, seconds: float, answered: Callable[[str, Answer], None]) -> None:
        super().exchange(
            asks, seconds=seconds, answered=lambda address, answer: answered(
                address, from_bytes(Answer, to_bytes(self.alter(address, asks[address], answer)), where="altered")
            ),
        )  # fmt: skip


def deployment(folder: Path, federation: Federation = ENCRYPTED, **how: str) -> Deployment:
    run = Deployment(folder, federation, **how)  # type: ignore[arg-type]
    altering = Altering(run.transport.sites)
    run.transport = altering
    return run


def key_of(run: Deployment, name: str) -> GroupKey:
    kept = Kept(run.folder / name).get("paillier.key")
    assert kept is not None
    return GroupKey.from_bytes(kept.tobytes(), where=name)


def test_nothing_that_the_coordinator_receives_holds_an_update_or_the_key(tmp_path: Path) -> None:
    """Every byte of what arrives is searched; a plain run, searched likewise, is full of updates."""
    found = {}
    for federation in (ENCRYPTED, Federation(round_timeout=0.2)):
        run = deployment(tmp_path / federation.aggregation, federation)
        run.train()
        stages = set(run.terms().detector.stages())
        words = {
            value.tobytes()
            for name in NAMES
            for path in (run.folder / name).glob("*.npy")
            if path.stem in stages
            for value in np.load(path).ravel()
            if abs(value) > 9
        }
        assert len(words) > 50
        # What a site answers to "open" is the sum, for everybody: rare values of it may be one site's own.
        received = b"".join(content for kind, content in run.transport.seen if kind != "open")
        found[federation.aggregation] = sum(word in received for word in words) / len(words)
        if federation.hidden:
            secret = key_of(run, "a").to_bytes()
            half = len(secret) // 3
            pieces = [secret[at : at + half] for at in (0, half, 2 * half)]
            assert not any(piece in received or piece[::-1] in received for piece in pieces)
            assert len({key_of(run, name).to_bytes() for name in NAMES}) == 1
            coordinators = b"".join(path.read_bytes() for path in (run.folder / "coordinator").iterdir())
            assert not any(piece in coordinators for piece in pieces)
    assert found["plain"] == 1.0
    assert found["paillier"] < 0.01


@pytest.mark.parametrize("kind", ["prepare", "send"])
@pytest.mark.parametrize("way", ["to", "from"])
def test_a_site_that_drops_out_costs_an_attempt_and_nothing_else(tmp_path: Path, kind: str, way: str) -> None:
    run = deployment(tmp_path)

    def lose(address: str, ask: Ask, direction: str) -> bool:
        if address == "c" and ask.kind == kind and direction == way:
            run.transport.gone.add("c")
        return address in run.transport.gone

    run.transport.lose = lose
    model = run.train()
    assert run.left() == ["c"]
    assert run.attempts() == [(1, 1, (NAMES,)), (1, 2, (("a", "b", "d"),)), (2, 1, (("a", "b", "d"),))]
    assert np.array_equal(model.anomaly_score(X), run.of("a", "b", "d").anomaly_score(X))
    sent = [from_bytes(Answer, content, where="x") for what, content in run.transport.seen if what == "send"]
    messages = [answer.arrays["ciphertexts"].tobytes() for answer in sent if answer.site == "a" and answer.round == 1]
    assert len(set(messages)) == 1  # made once, whatever was attempted


@pytest.mark.parametrize("way", ["to", "from"])
def test_a_site_that_dies_while_it_opens_is_replaced_and_stays_in_the_sum(tmp_path: Path, way: str) -> None:
    run = deployment(tmp_path)

    def lose(address: str, ask: Ask, direction: str) -> bool:
        if ask.kind == "open" and ask.round == 1 and address in "ab" and direction == way:
            run.transport.gone.add(address)
        return address in run.transport.gone

    run.transport.lose = lose
    model = run.train()
    assert run.left() == ["a", "b"]
    assert [groups for _, _, groups in run.attempts()] == [(NAMES,), (("c", "d"),)]
    assert model.n_features_in_ == X.shape[1]
    # The first round's sum is of all four: its total says so, and equals that of a plain run.
    first = next(event for event in run.events if isinstance(event, RoundDone))
    assert first.number == 1
    memory = Checkpoint(run.folder / "coordinator", run.terms().fingerprint)
    expected = Deployment(tmp_path / "plain", Federation(round_timeout=0.2))
    expected.train()
    plain = Checkpoint(expected.folder / "coordinator", expected.terms().fingerprint)
    assert memory.totals[0].sites == 4
    assert np.array_equal(memory.totals[0].values, plain.totals[0].values)


def test_a_site_that_comes_late_is_handed_the_key(tmp_path: Path) -> None:
    run = deployment(tmp_path)
    run.transport.gone.add("d")

    def come(event: Event) -> None:
        run.events.append(event)
        if isinstance(event, RoundDone) and event.number == 1:
            run.transport.gone.discard("d")

    terms = run.terms()
    coordinator = Coordinator(
        terms, run.transport, Checkpoint(None, terms.fingerprint), roster=run.roster, listener=come, wait=0.0
    )
    coordinator.run()
    assert [groups for _, _, groups in run.attempts()] == [(("a", "b", "c"),), (NAMES,)]
    assert [event.site for event in run.events if isinstance(event, Joined)] == ["a", "b", "c", "d"]
    assert key_of(run, "d").to_bytes() == key_of(run, "a").to_bytes()
    made = [kind for kind, _ in run.transport.seen if kind == "key"]
    assert len(made) == 2


def test_a_site_whose_key_nobody_has_heard_of_takes_the_runs(tmp_path: Path) -> None:
    """A makes a key and its answer is lost: b makes the run's, which a takes when it is back."""
    run = deployment(tmp_path)

    def lose(address: str, ask: Ask, way: str) -> bool:
        if (address, ask.kind, ask.round, way) == ("a", "key", 0, "from") and not run.left():
            run.transport.gone.add("a")
        return address in run.transport.gone

    def come(event: Event) -> None:
        run.events.append(event)
        if isinstance(event, RoundDone) and event.number == 1:
            assert key_of(run, "a").n != key_of(run, "b").n
            run.start("a")

    run.transport.lose = lose
    terms = run.terms()
    Coordinator(
        terms, run.transport, Checkpoint(None, terms.fingerprint), roster=run.roster, listener=come, wait=0.0
    ).run()
    assert [groups for _, _, groups in run.attempts()] == [(("b", "c", "d"),), (NAMES,)]
    assert len({key_of(run, name).to_bytes() for name in NAMES}) == 1


def test_a_coordinator_killed_at_any_message_resumes_to_the_same_model(tmp_path: Path) -> None:
    whole = deployment(tmp_path / "whole")
    expected = whole.train()
    messages = len(whole.transport.seen)
    assert messages == 4 + 1 + 3 + 2 * (4 + 4 + 1) + 4
    # Before a join, the key, one taken, what is agreed, sent and opened, in both rounds, and the news of the end.
    for at in (0, 4, 5, 7, 9, 13, 16, 17, 21, 25, 26):
        run = deployment(tmp_path / str(at))

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
        assert np.array_equal(model.anomaly_score(X), expected.anomaly_score(X)), at
        assert model.statement_ == expected.statement_
        assert len({key_of(run, name).to_bytes() for name in NAMES}) == 1
        forms: dict[tuple[str, int], set[bytes]] = {}
        for kind, content in run.transport.seen:
            if kind == "send":
                answer = from_bytes(Answer, content, where="here")
                forms.setdefault((answer.site, answer.round), set()).add(answer.arrays["ciphertexts"].tobytes())
        assert len(forms) == 8
        assert all(len(found) == 1 for found in forms.values())


def outside(run: Deployment, answer: Answer) -> Answer:
    ciphertexts = answer.arrays["ciphertexts"].copy()
    n = key_of(run, "a").n
    ciphertexts[0] = np.frombuffer((n * n).to_bytes(keys.ciphertext_bytes(), "little"), np.uint8)
    return dataclasses.replace(answer, arrays={**answer.arrays, "ciphertexts": ciphertexts})


WRONG: dict[str, tuple[Callable[[Deployment, Answer], Answer], str]] = {
    "outside Z*_{n^2}": (outside, "outside"),
    "short of a ciphertext": (
        lambda run, answer: dataclasses.replace(
            answer, arrays={**answer.arrays, "ciphertexts": answer.arrays["ciphertexts"][:-1]}
        ),
        "another number of ciphertexts",
    ),
    "under another key": (lambda run, answer: dataclasses.replace(answer, group_key="00"), "under the run's key"),
    "a number instead": (
        lambda run, answer: dataclasses.replace(
            answer, arrays={**answer.arrays, "ciphertexts": np.array(7, dtype=np.uint8)}
        ),
        "under the run's key",
    ),
    "nothing": (lambda run, answer: dataclasses.replace(answer, arrays={}), "nothing under the run's key"),
    "no shape": (
        lambda run, answer: dataclasses.replace(answer, arrays={**answer.arrays, "shape": np.array([-1])}),
        "of which shape",
    ),
    "a shape beyond all measure": (
        lambda run, answer: dataclasses.replace(answer, arrays={**answer.arrays, "shape": np.array([2**62] * 4)}),
        "2\\*\\*26",
    ),
    "another number of bits": (lambda run, answer: dataclasses.replace(answer, bits=8), "another number of cipher"),
    "bits that cannot be": (lambda run, answer: dataclasses.replace(answer, bits=99), "2 to 64 bits"),
}


@pytest.mark.parametrize("what", WRONG)
def test_whoever_sends_what_is_no_message_leaves_alone(tmp_path: Path, what: str) -> None:
    run, (change, match) = deployment(tmp_path), WRONG[what]
    run.transport.alter = lambda address, ask, answer: (  # type: ignore[attr-defined]
        change(run, answer) if ask.kind == "send" and address == "c" else answer
    )
    model = run.train()
    (left,) = [event for event in run.events if isinstance(event, Left)]
    assert left.site == "c"
    assert pytest.raises(AssertionError, match=match).matches(AssertionError(left.reason))
    assert np.array_equal(model.anomaly_score(X), run.of("a", "b", "d").anomaly_score(X))


def test_two_differing_updates_of_one_site_are_refused(tmp_path: Path) -> None:
    """B's second message of a round is another ciphertext, of a shifted sum: it is out, the others are summed."""
    run = deployment(tmp_path)

    def lose(address: str, ask: Ask, way: str) -> bool:
        if address == "a" and ask.kind == "send" and way == "to":
            run.transport.gone.add("a")
        return address in run.transport.gone

    def alter(address: str, ask: Ask, answer: Answer) -> Answer:
        if (address, ask.kind, ask.attempt) != ("b", "send", 2):
            return answer
        n = key_of(run, "d").n
        found = sums.from_array(answer.arrays["ciphertexts"], n, where="b")
        found[0] = found[0] * (1 + n) % n**2
        return dataclasses.replace(answer, arrays={**answer.arrays, "ciphertexts": sums.to_array(found)})

    run.transport.lose, run.transport.alter = lose, alter  # type: ignore[attr-defined]
    model = run.train()
    reasons = {event.site: event.reason for event in run.events if isinstance(event, Left)}
    assert "two differing updates in one round" in reasons["b"]
    assert np.array_equal(model.anomaly_score(X), run.of("c", "d").anomaly_score(X))


def test_a_site_that_says_that_there_is_no_sum_is_not_believed_alone(tmp_path: Path) -> None:
    run = deployment(tmp_path)

    def alter(address: str, ask: Ask, answer: Answer) -> Answer:
        lies = ask.kind == "open" and ((ask.round == 1 and address == "a") or address == "b")
        values = {} if address == "a" else {"values": np.full(3, 7)}
        return dataclasses.replace(answer, arrays=values) if lies else answer

    run.transport.alter = alter  # type: ignore[attr-defined]
    model = run.train()
    assert run.left() == ["b"]  # its sum had another shape
    assert np.array_equal(model.anomaly_score(X), _of_rounds(run, tmp_path))


def _of_rounds(run: Deployment, folder: Path) -> np.ndarray:
    """A plain run whose second round lacks b, as this one's does."""
    plain = Deployment(folder / "plain", Federation(round_timeout=0.2))

    def lose(address: str, ask: Ask, way: str) -> bool:
        return address == "b" and ask.kind == "prepare" and ask.round == 2

    plain.transport.lose = lose
    return plain.train().anomaly_score(X)


def test_what_adds_up_to_no_sum_ends_the_run(tmp_path: Path) -> None:
    """A message of another round: no single site is to blame as far as anybody sees, and no wrong sum is used."""
    run, before = deployment(tmp_path), dict[str, Answer]()

    def alter(address: str, ask: Ask, answer: Answer) -> Answer:
        if ask.kind == "send" and address == "c":
            if ask.round == 1:
                before["c"] = answer
            else:
                content = np.resize(before["c"].arrays["ciphertexts"], answer.arrays["ciphertexts"].shape)
                return dataclasses.replace(answer, arrays={**answer.arrays, "ciphertexts": content})
        return answer

    run.transport.alter = alter  # type: ignore[attr-defined]
    with pytest.raises(RejectMessageError, match="adds up to no sum"):
        run.train()
    assert run.left() == []


def test_an_update_that_would_overflow_stays_at_its_site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = deployment(tmp_path)
    detector = run.transport.sites["b"].terms.detector
    honest, value = detector.site_update, 2**62 // 4

    def too_much(*given: object) -> Update:
        update = honest(*given)
        return dataclasses.replace(update, values=np.full_like(update.values, value))

    monkeypatch.setattr(detector, "site_update", too_much)
    model = run.train()
    (left,) = [event for event in run.events if isinstance(event, Left)]
    assert left.site == "b"
    assert "overflow" in left.reason
    assert str(value) not in left.reason
    assert np.array_equal(model.anomaly_score(X), run.of("a", "c", "d").anomaly_score(X))
    assert not any(ask == "send" and b'"site": "b"' in content for ask, content in run.transport.seen)


def test_the_run_waits_where_nobody_is_left_who_holds_the_key(tmp_path: Path) -> None:
    run = deployment(tmp_path)
    run.transport.gone |= {"a", "b"}

    def lose(address: str, ask: Ask, way: str) -> bool:
        if ask.round == 2:
            raise Killed
        return False

    run.transport.lose = lose
    terms = run.terms()
    memory = Checkpoint(run.folder / "coordinator", terms.fingerprint)
    with pytest.raises(Killed):
        Coordinator(terms, run.transport, memory, roster=run.roster, wait=0.0).run()
    run.transport.lose = lambda address, ask, way: False
    run.transport.gone = {"c", "d"}
    with pytest.raises(RetryLaterError, match="holds the run's key is here"):
        run.train()
    run.transport.gone = set()
    run.train()
    assert len({key_of(run, name).to_bytes() for name in NAMES}) == 1


def test_a_site_with_another_key_is_left_out(tmp_path: Path) -> None:
    run = deployment(tmp_path)

    def alter(address: str, ask: Ask, answer: Answer) -> Answer:
        return dataclasses.replace(answer, group_key="11" * 32) if ask.kind == "take" and address == "b" else answer

    run.transport.alter = alter  # type: ignore[attr-defined]
    model = run.train()
    (left,) = [event for event in run.events if isinstance(event, Left)]
    assert (left.site, "another key" in left.reason) == ("b", True)
    assert np.array_equal(model.anomaly_score(X), run.of("a", "c", "d").anomaly_score(X))


@pytest.mark.parametrize("wrong", ["no modulus", "no seal", "a small modulus"])
def test_whoever_hands_on_no_key_leaves_and_the_next_makes_one(tmp_path: Path, wrong: str) -> None:
    run = deployment(tmp_path)

    def alter(address: str, ask: Ask, answer: Answer) -> Answer:
        if ask.kind != "key" or address != "a":
            return answer
        arrays = dict(answer.arrays)
        if wrong == "a small modulus":
            arrays["modulus"] = arrays["modulus"] >> 1
        else:
            del arrays["modulus" if wrong == "no modulus" else "sealed-1"]
        return dataclasses.replace(answer, arrays=arrays)

    run.transport.alter = alter  # type: ignore[attr-defined]
    model = run.train()
    assert run.left() == ["a"]
    assert np.array_equal(model.anomaly_score(X), run.of("b", "c", "d").anomaly_score(X))


def test_sums_of_groups_add_up_to_the_same_model(tmp_path: Path) -> None:
    run = deployment(tmp_path, dataclasses.replace(ENCRYPTED, groups=2))
    model = run.train()
    assert all(sorted(len(group) for group in groups) == [2, 2] for _, _, groups in run.attempts())
    assert np.array_equal(model.anomaly_score(X), run.of(*NAMES).anomaly_score(X))


def test_a_stranger_gets_no_key(tmp_path: Path) -> None:
    run = deployment(tmp_path)
    impostor = Participant(
        Site("b", PARTS[1]), run.terms(), Kept(tmp_path / "impostor"), identity=Identity.generate("b"),
        roster=run.roster,
    )  # fmt: skip
    run.transport.sites = {"impostor": impostor, **run.transport.sites}
    run.train()
    assert not (tmp_path / "impostor" / "paillier.key.npy").exists()
    assert any("another credential" in event.reason for event in run.events if isinstance(event, Left))


@pytest.mark.parametrize("aggregation", ["masked", "paillier"])
@pytest.mark.parametrize("key", ["of low order", "another's"])
def test_a_key_that_all_others_would_refuse_is_its_sites_end_and_nobody_elses(
    tmp_path: Path, aggregation: Literal["masked", "paillier"], key: str
) -> None:
    """D signs what it should not; nobody is asked to agree to a set with it, or to seal the run's key for it."""
    run = deployment(tmp_path, dataclasses.replace(ENCRYPTED, aggregation=aggregation))
    of_a = list[str]()

    def alter(address: str, ask: Ask, answer: Answer) -> Answer:
        if ask.kind != "join" or address not in "ad" or answer.advert is None:
            return answer
        if address == "a":
            of_a.append(answer.advert.key)
            return answer
        changed = dataclasses.replace(answer.advert, key="00" * 32 if key == "of low order" else of_a[0])
        signature = run.identities["d"].sign(changed.statement).hex()
        return dataclasses.replace(answer, advert=dataclasses.replace(changed, signature=signature))

    run.transport.alter = alter  # type: ignore[attr-defined]
    model = run.train()
    assert run.left() == ["d"]
    assert np.array_equal(model.anomaly_score(X), run.of("a", "b", "c").anomaly_score(X))


@pytest.mark.parametrize("kind", ["key", "take", "send", "open"])
def test_the_embedded_executor_goes_on_where_it_was_killed(tmp_path: Path, kind: str) -> None:
    detector = make_detector("forest", {"n_estimators": 5, "depth": 4, "random_state": 1, "threshold": "model"})
    before, folder = Participant.answer, tmp_path / "run"

    def killed(self: Participant, ask: Ask) -> Answer:
        if ask.kind == kind and self.site.name == {"key": "a", "open": "a"}.get(kind, "c"):
            raise Killed
        return before(self, ask)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Participant, "answer", killed)
        with pytest.raises(Killed):
            train(detector, sites(), SCHEMA, privacy=None, federation=ENCRYPTED, checkpoint=folder)
    resumed = train(detector, sites(), SCHEMA, privacy=None, federation=ENCRYPTED, checkpoint=folder)
    plain = train(detector.__class__(**detector.get_params()), sites(), SCHEMA, privacy=None)
    assert np.array_equal(resumed.anomaly_score(X), plain.anomaly_score(X))


def test_the_coordinator_needs_no_phe(tmp_path: Path) -> None:
    """It is no site: its half works where no Paillier is installed."""
    run = deployment(tmp_path)
    run.train()
    sent = [from_bytes(Answer, content, where="x") for what, content in run.transport.seen if what == "send"][:2]
    np.savez(tmp_path / "messages.npz", *(answer.arrays["ciphertexts"] for answer in sent))
    code = f"""
import sys
sys.modules["phe"] = sys.modules["gmpy2"] = None
import numpy as np
from securead.federated.coordinator import Coordinator
from securead.protocols.paillier import keys, sums
keys.KEY_BITS = 512
adder = sums.Adder({key_of(run, "a").n})
with np.load({str(tmp_path / "messages.npz")!r}) as messages:
    for name in ("arr_0", "arr_1"):
        adder.add(name, messages[name])
assert len(adder.total(["arr_0", "arr_1"])) == {len(sent[0].arrays["ciphertexts"])}
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def test_asks_that_are_not_of_encrypted_sums(tmp_path: Path) -> None:
    for federation in (Federation(round_timeout=0.2), Federation(aggregation="masked")):
        run = deployment(tmp_path / federation.aggregation, federation)
        site = run.transport.sites["a"]
        site.answer(Ask("join", "r", digests=tuple(run.terms().digests().items())))
        for kind in ("key", "take", "open"):
            answer = from_bytes(Answer, site.reply(to_bytes(Ask(kind, "r", 1, 1))), where="x")  # type: ignore[arg-type]
            assert answer.refusal is not None


def test_one_site_cannot_be_encrypted() -> None:
    with pytest.raises(FixConfigurationError, match="too few sites"):
        train(make_detector("subspace", {}), sites()[:1], SCHEMA, privacy=None, federation=ENCRYPTED)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"minimum_sites": 1}, "at least 1, and 2"),
        ({"rule": "krum", "groups": 3}, "Krum"),
        ({"rule": "median"}, "groups"),
    ],
)
def test_federations_that_cannot_be_are_refused(wrong: dict[str, object], match: str) -> None:
    with pytest.raises(FixConfigurationError, match=match):
        dataclasses.replace(ENCRYPTED, **wrong)  # type: ignore[arg-type]


def test_without_phe_a_site_says_so_before_anybody_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    run = deployment(tmp_path)

    def missing() -> None:
        raise InstallExtraError("Paillier needs a package that is not installed: phe")

    monkeypatch.setattr(keys, "phe", missing)
    with pytest.raises(InstallExtraError, match="phe"):
        run.transport.sites["a"].check()


def test_a_recipe_may_ask_for_it() -> None:
    recipe = parse_recipe(
        'name = "x"\n[[sites]]\nname = "a"\nshare = 1\n[federation]\naggregation = "paillier"\n'
        '[detector]\ntype = "subspace"\n',
        where="recipe",
    )
    assert recipe.federation == Federation(aggregation="paillier")
    assert recipe.federation.hidden
