"""The suite's own checks: engines that are broken on purpose are each caught, and the honest ones pass."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import planted
import pytest

from securead.bench import engine_case, soundness
from securead.bench.engine_case import Measured
from securead.bench.players import HalfFailedError
from securead.bench.records import Case
from securead.bench.repeats import repeat
from securead.checks import programs
from securead.models.bundle import Bundle, PublicModel, Threshold
from securead.privacy.statement import PrivacyStatement
from securead.program.program import Program
from securead.protocols.ckks import blind as ckks_blind
from securead.protocols.ckks import owner as ckks_owner
from securead.protocols.ckks import plan as ckks_plan
from securead.protocols.ckks.sanitise import Masks
from securead.protocols.engine import FloodReader

# Of each kind of breach, one is quick enough for every run.
LONG = ("slightly-off", "positions-scrambled", "not-sanitised", "old-mask", "says-less")


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """One repeat: times do not matter here."""
    monkeypatch.setattr(engine_case, "repeat", functools.partial(repeat, least=1, most=1, seconds=0.0))


def bundle_of(program: Program) -> Bundle:
    statement = PrivacyStatement(private=False)
    threshold = Threshold(1.0, "by hand")
    return Bundle(PublicModel("b", "b", program.public, threshold, statement, "2026-01-01", "0"), program.secret)


def measured(engine: str, program: Program, folder: Path, role: str = "same", **fields: object) -> Measured:
    case = Case("t", "score", "random", "none", engine=engine, role=role, batch=3, **fields)  # type: ignore[arg-type]
    X = np.random.default_rng(5).normal(size=(40, program.public.encoder.width)).clip(-4, 4)
    return engine_case.run(case, bundle_of(program), X, folder)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long if name in LONG else ()) for name in planted.PLANTED]
)
def test_a_broken_engine_is_caught_and_the_honest_one_is_not(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    planted.install(monkeypatch, tmp_path, name)
    found = measured(name, programs.small_tables(), tmp_path / "run")
    wanted = planted.PLANTED[name][1]
    assert any(failure.startswith(wanted) for failure in found.failures) if wanted else not found.failures, (
        found.failures
    )


@pytest.mark.parametrize(
    ("engine", "role"),
    [
        ("bfv", "split"),
        pytest.param("ckks", "same", marks=pytest.mark.long),
        pytest.param("ckks", "split", marks=pytest.mark.long),
    ],
)
def test_honest_engines_pass_and_every_byte_has_a_direction(engine: str, role: str, tmp_path: Path) -> None:
    program = programs.small_tables() if engine == "bfv" else programs.small_quadratic()
    found = measured(engine, program, tmp_path, role, link="lan")
    assert found.failures == ()
    pairs = {(each.sender, each.receiver, each.what) for each in found.traffic}
    reader = "client" if role == "same" else "key holder"
    wanted = {("client", "server", "records"), ("server", reader, "scores"), (reader, "server", "keys")}
    assert pairs == (wanted if role == "same" else wanted | {("key holder", "client", "keys")})
    assert {name for name, peak in found.peak_bytes if peak > 1 << 20} == {"client", "server", reader}
    phases = {(each.role, each.phase, each.offline) for each in found.timings}
    assert phases >= {("client", "encode and encrypt", False), ("server", "masks", True), (reader, "decrypt", False)}
    assert (found.rounds, found.security_bits) == (1, 128)
    assert found.predicted_seconds is not None
    assert found.delayed_seconds is not None
    assert found.delayed_seconds >= 2 * 0.0002


def test_a_half_that_does_not_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planted.install(monkeypatch, tmp_path, "honest")
    monkeypatch.setenv("PYTHONPATH", "")  # the other process does not find it
    with pytest.raises(HalfFailedError, match="planted_honest"):
        measured("honest", programs.small_tables(), tmp_path / "run")


def test_what_is_drawn_afresh_passes_and_what_is_not_is_told() -> None:
    rng = np.random.default_rng(3)
    one, again, other = (rng.bytes(50_000) for _ in range(3))
    assert not soundness.told_by((one, again, other), "x", "y")
    header = bytes(100)
    assert not soundness.told_by((header + one, header + again, header + other), "x", "y")
    shared, theirs = rng.bytes(16), rng.bytes(16)
    assert soundness.told_by((one + shared, again + shared, other + theirs), "x", "y")
    # Single bytes among random ones, too few for a run.
    arrays = [np.frombuffer(each, np.uint8).copy() for each in (one, again, other)]
    arrays[0][::100] = arrays[1][::100]
    assert soundness.told_by([each.tobytes() for each in arrays], "x", "y")
    assert soundness.told_by((one, again, other + b"0"), "x", "y")


@pytest.mark.parametrize("drawn", ["normal", "uniform"])
def test_the_check_of_floods_has_power(drawn: str) -> None:
    """It accepts the promised deviation and finds 2/3 and 3/2 of it; the seed is fixed, the rates are far from it."""
    rng = np.random.default_rng(8)
    rows = 64
    shape = (300, soundness.answers_for_flood(rows), rows)
    trials = rng.normal(size=shape) if drawn == "normal" else rng.uniform(-(3**0.5), 3**0.5, shape)
    constant = rng.normal(size=(300, 1, rows)) * 1e6  # what all answers to a request share
    caught = {share: np.mean([bool(soundness.flooded(share * t + c)) for t, c in zip(trials, constant, strict=True)])
              for share in (0, 2 / 3, 1, 3 / 2)}  # fmt: skip
    assert caught[0] == 1
    assert caught[1] == 0
    assert min(caught[2 / 3], caught[3 / 2]) > 0.98
    assert soundness.answers_for_flood(1) * 1 >= 64


def test_a_flood_that_roundings_cover_is_not_judged() -> None:
    """Four powers of a secret times a rounding: far more than this flood, which is below a score's last bit, too."""
    program = programs.autoencoder(4, 2)
    plan = ckks_plan.make_plan(program.public, "same")
    secret, _ = ckks_owner.generate_keys(plan)
    assert ckks_owner.make_decryptor(plan, secret).in_floods(b"", b"", 1) is None


