"""What a training run writes down after every round, so that a killed run goes on where it stopped."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from securead import codec, files
from securead.data.schema import Schema
from securead.data.windows import WindowedSchema
from securead.errors import FixConfigurationError, FixInputError, RejectMessageError
from securead.federated.messages import Report, Sum, of_totals, pack, to_totals, unpack
from securead.models.training import State, Total

STATE_FILE = "state.bin"
_VALUE = "value-"
_LIMIT = 1 << 32


@dataclass(frozen=True)
class TrainingStep:
    """What one site did in one round, as far as it may be told.

    Seconds, the epsilon it has spent on this run so far (None without privacy), and its own validation loss per record
    (None in rounds without one, and where sums are masked), noised as it was released.
    """

    stage: str
    site: str
    seconds: float
    epsilon: float | None
    loss: float | None = None


@dataclass(frozen=True)
class Group:
    """Sites whose hidden sum is being formed, and in which attempt."""

    members: tuple[str, ...]
    attempt: int = 1


@dataclass(frozen=True)
class _Meta:
    fingerprint: str
    run: str
    stage: str
    first_stage: str
    schema: Schema | WindowedSchema
    sums: tuple[Sum, ...]
    steps: tuple[TrainingStep, ...]
    reports: tuple[Report, ...]
    pending: tuple[Group, ...]
    keys: tuple[tuple[str, str], ...]
    modulus: str = ""
    sent: tuple[tuple[str, str], ...] = ()


class Checkpoint:
    """One run's memory: its id, the state that it began with, every round's sum, the steps, and what is under way.

    `reports`: what each site's budget has spent, by site; `keys`: every site's key of the run, so that nobody takes
    another's place; `pending`: the groups of the round of hidden sums that has begun; `modulus`: of the sites' key,
    in hex, where sums are encrypted, and `sent`: digests of what sites sent in that round. Without a folder nothing is
    written and every run begins anew. A folder that belongs to another run (another detector, schema, plan, federation
    or set of sites) is refused.
    """

    def __init__(self, folder: Path | None, fingerprint: str) -> None:
        self._folder, self._fingerprint = folder, fingerprint
        self.run, self.steps = uuid.uuid4().hex[:12], tuple[TrainingStep, ...]()
        self.initial: State | None = None
        self.totals: list[Total] = []
        self.keys: dict[str, str] = {}
        self.reports: dict[str, Report] = {}
        self.pending: tuple[Group, ...] = ()
        self.modulus = ""
        self.sent: dict[str, str] = {}
        self._stage = ""
        if folder is not None and (folder / STATE_FILE).is_file():
            self._load(folder / STATE_FILE)
        elif folder is not None:
            files.make_secret_directory(folder)

    def save(self, state: State, steps: Sequence[TrainingStep]) -> None:
        """Write down that the next round starts from `state`, at once or not at all; the first is where it began."""
        if self.initial is None:
            self.initial = state
        self.steps, self._stage = tuple(steps), state.stage
        self.note()

    def begin(self, groups: Sequence[Group]) -> None:
        """Write down among whom hidden sums of a round are formed, before any of them is asked."""
        self.pending = tuple(groups)
        self.note()

    def note(self) -> None:
        """Write down everything as it is."""
        if self._folder is None or self.initial is None:
            return
        first, (sums, arrays) = self.initial, of_totals(self.totals)
        meta = _Meta(
            fingerprint=self._fingerprint,
            run=self.run,
            stage=self._stage,
            first_stage=first.stage,
            schema=first.schema,
            sums=sums,
            steps=self.steps,
            reports=tuple(self.reports.values()),
            pending=self.pending,
            keys=tuple(self.keys.items()),
            modulus=self.modulus,
            sent=tuple(self.sent.items()),
        )
        content = pack(
            codec.to_plain(meta), arrays | {f"{_VALUE}{name}": array for name, array in first.values.items()}
        )
        files.write_atomic(self._folder / STATE_FILE, content, mode=0o600)

    def _load(self, path: Path) -> None:
        try:
            plain, arrays = unpack(files.read_secret(path, limit=_LIMIT), where=str(path), limit=_LIMIT)
        except RejectMessageError as error:
            raise FixInputError(f"{path} is damaged", remedy="Delete its folder to begin the run anew.") from error
        meta = codec.from_plain(_Meta, plain, where=str(path))
        if meta.fingerprint != self._fingerprint:
            raise FixConfigurationError(
                f"{path.parent} is of another run: detector, schema, privacy plan, federation or sites differ",
                remedy="Continue with the same recipe, or delete the folder to begin anew: what was spent stays spent.",
            )
        self.run, self.steps, self.pending, self._stage = meta.run, meta.steps, meta.pending, meta.stage
        self.keys, self.totals = dict(meta.keys), list(to_totals(meta.sums, arrays))
        self.modulus, self.sent = meta.modulus, dict(meta.sent)
        self.reports = {report.site: report for report in meta.reports}
        values = {name.removeprefix(_VALUE): array for name, array in arrays.items() if name.startswith(_VALUE)}
        self.initial = State(meta.first_stage, meta.schema, values)
