"""Options that several commands share, and where passphrases come from (never the command line itself)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

VARIABLE = "SECUREAD_PASSPHRASE"

Server = Annotated[str, typer.Option("--server", metavar="URL", help="The scoring service, https://HOST[:PORT].")]
Ca = Annotated[
    Path | None,
    typer.Option("--ca", metavar="FILE", help="Trust this certificate (authority) instead of the system's."),
]
Patience = Annotated[
    float,
    typer.Option("--patience", metavar="SECONDS", min=0.0, help="How long to keep trying an unreachable service."),
]
PassphraseFile = Annotated[
    Path | None,
    typer.Option(
        "--passphrase-file",
        metavar="FILE",
        help=f"A file whose first line seals or opens the secret; else the variable {VARIABLE}.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print a summary for programs to standard output.")]
Reorder = Annotated[bool, typer.Option("--reorder", help="Match columns by name when their order differs.")]
Scale = Annotated[
    Path | None,
    typer.Option("--scale", metavar="FILE", help="This gateway's own scale, where the model's windows are on it."),
]
Time = Annotated[
    str | None,
    typer.Option("--time", metavar="COLUMN", help="The readings' times, for windows (default: time or timestamp)."),
]


def passphrase(file: Path | None) -> str | None:
    """The passphrase from a file or the environment, or None."""
    from securead import files
    from securead.errors import FixInputError

    if file is None:
        return os.environ.get(VARIABLE) or None
    try:
        lines = files.read_bytes(file, limit=4096).decode().splitlines()
    except UnicodeDecodeError as error:
        raise FixInputError(f"{file} is no text", remedy="Put the passphrase in its first line.") from error
    if not lines or not lines[0]:
        raise FixInputError(f"{file} holds no passphrase", remedy="Put it in its first line.")
    return lines[0]
