"""Cases of kind "mechanism": each part measures something, checks itself, and takes its own parameters only."""

from __future__ import annotations

import pytest

from securead.bench import records
from securead.bench.mechanisms import mechanism
from securead.bench.records import Case
from securead.errors import FixConfigurationError

QUICK: dict[str, dict[str, int]] = {
    "gaussian-release": {"values": 50},
    "dp-sgd-step": {"rows": 16, "width": 4, "hidden": 2},
    "masking": {"values": 20},
    "residue-product": {"ring": 1024, "primes": 2},
    "bfv-lookup": {"trees": 3, "depth": 3},
    "key-generation": {"features": 3},
}


def case_of(name: str, **fields: object) -> Case:
    parameters = tuple(QUICK.get(name, {}).items())
    return Case("test", "mechanism", "none", name, **{"parameters": parameters, "batch": 2, **fields})  # type: ignore[arg-type]


@pytest.mark.parametrize("name", list(QUICK))
def test_every_mechanism_is_measured(name: str) -> None:
    found = mechanism(case_of(name), None)
    assert found.failures == ()
    assert found.timings
    for each in found.timings:
        spread = each.cpu_seconds_per_row or each.cpu_seconds_once
        assert spread is not None
        assert 0 < spread.low <= spread.median <= spread.high
    assert records.from_line(records.to_line(found), where="a test") == found


@pytest.mark.parametrize("engine", ["bfv", "ckks"])
def test_keys_are_of_the_engine_that_is_asked_for(engine: str) -> None:
    found = mechanism(case_of("key-generation", engine=engine, role="split"), None)
    assert found.notes == (f"keys of {engine}, role split",)
    assert found.traffic[0].bytes_once


def test_what_there_is_not_is_refused() -> None:
    with pytest.raises(FixConfigurationError, match="no such mechanism"):
        mechanism(case_of("perpetual-motion"), None)
    with pytest.raises(FixConfigurationError, match="whole numbers"):
        mechanism(case_of("masking", parameters=(("leaves", 3),)), None)
