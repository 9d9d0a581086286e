"""`securead coordinator` and `securead site` before anything travels, and what people see while a run lasts."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest
from institutions import BANKS, COLUMNS, recipe, records
from rich.console import Console

from securead import cli
from securead.certificates import issue
from securead.cli.federation import ended_by_signals
from securead.cli.rounds import Rounds
from securead.federated.events import Answered, Joined, Left, RoundBegan, RoundDone, Waiting

pytest.importorskip("flwr")


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["securead", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A recipe, certificates and one bank's records."""
    recipe(tmp_path / "recipe.toml")
    issue(tmp_path / "certs", ("coordinator", *BANKS, "bank-x"))
    rows = [",".join(map(repr, map(float, row))) for row in records("bank-a", 50)]
    (tmp_path / "bank-a.csv").write_text("\n".join([",".join(COLUMNS), *rows]) + "\n")
    return tmp_path


def site(folder: Path, *more: object, certs: str = "bank-a") -> tuple[object, ...]:
    return (
        *("site", folder / "recipe.toml", "--data", folder / "bank-a.csv", "--certs", folder / "certs" / certs),
        *("--folder", folder / "memory", "--coordinator", "127.0.0.1:9", "--patience", "0.2", *more),
    )


def coordinator(folder: Path, *more: object, certs: str = "coordinator") -> tuple[object, ...]:
    return (
        *("coordinator", folder / "recipe.toml", "--certs", folder / "certs" / certs),
        *("--out", folder / "fraud", "--wait", "0.2", *more),
    )


@pytest.mark.parametrize("command", ["coordinator", "site"])
def test_help_teaches(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], command: str) -> None:
    assert run(monkeypatch, command, "--help") == 0
    shown = capsys.readouterr().out
    assert "securead site fraud.toml --certs bank-a" in shown
    assert "--until-stdin-closes" not in shown


def test_a_coordinator_that_nobody_comes_to(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    before = signal.getsignal(signal.SIGTERM)
    assert run(monkeypatch, *coordinator(folder)) == 2
    shown = capsys.readouterr()
    assert shown.out.startswith("securead coordinator listens at 127.0.0.1:")
    assert "waiting for bank-a, bank-b, bank-c" in shown.err
    assert "only 0 of at least 2 sites came" in shown.err
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_site_that_nobody_answers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    assert run(monkeypatch, *site(folder)) == 2
    shown = capsys.readouterr().err
    assert "waiting: the coordinator at 127.0.0.1:9 cannot be reached" in shown
    assert "gave up" in shown
    assert (folder / "memory").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--coordinator", "nowhere"), "an address is HOST:PORT"),
        (("--data", "missing.csv"), "cannot read"),
        (("--certs", "missing"), "cannot read"),
    ],
)
def test_what_is_wrong_at_a_site(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    folder: Path,
    arguments: tuple[str, str],
    said: str,
) -> None:
    assert run(monkeypatch, *site(folder, *arguments)) == 2
    assert said in capsys.readouterr().err


def test_names_that_do_not_fit(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    assert run(monkeypatch, *site(folder, certs="bank-x")) == 2
    assert "the recipe has no site of this name (got 'bank-x')" in capsys.readouterr().err
    assert run(monkeypatch, *coordinator(folder, certs="bank-a")) == 2
    assert "the coordinator's certificate is for the name 'coordinator'" in capsys.readouterr().err


def test_recipes_that_leave_something_open(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    path = folder / "recipe.toml"
    whole = path.read_text()
    path.write_text(whole.partition("[schema]")[0])
    assert run(monkeypatch, *coordinator(folder)) == 2
    assert "agree on the bounds of every column beforehand" in capsys.readouterr().err
    path.write_text(whole.replace("bank-b", "bank-a"))
    assert run(monkeypatch, *coordinator(folder)) == 2
    assert "the recipe names the sites, each once" in capsys.readouterr().err


EVENTS = (
    Waiting(("bank-a", "bank-b"), 300.0),
    Joined("bank-a"),
    Joined("bank-b"),
    RoundBegan(1, 2, "counts", 2, (("bank-a", "bank-b"),)),
    Answered("bank-a", "prepare", 0.25, 1.5, 0.125, 1000, 2_000_000),
    Left("bank-b", "no answer in 60 s"),
    RoundDone(1, "counts", 2.0, 0.5, (("bank-a",),), ()),
)


def test_rounds_are_lines_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with Rounds(("bank-a", "bank-b")) as rounds:
        for event in EVENTS:
            rounds(event)
        rounds.said("bank-b: its app failed: ValueError")
    assert capsys.readouterr().err.splitlines() == [
        "waiting for bank-a, bank-b: 300 s until the run begins without",
        "bank-a takes part",
        "bank-b takes part",
        "round 1 of 2: counts, attempt 2, among bank-a, bank-b",
        "bank-b takes no part: no answer in 60 s",
        "round 1 (counts) took 2.0 s, loss 0.5, bounded bank-a",
        "bank-b: its app failed: ValueError",
    ]


def test_rounds_are_a_table_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    with (Path("/dev/null")).open("w") as nowhere:
        screen = Console(file=nowhere, force_terminal=True, width=120, record=True)
        monkeypatch.setattr("securead.cli.rounds.console", lambda: screen)
        with Rounds(("bank-a", "bank-b")) as rounds:
            for event in EVENTS:
                rounds(event)
        shown = screen.export_text()
    (a,) = (line for line in shown.splitlines()[-6:] if line.startswith("bank-a"))
    assert a.split() == ["bank-a", "computed", "0.2", "0.125", "1.5", "1", "kB", "2", "MB"]
    assert "round 1 of 2: counts, attempt 2" in shown
    assert "no answer in 60 s" in shown
    assert "left, at most, loss 0.5" in shown


def test_interrupts_end_the_block_where_a_shell_had_them_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            with pytest.raises(KeyboardInterrupt), ended_by_signals(False):
                signal.raise_signal(number)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