def test_a_ckks_answer_without_its_flood_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    program = programs.small_quadratic()
    plan = ckks_plan.make_plan(program.public, "same")
    secret, public = ckks_owner.generate_keys(plan)
    key, evaluator = ckks_blind.read_evaluation_key(plan, public.to_bytes()), ckks_blind.make_evaluator(plan, program)
    Z, _ = program.public.encoder.encode(np.random.default_rng(1).normal(size=(64, program.public.encoder.width)))
    request = ckks_owner.make_encryptor(plan, secret).encrypt(Z)
    decryptor = ckks_owner.make_decryptor(plan, secret)
    assert isinstance(decryptor, FloodReader)

    def found() -> list[str]:
        count, first = soundness.answers_for_flood(64), evaluator.evaluate(request, key)
        return soundness.flooded(
            np.array([decryptor.in_floods(evaluator.evaluate(request, key), first, 64) for _ in range(count)])
        )

    assert found() == []
    draw = Masks.draw

    def half(masks: Masks) -> np.ndarray:
        """Digits of integers below 2**f: half the range."""
        digits = draw(masks)
        last, shift = divmod(masks._bits - 1, masks._digit)
        digits[last] &= (1 << shift) - 1
        return digits

    monkeypatch.setattr(Masks, "draw", half)
    key.refill(0)  # type: ignore[attr-defined]
    (words,) = found()
    share, _, _ = words.partition(" times its deviation")
    assert float(share.split()[-1]) == pytest.approx(0.5, abs=0.12)


@pytest.mark.parametrize("kind", ["<f8", ">f4", "<i8", ">i4"])
@pytest.mark.parametrize("by_column", [False, True])
def test_values_in_a_payload_are_found_in_any_usual_type(kind: str, by_column: bool) -> None:
    rng = np.random.default_rng(4)
    values = rng.integers(-(2**30), 2**30, (6, 8))
    layout = (values.T if by_column else values).astype(kind)
    payload = rng.bytes(1001) + layout.tobytes() + rng.bytes(500)
    assert soundness.plaintext(payload, "requests", values=values) == ["requests: holds values as they are"]
    assert not soundness.plaintext(rng.bytes(5000) + bytes(5000), "requests", values=values)


def test_bytes_that_the_system_saw_and_nobody_told_are_reported() -> None:
    assert not soundness.uncounted_traffic(100_000, 104_000, "the parties", frames=10)
    assert soundness.uncounted_traffic(100_000, 250_000, "the parties", frames=10)
    assert soundness.uncounted_traffic(100_000, 90_000, "the parties", frames=10)
    assert soundness.uncounted(100, 120, 200, "an answer")
    assert soundness.uncounted(120, 120, 100, "an answer")
