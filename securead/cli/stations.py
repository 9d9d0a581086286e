"""`securead mailbox`, `gateway` and `centre`: sensors that stream, by way of a service that keeps answers."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from securead.cli import options

Following = Annotated[bool, typer.Option("--follow", help="Go on when the file ends: it may still grow.")]


def mailbox(
    server: options.Server,
    keys: Annotated[Path, typer.Option("--keys", metavar="DIR", help="The key holder's directory, of role split.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where to write the gateways' deposit token.")],
    ca: options.Ca = None,
    patience: options.Patience = 60.0,
) -> None:
    """Open a key's mailbox at a service, so that gateways can deposit requests there.

    Makes two tokens of 256 random bits at the first call and keeps them in DIR/secret/mailbox.json. The service is told
    their SHA-256. FILE holds the deposit token, readable by you alone: hand it to gateways together with DIR/public.
    Whoever has it can fill the mailbox, and read nothing. The pick-up token stays with the key holder.

    Open the mailbox before you hand out DIR/public: the first to open one for a key owns it.

    \b
    Example:
      securead mailbox --server https://scores.example.org --keys keys --out deposit.token
    """
    from securead.cli.screen import ProgressBar, say
    from securead.client.keys import read_record
    from securead.client.mailbox import Mailbox, make_tokens, write_token
    from securead.client.messages import refuse_overwriting

    refuse_overwriting(out, keys)
    tokens, key = make_tokens(keys), read_record(keys).key
    with ProgressBar() as watch, Mailbox(server, key, tokens.pickup, ca=ca, patience=patience, watch=watch) as box:
        box.open(tokens)
    write_token(out, tokens.deposit)
    say(f"the mailbox of key {key[:16]} is open; for gateways -> {out}")


def gateway(
    readings: Annotated[str, typer.Argument(metavar="READINGS", help="A CSV file with a header, or - for stdin.")],
    server: options.Server,
    keys: Annotated[Path, typer.Option("--keys", metavar="DIR", help="DIR/public of the key holder's directory.")],
    token: Annotated[Path, typer.Option("--token", metavar="FILE", help="The deposit token (securead mailbox).")],
    spool: Annotated[Path, typer.Option("--spool", metavar="FILE", help="Where readings and messages wait, on disk.")],
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="What the centre calls this gateway.")],
    scale: options.Scale = None,
    time: options.Time = None,
    follow: Following = False,
    batch: Annotated[int, typer.Option(min=1, help="Windows a message.")] = 256,
    age: Annotated[float, typer.Option(min=0.0, help="The most seconds that a window waits for others.")] = 60.0,
    most_bytes: Annotated[int, typer.Option(min=1, help="Accept nothing more while the spool holds so much.")] = 1
    << 30,
    ca: options.Ca = None,
    as_json: options.Json = False,
) -> None:
    """Stream a gateway's readings, encrypted, to a service that keeps the answers for the key holder.

    Readings are accepted into the spool, cut into windows, encrypted under the key holder's public key and sent in
    order. While the service is away they wait on disk. Killed at any moment, the same call goes on where it stopped: of
    a file nothing is read twice, of standard input whoever feeds it sends again what was not accepted. When the spool
    is full, it stops reading; nothing that was accepted is dropped.

    It needs no secret key. The service sees the gateway's name, numbers, times and counts of windows; ciphertext else.

    \b
    Example:
      securead gateway readings.csv --follow --server https://scores.example.org --keys public --token deposit.token
        --spool spool.sqlite --name pump-7
    """
    from securead.cli.screen import ProgressBar, print_json, say
    from securead.client.gateway import Gateway
    from securead.client.keys import load_submitter
    from securead.client.mailbox import Mailbox, read_token
    from securead.client.source import Source
    from securead.client.spool import Spool
    from securead.data.streaming import StreamingEncoder
    from securead.data.windows import LocalScale, WindowedSchema
    from securead.errors import FixConfigurationError, FixInputError
    from securead.protocols.parcel import check_gateway

    if not check_gateway(name):
        raise FixInputError(
            "this cannot be a gateway's name", value=name, remedy="Use letters, digits, '-', '_' and '.', 64 at most."
        )
    submitter = load_submitter(keys)
    schema = submitter.model.program.encoder.schema
    if not isinstance(schema, WindowedSchema):
        raise FixConfigurationError(
            f"records of {submitter.model.name!r} are no windows of readings", remedy="Use `securead encrypt`."
        )
    encoder = StreamingEncoder(schema, None if scale is None else LocalScale.read(scale))
    path = None if readings == "-" else Path(readings)
    key = submitter.record.key
    with (
        ProgressBar() as watch,
        Spool(spool, gateway=name, key=key, most_bytes=most_bytes) as held,
        # Short, because `Gateway` itself tries again for ever, and between tries it can be told to end.
        Mailbox(server, key, read_token(token), ca=ca, patience=2.0, timeout=60.0, watch=watch) as box,
    ):
        source = Source(path, schema.window, time=time, follow=follow, place=held.recall()[1])
        work = Gateway(submitter, encoder, held, box, batch=batch, age=age, watch=watch)
        _until_signalled(work.stop)
        say(f"gateway {name} is reading {readings}")
        passed = work.run(source)
        waits = held.held()
    source.close()
    say(
        f"accepted {passed.readings:,} readings, sent {passed.sent:,} messages; waiting: {waits.windows:,} windows, "
        f"{waits.messages:,} messages"
    )
    if passed.dropped_lines:
        say(f"{passed.dropped_lines:,} lines were no readings and were dropped", "yellow")
    if as_json:
        print_json({**vars(passed), "waiting_windows": waits.windows, "waiting_messages": waits.messages})


def centre(
    server: options.Server,
    keys: Annotated[Path, typer.Option("--keys", metavar="DIR", help="The key directory, or DIR/secret.")],
    record: Annotated[Path, typer.Option("--record", metavar="FILE", help="Where scores and alarms are kept.")],
    page: Annotated[
        Path | None, typer.Option("--page", metavar="FILE", help="Draw a live page: open FILE in a browser.")
    ] = None,
    join: Annotated[int, typer.Option(min=0, help="Flagged windows so many readings apart are one alarm.")] = 30,
    once: Annotated[bool, typer.Option("--once", help="Fetch what waits now, and end.")] = False,
    interval: Annotated[float, typer.Option(min=0.05, help="Seconds between looks.")] = 1.0,
    passphrase_file: options.PassphraseFile = None,
    ca: options.Ca = None,
) -> None:
    """Fetch answers from the key's mailbox, decrypt them, raise alarms and draw a live page.

    Prints one line of JSON for every alarm that begins. Every message counts once, however often it comes; numbers that
    are left out show as missing. FILE and the page hold plaintext scores, readable by you alone. What you do about an
    alarm, do where the service cannot see it: alarms are made of scores.

    \b
    Example:
      securead centre --server https://scores.example.org --keys keys --record centre.sqlite --page centre.html
    """
    import time

    from securead.cli.screen import ProgressBar, print_json, say
    from securead.client.centre import Centre
    from securead.client.keys import load_holder
    from securead.client.mailbox import Mailbox, make_tokens
    from securead.client.page import write_page
    from securead.client.record import Alarm, Record

    holder = load_holder(keys, passphrase=options.passphrase(passphrase_file))
    tokens, key = make_tokens(keys), holder.record.key

    def told(alarm: Alarm) -> None:
        print_json({"alarm": vars(alarm), "told": round(time.time(), 3)})

    with (
        ProgressBar() as watch,
        Record(record, holder.model, key, join=join) as kept,
        Mailbox(server, key, tokens.pickup, ca=ca, patience=2.0, timeout=60.0, watch=watch) as box,
    ):
        work = Centre(holder, box, tokens, kept, told=told, watch=watch)

        def draw() -> None:
            if page is not None:
                write_page(page, kept, holder.model)

        _until_signalled(work.stop)
        if once:
            while work.poll():
                pass
            draw()
        else:
            say(f"the centre is looking after key {key[:16]}")
            work.run(interval=interval, page=draw)
    done = work.fetched
    say(f"took {done.taken:,} messages with {done.windows:,} windows; {done.alarms:,} alarms began")


def _until_signalled(stop: Callable[[], None]) -> None:
    """Have SIGTERM and an interrupt end the work in its own time."""
    for number in (signal.SIGTERM, signal.SIGINT):
        # In a thread of its own: what it locks may be held where the signal interrupts.
        signal.signal(number, lambda *_: threading.Thread(target=stop).start())
