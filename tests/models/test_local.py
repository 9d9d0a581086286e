"""Local standardisation in training: charged, kept by the site, refused beyond the budget, the same at scoring time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from securead.data.schema import Column, Schema
from securead.data.streaming import StreamingEncoder, windows_of
from securead.data.windows import LocalScale, Window, WindowedSchema
from securead.errors import FixConfigurationError, PrivacyRefusedError
from securead.federated.embedded import train
from securead.federated.participant import Site
from securead.models import bundle
from securead.models.autoencoder import AutoEncoder
from securead.models.forest import IsolationForest
from securead.models.histogram import HistogramDetector
from securead.models.local import LOCAL
from securead.models.protection import protect
from securead.models.subspace import SubspaceDetector
from securead.privacy.budget import Budget
from securead.privacy.plan import PrivacyPlan

CHANNELS = (Column("flow", 0, 100), Column("heat", -50, 150))
SCHEMA = WindowedSchema.of(Window(CHANNELS, 4))
PLAN = PrivacyPlan(4.0, 1e-6)


def readings(seed: int, n: int = 600) -> np.ndarray:
    """Each gateway at an operating point of its own."""
    rng = np.random.default_rng(seed)
    wave = rng.normal(size=(n, 1)) * [0.5, 2.0] + rng.normal(size=(n, 2)) * [0.1, 0.4]
    return wave + rng.uniform([20, 0], [80, 100])


def sites(n: int = 4, **options: Path) -> list[Site]:
    made = [Site(f"g{i}", windows_of(SCHEMA, readings(i)).X) for i in range(n)]
    if options:
        made[0] = Site("g0", made[0].X, **options)
    return made


@pytest.mark.parametrize(
    "detector",
    [
        SubspaceDetector(scaling="local"),
        AutoEncoder(scaling="local", hidden=4, rounds=1, sampling_prob=0.2),
        IsolationForest(scaling="local", n_estimators=20),
        HistogramDetector(scaling="local"),
    ],
    ids=lambda detector: type(detector).__name__,
)
def test_every_detector_trains_on_local_scales_and_says_so(detector: SubspaceDetector) -> None:
    trained = train(detector, sites(), SCHEMA, privacy=PLAN)
    schema = trained.encoder_.schema
    assert isinstance(schema, WindowedSchema)
    assert schema.window.local
    made = bundle.make(trained, "m")
    assert isinstance(made.public.program.encoder.schema, WindowedSchema)
    statement = trained.statement_
    assert statement.readings is not None
    assert statement.epsilon is not None
    assert statement.epsilon <= PLAN.epsilon < statement.readings.epsilon
    words = " ".join(statement.in_words())
    assert "by which a site puts its readings on its own scale" in words
    assert "lies in up to 4 windows" in words
    X = windows_of(SCHEMA.localised(), readings(1), scale=trained.scales_["g1"]).X
    assert np.allclose(trained.anomaly_score(X), made.program.score(X), rtol=1e-2, atol=made.public.program.tolerance)


def test_the_scale_comes_first_and_is_charged_for_its_whole_group(tmp_path: Path) -> None:
    ledger, scale = tmp_path / "ledger.json", tmp_path / "g0.json"
    trained = train(SubspaceDetector(scaling="local"), sites(ledger=ledger, scale=scale), SCHEMA, privacy=PLAN)
    budget = Budget("g0", 4.0, PLAN.delta, path=ledger)
    assert [charge.purpose for charge in budget.ledger.charges] == [LOCAL, "moments"]
    assert {charge.windows_per_reading for charge in budget.ledger.charges} == {4}
    assert trained.statement_.readings is not None
    assert budget.spent_per_reading() == pytest.approx(trained.statement_.readings.sites[0].epsilon)
    assert LocalScale.read(scale) == trained.scales_["g0"]
    assert scale.stat().st_mode & 0o777 == 0o600
    flat = readings(0)
    ratio = np.array(trained.scales_["g0"].spread) / flat.std(axis=0)
    assert (np.abs(np.log2(ratio)) < 1.5).all()


def test_a_second_run_beyond_the_limit_is_refused_before_anything(tmp_path: Path) -> None:
    ledger = tmp_path / "ledger.json"
    train(SubspaceDetector(scaling="local"), sites(ledger=ledger), SCHEMA, privacy=PLAN)
    before = ledger.read_bytes()
    with pytest.raises(PrivacyRefusedError, match="Nothing was released"):
        train(SubspaceDetector(scaling="local"), sites(ledger=ledger), SCHEMA, privacy=PLAN)
    assert ledger.read_bytes() == before


def test_too_few_readings_for_the_noise_are_refused() -> None:
    few = [Site(f"g{i}", windows_of(SCHEMA, readings(i, 12)).X) for i in range(2)]
    with pytest.raises(PrivacyRefusedError, match="too few readings to find the scale"):
        train(SubspaceDetector(scaling="local"), few, SCHEMA, privacy=PrivacyPlan(0.2, 1e-6))


def test_training_and_streaming_see_the_same_numbers() -> None:
    """What a site trains on is bit for bit what its gateway's encoder makes of the same readings."""
    from securead.models.local import on_scale

    scale = LocalScale("g", SCHEMA.window.channels_digest, (47.3, 11.1), (0.7, 3.3))
    X = readings(3)
    X[5] = [1e9, -1e9]
    streamed = StreamingEncoder(SCHEMA.localised(), scale).push(X).X
    assert np.array_equal(on_scale(SCHEMA, windows_of(SCHEMA, X).X, scale), streamed)


