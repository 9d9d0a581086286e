"""The dealer over real links: whom it serves, what it may be asked, and that its sets are what the parties lack."""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sharing_setting import Deployment

from securead import codec, files
from securead.checks import programs
from securead.errors import FixConfigurationError, RejectMessageError, RetryLaterError
from securead.program.program import Program
from securead.protocols.sharing import dealer as dealers
from securead.protocols.sharing import dealing, links, messages, settings
from securead.protocols.sharing.correlations import BinaryTriple, Correlation, MatrixTriple, SquarePair
from securead.protocols.sharing.dealer import Dealer, DealerConfig
from securead.protocols.sharing.links import Channel, LinkError, Listener, UntrustedPeerError
from securead.protocols.sharing.plan import make_plan
from securead.protocols.sharing.shares import Words
from securead.protocols.sharing.supply import SET_NUMBER, Deal, Join, Kind, Supply

SOON = 20.0


class SmallPlan:
    """Stands in for a plan: a matrix product, squares, and ANDs for a verdict."""

    program_digest, digest = "a" * 64, "b" * 64
    buckets = (1, 2, 4, 8)

    def correlations(self, rows: int, verdict: bool) -> tuple[Correlation, ...]:
        both = (MatrixTriple((rows, 3), (3, 2)), SquarePair((rows, 2)))
        return (*both, BinaryTriple((rows,), (rows,))) if verdict else both

    def offline_bytes(self, rows: int, verdict: bool) -> int:
        return 8 * dealing.correction_words(self.correlations(rows, verdict))


PLAN = SmallPlan()


@pytest.fixture
def dealer(deployment: Deployment) -> Iterator[Dealer]:
    one = Dealer(Listener(("127.0.0.1", 0), deployment.identity("dealer")), PLAN, silence=1.0, sessions=3)
    thread = threading.Thread(target=one.serve_forever)
    thread.start()
    yield one
    one.close()
    thread.join(SOON)
    assert not thread.is_alive()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as executor:
        yield executor


class Session:
    """Both parties' supplies of one session, seeds in hand."""

    def __init__(
        self, dealer: Dealer, deployment: Deployment, pool: ThreadPoolExecutor, *, lane: int = 0, plan: Any = PLAN
    ) -> None:
        name = messages.new_id()
        self.supplies = [
            Supply(
                dealer.address,
                deployment.identity(f"party{index}"),
                index=index,
                session=name,
                lane=lane,
                plan=plan,
            )
            for index in (0, 1)
        ]
        both = [pool.submit(supply.seed) for supply in self.supplies]
        refused = [each.exception(SOON) for each in both]
        if any(refused):
            self.close()
            raise next(filter(None, refused))
        self.seeds = [each.result() for each in both]

    def close(self) -> None:
        for supply in self.supplies:
            supply.close()


def correct(corrections: Any, seeds: list[bytes], set_id: int, rows: int, verdict: bool) -> bool:
    """Whether corrections fit what both parties expand from their keys: every relation holds."""
    mine, theirs = (Words(dealing.set_key(seed, set_id, rows, verdict)) for seed in seeds)
    words, at = np.frombuffer(corrections, "<i8"), 0
    for each in PLAN.correlations(rows, verdict):
        a = [mine.draw(shape) for shape in each.factors]
        b = [theirs.draw(shape) for shape in each.factors]
        size = int(np.prod(each.result))
        own, other = words[at : at + size].reshape(each.result), theirs.draw(each.result)
        at += size
        if isinstance(each, BinaryTriple):
            holds = (own ^ other) == ((a[0] ^ b[0]) & (a[1] ^ b[1]))
        elif isinstance(each, SquarePair):
            holds = own + other == (a[0] + b[0]) ** 2
        else:
            holds = own + other == (a[0] + b[0]) @ (a[1] + b[1])
        if not holds.all():
            return False
    return at == words.size


