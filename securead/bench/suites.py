"""Suites: which cases are measured, in TOML files that people can read and extend.

A `[[block]]` gives values, or lists of values, for the fields of a case; every combination of them is a case. What a
block leaves out has the default of `securead.bench.records.Case`. "none" stands for no value (`epsilon = [1, "none"]`).
`include` names further suites, whose cases keep the names of their own.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import itertools
import math
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from securead import codec, files
from securead.bench.records import Case, Kind, Link
from securead.errors import FixConfigurationError, FixInputError, SecureadError

Value = float | int | str | bool

_PATIENCE_SECONDS = 900.0
_MOST_CASES = 20_000


@dataclass(frozen=True)
class Block:
    """A product of values: a tuple an axis, fields as in `Case`. `about` says what the block is to show."""

    kind: tuple[Kind, ...]
    dataset: tuple[str, ...]
    detector: tuple[str, ...]
    peer: tuple[str, ...] = ("",)
    parameters: tuple[tuple[tuple[str, tuple[Value, ...]], ...], ...] = ((),)
    engine: tuple[str, ...] = ("clear",)
    role: tuple[Literal["same", "split", "none"], ...] = ("none",)
    epsilon: tuple[float | None, ...] = (None,)
    delta: tuple[float | None, ...] = (None,)
    batch: tuple[int, ...] = (0,)
    rows: tuple[int, ...] = (0,)
    link: tuple[Link, ...] = ("loopback",)
    threads: tuple[int, ...] = (1,)
    sites: tuple[int, ...] = (3,)
    executor: tuple[Literal["embedded", "flower"], ...] = ("embedded",)
    aggregation: tuple[Literal["plain", "masked", "paillier"], ...] = ("plain",)
    seed: tuple[int, ...] = (0,)
    about: str = ""
    limit_seconds: float | None = None


@dataclass(frozen=True)
class SuiteFile:
    """A suite's file. A case that takes more than `limit_seconds` is stopped and recorded as that."""

    title: str
    about: str = ""
    include: tuple[str, ...] = ()
    block: tuple[Block, ...] = ()
    limit_seconds: float = _PATIENCE_SECONDS


@dataclass(frozen=True)
class Suite:
    """The cases of a suite, each once, in the order in which they run, and how long each may take, by its id."""

    name: str
    title: str
    about: str
    cases: tuple[Case, ...]
    limits: Mapping[str, float]


# What is not an axis, hence never a list.
_SINGLE = ("about", "limit_seconds")
AXES = tuple(field.name for field in dataclasses.fields(Block) if field.name not in _SINGLE)


def suites_folder() -> Path:
    """The folder of the suites, in an installed package or a checkout."""
    package = Path(__file__).parent.parent
    installed = package / "_suites"
    return installed if installed.is_dir() else package.parent / "benchmarks" / "suites"


def suite_names() -> tuple[str, ...]:
    """The suites that come with the package."""
    return tuple(sorted(path.stem for path in suites_folder().glob("*.toml")))


def load(suite: str) -> Suite:
    """A suite by its name, or by the path of a TOML file of one's own; what is wrong in it is named with its place."""
    path = _find(suite, Path())
    limits: dict[str, float] = {}
    cases: dict[str, Case] = {}
    for case, limit in _expand(path, ()):
        # What two included suites share is measured once.
        same = dataclasses.replace(case, suite="").id
        if same not in cases:
            cases[same] = case
            limits[case.id] = limit
    file = read(path)
    if not cases:
        raise FixInputError("the suite has no case", where=path.name, remedy="Add a [[block]].")
    return Suite(path.stem, file.title, file.about, tuple(cases.values()), limits)


def read(path: Path) -> SuiteFile:
    """One file, without what it includes."""
    content = files.read_bytes(path, limit=1 << 20).decode(errors="replace")
    try:
        plain = tomllib.loads(content)
    except tomllib.TOMLDecodeError as error:
        raise FixInputError(f"{path.name} is not TOML: {error}", remedy="Correct the line.") from error
    blocks = plain.get("block", [])
    if isinstance(blocks, list):
        plain["block"] = [_listed(block, f"{path.name}.block[{at}]") for at, block in enumerate(blocks)]
    return codec.from_plain(SuiteFile, plain, where=path.name)


def only(cases: Iterable[Case], patterns: Sequence[str]) -> tuple[Case, ...]:
    """The cases that fit every pattern: a glob over ids, or FIELD=GLOB such as engine=ckks or epsilon=1."""
    kept = given = tuple(cases)
    fields = {*AXES, "suite"} - {"parameters"}
    fields.update(name for case in given for name, _ in case.parameters)
    for pattern in patterns:
        name, equals, _ = pattern.partition("=")
        if equals and name not in fields:
            raise FixConfigurationError(
                f"no case has a field {name!r}", remedy="Fields: " + ", ".join(sorted(fields)) + "."
            )
        kept = tuple(case for case in kept if _fits(case, pattern))
    if given and not kept:
        raise FixConfigurationError(
            f"no case fits {' and '.join(patterns)}", remedy=f"Their names look like {given[0].id}; --list shows all."
        )
    return kept


