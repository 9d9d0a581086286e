"""Verifies vectors.json without the library: `python protocols/paillier/reference.py`.

An independent reading of SPEC.md in plain Python: positions and scores; parameters and lengths; what a service
publishes, its roots and every entry; and one exchange, opened with both keys and made anew. It is
slow, not constant-time and for no other use.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import random
import struct
from pathlib import Path

BITS, ROOTS, SPARE = 3072, 10, 129
N, C = BITS // 8, BITS // 4  # bytes of a residue modulo n, and of a ciphertext


# --- programs: section 2


def positions(geometry, z):
    if geometry["type"] == "bins":
        pairs = zip(geometry["columns"], geometry["edges"], strict=True)
        return [sum(edge < z[column] for edge in edges) for column, edges in pairs]
    depth, thresholds = geometry["depth"], geometry["thresholds"]
    nodes = 2**depth - 1
    terms = len(geometry["columns"]) // len(thresholds)
    found = []
    for tree in range(len(thresholds) // nodes):
        node = 0
        for _ in range(depth):
            at = tree * nodes + node
            here = range(at * terms, (at + 1) * terms)
            value = sum(geometry["weights"][i] * z[geometry["columns"][i]] for i in here)
            node = 2 * node + 1 + (value > thresholds[at])
        found.append(node - nodes)
    return found


def check_program(case):
    public, tables = case["public"], case["tables"]
    for z, query, score in zip(case["inputs"], case["queries"], case["scores"], strict=True):
        assert positions(public["geometry"], z) == query
        assert sum(table[at] for table, at in zip(tables, query, strict=True)) == score < 2 ** public["score_bits"]
    assert all(0 <= v <= public["largest"] for table in tables for v in table)


def check_parameters(plan, derived):
    entries, width, rows = sum(plan["sizes"]), plan["score_bits"], plan["rows_per_chunk"]
    assert (plan["role"], plan["key_bits"]) == ("same", BITS)
    assert rows == min(1024, (BITS - 1 - SPARE) // width)
    assert 2 * 2 ** (width * rows) * 2**128 <= 2 ** (BITS - 1), "a blind does not hide to 2**-128"
    assert derived["setup_bytes"] == 32 + 32 + N * (1 + ROOTS) + C * entries
    assert derived["request_bytes"] == 4 + 32 + 32 + 32 + C
    assert all(size == 68 + math.ceil(width * int(n) / 8) for n, size in derived["answer_bytes"].items())
    assert derived["crafted_rows"] == math.ceil(entries * plan["largest"].bit_length() / width)


# --- Paillier: section 3


def number(content):
    return int.from_bytes(content, "little")


def decrypted(c, p, q):
    """By the definition, joined from both primes."""
    n = p * q
    halves = []
    for prime in (p, q):
        g = (pow(1 + n, prime - 1, prime**2) - 1) // prime
        halves.append((pow(c, prime - 1, prime**2) - 1) // prime * pow(g, -1, prime) % prime)
    return (halves[0] * q * pow(q, -1, p) + halves[1] * p * pow(p, -1, q)) % n


def challenge(plan_digest, n, at):
    told = b"securead.protocols.paillier.root.v1\0" + bytes.fromhex(plan_digest) + n.to_bytes(N, "little") + bytes([at])
    return number(hashlib.shake_256(told).digest(N + 32)) % n


def check_published(published, plan_digest, tables, secret, told):
    assert published[:32] == b"securead-paillier-setup-1\n".ljust(32, b"\0")
    assert published[32:64].hex() == plan_digest
    assert secret[:32] == b"securead-paillier-secret-1\n".ljust(32, b"\0")
    assert secret[32:64].hex() == plan_digest
    assert secret[64:96] == hashlib.sha256(published).digest()
    p, q = number(secret[96 : 96 + N // 2]), number(secret[96 + N // 2 :])
    n = number(published[64 : 64 + N])
    assert p * q == n
    assert n.bit_length() == BITS
    assert math.gcd(n, (p - 1) * (q - 1)) == 1
    assert hex(challenge(plan_digest, n, 0)) == told
    for at in range(ROOTS):
        start = 64 + N * (1 + at)
        assert pow(number(published[start : start + N]), n, n) == challenge(plan_digest, n, at), "no root"
    start, line = 64 + N * (1 + ROOTS), [v for table in tables for v in table]
    assert len(published) == start + C * len(line)
    entries = [number(published[at : at + C]) for at in range(start, len(published), C)]
    assert len(set(entries)) == len(entries)
    assert [decrypted(c, p, q) for c in entries] == line
    return p, q, entries


# --- a request and its answer: section 4


def blind_bits(key, salt, bits):
    extracted = hmac.digest(salt, key, "sha256")
    block, found, at = b"", b"", 1
    while 8 * len(found) < bits:
        block = hmac.digest(extracted, block + b"securead.protocols.paillier.blind.v1" + bytes([at]), "sha256")
        found, at = found + block, at + 1
    return number(found[: math.ceil(bits / 8)]) % 2**bits


def key_of(file, plan_digest):
    """The owner's 32 bytes and their name, from a key file."""
    assert file[:24] == b"securead-pai-secret-1\n".ljust(24, b"\0")
    assert file[24:56].hex() == plan_digest
    content = file[120:]
    assert file[88:120] == hashlib.sha256(content).digest()
    public = hashlib.sha256(b"securead.protocols.paillier.owner.v1\0" + content).digest()
    named = b"securead.protocols.paillier.key.v1\0" + bytes.fromhex(plan_digest) + public
    assert file[56:88] == hashlib.sha256(named).digest()
    return content, file[56:88]


