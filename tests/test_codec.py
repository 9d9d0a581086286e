"""Round trips of stored values, and refusal of everything that is not exactly the declared shape, with its place."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from securead import codec
from securead.data.schema import Column, Schema
from securead.errors import FixConfigurationError, FixInputError


@dataclass(frozen=True)
class Circle:
    type_tag: ClassVar[str] = "circle"
    radius: float


@dataclass(frozen=True)
class Square:
    type_tag: ClassVar[str] = "square"
    side: int


@dataclass(frozen=True)
class Inner:
    text: str
    flag: bool


@dataclass(frozen=True)
class Everything:
    name: str
    count: int
    ratio: float
    flag: bool
    mode: Literal["a", "b"]
    inner: Inner
    shapes: tuple[Circle | Square, ...]
    pair: tuple[int, str]
    grid: tuple[tuple[float, ...], ...]
    maybe: float | None
    other: Circle | Square | None = None
    more: int = 7


EXAMPLE = Everything(
    "n", 1, 0.5, True, "a", Inner("t", False), (Circle(1.5), Square(2)), (3, "p"), ((0.1, 0.2), ()), None, Square(9)
)
SAME = "thing"

finite = st.floats(allow_nan=False, allow_infinity=False)
shapes = st.one_of(st.builds(Circle, finite), st.builds(Square, st.integers()))
everything = st.builds(
    Everything,
    name=st.text(max_size=8),
    count=st.integers(),
    ratio=finite,
    flag=st.booleans(),
    mode=st.sampled_from(["a", "b"]),
    inner=st.builds(Inner, st.text(max_size=3), st.booleans()),
    shapes=st.lists(shapes, max_size=3).map(tuple),
    pair=st.tuples(st.integers(), st.text(max_size=3)),
    grid=st.lists(st.lists(finite, max_size=3).map(tuple), max_size=2).map(tuple),
    maybe=st.none() | finite,
    other=st.none() | shapes,
    more=st.integers(),
)


def through_json(value: Any) -> Any:
    return json.loads(json.dumps(codec.to_plain(value), allow_nan=False))


def plain() -> dict[str, Any]:
    return copy.deepcopy(through_json(EXAMPLE))


@given(everything)
@settings(max_examples=100)
def test_values_survive_json_bit_for_bit(value: Everything) -> None:
    again = codec.from_plain(Everything, through_json(value), where=SAME)
    assert again == value
    assert repr(again) == repr(value), "-0.0 == 0.0, so equality alone is not enough"
    assert codec.digest(again, domain="d") == codec.digest(value, domain="d")


@given(everything, everything)
@settings(max_examples=60)
def test_digests_are_equal_only_for_equal_values(a: Everything, b: Everything) -> None:
    assume(repr(a) != repr(b))
    assert codec.digest(a, domain="d") != codec.digest(b, domain="d")


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(Everything)])
def test_the_digest_covers_every_field(field: str) -> None:
    other = {
        "name": "m",
        "count": 2,
        "ratio": np.nextafter(0.5, 1).item(),
        "flag": False,
        "mode": "b",
        "inner": Inner("t", True),
        "shapes": (Square(2), Circle(1.5)),
        "pair": (3, "q"),
        "grid": ((0.1,), (0.2,)),
        "maybe": 0.0,
        "other": None,
        "more": 8,
    }[field]
    changed = dataclasses.replace(EXAMPLE, **{field: other})
    assert codec.digest(changed, domain="d") != codec.digest(EXAMPLE, domain="d")


def test_the_digest_is_separated_by_domain_and_fixed_for_ever() -> None:
    assert codec.digest(Inner("t", True), domain="a") != codec.digest(Inner("t", True), domain="b")
    assert codec.canonical_bytes(Inner("ü", True)) == b'{"flag":true,"text":"\\u00fc"}'
    expected = hashlib.sha256(b'a\0{"flag":true,"text":"t"}').hexdigest()
    assert codec.digest(Inner("t", True), domain="a") == expected


def test_an_integer_in_a_floats_place_has_the_digest_of_that_float() -> None:
    whole = dataclasses.replace(EXAMPLE, ratio=2, maybe=3, shapes=(Circle(1),), grid=((1, 2),))
    floats = dataclasses.replace(EXAMPLE, ratio=2.0, maybe=3.0, shapes=(Circle(1.0),), grid=((1.0, 2.0),))
    assert whole == floats
    assert codec.canonical_bytes(whole) == codec.canonical_bytes(floats)
    again = codec.from_plain(Everything, through_json(whole), where=SAME)
    assert codec.canonical_bytes(again) == codec.canonical_bytes(whole)
    assert b'"count":1,' in codec.canonical_bytes(whole), "an integer's place keeps its integer"


def test_tuples_become_lists_and_unions_bear_their_tag() -> None:
    value = plain()
    assert value["shapes"] == [{"type": "circle", "radius": 1.5}, {"type": "square", "side": 2}]
    assert value["pair"] == [3, "p"]
    assert value["maybe"] is None, "an absent value is explicit"


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_cannot_be_stored(bad: float) -> None:
    with pytest.raises(ValueError, match="no place"):
        codec.to_plain(dataclasses.replace(EXAMPLE, ratio=bad))
    with pytest.raises(ValueError, match="no place"):
        codec.canonical_bytes(dataclasses.replace(EXAMPLE, grid=((bad,),)))


@pytest.mark.parametrize("bad", [b"bytes", [1], {"a": 1}, {1}, np.zeros(2), np.int64(3), Inner, 1j])
def test_what_is_not_a_plain_value_cannot_be_stored(bad: object) -> None:
    with pytest.raises(TypeError, match="cannot be stored"):
        codec.to_plain(bad)


@pytest.mark.parametrize("name", [f.name for f in dataclasses.fields(Everything)])
def test_a_missing_entry_is_named_unless_it_has_a_default(name: str) -> None:
    value = plain()
    del value[name]
    if name in ("other", "more"):
        read = codec.from_plain(Everything, value, where=SAME)
        assert (read.other, read.more) == (None if name == "other" else Square(9), 7)
    else:
        with pytest.raises(FixInputError, match=f"thing: the entry '{name}' is missing"):
            codec.from_plain(Everything, value, where=SAME)


def test_an_unknown_entry_is_named_with_those_there_are() -> None:
    with pytest.raises(FixInputError, match=r"thing\.inner: unknown entry 'colour'.*text, flag"):
        codec.from_plain(Everything, {**plain(), "inner": {"text": "t", "flag": True, "colour": 1}}, where=SAME)
    with pytest.raises(FixInputError, match="thing: unknown entry 'type'"):
        codec.from_plain(Everything, {**plain(), "type": "circle"}, where=SAME)


def test_an_unknown_entry_of_hostile_length_is_cut() -> None:
    with pytest.raises(FixInputError) as refused:
        codec.from_plain(Everything, {**plain(), "x" * 100_000: 1}, where=SAME)
    assert len(str(refused.value)) < 400


WRONG: list[tuple[str, Any, str]] = [
    ("name", 1, "thing.name: expected text"),
    ("name", None, "thing.name: expected text"),
    ("name", ["n"], "thing.name: expected text"),
    ("count", 1.0, "thing.count: expected an integer"),
    ("count", True, "thing.count: expected an integer"),
    ("count", "1", "thing.count: expected an integer"),
    ("ratio", True, "thing.ratio: expected a number"),
    ("ratio", "0.5", "thing.ratio: expected a number"),
    ("ratio", None, "thing.ratio: expected a number"),
    ("ratio", math.nan, "thing.ratio: expected a finite number"),
    ("ratio", math.inf, "thing.ratio: expected a finite number"),
    ("ratio", -math.inf, "thing.ratio: expected a finite number"),
    ("ratio", 10**400, "thing.ratio: expected a finite number"),
    ("maybe", math.nan, "thing.maybe: expected a finite number"),
    ("maybe", "x", "thing.maybe: expected a number"),
    ("flag", 1, "thing.flag: expected true or false"),
    ("flag", "true", "thing.flag: expected true or false"),
    ("flag", None, "thing.flag: expected true or false"),
    ("mode", "c", "thing.mode: expected one of 'a', 'b'"),
    ("mode", ["a"], "thing.mode: expected one of 'a', 'b'"),
    ("mode", None, "thing.mode: expected one of 'a', 'b'"),
    ("inner", [], "thing.inner: expected a table"),
    ("inner", None, "thing.inner: expected a table"),
    ("inner", {"text": "t", "flag": 0}, "thing.inner.flag: expected true or false"),
    ("shapes", {}, "thing.shapes: expected a list"),
    ("shapes", "ab", "thing.shapes: expected a list"),
    ("shapes", [{"type": "circle", "radius": 1.0}, 3], 'thing.shapes[1]: expected a table whose "type" is'),
    ("shapes", [{"radius": 1.0}], 'thing.shapes[0]: expected a table whose "type" is'),
    ("shapes", [{"type": "star"}], 'thing.shapes[0]: expected a table whose "type" is'),
    ("shapes", [{"type": ["circle"]}], 'thing.shapes[0]: expected a table whose "type" is'),
    ("shapes", [{"type": None}], 'thing.shapes[0]: expected a table whose "type" is'),
    ("shapes", [{"type": "square", "radius": 1.0}], "thing.shapes[0]: unknown entry 'radius'"),
    ("other", {"type": "square", "side": 1.5}, "thing.other.side: expected an integer"),
    ("pair", [1], "thing.pair: expected a list of 2"),
    ("pair", [1, "a", 2], "thing.pair: expected a list of 2"),
    ("pair", [1, 2], "thing.pair[1]: expected text"),
    ("grid", [[0.1], [0.2, "x"]], "thing.grid[1][1]: expected a number"),
    ("grid", [0.1], "thing.grid[0]: expected a list"),
]


@pytest.mark.parametrize(("field", "value", "message"), WRONG)
def test_a_wrong_value_is_refused_with_its_place(field: str, value: Any, message: str) -> None:
    with pytest.raises(FixInputError) as refused:
        codec.from_plain(Everything, {**plain(), field: value}, where=SAME)
    assert str(refused.value).startswith(message)


def test_a_whole_number_is_read_as_a_float_where_a_float_belongs() -> None:
    read = codec.from_plain(Everything, {**plain(), "ratio": 3, "maybe": 4}, where=SAME)
    assert (type(read.ratio), type(read.maybe)) == (float, float)


def test_a_tag_that_contradicts_the_declared_class_is_refused() -> None:
    assert codec.from_plain(Circle, {"type": "circle", "radius": 1.0}, where=SAME) == Circle(1.0)
    for tag in ("square", "", 5, None, ["circle"]):
        with pytest.raises(FixInputError, match=r"thing\.type: expected 'circle'"):
            codec.from_plain(Circle, {"type": tag, "radius": 1.0}, where=SAME)


def test_what_a_class_itself_refuses_gets_the_place() -> None:
    hostile = codec.to_plain(Schema((Column("a", 0.0, 1.0), Column("b", 0.0, 1.0))))
    hostile["columns"][1]["lower"] = 2.0
    with pytest.raises(FixConfigurationError, match=r"^file\.json\.columns\[1\]: column 'b': the lower bound"):
        codec.from_plain(Schema, hostile, where="file.json")


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(Everything)])
@pytest.mark.parametrize("bracket", ["[", '{"type":'])
def test_hostile_nesting_is_refused_and_the_refusal_can_be_printed(field: str, bracket: str) -> None:
    """At every depth the JSON reader accepts: it is the deepest ones that exhaust the stack of whoever prints."""
    for depth in (50, 900, 950, 960, 970, 975, 980, 985, 990):
        body = bracket * depth + ("]" * depth if bracket == "[" else "1" + "}" * depth)
        try:
            nested = json.loads(body)
        except RecursionError:
            break
        with pytest.raises(FixInputError) as refused:
            codec.from_plain(Everything, {**plain(), field: nested}, where=SAME)
        assert str(refused.value).startswith("thing")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["type", "radius", "x"]), inner),
    max_leaves=6,
)


@given(json_values, st.sampled_from([f.name for f in dataclasses.fields(Everything)]))
@settings(max_examples=150)
def test_any_json_is_read_exactly_or_refused(value: Any, field: str) -> None:
    refused: FixInputError | None = None
    try:
        read = codec.from_plain(Everything, {**plain(), field: value}, where=SAME)
    except FixInputError as error:
        refused = error
    if refused is None:
        # Only what says the same is accepted: writing it again gives it back.
        assert codec.to_plain(read)[field] == value
    else:
        assert refused.where.startswith(SAME)


@dataclass(frozen=True)
class Setting:
    value: float | int | str | bool
    small: int | str | None = None


@pytest.mark.parametrize("value", [1, 1.0, "one", True])
def test_a_union_of_scalars_keeps_the_type(value: Any) -> None:
    back = codec.from_plain(Setting, json.loads(json.dumps(codec.to_plain(Setting(value)))), where=SAME)
    assert (back.value, type(back.value)) == (value, type(value))


@pytest.mark.parametrize("value", [1.5, True, [1], {"type": "circle"}])
def test_a_union_of_scalars_takes_no_other(value: Any) -> None:
    with pytest.raises(FixInputError, match=r"thing\.small: expected an integer or text"):
        codec.from_plain(Setting, {"value": 1, "small": value}, where=SAME)
