"""What a site and the coordinator do, refuse and remember in packed sums; what opening can be made to tell."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from summing_setting import BITS, Summers, update

from securead.data.schema import Array
from securead.errors import (
    FixInputError,
    PrivacyRefusedError,
    RejectMessageError,
    UseOtherKeyError,
)
from securead.privacy.site import Kept
from securead.protocols.masking.identity import Identity
from securead.protocols.paillier import groupkey, keys, sums
from securead.protocols.paillier.groupkey import GroupKey
from securead.protocols.paillier.packed import Packing
from securead.protocols.paillier.summing import Summing
from securead.protocols.paillier.sums import Adder

pytest.importorskip("phe")
ABC = tuple("abc")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "KEY_BITS", BITS)


def ready(names: tuple[str, ...] = ABC, run: str = "run") -> Summers:
    sites = Summers(names, run=run)
    sites.share()
    return sites


def updates(names: str | tuple[str, ...], size: int, bits: int = 16) -> dict[str, Array]:
    return {name: update(size, ord(name), bits) for name in names}


# --- sums


@pytest.mark.parametrize("bits", [4, 16, 32, 64])
@pytest.mark.parametrize("size", [1, 26, 27, 100])
def test_whoever_opens_the_sum_is_exact(bits: int, size: int) -> None:
    sites = ready()
    bound = sites.sites["a"].packing(np.zeros(size), bits).bound
    values = {name: np.clip(update(size, at, min(bits, 62)), -bound + 1, bound - 1) for at, name in enumerate(ABC)}
    messages, signatures = sites.send(1, 1, values, bits)
    product = sites.product(messages)
    for name in ABC:
        opened = sites.sites[name].open(1, 1, signatures, values[name], bits, product)
        assert opened is not None
        assert opened.dtype == np.int64
        assert np.array_equal(opened, sum(values.values()))


@settings(max_examples=25)
@given(st.integers(2, 5), st.integers(2, 64), st.integers(1, 40), st.integers(0, 2**32 - 1), st.booleans())
def test_any_update_within_its_bits_adds_up_exactly(count: int, bits: int, size: int, seed: int, extreme: bool) -> None:
    keys.KEY_BITS = BITS  # fixtures are one for all examples
    rng, n = np.random.default_rng(seed), FIXED.n
    packing = Packing(count, bits, size, BITS)
    low, high = -packing.bound, packing.bound - 1
    values = [
        rng.choice([low, high], size) if extreme else rng.integers(low, high, size, endpoint=True) for _ in range(count)
    ]
    adder, names = Adder(n), [f"site {at}" for at in range(count)]
    for name, array in zip(names, values, strict=True):
        pads = FIXED.pads("run", 1, (name, KEY), packing.plaintexts)
        pairs = zip(packing.pack(array), pads, strict=True)
        adder.add(name, sums.to_array([FIXED.private.encrypt((e + pad) % n) for e, pad in pairs]))
    left = [FIXED.private.decrypt(c) for c in sums.from_array(adder.total(names), n, where="sum")]
    for name in names:
        left = [
            (u - pad) % n for u, pad in zip(left, FIXED.pads("run", 1, (name, KEY), packing.plaintexts), strict=True)
        ]
    opened = packing.unpack(left, count)
    assert opened is not None
    assert np.array_equal(opened, sum(values[1:], values[0]))


KEY = bytes(range(32))
"""A site's of the run, where it is the same for all."""


def _fixed() -> GroupKey:
    before, keys.KEY_BITS = keys.KEY_BITS, BITS
    try:
        return GroupKey.generate()
    finally:
        keys.KEY_BITS = before


FIXED = _fixed()


