"""Training between institutions with real processes: what works, and what may fail, without a hang or a wrong sum.

Where a process has to die at a certain point, others are stopped (SIGSTOP) or a file is locked so that it cannot pass.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from deployed import free_port
from institutions import BANKS, COLUMNS, FOREST, PRIVACY, Institutions, Process, Start, institutions, recipe, records

from securead.certificates import issue
from securead.data.schema import Column, Schema
from securead.federated.embedded import train
from securead.federated.messages import Answer, Ask
from securead.federated.participant import Site
from securead.federated.recipe import load_recipe
from securead.federated.roles import terms_of
from securead.models import bundle
from securead.models.forest import IsolationForest
from securead.protocols.sharing.links import Identity

pytest.importorskip("flwr")
pytestmark = pytest.mark.long

SHORT = 'aggregation = "masked"\nround_timeout = 4.0\n'


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Makes institutions in a folder of this test; their processes end with it."""
    open_: list[Iterator[Institutions]] = []

    def made(**options: object) -> Institutions:
        open_.append(institutions(tmp_path, **options))
        return next(open_[-1])

    yield made
    for each in open_:
        for _ in each:
            pass


def expected(banks: tuple[str, ...] = BANKS) -> bundle.Bundle:
    """The same model, trained in this process."""
    schema = Schema((Column("amount", 0.0, 100.0), Column("distance", 0.0, 100.0), Column("hour", 0.0, 24.0)), "clip")
    order = [COLUMNS.index(name) for name in schema.names]
    sites = [Site(bank, records(bank)[:, order]) for bank in banks]
    return bundle.make(train(IsolationForest(n_estimators=25, random_state=7), sites, schema, privacy=None), "fraud")


def check_model(made: Institutions, banks: tuple[str, ...] = BANKS) -> None:
    """Bit for bit the model of the embedded executor among `banks`."""
    found, wanted = bundle.load(made.bundle), expected(banks)
    order = [COLUMNS.index(name) for name in ("amount", "distance", "hour")]
    X = np.vstack([records(bank)[:, order] for bank in BANKS])
    np.testing.assert_array_equal(found.program.score(X), wanted.program.score(X))
    assert found.public.threshold.value == wanted.public.threshold.value


def charges(made: Institutions, bank: str) -> Counter[str]:
    """How often each purpose was charged to a bank."""
    plain = json.loads((made.folder / f"{bank}.ledger").read_text())
    return Counter(charge["purpose"] for charge in plain["charges"])


def check_ended(coordinator: Process, *sites: Process) -> None:
    """All ended well and said nothing that they should not."""
    assert coordinator.ended() == 0, coordinator.text
    for site in sites:
        assert site.ended() == 0, site.text
    for process in (coordinator, *sites):
        assert "Traceback" not in process.text, process.text
        assert all(len(line) < 1000 for line in process.err)


def stop(process: Process) -> None:
    process.process.send_signal(signal.SIGSTOP)


def go_on(process: Process) -> None:
    process.process.send_signal(signal.SIGCONT)


def joined(made: Institutions, coordinator: Process, bank: str) -> Process:
    """A site that takes part already."""
    site = made.site(bank)
    coordinator.await_line(f"{bank} takes part")
    return site


# What works.


@pytest.mark.parametrize("aggregation", ["masked", "plain", pytest.param("paillier", marks=pytest.mark.long)])
def test_three_institutions(start: Start, aggregation: str) -> None:
    made = start(federation=f'aggregation = "{aggregation}"\n')
    coordinator = made.coordinator()
    sites = [made.site(bank) for bank in BANKS]
    check_ended(coordinator, *sites)
    check_model(made)
    assert not list(made.folder.glob("*.training"))


def test_sites_may_come_first_and_keys_be_sealed(start: Start, tmp_path: Path) -> None:
    made = start(privacy=PRIVACY, ledger=True)
    words, sealed = tmp_path / "words", tmp_path / "sealed"
    words.write_text("five words are better here\n")
    issue(sealed, ("coordinator", *BANKS), passphrase="five words are better here")
    made.folder.joinpath("certs").rename(tmp_path / "unused")
    sealed.rename(made.folder / "certs")
    port = free_port()
    made.address = f"127.0.0.1:{port}"
    sites = [made.site(bank, "--passphrase-file", words) for bank in BANKS]
    sites[0].await_line("cannot be reached")
    coordinator = made.coordinator("--passphrase-file", words, port=port)
    check_ended(coordinator, *sites)
    trained = bundle.load(made.bundle, passphrase="five words are better here")
    assert trained.public.privacy.private
    assert [site.site for site in trained.public.privacy.sites] == list(BANKS)
    for bank in BANKS:
        assert set(charges(made, bank).values()) == {1}
    everything = "".join(process.text for process in made.processes)
    assert "PRIVATE KEY" not in everything
    assert "five words" not in everything


