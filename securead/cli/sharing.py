"""`securead split`, `dealer`, `party`, `score --engine sharing`: two parties score, neither sees records or model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from securead.cli import options

if TYPE_CHECKING:
    from securead.protocols.sharing.lane import Told

UntilStdinCloses = Annotated[bool, typer.Option("--until-stdin-closes", hidden=True)]


def split(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle directory, both halves.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The directory to write the four files to.")],
    verdicts_only: Annotated[
        bool, typer.Option("--verdicts-only", help="Clients get verdicts, never scores, and not the threshold.")
    ] = False,
    passphrase_file: options.PassphraseFile = None,
) -> None:
    """Split a trained model for two computing parties, of which neither learns its weights.

    Writes party0.model and party1.model (mode 0600; sealed, if a passphrase is given, with the one that opens the
    bundle), one for each party: whoever has both has the model. program.json is for the dealer, model.json for
    clients. The files of one split belong together; a new split replaces all of them.

    With --verdicts-only clients are not given the threshold, the parties refuse to score, and a row tells one bit. A
    client that makes rows up for it needs about a hundred to find one record's score, and the threshold.

    \b
    Example:
      securead split bundles/payments --out shared
    """
    from securead.cli.screen import say
    from securead.serving.split import split_bundle

    secret_words = options.passphrase(passphrase_file)
    done = split_bundle(bundle, out, verdicts_only=verdicts_only, passphrase=secret_words, seal=secret_words)
    say(f"split {done.name} -> {out}" + (" (verdicts only)" if verdicts_only else ""))
    for name, value in done.plan.describe():
        say(f"{name}: {value}")


def party(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="The party's TOML file.")],
    index: Annotated[int, typer.Option("--index", min=0, max=1, help="Which party this is: 0 leads, 1 calls it.")],
    lane: Annotated[
        int | None, typer.Option("--lane", metavar="K", min=0, help="Run this lane alone (default: all, supervised).")
    ] = None,
    passphrase_file: options.PassphraseFile = None,
    until_stdin_closes: UntilStdinCloses = False,
) -> None:
    """Compute on shares as one of two parties that do not collude, until interrupted.

    Parties, dealer and clients start in any order, find each other, and start anew together when one fails: no
    correlation is used twice. Every connection is mutual TLS 1.3 between certificates of one authority (securead
    certs). Each party sees uniform shares, how many rows there are, and who asks.

    CONFIG has the entries model (the party's file of securead split), identity (a directory of securead certs), dealer
    (HOST:PORT), and party 1 leader (HOST:PORT of party 0); if wanted host, port (0: the system chooses), lanes,
    clients (names that may ask), silence_seconds, connections, stock_bytes. Paths are relative to CONFIG. Lane k
    listens at port + k and is a process of its own; it serves one request at a time.

    \b
    Examples of CONFIG (party 1) and the command:
      model = "party1.model"
      identity = "certs/party1"
      dealer = "10.0.0.5:7000"
      leader = "10.0.0.6:7100"
      host = "0.0.0.0"
      port = 7200

      securead party --index 1 party1.toml
    """
    from securead.cli.screen import say
    from securead.protocols.sharing import party as parties

    listening = False

    def announce(told: Told) -> None:
        nonlocal listening
        if not listening:
            print(f"securead {told.name} lane {told.lane} listens at {told.address}", flush=True)
            listening = True
        say(f"{told.name} lane {told.lane} {told.state} (program {told.program[:12]})")

    parties.run(
        config,
        index,
        lane=lane,
        passphrase=options.passphrase(passphrase_file),
        announce=announce,
        until_stdin_closes=until_stdin_closes,
    )


def dealer(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="The dealer's TOML file.")],
    passphrase_file: options.PassphraseFile = None,
    until_stdin_closes: UntilStdinCloses = False,
) -> None:
    """Deal correlated randomness to the two parties of one model, until interrupted.

    The dealer sees no input, no result and no weight; it knows the model's shape and how often it is asked for how
    many rows. It must collude with neither party: together with one it could read everything. It holds no state that
    outlives a session of the parties.

    CONFIG has the entries program (program.json of securead split), identity (a directory of securead certs) and, if
    wanted, host and port (0: the system chooses). Paths are relative to CONFIG.

    \b
    Examples of CONFIG and the command:
      program = "program.json"
      identity = "certs/dealer"
      host = "0.0.0.0"
      port = 7000

      securead dealer dealer.toml
    """
    import os
    import signal
    import threading

    from securead.protocols.sharing.dealer import Dealer, DealerConfig
    from securead.protocols.sharing.settings import read_toml

    one = Dealer.open(
        read_toml(DealerConfig, config, paths=DealerConfig.PATHS), passphrase=options.passphrase(passphrase_file)
    )

    def end() -> None:
        while os.read(0, 4096):
            pass
        one.close()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: threading.Thread(target=one.close).start())
    if until_stdin_closes:
        threading.Thread(target=end, daemon=True).start()
    host, port = one.address
    print(f"securead dealer listens at {host}:{port}", flush=True)
    one.serve_forever()


def score_by_parties(
    data: Path,
    config: Path,
    out: Path,
    *,
    verdicts: bool,
    reorder: bool,
    scale: Path | None,
    time: str | None,
    patience: float | None,
    passphrase: str | None,
    as_json: bool,
) -> None:
    """`securead score --engine sharing`."""
    from time import perf_counter

    from securead.cli.scoring import read_for
    from securead.cli.screen import ProgressBar, finish
    from securead.client import messages
    from securead.client.parties import Parties, PartyScores, Verdicts
    from securead.client.positions import Positions
    from securead.client.results import Summary, write_scores, write_verdicts

    start = perf_counter()
    messages.refuse_overwriting(out, data, config)
    messages.refuse_unwritable(out)
    with (
        ProgressBar() as watch,
        Parties(config, passphrase=passphrase, patience=patience, watch=watch) as parties,
    ):
        schema = parties.model.program.encoder.schema
        records, windows = read_for(data, schema, scale=scale, time=time, reorder=reorder)
        found: PartyScores | Verdicts
        if verdicts:
            found = parties.verdicts(records)
            write_verdicts(out, found.is_anomaly)
        else:
            found = scores = parties.score(records)
            write_scores(out, scores, None if windows is None else Positions.of(windows, ""))
        chunks = -(-len(found) // parties.plan.rows_per_chunk)
    work = found.work
    summary = Summary(
        rows=len(found),
        chunks=chunks,
        seconds=perf_counter() - start,
        bytes=found.bytes_up + found.bytes_down,
        clipped=found.clipped if windows is None else windows.clipped,
        anomalies=int(found.is_anomaly.sum()),
        server_seconds=found.timings.server,
        encrypt_seconds=found.timings.encrypt,
        bytes_up=found.bytes_up,
        bytes_down=found.bytes_down,
        notes=(f"{work.recomputed:,} scores were out of range and were computed again.",) if work.recomputed else (),
    )
    finish(summary, "judged" if verdicts else "scored", out, as_json=as_json)
