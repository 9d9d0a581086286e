"""Parameters: the tables, the inequalities, stability, refusals with remedies that work."""

from __future__ import annotations

import dataclasses
import json
import math
import re
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from securead import codec
from securead.checks import programs
from securead.errors import FixInputError, FixProgramError
from securead.program.builder import ProgramBuilder
from securead.program.polynomial import PublicPolynomial
from securead.program.program import Program
from securead.protocols.ckks.noise import flood_bits, mask_bound
from securead.protocols.ckks.plan import CkksPlan, make_plan, plan_from_plain
from securead.protocols.seal import primes


@st.composite
def small_programs(draw: st.DrawFn) -> Program:
    """Random programs of degree up to 4 in which every step contributes: each step builds on the one before."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    width = draw(st.integers(1, 4))
    limit, bits = draw(st.sampled_from([1.0, 4.0, 8.0])), draw(st.integers(2, 14))
    build = ProgramBuilder(programs.encoder(width, limit=limit, fraction_bits=bits))
    steps, degrees = [build.input], [1]
    for _ in range(draw(st.integers(1, 4))):
        other = draw(st.integers(0, len(steps) - 1))
        if draw(st.booleans()) and degrees[-1] + degrees[other] <= 4:
            steps.append(build.product(steps[-1], steps[other]))
            degrees.append(degrees[-1] + degrees[other])
        else:
            terms = [(rng.normal(size=(width, width)), step) for step in sorted({steps[-1], steps[other]})]
            fraction = max(build.fraction_bits(step) for _, step in terms) + draw(st.integers(1, 10))
            steps.append(build.affine(terms, rng.normal(size=width), fraction_bits=fraction))
            degrees.append(max(degrees[-1], degrees[other]))
    fraction = build.fraction_bits(steps[-1]) + draw(st.integers(0, 4))
    build.affine([(rng.normal(size=(1, width)), steps[-1])], fraction_bits=fraction)
    squared_norm = 1.0 if fraction >= 2 * bits and draw(st.booleans()) else None
    tolerance = draw(st.sampled_from([1e-4, 1e-2, 1.0]))
    return build.finish(tolerance=tolerance, honest_extraction_rows=1, squared_norm=squared_norm)


@settings(max_examples=60)
@given(small_programs(), st.sampled_from(["same", "split"]))
def test_plans_satisfy_their_inequalities(program: Program, role: str) -> None:
    try:
        plan = make_plan(program.public, role)
    except FixProgramError:
        return
    assert plan.error_bound <= program.public.tolerance
    chain = (*plan.data_primes, plan.special_prime)
    assert len(set(chain)) == len(chain)
    assert all(primes.is_usable(p, plan.ring_dimension) for p in chain)
    bits = math.prod(chain).bit_length()
    assert bits == plan.modulus_bits
    assert bits <= primes.STANDARD_2018[plan.ring_dimension]
    assert bits <= primes.GUIDELINE_2024[plan.ring_dimension]
    modulus = math.prod(plan.data_primes[: plan.answer_primes])
    assert 2 * plan.result_bound * plan.answer_scale <= modulus
    assert plan.answer_size == program.public.degree + 1
    assert plan_from_plain(json.loads(json.dumps(codec.to_plain(plan)))) == plan


@settings(max_examples=12)
@given(small_programs(), st.sampled_from(["same", "split"]))
def test_random_programs_run_within_their_bound(program: Program, role: str) -> None:
    from securead.protocols.ckks import blind, owner

    try:
        plan = make_plan(program.public, role)
        evaluator = blind.make_evaluator(plan, program)
    except FixProgramError:
        return
    bound, width = program.public.encoder.bound, program.public.encoder.width
    Z = np.random.default_rng(0).integers(-bound, bound + 1, size=(64, width))
    Z[0], Z[1] = bound, -bound
    secret, public = owner.generate_keys(plan)
    request = owner.make_encryptor(plan, secret if role == "same" else public).encrypt(Z)
    answer = evaluator.evaluate(request, blind.read_evaluation_key(plan, public.to_bytes()))
    exact = program.evaluate(Z) - (program.public.public_term(Z) if role == "same" else 0)
    scores = owner.make_decryptor(plan, secret).decrypt(answer, len(Z))
    assert np.abs(scores - program.public.decode(exact)).max() <= plan.error_bound


@pytest.mark.parametrize("ring_dimension", primes.RING_DIMENSIONS)
def test_security_tables_agree_with_seal(ring_dimension: int) -> None:
    seal = pytest.importorskip("tenseal.sealapi")
    level = seal.SEC_LEVEL_TYPE.TC128
    assert primes.STANDARD_2018[ring_dimension] == seal.CoeffModulus.MaxBitCount(ring_dimension, level)
    assert primes.modulus_bits_limit(ring_dimension) <= primes.GUIDELINE_2024[ring_dimension]


def test_a_plan_beyond_the_tables_cannot_be_made() -> None:
    plan = make_plan(programs.small_quadratic().public, "same")
    wide = primes.choose(plan.ring_dimension, (60, 60))
    assert wide is not None
    for change in (
        {"data_primes": (*wide, *plan.data_primes)},
        {"data_primes": (plan.data_primes[0],) * 2},
        {"data_primes": (plan.data_primes[0] + 2 * plan.ring_dimension,)},
        {"ring_dimension": 2048},
        {"special_prime": 97},
        {"error_bound": 0.0},
        {"answer_primes": len(plan.data_primes) + 1},
        {"flood_bits": plan.flood_bits - 1},
        {"flood_bits": plan.flood_bits + 40},
        {"full_flood": True},
        {"spread": 0.0},
        {"spread": 2 * plan.error_bound},
        {"excess_bits": plan.excess_bits + 60},
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
        "import json, sys; from securead.protocols.ckks.plan import plan_from_plain;"
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


def test_chosen_parameters_of_the_shared_programs() -> None:
    def shape(plan: CkksPlan) -> tuple[int, int, int]:
        return plan.ring_dimension, len(plan.data_primes), plan.answer_primes

    assert shape(make_plan(programs.mahalanobis().public, "same")) == (8192, 4, 2)
    assert shape(make_plan(programs.mahalanobis().public, "split")) == (8192, 4, 2)
    assert shape(make_plan(programs.autoencoder().public, "same")) == (8192, 5, 2)


@pytest.mark.parametrize("ring_dimension", primes.RING_DIMENSIONS)
@pytest.mark.parametrize("degree", [1, 2, 3, 4])
def test_the_flood_covers_the_masks_by_forty_bits(ring_dimension: int, degree: int) -> None:
    """Against the worst case worked out in rationals: every coefficient of s is 1 or -1, every error at its limit."""
    worst = 21 * (2 * ring_dimension + 1) * sum(ring_dimension**j for j in range(degree))
    assert worst == mask_bound(ring_dimension, degree)
    flood = 1 << flood_bits(ring_dimension, worst)
    assert Fraction(worst * ring_dimension, 2 * flood) <= Fraction(1, 2**40) < Fraction(worst * ring_dimension, flood)


@pytest.mark.parametrize("role", ["same", "split"])
def test_a_relu_and_degree_eight_are_refused(role: str) -> None:
    with pytest.raises(FixProgramError, match="secret sharing"):
        make_plan(programs.with_relu().public, role)
    with pytest.raises(FixProgramError, match="degree"):
        make_plan(programs.of_degree_eight().public, role)


def test_a_step_without_effect_is_refused() -> None:
    build = ProgramBuilder(programs.encoder(2))
    build.product(build.input, build.input)
    build.affine([(np.ones((1, 2)), build.input)], fraction_bits=14)
    with pytest.raises(FixProgramError, match="does not contribute"):
        make_plan(build.finish(tolerance=1.0, honest_extraction_rows=1).public, "same")


def test_the_remedy_works() -> None:
    program = programs.autoencoder(8, 4, tolerance=1e-9)
    with pytest.raises(FixProgramError) as caught:
        make_plan(program.public, "same")
    factor = re.search(r"\(2\*\*(\d+) times looser\)", caught.value.remedy)
    assert factor is not None
    bits = int(factor[1])
    make_plan(dataclasses.replace(program.public, tolerance=1e-9 * 2.0**bits), "same")
    with pytest.raises(FixProgramError):
        make_plan(dataclasses.replace(program.public, tolerance=1e-9 * 2.0 ** (bits - 1)), "same")


def test_fewer_weight_bits_are_suggested_where_they_help() -> None:
    build = ProgramBuilder(programs.encoder(4, fraction_bits=14))
    value, bits = build.input, 14
    for _ in range(2):
        bits += 46
        layer = build.affine([(np.eye(4), value)], fraction_bits=bits)
        value, bits = build.product(layer, layer), 2 * bits
    build.affine([(np.ones((1, 4)), value)], fraction_bits=bits + 46)
    program = build.finish(tolerance=1e-2, honest_extraction_rows=1)
    with pytest.raises(FixProgramError) as caught:
        make_plan(program.public, "same")
    assert "fraction bit" in caught.value.remedy


def test_describe_reads_well() -> None:
    text = dict(make_plan(programs.mahalanobis().public, "same").describe())
    assert "40 above" in text["flooding"]
    assert "128 bits" in text["security"]
    full = dict(make_plan(programs.mahalanobis().public, "same", full_flood=True).describe())
    assert "encryption errors included" in full["flooding"]
    assert "slightly noisy" in text["reveals"]
    assert "slightly noisy" not in full["reveals"]


@pytest.mark.parametrize("role", ["same", "split"])
@pytest.mark.parametrize("degree", [1, 2])
def test_a_full_flood_covers_masks_and_encryption_errors_by_forty_bits(role: str, degree: int) -> None:
    program = programs.small_quadratic() if degree == 2 else linear()
    plan, bare = (make_plan(program.public, role, full_flood=full) for full in (True, False))
    assert (plan.full_flood, bare.full_flood, plan.degree) == (True, False, degree)
    hidden = Fraction(plan.spread) * 2**plan.score_scale_bits + mask_bound(plan.ring_dimension, degree)
    assert hidden <= plan.hidden < hidden + 2
    assert hidden * plan.ring_dimension / (2 << plan.flood_bits) <= Fraction(1, 2**40)
    assert bare.hidden == mask_bound(bare.ring_dimension, degree)
    assert plan.error_bound <= program.public.tolerance
    assert plan.digest != bare.digest
    assert plan_from_plain(json.loads(json.dumps(codec.to_plain(plan)))) == plan
    with pytest.raises(FixInputError, match="leak"):
        dataclasses.replace(plan, flood_bits=plan.flood_bits - 1)
    with pytest.raises(FixInputError, match="leak"):
        dataclasses.replace(plan, spread=4 * plan.spread)


def test_a_full_flood_that_does_not_fit_is_refused_with_what_does() -> None:
    public = programs.autoencoder(8, 4).public
    with pytest.raises(FixProgramError, match="the flood over masks alone"):
        make_plan(public, "same", full_flood=True)
    assert make_plan(public, "same").degree == 4


def test_full_floods_are_those_of_the_vectors() -> None:
    path = Path(__file__).resolve().parents[3] / "protocols" / "ckks" / "vectors.json"
    fits = 0
    for case in json.loads(path.read_text(encoding="utf-8"))["programs"]:
        public = codec.from_plain(PublicPolynomial, case["public"], where=case["name"])
        for role, expected in zip(("same", "split"), case["full_floods"], strict=True):
            if expected is None:
                with pytest.raises(FixProgramError):
                    make_plan(public, role, full_flood=True)
            else:
                assert codec.to_plain(make_plan(public, role, full_flood=True)) == expected
                fits += 1
    assert fits == 7  # of degree 2 all, of degree 4 one


def linear() -> Program:
    build = ProgramBuilder(programs.encoder(3))
    build.affine([(np.array([[0.5, -1.0, 2.0]]), build.input)], np.array([1.0]), fraction_bits=20)
    return build.finish(tolerance=1e-3, honest_extraction_rows=4)
