"""What a training run writes down after every round, so that a killed run goes on where it stopped."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import uuid
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from securead import codec, files
from securead.data.schema import Array, Schema
from securead.data.windows import WindowedSchema
from securead.errors import FixConfigurationError, FixInputError
from securead.models.estimator import AnomalyDetector
from securead.models.training import State
from securead.privacy.plan import PrivacyPlan
from securead.privacy.site import Kept

_STATE_FILE = "state.npz"
_META = "meta"


@dataclass(frozen=True)
class TrainingStep:
    """What one site did in one round, as far as it may be told.

    Seconds, the epsilon it has spent on this run so far (None without privacy), and its own validation loss per record
    (None in rounds without one), noised as it was released.
    """

    stage: str
    site: str
    seconds: float
    epsilon: float | None
    loss: float | None = None


@dataclass(frozen=True)
class _Meta:
    fingerprint: str
    job: str
    stage: str
    schema: Schema | WindowedSchema
    steps: tuple[TrainingStep, ...]


class Checkpoint:
    """One run's memory: its job id, the state after the last whole round, the steps so far, and each site's own.

    Without a folder nothing is written and every run begins anew. A folder that belongs to another run (another
    detector, schema, plan or set of sites) is refused.
    """

    def __init__(self, folder: Path | None, fingerprint: str) -> None:
        self._folder, self._fingerprint = folder, fingerprint
        self.job, self.steps = uuid.uuid4().hex[:12], tuple[TrainingStep, ...]()
        self.state: State | None = None
        if folder is not None and (folder / _STATE_FILE).is_file():
            self._load(folder / _STATE_FILE)
        elif folder is not None:
            files.make_secret_directory(folder)

    def save(self, state: State, steps: Sequence[TrainingStep]) -> None:
        """Write down the state that the next round starts from, at once or not at all."""
        self.state, self.steps = state, tuple(steps)
        if self._folder is None:
            return
        meta = _Meta(self._fingerprint, self.job, state.stage, state.schema, self.steps)
        content = io.BytesIO()
        arrays = {f"value-{name}": array for name, array in state.values.items()}
        arrays[_META] = np.frombuffer(codec.canonical_bytes(meta), dtype=np.uint8)
        np.savez(content, allow_pickle=False, **arrays)
        files.write_atomic(self._folder / _STATE_FILE, content.getvalue(), mode=0o600)

    def kept(self, position: int) -> Kept:
        """The memory of the site at a position."""
        return Kept(None if self._folder is None else self._folder / f"site-{position}")

    def refuse_other_records(self, kept: Kept, X: Array, labels: Array | None = None) -> None:
        """Raise `FixConfigurationError` where a site's memory is of other records, or of another run."""
        if self._folder is None:
            return
        # Of the run, too: where the state's file is lost, what a site kept still belongs to this plan and no other.
        identified = hashlib.sha256(self._fingerprint.encode() + np.ascontiguousarray(X).tobytes())
        if labels is not None:
            identified.update(b"labels" + np.ascontiguousarray(labels, dtype=np.int8).tobytes())
        identity = np.frombuffer(identified.digest(), dtype=np.uint8)
        known = kept.get("identity")
        if known is None:
            kept.put("identity", identity)
        elif not np.array_equal(known, identity):
            raise FixConfigurationError(
                f"{self._folder} is of another run or over other records", remedy="Restore them, or delete the folder."
            )

    def _load(self, path: Path) -> None:
        content = files.read_secret(path, limit=1 << 32)
        try:
            with np.load(io.BytesIO(content), allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
            plain = json.loads(arrays.pop(_META).tobytes())
        except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile) as error:
            raise FixInputError(f"{path} is damaged", remedy="Delete its folder to begin the run anew.") from error
        meta = codec.from_plain(_Meta, plain, where=str(path))
        if meta.fingerprint != self._fingerprint:
            raise FixConfigurationError(
                f"{path.parent} is of another run: detector, schema, privacy plan or sites differ",
                remedy="Continue with the same recipe, or delete the folder to begin anew: what was spent stays spent.",
            )
        self.job, self.steps = meta.job, meta.steps
        self.state = State(
            meta.stage, meta.schema, {name.removeprefix("value-"): array for name, array in arrays.items()}
        )


def fingerprint(detector: AnomalyDetector, names: Sequence[str], schema: Schema, privacy: PrivacyPlan | None) -> str:
    """What makes two runs the same run."""
    parts = (
        f"{type(detector).__qualname__} {sorted((k, repr(v)) for k, v in detector.get_params(deep=False).items())}",
        codec.canonical_bytes(schema).decode(),
        json.dumps(None if privacy is None else dataclasses.asdict(privacy), sort_keys=True),
        json.dumps(list(names)),
    )
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
