"""Packing: sums of slots are exact and cannot overflow, whatever the values; what is no sum is none."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from securead.errors import FixConfigurationError, FixInputError
from securead.protocols.paillier.packed import SPARE_BITS, Packing


@st.composite
def packings(draw: st.DrawFn) -> Packing:
    return Packing(
        draw(st.integers(2, 40)), draw(st.integers(2, 64)), draw(st.integers(1, 120)), draw(st.integers(256, 3072))
    )


@given(packings())
def test_no_sum_of_all_sites_overflows_a_slot_a_plaintext_or_int64(packing: Packing) -> None:
    """The whole argument of the contract's section 3, at the largest values that a site may encrypt."""
    largest = 2 * packing.bound - 1
    assert packing.sites * largest < 2**packing.width
    assert packing.slots * packing.width <= packing.key_bits - 1 - SPARE_BITS
    assert packing.sites * packing.bound < 2**63
    assert packing.bound <= 2 ** (packing.bits - 1)
    # No bit is wasted: of the guard bits, one less would overflow.
    assert packing.sites * largest >= 2 ** (packing.width - 1)
    assert packing.slots * (packing.plaintexts - 1) < packing.count <= packing.slots * packing.plaintexts


@given(packings(), st.data())
def test_sums_are_exact(packing: Packing, data: st.DataObject) -> None:
    participants = data.draw(st.integers(1, packing.sites))
    value = st.one_of(
        st.integers(-packing.bound, packing.bound - 1), st.sampled_from([-packing.bound, packing.bound - 1])
    )
    drawn = data.draw(st.lists(value, min_size=1, max_size=8))
    values = [np.resize(np.roll(np.array(drawn, dtype=np.int64), at), packing.count) for at in range(participants)]
    plaintexts = [sum(column) for column in zip(*(packing.pack(each) for each in values), strict=True)]
    assert all(0 <= plaintext < 2 ** (packing.key_bits - 1 - SPARE_BITS) for plaintext in plaintexts)
    found = packing.unpack(plaintexts, participants)
    assert found is not None
    assert found.dtype == np.int64
    assert np.array_equal(found, sum(values[1:], values[0]))


@pytest.mark.parametrize("participants", [2, 5])
@pytest.mark.parametrize("extreme", ["lowest", "highest"])
@pytest.mark.parametrize("bits", [2, 16, 32, 62, 63, 64])
def test_every_slot_at_its_extreme(participants: int, extreme: str, bits: int) -> None:
    packing = Packing(5, bits, 100, 3072)
    values = np.full(100, -packing.bound if extreme == "lowest" else packing.bound - 1)
    found = packing.unpack([participants * plaintext for plaintext in packing.pack(values)], participants)
    assert found is not None
    assert np.array_equal(found, participants * values)


@given(packings(), st.sampled_from([-1, 1]), st.data())
def test_what_could_overflow_is_refused_and_not_named(packing: Packing, sign: int, data: st.DataObject) -> None:
    values = np.zeros(packing.count, dtype=np.int64)
    at, told = data.draw(st.integers(0, packing.count - 1)), set[str]()
    for further in (0, 1, 5):
        values[at] = packing.bound + further if sign > 0 else -packing.bound - 1 - further
        with pytest.raises(FixInputError, match="does not fit") as caught:
            packing.pack(values)
        told.add(str(caught.value))
    assert len(told) == 1


def test_other_arrays_are_refused() -> None:
    packing = Packing(3, 16, 10, 3072)
    for wrong in (np.zeros(9, dtype=np.int64), np.zeros(10), np.zeros(10, dtype=np.uint64)):
        with pytest.raises(FixInputError, match="int64"):
            packing.pack(wrong)


def test_what_is_no_sum_is_none() -> None:
    packing = Packing(3, 16, 100, 1024)
    good = [2 * plaintext for plaintext in packing.pack(np.zeros(100, dtype=np.int64))]
    top, high = 1 << (packing.slots * packing.width), 2 * (2 * packing.bound - 1)
    assert packing.unpack(good, 2) is not None
    assert packing.unpack([*good[:-1], good[-1] + top], 2) is None
    assert packing.unpack([*good[:-1], good[-1] - top], 2) is None
    assert packing.unpack([good[0] + high, *good[1:]], 2) is None  # a slot above what two sites can have
    assert packing.unpack(good[:-1], 2) is None
    assert packing.unpack([*good, 0], 2) is None
    # A slot after the last value.
    assert 100 % packing.slots
    assert packing.unpack([*good[:-1], good[-1] + (1 << packing.width * (packing.slots - 1))], 2) is None


def test_a_uniform_number_passes_for_a_sum_with_no_more_than_2_to_the_minus_64() -> None:
    """What a wrong sum opens to: at 3,072 bits, the slots leave 65 bits of the modulus free or more."""
    for bits in range(2, 65):
        packing = Packing(5, bits, 1, 3072)
        assert 2 ** (packing.slots * packing.width) <= 2 ** (3072 - 1 - SPARE_BITS)
    rng, packing = np.random.default_rng(0), Packing(2, 8, 56, 576)
    drawn = (int.from_bytes(rng.bytes(72), "little") for _ in range(2000))
    assert not any(packing.unpack([each], 2) is not None for each in drawn)


@pytest.mark.parametrize("wrong", [(1, 16, 10, 3072), (3, 1, 10, 3072), (3, 65, 10, 3072), (3, 16, 0, 3072)])
def test_packings_that_cannot_be(wrong: tuple[int, int, int, int]) -> None:
    with pytest.raises(FixConfigurationError):
        Packing(*wrong)


def test_a_key_too_small_for_a_value() -> None:
    with pytest.raises(FixConfigurationError, match="holds no value") as caught:
        Packing(5, 64, 1, 127)
    assert caught.value.remedy
    assert Packing(5, 64, 1, 128).slots == 1