def test_a_smaller_set_needs_no_second_encryption() -> None:
    sites, values = ready(), updates(ABC, 60)
    first, _ = sites.send(1, 1, values, 16)
    rest = {name: values[name] for name in "ab"}
    second, signatures = sites.send(1, 2, rest, 16)
    assert all(np.array_equal(first[name], second[name]) for name in "ab")
    opened = sites.sites["b"].open(1, 2, signatures, values["b"], 16, sites.product(second))
    assert np.array_equal(opened, values["a"] + values["b"])
    # The larger set is over: it is not opened any more.
    with pytest.raises(PrivacyRefusedError, match="attempt is over"):
        sites.sites["a"].open(1, 1, signatures, values["a"], 16, sites.product(first))


def test_shapes_are_kept() -> None:
    sites = ready()
    values = {name: update(12, at).reshape(3, 4) for at, name in enumerate(ABC)}
    messages, signatures = sites.send(1, 1, values, 16)
    opened = sites.sites["c"].open(1, 1, signatures, values["c"], 16, sites.product(messages))
    assert np.array_equal(opened, sum(values.values()))


# --- what a message shows


def test_plaintexts_of_messages_are_uniform_even_to_who_holds_the_factors() -> None:
    """Without pads they are the values themselves: the test tells the two apart."""
    sites, size = ready(), 400
    values = {name: np.full(size, at, dtype=np.int64) for at, name in enumerate(ABC)}
    messages, _ = sites.send(1, 1, values, 16)
    factors = GroupKey.from_bytes(sites.memories["a"].get("paillier.key").tobytes(), where="a").private
    padded = [factors.decrypt(c) for name in ABC for c in sums.from_array(messages[name], sites.n, where=name)]
    plain = [e for array in values.values() for e in sites.sites["a"].packing(array, 16).pack(array)]
    found = {}
    for what, plaintexts in (("padded", padded), ("plain", plain)):
        # The lowest 48 bytes of each; the highest are below the modulus and not of all values.
        content = b"".join((each % 2**384).to_bytes(48, "little") for each in plaintexts)
        counts = np.bincount(np.frombuffer(content, np.uint8), minlength=256)
        found[what] = stats.chisquare(counts).pvalue
    assert found["padded"] > 1e-6  # false alarm: one in a million
    assert found["plain"] < 1e-100


def test_pads_differ_in_everything_they_depend_on() -> None:
    pads = FIXED.pads("run", 1, ("a", KEY), 3)
    other = GroupKey(FIXED.private, bytes(32))
    families = [
        FIXED.pads("run 2", 1, ("a", KEY), 3), FIXED.pads("run", 2, ("a", KEY), 3), FIXED.pads("run", 1, ("b", KEY), 3),
        other.pads("run", 1, ("a", KEY), 3), FIXED.pads("run", 1, ("a", bytes(32)), 3),
    ]  # fmt: skip
    assert pads == FIXED.pads("run", 1, ("a", KEY), 3)
    assert pads[:2] == FIXED.pads("run", 1, ("a", KEY), 2)
    drawn = [pads, *families]
    assert len({pad for each in drawn for pad in each}) == 18
    assert all(0 <= pad < FIXED.n for each in drawn for pad in each)


def test_the_same_update_twice_is_not_the_same_ciphertext() -> None:
    sites, values = ready(), updates(ABC, 20)
    messages = [sites.send(round, 1, values, 16)[0]["a"] for round in (1, 2)]
    assert not (messages[0] == messages[1]).all(axis=1).any()


# --- what opening can be made to tell


def crafted(sites: Summers, messages: dict[str, Array], what: str) -> list[int]:
    """What a coordinator may try to have opened instead of the sum of all three."""
    n = sites.n
    rows = {name: sums.from_array(array, n, where=name) for name, array in messages.items()}
    if what == "one message":
        return rows["a"]
    if what == "one is missing":
        return [a * b % n**2 for a, b in zip(rows["a"], rows["b"], strict=True)]
    if what == "a multiple":
        return [a * a * b * c % n**2 for a, b, c in zip(*rows.values(), strict=True)]
    if what == "a shifted multiple":  # 1 + 2^width times one site, which would move its slots to its neighbours'
        return [pow(a, 1 + 2**18, n**2) * b * c % n**2 for a, b, c in zip(*rows.values(), strict=True)]
    if what == "a difference":
        return [a * pow(b, -1, n**2) % n**2 for a, b in zip(rows["a"], rows["b"], strict=True)]
    if what == "plaintexts in another order":
        product = [a * b * c % n**2 for a, b, c in zip(*rows.values(), strict=True)]
        return product[1:] + product[:1]
    assert what == "an encryption of nothing"
    return [1 + n * 5] * len(rows["a"])


