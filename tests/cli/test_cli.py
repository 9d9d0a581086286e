"""The command line without a service: help that teaches, errors without tracebacks, passphrases never in arguments."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from small_model import ROOT, Run, records, securead, small_bundle, write_csv

from securead import __version__, cli
from securead.cli import options, screen
from securead.client.keys import make_keys
from securead.client.results import Summary
from securead.errors import FixInputError

COMMANDS = ("plan", "serve", "keygen", "encrypt", "submit", "decrypt", "score", "share", "inspect")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle, keys of both roles, records and a request."""
    folder = tmp_path_factory.mktemp("place")
    bundle = small_bundle()
    bundle.save(folder / "bundle")
    for role in ("same", "split"):
        make_keys(bundle.public, role).save(folder / role)  # type: ignore[arg-type]
    write_csv(folder / "data.csv", records(30))
    return folder


def test_version() -> None:
    ended = securead("--version")
    assert (ended.returncode, ended.stdout) == (0, f"securead {__version__}\n")


def test_help_lists_the_commands(run: Run) -> None:
    ended = run("--help")
    assert ended.returncode == 0
    listed = [
        ended.stdout.index(f"│ {command} ", ended.stdout.index("Commands")) for command in ("train", *COMMANDS, "demo")
    ]
    assert listed == sorted(listed), "in the order in which they are used"


def test_help_shows_brackets_as_they_are(run: Run) -> None:
    assert "[[sites]]" in run("train", "--help").stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches(run: Run, command: str) -> None:
    ended = run(command, "--help")
    assert ended.returncode == 0
    assert "Example" in ended.stdout
    assert f"securead {command}" in ended.stdout
    assert "\b" not in ended.stdout
    assert "passphrase TEXT" not in ended.stdout.lower()


def test_starting_is_light() -> None:
    script = (
        "import sys, securead.cli\n"
        "heavy = ('numpy', 'httpx', 'fastapi', 'uvicorn', 'tenseal', 'torch', 'sklearn')\n"
        "print([module for module in heavy if module in sys.modules])"
    )
    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout.strip() == "[]"


def test_errors_leave_no_traceback() -> None:
    ended = securead("inspect", "no-such-thing")
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: no-such-thing is nothing securead wrote")
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""


