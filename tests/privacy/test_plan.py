"""Calibration and accounting: against closed forms, against an independent accountant, and their refusals."""

from __future__ import annotations

import math

import dp_accounting
import pytest
from dp_accounting import rdp
from scipy import optimize, stats

from securead.errors import FixConfigurationError, PrivacyRefusedError
from securead.privacy.plan import PrivacyPlan, Stage, epsilon_of, terms_of


def exact_gaussian_epsilon(noise_multiplier: float, delta: float) -> float:
    """Balle and Wang (2018): the exact curve of one Gaussian release."""

    def excess(epsilon: float) -> float:
        a, b = 0.5 / noise_multiplier, epsilon * noise_multiplier
        return float(stats.norm.cdf(a - b) - math.exp(epsilon) * stats.norm.cdf(-a - b)) - delta

    return float(optimize.brentq(excess, 0, 100))


@pytest.mark.parametrize("noise_multiplier", [0.7, 2.0, 4.2, 15.0])
@pytest.mark.parametrize("delta", [1e-5, 1e-8])
def test_epsilon_of_a_gaussian_is_the_exact_one(noise_multiplier: float, delta: float) -> None:
    exact = exact_gaussian_epsilon(noise_multiplier, delta)
    ours = epsilon_of([(noise_multiplier, 1.0, 1)], delta)
    # Pessimistic, because losses are rounded up and a thousandth of delta is kept back, but hardly.
    assert exact <= ours <= exact * 1.002 + 2e-3


def test_stages_compose_to_the_plan_and_no_more() -> None:
    plan = PrivacyPlan(epsilon=1.0, delta=1e-6)
    multipliers = plan.noise_multipliers({"scaling": Stage(0.2), "moments": Stage(0.7), "threshold": Stage(0.1)})
    combined = 1 / math.sqrt(sum(m**-2 for m in multipliers.values()))
    assert 0.995 < exact_gaussian_epsilon(combined, 1e-6) <= 1.0
    # A stage with a larger share gets less noise, in proportion to the root.
    assert multipliers["scaling"] / multipliers["moments"] == pytest.approx(math.sqrt(0.7 / 0.2))
    assert list(multipliers) == ["scaling", "moments", "threshold"]


def test_renyi_accounting_agrees_from_above() -> None:
    events = dp_accounting.ComposedDpEvent([dp_accounting.GaussianDpEvent(m) for m in (3.0, 5.0, 9.0)])
    accountant = rdp.RdpAccountant()
    accountant.compose(events)
    ours = epsilon_of([(m, 1.0, 1) for m in (3.0, 5.0, 9.0)], 1e-6)
    assert ours <= accountant.get_epsilon(1e-6) <= 1.25 * ours


def test_unknown_mechanism_is_refused() -> None:
    with pytest.raises(PrivacyRefusedError, match="does not know"):
        terms_of(dp_accounting.UnsupportedDpEvent())


@pytest.mark.parametrize(
    ("epsilon", "delta", "source", "seed"),
    [
        (0.0, 1e-6, "system", None),
        (-1.0, 1e-6, "system", None),
        (float("inf"), 1e-6, "system", None),
        (float("nan"), 1e-6, "system", None),
        (1.0, 0.0, "system", None),
        (1.0, 0.5, "system", None),
        (1.0, 1e-6, "system", 3),
        (1.0, 1e-6, "seeded-study", None),
    ],
)
def test_plans_that_promise_nothing_are_refused(epsilon: float, delta: float, source: str, seed: int | None) -> None:
    with pytest.raises(FixConfigurationError):
        PrivacyPlan(epsilon, delta, source, seed)  # type: ignore[arg-type]
