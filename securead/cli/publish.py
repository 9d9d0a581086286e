"""`securead publish`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from securead.cli import options


def command(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="The bundle directory, with its secret half.")],
    engine: Annotated[
        str, typer.Option("--engine", metavar="NAME", help="The engine that publishes something of a model.")
    ] = "paillier",
    again: Annotated[
        bool, typer.Option("--again", help="Make it anew, under a new key: owners have to fetch it and encrypt again.")
    ] = False,
    passphrase_file: options.PassphraseFile = None,
    as_json: options.Json = False,
) -> None:
    """Encrypt a model's tables once, for owners to fetch: what the engine paillier needs before it is served.

    Writes BUNDLE/setup/ENGINE.secret (the service's key, readable by you alone, sealed with the passphrase that opens
    the bundle) and BUNDLE/setup/ENGINE.public (the tables under that key, 768 bytes an entry). securead serve then
    offers the model by this engine, too, and goes on with the same key after a restart. Takes some 10 ms of a core an
    entry. Owners fetch the tables once (securead keygen --engine ENGINE) and then send one kilobyte for up to some 200
    records.

    \b
    Example:
      securead publish bundles/payments --engine paillier
    """
    import time

    from securead.cli.screen import StepBar, print_json, say, size
    from securead.serving.setups import FOLDER, publish

    start = time.perf_counter()
    with StepBar() as bar:
        made = publish(
            bundle,
            engine,
            passphrase=options.passphrase(passphrase_file),
            again=again,
            progress=lambda done, of: bar.step(f"{done:,} of {of:,} entries", done, of),
        )
    seconds = time.perf_counter() - start
    say(f"published {size(made.bytes)} for {engine}, {made.digest[:16]}, in {seconds:.1f} s -> {bundle / FOLDER}")
    if as_json:
        print_json({"engine": engine, "digest": made.digest, "bytes": made.bytes, "seconds": seconds})