WRONG: dict[str, tuple[tuple[str, ...], str]] = {
    "no such data": (("encrypt", "{}/missing.csv", "--keys", "{}/same", "--out", "{}/x"), "missing.csv"),
    "no known kind": (("encrypt", "{}/bundle/public.json", "--keys", "{}/same", "--out", "{}/x"), "no known kind"),
    "no keys": (("encrypt", "{}/data.csv", "--keys", "{}/bundle", "--out", "{}/x"), "no key directory"),
    "public half only": (("decrypt", "{}/data.csv", "--keys", "{}/split/public", "--out", "{}/x"), "no secret key"),
    "no message": (("decrypt", "{}/data.csv", "--keys", "{}/split", "--out", "{}/x"), "no securead message"),
    "not a request": (("submit", "{}/data.csv", "--server", "http://127.0.0.1:9", "--out", "{}/x"), "no securead"),
    "no request": (("submit", "{}/none", "--server", "http://127.0.0.1:9", "--out", "{}/x"), "cannot read"),
    "http elsewhere": (
        ("score", "{}/data.csv", "--server", "http://example.org", "--model", "tiny", "--out", "{}/x"),
        "https://",
    ),
    "keys exist": (
        ("keygen", "--server", "http://127.0.0.1:9", "--patience", "0", "--model", "tiny", "--out", "{}/same"),
        "exists already",
    ),
    "no service": (
        ("keygen", "--server", "http://127.0.0.1:9", "--patience", "0", "--model", "tiny", "--out", "{}/x"),
        "gave up after 0 s",
    ),
    "no bundle": (("serve", "{}/same", "--no-tls"), "not a bundle"),
    "no bundle to inspect": (("inspect", "{}"), "nothing securead wrote"),
    "foreign file": (("inspect", "{}/data.csv"), "Give a bundle, a key directory"),
    "secret half": (("inspect", "{}/bundle/secret.json"), "is a secret"),
    "secret key": (("inspect", "{}/same/secret/secret.key"), "is a secret"),
    "over the records": (("encrypt", "{}/data.csv", "--keys", "{}/same", "--out", "{}/data.csv"), "what is read"),
    "over the keys": (
        ("encrypt", "{}/data.csv", "--keys", "{}/same", "--out", "{}/same/secret/secret.key"),
        "overwrite the keys",
    ),
    "scores over the records": (
        ("score", "{}/data.csv", "--server", "http://127.0.0.1:9", "--model", "tiny", "--out", "{}/./data.csv"),
        "what is read",
    ),
    "scores over the answer": (("decrypt", "{}/data.csv", "--keys", "{}/same", "--out", "{}/data.csv"), "what is read"),
    "a folder for scores": (
        ("score", "{}/data.csv", "--server", "http://127.0.0.1:9", "--model", "tiny", "--out", "{}/bundle"),
        "Is a directory",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said(run: Run, place: Path, name: str) -> None:
    arguments, reason = WRONG[name]
    ended = run(*(a.replace("{}", str(place)) for a in arguments))
    assert ended.returncode == 2
    assert reason in ended.stderr
    assert ended.stderr.startswith("error: ")
    assert ended.stdout == ""
    assert not (place / "x").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_under_standard_output_is_said(place: Path) -> None:
    command = [sys.executable, "-m", "securead", "inspect", str(place / "bundle")]
    with open("/dev/full", "w") as full:
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: cannot write the output: No space left")
    assert "Traceback" not in ended.stderr


def test_an_interruption_is_said(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(**_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "app", interrupted)
    ended = run("inspect", "x")
    assert (ended.returncode, ended.stderr) == (130, "interrupted\n")


def test_usage_errors_exit_with_2(run: Run) -> None:
    assert run("score").returncode == 2
    assert run("nonsense").returncode == 2


def test_interruption_exits_with_130(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("securead.client.keys.read_record", interrupted)
    assert run("inspect", ROOT / "tests").returncode == 2
    monkeypatch.setattr("securead.client.messages.existing_file", interrupted)
    assert run("inspect", ROOT / "pyproject.toml").returncode == 130


def test_inspect_a_bundle(run: Run, place: Path) -> None:
    ended = run("inspect", place / "bundle")
    assert ended.returncode == 0
    for word in (
        "Model tiny",
        small_bundle().public.program.encoder.schema.names[3],
        "Engine ckks, role same",
        "Engine ckks, role split",
        "128 bits",
        "NO privacy guarantee",
        "20 honest scores",
        "threshold",
        "product",
    ):
        assert word in ended.stdout, word


def test_inspect_keys_and_messages(run: Run, place: Path, tmp_path: Path) -> None:
    for half in ("", "public", "secret"):
        ended = run("inspect", place / "split" / half)
        assert ended.returncode == 0
        assert "role" in ended.stdout
        assert "split" in ended.stdout
    ended = run("encrypt", place / "data.csv", "--keys", place / "same", "--out", tmp_path / "request", "--json")
    summary = json.loads(ended.stdout)
    assert summary["rows"] == 30
    assert summary["bytes"] == (tmp_path / "request").stat().st_size
    assert summary["clipped"] == 0
    assert summary["server_seconds"] is None
    assert "Keep" in ended.stderr
    ended = run("inspect", tmp_path / "request")
    assert ended.returncode == 0
    assert summary["request"] in ended.stdout
    assert "1 of 1" in ended.stdout


def test_passphrases(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("SECUREAD_PASSPHRASE", raising=False)
    assert options.passphrase(None) is None
    monkeypatch.setenv("SECUREAD_PASSPHRASE", "from the environment")
    assert options.passphrase(None) == "from the environment"
    file = tmp_path / "words"
    file.write_text("from the file\nsecond line\n")
    assert options.passphrase(file) == "from the file"
    for empty in ("", "\n", "\nsecond"):
        file.write_text(empty)
        with pytest.raises(FixInputError, match="first line"):
            options.passphrase(file)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(FixInputError, match="no text"):
        options.passphrase(file)


# What is said on the screen.


def test_the_last_line(capsys: pytest.CaptureFixture[str]) -> None:
    summary = Summary(
        1234, 1, 2.0, 5_000_000, {"amount": 3, "[bold]": 4}, anomalies=7, server_seconds=0.5, notes=("Hm.",)
    )
    screen.finish(summary, "scored", Path("out.csv"), as_json=True)
    out, err = capsys.readouterr()
    assert "scored 1,234 rows in 2.00 s, 5 MB; 7 anomalies; 0.50 s of the service's CPU -> out.csv" in err
    assert "7 values lay out of bounds and were moved to them: amount 3, [bold] 4" in err
    assert "Hm." in err
    plain = json.loads(out)
    assert plain["clipped"] == 7
    assert plain["clipped_columns"] == {"amount": 3, "[bold]": 4}
    assert plain["rows"] == 1234


def test_progress_shows_on_a_terminal_after_two_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(screen, "console", lambda: Console(file=stream, force_terminal=True, width=100))
    now = 100.0
    monkeypatch.setattr(screen.time, "monotonic", lambda: now)
    with screen.ProgressBar() as bar:
        bar.rows("submit", 10, 100)
        assert stream.getvalue() == ""
        now += 3
        bar.rows("submit", 50, 100)
        bar.waiting("http://x refuses connections; trying for another 9 s")
    assert "50 of 100 rows" in stream.getvalue()
    assert "refuses connections" in stream.getvalue()


def test_progress_is_quiet_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(screen, "console", lambda: Console(file=stream, force_terminal=False, width=100))
    monkeypatch.setattr(screen, "PATIENT_SECONDS", 0.0)
    with screen.ProgressBar() as bar:
        bar.rows("submit", 50, 100)
        for left in (9, 8, 7):
            bar.waiting(f"http://x refuses connections; trying for another {left} s")
    assert stream.getvalue().count("refuses connections") == 1
    assert "50" not in stream.getvalue()


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 kB"), (2_500_000, "2.5 MB"), (3 * 10**9, "3 GB")],
)
def test_sizes(count: int, text: str) -> None:
    assert screen.size(count) == text
