"""The budget: checks first, mutates second, survives a crash, refuses what it does not know."""

from __future__ import annotations

from pathlib import Path

import dp_accounting
import pytest

from securead.errors import FixInputError, PrivacyRefusedError, RetryLaterError
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
    assert not list(tmp_path.iterdir())


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
