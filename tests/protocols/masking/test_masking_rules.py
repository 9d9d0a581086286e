"""What a site does, refuses and remembers, whatever the coordinator asks and however often the site is killed."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from masking_setting import Sites, update

from securead.data.schema import Array
from securead.errors import (
    FixConfigurationError,
    FixInputError,
    PrivacyRefusedError,
    RejectMessageError,
    UseOtherKeyError,
)
from securead.privacy.site import Kept
from securead.protocols.masking import masks
from securead.protocols.masking.adverts import Advert
from securead.protocols.masking.masker import Masker

ABC = tuple("abc")
LOW_ORDER = [  # of curve25519 (Langley, Hamburg, Turner: RFC 7748, section 7, and the list of libsodium)
    "00" * 32,
    "01" + "00" * 31,
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
]


def signed(sites: Sites, name: str, **changed: str) -> Advert:
    """An advert that the site itself signed, with other content."""
    advert = dataclasses.replace(sites.adverts[name], **changed)
    return dataclasses.replace(advert, signature=sites.identities[name].sign(advert.statement).hex())


def asked(sites: Sites, names: str) -> list[Advert]:
    return [sites.adverts[name] for name in names]


def test_the_order_of_adverts_does_not_matter() -> None:
    sites = Sites(ABC)
    first = sites.maskers["a"].agree(0, 1, asked(sites, "abc"))
    assert sites.maskers["a"].agree(0, 1, asked(sites, "cab")) == first


def test_two_attempts_with_the_same_set() -> None:
    sites = Sites(ABC)
    sites.agree(4, 1, ABC)
    with pytest.raises(PrivacyRefusedError, match="same set as attempt 1") as caught:
        sites.maskers["a"].agree(4, 2, asked(sites, "abc"))
    assert "a, b, c" in str(caught.value)
    assert "round 4, attempt 2" in str(caught.value)


def test_one_attempt_with_two_sets() -> None:
    sites = Sites(ABC)
    sites.agree(0, 1, ABC)
    with pytest.raises(PrivacyRefusedError, match="signed another set for this attempt: a, b, c"):
        sites.maskers["a"].agree(0, 1, asked(sites, "ab"))


def test_sets_shrink_and_attempts_end() -> None:
    sites = Sites(tuple("abcde"), attempts=3)
    site = sites.maskers["a"]
    site.agree(0, 1, asked(sites, "abcd"))
    with pytest.raises(PrivacyRefusedError, match="only shrink, and e was not in attempt 1"):
        site.agree(0, 2, asked(sites, "abe"))
    site.agree(0, 2, asked(sites, "abc"))
    with pytest.raises(PrivacyRefusedError, match="only shrink, and d was not in attempt 2"):
        site.agree(0, 3, asked(sites, "abd"))
    site.agree(0, 3, asked(sites, "ab"))
    with pytest.raises(PrivacyRefusedError, match="has 3 attempts"):
        site.agree(0, 4, asked(sites, "ab"))
    with pytest.raises(PrivacyRefusedError, match="over"):
        site.mask(0, 1, {}, update(3))
    site.agree(1, 1, asked(sites, "abcde"))
    with pytest.raises(PrivacyRefusedError, match="this round is over"):
        site.agree(0, 3, asked(sites, "ab"))


def test_a_skipped_attempt_does_not_come_later() -> None:
    sites = Sites(ABC)
    sites.agree(0, 2, ABC)
    with pytest.raises(PrivacyRefusedError, match="this attempt is over: attempt 2"):
        sites.maskers["a"].agree(0, 1, asked(sites, "ab"))


@pytest.mark.parametrize(("round", "attempt"), [(-1, 1), (0, 0), (0, -1), (2**32, 1)])
def test_numbers(round: int, attempt: int) -> None:
    sites = Sites(ABC)
    with pytest.raises(RejectMessageError, match="numbered"):
        sites.maskers["a"].agree(round, attempt, asked(sites, "abc"))


def test_too_few() -> None:
    sites = Sites(ABC, minimum=3)
    with pytest.raises(PrivacyRefusedError, match="at least 3 participants"):
        sites.maskers["a"].agree(0, 1, asked(sites, "ab"))
    for numbers in ({"minimum": 1}, {"attempts": 0}):
        with pytest.raises(FixConfigurationError):
            Sites(ABC, **numbers)


@pytest.mark.parametrize("key", LOW_ORDER)
def test_points_of_low_order(key: str) -> None:
    sites = Sites(ABC)
    with pytest.raises(UseOtherKeyError, match=r"'b' is a point of low order"):
        sites.maskers["a"].agree(0, 1, [sites.adverts["a"], signed(sites, "b", key=key)])
    assert sites.maskers["a"].agree(0, 1, asked(sites, "ab"))  # nothing was remembered of the refused one


def test_wrong_adverts() -> None:
    sites = Sites(ABC)
    site, own, b = sites.maskers["a"], sites.adverts["a"], sites.adverts["b"]
    wrong: list[tuple[type[Exception], str, list[Advert]]] = [
        (RejectMessageError, "another run", [own, signed(sites, "b", run="yesterday")]),
        (UseOtherKeyError, "signature of 'b'", [own, dataclasses.replace(b, key=sites.adverts["c"].key)]),
        (UseOtherKeyError, "another credential", [own, dataclasses.replace(b, credential=own.credential)]),
        (UseOtherKeyError, "none of this run's sites", [own, dataclasses.replace(b, name="d")]),
        (RejectMessageError, "one key", [own, signed(sites, "b", key=own.key)]),
        (RejectMessageError, "one name", [own, b, b]),
        (RejectMessageError, "not in the set", [b, sites.adverts["c"]]),
        (RejectMessageError, "not its own", [signed(sites, "a", key="11" * 32), b]),
        (RejectMessageError, "hex", [own, dataclasses.replace(b, key=b.key[:-1])]),
        (RejectMessageError, "hex", [own, dataclasses.replace(b, key=b.key[:-2] + " a")]),
        (RejectMessageError, "32 bytes", [own, dataclasses.replace(b, key=b.key[:-2])]),
        (RejectMessageError, "hex", [own, dataclasses.replace(b, signature="00" * 200)]),
        (RejectMessageError, "name", [own, dataclasses.replace(b, name="")]),
        (RejectMessageError, "name", [own, dataclasses.replace(b, name="b" * 300)]),
        (RejectMessageError, "name", [own, dataclasses.replace(b, name="\ud800")]),
    ]
    for kind, match, adverts in wrong:
        with pytest.raises(kind, match=match):
            site.agree(0, 1, adverts)
    assert site.agree(0, 1, [own, b])


def test_a_key_that_changes_during_the_run() -> None:
    """B lost its memory: nobody knows any more what it signed and sent, so it begins a new run."""
    sites = Sites(ABC)
    sites.masked(0, 1, dict.fromkeys(ABC, update(5)))
    sites.memories["b"] = Kept()
    sites.maskers["b"] = sites.start("b")
    sites.adverts["b"] = sites.maskers["b"].advert()
    with pytest.raises(UseOtherKeyError, match="'b' has another key than before in this run"):
        sites.maskers["a"].agree(1, 1, asked(sites, "abc"))
    without = sites.masked(1, 1, dict.fromkeys(("a", "c"), update(5)))
    assert np.array_equal(masks.unmask(without, ["a", "c"]), 2 * update(5))


def test_signatures() -> None:
    sites = Sites(ABC)
    site, values = sites.maskers["a"], update(5)
    signatures = sites.agree(0, 1, ABC)
    for wrong in ({}, {**signatures, "d": b""}, {name: signatures[name] for name in "ab"}):
        with pytest.raises(RejectMessageError, match="not exactly the participants"):
            site.mask(0, 1, wrong, values)
    elsewhere = sites.maskers["b"].agree(1, 1, asked(sites, "abc"))
    for wrong_one in (b"", elsewhere, signatures["c"], signatures["b"][:-1]):
        with pytest.raises(UseOtherKeyError, match="signature of 'b'"):
            site.mask(0, 1, {**signatures, "b": wrong_one}, values)
    with pytest.raises(RejectMessageError, match="agreed to no set"):
        site.mask(0, 2, signatures, values)
    with pytest.raises(RejectMessageError, match="agreed to no set"):
        site.mask(1, 1, signatures, values)


def test_a_coordinator_that_shows_two_sets() -> None:
    """A is told of all three, B and C of two: A's message needs signatures that they do not give."""
    sites = Sites(ABC)
    told = sites.maskers["a"].agree(0, 1, asked(sites, "abc"))
    others = {name: sites.maskers[name].agree(0, 1, asked(sites, "bc")) for name in "bc"}
    with pytest.raises(UseOtherKeyError, match="does not fit"):
        sites.maskers["a"].mask(0, 1, {"a": told, **others}, update(5))
    with pytest.raises(PrivacyRefusedError, match="another set"):
        sites.maskers["b"].agree(0, 1, asked(sites, "abc"))


