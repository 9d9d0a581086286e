"""TOML files are read strictly, and an error names the file, the entry and the remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from securead.client.parties import PartiesConfig
from securead.errors import FixConfigurationError, FixInputError
from securead.protocols.sharing.dealer import DealerConfig
from securead.protocols.sharing.settings import load_party, read_toml

BASE = 'model = "party0.model"\nidentity = "certs/party0"\ndealer = "10.0.0.5:7000"\n'


def written(folder: Path, text: str) -> Path:
    path = folder / "party.toml"
    path.write_text(text)
    return path


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    config = load_party(written(tmp_path, BASE + 'port = 7100\nlanes = 3\nclients = ["bank-a"]\n'), 0)
    assert config.model == str(tmp_path / "party0.model")
    assert config.identity == str(tmp_path / "certs" / "party0")
    assert config.dealer_address == ("10.0.0.5", 7000)
    assert [config.port_of(lane) for lane in range(3)] == [7100, 7101, 7102]
    assert config.clients == ("bank-a",)


def test_party_1_calls_the_leader(tmp_path: Path) -> None:
    config = load_party(written(tmp_path, BASE + 'leader = "[::1]:7100"\n'), 1)
    assert config.leader_of(2) == ("::1", 7102)
    assert config.port_of(0) == 0


WRONG: dict[str, tuple[str, str]] = {
    "no TOML": ("model = ", "no TOML"),
    "unknown": (BASE + "ports = 3\n", "unknown entry 'ports'"),
    "missing": ('model = "party0.model"\n', "'dealer' is missing"),
    "type": (BASE + 'port = "7100"\n', "port: expected an integer"),
    "port": (BASE + "port = 70000\n", "entry 'port' is wrong"),
    "lanes": (BASE + "port = 7000\nlanes = 0\n", "entry 'lanes' is wrong"),
    "lanes without a port": (BASE + "lanes = 2\n", "entry 'port' is wrong"),
    "address": (BASE.replace(":7000", ""), "HOST:PORT"),
    "client": (BASE + 'clients = ["Bank A"]\n', "entry 'clients' is wrong"),
    "silence": (BASE + "silence_seconds = 0\n", "entry 'silence_seconds' is wrong"),
    "a beat's silence": (BASE + "silence_seconds = 1.0\n", "entry 'silence_seconds' is wrong"),
    "infinite": (BASE + "silence_seconds = inf\n", "finite"),
    "leader at the leader": (BASE + 'leader = "10.0.0.6:7100"\n', "Only party 1 has this entry"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_said(tmp_path: Path, name: str) -> None:
    text, said = WRONG[name]
    path = written(tmp_path, text)
    with pytest.raises(FixConfigurationError) as caught:
        load_party(path, 0)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


def test_party_1_needs_the_leader(tmp_path: Path) -> None:
    with pytest.raises(FixConfigurationError, match="leader"):
        load_party(written(tmp_path, BASE), 1)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(FixInputError, match="cannot read"):
        load_party(tmp_path / "none.toml", 0)


def test_the_others(tmp_path: Path) -> None:
    dealer = read_toml(
        DealerConfig, written(tmp_path, 'program = "p.json"\nidentity = "d"\n'), paths=DealerConfig.PATHS
    )
    assert (dealer.program, dealer.identity) == (str(tmp_path / "p.json"), str(tmp_path / "d"))
    text = 'party0 = "a:1"\nparty1 = "b:2"\nidentity = "i"\nmodel = "m"\n'
    client = PartiesConfig.read(written(tmp_path, text))
    assert (client.model, client.lanes) == (str(tmp_path / "m"), 1)
    for wrong in ("lanes = 0\n", "patience = -1\n", "party2 = 1\n", 'server = "x"\n'):
        with pytest.raises(FixConfigurationError):
            PartiesConfig.read(written(tmp_path, text + wrong))
