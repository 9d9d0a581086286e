"""Plans: what fits is planned alike everywhere, what does not is refused with the change that helps."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from securead import codec
from securead.checks import programs
from securead.errors import FixConfigurationError, FixInputError, FixProgramError
from securead.program.builder import ProgramBuilder
from securead.protocols import choice
from securead.protocols.sharing.correlations import BinaryTriple, MatrixTriple, SquarePair, Triple, broadcast
from securead.protocols.sharing.plan import ENGINE, SharingPlan, make_plan, plan_from_plain

CARRIED = {
    "quadratic": programs.small_quadratic,
    "ReLU": programs.with_relu,
    "truncation": programs.with_truncation,
    "ReLU network": programs.relu_network,
    "square network": programs.square_network,
    "Mahalanobis": programs.ring_mahalanobis,
    "trees": programs.small_tables,
    "histogram": programs.histogram,
}


@pytest.mark.parametrize("name", CARRIED)
def test_a_plan_is_a_value(name: str) -> None:
    public = CARRIED[name]().public
    plan = make_plan(public, "same")
    again = plan_from_plain(json.loads(json.dumps(codec.to_plain(plan))))
    assert again == plan == make_plan(public, "same")
    assert again.digest == plan.digest
    assert plan.error_bound <= public.tolerance
    assert plan.describe()
    assert plan.buckets[-1] == plan.rows_per_chunk


@pytest.mark.parametrize("name", CARRIED)
@pytest.mark.parametrize("verdict", [False, True])
def test_correlations_follow_the_bucket_and_rounds_do_not(name: str, verdict: bool) -> None:
    plan = make_plan(CARRIED[name]().public, "same")
    assert plan.correlations(3, verdict) == plan.correlations(4, verdict) != plan.correlations(5, verdict)
    assert {len(plan.correlations(rows, verdict)) for rows in plan.buckets} == {plan.rounds(verdict)}
    assert plan.online_bytes(8, verdict) > plan.online_bytes(4, verdict)
    for each in plan.correlations(2, verdict):
        if isinstance(each, Triple | BinaryTriple):
            assert each.result == np.broadcast_shapes(each.left, each.right)


def test_one_round_for_tables_and_few_for_networks() -> None:
    assert make_plan(programs.forest(100, 8).public, "same").rounds(False) == 1
    assert make_plan(programs.square_network().public, "same").rounds(False) == 9
    assert make_plan(programs.relu_network().public, "same").rounds(False) == 30


def test_rows_are_rounded_up_to_buckets() -> None:
    plan = make_plan(programs.with_relu().public, "same")
    assert [plan.bucket(rows) for rows in (1, 2, 3, 5, 4097, 8192)] == [1, 2, 4, 8, 8192, 8192]
    for rows in (0, -1, 8193):
        with pytest.raises(FixInputError):
            plan.bucket(rows)


def test_wide_tables_have_small_chunks() -> None:
    plan = make_plan(programs.forest(100, 8).public, "same")
    assert plan.rows_per_chunk == 128
    assert plan.max_request_bytes <= 32 << 20


@pytest.mark.parametrize("make", [programs.mahalanobis, programs.autoencoder])
def test_scores_beyond_the_ring_are_refused(make: object) -> None:
    with pytest.raises(FixProgramError, match=r"room for 62.*compile\(ring_bits=62\).*fewer"):
        make_plan(make().public, "same")  # type: ignore[operator]


def _truncated(bits: int, tolerance: float = 1e-2) -> object:
    build = ProgramBuilder(programs.encoder(2, limit=4.0, fraction_bits=8))
    wide = build.affine([(np.ones((1, 2)), build.input)], fraction_bits=bits)
    build.affine([(np.ones((1, 1)), build.truncate(wide, bits - 12))], fraction_bits=12)
    return build.finish(tolerance=tolerance, honest_extraction_rows=1).public


def test_what_truncations_cost_is_refused_beyond_its_limits() -> None:
    assert make_plan(_truncated(40), "same").failure_probability < 2**-18
    with pytest.raises(FixProgramError, match=r"too often.*fewer fraction bits"):
        make_plan(_truncated(56), "same")
    with pytest.raises(FixProgramError, match=r"step 2 works on needs 66 bits"):
        make_plan(_truncated(63), "same")
    with pytest.raises(FixProgramError, match=r"more than the program's tolerance"):
        make_plan(_truncated(40, tolerance=1e-4), "same")


def test_there_is_one_role() -> None:
    with pytest.raises(FixProgramError, match="no role but same"):
        make_plan(programs.with_relu().public, "split")


def test_a_damaged_plan_is_refused() -> None:
    plain = json.loads(json.dumps(codec.to_plain(make_plan(programs.with_truncation().public, "same"))))
    damaged = ({"steps": []}, {"sizes": [4]}, {"score_bits": 63}, {"rows_per_chunk": 3}, {"rows_per_chunk": 16384})
    for change in (*damaged, {"role": "split"}, {"error_bound": -1.0}):
        with pytest.raises(FixInputError):
            plan_from_plain({**plain, **change})


def test_no_scoring_service_chooses_it() -> None:
    public = programs.with_relu().public
    assert choice.carriers(public) == ()
    assert choice.carriers(public, parties=2) == (ENGINE,)
    with pytest.raises(FixProgramError, match="Two parties that do not collude can: serve it by sharing"):
        choice.choose(public, "same")
    with pytest.raises(FixConfigurationError, match=r"2 parties.*securead score --engine sharing"):
        choice.choose(programs.small_quadratic().public, "same", engine="sharing")
    assert choice.choose(programs.small_quadratic().public, "same").parties == 1


def test_the_shapes_of_a_small_program() -> None:
    plan = make_plan(programs.small_quadratic().public, "same")
    assert plan.correlations(3, False) == (
        MatrixTriple((4, 4), (4, 3)),
        SquarePair((4, 3)),
        MatrixTriple((4, 3), (3, 1)),
    )
    assert plan.online_bytes(3, False) == 8 * (16 + 12 + 12 + 12 + 3)
    assert plan.offline_bytes(3, False) == 8 * (12 + 12 + 4)
    assert broadcast((5,), (2, 5)) == (2, 5)
    assert dataclasses.replace(plan, rows_per_chunk=16).digest != plan.digest
    assert isinstance(plan, SharingPlan)
