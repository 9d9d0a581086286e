"""The autoencoder: trained privately, stopped early, compiled, encrypted; refused with a remedy where it cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import roc_auc_score
from test_worlds import encrypted_scores

from securead.data.partition import hold_out
from securead.data.readers import read_table
from securead.data.schema import Schema
from securead.errors import FixConfigurationError, FixInputError, FixProgramError, PrivacyRefusedError, SecureadError
from securead.federated.embedded import train
from securead.federated.participant import Site
from securead.models.autoencoder import AutoEncoder
from securead.models.training import State, Total
from securead.privacy.budget import Budget
from securead.privacy.plan import PrivacyPlan
from securead.protocols.engine import Role

PLAN = PrivacyPlan(epsilon=3.0, delta=1e-6)
RNG = np.random.default_rng(8)
MIX = RNG.normal(size=(2, 6))


def records(rows: int, rng: np.random.Generator) -> np.ndarray:
    """Two hidden causes, one of them squared, behind six columns."""
    causes = rng.normal(size=(rows, 2))
    return np.column_stack([causes[:, 0], causes[:, 1] ** 2]) @ MIX + 0.2 * rng.normal(size=(rows, 6))


X = records(6000, RNG)
SCHEMA = Schema.observed(X, widen=0.1).with_scale(X.mean(axis=0), X.std(axis=0))


def make(**parameters: Any) -> AutoEncoder:
    """Small and quick; all tests share its plan, because noise is calibrated once for each."""
    return AutoEncoder(**{"hidden": 4, "rounds": 2, "sampling_prob": 0.1, **parameters})


def sites(*parts: np.ndarray) -> list[Site]:
    return [Site(name, part) for name, part in zip("abc", parts or (X[:4000], X[4000:]), strict=False)]


# --- training -----------------------------------------------------------------------------------------------------


def test_training_finds_what_the_controls_do_not() -> None:
    rng = np.random.default_rng(1)
    normal, odd = records(1000, rng), records(1000, rng)
    for column in range(6):
        rng.shuffle(odd[:, column])  # each column is as it should be, their relation is broken
    held, y = np.vstack([normal, odd]), np.repeat([0, 1], 1000)
    exact = train(make(rounds=6, hidden=6), sites(), SCHEMA, privacy=None)
    trained, untrained = (roc_auc_score(y, scores(held)) for scores in (exact.anomaly_score, exact.untrained_score))
    norm = roc_auc_score(y, (exact.encoder_.standardise(held) ** 2).sum(axis=1))
    assert trained > max(untrained, norm) + 0.1
    private = train(make(rounds=6, hidden=6), sites(), SCHEMA, privacy=PLAN)
    assert roc_auc_score(y, private.anomaly_score(held)) > max(untrained, norm) + 0.05


def test_the_statement_names_each_kind_of_release_once() -> None:
    detector = train(make(scaling="private"), sites(), SCHEMA, privacy=PLAN)
    releases = {release.what: release.times for release in detector.statement_.releases}
    dp_sgd = "DP-SGD: 10 steps on 0.1 of records each, gradients clipped to 1"
    assert releases.pop(dp_sgd) == 2
    assert releases == {
        "histograms of every column, for scaling": 1,
        "the number of records": 1,
        "clipped validation losses": 2,
    }
    words = " ".join(detector.statement_.in_words())
    assert words.count("DP-SGD") == 1
    assert f"{dp_sgd} (2 times, noise multiplier" in words
    assert detector.statement_.epsilon is not None
    assert 2.98 < detector.statement_.epsilon <= 3.0


@pytest.mark.parametrize("privacy", [None, PLAN], ids=["exact", "private"])
@pytest.mark.parametrize("weight_limit", [0.1, 1.0])
def test_weights_stay_within_their_limit(weight_limit: float, privacy: PrivacyPlan | None) -> None:
    detector = train(make(weight_limit=weight_limit, learning_rate=0.5), sites(), SCHEMA, privacy=privacy)
    assert weight_limit / 2 < np.abs(detector.values_["theta"]).max() <= weight_limit * (1 + 1e-6)
    assert np.abs(detector.values_["best"]).max() <= weight_limit * (1 + 1e-6)


def test_deeper_networks_train() -> None:
    detector = train(make(hidden=(16, 8, 16)), sites(), SCHEMA, privacy=PLAN)
    assert np.isfinite(detector.anomaly_score(X)).all()
    assert "truncate" in detector.compile().public.operations


@pytest.mark.parametrize(
    ("parameters", "operations"),
    [
        ({"units": "relu"}, {"relu", "truncate"}),
        ({"units": "relu", "hidden": (8, 4, 8)}, {"relu", "truncate"}),
        ({"hidden": (6, 4), "weight_limit": 0.3}, {"truncate"}),
        ({"hidden": (3, 2), "weight_limit": 0.3, "units": "linear_and_square"}, {"truncate"}),
    ],
)
def test_relus_and_deeper_networks_compile_for_shares(parameters: dict[str, Any], operations: set[str]) -> None:
    detector = train(make(**parameters), sites(), SCHEMA, privacy=None)
    scores, program = detector.anomaly_score(X), detector.compile()
    assert operations <= program.public.operations <= {"input", "affine", "product", *operations}
    assert (np.abs(program.score(X) - scores) / (np.median(scores) + scores)).max() <= 1e-3
    assert max(step.bound_bits for step in program.public.steps) <= 62


@pytest.mark.parametrize("hidden", [(4, 3), (6, 4, 6)])
def test_deeper_networks_of_squares_compile_to_one_polynomial(hidden: tuple[int, ...]) -> None:
    """Of degree 8 or 16, which an engine of levels carries; with `ring_bits` for shares, as ever."""
    detector = train(make(units="square", hidden=hidden, limit=2.0, weight_limit=0.3), sites(), SCHEMA, privacy=None)
    scores, program = detector.anomaly_score(X), detector.compile()
    assert program.public.operations == {"input", "affine", "product"}
    assert program.public.degree == 2 ** (len(hidden) + 1)
    assert program.public.public_terms
    moved = np.abs(program.score(X) - scores) / (np.median(scores) + scores)
    assert np.quantile(moved, 0.9) <= 5e-3
    assert spearmanr(program.score(X), scores).statistic >= 0.999
    assert "truncate" in detector.compile(ring_bits=62).public.operations
    deepest = train(make(units="square", hidden=(3, 3, 3, 3), weight_limit=0.3), sites(), SCHEMA, privacy=None)
    assert "truncate" in deepest.compile().public.operations


def test_ring_bits_are_kept() -> None:
    detector = train(make(), sites(), SCHEMA, privacy=None)
    for bits in (62, 50):
        public = detector.compile(ring_bits=bits).public
        assert max(*(step.bound_bits for step in public.steps), public.score_bits) <= bits
    with pytest.raises(FixProgramError, match="16 to 62 bits"):
        detector.compile(ring_bits=63)


# --- early stopping -----------------------------------------------------------------------------------------------


def follow(detector: AutoEncoder, losses: list[float]) -> tuple[list[str], State, dict[str, np.ndarray]]:
    """The stages that a run goes through when its checks find these losses, the last state, and each round's theta."""
    state, passed, rounds = detector.initial_state(SCHEMA), list[str](), dict[str, np.ndarray]()
    found = iter(losses)
    while not state.done:
        passed.append(state.stage)
        if state.stage == "records":
            values = np.array([100 << 20])
        elif state.stage.startswith("round-"):
            size = len(state.values["theta"])
            values = np.append(np.full(size, len(rounds) + 1.0), 1000.0)
            rounds[state.stage] = values[:-1] / 1000
        else:
            # The sum of losses, as shares of four times six columns, and the number of records.
            values = np.array([next(found) / 24 * 1e12, 1e12])
        state = detector.next_state(state, Total(state.stage, values, 0.0, 1))
    return passed, state, rounds


