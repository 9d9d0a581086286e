"""Frozen dataclasses to plain JSON values and back, strictly.

Everything that crosses a file, a socket or a recipe is a frozen dataclass whose fields say its shape: strings,
numbers, booleans, `None`, tuples, string literals, further dataclasses, unions of scalars, and unions of dataclasses
told apart by the key "type". `from_plain` accepts exactly that shape: an unknown or missing field, a wrong type, a NaN
or an infinity is a `FixInputError` that names the place. Nothing is executed, so the input may be hostile. An integer
in a float's place is stored as that float, so that equal values have equal digests. A field declared with the metadata
`stored=False` is left out in both directions: what it holds travels beside the JSON value.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
import types
import typing
from typing import Any, TypeVar

from securead.errors import FixInputError, SecureadError

T = TypeVar("T")
_SCALARS = {str: "text", bool: "true or false", int: "an integer", float: "a number"}


def to_plain(value: Any) -> Any:
    """The JSON value of a dataclass (recursively); `None` fields are kept, so that the shape is explicit."""
    return _plain(Any, value)


def _plain(kind: Any, value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        hints = _hints(type(value))
        plain = {field.name: _plain(hints[field.name], getattr(value, field.name)) for field in _stored(type(value))}
        tag = getattr(type(value), "type_tag", None)
        return {"type": tag, **plain} if tag else plain
    kinds = typing.get_args(kind) if typing.get_origin(kind) in (typing.Union, types.UnionType) else (kind,)
    if isinstance(value, tuple):
        items = next((typing.get_args(k) for k in kinds if typing.get_origin(k) is tuple), ())
        if len(items) != len(value) or Ellipsis in items:
            items = (items[0] if Ellipsis in items else Any,) * len(value)
        return [_plain(k, item) for k, item in zip(items, value, strict=True)]
    if type(value) is int and float in kinds and int not in kinds:
        value = float(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{value} has no place in a stored value")
    if value is None or isinstance(value, str | bool | int | float):
        return value
    raise TypeError(f"a {type(value).__name__} cannot be stored")


def from_plain(cls: type[T], plain: Any, *, where: str) -> T:
    """Build `cls` from a JSON value of exactly its shape, or raise `FixInputError` naming the place.

    What the class itself refuses is raised as the class raises it, with the place where it names none.
    """
    return typing.cast(T, _read(cls, plain, where))


def canonical_bytes(value: Any) -> bytes:
    """The one byte string that stands for a dataclass: what digests are taken over."""
    return json.dumps(
        to_plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    ).encode()


def digest(value: Any, *, domain: str) -> str:
    """SHA-256 of `canonical_bytes`, separated from every other use by `domain`; hex."""
    return hashlib.sha256(domain.encode() + b"\0" + canonical_bytes(value)).hexdigest()


def _fail(where: str, expected: str, got: object) -> FixInputError:
    return FixInputError(f"expected {expected}", where=where, value=got, remedy="Correct this entry.")


def _read(kind: Any, plain: Any, where: str) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return plain
    if origin in (typing.Union, types.UnionType):
        return _read_union(arguments, plain, where)
    if origin is typing.Literal:
        if plain not in arguments or isinstance(plain, bool):
            raise _fail(where, "one of " + ", ".join(map(repr, arguments)), plain)
        return plain
    if origin is tuple:
        if not isinstance(plain, list | tuple):
            raise _fail(where, "a list", plain)
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return tuple(_read(arguments[0], item, f"{where}[{i}]") for i, item in enumerate(plain))
        if len(plain) != len(arguments):
            raise _fail(where, f"a list of {len(arguments)}", plain)
        return tuple(_read(k, item, f"{where}[{i}]") for i, (k, item) in enumerate(zip(arguments, plain, strict=True)))
    if dataclasses.is_dataclass(kind):
        return _read_dataclass(typing.cast(type, kind), plain, where)
    return _read_scalar(kind, plain, where)


def _read_union(arguments: tuple[Any, ...], plain: Any, where: str) -> Any:
    if plain is None and types.NoneType in arguments:
        return None
    kinds = [kind for kind in arguments if kind is not types.NoneType]
    if len(kinds) == 1:
        return _read(kinds[0], plain, where)
    if set(kinds) <= _SCALARS.keys():
        return _read_scalar(_scalar_kind(kinds, plain, where), plain, where)
    tags = {getattr(kind, "type_tag", None): kind for kind in kinds}
    # One of them may go without a tag: it is meant where there is no "type".
    tag = plain.get("type") if isinstance(plain, dict) else ()
    if not isinstance(tag, str | None) or tag not in tags:
        raise _fail(where, 'a table whose "type" is one of ' + ", ".join(map(repr, filter(None, tags))), plain)
    return _read(tags[tag], plain, where)


def _scalar_kind(kinds: list[Any], plain: Any, where: str) -> Any:
    if type(plain) in kinds:
        return type(plain)
    if float in kinds and type(plain) is int:
        return float
    raise _fail(where, " or ".join(_SCALARS[kind] for kind in kinds), plain)


def _read_scalar(kind: Any, plain: Any, where: str) -> Any:
    if kind is float and isinstance(plain, int | float) and not isinstance(plain, bool):
        try:
            number = float(plain)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise _fail(where, "a finite number", plain)
        return number
    if kind in (str, bool, int) and type(plain) is kind:
        return plain
    raise _fail(where, _SCALARS[kind], plain)


def _stored(cls: type) -> list[dataclasses.Field[Any]]:
    return [field for field in dataclasses.fields(cls) if field.metadata.get("stored", True)]


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    return typing.get_type_hints(cls)


def _read_dataclass(cls: type, plain: Any, where: str) -> Any:
    if not isinstance(plain, dict):
        raise _fail(where, "a table", plain)
    tag = getattr(cls, "type_tag", None)
    fields = {field.name: field for field in _stored(cls)}
    if tag and plain.get("type", tag) != tag:
        raise _fail(f"{where}.type", repr(tag), plain["type"])
    given = {key: value for key, value in plain.items() if not (tag and key == "type")}
    for key in given:
        if key not in fields:
            raise FixInputError(
                f"unknown entry {str(key)[:60]!r}", where=where, remedy="Known entries: " + ", ".join(fields) + "."
            )
    for name, field in fields.items():
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        if required and name not in given:
            raise FixInputError(f"the entry {name!r} is missing", where=where, remedy="Add it.")
    values = {name: _read(_hints(cls)[name], value, f"{where}.{name}") for name, value in given.items()}
    try:
        return cls(**values)
    except SecureadError as error:
        error.where = error.where or where
        raise
