"""Messages survive the way and back; anything else is refused in words, never by a crash."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from securead import errors
from securead.errors import RejectMessageError, RetryLaterError, SecureadError, UseOtherKeyError
from securead.protocols.sharing import messages
from securead.protocols.sharing.messages import (
    Agreed,
    Answer,
    Beat,
    Bind,
    Greeting,
    Hello,
    LinkMessage,
    Ready,
    Refusal,
    Reply,
    Request,
    Waiting,
    Welcome,
)

ID, DIGEST = "0123456789abcdef" * 2, "0123456789abcdef" * 4
REQUEST = Request(ID, 0, DIGEST, DIGEST, 0, 5, False, (ID, ID), (DIGEST, DIGEST))
SAMPLES: tuple[Any, ...] = (
    Hello(messages.VERSION, DIGEST, DIGEST, ID, 1, ID, "up"),
    Welcome(messages.VERSION, DIGEST, DIGEST, ID, 1, ID),
    Greeting(messages.VERSION, DIGEST, DIGEST, 0, 1, ID, False, False, True, "waits for the dealer"),
    REQUEST,
    Bind(REQUEST, "bank-a", 7),
    Ready(),
    Beat(),
    Agreed("no", "another hash"),
    Waiting(ID, "computing"),
    Answer(ID, 1, 5, 0.25, 12, 100, 200, 300),
    Refusal("RetryLaterError", "the dealer is away", "Start it."),
)
KINDS = (*(type(sample) for sample in SAMPLES), Reply, LinkMessage)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: type(sample).__name__)
def test_round_trip(sample: Any) -> None:
    assert messages.from_bytes(type(sample), messages.to_bytes(sample), sender="party0") == sample


@given(st.sampled_from(KINDS), st.binary(max_size=300))
def test_random_bytes_are_refused(kind: type[Any], content: bytes) -> None:
    with pytest.raises(RejectMessageError):
        messages.from_bytes(kind, content, sender="party0")


@given(st.sampled_from(SAMPLES), st.data())
def test_truncated_and_damaged_messages_never_crash(sample: Any, data: st.DataObject) -> None:
    content = bytearray(messages.to_bytes(sample))
    with pytest.raises(RejectMessageError):
        messages.from_bytes(type(sample), content[: data.draw(st.integers(0, len(content) - 1))], sender="party1")
    content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        messages.from_bytes(type(sample), content, sender="party1")
    except RejectMessageError:
        return


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=70),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(SAMPLES), st.data())
def test_every_entry_is_checked(sample: Any, data: st.DataObject) -> None:
    plain = json.loads(messages.to_bytes(sample))
    name = data.draw(st.sampled_from(sorted(plain)))
    plain[name] = data.draw(JSON)
    try:
        read = messages.from_bytes(type(sample), json.dumps(plain).encode(), sender="party1")
    except RejectMessageError:
        return
    assert type(read) is type(sample)


def test_too_large() -> None:
    with pytest.raises(RejectMessageError, match="too large"):
        messages.from_bytes(Refusal, b" " * (messages.MAX_HEADER_BYTES + 1), sender="a client")


@pytest.mark.parametrize("content", [b"[" * 10_000, b"1" * 10_000, b'{"version": 2}', b"\xff"])
def test_hostile_json(content: bytes) -> None:
    with pytest.raises(RejectMessageError):
        messages.from_bytes(Greeting, content, sender="party0")


def test_another_version_is_told_apart() -> None:
    plain = json.loads(messages.to_bytes(SAMPLES[2]))
    plain.update(version=2, unheard_of=True)
    with pytest.raises(RejectMessageError, match="another version"):
        messages.from_bytes(Greeting, json.dumps(plain).encode(), sender="party0")


def test_another_model_is_named() -> None:
    messages.refuse_mismatch(DIGEST, DIGEST, ours=(DIGEST, DIGEST), sender="party1")
    with pytest.raises(RejectMessageError, match="another model"):
        messages.refuse_mismatch("f" * 64, DIGEST, ours=(DIGEST, DIGEST), sender="party1")
    with pytest.raises(RejectMessageError, match="other parameters"):
        messages.refuse_mismatch(DIGEST, "f" * 64, ours=(DIGEST, DIGEST), sender="party1")


def test_errors_cross_the_wire() -> None:
    told = Refusal.of(UseOtherKeyError("another certificate", where="party0", value="a secret", remedy="Renew it."))
    assert "secret" not in str(told)
    error = told.to_error("party0")
    assert type(error) is UseOtherKeyError
    assert str(error) == "party0 says: party0: another certificate. Renew it."


@pytest.mark.parametrize("name", ["os", "SecureadErrors", "annotations", "Exception", "__name__"])
def test_only_our_errors_are_raised(name: str) -> None:
    error = Refusal(name, "a\x1b[31m", "b\n").to_error("party1")
    assert type(error) is RetryLaterError
    assert "\x1b" not in str(error)
    assert isinstance(error, SecureadError)
    assert not hasattr(errors, "os")