@pytest.mark.parametrize(
    ("losses", "patience", "ran", "best"),
    [
        ([5, 4, 3, 2, 1, 0.5], 2, 6, 6),
        ([5, 3, 4, 6, 1, 1], 2, 4, 2),
        ([5, 3, 4, 2, 3, 4], 2, 6, 4),
        ([3, 4], 1, 2, 1),
        ([3, 4, 4, 4], 3, 4, 1),
        ([3, 3, 3, 3, 3, 3], 2, 6, 6),
        ([9, 8, 7, 7.5, 7.4, 7.3], 9, 6, 3),
    ],
)
def test_training_stops_when_it_stops_helping(losses: list[float], patience: int, ran: int, best: int) -> None:
    detector = make(rounds=6, patience=patience)
    passed, state, rounds = follow(detector, losses)
    assert passed == ["records", *(f"{kind}-{n}" for n in range(1, ran + 1) for kind in ("round", "check"))]
    assert np.array_equal(state.values["best"], rounds[f"round-{best}"])
    assert state.values["losses"] == pytest.approx(losses[:ran])
    assert detector.finish(state).values_["loss"][0] == pytest.approx(min(losses[:ran]))


def test_losses_within_their_noise_are_the_same() -> None:
    """The noise here is .24 of loss: a rise of .2 is none, one of .3 is."""
    detector, values = make(rounds=6, patience=1), {"losses": np.array([5.0]), "waited": np.zeros(1)}
    state = State("check-2", SCHEMA, {**values, "theta": np.ones(58), "best": np.zeros(58)})
    for loss, goes_on in ((5.2, True), (5.3, False)):
        total = Total("check-2", np.array([loss / 24 * 1e12, 1e12]), (0.01 * 1e12) ** 2, 1)
        after = detector.next_state(state, total)
        assert after.stage == ("round-3" if goes_on else "done")
        assert np.array_equal(after.values["best"], np.full(58, float(goes_on)))


