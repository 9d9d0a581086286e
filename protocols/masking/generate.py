"""Writes vectors.json with the library: `python protocols/masking/generate.py`. Only after a deliberate change."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from securead import codec
from securead.protocols.masking import masks
from securead.protocols.masking.adverts import Advert, agreement, set_hash
from securead.protocols.masking.identity import Identity

RUN = "vectors of 2026"
NAMES = ("bank-b", "bank-a", "bank-a2", "züri")
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def secret(*name):
    """Keys of vectors are hashes of names; real ones are random."""
    return hashlib.sha256(b"securead masking vectors " + repr(name).encode()).digest()


class Fixed(Identity):
    """Signs the same twice (RFC 6979), so that this script writes the same file twice."""

    def __init__(self, name, scalar):
        super().__init__(name, ec.derive_private_key(scalar, ec.SECP256R1()))

    def sign(self, message):
        return self._key.sign(message, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))


class Site:
    def __init__(self, name):
        self.name = name
        self.scalar = int.from_bytes(secret(name, "identity"), "big") % (P256_ORDER - 1) + 1
        self.identity = Fixed(name, self.scalar)
        self.private = X25519PrivateKey.from_private_bytes(secret(name, "run"))
        self.member = name, self.private.public_key().public_bytes_raw()

    def advert(self, *, run=RUN, key=None):
        made = Advert(self.name, run, (key or self.member[1]).hex(), self.identity.credential.hex(), "")
        return dataclasses.replace(made, signature=self.identity.sign(made.statement).hex())


SITES = {name: Site(name) for name in NAMES}


def set_case(round, attempt, names):
    sites = [SITES[name] for name in names]
    hashed = set_hash(RUN, round, attempt, [site.member for site in sites])
    signed = agreement(RUN, round, attempt, hashed)
    bound = masks.SUM_BOUND // len(sites)
    values, pairs, keys = {}, [], {name: {} for name in names}
    for at, name in enumerate(names):
        drawn = np.random.default_rng([round, at]).integers(-(2**40), 2**40, 3)
        values[name] = np.array([bound - 1, 1 - bound, 0, at, -at, *drawn], dtype=np.int64)
    for lower in sorted(names):
        for higher in sorted(names):
            if lower < higher:
                a, b = SITES[lower], SITES[higher]
                shared = masks.pair_secret(a.private, RUN, a.member, b.member)
                assert shared == masks.pair_secret(b.private, RUN, b.member, a.member)
                key = masks.stream_key(shared, RUN, round, attempt, hashed)
                keys[lower][higher] = keys[higher][lower] = key
                words = masks.stream(key, 8).tolist()
                case = {"lower": lower, "higher": higher, "secret": shared.hex(), "key": key.hex(), "mask": words}
                pairs.append(case)
    masked = {name: masks.masked(name, keys[name], values[name]) for name in names}
    return {
        "name": f"round {round}, attempt {attempt}, {len(names)} sites",
        "round": round,
        "attempt": attempt,
        "participants": list(names),
        "set_hash": hashed.hex(),
        "agreement": signed.hex(),
        "signatures": {site.name: site.identity.sign(signed).hex() for site in sites},
        "pairs": pairs,
        "values": {name: array.tolist() for name, array in values.items()},
        "masked": {name: array.tolist() for name, array in masked.items()},
        "sum": masks.unmask(masked, names).tolist(),
    }


def adverts():
    """Everybody's, and some that must be refused."""
    made = {name: site.advert() for name, site in SITES.items()}
    second = X25519PrivateKey.from_private_bytes(secret("bank-b", "second")).public_key().public_bytes_raw()
    other = SITES["bank-a2"]
    return made | {
        "bank-b of another run": SITES["bank-b"].advert(run="another run"),
        "bank-b with a second key": SITES["bank-b"].advert(key=second),
        "bank-b with the key of bank-a2": SITES["bank-b"].advert(key=other.member[1]),
        "bank-b of low order": SITES["bank-b"].advert(key=bytes(32)),
        "bank-b, short key": dataclasses.replace(made["bank-b"], key=made["bank-b"].key[:-2]),
        "bank-b, capitals": dataclasses.replace(made["bank-b"], key=made["bank-b"].key.upper()),
        "bank-b signed by bank-a2": dataclasses.replace(
            made["bank-b"], signature=other.identity.sign(made["bank-b"].statement).hex()
        ),
        "bank-b with the credential of bank-a2": dataclasses.replace(
            made["bank-b"],
            credential=other.identity.credential.hex(),
            signature=other.identity.sign(made["bank-b"].statement).hex(),
        ),
        "a stranger": Site("stranger").advert(),
        "bank-a, foreign key": SITES["bank-a"].advert(key=second),
    }


