"""Paillier's numbers: what phe does, done faster; keys and ciphertexts that are refused."""

from __future__ import annotations

import math
import sys

import pytest

from securead.errors import InstallExtraError, RejectMessageError, UseOtherKeyError
from securead.protocols.paillier import keys
from securead.protocols.paillier.keys import PrivateKey

phe = pytest.importorskip("phe.paillier")
util = pytest.importorskip("phe.util")


@pytest.fixture(scope="module")
def whole() -> PrivateKey:
    """A key of full size."""
    return PrivateKey.generate()


def test_keys_have_3072_bits(whole: PrivateKey) -> None:
    assert keys.KEY_BITS == 3072
    assert whole.n.bit_length() == 3072
    assert (keys.modulus_bytes(), keys.ciphertext_bytes()) == (384, 768)


@pytest.mark.parametrize("gmp", [True, False], ids=["gmpy2", "without gmpy2"])
def test_the_ciphertext_is_the_one_that_phe_gives(gmp: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "KEY_BITS", 512)
    key = PrivateKey.generate()
    public = phe.PaillierPublicKey(key.n)
    if not gmp:
        monkeypatch.setattr(util, "HAVE_GMP", False)
    for plaintext in (0, 1, key.n - 1, key.n // 2, public.get_random_lt_n()):
        r = key.random()
        ciphertext = key.encrypt_with(plaintext, r)
        assert ciphertext == public.raw_encrypt(plaintext, r)
        assert key.nth_power(r) == pow(r, key.n, key.n**2)
        assert key.decrypt(ciphertext) == plaintext
        assert keys.check_ciphertext(ciphertext, key.n, where="here") == ciphertext
    assert key.encrypt(5) != key.encrypt(5)
    for wrong in (-1, key.n):
        with pytest.raises(ValueError, match="below n"):
            key.encrypt(wrong)


def test_at_full_size(whole: PrivateKey) -> None:
    public, r = phe.PaillierPublicKey(whole.n), whole.random()
    assert whole.encrypt_with(whole.n - 3, r) == public.raw_encrypt(whole.n - 3, r)
    again = PrivateKey.from_bytes(whole.to_bytes())
    assert (again.p, again.q) == (whole.p, whole.q)


def test_keys_of_another_size_are_refused(whole: PrivateKey, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as less:
        less.setattr(keys, "KEY_BITS", 2048)
        small = PrivateKey.generate()
    for n in (small.n, whole.n >> 1 | 1, whole.n << 1 | 1, 0, -whole.n):
        with pytest.raises(UseOtherKeyError, match="3072 bits"):
            keys.check_modulus(n, where="here")
    with pytest.raises(UseOtherKeyError, match="1536 bits"):
        PrivateKey(small.p, small.q)
    with pytest.raises(UseOtherKeyError, match="192 bytes"):
        PrivateKey.from_bytes(whole.to_bytes()[:-1])


def test_moduli_and_factors_that_are_none(whole: PrivateKey) -> None:
    for n in (whole.n - 1, next(n for n in range(whole.n, whole.n + 2050, 2) if n % 1021 == 0)):
        with pytest.raises(UseOtherKeyError, match="product of two large primes"):
            keys.check_modulus(n, where="here")
    with pytest.raises(UseOtherKeyError, match="1536 bits each"):
        PrivateKey(whole.p, whole.p)
    # Not prime, but nothing that trial division finds: the product of two primes of 768 bits.
    two = [int(util.getprimeover(768)) for _ in range(2)]
    composite = next(
        p * q for p, q in [two, *([int(util.getprimeover(768)), two[1]] for _ in range(50))]
        if (p * q).bit_length() == 1536 and (p * q * whole.q).bit_length() == 3072
    )  # fmt: skip
    with pytest.raises(UseOtherKeyError, match="does not decrypt"):
        PrivateKey(composite, whole.q)


def test_ciphertexts_outside_the_group_are_refused(whole: PrivateKey) -> None:
    n = whole.n
    for wrong in (0, -1, n * n, n * n + 1, n, 7 * n, whole.p, 5 * whole.q, whole.p**2):
        with pytest.raises(RejectMessageError, match="outside"):
            keys.check_ciphertext(wrong, n, where="here")
    for right in (1, 2, n + 1, n * n - 1):
        assert math.gcd(right, n) == 1
        assert keys.check_ciphertext(right, n, where="here") == right


def test_without_phe_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "phe", None)
    monkeypatch.setitem(sys.modules, "phe.paillier", None)
    keys._module.cache_clear()
    with pytest.raises(InstallExtraError, match=r"securead\[paillier\]"):
        keys.phe()
    monkeypatch.undo()
    keys._module.cache_clear()
    assert keys.phe() is phe
