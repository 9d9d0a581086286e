"""Updates in few bits travel in few bits: plain and masked, exactly, and refused where they cannot be read."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from test_masked import MASKED, SCHEMA, STUDY, X, sites

from securead.errors import RejectMessageError
from securead.federated import embedded, participant
from securead.federated.embedded import train
from securead.federated.federation import Federation
from securead.federated.messages import Answer, Ask, from_bytes, in_words, same_bits, to_bytes, word_bits
from securead.models.autoencoder import AutoEncoder
from securead.models.training import bits_of_sum
from securead.protocols.masking.masks import signed, unmask


def make(**parameters: Any) -> AutoEncoder:
    return AutoEncoder(hidden=4, rounds=2, sampling_prob=0.1, patience=9, **parameters)


@given(st.integers(8, 62), st.integers(1, 200), st.integers(0, 2**32))
@settings(max_examples=100)
def test_words_return_what_was_put_in(bits: int, count: int, seed: int) -> None:
    half = 1 << (bits - 1)
    values = np.random.default_rng(seed).integers(-half, half, count, endpoint=False)
    values[0] = -half
    answer = Answer("prepare", "a", bits=bits, arrays={"values": in_words(values, bits)})
    back = from_bytes(Answer, to_bytes(answer), where="test").values
    assert back.dtype == np.int64
    assert np.array_equal(back, values)
    assert answer.arrays["values"].nbytes == (count * bits + 7) // 8
    masked = dataclasses.replace(answer, kind="send").values
    assert masked.dtype == np.uint64
    assert np.array_equal(signed(masked, bits), values)


@given(st.integers(4, 32), st.integers(2, 20), st.integers(0, 2**32))
@settings(max_examples=100)
def test_masked_words_add_up(bits: int, count: int, seed: int) -> None:
    """Every value as large as it may be, behind masks of all 64 bits that cancel."""
    rng, width = np.random.default_rng(seed), word_bits(bits, count)
    top = 2 ** (bits - 1) - 1
    values = rng.choice([-top, top], (count, 30)) if seed % 2 else np.full((count, 30), -top)
    masks = rng.integers(0, 2**64, (count, 30), dtype=np.uint64)
    masks[-1] = -masks[:-1].sum(axis=0, dtype=np.uint64)
    names = [f"s{i}" for i in range(count)]
    answers = [
        Answer("send", name, bits=width, arrays={"values": in_words(value.view(np.uint64) + mask, width)})
        for name, value, mask in zip(names, values, masks, strict=True)
    ]
    messages = {answer.site: answer.values for answer in answers}
    assert np.array_equal(unmask(messages, names, bits=same_bits(answers)), values.sum(axis=0))
    # One bit more than the sum needs: whoever masked otherwise is noticed.
    messages[names[0]] = messages[names[0]] ^ rng.integers(0, 1 << width, 30, dtype=np.uint64)
    with pytest.raises(RejectMessageError, match="do not cancel"):
        unmask(messages, names, bits=width)


def test_widths() -> None:
    assert [word_bits(bits) for bits in (4, 8, 12, 62, 63, 64)] == [8, 8, 12, 62, 64, 64]
    assert [word_bits(bits, 5) for bits in (4, 8, 16, 58, 59, 64)] == [8, 12, 20, 62, 64, 64]
    assert bits_of_sum(8, 5) == 11


@pytest.mark.parametrize("privacy", [None, STUDY], ids=["exact", "noised"])
@pytest.mark.parametrize("bits", [5, 8, 16])
def test_masked_and_plain_runs_make_the_same_model(bits: int, privacy: Any) -> None:
    plain, masked = (
        train(make(update_bits=bits), sites(), SCHEMA, privacy=privacy, federation=federation)
        for federation in (Federation(), MASKED)
    )
    assert np.array_equal(plain.values_["theta"], masked.values_["theta"])
    assert np.array_equal(plain.anomaly_score(X), masked.anomaly_score(X))


def test_what_is_sent_is_short_and_masked_words_look_random(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = list[Answer]()

    class Watched(participant.Participant):
        def answer(self, ask: Ask) -> Answer:
            seen.append(super().answer(ask))
            return seen[-1]

    monkeypatch.setattr(embedded, "Participant", Watched)
    detector = train(make(update_bits=8), sites(), SCHEMA, privacy=STUDY, federation=MASKED)
    values = len(detector.values_["theta"]) + 1
    short = [answer for answer in seen if answer.kind == "send" and answer.bits < 64]
    assert len(short) == 2 * 4
    for answer in short:
        assert answer.bits == 8 + 2 + 1
        assert answer.arrays["values"].nbytes == (values * 11 + 7) // 8
        assert len(answer.values) == values
    counts = np.bincount(np.concatenate([answer.values for answer in short]) >> np.uint64(7), minlength=16)
    assert len(counts) == 16
    assert stats.chisquare(counts).pvalue > 1e-6
    # Nothing else is shortened, and nothing that a coordinator sees is a plain update.
    assert {answer.bits for answer in seen if answer.kind == "prepare"} == {64}
    assert not any("values" in answer.arrays for answer in seen if answer.kind == "prepare")


def test_an_update_beyond_its_bits_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    from securead.models.averaging import Quantised

    monkeypatch.setattr(Quantised, "top", property(lambda self: 1000))
    with pytest.raises(OverflowError, match="8 bits"):
        train(make(update_bits=8), sites(), SCHEMA, privacy=None, federation=MASKED)


@pytest.mark.parametrize(
    ("bits", "values"),
    [
        (7, np.zeros(9, np.uint8)),
        (63, np.zeros(90, np.uint8)),
        (-8, np.zeros(9, np.uint8)),
        (8, np.zeros(9, np.int64)),
        (64, np.zeros(9, np.uint8)),
        (12, np.zeros((3, 3), np.uint8)),
        (12, np.zeros(1, np.uint8)),
        (12, np.zeros(0, np.uint8)),
    ],
)
def test_what_cannot_be_read_is_refused(bits: int, values: np.ndarray) -> None:
    answer = Answer("send", "a", bits=bits, arrays={"values": values})
    with pytest.raises(RejectMessageError, match="no update"):
        _ = from_bytes(Answer, to_bytes(answer), where="test").values


def test_sites_that_disagree_about_bits_are_named() -> None:
    with pytest.raises(RejectMessageError, match=r"different numbers of bits.*'b': 12"):
        same_bits([Answer("send", "a", bits=11), Answer("send", "b", bits=12)])
