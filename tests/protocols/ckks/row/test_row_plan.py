"""Parameters: the tables, the error bound from its terms, stability, refusals with remedies that work."""

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
from hypothesis import given, settings
from hypothesis import strategies as st
from row_setting import ROLES, of_degree, phases, read, small

from securead import codec
from securead.checks import programs
from securead.errors import FixInputError, FixProgramError
from securead.protocols import registry
from securead.protocols.bfv.layouts import Layout
from securead.protocols.ckks.row import plan as planning
from securead.protocols.ckks.row.margins import LEAST_SPARE_BITS, SPARE_BITS, Margins, search
from securead.protocols.ckks.row.plan import RowPlan, make_plan, plan_from_plain
from securead.protocols.engine import PlanModuleWithWork, Role
from securead.protocols.seal import primes
from securead.protocols.seal.noise import public_error


def check_terms(plan: RowPlan, tolerance: float) -> None:
    """Everything that the specification asks of a plan, once more, in exact fractions."""
    n, data = plan.ring_dimension, plan.data_primes
    assert math.prod(plan.chain).bit_length() <= min(primes.STANDARD_2018[n], primes.GUIDELINE_2024[n])
    mask = Fraction(21 * (2 * n + 1), plan.special_prime) + Fraction(n + 1, 2)
    noise = 2**plan.norm_bits * (21 if plan.role == "same" else mask) + mask
    flood, delta, q = 1 << plan.flood_bits, 1 << plan.scale_bits, math.prod(data)
    assert flood >= 2**40 * 32 * noise
    total, modulus = noise + flood, q
    for prime in reversed(data[plan.answer_primes :]):
        total, modulus = total / prime + Fraction(n + 1, 2), modulus // prime
    step = Fraction(modulus, 1 << plan.plain_bits)
    assert 1 << plan.plain_bits < modulus
    assert Fraction(delta * 2**plan.score_bits * modulus, q) + total + step < Fraction(modulus, 2), "a score could wrap"
    error = (total + step) * q / modulus / delta / 2**plan.score_fraction_bits
    assert error <= Fraction(plan.error_bound) <= Fraction(tolerance)
    # One unit in the last place is half of 2**-52; of the largest score.
    assert plan.error_bound >= error + Fraction(1 << plan.score_bits, 1 << (53 + plan.score_fraction_bits))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4), st.integers(1, 8), st.integers(0, 45), st.sampled_from(ROLES))
def test_plans_hold_every_margin(degree: int, features: int, finer: int, role: Role) -> None:
    public = of_degree(degree, features=features).public
    range_bits = public.score_bits - public.score_fraction_bits
    tight = dataclasses.replace(public, tolerance=2.0 ** (range_bits - finer))
    plan = make_plan(tight, role)
    check_terms(plan, tight.tolerance)
    assert plan_from_plain(json.loads(json.dumps(codec.to_plain(plan)))) == plan


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize(
    "make",
    [
        programs.small_quadratic,
        programs.mahalanobis,
        programs.autoencoder,
        lambda: programs.autoencoder(29, 16),
        lambda: programs.autoencoder(12, 12, tolerance=1e-10),
    ],
)
def test_plans_of_the_shared_programs(make: object, role: Role) -> None:
    public = make().public  # type: ignore[operator]
    check_terms(make_plan(public, role), public.tolerance)


def test_sizes_of_one_row() -> None:
    """What a gateway sends for 29 columns: one ciphertext at degree two, five at degree four; keys below 200 KB."""
    quadratic, network = (make().public for make in (programs.mahalanobis, programs.autoencoder))
    for public, pieces, up in ((quadratic, 1, 140_000), (network, 5, 900_000)):
        plan = make_plan(public, "same")
        assert plan.groups(1)[0].layout.pieces == pieces
        assert plan.request_bytes(1) <= up
        assert plan.evaluation_key_bytes < 250_000
        assert plan.max_request_bytes <= planning.MAX_CHUNK_BYTES
        assert make_plan(public, "split").max_request_bytes <= planning.MAX_CHUNK_BYTES
    assert make_plan(quadratic, "same").monomials == 464
    assert make_plan(network, "same").monomials == 40_919