def test_a_broken_run_goes_on_with_the_same_scale(tmp_path: Path) -> None:
    class Broken(SubspaceDetector):
        def model_update(self, *arguments):  # type: ignore[no-untyped-def]
            raise KeyboardInterrupt

    ledger = tmp_path / "ledger.json"
    own = sites(ledger=ledger)
    broken, whole = Broken(scaling="local"), SubspaceDetector(scaling="local")
    Broken.__qualname__ = SubspaceDetector.__qualname__
    with pytest.raises(KeyboardInterrupt):
        train(broken, own, SCHEMA, privacy=PLAN, checkpoint=tmp_path / "run")
    kept = np.load(tmp_path / "run" / "site-0" / f"{LOCAL}.npy")
    trained = train(whole, own, SCHEMA, privacy=PLAN, checkpoint=tmp_path / "run")
    assert np.array_equal(kept, np.load(tmp_path / "run" / "site-0" / f"{LOCAL}.npy"))
    assert [c.purpose for c in Budget("g0", 4.0, PLAN.delta, path=ledger).ledger.charges] == [LOCAL, "moments"]
    assert set(trained.scales_) == {"g0", "g1", "g2", "g3"}


def test_local_scaling_is_for_windows_in_their_channels_units() -> None:
    for schema in (Schema(CHANNELS), SCHEMA.localised()):
        with pytest.raises(FixConfigurationError, match="windows of readings"):
            SubspaceDetector(scaling="local").initial_state(schema)


def test_a_central_private_fit_has_one_scale() -> None:
    detector = SubspaceDetector(scaling="local", schema=SCHEMA, privacy=PLAN).fit(windows_of(SCHEMA, readings(0)).X)
    assert set(detector.scales_) == {"data"}
    assert detector.statement_.readings is not None


def test_windows_without_local_scaling_state_both_units_too() -> None:
    wide = WindowedSchema.of(Window(CHANNELS, 4, stride=2, period=1.0, fill=1))
    X = windows_of(wide, readings(0), np.arange(600.0)).X
    trained = train(SubspaceDetector(), [Site("g0", X)], wide, privacy=PLAN)
    assert trained.statement_.readings is not None
    assert trained.statement_.readings.windows == 3


def test_a_budget_is_asked_before_a_reading_is_read() -> None:
    budget = Budget("g0", 1.0, PLAN.delta)
    with pytest.raises(PrivacyRefusedError):
        protect(SubspaceDetector(scaling="local"), PLAN, budget, job="j", schema=SCHEMA)
    assert not budget.ledger.charges
