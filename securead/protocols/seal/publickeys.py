"""Public keys (b, a) with an `a` that nobody chooses, for the engines on SEAL that mask answers.

An owner that chose `a` (zero, say) would receive answers whose mask vanishes. So `a` is a common reference string,
expanded from the plan's digest, which contains the program's commitment under the model owner's random key. All owners
of a plan share it. A public key is b alone: one with another `a` cannot be written down.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import numpy as np
import tenseal.sealapi as seal

from securead.data.schema import Array
from securead.errors import FixInputError, RejectMessageError, UseOtherKeyError
from securead.protocols.residues.expansion import uniform_residues
from securead.protocols.seal import objects, packing, primes
from securead.protocols.seal.keyfiles import KeyFiles
from securead.protocols.seal.objects import REMEDY, Ciphertext, Context
from securead.protocols.seal.pool import Pool

T = TypeVar("T")
_REGISTER = "Register the public key that belongs to the request's key first."


@functools.lru_cache(maxsize=8)
def uniform_half(domain: bytes, plan_digest: str, chain: tuple[int, ...], ring_dimension: int) -> Array:
    """Residues uint64 `(primes, N)` in NTT form, uniform below each prime of `chain`, read-only."""
    rows = [uniform_residues(domain, plan_digest, at, prime, ring_dimension) for at, prime in enumerate(chain)]
    residues: Array = np.stack(rows).view(np.uint64)
    residues.setflags(write=False)
    return residues


def generate(context: Context, chain: tuple[int, ...], half: Array) -> tuple[Any, Array]:
    """A fresh secret key of SEAL for `context`, and the b of its public key `(primes, N)`; `chain` has all primes.

    SEAL makes a key (p0, p1) with p0 + p1 s = -e for a `p1` of its own; then p0 + (p1 - a) s is b = -(a s + e) with
    SEAL's e, and that sum is the CKKS decryption of (p0, p1 - a), which SEAL computes, too, under a context in which
    all primes are data primes. Nothing is encrypted under that context. (p0, p1) is dropped here: with (b, a) it would
    reveal s.
    """
    secret, move = _fresh(context, chain, half.shape[1])
    return secret, move(_created(context, secret), half)


def generate_with_relinearisation(context: Context, chain: tuple[int, ...], halves: Array) -> tuple[Any, Array]:
    """`generate`, and the relinearisation key that SEAL makes for the same secret, moved to uniform halves likewise.

    `halves` `(1 + digits, primes, N)` are the public key's and then each digit's; so are the polynomials returned. A
    digit's key (k0, k1) has k0 + k1 s = P s^2 - e modulo its own prime, and -e modulo all others.
    """
    secret, move = _fresh(context, chain, halves.shape[2])
    moved = [move(_created(context, secret), halves[0])]
    keys = seal.RelinKeys()
    seal.KeyGenerator(context, secret).create_relin_keys(keys)
    moved += [move(objects.residues(key)[0], half) for key, half in zip(keys.key(2), halves[1:], strict=True)]
    return secret, np.stack(moved)


def _fresh(context: Context, chain: tuple[int, ...], dimension: int) -> tuple[Any, Callable[[Array, Array], Array]]:
    """A fresh secret key, and what moves a key (p0, p1) of it to another uniform half a: p0 + (p1 - a) s."""
    wide = _wide_context(chain, dimension)
    wide_secret = seal.KeyGenerator(wide).secret_key()
    words = objects.plaintext_residues(wide_secret)[: dimension * len(chain)]
    decryptor, modulus = seal.Decryptor(wide, wide_secret), np.array(chain, dtype=np.uint64)[:, None]

    def move(key: Array, half: Array) -> Array:
        p0, p1 = key
        moved, total = np.stack([p0, (p1 + (modulus - half)) % modulus]), seal.Plaintext()
        decryptor.decrypt(objects.ciphertext_from_residues(wide, wide.first_parms_id(), moved, ntt=True), total)
        return np.array(objects.plaintext_residues(total)).reshape(p0.shape)

    return objects.secret_key_from_words(context, words), move


def _created(context: Context, secret: Any) -> Array:
    """A public key of SEAL's, residues uint64 `(2, primes, N)`."""
    created = seal.PublicKey()
    seal.KeyGenerator(context, secret).create_public_key(created)
    found, _ = objects.residues(created)
    return found