def test_a_threshold_follows_an_early_stop() -> None:
    detector = make(rounds=6, patience=1, threshold="private")
    values = {"losses": np.ones(1), "waited": np.zeros(1), "theta": np.ones(58), "best": np.zeros(58)}
    state = State("check-2", SCHEMA, values)
    after = detector.next_state(state, Total("check-2", np.array([1e11, 1e12]), 0.0, 1))
    assert after.stage == "threshold"


class _Rising(AutoEncoder):
    """Its validation loss rises with every check."""

    def model_state(self, state: State, total: Total):  # type: ignore[no-untyped-def]
        if state.stage.startswith("check-"):
            total = Total(total.stage, np.array([1e11 * len(state.values["losses"]), 1e12]), 0.0, total.sites)
        return super().model_state(state, total)


def test_what_an_early_stop_saves_is_not_charged(tmp_path: Path) -> None:
    detector = _Rising(hidden=4, rounds=5, sampling_prob=0.1, patience=2)
    chosen = [Site("a", X[:4000], tmp_path / "a.json", 3.0), Site("b", X[4000:])]
    train(detector, chosen, SCHEMA, privacy=PLAN)
    charged = [charge.purpose for charge in Budget("a", 3.0, 1e-6, path=tmp_path / "a.json").ledger.charges]
    assert charged == ["records", "round-1", "check-1", "round-2", "check-2", "round-3", "check-3"]
    assert [step.stage for step in detector.training_ if step.site == "b"] == charged
    # Checks are charged and named, rounds that never were are neither.
    assert {r.what.partition(":")[0]: r.times for r in detector.statement_.releases} == {
        "the number of records": 1,
        "DP-SGD": 3,
        "clipped validation losses": 3,
    }
    assert detector.statement_.epsilon is not None
    assert 1.0 < detector.statement_.epsilon < 2.8


