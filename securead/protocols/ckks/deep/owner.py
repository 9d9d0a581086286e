"""The half that holds keys: generate, encrypt, decrypt. Only a data owner or a key holder imports it.

Key generation, error sampling, encryption and decryption are SEAL's: an owner adds an encoded column to an encryption
of zero. Decrypted scores are the key holder's alone: whoever learns raw decryptions of a CKKS key can recover it (Li
and Micciancio 2021).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import tenseal.sealapi as seal

from securead.data.schema import Array
from securead.errors import FixInputError, RejectMessageError, UseOtherKeyError
from securead.protocols.ckks.deep import embedding, messages
from securead.protocols.ckks.deep.context import context_for, level_of, transformed
from securead.protocols.ckks.deep.messages import KEY_FILES
from securead.protocols.ckks.deep.plan import DeepPlan
from securead.protocols.seal import objects, packing, publickeys
from securead.protocols.seal.keyfiles import OTHER_KEY
from securead.protocols.seal.keys import StoredKey, check_decrypts, check_encrypts
from securead.protocols.seal.sizes import compressed_limit


class SecretKey(StoredKey):
    """Decrypts, and encrypts in role `same`. `key_id` is its public key's."""

    files, kind = KEY_FILES, "secret"


class PublicKey(StoredKey):
    """Relinearises and masks at the service, and encrypts in role `split`."""

    files, kind = KEY_FILES, "public"


def generate_keys(plan: DeepPlan) -> tuple[SecretKey, PublicKey]:
    """A fresh key pair for one plan, from SEAL's generator seeded by the operating system (`seal.publickeys`)."""
    context, halves = context_for(plan), messages.uniform_halves(plan)
    if plan.switches:
        secret, polynomials = publickeys.generate_with_relinearisation(context, plan.chain, halves)
    else:
        secret, b = publickeys.generate(context, plan.chain, halves[0])
        polynomials = b[None]
    content = messages.pack_key(plan, polynomials)
    key_id = KEY_FILES.key_id(plan.digest, content)
    return SecretKey(plan.digest, key_id, objects.save(secret)), PublicKey(plan.digest, key_id, content)


def secret_key_from_bytes(plan: DeepPlan, content: bytes) -> SecretKey:
    """Invert `SecretKey.to_bytes`. A key of another plan is `UseOtherKeyError`, a damaged file `FixInputError`."""
    limit = compressed_limit(_secret_body(plan).length)
    key_id, body = KEY_FILES.read("secret", plan.digest, content, limit=limit)
    key = SecretKey(plan.digest, key_id, body)
    _load_secret(plan, key)
    return key


def public_key_from_bytes(plan: DeepPlan, content: bytes) -> PublicKey:
    """Invert `PublicKey.to_bytes`; as `secret_key_from_bytes`, and the key must have the name that it bears."""
    limit = packing.residue_bytes(plan.ring_dimension, plan.chain) * plan.key_polynomials
    key_id, body = KEY_FILES.read("public", plan.digest, content, limit=limit)
    key = PublicKey(plan.digest, key_id, body)
    try:
        messages.read_key(plan, body)
    except RejectMessageError as error:
        raise _unreadable(error) from error
    return key


def make_encryptor(plan: DeepPlan, key: SecretKey | PublicKey) -> Encryptor:
    """A secret key for role `same`, a public key for role `split`; anything else is `UseOtherKeyError`."""
    check_encrypts(plan, key)
    return Encryptor(plan, key)


def make_decryptor(plan: DeepPlan, key: SecretKey) -> Decryptor:
    """Only a secret key of this plan decrypts."""
    check_decrypts(plan, key)
    return Decryptor(plan, key)


