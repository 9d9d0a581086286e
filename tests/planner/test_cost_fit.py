"""The fit: known costs come back, none is negative, and what was not measured is not predicted."""

from __future__ import annotations

import numpy as np
import pytest

from securead.errors import FixInputError
from securead.planner.fit import Observation, amounts_of, fit
from securead.protocols.engine import PHASES, Work

TRUE = {"request": 2e-3, "words": 3e-8, "rows": 4e-6}


def observation(words: float, rows: float, factor: float = 1.0, *, engine: str = "e") -> Observation:
    amounts = {"request": 1.0, "words": words, "rows": rows}
    seconds = factor * sum(TRUE[name] * amount for name, amount in amounts.items())
    work = Work(client=amounts, server={"request": 1}, holder={})
    return Observation(engine, "made up", amounts_of(work), {"client": seconds, "server": 0.5, "holder": 0.0})


def observations(noise: float, *, count: int = 12, seed: int = 0) -> list[Observation]:
    rng = np.random.default_rng(seed)
    return [
        observation(10 ** rng.uniform(4, 7), 10 ** rng.uniform(0, 4), float(rng.uniform(1 - noise, 1 + noise)))
        for _ in range(count)
    ]


def test_exact_measurements_give_the_costs_back() -> None:
    costs = fit("e", observations(0.0))
    for name, seconds in TRUE.items():
        assert costs.seconds("client", {name: 1.0}) == pytest.approx(seconds, rel=0.02)
    assert costs.seconds("server", {"request": 1}) == pytest.approx(0.5, rel=1e-3)
    assert costs.error < 2e-3
    assert costs.measurements == 12


@pytest.mark.parametrize("seed", range(5))
def test_small_requests_are_predicted_as_well_as_large_ones(seed: int) -> None:
    costs = fit("e", observations(0.1, count=24, seed=seed))
    for words, rows in ((1e4, 1), (1e7, 1), (1e4, 1e4), (1e7, 1e4)):
        exact = observation(words, rows)
        found = costs.seconds("client", exact.work["client"])
        assert found == pytest.approx(exact.seconds["client"], rel=0.15)


def test_no_cost_is_negative_however_odd_the_measurements() -> None:
    rng = np.random.default_rng(3)
    odd = [observation(10 ** rng.uniform(4, 7), 10 ** rng.uniform(0, 4), float(rng.uniform(0.1, 9))) for _ in range(9)]
    assert all(cost.seconds >= 0 for cost in fit("e", odd).costs)


def test_what_was_never_measured_is_not_predicted() -> None:
    costs = fit("e", observations(0.0))
    assert costs.seconds("client", {"request": 1, "something else": 1}) is None
    assert costs.seconds("client", {"request": 1, "something else": 0}) == pytest.approx(TRUE["request"], rel=0.02)
    assert costs.seconds("holder", {}) == 0


def test_kinds_of_work_that_are_not_told_apart_share_the_time() -> None:
    """Always as many of both: neither gets all of it, and together they are right."""
    twins = [
        Observation("e", "made up", {**amounts_of(Work({"a": n, "b": n}, {}, {}))}, {"client": 1e-3 * n})
        for n in (1.0, 2.0, 5.0)
    ]
    costs = fit("e", twins)
    a, b = (costs.seconds("client", {name: 1.0}) for name in "ab")
    assert a == pytest.approx(5e-4, rel=1e-2)
    assert b == pytest.approx(5e-4, rel=1e-2)


def test_only_the_engines_own_measurements_count() -> None:
    assert fit("e", [*observations(0.0), observation(1e9, 1, 50.0, engine="other")]).measurements == 12
    with pytest.raises(FixInputError, match="nothing of the engine 'third'"):
        fit("third", observations(0.0))


def test_work_is_finite_not_negative_and_cannot_be_changed() -> None:
    work = Work(client={"a": 1}, server={}, holder={})
    assert {phase: dict(work.of(phase)) for phase in PHASES} == amounts_of(work)
    with pytest.raises(TypeError):
        work.client["a"] = 2  # type: ignore[index]
    for amount in (-1.0, float("inf"), float("nan")):
        with pytest.raises(ValueError, match="finite"):
            Work(client={"a": amount}, server={}, holder={})