def test_sets_are_what_the_parties_lack(dealer: Dealer, deployment: Deployment, pool: ThreadPoolExecutor) -> None:
    session = Session(dealer, deployment, pool)
    assert len(set(session.seeds)) == 2
    assert all(len(seed) == 32 for seed in session.seeds)
    for number, rows, verdict in [(0, 1, False), (1, 8, True), (7, 4, True), (1 << 40, 2, False)]:
        corrections = session.supplies[0].deal(number, rows, verdict)
        assert len(corrections) == PLAN.offline_bytes(rows, verdict)
        assert correct(corrections, session.seeds, number, rows, verdict)
        assert not correct(corrections, session.seeds[::-1], number, rows, verdict)
        for supply in session.supplies:
            supply.check()
    session.close()


def test_lanes_are_served_at_once_with_fresh_seeds(
    dealer: Dealer, deployment: Deployment, pool: ThreadPoolExecutor
) -> None:
    sessions = [Session(dealer, deployment, pool, lane=lane) for lane in range(3)]
    assert len({seed for session in sessions for seed in session.seeds}) == 6

    def use(session: Session) -> bool:
        return all(
            correct(session.supplies[0].deal(number, 8, True), session.seeds, number, 8, True) for number in range(20)
        )

    assert all(done.result(SOON) for done in [pool.submit(use, session) for session in sessions])
    with pytest.raises(RetryLaterError, match="as many sessions"):
        Session(dealer, deployment, pool, lane=3)
    sessions[0].close()
    wait_until(lambda: len(dealer._sessions) == 2)
    Session(dealer, deployment, pool, lane=3).close()
    for session in sessions:
        session.close()


def test_no_seed_before_both_are_there(dealer: Dealer, deployment: Deployment, pool: ThreadPoolExecutor) -> None:
    def supply(index: int, session: str, lane: int) -> Supply:
        identity = deployment.identity(f"party{index}")
        return Supply(dealer.address, identity, index=index, session=session, lane=lane, plan=PLAN)

    name = messages.new_id()
    # The other party of another lane, or of another session, is not the other party.
    alone = [supply(0, name, 0), supply(1, name, 1), supply(1, messages.new_id(), 0)]
    for waiting in [pool.submit(each.seed) for each in alone]:
        with pytest.raises(RetryLaterError, match="did not join"):
            waiting.result(SOON)
    for each in alone:
        each.close()
    wait_until(lambda: not dealer._sessions)


def test_who_is_there_twice(dealer: Dealer, deployment: Deployment, pool: ThreadPoolExecutor) -> None:
    name = messages.new_id()
    first, second = (
        Supply(dealer.address, deployment.identity("party0"), index=0, session=name, lane=0, plan=PLAN)
        for _ in range(2)
    )
    told = [each.exception(SOON) for each in [pool.submit(first.seed), pool.submit(second.seed)]]
    first.close()
    second.close()
    assert {type(error) for error in told} == {RejectMessageError, RetryLaterError}


@pytest.mark.parametrize("leaving", [0, 1])
def test_a_party_that_disappears_ends_the_session_for_both(
    dealer: Dealer, deployment: Deployment, pool: ThreadPoolExecutor, leaving: int
) -> None:
    session = Session(dealer, deployment, pool)
    session.supplies[leaving].close()
    staying = session.supplies[1 - leaving]
    wait_until(lambda: not dealer._sessions)
    with pytest.raises(LinkError):
        staying.check()
    with pytest.raises(LinkError):
        staying.deal(1, 1, False)
    session.close()
    Session(dealer, deployment, pool).close()


def test_the_dealer_that_ends(deployment: Deployment, dealer: Dealer, pool: ThreadPoolExecutor) -> None:
    session = Session(dealer, deployment, pool)
    dealer.close()
    for supply in session.supplies:
        with pytest.raises(LinkError):
            supply.check()
    session.close()
    with pytest.raises(LinkError, match="cannot reach"):
        Session(dealer, deployment, pool)


# What it refuses.


def test_clients_and_strangers(dealer: Dealer, deployment: Deployment, strangers: Deployment) -> None:
    with links.dial(dealer.address, deployment.identity("bank-a"), "dealer") as channel:
        assert refusal(channel).error == "RejectMessageError"
    with pytest.raises(UntrustedPeerError):
        links.dial(dealer.address, strangers.identity("party0"), "dealer")
    with pytest.raises(ValueError, match="another party"):
        Supply(dealer.address, deployment.identity("bank-a"), index=0, session="", lane=0, plan=PLAN)