def test_other_values() -> None:
    sites = Sites(ABC)
    site, values = sites.maskers["a"], update(5)
    signatures = sites.agree(0, 1, ABC)
    sent = site.mask(0, 1, signatures, values)
    for other in (values + 1, values[:-1], values.reshape(5, 1)):
        with pytest.raises(PrivacyRefusedError, match="other values"):
            site.mask(0, 1, signatures, other)
    assert np.array_equal(site.mask(0, 1, signatures, values), sent)
    smaller = sites.agree(0, 2, ("a", "b"))
    with pytest.raises(PrivacyRefusedError, match="other values"):
        site.mask(0, 2, smaller, values + 1)
    assert not np.array_equal(site.mask(0, 2, smaller, values), sent)
    site.agree(1, 1, asked(sites, "abc"), values + 1)
    with pytest.raises(PrivacyRefusedError, match="other values"):
        site.agree(1, 2, asked(sites, "ab"), values)


@pytest.mark.parametrize("sign", [1, -1])
def test_overflow_is_refused_before_anything_is_signed(sign: int) -> None:
    sites, bound = Sites(ABC), masks.SUM_BOUND // 3
    with pytest.raises(FixInputError, match="2\\*\\*62 / 3") as caught:
        sites.maskers["a"].agree(0, 1, asked(sites, "abc"), np.array([0, sign * bound]))
    assert str(bound) not in str(caught.value)
    signatures = sites.agree(0, 1, ABC)
    for value in (sign * bound, -(2**63), 2**63 - 1):
        with pytest.raises(FixInputError, match="2\\*\\*62 / 3"):
            sites.maskers["a"].mask(0, 1, signatures, np.array([value]))
    for wrong in (np.zeros(3), np.zeros(3, dtype=np.uint64)):
        with pytest.raises(FixInputError, match="int64"):
            sites.maskers["a"].mask(0, 1, signatures, wrong)
    assert sites.maskers["a"].mask(0, 1, signatures, np.array([sign * (bound - 1)])).dtype == np.uint64


