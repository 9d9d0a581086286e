"""A run that dies anywhere goes on where it stopped: a release is charged once and leaves its site in one form only."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from securead.data.schema import Schema
from securead.errors import FixConfigurationError, PrivacyRefusedError
from securead.federated.embedded import train
from securead.federated.messages import unpack
from securead.federated.participant import Site
from securead.models import bundle
from securead.models.autoencoder import AutoEncoder
from securead.models.training import State, Update
from securead.privacy.budget import Budget, Charge
from securead.privacy.plan import PrivacyPlan
from securead.privacy.site import Kept, Protected, Releaser

RNG = np.random.default_rng(4)
X = RNG.normal(size=(6000, 3)) @ RNG.normal(size=(3, 3))
SCHEMA = Schema.observed(X, widen=0.1)
PLAN = PrivacyPlan(epsilon=3.0, delta=1e-6)
STAGES = ["scaling", "records", "round-1", "check-1", "round-2", "check-2", "threshold"]
NAMES = ("a", "b")


class Died(BaseException):
    """Stands for the process's end: no `except Exception` notices it."""


class Watched(AutoEncoder):
    """Notes what left which site in which stage, and may die after so many of these updates."""

    sent: list[tuple[str, str, bytes]]
    after_update: Callable[[], None]

    def site_update(
        self, state: State, data: np.ndarray, releaser: Releaser, labels: np.ndarray | None = None
    ) -> Update:
        update = super().site_update(state, data, releaser, labels)
        if not isinstance(releaser, Protected):
            return update  # of made-up records, by which a site that forgot finds out shapes
        self.sent.append((state.stage, releaser.site, update.values.tobytes()))
        self.after_update()
        return update


