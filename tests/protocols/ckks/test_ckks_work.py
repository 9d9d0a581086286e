"""What requests under CKKS are said to cost, beside the circuits that compute them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from securead.checks import programs
from securead.program.polynomial import PublicPolynomial, SecretPolynomial
from securead.program.program import Program
from securead.protocols.ckks.circuit import Circuit
from securead.protocols.ckks.plan import make_plan, work
from securead.protocols.ckks.stages import Stages


@pytest.mark.parametrize(
    "make",
    [programs.autoencoder, programs.mahalanobis, programs.small_quadratic, lambda: programs.autoencoder(64, 20)],
    ids=["autoencoder", "mahalanobis", "small", "wide"],
)
def test_multiplications_are_near_those_of_the_compiled_maps(make: Callable[[], Program]) -> None:
    """Digits of weights are known from public bounds only, hence not to the last one."""
    program = make()
    public, secret = program.public, program.secret
    assert isinstance(public, PublicPolynomial)
    assert isinstance(secret, SecretPolynomial)
    plan = make_plan(public, "same")
    compiled = 0
    for prime in plan.data_primes:
        for source, stacks in Circuit(plan, public, secret, prime, Stages())._stacks.items():
            polynomials = plan.steps[source].degree + 1
            compiled += sum(stack.layer.multiplications for stack in stacks) * polynomials * plan.ring_dimension
    assert work(plan, public, 1).server["weighted"] == pytest.approx(compiled, rel=0.5)


def test_any_number_of_records_costs_a_chunk() -> None:
    public = programs.small_quadratic().public
    plan = make_plan(public, "split")
    assert work(plan, public, 1) == work(plan, public, plan.rows_per_chunk)


def test_weights_of_any_size_are_counted() -> None:
    """Bounds beyond a prime are as good as the prime: what is computed is modulo it."""
    from securead.protocols.ckks.work import _digits

    assert _digits(40, 1024, 29) == _digits(40, 60, 29)
    assert _digits(33, 8, 29) == 1
    assert _digits(50, 20, 29) == 2
