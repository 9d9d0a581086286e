"""Writes aggregation_vectors.json: `python protocols/paillier/aggregation_generate.py`. Keys in it are for it alone."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import gmpy2
import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from securead.protocols.masking import masks
from securead.protocols.masking.adverts import statement
from securead.protocols.paillier import keys, sums
from securead.protocols.paillier.groupkey import GroupKey
from securead.protocols.paillier.packed import Packing

RUN, SITES = "vectors", ("bank-a", "bank-b", "züri")


def number(label, bits):
    """A number that follows from its label, the highest two bits set."""
    found = int.from_bytes(hashlib.shake_256(label.encode()).digest(bits // 8), "little")
    return found | 3 << (bits - 2)


def prime(label):
    return int(gmpy2.next_prime(number(label, keys.KEY_BITS // 2)))


def packings():
    return [
        {"sites": n, "bits": b, "key_bits": k, "bound": p.bound, "width": p.width, "slots": p.slots}
        for n, b, k in [(2, 2, 3072), (3, 8, 3072), (5, 16, 3072), (5, 32, 3072), (20, 63, 3072), (5, 64, 3072)]
        for p in [Packing(n, b, 1, k)]
    ]


def private_of(site):
    return X25519PrivateKey.from_private_bytes(hashlib.sha256(site.encode()).digest())


def public_of(site):
    return private_of(site).public_key().public_bytes_raw()


def sum_case(key, round, bits, count, participants):
    """Extremes and what lies between them."""
    packing = Packing(len(SITES), bits, count, keys.KEY_BITS)
    rng, low, high = np.random.default_rng(round), -packing.bound, packing.bound - 1
    values = {site: rng.integers(low, high, count, endpoint=True) for site in participants}
    for array in values.values():
        array[:2] = low, high
    messages, pads, randomness = {}, {}, {}
    adder = sums.Adder(key.n)
    for site in participants:
        pads[site] = key.pads(RUN, round, (site, public_of(site)), packing.plaintexts)
        randomness[site] = [number(f"r {round} {site} {at}", keys.KEY_BITS - 8) for at in range(packing.plaintexts)]
        messages[site] = [
            key.private.encrypt_with((e + pad) % key.n, r)
            for e, pad, r in zip(packing.pack(values[site]), pads[site], randomness[site], strict=True)
        ]
        adder.add(site, sums.to_array(messages[site]))
    product = sums.from_array(adder.total(participants), key.n, where="sum")
    return {
        "round": round,
        "sites": len(SITES),
        "bits": bits,
        "participants": list(participants),
        "keys": {site: public_of(site).hex() for site in participants},
        "values": {site: array.tolist() for site, array in values.items()},
        "plaintexts": {site: [f"{e:x}" for e in packing.pack(array)] for site, array in values.items()},
        "pads": {site: [f"{pad:x}" for pad in each] for site, each in pads.items()},
        "randomness": {site: [f"{r:x}" for r in each] for site, each in randomness.items()},
        "messages": {site: sums.to_array(each).tobytes().hex() for site, each in messages.items()},
        "product": [f"{c:x}" for c in product],
        "sum": sum(values.values()).tolist(),
    }


def seal_case(key):
    private = {name: private_of(name) for name in SITES[:2]}
    public = {name: public_of(name) for name in SITES[:2]}
    sealer, receiver = SITES[:2]
    secret = masks.pair_secret(private[sealer], RUN, (sealer, public[sealer]), (receiver, public[receiver]))
    shared = masks.derived(secret, statement("paillier-seal", RUN, sealer, receiver, key.name))
    nonce = hashlib.sha256(b"nonce").digest()[:12]
    return {
        "sealer": sealer,
        "receiver": receiver,
        "receiver_private": private[receiver].private_bytes_raw().hex(),
        "sealer_public": public[sealer].hex(),
        "sealed": (nonce + AESGCM(shared).encrypt(nonce, key.to_bytes(), None)).hex(),
    }


def refusals(key, case):
    n, p = key.n, key.private.p
    ciphertexts = {"zero": 0, "n^2": n * n, "n": n, "a multiple of p": 5 * p, "all bits": 2 ** (2 * keys.KEY_BITS) - 1}
    moduli = {"3,071 bits": n >> 1 | 1, "even": n + 1, "512 bits": number("x", 512) | 1}
    moduli["a factor 3"] = next(m for m in range(n, n + 12, 2) if m % 3 == 0)
    first, second = case["participants"][:2]
    return {
        "refused_ciphertexts": [{"name": name, "ciphertext": f"{c:x}"} for name, c in ciphertexts.items()],
        "refused_moduli": [{"name": name, "modulus": f"{m:x}"} for name, m in moduli.items()],
        "refused_sums": [
            {"name": "a message is missing", "factors": [first]},
            {"name": "a message twice", "factors": [first, first, *case["participants"][1:]]},
            {"name": "one message for another", "factors": [second, second, *case["participants"][2:]]},
        ],
    }


def main():
    key = GroupKey(keys.PrivateKey(prime("p"), prime("q")), hashlib.sha256(b"pad secret").digest())
    first = sum_case(key, 3, 16, 160, SITES)
    vectors = {
        "source": "securead, protocols/paillier/AGGREGATION.md; no outside vectors exist for this protocol",
        "generator": "python protocols/paillier/aggregation_generate.py",
        "run": RUN,
        "key": {"p": f"{key.private.p:x}", "q": f"{key.private.q:x}", "pad_secret": key.pad_secret.hex()},
        "key_name": key.name.hex(),
        "packings": packings(),
        "seal": seal_case(key),
        "sums": [first, sum_case(key, 4, 64, 5, SITES[1:])],
        **refusals(key, first),
    }
    text = json.dumps(vectors, indent=1, ensure_ascii=False)
    Path(__file__).with_name("aggregation_vectors.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
