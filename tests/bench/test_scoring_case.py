"""Cases of kind "score": what a record holds, that it repeats, and what is said where nothing can be measured."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import numpy as np
import planted
import pytest

from securead.bench import engine_case, fitting, records, scoring_case, sharing_case
from securead.bench.accuracy import accuracy_of
from securead.bench.datasets import load
from securead.bench.records import Case, Fidelity, Record
from securead.bench.repeats import repeat
from securead.bench.scoring_case import score
from securead.errors import FixConfigurationError, FixInputError, FixProgramError
from securead.protocols import registry

SMALL = (("n_estimators", 5), ("depth", 3))


def case_of(**fields: object) -> Case:
    given = {"dataset": "generated-payments", "detector": "forest", "parameters": SMALL, "epsilon": 1.0, "rows": 60}
    return Case("test", "score", **{**given, **fields})  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (engine_case, scoring_case, sharing_case):
        monkeypatch.setattr(module, "repeat", functools.partial(repeat, least=1, most=1, seconds=0.0))


def without_times(record: Record) -> Record:
    """What two runs have to agree in exactly."""
    return dataclasses.replace(
        record,
        provenance=dataclasses.replace(record.provenance, created=""),
        timings=tuple((each.role, each.phase, each.threads, each.offline) for each in record.timings),  # type: ignore[misc]
        predicted_seconds=None,
        delayed_seconds=None,
        peak_bytes=tuple((name, 0) for name, _ in record.peak_bytes),
        seconds=0.0,
    )


def test_two_runs_agree_in_everything_but_times(tmp_path: Path) -> None:
    case = case_of(engine="bfv", role="same", batch=4, aggregation="masked")
    one, again = score(case, None), score(case, None)
    assert without_times(one) == without_times(again)
    assert one.failures == ()
    assert one.fidelity.max_error_to_integer == 0.0
    assert one.fidelity.rank_correlation_to_integer == pytest.approx(1)
    assert one.fidelity.auroc_of_scores == one.accuracy.auroc
    assert one.fidelity.decisions_changed == 0
    assert one.accuracy.auroc is not None
    assert one.accuracy.auroc_norm is not None
    assert one.privacy is not None
    assert one.privacy.epsilon == pytest.approx(1.0, abs=1e-3)
    assert one.privacy.noise_source == "seeded-study"
    assert (one.rows, one.columns, one.security_bits, one.rounds) == (60, 20, 128, 1)
    assert one.extraction_rows is not None
    assert len(one.provenance.program) == 64
    assert records.from_line(records.to_line(one), where="a test") == one


def quick_case_for(engine: str) -> Case:
    """A small case that an engine carries: look-ups, a quadratic score, or a network of three layers of squares."""
    if engine != "clear" and registry.spec(engine).degrees[0] > 2:
        deep = (("hidden", "6-3-6"), ("units", "square"), ("limit", 2.0), ("weight_limit", 0.15), ("rounds", 1))
        return case_of(engine=engine, role="same", detector="autoencoder", parameters=deep, epsilon=None, rows=200)
    if engine != "clear" and "lookup" not in registry.spec(engine).operations:
        return case_of(engine=engine, role="same", detector="subspace", parameters=(), rows=200, batch=8)
    return case_of(engine=engine, role="none" if engine == "clear" else "same", rows=200, batch=8)


# Not ckks-deep, whose smallest chunk takes a minute here: nothing of what is tested depends on the engine's kind.
REPEATED = sorted({*registry.engines()} - {"ckks", "ckks-deep"})


@pytest.mark.parametrize(
    "engine",
    [
        "clear",
        "ckks",
        *(pytest.param(name, marks=pytest.mark.long) for name in REPEATED),
    ],
)
def test_accuracy_repeats_to_the_last_bit_with_every_engine(engine: str) -> None:
    """Whatever noise an engine draws: what it computes on is the seed's, and so is what accuracy is of."""
    case = quick_case_for(engine)
    one, again = score(case, None), score(case, None)
    assert one.failures == again.failures == ()
    accuracies = [dataclasses.astuple(found.accuracy) for found in (one, again)]
    assert accuracies[0] == accuracies[1]
    for name in ("auroc", "average_precision", "precision", "false_alarms", "auroc_float", "auroc_norm"):
        value = getattr(one.accuracy, name)
        assert value is not None, name
        assert value.hex() == getattr(again.accuracy, name).hex(), name
    assert one.provenance.program == again.provenance.program
    if engine == "ckks":  # its noise is fresh, and seen in fidelity alone
        assert one.fidelity != again.fidelity
    assert one.fidelity.auroc_of_scores == pytest.approx(one.accuracy.auroc, abs=1e-3)
    assert one.fidelity.max_error_to_integer is not None
    assert one.fidelity.max_error_to_integer < (0.5 if engine == "clear" else 1e-3)


