"""The envelope: what comes back, and that everything else is refused before any work is done for it."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from securead import codec
from securead.errors import RejectMessageError
from securead.protocols import wire
from securead.protocols.wire import Envelope, Header

HEADER = Header("request", "ckks", "same", "a" * 64, "b" * 64, "c" * 64, "d" * 32, 2, 5, 100)
KEY = dataclasses.replace(HEADER, kind="key", chunk=0, chunks=1, rows=0)
PAYLOAD = bytes(range(256))
MESSAGE = Envelope(HEADER, PAYLOAD).to_bytes()
PREFIX = struct.calcsize("<4sHIQ")


class Watched(io.BytesIO):
    """A stream that remembers how much it was asked for."""

    def __init__(self, content: bytes) -> None:
        super().__init__(content)
        self.asked: list[int | None] = []

    def read(self, size: int | None = -1, /) -> bytes:
        self.asked.append(size)
        return super().read(size)


def forged(
    header: bytes,
    payload: bytes = b"",
    *,
    magic: bytes = b"SCAD",
    version: int = 1,
    header_size: int | None = None,
    payload_size: int | None = None,
) -> bytes:
    """An envelope whose checksum is right whatever it says: what someone who means harm would send."""
    sizes = (
        len(header) if header_size is None else header_size,
        len(payload) if payload_size is None else payload_size,
    )
    body = struct.pack("<4sHIQ", magic, version, *sizes) + header + payload
    return body + hashlib.sha256(body).digest()


def header_json(**changes: Any) -> bytes:
    return json.dumps({**codec.to_plain(HEADER), **changes}).encode()


headers = st.builds(
    lambda chunk, more, **rest: Header(chunk=chunk, chunks=chunk + more, **rest),
    chunk=st.integers(0, 2**19),
    more=st.integers(1, 2**19),
    kind=st.sampled_from(["request", "answer"]),
    role=st.sampled_from(["same", "split"]),
    rows=st.integers(1, 1 << 24),
    engine=st.text(max_size=20),
    **{name: st.binary(min_size=32, max_size=32).map(bytes.hex) for name in ("program", "plan", "key")},
    request=st.binary(min_size=16, max_size=16).map(bytes.hex),
)


@given(headers, st.binary(max_size=200))
@settings(max_examples=100)
def test_an_envelope_comes_back_as_it_was_sent(header: Header, payload: bytes) -> None:
    envelope = Envelope(header, payload)
    assert wire.from_bytes(envelope.to_bytes(), max_payload=len(payload)) == envelope


def test_the_layout_is_the_documented_one() -> None:
    magic, version, header_size, payload_size = struct.unpack("<4sHIQ", MESSAGE[:18])
    assert (magic, version, payload_size) == (b"SCAD", 1, 256)
    assert json.loads(MESSAGE[18 : 18 + header_size]) == codec.to_plain(HEADER)
    assert MESSAGE[18 + header_size : -32] == PAYLOAD
    assert MESSAGE[-32:] == hashlib.sha256(MESSAGE[:-32]).digest()
    assert forged(header_json(), PAYLOAD)[18:22] == MESSAGE[18:22] == b'{"ki'


def test_the_forgery_of_these_tests_is_accepted_when_it_is_honest() -> None:
    """Otherwise every refusal below might be for the wrong reason."""
    assert wire.from_bytes(forged(header_json(), PAYLOAD), max_payload=256) == Envelope(HEADER, PAYLOAD)


def test_every_truncation_is_refused() -> None:
    for length in range(len(MESSAGE)):
        with pytest.raises(RejectMessageError):
            wire.from_bytes(MESSAGE[:length], max_payload=256)
        if length:
            with pytest.raises(RejectMessageError, match=r"truncated|ends within"):
                wire.read(io.BytesIO(MESSAGE[:length]), max_payload=256)


def test_every_flipped_bit_is_refused() -> None:
    for at in range(len(MESSAGE)):
        for bit in (0, 7) if PREFIX <= at else range(8):
            changed = bytearray(MESSAGE)
            changed[at] ^= 1 << bit
            with pytest.raises(RejectMessageError):
                wire.from_bytes(bytes(changed), max_payload=1 << 40)


def test_a_flipped_bit_after_the_sizes_is_found_by_the_checksum() -> None:
    for at in range(PREFIX, len(MESSAGE), 41):
        changed = bytearray(MESSAGE)
        changed[at] ^= 4
        with pytest.raises(RejectMessageError, match="checksum differs"):
            wire.from_bytes(bytes(changed), max_payload=256)


@given(st.binary(max_size=300))
@settings(max_examples=100)
def test_any_bytes_at_all_are_refused(content: bytes) -> None:
    for message in (content, b"SCAD" + content, MESSAGE[:18] + content):
        with pytest.raises(RejectMessageError):
            wire.from_bytes(message, max_payload=1 << 20)


def test_nothing_is_a_clean_end_of_a_file_but_not_a_message() -> None:
    assert wire.read(io.BytesIO(b""), max_payload=9) is None
    with pytest.raises(RejectMessageError, match="empty or followed"):
        wire.from_bytes(b"", max_payload=9)


@pytest.mark.parametrize("more", [b"\0", b"\n", MESSAGE])
def test_bytes_after_a_message_are_refused(more: bytes) -> None:
    with pytest.raises(RejectMessageError, match="followed by other bytes"):
        wire.from_bytes(MESSAGE + more, max_payload=256)


def test_another_magic_and_another_version_are_told_apart() -> None:
    for magic in (b"SCAE", b"PK\x03\x04", b"\0\0\0\0", b"scad"):
        with pytest.raises(RejectMessageError, match="no securead message") as refused:
            wire.from_bytes(forged(header_json(), magic=magic), max_payload=9)
        assert refused.value.value == magic
    for version in (0, 2, 256, 65535):
        with pytest.raises(RejectMessageError, match="another version") as refused:
            wire.from_bytes(forged(header_json(), version=version), max_payload=9)
        assert refused.value.value == version
        assert "version 1" in refused.value.remedy


def test_a_payload_of_exactly_the_limit_passes_and_one_byte_more_does_not() -> None:
    assert wire.from_bytes(MESSAGE, max_payload=256).payload == PAYLOAD
    with pytest.raises(RejectMessageError, match="too large"):
        wire.from_bytes(MESSAGE, max_payload=255)


@pytest.mark.parametrize(
    ("header_size", "payload_size"), [(None, 2**64 - 1), (None, 1001), (2**32 - 1, None), ((16 << 10) + 1, None)]
)
def test_an_oversized_message_is_refused_before_anything_of_it_is_read(
    header_size: int | None, payload_size: int | None
) -> None:
    stream = Watched(forged(header_json(), header_size=header_size, payload_size=payload_size) + bytes(50_000))
    with pytest.raises(RejectMessageError, match="too large"):
        wire.read(stream, max_payload=1000)
    assert stream.asked == [PREFIX], "no byte beyond the fixed prefix was asked for"


def test_reading_never_asks_for_more_than_the_message_holds() -> None:
    stream = Watched(MESSAGE + MESSAGE)
    assert wire.read(stream, max_payload=256) == Envelope(HEADER, PAYLOAD)
    assert None not in stream.asked
    assert -1 not in stream.asked
    assert sum(size or 0 for size in stream.asked) == len(MESSAGE)


@pytest.mark.parametrize(
    "counts",
    [
        {"chunk": -1},
        {"chunk": 5},
        {"chunks": 0},
        {"chunks": -1},
        {"chunks": (1 << 20) + 1},
        {"chunks": 10**30},
        {"rows": 0},
        {"rows": -1},
        {"rows": (1 << 24) + 1},
        {"rows": 10**300},
    ],
    ids=str,
)
def test_absurd_counts_are_refused(counts: dict[str, int]) -> None:
    with pytest.raises(RejectMessageError, match="counts are absurd"):
        dataclasses.replace(HEADER, **counts)
    with pytest.raises(RejectMessageError, match="counts are absurd"):
        wire.from_bytes(forged(header_json(**counts)), max_payload=9)


@pytest.mark.parametrize("counts", [{"chunk": 1, "chunks": 2}, {"chunks": 2}, {"chunks": 0}, {"rows": 1}], ids=str)
def test_a_key_counts_nothing(counts: dict[str, int]) -> None:
    assert wire.from_bytes(Envelope(KEY, b"k").to_bytes(), max_payload=1).header == KEY
    with pytest.raises(RejectMessageError, match="counts are absurd"):
        dataclasses.replace(KEY, **counts)


@pytest.mark.parametrize("name", ["program", "plan", "key", "request"])
@pytest.mark.parametrize(
    "text", ["", "a", "A" * 64, "g" * 64, "a" * 63, "a" * 65, "a" * 64 + "\n", "../" * 20, "é" * 32]
)
def test_names_are_digests_or_ids(name: str, text: str) -> None:
    text = text[: len(text) // 2] if name == "request" and len(text) == 64 else text
    with pytest.raises(RejectMessageError, match=f"entry '{name}' is no name"):
        wire.from_bytes(forged(header_json(**{name: text})), max_payload=9)


def test_the_largest_counts_pass() -> None:
    header = dataclasses.replace(HEADER, chunk=(1 << 20) - 1, chunks=1 << 20, rows=1 << 24)
    assert wire.from_bytes(Envelope(header, b"").to_bytes(), max_payload=0).header == header


ILL_FORMED = {
    "no JSON": b"{",
    "empty": b"",
    "not utf-8": b'{"kind": "\xff"}',
    "a list": b"[]",
    "null": b"null",
    "unknown kind": header_json(kind="order"),
    "unknown role": header_json(role="both"),
    "unknown entry": header_json(note="x"),
    "a list for text": header_json(engine=["ckks"]),
    "null for text": header_json(key=None),
    "a float for a count": header_json(rows=1.0),
    "a truth value for a count": header_json(rows=True),
    "NaN": header_json(rows=float("nan")),
    "text for a count": header_json(chunk="2"),
    "nested beyond the stack": b'{"kind":' + b"[" * 8000 + b"]" * 8000 + b"}",
    "an endless integer": b'{"rows":' + b"9" * 5000 + b"}",
    "missing entry": json.dumps({k: v for k, v in codec.to_plain(HEADER).items() if k != "plan"}).encode(),
}


@pytest.mark.parametrize("header", ILL_FORMED.values(), ids=ILL_FORMED.keys())
def test_an_ill_formed_header_under_a_right_checksum_is_refused(header: bytes) -> None:
    with pytest.raises(RejectMessageError, match="header is ill-formed"):
        wire.from_bytes(forged(header, b"x"), max_payload=9)


def test_a_header_nested_to_any_depth_is_refused_and_the_refusal_can_be_printed() -> None:
    for depth in range(850, 1010):
        with pytest.raises(RejectMessageError) as refused:
            wire.from_bytes(forged(b'{"kind":' + b"[" * depth + b"]" * depth + b"}"), max_payload=9)
        assert "ill-formed" in str(refused.value)


def test_header_and_payload_cannot_be_shifted_against_each_other() -> None:
    header = header_json()
    for shift in (-1, 1, 5):
        sizes = {"header_size": len(header) + shift, "payload_size": 10 - shift}
        with pytest.raises(RejectMessageError):
            wire.from_bytes(forged(header, b"0123456789", **sizes), max_payload=99)


def test_a_file_of_chunks_is_read_in_order_and_lazily() -> None:
    chunks = [Envelope(dataclasses.replace(HEADER, chunk=i), bytes([i]) * i) for i in range(5)]
    stream = io.BytesIO(b"".join(c.to_bytes() for c in chunks))
    reading = wire.read_all(stream, max_payload=4)
    assert next(reading) == chunks[0]
    assert stream.tell() == len(chunks[0].to_bytes()), "one in memory at a time"
    assert list(reading) == chunks[1:]
    assert list(wire.read_all(io.BytesIO(b""), max_payload=4)) == []


def test_a_file_that_ends_within_a_chunk_gives_the_whole_ones_and_then_refuses() -> None:
    reading = wire.read_all(io.BytesIO(MESSAGE + MESSAGE[:-1]), max_payload=256)
    assert next(reading).payload == PAYLOAD
    with pytest.raises(RejectMessageError, match="truncated"):
        next(reading)


def test_a_file_that_was_cut_short_is_not_called_too_large(tmp_path: Path) -> None:
    """A limit by the file's own size would be smaller than what the message claims."""
    large = Envelope(HEADER, bytes(10_000)).to_bytes()
    path = tmp_path / "cut"
    for length in (PREFIX, PREFIX + 1, 1000, len(large) - 1):
        path.write_bytes(MESSAGE + large[:length])
        with path.open("rb") as stream, pytest.raises(RejectMessageError, match="message is truncated"):
            list(wire.read_all(stream, max_payload=path.stat().st_size))
        with pytest.raises(RejectMessageError, match="message is truncated"):
            wire.from_bytes(large[:length], max_payload=100)


def test_request_ids_are_128_fresh_random_bits() -> None:
    ids = {wire.new_request_id() for _ in range(200)}
    assert len(ids) == 200
    assert {len(bytes.fromhex(i)) for i in ids} == {16}