class KilledError(Exception):
    pass


class Dying:
    """A memory whose process is killed right after, or instead of, the n-th time something is written."""

    def __init__(self, kept: Kept, writes: int, *, after: bool) -> None:
        self.kept, self.left, self.after = kept, writes, after

    def get(self, name: str) -> Array | None:
        return self.kept.get(name)

    def put(self, name: str, array: Array) -> Array:
        self.left -= 1
        if self.left < 0 or (self.left == 0 and not self.after):
            raise KilledError
        self.kept.put(name, array)
        if self.left == 0:
            raise KilledError
        return array


@pytest.mark.parametrize("after", [False, True], ids=["before the write", "after the write"])
@pytest.mark.parametrize("write", [1, 2, 3, 4])
def test_a_killed_site_goes_on(tmp_path: Path, write: int, after: bool) -> None:
    """Writes: key, advert, agreement, values. What the site returned before it died, it returns again."""
    sites, values = Sites(ABC), update(50)
    sites.memories["a"] = Kept(tmp_path)
    told: dict[str, object] = {}

    def live(memory: object) -> dict[str, object]:
        site = Masker("run", sites.identities["a"], sites.roster, memory, minimum=2, attempts=3)
        told["advert"] = site.advert()
        adverts = [told["advert"], *asked(sites, "bc")]
        own = told["agreed"] = site.agree(0, 1, adverts)
        signatures = {"a": own, **{name: sites.maskers[name].agree(0, 1, adverts) for name in "bc"}}
        told["message"] = site.mask(0, 1, signatures, values).tobytes()
        return dict(told)

    with pytest.raises(KilledError):
        live(Dying(Kept(tmp_path), write, after=after))
    seen = dict(told)
    first, second = live(Kept(tmp_path)), live(Kept(tmp_path))
    assert first == second
    assert seen.items() <= first.items()
    again = Masker("run", sites.identities["a"], sites.roster, Kept(tmp_path), minimum=2, attempts=3)
    with pytest.raises(PrivacyRefusedError, match="another set"):
        again.agree(0, 1, [first["advert"], sites.adverts["b"]])  # type: ignore[list-item]
    with pytest.raises(PrivacyRefusedError, match="other values"):
        again.agree(0, 1, [first["advert"], *asked(sites, "bc")], values + 1)  # type: ignore[list-item]


