"""Additive shares in the ring of integers modulo 2**64, and the halves of a model that the two parties hold.

Guarantees: one share alone is uniform whatever it shares (a fresh 32-byte seed from the operating system for each
split, expanded by AES-256 in counter mode); files of shares are mode 0600, size-limited, and nothing executable.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from securead import codec, files
from securead.data.schema import Array
from securead.errors import FixInputError
from securead.program.polynomial import Affine, PublicPolynomial, SecretPolynomial
from securead.program.program import Program, PublicProgram
from securead.program.table import PublicTable, SecretTable
from securead.protocols.sharing.plan import make_plan

SEED_BYTES = 32
MAX_FILE_BYTES = 1 << 28
_MAGIC = b"securead-share-1\n"
_LENGTH = struct.Struct("<Q")
_REMEDY = "The file is damaged or foreign: split the model again."


class Words:
    """An endless stream of uniform words: AES-256 in counter mode from a zero block under a 32-byte key.

    Refuses to go on in a forked process, where it would repeat what its parent draws.
    """

    def __init__(self, key: bytes) -> None:
        if len(key) != SEED_BYTES:
            raise FixInputError(f"a key has {SEED_BYTES} bytes", value=len(key))
        self._encryptor = Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()
        self._process = os.getpid()

    def draw(self, shape: tuple[int, ...]) -> Array:
        """The next words, int64, little-endian, in the given shape."""
        if os.getpid() != self._process:
            raise RuntimeError("a generator was used after a fork: its words would repeat")
        count = math.prod(shape)
        # The words are drawn over zeros: the cipher writes its stream itself, without a copy.
        content = bytearray(8 * count + 15)
        self._encryptor.update_into(bytes(8 * count), content)
        return np.frombuffer(content, dtype="<i8", count=count).reshape(shape)


def stream(key: bytes, words: int) -> Array:
    """The first words of a key's stream, int64 `(words,)`."""
    return Words(key).draw((words,))


def split(words: Array) -> tuple[bytes, bytes]:
    """Party 0's share as bytes, and the 32-byte seed whose stream is party 1's. Fresh randomness every time."""
    flat = np.ascontiguousarray(words, dtype="<i8").reshape(-1)
    seed = os.urandom(SEED_BYTES)
    return (flat - stream(seed, len(flat))).tobytes(), seed


def join(left: Array, right: Array) -> Array:
    """The words that two additive shares stand for."""
    joined: Array = left + right
    return joined


def ring(integers: Array) -> Array:
    """Integers of any size modulo 2**64, as int64."""
    if integers.dtype != object:
        return integers.astype(np.int64)
    reduced = [(int(v) + (1 << 63)) % (1 << 64) - (1 << 63) for v in integers.ravel()]
    return np.array(reduced, dtype=np.int64).reshape(integers.shape)


