"""The two halves: what the digest covers, what the public half must not hold, and strangers' public halves."""

from __future__ import annotations

import copy
import dataclasses
import json
import math
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_programs import Recipe, programs, unit_encoder

from securead import codec
from securead.errors import FixConfigurationError, FixInputError, FixProgramError
from securead.program.polynomial import Affine, Input, Product, PublicPolynomial, Relu, SquaredNorm, refuse_overflow
from securead.program.program import Program
from securead.program.storage import secret_to_bytes

Place = tuple[str | int, ...]


def recipe(seed: int = 0) -> Recipe:
    """All kinds of steps, and weights of some 30 bits that cannot turn up anywhere by chance."""
    rng = np.random.default_rng(seed)
    draw = lambda *shape: rng.uniform(-1, 1, size=shape).tolist()  # noqa: E731
    steps = [
        ("affine", [(draw(2, 3), 0)], draw(2), 44),
        ("product", 1, 1),
        ("relu", 1),
        ("affine", [(draw(1, 2), 2), (draw(1, 2), 3)], draw(1), 120),
    ]
    return Recipe(unit_encoder(3), steps, norm_multiplier=5)


PROGRAM = recipe().build()
PLAIN = json.loads(json.dumps(codec.to_plain(PROGRAM.public)))


def leaves(value: Any, place: Place = ()) -> Iterator[tuple[Place, Any]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if items is None:
        yield place, value
    else:
        for key, item in items:
            yield from leaves(item, (*place, key))


def replaced(place: Place, value: Any) -> Any:
    plain = copy.deepcopy(PLAIN)
    inner = plain
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    return plain


@given(programs())
@settings(max_examples=60)
def test_the_public_half_and_its_digest_survive_json(pair: tuple[Recipe, Program]) -> None:
    public = pair[1].public
    again = codec.from_plain(PublicPolynomial, json.loads(json.dumps(codec.to_plain(public))), where="program")
    assert again == public
    assert again.digest == public.digest == pair[1].digest
    assert re.fullmatch("[0-9a-f]{64}", public.digest)


def test_every_public_field_changes_the_digest() -> None:
    """Every leaf of the JSON, moved a little: either it is refused, or the program has another name."""
    accepted = set()
    for place, old in leaves(PLAIN):
        if isinstance(old, str):
            candidates: list[Any] = [old[:-1] + ("0" if old[-1] != "0" else "1"), "log", "refuse", "observed"]
        elif old is None:
            candidates = [1.0]
        elif isinstance(old, float):
            candidates = [math.nextafter(old, 1e9), old / 2, old * 2]
        else:
            candidates = [old + 1, old - 1]
        for new in candidates:
            if new == old:
                continue
            try:
                changed = codec.from_plain(PublicPolynomial, replaced(place, new), where="program")
            except (FixInputError, FixConfigurationError):
                continue
            assert changed.digest != PROGRAM.digest, place
            accepted.add(tuple(key for key in place if isinstance(key, str)))
    # What the rest determines is refused when it moves (width, format, left, ...); all else must be in here.
    assert {place[-1] for place in accepted} >= {
        "name", "lower", "upper", "transform", "center", "spread", "out_of_bounds", "origin", "limit",
        "fraction_bits", "bound_bits", "gain_bits", "offset_bits", "sources", "multiplier",
        "score_bits", "tolerance", "honest_extraction_rows", "commitment",
    }  # fmt: skip


def test_the_order_of_columns_and_of_steps_is_in_the_digest() -> None:
    schema = PROGRAM.public.encoder.schema
    swapped = dataclasses.replace(schema, columns=schema.columns[::-1])
    encoder = dataclasses.replace(PROGRAM.public.encoder, schema=swapped)
    assert dataclasses.replace(PROGRAM.public, encoder=encoder).digest != PROGRAM.digest


def test_the_commitment_hides_equal_weights_behind_fresh_keys() -> None:
    built = [recipe().build() for _ in range(4)]
    assert len({p.secret.commitment_key for p in built}) == 4
    assert len({p.public.commitment for p in built}) == 4
    assert len({p.digest for p in built}) == 4
    assert {len(p.secret.commitment_key) for p in built} == {32}
    without = [dataclasses.replace(p.public, commitment="0" * 64) for p in built]
    assert len(set(without)) == 1, "nothing else differs, so equal weights cannot be recognised elsewhere either"


def test_a_swapped_secret_half_is_refused() -> None:
    same_weights, other_weights = recipe().build(), recipe(1).build()
    with pytest.raises(FixInputError, match="the commitment does not match"):
        Program(PROGRAM.public, same_weights.secret)
    with pytest.raises(FixInputError, match="do not belong together"):
        Program(PROGRAM.public, other_weights.secret)
    assert Program(PROGRAM.public, PROGRAM.secret).digest == PROGRAM.digest


def test_the_public_half_holds_no_weight() -> None:
    integers = [
        abs(int(v)) for w in PROGRAM.secret.weights.values() for a in (*w.matrices, w.offset) for v in a.ravel()
    ]
    assert min(integers) > 2**20, "none of them can turn up by chance"
    text = codec.canonical_bytes(PROGRAM.public).decode()
    for weight in integers:
        assert str(weight) not in text
        assert f"{weight:x}" not in text
        assert not any(abs(weight) == number for _, number in leaves(PLAIN))
    assert PROGRAM.secret.commitment_key.hex() not in text
    assert str(integers[0]) in secret_to_bytes(PROGRAM.secret).decode(), "the search would find one"


def test_the_public_half_has_the_same_size_whatever_the_weights() -> None:
    """Nothing but ranges may depend on the weights: with all of these declared equal, so are the halves."""
    a, b = recipe(0).build().public, recipe(1).build().public
    ranges = {"gain_bits": (0,), "offset_bits": 0, "bound_bits": 0}

    def bare(public: PublicPolynomial) -> list[Any]:
        return [dataclasses.replace(s, **{k: v for k, v in ranges.items() if hasattr(s, k)}) for s in public.steps]

    assert bare(a) == bare(b)
    assert (a.encoder, a.public_terms, a.tolerance) == (b.encoder, b.public_terms, b.tolerance)


def test_printing_a_program_shows_neither_weights_nor_key() -> None:
    for text in (repr(PROGRAM), str(PROGRAM), repr(PROGRAM.secret)):
        assert PROGRAM.secret.commitment_key.hex() not in text
        assert repr(PROGRAM.secret.commitment_key) not in text
    assert "SecretPolynomial" not in repr(PROGRAM)


def test_values_cannot_be_changed_after_they_were_checked() -> None:
    for thing, name in ((PROGRAM.public, "tolerance"), (PROGRAM, "secret"), (PROGRAM.public.steps[0], "width")):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(thing, name, None)


@pytest.mark.parametrize(
    ("steps", "degree"),
    [
        ([("affine", [([[1.0]], 0)], None, 14)], 1),
        ([("product", 0, 0), ("affine", [([[1.0]], 1), ([[1.0]], 0)], None, 28)], 2),
        ([("product", 0, 0), ("product", 1, 0), ("affine", [([[1.0]], 2)], None, 42)], 3),
        ([("product", 0, 0), ("product", 1, 1), ("relu", 2), ("affine", [([[1.0]], 3)], None, 56)], 4),
    ],
)
def test_the_degree_counts_products(steps: list[Any], degree: int) -> None:
    assert Recipe(unit_encoder(1, 1.0), steps).build().public.degree == degree


def test_public_terms_add_up() -> None:
    public = dataclasses.replace(PROGRAM.public, public_terms=(SquaredNorm(2), SquaredNorm(-5)))
    assert public.public_term(np.array([[1, 2, 3], [0, 0, 1]])).tolist() == [-42, -3]
    none = dataclasses.replace(PROGRAM.public, public_terms=())
    assert none.public_term(np.ones((2, 3), dtype=np.int64)).tolist() == [0, 0]


INPUT = {"type": "input", "width": 3, "fraction_bits": 14, "bound_bits": 17}
SCORE = PLAIN["steps"][-1]


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("format",), 2, "unknown program format"),
        (("steps",), [], "2 to 64 steps"),
        (("steps",), [INPUT], "2 to 64 steps"),
        (("steps",), [INPUT] * 65, "2 to 64 steps"),
        (("steps",), [SCORE, SCORE], "the first step is the input"),
        (("steps", 0, "width"), 4, "the first step is the input"),
        (("steps",), [INPUT, INPUT], "the last step is an affine score"),
        (("steps", 4, "width"), 2, "the last step is an affine score"),
        (("steps", 3), INPUT, "there is one input"),
        (("steps", 1, "width"), 0, "a step is too wide"),
        (("steps", 1, "width"), 8193, "a step is too wide"),
        (("steps", 1, "fraction_bits"), -1, "scale is absurd"),
        (("steps", 1, "fraction_bits"), 1001, "scale is absurd"),
        (("steps", 1, "bound_bits"), 1025, "scale is absurd"),
        (("steps", 1, "bound_bits"), -1, "scale is absurd"),
        (("steps", 1, "sources"), [], "has sources and gains"),
        (("steps", 4, "gain_bits"), [1], "has sources and gains"),
        (("steps", 1, "sources"), [1], "a source comes earlier"),
        (("steps", 1, "sources"), [-1], "a source comes earlier"),
        (("steps", 1, "gain_bits"), [-1], "a gain is absurd"),
        (("steps", 1, "gain_bits"), [1025], "a gain is absurd"),
        (("steps", 1, "offset_bits"), -1, "a gain is absurd"),
        (("steps", 1, "offset_bits"), 1025, "a gain is absurd"),
        (("steps", 2, "left"), 2, "bad product"),
        (("steps", 2, "right"), -1, "bad product"),
        (("steps", 2, "left"), 0, "bad product"),  # widths 3 and 2
        (("steps", 2, "width"), 3, "bad product"),
        (("steps", 2, "fraction_bits"), 87, "adds its factors' fraction bits"),
        (("steps", 3, "source"), 3, "bad ReLU"),
        (("steps", 3, "source"), -2, "bad ReLU"),
        (("steps", 3, "width"), 1, "bad ReLU"),
        (("tolerance",), 0.0, "the tolerance is positive"),
        (("tolerance",), -1.0, "the tolerance is positive"),
        (("score_bits",), 0, "score's range is absurd"),
        (("score_bits",), 1024, "score's range is absurd"),
        (("score_bits",), 20, "public terms beyond the score's range"),
        (("public_terms", 0, "multiplier"), 10**4000, "public terms beyond the score's range"),
        (("honest_extraction_rows",), 0, "the extraction count is positive"),
        (("commitment",), "", "a commitment is 64 hex digits"),
        (("commitment",), "g" * 64, "a commitment is 64 hex digits"),
        (("commitment",), "A" * 64, "a commitment is 64 hex digits"),
        (("commitment",), "0" * 64 + "\n", "a commitment is 64 hex digits"),
        (("commitment",), "\u0660" * 64, "a commitment is 64 hex digits"),  # digits to str.isdigit, not to HMAC
    ],
)
def test_a_public_half_that_is_no_program_is_refused(place: Place, value: Any, message: str) -> None:
    with pytest.raises(FixInputError, match=f"program: .*{re.escape(message)}"):
        codec.from_plain(PublicPolynomial, replaced(place, value), where="program")


