"""The Flower executor gives the models of the embedded one: coordinator and sites in threads, TLS between them."""

from __future__ import annotations

import functools
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from sklearn.base import clone

from securead.certificates import issue
from securead.checks.executor import AVERAGES, check_equivalence
from securead.data.schema import Schema
from securead.federated.federation import Federation, Terms
from securead.federated.flower import installed
from securead.federated.participant import Participant, Site
from securead.models.estimator import AnomalyDetector
from securead.privacy.plan import PrivacyPlan
from securead.privacy.site import Kept
from securead.protocols.masking.identity import Authority
from securead.protocols.masking.identity import Identity as Signer
from securead.protocols.paillier import keys
from securead.protocols.sharing.links import Identity, parse_address

pytest.importorskip("flwr")
installed.require()

from securead.federated.flower.apps import client_app  # noqa: E402
from securead.federated.flower.coordinating import coordinate  # noqa: E402
from securead.federated.flower.supernode import Supernode  # noqa: E402


def train(
    detector: AnomalyDetector,
    sites: Sequence[Site],
    schema: Schema,
    *,
    privacy: PrivacyPlan | None,
    federation: Federation,
) -> AnomalyDetector:
    """An executor as `checks.executor` wants it; every participant has a detector of its own."""
    names = tuple(site.name for site in sites)

    def terms() -> Terms:
        return Terms(clone(detector), names, schema, privacy, federation)

    def take_part(site: Site, address: str) -> None:
        try:
            signer = Signer.from_member(folder / site.name)
            roster = Authority(folder / "ca.crt", names)
            participant = Participant(site, terms(), Kept(), identity=signer, roster=roster)
            app = client_app(participant.reply)
            identity = Identity.load(folder / site.name)
            Supernode(parse_address(address), identity, app, patience=10.0).run(lambda: participant.finished)
        except Exception as error:
            wrong.append(error)

    wrong: list[Exception] = []
    threads: list[threading.Thread] = []

    def begin(address: str) -> None:
        for site in sites:
            threads.append(threading.Thread(target=take_part, args=(site, address)))
            threads[-1].start()

    mine = Terms(detector, names, schema, privacy, federation)
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        issue(folder, ("coordinator", *names))
        coordinate(mine, folder / "coordinator", folder / "run", wait=20.0, listening=begin)
        for thread in threads:
            thread.join(10)
    assert not wrong, wrong
    return detector


@pytest.mark.parametrize("aggregation", ["plain", "masked", "paillier"])
def test_the_same_forest(aggregation: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fewer = {}
    if aggregation == "paillier":
        pytest.importorskip("phe")
        monkeypatch.setattr(keys, "KEY_BITS", 512)
        fewer = {"n_estimators": 9}
    check_equivalence(functools.partial(train, federation=Federation(aggregation)), [("forest", fewer)])


@pytest.mark.long
@pytest.mark.parametrize("aggregation", ["plain", "masked"])
def test_the_same_of_every_detector(aggregation: str) -> None:
    executor = functools.partial(train, federation=Federation(aggregation))
    check_equivalence(executor, [("subspace", {}), ("histogram", {}), ("autoencoder", AVERAGES[0])])
