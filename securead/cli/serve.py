"""`securead serve`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from securead.cli import options

if TYPE_CHECKING:
    from securead.serving.loaded import LoadedModel


def command(
    bundles: Annotated[list[Path], typer.Argument(metavar="BUNDLE...", help="Bundle directories, one or several.")],
    host: Annotated[str, typer.Option(help="The address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port; 0 lets the system choose one.")] = 8443,
    tls_cert: Annotated[Path | None, typer.Option(metavar="FILE", help="The certificate (chain), PEM.")] = None,
    tls_key: Annotated[Path | None, typer.Option(metavar="FILE", help="The certificate's private key, PEM.")] = None,
    no_tls: Annotated[bool, typer.Option("--no-tls", help="Plain http, on addresses of this machine only.")] = False,
    passphrase_file: options.PassphraseFile = None,
    queue: Annotated[int, typer.Option(min=0, help="Requests held while others are evaluated; more get HTTP 503.")] = 8,
    max_body: Annotated[
        int | None,
        typer.Option(metavar="BYTES", min=1, help="Refuse larger messages (default: what the models need at most)."),
    ] = None,
    refuse_extraction: Annotated[
        bool, typer.Option("--refuse-extraction", help="Refuse keys that were answered enough rows to rebuild a model.")
    ] = False,
    outbox: Annotated[
        Path | None,
        typer.Option("--outbox", metavar="FILE", help="Also keep answers for later pick-up by key holders, in FILE."),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Requests evaluated at a time (default: one more than cores, at most 9), see below."),
    ] = None,
    engine: Annotated[
        list[str] | None, typer.Option("--engine", metavar="NAME", help="Offer this engine only; repeatable.")
    ] = None,
    until_stdin_closes: Annotated[bool, typer.Option("--until-stdin-closes", hidden=True)] = False,
) -> None:
    """Serve trained models: score records that this service cannot read.

    Loads the secret half of each bundle, prints its address as soon as it accepts connections, and runs until it is
    interrupted or terminated; requests in work are finished first. Whoever can reach it can have records scored; who
    may, is for the network in front of it to decide. It sees ciphertext, row counts and key ids, and writes none
    down. An engine that masks its answers needs owners' public keys: clients send them by themselves, and they are held
    in memory only, the least recently used forgotten first.

    Scores give a model away: securead inspect says from how many it can be rebuilt, on any engine. Rows are counted
    against that number for each key, in memory: a CKKS chunk as all it can hold, a BFV message as its rows. GET
    /metrics has the sums (securead_rows_metered_total, securead_keys_beyond_extraction_total), and securead -v serve
    logs each key that reaches the number. With --refuse-extraction it gets HTTP 403 from then on, which for CKKS is
    often the second chunk. Keys are free to make: this measures honest use and stops nobody who is determined. For
    that, put accounts in front of the service.

    With --workers 2 or more, as many processes evaluate, each with a copy of the models of its own. One
    that ends is replaced, and what it was evaluating goes to another: no request is lost. With --workers 1 this process
    evaluates itself: that starts sooner and takes less memory, and a crash of an engine ends the service.

    With --outbox, gateways may deposit requests whose answers wait on disk until their key holder fetches them
    (securead gateway, securead centre). FILE holds encrypted answers, gateways' names and the times of their windows.

    Answers are masked and flooded: to a key made as keygen makes it they tell the scores of the points submitted, which
    for ckks are all slots of a chunk.

    \b
    Examples:
      securead serve bundles/payments --tls-cert cert.pem --tls-key key.pem --host 0.0.0.0
      securead serve bundles/payments --no-tls --port 0
    """
    from securead.cli.screen import say
    from securead.serving.process import URL_PREFIX, Address, run
    from securead.serving.processes import default_workers

    address = Address(host=host, port=port, tls_cert=tls_cert, tls_key=tls_key, no_tls=no_tls)

    def announce(url: str, models: Sequence[LoadedModel]) -> None:
        for model in models:
            if model.unsanitised:
                engines = ", ".join(model.unsanitised)
                say(
                    f"warning: answers of {engines} for {model.name} are not sanitised in this version: whoever holds "
                    "a decryption key can solve for its weights. Serve it only to those who may know the model.",
                    "yellow",
                )
        print(f"{URL_PREFIX}{url}", flush=True)

    run(
        bundles,
        address,
        passphrase=options.passphrase(passphrase_file),
        queue=queue,
        max_body=max_body,
        refuse_extraction=refuse_extraction,
        outbox=outbox,
        workers=workers or default_workers(),
        engines=engine,
        announce=announce,
        until_stdin_closes=until_stdin_closes,
    )
