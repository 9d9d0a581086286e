"""Paillier's numbers: which moduli and ciphertexts are accepted, and encryption by who knows the factors.

Keys and decryption are phe's, randomness is the operating system's. Who holds p and q encrypts modulo p^2 and q^2 and
joins the halves (Paillier 1999, section 7): the ciphertext is bit for bit phe's for the same r, in a third of the time.
With gmpy2 installed all arithmetic is GMP's; without it, the same numbers come later.
"""

from __future__ import annotations

import functools
import importlib
import math
from collections.abc import Sequence
from typing import Any

from securead.errors import InstallExtraError, RejectMessageError, UseOtherKeyError
from securead.protocols.paillier.powers import powers

KEY_BITS = 3072
"""Of every modulus (NIST SP 800-57: 128 bits of security). Tests set less."""
_SMALL_PRIMES = math.prod(p for p in range(3, 1 << 10, 2) if all(p % d for d in range(3, math.isqrt(p) + 1, 2)))
_REMEDY = "The key is not of securead: make a new one."


@functools.cache
def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InstallExtraError(
            "Paillier needs a package that is not installed: phe", remedy="Run: pip install 'securead[paillier]'."
        ) from error


def phe() -> Any:
    """The package's module of keys; raises `InstallExtraError` where it is missing."""
    return _module("phe.paillier")


def mulmod(a: int, b: int, modulus: int) -> int:
    """a * b modulo `modulus`, by GMP where it is there."""
    return int(_module("phe.util").mulmod(a, b, modulus))


def modulus_bytes() -> int:
    """The length of a modulus, hence of a plaintext."""
    return (KEY_BITS + 7) // 8


def factor_bytes() -> int:
    """The length of each of a modulus's factors."""
    return (KEY_BITS // 2 + 7) // 8


def ciphertext_bytes() -> int:
    """The length of a ciphertext."""
    return 2 * modulus_bytes()


def check_modulus(n: int, *, where: str) -> int:
    """`n`, or `UseOtherKeyError` where it is of another size, even or divisible by a prime below 2^10."""
    if n <= 0 or n.bit_length() != KEY_BITS:
        raise UseOtherKeyError(
            f"a Paillier key has {KEY_BITS} bits here",
            where=where,
            value=f"{n.bit_length()} bits",
            remedy="Smaller keys are refused, and larger ones are not what messages are sized for. " + _REMEDY,
        )
    if n % 2 == 0 or math.gcd(n, _SMALL_PRIMES) != 1:
        raise UseOtherKeyError(
            "a Paillier key's modulus is no product of two large primes", where=where, remedy=_REMEDY
        )
    return n


def check_ciphertext(c: int, n: int, *, where: str) -> int:
    """`c`, or `RejectMessageError` where it is outside Z*_{n^2}: no encryption gives it."""
    if not 0 < c < n * n or math.gcd(c, n) != 1:
        raise RejectMessageError(
            "a ciphertext is outside Z*_{n^2}, the numbers that Paillier's encryption gives",
            where=where,
            remedy="The message is damaged, or encrypted under another key.",
        )
    return c


class PrivateKey:
    """The factors of a modulus of `KEY_BITS` bits. Raises `UseOtherKeyError` for what cannot be one's factors.

    Guarantee: it decrypts what it encrypts; that was tried when it was made.
    """

    def __init__(self, p: int, q: int, *, where: str = "") -> None:
        sizes = {p.bit_length(), q.bit_length()}
        if p == q or sizes != {KEY_BITS // 2}:
            raise UseOtherKeyError(f"a key's factors have {KEY_BITS // 2} bits each", where=where, remedy=_REMEDY)
        self.p, self.q, self.n = p, q, check_modulus(p * q, where=where)
        public = phe().PaillierPublicKey(self.n)
        self._public, self._p2, self._q2 = public, p * p, q * q
        try:
            self._private = phe().PaillierPrivateKey(public, p, q)
            self._join = pow(self._q2, -1, self._p2)
            tried = int(public.get_random_lt_n())
            sound = self.decrypt(self.encrypt(tried)) == tried
        except (ValueError, ZeroDivisionError):
            sound = False
        if not sound:
            raise UseOtherKeyError("a key does not decrypt what it encrypts", where=where, remedy=_REMEDY)

    @classmethod
    def from_bytes(cls, content: bytes, *, where: str = "") -> PrivateKey:
        """The key whose `to_bytes` these are."""
        half = factor_bytes()
        if len(content) != 2 * half:
            raise UseOtherKeyError(
                f"a Paillier key is two factors of {half} bytes here", where=where, value=len(content), remedy=_REMEDY
            )
        p, q = (int.from_bytes(content[at : at + half], "little") for at in (0, half))
        return cls(p, q, where=where)

    def to_bytes(self) -> bytes:
        """p and q, little-endian. A secret."""
        return self.p.to_bytes(factor_bytes(), "little") + self.q.to_bytes(factor_bytes(), "little")

    @classmethod
    def generate(cls) -> PrivateKey:
        """A new key: phe's primes, from the system's randomness."""
        _, private = phe().generate_paillier_keypair(n_length=KEY_BITS)
        return cls(int(private.p), int(private.q))

    def encrypt(self, plaintext: int) -> int:
        """A ciphertext of 0 <= plaintext < n, with randomness that serves it alone."""
        return self.encrypt_with(plaintext, self.random())

    def encrypt_with(self, plaintext: int, r: int) -> int:
        """The ciphertext (1 + n plaintext) r^n modulo n^2. For tests and vectors: `r` serves once."""
        return self.joined(plaintext, self.nth_power(r))

    def joined(self, plaintext: int, power: int) -> int:
        """The ciphertext of a plaintext and an `nth_power`, which serves it alone."""
        if not 0 <= plaintext < self.n:
            raise ValueError("a plaintext is not negative and below n")
        return mulmod(1 + self.n * plaintext, power, self.n * self.n)

    def random(self) -> int:
        """Uniform in [1, n), by the system."""
        return int(self._public.get_random_lt_n())

    def nth_power(self, r: int) -> int:
        """r^n modulo n^2."""
        return self.nth_powers([r])[0]

    def nth_powers(self, rs: Sequence[int]) -> list[int]:
        """r^n modulo n^2 of each. Threads that ask share the cores, as `powers.powers` says."""
        # y^p modulo p^2 depends on y modulo p only, so r^n = (r^q modulo p)^p modulo p^2: half the exponent.
        p, q, p2, q2 = self.p, self.q, self._p2, self._q2
        at_p = powers(powers([r % p for r in rs], q % (p - 1), p), p, p2)
        at_q = powers(powers([r % q for r in rs], p % (q - 1), q), q, q2)
        return [int(b + q2 * mulmod((a - b) % p2, self._join, p2)) for a, b in zip(at_p, at_q, strict=True)]

    def decrypt(self, ciphertext: int) -> int:
        """The plaintext, 0 <= m < n, of a ciphertext that `check_ciphertext` accepts."""
        return int(self._private.raw_decrypt(ciphertext))