def test_a_restarted_site_keeps_every_rule() -> None:
    sites, values = Sites(tuple("abcd")), update(20)
    sites.agree(3, 1, tuple("abcd"))
    signatures = sites.agree(3, 2, ABC)
    sent = sites.maskers["a"].mask(3, 2, signatures, values)
    site = sites.start("a")
    assert site.advert() == sites.adverts["a"]
    assert site.agree(3, 2, asked(sites, "abc")) == signatures["a"]
    assert site.mask(3, 2, signatures, values).tobytes() == sent.tobytes()
    for round, attempt, names, match in [
        (3, 2, "ab", "another set"),
        (3, 3, "abc", "same set"),
        (3, 3, "abd", "only shrink"),
        (2, 1, "abcd", "round is over"),
        (3, 4, "ab", "has 3 attempts"),
    ]:
        with pytest.raises(PrivacyRefusedError, match=match):
            sites.start("a").agree(round, attempt, asked(sites, names))


def test_a_memory_of_another_run_site_or_damaged() -> None:
    sites = Sites(ABC)
    identity, memory = sites.identities["a"], sites.memories["a"]
    for run, who in (("another run", identity), ("run", sites.identities["b"])):
        with pytest.raises(UseOtherKeyError, match="memory of another run or site"):
            Masker(run, who, sites.roster, memory, minimum=2, attempts=3)
    damaged = Kept()
    damaged.put("masking.state", np.frombuffer(b"{]", dtype=np.uint8))
    lost = Kept()
    state = memory.get("masking.state")
    assert state is not None
    lost.put("masking.state", state)
    for wrong in (damaged, lost):
        with pytest.raises(FixInputError, match="new run"):
            Masker("run", identity, sites.roster, wrong, minimum=2, attempts=3)


def test_the_private_key_is_in_no_message() -> None:
    sites = Sites(ABC)
    key = sites.memories["a"].get("masking.key")
    assert key is not None
    public = X25519PrivateKey.from_private_bytes(key.tobytes()).public_key().public_bytes_raw()
    assert public.hex() == sites.adverts["a"].key
    assert key.tobytes().hex() not in repr(sites.adverts)
