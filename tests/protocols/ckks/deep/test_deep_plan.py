"""Parameters: the tables, the inequalities, levels, refusals with remedies that work."""

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
from deep_setting import ROLES, any_dag

from securead import codec
from securead.checks import programs
from securead.errors import FixInputError, FixProgramError
from securead.program.builder import ProgramBuilder
from securead.program.deep import deep_reconstruction_error
from securead.program.program import PublicProgram
from securead.protocols.choice import carriers, choose
from securead.protocols.ckks.deep.plan import DeepPlan, make_plan, plan_from_plain
from securead.protocols.ckks.deep.scales import scales_of
from securead.protocols.ckks.deep.structure import Structure
from securead.protocols.engine import Role
from securead.protocols.seal import primes


def check(plan: DeepPlan, tolerance: float) -> None:
    n, chain = plan.ring_dimension, plan.chain
    assert plan.error_bound <= tolerance
    assert len(set(chain)) == len(chain)
    assert all(primes.is_usable(p, n) and 20 <= p.bit_length() <= 50 for p in chain)
    bits = math.prod(chain).bit_length()
    assert bits == plan.modulus_bits <= min(primes.STANDARD_2018[n], primes.GUIDELINE_2024[n])
    assert 2 * plan.result_bound * plan.answer_scale < math.prod(plan.data_primes[: plan.answer_primes])
    # Flooding, in whole numbers.
    hidden = Fraction(plan.hidden_error) * Fraction(plan.score_scale) + plan.mask_bound
    assert 2**plan.flood_bits >= 2**40 * (n // 2) * hidden
    assert plan_from_plain(json.loads(json.dumps(codec.to_plain(plan)))) == plan


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("seed", range(6))
def test_plans_satisfy_their_inequalities(seed: int, role: Role) -> None:
    program = any_dag(seed)
    try:
        plan = make_plan(program.public, role)
    except FixProgramError:
        assert seed != 0, "at least one of them fits"
        return
    check(plan, program.public.tolerance)
    assert float(scales_of(plan, program.public)[-1]) == plan.score_scale


@pytest.mark.parametrize("role", ROLES)
def test_the_network_of_the_project_fits(role: Role) -> None:
    """29-16-8-16-29: degree 16, relinearised 8 + 8 times in the place of 40, five polynomials in an answer."""
    program = programs.deep_autoencoder()
    plan, public = make_plan(program.public, role), program.public
    check(plan, public.tolerance)
    assert (public.degree, plan.ring_dimension, plan.depth) == (16, 32768, 4)
    assert sum(public.steps[at].width for at, step in enumerate(plan.steps) if step.relinearised) == 16
    assert plan.answer_size == 5
    assert public.tolerance <= 0.005 * 20
    assert plan.hidden_error < plan.error_bound * 2.0**-50, "nearly all of the error is the flood"
    told = dict(plan.describe())
    assert "40 above all errors" in told["flooding"]
    assert str(plan.modulus_bits) in told["security"]


def test_where_products_are_fewer_they_are_relinearised() -> None:
    """Two squares feed eight factors: two relinearisations, not eight."""
    build = ProgramBuilder(programs.encoder(2, limit=1.0, fraction_bits=4))
    square = build.product(build.input, build.input)
    wide = build.affine([(np.full((8, 2), 0.5), square)], fraction_bits=build.fraction_bits(square) + 1)
    fourth = build.product(wide, wide)
    eighth = build.product(fourth, fourth)
    build.affine([(np.ones((1, 8)), eighth)], fraction_bits=build.fraction_bits(eighth))
    public = build.finish(tolerance=1.0, honest_extraction_rows=1).public
    structure = Structure.of(public, lazy=True)
    assert structure.relinearised == {square}
    assert structure.sizes[-1] == 5
    strict = Structure.of(public, lazy=False)
    assert strict.relinearised == {square, fourth}
    assert strict.sizes[-1] == 3
    assert structure.depths == (0, 1, 1, 2, 3, 3)


def test_what_skips_a_depth_is_relinearised_before_it_is_multiplied() -> None:
    """Three polynomials of depth 1 in a factor of depth 2, whose own product, the narrower one, has two."""
    build, one = ProgramBuilder(programs.encoder(2, limit=1.0, fraction_bits=1)), np.ones
    first = build.affine([(one((1, 2)) / 2, build.input)], fraction_bits=2)
    early = build.product(first, first)
    narrow = build.affine([(one((1, 1)) / 2, early)], fraction_bits=5)
    late = build.product(narrow, narrow)
    factor = build.affine([(one((3, 1)) / 2, early), (one((3, 1)) / 2, late)], fraction_bits=11)
    value = build.product(factor, factor)
    for bits in (24, 48):
        unit = build.affine([(one((1, build.steps[value].width)) / 4, value)], fraction_bits=bits)
        value = build.product(unit, unit)
    build.affine([(one((1, 1)), value)], fraction_bits=96)
    public = build.finish(tolerance=2.0**8, honest_extraction_rows=1).public
    for lazy in (True, False):
        structure = Structure.of(public, lazy=lazy)
        assert factor in structure.relinearised
        assert max(structure.sizes) <= 5


def test_what_is_made_of_relinearised_steps_alone_is_not_relinearised_again() -> None:
    build, one = ProgramBuilder(programs.encoder(4, limit=1.0, fraction_bits=2)), np.ones
    first = build.affine([(one((1, 4)) / 4, build.input)], fraction_bits=4)
    square, wide = build.product(first, first), build.product(build.input, build.input)
    same = build.affine([(one((1, 1)), square)], fraction_bits=8)
    other = build.affine([(one((1, 4)) / 4, wide)], fraction_bits=8)
    left, right = build.product(square, same), build.product(same, other)
    unit = build.affine([(one((1, 1)) / 2, left), (one((1, 1)) / 2, right)], fraction_bits=17)
    last = build.product(unit, unit)
    build.affine([(one((1, 1)), last)], fraction_bits=34)
    public = build.finish(tolerance=2.0**10, honest_extraction_rows=1).public
    assert {square, other} <= Structure.of(public, lazy=True).relinearised
    assert same not in Structure.of(public, lazy=True).relinearised


def test_scales_beyond_doubles_are_no_error() -> None:
    """At a precision far beyond what is needed, which the search tries first."""
    check(make_plan(any_dag(20).public, "same"), 64.0)


def test_deep_programs_come_out_as_this_engine_without_being_asked() -> None:
    deep, shallow = programs.small_deep().public, programs.small_quadratic().public
    for role in ROLES:
        assert choose(deep, role).name == "ckks-deep"
        assert choose(shallow, role).name == "ckks"
    assert "ckks-deep" not in [spec.name for spec in carriers(shallow)]
    assert [spec.name for spec in carriers(deep)] == ["ckks-deep"]


@pytest.mark.parametrize(
    ("program", "words"),
    [
        (programs.with_relu, "ReLU"),
        (programs.with_truncation, "truncation"),
        (programs.small_tables, "bfv"),
        (programs.small_quadratic, "engine ckks"),
    ],
)
def test_what_is_not_carried_is_refused(program: object, words: str) -> None:
    for role in ROLES:
        with pytest.raises(FixProgramError, match=words) as caught:
            make_plan(program().public, role)  # type: ignore[operator]
        assert caught.value.remedy


def test_an_idle_step_and_too_many_squares_are_refused() -> None:
    build = ProgramBuilder(programs.encoder(1, limit=1.0, fraction_bits=1))
    value = build.input
    for _ in range(3):
        value = build.product(value, value)
    build.product(value, value)
    build.affine([(np.ones((1, 1)), value)], fraction_bits=build.fraction_bits(value))
    with pytest.raises(FixProgramError, match="does not contribute"):
        make_plan(build.finish(tolerance=1.0, honest_extraction_rows=1).public, "same")
    build = ProgramBuilder(programs.encoder(1, limit=1.0, fraction_bits=1))
    value = build.input
    for _ in range(7):
        value = build.product(value, value)
    build.affine([(np.ones((1, 1)), value)], fraction_bits=build.fraction_bits(value))
    with pytest.raises(FixProgramError, match="fewer hidden"):
        make_plan(build.finish(tolerance=1.0, honest_extraction_rows=1).public, "same")


@pytest.mark.parametrize("role", ROLES)
def test_remedies_are_the_smallest_that_work(role: Role) -> None:
    public = programs.small_deep(tolerance=1e-30).public
    with pytest.raises(FixProgramError) as caught:
        make_plan(public, role)
    found = re.search(r"2\*\*(\d+) times looser", str(caught.value.remedy))
    assert found, caught.value.remedy
    bits = int(found[1])
    make_plan(dataclasses.replace(public, tolerance=public.tolerance * 2.0**bits), role)
    with pytest.raises(FixProgramError):
        make_plan(dataclasses.replace(public, tolerance=public.tolerance * 2.0 ** (bits - 1)), role)


def test_networks_that_reach_too_far_are_told_of_the_limit() -> None:
    """Weights three times as large: the limit that is named fits when the same network is compiled with it."""
    layers = programs.network_layers((29, 16, 8, 16, 29), 0.8)

    def compiled(limit: float) -> PublicProgram:
        builder = deep_reconstruction_error(programs.encoder(29, limit=limit), layers, typical=20.0)
        return builder.finish(tolerance=0.08, honest_extraction_rows=1, squared_norm=1.0).public

    with pytest.raises(FixProgramError) as caught:
        make_plan(compiled(4.0), "same")
    found = re.search(r"an encoder limit of ([\d.]+) instead of 4", str(caught.value.remedy))
    assert found, caught.value.remedy
    limit = float(found[1])
    check(make_plan(compiled(limit), "same"), 0.08)
    with pytest.raises(FixProgramError):
        make_plan(compiled(2 * limit), "same")


@pytest.mark.parametrize(
    "change",
    [
        {"flood_bits": -1},
        {"hidden_error": 2.0},
        {"ring_dimension": 8192},
        {"special_prime": 65537},
        {"data_primes": ()},
        {"groups": (1,)},
        {"answer_primes": 0},
        {"error_bound": 1e-9},
        {"score_scale": math.inf},
        {"result_bound": 1e30},
    ],
)
def test_a_plan_that_would_leak_or_is_unsound_cannot_be_made(change: dict[str, object]) -> None:
    plan = make_plan(programs.small_deep().public, "same")
    if "flood_bits" in change:
        change = {"flood_bits": plan.flood_bits - 1}
    elif "hidden_error" in change:
        change = {"hidden_error": plan.hidden_error * 2}
    elif "data_primes" in change:
        change = {"data_primes": (*plan.data_primes, *primes.choose(16384, (45, 45)))}  # type: ignore[misc]
    with pytest.raises(FixInputError, match="damaged or foreign"):
        dataclasses.replace(plan, **change)  # type: ignore[arg-type]


def test_every_process_derives_the_same_plan() -> None:
    """From the same public half, bit for bit."""
    public = programs.small_deep().public
    script = (
        "import sys, json\nfrom securead import codec\nfrom securead.program.polynomial import PublicPolynomial\n"
        "from securead.protocols.ckks.deep.plan import make_plan\n"
        "print(make_plan(codec.from_plain(PublicPolynomial, json.load(sys.stdin), where='x'), 'split').digest)"
    )
    run = subprocess.run(
        [sys.executable, "-c", script],
        input=json.dumps(codec.to_plain(public)),
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == make_plan(public, "split").digest


def test_both_tables_know_the_largest_ring() -> None:
    assert (primes.STANDARD_2018[32768], primes.GUIDELINE_2024[32768]) == (881, 868)
    assert primes.modulus_bits_limit(32768) == 868
    for n in (16384, 32768):
        prime = primes.special_prime(n, 20)
        assert prime.bit_length() == 20
        assert primes.is_usable(prime, n)
        assert prime < 1 << 20