def test_scores_are_finer_than_asked_where_there_is_room() -> None:
    public = programs.small_quadratic().public
    roomy = make_plan(public, "same")
    assert roomy.error_bound <= public.tolerance / 2**LEAST_SPARE_BITS
    assert roomy.error_bound >= public.tolerance / 2 ** (SPARE_BITS + 2)
    # With four primes of 50 bits in the place of 214 bits in all there is less room, and it is used to the end.
    tight = programs.autoencoder(12, 12, tolerance=1e-10).public
    plan = make_plan(tight, "same")
    assert plan.ring_dimension == 8192
    assert tight.tolerance / 2**LEAST_SPARE_BITS < plan.error_bound <= tight.tolerance


@pytest.mark.parametrize("role", ROLES)
def test_measured_errors_are_within_their_bounds(role: Role) -> None:
    """Fresh encryptions, SEAL's: the error is below its bound, and the bound is not absurd."""
    setting = small(role)
    (words,) = read(setting, setting.encryptor.encrypt(np.zeros((1, 4), dtype=np.int64)))
    largest = int(np.abs(phases(setting, words)).max())
    bound = 21 if role == "same" else public_error(setting.plan.ring_dimension, setting.plan.special_prime)
    assert bound / 100 < largest <= bound


def test_a_plan_beyond_tables_or_margins_cannot_be_made() -> None:
    plan = make_plan(programs.small_quadratic().public, "same")
    first, *rest = plan.data_primes
    wide = primes.choose(plan.ring_dimension, (50, 50, 50, 50))
    narrow = primes.choose(plan.ring_dimension, (first.bit_length(), 30, 30))
    unproved = primes.choose(plan.ring_dimension, (55, 45))
    assert wide is not None
    assert narrow is not None
    assert unproved is not None
    for change in (
        {"data_primes": wide},
        {"data_primes": narrow},
        {"data_primes": unproved},
        {"data_primes": (first, first, *rest)},
        {"data_primes": (first,)},
        {"data_primes": (first + 2 * plan.ring_dimension, *rest)},
        {"ring_dimension": 2048},
        {"special_prime": 97},
        {"flood_bits": plan.flood_bits - 1},
        {"flood_bits": 1 << 40},
        {"scale_bits": plan.scale_bits + 8},
        {"scale_bits": -1},
        {"plain_bits": plan.plain_bits - 1},
        {"score_bits": plan.score_bits + 8},
        {"norm_bits": plan.norm_bits + 1},
        {"norm_bits": 1 << 40},
        {"degree": 0},
        {"degree": 5},
        {"width": 0},
        {"width": 1 << 40},
        {"input_bound": 0},
        {"answer_primes": 0},
        {"answer_primes": 2},
        {"answer_primes": 4},
        {"layouts": ()},
        {"layouts": (Layout(64, 1),)},
        {"layouts": (Layout(32, 0),)},
        {"layouts": (Layout(0, 1),)},
        {"rows_per_chunk": 0},
        {"rows_per_chunk": 33},
    ):
        with pytest.raises(FixInputError):
            dataclasses.replace(plan, **change)


@pytest.mark.parametrize("plain", [None, [], {}, {"role": "same"}, {"role": "both"}])
def test_a_stored_plan_must_be_a_plan(plain: object) -> None:
    with pytest.raises(FixInputError):
        plan_from_plain(plain)


