"""The half that holds an owner's key: blind, and take the blind off. Only a data owner imports it.

What is secret is a key of 32 bytes from the operating system, from which HKDF (of the package `cryptography`) makes the
blind's low bits; everything else of a blind is drawn anew and forgotten.
"""

from __future__ import annotations

import hashlib
import secrets
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from securead.data.schema import Array
from securead.errors import FixInputError, RejectMessageError, UseOtherKeyError
from securead.protocols.paillier import messages
from securead.protocols.paillier.messages import KEY_FILES, REMEDY, Request
from securead.protocols.paillier.plan import SALT_BYTES, PaillierPlan
from securead.protocols.paillier.powers import cores, powers, whole
from securead.protocols.paillier.published import Published, read
from securead.protocols.seal.keyfiles import OTHER_KEY
from securead.protocols.seal.keys import StoredKey, check_decrypts, check_encrypts

KEY_BYTES = 32
_OWNER_DOMAIN = b"securead.protocols.paillier.owner.v1\0"
_BLIND_DOMAIN = b"securead.protocols.paillier.blind.v1"


class SecretKey(StoredKey):
    """Blinds, and takes blinds off."""

    files, kind = KEY_FILES, "secret"


class PublicKey(StoredKey):
    """Names an owner, so that a service can count its rows. It encrypts nothing."""

    files, kind = KEY_FILES, "public"


def generate_keys(plan: PaillierPlan) -> tuple[SecretKey, PublicKey]:
    """A fresh key for one plan, and the name that it has for a service."""
    return _pair(plan, secrets.token_bytes(KEY_BYTES))


def secret_key_from_bytes(plan: PaillierPlan, content: bytes) -> SecretKey:
    """Invert `SecretKey.to_bytes`. A key of another plan is `UseOtherKeyError`, a damaged file `FixInputError`."""
    key_id, body = KEY_FILES.read("secret", plan.digest, content, limit=KEY_BYTES)
    secret, _ = _pair(plan, body)
    if len(body) != KEY_BYTES or secret.key_id != key_id:
        raise FixInputError("a secret key is not what its name says", remedy="Restore the file, or make new keys.")
    return secret


def public_key_from_bytes(plan: PaillierPlan, content: bytes) -> PublicKey:
    """Invert `PublicKey.to_bytes`; as `secret_key_from_bytes`."""
    return PublicKey(plan.digest, *KEY_FILES.read("public", plan.digest, content, limit=KEY_BYTES))


def make_encryptor(plan: PaillierPlan, key: SecretKey | PublicKey, published: bytes = b"") -> Encryptor:
    """An encryptor for what the plan's service publishes. Reading it takes .1 s a thousand entries, once a process.

    A public key is `UseOtherKeyError`; so is another program's publication, and an unsound one `RejectMessageError`.
    """
    check_encrypts(plan, key)
    if not published:
        raise FixInputError(
            "blind lookups need the tables that the service publishes",
            remedy="Make keys from the service (`securead keygen --server`), which fetches them.",
        )
    return Encryptor(plan, key, read(plan, published))


def make_decryptor(plan: PaillierPlan, key: SecretKey) -> Decryptor:
    """Only a secret key of this plan takes blinds off."""
    check_decrypts(plan, key)
    return Decryptor(plan, key)


class Encryptor:
    """Looks up positions in published tables, and blinds what it finds."""

    def __init__(self, plan: PaillierPlan, key: StoredKey, tables: Published) -> None:
        self._plan, self._key, self._tables = plan, key, tables
        self._sizes = np.array(plan.sizes, dtype=np.int64)
        self._starts = np.cumsum(self._sizes) - self._sizes

    def prepare(self, requests: int = 1) -> None:
        """Make the random factors of so many requests ahead of time: nearly all of what blinding costs.

        They are shared by all encryptors of one publication in this process, and each is used once. Cores share the
        work.
        """
        with ThreadPoolExecutor(cores(), thread_name_prefix="securead-paillier") as threads:
            list(threads.map(lambda _: self._tables.factors.refill(), range(requests)))

    def encrypt(self, queries: Array) -> bytes:
        """The request payload for positions `(n, tables)`, 1 <= n <= rows_per_chunk. Fresh randomness every time."""
        plan, tables = self._plan, self._tables
        product = self._packed(self._checked(queries))
        salt = secrets.token_bytes(SALT_BYTES)
        low = whole(_blind(plan, self._key, salt))
        high = secrets.randbelow(int(tables.n >> plan.packed_bits) - 1)
        blind = low + (whole(high) << plan.packed_bits)
        product = product * (1 + blind * tables.n) % tables.square * tables.factors.take() % tables.square
        name = bytes.fromhex(self._key.key_id)
        return Request(len(queries), name, tables.name, salt, int(product)).to_bytes(plan)

    def _packed(self, places: Array) -> Any:
        """An encryption of all rows' scores, row j's at bits score_bits * j and up: not yet blinded."""
        entries, square, shift = self._tables.entries, self._tables.square, 1 << self._plan.score_bits
        packed: Any = whole(1)
        for row in places[::-1].tolist():
            packed = powers([packed], shift, square)[0]
            for place in row:
                packed = packed * entries[place] % square
        return packed

    def _checked(self, queries: Array) -> Array:
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
        places: Array = queries.astype(np.int64) + self._starts
        return places


class Decryptor:
    """Takes blinds off answers."""

    def __init__(self, plan: PaillierPlan, key: SecretKey) -> None:
        self._plan, self._key = plan, key

    def decrypt(self, answer: bytes, rows: int) -> Array:
        """Float64 scores `(rows,)`, exact.

        Raises `RejectMessageError` for anything but an answer under this plan, and `UseOtherKeyError` when it names
        another key. Whatever a service answered in the right form is a score: no failure depends on what was looked
        up, so none can tell it.
        """
        plan = self._plan
        if not 1 <= rows <= plan.rows_per_chunk:
            raise FixInputError(f"an answer holds 1 to {plan.rows_per_chunk} rows", value=rows)
        found = messages.read_answer(plan, answer)
        if found.rows != rows:
            raise RejectMessageError("an answer to another number of rows", value=found.rows, remedy=REMEDY)
        if found.key_id.hex() != self._key.key_id:
            raise UseOtherKeyError("another key made this request", value=found.key_id.hex()[:16], remedy=OTHER_KEY)
        width = plan.score_bits
        packed = (found.low - _blind(plan, self._key, found.salt)) % (1 << width * rows)
        scores = [packed >> width * row & (1 << width) - 1 for row in range(rows)]
        return np.array(scores, dtype=np.float64) * plan.unit


def _pair(plan: PaillierPlan, content: bytes) -> tuple[SecretKey, PublicKey]:
    public = hashlib.sha256(_OWNER_DOMAIN + content).digest()
    key_id = KEY_FILES.key_id(plan.digest, public)
    return SecretKey(plan.digest, key_id, content), PublicKey(plan.digest, key_id, public)


def _blind(plan: PaillierPlan, key: StoredKey, salt: bytes) -> int:
    """The low bits of a request's blind: all that scores can touch."""
    size = -(-plan.packed_bits // 8)
    drawn = HKDF(SHA256(), size, salt, _BLIND_DOMAIN).derive(key._content)
    return int.from_bytes(drawn, "little") & (1 << plan.packed_bits) - 1