def content_bytes(chain: tuple[int, ...], ring_dimension: int) -> int:
    """The exact length of a public key's content: b, packed."""
    return packing.residue_bytes(ring_dimension, chain)


def unpack(context: Context, chain: tuple[int, ...], half: Array, content: bytes) -> Any:
    """SEAL's public key (b, a), or `RejectMessageError`: its length is wrong, or a residue is not below its prime."""
    if len(content) != content_bytes(chain, half.shape[1]):
        raise RejectMessageError("a public key has another length than the plan's", value=len(content), remedy=REMEDY)
    b = packing.unpack_residues(content, 1, chain, half.shape[1])
    return objects.public_key_from_residues(context, np.concatenate([b, half[None]]))


class EvaluationKey(Generic[T]):
    """An owner's public key, checked and ready to mask answers for one plan: see `engine.RefillableKey`.

    A mask is what an engine makes of fresh encryptions of zero; it is independent of every request.
    """

    def __init__(self, plan_digest: str, key_id: str, make_mask: Callable[[], T], mask_bytes: int) -> None:
        self.plan_digest, self.key_id = plan_digest, key_id
        self._masks = Pool(make_mask, mask_bytes)

    def mask(self) -> T:
        """One that nothing has been masked with, for one use."""
        return self._masks.take()

    @property
    def held_bytes(self) -> int:
        """What the masks that wait weigh."""
        return self._masks.held_bytes

    def refill(self, limit: int | None = None) -> int:
        """Make one mask ahead of its use, as far as `limit` bytes allow: see `engine.RefillableKey`."""
        return self._masks.refill(limit)

    def __repr__(self) -> str:
        return f"EvaluationKey(plan_digest={self.plan_digest!r}, key_id={self.key_id!r})"


def read_key(
    files: KeyFiles, plan_digest: str, file: bytes, context: Context, chain: tuple[int, ...], half: Array
) -> tuple[str, Any]:
    """The name of an owner's public key, and SEAL's, or `RejectMessageError`: damaged, or of another plan."""
    try:
        limit = content_bytes(chain, half.shape[1])
        key_id, body = files.read("public", plan_digest, file, limit=limit)
    except (FixInputError, UseOtherKeyError) as error:
        raise RejectMessageError(error.what, value=error.value, remedy=error.remedy) from error
    return key_id, unpack(context, chain, half, body)


def encryption_of_zero(encryptor: Any, level: Any = None) -> Ciphertext:
    """A fresh one from SEAL's encryptor with a public key, at the top level of data or at another one.

    At the key level all primes of the chain are there, and none has been divided by: see `noise.key_level_error`.
    """
    zero = seal.Ciphertext()
    if level is None:
        encryptor.encrypt_zero(zero)
    else:
        encryptor.encrypt_zero(level, zero)
    return zero


def require_key(key: object, plan_digest: str, key_id: str) -> EvaluationKey[Any]:
    """The key, if it is the request's own under this plan; `RejectMessageError` for any other, or none."""
    if not isinstance(key, EvaluationKey) or (key.plan_digest, key.key_id) != (plan_digest, key_id):
        raise RejectMessageError("no public key to mask the answer with", value=key_id[:16], remedy=_REGISTER)
    return key


def _wide_context(chain: tuple[int, ...], ring_dimension: int) -> Context:
    """A CKKS context in which all primes of the chain are data primes. Nothing is ever published under it."""
    parameters = seal.EncryptionParameters(seal.SCHEME_TYPE.CKKS)
    parameters.set_poly_modulus_degree(ring_dimension)
    spare = primes.other_than(ring_dimension, chain)
    parameters.set_coeff_modulus([seal.Modulus(prime) for prime in (*chain, spare)])
    context = seal.SEALContext(parameters, True, seal.SEC_LEVEL_TYPE.NONE)
    if not context.parameters_set():
        raise AssertionError(f"SEAL refuses the plan's primes: {context.parameters_error_message()}")
    return context
