"""The command `securead`. Commands are a few lines over the library; heavy imports stand inside them."""

from __future__ import annotations

import errno
from collections.abc import Callable
from typing import Annotated

import typer
from typer.core import TyperCommand

from securead.cli import (
    bench,
    certs,
    demo,
    federation,
    inspect,
    keygen,
    plan,
    publish,
    scoring,
    serve,
    share,
    sharing,
    shrink,
    stations,
    train,
)
from securead.cli.docstrings import helped
from securead.cli.screen import say, say_error
from securead.errors import RetryLaterError, SecureadError

_PLACE_IS_UNFIT = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR}

app = typer.Typer(
    name="securead",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    # Its tracebacks show local variables, which may be records.
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        from securead import __version__

        print(f"securead {__version__}")
        raise typer.Exit


@app.callback()
def common_options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and end.")
    ] = False,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Log events to standard error (never a record or a score).")
    ] = False,
) -> None:
    """Privacy-preserving anomaly detection: train among sites, score records while they stay encrypted.

    A model owner runs train and serve; someone with records runs keygen, then score (or encrypt, submit, decrypt).
    To see all of it: securead demo.
    """
    if verbose:
        import logging

        logging.basicConfig(format="%(message)s")
        logging.getLogger("securead").setLevel(logging.INFO)


def _add(name: str, command: Callable[..., None], kind: type[TyperCommand] | None = None) -> None:
    """Register a command; its docstring is its help."""
    app.command(name, cls=kind, help=helped(command))(command)


_add("train", train.command)
_add("coordinator", federation.coordinator)
_add("site", federation.site)
_add("plan", plan.command)
_add("publish", publish.command)
_add("serve", serve.command)
_add("keygen", keygen.command)
_add("encrypt", scoring.encrypt)
_add("submit", scoring.submit)
_add("decrypt", scoring.decrypt)
_add("score", scoring.score)
_add("share", share.command)
_add("inspect", inspect.command)
_add("shrink", shrink.command)
_add("certs", certs.command)
_add("split", sharing.split)
_add("dealer", sharing.dealer)
_add("party", sharing.party)
_add("mailbox", stations.mailbox)
_add("gateway", stations.gateway)
_add("centre", stations.centre)
_add("bench", bench.command, bench.BenchCommand)
_add("demo", demo.command)


def main() -> None:
    """Run the command line: exit code 0, 2 for what the caller can correct, 130 when interrupted, 1 for a bug."""
    try:
        app(prog_name="securead")
    except SecureadError as error:
        say_error(error)
        raise SystemExit(2) from None
    except OSError as error:  # a place that no command foresaw, such as standard output on a full disk
        if error.errno not in _PLACE_IS_UNFIT:
            raise
        place = error.filename or "the output"
        say_error(
            RetryLaterError(f"cannot write {place}: {error.strerror}", remedy="Free space or choose another place.")
        )
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        say("interrupted", "yellow")
        raise SystemExit(130) from None