def test_a_wrong_scale_shows_in_fidelity_and_fails_the_case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = score(case_of(engine="bfv", role="same"), None)
    planted.install(monkeypatch, tmp_path, "twice-the-score")
    found = score(case_of(engine="twice-the-score", role="same"), None)
    assert any(failure.startswith("scores: off by") for failure in found.failures)
    assert (found.fidelity.max_error_to_integer or 0.0) > 0.5
    assert (found.fidelity.decisions_changed or 0) > 0
    # What the model is worth is not what a broken engine made of it.
    assert found.accuracy == honest.accuracy


@pytest.mark.parametrize("detector", ["subspace", "histogram"])
def test_the_clear_is_the_float_model(detector: str) -> None:
    case = case_of(detector=detector, parameters=(), aggregation="masked")
    one, again = score(case, None), score(case, None)
    assert without_times(one) == without_times(again)
    assert one.accuracy.auroc == one.accuracy.auroc_float
    assert one.fidelity.max_error_to_float == 0
    assert {each.role for each in one.timings} == {"server", "integer program"}
    assert one.traffic == ()
    assert one.predicted_seconds is None


@pytest.mark.long
@pytest.mark.parametrize("role", ["same", "split"])
def test_ckks_is_within_its_tolerance(role: str) -> None:
    case = case_of(detector="subspace", parameters=(), engine="ckks", role=role, batch=8, link="wan")
    one, again = score(case, None), score(case, None)
    assert one.failures == ()

    def exact(record: Record) -> Record:
        """Errors of encryption are random."""
        return dataclasses.replace(without_times(record), fidelity=Fidelity())

    assert exact(one) == exact(again)
    assert one.fidelity != again.fidelity
    assert one.fidelity.auroc_of_scores == pytest.approx(one.accuracy.auroc, abs=1e-6)
    assert one.fidelity.max_error_to_integer is not None
    assert one.fidelity.max_error_to_integer < 1e-3
    assert one.delayed_seconds is not None
    assert one.predicted_seconds is not None
    assert min(one.delayed_seconds, one.predicted_seconds) >= 0.04


@pytest.mark.long
def test_sharing_runs_among_its_processes() -> None:
    found = score(case_of(engine="sharing", role="same", batch=8, link="lan"), None)
    assert found.failures == ()
    assert found.fidelity.max_error_to_integer == 0
    assert {name for name, _ in found.peak_bytes} == {"client", "dealer", "party 0", "party 1"}
    pairs = {(each.sender, each.receiver) for each in found.traffic}
    wanted = {("client", "party 0"), ("client", "party 1"), ("party 0", "party 1"), ("dealer", "party 0")}
    assert pairs > wanted
    assert found.rounds == 2
    assert found.delayed_seconds is not None


def test_what_cannot_be_measured_raises_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FixInputError, match="is not here"):
        score(case_of(dataset="nowhere"), tmp_path)
    with pytest.raises(FixConfigurationError, match="no engine is called"):
        score(case_of(engine="none"), None)
    with pytest.raises(FixProgramError):
        score(case_of(engine="ckks", role="same"), None)  # no tables
    with pytest.raises(FixConfigurationError, match="no role"):
        scoring_case.engine_case.run(case_of(engine="sharing", role="split"), None, np.zeros((1, 1)), tmp_path)  # type: ignore[arg-type]


def test_hidden_layers_are_written_with_dashes() -> None:
    data = load("generated-payments", None, rows=60)
    case = case_of(detector="autoencoder", parameters=(("hidden", "6-3-6"), ("units", "square")))
    assert fitting.parameters_of(case, data)[1]["hidden"] == (6, 3, 6)
    assert fitting.detector_of(case, data).get_params()["hidden"] == (6, 3, 6)
    with pytest.raises(FixConfigurationError, match="16-8-16"):
        fitting.parameters_of(dataclasses.replace(case, parameters=(("hidden", "6-x"),)), data)


def test_figures_stand_for_all_held_out_records() -> None:
    whole, some = load("generated-payments", None), load("generated-payments", None, rows=2000)
    assert whole.y_held is not None
    assert some.y_held is not None

    def noisy(data: object, y: np.ndarray) -> np.ndarray:
        return y + np.random.default_rng(1).normal(size=len(y))

    full = accuracy_of(whole, noisy(whole, whole.y_held), threshold=2.0)
    part = accuracy_of(some, noisy(some, some.y_held), threshold=2.0)
    assert part.auroc == pytest.approx(full.auroc, abs=0.08)
    assert part.average_precision == pytest.approx(full.average_precision, abs=0.03)
    assert part.precision == pytest.approx(full.precision, abs=0.03)
    assert part.false_alarms == pytest.approx(full.false_alarms, abs=0.01)
    unlabelled = dataclasses.replace(some, y_held=None)
    nothing = accuracy_of(unlabelled, np.arange(2000.0), threshold=2.0)
    assert (nothing.auroc, nothing.average_precision, nothing.precision, nothing.false_alarms) == (None,) * 4
