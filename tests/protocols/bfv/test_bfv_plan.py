"""Parameters: the tables, the margins, layouts, stability, refusals with remedies that work."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from bfv_setting import phases, small
from hypothesis import given, settings
from hypothesis import strategies as st

from securead import codec
from securead.checks import programs
from securead.errors import FixInputError, FixProgramError
from securead.protocols.bfv import layouts, messages
from securead.protocols.bfv import plan as planning
from securead.protocols.bfv.layouts import Layout
from securead.protocols.bfv.margins import Margins, fresh_error, public_error
from securead.protocols.bfv.plan import BfvPlan, make_plan, plan_from_plain
from securead.protocols.seal import primes


@settings(max_examples=60)
@given(
    st.sampled_from([4096, 8192]),
    st.integers(1, 40),
    st.integers(1, (1 << 24) - 1),
    st.integers(1, 1 << 20),
    st.sampled_from(["same", "split"]),
)
def test_chosen_primes_hold_every_margin(n: int, score_bits: int, largest: int, entries: int, role: str) -> None:
    """The margins once more, in exact fractions, from the terms of the specification."""
    bits = planning.plain_bits(score_bits, largest)
    margins = Margins(n, primes.special_prime(n), bits, role, entries, largest)
    chosen = planning.data_primes(margins)
    if chosen is None:
        assert n == 4096, "every public half that exists fits a ring of 8192"
        return
    chain = (*chosen, margins.special_prime)
    assert math.prod(chain).bit_length() <= min(primes.STANDARD_2018[n], primes.GUIDELINE_2024[n])
    mask = Fraction(21 * (2 * n + 1), margins.special_prime) + Fraction(n + 1, 2)
    noise = entries * largest * (21 if role == "same" else mask) + Fraction(1 << bits, 2) + mask
    flood, step = 1 << margins.flood_bits, Fraction(math.prod(chosen), 1 << bits)
    assert 1 << bits > 2 * largest
    assert flood >= 2**40 * noise
    assert flood + noise <= step / 4
    total, modulus = flood + noise, math.prod(chosen)
    for prime in reversed(chosen[1:]):
        total, modulus = total / prime + Fraction(n + 1, 2), modulus // prime
    assert total + 1 <= Fraction(modulus, 2 << bits)


def test_error_bounds_of_fresh_encryptions() -> None:
    assert fresh_error("same", 4096, 40961) == 21
    assert fresh_error("split", 4096, 40961) == public_error(4096, 40961)
    assert public_error(4096, 40961) >= Fraction(21 * 8193, 40961) + Fraction(4097, 2)


@pytest.mark.parametrize("role", ["same", "split"])
def test_measured_errors_are_within_their_bounds(role: str) -> None:
    """Fresh encryptions of zero, SEAL's: the error is below its bound, and the bound is not absurd."""
    setting = small(role)
    q, n = math.prod(setting.plan.data_primes), setting.plan.ring_dimension
    (value,) = messages.ciphertexts(setting.plan, setting.encryptor.encrypt(np.zeros((1, 5), dtype=np.int64)))
    # No one-hot position stands here: the first row's stretch ends before.
    found = [p - q if p > q // 2 else p for p in phases(setting, value, np.arange(n - 200, n))]
    largest = max(map(abs, found))
    bound = fresh_error(setting.plan.role, n, setting.plan.special_prime)
    assert bound / 100 < largest <= bound


@settings(max_examples=100)
@given(st.sampled_from([4096, 8192]), st.integers(1, 60_000), st.integers(1, 1024))
def test_layouts_have_room_and_are_used(n: int, entries: int, rows: int) -> None:
    chosen = layouts.choose(n, entries, rows)
    assert 1 <= len(chosen) <= 3
    assert [layout.slots for layout in chosen] == sorted({layout.slots for layout in chosen})
    for layout in chosen:
        stride = layout.stride(n)
        assert layout.slots * stride <= n
        assert layout.pieces * stride >= entries > (layout.pieces - 1) * stride
        assert layout.slots <= rows
    cut = layouts.groups(chosen, rows)
    assert [row for group in cut for row in range(group.first, group.first + group.rows)] == list(range(rows))
    assert all(1 <= group.rows <= group.layout.slots for group in cut)
    assert sum(group.layout.pieces for group in cut) <= rows * -(-entries // n) + chosen[-1].weight
    assert layouts.groups(chosen, 1)[0].layout.pieces == -(-entries // n)


@pytest.mark.parametrize(("slots", "n"), [(1, 16), (2, 16), (3, 16), (5, 16), (16, 16)])
def test_no_row_disturbs_another(slots: int, n: int) -> None:
    """By exhaustion at a small ring: coefficient r S of the product is row r's entry, also around the end."""
    stride = n // slots
    for row in range(slots):
        for position in range(stride):
            for entry in range(stride):
                degree = row * stride + position - entry
                at, sign = degree % n, -1 if degree < 0 else 1
                here = at % stride == 0 and at // stride < slots
                assert (here and (at, sign) == (row * stride, 1)) == (position == entry)
                assert position == entry or not here


def test_chosen_parameters_of_the_shared_programs() -> None:
    def shape(plan: BfvPlan) -> tuple[int, list[int], list[tuple[int, int]]]:
        widths = [p.bit_length() for p in plan.data_primes]
        return plan.ring_dimension, widths, [(layout.slots, layout.pieces) for layout in plan.layouts]

    fifty, hundred = programs.forest(50, 6).public, programs.forest(100, 8).public
    assert shape(make_plan(fifty, "same")) == (4096, [28, 54], [(1, 1), (5, 4), (32, 25)])
    assert shape(make_plan(fifty, "split")) == (4096, [28, 60], [(1, 1), (5, 4), (32, 25)])
    assert shape(make_plan(hundred, "same")) == (4096, [29, 57], [(1, 7), (4, 25), (32, 200)])
    assert make_plan(hundred, "split").ring_dimension == 8192
    assert shape(make_plan(programs.small_tables().public, "same"))[2] == [(32, 1)]


def test_a_chunk_stays_within_its_limit() -> None:
    for public in (programs.small_tables().public, programs.forest(50, 6).public, programs.forest(100, 8).public):
        for role in ("same", "split"):
            plan = make_plan(public, role)
            rows = plan.rows_per_chunk
            assert rows == 1 or plan.request_bytes(rows) <= planning.MAX_CHUNK_BYTES
            assert plan.max_request_bytes >= plan.request_bytes(rows)
            assert rows & (rows - 1) == 0


def test_a_plan_beyond_tables_or_margins_cannot_be_made() -> None:
    plan = make_plan(programs.small_tables().public, "same")
    wide = primes.choose(plan.ring_dimension, (60, 60))
    narrow = primes.choose(plan.ring_dimension, (20, plan.data_primes[1].bit_length() - 2))
    assert wide is not None
    assert narrow is not None
    for change in (
        {"data_primes": wide},
        {"data_primes": narrow},
        {"data_primes": (plan.data_primes[0],) * 2},
        {"data_primes": plan.data_primes[:1]},
        {"data_primes": (plan.data_primes[0] + 2 * plan.ring_dimension, plan.data_primes[1])},
        {"ring_dimension": 2048},
        {"special_prime": 97},
        {"flood_bits": plan.flood_bits - 1},
        {"flood_bits": plan.flood_bits + 2},
        {"flood_bits": 1 << 40},
        {"plain_bits": plan.plain_bits - 1},
        {"score_bits": plan.score_bits + 4},
        {"largest": plan.largest * 64},
        {"sizes": plan.sizes * 64},
        {"sizes": ()},
        {"sizes": (0, *plan.sizes)},
        {"unit": 0.0},
        {"layouts": ()},
        {"layouts": (Layout(64, 1),)},
        {"layouts": (Layout(32, 0),)},
        {"layouts": (Layout(0, 1),)},
        {"rows_per_chunk": 0},
        {"rows_per_chunk": 1 << 20},
    ):
        with pytest.raises(FixInputError):
            dataclasses.replace(plan, **change)


@pytest.mark.parametrize("plain", [None, [], {}, {"role": "same"}, {"role": "both"}])
def test_a_stored_plan_must_be_a_plan(plain: object) -> None:
    with pytest.raises(FixInputError):
        plan_from_plain(plain)


def test_digest_is_the_same_in_another_process() -> None:
    plan = make_plan(programs.small_tables().public, "split")
    script = (
        "import json, sys; from securead.protocols.bfv.plan import plan_from_plain;"
        "print(plan_from_plain(json.load(sys.stdin)).digest)"
    )
    run = subprocess.run(
        [sys.executable, "-c", script],
        input=json.dumps(codec.to_plain(plan)),
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == plan.digest


def test_what_does_not_fit_is_refused_with_a_remedy_that_works(monkeypatch: pytest.MonkeyPatch) -> None:
    """No public half is too large for a ring of 8192; without it, the smallest change is named."""
    monkeypatch.setattr(planning, "RING_DIMENSIONS", (4096,))
    too_fine = programs.forest(100, 6, entry_bits=14)
    with pytest.raises(FixProgramError) as caught:
        make_plan(too_fine.public, "split")
    (bits,) = map(int, re.findall(r"weight_bits=(\d+)", caught.value.remedy))
    assert make_plan(programs.forest(100, 6, entry_bits=bits).public, "split")
    with pytest.raises(FixProgramError):
        make_plan(programs.forest(100, 6, entry_bits=bits + 1).public, "split")


@pytest.mark.parametrize("make", [programs.small_quadratic, programs.with_relu])
def test_polynomials_are_refused(make: object) -> None:
    with pytest.raises(FixProgramError, match="looks tables up") as caught:
        make_plan(make().public, "same")  # type: ignore[operator]
    assert caught.value.remedy


def test_a_plan_describes_itself() -> None:
    described = dict(make_plan(programs.forest(50, 6).public, "same").describe())
    assert described["reveals"].startswith("the scores")
    assert described["records by ciphertexts"] == "1 in 1, 5 in 4, 32 in 25"


def test_answer_bits_are_what_the_flood_leaves() -> None:
    plan = make_plan(programs.forest(50, 6).public, "same")
    assert plan.answer_bits == pytest.approx(math.log2(math.prod(plan.data_primes) / 2 ** (plan.flood_bits + 1)))
    assert plan.plain_bits + 1 <= plan.answer_bits <= plan.plain_bits + 3