def test_ends_when_it_is_asked_to(start: Start) -> None:
    made = start()
    coordinator = made.coordinator()
    site = joined(made, coordinator, "bank-a")
    for number, process in ((signal.SIGINT, site), (signal.SIGTERM, coordinator)):
        process.process.send_signal(number)
        assert process.ended() != 0
        assert "Traceback" not in process.text, process.text


# A site that dies, or falls silent.


def test_a_site_killed_before_its_update(start: Start) -> None:
    made = start()
    coordinator = made.coordinator()
    killed = joined(made, coordinator, "bank-c")
    stop(killed)
    sites = [made.site(bank) for bank in BANKS[:2]]
    coordinator.await_line("round 1 of 2")
    killed.kill()
    check_ended(coordinator, *sites)
    assert "bank-c takes no part: its connection ended" in coordinator.text
    assert "round 1 of 2: counts, attempt 2" in coordinator.text
    check_model(made, BANKS[:2])


def test_a_site_killed_during_its_update(start: Start) -> None:
    """It waits for its ledger; what it did not charge it did not send. It comes back and pays once."""
    made = start(privacy=PRIVACY, ledger=True)
    coordinator = made.coordinator()
    killed = joined(made, coordinator, "bank-c")
    lock = os.open(made.folder / ".bank-c.ledger.lock", os.O_RDWR | os.O_CREAT, 0o644)
    fcntl.flock(lock, fcntl.LOCK_EX)
    first = [made.site(bank) for bank in BANKS[:2]]
    for site in first:
        site.await_line('"site_update"')
    time.sleep(0.5)
    killed.kill()
    os.close(lock)
    again = made.site("bank-c", "--patience", "5")
    check_ended(coordinator, *first)
    assert again.ended() in (0, 2)
    assert "bank-c takes no part: its connection ended" in coordinator.text
    for bank in BANKS[:2]:
        assert set(charges(made, bank).values()) == {1}
    if (made.folder / "bank-c.ledger").exists():
        assert set(charges(made, "bank-c").values()) == {1}


def test_a_site_killed_after_its_update(start: Start) -> None:
    made = start()
    coordinator = made.coordinator()
    held = joined(made, coordinator, "bank-a")
    stop(held)
    other, killed = made.site("bank-b"), made.site("bank-c")
    killed.await_line('"site_update"')
    time.sleep(0.5)
    killed.kill()
    time.sleep(0.5)
    go_on(held)
    check_ended(coordinator, held, other)
    assert "bank-c takes no part: its connection ended" in coordinator.text
    check_model(made, BANKS[:2])


def test_a_site_that_returns_takes_part_again(start: Start) -> None:
    """Killed in round 1, back in round 2: the threshold is of all three sites' records, the counts of two."""
    made = start()
    coordinator = made.coordinator()
    killed, held = joined(made, coordinator, "bank-c"), joined(made, coordinator, "bank-a")
    stop(killed)
    stop(held)
    other = made.site("bank-b")
    coordinator.await_line("round 1 of 2")
    killed.kill()
    again = made.site("bank-c")
    again.await_line("connected to the coordinator")
    go_on(held)
    check_ended(coordinator, held, other, again)
    assert coordinator.text.count("bank-c takes part") == 2
    rounds = [line for line in coordinator.err if line.startswith("round 2 of 2")]
    assert rounds
    assert all(bank in rounds[0] for bank in BANKS)
    found, without = bundle.load(made.bundle), expected(BANKS[:2])
    X = records("bank-a")[:, [0, 2, 1]]
    np.testing.assert_array_equal(found.program.score(X), without.program.score(X))


def test_a_site_slower_than_the_timeout(start: Start) -> None:
    made = start(federation=SHORT)
    coordinator = made.coordinator()
    slow = made.site("bank-c", "--patience", "3")
    coordinator.await_line("bank-c takes part")
    stop(slow)
    sites = [made.site(bank) for bank in BANKS[:2]]
    check_ended(coordinator, *sites)
    assert "bank-c takes no part: no answer in 4 s" in coordinator.text
    check_model(made, BANKS[:2])
    go_on(slow)
    assert slow.ended() == 2
    assert "gave up" in slow.text


def test_too_few_sites_are_left(start: Start) -> None:
    """The run stops with a clear line, and goes on with --resume when they are back."""
    made = start(federation=SHORT + "minimum_sites = 3\n")
    port = free_port()
    coordinator = made.coordinator(port=port)
    killed = joined(made, coordinator, "bank-c")
    stop(killed)
    sites = [made.site(bank) for bank in BANKS[:2]]
    coordinator.await_line("round 1 of 2")
    killed.kill()
    assert coordinator.ended() == 2
    assert "a round needs 3" in coordinator.text
    resumed = made.coordinator("--resume", port=port)
    sites.append(made.site("bank-c"))
    check_ended(resumed, *sites)
    check_model(made)


# The coordinator dies.


