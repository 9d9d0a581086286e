"""What is believed of a modulus that somebody else made: that n-th powers are a factor of every unit, and no less.

Guarantee: after `check_permutation`, gcd(n, phi(n)) = 1 but for 2**-160, so E(m, rho) = (1 + n)**m rho**n is one to
one onto the units modulo n**2, and a uniform rho hides the rest of a product altogether. The maker shows it by n-th
roots of numbers that nobody chose (Goldberg, Reyzin, Sagga and Baldimtsi 2019).
"""

from __future__ import annotations

import functools
import hashlib
import math
import secrets
from collections.abc import Sequence
from typing import Any

from securead.errors import RejectMessageError
from securead.protocols.paillier.keys import KEY_BITS, PrivateKey
from securead.protocols.paillier.plan import ROOTS
from securead.protocols.paillier.powers import nth_roots, powers, whole

RESIDUE_BYTES = KEY_BITS // 8
_DOMAIN = b"securead.protocols.paillier.root.v1\0"
_LEAST_FACTOR = 1 << 16
_SPARE_BYTES = 32  # beyond a modulus: reducing a random number by it is uniform but for 2**-256
_REMEDY = "It is unsound or damaged, and nothing is to be encrypted or masked with it: tell whoever made it."


def random_unit(n: int) -> int:
    """Uniform in Z*_n, from the operating system's generator."""
    while True:
        value = secrets.randbelow(n)
        if math.gcd(value, n) == 1:
            return value


def challenges(plan_digest: str, n: int) -> list[int]:
    """The numbers whose n-th roots the maker of a modulus has to show: nobody chooses them."""
    told = _DOMAIN + bytes.fromhex(plan_digest) + n.to_bytes(RESIDUE_BYTES, "little")
    drawn = (hashlib.shake_256(told + bytes([at])).digest(RESIDUE_BYTES + _SPARE_BYTES) for at in range(ROOTS))
    return [int.from_bytes(each, "little") % n for each in drawn]


def shown(plan_digest: str, key: PrivateKey) -> bytes:
    """A modulus and its roots, as they are published."""
    numbers = [key.n, *nth_roots(key, challenges(plan_digest, key.n))]
    return b"".join(int(number).to_bytes(RESIDUE_BYTES, "little") for number in numbers)


def check_permutation(plan_digest: str, n: int, roots: Sequence[int]) -> None:
    """Raise `RejectMessageError` unless the roots show that n-th powers permute the units modulo n."""
    wanted = challenges(plan_digest, n)
    sound = math.gcd(n, _small_primes()) == 1 and all(math.gcd(h, n) == 1 for h in wanted)
    if not sound or any(found != h for found, h in zip(powers(roots, n, n), wanted, strict=True)):
        raise RejectMessageError("a modulus is not shown to hide what is multiplied", remedy=_REMEDY)


def check_units(n: int, ciphertexts: Sequence[Any], what: str) -> None:
    """Raise `RejectMessageError` unless all are units modulo n**2."""
    modulus, product = whole(n), whole(1)
    square = modulus * modulus
    for ciphertext in ciphertexts:
        product = product * ciphertext % modulus
        if not 0 < ciphertext < square:
            raise RejectMessageError(f"{what} is outside Z*_{{n^2}}", remedy=_REMEDY)
    if math.gcd(int(product), int(n)) != 1:
        raise RejectMessageError(f"{what} is outside Z*_{{n^2}}", remedy=_REMEDY)


@functools.cache
def _small_primes() -> int:
    """The product of all primes below 2**16."""
    composite = bytearray(_LEAST_FACTOR)
    for p in range(2, 1 << 8):
        if not composite[p]:
            composite[p * p :: p] = b"\1" * len(composite[p * p :: p])
    return math.prod(p for p in range(2, _LEAST_FACTOR) if not composite[p])
