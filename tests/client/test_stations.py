"""A gateway and a centre at work against a service that is away, full, restarted, forgetful or dishonest."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from stations import HEADER, expected_scores, lines_of, readings, wait_for, windowed_bundle

from securead.client.centre import Centre
from securead.client.gateway import Gateway
from securead.client.keys import Keys, make_keys
from securead.client.mailbox import Mailbox, Tokens, Waiting, make_tokens, read_token, write_token
from securead.client.record import Record
from securead.client.service import Service
from securead.client.source import Source
from securead.client.spool import Spool
from securead.data.streaming import StreamingEncoder
from securead.data.windows import WindowedSchema
from securead.errors import FixConfigurationError, FixInputError, RetryLaterError, UseOtherKeyError
from securead.models.bundle import Bundle
from securead.protocols import parcel, registry, wire

BUNDLE = windowed_bundle()
TOKENS = Tokens("d" * 64, "p" * 64)
X = readings(60)


@pytest.fixture(scope="module")
def pair() -> Keys:
    return make_keys(BUNDLE.public, "split")


class MadeUpMailbox(Mailbox):
    """A service in this process: what it is told to do wrong, it does."""

    def __init__(self, bundle: Bundle, pair: Keys) -> None:
        self.answers: dict[int, bytes] = {}
        self.deposits: list[bytes] = []
        self.opened = self.acknowledged = 0
        self.away: Callable[[], bool] = lambda: False
        self.refuses: Exception | None = None
        blind = registry.blind_module(pair.plan.engine)
        self._plan, self._evaluator = pair.plan, blind.make_evaluator(pair.plan, bundle.program)
        self._owner = (
            blind.read_evaluation_key(pair.plan, pair.public.to_bytes()) if pair.plan.evaluation_key_bytes else None
        )

    def open(self, tokens: Tokens) -> None:
        self.opened += 1

    def deposit(self, keys: object, label: parcel.Label, message: object) -> None:
        if self.refuses is not None:
            raise self.refuses
        if self.away():
            raise RetryLaterError("away")
        content = b"".join(message)  # type: ignore[call-overload]
        self.deposits.append(content)
        request = wire.from_bytes(content, max_payload=len(content))
        payload = self._evaluator.evaluate(request.payload, self._owner, rows=request.header.rows)
        answer = wire.Envelope(dataclasses.replace(request.header, kind="answer"), payload).to_bytes()
        self.answers[len(self.deposits)] = parcel.to_bytes(label, answer)

    def waiting(self, after: int = 0) -> tuple[Waiting, ...]:
        if self.away():
            raise RetryLaterError("away")
        return tuple(Waiting(at, "pumps", len(self.answers[at])) for at in sorted(self.answers) if at > after)

    def fetch(self, number: int, plan: object) -> bytes:
        return self.answers[number]

    def acknowledge(self, number: int) -> None:
        self.acknowledged += 1
        self.answers.pop(number, None)


@pytest.fixture
def mailbox(pair: Keys) -> MadeUpMailbox:
    return MadeUpMailbox(BUNDLE, pair)


@pytest.fixture
def spool(tmp_path: Path, pair: Keys) -> Iterator[Spool]:
    with Spool(tmp_path / "spool", gateway="pump-1", key=pair.record.key, most_bytes=3_000_000) as found:
        yield found


@pytest.fixture
def record(tmp_path: Path, pair: Keys) -> Iterator[Record]:
    with Record(tmp_path / "record", BUNDLE.public, pair.record.key) as found:
        yield found


def gateway(pair: Keys, spool: Spool, mailbox: Mailbox, **arguments: object) -> Gateway:
    schema = BUNDLE.public.program.encoder.schema
    assert isinstance(schema, WindowedSchema)
    return Gateway(pair.submitter, StreamingEncoder(schema), spool, mailbox, **arguments)  # type: ignore[arg-type]


def source(tmp_path: Path, spool: Spool, values: np.ndarray = X) -> Source:
    path = tmp_path / "readings.csv"
    path.write_text(HEADER + lines_of(values))
    schema = BUNDLE.public.program.encoder.schema
    assert isinstance(schema, WindowedSchema)
    return Source(path, schema.window, follow=False, place=spool.recall()[1])


def test_all_of_a_file_is_sent_scored_and_taken(
    pair: Keys, spool: Spool, mailbox: MadeUpMailbox, record: Record, tmp_path: Path
) -> None:
    passed = gateway(pair, spool, mailbox, batch=25).run(source(tmp_path, spool))
    assert (passed.readings, passed.windows, passed.messages, passed.sent) == (60, 58, 3, 3)
    told: list[object] = []
    centre = Centre(pair.holder, mailbox, TOKENS, record, told=told.append)
    assert (centre.poll(), centre.poll()) == (3, 0)
    points = record.latest(spool.stream, 100)
    np.testing.assert_allclose([point.score for point in points], expected_scores(X), atol=2e-3)
    assert len(told) == centre.fetched.alarms == len(record.alarms())
    # Once more with the same spool: nothing is read or sent again.
    again = gateway(pair, spool, mailbox).run(source(tmp_path, spool))
    assert (again.readings, again.sent) == (0, 0)


def test_a_service_that_is_away_fills_the_spool_and_then_gets_the_same_bytes_in_order(
    pair: Keys, spool: Spool, mailbox: MadeUpMailbox, tmp_path: Path
) -> None:
    gone = threading.Event()
    mailbox.away = lambda: not gone.is_set()
    many = readings(3000)
    work = gateway(pair, spool, mailbox, batch=200)
    thread = threading.Thread(target=work.run, args=(source(tmp_path, spool, many),))
    thread.start()
    wait_for(lambda: spool.held().bytes_ >= 3_000_000)
    time.sleep(1.5)  # long enough to seal more, if anything would: it asks every half second
    held = spool.held()
    stuck = work.passed.readings
    assert stuck < len(many)  # what feeds it waits
    # A message more than the limit at most, and what was accepted with it.
    assert held.bytes_ < 3_000_000 + pair.plan.max_request_bytes + 600 * 48 + 200_000
    first = spool.first()
    assert first is not None
    kept = b"".join(first)
    gone.set()
    thread.join(60)
    assert not thread.is_alive()
    assert mailbox.deposits[0] == kept
    labels = [parcel.from_bytes(content)[0] for _, content in sorted(mailbox.answers.items())]
    assert [label.sequence for label in labels] == list(range(len(labels)))
    assert [at for label in labels for at in label.readings] == list(range(2, 3000))


def test_a_refusal_for_good_ends_the_gateway_and_keeps_everything(
    pair: Keys, spool: Spool, mailbox: MadeUpMailbox, tmp_path: Path
) -> None:
    mailbox.refuses = UseOtherKeyError("this token does not open the mailbox")
    with pytest.raises(UseOtherKeyError):
        gateway(pair, spool, mailbox, batch=25).run(source(tmp_path, spool))
    held = spool.held()
    assert held.messages >= 1
    mailbox.refuses = None
    gateway(pair, spool, mailbox, batch=25).run(source(tmp_path, spool))
    labels = [parcel.from_bytes(content)[0] for content in mailbox.answers.values()]
    assert [at for label in labels for at in label.readings] == list(range(2, 60))


def test_a_centre_that_died_before_it_acknowledged_takes_nothing_twice(
    pair: Keys, spool: Spool, mailbox: MadeUpMailbox, record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway(pair, spool, mailbox, batch=25).run(source(tmp_path, spool))

    def dies(number: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(mailbox, "acknowledge", dies)
        with pytest.raises(KeyboardInterrupt):
            Centre(pair.holder, mailbox, TOKENS, record).poll()
    centre = Centre(pair.holder, mailbox, TOKENS, record)
    assert centre.poll() == 3
    assert (centre.fetched.again, centre.fetched.taken) == (1, 2)
    (stream,) = record.streams()
    assert (stream.again, stream.windows, stream.missing) == (1, 58, 0)


def test_answers_that_were_tampered_with_are_acknowledged_like_others(
    pair: Keys, spool: Spool, mailbox: MadeUpMailbox, record: Record, tmp_path: Path
) -> None:
    gateway(pair, spool, mailbox, batch=12).run(source(tmp_path, spool))
    label, message = parcel.from_bytes(mailbox.answers[1])
    envelope = wire.from_bytes(bytes(message), max_payload=len(message))

    def changed(**header: object) -> bytes:
        return wire.Envelope(dataclasses.replace(envelope.header, **header), envelope.payload).to_bytes()  # type: ignore[arg-type]

    mailbox.answers[1] = parcel.to_bytes(label, changed(key="0" * 64))
    mailbox.answers[2] = b"nothing that can be read"
    mailbox.answers[3] = parcel.to_bytes(
        parcel.from_bytes(mailbox.answers[3])[0], wire.Envelope(envelope.header, b"x").to_bytes()
    )
    mailbox.answers[4] = parcel.to_bytes(parcel.from_bytes(mailbox.answers[4])[0], changed(rows=3))
    centre = Centre(pair.holder, mailbox, TOKENS, record)
    assert centre.poll() == mailbox.acknowledged == 5
    assert (centre.fetched.rejected, centre.fetched.taken) == (4, 1)
    (stream,) = record.streams()
    assert (stream.rejected, stream.missing) == (3, 1)


def test_a_centre_waits_for_a_service_that_is_away(
    pair: Keys, spool: Spool, mailbox: MadeUpMailbox, record: Record, tmp_path: Path
) -> None:
    gateway(pair, spool, mailbox).run(source(tmp_path, spool))
    calls = iter([True, True, False])
    mailbox.away = lambda: next(calls, False)
    drawn: list[int] = []
    centre = Centre(pair.holder, mailbox, TOKENS, record)

    def page() -> None:
        drawn.append(len(record.streams()))
        if drawn[-1]:
            centre.stop()

    centre.run(interval=0.01, page=page)
    assert drawn == [0, 1]
    assert mailbox.opened == 3  # after each failure, in case that it was forgotten


def test_only_split_keys_and_whole_chunks(pair: Keys, spool: Spool, mailbox: MadeUpMailbox) -> None:
    with pytest.raises(FixConfigurationError, match="somebody else's public key"):
        gateway(make_keys(BUNDLE.public, "same"), spool, mailbox)
    with pytest.raises(FixConfigurationError, match="a batch is"):
        gateway(pair, spool, mailbox, batch=pair.plan.rows_per_chunk + 1)


def test_tokens_are_made_once_and_private(pair: Keys, tmp_path: Path) -> None:
    pair.save(tmp_path / "keys")
    tokens = make_tokens(tmp_path / "keys")
    assert tokens == make_tokens(tmp_path / "keys/secret")
    assert len({tokens.deposit, tokens.pickup}) == 2
    assert tokens.deposit not in repr(tokens)
    assert (tmp_path / "keys/secret/mailbox.json").stat().st_mode & 0o077 == 0
    write_token(tmp_path / "token", tokens.deposit)
    assert read_token(tmp_path / "token") == tokens.deposit
    (tmp_path / "token").chmod(0o644)
    with pytest.raises(FixInputError, match="others on this machine"):
        read_token(tmp_path / "token")
    for content in (b"", b"a b", b"\xff"):
        (tmp_path / "other").write_bytes(content)
        (tmp_path / "other").chmod(0o600)
        with pytest.raises(FixInputError, match="holds no token"):
            read_token(tmp_path / "other")
    make_keys(BUNDLE.public, "same").save(tmp_path / "same")
    with pytest.raises(FixConfigurationError, match="role split"):
        make_tokens(tmp_path / "same")


def test_another_machine_is_called_over_tls_only() -> None:
    with pytest.raises(FixConfigurationError, match="http is for a service on this machine"):
        Mailbox("http://scores.example.org", "0" * 64, TOKENS.deposit)
    assert issubclass(Mailbox, Service)
