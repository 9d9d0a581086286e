"""The secret half as bytes: exact at any size, strict, and never a crash."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_programs import Recipe, programs, unit_encoder

from securead.errors import FixInputError
from securead.program.polynomial import SecretPolynomial, Weights
from securead.program.program import Program
from securead.program.storage import secret_from_bytes, secret_to_bytes


@given(programs(), st.integers(0, 2**32))
@settings(max_examples=60)
def test_a_stored_program_is_the_same_program(pair: tuple[Recipe, Program], seed: int) -> None:
    _, program = pair
    again = Program(program.public, secret_from_bytes(secret_to_bytes(program.secret)))
    b = program.public.encoder.bound
    Z = np.random.default_rng(seed).integers(-b, b + 1, size=(3, program.public.encoder.width))
    assert again.evaluate(Z).tolist() == program.evaluate(Z).tolist()
    assert again.secret.commitment_key == program.secret.commitment_key


@pytest.mark.parametrize("value", [0, 2**53 + 1, 2**62 - 1, 2**62, 2**63, 2**64 + 1, 2**511 + 1])
@pytest.mark.parametrize("sign", [1, -1])
def test_integers_of_any_size_are_exact(value: int, sign: int) -> None:
    matrix, offset = np.empty((1, 2), dtype=object), np.empty(1, dtype=object)
    matrix[:], offset[:] = [[sign * value, 1]], [sign * value]
    again = secret_from_bytes(secret_to_bytes(SecretPolynomial({3: Weights((matrix,), offset)}, bytes(32)))).weights[3]
    assert again.matrices[0].tolist() == [[sign * value, 1]]
    assert again.offset.tolist() == [sign * value]
    assert again.matrices[0].dtype == again.offset.dtype == (np.int64 if value < 2**62 else object)


def test_several_sources_and_shapes_keep_their_order() -> None:
    w = Weights((np.arange(6).reshape(2, 3), np.array([[7], [8]])), np.array([9, 10]))
    again = secret_from_bytes(secret_to_bytes(SecretPolynomial({1: w, 12: w}, b"\x01\xff" * 16)))
    assert sorted(again.weights) == [1, 12]
    assert [m.tolist() for m in again.weights[12].matrices] == [[[0, 1, 2], [3, 4, 5]], [[7], [8]]]
    assert again.weights[1].offset.tolist() == [9, 10]
    assert again.commitment_key == b"\x01\xff" * 16


CONTENT = secret_to_bytes(Recipe(unit_encoder(2), [("affine", [([[0.5, 2.0**60]], 0)], [1.0], 20)]).build().secret)
PLAIN = json.loads(CONTENT)


def test_every_truncation_is_refused() -> None:
    for length in range(len(CONTENT)):
        with pytest.raises(FixInputError, match="not the secret half"):
            secret_from_bytes(CONTENT[:length])
    assert secret_from_bytes(CONTENT + b"\n").weights
    with pytest.raises(FixInputError):
        secret_from_bytes(CONTENT + b"0")


ROW = PLAIN["weights"]["1"]["matrices"][0][0]


@pytest.mark.parametrize(
    "weights",
    [
        None,
        [],
        {"one": {"matrices": [[ROW]], "offset": [1]}},
        {"1": None},
        {"1": []},
        {"1": {"matrices": [[ROW]]}},
        {"1": {"offset": [1]}},
        {"1": {"matrices": [ROW], "offset": [1]}},
        {"1": {"matrices": [[[ROW]]], "offset": [1]}},
        {"1": {"matrices": [[ROW, ROW[:1]]], "offset": [1]}},
        {"1": {"matrices": [[]], "offset": [1]}},
        {"1": {"matrices": [[[1.0, 2.0]]], "offset": [1]}},
        {"1": {"matrices": [[[True, 2]]], "offset": [1]}},
        {"1": {"matrices": [[["1", 2]]], "offset": [1]}},
        {"1": {"matrices": [[[None, 2]]], "offset": [1]}},
        {"1": {"matrices": [[ROW]], "offset": 1}},
        {"1": {"matrices": [[ROW]], "offset": "12"}},
        {"1": {"matrices": [[ROW]], "offset": [[1]]}},
        {"1": {"matrices": [[ROW]], "offset": [1.5]}},
        {"1": {"matrices": {"0": [ROW]}, "offset": [1]}},
    ],
    ids=lambda w: json.dumps(w)[:60],
)
def test_weights_that_are_no_integer_matrices_are_refused(weights: Any) -> None:
    with pytest.raises(FixInputError, match=r"not the secret half.*damaged or foreign"):
        secret_from_bytes(json.dumps({**PLAIN, "weights": weights}).encode())


@pytest.mark.parametrize("key", [None, 5, "xyz", "0", ["00"]])
def test_a_commitment_key_that_is_no_hex_is_refused(key: Any) -> None:
    with pytest.raises(FixInputError, match="not the secret half"):
        secret_from_bytes(json.dumps({**PLAIN, "commitment_key": key}).encode())


@pytest.mark.parametrize(
    "content",
    [b"", b"null", b"[]", b"3", b"\xff\xfe\x00", b"[" * 200_000, b'{"a":' * 100_000, b"\x80\x04\x95.", b"1" * 5000],
    ids=["empty", "null", "list", "number", "not utf-8", "deep list", "deep table", "pickle", "long integer"],
)
def test_foreign_bytes_are_refused(content: bytes) -> None:
    with pytest.raises(FixInputError, match="not the secret half"):
        secret_from_bytes(content)


def test_a_weight_of_thousands_of_digits_is_refused() -> None:
    with pytest.raises(FixInputError, match="not the secret half"):
        secret_from_bytes(CONTENT.replace(b'"offset": [', b'"offset": [' + b"9" * 5000 + b", "))


def test_the_refusal_does_not_quote_the_secret() -> None:
    plain = copy.deepcopy(PLAIN)
    plain["weights"]["1"]["offset"] = [0.5]
    with pytest.raises(FixInputError) as refused:
        secret_from_bytes(json.dumps(plain).encode())
    assert str(ROW[1]) not in str(refused.value)
    assert PLAIN["commitment_key"] not in str(refused.value)


@given(st.integers(0, len(CONTENT) - 1), st.integers(0, 255))
@settings(max_examples=150)
def test_any_changed_byte_is_refused_by_reader_or_by_commitment(at: int, value: int) -> None:
    program = Recipe(unit_encoder(2), [("affine", [([[0.5, 2.0**60]], 0)], [1.0], 20)]).build()
    content = bytearray(secret_to_bytes(program.secret))
    at = min(at, len(content) - 1)
    before = json.loads(content)
    content[at] = value
    refused = False
    try:
        Program(program.public, secret_from_bytes(bytes(content)))
    except FixInputError:
        refused = True
    if not refused:
        # Only white space and the case of hex digits may differ without a difference in value.
        after = json.loads(content)
        assert after["weights"] == before["weights"]
        assert bytes.fromhex(after["commitment_key"]) == bytes.fromhex(before["commitment_key"])
