"""`securead keygen`."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from securead.cli import options


class RoleName(StrEnum):
    """Who holds the secret key."""

    SAME = "same"
    SPLIT = "split"


def command(
    server: options.Server,
    model: Annotated[str, typer.Option("--model", metavar="NAME", help="The model's name at the service.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The key directory to make; it must not exist.")],
    role: Annotated[
        RoleName, typer.Option(help="same: whoever submits also decrypts. split: the submitter cannot decrypt.")
    ] = RoleName.SAME,
    engine: Annotated[
        str | None,
        typer.Option("--engine", metavar="NAME", help="The engine (default: the first that fits; see securead plan)."),
    ] = None,
    passphrase_file: options.PassphraseFile = None,
    ca: options.Ca = None,
    patience: options.Patience = 60.0,
    as_json: options.Json = False,
) -> None:
    """Fetch a model's public half and make keys for it.

    Writes DIR/public (the model, parameters, a public key) and DIR/secret (the same and the secret key, readable by
    you alone, sealed when a passphrase is given). Parameters are derived from the model, 128-bit secure. The service
    learns that someone asked for the model, and nothing of the keys.

    In role same, keep DIR where you submit from. In role split, hand DIR/public to the submitter and keep DIR/secret
    at the key holder's: the submitter cannot read scores, the service sees neither records nor scores.

    \b
    Example:
      securead keygen --server https://scores.example.org --model payments --out keys
    """
    import time

    from securead.cli.screen import ProgressBar, print_json, say, size
    from securead.client.keys import PUBLIC_KEY_FILE, SECRET_KEY_FILE, make_keys, refuse_existing
    from securead.client.service import Service
    from securead.client.setups import with_published

    start = time.perf_counter()
    refuse_existing(out)
    secret_words = options.passphrase(passphrase_file)
    with ProgressBar() as watch, Service(server, ca=ca, patience=patience, watch=watch) as service:
        keys = make_keys(service.model(model), "split" if role is RoleName.SPLIT else "same", engine=engine)
        keys = with_published(service, keys, watch=watch)
    keys.save(out, passphrase=secret_words)
    public = (out / "public" / PUBLIC_KEY_FILE).stat().st_size
    secret = (out / "secret" / SECRET_KEY_FILE).stat().st_size
    sealed = "sealed with the passphrase" if secret_words else "not sealed: guard the file"
    say(f"made keys for {model!r}, role {role}, key {keys.record.key[:16]} -> {out}")
    say(f"public/ {size(public)}, to hand out; secret/ {size(secret)}, {sealed}")
    if as_json:
        print_json(
            {
                "key": keys.record.key,
                "role": str(role),
                "model": model,
                "engine": keys.record.engine,
                "security_bits": keys.plan.security_bits,
                "public_bytes": public,
                "secret_bytes": secret,
                "seconds": time.perf_counter() - start,
            }
        )
