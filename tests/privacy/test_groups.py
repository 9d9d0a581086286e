"""What a group of records is promised: exact for Gaussians, sound for DP-SGD, beside independent bounds."""

from __future__ import annotations

import math
from collections.abc import Callable

import dp_accounting
import numpy as np
import pytest
from dp_accounting import rdp
from scipy import stats

from securead.privacy.budget import Budget
from securead.privacy.groups import binomial, epsilon_of_groups, gaussian_epsilon
from securead.privacy.plan import Terms, epsilon_of, event_of

DELTA = 1e-5


@pytest.mark.parametrize("multiplier", [0.5, 1.0, 4.0, 30.0])
def test_one_gaussian_release_is_exact(multiplier: float) -> None:
    assert gaussian_epsilon(1 / multiplier, DELTA) == pytest.approx(epsilon_of([(multiplier, 1.0, 1)], DELTA), rel=1e-3)


@pytest.mark.parametrize("size", [2, 10])
def test_k_records_of_a_gaussian_release_are_k_sensitivities(size: int) -> None:
    ours = epsilon_of_groups([((8.0, 1.0, 3), size), ((20.0, 1.0, 1), size)], DELTA)
    whole = math.sqrt(3 / 8.0**2 + 1 / 20.0**2) * size
    accountant = rdp.RdpAccountant()
    accountant.compose(dp_accounting.GaussianDpEvent(1 / whole))
    assert ours == pytest.approx(epsilon_of([(1 / whole, 1.0, 1)], DELTA), rel=1e-3)
    assert ours < accountant.get_epsilon(DELTA) < 1.3 * ours


def test_a_group_of_one_is_a_record() -> None:
    terms: list[Terms] = [(1.0, 0.05, 50), (6.0, 1.0, 1)]
    assert epsilon_of_groups([(one, 1) for one in terms], DELTA) == epsilon_of(terms, DELTA)
    # The mixture of Gaussians of a group of one is dp_accounting's Poisson-sampled Gaussian.
    from securead.privacy import groups

    mixed = groups._composed(1 / 36, ((1.0, 0.05, 1, 50),), DELTA)
    assert mixed == pytest.approx(epsilon_of(terms, DELTA), rel=0.02)


@pytest.mark.parametrize("size", [2, 5])
def test_dp_sgd_lies_between_what_surely_holds_and_what_surely_leaks(size: int) -> None:
    multiplier, prob, steps = 2.0, 0.02, 100
    ours = epsilon_of_groups([((multiplier, prob, steps), size)], DELTA)
    # Above: all k join or none does. With probability 1 - (1 - q)^k some join, and then at most k of them.
    coarse = epsilon_of([(multiplier / size, 1 - (1 - prob) ** size, steps)], DELTA)
    # Below: one of them alone, and k of them that always join with the mean shift k q (Jensen).
    assert epsilon_of([(multiplier, prob, steps)], DELTA) < ours < coarse
    assert ours < gaussian_epsilon(size * math.sqrt(steps) / multiplier, DELTA)
    assert ours > gaussian_epsilon(size * prob * math.sqrt(steps) / multiplier, DELTA)


def test_the_generic_lemma_lies_above() -> None:
    """Group privacy of Vadhan (2017), lemma 2.2: (k epsilon, k exp((k - 1) epsilon) delta)."""
    terms, size = (3.0, 0.05, 60), 3
    delta_of = _deltas_of(terms)
    single = next(e for e in np.arange(0.1, 5, 0.01) if delta_of(e) * size * math.exp((size - 1) * e) <= DELTA)
    assert epsilon_of_groups([(terms, size)], DELTA) < size * single


def _deltas_of(terms: Terms) -> Callable[[float], float]:
    accountant = dp_accounting.pld.PLDAccountant()
    accountant.compose(event_of(terms))
    return lambda epsilon: float(accountant.get_delta(epsilon))


@pytest.mark.parametrize(("multiplier", "prob", "size"), [(1.0, 0.2, 4), (0.7, 0.1, 3)])
def test_one_step_is_the_hockey_stick_of_its_mixture(multiplier: float, prob: float, size: int) -> None:
    """Against a numerical integral, in both directions, of the divergence that the source says is tight."""
    ours = epsilon_of_groups([((multiplier, prob, 1), size)], DELTA)
    x = np.linspace(-12 * multiplier, size + 12 * multiplier, 400_001)
    mixture = stats.binom.pmf(np.arange(size + 1), size, prob) @ stats.norm.pdf(
        x, np.arange(size + 1)[:, None], multiplier
    )
    plain = stats.norm.pdf(x, 0, multiplier)

    def delta(epsilon: float) -> float:
        above = np.maximum(mixture - math.exp(epsilon) * plain, 0)
        below = np.maximum(plain - math.exp(epsilon) * mixture, 0)
        return float(max(above.sum(), below.sum()) * (x[1] - x[0]))

    assert delta(ours) <= DELTA
    assert delta(ours * 0.97 - 0.02) > DELTA


def test_binomial() -> None:
    np.testing.assert_allclose(binomial(10, 0.05), stats.binom.pmf(np.arange(11), 10, 0.05), rtol=1e-12)


def test_more_of_anything_costs_more_and_little_noise_still_has_a_number() -> None:
    base = epsilon_of_groups([((1.0, 0.05, 40), 4)], DELTA)
    assert base < epsilon_of_groups([((1.0, 0.05, 40), 5)], DELTA)
    assert base < epsilon_of_groups([((1.0, 0.05, 80), 4)], DELTA)
    assert base < epsilon_of_groups([((1.0, 0.05, 40), 4), ((5.0, 1.0, 1), 4)], DELTA)
    assert 1000 < epsilon_of_groups([((0.3, 0.1, 100), 10)], DELTA) < math.inf


def test_the_ledger_tells_both_units() -> None:
    budget = Budget("a", 4.0, DELTA)
    event = dp_accounting.GaussianDpEvent(4.0)
    budget.charge(event, job="j", purpose="p", windows_per_reading=3)
    assert budget.spent() == pytest.approx(epsilon_of([(4.0, 1.0, 1)], DELTA))
    assert budget.spent_per_reading() == pytest.approx(epsilon_of([(4.0 / 3, 1.0, 1)], DELTA), rel=1e-3)
    budget.charge(event, job="j", purpose="single records")
    mixed = 1 / math.sqrt((3 / 4) ** 2 + (1 / 4) ** 2)
    assert budget.spent_per_reading() == pytest.approx(epsilon_of([(mixed, 1.0, 1)], DELTA), rel=1e-3)
