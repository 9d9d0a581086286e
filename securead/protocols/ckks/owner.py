"""The half that holds keys: generate, encrypt, decrypt. Only a data owner or a key holder imports it.

Key generation, error sampling, encryption and decryption are SEAL's. Decrypted scores are the key holder's alone:
whoever learns raw decryptions of a CKKS key can recover it (Li and Micciancio 2021).
"""

from __future__ import annotations

import hashlib
import math
import struct
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import tenseal.sealapi as seal

from securead.data.schema import Array
from securead.errors import FixInputError, RejectMessageError, UseOtherKeyError
from securead.protocols.ckks import ciphertexts
from securead.protocols.ckks.plan import METADATA_BYTES, CkksPlan, compressed_limit

_KEY_FILE = struct.Struct("<24s32s32s32s")  # kind, plan digest, key id, SHA-256 of what follows
_SECRET_MAGIC, _PUBLIC_MAGIC = b"securead-ckks-secret-1\n\0", b"securead-ckks-public-1\n\0"
_OTHER_KEY = "Use the key directory that was made for this model and role, or make a new one."


@dataclass(frozen=True)
class SecretKey:
    """Decrypts, and encrypts in role `same`. `key_id` is its public key's."""

    plan_digest: str
    key_id: str
    _content: bytes = field(repr=False)

    def to_bytes(self) -> bytes:
        """The key as a file's content: a secret."""
        return _key_file(_SECRET_MAGIC, self.plan_digest, self.key_id, self._content)


@dataclass(frozen=True)
class PublicKey:
    """Encrypts only. `key_id` is SHA-256 over the plan's digest and the key itself, so it cannot be exchanged."""

    plan_digest: str
    key_id: str
    _content: bytes = field(repr=False)

    def to_bytes(self) -> bytes:
        """The key as a file's content: not a secret, but whoever can exchange it reads what it encrypts."""
        return _key_file(_PUBLIC_MAGIC, self.plan_digest, self.key_id, self._content)


def generate_keys(plan: CkksPlan) -> tuple[SecretKey, PublicKey]:
    """A fresh key pair for one plan, from SEAL's generator seeded by the operating system."""
    generator = seal.KeyGenerator(ciphertexts.context_for(plan))
    created = seal.PublicKey()
    generator.create_public_key(created)
    public = ciphertexts.save(created)
    key_id = _key_id(plan.digest, public)
    secret = ciphertexts.save(generator.secret_key())
    return SecretKey(plan.digest, key_id, secret), PublicKey(plan.digest, key_id, public)


def secret_key_from_bytes(plan: CkksPlan, content: bytes) -> SecretKey:
    """Invert `SecretKey.to_bytes`. A key of another plan is `UseOtherKeyError`, a damaged file `FixInputError`."""
    limit = compressed_limit(_secret_body(plan).length)
    key_id, body = _read_key_file(plan, content, _SECRET_MAGIC, limit, "secret")
    key = SecretKey(plan.digest, key_id, body)
    _load_secret(plan, key)
    return key


def public_key_from_bytes(plan: CkksPlan, content: bytes) -> PublicKey:
    """Invert `PublicKey.to_bytes`; as `secret_key_from_bytes`, and the key must have the name that it bears."""
    limit = compressed_limit(_public_body(plan).length)
    key_id, body = _read_key_file(plan, content, _PUBLIC_MAGIC, limit, "public")
    if _key_id(plan.digest, body) != key_id:
        raise FixInputError("a public key does not have the name that it bears", remedy="The file was changed.")
    key = PublicKey(plan.digest, key_id, body)
    _load_public(plan, key)
    return key


def make_encryptor(plan: CkksPlan, key: SecretKey | PublicKey) -> Encryptor:
    """A secret key for role `same`, a public key for role `split`; anything else is `UseOtherKeyError`."""
    expected = SecretKey if plan.role == "same" else PublicKey
    if type(key) is not expected:
        raise UseOtherKeyError(
            f"role {plan.role!r} encrypts with a {'secret' if plan.role == 'same' else 'public'} key",
            value=type(key).__name__,
            remedy=_OTHER_KEY,
        )
    _same_plan(plan, key.plan_digest)
    return Encryptor(plan, key)


def make_decryptor(plan: CkksPlan, key: SecretKey) -> Decryptor:
    """Only a secret key of this plan decrypts."""
    if type(key) is not SecretKey:
        raise UseOtherKeyError("only a secret key decrypts", value=type(key).__name__, remedy=_OTHER_KEY)
    _same_plan(plan, key.plan_digest)
    return Decryptor(plan, key)