def check_exchange(told, case):
    plan, digest = case["plans"][0], case["plan_digests"][0]
    published, secret = bytes.fromhex(told["published"]), bytes.fromhex(told["service_secret"])
    p, q, entries = check_published(published, digest, case["tables"], secret, told["first_challenge"])
    key, key_id = key_of(bytes.fromhex(told["secret_key"]), digest)
    n, width, rows = p * q, plan["score_bits"], told["rows"]
    full, low_mask = width * plan["rows_per_chunk"], 2 ** (width * rows) - 1
    request, answer = bytes.fromhex(told["request"]), bytes.fromhex(told["answer"])
    assert key_id.hex() == told["key_id"]
    assert request[:36] == answer[:36] == struct.pack("<I", rows) + key_id
    assert request[36:68].hex() == hashlib.sha256(published).hexdigest() == told["published_digest"]
    salt, c = request[68:100], number(request[100:])
    assert answer[36:68] == salt
    m = decrypted(c, p, q)
    assert answer[68:] == (m & low_mask).to_bytes(math.ceil(width * rows / 8), "little"), (
        "another answer than the low bits"
    )
    low = blind_bits(key, salt, full)
    assert scores_of(number(answer[68:]) - low, width, rows) == told["scores"] == case["scores"]
    r = m - sum(score << width * row for row, score in enumerate(told["scores"]))
    assert r % 2**full == low
    assert 0 <= r >> full < n // 2**full - 1, "a blind beyond its range"
    # The same request made anew, with another blind, opens alike.
    rng = random.Random(1)
    salt, rho = rng.randbytes(32), rng.randrange(1, n)
    r = blind_bits(key, salt, full) + (rng.randrange(n // 2**full - 1) << full)
    c = (1 + r * n) * pow(rho, n, n * n) % n**2
    starts = [sum(plan["sizes"][:at]) for at in range(len(plan["sizes"]))]
    for row, query in enumerate(case["queries"]):
        product = math.prod(entries[start + at] for start, at in zip(starts, query, strict=True))
        c = c * pow(product, 2 ** (width * row), n * n) % n**2
    low = blind_bits(key, salt, full)
    assert scores_of((decrypted(c, p, q) & low_mask) - low, width, rows) == told["scores"]


def scores_of(difference, width, rows):
    packed = difference % 2 ** (width * rows)
    return [packed >> width * row & 2**width - 1 for row in range(rows)]


def main():
    vectors = json.loads(Path(__file__).with_name("vectors.json").read_text())
    for case in vectors["programs"]:
        check_program(case)
        check_parameters(case["plans"][0], case["derived"])
    check_exchange(vectors["exchange"], vectors["programs"][0])
    most = vectors["programs"][0]["plans"][0]["rows_per_chunk"]
    for case in vectors["payloads"]:
        content = bytes.fromhex(case["payload"])
        rows = struct.unpack_from("<I", content)[0] if len(content) >= 36 else 0
        refused = not 1 <= rows <= most or len(content) != 100 + C
        assert refused == (case["expected"] == "RejectMessageError"), case["name"]
    print(f"ok: {len(vectors['programs'])} programs, an exchange, {len(vectors['payloads'])} payloads")


if __name__ == "__main__":
    main()
