"""SEAL's objects as bytes and back, strictly: the only module that knows SEAL's file format.

What comes from outside as a SEAL file (`load`) is not handed to SEAL before its compressed length, its decompressed
length, its format and its compression flags are exactly what is expected, because SEAL itself would inflate a small
hostile file to gigabytes. What comes as bare residues (`from_residues`) gets its metadata from us. Either way SEAL then
checks that every word is below its prime.
"""

from __future__ import annotations

import functools
import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
import tenseal.sealapi as seal
import zstandard

from securead.data.schema import Array
from securead.errors import RejectMessageError
from securead.files import memory_path
from securead.protocols.seal import memory
from securead.protocols.seal.sizes import HEADER_BYTES, METADATA_BYTES, PLAINTEXT_BYTES, SEED_BYTES, compressed_limit

# SEAL has no type information: these objects are `Any` in the engines on SEAL, nowhere else.
Context = Any
Ciphertext = Any
Plaintext = Any

# What SEAL raises (through pybind11): invalid_argument, logic_error and runtime_error, out_of_range.
SEAL_ERRORS = (RuntimeError, ValueError, IndexError)
REMEDY = "The message is damaged, or made for another model or release: encrypt and send again."

_HEADER = struct.Struct("<HBBBBHQ")
_MAGIC, _PLAIN, _ZSTANDARD = 0xA15E, 0, 2
_MODE_AT = 5
_COUNT = struct.Struct("<Q")
# parameters' identifier, NTT form, polynomials, ring dimension, primes, scale, correction factor
_CIPHERTEXT = struct.Struct("<4Q?QQQdQ")
_PLAINTEXT = struct.Struct("<4QQd")
_BLAKE2XB = 1


@dataclass(frozen=True)
class Body:
    """What a decompressed SEAL object looks like: its exact length, and where its inner headers stand."""

    length: int
    headers: tuple[int, ...]


def whole(length: int) -> Body:
    """A ciphertext with all its polynomials."""
    return Body(length, (METADATA_BYTES - 24,))


def seeded(length: int) -> Body:
    """A ciphertext whose last polynomial is a seed."""
    return Body(length, (METADATA_BYTES - 24, length - SEED_BYTES))


def secret(words: int) -> Body:
    """A secret key: a plaintext of so many words."""
    return Body(PLAINTEXT_BYTES + 8 * words, (PLAINTEXT_BYTES - 24,))


def level_ids(context: Context) -> list[Any]:
    """SEAL's parameter identifiers by level: position j has j primes dropped."""
    found, data = [], context.first_context_data()
    while data is not None:
        found.append(data.parms_id())
        data = data.next_context_data()
    return found


def save(value: Any) -> bytes:
    """Any SEAL object as SEAL writes it: Zstandard-compressed, through memory only."""
    with memory_path() as path:
        value.save(path)
        with open(path, "rb") as file:
            return file.read()


def load(kind: Any, context: Context, content: bytes, expected: Body) -> Any:
    """A SEAL object of type `kind` whose decompressed body is exactly as expected, or `RejectMessageError`."""
    return _load_body(kind, context, content[3:5], _inflate(content, expected))


def residues(value: Ciphertext) -> tuple[Array, bytes]:
    """A ciphertext's (or public key's) residues uint64 `(polynomials, primes, N)`, and its 64-byte seed.

    A seeded ciphertext lacks the last polynomial; the seed of any other is empty. `value` is our own, not a message.
    """
    words, tail = memory.read(value, lambda: _saved_ciphertext(value))
    if tail and tail[-65] != _BLAKE2XB:
        raise AssertionError("this build of SEAL does not expand seeds by BLAKE2Xb")
    return words, tail[-64:]


def plaintext_residues(value: Plaintext) -> Array:
    """The words of a plaintext or a secret key, uint64 `(words,)`: of the key itself, as its `data()` dangles."""
    if isinstance(value, seal.SecretKey):
        return _saved_plaintext(value).words
    return memory.read(value, lambda: _saved_plaintext(value)).words


def _saved_ciphertext(value: Ciphertext) -> memory.Saved:
    body = _own_body(value)
    *_, dimension, primes, _, _ = _CIPHERTEXT.unpack_from(body)
    (words,) = _COUNT.unpack_from(body, METADATA_BYTES - _COUNT.size)
    found = np.frombuffer(body, dtype="<u8", count=words, offset=METADATA_BYTES).reshape(-1, primes, dimension)
    return memory.Saved(found, body[METADATA_BYTES + 8 * words :])


def _saved_plaintext(value: Plaintext) -> memory.Saved:
    return memory.Saved(np.frombuffer(_own_body(value), dtype="<u8", offset=PLAINTEXT_BYTES), b"")


