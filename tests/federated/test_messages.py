"""Messages of a run: what goes in comes out, and nothing but a message gets in."""

from __future__ import annotations

import random
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of
from replay import SEED

from securead.errors import FixInputError, RejectMessageError
from securead.federated.messages import (
    Answer,
    Ask,
    Refusal,
    Report,
    Sum,
    from_bytes,
    pack,
    plain_text,
    to_bytes,
    unpack,
)
from securead.models.training import Total
from securead.privacy.statement import SiteGuarantee
from securead.protocols.masking.adverts import Advert

TOTALS = [Total("scaling", np.arange(6).reshape(2, 3), 2.5, 3), Total("counts", np.array([1, -2]), 0.0, 2)]
ADVERT = Advert("a", "run", "00" * 32, "01", "02")
ASK = Ask.with_totals("prepare", "run", TOTALS, 0, round=3, attempt=2, adverts=(ADVERT, ADVERT))
ANSWER = Answer(
    "send",
    "a",
    3,
    2,
    ADVERT,
    "ff",
    1.5,
    report=Report("a", 0.25, SiteGuarantee("a", 1.0, 2.0)),
    arrays={"values": np.array([1, 2**64 - 1], dtype=np.uint64)},
)


def same(one: Ask | Answer, two: Ask | Answer) -> bool:
    return to_bytes(one) == to_bytes(two) and all(np.array_equal(one.arrays[k], two.arrays[k]) for k in one.arrays)


def test_what_goes_in_comes_out() -> None:
    ask, answer = from_bytes(Ask, to_bytes(ASK), where="x"), from_bytes(Answer, to_bytes(ANSWER), where="x")
    assert same(ask, ASK)
    assert same(answer, ANSWER)
    for one, two in zip(ask.totals, TOTALS, strict=True):
        assert (one.stage, one.noise_variance, one.sites) == (two.stage, two.noise_variance, two.sites)
        assert np.array_equal(one.values, two.values)
    assert [total.stage for total in Ask.with_totals("finish", "run", TOTALS, 1).totals] == ["counts"]
    assert ask.adverts == (ADVERT, ADVERT)
    assert answer.values.dtype == np.uint64
    refused = Answer("join", "b", refusal=Refusal("FixInputError", "no"))
    assert from_bytes(Answer, to_bytes(refused), where="x").refusal == Refusal("FixInputError", "no")


DTYPES = st.sampled_from(["<f8", "<i8", "<u8", "<f4", "<i4", "|u1", "|b1"])
SHAPES = arrays_of.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)


@given(st.dictionaries(st.text(max_size=8), arrays_of.arrays(DTYPES, SHAPES), max_size=4))
def test_arrays_of_every_type_and_shape_travel(arrays: dict[str, np.ndarray]) -> None:
    header, found = unpack(pack({"n": 1}, arrays), where="x")
    assert header == {"n": 1}
    assert list(found) == list(arrays)
    for name, array in arrays.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes()


@pytest.mark.parametrize("array", [np.array(["a"]), np.array([1j]), np.array([None])])
def test_other_arrays_are_a_mistake_of_the_program(array: np.ndarray) -> None:
    with pytest.raises(TypeError, match="no place in a message"):
        pack({}, {"x": array})


def test_every_truncation_is_refused() -> None:
    content = to_bytes(ANSWER)
    for size in range(len(content)):
        with pytest.raises(RejectMessageError, match="no message of a training run"):
            from_bytes(Answer, content[:size], where="x")
    with pytest.raises(RejectMessageError):
        from_bytes(Answer, content + b"\0", where="x")


def test_mutations_are_refused_or_read_as_some_message() -> None:
    rng = random.Random(SEED)
    refused = 0
    for content, cls in ((to_bytes(ASK), Ask), (to_bytes(ANSWER), Answer)):
        for _ in range(1500):
            changed = bytearray(content)
            for _ in range(rng.randint(1, 4)):
                changed[rng.randrange(len(changed))] = rng.randrange(256)
            try:
                from_bytes(cls, bytes(changed), where="x")
            except (RejectMessageError, FixInputError):
                refused += 1
            except ValueError as error:
                pytest.fail(f"{error!r} is for no reader")
    assert refused > 1000


@pytest.mark.parametrize(
    "head",
    [
        b'{"header": {}, "arrays": {"x": ["<f8", [1000000000, 1000000000]]}}',
        b'{"header": {}, "arrays": {"x": ["<f8", [-1]]}}',
        b'{"header": {}, "arrays": {"x": ["|O", [1]]}}',
        b'{"header": {}, "arrays": {"x": ["<f8", [true]]}}',
        b'{"header": {}, "arrays": {"x": 3}}',
        b'{"header": [], "arrays": {}}',
        b"[" * 100_000,
        b"null",
    ],
)
def test_hostile_headers_are_refused_before_memory_is_asked_for(head: bytes) -> None:
    with pytest.raises(RejectMessageError):
        unpack(struct.pack("<4sHI", b"SCAF", 1, len(head)) + head, where="x")


def test_sizes_are_limited_before_parsing() -> None:
    with pytest.raises(RejectMessageError):
        unpack(to_bytes(ASK), where="x", limit=100)
    with pytest.raises(RejectMessageError):
        unpack(struct.pack("<4sHI", b"SCAF", 1, 2**32 - 1) + b"{}", where="x")


@pytest.mark.parametrize(
    "answer",
    [
        Answer("prepare", "a"),
        Answer("prepare", "a", arrays={"values": np.zeros(3)}),
        Answer("prepare", "a", bits=3, arrays={"values": np.zeros(3, dtype=np.uint8)}),
        Answer("prepare", "a", bits=16, arrays={"values": np.zeros(3, dtype=np.int64)}),
    ],
)
def test_an_answer_without_an_update_is_named(answer: Answer) -> None:
    with pytest.raises(RejectMessageError, match=r"site 'a'.*no update"):
        _ = answer.values


def test_absurd_answers_are_refused() -> None:
    with pytest.raises(RejectMessageError, match="variance"):
        Answer("prepare", "a", noise_variance=-1.0)
    for head in (Sum("counts", 0.0, 1), Sum("counts", -1.0, 1), Sum("counts", 0.0, 0)):
        arrays = {} if head.sites and not head.noise_variance else {"sum-0": np.zeros(2, dtype=np.int64)}
        with pytest.raises(RejectMessageError, match="sum is none"):
            _ = Ask("prepare", "run", sums=(head,), arrays=arrays).totals


def test_what_the_other_end_says_is_shown_as_one_plain_line() -> None:
    assert plain_text("no\x1b[2Jsuch\nsite\u202e") == "no [2Jsuch site "
    assert len(plain_text("x" * 10_000)) == 400