class Encryptor:
    """Encrypts chunks of encoded records for one plan."""

    def __init__(self, plan: DeepPlan, key: SecretKey | PublicKey) -> None:
        self._plan, self._key_id = plan, key.key_id
        self._context = context_for(plan)
        loaded = _load_secret(plan, key) if isinstance(key, SecretKey) else _load_public(plan, key)
        self._encryptor = seal.Encryptor(self._context, loaded)
        self._primes = np.array(plan.data_primes, dtype=np.uint64)[:, None]

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
        slots = np.zeros((plan.columns, plan.rows_per_chunk))
        slots[: plan.width, : len(Z)] = np.ldexp(Z.T.astype(np.float64), -plan.input_fraction_bits)
        if plan.has_public_column:
            total = sum(term.evaluate(Z.astype(np.int64)) for term in plan.public_terms)
            # Python's division of integers rounds once, whatever their size.
            slots[-1, : len(Z)] = [int(t) / (1 << plan.score_fraction_bits) for t in np.asarray(total)]
        parts: list[bytes | memoryview] = [messages.preamble(len(Z), self._key_id)]
        for start in range(0, plan.columns, 2):
            encoded = embedding.to_coefficients(slots[start : start + 2], plan.input_bits, plan.data_primes)
            for message in transformed(self._context, encoded):
                parts += self._encrypt(message)
        return b"".join(parts)

    def _encrypt(self, message: Array) -> list[bytes | memoryview]:
        """One ciphertext: SEAL's encryption of zero, and a plaintext's residues uint64 `(primes, N)` added to it.

        In role `same` SEAL's own seeded one: c0, and the public seed of which c1 is expanded. SEAL draws seeds and
        errors from the operating system, afresh for every ciphertext.
        """
        if self._plan.role == "same":
            zero = self._encryptor.encrypt_zero_symmetric()
        else:
            zero = publickeys.encryption_of_zero(self._encryptor)
        words, seed = objects.residues(zero)
        words = np.array(words)
        words[0] += message
        words[0] -= np.where(words[0] >= self._primes, self._primes, np.uint64(0))
        return [seed, *packing.packed_residues(words, self._plan.data_primes)]


class Decryptor:
    """Decrypts answers for one plan."""

    def __init__(self, plan: DeepPlan, key: SecretKey) -> None:
        self._plan, self._key_id = plan, key.key_id
        self._context = context_for(plan)
        self._decryptor = seal.Decryptor(self._context, _load_secret(plan, key))

    def decrypt(self, answer: bytes, rows: int) -> Array:
        """Float64 scores `(rows,)`. In role `same` without the public terms, which the submitter adds.

        Raises `RejectMessageError` for anything but an answer under this plan, and `UseOtherKeyError` when it names
        another key, or a slot lies outside the program's range: under another key every slot is noise far beyond it.
        """
        plan = self._plan
        if not 1 <= rows <= plan.rows_per_chunk:
            raise FixInputError(f"an answer holds 1 to {plan.rows_per_chunk} rows", value=rows)
        found, key_id = messages.read_preamble(plan, answer, "answer")
        if found != rows:
            raise RejectMessageError("an answer to another number of rows", value=found, remedy=objects.REMEDY)
        if key_id != self._key_id:
            raise UseOtherKeyError("another key encrypted this request", value=key_id[:16], remedy=OTHER_KEY)
        words, level = messages.answer_residues(plan, answer), level_of(self._context, plan.answer_primes)
        encrypted = objects.encrypted_from_residues(self._context, level, words, ntt=True)
        plaintext = seal.Plaintext()
        self._decryptor.decrypt(encrypted, plaintext)
        phase = np.array(objects.plaintext_residues(plaintext)).reshape(1, *words.shape[1:])
        kept = plan.data_primes[: plan.answer_primes]
        slots = embedding.to_slots(transformed(self._context, phase, back=True)[0], plan.answer_scale, kept)
        # All slots, not only this request's rows: an unused slot holds the score of a record of zeros.
        if not np.isfinite(slots).all() or np.abs(slots).max() > plan.result_bound:
            raise UseOtherKeyError(
                "the decrypted scores are far outside the program's range: another key encrypted this request",
                remedy=OTHER_KEY,
            )
        return slots[:rows]

    def in_floods(self, answer: bytes, other: bytes, rows: int) -> Array:
        """See `securead.protocols.engine.FloodReader`: the scores themselves, which the flood moves.

        N independent coefficients, uniform on [-2**f, 2**f), give a slot's real part N / 2 times their variance.
        """
        plan = self._plan
        deviation = math.ldexp(math.sqrt(plan.ring_dimension / 2 / 3), plan.flood_bits) / plan.score_scale
        return np.asarray((self.decrypt(answer, rows) - self.decrypt(other, rows)) / deviation)


def _secret_body(plan: DeepPlan) -> objects.Body:
    return objects.secret(plan.ring_dimension * len(plan.chain))


def _load_secret(plan: DeepPlan, key: SecretKey) -> Any:
    try:
        return objects.load(seal.SecretKey, context_for(plan), key._content, _secret_body(plan))
    except RejectMessageError as error:
        raise _unreadable(error) from error


def _load_public(plan: DeepPlan, key: PublicKey) -> Any:
    try:
        b = messages.read_key(plan, key._content)[0]
    except RejectMessageError as error:
        raise _unreadable(error) from error
    return objects.public_key_from_residues(context_for(plan), np.stack([b, messages.uniform_halves(plan)[0]]))


def _unreadable(error: RejectMessageError) -> FixInputError:
    return FixInputError(f"a key cannot be read: {error.what}", remedy="Restore it, or make new keys.")
