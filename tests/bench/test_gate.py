"""The gate: what counts as slower, faster or different, and the committed ratios held against a small run."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from securead.bench import gate, ratios, records, runner, suites
from securead.bench.records import Accuracy, Case, Fidelity, Privacy, Provenance, Record, Spread, Timing, Traffic
from securead.errors import FixInputError

CASE = Case("quick", "score", "cardio", "subspace", engine="ckks", role="same")
HERE = Provenance("abc", (("numpy", "2.4.6"),), "a processor", 2, "2026-01-01T00:00:00+00:00", "d" * 64)


def spread(median: float, *, wide: float = 1.05, repeats: int = 5) -> Spread:
    return Spread(median, median / wide, median * wide, repeats)


def timing(median: float, **fields: Any) -> Timing:
    return Timing("server", "evaluate", 1, False, spread(median, **fields), spread(2 * median, **fields))


def record(**fields: Any) -> Record:
    plain = Record(
        CASE,
        HERE,
        rows=100,
        columns=4,
        accuracy=Accuracy(auroc=0.9, average_precision=0.5),
        fidelity=Fidelity(max_error_to_integer=0.0, auroc_of_scores=0.9, decisions_changed=0),
        timings=(timing(1e-6),),
        traffic=(Traffic("client", "server", "records", bytes_per_row=600.0),),
        rounds=1,
        peak_bytes=(("server", 1000),),
        privacy=Privacy(1.0, 1e-5, "RDP", "seeded-study"),
    )
    return dataclasses.replace(plain, **fields)


def sorts(a: Record, b: Record, tolerance: float = 1.25) -> list[str]:
    return [found.sort for found in gate.compare_records([a], [b], tolerance=tolerance).findings]


def write(folder: Path, *found: Record) -> Path:
    folder.mkdir()
    (folder / "records.jsonl").write_text("".join(records.to_line(one) + "\n" for one in found))
    return folder


def test_equal_runs_pass() -> None:
    again = record(case=dataclasses.replace(CASE, suite="engines"))
    found = gate.compare_records([record()], [again])
    assert found.findings == ()
    assert found.passed
    assert found.in_words() == "1 cases in both, 1 times within a factor of 1.25 or named above: nothing is worse."


@pytest.mark.parametrize(
    ("change", "sort", "words"),
    [
        ({"timings": (timing(2e-6),)}, "slower", "server, evaluate: takes 2 ("),
        ({"timings": (timing(4e-7),)}, "faster", "takes 0.4 ("),
        ({"accuracy": Accuracy(0.9 + 1e-12, 0.5)}, "different", "auroc was 0.9 and is"),
        ({"accuracy": Accuracy(None, 0.5)}, "different", "auroc was 0.9 and is nothing"),
        ({"fidelity": Fidelity(0.1, auroc_of_scores=0.9)}, "different", "max error to integer was 0"),
        ({"fidelity": Fidelity(0.0, auroc_of_scores=0.9 + 1e-12)}, "different", "auroc of scores was 0.9"),
        ({"fidelity": Fidelity(0.0, auroc_of_scores=0.9, decisions_changed=1)}, "different", "verdicts that"),
        ({"traffic": (Traffic("client", "server", "records", 601.0),)}, "different", "600 bytes became 601"),
        ({"traffic": ()}, "different", "600 bytes became 0"),
        ({"privacy": Privacy(2.0, 1e-5, "RDP", "seeded-study")}, "different", "epsilon: 1 became 2"),
        ({"privacy": None}, "different", "epsilon: 1 became nothing"),
        ({"rounds": 2}, "different", "rounds: 1 became 2"),
        ({"peak_bytes": (("server", 1600),)}, "slower", "1.6 times the memory"),
        ({"failures": ("wrong scale",)}, "broken", "failed: wrong scale"),
        ({"missing": "not installed"}, "broken", "measured in A, not in B: not installed"),
        ({"provenance": dataclasses.replace(HERE, program="e" * 64)}, "note", "another one"),
        ({"provenance": dataclasses.replace(HERE, versions=(("numpy", "3"),))}, "note", "numpy 2.4.6 became 3"),
    ],
)
def test_a_difference_is_named(change: dict[str, Any], sort: str, words: str) -> None:
    found = gate.compare_records([record()], [record(**change)])
    assert sort in [one.sort for one in found.findings]
    assert words in found.in_words()
    assert found.passed == (sort in ("faster", "note"))


def test_a_difference_within_the_tolerance_or_the_noise_is_none() -> None:
    assert sorts(record(), record(timings=(timing(1.1e-6),))) == []
    noisy = record(timings=(timing(1e-6, wide=3.0),))
    assert sorts(noisy, record(timings=(timing(2e-6, wide=3.0),))) == []
    assert sorts(record(timings=(timing(1e-6, repeats=1),)), record(timings=(timing(9e-6, repeats=1),))) == []
    assert sorts(record(), record(timings=(timing(2e-6),)), tolerance=3.0) == []


def test_wall_time_counts_where_there_is_no_other() -> None:
    def waited(median: float) -> Timing:
        return Timing("party 0", "evaluate", 1, False, None, spread(median))

    assert sorts(record(timings=(waited(1e-3),)), record(timings=(waited(3e-3),))) == ["slower"]


def test_fresh_noise_moves_scores_by_a_hair() -> None:
    def of(auroc: float, error: float, exact: float = 0.9) -> Record:
        return record(accuracy=Accuracy(exact, 0.5), fidelity=Fidelity(error, auroc_of_scores=auroc))

    assert sorts(of(0.9, 1e-7), of(0.9001, 3e-7)) == []
    assert sorts(of(0.9, 1e-7), of(0.91, 1e-7)) == ["different"]
    # The integer program's accuracy has no noise, whatever the engine.
    assert sorts(of(0.9, 1e-7), of(0.9, 1e-7, exact=0.9 + 1e-12)) == ["different"]
    assert sorts(of(0.9, 1e-7), of(0.9, 1e-4)) == ["different"]


def test_another_machine_is_not_judged_by_its_times() -> None:
    elsewhere = dataclasses.replace(HERE, machine="another processor")
    found = gate.compare_records([record()], [record(provenance=elsewhere, timings=(timing(9e-6),))])
    assert found.passed
    assert {one.sort for one in found.findings} == {"note"}


def test_runs_without_a_case_in_common_fail() -> None:
    found = gate.compare_records([record()], [record(case=dataclasses.replace(CASE, seed=1))])
    assert not found.passed
    assert "no case in common" in found.in_words()


def test_folders_files_and_nonsense(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a", record()), write(tmp_path / "b", record(rounds=3))
    assert gate.compare(a, a / "records.jsonl").passed
    assert not gate.compare(a, b).passed
    with pytest.raises(FixInputError, match="no run"):
        gate.compare(a, tmp_path)
    with pytest.raises(FixInputError, match="tolerance"):
        gate.compare(a, b, tolerance=0.5)


# --- intervals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("repeats", [2, 3, 5, 9])
def test_intervals_hold_what_they_say(repeats: int) -> None:
    """Of 2,000 ratios of equal times at least 97.5 % of intervals hold 1, where 99 % should; seeded."""
    rng = np.random.default_rng(repeats)
    held = 0
    for _ in range(2000):
        sides = np.exp(rng.normal(scale=0.1, size=(2, repeats)))
        low, high = ratios.ratio_of(*map(of_values, sides)).interval or (0.0, math.inf)
        held += low <= 1 <= high
    assert held >= 0.975 * 2000


def test_intervals_are_narrow_enough_to_see_a_third_more() -> None:
    rng = np.random.default_rng(0)
    seen = 0
    for _ in range(500):
        first, second = np.exp(rng.normal(scale=0.05, size=(2, 7)))
        interval = ratios.ratio_of(of_values(first), of_values(1.5 * second)).interval
        assert interval is not None
        seen += interval[0] > 1.15
    assert seen >= 450


def of_values(values: np.ndarray) -> Spread:
    return Spread(float(np.median(values)), float(values.min()), float(values.max()), len(values))


@pytest.mark.parametrize(("n", "mean"), [(2, 1.128), (5, 2.326), (10, 3.078)])
def test_mean_ranges_are_those_of_the_tables(n: int, mean: float) -> None:
    assert ratios.mean_range(n) == pytest.approx(mean, abs=1e-3)


# --- baselines --------------------------------------------------------------------------------------------------------


def promise(**fields: Any) -> dict[str, Any]:
    side = {"cases": ["engine=ckks"], "of": "server seconds"}
    below = {"cases": ["engine=clear"], "of": "server seconds"}
    plain = {"name": "p", "claim": "c", "numerator": side, "denominator": below, "low": 2.0, "high": 4.0}
    return {**plain, "measured": 3.0, "command": "securead bench quick", **fields}


@pytest.fixture
def hold(tmp_path: Path) -> Callable[..., gate.Comparison]:
    clear = dataclasses.replace(CASE, engine="clear", role="none")
    run = write(tmp_path / "run", record(timings=(timing(3e-6),)), record(case=clear))

    def call(**fields: Any) -> gate.Comparison:
        path = tmp_path / "baseline.json"
        path.write_text(json.dumps({"format": 1, "about": "a test", "ratios": [promise(**fields)]}))
        one, other = gate.compare(path, run), gate.compare(run, path)
        assert one == other
        return one

    return call


def test_a_ratio_within_its_range_passes(hold: Callable[..., gate.Comparison]) -> None:
    found = hold()
    assert found.passed
    assert "c: 3 (" in found.in_words()
    assert "1 of 1 ratios checked" in found.in_words()


@pytest.mark.parametrize("change", [{"low": 5.0, "high": None}, {"low": 0.1, "high": 1.0}])
def test_a_ratio_out_of_its_range_fails(hold: Callable[..., gate.Comparison], change: dict[str, Any]) -> None:
    assert not hold(**change).passed


def test_a_ratio_that_may_be_in_range_passes(hold: Callable[..., gate.Comparison]) -> None:
    assert hold(low=3.1).passed


def test_bytes_and_accuracy_have_ratios_too(hold: Callable[..., gate.Comparison]) -> None:
    for of in ("bytes", "auroc", "seconds"):
        sides = [{"cases": [f"engine={engine}"], "of": of} for engine in ("ckks", "clear")]
        high = {"seconds": 4.0}.get(of, 1.0)
        assert hold(numerator=sides[0], denominator=sides[1], low=1.0, high=high).passed


def test_what_cannot_be_checked_is_said(hold: Callable[..., gate.Comparison]) -> None:
    found = hold(numerator={"cases": ["engine=bfv"], "of": "bytes"})
    assert "not checked (no case fits engine=bfv); measure it: securead bench quick" in found.in_words()
    assert not found.passed
    with pytest.raises(FixInputError, match="2 cases fit"):
        hold(numerator={"cases": ["dataset=cardio"], "of": "bytes"})
    with pytest.raises(FixInputError, match="takes seconds"):
        hold(numerator={"cases": ["engine=ckks"], "of": "minutes"})


@pytest.mark.long
def test_the_committed_ratios_hold(root: Path, tmp_path: Path) -> None:
    """What continuous integration holds: the suite `gate` on this machine, wide ranges, no time by itself."""

    class Silent:
        def started(self, case: Case, **progress: Any) -> None: ...

        def finished(self, record: Record, **progress: Any) -> None: ...

    suite = suites.load("gate")
    found = runner.run(suite.cases, tmp_path / "run", place=runner.Place(), watch=Silent(), limits=suite.limits)
    assert [(one.missing, one.failures) for one in found] == [("", ())] * len(found)
    comparison = gate.compare(root / "benchmarks" / "baseline.json", tmp_path / "run")
    assert comparison.passed, comparison.in_words()
    baseline = ratios.read_baseline(root / "benchmarks" / "baseline.json")
    here = [kept.promise.name for kept in ratios.hold(baseline, found) if kept.ratio is not None]
    assert len(here) >= 4, here
