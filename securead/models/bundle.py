"""Bundles: a trained model on disk, its public half apart from its secret half.

    bundle/
      public.json    what a data owner gets: program shape, schema, scales, threshold, privacy statement
      secret.json    the integer weights, mode 0600, sealed with a passphrase when asked

Reading the public half needs neither scikit-learn nor torch.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from securead import __version__, codec, files
from securead.data.schema import Array
from securead.errors import FixConfigurationError, FixInputError
from securead.privacy.statement import PrivacyStatement
from securead.program.program import Program, PublicProgram, SecretProgram
from securead.program.storage import secret_from_bytes, secret_to_bytes

PUBLIC_FILE, SECRET_FILE = "public.json", "secret.json"
MAX_PUBLIC_BYTES, MAX_SECRET_BYTES = 16 << 20, 1 << 30


@dataclass(frozen=True)
class Threshold:
    """Scores above `value` are anomalies. `origin` says where it comes from, for people.

    `share`: the share of training records above it where that was counted: of all, or of those that are no known
    anomalies. (`low`, `high`) covers the share among further records like them with about 95 % confidence.
    """

    value: float
    origin: str
    share: float | None = None
    low: float | None = None
    high: float | None = None

    def in_words(self) -> str:
        """Where it comes from and what it flags."""
        if self.share is None or self.low is None or self.high is None:
            return self.origin
        within = f"{self.low:.3%} to {self.high:.3%}"
        return f"{self.origin}; {self.share:.3%} of them lie above it (95 % interval {within})"


@dataclass(frozen=True)
class PublicModel:
    """What anyone who wants records scored may see of a model."""

    name: str
    detector: str
    program: PublicProgram
    threshold: Threshold
    privacy: PrivacyStatement
    created: str
    version: str

    def __post_init__(self) -> None:
        if not check_name(self.name):
            raise FixConfigurationError(
                "a model's name is 1 to 64 letters, digits, '-', '_' or '.'",
                value=self.name,
                remedy="Choose another name.",
            )

    @property
    def digest(self) -> str:
        """SHA-256 over all of it: what two people compare to know that they talk about one model."""
        return codec.digest(self, domain="securead.models.public.v1")

    def is_anomaly(self, scores: Array) -> Array:
        """Booleans `(n,)`: scores above the threshold."""
        return scores > self.threshold.value


def check_name(name: str) -> bool:
    """Whether `name` can name a model in files and addresses."""
    allowed = all(c.isascii() and (c.isalnum() or c in "-_.") for c in name)
    return 1 <= len(name) <= 64 and allowed and not name.startswith(".")


@dataclass(frozen=True, eq=False)
class Bundle:
    """Both halves, as the model owner holds them."""

    public: PublicModel
    secret: SecretProgram = field(repr=False)

    @property
    def program(self) -> Program:
        """The program with its weights; raises `FixInputError` when the halves do not belong together."""
        return Program(self.public.program, self.secret)

    def save(self, directory: Path | str, *, passphrase: str | None = None) -> Path:
        """Write both halves; the secret one first, so that a public half never stands alone after a crash."""
        directory = Path(directory)
        files.write_secret(directory / SECRET_FILE, secret_to_bytes(self.secret), passphrase=passphrase)
        files.write_json(directory / PUBLIC_FILE, codec.to_plain(self.public))
        return directory


class Compilable(Protocol):
    """A fitted detector, as far as a bundle cares."""

    calibration_: Threshold
    statement_: PrivacyStatement

    def compile(self, *, ring_bits: int | None = None) -> Program: ...


def make(detector: Compilable, name: str, *, ring_bits: int | None = None) -> Bundle:
    """Compile a fitted detector and put its program, threshold and privacy statement into a bundle.

    `ring_bits`: as the detector's `compile` takes it, for secret sharing.
    """
    program = detector.compile() if ring_bits is None else detector.compile(ring_bits=ring_bits)
    public = PublicModel(
        name=name,
        detector=type(detector).__name__,
        program=program.public,
        threshold=detector.calibration_,
        privacy=detector.statement_,
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        version=__version__,
    )
    return Bundle(public, program.secret)


def load_public(path: Path | str) -> PublicModel:
    """Read a public half, from a bundle directory or a file."""
    path = Path(path)
    path = path / PUBLIC_FILE if path.is_dir() else path
    return codec.from_plain(PublicModel, files.read_json(path, limit=MAX_PUBLIC_BYTES), where=str(path))


def load(directory: Path | str, *, passphrase: str | None = None) -> Bundle:
    """Read a bundle and check that its halves belong together."""
    directory = Path(directory)
    if not (directory / PUBLIC_FILE).is_file():
        raise FixInputError(f"{directory} is not a bundle: it has no {PUBLIC_FILE}", remedy="Give a bundle directory.")
    public = load_public(directory)
    content = files.read_secret(directory / SECRET_FILE, limit=MAX_SECRET_BYTES, passphrase=passphrase)
    bundle = Bundle(public, secret_from_bytes(content))
    _ = bundle.program
    return bundle