@pytest.mark.parametrize(
    ("place", "value", "where"),
    [
        (("encoder", "limit"), 0.0, "stranger.encoder"),
        (("encoder", "fraction_bits"), 31, "stranger.encoder"),
        (("encoder", "schema", "columns", 1, "upper"), -1e9, "stranger.encoder.schema.columns[1]"),
        (("encoder", "schema", "columns", 1, "spread"), -1.0, "stranger.encoder.schema.columns[1]"),
        (("encoder", "schema", "columns"), [], "stranger.encoder.schema"),
    ],
)
def test_a_strangers_encoder_is_refused_with_its_place(place: Place, value: Any, where: str) -> None:
    with pytest.raises(FixConfigurationError) as refused:
        codec.from_plain(PublicPolynomial, replaced(place, value), where="stranger")
    assert refused.value.where == where


junk = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-2, 70),
    st.sampled_from([2**63, -(2**63), 10**400, 512, 513, 1023, 1024, 8192, 8193]),
    st.floats(),
    st.text(max_size=3),
    st.sampled_from(["log", "input", "affine", "product", "relu", "squared_norm", "é" * 64]),
    st.just([]),
    st.just({}),
    st.just(INPUT),
    st.just(SCORE),
    st.lists(st.integers(-1, 5), max_size=3),
)


