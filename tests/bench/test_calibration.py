"""Calibration: real halves are measured, what cannot be is left out with the reason, and predictions come near."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from securead.bench import calibration, trial
from securead.bench.calibration import calibrate
from securead.bench.samples import samples
from securead.errors import FixProgramError, RetryLaterError
from securead.planner import profile as profiles
from securead.protocols import registry
from securead.protocols.engine import PHASES, EngineSpec, PlanModuleWithWork


class Heard:
    def __init__(self) -> None:
        self.steps: list[tuple[str, int, int]] = []

    def step(self, what: str, done: int, total: int) -> None:
        self.steps.append((what, done, total))


def test_an_engine_is_measured_and_its_own_requests_are_predicted(tmp_path: Path) -> None:
    path, heard = tmp_path / "cache" / "profile.json", Heard()
    done = calibrate(path, seconds=3.0, engines=["bfv"], watch=heard)
    assert profiles.read(path) == done.profile
    assert [each.engine for each in done.profile.engines] == ["bfv"]
    assert done.left_out == ()
    assert heard.steps[0] == ("calibrating bfv", 0, 1)
    assert heard.steps[-1] == ("calibrated", 1, 1)
    assert len(heard.steps) == 2 + len(done.observations)
    (costs,) = done.profile.engines
    assert costs.measurements == len(done.observations) >= 3
    assert {cost.phase for cost in costs.costs} == set(PHASES)
    errors = []
    for each in done.observations:
        found = [costs.seconds(phase, each.work[phase]) for phase in PHASES]
        assert None not in found, each.what
        errors.append(abs(sum(map(float, found)) / sum(each.seconds.values()) - 1))  # type: ignore[arg-type]
        assert each.seconds["client"] > 0 < each.seconds["server"]
        assert each.seconds["offline"] > 0, "masks are made ahead of requests, and told apart"
    assert np.median(errors) < 0.5  # other tests may have the machine
    assert costs.error == pytest.approx(float(np.median(errors)))


def test_what_cannot_be_measured_is_left_out_with_the_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, silent = registry.engines(), SimpleNamespace(make_plan=None)
    absent = EngineSpec("absent", "no.such.package", ("same",), ("lookup",), "none", "made up")
    quiet = EngineSpec("quiet", "securead.protocols.bfv", ("same",), ("lookup",), "none", "made up")
    monkeypatch.setattr(registry, "engines", lambda: {"absent": absent, "quiet": quiet, "bfv": real["bfv"]})
    load = registry.plan_module
    monkeypatch.setattr(registry, "plan_module", lambda name: silent if name == "quiet" else load(name))
    done = calibrate(tmp_path / "p.json", seconds=1.0)
    assert [each.engine for each in done.profile.engines] == ["bfv"]
    reasons = dict(done.left_out)
    assert "not installed" in reasons["absent"]
    assert "does not say what its requests cost" in reasons["quiet"]


def test_nothing_measured_is_an_error_and_leaves_the_old_profile(tmp_path: Path) -> None:
    path = tmp_path / "profile.json"
    path.write_text("what was there")
    with pytest.raises(RetryLaterError, match="no engine could be measured"):
        calibrate(path, engines=[])
    assert path.read_text() == "what was there"


def test_a_trial_that_fails_tells_its_last_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration.sys, "executable", "/bin/false")
    with pytest.raises(RetryLaterError, match="nothing that it carries"):
        list(calibration._measure(registry.spec("bfv"), 0.1))


def test_a_line_that_was_cut_off_is_dropped() -> None:
    whole = {"engine": "e", "what": "w", "work": {}, "seconds": {}}
    line = json.dumps(whole)
    assert calibration._observation(line) is not None
    assert calibration._observation(line[:-3]) is None
    assert calibration._observation("[]") is None
    assert calibration._observation(json.dumps({"engine": "e"})) is None


@pytest.mark.parametrize("name", sorted(registry.engines()))
def test_there_is_a_sample_of_every_kind_of_work(name: str) -> None:
    """In every role at least two programs that an engine has parameters for, so that costs can be told apart."""
    spec, module = registry.spec(name), registry.plan_module(name)
    if not isinstance(module, PlanModuleWithWork):
        pytest.skip("it does not say what requests cost")
    for role in spec.roles:
        units = []
        for sample in samples():
            public = sample.make().public
            if not spec.carries(public):
                continue
            try:
                plan = registry.plan_module(name).make_plan(public, role)
            except FixProgramError:
                continue
            work = module.work(plan, public, 1)
            units.append({(phase, unit) for phase in PHASES for unit in work.of(phase)})
        assert len(units) >= 2, f"{name}, {role}: too few samples"
        assert all(each == units[0] for each in units), f"{name}, {role}: kinds of work depend on the program"


def test_requests_of_every_size_are_tried_where_size_matters() -> None:
    plan = SimpleNamespace(rows_per_chunk=512)
    few = trial._sizes(registry.spec("bfv"), plan)  # type: ignore[arg-type]
    assert few[0] == 1
    assert len(few) == 3
    assert trial._sizes(registry.spec("ckks"), plan) == [512]  # type: ignore[arg-type]


@pytest.mark.long
def test_two_parties_are_measured_as_the_processes_that_they_are(tmp_path: Path) -> None:
    done = calibrate(tmp_path / "p.json", seconds=8.0, engines=["sharing"])
    (costs,) = done.profile.engines
    assert costs.measurements >= 6
    relu = [each for each in done.observations if each.what.startswith("relu")]
    assert relu[-1].seconds["server"] > relu[0].seconds["server"] > 0
