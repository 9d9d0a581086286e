"""Encrypted scores against the integer program: extremes, random circuits, the whole network, real sets."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from deep_setting import ROLES, Party, any_dag, records, small
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score

from securead.checks import programs
from securead.errors import FixInputError, FixProgramError
from securead.program.builder import ProgramBuilder
from securead.protocols.ckks.deep import blind, requests
from securead.protocols.ckks.deep.plan import make_plan
from securead.protocols.engine import Role


@pytest.mark.parametrize("role", ROLES)
def test_error_bound_holds(role: Role) -> None:
    """On normal records and on those at the clipping limit; and the answer is not what an empty one would be."""
    party = small(role)
    Z = records(party.program, 400)
    exact, found = party.exact(Z), party.scores(Z)
    assert np.abs(found - exact).max() <= party.plan.error_bound <= party.program.public.tolerance
    assert np.ptp(exact) > 0.05, "the records count"


@pytest.mark.parametrize("role", ROLES)
def test_the_circuit_alone_errs_by_far_less_than_its_flood(role: Role) -> None:
    """Before masks: what is multiplied, relinearised and rescaled is the program to more than twelve digits."""
    party = small(role)
    Z = records(party.program, 300)
    found = party.slots(party.bare(party.encryptor.encrypt(Z)))[: len(Z)]
    error = np.abs(found - party.exact(Z)).max()
    # Both are doubles.
    assert error <= party.plan.hidden_error + 2.0**-50
    assert error < np.ptp(party.exact(Z)) * 2.0**-40


@pytest.mark.parametrize("seed", [2, pytest.param(0, marks=pytest.mark.long), pytest.param(5, marks=pytest.mark.long)])
def test_random_circuits_run_within_their_bound(seed: int) -> None:
    """Sums of different depths, products of unequal ones, public terms."""
    program = any_dag(seed)
    ran = 0
    for role in ROLES if seed == 0 else ROLES[:1]:
        try:
            party = Party(program, role)
        except FixProgramError:
            continue
        Z = records(program, 50, seed)
        bare = party.slots(party.bare(party.encryptor.encrypt(Z)))[: len(Z)]
        assert np.abs(bare - party.exact(Z)).max() <= party.plan.hidden_error + 2.0**-48
        assert np.abs(party.scores(Z) - party.exact(Z)).max() <= party.plan.error_bound
        ran += 1
    assert ran or seed != 0


def test_a_score_may_be_a_sum_of_two_products() -> None:
    """Of which only one can be summed without storing it."""
    build, one = ProgramBuilder(programs.encoder(2, limit=1.0, fraction_bits=2)), np.ones
    square = build.product(build.input, build.input)
    fourth = build.product(square, square)
    left, right = build.product(fourth, square), build.product(square, fourth)
    bits = build.fraction_bits(left)
    build.affine([(one((1, 2)), left), (2 * one((1, 2)), right)], fraction_bits=bits)
    party = Party(build.finish(tolerance=2.0**10, honest_extraction_rows=1))
    Z = records(party.program, 20)
    bare = party.slots(party.bare(party.encryptor.encrypt(Z)))[: len(Z)]
    assert np.abs(bare - party.exact(Z)).max() <= party.plan.hidden_error + 2.0**-48


def test_the_weights_count() -> None:
    """Two programs that differ in their weights alone score differently, each as it should."""
    one, two = small(seed=0), small(seed=1)
    Z = records(one.program, 40)
    apart = np.abs(one.exact(Z) - two.exact(Z)).max()
    assert apart > 0.1
    for party in (one, two):
        request = party.encryptor.encrypt(Z)
        bare = party.slots(party.bare(request))[: len(Z)]
        assert np.abs(bare - party.exact(Z)).max() < 1e-9 < apart


def test_a_constant_score_and_another_program_are_refused() -> None:
    build = ProgramBuilder(programs.encoder(2, limit=1.0, fraction_bits=2))
    value = build.affine([(np.zeros((2, 2)), build.input)], np.ones(2), fraction_bits=3)
    for _ in range(3):
        value = build.product(value, value)
    build.affine([(np.ones((1, 2)), value)], fraction_bits=build.fraction_bits(value))
    program = build.finish(tolerance=8.0, honest_extraction_rows=1)
    with pytest.raises(FixProgramError, match="does not depend"):
        blind.make_evaluator(make_plan(program.public, "same"), program)
    with pytest.raises(FixInputError, match="another program"):
        blind.make_evaluator(small(seed=1).plan, small(seed=0).program)


@pytest.mark.parametrize("role", ROLES)
def test_sizes_are_exactly_what_the_plan_says(role: Role) -> None:
    party = small(role)
    request = party.encryptor.encrypt(records(party.program, 8))
    assert len(request) == party.plan.max_request_bytes
    assert len(party.evaluator.evaluate(request, party.key)) == party.plan.max_answer_bytes
    assert len(party.public.to_bytes()) == party.plan.evaluation_key_bytes
    columns = requests.columns(party.plan, request)
    assert columns.shape == (len(party.plan.data_primes), party.plan.columns, 2, party.plan.ring_dimension)
    assert party.key.digits.nbytes + columns.itemsize * columns.shape[-1] * (len(party.plan.chain)) == (
        party.plan.held_key_bytes
    )


def test_stages_add_up() -> None:
    party = small()
    request = party.encryptor.encrypt(records(party.program, 8))
    before = party.evaluator.stages
    party.evaluator.evaluate(request, party.key)
    after = party.evaluator.stages
    assert list(after) == ["parse", "linear", "products", "relinearise", "rescale", "sanitise", "pack"]
    assert all(after[name] > before[name] for name in after)


@pytest.mark.long
@pytest.mark.parametrize("role", ROLES)
def test_the_whole_network(role: Role) -> None:
    """29-16-8-16-29 on a full chunk: ranks as they are, and a request's worth of bytes as it is stated."""
    party = Party(programs.deep_autoencoder(), role)
    Z = records(party.program, party.plan.rows_per_chunk)
    some = slice(3900, 4300)
    exact, found = party.exact(Z[some]), party.scores(Z)[some]
    assert np.abs(found - exact).max() <= party.plan.error_bound
    assert spearmanr(found, exact).statistic > 0.999
    if role == "same":
        assert party.plan.max_request_bytes / len(Z) < 5200


@pytest.mark.long
@pytest.mark.data
def test_deeper_networks_rank_real_records_as_their_detectors_do(data_folder: Path) -> None:
    from securead.data.partition import hold_out
    from securead.data.readers import read_table
    from securead.data.schema import Schema
    from securead.federated.embedded import train
    from securead.federated.participant import Site
    from securead.models.autoencoder import AutoEncoder

    table = read_table(data_folder / "6_cardio.npz")
    assert table.y is not None
    fit_rows, held = hold_out(len(table.X), table.y, 0.3, seed=0)
    detector = AutoEncoder(units="square", hidden=(16, 8, 16), rounds=3, limit=2.0, weight_limit=0.15)
    train(detector, [Site("one", table.X[fit_rows])], Schema.observed(table.X, widen=0.2), privacy=None)
    party = Party(detector.compile(), "same")
    Z, _ = party.program.public.encoder.encode(table.X[held])
    found = party.scores(Z) + party.program.public.decode(party.program.public.public_term(Z))
    clear, y = detector.anomaly_score(table.X[held]), table.y[held]
    assert abs(roc_auc_score(y, found) - roc_auc_score(y, clear)) <= 0.002
    assert spearmanr(found, clear).statistic > 0.999
