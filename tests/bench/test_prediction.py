"""Predictions beside measurements: the same requests, phase by phase; and the script that runs them."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import json
from pathlib import Path
from types import ModuleType

import pytest
from made_up_costs import profile_for

from securead.bench.prediction import Comparison, compare, measured_seconds
from securead.bench.records import Spread, Timing
from securead.checks import programs
from securead.planner.profile import EngineCosts
from securead.protocols import registry

TABLES = programs.small_tables().public
PLAN = registry.plan_module("bfv").make_plan(TABLES, "same")


def timing(phase: str, cpu: float, wall: float | None = None, *, role: str = "server") -> Timing:
    def spread(value: float) -> Spread:
        return Spread(value, value / 2, value * 2, 3)

    return Timing(role, phase, 1, False, spread(cpu), spread(cpu if wall is None else wall))


TIMINGS = (
    Timing("client", "make keys", 1, True, None, None, Spread(1, 1, 1, 1), Spread(1, 1, 1, 1)),
    timing("encode and encrypt", 1e-3),
    timing("evaluate", 2e-3, 9.0),
    timing("masks", 5e-4),
    timing("decrypt", 1e-4),
)


def costs() -> EngineCosts:
    found = profile_for(TABLES, seconds=1e-8).of("bfv")
    assert found is not None
    return found


def test_phases_are_told_apart_and_rows_multiplied() -> None:
    assert measured_seconds(TIMINGS, 10) == pytest.approx(
        {"client": 1e-2, "server": 2e-2, "offline": 5e-3, "holder": 1e-3}
    )


def test_of_two_parties_the_slower_counts_as_it_waits() -> None:
    both = (timing("compute", 1e-3, 3e-3, role="party 0"), timing("compute", 2e-3, 4e-3, role="party 1"))
    both = (*both, timing("share, send and join", 1e-3, 2e-3), timing("deal", 7e-3, 9.0))
    assert measured_seconds(both, 1) == pytest.approx({"server": 4e-3, "client": 2e-3, "offline": 7e-3})


def test_a_comparison_has_the_requests_error_without_what_idle_time_makes() -> None:
    found = compare("tables", PLAN, TABLES, 10, TIMINGS, costs())
    assert found is not None
    work = registry.plan_module("bfv").work(PLAN, TABLES, 10)  # type: ignore[attr-defined]
    for phase in ("client", "server", "offline", "holder"):
        assert found.predicted[phase] == pytest.approx(1e-8 * sum(work.of(phase).values()))
    measured, predicted = found.request
    assert measured == pytest.approx(3.1e-2)
    assert found.error == pytest.approx(abs(predicted / measured - 1))
    assert found.phase_errors().keys() == found.measured.keys()


def test_an_error_counts_both_ways_and_a_tenth_of_a_millisecond_is_too_short() -> None:
    one = Comparison("w", "e", 1, {"client": 2.0, "holder": 5e-5}, {"client": 1.0, "holder": 1.0})
    assert one.error == pytest.approx(0.0, abs=1e-3)
    assert one.phase_errors() == {"client": pytest.approx(0.5)}
    assert dataclasses.replace(one, predicted={"client": 4.0, "holder": 0.0}).error == pytest.approx(1.0, abs=1e-3)


def test_what_calibration_did_not_meet_is_not_compared() -> None:
    known = dataclasses.replace(costs(), costs=tuple(c for c in costs().costs if c.phase != "server"))
    assert compare("tables", PLAN, TABLES, 1, TIMINGS, known) is None


@pytest.fixture
def bench(root: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(root / "benchmarks"))
    return importlib.import_module("plan")


def test_the_scripts_figures_are_those_that_are_asked_for(bench: ModuleType) -> None:
    assert {*bench.FIGURES} >= {
        "single_row_http_p95_ms",
        "latency_key_bytes",
        "deep_us_per_row",
        "deep_tenseal_us_per_row",
        "pool_speedup",
        "server_us_per_row",
        "client_encrypt_us_per_row",
    }


def test_another_scripts_figures_come_from_a_process_of_its_own(
    bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "HERE", tmp_path)
    (tmp_path / "deep.py").write_text(
        "import os\ndef measure():\n    return {'threads': os.environ['OMP_NUM_THREADS']}"
    )
    (tmp_path / "ckks.py").write_text("def measure(repeats, few):\n    return {'repeats': repeats}, 1.0")
    (tmp_path / "pool.py").write_text("def measure():\n    raise ValueError('no cores')")
    assert bench.script_figures("deep", 60) == {"threads": "1"}
    assert bench.script_figures("ckks", 60) == {"repeats": 5}
    with pytest.raises(RuntimeError, match="no cores"):
        bench.script_figures("pool", 60)
    with pytest.raises(RuntimeError, match=r"there is no benchmarks/latency\.py"):
        bench.script_figures("latency", 60)


@pytest.mark.long
def test_a_quick_run(bench: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out" / "plan.json"
    # One engine of a service; all of them are calibrated by the tests of `securead plan`.
    monkeypatch.setattr(bench, "calibrate", functools.partial(bench.calibrate, engines=["bfv"], seconds=4.0))
    monkeypatch.setattr("sys.argv", ["plan.py", "--quick", "--out", str(out)])
    bench.main()
    report = json.loads(out.read_text())
    assert report["server_us_per_row"] is None
    assert report["missing"] == {}
    assert 0 <= report["prediction_error_median"] == report["prediction"]["all"]["median"]
    assert len(report["prediction"]["requests"]) >= 2
    assert {each["engine"] for each in report["prediction"]["requests"]} == {"bfv"}