class Run:
    """One training run in a folder, started as often as it takes."""

    def __init__(self, folder: Path, *, ledgers: bool = True, plan: PrivacyPlan = PLAN) -> None:
        self.folder, self.ledgers, self.plan = folder, ledgers, plan
        self.sent: list[tuple[str, str, bytes]] = []

    def start(self, *, records: np.ndarray = X, after_update: Callable[[], None] = lambda: None) -> AutoEncoder:
        # patience is more than there are rounds: every stage takes place
        detector = Watched(
            hidden=2, rounds=2, sampling_prob=0.1, patience=9, scaling="private", threshold="private", contamination=0.2
        )
        detector.sent, detector.after_update = self.sent, after_update
        parts = zip(NAMES, (records[:4000], records[4000:]), strict=True)
        sites = [Site(name, part, self.ledger(name) if self.ledgers else None) for name, part in parts]
        return train(detector, sites, SCHEMA, privacy=self.plan, checkpoint=self.folder / "running")

    def ledger(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def charged(self, name: str) -> list[str]:
        return [charge.purpose for charge in Budget(name, 3.0, 1e-6, path=self.ledger(name)).ledger.charges]

    def check(self, detector: AutoEncoder) -> None:
        """What must hold after the last start, wherever the earlier ones died."""
        forms = {(stage, site): set[bytes]() for stage in STAGES for site in NAMES}
        for stage, site, values in self.sent:
            forms[stage, site].add(values)
        assert {key: len(found) for key, found in forms.items()} == dict.fromkeys(forms, 1)
        if self.ledgers:
            for name in NAMES:
                assert self.charged(name) == STAGES
        assert [(step.stage, step.site) for step in detector.training_] == [(s, n) for s in STAGES for n in NAMES]
        told = [step.epsilon for step in detector.training_ if step.site == "a"]
        assert told == sorted(told)  # type: ignore[type-var]
        releases = {release.what.partition(":")[0]: release.times for release in detector.statement_.releases}
        assert sum(releases.values()) == len(STAGES)
        for site in detector.statement_.sites:
            assert site.epsilon == pytest.approx(WHOLE[0], rel=1e-9)
            assert site.spent == pytest.approx(WHOLE[0], rel=1e-9)


WHOLE: list[float] = []


@pytest.fixture(scope="module", autouse=True)
def _uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> None:
    run = Run(tmp_path_factory.mktemp("whole"))
    WHOLE.append(run.start().statement_.epsilon)  # type: ignore[arg-type]
    assert 2.98 < WHOLE[0] <= 3.0
    assert len(run.sent) == len(STAGES) * len(NAMES)


def deaths(counts: Sequence[int]) -> Callable[[], None]:
    """Dies at each of these calls, counted from 1."""
    calls = iter(range(1, 10**6))

    def call() -> None:
        if next(calls) in counts:
            raise Died

    return call


@pytest.mark.parametrize("ledgers", [True, False], ids=["ledgers", "no ledger"])
def test_death_after_any_update(tmp_path: Path, ledgers: bool) -> None:
    for k in range(1, len(STAGES) * len(NAMES) + 1):
        run = Run(tmp_path / str(k), ledgers=ledgers)
        with pytest.raises(Died):
            run.start(after_update=deaths([k]))
        assert len(run.sent) == k
        run.check(run.start())
        # The round that broke off is done again from the first site; earlier ones are not.
        assert len(run.sent) == len(STAGES) * len(NAMES) + (k - 1) % len(NAMES) + 1


def test_death_after_every_update_in_turn(tmp_path: Path) -> None:
    """A run that never gets further than one new update still ends, and costs no more."""
    run = Run(tmp_path)
    for _ in range(2 * len(STAGES) * len(NAMES)):
        seen = {(stage, site) for stage, site, _ in run.sent}

        def die_of_news(seen: set[tuple[str, str]] = seen) -> None:
            if run.sent[-1][:2] not in seen:
                raise Died

        try:
            detector = run.start(after_update=die_of_news)
        except Died:
            continue
        run.check(detector)
        return
    pytest.fail("the run made no progress")


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param("before a memory is written", marks=pytest.mark.long),
        pytest.param("after a memory is written", marks=pytest.mark.long),
        "after a charge",
    ],
)
def test_death_between_paying_and_keeping(tmp_path: Path, moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    put, charge = Kept.put, Budget.charge
    k = 0
    while True:
        k += 1
        die = deaths([k])

        def dying_put(self: Kept, name: str, array: np.ndarray, die: Callable[[], None] = die) -> np.ndarray:
            if moment.startswith("before"):
                die()
            kept = put(self, name, array)
            if moment.startswith("after a memory"):
                die()
            return kept

        def dying_charge(self: Budget, event: object, *, die: Callable[[], None] = die, **names: str) -> None:
            charge(self, event, **names)
            if moment == "after a charge" and names["job"] != "trial":
                die()

        run = Run(tmp_path / str(k))
        with monkeypatch.context() as patch:
            patch.setattr(Kept, "put", dying_put)
            patch.setattr(Budget, "charge", dying_charge)
            try:
                run.check(run.start())
                break  # there is no k-th such moment
            except Died:
                pass
        run.check(run.start())
    # Per site: an identity, that it has begun, coins, and for every stage a mark, a release and a charge.
    assert k - 1 == len(NAMES) * (len(STAGES) if moment == "after a charge" else 3 + 2 * len(STAGES))


@pytest.mark.parametrize("point", ["before", "after"])
def test_death_around_the_state_s_writing(tmp_path: Path, point: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from securead.federated.checkpoint import Checkpoint

    save = Checkpoint.save
    for k in range(1, len(STAGES) + 2):
        die, run = deaths([k]), Run(tmp_path / str(k))

        def dying(self: Checkpoint, state: State, steps: Sequence[object], die: Callable[[], None] = die) -> None:
            if point == "before":
                die()
            save(self, state, steps)  # type: ignore[arg-type]
            if point == "after":
                die()

        with monkeypatch.context() as patch:
            patch.setattr(Checkpoint, "save", dying)
            with pytest.raises(Died):
                run.start()
        run.check(run.start())


def test_a_mean_of_rounds_goes_on_with_all_of_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(folder: Path) -> np.ndarray:
        detector = AutoEncoder(hidden=2, rounds=4, sampling_prob=0.5, average_last=3, patience=9)
        whole = train(detector, [Site("a", X[:500]), Site("b", X[500:900])], SCHEMA, privacy=None, checkpoint=folder)
        return whole.values_["recent"]

    update = AutoEncoder.model_update

    def dying(self: AutoEncoder, state: State, Z: np.ndarray, releaser: Releaser) -> Update:
        if state.stage == "round-4":
            raise Died
        return update(self, state, Z, releaser)

    with monkeypatch.context() as patch:
        patch.setattr(AutoEncoder, "model_update", dying)
        with pytest.raises(Died):
            start(tmp_path / "broken")
    resumed = start(tmp_path / "broken")
    assert len(resumed) == 3
    assert np.array_equal(resumed, start(tmp_path / "whole"))


# --- what is no resumption ----------------------------------------------------------------------------------------


@pytest.fixture
def dead(tmp_path: Path) -> Run:
    """A run that died in its second stage, at its first site."""
    run = Run(tmp_path)
    with pytest.raises(Died):
        run.start(after_update=deaths([5]))
    assert [run.charged(name) for name in NAMES] == [STAGES[:3], STAGES[:2]]
    return run


def test_other_records_are_refused(dead: Run) -> None:
    other = X.copy()
    other[4500, 1] += 1e-9
    before = len(dead.sent)
    with pytest.raises(FixConfigurationError, match=r"site 'b'.*over other records"):
        dead.start(records=other)
    assert len(dead.sent) == before
    dead.check(dead.start())


def test_another_plan_or_detector_is_refused(dead: Run) -> None:
    folder, sites = dead.folder / "running", [Site(name, X) for name in NAMES]
    for detector, plan, schema in (
        (Watched(rounds=3), PLAN, SCHEMA),
        (Watched(rounds=2), PrivacyPlan(2.0, 1e-6), SCHEMA),
        (AutoEncoder(rounds=2), None, SCHEMA),
    ):
        with pytest.raises(FixConfigurationError, match="another run"):
            train(detector, sites, schema, privacy=plan, checkpoint=folder)
    assert dead.charged("a") == STAGES[:3]


def test_another_plan_is_refused_even_without_the_state(dead: Run) -> None:
    """What the sites kept belongs to the plan under which it was noised."""
    (dead.folder / "running" / "state.bin").unlink()
    with pytest.raises(FixConfigurationError, match="another run or over other records"):
        Run(dead.folder, ledgers=False, plan=PrivacyPlan(2.0, 1e-6)).start()


@pytest.mark.parametrize("lost", ["everything", "the mark", "the release and its mark"])
def test_a_release_that_was_paid_for_and_forgotten_is_refused(dead: Run, lost: str) -> None:
    memory = dead.folder / "running" / "site-0"
    if lost == "everything":
        shutil.rmtree(memory)
    else:
        (memory / "round-1.paid.npy").unlink()
        if lost != "the mark":
            (memory / "round-1.npy").unlink()
    sent = len(dead.sent)
    if lost == "the mark":
        dead.check(dead.start())  # the release itself is there
        return
    with pytest.raises(PrivacyRefusedError, match=r"'a' paid for 'round-1'.*is lost.*begin a new run"):
        dead.start()
    assert len(dead.sent) == sent
    assert dead.charged("a") == STAGES[:3]


def test_what_others_spent_meanwhile_counts(dead: Run) -> None:
    """A resumed run is refused before anything else leaves when its site can no longer pay for the rest."""
    import dp_accounting

    Budget("b", 9.0, 1e-6, path=dead.ledger("b")).charge(
        dp_accounting.GaussianDpEvent(5.0), job="other", purpose="moments"
    )
    sent = len(dead.sent)
    with pytest.raises(PrivacyRefusedError, match="'b'"):
        dead.start()
    assert len(dead.sent) == sent


# --- the command --------------------------------------------------------------------------------------------------

RECIPE = """
name = "m"
data = "records.csv"
[[sites]]
name = "a"
share = 2
ledger = "ledgers/a.json"
[[sites]]
name = "b"
ledger = "ledgers/b.json"
[detector]
type = "autoencoder"
hidden = 6
rounds = 6
patience = 6
sampling_prob = 0.008
[privacy]
epsilon = 2
delta = 1e-6
[schema]
[[schema.columns]]
names = ["x0", "x1", "x2", "x3", "x4", "x5", "x6", "x7"]
lower = -8
upper = 8
"""


def reached(folder: Path) -> str:
    """The stage that a run's state file names, "" where there is none yet."""
    try:
        header, _ = unpack((folder / "state.bin").read_bytes(), where="state.bin")
        return str(header["stage"])
    except FileNotFoundError:
        return ""


@pytest.mark.long
def test_a_killed_command_resumes(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    records = rng.normal(size=(8000, 4)) @ rng.normal(size=(4, 8)) * 0.5
    lines = [",".join(f"x{i}" for i in range(8)), *(",".join(f"{value:.4f}" for value in row) for row in records)]
    (tmp_path / "records.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "recipe.toml").write_text(RECIPE)
    command = [sys.executable, "-m", "securead", "train", "recipe.toml", "--out", "bundle"]
    running = tmp_path / "bundle.training"

    def again() -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False)

    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    while reached(running) not in ("round-3", "check-3"):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    _, said = process.communicate()
    assert process.returncode == -signal.SIGKILL, said
    stopped = reached(running)
    assert stopped < "round-5"
    assert running.stat().st_mode & 0o077 == 0
    assert not (tmp_path / "bundle").exists()

    def charges(name: str) -> list[Charge]:
        return list(Budget(name, 2.0, 1e-6, path=tmp_path / "ledgers" / f"{name}.json").ledger.charges)

    spent = {name: charges(name) for name in NAMES}
    (tmp_path / "recipe.toml").write_text(RECIPE.replace("rounds = 6", "rounds = 7"))
    refused = again()
    assert refused.returncode == 2
    assert "another run" in refused.stderr
    (tmp_path / "recipe.toml").write_text(RECIPE)
    (tmp_path / "records.csv").write_text("\n".join([*lines[:-1], lines[1]]) + "\n")
    refused = again()
    assert refused.returncode == 2
    assert "over other records" in refused.stderr
    for name in NAMES:
        # No more than the one stage that the kill may have hit between its mark, "paid", and the ledger.
        assert charges(name)[: len(spent[name])] == spent[name]
        assert len(charges(name)) <= len(spent[name]) + 1
    (tmp_path / "records.csv").write_text("\n".join(lines) + "\n")

    done = again()
    assert done.returncode == 0, done.stderr
    assert not running.exists()
    stages = ["records", *(f"{kind}-{n}" for n in range(1, 7) for kind in ("round", "check"))]
    for name in NAMES:
        assert [charge.purpose for charge in charges(name)] == stages
        assert len({charge.job for charge in charges(name)}) == 1
    privacy = bundle.load(tmp_path / "bundle").public.privacy
    assert privacy.epsilon is not None
    assert 1.9 < privacy.epsilon <= 2.0
    # A third time is a new run, which the ledgers do not allow.
    third = again()
    assert third.returncode == 2
    assert "Nothing was released" in third.stderr
