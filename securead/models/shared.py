"""What clients of two computing parties get of a model: its public half, the threshold only if its owner tells it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from securead import codec, files
from securead.data.schema import Array
from securead.errors import FixConfigurationError, FixInputError
from securead.models.bundle import MAX_PUBLIC_BYTES, PublicModel, Threshold, check_name
from securead.privacy.statement import PrivacyStatement
from securead.program.program import PublicProgram


@dataclass(frozen=True)
class SharedModel:
    """A model that two parties hold in shares. Without `threshold` they tell verdicts only, never scores."""

    name: str
    detector: str
    program: PublicProgram
    threshold: Threshold | None
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

    @classmethod
    def of(cls, public: PublicModel, *, verdicts_only: bool = False) -> SharedModel:
        """The public half of a bundle, without its threshold if only verdicts are told."""
        return cls(
            name=public.name,
            detector=public.detector,
            program=public.program,
            threshold=None if verdicts_only else public.threshold,
            privacy=public.privacy,
            created=public.created,
            version=public.version,
        )

    @property
    def verdicts_only(self) -> bool:
        """Whether scores are not told."""
        return self.threshold is None

    def is_anomaly(self, scores: Array) -> Array:
        """Booleans `(n,)`: scores above the threshold."""
        if self.threshold is None:
            raise FixInputError("this model's threshold is its owner's secret", remedy="Ask the parties for verdicts.")
        return scores > self.threshold.value

    def write(self, path: Path) -> None:
        """Write it as JSON."""
        files.write_json(path, codec.to_plain(self))

    @classmethod
    def read(cls, path: Path | str) -> SharedModel:
        """Read what `write` wrote; anything else is a `FixInputError`."""
        return codec.from_plain(cls, files.read_json(Path(path), limit=MAX_PUBLIC_BYTES), where=str(path))