def test_digest_is_the_same_in_another_process() -> None:
    plan = make_plan(programs.small_quadratic().public, "split")
    script = (
        "import json, sys; from securead.protocols.ckks.row.plan import plan_from_plain;"
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


def test_too_tight_a_tolerance_is_refused_with_one_that_works() -> None:
    """Beyond a double's own precision nothing fits; the least loosening is named, and fits."""
    public = dataclasses.replace(programs.small_quadratic().public, tolerance=1e-18)
    with pytest.raises(FixProgramError) as caught:
        make_plan(public, "same")
    (factor,) = map(int, re.findall(r"2\*\*(\d+) times looser", caught.value.remedy))
    assert "engine ckks" in caught.value.remedy
    assert make_plan(dataclasses.replace(public, tolerance=1e-18 * 2.0**factor), "same")
    with pytest.raises(FixProgramError):
        make_plan(dataclasses.replace(public, tolerance=1e-18 * 2.0 ** (factor - 1)), "same")


def test_too_many_columns_are_refused_with_a_number_that_works() -> None:
    with pytest.raises(FixProgramError, match="monomials") as caught:
        make_plan(programs.autoencoder(48, 2).public, "same")
    (most,) = map(int, re.findall(r"at most (\d+) columns", caught.value.remedy))
    assert make_plan(programs.autoencoder(most, 2).public, "same")
    with pytest.raises(FixProgramError):
        make_plan(programs.autoencoder(most + 1, 2).public, "same")
    assert make_plan(programs.mahalanobis(300).public, "same").monomials == 45_450


@pytest.mark.parametrize(
    ("make", "told"),
    [(programs.small_tables, "bfv"), (programs.with_relu, "sharing"), (programs.of_degree_eight, "deeper")],
)
def test_other_programs_are_refused(make: object, told: str) -> None:
    with pytest.raises(FixProgramError) as caught:
        make_plan(make().public, "same")  # type: ignore[operator]
    assert told in caught.value.remedy


def test_a_tolerance_beyond_every_score_asks_for_no_more_than_one_of_their_size() -> None:
    public = programs.small_quadratic().public
    largest = 2.0 ** (public.steps[-1].bound_bits - public.score_fraction_bits)
    plans = [make_plan(dataclasses.replace(public, tolerance=t), "same") for t in (2 * largest, 1e60)]
    assert plans[0].data_primes == plans[1].data_primes
    assert plans[0].scale_bits == plans[1].scale_bits


def test_a_plan_describes_itself() -> None:
    plan = make_plan(programs.mahalanobis().public, "same")
    described = dict(plan.describe())
    assert described["monomials"] == "464, up to degree 2"
    assert described["reveals"].startswith("the scores")
    assert f"{plan.answer_bits:.1f} bits" in described["reveals"]
    assert described["flooding"].startswith("40 bits above all")
    assert plan.answer_bits == pytest.approx(math.log2(math.prod(plan.data_primes) / 2 ** (plan.flood_bits + 1)))


def test_the_search_ends_where_it_must() -> None:
    """The smallest ring first; and the numbers of one margin by hand."""
    margins = Margins(8192, 65537, "same", 36, 45)
    assert margins.noise == (21 << 36) + 4097 + 6
    assert margins.flood_bits == 40 + 5 + 41
    found = search(programs.small_quadratic().public, "same")
    assert found is not None
    assert found.margins.ring_dimension == 8192


@pytest.mark.parametrize("role", ROLES)
def test_work_counts_exact_bytes_and_grows(role: Role) -> None:
    module, public = registry.plan_module("ckks-row"), programs.autoencoder(9, 3).public
    assert isinstance(module, PlanModuleWithWork)
    plan = make_plan(public, role)
    works = [module.work(plan, public, rows) for rows in (1, 12, plan.rows_per_chunk)]
    for work, rows in zip(works, (1, 12, plan.rows_per_chunk), strict=True):
        assert (work.up_bytes, work.down_bytes) == (plan.request_bytes(rows), plan.answer_bytes(rows))
    for phase in ("client", "server", "offline", "holder"):
        first, *more = [work.of(phase) for work in works]
        assert all(later.keys() == first.keys() for later in more)
        assert all(later[name] >= first[name] for later in more for name in first)
