"""The half that holds keys: generate, encrypt, decrypt. Only a data owner or a key holder imports it.

Key generation, error sampling, encryption and decryption are SEAL's. Decrypted scores are the key holder's alone:
whoever learns raw decryptions of a CKKS key can recover it (Li and Micciancio 2021).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import tenseal.sealapi as seal

from securead.data.schema import Array
from securead.errors import FixInputError, RejectMessageError, UseOtherKeyError
from securead.protocols.ckks.context import context_for
from securead.protocols.ckks.plan import CkksPlan
from securead.protocols.seal import objects, parts
from securead.protocols.seal.keyfiles import OTHER_KEY, KeyFiles
from securead.protocols.seal.keys import StoredKey, check_decrypts, check_encrypts
from securead.protocols.seal.sizes import METADATA_BYTES, compressed_limit

_FILES = KeyFiles("ckks")


class SecretKey(StoredKey):
    """Decrypts, and encrypts in role `same`. `key_id` is its public key's."""

    files, kind = _FILES, "secret"


class PublicKey(StoredKey):
    """Encrypts only."""

    files, kind = _FILES, "public"


def generate_keys(plan: CkksPlan) -> tuple[SecretKey, PublicKey]:
    """A fresh key pair for one plan, from SEAL's generator seeded by the operating system."""
    generator = seal.KeyGenerator(context_for(plan))
    created = seal.PublicKey()
    generator.create_public_key(created)
    public = objects.save(created)
    key_id = _FILES.key_id(plan.digest, public)
    secret = objects.save(generator.secret_key())
    return SecretKey(plan.digest, key_id, secret), PublicKey(plan.digest, key_id, public)


def secret_key_from_bytes(plan: CkksPlan, content: bytes) -> SecretKey:
    """Invert `SecretKey.to_bytes`. A key of another plan is `UseOtherKeyError`, a damaged file `FixInputError`."""
    limit = compressed_limit(_secret_body(plan).length)
    key_id, body = _FILES.read("secret", plan.digest, content, limit=limit)
    key = SecretKey(plan.digest, key_id, body)
    _load_secret(plan, key)
    return key


def public_key_from_bytes(plan: CkksPlan, content: bytes) -> PublicKey:
    """Invert `PublicKey.to_bytes`; as `secret_key_from_bytes`, and the key must have the name that it bears."""
    limit = compressed_limit(_public_body(plan).length)
    key_id, body = _FILES.read("public", plan.digest, content, limit=limit)
    key = PublicKey(plan.digest, key_id, body)
    _load_public(plan, key)
    return key


def make_encryptor(plan: CkksPlan, key: SecretKey | PublicKey) -> Encryptor:
    """A secret key for role `same`, a public key for role `split`; anything else is `UseOtherKeyError`."""
    check_encrypts(plan, key)
    return Encryptor(plan, key)


def make_decryptor(plan: CkksPlan, key: SecretKey) -> Decryptor:
    """Only a secret key of this plan decrypts."""
    check_decrypts(plan, key)
    return Decryptor(plan, key)


