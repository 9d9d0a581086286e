"""The budget: checks first, mutates second, survives a crash, refuses what it does not know."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dp_accounting
import pytest

from securead.errors import FixConfigurationError, FixInputError, PrivacyRefusedError, RetryLaterError
from securead.privacy.budget import Budget

EVENT = dp_accounting.GaussianDpEvent(10.0)  # epsilon .37 at delta 1e-6


def test_charges_add_up_and_the_limit_holds() -> None:
    budget = Budget("bank", 0.6, 1e-6)
    assert budget.spent() == 0.0
    budget.charge(EVENT, job="j", purpose="first")
    once = budget.spent()
    budget.charge(EVENT, job="j", purpose="second")
    assert once < budget.spent() < 2 * once
    before = budget.ledger
    with pytest.raises(PrivacyRefusedError, match=r"'third'.*'bank'"):
        budget.charge(EVENT, job="j", purpose="third")
    assert budget.ledger is before


def test_ledger_outlives_the_job(tmp_path: Path) -> None:
    path = tmp_path / "ledger.json"
    Budget("bank", 0.6, 1e-6, path=path).charge(EVENT, job="one", purpose="moments")
    again = Budget("bank", 0.6, 1e-6, path=path)
    assert [charge.job for charge in again.ledger.charges] == ["one"]
    again.charge(EVENT, job="two", purpose="moments")
    with pytest.raises(PrivacyRefusedError):
        Budget("bank", 0.6, 1e-6, path=path).charge(EVENT, job="three", purpose="moments")
    # The owner may raise the limit; what was spent stays spent.
    Budget("bank", 2.0, 1e-6, path=path).charge(EVENT, job="three", purpose="moments")
    assert len(Budget("bank", 2.0, 1e-6, path=path).ledger.charges) == 3


def test_a_charge_that_cannot_be_written_is_no_charge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    budget = Budget("bank", 0.6, 1e-6, path=tmp_path / "ledger.json")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(RetryLaterError, match="No space left"):
        budget.charge(EVENT, job="j", purpose="moments")
    assert budget.spent() == 0.0
    assert not (tmp_path / "ledger.json").exists()


def test_jobs_at_the_same_time_share_one_limit(tmp_path: Path) -> None:
    """Both opened the ledger before either charged: neither forgets the other's charge."""
    path = tmp_path / "ledger.json"
    first, second = (Budget("bank", 0.6, 1e-6, path=path) for _ in range(2))
    first.charge(EVENT, job="one", purpose="moments")
    second.charge(EVENT, job="two", purpose="moments")
    with pytest.raises(PrivacyRefusedError):
        first.charge(EVENT, job="one", purpose="threshold")
    assert [charge.job for charge in Budget("bank", 0.6, 1e-6, path=path).ledger.charges] == ["one", "two"]


def test_threads_do_not_lose_charges(tmp_path: Path) -> None:
    path = tmp_path / "ledger.json"
    budgets = [Budget("bank", 5.0, 1e-6, path=path) for _ in range(8)]
    with ThreadPoolExecutor(len(budgets)) as pool:
        list(pool.map(lambda budget: budget.charge(EVENT, job="j", purpose="moments"), budgets))
    assert len(Budget("bank", 5.0, 1e-6, path=path).ledger.charges) == len(budgets)


@pytest.mark.parametrize(
    ("epsilon", "delta"), [(float("nan"), 1e-6), (float("inf"), 1e-6), (0.0, 1e-6), (1.0, 0.0), (1.0, 1.0), (1.0, 2.0)]
)
def test_limits_that_limit_nothing_are_refused(epsilon: float, delta: float) -> None:
    with pytest.raises(FixConfigurationError, match="'bank'"):
        Budget("bank", epsilon, delta)


def test_ledgers_are_not_exchanged(tmp_path: Path) -> None:
    path = tmp_path / "ledger.json"
    Budget("bank", 0.6, 1e-6, path=path).charge(EVENT, job="one", purpose="moments")
    with pytest.raises(FixInputError, match="'bank'"):
        Budget("other", 0.6, 1e-6, path=path)
    with pytest.raises(FixInputError, match="delta"):
        Budget("bank", 0.6, 1e-5, path=path)
    path.write_text('{"owner": "bank", "epsilon": 1, "delta": 1e-6, "charges": [{"job": "x"}]}')
    with pytest.raises(FixInputError, match="missing"):
        Budget("bank", 0.6, 1e-6, path=path)
    for absurd in (0, -4, 1e300):
        charge = {"job": "x", "purpose": "y", "noise_multiplier": absurd}
        path.write_text(json.dumps({"owner": "bank", "epsilon": 1, "delta": 1e-6, "charges": [charge]}))
        with pytest.raises(FixInputError, match="absurd"):
            Budget("bank", 0.6, 1e-6, path=path)


@pytest.mark.parametrize(
    "event",
    [dp_accounting.NonPrivateDpEvent(), dp_accounting.GaussianDpEvent(0.0), dp_accounting.LaplaceDpEvent(1.0)],
)
def test_unknown_mechanisms_are_refused(event: dp_accounting.DpEvent) -> None:
    budget = Budget("bank", 5.0, 1e-6)
    with pytest.raises(PrivacyRefusedError, match="does not know"):
        budget.charge(event, job="j", purpose="x")
    assert not budget.ledger.charges


def test_refuse_unless_changes_nothing() -> None:
    budget = Budget("bank", 0.6, 1e-6)
    budget.refuse_unless([EVENT, EVENT])
    assert not budget.ledger.charges
    with pytest.raises(PrivacyRefusedError):
        budget.refuse_unless([EVENT, EVENT, EVENT])
    assert not budget.ledger.charges
