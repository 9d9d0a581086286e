"""The client's half: split queries for two parties, join what they answer, and tell scores that cannot be.

The client needs no key: whoever holds both answers reads the scores. It imports neither torch nor CrypTen.
"""

from __future__ import annotations

import os

import numpy as np

from securead.data.schema import Array
from securead.errors import FixInputError, RejectMessageError
from securead.program.program import PublicProgram
from securead.program.table import PublicTable
from securead.protocols.sharing import shares
from securead.protocols.sharing.plan import SALT_BYTES, WORD_BYTES, SharingPlan

_REMEDY = "Both parties must have computed the same request: send it again, once."


def words_of(plan: SharingPlan, public: PublicProgram, Z: Array) -> Array:
    """What is shared of encoded records `(n, width)`: int64 `(n, input_width)`.

    The records and, as a last column, their public terms; or ones at the positions in the line of all tables.
    """
    if public.digest != plan.program_digest:
        raise FixInputError("the plan was made for another program", value=plan.program_digest[:16])
    if isinstance(public, PublicTable):
        positions = public.queries(Z) + (np.cumsum(plan.sizes) - plan.sizes)
        hot = np.zeros((len(Z), plan.input_width), dtype=np.int64)
        hot[np.arange(len(Z))[:, None], positions] = 1
        return hot
    Z = public.encoder.encoded(Z).astype(np.int64)
    if not plan.public_terms:
        return Z
    return np.column_stack([Z, public.public_term(Z).astype(np.int64)])


def split_queries(plan: SharingPlan, words: Array) -> tuple[bytes, bytes]:
    """Payloads for party 0 (a salt and words) and party 1 (a 32-byte seed) of `words_of`'s `(n, input_width)`.

    Fresh randomness every time: either payload alone is independent of the records, and so is either beside the
    other's hash. Without the salt party 1, who knows its own share, could try records against the hash of party 0's.
    """
    if words.ndim != 2 or words.shape[1] != plan.input_width or not 1 <= len(words) <= plan.rows_per_chunk:
        raise FixInputError(
            "queries have the wrong shape",
            value=words.shape,
            remedy=f"Give 1 to {plan.rows_per_chunk} rows of {plan.input_width} words.",
        )
    share, seed = shares.split(words)
    return os.urandom(SALT_BYTES) + share, seed


def read_queries(plan: SharingPlan, index: int, payload: bytes, rows: int) -> Array:
    """A party's share int64 `(rows, input_width)` of a request, from its payload; `RejectMessageError` otherwise."""
    expected = plan.request_bytes(rows) if index == 0 else shares.SEED_BYTES
    if not 1 <= rows <= plan.rows_per_chunk or len(payload) != expected:
        raise RejectMessageError("a payload of the wrong length", value=(rows, len(payload)), remedy=_REMEDY)
    shape = (rows, plan.input_width)
    if index == 0:
        return np.frombuffer(payload, dtype="<i8", offset=SALT_BYTES).reshape(shape)
    return shares.Words(bytes(payload)).draw(shape)


def join_scores(plan: SharingPlan, answer0: bytes, answer1: bytes, rows: int) -> Array:
    """Integer scores int64 `(rows,)`, public terms included, possibly out of range: see `in_range`."""
    return shares.join(_words(answer0, rows), _words(answer1, rows))


def join_verdicts(plan: SharingPlan, answer0: bytes, answer1: bytes, rows: int) -> Array:
    """Booleans `(rows,)`: anomalies. Raises `RejectMessageError` when the shares do not make bits."""
    bits = _words(answer0, rows) ^ _words(answer1, rows)
    if (bits >> 1).any():
        raise RejectMessageError("the parties' answers do not belong together", remedy=_REMEDY)
    verdicts: Array = bits.astype(bool)
    return verdicts


def in_range(plan: SharingPlan, integers: Array) -> Array:
    """Booleans `(n,)`: integer scores that the program can have. Others met a truncation that failed."""
    possible: Array = (integers >= plan.lowest_score) & (integers <= plan.highest_score)
    return possible


def _words(answer: bytes, rows: int) -> Array:
    if len(answer) != WORD_BYTES * rows:
        raise RejectMessageError("an answer of the wrong length", value=len(answer), remedy=_REMEDY)
    return np.frombuffer(answer, dtype="<i8")