@pytest.mark.parametrize(
    "what",
    [
        "one message", "one is missing", "a multiple", "a shifted multiple", "a difference",
        "plaintexts in another order", "an encryption of nothing",
    ],
)  # fmt: skip
def test_nothing_but_the_sum_opens(what: str) -> None:
    sites, values = ready(), {name: np.zeros(60, dtype=np.int64) for name in ABC}
    messages, signatures = sites.send(1, 1, values, 16)
    total = sums.to_array(crafted(sites, messages, what))
    assert sites.sites["a"].open(1, 1, signatures, values["a"], 16, total) is None
    product = sites.product(messages)
    assert sites.sites["a"].open(1, 1, signatures, values["a"], 16, product) is not None


def test_what_opens_is_the_sum_whatever_is_added_to_it() -> None:
    """A coordinator may shift the sum by what it knows, and sees the shifted sum: a function of the sum alone."""
    sites, values = ready(), updates(ABC, 5, bits=8)
    messages, signatures = sites.send(1, 1, values, 16)
    (product,) = sums.from_array(sites.product(messages), sites.n, where="sum")
    shifted = sums.to_array([product * (1 + sites.n * 7) % sites.n**2])
    opened = sites.sites["b"].open(1, 1, signatures, values["b"], 16, shifted)
    assert np.array_equal(opened, sum(values.values()) + np.array([7, 0, 0, 0, 0]))


def test_another_round_or_set_does_not_open() -> None:
    sites, values = ready(), updates(ABC, 30)
    first, _ = sites.send(1, 1, values, 16)
    second, signatures = sites.send(2, 1, values, 16)
    for name in ABC:
        mixed = sites.product({**second, name: first[name]})
        assert sites.sites["a"].open(2, 1, signatures, values["a"], 16, mixed) is None
    with pytest.raises(PrivacyRefusedError, match="round is over"):
        sites.maskers["a"].agree(1, 1, [sites.adverts[name] for name in "ab"])
    for wrong in ({}, {**signatures, "b": signatures["a"]}):
        with pytest.raises((RejectMessageError, UseOtherKeyError)):
            sites.sites["a"].open(2, 1, wrong, values["a"], 16, sites.product(second))
    with pytest.raises(RejectMessageError, match="agreed to no set"):
        sites.sites["a"].open(2, 2, signatures, values["a"], 16, sites.product(second))


def test_a_site_that_lost_its_memory_has_other_pads() -> None:
    """C never met a and hands it the key again: with a's old message, nothing but the new sum opens."""
    sites, values, newer = ready(), updates(ABC, 5, bits=8), update(5, 99, 8)
    before, _ = sites.send(1, 1, {name: values[name] for name in "ab"}, 16)
    sites.memories["a"] = Kept()
    sites.sites["a"] = sites.start("a")
    sites.adverts["a"] = sites.maskers["a"].advert()
    (sealed,) = sites.sites["c"].hand_on([sites.adverts["a"]])
    sites.sites["a"].take(sites.adverts["c"], sites.sites["c"].modulus.tobytes(), sealed)
    messages, signatures = sites.send(1, 1, {"a": newer, "c": values["c"]}, 16)
    n = sites.n
    (old,), (new,), (c,) = (sums.from_array(each, n, where="x") for each in (before["a"], *messages.values()))
    for what in (old * c, new * c * new * pow(old, -1, n**2)):
        forged = sums.to_array([what % n**2])
        assert sites.sites["c"].open(1, 1, signatures, values["c"], 16, forged) is None
    opened = sites.sites["c"].open(1, 1, signatures, values["c"], 16, sites.product(messages))
    assert np.array_equal(opened, newer + values["c"])