@dataclass(frozen=True, eq=False)
class ModelShare:
    """What one party holds of a model: the public half, and a share of every secret integer.

    `split` names the act of splitting: only two shares of one split belong together. `words`: for each affine step the
    transposed matrices of all sources in a column, then the offset; or the tables' entries; last the threshold, an
    integer above which a score is an anomaly. With `verdicts_only` its owner lets nobody have scores.
    """

    index: int
    public: PublicProgram
    split: str
    words: Array = field(repr=False)
    verdicts_only: bool = False

    def __post_init__(self) -> None:
        expected = sum(math.prod(shape) for _, shape in _layout(self.public))
        if self.index not in (0, 1) or self.words.shape != (expected,) or len(self.split) != 32:
            raise FixInputError("this is not a share of its model", value=self.words.shape, remedy=_REMEDY)

    @property
    def program_digest(self) -> str:
        """The program's digest."""
        return self.public.digest

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 over all of it. A secret's digest: for comparing files, not for publishing."""
        return hashlib.sha256(self._to_bytes()).hexdigest()

    @functools.cached_property
    def parts(self) -> dict[str, Array]:
        """The shares by name: "matrix I" and "offset I" of step I, or "tables", and "threshold"."""
        found, at = {}, 0
        for name, shape in _layout(self.public):
            count = math.prod(shape)
            found[name] = self.words[at : at + count].reshape(shape)
            at += count
        return found

    def write(self, path: Path, *, passphrase: str | None = None) -> None:
        """Write it atomically, mode 0600, sealed with a passphrase when one is given."""
        files.write_secret(path, self._to_bytes(), passphrase=passphrase)

    @classmethod
    def read(cls, path: Path, *, passphrase: str | None = None) -> ModelShare:
        """Read what `write` wrote; anything else is a `FixInputError`."""
        content = files.read_secret(path, limit=MAX_FILE_BYTES, passphrase=passphrase)
        start = len(_MAGIC) + _LENGTH.size
        if not content.startswith(_MAGIC) or len(content) < start:
            raise FixInputError(f"{path} is not a share of a model", remedy=_REMEDY)
        (length,) = _LENGTH.unpack_from(content, len(_MAGIC))
        try:
            header = json.loads(content[start : start + length])
            words = np.frombuffer(content, dtype="<i8", offset=start + length)
            index, split, plain, only = (header[key] for key in ("index", "split", "public", "verdicts_only"))
            if type(index) is not int or type(split) is not str or type(only) is not bool:
                raise ValueError("not a header")
            table = plain["type"] == "table"
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise FixInputError(f"{path} is not a share of a model", remedy=_REMEDY) from error
        public: PublicProgram = (
            codec.from_plain(PublicTable, plain, where=str(path))
            if table
            else codec.from_plain(PublicPolynomial, plain, where=str(path))
        )
        return cls(index, public, split, words, only)

    def _to_bytes(self) -> bytes:
        plain = {
            "index": self.index,
            "split": self.split,
            "verdicts_only": self.verdicts_only,
            "public": codec.to_plain(self.public),
        }
        header = json.dumps(plain, separators=(",", ":")).encode()
        return _MAGIC + _LENGTH.pack(len(header)) + header + self.words.astype("<i8").tobytes()


def split_model(program: Program, threshold: float, *, verdicts_only: bool = False) -> tuple[ModelShare, ModelShare]:
    """Share a model's secret integers, and the threshold above which a score counts as an anomaly.

    Raises `FixProgramError` for a program that sharing does not carry.
    """
    make_plan(program.public, "same")
    parts = [ring(part) for part in _secrets(program)]
    limit = np.array([threshold_integer(program.public, threshold)], dtype=np.int64)
    payload, seed = split(np.concatenate([*(part.reshape(-1) for part in parts), limit]))
    name, words = os.urandom(16).hex(), np.frombuffer(payload, dtype="<i8")
    return (
        ModelShare(0, program.public, name, words, verdicts_only),
        ModelShare(1, program.public, name, stream(seed, len(words)), verdicts_only),
    )


def threshold_integer(public: PublicProgram, threshold: float) -> int:
    """The largest integer score that, decoded, does not exceed the threshold; kept within the range of scores."""
    if not math.isfinite(threshold):
        raise FixInputError("the threshold is not finite", value=threshold, remedy="Calibrate the model again.")
    low, high = -(1 << public.score_bits) - 1, 1 << public.score_bits
    while low < high:
        middle = (low + high + 1) // 2
        if public.decode(np.array([middle], dtype=object))[0] <= threshold:
            low = middle
        else:
            high = middle - 1
    return low


def _layout(public: PublicProgram) -> Iterator[tuple[str, tuple[int, ...]]]:
    if isinstance(public, PublicTable):
        yield "tables", (sum(public.sizes), 1)
    else:
        for at, step in enumerate(public.steps):
            if isinstance(step, Affine):
                yield f"matrix {at}", (sum(public.steps[s].width for s in step.sources), step.width)
                yield f"offset {at}", (step.width,)
    yield "threshold", (1,)


def _secrets(program: Program) -> Iterator[Array]:
    """The secret integers in the order of `_layout`."""
    match program.secret:
        case SecretTable(tables=tables):
            yield np.concatenate(tables)
        case SecretPolynomial(weights=weights):
            for at in sorted(weights):
                yield np.concatenate([matrix.T for matrix in weights[at].matrices])
                yield weights[at].offset