def _fits(case: Case, pattern: str) -> bool:
    name, equals, wanted = pattern.partition("=")
    if not equals:
        return fnmatch.fnmatchcase(case.id, pattern)
    parameters = dict(case.parameters)
    value = parameters.get(name) if name in parameters else getattr(case, name, None)
    if isinstance(value, int | float) and not isinstance(value, bool):
        try:
            return float(wanted) == value
        except ValueError:
            return False
    text = "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return fnmatch.fnmatchcase(text, wanted)


def _find(suite: str, base: Path) -> Path:
    path = suites_folder() / f"{suite}.toml"
    if "/" not in suite and path.is_file():
        return path
    own = base / suite
    if own.suffix == ".toml" and own.is_file():
        return own
    raise FixConfigurationError(
        "no suite has this name, and no file",
        value=suite,
        remedy="Suites: " + ", ".join(suite_names()) + "; or give the path of a .toml file of your own.",
    )


def _expand(path: Path, seen: tuple[Path, ...]) -> Iterator[tuple[Case, float]]:
    here = path.resolve()
    if here in seen:
        raise FixInputError("the suites include each other in a circle", where=f"{seen[-1].name}.include")
    file = read(path)
    for name in file.include:
        yield from _expand(_find(name, path.parent), (*seen, here))
    for at, block in enumerate(file.block):
        limit = file.limit_seconds if block.limit_seconds is None else block.limit_seconds
        where = f"{path.name}.block[{at}]"
        for case in _product(path.stem, block, where):
            _check(case, where)
            yield case, limit


def _product(suite: str, block: Block, where: str) -> Iterator[Case]:
    """Every combination; the last axis changes first, so that seeds of one setting follow each other."""
    settings = [
        tuple(zip((name for name, _ in table), values, strict=True))
        for table in block.parameters
        for values in itertools.product(*(values for _, values in table))
    ]
    axes = [settings if name == "parameters" else getattr(block, name) for name in AXES]
    count = math.prod(map(len, axes))
    if count > _MOST_CASES:
        raise FixInputError(f"a block has at most {_MOST_CASES:,} cases", where=where, value=count, remedy="Split it.")
    for values in itertools.product(*axes):
        yield Case(suite=suite, **dict(zip(AXES, values, strict=True)))


def _listed(block: Any, where: str) -> Any:
    """A block with every axis a list, "none" as no value, and parameters as pairs of a name and its values."""
    if not isinstance(block, dict):
        return block
    plain = {
        name: value if name in _SINGLE else [_value(name, item) for item in _list(value)]
        for name, value in block.items()
    }
    for name, values in plain.items():
        if values == []:
            raise FixInputError("an axis without values leaves no case", where=f"{where}.{name}", remedy="Remove it.")
    tables = plain.get("parameters", [])
    if any(not isinstance(table, dict) for table in tables):
        raise FixInputError(
            "expected a table of parameters, or a list of such tables",
            where=f"{where}.parameters",
            remedy="Write, say, parameters = { n_estimators = [50, 100] }.",
        )
    for name, value in ((name, value) for table in tables for name, value in table.items()):
        if value == [] or any(not isinstance(item, float | int | str | bool) for item in _list(value)):
            raise FixInputError(
                "expected numbers, texts or truth values",
                where=f"{where}.parameters.{name}",
                value=value,
                remedy="A list gives one case for each of its values.",
            )
    if tables:
        plain["parameters"] = [[[name, _list(value)] for name, value in table.items()] for table in tables]
    return plain


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _value(axis: str, item: Any) -> Any:
    return None if item == "none" and axis in ("epsilon", "delta") else item


def _check(case: Case, where: str) -> None:
    """Refuse what no measurement could mean; whether an engine or a data set is there is found when it is run."""

    def refuse(what: str, remedy: str, value: object = None) -> SecureadError:
        return FixInputError(what, where=where, value=value, remedy=remedy)

    if case.kind == "peer" and not case.peer:
        raise refuse("a block of peers names none", 'Add peer = ["sklearn"].')
    if case.kind != "peer" and case.peer:
        raise refuse(f"a block of kind {case.kind!r} names a peer", 'Use kind = "peer".', case.peer)
    if case.kind == "script" and (case.engine, case.role) != ("clear", "none"):
        raise refuse("a script has its own engines", "Leave out engine and role.", case.engine)
    if case.kind == "score" and (case.engine == "clear") != (case.role == "none"):
        remedy = 'Engines have role = ["same", "split"], "clear" has none: give "clear" a block of its own.'
        raise refuse(f"the engine {case.engine!r} has no role {case.role!r}", remedy)
    for name in ("batch", "rows", "threads", "seed"):
        if getattr(case, name) < 0:
            raise refuse(f"{name} is negative", "Correct it.", getattr(case, name))
    if case.sites < 1:
        raise refuse("there is at least one site", "Correct it.", case.sites)
    if case.epsilon is not None and case.epsilon <= 0:
        raise refuse("epsilon is positive", 'Write "none" for no noise.', case.epsilon)
    if case.delta is not None and not 0 < case.delta < 1:
        raise refuse("delta lies between 0 and 1", "Correct it.", case.delta)