class Encryptor:
    """Encrypts chunks of encoded records for one plan."""

    def __init__(self, plan: CkksPlan, key: SecretKey | PublicKey) -> None:
        self._plan = plan
        context = ciphertexts.context_for(plan)
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
        parts = [self._encrypt_column(real[:, i]) for i in range(plan.width)]
        if plan.has_public_column:
            total = sum(term.evaluate(Z.astype(np.int64)) for term in plan.public_terms)
            exact = [math.ldexp(1.0, -plan.score_fraction_bits) * int(t) for t in np.asarray(total)]
            parts.append(self._encrypt_column(np.array(exact)))
        return ciphertexts.pack(parts)

    def _encrypt_column(self, values: Array) -> bytes:
        plaintext = seal.Plaintext()
        self._encoder.encode(values.tolist(), self._plan.input_scale, plaintext)
        if self._plan.role == "same":
            return ciphertexts.save(self._encryptor.encrypt_symmetric(plaintext))
        encrypted = seal.Ciphertext()
        self._encryptor.encrypt(plaintext, encrypted)
        return ciphertexts.save(encrypted)


class Decryptor:
    """Decrypts answers for one plan."""

    def __init__(self, plan: CkksPlan, key: SecretKey) -> None:
        self._plan = plan
        self._context = ciphertexts.context_for(plan)
        self._level = ciphertexts.level_ids(self._context)[-plan.answer_primes]
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
        body = ciphertexts.whole(plan.answer_ciphertext_bytes)
        (part,) = ciphertexts.unpack(answer, count=1, limit=compressed_limit(body.length))
        encrypted = ciphertexts.load_ciphertext(
            self._context, part, body, parms_id=self._level, size=plan.answer_size, scale=plan.answer_scale
        )
        plaintext = seal.Plaintext()
        self._decryptor.decrypt(encrypted, plaintext)
        slots = np.array(self._encoder.decode_double(plaintext))
        # All slots, not only this request's rows: an unused slot holds the score of a record of zeros.
        if not np.isfinite(slots).all() or np.abs(slots).max() > plan.result_bound:
            raise UseOtherKeyError(
                "the decrypted scores are far outside the program's range: another key encrypted this request",
                remedy=_OTHER_KEY,
            )
        return slots[:rows]


def _key_id(plan_digest: str, public: bytes) -> str:
    return hashlib.sha256(b"securead.protocols.ckks.key.v1\0" + bytes.fromhex(plan_digest) + public).hexdigest()


def _key_file(magic: bytes, plan_digest: str, key_id: str, body: bytes) -> bytes:
    prefix = _KEY_FILE.pack(magic, bytes.fromhex(plan_digest), bytes.fromhex(key_id), hashlib.sha256(body).digest())
    return prefix + body


def _read_key_file(plan: CkksPlan, content: bytes, magic: bytes, limit: int, kind: str) -> tuple[str, bytes]:
    remedy = "The file is damaged or foreign: restore it, or make new keys."
    found, plan_digest, key_id, checksum = _KEY_FILE.unpack_from(content.ljust(_KEY_FILE.size, b"\0"))
    if found in (_SECRET_MAGIC, _PUBLIC_MAGIC) and found != magic:
        raise UseOtherKeyError(f"this is not a {kind} key", remedy="Give the other file of the pair.")
    if found != magic or len(content) <= _KEY_FILE.size:
        raise FixInputError(f"this is no {kind} key of the engine 'ckks'", remedy=remedy)
    _same_plan(plan, plan_digest.hex())
    body = content[_KEY_FILE.size :]
    if len(body) > limit or hashlib.sha256(body).digest() != checksum:
        raise FixInputError(f"a {kind} key is damaged: its checksum differs", remedy=remedy)
    return key_id.hex(), body


def _same_plan(plan: CkksPlan, plan_digest: str) -> None:
    if plan_digest != plan.digest:
        raise UseOtherKeyError(
            "the key was made for another model, role or release",
            value=plan_digest[:16],
            remedy=_OTHER_KEY,
        )


def _secret_body(plan: CkksPlan) -> ciphertexts.Body:
    return ciphertexts.secret(plan.ring_dimension * (len(plan.data_primes) + 1))


def _public_body(plan: CkksPlan) -> ciphertexts.Body:
    words = plan.ring_dimension * (len(plan.data_primes) + 1)
    return ciphertexts.whole(METADATA_BYTES + 16 * words)


def _load_secret(plan: CkksPlan, key: SecretKey) -> Any:
    return _load_key(plan, seal.SecretKey, key._content, _secret_body(plan))


def _load_public(plan: CkksPlan, key: PublicKey) -> Any:
    return _load_key(plan, seal.PublicKey, key._content, _public_body(plan))


def _load_key(plan: CkksPlan, kind: Any, content: bytes, expected: ciphertexts.Body) -> Any:
    try:
        return ciphertexts.load(kind, ciphertexts.context_for(plan), content, expected)
    except RejectMessageError as error:
        raise FixInputError(f"a key cannot be read: {error.what}", remedy="Restore it, or make new keys.") from error