@pytest.mark.parametrize("digest", ["program_digest", "digest"])
def test_another_model(dealer: Dealer, deployment: Deployment, pool: ThreadPoolExecutor, digest: str) -> None:
    other = SmallPlan()
    setattr(other, digest, "c" * 64)
    with pytest.raises(RejectMessageError, match="dealer says"):
        Session(dealer, deployment, pool, plan=other)


def join(dealer: Dealer, deployment: Deployment, pool: ThreadPoolExecutor) -> tuple[Channel, Channel]:
    """Two bare links with a session between them."""
    name = messages.new_id()
    ends = []
    for index in (0, 1):
        channel = links.dial(dealer.address, deployment.identity(f"party{index}"), "dealer")
        channel.send(
            Kind.JOIN,
            messages.to_bytes(Join(messages.VERSION, PLAN.program_digest, PLAN.digest, name, 0)),
        )
        ends.append(channel)
    for channel in ends:
        kind = Kind.BEAT
        while kind == Kind.BEAT:
            kind, _ = channel.receive_any({Kind.SEED: 32, Kind.BEAT: 0})
    return ends[0], ends[1]


def refusal(channel: Channel) -> messages.Refusal:
    body = channel.receive(Kind.REFUSAL, limit=messages.MAX_HEADER_BYTES)
    told = messages.from_bytes(messages.Refusal, body, sender="dealer")
    assert isinstance(told, messages.Refusal)
    return told


@pytest.mark.parametrize(
    "wanted",
    [
        b"",
        b"[]",
        b"{" * 400,
        json.dumps({"op": "eval", "set": 1, "rows": 1, "verdict": False}).encode(),
        json.dumps({"op": "deal", "set": 1, "rows": 1, "verdict": 0}).encode(),
        json.dumps({"op": "deal", "set": 1, "rows": 1, "verdict": True, "more": 1}).encode(),
        json.dumps({"op": "deal", "set": 1.5, "rows": 1, "verdict": True}).encode(),
        messages.to_bytes(Deal("deal", 0, 1, False)),  # dealt already
        messages.to_bytes(Deal("deal", -1, 1, False)),
        messages.to_bytes(Deal("deal", 1 << 70, 1, False)),
        messages.to_bytes(Deal("deal", 1, 3, False)),
        messages.to_bytes(Deal("deal", 1, 0, False)),
        messages.to_bytes(Deal("deal", 1, 1 << 40, False)),
    ],
    ids=lambda wanted: wanted[:60].decode(),
)
def test_what_it_may_not_be_asked(
    dealer: Dealer, deployment: Deployment, pool: ThreadPoolExecutor, wanted: bytes
) -> None:
    leader, follower = join(dealer, deployment, pool)
    leader.send(Kind.DEAL, messages.to_bytes(Deal("deal", 0, 1, False)))
    kind = Kind.BEAT
    while kind == Kind.BEAT:
        kind, body = leader.receive_any({Kind.CORRECTIONS: 1 << 20, Kind.BEAT: 0})
    assert SET_NUMBER.unpack_from(body) == (0,)
    leader.send(Kind.DEAL, wanted)
    assert refusal(leader).error == "RejectMessageError"
    with pytest.raises(LinkError):  # the session is over for both
        follower.receive(Kind.BEAT, exact=0, timeout=SOON)
    leader.close()
    follower.close()


def test_party_1_asks_for_nothing(dealer: Dealer, deployment: Deployment, pool: ThreadPoolExecutor) -> None:
    leader, follower = join(dealer, deployment, pool)
    follower.send(Kind.DEAL, messages.to_bytes(Deal("deal", 0, 1, False)))
    for channel in (leader, follower):
        with pytest.raises(LinkError):
            channel.receive(Kind.CORRECTIONS, limit=1 << 20, timeout=SOON)
        channel.close()


