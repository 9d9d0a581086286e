"""SEAL's objects as bytes and back, strictly: the only module that knows SEAL's file format.

A payload is `count u32 | count times (length u32 | one SEAL file)`. Nothing is handed to SEAL before its compressed
length, its decompressed length, its format and its compression flags are exactly what the plan says, because SEAL
itself would inflate a small hostile file to gigabytes. SEAL then checks that every word is below its prime.
"""

from __future__ import annotations

import functools
import struct
from dataclasses import dataclass
from typing import Any

import tenseal.sealapi as seal
import zstandard

from securead.errors import RejectMessageError
from securead.files import memory_path
from securead.protocols.ckks.plan import HEADER_BYTES, METADATA_BYTES, SEED_BYTES, CkksPlan, compressed_limit

# SEAL has no type information: these objects are `Any` here and in its two users, nowhere else.
Context = Any
Ciphertext = Any
Plaintext = Any

# What SEAL raises (through pybind11): invalid_argument, logic_error and runtime_error, out_of_range.
SEAL_ERRORS = (RuntimeError, ValueError, IndexError)

_HEADER = struct.Struct("<HBBBBHQ")
_MAGIC, _PLAIN, _ZSTANDARD = 0xA15E, 0, 2
_COUNT = struct.Struct("<I")
_MODE_AT = 5
_REMEDY = "The message is damaged, or made for another model or release: encrypt and send again."


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
    return Body(72 + 8 * words, (48,))


@functools.lru_cache(maxsize=8)
def context_for(plan: CkksPlan) -> Context:
    """SEAL's context for a plan's parameters; SEAL checks the 2018 standard once more."""
    parameters = seal.EncryptionParameters(seal.SCHEME_TYPE.CKKS)
    parameters.set_poly_modulus_degree(plan.ring_dimension)
    parameters.set_coeff_modulus([seal.Modulus(prime) for prime in (*plan.data_primes, plan.special_prime)])
    context = seal.SEALContext(parameters, True, seal.SEC_LEVEL_TYPE.TC128)
    if not context.parameters_set():
        raise AssertionError(f"SEAL refuses the plan: {context.parameters_error_message()}")
    return context


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
    body = _inflate(content, expected)
    header = _HEADER.pack(_MAGIC, HEADER_BYTES, content[3], content[4], _PLAIN, 0, HEADER_BYTES + len(body))
    value = kind()
    with memory_path(header + body) as path:
        try:
            value.load(context, path)
        except SEAL_ERRORS as error:
            raise RejectMessageError(f"SEAL refuses a part of the message: {error}", remedy=_REMEDY) from error
    return value


def load_ciphertext(
    context: Context, content: bytes, expected: Body, *, parms_id: Any, size: int, scale: float
) -> Ciphertext:
    """A ciphertext of exactly this level, size and scale, in NTT form and not transparent."""
    value = load(seal.Ciphertext, context, content, expected)
    if value.parms_id() != parms_id or value.size() != size or not value.is_ntt_form():
        raise RejectMessageError("a ciphertext has another level, size or form than the plan's", remedy=_REMEDY)
    if value.scale != scale:
        raise RejectMessageError("a ciphertext has another scale than the plan's", value=value.scale, remedy=_REMEDY)
    if value.is_transparent():
        raise RejectMessageError("a ciphertext is not encrypted", remedy=_REMEDY)
    return value


def pack(parts: list[bytes]) -> bytes:
    """A payload of these parts."""
    return b"".join((_COUNT.pack(len(parts)), *(piece for part in parts for piece in (_COUNT.pack(len(part)), part))))


def unpack(payload: bytes, *, count: int, limit: int) -> list[bytes]:
    """The parts of a payload: exactly `count`, each of 1 to `limit` bytes, and nothing after them."""
    if len(payload) < _COUNT.size or _COUNT.unpack_from(payload)[0] != count:
        raise RejectMessageError(f"a payload does not hold {count} ciphertexts", value=len(payload), remedy=_REMEDY)
    parts, at = [], _COUNT.size
    for _ in range(count):
        if at + _COUNT.size > len(payload):
            raise RejectMessageError("a payload is truncated", value=len(payload), remedy=_REMEDY)
        (length,) = _COUNT.unpack_from(payload, at)
        at += _COUNT.size
        if not 1 <= length <= min(limit, len(payload) - at):
            raise RejectMessageError("a ciphertext is truncated or too large", value=length, remedy=_REMEDY)
        parts.append(payload[at : at + length])
        at += length
    if at != len(payload):
        raise RejectMessageError("a payload is followed by other bytes", value=len(payload) - at, remedy=_REMEDY)
    return parts


def _inflate(content: bytes, expected: Body) -> bytes:
    if len(content) < HEADER_BYTES or len(content) > compressed_limit(expected.length):
        raise RejectMessageError("a ciphertext or key has an impossible length", value=len(content), remedy=_REMEDY)
    magic, header_size, _, _, mode, _, size = _HEADER.unpack_from(content)
    if (magic, header_size, mode, size) != (_MAGIC, HEADER_BYTES, _ZSTANDARD, len(content)):
        raise RejectMessageError("a ciphertext or key is not in SEAL's format", remedy=_REMEDY)
    try:
        body = zstandard.ZstdDecompressor().stream_reader(content[HEADER_BYTES:]).read(expected.length + 1)
    except (zstandard.ZstdError, MemoryError) as error:
        raise RejectMessageError(f"a ciphertext or key cannot be decompressed: {error}", remedy=_REMEDY) from error
    # Inner parts carry a compression flag of their own, which nothing honest sets.
    if len(body) != expected.length or any(body[at + _MODE_AT] != _PLAIN for at in expected.headers):
        raise RejectMessageError(
            "a ciphertext or key has another size than the plan's", value=len(body), remedy=_REMEDY
        )
    return bytes(body)