def test_what_is_no_ciphertext_is_not_opened() -> None:
    sites, values = ready(), updates(ABC, 60)
    messages, signatures = sites.send(1, 1, values, 16)
    product, n = sites.product(messages), sites.n
    factor = GroupKey.from_bytes(sites.memories["a"].get("paillier.key").tobytes(), where="a").private.p
    size = keys.ciphertext_bytes()
    wrong = [product[:-1], product[:, :-1], product.astype(np.int64), product[:0], product[0]]
    for number in (0, n * n, n, factor, 2 ** (8 * size) - 1):
        changed = product.copy()
        changed[1] = np.frombuffer(number.to_bytes(size, "little"), np.uint8)
        wrong.append(changed)
    for total in wrong:
        with pytest.raises(RejectMessageError):
            sites.sites["a"].open(1, 1, signatures, values["a"], 16, total)


# --- the coordinator's sums


def test_the_adder_refuses_what_is_no_message() -> None:
    sites, values = ready(), updates(ABC, 60)
    messages, _ = sites.send(1, 1, values, 16)
    n, size = sites.n, keys.ciphertext_bytes()
    for number in (0, n * n, 3 * n, 2 ** (8 * size) - 1):
        changed = messages["a"].copy()
        changed[0] = np.frombuffer(number.to_bytes(size, "little"), np.uint8)
        with pytest.raises(RejectMessageError, match=r"site 'a'.*outside"):
            Adder(n).add("a", changed)
    for wrong in (messages["a"][:, :-1], messages["a"].astype(np.uint16), messages["a"][:0]):
        with pytest.raises(RejectMessageError, match="no ciphertexts"):
            Adder(n).add("a", wrong)


def test_two_differing_updates_of_one_site() -> None:
    sites, values = ready(), updates(ABC, 60)
    messages, _ = sites.send(1, 1, values, 16)
    other, _ = sites.send(2, 1, values, 16)
    adder = Adder(sites.n)
    for _ in range(2):  # the identical one again changes nothing
        for name, message in messages.items():
            adder.add(name, message)
    with pytest.raises(RejectMessageError, match=r"'b' sent two differing updates"):
        adder.add("b", other["b"])
    assert np.array_equal(adder.total(ABC), sites.product(messages))
    resumed = Adder(sites.n, adder.sent)
    resumed.add("a", messages["a"])
    with pytest.raises(RejectMessageError, match=r"'b' sent two differing updates"):
        resumed.add("b", other["b"])


def test_a_sum_is_of_every_participant_and_two_at_least() -> None:
    sites, values = ready(), updates(ABC, 60)
    messages, _ = sites.send(1, 1, values, 16)
    adder = Adder(sites.n)
    adder.add("a", messages["a"])
    adder.add("b", messages["b"])
    for wrong in (["a"], ["a", "a"], ["a", "b", "c"], []):
        with pytest.raises(RejectMessageError, match="one message of every participant"):
            adder.total(wrong)
    adder.add("c", messages["c"][:-1])
    with pytest.raises(RejectMessageError, match="different numbers"):
        adder.total(ABC)


# --- the site


