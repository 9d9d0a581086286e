"""The embedded executor beyond its conformance suite: property tests over splits, refusals, error places."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from securead import files
from securead.data.schema import Schema
from securead.errors import FixConfigurationError, FixInputError, PrivacyRefusedError
from securead.federated.embedded import train
from securead.federated.federation import Federation
from securead.federated.messages import unpack
from securead.federated.participant import Site
from securead.models.forest import IsolationForest
from securead.models.subspace import SubspaceDetector
from securead.privacy.plan import PrivacyPlan

RNG = np.random.default_rng(0)
X = RNG.normal(size=(400, 4)) @ RNG.normal(size=(4, 4))
SCHEMA = Schema.observed(X, widen=0.1)


@settings(max_examples=25)
@given(st.lists(st.integers(1, 399), min_size=1, max_size=6, unique=True), st.randoms(use_true_random=False))
def test_exact_training_does_not_see_the_split(cuts: list[int], random: object) -> None:
    whole = train(SubspaceDetector(scaling="private"), [Site("all", X)], SCHEMA, privacy=None)
    order = list(range(len(X)))
    random.shuffle(order)  # type: ignore[attr-defined]
    sites = [Site(f"s{i}", X[part]) for i, part in enumerate(np.split(np.array(order), sorted(cuts)))]
    split = train(SubspaceDetector(scaling="private"), sites, SCHEMA, privacy=None)
    assert np.array_equal(split.anomaly_score(X), whole.anomaly_score(X))


def test_progress_counts_every_site_and_round() -> None:
    seen: list[tuple[str, int, int]] = []
    train(
        SubspaceDetector(scaling="private"),
        [Site("a", X[:200]), Site("b", X[200:])],
        SCHEMA,
        privacy=None,
        progress=lambda *step: seen.append(step),
    )
    assert [step[1:] for step in seen] == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert seen[0][0] == "scaling at a"


def test_ill_formed_records_name_the_site() -> None:
    bad = X[:50].copy()
    bad[3, 2] = np.nan
    with pytest.raises(FixInputError, match=r"site 'b'.*row 3, column 'x2'"):
        train(SubspaceDetector(), [Site("a", X), Site("b", bad)], SCHEMA, privacy=None)


def test_a_spent_ledger_stops_the_run_before_anyone_releases(tmp_path: Path) -> None:
    plan = PrivacyPlan(epsilon=1.0, delta=1e-6)
    rich, poor = Site("rich", X, tmp_path / "rich.json"), Site("poor", X, tmp_path / "poor.json")
    train(SubspaceDetector(), [poor], SCHEMA, privacy=plan)
    with pytest.raises(PrivacyRefusedError, match="'poor'"):
        train(SubspaceDetector(), [rich, poor], SCHEMA, privacy=plan)
    assert not (tmp_path / "rich.json").exists()


def test_the_coordinator_sees_only_noised_sums(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every update that reaches the coordinator differs from the exact one in every entry that noise can reach."""
    from securead.federated.messages import Answer, Ask
    from securead.federated.participant import Participant
    from securead.privacy.site import Unprotected

    detector, checked, honest = SubspaceDetector(), 0, Participant.answer

    def watch(self: Participant, ask: Ask) -> Answer:
        nonlocal checked
        answer = honest(self, ask)
        if ask.kind == "prepare":
            exact = detector.site_update(self.state, self.site.X, Unprotected()).values
            assert (answer.values != exact).mean() > 0.999
            checked += 1
        return answer

    monkeypatch.setattr(Participant, "answer", watch)
    train(detector, [Site("a", X[:200]), Site("b", X[200:])], SCHEMA, privacy=PrivacyPlan(epsilon=4.0, delta=1e-6))
    assert checked == 2


@pytest.mark.parametrize("scaling", ["schema", "private"])
@pytest.mark.parametrize("masked", [False, True])
def test_without_a_seed_all_sites_draw_one_geometry(scaling: str, masked: bool, tmp_path: Path) -> None:
    """Counts over different splits would add up to nonsense."""
    detector = IsolationForest(n_estimators=7, depth=3, random_state=None, scaling=scaling)
    federation = Federation(aggregation="masked" if masked else "plain")
    sites = [Site("a", X[:150]), Site("b", X[150:])]
    train(detector, sites, SCHEMA, privacy=None, federation=federation, checkpoint=tmp_path / "run")
    assert detector.random_state is None
    run = int(unpack((tmp_path / "run" / "state.bin").read_bytes(), where="state")[0]["run"], 16)
    same = IsolationForest(n_estimators=7, depth=3, scaling=scaling, random_state=run)
    train(same, [Site("all", X)], SCHEMA, privacy=None)
    assert np.array_equal(same.anomaly_score(X), detector.anomaly_score(X))


def test_a_folder_of_somebody_else_s_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "records.npy").write_bytes(b"precious")
    with pytest.raises(FixConfigurationError, match="holds other files"):
        train(SubspaceDetector(), [Site("a", X)], SCHEMA, privacy=None, checkpoint=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["records.npy"]


def test_two_runs_cannot_share_a_folder(tmp_path: Path) -> None:
    with (
        files.held(tmp_path / "run", "state.bin"),
        pytest.raises(FixConfigurationError, match="another process uses"),
    ):
        train(SubspaceDetector(), [Site("a", X)], SCHEMA, privacy=None, checkpoint=tmp_path / "run")
