"""What a schema refuses, clips and counts, and that its messages name row, column, value and remedy."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from securead import codec
from securead.data.schema import MAX_COLUMNS, Column, Schema
from securead.errors import FixConfigurationError, FixInputError

AB = Schema((Column("a", 0.0, 10.0), Column("b", -1.0, 1.0)))
STRICT = Schema(AB.columns, out_of_bounds="refuse")
finite = st.floats(allow_nan=False, allow_infinity=False)


@pytest.mark.parametrize(
    ("lower", "upper"),
    [
        (1.0, 1.0),
        (2.0, 1.0),
        (math.nan, 1.0),
        (0.0, math.nan),
        (-math.inf, 1.0),
        (0.0, math.inf),
        (-1.7e308, 1.7e308),  # each is finite, the width is not
        (0.0, 5e-324),  # the width is positive, a sixth of it is not
    ],
)
def test_bounds_without_a_finite_positive_width_are_refused(lower: float, upper: float) -> None:
    with pytest.raises(FixConfigurationError, match="column 'a': the lower bound is not below"):
        Column("a", lower, upper)


@pytest.mark.parametrize(
    ("center", "spread"),
    [
        (0.0, None),
        (None, 1.0),
        (0.0, 0.0),
        (0.0, -1.0),
        (0.0, math.nan),
        (0.0, math.inf),
        (math.nan, 1.0),
        (math.inf, 1.0),
    ],
)
def test_an_unusable_scale_is_refused(center: float | None, spread: float | None) -> None:
    with pytest.raises(FixConfigurationError, match="column 'a': center and spread go together"):
        Column("a", 0.0, 1.0, center=center, spread=spread)


def test_a_usable_scale_is_accepted_at_its_edges() -> None:
    assert Column("a", 0.0, 1.0, center=0.0, spread=5e-324).spread == 5e-324
    assert Column("a", 0.0, 1.0, center=-1e308, spread=1e308).center == -1e308
    assert Column("a", 0, 1).upper == 1


def test_a_schema_has_columns_each_once_and_not_too_many() -> None:
    with pytest.raises(FixConfigurationError, match="1 to 4096 columns"):
        Schema(())
    with pytest.raises(FixConfigurationError, match="1 to 4096 columns"):
        Schema(tuple(Column(f"c{i}", 0, 1) for i in range(MAX_COLUMNS + 1)))
    with pytest.raises(FixConfigurationError, match="column 'b' is declared twice"):
        Schema((Column("a", 0, 1), Column("b", 0, 1), Column("b", 0, 2)))


def test_a_schema_survives_json_with_its_digest_also_when_written_with_integers() -> None:
    schema = Schema((Column("a", 0, 10, center=1, spread=2), Column("b", -1, 1, "log")), "refuse")
    again = codec.from_plain(Schema, json.loads(json.dumps(codec.to_plain(schema))), where="schema")
    assert again == schema
    assert codec.digest(again, domain="d") == codec.digest(schema, domain="d")


def test_columns_in_order_and_by_name() -> None:
    assert AB.order(("a", "b")) == [0, 1]
    assert AB.order(("b", "a"), reorder=True) == [1, 0]
    assert AB.order(("a", "b"), reorder=True) == [0, 1]
    X = np.array([[0.5, 3.0], [0.25, 4.0]])
    np.testing.assert_array_equal(X[:, AB.order(("b", "a"), reorder=True)], [[3.0, 0.5], [4.0, 0.25]])


@pytest.mark.parametrize("reorder", [False, True])
@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("a",), r"missing': \['b'\], 'unknown': \[\]"),
        ((), r"missing': \['a', 'b'\]"),
        (("a", "b", "c"), r"missing': \[\], 'unknown': \['c'\]"),
        (("a", "B"), r"missing': \['b'\], 'unknown': \['B'\]"),
        (("a", "b", "a"), "a column occurs twice .got 'a'."),
        (("a", "b", "b"), "a column occurs twice .got 'b'."),
        (("a", "a"), "a column occurs twice .got 'a'."),
        (("a", "a", "b"), "a column occurs twice .got 'a'."),
    ],
)
def test_missing_extra_and_doubled_columns_are_refused_by_name(
    names: tuple[str, ...], message: str, reorder: bool
) -> None:
    with pytest.raises(FixInputError, match=message):
        AB.order(names, reorder=reorder)


def test_reordered_columns_are_refused_with_the_first_wrong_place() -> None:
    abc = Schema(tuple(Column(n, 0, 1) for n in "abc"))
    with pytest.raises(FixInputError, match=r"position 1 should be 'b' \(got 'c'\).*--reorder"):
        abc.order(("a", "c", "b"))


@given(st.permutations("abcdef"))
def test_matching_by_name_restores_any_order(names: list[str]) -> None:
    schema = Schema(tuple(Column(n, 0, 1) for n in "abcdef"))
    assert [names[i] for i in schema.order(tuple(names), reorder=True)] == list("abcdef")


@pytest.mark.parametrize("schema", [AB, STRICT], ids=["clip", "refuse"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_value_that_is_not_finite_is_refused_with_row_and_column(schema: Schema, bad: float) -> None:
    X = np.zeros((5, 2))
    X[3, 1] = bad
    with pytest.raises(FixInputError, match=r"row 3, column 'b' is not a finite number") as refused:
        schema.bounded(X)
    assert repr(refused.value.value) == repr(bad)


def test_the_first_bad_value_in_reading_order_is_named() -> None:
    X = np.zeros((5, 2))
    X[4, 0] = X[2, 1] = math.nan
    with pytest.raises(FixInputError, match="row 2, column 'b'"):
        AB.bounded(X)


def test_values_out_of_bounds_are_clipped_and_counted_by_column() -> None:
    X = np.array([[-1.0, 0.5], [11.0, -1.0], [10.0, 1.0], [1e308, np.nextafter(1.0, 2)]])
    before = X.copy()
    bounded, outside = AB.bounded(X)
    np.testing.assert_array_equal(bounded, [[0.0, 0.5], [10.0, -1.0], [10.0, 1.0], [10.0, 1.0]])
    assert outside.tolist() == [3, 1], "a value on the bound is inside"
    np.testing.assert_array_equal(X, before), "the caller's matrix is untouched"


def test_values_out_of_bounds_are_refused_when_the_schema_says_so() -> None:
    inside = np.array([[0.0, -1.0], [10.0, 1.0]])
    bounded, outside = STRICT.bounded(inside)
    np.testing.assert_array_equal(bounded, inside)
    assert outside.tolist() == [0, 0]
    with pytest.raises(FixInputError, match=r"row 1, column 'a' is outside \[0, 10\] \(got 10.5\)") as refused:
        STRICT.bounded(np.array([[0.0, 0.0], [10.5, 0.0]]))
    assert 'out_of_bounds = "clip"' in refused.value.remedy


@pytest.mark.parametrize("shape", [(2,), (2, 1), (2, 3), (1, 2, 2), ()])
def test_a_matrix_of_the_wrong_shape_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(FixInputError, match="wrong shape") as refused:
        AB.bounded(np.zeros(shape))
    assert refused.value.value == shape
    assert "2 columns: a, b" in refused.value.remedy


def test_no_rows_are_a_matrix_too() -> None:
    bounded, outside = STRICT.bounded(np.empty((0, 2)))
    assert bounded.shape == (0, 2)
    assert outside.tolist() == [0, 0]


@given(st.lists(st.tuples(finite, finite), min_size=1, max_size=6))
def test_bounded_values_lie_in_bounds_and_the_count_is_of_those_that_moved(rows: list[tuple[float, float]]) -> None:
    X = np.array(rows)
    bounded, outside = AB.bounded(X)
    assert ((bounded >= [0.0, -1.0]) & (bounded <= [10.0, 1.0])).all()
    assert outside.tolist() == (bounded != X).sum(axis=0).tolist()


def test_the_log_transform_is_log1p_from_the_lower_bound() -> None:
    schema = Schema((Column("a", -5.0, 1e6, "log"), Column("b", -1.0, 1.0)))
    X = np.array([[-5.0, 0.3], [0.0, -0.3], [1e6, 1.0]])
    np.testing.assert_allclose(
        schema.transformed(X), [[0.0, 0.3], [math.log(6), -0.3], [math.log(1_000_006), 1.0]], rtol=1e-15
    )
    lower, upper = schema.transformed_bounds()
    np.testing.assert_allclose([lower, upper], [[0.0, -1.0], [math.log(1_000_006), 1.0]], rtol=1e-15)


def test_the_log_transform_keeps_tiny_differences_from_the_lower_bound() -> None:
    """log(1 + x) computed naively would give 0 here."""
    schema = Schema((Column("a", 0.0, 1.0, "log"),))
    assert schema.transformed(np.array([[1e-20]]))[0, 0] == pytest.approx(1e-20, rel=1e-12)


def test_the_scale_is_the_declared_one_or_the_middle_and_a_sixth_of_the_transformed_bounds() -> None:
    schema = Schema(
        (Column("a", 0.0, 12.0), Column("b", 0.0, 12.0, center=1.0, spread=0.5), Column("c", 1, 7.3, "log"))
    )
    center, spread = schema.declared_scale()
    np.testing.assert_allclose(center, [6.0, 1.0, math.log(7.3) / 2])
    np.testing.assert_allclose(spread, [2.0, 0.5, math.log(7.3) / 6])


@given(finite, finite, st.sampled_from(["identity", "log"]))
@settings(max_examples=200)
def test_every_column_that_is_accepted_has_a_finite_positive_scale(lower: float, upper: float, transform: str) -> None:
    try:
        column = Column("a", lower, upper, transform)  # type: ignore[arg-type]
    except FixConfigurationError:
        assume(False)
    with np.errstate(all="raise", under="ignore"):
        center, spread = Schema((column,)).declared_scale()
    assert np.isfinite(center).all()
    assert np.isfinite(spread).all()
    assert (spread > 0).all()


def test_with_scale_declares_every_column_and_keeps_the_rest() -> None:
    scaled = STRICT.with_scale(np.array([1.0, 2.0]), np.array([3.0, 4.0]))
    assert scaled.columns == (Column("a", 0, 10, center=1, spread=3), Column("b", -1, 1, center=2, spread=4))
    assert scaled.out_of_bounds == "refuse"
    with pytest.raises(ValueError, match="zip"):
        AB.with_scale(np.array([1.0]), np.array([3.0]))


def test_observed_bounds_hold_the_data_and_say_that_they_are_observed() -> None:
    X = np.array([[0.0, 7.0, 0.0], [10.0, 7.0, 0.0]])
    schema = Schema.observed(X, ("a", "constant", "zero"), widen=0.1)
    assert schema.origin == "observed"
    assert AB.origin == "declared"
    assert schema.names == ("a", "constant", "zero")
    assert (schema.columns[0].lower, schema.columns[0].upper) == (-1.0, 11.0)
    assert schema.bounded(X)[1].tolist() == [0, 0, 0]
    assert Schema.observed(X).names == ("x0", "x1", "x2")


@given(st.lists(st.floats(-1e300, 1e300), min_size=1, max_size=5))
def test_observed_bounds_are_valid_for_any_data_even_constant(values: list[float]) -> None:
    X = np.array(values)[:, None]
    schema = Schema.observed(X)
    assert schema.bounded(X)[1].tolist() == [0]
