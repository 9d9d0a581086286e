"""Shrinking: parts that matter least go first, what is reported is what is there, mistakes are refused."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from small_model import small_bundle
from test_worlds import encrypted_scores

from securead.bench.intervals import auroc, paired_interval
from securead.bench.shrinking import Shrinking, shrink
from securead.bench.structure import Tables, Units, structure_of
from securead.bench.tradeoff import shown, write_picture, write_table
from securead.data.encoder import Encoder
from securead.data.schema import Column, Schema
from securead.errors import FixConfigurationError, FixInputError
from securead.federated.embedded import train
from securead.federated.participant import Site
from securead.models import bundle as bundles
from securead.models.autoencoder import AutoEncoder
from securead.models.bundle import Bundle
from securead.models.estimator import AnomalyDetector
from securead.models.forest import IsolationForest
from securead.models.subspace import SubspaceDetector
from securead.program.builder import ProgramBuilder, table_program
from securead.program.geometry import Bins
from securead.program.program import Program

COLUMNS = 5


def data(rows: int, seed: int, *, anomalies: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """Columns that depend on each other, and anomalies that do not, or lie far out."""
    rng = np.random.default_rng(seed)
    hidden = rng.normal(size=(rows, 2))
    X = hidden @ np.random.default_rng(7).normal(size=(2, COLUMNS)) + 0.3 * rng.normal(size=(rows, COLUMNS))
    y = np.zeros(rows, dtype=np.int8)
    y[:anomalies] = 1
    X[:anomalies] = 1.8 * rng.normal(size=(anomalies, COLUMNS))
    return X.clip(-6, 6), y


SCHEMA = Schema(tuple(Column(f"c{i}", -6.0, 6.0, center=0.0, spread=1.0) for i in range(COLUMNS)))


@pytest.fixture(scope="module", params=["forest", "subspace", "autoencoder"])
def bundle(request: pytest.FixtureRequest) -> Bundle:
    X, _ = data(1500, 0, anomalies=0)
    detector: AnomalyDetector = {
        "forest": lambda: IsolationForest(n_estimators=20, depth=4, contamination=0.05),
        "subspace": lambda: SubspaceDetector(contamination=0.05),
        "autoencoder": lambda: AutoEncoder(hidden=4, rounds=2, contamination=0.05),
    }[request.param]()
    train(detector, [Site("only", X)], SCHEMA, privacy=None)
    return bundles.make(detector, request.param)


@pytest.fixture(scope="module")
def found(bundle: Bundle) -> Shrinking:
    return shrink(bundle, *data(3000, 1), max_loss=0.02)


def test_what_is_reported_is_what_the_new_bundle_does(bundle: Bundle, found: Shrinking) -> None:
    X, y = data(3000, 1)
    before, after = bundle.program.score(X), found.bundle.program.score(X)
    chosen = found.chosen
    assert chosen.program is not bundle.program
    assert auroc(y, before) - auroc(y, after) == pytest.approx(chosen.loss, abs=1e-6)
    assert paired_interval(y, before, after) == pytest.approx((chosen.low, chosen.high), abs=1e-6)
    assert chosen.loss <= 0.02
    assert chosen.cost is not None
    assert found.whole.cost is not None
    assert chosen.cost.traffic < found.whole.cost.traffic
    assert found.whole.loss == 0
    assert found.norm == pytest.approx(auroc(y, (X**2).sum(axis=1)), abs=1e-3)
    model = found.bundle.public
    normal = int((before[y == 0] > bundle.public.threshold.value).sum())
    flagged = int(model.is_anomaly(after)[y == 0].sum())
    assert abs(flagged - normal) <= max(1, 2 * np.sqrt(normal))
    assert f"({normal:,})" in model.threshold.origin
    assert found.found[1] == int(model.is_anomaly(after)[y == 1].sum())


def test_the_statement_says_what_the_validation_records_are_promised(found: Shrinking) -> None:
    words = found.bundle.public.privacy.in_words()[-1]
    assert "Made smaller after training" in words
    assert "3,000 labelled records" in words
    assert "protected by nothing" in words
    assert f"{found.chosen.parts} of {found.whole.parts} {found.part}" in words


def test_a_model_that_is_shrunk_again_says_both(bundle: Bundle) -> None:
    privacy = dataclasses.replace(bundle.public.privacy, shrunk="9 of 10 trees")
    again = Bundle(dataclasses.replace(bundle.public, privacy=privacy), bundle.secret)
    assert shrink(again, *data(1500, 1), max_loss=0.05).bundle.public.privacy.shrunk.startswith("9 of 10 trees; then ")


def test_no_candidate_that_keeps_the_loss_is_cheaper(found: Shrinking) -> None:
    slack = max(1, 2 * np.sqrt(found.whole.flagged))
    fitting = [c for c in found.candidates if c.loss <= 0.02 and abs(c.flagged - found.whole.flagged) <= slack]
    assert found.chosen.cost is not None
    assert found.chosen.cost.traffic == min(c.cost.traffic for c in fitting if c.cost is not None)
    front = [c for c in found.front if c.cost is not None]
    assert front[0] is found.whole
    prices = [c.cost.traffic for c in front if c.cost is not None]
    assert prices == sorted(prices, reverse=True)
    assert found.chosen in front


def test_the_engine_scores_as_the_shrunk_program_does(found: Shrinking) -> None:
    X, _ = data(70, 3, anomalies=5)
    program = found.bundle.program
    np.testing.assert_allclose(encrypted_scores(program, X, "same"), program.score(X), atol=program.public.tolerance)


def test_sure_holds_the_whole_interval(bundle: Bundle) -> None:
    assert shrink(bundle, *data(3000, 1), max_loss=0.02, sure=True).chosen.high <= 0.02


def test_the_table_and_the_picture(found: Shrinking, tmp_path: Path) -> None:
    write_table(found, tmp_path / "t.csv")
    rows = list(csv.DictReader((tmp_path / "t.csv").open()))
    assert len(rows) == len(found.candidates)
    (chosen,) = [row for row in rows if row["chosen"] == "True"]
    assert float(chosen["loss"]) == found.chosen.loss
    write_table(found, tmp_path / "t.json")
    plain = json.loads((tmp_path / "t.json").read_text())
    assert plain["chosen"]["auroc"] == found.chosen.auroc
    assert plain["criterion"] == "loss"
    for kind, begins in (("svg", b"<?xml"), ("png", b"\x89PNG")):
        write_picture(found, tmp_path / f"p.{kind}")
        first = (tmp_path / f"p.{kind}").read_bytes()
        assert first.startswith(begins)
        write_picture(found, tmp_path / f"p.{kind}")
        assert (tmp_path / f"p.{kind}").read_bytes() == first
    with pytest.raises(FixConfigurationError, match=r"\.svg or \.png"):
        write_picture(found, tmp_path / "p.pdf")
    assert {found.whole, found.chosen} <= set(shown(found))


def test_networks_of_relus_lose_units_for_two_parties() -> None:
    X, _ = data(1500, 0, anomalies=0)
    detector = AutoEncoder(hidden=6, units="relu", rounds=2, contamination=0.05)
    train(detector, [Site("only", X)], SCHEMA, privacy=None)
    found = shrink(bundles.make(detector, "relus"), *data(2000, 1), max_loss=0.05)
    assert found.engine == "sharing"
    assert {c.bits for c in found.candidates} == {0}  # a value on shares takes a word whatever its bits
    assert found.chosen.cost is not None
    assert found.whole.cost is not None
    assert found.chosen.cost.traffic < found.whole.cost.traffic
    assert found.chosen.cost.ring_dimension is None


# --- order ------------------------------------------------------------------------------------------------------------


def test_tables_that_say_nothing_go_first() -> None:
    rng = np.random.default_rng(0)
    encoder = Encoder(SCHEMA)
    tables = [rng.uniform(size=4) if column not in (1, 3) else np.full(4, 0.5) for column in range(COLUMNS)]
    program = table_program(
        encoder,
        Bins(tuple(range(COLUMNS)), ((-9000, 0, 9000),) * COLUMNS),
        tables,
        entry_bits=8,
        honest_extraction_rows=16,
    )
    X, y = data(800, 2)
    structure = structure_of(program, X, y)
    assert isinstance(structure, Tables)
    ((together, order),) = structure.orders(lambda what, done, total: None)
    assert together == 1
    assert set(order[:2]) == {1, 3}
    assert sorted(order) == list(range(COLUMNS))  # type: ignore[type-var]


def forms(weights: np.ndarray) -> Program:
    """The sum of squares of linear forms."""
    build = ProgramBuilder(Encoder(SCHEMA))
    hidden = build.affine([(weights, build.input)], fraction_bits=24)
    squares = build.product(hidden, hidden)
    build.affine([(np.ones((1, len(weights))), squares)], fraction_bits=build.fraction_bits(squares))
    return build.finish(tolerance=1e-4, honest_extraction_rows=20)


def test_units_that_say_nothing_go_first() -> None:
    weights = np.random.default_rng(0).normal(size=(4, COLUMNS))
    weights[0], weights[2] = 0.0, 1e-3
    X, y = data(800, 2)
    structure = structure_of(forms(weights), X, y)
    assert isinstance(structure, Units)
    ((_, order),) = structure.orders(lambda what, done, total: None)
    assert [unit for _, unit in order[:2]] == [0, 2]  # type: ignore[misc]
    assert structure.parts == 4


# --- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("anomalies", "what"),
    [(None, "without labels"), (0, "of one class"), (3000, "of one class"), (9, "fewer than 10 records")],
)
def test_labels_that_tell_nothing_are_refused(bundle: Bundle, anomalies: int | None, what: str) -> None:
    X, _ = data(3000, 1)
    y = None if anomalies is None else (np.arange(3000) < anomalies).astype(int)
    with pytest.raises(FixInputError, match=what):
        shrink(bundle, X, y, max_loss=0.02)


def test_too_few_anomalies_state_the_interval() -> None:
    rng = np.random.default_rng(0)
    build = ProgramBuilder(Encoder(SCHEMA))
    hidden = build.affine([(np.eye(COLUMNS), build.input)], fraction_bits=16)
    build.affine([(np.ones((1, COLUMNS)), build.product(hidden, hidden))], fraction_bits=32)
    program = build.finish(tolerance=1e-4, honest_extraction_rows=20)
    small = small_bundle()
    bundle = Bundle(dataclasses.replace(small.public, program=program.public), program.secret)
    X, y = rng.normal(size=(200, COLUMNS)), (np.arange(200) < 12).astype(int)
    with pytest.raises(FixInputError, match=r"12 anomalies are too few.*anything from -0\.\d+ to 0\.\d+"):
        shrink(bundle, X, y, max_loss=0.02)


def test_nothing_smaller_is_said() -> None:
    build = ProgramBuilder(Encoder(SCHEMA))
    build.affine([(np.ones((1, COLUMNS)), build.input)], fraction_bits=15)
    program = build.finish(tolerance=1e-2, honest_extraction_rows=6)
    small = small_bundle()
    bundle = Bundle(dataclasses.replace(small.public, program=program.public), program.secret)
    with pytest.raises(FixInputError, match="nothing"):
        shrink(bundle, *data(500, 5), max_loss=0.01)


@pytest.mark.parametrize("max_loss", [-0.1, 0.5, float("nan")])
def test_an_absurd_loss_is_refused(bundle: Bundle, max_loss: float) -> None:
    with pytest.raises(FixConfigurationError, match="loss"):
        shrink(bundle, *data(500, 5), max_loss=max_loss)
