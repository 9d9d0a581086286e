"""The library against protocols/sharing/vectors.json: streams, corrections, and every message of both parties."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from two_parties import TwoParties, recorded, two_parties

from securead import codec
from securead.errors import RejectMessageError
from securead.program.polynomial import PublicPolynomial
from securead.program.table import PublicTable
from securead.protocols.sharing import dealing, owner, shares
from securead.protocols.sharing.correlations import BinaryTriple, BitProduct, MatrixTriple, SquarePair, Triple
from securead.protocols.sharing.plan import SharingPlan, make_plan, plan_from_plain

VECTORS = json.loads((Path(__file__).resolve().parents[3] / "protocols" / "sharing" / "vectors.json").read_text())
KINDS = {kind.tag: kind for kind in (MatrixTriple, Triple, SquarePair, BinaryTriple, BitProduct)}


def named(section: str) -> list[Any]:
    return [pytest.param(case, id=case["name"]) for case in VECTORS[section]]


@pytest.fixture(scope="module")
def parties() -> Iterator[TwoParties]:
    with two_parties() as both:
        yield both


@pytest.mark.parametrize("case", VECTORS["streams"])
def test_streams(case: dict[str, Any]) -> None:
    assert shares.stream(bytes.fromhex(case["key"]), 5).tolist() == case["words"]


@pytest.mark.parametrize("case", VECTORS["set_keys"])
def test_set_keys(case: dict[str, Any]) -> None:
    made = dealing.set_key(bytes.fromhex(case["seed"]), case["set"], case["rows"], case["verdict"])
    assert made.hex() == case["key"]


@pytest.mark.parametrize("case", named("deals"))
def test_corrections(case: dict[str, Any]) -> None:
    shapes = {name: tuple(value) for name, value in case["correlation"].items() if name != "kind"}
    wanted = KINDS[case["correlation"]["kind"]](**shapes)
    corrections = dealing.deal([wanted], *map(bytes.fromhex, case["keys"]))
    assert np.frombuffer(corrections, "<i8").tolist() == case["corrections"]


@pytest.mark.parametrize("case", VECTORS["truncations"])
def test_truncations(case: dict[str, Any]) -> None:
    import torch

    from securead.protocols.sharing.circuit import truncate

    assert truncate(torch.tensor(case["shares"]), case["shift"]).tolist() == case["parts"]


def plan_of(name: str) -> tuple[SharingPlan, Any]:
    case = next(case for case in VECTORS["programs"] if case["name"] == name)
    kind = PublicTable if case["public"]["type"] == "table" else PublicPolynomial
    return plan_from_plain(case["plans"][0]), codec.from_plain(kind, case["public"], where=name)


@pytest.mark.parametrize("case", named("programs"))
def test_costs(case: dict[str, Any]) -> None:
    plan, public = plan_of(case["name"])
    assert plan == make_plan(public, "same")
    assert [plan.rounds(False), plan.rounds(True)] == case["rounds"]
    for chunk in case["chunks"]:
        assert plan.online_bytes(chunk["rows"], chunk["verdict"]) == chunk["online_bytes"]
        assert plan.offline_bytes(chunk["rows"], chunk["verdict"]) == chunk["offline_bytes"]


@pytest.mark.parametrize("case", named("runs"))
def test_every_message_of_a_computation(parties: TwoParties, case: dict[str, Any]) -> None:
    plan, public = plan_of(case["program"])
    rows, verdict = case["rows"], case["verdict"]
    assert shares.threshold_integer(public, case["threshold"]) == case["threshold_integer"]
    models = [
        shares.ModelShare(rank, public, "0" * 32, np.array(case["model"][rank], dtype=np.int64)) for rank in (0, 1)
    ]
    salt = bytes(32)  # what it is does not matter to the computation
    payloads = salt + np.array(case["payload_0"], dtype="<i8").tobytes(), bytes.fromhex(case["payload_1"])
    keys = [dealing.set_key(bytes.fromhex(seed), case["set"], plan.bucket(rows), verdict) for seed in case["seeds"]]
    corrections = dealing.deal(plan.correlations(rows, verdict), *keys)
    assert hashlib.sha256(corrections).hexdigest() == case["corrections_sha256"]
    both = parties.run(
        recorded,
        tuple(
            (plan, models[rank], (payloads[rank], rows, keys[rank], None if rank else corrections), verdict)
            for rank in (0, 1)
        ),
        ring_key=bytes.fromhex(case["ring_key"]),
    )
    assert [sent for _, sent in both] == case["sent_sha256"]
    assert [np.frombuffer(answer, "<i8").tolist() for answer, _ in both] == case["answers"]
    join = owner.join_verdicts if verdict else owner.join_scores
    assert [int(v) for v in join(plan, both[0][0], both[1][0], rows)] == case["joined"]


@pytest.mark.parametrize("case", named("bad_payloads"))
def test_bad_payloads_are_refused(case: dict[str, Any]) -> None:
    plan, _ = plan_of("small quadratic")
    expected = plan.request_bytes(case["rows"]) if case["index"] == 0 else 32
    content = bytes(expected + case["bytes"] if case["bytes"] else 0 if case["rows"] else expected)
    with pytest.raises(RejectMessageError):
        owner.read_queries(plan, case["index"], content, case["rows"])
