"""The one guarantee everything else is built on: encoded integers never leave their bound."""

from __future__ import annotations

import json
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from securead import codec
from securead.data.encoder import MAX_FRACTION_BITS, Encoder
from securead.data.schema import Column, Schema
from securead.errors import FixConfigurationError, FixInputError

finite = st.floats(allow_nan=False, allow_infinity=False)
UNIT = Schema((Column("a", -1024.0, 1024.0, center=0.0, spread=1.0),))


@st.composite
def columns(draw: st.DrawFn) -> Column:
    scale = draw(st.none() | st.tuples(finite, st.floats(5e-324, 1.7e308)))
    try:
        return Column(
            "a",
            draw(finite),
            draw(finite),
            draw(st.sampled_from(["identity", "log"])),
            *(scale or (None, None)),
        )
    except FixConfigurationError:
        assume(False)
        raise


@given(
    columns(),
    st.lists(finite, min_size=1, max_size=8),
    st.floats(1e-6, 1024),
    st.integers(1, MAX_FRACTION_BITS),
)
@settings(max_examples=300)
@example(Column("a", 0.0, 1.0, center=0.0, spread=5e-324), [1.0, -0.0, 5e-324, 1e308], 1024.0, 30)
@example(Column("a", -1e308, 7e307, center=1.7e308, spread=5e-324), [1e308, -1e308], 8.0, 14)
@example(Column("a", 1.6e308, 1.7e308), [1.6e308, 1.7e308], 8.0, 14)
@example(Column("a", -8e307, 8e307, "log"), [1e308, 5e-324, -1e308], 1024.0, 30)
def test_encoded_integers_lie_within_the_bound_whatever_the_record(
    column: Column, values: list[float], limit: float, bits: int
) -> None:
    encoder = Encoder(Schema((column,)), limit, bits)
    X = np.array([*values, 1.7976931348623157e308, -1.7976931348623157e308, 5e-324, -5e-324, 0.0])[:, None]
    with np.errstate(invalid="raise", divide="raise"):
        Z, outside = encoder.encode(X)
    assert Z.dtype == np.int64
    assert Z.shape == X.shape
    assert -encoder.bound <= int(Z.min()) <= int(Z.max()) <= encoder.bound
    assert int(outside[0]) == sum(not column.lower <= x <= column.upper for x in X[:, 0])


@given(st.lists(st.floats(-9, 9), min_size=1, max_size=8), st.integers(1, MAX_FRACTION_BITS))
def test_encoding_rounds_the_standardised_value_to_the_nearest_grid_point(values: list[float], bits: int) -> None:
    encoder = Encoder(UNIT, 8.0, bits)
    Z, _ = encoder.encode(np.array(values)[:, None])
    for value, z in zip(values, Z[:, 0].tolist(), strict=True):
        exact = Fraction(min(max(value, -8.0), 8.0)) * 2**bits
        assert z == round(exact), "half to even, exactly as Python rounds the exact rational"


def test_halves_round_to_even_on_both_sides_of_zero() -> None:
    Z, _ = Encoder(UNIT, 8.0, 1).encode(np.array([[0.25], [0.75], [1.25], [-0.25], [-0.75], [-1.25]]))
    assert Z[:, 0].tolist() == [0, 2, 2, 0, -2, -2]


def test_the_bound_is_reached_at_the_limit_on_both_sides() -> None:
    encoder = Encoder(UNIT, 2.5, 3)
    assert encoder.bound == 20
    Z, outside = encoder.encode(np.array([[2.5], [100.0], [2000.0], [-2.5], [-2000.0]]))
    assert Z[:, 0].tolist() == [20, 20, 20, -20, -20]
    assert outside.tolist() == [2], "clipping at the limit is not the schema's business: only its bounds count"


def test_a_limit_off_the_grid_is_rounded_as_the_values_are() -> None:
    for limit in (0.3, 0.25, 0.75, 7.99, 1e-6):
        encoder = Encoder(UNIT, limit, 1)
        Z, _ = encoder.encode(np.array([[100.0], [-100.0]]))
        assert Z[:, 0].tolist() == [encoder.bound, -encoder.bound]


def test_standardise_is_the_same_map_without_rounding(rng: np.random.Generator) -> None:
    schema = Schema((Column("a", 0.0, 1000.0, "log"), Column("b", -3.0, 3.0, center=0.5, spread=0.25)))
    encoder = Encoder(schema, 4.0, 12)
    X = rng.uniform(-100, 1100, size=(200, 2))
    floats, (Z, _) = encoder.standardise(X), encoder.encode(X)
    assert encoder.width == 2
    assert np.abs(floats).max() == 4.0, "some values are clipped, so that this test means something"
    assert np.abs(floats * 2**12 - Z).max() <= 0.5
    middle, sixth = math.log(1001) / 2, math.log(1001) / 6
    a, b = X[7].clip([0, -3], [1000, 3])
    np.testing.assert_allclose(
        floats[7], np.clip([(math.log1p(a) - middle) / sixth, (b - 0.5) / 0.25], -4, 4), rtol=1e-12
    )


def test_nan_is_refused_before_it_can_become_an_integer() -> None:
    for bad in (math.nan, math.inf, -math.inf):
        with pytest.raises(FixInputError, match="row 1, column 'a'"):
            Encoder(UNIT).encode(np.array([[0.0], [bad]]))
        with pytest.raises(FixInputError, match="row 1, column 'a'"):
            Encoder(UNIT).standardise(np.array([[0.0], [bad]]))


@pytest.mark.parametrize(
    ("limit", "bits"),
    [(0.0, 14), (-1.0, 14), (1024.1, 14), (math.nan, 14), (math.inf, 14), (8.0, 0), (8.0, 31), (8.0, -1)],
)
def test_an_absurd_encoder_is_refused(limit: float, bits: int) -> None:
    with pytest.raises(FixConfigurationError, match="an encoder has a limit"):
        Encoder(UNIT, limit, bits)


def test_an_encoder_survives_json_with_its_digest_also_when_written_with_integers() -> None:
    encoder = Encoder(UNIT, 8, 14)
    again = codec.from_plain(Encoder, json.loads(json.dumps(codec.to_plain(encoder))), where="encoder")
    assert again == encoder
    assert codec.digest(again, domain="d") == codec.digest(encoder, domain="d")
