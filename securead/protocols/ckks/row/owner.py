"""The half that holds keys: generate, encrypt, decrypt. Only a data owner or a key holder imports it.

Key generation, error sampling, encryption and decryption are SEAL's: a request is SEAL's encryptions of zero, to which
public arithmetic adds a record's monomials. Decrypted scores are the key holder's alone: whoever learns raw decryptions
of a CKKS key can recover it (Li and Micciancio 2021). A public key's uniform half is not SEAL's, nor the owner's
choice: SEAL's key is moved to it, by SEAL.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import tenseal.sealapi as seal

from securead.data.schema import Array
from securead.errors import FixInputError, RejectMessageError, UseOtherKeyError
from securead.protocols.bfv.layouts import Layout
from securead.protocols.ckks.row import messages, monomials
from securead.protocols.ckks.row.context import context_for
from securead.protocols.ckks.row.messages import KEY_FILES
from securead.protocols.ckks.row.plan import RowPlan
from securead.protocols.seal import objects, packing, publickeys
from securead.protocols.seal.keyfiles import OTHER_KEY
from securead.protocols.seal.keys import StoredKey, check_decrypts, check_encrypts
from securead.protocols.seal.sizes import compressed_limit


class SecretKey(StoredKey):
    """Decrypts, and encrypts in role `same`. `key_id` is its public key's."""

    files, kind = KEY_FILES, "secret"


class PublicKey(StoredKey):
    """Masks answers at the service, and encrypts in role `split`."""

    files, kind = KEY_FILES, "public"


def generate_keys(plan: RowPlan) -> tuple[SecretKey, PublicKey]:
    """A fresh key pair for one plan, from SEAL's generator seeded by the operating system (`seal.publickeys`)."""
    secret, b = publickeys.generate(context_for(plan), plan.chain, messages.uniform_half(plan))
    content = packing.pack_residues(b[None], plan.chain)
    key_id = KEY_FILES.key_id(plan.digest, content)
    return SecretKey(plan.digest, key_id, objects.save(secret)), PublicKey(plan.digest, key_id, content)


def secret_key_from_bytes(plan: RowPlan, content: bytes) -> SecretKey:
    """Invert `SecretKey.to_bytes`. A key of another plan is `UseOtherKeyError`, a damaged file `FixInputError`."""
    limit = compressed_limit(_secret_body(plan).length)
    key_id, body = KEY_FILES.read("secret", plan.digest, content, limit=limit)
    key = SecretKey(plan.digest, key_id, body)
    _load_secret(plan, key)
    return key


def public_key_from_bytes(plan: RowPlan, content: bytes) -> PublicKey:
    """Invert `PublicKey.to_bytes`; as `secret_key_from_bytes`, and the key must have the name that it bears."""
    limit = publickeys.content_bytes(plan.chain, plan.ring_dimension)
    key_id, body = KEY_FILES.read("public", plan.digest, content, limit=limit)
    key = PublicKey(plan.digest, key_id, body)
    _load_public(plan, key)
    return key


def make_encryptor(plan: RowPlan, key: SecretKey | PublicKey) -> Encryptor:
    """A secret key for role `same`, a public key for role `split`; anything else is `UseOtherKeyError`."""
    check_encrypts(plan, key)
    return Encryptor(plan, key)


def make_decryptor(plan: RowPlan, key: SecretKey) -> Decryptor:
    """Only a secret key of this plan decrypts."""
    check_decrypts(plan, key)
    return Decryptor(plan, key)


class Encryptor:
    """Encrypts chunks of encoded records for one plan."""

    def __init__(self, plan: RowPlan, key: SecretKey | PublicKey) -> None:
        self._plan, self._key_id = plan, key.key_id
        loaded = _load_secret(plan, key) if isinstance(key, SecretKey) else _load_public(plan, key)
        self._encryptor = seal.Encryptor(context_for(plan), loaded)
        self._primes = np.array(plan.data_primes, dtype=np.uint64)[:, None]

    def encrypt(self, Z: Array) -> bytes:
        """The request payload for integers `(n, width)`, 1 <= n <= rows_per_chunk. Fresh randomness every time."""
        plan, Z = self._plan, np.asarray(Z)
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
        scale = 1 << plan.scale_bits
        lifted = np.stack([monomials.residues(Z, plan.degree, scale, prime) for prime in plan.data_primes])
        encrypted = [
            self._encrypt_piece(piece)
            for group in plan.groups(len(Z))
            for piece in arranged(plan, lifted[:, group.first : group.first + group.rows], group.layout)
        ]
        return messages.preamble(len(Z), self._key_id) + b"".join(encrypted)

    def _encrypt_piece(self, message: Array) -> bytes:
        """SEAL's encryption of zero, and a polynomial `(primes, N)` added to it."""
        if self._plan.role == "same":
            words, seed = objects.residues(self._encryptor.encrypt_zero_symmetric())
        else:
            words, seed = objects.residues(publickeys.encryption_of_zero(self._encryptor))
        # Sums of two residues are far below 2**64.
        total = words.copy()
        total[0] = (words[0] + message) % self._primes
        return messages.pack_ciphertext(self._plan, total, seed)


