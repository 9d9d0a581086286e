"""The half that holds keys: generate, encrypt, decrypt. Only a data owner or a key holder imports it.

Key generation, error sampling, encryption and decryption are SEAL's. A public key's uniform half is not SEAL's, nor the
owner's choice (`crs`): SEAL's key is moved to it, by SEAL.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import tenseal.sealapi as seal

from securead.data.schema import Array
from securead.errors import FixInputError, RejectMessageError, UseOtherKeyError
from securead.protocols.bfv import crs, messages
from securead.protocols.bfv.context import context_for
from securead.protocols.bfv.messages import KEY_FILES
from securead.protocols.bfv.plan import BfvPlan
from securead.protocols.seal import objects, publickeys
from securead.protocols.seal.keyfiles import OTHER_KEY
from securead.protocols.seal.keys import StoredKey, check_decrypts, check_encrypts
from securead.protocols.seal.sizes import compressed_limit


class SecretKey(StoredKey):
    """Decrypts, and encrypts in role `same`. `key_id` is its public key's."""

    files, kind = KEY_FILES, "secret"


class PublicKey(StoredKey):
    """Masks answers at the service, and encrypts in role `split`."""

    files, kind = KEY_FILES, "public"


def generate_keys(plan: BfvPlan) -> tuple[SecretKey, PublicKey]:
    """A fresh key pair for one plan, from SEAL's generator seeded by the operating system (`seal.publickeys`)."""
    secret, b = publickeys.generate(context_for(plan), plan.chain, crs.uniform_half(plan))
    content = messages.pack_public_key(plan, b)
    key_id = KEY_FILES.key_id(plan.digest, content)
    return SecretKey(plan.digest, key_id, objects.save(secret)), PublicKey(plan.digest, key_id, content)


def secret_key_from_bytes(plan: BfvPlan, content: bytes) -> SecretKey:
    """Invert `SecretKey.to_bytes`. A key of another plan is `UseOtherKeyError`, a damaged file `FixInputError`."""
    limit = compressed_limit(_secret_body(plan).length)
    key_id, body = KEY_FILES.read("secret", plan.digest, content, limit=limit)
    key = SecretKey(plan.digest, key_id, body)
    _load_secret(plan, key)
    return key


def public_key_from_bytes(plan: BfvPlan, content: bytes) -> PublicKey:
    """Invert `PublicKey.to_bytes`; as `secret_key_from_bytes`, and the key must have the name that it bears."""
    key_id, body = KEY_FILES.read("public", plan.digest, content, limit=plan.public_key_bytes)
    key = PublicKey(plan.digest, key_id, body)
    _load_public(plan, key)
    return key


def make_encryptor(plan: BfvPlan, key: SecretKey | PublicKey) -> Encryptor:
    """A secret key for role `same`, a public key for role `split`; anything else is `UseOtherKeyError`."""
    check_encrypts(plan, key)
    return Encryptor(plan, key)


def make_decryptor(plan: BfvPlan, key: SecretKey) -> Decryptor:
    """Only a secret key of this plan decrypts."""
    check_decrypts(plan, key)
    return Decryptor(plan, key)


class Encryptor:
    """Encrypts chunks of positions for one plan."""

    def __init__(self, plan: BfvPlan, key: SecretKey | PublicKey) -> None:
        self._plan, self._key_id = plan, key.key_id
        loaded = _load_secret(plan, key) if isinstance(key, SecretKey) else _load_public(plan, key)
        self._encryptor = seal.Encryptor(context_for(plan), loaded)
        self._sizes = np.array(plan.sizes, dtype=np.int64)
        self._starts = np.cumsum(self._sizes) - self._sizes

    def encrypt(self, queries: Array) -> bytes:
        """The request payload for positions `(n, tables)`, 1 <= n <= rows_per_chunk. Fresh randomness every time."""
        plan, queries = self._plan, np.asarray(queries)
        if queries.ndim != 2 or queries.shape[1] != len(plan.sizes) or not 1 <= len(queries) <= plan.rows_per_chunk:
            raise FixInputError(
                "queries have the wrong shape",
                value=queries.shape,
                remedy=f"Give 1 to {plan.rows_per_chunk} rows of {len(plan.sizes)} positions.",
            )
        if not np.issubdtype(queries.dtype, np.integer) or (queries < 0).any() or (queries >= self._sizes).any():
            raise FixInputError(
                "queries are positions within their tables",
                value=str(queries.dtype),
                remedy="Make them with the program's own `queries`.",
            )
        places = queries.astype(np.int64) + self._starts
        encrypted = [
            self._encrypt_piece(degrees)
            for group in plan.groups(len(queries))
            for degrees in _one_hot(plan, places[group.first : group.first + group.rows], group.layout.slots)
        ]
        return messages.preamble(len(queries), self._key_id) + b"".join(encrypted)

    def _encrypt_piece(self, degrees: Array) -> bytes:
        """A polynomial with coefficient 1 at these degrees, which fall."""
        plaintext = seal.Plaintext(" + ".join(f"1x^{d}" if d else "1" for d in degrees.tolist()) or "0")
        if self._plan.role == "same":
            return messages.pack_ciphertext(self._plan, self._encryptor.encrypt_symmetric(plaintext))
        encrypted = seal.Ciphertext()
        self._encryptor.encrypt(plaintext, encrypted)
        return messages.pack_ciphertext(self._plan, encrypted)


