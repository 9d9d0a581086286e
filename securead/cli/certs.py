"""`securead certs`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from securead.cli import options

if TYPE_CHECKING:
    from securead.certificates import Member


def command(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The deployment's directory, made or added to.")],
    names: Annotated[
        list[str] | None,
        typer.Option("--name", metavar="NAME", help="Whom to make a certificate for; may be given several times."),
    ] = None,
    renewed: Annotated[
        list[str] | None,
        typer.Option("--renew", metavar="NAME", help="Replace this name's key and certificate by new ones."),
    ] = None,
    days: Annotated[int, typer.Option(metavar="DAYS", help="How long the certificates are valid.")] = 365,
    passphrase_file: options.PassphraseFile = None,
    as_json: options.Json = False,
) -> None:
    """Make the certificates by which the processes of a deployment know each other: of training, of shared scoring.

    The first call makes a private authority, DIR/ca.crt and DIR/ca.key, and later calls add names to it. For each
    name it writes DIR/NAME with ca.crt, identity.crt and identity.key: hand that directory to NAME, over a channel
    that nobody else reads, and delete it here. Keep DIR/ca.key offline: who has it can be anyone in the deployment.
    Keys are readable by you alone; a passphrase seals those that are made in this call, and opens a sealed ca.key.

    The names coordinator (of training), dealer, party0 and party1 (of secret-shared scoring) are the servers. A server
    is known by that name, wherever it runs. Every other name is a client: a site of a training run, or one that asks
    for scores; it cannot pass for a server. Certificates expire after --days, the authority after ten years; nothing
    else ends them, so to exclude someone earlier, make a new authority in another directory for everyone else.

    Without --name and --renew it lists who has a certificate, and until when.

    \b
    Examples:
      securead certs --out deployment --name dealer --name party0 --name party1 --name bank-a
      securead certs --out training --name coordinator --name bank-a --name bank-b --name bank-c
      securead certs --out deployment --name bank-b --days 90
      securead certs --out deployment --renew party0
      securead certs --out deployment
    """
    from securead import certificates
    from securead.cli.screen import print_json, say

    def made_now(member: Member) -> Member:
        say(f"made {member.directory}, {_kind(member)}, valid until {member.expires:%Y-%m-%d %H:%M} UTC")
        return member

    made: list[Member] = []
    if names or renewed:
        secret_words = options.passphrase(passphrase_file)
        if names:
            made.extend(map(made_now, certificates.issue(out, names, days=days, passphrase=secret_words)))
        for name in renewed or ():
            made.append(made_now(certificates.renew(out, name, days=days, passphrase=secret_words)))
        sealed = "sealed with the passphrase" if secret_words else "not sealed: guard the files"
        say(f"keys are {sealed}; {out / certificates.CA_KEY} stays with you")
    else:
        made.extend(certificates.members(out))
        for member in made:
            say(f"{member.name}, {_kind(member)}, valid until {member.expires:%Y-%m-%d %H:%M} UTC")
        if not made:
            say(f"{out} holds no certificates: give names with --name")
    if as_json:
        print_json(
            {
                "authority": str(out / certificates.CA_CERTIFICATE),
                "members": [
                    {
                        "name": member.name,
                        "directory": str(member.directory),
                        "expires": member.expires.isoformat(),
                        "serves": member.serves,
                    }
                    for member in made
                ],
            }
        )


def _kind(member: Member) -> str:
    return "server" if member.serves else "client"
