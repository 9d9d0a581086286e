"""Thresholds: from a share of records, a rate of false alarms, or costs; exact and through noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from securead import codec
from securead.data.schema import Column, Schema
from securead.errors import FixConfigurationError, FixInputError, PrivacyRefusedError
from securead.federated.embedded import train
from securead.federated.participant import Site
from securead.models import bundle
from securead.models.registry import make_detector
from securead.models.subspace import SubspaceDetector
from securead.models.threshold import (
    Calibrator,
    Costs,
    FalseAlarms,
    Wish,
    at_least_cost,
    at_rate,
    exact_at_least_cost,
    exact_at_rate,
    exact_nearest,
)
from securead.privacy.plan import PrivacyPlan

EDGES = np.concatenate([[0], np.geomspace(0.01, 1000, 128)])
PLAN = PrivacyPlan(epsilon=1.0, delta=1e-6)


def histogram(scores: np.ndarray, noise: float, rng: np.random.Generator) -> np.ndarray:
    return np.histogram(scores, EDGES)[0] + rng.normal(0, noise, len(EDGES) - 1)


def test_rate_is_found_through_noise(rng: np.random.Generator) -> None:
    scores = rng.chisquare(10, 100_000)
    found = at_rate(histogram(scores, 15.0, rng), EDGES, 0.01, 15.0, "test")
    # One bin is 9 % wide.
    assert found.value == pytest.approx(np.quantile(scores, 0.99), rel=0.15)


def test_rate_without_noise_is_the_bin_that_holds_it() -> None:
    edges, counts = np.arange(11.0), np.full(10, 10.0)
    assert at_rate(counts, edges, 0.2, 0.0, "").value == 8.0
    assert at_rate(counts, edges, 0.001, 0.0, "").value == 10.0


def test_rate_below_the_noise_is_refused() -> None:
    with pytest.raises(PrivacyRefusedError, match="private threshold"):
        at_rate(np.full(10, 10.0), np.arange(11.0), 0.2, 10.0, "")
    with pytest.raises(PrivacyRefusedError):
        at_rate(np.zeros(10), np.arange(11.0), 0.2, 0.0, "")


@pytest.mark.parametrize(("noise", "rate"), [(0.0, 0.01), (12.0, 0.02), (4.0, 0.1)])
def test_interval_covers_the_rate_among_further_records(noise: float, rate: float) -> None:
    """At least 95 % of 600 intervals hold the true share; without counting the noise they would not."""
    rng = np.random.default_rng(5)
    sample, covered, blind = 20_000, 0, 0
    for _ in range(600):
        noised = histogram(rng.chisquare(10, sample), noise, rng)
        found = at_rate(noised, EDGES, rate, noise, "")
        from scipy import stats

        true = float(stats.chi2.sf(found.value, 10))
        assert found.low is not None
        assert found.high is not None
        covered += found.low <= true <= found.high
        blind_to_noise = at_rate(noised, EDGES, rate, 0.0, "")
        assert blind_to_noise.low is not None
        assert blind_to_noise.high is not None
        blind += blind_to_noise.low <= float(stats.chi2.sf(blind_to_noise.value, 10)) <= blind_to_noise.high
    assert covered >= 0.94 * 600
    if noise > 10:
        assert blind < 0.9 * 600


def test_interval_is_no_wider_than_it_must_be(rng: np.random.Generator) -> None:
    found = at_rate(histogram(rng.chisquare(10, 100_000), 5.0, rng), EDGES, 0.05, 5.0, "")
    assert found.low is not None
    assert found.high is not None
    assert 0 < found.high - found.low < 0.01


def test_exact_rate_flags_that_share(rng: np.random.Generator) -> None:
    scores = rng.normal(size=5000)
    found = exact_at_rate(scores, 0.02, "")
    assert (scores > found.value).mean() == pytest.approx(0.02) == found.share
    assert found.low is not None
    assert found.high is not None
    assert found.low < 0.02 < found.high


def cost_of(value: float, scores: np.ndarray, anomalies: np.ndarray, costs: Costs) -> float:
    flagged = scores > value
    return costs.missed * float((~flagged & anomalies).sum()) + costs.false_alarm * float((flagged & ~anomalies).sum())


@pytest.mark.parametrize("costs", [Costs(500, 5), Costs(1, 1), Costs(1, 1000), Costs(1e6, 1)])
def test_least_cost_is_the_least(costs: Costs, rng: np.random.Generator) -> None:
    anomalies = rng.random(400) < 0.1
    scores = np.round(rng.normal(size=400) + 2 * anomalies, 1)  # rounded: with many ties
    found = exact_at_least_cost(scores, anomalies, costs, "")
    every = [cost_of(value, scores, anomalies, costs) for value in np.arange(-6.05, 8, 0.1)]
    assert cost_of(found.value, scores, anomalies, costs) == min(every)


def test_least_cost_through_noise_is_nearly_the_least(rng: np.random.Generator) -> None:
    anomalies, costs = rng.random(50_000) < 0.05, Costs(100, 1)
    scores = np.where(anomalies, rng.chisquare(40, 50_000), rng.chisquare(10, 50_000))
    edges = np.concatenate([[0], np.geomspace(0.1, 200, 32)])
    counts = np.array([np.histogram(scores[mask], edges)[0] for mask in (~anomalies, anomalies)])
    found = at_least_cost(counts + rng.normal(0, 20, counts.shape), edges, costs, 20.0, "")
    best = exact_at_least_cost(scores, anomalies, costs, "").value
    assert cost_of(found.value, scores, anomalies, costs) < 1.5 * cost_of(best, scores, anomalies, costs)
    # A dearer miss never raises the threshold.
    dearer = at_least_cost(counts.astype(float), edges, Costs(10_000, 1), 0.0, "").value
    assert dearer <= at_least_cost(counts.astype(float), edges, costs, 0.0, "").value


def test_costs_need_anomalies(rng: np.random.Generator) -> None:
    counts = np.vstack([np.full(32, 1000.0), np.full(32, 2.0)])
    with pytest.raises(PrivacyRefusedError, match="too few labelled"):
        at_least_cost(counts, np.arange(33.0), Costs(1, 1), 20.0, "")
    with pytest.raises(FixInputError, match="both labels"):
        exact_at_least_cost(rng.normal(size=9), np.zeros(9, dtype=bool), Costs(1, 1), "")
    with pytest.raises(FixInputError, match="needs labelled"):
        SubspaceDetector(threshold=Costs(1, 1)).fit(rng.normal(size=(50, 3)))
    with pytest.raises(FixInputError, match="labels are 0 or 1"):
        SubspaceDetector(threshold=Costs(1, 1)).fit(rng.normal(size=(50, 3)), np.full(50, 2))


@pytest.mark.parametrize(
    "wrong",
    [lambda: FalseAlarms(0.0), lambda: FalseAlarms(0.6), lambda: Costs(0, 1), lambda: Costs(1, float("inf"))],
)
def test_absurd_wishes_are_refused(wrong: object) -> None:
    with pytest.raises(FixConfigurationError):
        wrong()  # type: ignore[operator]


def test_unknown_wish_is_refused_with_an_example() -> None:
    with pytest.raises(FixConfigurationError, match="false_alarms"):
        Calibrator("guess", 0.1)  # type: ignore[arg-type]


def test_recipes_say_it_as_a_table() -> None:
    detector = make_detector("subspace", {"threshold": {"type": "false_alarms", "rate": 0.002}})
    assert detector.threshold == FalseAlarms(0.002)
    detector = make_detector("subspace", {"threshold": {"type": "costs", "missed": 500, "false_alarm": 5}})
    assert detector.threshold == Costs(500.0, 5.0)
    with pytest.raises(FixInputError, match="rate"):
        make_detector("subspace", {"threshold": {"type": "false_alarms"}})


@pytest.fixture(scope="module")
def labelled() -> tuple[np.ndarray, np.ndarray, Schema]:
    rng = np.random.default_rng(8)
    y = rng.random(30_000) < 0.03
    X = rng.normal(size=(30_000, 4)) + 4.0 * y[:, None]
    return X, y.astype(int), Schema(tuple(Column(f"x{i}", -12.0, 12.0, center=0.0, spread=1.0) for i in range(4)))


def sites(X: np.ndarray, y: np.ndarray | None) -> list[Site]:
    parts = np.array_split(np.arange(len(X)), [12_000, 20_000])
    return [Site(f"s{i}", X[p], labels=None if y is None else y[p]) for i, p in enumerate(parts)]


@pytest.mark.parametrize("with_labels", [True, False])
def test_false_alarm_rate_is_kept_by_a_private_run(
    labelled: tuple[np.ndarray, np.ndarray, Schema], with_labels: bool
) -> None:
    X, y, schema = labelled
    detector = SubspaceDetector(threshold=FalseAlarms(0.05))
    fitted = train(detector, sites(X, y if with_labels else None), schema, privacy=PLAN)
    flagged = (fitted.anomaly_score(X) > fitted.threshold_)[y == 0].mean()
    # Without labels the known anomalies count as records, too: the rate among the others is lower.
    assert 0.02 < flagged < 0.06 if with_labels else flagged < 0.05
    calibration = bundle.make(fitted, "check").public.threshold
    assert calibration.low is not None
    assert calibration.high is not None
    if with_labels:
        assert calibration.low <= flagged <= calibration.high
    assert "false alarms on 5.000% of records that are no known anomalies" in calibration.in_words()
    assert "95 % interval" in calibration.in_words()
    assert any("a histogram of scores" in release.what for release in fitted.statement_.releases)
    assert codec.from_plain(bundle.Threshold, codec.to_plain(calibration), where="x") == calibration


def test_costs_are_met_by_a_private_run(labelled: tuple[np.ndarray, np.ndarray, Schema]) -> None:
    X, y, schema = labelled
    # Classes that overlap: the two thresholds are then about 14 and 1, much further apart than noise moves them (3).
    X = X - 2.0 * y[:, None]
    cheap = train(SubspaceDetector(threshold=Costs(1, 1)), sites(X, y), schema, privacy=PLAN)
    dear = train(SubspaceDetector(threshold=Costs(1000, 1)), sites(X, y), schema, privacy=PLAN)
    assert dear.threshold_ < cheap.threshold_
    missed = [(fitted.anomaly_score(X) <= fitted.threshold_)[y == 1].mean() for fitted in (dear, cheap)]
    assert missed[0] < 0.02 < missed[1]
    assert any("by label" in release.what for release in dear.statement_.releases)


def test_labels_change_nothing_but_the_threshold(labelled: tuple[np.ndarray, np.ndarray, Schema]) -> None:
    X, y, _ = labelled
    plain = SubspaceDetector(contamination=0.05).fit(X[:2000], y[:2000])
    other = SubspaceDetector(contamination=0.05).fit(X[:2000])
    assert np.array_equal(plain.score_samples(X), other.score_samples(X))
    assert plain.offset_ == other.offset_
    wished = SubspaceDetector(threshold=FalseAlarms(0.05)).fit(X[:2000], y[:2000])
    assert np.array_equal(plain.score_samples(X), wished.score_samples(X))
    assert (wished.predict(X[:2000])[y[:2000] == 0] == -1).mean() == pytest.approx(0.05, abs=0.002)


@pytest.mark.parametrize("name", ["forest", "histogram"])
@pytest.mark.parametrize("threshold", ["model", "private", FalseAlarms(0.05)])
def test_flags_agree_where_scores_are_few(name: str, threshold: Wish) -> None:
    """Columns of codes: one rounded entry more or less would flag a third of all records."""
    rng = np.random.default_rng(3)
    X = rng.choice([-10.0, 0.0, 10.0], size=(30_000, 2), p=[0.02, 0.9, 0.08])
    schema = Schema(tuple(Column(f"x{i}", -12.0, 12.0) for i in range(2)))
    detector = make_detector(name, {"threshold": "model"}).set_params(threshold=threshold, contamination=0.05)
    fitted = train(detector, [Site("a", X)], schema, privacy=PrivacyPlan(epsilon=3.0, delta=1e-6))
    flags = [scores > fitted.threshold_ for scores in (fitted.anomaly_score(X), fitted.compile().score(X))]
    assert np.array_equal(*flags)
    share = fitted.calibration_.share
    assert share is None or flags[0].mean() == pytest.approx(share, abs=0.01)


BAD_LABELS = {
    "none at one site": (Costs(1, 1), [None, 0]),
    "of another length": (FalseAlarms(0.1), [0, 9]),
    "minus one": (FalseAlarms(0.1), [0, -1]),
}


@pytest.mark.parametrize("case", sorted(BAD_LABELS))
def test_bad_labels_are_refused_before_anything_is_charged(case: str, tmp_path: Path) -> None:
    wish, kinds = BAD_LABELS[case]
    rng = np.random.default_rng(0)
    X, schema = rng.normal(size=(2000, 3)), Schema(tuple(Column(f"x{i}", -9.0, 9.0) for i in range(3)))
    labels = {None: None, 0: np.zeros(2000), 9: np.zeros(9), -1: np.where(np.arange(2000) % 2, 1, -1)}
    sites = [Site(f"s{i}", X, ledger=tmp_path / f"{i}.json", labels=labels[kind]) for i, kind in enumerate(kinds)]
    folder = tmp_path / "run"
    with pytest.raises(FixInputError, match="label"):
        train(SubspaceDetector(threshold=wish), sites, schema, privacy=PLAN, checkpoint=folder)
    assert not list(tmp_path.iterdir()), "nothing was charged or written"


def test_bad_parameters_leave_no_folder_behind(tmp_path: Path) -> None:
    X, schema = np.zeros((50, 2)), Schema(tuple(Column(f"x{i}", -9.0, 9.0) for i in range(2)))
    with pytest.raises(FixConfigurationError):
        train(
            make_detector("forest", {"n_estimators": "x"}),
            [Site("a", X)],
            schema,
            privacy=PLAN,
            checkpoint=tmp_path / "run",
        )
    assert not (tmp_path / "run").exists()


def test_a_lucky_draw_of_the_noise_is_not_trusted() -> None:
    """Where the noise is too large, a threshold is refused, or its interval is still honest: never quietly useless."""
    rng, accepted, honest = np.random.default_rng(1), 0, 0
    from scipy import stats

    for _ in range(1500):
        try:
            found = at_rate(histogram(rng.chisquare(10, 5000), 8.0, rng), EDGES, 0.01, 8.0, "")
        except PrivacyRefusedError:
            continue
        accepted += 1
        assert found.low is not None
        assert found.high is not None
        honest += found.low <= float(stats.chi2.sf(found.value, 10)) <= found.high
    assert accepted <= 5 or honest >= 0.9 * accepted


@pytest.mark.parametrize(("flagged", "above"), [(0, 0), (3, 3), (10, 10)])
def test_so_many_scores_lie_above_the_nearest_threshold(flagged: int, above: int) -> None:
    scores = np.arange(10.0)
    found = exact_nearest(scores, flagged, "made up")
    assert int((scores > found.value).sum()) == above
    assert found.share == above / 10


def test_ties_leave_the_nearest_number_that_there_is() -> None:
    scores = np.repeat([0.0, 1.0, 2.0], [50, 30, 20])
    found = exact_nearest(scores, 27, "made up")
    assert found.value == 1.5
    assert found.share == 0.2