class Decryptor:
    """Decrypts answers for one plan."""

    def __init__(self, plan: BfvPlan, key: SecretKey) -> None:
        self._plan, self._key_id = plan, key.key_id
        self._context = context_for(plan)
        self._decryptor = seal.Decryptor(self._context, _load_secret(plan, key))

    def decrypt(self, answer: bytes, rows: int) -> Array:
        """Float64 scores `(rows,)`, exact.

        Raises `RejectMessageError` for anything but an answer under this plan, and `UseOtherKeyError` when the answer
        names another key, or a score lies outside the program's range.
        """
        plan = self._plan
        self._check(answer, rows)
        integers = [score for group in messages.groups(plan, answer, rows) for score in self._decrypt_group(*group)]
        if max(integers) >= 1 << plan.score_bits:
            raise UseOtherKeyError(
                "a decrypted score is outside the program's range: another key encrypted this request", remedy=OTHER_KEY
            )
        return np.array(integers, dtype=np.float64) * plan.unit

    def in_floods(self, answer: bytes, other: bytes, rows: int) -> Array:
        """See `securead.protocols.engine.FloodReader`: the noise beside the scores.

        With the answer t times as large, p m / t becomes a multiple of p, and SEAL's rounding of t / p leaves the noise
        e in steps of p / t**2, all of its range, which is e from -p / (2 t) to p / (2 t).
        """
        plan = self._plan
        p, q = plan.data_primes[0], math.prod(plan.data_primes)
        one, two = (self._noise(each, rows) for each in (answer, other))
        # Uniform on [-F, F) before the modulus was switched from q to p.
        return np.asarray((one - two) / (math.ldexp(p / q, plan.flood_bits) / math.sqrt(3)))

    def _noise(self, answer: bytes, rows: int) -> Array:
        plan = self._plan
        self._check(answer, rows)
        t, p = 1 << plan.plain_bits, plan.data_primes[0]
        groups = messages.groups(plan, answer, rows)
        steps = [step for group in groups for step in self._decrypt_group(*group, doublings=plan.plain_bits)]
        return np.array([step - t if step >= t // 2 else step for step in steps]) * (p / t**2)

    def _check(self, answer: bytes, rows: int) -> None:
        plan = self._plan
        if not 1 <= rows <= plan.rows_per_chunk:
            raise FixInputError(f"an answer holds 1 to {plan.rows_per_chunk} rows", value=rows)
        found, key_id = messages.read_preamble(plan, answer, "answer")
        if found != rows:
            raise RejectMessageError("an answer to another number of rows", value=found, remedy=objects.REMEDY)
        if key_id != self._key_id:
            raise UseOtherKeyError("another key encrypted this request", value=key_id[:16], remedy=OTHER_KEY)

    def _decrypt_group(self, c1: Array, kept: Array, places: Array, doublings: int = 0) -> Iterator[int]:
        words = np.zeros((2, 1, self._plan.ring_dimension), dtype=np.uint64)
        words[0, 0, places], words[1, 0] = kept, c1
        for _ in range(doublings):
            words = 2 * words % np.uint64(self._plan.data_primes[0])
        encrypted = objects.encrypted_from_residues(self._context, self._context.last_parms_id(), words, ntt=False)
        plaintext = seal.Plaintext()
        # Coefficients of c0 that were not sent are zero here, and their plaintexts are not looked at.
        self._decryptor.decrypt(encrypted, plaintext)
        count = plaintext.coeff_count()
        for place in places.tolist():
            yield int(plaintext.data(place)) if place < count else 0


def _one_hot(plan: BfvPlan, places: Array, slots: int) -> Iterator[Array]:
    """For each piece of a group, the degrees where its polynomial is 1, falling; `places` `(rows, tables)`."""
    stride = plan.ring_dimension // slots
    pieces = -(-plan.entries // stride)
    piece, within = np.divmod(places, stride)
    degrees = within + np.arange(len(places))[:, None] * stride
    order = np.sort((piece * plan.ring_dimension + degrees).ravel())
    for at, part in enumerate(np.split(order, np.searchsorted(order, np.arange(1, pieces) * plan.ring_dimension))):
        yield part[::-1] - at * plan.ring_dimension


def _secret_body(plan: BfvPlan) -> objects.Body:
    return objects.secret(plan.ring_dimension * len(plan.chain))


def _load_secret(plan: BfvPlan, key: SecretKey) -> Any:
    try:
        return objects.load(seal.SecretKey, context_for(plan), key._content, _secret_body(plan))
    except RejectMessageError as error:
        raise _unreadable(error) from error


def _load_public(plan: BfvPlan, key: PublicKey) -> Any:
    try:
        return messages.unpack_public_key(plan, key._content)
    except RejectMessageError as error:
        raise _unreadable(error) from error


def _unreadable(error: RejectMessageError) -> FixInputError:
    return FixInputError(f"a key cannot be read: {error.what}", remedy="Restore it, or make new keys.")
