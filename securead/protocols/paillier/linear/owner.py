"""The half that holds keys: generate, encrypt, decrypt. Only a data owner or a key holder imports it.

Keys, decryption and every ciphertext are what phe makes of the same randomness, which is the operating system's; who
holds the factors encrypts by them, three times as fast.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from securead.data.schema import Array
from securead.errors import FixInputError, RejectMessageError, UseOtherKeyError
from securead.protocols.paillier import moduli
from securead.protocols.paillier.keys import PrivateKey, check_ciphertext
from securead.protocols.paillier.linear import messages
from securead.protocols.paillier.linear.messages import KEY_FILES
from securead.protocols.paillier.linear.plan import LinearPlan
from securead.protocols.paillier.messages import REMEDY
from securead.protocols.paillier.powers import powers, spread, whole
from securead.protocols.seal.keyfiles import OTHER_KEY
from securead.protocols.seal.keys import StoredKey, check_decrypts, check_encrypts

_DAMAGED = "Restore the file, or make new keys."


class SecretKey(StoredKey):
    """Decrypts, and encrypts in role `same`."""

    files, kind = KEY_FILES, "secret"


class PublicKey(StoredKey):
    """Masks answers at the service, and encrypts in role `split`."""

    files, kind = KEY_FILES, "public"


def generate_keys(plan: LinearPlan) -> tuple[SecretKey, PublicKey]:
    """A fresh key pair for one plan, from phe's generator."""
    return _pair(plan, PrivateKey.generate())


def secret_key_from_bytes(plan: LinearPlan, content: bytes) -> SecretKey:
    """Invert `SecretKey.to_bytes`. A key of another plan is `UseOtherKeyError`, a damaged file `FixInputError`."""
    key_id, body = KEY_FILES.read("secret", plan.digest, content, limit=plan.residue_bytes)
    try:
        secret, _ = _pair(plan, PrivateKey.from_bytes(body, where="secret key"))
    except UseOtherKeyError as error:
        raise FixInputError(f"a key cannot be read: {error.what}", remedy=_DAMAGED) from error
    if secret.key_id != key_id:
        raise FixInputError("a secret key is not what its name says", remedy=_DAMAGED)
    return secret


def public_key_from_bytes(plan: LinearPlan, content: bytes) -> PublicKey:
    """Invert `PublicKey.to_bytes`; as `secret_key_from_bytes`, and the modulus must be sound."""
    key = PublicKey(plan.digest, *KEY_FILES.read("public", plan.digest, content, limit=plan.public_key_bytes))
    try:
        messages.modulus(plan, key._content)
    except (RejectMessageError, UseOtherKeyError) as error:
        raise FixInputError(f"a key cannot be read: {error.what}", remedy=_DAMAGED) from error
    return key


def make_encryptor(plan: LinearPlan, key: SecretKey | PublicKey) -> Encryptor:
    """A secret key for role `same`, a public key for role `split`; anything else is `UseOtherKeyError`."""
    check_encrypts(plan, key)
    return Encryptor(plan, key)


def make_decryptor(plan: LinearPlan, key: SecretKey) -> Decryptor:
    """Only a secret key of this plan decrypts."""
    check_decrypts(plan, key)
    return Decryptor(plan, key)


class Encryptor:
    """Encrypts features, all rows of one in one ciphertext."""

    def __init__(self, plan: LinearPlan, key: StoredKey) -> None:
        self._plan, self._key_id = plan, key.key_id
        self._private = PrivateKey.from_bytes(key._content) if plan.role == "same" else None
        self._n = self._private.n if self._private else messages.modulus(plan, key._content)

    def encrypt(self, queries: Array) -> bytes:
        """The request payload for queries `(n, columns)`, 1 <= n <= rows_per_chunk. Fresh randomness every time."""
        plan, n = self._plan, whole(self._n)
        square = n * n
        packed = _packed(plan, _checked(plan, np.asarray(queries)))

        def encrypted(plaintexts: Sequence[int]) -> list[Any]:
            units = [moduli.random_unit(self._n) for _ in plaintexts]
            factors = self._private.nth_powers(units) if self._private else powers(units, n, square)
            return [(1 + m * n) * factor % square for m, factor in zip(plaintexts, factors, strict=True)]

        ciphertexts = [each for piece in spread(encrypted, packed) for each in piece]
        return messages.pack(plan, len(queries), self._key_id, ciphertexts)


class Decryptor:
    """Decrypts answers."""

    def __init__(self, plan: LinearPlan, key: SecretKey) -> None:
        self._plan, self._key_id = plan, key.key_id
        self._private = PrivateKey.from_bytes(key._content)

    def decrypt(self, answer: bytes, rows: int) -> Array:
        """Float64 scores `(rows,)`, exact; in role `same` without the public terms.

        Raises `RejectMessageError` for anything but an answer under this plan, and `UseOtherKeyError` when it names
        another key.
        """
        plan = self._plan
        if not 1 <= rows <= plan.rows_per_chunk:
            raise FixInputError(f"an answer holds 1 to {plan.rows_per_chunk} rows", value=rows)
        found, key_id, (ciphertext,) = messages.unpack(plan, answer, "answer")
        if found != rows:
            raise RejectMessageError("an answer to another number of rows", value=found, remedy=REMEDY)
        if key_id != self._key_id:
            raise UseOtherKeyError("another key encrypted this request", value=key_id[:16], remedy=OTHER_KEY)
        packed = self._private.decrypt(check_ciphertext(int(ciphertext), self._private.n, where="answer"))
        width, mask = plan.slot_bits, (1 << plan.slot_bits) - 1
        integers = np.array([(packed >> width * row & mask) - plan.lift for row in range(rows)], dtype=object)
        scores: Array = integers.astype(float) * plan.unit
        return scores


def _pair(plan: LinearPlan, key: PrivateKey) -> tuple[SecretKey, PublicKey]:
    public = moduli.shown(plan.digest, key)
    key_id = KEY_FILES.key_id(plan.digest, public)
    return SecretKey(plan.digest, key_id, key.to_bytes()), PublicKey(plan.digest, key_id, public)


def _packed(plan: LinearPlan, queries: Array) -> list[int]:
    """A plaintext for each feature: its value in row j at bits slot_bits * j."""
    width = plan.slot_bits
    packed = [0] * plan.features
    if plan.sizes:
        starts = np.cumsum(plan.sizes) - np.array(plan.sizes)
        for row, places in enumerate((queries + starts).tolist()):
            for place in places:
                packed[place] |= 1 << width * row
        return packed
    return [sum(value << width * row for row, value in enumerate(column)) for column in queries.T.tolist()]


def _checked(plan: LinearPlan, queries: Array) -> Array:
    columns = len(plan.sizes) or plan.features
    if queries.ndim != 2 or queries.shape[1] != columns or not 1 <= len(queries) <= plan.rows_per_chunk:
        raise FixInputError(
            "queries have the wrong shape",
            value=queries.shape,
            remedy=f"Give 1 to {plan.rows_per_chunk} rows of {columns} values.",
        )
    low, high = (0, np.array(plan.sizes) - 1) if plan.sizes else (-plan.largest, plan.largest)
    if not np.issubdtype(queries.dtype, np.integer) or (queries < low).any() or (queries > high).any():
        raise FixInputError(
            "queries are integers within the program's bounds",
            value=str(queries.dtype),
            remedy="Make them with the program's own `queries`.",
        )
    return queries.astype(np.int64)