class Encryptor:
    """Encrypts chunks of encoded records for one plan."""

    def __init__(self, plan: CkksPlan, key: SecretKey | PublicKey) -> None:
        self._plan = plan
        context = context_for(plan)
        loaded = _load_secret(plan, key) if isinstance(key, SecretKey) else _load_public(plan, key)
        self._encoder, self._encryptor = seal.CKKSEncoder(context), seal.Encryptor(context, loaded)

    def encrypt(self, Z: Array) -> bytes:
        """The request payload for integers `(n, width)`, 1 <= n <= rows_per_chunk. Fresh randomness every time."""
        plan = self._plan
        Z = np.asarray(Z)
        if Z.ndim != 2 or Z.shape[1] != plan.width or not 1 <= len(Z) <= plan.rows_per_chunk:
            raise FixInputError(
                "encoded records have the wrong shape",
                value=Z.shape,
                remedy=f"Give 1 to {plan.rows_per_chunk} rows of {plan.width} integers.",
            )
        if not np.issubdtype(Z.dtype, np.integer) or max(int(Z.max()), -int(Z.min())) > plan.input_bound:
            raise FixInputError(
                "encoded records are integers within the encoder's bound",
                value=str(Z.dtype),
                remedy="Encode records with the program's own encoder.",
            )
        real = np.ldexp(Z.astype(np.float64), -plan.input_fraction_bits)
        columns = [self._encrypt_column(real[:, i]) for i in range(plan.width)]
        if plan.has_public_column:
            total = sum(term.evaluate(Z.astype(np.int64)) for term in plan.public_terms)
            exact = [math.ldexp(1.0, -plan.score_fraction_bits) * int(t) for t in np.asarray(total)]
            columns.append(self._encrypt_column(np.array(exact)))
        return parts.pack(columns)

    def _encrypt_column(self, values: Array) -> bytes:
        plaintext = seal.Plaintext()
        self._encoder.encode(values.tolist(), self._plan.input_scale, plaintext)
        if self._plan.role == "same":
            return objects.save(self._encryptor.encrypt_symmetric(plaintext))
        encrypted = seal.Ciphertext()
        self._encryptor.encrypt(plaintext, encrypted)
        return objects.save(encrypted)


class Decryptor:
    """Decrypts answers for one plan."""

    def __init__(self, plan: CkksPlan, key: SecretKey) -> None:
        self._plan = plan
        self._context = context_for(plan)
        self._level = objects.level_ids(self._context)[-plan.answer_primes]
        self._encoder = seal.CKKSEncoder(self._context)
        self._decryptor = seal.Decryptor(self._context, _load_secret(plan, key))

    def decrypt(self, answer: bytes, rows: int) -> Array:
        """Float64 scores `(rows,)`. In role `same` without the public terms, which the submitter adds.

        Raises `RejectMessageError` for anything but an answer under this plan, and `UseOtherKeyError` when a slot
        lies outside the program's range: under another key every slot is noise far beyond it.
        """
        plan = self._plan
        if not 1 <= rows <= plan.rows_per_chunk:
            raise FixInputError(f"an answer holds 1 to {plan.rows_per_chunk} rows", value=rows)
        body = objects.whole(plan.answer_ciphertext_bytes)
        (part,) = parts.unpack(answer, count=1, limit=compressed_limit(body.length))
        encrypted = objects.load_ciphertext(
            self._context, part, body, parms_id=self._level, size=plan.answer_size, scale=plan.answer_scale
        )
        plaintext = seal.Plaintext()
        self._decryptor.decrypt(encrypted, plaintext)
        slots = np.array(self._encoder.decode_double(plaintext))
        # All slots, not only this request's rows: an unused slot holds the score of a record of zeros.
        if not np.isfinite(slots).all() or np.abs(slots).max() > plan.result_bound:
            raise UseOtherKeyError(
                "the decrypted scores are far outside the program's range: another key encrypted this request",
                remedy=OTHER_KEY,
            )
        return slots[:rows]


def _secret_body(plan: CkksPlan) -> objects.Body:
    return objects.secret(plan.ring_dimension * (len(plan.data_primes) + 1))


def _public_body(plan: CkksPlan) -> objects.Body:
    words = plan.ring_dimension * (len(plan.data_primes) + 1)
    return objects.whole(METADATA_BYTES + 16 * words)


def _load_secret(plan: CkksPlan, key: SecretKey) -> Any:
    return _load_key(plan, seal.SecretKey, key._content, _secret_body(plan))


def _load_public(plan: CkksPlan, key: PublicKey) -> Any:
    return _load_key(plan, seal.PublicKey, key._content, _public_body(plan))


def _load_key(plan: CkksPlan, kind: Any, content: bytes, expected: objects.Body) -> Any:
    try:
        return objects.load(kind, context_for(plan), content, expected)
    except RejectMessageError as error:
        raise FixInputError(f"a key cannot be read: {error.what}", remedy="Restore it, or make new keys.") from error
