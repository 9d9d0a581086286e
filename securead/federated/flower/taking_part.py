"""A site's process: its records, its memory of the run and its node, until the run is over."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from securead import files
from securead.certificates import CA_CERTIFICATE
from securead.errors import SecureadError
from securead.federated.flower.apps import client_app
from securead.federated.flower.supernode import Supernode
from securead.federated.participant import Participant
from securead.federated.recipe import Recipe
from securead.federated.roles import own_site, terms_of
from securead.privacy.site import Kept
from securead.protocols.masking.identity import Authority
from securead.protocols.masking.identity import Identity as Signer
from securead.protocols.sharing.links import Identity, parse_address


def take_part(
    recipe: Recipe,
    base: Path,
    data: Path,
    certs: Path,
    address: str,
    *,
    folder: Path,
    patience: float = 600.0,
    passphrase: str | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> None:
    """Take part as the site that the certificate in `certs` names, with records from `data`, until the run is over.

    `base` is the recipe's folder, `folder` the site's memory of the run, deleted when it is over. What is wrong with
    the records or the budget is raised before anybody is told of them; whatever the site refuses is answered and then
    raised. Raises as `Supernode.run` does.
    """
    where, identity = parse_address(address, where="--coordinator"), Identity.load(certs, passphrase=passphrase)
    terms = terms_of(recipe)
    site = own_site(recipe, identity.name, data, base)
    signer = roster = None
    if terms.federation.hidden:
        signer = Signer.from_member(certs, passphrase)
        roster = Authority(certs / CA_CERTIFICATE, terms.names)
    refused: list[SecureadError] = []
    with files.held(folder, "identity.npy"):  # two processes on one memory would release twice
        participant = Participant(site, terms, Kept(folder), identity=signer, roster=roster, trouble=refused.append)
        participant.check()
        node = Supernode(where, identity, client_app(participant.reply), patience=patience, say=say)
        node.run(lambda: participant.finished or bool(refused))
        if refused:
            raise refused[0]
        files.discard(folder)