def ciphertext_from_residues(
    context: Context, parms_id: Any, words: Array, *, ntt: bool, seed: bytes = b""
) -> Ciphertext:
    """The ciphertext at a level with these residues uint64 `(polynomials, primes, N)` and, if seeded, one more.

    A residue that is not below its prime is `RejectMessageError`. The result may be transparent.
    """
    return _from_residues(seal.Ciphertext, context, parms_id, words, ntt=ntt, seed=seed)


def encrypted_from_residues(
    context: Context, parms_id: Any, words: Array, *, ntt: bool, seed: bytes = b""
) -> Ciphertext:
    """`ciphertext_from_residues` of a message: a transparent ciphertext is `RejectMessageError`, too."""
    return _not_transparent(ciphertext_from_residues(context, parms_id, words, ntt=ntt, seed=seed))


def public_key_from_residues(context: Context, words: Array) -> Any:
    """SEAL's public key with these residues uint64 `(2, primes, N)` in NTT form, or `RejectMessageError`."""
    return _from_residues(seal.PublicKey, context, context.key_parms_id(), words, ntt=True)


def secret_key_from_words(context: Context, words: Array) -> Any:
    """SEAL's secret key with these words, residues in NTT form by prime: relabelled, not computed with."""
    metadata = _PLAINTEXT.pack(*context.key_parms_id(), words.size, 1.0)
    return _load_body(seal.SecretKey, context, _version(), metadata, *_array(words))


def _from_residues(kind: Any, context: Context, parms_id: Any, words: Array, *, ntt: bool, seed: bytes = b"") -> Any:
    polynomials, primes, dimension = words.shape
    metadata = _CIPHERTEXT.pack(*parms_id, ntt, polynomials + bool(seed), dimension, primes, 1.0, 1)
    tail = _header(SEED_BYTES) + bytes([_BLAKE2XB]) + seed if seed else b""
    return _load_body(kind, context, _version(), metadata, *_array(words), tail)


def _array(words: Array) -> tuple[bytes, bytes, memoryview]:
    """An array of words in three parts, none of which is a copy."""
    content = np.ascontiguousarray(words, dtype="<u8")
    header = _header(HEADER_BYTES + _COUNT.size + content.nbytes)
    return header, _COUNT.pack(content.size), content.data.cast("B")


def _not_transparent(value: Ciphertext) -> Ciphertext:
    if value.is_transparent():
        raise RejectMessageError("a ciphertext is not encrypted", remedy=REMEDY)
    return value


def _header(length: int, version: bytes = b"") -> bytes:
    """SEAL's header of an uncompressed file, or part of one, of `length` bytes with the header itself."""
    major, minor = version or _version()
    return _HEADER.pack(_MAGIC, HEADER_BYTES, major, minor, _PLAIN, 0, length)


@functools.cache
def _version() -> bytes:
    """The major and minor version that SEAL writes and asks for."""
    return save(seal.Plaintext())[3:5]


def _load_body(kind: Any, context: Context, version: bytes, *body: bytes | memoryview) -> Any:
    value = kind()
    header = _header(HEADER_BYTES + sum(map(len, body)), version)
    with memory_path(b"".join((header, *body))) as path:
        try:
            value.load(context, path)
        except SEAL_ERRORS as error:
            raise RejectMessageError(f"SEAL refuses a part of the message: {error}", remedy=REMEDY) from error
    return value


def _own_body(value: Any) -> bytes:
    """The decompressed body of what this process made itself."""
    return bytes(zstandard.ZstdDecompressor().stream_reader(save(value)[HEADER_BYTES:]).read())


def _inflate(content: bytes, expected: Body) -> bytes:
    if len(content) < HEADER_BYTES or len(content) > compressed_limit(expected.length):
        raise RejectMessageError("a ciphertext or key has an impossible length", value=len(content), remedy=REMEDY)
    magic, header_size, _, _, mode, _, size = _HEADER.unpack_from(content)
    if (magic, header_size, mode, size) != (_MAGIC, HEADER_BYTES, _ZSTANDARD, len(content)):
        raise RejectMessageError("a ciphertext or key is not in SEAL's format", remedy=REMEDY)
    try:
        body = zstandard.ZstdDecompressor().stream_reader(content[HEADER_BYTES:]).read(expected.length + 1)
    except (zstandard.ZstdError, MemoryError) as error:
        raise RejectMessageError(f"a ciphertext or key cannot be decompressed: {error}", remedy=REMEDY) from error
    # Inner parts carry a compression flag of their own, which nothing honest sets.
    if len(body) != expected.length or any(body[at + _MODE_AT] != _PLAIN for at in expected.headers):
        raise RejectMessageError("a ciphertext or key has another size than the plan's", value=len(body), remedy=REMEDY)
    return bytes(body)