# --- averaging ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("average_last", [1, 2, 4, 9])
def test_the_model_is_the_mean_of_the_last_rounds(average_last: int) -> None:
    """The best of the means, where the loss rises; what training goes on from is the last round's weights."""
    for losses, best in (([6, 5, 4, 3, 2, 1], 6), ([6, 5, 1, 7, 8, 9], 3)):
        _, state, rounds = follow(make(rounds=6, patience=6, average_last=average_last), [float(x) for x in losses])
        weights = [rounds[f"round-{n}"] for n in range(1, 7)]
        expected = np.mean(weights[max(best - average_last, 0) : best], axis=0)
        assert state.values["best"] == pytest.approx(expected)
        assert np.array_equal(state.values["theta"], weights[-1])


def test_checks_judge_the_mean() -> None:
    from securead.privacy.site import Unprotected

    detector = make(average_last=2)
    values = detector.next_state(detector.initial_state(SCHEMA), Total("records", np.array([1 << 20]), 0.0, 1)).values
    found = {**values, "recent": np.array([values["theta"] + 0.1, values["theta"] - 0.1])}

    def released(detector: AutoEncoder, theta: np.ndarray) -> np.ndarray:
        state = State("check-1", SCHEMA, {**found, "theta": theta})
        return detector.site_update(state, X[:500], Unprotected()).values

    alone = released(make(), values["theta"])
    assert released(detector, values["theta"] - 0.1) == pytest.approx(alone)
    assert released(make(), values["theta"] - 0.1)[0] != pytest.approx(alone[0], rel=1e-3)


def test_averaging_takes_noise_out_of_private_training() -> None:
    """At a rate at which single rounds are mostly noise; the same noise in both, from a seed."""
    plan = PrivacyPlan(epsilon=1.0, delta=1e-6, noise_source="seeded-study", seed=3)
    lost = []
    for average_last in (1, 6):
        detector = make(rounds=8, sampling_prob=1.0, learning_rate=0.3, patience=8, average_last=average_last)
        lost.append(train(detector, sites(X[:600], X[600:1200]), SCHEMA, privacy=plan).anomaly_score(X[1200:]).mean())
    assert lost[1] < 0.8 * lost[0]


# --- three worlds -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", ["same", "split"])
@pytest.mark.parametrize("units", ["linear_square", "linear_and_square", "square"])
def test_three_worlds_agree(units: str, role: Role) -> None:
    detector = train(make(units=units), sites(), SCHEMA, privacy=PLAN)
    program = detector.compile()
    assert program.public.degree == 4
    rng = np.random.default_rng(2)
    held = np.vstack([records(900, rng), rng.permuted(records(100, rng), axis=0), np.full((1, 6), 1e9)])
    y = np.repeat([0, 1], [900, 101])

    exact, integer = detector.anomaly_score(held), program.score(held)
    encrypted = encrypted_scores(program, held, role)
    areas = [roc_auc_score(y, scores) for scores in (exact, integer, encrypted)]
    relative = np.abs(encrypted - integer) / np.maximum(np.abs(integer), program.public.tolerance)
    apart = (
        abs(areas[2] - areas[1]),
        abs(areas[1] - areas[0]),
        1 - spearmanr(encrypted, integer).statistic,
        1 - spearmanr(integer, exact).statistic,
    )
    assert np.less_equal(apart, (0.0005, 0.005, 1e-4, 1e-2)).all(), f"AUROC {areas}, apart by {apart}"
    assert np.abs(encrypted - integer).max() <= program.public.tolerance
    assert relative.max() < 0.05


@pytest.mark.parametrize(
    ("units", "hidden"),
    [("linear_square", 4), ("square", 4), ("linear_square", 9), ("square", 1), ("linear_and_square", 2)],
)
def test_the_identity_is_exact_before_quantisation(units: str, hidden: int) -> None:
    """With finer weights the program approaches the detector as fast as they do: nothing else separates them."""
    detector = train(make(units=units, hidden=hidden, weight_limit=2.0), sites(), SCHEMA, privacy=None)
    exact = detector.anomaly_score(X)
    errors = [
        np.abs(detector.compile(weight_bits=bits, fraction_bits=bits).score(X) - exact).max() / exact.mean()
        for bits in (5, 11, 17)
    ]
    assert errors[1] < errors[0] / 10
    assert errors[2] < errors[1] / 4
    assert errors[2] < 2e-3
    # As many products at the end as the hidden layer gives on or columns, whichever are fewer.
    given = 2 * hidden if units == "linear_and_square" else hidden
    assert detector.compile().public.steps[-2].width == min(given, 6)