def agreements():
    """What bank-a is asked one after the other; only the last is refused. Of at least two sites, in two attempts."""
    four, three, two = list(NAMES), ["bank-a", "bank-b", "züri"], ["bank-a", "bank-b"]

    def case(name, expected, *asked):
        steps = [{"round": r, "attempt": k, "participants": names} for r, k, names in asked]
        return {"name": name, "expected": expected, "asked": steps}

    def alone(name, expected, *names):
        return case(name, expected, (0, 1, list(names)))

    return [
        alone("one site", "PrivacyRefusedError", "bank-a"),
        alone("without this site", "RejectMessageError", "bank-b", "züri"),
        alone("one site twice", "RejectMessageError", "bank-a", "bank-b", "bank-b"),
        alone("this site with a key that it does not hold", "RejectMessageError", "bank-a, foreign key", "bank-b"),
        alone("one key twice", "RejectMessageError", "bank-a", "bank-a2", "bank-b with the key of bank-a2"),
        alone("another run", "RejectMessageError", "bank-a", "bank-b of another run"),
        alone("a key of 31 bytes", "RejectMessageError", "bank-a", "bank-b, short key"),
        alone("a key in capitals", "RejectMessageError", "bank-a", "bank-b, capitals"),
        alone("a key of low order", "UseOtherKeyError", "bank-a", "bank-b of low order"),
        alone("a signature of another site", "UseOtherKeyError", "bank-a", "bank-b signed by bank-a2"),
        alone("a credential of another site", "UseOtherKeyError", "bank-a", "bank-b with the credential of bank-a2"),
        alone("a stranger", "UseOtherKeyError", "bank-a", "a stranger"),
        case("attempt 0", "RejectMessageError", (0, 0, four)),
        case("round -1", "RejectMessageError", (-1, 1, four)),
        case("an attempt too many", "PrivacyRefusedError", (0, 1, four), (0, 2, three), (0, 3, two)),
        case("two sets of one attempt", "PrivacyRefusedError", (0, 1, four), (0, 1, three)),
        case("one set in two attempts", "PrivacyRefusedError", (0, 1, four), (0, 2, four)),
        case("a set that grows", "PrivacyRefusedError", (0, 1, three), (0, 2, four)),
        case("a set that changes", "PrivacyRefusedError", (0, 1, three), (0, 2, ["bank-a", "bank-a2"])),
        case("an attempt that is over", "PrivacyRefusedError", (0, 2, three), (0, 1, four)),
        case("a round that is over", "PrivacyRefusedError", (1, 1, four), (0, 1, four)),
        case(
            "a key that changed in a later round",
            "UseOtherKeyError",
            (0, 1, two),
            (1, 1, ["bank-a", "bank-b with a second key"]),
        ),
    ]


def messages(case):
    """What bank-a is asked to mask after it agreed to the case's set, and has masked the case's values."""
    values, signatures, bound = case["values"]["bank-a"], case["signatures"], masks.SUM_BOUND // len(NAMES)

    def ask(name, expected, **changed):
        asked = {"round": case["round"], "attempt": case["attempt"], "signatures": signatures, "values": values}
        return {"name": name, "expected": expected, **asked, **changed}

    without = {name: signature for name, signature in signatures.items() if name != "züri"}
    swapped = signatures | {"züri": signatures["bank-b"]}
    return [
        ask("an attempt nobody agreed to", "RejectMessageError", attempt=2),
        ask("a signature is missing", "RejectMessageError", signatures=without),
        ask("a signature too many", "RejectMessageError", signatures=signatures | {"stranger": signatures["bank-b"]}),
        ask("a signature of another site", "UseOtherKeyError", signatures=swapped),
        ask("other values", "PrivacyRefusedError", values=[*values[:-1], values[-1] + 1]),
        ask("another shape", "PrivacyRefusedError", values=values[:-1]),
        ask("a value of 2^62 / 4", "FixInputError", values=[bound, *values[1:]]),
        ask("a value of -2^62 / 4", "FixInputError", values=[-bound, *values[1:]]),
        ask("the least int64", "FixInputError", values=[-(2**63), *values[1:]]),
    ]


def sums(case, other):
    """What no coordinator may take for a sum."""
    names, masked = case["participants"], case["masked"]

    def refused(name, participants, content):
        return {"name": name, "expected": "RejectMessageError", "participants": participants, "messages": content}

    fewer = {name: words for name, words in masked.items() if name != "züri"}
    return [
        refused("a message is missing", names, fewer),
        refused("a message too many", [name for name in names if name != "züri"], masked),
        refused("one participant", ["bank-a"], {"bank-a": masked["bank-a"]}),
        refused("a participant twice", [*names, "bank-a"], masked),
        refused("another length", names, masked | {"züri": masked["züri"][:-1]}),
        refused("masks of another set", names, fewer | {"züri": other["masked"]["züri"]}),
    ]


def main():
    sets = [
        set_case(0, 1, ("bank-b", "bank-a")),
        set_case(3, 1, NAMES),
        set_case(3, 2, ("bank-b", "bank-a", "züri")),
        set_case(4, 1, NAMES),
    ]
    vectors = {
        "source": "securead, protocols/masking/SPEC.md; no outside vectors exist for this protocol",
        "generator": "python protocols/masking/generate.py",
        "run": RUN,
        "minimum": 2,
        "attempts": 2,
        "sites": [
            {
                "name": site.name,
                "signing_scalar": f"{site.scalar:064x}",
                "x25519_private": site.private.private_bytes_raw().hex(),
                "credential": site.identity.credential.hex(),
            }
            for site in SITES.values()
        ],
        "adverts": {name: codec.to_plain(advert) for name, advert in adverts().items()},
        "statements": {name: SITES[name].advert().statement.hex() for name in NAMES},
        "sets": sets,
        "refused_agreements": agreements(),
        "refused_messages": messages(sets[1]),
        "refused_sums": sums(sets[1], sets[3]),
    }
    text = json.dumps(vectors, indent=1, ensure_ascii=False)
    Path(__file__).with_name("vectors.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