def test_an_update_that_could_overflow() -> None:
    sites = ready()
    for bits, value in ((16, 2**15), (16, -(2**15) - 1), (64, 2**62 // 3), (64, -(2**63))):
        values = {name: np.array([0, value if name == "a" else 0]) for name in ABC}
        signatures = sites.agree(1, 1, ABC)
        with pytest.raises(FixInputError) as caught:
            sites.sites["a"].message(1, 1, signatures, values["a"], bits)
        assert str(abs(value)) not in str(caught.value)
        assert sites.memories["a"].get("paillier.sent-1") is None


def test_other_values_in_one_round() -> None:
    sites, values = ready(), updates(ABC, 10)
    _, signatures = sites.send(1, 1, values, 16)
    with pytest.raises(PrivacyRefusedError, match="other values"):
        sites.sites["a"].message(1, 1, signatures, values["a"] + 1, 16)
    smaller = sites.agree(1, 2, "ab")
    with pytest.raises(PrivacyRefusedError, match="other values"):
        sites.sites["a"].message(1, 2, smaller, values["a"] + 1, 16)


def test_without_the_key_nothing_is_sent_or_opened() -> None:
    sites, values = Summers(ABC), update(10, 0)
    signatures = sites.agree(1, 1, ABC)
    with pytest.raises(RejectMessageError, match="does not hold the run's key"):
        sites.sites["a"].message(1, 1, signatures, values, 16)
    with pytest.raises(RejectMessageError, match="does not hold the run's key"):
        sites.sites["a"].modulus  # noqa: B018


class KilledError(Exception):
    pass


class Dying(Kept):
    """A memory whose process is killed right after, or instead of, the n-th time something is written."""

    def __init__(self, folder: Path, writes: int, *, after: bool) -> None:
        super().__init__(folder)
        self.left, self.after = writes, after

    def put(self, name: str, array: Array) -> Array:
        self.left -= 1
        if self.left < 0 or (self.left == 0 and not self.after):
            raise KilledError
        super().put(name, array)
        if self.left == 0:
            raise KilledError
        return array


@pytest.mark.parametrize("after", [False, True], ids=["before the write", "after the write"])
@pytest.mark.parametrize("write", [1, 2, 3, 4, 5])
def test_a_killed_site_goes_on(tmp_path: Path, write: int, after: bool) -> None:
    """Writes of the one that makes the key: X25519, advert, key, agreement, message (the values are bound before)."""
    sites, values = Summers(ABC), updates(ABC, 30)
    told: dict[str, object] = {}

    def live(memory: Kept) -> dict[str, object]:
        sites.memories["a"] = memory
        site = sites.start("a")
        sites.adverts["a"] = sites.maskers["a"].advert()
        others = [sites.adverts[name] for name in "bc"]
        sealed = site.hand_on(others)
        told["key"] = site.modulus.tobytes()
        for name, content in zip("bc", sealed, strict=True):
            sites.sites[name].take(sites.adverts["a"], site.modulus.tobytes(), content)
        signatures = sites.agree(1, 1, ABC)
        told["message"] = site.message(1, 1, signatures, values["a"], 16).tobytes()
        return dict(told)

    with pytest.raises(KilledError):
        live(Dying(tmp_path, write, after=after))
    seen = dict(told)
    first, second = live(Kept(tmp_path)), live(Kept(tmp_path))
    assert first == second
    assert seen.items() <= first.items()
    assert not list(tmp_path.glob("*sent-0*"))


# --- the run's key


def test_the_key_reaches_all_and_is_kept() -> None:
    sites = ready()
    names = {sites.sites[name].key_name for name in ABC}
    assert len(names) == 1
    assert {sites.start(name).key_name for name in ABC} == names
    assert Summers(ABC).sites["a"].key_name == ""


def test_a_site_that_comes_later_gets_it_from_any_other() -> None:
    sites = Summers(tuple("abcd"))
    sealed = sites.sites["a"].hand_on([sites.adverts["b"]])
    sites.sites["b"].take(sites.adverts["a"], sites.modulus, sealed[0])
    (late,) = sites.sites["b"].hand_on([sites.adverts["d"]])
    sites.sites["d"].take(sites.adverts["b"], sites.modulus, late)
    assert sites.sites["d"].key_name == sites.sites["a"].key_name


def test_what_is_sealed_opens_for_nobody_else_and_nowhere_else() -> None:
    sites = Summers(ABC)
    for_b, for_c = sites.sites["a"].hand_on([sites.adverts["b"], sites.adverts["c"]])
    a, b, modulus = sites.adverts["a"], sites.sites["b"], sites.modulus
    other = _fixed().n.to_bytes(keys.modulus_bytes(), "little")
    damaged = bytes([*for_b[:-1], for_b[-1] ^ 1])
    wrong = [(a, modulus, for_c), (a, modulus, damaged), (a, modulus, b""), (a, modulus, for_b[:-1])]
    wrong += [(sites.adverts["c"], modulus, for_b), (a, other, for_b), (a, modulus[:-1], for_b), (a, b"", for_b)]
    for sealer, told, sealed in wrong:
        with pytest.raises(UseOtherKeyError):
            b.take(sealer, told, sealed)
        assert b.key_name == ""
    b.take(a, modulus, for_b)
    b.take(a, modulus, for_b)  # the same again
    assert b.key_name == sites.sites["a"].key_name


def test_a_second_key_is_refused_once_a_set_was_agreed() -> None:
    """Before, nothing was sent or opened under the first: it may be one that nobody else has heard of."""
    sites = ready()
    assert sites.sites["c"].key_name != FIXED.name.hex()
    modulus = FIXED.n.to_bytes(keys.modulus_bytes(), "little")
    sites.sites["a"]._key = FIXED
    (sealed,) = sites.sites["a"].hand_on([sites.adverts["c"]])
    sites.sites["c"].take(sites.adverts["a"], modulus, sealed)
    assert sites.start("c").key_name == FIXED.name.hex()
    sites = ready()
    sites.agree(1, 1, ABC)
    c = sites.sites["c"] = sites.start("c")  # it knows what it agreed to
    sites.sites["a"]._key = FIXED
    (sealed,) = sites.sites["a"].hand_on([sites.adverts["c"]])
    before = c.key_name
    with pytest.raises(UseOtherKeyError, match="another key of this run"):
        c.take(sites.adverts["a"], FIXED.n.to_bytes(keys.modulus_bytes(), "little"), sealed)
    assert c.key_name == before


def test_the_coordinator_puts_no_site_in_the_place_of_another() -> None:
    """Keys are sealed for adverts that the roster knows, of this run, and for nobody else."""
    sites, stranger = Summers(ABC), Identity.generate("b")
    b = sites.adverts["b"]
    forged = dataclasses.replace(b, key=bytes(range(32)).hex())
    signed = dataclasses.replace(forged, signature=stranger.sign(forged.statement).hex())
    minted = dataclasses.replace(signed, credential=stranger.credential.hex())
    elsewhere = Summers(ABC, run="another run").adverts["b"]
    for advert in (forged, signed, minted, elsewhere, sites.adverts["a"]):
        with pytest.raises((UseOtherKeyError, RejectMessageError)):
            sites.sites["a"].hand_on([advert])
        assert sites.sites["a"].key_name == ""
        assert sites.memories["a"].get("paillier.key") is None


def test_sealed_bytes_differ_and_hold_no_factor() -> None:
    sites = Summers(ABC)
    (first,), (second,) = (sites.sites["a"].hand_on([sites.adverts["b"]]) for _ in range(2))
    assert len(first) == len(second) == groupkey.sealed_bytes()
    assert first != second
    content = sites.memories["a"].get("paillier.key").tobytes()
    pieces = {content[at : at + 8] for at in range(len(content) - 7)}
    assert not any(first[at : at + 8] in pieces for at in range(len(first) - 7))


def test_a_damaged_key_is_told() -> None:
    sites = ready()
    kept = sites.memories["a"].get("paillier.key")
    for wrong in (kept[:-1], kept[:10], np.zeros_like(kept)):
        memory = Kept()
        memory.put("paillier.key", wrong)
        with pytest.raises(UseOtherKeyError):
            Summing("run", sites.maskers["a"], memory, sites=3)