class Decryptor:
    """Decrypts answers for one plan."""

    def __init__(self, plan: RowPlan, key: SecretKey) -> None:
        self._plan, self._key_id = plan, key.key_id
        self._context = context_for(plan)
        self._level = objects.level_ids(self._context)[len(plan.data_primes) - plan.answer_primes]
        self._decryptor = seal.Decryptor(self._context, _load_secret(plan, key))
        self._q = math.prod(plan.data_primes)
        self._most = (1 << plan.score_bits + plan.scale_bits) + plan.error

    def decrypt(self, answer: bytes, rows: int) -> Array:
        """Float64 scores `(rows,)`. In role `same` without the public terms, which the submitter adds.

        Raises `RejectMessageError` for anything but an answer under this plan, and `UseOtherKeyError` when it names
        another key, or a score lies outside the program's range.
        """
        plan = self._plan
        self._check(answer, rows)
        scores = [score for group in messages.groups(plan, answer, rows) for score in self._decrypt_group(*group)]
        return np.array(scores, dtype=np.float64)

    def in_floods(self, answer: bytes, other: bytes, rows: int) -> Array:
        """See `securead.protocols.engine.FloodReader`: scores hold the flood, which is uniform on [-F, F)."""
        plan = self._plan
        unit = math.ldexp(math.sqrt(3), plan.score_fraction_bits + plan.scale_bits - plan.flood_bits)
        return np.asarray((self.decrypt(answer, rows) - self.decrypt(other, rows)) * unit)

    def _check(self, answer: bytes, rows: int) -> None:
        plan = self._plan
        if not 1 <= rows <= plan.rows_per_chunk:
            raise FixInputError(f"an answer holds 1 to {plan.rows_per_chunk} rows", value=rows)
        found, key_id = messages.read_preamble(plan, answer, "answer")
        if found != rows:
            raise RejectMessageError("an answer to another number of rows", value=found, remedy=objects.REMEDY)
        if key_id != self._key_id:
            raise UseOtherKeyError("another key encrypted this request", value=key_id[:16], remedy=OTHER_KEY)

    def _decrypt_group(self, words: Array, places: Array) -> Iterator[float]:
        plan = self._plan
        encrypted = objects.encrypted_from_residues(self._context, self._level, words, ntt=False)
        plaintext = seal.Plaintext()
        # Coefficients of c0 that were not sent are zero here, and their plaintexts are not looked at.
        self._decryptor.decrypt(encrypted, plaintext)
        count, steps = plaintext.coeff_count(), 1 << plan.plain_bits
        unit = 1 << plan.plain_bits + plan.scale_bits + plan.score_fraction_bits
        for place in places.tolist():
            read = int(plaintext.data(place)) if place < count else 0
            read -= steps if read >= steps // 2 else 0
            if abs(read) * self._q > self._most * steps:
                raise UseOtherKeyError(
                    "a decrypted score is outside the program's range: another key encrypted this request",
                    remedy=OTHER_KEY,
                )
            yield read * self._q / unit  # integers of any size, rounded once


def arranged(plan: RowPlan, lifted: Array, layout: Layout) -> Iterator[Array]:
    """For each piece of a group, its polynomial uint64 `(primes, N)`; `lifted` int64 `(primes, rows, monomials)`.

    Monomial j S + i of row r is coefficient r S + i of piece j, S the layout's stride.
    """
    primes, rows, count = lifted.shape
    stride = layout.stride(plan.ring_dimension)
    padded = np.zeros((primes, rows, layout.pieces * stride), dtype=np.uint64)
    padded[:, :, :count] = lifted
    for at in range(0, layout.pieces * stride, stride):
        piece = np.zeros((primes, plan.ring_dimension), dtype=np.uint64)
        piece[:, : rows * stride] = padded[:, :, at : at + stride].reshape(primes, -1)
        yield piece


def _secret_body(plan: RowPlan) -> objects.Body:
    return objects.secret(plan.ring_dimension * len(plan.chain))


def _load_secret(plan: RowPlan, key: SecretKey) -> Any:
    try:
        return objects.load(seal.SecretKey, context_for(plan), key._content, _secret_body(plan))
    except RejectMessageError as error:
        raise _unreadable(error) from error


def _load_public(plan: RowPlan, key: PublicKey) -> Any:
    try:
        return messages.unpack_public_key(plan, key._content)
    except RejectMessageError as error:
        raise _unreadable(error) from error


def _unreadable(error: RejectMessageError) -> FixInputError:
    return FixInputError(f"a key cannot be read: {error.what}", remedy="Restore it, or make new keys.")
