"""Verifies aggregation_vectors.json without the library: `python protocols/paillier/aggregation_reference.py`.

An independent reading of AGGREGATION.md in plain Python: packing, pads, Paillier's encryption and decryption from their
definitions, sums, the sealed key, and what is refused. For no other use: slow, and not constant in time.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import struct
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

BITS = 3072
BYTES = BITS // 8

# --- statements and keys: masking's sections 3 and 4, and section 2


def part(value):
    if isinstance(value, int):
        value = struct.pack("<Q", value)
    elif isinstance(value, str):
        value = value.encode("utf-8")
    return struct.pack("<I", len(value)) + value


def statement(kind, *parts):
    return b"securead.protocols.masking." + kind.encode() + b".v1\0" + b"".join(map(part, parts))


def expand(key, info):
    """HKDF-Expand of RFC 5869 to 32 bytes: one block."""
    return hmac.new(key, info + b"\1", hashlib.sha256).digest()


def check_seal(case, run, key, n):
    private = X25519PrivateKey.from_private_bytes(bytes.fromhex(case["receiver_private"]))
    sealer = bytes.fromhex(case["sealer_public"])
    ends = sorted([(case["sealer"], sealer), (case["receiver"], private.public_key().public_bytes_raw())])
    extracted = hmac.new(
        bytes(32), private.exchange(X25519PublicKey.from_public_bytes(sealer)), hashlib.sha256
    ).digest()
    secret = expand(extracted, statement("pair", run, *ends[0], *ends[1]))
    name = hashlib.sha256(n.to_bytes(BYTES, "little")).digest()
    shared = expand(secret, statement("paillier-seal", run, case["sealer"], case["receiver"], name))
    sealed = bytes.fromhex(case["sealed"])
    halves = b"".join(int(key[factor], 16).to_bytes(BYTES // 2, "little") for factor in "pq")
    assert AESGCM(shared).decrypt(sealed[:12], sealed[12:], None) == halves + bytes.fromhex(key["pad_secret"])


# --- packing: section 3


def packing(sites, bits, key_bits):
    bound = min(2 ** (bits - 1), 2**62 // sites)
    width = (sites * (2 * bound - 1)).bit_length()
    return bound, width, (key_bits - 65) // width


def plaintexts_of(values, bound, width, slots):
    rows = [values[at : at + slots] for at in range(0, len(values), slots)]
    return [sum((value + bound) << (width * t) for t, value in enumerate(row)) for row in rows]


# --- pads, encryption, opening: section 4


def pads_of(secret, run, case, site, count, n):
    info = statement("paillier-pad", run, case["round"], site, bytes.fromhex(case["keys"][site]))
    cipher = Cipher(algorithms.AES(expand(secret, info)), modes.CTR(bytes(16)))
    size = BYTES + 16
    content = cipher.encryptor().update(bytes(size * count))
    return [int.from_bytes(content[at * size : (at + 1) * size], "little") % n for at in range(count)]


class Key:
    def __init__(self, p, q):
        self.n, self.order = p * q, math.lcm(p - 1, q - 1)
        self.inverse = pow(self.order, -1, self.n)

    def encrypt(self, u, r):
        return (1 + self.n * u) * pow(r, self.n, self.n**2) % self.n**2

    def decrypt(self, c):
        return (pow(c, self.order, self.n**2) - 1) // self.n * self.inverse % self.n


def opened(key, secret, run, case, product):
    """The sum, or None where there is none."""
    bound, width, slots = packing(case["sites"], case["bits"], BITS)
    count, found = len(case["sum"]), []
    pads = [pads_of(secret, run, case, site, len(product), key.n) for site in case["participants"]]
    for at, c in enumerate(product):
        y = (key.decrypt(c) - sum(each[at] for each in pads)) % key.n
        if y >= 2 ** (slots * width):
            return None
        found += [(y >> (width * t)) % 2**width for t in range(slots)]
    m = len(case["participants"])
    if any(slot > m * (2 * bound - 1) for slot in found) or any(found[count:]):
        return None
    return [slot - m * bound for slot in found[:count]]


def product_of(case, factors, n):
    size = 2 * BYTES
    contents = [bytes.fromhex(case["messages"][site]) for site in factors]
    rows = [[int.from_bytes(each[at : at + size], "little") for at in range(0, len(each), size)] for each in contents]
    return [math.prod(column) % n**2 for column in zip(*rows, strict=True)]


def check_sum(key, secret, run, case):
    shape = packing(case["sites"], case["bits"], BITS)
    for site, values in case["values"].items():
        plaintexts = plaintexts_of(values, *shape)
        assert plaintexts == [int(e, 16) for e in case["plaintexts"][site]]
        pads = pads_of(secret, run, case, site, len(plaintexts), key.n)
        assert pads == [int(pad, 16) for pad in case["pads"][site]]
        rs = [int(r, 16) for r in case["randomness"][site]]
        encrypted = [key.encrypt((e + pad) % key.n, r) for e, pad, r in zip(plaintexts, pads, rs, strict=True)]
        assert encrypted == product_of(case, [site], key.n)
    product = product_of(case, case["participants"], key.n)
    assert product == [int(c, 16) for c in case["product"]]
    assert opened(key, secret, run, case, product) == case["sum"]
    assert [sum(column) for column in zip(*case["values"].values(), strict=True)] == case["sum"]


# --- what is refused: section 5


def is_ciphertext(c, n):
    return 0 < c < n**2 and math.gcd(c, n) == 1


def is_modulus(n):
    return n.bit_length() == BITS and all(n % d for d in range(2, 1024))


def main():
    vectors = json.loads(Path(__file__).with_name("aggregation_vectors.json").read_text(encoding="utf-8"))
    run, told = vectors["run"], vectors["key"]
    key, secret = Key(int(told["p"], 16), int(told["q"], 16)), bytes.fromhex(told["pad_secret"])
    assert is_modulus(key.n)
    assert hashlib.sha256(key.n.to_bytes(BYTES, "little")).hexdigest() == vectors["key_name"]
    for each in vectors["packings"]:
        found = packing(each["sites"], each["bits"], each["key_bits"])
        assert found == (each["bound"], each["width"], each["slots"])
    check_seal(vectors["seal"], run, told, key.n)
    for case in vectors["sums"]:
        check_sum(key, secret, run, case)
    for each in vectors["refused_ciphertexts"]:
        assert not is_ciphertext(int(each["ciphertext"], 16), key.n), each["name"]
    for each in vectors["refused_moduli"]:
        assert not is_modulus(int(each["modulus"], 16)), each["name"]
    case = vectors["sums"][0]
    for each in vectors["refused_sums"]:
        assert opened(key, secret, run, case, product_of(case, each["factors"], key.n)) is None, each["name"]
    refused = sum(len(vectors[f"refused_{what}"]) for what in ("ciphertexts", "moduli", "sums"))
    print(f"ok: {len(vectors['sums'])} packed sums, {refused} refusals")


if __name__ == "__main__":
    main()