@pytest.mark.data
@pytest.mark.parametrize("name", ["6_cardio", "38_thyroid", "32_shuttle"])
def test_compiling_keeps_ranks_on_real_records(name: str, data_folder: Path) -> None:
    """By default, with bounds as wide as `Schema.observed` makes them: shuttle's typical score is .05."""
    table = read_table(data_folder / f"{name}.npz")
    fit_rows, held = hold_out(len(table.X), table.y, 0.3, seed=0)
    schema = Schema.observed(table.X, widen=0.2)
    detector = AutoEncoder(units="square", hidden=max(2, round(table.X.shape[1] * 12 / 29)), rounds=3)
    train(detector, [Site("one", table.X[fit_rows[:10_000]])], schema, privacy=None)
    exact, integer = detector.anomaly_score(table.X[held]), detector.compile().score(table.X[held])
    areas = [roc_auc_score(table.y[held], scores) for scores in (exact, integer)]
    assert abs(areas[0] - areas[1]) <= 0.0005
    assert spearmanr(exact, integer).statistic > 0.9999


# --- what goes wrong ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "parameters", [{"weight_limit": 1e30}, {"weight_limit": 1e38}, {"weight_limit": 1e12}], ids=str
)
def test_divergence_stops_and_stays_charged(parameters: dict[str, float], tmp_path: Path) -> None:
    chosen = [Site("a", X, tmp_path / "a.json", 3.0)]
    with pytest.raises(FixConfigurationError, match=r"diverged.*learning_rate"):
        train(make(learning_rate=1e30, **parameters), chosen, SCHEMA, privacy=PLAN)
    charged = [charge.purpose for charge in Budget("a", 3.0, 1e-6, path=tmp_path / "a.json").ledger.charges]
    assert charged == ["records", "round-1"]
    with pytest.raises(FixConfigurationError, match=r"diverged.*learning_rate"):
        train(make(learning_rate=1e30, **parameters), [Site("a", X)], SCHEMA, privacy=None)


@pytest.mark.parametrize("privacy", [None, PLAN], ids=["exact", "private"])
def test_layers_whose_scores_would_overflow_are_refused(privacy: PrivacyPlan | None) -> None:
    with pytest.raises(FixConfigurationError, match=r"diverged.*fewer layers"):
        train(make(hidden=(8,) * 9, units="square", learning_rate=1.0), sites(), SCHEMA, privacy=privacy)


def test_a_loss_beyond_float64_counts_as_the_cap() -> None:
    """An infinity or NaN among validation losses would break the stated sensitivity."""
    from securead.privacy.site import Unprotected

    detector = make(hidden=(8,) * 9, units="square")
    values = detector.next_state(detector.initial_state(SCHEMA), Total("records", np.array([1 << 20]), 0.0, 1)).values
    theta = np.full(len(values["theta"]), 3.0)
    theta[-1] = np.nan
    with np.errstate(over="ignore", invalid="ignore"):
        update = detector.site_update(State("check-1", SCHEMA, {**values, "theta": theta}), X[:200], Unprotected())
    assert update.values[0] == update.values[1] > 0


ALL_OUT = X[:500] + 1e6
CONSTANT = np.column_stack([X[:, :5], np.ones(len(X))])
FEW = X[:1]


