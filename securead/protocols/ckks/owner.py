"""The half that holds keys: generate, encrypt, decrypt. Only a data owner or a key holder imports it.

Key generation, error sampling, encryption and decryption are SEAL's. Decrypted scores are the key holder's alone:
whoever learns raw decryptions of a CKKS key can recover it (Li and Micciancio 2021). A public key's uniform half is not
SEAL's, nor the owner's choice: SEAL's key is moved to it, by SEAL.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import tenseal.sealapi as seal

from securead.data.schema import Array
from securead.errors import FixInputError, RejectMessageError, UseOtherKeyError
from securead.protocols.ckks import messages
from securead.protocols.ckks.context import context_for
from securead.protocols.ckks.messages import KEY_FILES
from securead.protocols.ckks.plan import CkksPlan
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


def generate_keys(plan: CkksPlan) -> tuple[SecretKey, PublicKey]:
    """A fresh key pair for one plan, from SEAL's generator seeded by the operating system (`seal.publickeys`)."""
    secret, b = publickeys.generate(context_for(plan), plan.chain, messages.uniform_half(plan))
    content = packing.pack_residues(b[None], plan.chain)
    key_id = KEY_FILES.key_id(plan.digest, content)
    return SecretKey(plan.digest, key_id, objects.save(secret)), PublicKey(plan.digest, key_id, content)


def secret_key_from_bytes(plan: CkksPlan, content: bytes) -> SecretKey:
    """Invert `SecretKey.to_bytes`. A key of another plan is `UseOtherKeyError`, a damaged file `FixInputError`."""
    limit = compressed_limit(_secret_body(plan).length)
    key_id, body = KEY_FILES.read("secret", plan.digest, content, limit=limit)
    key = SecretKey(plan.digest, key_id, body)
    _load_secret(plan, key)
    return key


def public_key_from_bytes(plan: CkksPlan, content: bytes) -> PublicKey:
    """Invert `PublicKey.to_bytes`; as `secret_key_from_bytes`, and the key must have the name that it bears."""
    limit = publickeys.content_bytes(plan.chain, plan.ring_dimension)
    key_id, body = KEY_FILES.read("public", plan.digest, content, limit=limit)
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
        self._plan, self._key_id = plan, key.key_id
        context = context_for(plan)
        self._encoder = seal.CKKSEncoder(context)
        loaded = _load_secret(plan, key) if isinstance(key, SecretKey) else _load_public(plan, key)
        self._encryptor = seal.Encryptor(context, loaded)

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
        parts: list[bytes | memoryview] = [messages.preamble(len(Z), self._key_id)]
        for i in range(plan.width):
            parts += self._encrypt_column(real[:, i])
        if plan.has_public_column:
            total = sum(term.evaluate(Z.astype(np.int64)) for term in plan.public_terms)
            exact = [math.ldexp(1.0, -plan.score_fraction_bits) * int(t) for t in np.asarray(total)]
            parts += self._encrypt_column(np.array(exact))
        return b"".join(parts)

    def _encrypt_column(self, values: Array) -> list[bytes | memoryview]:
        """One ciphertext. In role `same` SEAL's own seeded one: c0, and the public seed of which c1 is expanded.

        SEAL draws seeds and errors from the operating system, afresh for every ciphertext.
        """
        plaintext = seal.Plaintext()
        self._encoder.encode(values.tolist(), self._plan.input_scale, plaintext)
        if self._plan.role == "same":
            return messages.column(self._plan, *objects.residues(self._encryptor.encrypt_symmetric(plaintext)))
        encrypted = seal.Ciphertext()
        self._encryptor.encrypt(plaintext, encrypted)
        return messages.column(self._plan, *objects.residues(encrypted))


_SMALL_SHARE = 0.01  # of the flood's variance