def test_a_coordinator_killed_in_a_round_and_resumed(start: Start) -> None:
    made = start(privacy=PRIVACY, ledger=True)
    port = free_port()
    coordinator = made.coordinator(port=port)
    held = joined(made, coordinator, "bank-a")
    stop(held)
    others = [made.site(bank) for bank in BANKS[1:]]
    for site in others:
        site.await_line('"site_update"')
    coordinator.kill()
    go_on(held)
    refused = Process(
        *("coordinator", made.recipe, "--certs", made.folder / "certs" / "coordinator", "--out", made.bundle)
    )
    made.processes.append(refused)
    assert refused.ended() == 2
    assert "holds a run that did not end" in refused.text
    resumed = made.coordinator("--resume", port=port)
    check_ended(resumed, held, *others)
    for bank in BANKS:
        assert set(charges(made, bank).values()) == {1}, bank


def test_nothing_to_resume(start: Start) -> None:
    made = start()
    process = Process(
        "coordinator",
        made.recipe,
        *("--certs", made.folder / "certs" / "coordinator", "--out", made.bundle, "--resume"),
    )
    made.processes.append(process)
    assert process.ended() == 2
    assert "holds no run to go on with" in process.text


# Those who should not take part.


def test_wrong_records_are_told_to_their_owner_alone(start: Start) -> None:
    made = start()
    coordinator = made.coordinator()
    made.write("bank-c", records("bank-c"), ("amount", "hour", "velocity"))
    wrong = made.site("bank-c")
    assert wrong.ended() == 2
    assert "velocity" in wrong.text or "distance" in wrong.text
    made.write("bank-c", records("bank-c"))
    check_ended(coordinator, *[made.site(bank) for bank in BANKS])
    assert "velocity" not in coordinator.text
    check_model(made)


def test_another_recipe(start: Start, tmp_path: Path) -> None:
    made = start()
    coordinator = made.coordinator()
    other = recipe(tmp_path / "other.toml", detector=FOREST.replace("25", "26"))
    wrong = made.site("bank-c", recipe=other)
    assert wrong.ended() == 2
    assert "the coordinator's recipe is another one: it differs in detector" in wrong.text
    coordinator.await_line("bank-c takes no part: it refuses: ")
    check_ended(coordinator, *[made.site(bank) for bank in BANKS])
    check_model(made)


def test_another_certificate(start: Start, tmp_path: Path) -> None:
    made = start()
    coordinator = made.coordinator()
    issue(tmp_path / "foreign", ("bank-c",))
    wrong = made.site("bank-c", certs=tmp_path / "foreign" / "bank-c")
    assert wrong.ended() == 2
    assert "no trust between bank-c and the coordinator" in wrong.text
    issue(made.folder / "certs", ("bank-x",))
    stranger = made.site("bank-c", certs=made.folder / "certs" / "bank-x")
    assert stranger.ended() == 2
    assert "the recipe has no site of this name (got 'bank-x')" in stranger.text
    check_ended(coordinator, *[made.site(bank) for bank in BANKS])
    check_model(made)


def test_a_duplicate_site(start: Start) -> None:
    made = start()
    coordinator = made.coordinator()
    first = joined(made, coordinator, "bank-a")
    second = made.site("bank-a", "--folder", made.folder / "second", "--patience", "3")
    second.await_line("another process takes part as 'bank-a'")
    sites = [made.site(bank) for bank in BANKS[1:]]
    check_ended(coordinator, first, *sites)
    check_model(made)
    assert second.ended() == 2


def test_a_coordinator_that_asks_for_two_attempts_with_the_same_set(start: Start) -> None:
    """Every attempt masks anew, and two messages with one update are one too many. The sites refuse, and end."""
    from securead.federated.flower import installed

    installed.require()
    from securead.federated.flower.superlink import Superlink
    from securead.federated.flower.transport import FlowerTransport

    made = start()
    terms = terms_of(load_recipe(made.recipe))
    with Superlink(Identity.load(made.folder / "certs" / "coordinator"), BANKS) as link:
        transport = FlowerTransport(link.grid, name=link.grid.name, forget=link.grid.forget)
        made.address = link.address
        sites = [made.site(bank, "--patience", "3") for bank in BANKS[:2]]
        deadline = time.monotonic() + 90
        while len(transport.present()) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.05)

        def ask(ask: Ask) -> list[Answer]:
            found: dict[str, Answer] = {}
            asks = dict.fromkeys(sorted(transport.present()), ask)
            transport.exchange(asks, seconds=30.0, answered=found.__setitem__)
            return [found[address] for address in asks]

        joined = ask(Ask("join", "run", digests=tuple(terms.digests().items())))
        adverts = tuple(answer.advert for answer in joined if answer.advert is not None)
        assert len(adverts) == 2
        first = ask(Ask("prepare", "run", round=1, attempt=1, adverts=adverts))
        assert all(answer.signature and answer.refusal is None for answer in first)
        second = ask(Ask("prepare", "run", round=1, attempt=2, adverts=adverts))
        assert all(answer.refusal is not None and not answer.arrays for answer in second)
        assert [site.ended() for site in sites] == [2, 2]
    for site in sites:
        assert "a new attempt with the same set as attempt 1" in site.text
