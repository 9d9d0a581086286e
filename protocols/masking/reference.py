"""Verifies vectors.json without the library: `python protocols/masking/reference.py`.

An independent reading of SPEC.md in plain Python: statements, signatures, set hashes, pair secrets, masks (HKDF from
its definition; X25519, ECDSA and AES are `cryptography`'s), sums, and who refuses what. For no other use.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import struct
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

WORD = 2**64

# --- statements and signatures: sections 2 and 3


def part(value):
    if isinstance(value, int):
        value = struct.pack("<Q", value)
    elif isinstance(value, str):
        value = value.encode("utf-8")
    return struct.pack("<I", len(value)) + value


def statement(kind, *parts):
    return b"securead.protocols.masking." + kind.encode() + b".v1\0" + b"".join(map(part, parts))


def signed_by(credential, message, signature):
    key = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), bytes.fromhex(credential))
    try:
        key.verify(bytes.fromhex(signature), message, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        return False
    return True


def hash_of(run, number, attempt, members):
    flat = [value for member in sorted(members.items(), key=lambda m: m[0].encode()) for value in member]
    return hashlib.sha256(statement("set", run, number, attempt, len(members), *flat)).digest()


# --- masks: section 4


def expand(key, info):
    """HKDF-Expand of RFC 5869 to 32 bytes: one block."""
    return hmac.new(key, info + b"\1", hashlib.sha256).digest()


def secret_of(private, run, lower, higher, other):
    shared = X25519PrivateKey.from_private_bytes(private).exchange(X25519PublicKey.from_public_bytes(other))
    extracted = hmac.new(bytes(32), shared, hashlib.sha256).digest()
    return expand(extracted, statement("pair", run, *lower, *higher))


def words_of(key, count):
    cipher = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    blocks = b"".join(cipher.update(struct.pack(">QQ", 0, at)) for at in range(-(-count // 2)))
    return list(struct.unpack(f"<{count}Q", blocks[: 8 * count]))


def check_set(case, vectors, sites):
    run, number, attempt = vectors["run"], case["round"], case["attempt"]
    members = {name: bytes.fromhex(vectors["adverts"][name]["key"]) for name in case["participants"]}
    hashed = hash_of(run, number, attempt, members)
    assert hashed.hex() == case["set_hash"]
    signed = statement("agreement", run, number, attempt, hashed)
    assert signed.hex() == case["agreement"]
    assert all(signed_by(sites[name]["credential"], signed, case["signatures"][name]) for name in members)
    masks = {name: [0] * len(case["sum"]) for name in members}
    assert len(case["pairs"]) == len(members) * (len(members) - 1) // 2
    for pair in case["pairs"]:
        ends = [(pair[end], members[pair[end]]) for end in ("lower", "higher")]
        assert ends[0][0].encode() < ends[1][0].encode()
        for own, other in (ends, ends[::-1]):
            private = bytes.fromhex(sites[own[0]]["x25519_private"])
            assert secret_of(private, run, *ends, other[1]).hex() == pair["secret"]
        key = expand(bytes.fromhex(pair["secret"]), statement("mask", run, number, attempt, hashed))
        assert key.hex() == pair["key"]
        mask = words_of(key, len(case["sum"]))
        assert mask == pair["mask"]
        for name, sign in ((pair["lower"], 1), (pair["higher"], -1)):
            masks[name] = [have + sign * word for have, word in zip(masks[name], mask, strict=True)]
    for name in members:
        together = zip(case["values"][name], masks[name], strict=True)
        assert [(value + mask) % WORD for value, mask in together] == case["masked"][name]
    assert sum_of(case["masked"], case["participants"]) == case["sum"]
    assert [sum(column) for column in zip(*case["values"].values(), strict=True)] == case["sum"]


def sum_of(messages, participants):
    """The sum, or None where there is none."""
    count = len(participants)
    if count < 2 or sorted(messages) != sorted(participants) or len({len(m) for m in messages.values()}) != 1:
        return None
    totals = [sum(column) % WORD for column in zip(*messages.values(), strict=True)]
    totals = [total - WORD * (total >> 63) for total in totals]
    return totals if all(abs(total) <= count * (2**62 // count - 1) for total in totals) else None


# --- what bank-a refuses: section 5


def advert_error(advert, vectors, sites, own_key, known):
    key = advert["key"]
    if len(key) != 64 or key != key.lower() or advert["run"] != vectors["run"]:
        return "RejectMessageError"
    if advert["name"] == "bank-a" and key != own_key:
        return "RejectMessageError"
    said = statement("advert", advert["run"], advert["name"], bytes.fromhex(key))
    site = sites.get(advert["name"])
    fits = site is not None and site["credential"] == advert["credential"]
    if not fits or not signed_by(advert["credential"], said, advert["signature"]):
        return "UseOtherKeyError"
    if known.get(advert["name"], key) != key or int(key, 16) == 0:
        return "UseOtherKeyError"
    return None


class BankA:
    def __init__(self, vectors, sites):
        self.vectors, self.sites, self.round, self.sets, self.keys = vectors, sites, -1, {}, {}
        self.own_key = vectors["adverts"]["bank-a"]["key"]

    def asked(self, number, attempt, labels):
        """The class of the error, or None."""
        adverts = [self.vectors["adverts"][label] for label in labels]
        names = {advert["name"] for advert in adverts}
        if number < 0 or attempt < 1:
            return "RejectMessageError"
        if attempt > self.vectors["attempts"] or number < self.round or len(adverts) < self.vectors["minimum"]:
            return "PrivacyRefusedError"
        if len(names) < len(adverts) or len({advert["key"] for advert in adverts}) < len(adverts):
            return "RejectMessageError"
        if "bank-a" not in names:
            return "RejectMessageError"
        errors = [advert_error(advert, self.vectors, self.sites, self.own_key, self.keys) for advert in adverts]
        if any(errors):
            return next(error for error in errors if error)
        sets = self.sets if number == self.round else {}
        if attempt in sets:
            return None if sets[attempt] == names else "PrivacyRefusedError"
        if sets and (attempt < max(sets) or not names < sets[max(sets)]):
            return "PrivacyRefusedError"
        self.round, self.sets = number, {**sets, attempt: names}
        self.keys |= {advert["name"]: advert["key"] for advert in adverts}
        return None


def check_agreements(case, vectors, sites):
    bank = BankA(vectors, sites)
    *before, last = [(step["round"], step["attempt"], step["participants"]) for step in case["asked"]]
    assert not any(bank.asked(*step) for step in before), case["name"]
    assert bank.asked(*last) == case["expected"], case["name"]


def message_error(ask, agreed, sites):
    if (ask["round"], ask["attempt"]) != (agreed["round"], agreed["attempt"]):
        return "RejectMessageError"
    if set(ask["signatures"]) != set(agreed["participants"]):
        return "RejectMessageError"
    signed = bytes.fromhex(agreed["agreement"])
    if not all(signed_by(sites[name]["credential"], signed, s) for name, s in ask["signatures"].items()):
        return "UseOtherKeyError"
    if any(abs(value) >= 2**62 // len(agreed["participants"]) for value in ask["values"]):
        return "FixInputError"
    return None if ask["values"] == agreed["values"]["bank-a"] else "PrivacyRefusedError"


def main():
    vectors = json.loads(Path(__file__).with_name("vectors.json").read_text(encoding="utf-8"))
    sites = {site["name"]: site for site in vectors["sites"]}
    for name, site in sites.items():
        advert, said = vectors["adverts"][name], bytes.fromhex(vectors["statements"][name])
        public = X25519PrivateKey.from_private_bytes(bytes.fromhex(site["x25519_private"])).public_key()
        assert public.public_bytes_raw().hex() == advert["key"]
        assert said == statement("advert", vectors["run"], name, bytes.fromhex(advert["key"]))
        assert signed_by(site["credential"], said, advert["signature"])
        scalar = ec.derive_private_key(int(site["signing_scalar"], 16), ec.SECP256R1())
        numbers = scalar.public_key().public_numbers()
        assert f"04{numbers.x:064x}{numbers.y:064x}" == site["credential"]
    for case in vectors["sets"]:
        check_set(case, vectors, sites)
    for case in vectors["refused_agreements"]:
        check_agreements(case, vectors, sites)
    for case in vectors["refused_messages"]:
        assert message_error(case, vectors["sets"][1], sites) == case["expected"], case["name"]
    for case in vectors["refused_sums"]:
        assert sum_of(case["messages"], case["participants"]) is None, case["name"]
    refused = sum(len(vectors[f"refused_{what}"]) for what in ("agreements", "messages", "sums"))
    print(f"ok: {len(vectors['sets'])} masked sums, {refused} refusals")


if __name__ == "__main__":
    main()
