"""Mailboxes on disk: capabilities, repeated deposits, limits."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from securead.errors import FixInputError, RejectMessageError, RetryLaterError
from securead.protocols.parcel import Label
from securead.serving import outbox as module
from securead.serving.outbox import Outbox, WrongTokenError

KEY, OTHER = "a" * 64, "b" * 64
TOKENS = ("deposit-token", "pickup-token")
DEPOSIT, PICKUP = (hashlib.sha256(token.encode()).hexdigest() for token in TOKENS)
LABEL = Label("pump-1", "0" * 32, 0, (2,))


def numbered(sequence: int, stream: str = "0" * 32) -> Label:
    return dataclasses.replace(LABEL, sequence=sequence, stream=stream)


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[Outbox]:
    found = Outbox(tmp_path / "outbox", mailbox_bytes=100, all_bytes=150)
    found.open_mailbox(KEY, DEPOSIT, PICKUP)
    yield found
    found.close()


def test_the_first_to_open_a_mailbox_owns_it(outbox: Outbox) -> None:
    outbox.open_mailbox(KEY, DEPOSIT, PICKUP)
    for tokens in ((PICKUP, DEPOSIT), (DEPOSIT, "0" * 64)):
        with pytest.raises(WrongTokenError):
            outbox.open_mailbox(KEY, *tokens)
    for absurd in (("x", DEPOSIT, PICKUP), (KEY, "x", PICKUP), (OTHER, DEPOSIT, DEPOSIT)):
        with pytest.raises(RejectMessageError):
            outbox.open_mailbox(*absurd)


def test_each_token_is_good_for_one_thing(outbox: Outbox) -> None:
    outbox.check(KEY, "deposit", TOKENS[0])
    outbox.check(KEY, "pickup", TOKENS[1])
    for right, token in (("deposit", TOKENS[1]), ("pickup", TOKENS[0]), ("pickup", PICKUP), ("pickup", "")):
        with pytest.raises(WrongTokenError):
            outbox.check(KEY, right, token)
    with pytest.raises(RetryLaterError, match="has not opened a mailbox"):
        outbox.check(OTHER, "deposit", TOKENS[0])


def test_tokens_are_kept_hashed(outbox: Outbox, tmp_path: Path) -> None:
    content = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert DEPOSIT.encode() in content
    assert not any(token.encode() in content for token in TOKENS)


def test_answers_wait_until_they_are_acknowledged(outbox: Outbox, tmp_path: Path) -> None:
    for at in range(3):
        outbox.put(KEY, "m", numbered(at), b"%d" % at, b"answer %d" % at)
    outbox.close()
    again = Outbox(tmp_path / "outbox")
    first, second, third = again.waiting(KEY)
    assert (first.model, first.size, again.get(KEY, second.number)) == ("m", 8, b"answer 1")
    assert again.waiting(KEY, first.number) == (second, third)
    assert again.waiting(OTHER) == ()
    again.acknowledge(OTHER, first.number)  # not theirs
    assert len(again) == 3
    again.acknowledge(KEY, third.number)
    again.acknowledge(KEY, third.number)
    with pytest.raises(FixInputError, match="no such answer"):
        again.get(KEY, third.number)
    again.put(KEY, "m", numbered(3), b"3", b"answer 3")
    assert again.waiting(KEY)[-1].number > third.number  # numbers are never used again
    again.close()


def test_a_repeated_deposit_is_known_also_after_it_was_fetched(outbox: Outbox) -> None:
    outbox.put(KEY, "m", LABEL, b"digest", b"answer")
    outbox.put(KEY, "m", LABEL, b"digest", b"answer")
    (waiting,) = outbox.waiting(KEY)
    assert outbox.is_known(KEY, LABEL, b"digest")
    outbox.acknowledge(KEY, waiting.number)
    assert outbox.is_known(KEY, LABEL, b"digest")
    assert not outbox.is_known(KEY, numbered(1), b"digest")
    assert not outbox.is_known(KEY, numbered(0, "1" * 32), b"digest")
    assert not outbox.is_known(OTHER, LABEL, b"digest")


def test_a_spool_that_was_restored_is_refused_instead_of_swallowed(outbox: Outbox) -> None:
    outbox.put(KEY, "m", numbered(4), b"four", b"answer")
    for label, digest in ((numbered(4), b"another"), (numbered(3), b"three")):
        with pytest.raises(RejectMessageError, match="deposited before"):
            outbox.is_known(KEY, label, digest)


def test_a_full_mailbox_refuses_before_any_work_and_drops_nothing(outbox: Outbox) -> None:
    outbox.open_mailbox(OTHER, DEPOSIT, PICKUP)
    outbox.put(KEY, "m", numbered(0), b"0", bytes(90))
    with pytest.raises(RetryLaterError, match="mailbox is full"):
        outbox.refuse_full(KEY, 11)
    outbox.refuse_full(KEY, 10)
    outbox.refuse_full(OTHER, 60)
    with pytest.raises(RetryLaterError, match="mailbox is full"):
        outbox.refuse_full(OTHER, 61)  # that of all together
    (waiting,) = outbox.waiting(KEY)
    outbox.acknowledge(KEY, waiting.number)
    outbox.refuse_full(KEY, 100)


def test_what_is_remembered_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_MAILBOXES", 2)
    monkeypatch.setattr(module, "MOST_STREAMS", 2)
    outbox = Outbox(tmp_path / "outbox")
    for key in (KEY, OTHER):
        outbox.open_mailbox(key, DEPOSIT, PICKUP)
    with pytest.raises(RetryLaterError, match="as many mailboxes"):
        outbox.open_mailbox("c" * 64, DEPOSIT, PICKUP)
    for at in range(3):
        outbox.put(KEY, "m", numbered(0, f"{at}" * 32), b"digest", b"answer")
    outbox.put(OTHER, "m", numbered(0, "9" * 32), b"digest", b"answer")
    known = [outbox.is_known(KEY, numbered(0, f"{at}" * 32), b"digest") for at in range(3)]
    assert known == [False, True, True]
    outbox.close()
