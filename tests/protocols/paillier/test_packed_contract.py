"""protocols/paillier/AGGREGATION.md: its reference verifies its vectors, and the library does what they say."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from securead.errors import RejectMessageError, UseOtherKeyError
from securead.protocols.masking import masks
from securead.protocols.masking.adverts import statement
from securead.protocols.paillier import groupkey, keys, sums
from securead.protocols.paillier.groupkey import GroupKey
from securead.protocols.paillier.packed import Packing

pytest.importorskip("phe")
CONTRACT = Path(__file__).resolve().parents[3] / "protocols" / "paillier"
VECTORS: dict[str, Any] = json.loads((CONTRACT / "aggregation_vectors.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def key() -> GroupKey:
    told = VECTORS["key"]
    private = keys.PrivateKey(int(told["p"], 16), int(told["q"], 16))
    return GroupKey(private, bytes.fromhex(told["pad_secret"]))


def named(section: str) -> list[Any]:
    return [pytest.param(case, id=case["name"]) for case in VECTORS[section]]


def test_the_reference_verifies_them_alone(tmp_path: Path) -> None:
    script = CONTRACT / "aggregation_reference.py"
    text = script.read_text(encoding="utf-8")
    assert "import securead" not in text
    assert "from securead" not in text
    run = subprocess.run([sys.executable, str(script)], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert {"source", "generator"} <= set(VECTORS)


def test_packings() -> None:
    for case in VECTORS["packings"]:
        packing = Packing(case["sites"], case["bits"], 1, case["key_bits"])
        assert (packing.bound, packing.width, packing.slots) == (case["bound"], case["width"], case["slots"])


def test_the_sealed_key(key: GroupKey) -> None:
    case, run = VECTORS["seal"], VECTORS["run"]
    private = X25519PrivateKey.from_private_bytes(bytes.fromhex(case["receiver_private"]))
    own = case["receiver"], private.public_key().public_bytes_raw()
    secret = masks.pair_secret(private, run, own, (case["sealer"], bytes.fromhex(case["sealer_public"])))
    info = statement("paillier-seal", run, case["sealer"], case["receiver"], groupkey.name_of(key.n))
    sealed = bytes.fromhex(case["sealed"])
    found = groupkey.unseal(sealed, masks.derived(secret, info), key.n, where="here")
    assert found.to_bytes() == key.to_bytes()
    assert found.name.hex() == VECTORS["key_name"]


@pytest.mark.parametrize("case", VECTORS["sums"], ids=lambda case: f"round {case['round']}")
def test_sums(case: dict[str, Any], key: GroupKey) -> None:
    run, names, count = VECTORS["run"], case["participants"], len(case["sum"])
    packing = Packing(case["sites"], case["bits"], count, keys.KEY_BITS)
    adder = sums.Adder(key.n)
    for name in names:
        plaintexts = packing.pack(np.array(case["values"][name]))
        assert plaintexts == [int(e, 16) for e in case["plaintexts"][name]]
        pads = key.pads(run, case["round"], (name, bytes.fromhex(case["keys"][name])), packing.plaintexts)
        assert pads == [int(pad, 16) for pad in case["pads"][name]]
        rs = [int(r, 16) for r in case["randomness"][name]]
        parts = zip(plaintexts, pads, rs, strict=True)
        message = sums.to_array([key.private.encrypt_with((e + pad) % key.n, r) for e, pad, r in parts])
        assert message.tobytes().hex() == case["messages"][name]
        adder.add(name, message)
    product = sums.from_array(adder.total(names), key.n, where="sum")
    assert product == [int(c, 16) for c in case["product"]]
    assert opened(key, case, product) == case["sum"]


def opened(key: GroupKey, case: dict[str, Any], product: list[int]) -> list[int] | None:
    packing = Packing(case["sites"], case["bits"], len(case["sum"]), keys.KEY_BITS)
    left = [key.private.decrypt(c) for c in product]
    for name in case["participants"]:
        member = name, bytes.fromhex(case["keys"][name])
        pads = key.pads(VECTORS["run"], case["round"], member, packing.plaintexts)
        left = [(plaintext - pad) % key.n for plaintext, pad in zip(left, pads, strict=True)]
    found = packing.unpack(left, len(case["participants"]))
    return None if found is None else list(found.tolist())


@pytest.mark.parametrize("refused", named("refused_sums"))
def test_what_is_no_sum(refused: dict[str, Any], key: GroupKey) -> None:
    case = VECTORS["sums"][0]
    product = [1] * len(case["product"])
    for name in refused["factors"]:
        content = np.frombuffer(bytes.fromhex(case["messages"][name]), np.uint8).reshape(-1, keys.ciphertext_bytes())
        row = sums.from_array(content, key.n, where=name)
        product = [a * b % key.n**2 for a, b in zip(product, row, strict=True)]
    assert opened(key, case, product) is None


@pytest.mark.parametrize("refused", named("refused_ciphertexts"))
def test_what_is_no_ciphertext(refused: dict[str, Any], key: GroupKey) -> None:
    with pytest.raises(RejectMessageError):
        keys.check_ciphertext(int(refused["ciphertext"], 16), key.n, where="here")


@pytest.mark.parametrize("refused", named("refused_moduli"))
def test_what_is_no_modulus(refused: dict[str, Any]) -> None:
    with pytest.raises(UseOtherKeyError):
        keys.check_modulus(int(refused["modulus"], 16), where="here")


def test_the_contract_says_what_is_measured() -> None:
    """The sizes of section 7 are those of the code."""
    text = (CONTRACT / "AGGREGATION.md").read_text(encoding="utf-8")
    for bits in (32, 64):
        packing = Packing(5, bits, 2000, 3072)
        size = packing.plaintexts * keys.ciphertext_bytes()
        assert f"b = {bits}" in text
        assert f"s = {packing.slots}" in text
        assert f"{size:,} bytes" in text