@st.composite
def damaged(draw: st.DrawFn) -> Any:
    """The JSON of a good public half after one to three replacements, removals or repetitions anywhere in it."""
    plain = copy.deepcopy(PLAIN)
    for _ in range(draw(st.integers(1, 3))):
        inner = plain
        while True:
            key = draw(st.sampled_from(sorted(inner) if isinstance(inner, dict) else list(range(len(inner)))))
            if not (isinstance(inner[key], dict | list) and inner[key] and draw(st.booleans())):
                break
            inner = inner[key]
        what = draw(st.sampled_from(["replace", "replace", "remove", "repeat"]))
        if what == "replace":
            inner[key] = copy.deepcopy(draw(junk))
        elif what == "remove":
            del inner[key]
        elif isinstance(inner, list):
            inner.insert(0, copy.deepcopy(inner[key]))
        else:
            inner[key + "s"] = copy.deepcopy(inner[key])
        if not plain:
            break
    return plain


@given(damaged())
@settings(max_examples=300)
def test_a_damaged_public_half_is_refused_or_usable_and_never_a_crash(plain: Any) -> None:
    try:
        public = codec.from_plain(PublicPolynomial, plain, where="program")
    except (FixInputError, FixConfigurationError) as error:
        refused = error
    else:
        use(public)
        return
    assert refused.where.startswith("program")
    assert str(refused)


