"""The coordinator's process: it serves the sites of a run and drives it to its end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from flwr.serverapp import Grid

from securead import files
from securead.certificates import CA_CERTIFICATE
from securead.errors import FixConfigurationError, FixInputError
from securead.federated.checkpoint import STATE_FILE, Checkpoint
from securead.federated.coordinator import Coordinator
from securead.federated.embedded import finish
from securead.federated.events import Listener
from securead.federated.federation import Terms
from securead.federated.flower.apps import server_app
from securead.federated.flower.superlink import Superlink
from securead.federated.flower.transport import FlowerTransport
from securead.protocols.masking.identity import Authority
from securead.protocols.sharing.links import Identity


def coordinate(
    terms: Terms,
    certs: Path,
    folder: Path,
    *,
    resume: bool = False,
    host: str = "127.0.0.1",
    port: int = 0,
    wait: float = 300.0,
    passphrase: str | None = None,
    listener: Listener = lambda event: None,
    listening: Callable[[str], None] = lambda address: None,
    trouble: Callable[[str, str], None] = lambda address, text: None,
    trained: Callable[[], None] = lambda: None,
) -> None:
    """Train the detector of `terms` among its sites; it is fitted when this returns.

    `certs`: the coordinator's directory of `securead certs`, whose key `passphrase` opens. `folder` is written after
    every round; one that holds a run that did not end is refused without `resume`. `listening` is told the address,
    `trouble` of sites whose answers are none. `trained` is called before the sites learn that the run is over: what
    must not be lost is saved there. Raises as `Coordinator.run` does.
    """
    begun = (folder / STATE_FILE).is_file()
    if begun and not resume:
        raise FixConfigurationError(
            f"{folder} holds a run that did not end",
            remedy="Go on with it: --resume. Or delete the folder to begin anew: what sites spent stays spent.",
        )
    if resume and not begun:
        raise FixInputError(f"{folder} holds no run to go on with", remedy="Leave --resume out.")
    identity = Identity.load(certs, passphrase=passphrase)
    with files.held(folder, STATE_FILE), Superlink(identity, terms.names, host=host, port=port) as link:
        memory = Checkpoint(folder, terms.fingerprint)
        roster = Authority(certs / CA_CERTIFICATE, terms.names) if terms.federation.hidden else None

        def work(grid: Grid) -> None:
            transport = FlowerTransport(grid, name=link.grid.name, forget=link.grid.forget, trouble=trouble)
            coordinator = Coordinator(terms, transport, memory, roster=roster, listener=listener, wait=wait)
            state = coordinator.run()
            finish(terms, state, memory)
            trained()
            coordinator.finish(state)

        listening(link.address)
        link.run(server_app(work))
