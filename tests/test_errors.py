"""What an error prints, that the tree is usable from generic handlers, and that printing itself cannot fail."""

from __future__ import annotations

import inspect
import json
import pickle

import pytest

from securead import errors
from securead.errors import FixInputError, InstallExtraError, SecureadError

CLASSES = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, SecureadError)]


def test_prints_place_then_what_then_value_then_remedy() -> None:
    error = FixInputError("a bound is wrong", where="schema.toml", value=-3, remedy="Make it positive.")
    assert str(error) == "schema.toml: a bound is wrong (got -3). Make it positive."


def test_parts_that_are_absent_leave_no_trace() -> None:
    assert str(FixInputError("nothing more to say")) == "nothing more to say"
    assert str(FixInputError("a", remedy="Do b.")) == "a. Do b."
    assert str(FixInputError("a", where="x")) == "x: a"


@pytest.mark.parametrize("value", [0, False, "", ()])
def test_a_falsy_value_is_still_shown(value: object) -> None:
    assert str(FixInputError("a", value=value)) == f"a (got {value!r})"


def test_a_long_value_is_cut_at_200_characters() -> None:
    assert str(FixInputError("a", value="x" * 198)) == f"a (got {'x' * 198!r})"
    cut = str(FixInputError("a", value="x" * 199))
    assert cut == "a (got '" + "x" * 196 + "...)"


def test_printing_survives_a_value_nested_deeper_than_the_stack() -> None:
    nested: list[object] = []
    for _ in range(100_000):
        nested = [nested]
    assert str(FixInputError("a", value=nested)) == "a (got a list too large to show)"


def test_printing_survives_a_hostile_value_of_every_depth_that_json_accepts() -> None:
    printed = 0
    for depth in range(800, 1000):
        try:
            value = json.loads("[" * depth + "]" * depth)
        except RecursionError:
            break
        assert str(FixInputError("a", value=value)).startswith("a (got ")
        printed += 1
    assert printed > 50


def test_printing_survives_an_integer_beyond_pythons_digit_limit() -> None:
    assert "too large to show" in str(FixInputError("a", value=10**5000))


@pytest.mark.parametrize("cls", CLASSES)
def test_every_class_survives_pickling_as_worker_processes_need(cls: type[SecureadError]) -> None:
    error = cls("what", where="where", value=(1, "x"), remedy="Do.")
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is cls
    assert str(again) == str(error) == "where: what (got (1, 'x')). Do."


@pytest.mark.parametrize("cls", CLASSES)
def test_every_class_says_what_the_reader_should_do(cls: type[SecureadError]) -> None:
    assert issubclass(cls, SecureadError)
    assert cls is SecureadError or cls.__doc__ != SecureadError.__doc__
    assert cls is SecureadError or SecureadError in cls.__bases__, "the tree is flat: no class hides behind another"


def test_the_tree_joins_the_builtin_classes_that_generic_code_catches() -> None:
    assert issubclass(FixInputError, ValueError)
    assert issubclass(InstallExtraError, ImportError)
