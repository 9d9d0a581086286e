"""Sums are exact, and a single masked update is uniform to whoever lacks the keys.

The test of uniformity is chi-square over the eight bytes of each word, 255 degrees of freedom each. Keys are the
operating system's, values are seeded. It rejects above the 1 - 1e-8 quantile; with 16 statistics (8 bytes of two
messages) a false alarm has probability below 2e-7 a run. That it has power is tested: it rejects the update as it is,
under a constant mask, and under a mask of 56 bits.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from masking_setting import Sites, update
from scipy import stats

from securead.data.schema import Array
from securead.errors import RejectMessageError
from securead.protocols.masking import masks

NAMES = ("b", "a", "a2", "Zürich", "bank-1", "é")
LIMIT = stats.chi2.isf(1e-8, 255)
WORDS = 20_000


@pytest.fixture(scope="module")
def six() -> Sites:
    return Sites(NAMES, attempts=1)


ROUNDS = iter(range(10**6))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_sums_are_exact(six: Sites, data: st.DataObject) -> None:
    names = data.draw(st.lists(st.sampled_from(NAMES), min_size=2, unique=True))
    shape = data.draw(st.one_of(st.just(()), arrays.array_shapes(max_dims=3, max_side=5, min_side=0)))
    bound = masks.SUM_BOUND // len(names) - 1
    drawn = arrays.arrays(np.int64, shape, elements=st.integers(-bound, bound))
    values = {name: data.draw(drawn) for name in names}
    messages = six.masked(next(ROUNDS), 1, values)
    total = masks.unmask(messages, names)
    assert total.dtype == np.int64
    assert total.shape == shape
    exact = sum((array.astype(object) for array in values.values()), np.zeros(shape, dtype=object))
    assert np.array_equal(total, exact)


def test_the_largest_values_do_not_overflow() -> None:
    for count in (2, 3, 5):
        names = [f"s{i}" for i in range(count)]
        bound = masks.SUM_BOUND // count - 1
        for value in (bound, -bound):
            messages = Sites(names).masked(0, 1, {name: np.array([value, 0]) for name in names})
            assert masks.unmask(messages, names).tolist() == [count * value, 0]


def statistics(words: Array) -> Array:
    """Chi-square of every byte of the words, against uniform."""
    content = np.ascontiguousarray(words).view(np.uint8).reshape(-1, 8)
    counts = np.stack([np.bincount(column, minlength=256) for column in content.T])
    expected = len(content) / 256
    return ((counts - expected) ** 2 / expected).sum(axis=1)


@pytest.mark.parametrize("name", ["a", "b"])
def test_a_single_message_is_uniform(name: str) -> None:
    values = {each: update(WORDS, seed) for seed, each in enumerate(("a", "b"))}
    assert statistics(Sites(("a", "b")).masked(0, 1, values)[name]).max() < LIMIT


@pytest.mark.parametrize(
    "mask",
    [
        lambda words: words,
        lambda words: words + np.uint64(0x9E3779B97F4A7C15),
        lambda words: words + (masks.stream(bytes(32), len(words)) >> np.uint64(8)),
        lambda words: words + np.resize(masks.stream(bytes(32), 64), len(words)),
    ],
    ids=["none", "constant", "56 bits", "repeated"],
)
def test_the_statistic_has_power(mask: Callable[[Array], Array]) -> None:
    assert statistics(mask(update(WORDS).view(np.uint64))).max() > LIMIT


def test_a_message_holds_no_piece_of_the_update() -> None:
    values = {name: np.random.default_rng(seed).integers(-(2**40), 2**40, 2000) for seed, name in enumerate("abc")}
    for name, message in Sites(tuple("abc")).masked(0, 1, values).items():
        sent, plain = message.tobytes(), values[name].tobytes()
        windows = {plain[at : at + 8] for at in range(len(plain) - 7)}
        assert not any(sent[at : at + 8] in windows for at in range(len(sent) - 7))


def test_whatever_changes_changes_every_mask() -> None:
    sites, zeros = Sites(tuple("abcd")), np.zeros(500, dtype=np.int64)
    sent = []
    for round, attempt, names in ((0, 1, "abcd"), (0, 2, "abc"), (1, 1, "abc"), (1, 2, "ab"), (2, 1, "ab")):
        sent.append(sites.masked(round, attempt, dict.fromkeys(names, zeros))["a"])
    other = Sites(tuple("abcd"), run="another run")
    other.memories = {name: type(memory)() for name, memory in other.memories.items()}
    for name, memory in other.memories.items():  # the same X25519 keys, though no site would do that
        memory.put("masking.key", sites.memories[name].get("masking.key"))
    other.maskers = {name: other.start(name) for name in other.memories}
    other.adverts = {name: masker.advert() for name, masker in other.maskers.items()}
    assert other.adverts["a"].key == sites.adverts["a"].key
    sent.append(other.masked(0, 1, dict.fromkeys("abcd", zeros))["a"])
    for at, message in enumerate(sent):
        assert message.all()
        assert not any((message == before).any() for before in sent[:at])


def test_messages_of_another_set_give_no_sum() -> None:
    """C masked for all three, the others without it: what was sent adds up to noise, not to a wrong sum."""
    sites, values = Sites(tuple("abc")), {name: update(100, seed) for seed, name in enumerate("abc")}
    first = sites.masked(0, 1, values)
    second = sites.masked(0, 2, {name: values[name] for name in "ab"})
    assert np.array_equal(masks.unmask(second, ["a", "b"]), values["a"] + values["b"])
    with pytest.raises(RejectMessageError, match="do not cancel"):
        masks.unmask({"a": first["a"], "b": first["b"]}, ["a", "b"])
    with pytest.raises(RejectMessageError, match="do not cancel"):
        masks.unmask({**second, "c": first["c"]}, ["a", "b", "c"])


def test_sums_of_other_types_are_refused() -> None:
    words = np.zeros(3, dtype=np.uint64)
    with pytest.raises(RejectMessageError, match="uint64"):
        masks.unmask({"a": words, "b": words.astype(np.int64)}, ["a", "b"])