def use(public: PublicPolynomial) -> None:
    """What a client does with a public half that it was given, and what a service does with it and a secret half."""
    columns = public.encoder.schema.columns
    X = np.array([[c.lower for c in columns], [c.upper for c in columns]])
    Z, outside = public.encoder.encode(X)
    assert int(np.abs(Z).max()) <= public.encoder.bound
    assert outside.sum() == 0
    assert np.isfinite(public.decode(public.public_term(Z))).all()
    assert np.isfinite(public.decode(np.array([2**public.score_bits, -(2**public.score_bits)], dtype=object))).all()
    assert public.degree >= 1
    again = codec.from_plain(PublicPolynomial, json.loads(json.dumps(codec.to_plain(public))), where="program")
    assert again.digest == public.digest
    try:
        Program(public, PROGRAM.secret)
    except FixInputError:
        return
    # The commitment is to the weights alone; whatever else moved must still be consistent with them.
    assert public.commitment == PROGRAM.public.commitment


def test_refuse_overflow_at_its_edge() -> None:
    refuse_overflow(512, 512, "x")
    with pytest.raises(FixProgramError, match=r"x needs 513 bits, only 512 are there \(got 513\)\. Compile with fewer"):
        refuse_overflow(513, 512, "x")


def test_the_kinds_of_steps_are_told_apart_by_their_tags() -> None:
    kinds = (Input, Affine, Product, Relu)
    assert [s["type"] for s in PLAIN["steps"]] == ["input", "affine", "product", "relu", "affine"]
    assert len({k.type_tag for k in kinds}) == 4
