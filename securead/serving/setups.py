"""What engines publish once for a model: made beside its bundle, and read by a service, which hands it out.

    BUNDLE/setup/ENGINE.secret   what the service keeps to itself, mode 0600, sealed as the bundle is
    BUNDLE/setup/ENGINE.public   what it publishes

Made by `publish`, once: a service that is restarted, and each of its workers, goes on with the same, and what owners
have fetched stays of use. A service offers such an engine for the models for which this was done.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from securead import files
from securead.errors import FixConfigurationError, FixInputError
from securead.models import bundle as bundles
from securead.program.program import Program
from securead.protocols import registry, setup
from securead.protocols.choice import carriers
from securead.protocols.setup import Progress, Setup

FOLDER, SECRET_SUFFIX, PUBLIC_SUFFIX = "setup", ".secret", ".public"
MAX_SECRET_BYTES = 1 << 20


@dataclass(frozen=True)
class PublishedSetup:
    """The reply to the question what is published for an engine: its SHA-256 and its length."""

    digest: str
    bytes: int


def publish(
    folder: Path | str,
    engine: str,
    *,
    passphrase: str | None = None,
    again: bool = False,
    progress: Progress | None = None,
) -> PublishedSetup:
    """Make a bundle's setup for an engine; `passphrase` opens the bundle where it is sealed, and seals the secret.

    Raises `FixInputError` where one is there already: owners who have it would have to fetch it `again`.
    """
    folder = Path(folder)
    spec, loaded = registry.spec(engine), bundles.load(folder, passphrase=passphrase)
    if not spec.setup or spec not in carriers(loaded.public.program):
        able = [each.name for each in carriers(loaded.public.program) if each.setup]
        raise FixConfigurationError(
            f"the engine {engine!r} publishes nothing for the model {loaded.public.name!r}",
            remedy="Engines that do: " + (", ".join(able) or "none") + ".",
        )
    secret, public = _paths(folder, engine)
    # One of the two alone is a call that was cut short: nothing can be served by it, and nobody has it.
    if not again and secret.exists() and public.exists():
        raise FixInputError(
            f"{folder} is published for {engine} already",
            remedy="Serve it. With --again it is published anew, and owners have to fetch it and encrypt again.",
        )
    plan = registry.plan_module(engine).make_plan(loaded.public.program, spec.roles[0])
    made = setup.make_setup(plan, loaded.program, progress=progress)
    if made is None:
        raise TypeError(engine)
    files.make_secret_directory(secret.parent)
    files.write_secret(secret, made.secret, passphrase=passphrase)
    files.write_atomic(public, made.published)
    return PublishedSetup(made.digest, len(made.published))


def read(
    folder: Path | str, program: Program, *, passphrase: str | None = None, engines: Sequence[str] | None = None
) -> dict[str, Setup]:
    """A bundle's setups by engine, of `engines` alone where some are named.

    Those of another program, or whose halves are of two, are refused.
    """
    found = {}
    for spec in carriers(program.public):
        secret, public = _paths(Path(folder), spec.name)
        if not (spec.setup and secret.exists() and (engines is None or spec.name in engines)):
            continue
        plan = registry.plan_module(spec.name).make_plan(program.public, spec.roles[0])
        content = files.read_bytes(public, limit=setup.setup_bytes(plan))
        found[spec.name] = Setup(content, files.read_secret(secret, limit=MAX_SECRET_BYTES, passphrase=passphrase))
        setup.check(plan, program, found[spec.name])
    return found


def _paths(folder: Path, engine: str) -> tuple[Path, Path]:
    return folder / FOLDER / f"{engine}{SECRET_SUFFIX}", folder / FOLDER / f"{engine}{PUBLIC_SUFFIX}"
