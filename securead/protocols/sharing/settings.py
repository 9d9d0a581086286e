"""The TOML files of the processes: strict, and every error names the entry and what to write there.

Paths in a file are relative to the file. No file holds a secret: passphrases come from the command line's usual places.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from securead import codec, files
from securead.errors import FixConfigurationError, FixInputError
from securead.protocols.sharing.links import NAME, Address, parse_address

MAX_BYTES = 64 << 10
T = TypeVar("T")


def read_toml(kind: type[T], path: Path | str, *, paths: tuple[str, ...] = ()) -> T:
    """Read a dataclass from a TOML file whose entries are its fields; `paths` names those that are paths.

    Raises `FixConfigurationError` that names the file and the entry: unknown, missing, or of a wrong type or value.
    """
    path = Path(path)
    content = files.read_bytes(path, limit=MAX_BYTES)
    try:
        plain = tomllib.loads(content.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise FixConfigurationError(
            f"this is no TOML: {error}", where=str(path), remedy="Write entries as NAME = VALUE, text in quotes."
        ) from error
    for name in paths:
        if isinstance(plain.get(name), str):
            plain[name] = str(path.parent / plain[name])
    try:
        return codec.from_plain(kind, plain, where=str(path))
    except FixInputError as error:
        raise FixConfigurationError(error.what, where=error.where, value=error.value, remedy=error.remedy) from error
    except FixConfigurationError as error:
        if not error.where.startswith(str(path)):
            error.where = f"{path}.{error.where}"
        raise


@dataclass(frozen=True)
class PartyConfig:
    """One party's TOML file.

    `model`: the party's half, as `securead split` wrote it. `identity`: a directory that `securead certs` made. Lane k
    listens at `port` + k; 0, for a single lane, lets the system choose. `leader`: where party 0 listens, which party 1
    dials; party 0 leaves it out. `dealer`: where the dealer listens. `clients`: names of the certificates that may ask;
    none means any of this authority. `silence_seconds`: a peer that says nothing for so long is given up.
    `connections`: clients that a lane holds at a time, half of them of one name at most; more are told that it is busy.
    `stock_bytes`: correlations that the leader keeps ahead of demand.
    """

    model: str
    dealer: str
    identity: str
    host: str = "127.0.0.1"
    port: int = 0
    lanes: int = 1
    leader: str | None = None
    clients: tuple[str, ...] = ()
    silence_seconds: float = 3.0
    connections: int = 16
    stock_bytes: int = 256 << 20

    PATHS = ("model", "identity")

    def __post_init__(self) -> None:
        _require(0 <= self.port <= 65535, "port", self.port, "Write 1 to 65535, or 0 to let the system choose.")
        _require(1 <= self.lanes <= 64, "lanes", self.lanes, "Write 1 to 64.")
        _require(
            self.lanes == 1 or 1 <= self.port <= 65536 - self.lanes,
            "port",
            self.port,
            "Several lanes need a port of their own each, from this one on: write the first.",
        )
        for name, text in (("dealer", self.dealer), ("leader", self.leader)):
            if text is not None:
                parse_address(text, where=name)
        for name in self.clients:
            _require(NAME.fullmatch(name) is not None, "clients", name, "Write names as `securead certs` made them.")
        # The parties tell each other once a second that they are there.
        _require(2 <= self.silence_seconds <= 60, "silence_seconds", self.silence_seconds, "Write 2 to 60.")
        _require(1 <= self.connections <= 256, "connections", self.connections, "Write 1 to 256.")
        _require(0 <= self.stock_bytes <= 1 << 36, "stock_bytes", self.stock_bytes, "Write a number of bytes.")

    def for_index(self, index: int) -> PartyConfig:
        """Itself, once it is clear that it has what party `index` needs."""
        _require(
            (self.leader is None) == (index == 0),
            "leader",
            self.leader,
            'Only party 1 has this entry: where it finds party 0, such as leader = "10.0.0.7:7100".',
        )
        return self

    def port_of(self, lane: int) -> int:
        """Where lane `lane` listens."""
        return self.port + lane if self.port else 0

    @property
    def dealer_address(self) -> Address:
        """Where the dealer listens."""
        return parse_address(self.dealer, where="dealer")

    def leader_of(self, lane: int) -> Address:
        """Where party 1 finds lane `lane` of the leader."""
        host, port = parse_address(self.leader or "", where="leader")
        return host, port + lane


def load_party(path: Path | str, index: int) -> PartyConfig:
    """The TOML file of party `index`."""
    config = read_toml(PartyConfig, path, paths=PartyConfig.PATHS)
    try:
        return config.for_index(index)
    except FixConfigurationError as error:
        error.where = str(path)
        raise


def _require(sound: bool, name: str, value: object, remedy: str) -> None:
    if not sound:
        raise FixConfigurationError(f"the entry {name!r} is wrong", value=value, remedy=remedy)
