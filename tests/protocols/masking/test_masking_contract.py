"""The library against protocols/masking/vectors.json: statements, masks, sums, and who refuses what."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from securead import codec, errors
from securead.privacy.site import Kept
from securead.protocols.masking import masks
from securead.protocols.masking.adverts import Advert, agreement, set_hash
from securead.protocols.masking.identity import Identity, Known
from securead.protocols.masking.masker import Masker

VECTORS = json.loads(
    (Path(__file__).resolve().parents[3] / "protocols" / "masking" / "vectors.json").read_text(encoding="utf-8")
)
RUN = VECTORS["run"]
SITES = {site["name"]: site for site in VECTORS["sites"]}
ADVERTS = {name: codec.from_plain(Advert, plain, where=name) for name, plain in VECTORS["adverts"].items()}


def named(section: str) -> list[Any]:
    return [pytest.param(case, id=case["name"]) for case in VECTORS[section]]


def masker(name: str) -> Masker:
    site, memory = SITES[name], Kept()
    memory.put("masking.key", np.frombuffer(bytes.fromhex(site["x25519_private"]), dtype=np.uint8))
    identity = Identity(name, ec.derive_private_key(int(site["signing_scalar"], 16), ec.SECP256R1()))
    roster = Known({name: bytes.fromhex(each["credential"]) for name, each in SITES.items()})
    return Masker(RUN, identity, roster, memory, minimum=VECTORS["minimum"], attempts=VECTORS["attempts"])


@pytest.mark.parametrize("name", SITES)
def test_adverts(name: str) -> None:
    made, expected = masker(name).advert(), ADVERTS[name]
    assert made.statement.hex() == expected.statement.hex() == VECTORS["statements"][name]
    assert (made.name, made.run, made.key, made.credential) == (
        expected.name,
        expected.run,
        expected.key,
        expected.credential,
    )


@pytest.mark.parametrize("case", named("sets"))
def test_masked_sums(case: dict[str, Any]) -> None:
    at = case["round"], case["attempt"]
    adverts = [ADVERTS[name] for name in case["participants"]]
    members = [(advert.name, advert.key_bytes) for advert in adverts]
    hashed = set_hash(RUN, *at, members)
    assert hashed.hex() == case["set_hash"]
    assert agreement(RUN, *at, hashed).hex() == case["agreement"]
    signatures = {name: bytes.fromhex(signature) for name, signature in case["signatures"].items()}
    sent = {}
    for name, values in case["values"].items():
        site = masker(name)
        site.agree(*at, adverts)
        sent[name] = site.mask(*at, signatures, np.array(values, dtype=np.int64))
        assert sent[name].tolist() == case["masked"][name]
    assert masks.unmask(sent, case["participants"]).tolist() == case["sum"]


@pytest.mark.parametrize(
    ("case", "pair"), [(case, pair) for case in VECTORS["sets"] for pair in case["pairs"]], ids=lambda _: ""
)
def test_masks_of_pairs(case: dict[str, Any], pair: dict[str, Any]) -> None:
    ends = [(pair[end], ADVERTS[pair[end]].key_bytes) for end in ("lower", "higher")]
    for own, other in (ends, ends[::-1]):
        private = X25519PrivateKey.from_private_bytes(bytes.fromhex(SITES[own[0]]["x25519_private"]))
        assert masks.pair_secret(private, RUN, own, other).hex() == pair["secret"]
    key = masks.stream_key(
        bytes.fromhex(pair["secret"]), RUN, case["round"], case["attempt"], bytes.fromhex(case["set_hash"])
    )
    assert key.hex() == pair["key"]
    assert masks.stream(key, len(pair["mask"])).tolist() == pair["mask"]


@pytest.mark.parametrize("case", named("refused_agreements"))
def test_refused_agreements(case: dict[str, Any]) -> None:
    site = masker("bank-a")
    *before, last = [
        (step["round"], step["attempt"], [ADVERTS[name] for name in step["participants"]]) for step in case["asked"]
    ]
    for step in before:
        site.agree(*step)
    with pytest.raises(getattr(errors, case["expected"])):
        site.agree(*last)


@pytest.mark.parametrize("case", named("refused_messages"))
def test_refused_messages(case: dict[str, Any]) -> None:
    site, agreed = masker("bank-a"), VECTORS["sets"][1]
    site.agree(agreed["round"], agreed["attempt"], [ADVERTS[name] for name in agreed["participants"]])
    expected = agreed["masked"]["bank-a"]
    asks = [{**case, "signatures": agreed["signatures"], "values": agreed["values"]["bank-a"]}, case]
    for ask in (dict(asks[0], attempt=agreed["attempt"]), asks[1]):
        signatures = {name: bytes.fromhex(signature) for name, signature in ask["signatures"].items()}
        values = np.array(ask["values"], dtype=np.int64)
        if ask is case:
            with pytest.raises(getattr(errors, case["expected"])):
                site.mask(ask["round"], ask["attempt"], signatures, values)
        else:
            assert site.mask(ask["round"], ask["attempt"], signatures, values).tolist() == expected


@pytest.mark.parametrize("case", named("refused_sums"))
def test_refused_sums(case: dict[str, Any]) -> None:
    messages = {name: np.array(words, dtype=np.uint64) for name, words in case["messages"].items()}
    with pytest.raises(getattr(errors, case["expected"])):
        masks.unmask(messages, case["participants"])
