"""`securead coordinator` and `securead site`: one detector, trained between institutions over Flower."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from securead.cli import options

RecipeFile = Annotated[
    Path, typer.Argument(metavar="RECIPE.toml", help="Sites, schema, detector, privacy plan: the same file everywhere.")
]
Certs = Annotated[
    Path, typer.Option("--certs", metavar="DIR", help="This participant's own directory, made by securead certs.")
]
UntilStdinCloses = Annotated[bool, typer.Option("--until-stdin-closes", hidden=True)]


def coordinator(
    recipe: RecipeFile,
    out: Annotated[Path, typer.Option("--out", metavar="BUNDLE", help="The bundle directory to write.")],
    certs: Certs,
    host: Annotated[
        str, typer.Option(help="The address to listen at; 0.0.0.0 for all of this machine's.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 lets the system choose.")] = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run that was cut off.")] = False,
    wait: Annotated[
        float, typer.Option(metavar="SECONDS", min=0.0, help="How long to wait for all sites to come.")
    ] = 300.0,
    passphrase_file: options.PassphraseFile = None,
    until_stdin_closes: UntilStdinCloses = False,
) -> None:
    """Coordinate one training run between institutions, and write the bundle.

    The coordinator sees sums that carry their noise already; with aggregation = "masked" in the recipe's section
    [federation] it sees no single site's update at all. ("paillier" has the same purpose under a key that all sites
    share: a site that works together with the coordinator opens every update.) It listens for the sites of the recipe,
    each known by its certificate (mutual TLS 1.3), and needs nothing of theirs beforehand. Sites may come before or
    after it, in any order; the run begins when all are there, or after --wait seconds with as many as the recipe
    allows.

    A site that does not answer within round_timeout, or whose process ends, is reported and left out as the recipe
    allows; it may come back in a later round. After each round BUNDLE.training is written. A run that was cut off goes
    on from there with --resume: no site is charged twice.

    \b
    Of the recipe:
      [federation]
      aggregation = "masked"
      minimum_sites = 2
      round_timeout = 60
      [[sites]]
      name = "bank-a"
      [[sites]]
      name = "bank-b"

    \b
    Examples:
      securead certs --out deployment --name coordinator --name bank-a --name bank-b
      securead coordinator fraud.toml --certs deployment/coordinator --host 0.0.0.0 --port 7000 --out fraud
      securead site fraud.toml --certs bank-a --coordinator fed.example.org:7000 --data transactions.csv
    """
    from securead import files
    from securead.cli.rounds import Rounds
    from securead.cli.screen import say
    from securead.client.messages import refuse_unwritable
    from securead.federated.flower import installed

    installed.require()
    from securead.federated.flower.coordinating import coordinate
    from securead.federated.recipe import load_recipe
    from securead.federated.roles import terms_of
    from securead.models import bundle

    plan, secret_words = load_recipe(recipe), options.passphrase(passphrase_file)
    terms, ring_bits = terms_of(plan), plan.ring_bits
    refuse_unwritable(out / bundle.PUBLIC_FILE)
    folder = out.with_name(out.name + ".training")

    def write() -> None:
        trained.append(bundle.make(terms.detector, plan.name, ring_bits=ring_bits))
        trained[0].save(out, passphrase=secret_words)

    trained: list[bundle.Bundle] = []
    with ended_by_signals(until_stdin_closes), Rounds(terms.names) as rounds:
        coordinate(
            terms,
            certs,
            folder,
            resume=resume,
            host=host,
            port=port,
            wait=wait,
            passphrase=secret_words,
            listener=rounds,
            listening=lambda address: print(f"securead coordinator listens at {address}", flush=True),
            trouble=lambda address, text: rounds.said(f"{address}: {text}"),
            trained=write,
        )
    files.discard(folder)
    say(f"trained {plan.detector} among {len(terms.names)} site(s) -> {out}")
    for sentence in trained[0].public.privacy.in_words():
        say(sentence)


def site(
    recipe: RecipeFile,
    data: Annotated[Path, typer.Option("--data", metavar="FILE", help="This site's records; they stay here.")],
    certs: Certs,
    address: Annotated[str, typer.Option("--coordinator", metavar="HOST:PORT", help="Where the coordinator listens.")],
    folder: Annotated[
        Path | None,
        typer.Option("--folder", metavar="DIR", help="This run's memory across restarts (default: NAME.training)."),
    ] = None,
    patience: options.Patience = 600.0,
    passphrase_file: options.PassphraseFile = None,
    until_stdin_closes: UntilStdinCloses = False,
) -> None:
    """Take part in a training run with records that stay here.

    The site clips its records to the recipe's public schema, sums them, charges its own budget and adds its full noise
    before anything leaves it. It takes part on the terms of its own copy of the recipe and on no others: a coordinator
    with another recipe is refused. It never runs code that the coordinator sends.

    What it sent is kept in --folder until the run is over: a site that is started again goes on with the same run and
    sends the identical update, charged once. While the coordinator cannot be reached, it waits for --patience seconds.
    In the recipe, its own [[sites]] section may name ledger, limit and scale, files of its own.

    \b
    Examples:
      securead site fraud.toml --certs bank-a --coordinator fed.example.org:7000 --data transactions.csv
      securead site fraud.toml --certs bank-a --coordinator 10.0.0.5:7000 --data may.parquet --folder run-7
    """
    from securead.certificates import read_member
    from securead.cli.screen import say
    from securead.federated.flower import installed

    installed.require()
    from securead.federated.flower.taking_part import take_part
    from securead.federated.recipe import load_recipe

    plan, secret_words = load_recipe(recipe), options.passphrase(passphrase_file)
    own = read_member(certs).name
    memory = folder or Path(f"{own}.training")
    with ended_by_signals(until_stdin_closes):
        take_part(
            plan,
            recipe.parent,
            data,
            certs,
            address,
            folder=memory,
            patience=patience,
            passphrase=secret_words,
            say=say,
        )
    say(f"{own}: the run is over")


@contextlib.contextmanager
def ended_by_signals(until_stdin_closes: bool) -> Iterator[None]:
    """SIGTERM, and the end of standard input where that is wished, end the block as Ctrl-C does.

    SIGINT itself does so even where a shell's `&` has started the process with that signal ignored.
    """
    import os
    import signal
    import threading

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    def watch() -> None:
        with contextlib.suppress(OSError, ValueError):
            while os.read(0, 4096):
                pass
        os.kill(os.getpid(), signal.SIGTERM)

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGINT)}
    if until_stdin_closes:
        threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