@pytest.mark.parametrize("privacy", [None, PLAN], ids=["exact", "private"])
@pytest.mark.parametrize("scaling", ["schema", "private"])
@pytest.mark.parametrize(
    "parts",
    [(X, FEW), (X, ALL_OUT), (CONSTANT,), (X, np.ones((300, 6))), (FEW, FEW), (ALL_OUT,)],
    ids=["one row beside", "out of bounds beside", "constant column", "constant site", "one row each", "all out"],
)
def test_bad_sites_train_or_are_refused_by_name(
    parts: tuple[np.ndarray, ...], scaling: str, privacy: PrivacyPlan | None
) -> None:
    schema = Schema.observed(CONSTANT if parts[0] is CONSTANT else X, widen=0.1)
    detector = make(scaling=scaling)
    if privacy is not None and scaling == "private" and len(np.concatenate(parts)) < 10:
        with pytest.raises(PrivacyRefusedError, match=r"too few records.*Declare center"):
            train(detector, sites(*parts), schema, privacy=privacy)
        return
    train(detector, sites(*parts), schema, privacy=privacy)
    for scores in (detector.anomaly_score(X), detector.anomaly_score(ALL_OUT), detector.compile().score(ALL_OUT)):
        assert np.isfinite(scores).all()
    assert 0 < detector.threshold_ < np.inf


def test_out_of_bounds_is_refused_where_the_schema_says_so() -> None:
    with pytest.raises(FixInputError, match=r"site 'b': row 0, column 'x0' is outside"):
        train(make(), sites(X, ALL_OUT), Schema(SCHEMA.columns, "refuse"), privacy=None)


class _Sealed:
    """Records that nobody may read yet."""

    ndim, shape = 2, (50, 6)

    def __len__(self) -> int:
        return 50

    def __array__(self, *_: object, **__: object) -> np.ndarray:
        raise AssertionError("the records were read")

    def __getattr__(self, name: str) -> object:
        raise AssertionError(f"the records were asked for {name}")


@pytest.mark.parametrize("checkpoint", [False, True])
def test_what_cannot_be_paid_is_refused_before_records_are_read(checkpoint: bool, tmp_path: Path) -> None:
    rich = Site("rich", _Sealed(), tmp_path / "rich.json", 3.0)  # type: ignore[arg-type]
    poor = Site("poor", _Sealed(), tmp_path / "poor.json", 2.9)  # type: ignore[arg-type]
    folder = tmp_path / "running" if checkpoint else None
    with pytest.raises(PrivacyRefusedError, match="'poor'"):
        train(make(), [rich, poor], SCHEMA, privacy=PLAN, checkpoint=folder)
    assert not list(tmp_path.glob("*.json"))
    with pytest.raises(AssertionError, match="the records were"):
        train(make(), [rich], SCHEMA, privacy=PLAN)


@pytest.mark.parametrize(
    "parameters",
    [
        {"hidden": 0},
        {"hidden": ()},
        {"hidden": 2.5},
        {"hidden": "12"},
        {"hidden": (4, 0)},
        {"hidden": True},
        {"hidden": 1, "units": "linear_square"},
        {"units": "tanh"},
        {"rounds": 0},
        {"rounds": 2.5},
        {"patience": 0},
        {"average_last": 0},
        {"average_last": 1.5},
        {"sampling_prob": 0.0},
        {"sampling_prob": 1.5},
        {"sampling_prob": "often"},
        {"learning_rate": float("nan")},
        {"learning_rate": -1.0},
        {"l2_clip_norm": float("inf")},
        {"l2_clip_norm": 0.0},
        {"weight_limit": float("inf")},
        {"weight_decay": -1.0},
        {"random_state": -1},
        {"random_state": None},
    ],
    ids=str,
)
def test_bad_parameters_are_named(parameters: dict[str, Any]) -> None:
    name = next(iter(parameters))
    for use in (lambda d: d.fit(X), lambda d: train(d, sites(), SCHEMA, privacy=PLAN)):
        with pytest.raises(SecureadError, match=name) as caught:
            use(make(**parameters))
        assert isinstance(caught.value, FixConfigurationError)


def test_hidden_layers_come_from_a_recipe_as_a_list() -> None:
    assert np.isfinite(make(hidden=[5, 3, 5]).fit(X).anomaly_score(X)).all()
    assert np.isfinite(make(hidden=np.int64(3)).fit(X).anomaly_score(X)).all()
