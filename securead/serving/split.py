"""What the model owner does once: a bundle split into two halves of which neither tells anything of the weights.

DIR/
  party0.model, party1.model   for one party each, mode 0600; both together are the model
  program.json                 for the dealer: the program's shape
  model.json                   for clients: the public half, with the threshold unless they get verdicts only
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from securead import codec, files
from securead.errors import FixInputError
from securead.models import bundle as bundles
from securead.models.shared import SharedModel
from securead.protocols.sharing.plan import SharingPlan, make_plan
from securead.protocols.sharing.shares import split_model

PARTY_FILES = ("party0.model", "party1.model")
PROGRAM_FILE, MODEL_FILE = "program.json", "model.json"


@dataclass(frozen=True)
class Split:
    """A split that was written: the model's name, and the parameters that all derive from it."""

    name: str
    plan: SharingPlan
    verdicts_only: bool


def split_bundle(
    bundle: Path | str,
    out: Path | str,
    *,
    verdicts_only: bool = False,
    passphrase: str | None = None,
    seal: str | None = None,
) -> Split:
    """Split a bundle into `out`, which must not hold a split yet; `passphrase` opens it, `seal` seals the halves.

    Raises `FixProgramError` when the program does not fit shares, and `FixInputError` when files are there already: a
    half of an earlier split and one of this do not belong together.
    """
    out = Path(out)
    names = (*PARTY_FILES, PROGRAM_FILE, MODEL_FILE)
    there = [name for name in names if (out / name).exists()]
    if there:
        raise FixInputError(
            f"{out} holds a split already", value=there[0], remedy="Choose another directory, or remove the old files."
        )
    loaded = bundles.load(bundle, passphrase=passphrase)
    plan = make_plan(loaded.public.program, "same")
    halves = split_model(loaded.program, loaded.public.threshold.value, verdicts_only=verdicts_only)
    for name, half in zip(PARTY_FILES, halves, strict=True):
        half.write(out / name, passphrase=seal)
    files.write_json(out / PROGRAM_FILE, codec.to_plain(loaded.public.program))
    SharedModel.of(loaded.public, verdicts_only=verdicts_only).write(out / MODEL_FILE)
    return Split(loaded.public.name, plan, verdicts_only)