def test_seeds_are_never_logged(
    dealer: Dealer, deployment: Deployment, pool: ThreadPoolExecutor, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    session = Session(dealer, deployment, pool)
    session.supplies[0].deal(0, 1, True)
    assert "seeds" not in repr(next(iter(dealer._sessions.values())))
    session.close()
    wait_until(lambda: "link_ended" in caplog.text)
    assert all(seed.hex() not in caplog.text and repr(seed) not in caplog.text for seed in session.seeds)


def test_a_set_that_takes_long_is_waited_for(
    dealer: Dealer, deployment: Deployment, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The leader bears a silence of less than the set takes; the dealer's signs of life carry it over."""
    session = Session(dealer, deployment, pool)
    made = dealing.deal

    def slow(*arguments: Any) -> bytes:
        time.sleep(1.2)
        return made(*arguments)

    monkeypatch.setattr(dealing, "deal", slow)
    monkeypatch.setattr(dealers, "BEAT_SECONDS", 0.1)
    session.supplies[0]._link.timeout = 0.6
    assert correct(session.supplies[0].deal(3, 4, True), session.seeds, 3, 4, True)
    session.close()


# The process.


def test_the_configuration(tmp_path: Path, deployment: Deployment) -> None:
    (tmp_path / "dealer.toml").write_text('program = "program.json"\nidentity = "certs/dealer"\nport = 7000\n')
    config = settings.read_toml(DealerConfig, tmp_path / "dealer.toml", paths=DealerConfig.PATHS)
    assert (config.port, config.host, config.identity) == (7000, "127.0.0.1", str(tmp_path / "certs/dealer"))
    for entry in ("port = 70000", "sessions = 0", "silence_seconds = 0.0", "colour = 1", 'workers = "2"'):
        (tmp_path / "dealer.toml").write_text(f'program = "p"\nidentity = "i"\n{entry}\n')
        with pytest.raises(FixConfigurationError, match=entry.split()[0]):
            settings.read_toml(DealerConfig, tmp_path / "dealer.toml", paths=DealerConfig.PATHS)


@pytest.mark.parametrize("make", [programs.with_relu, programs.small_tables])
def test_a_process_for_a_program(
    tmp_path: Path, deployment: Deployment, pool: ThreadPoolExecutor, make: Callable[[], Program]
) -> None:
    """Started by its TOML file, killed, and started again: parties get sets of the program's own plan."""
    program = make()
    files.write_json(tmp_path / "program.json", codec.to_plain(program.public))
    (tmp_path / "dealer.toml").write_text(f'program = "program.json"\nidentity = "{deployment.directory / "dealer"}"\n')
    plan = make_plan(program.public, "same")
    for _ in range(2):
        process = subprocess.Popen(
            [sys.executable, "-m", "securead", "dealer", str(tmp_path / "dealer.toml"), "--until-stdin-closes"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            address = links.parse_address(line.split()[-1])
            name = messages.new_id()
            both = [
                Supply(address, deployment.identity(f"party{i}"), index=i, session=name, lane=0, plan=plan)
                for i in (0, 1)
            ]
            for future in [pool.submit(each.seed) for each in both]:
                assert len(future.result(SOON)) == 32
            for number, verdict in enumerate((False, True)):
                assert len(both[0].deal(number, 4, verdict)) == plan.offline_bytes(4, verdict)
            process.kill()
            for each in both:
                with pytest.raises(LinkError):
                    each.check()
                each.close()
        finally:
            process.kill()
            process.communicate(timeout=SOON)


def test_the_process_ends_when_asked(tmp_path: Path, deployment: Deployment) -> None:
    files.write_json(tmp_path / "program.json", codec.to_plain(programs.with_relu().public))
    (tmp_path / "dealer.toml").write_text(f'program = "program.json"\nidentity = "{deployment.directory / "dealer"}"\n')
    for ask in (lambda process: process.send_signal(signal.SIGTERM), lambda process: process.stdin.close()):
        process = subprocess.Popen(
            [sys.executable, "-m", "securead", "dealer", str(tmp_path / "dealer.toml"), "--until-stdin-closes"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert process.stdout is not None
            assert "listens at" in process.stdout.readline()
            ask(process)
            assert process.wait(SOON) == 0
        finally:
            process.kill()
            process.wait(SOON)
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    stream.close()


def test_another_ones_certificate(tmp_path: Path, deployment: Deployment) -> None:
    files.write_json(tmp_path / "program.json", codec.to_plain(programs.with_relu().public))
    config = DealerConfig(str(tmp_path / "program.json"), str(deployment.directory / "party0"))
    with pytest.raises(FixConfigurationError, match="not the dealer's"):
        Dealer.open(config)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < deadline, "it does not come true"
        time.sleep(0.01)
