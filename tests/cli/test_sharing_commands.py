"""The commands of secret sharing: what they teach, and what they refuse."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from small_model import small_bundle

from securead import cli

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """A command in this process: its exit code and what it said."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("SECUREAD_PASSPHRASE", raising=False)

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["securead", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        return (caught.value.code if isinstance(caught.value.code, int) else 0, *capsys.readouterr())

    return run


@pytest.mark.parametrize("command", ["split", "dealer", "party"])
def test_help_teaches(call: Call, command: str) -> None:
    code, out, _ = call(command, "--help")
    assert code == 0
    assert "Example" in out
    assert f"securead {command}" in out
    assert "until-stdin" not in out


def test_score_knows_both_ways(call: Call) -> None:
    _, out, _ = call("score", "--help")
    assert "--parties" in out
    assert "--server" in out


def test_split(call: Call, tmp_path: Path) -> None:
    bundle = small_bundle().save(tmp_path / "bundle")
    code, _, err = call("split", bundle, "--out", tmp_path / "shared", "--verdicts-only")
    assert code == 0
    assert "split tiny" in err
    assert "verdicts only" in err
    assert "do not collude" in err
    code, _, err = call("split", bundle, "--out", tmp_path / "shared")
    assert code == 2
    assert "holds a split already" in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--engine", "sharing"), "go together"),
        (("--parties", "c.toml"), "go together"),
        (("--engine", "bfv", "--parties", "c.toml"), "go together"),
        (("--engine", "sharing", "--parties", "c.toml", "--server", "https://x"), "are for a service"),
        (("--engine", "sharing", "--parties", "c.toml", "--keys", "k"), "are for a service"),
        (("--server", "https://x", "--model", "m", "--verdicts"), "--verdicts is for"),
        (("--server", "https://x"), "who is to score is missing"),
        ((), "who is to score is missing"),
        (("--engine", "sharing", "--parties", "missing.toml"), "cannot read missing.toml"),
    ],
)
def test_contradictions(call: Call, tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    code, _, err = call("score", tmp_path / "data.csv", "--out", tmp_path / "out.csv", *arguments)
    assert code == 2
    assert said in err


def test_nothing_is_overwritten(call: Call, tmp_path: Path) -> None:
    config = tmp_path / "client.toml"
    code, _, err = call("score", "d.csv", "--engine", "sharing", "--parties", config, "--out", config)
    assert code == 2
    assert "overwrite" in err or "what is read" in err


@pytest.mark.parametrize("arguments", [("dealer",), ("party", "--index", "0"), ("party", "--index", "1")])
def test_a_wrong_configuration(call: Call, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    config = tmp_path / "it.toml"
    config.write_text('identity = "certs"\nwhat = 1\n')
    code, _, err = call(*arguments, config)
    assert code == 2
    assert "unknown entry 'what'" in err
    assert str(config) in err