class Decryptor:
    """Decrypts answers for one plan."""

    def __init__(self, plan: CkksPlan, key: SecretKey) -> None:
        self._plan, self._key_id = plan, key.key_id
        self._context = context_for(plan)
        self._level = objects.level_ids(self._context)[-plan.answer_primes]
        self._encoder = seal.CKKSEncoder(self._context)
        self._decryptor = seal.Decryptor(self._context, _load_secret(plan, key))

    def decrypt(self, answer: bytes, rows: int) -> Array:
        """Float64 scores `(rows,)`. In role `same` without the public terms, which the submitter adds.

        Raises `RejectMessageError` for anything but an answer under this plan, and `UseOtherKeyError` when it names
        another key, or a slot lies outside the program's range: under another key every slot is noise far beyond it.
        """
        slots = self._slots(self._residues(answer, rows))
        # All slots, not only this request's rows: an unused slot holds the score of a record of zeros.
        if not np.isfinite(slots).all() or np.abs(slots).max() > self._plan.result_bound:
            raise UseOtherKeyError(
                "the decrypted scores are far outside the program's range: another key encrypted this request",
                remedy=OTHER_KEY,
            )
        return slots[:rows]

    def in_floods(self, answer: bytes, other: bytes, rows: int) -> Array | None:
        """See `securead.protocols.engine.FloodReader`: the ciphertexts' difference, which is of the floods' size.

        Scores themselves may be more than 2**53 times larger, so that their doubles know nothing of a flood. N
        independent coefficients, uniform on [-2**f, 2**f), give a slot's real part N / 2 times their variance, and the
        roundings of the answer's polynomials the sum of j! (2 N / 3)**j times N / 24: the powers of a ternary secret.
        """
        plan, n = self._plan, self._plan.ring_dimension
        flood = math.ldexp(plan.answer_scale, plan.flood_bits - plan.score_scale_bits)
        roundings = sum(math.factorial(j) * (2 * n / 3) ** j for j in range(plan.answer_size)) / 4
        if roundings > _SMALL_SHARE * flood**2:
            return None
        one, two = (self._residues(each, rows) for each in (answer, other))
        primes = np.array(plan.data_primes[: plan.answer_primes], dtype=np.uint64)[:, None]
        return self._slots((one + (primes - two)) % primes)[:rows] * (plan.answer_scale / flood / math.sqrt(n / 6))

    def _residues(self, answer: bytes, rows: int) -> Array:
        plan = self._plan
        if not 1 <= rows <= plan.rows_per_chunk:
            raise FixInputError(f"an answer holds 1 to {plan.rows_per_chunk} rows", value=rows)
        found, key_id = messages.read_preamble(plan, answer, "answer")
        if found != rows:
            raise RejectMessageError("an answer to another number of rows", value=found, remedy=objects.REMEDY)
        if key_id != self._key_id:
            raise UseOtherKeyError("another key encrypted this request", value=key_id[:16], remedy=OTHER_KEY)
        return messages.answer_residues(plan, answer)

    def _slots(self, words: Array) -> Array:
        """What the slots of a ciphertext hold, unused ones included."""
        encrypted = objects.encrypted_from_residues(self._context, self._level, words, ntt=True)
        encrypted.scale = self._plan.answer_scale
        plaintext = seal.Plaintext()
        self._decryptor.decrypt(encrypted, plaintext)
        return np.array(self._encoder.decode_double(plaintext))


def _secret_body(plan: CkksPlan) -> objects.Body:
    return objects.secret(plan.ring_dimension * (len(plan.data_primes) + 1))


def _load_secret(plan: CkksPlan, key: SecretKey) -> Any:
    try:
        return objects.load(seal.SecretKey, context_for(plan), key._content, _secret_body(plan))
    except RejectMessageError as error:
        raise _unreadable(error) from error


def _load_public(plan: CkksPlan, key: PublicKey) -> Any:
    try:
        return publickeys.unpack(context_for(plan), plan.chain, messages.uniform_half(plan), key._content)
    except RejectMessageError as error:
        raise _unreadable(error) from error


def _unreadable(error: RejectMessageError) -> FixInputError:
    return FixInputError(f"a key cannot be read: {error.what}", remedy="Restore it, or make new keys.")
