"""Verifies vectors.json without the library: `python protocols/paillier-linear/reference.py`.

An independent reading of SPEC.md in plain Python: the linear form of each program and its scores; parameters and
lengths; and one exchange, opened with the owner's key, and answered anew. It is slow, not constant-time and for no
other use.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
import struct
from pathlib import Path

BITS, ROOTS, SPARE = 3072, 10, 129
N, C = BITS // 8, BITS // 4  # bytes of a residue modulo n, and of a ciphertext


# --- programs: section 2


def linear_form(case):
    """Weights and constant, the steps taken one after the other."""
    if "tables" in case:
        return [v for table in case["tables"] for v in table], 0
    steps = case["public"]["steps"]
    width = steps[0]["width"]
    rows = [[[int(i == j) for i in range(width)] + [0] for j in range(width)]]  # the last column is the constant
    for at, step in enumerate(steps[1:], 1):
        own, found = case["weights"][str(at)], []
        for out in range(step["width"]):
            total = [0] * width + [own["offset"][out]]
            for source, matrix in zip(step["sources"], own["matrices"], strict=True):
                for weight, row in zip(matrix[out], rows[source], strict=True):
                    total = [t + weight * v for t, v in zip(total, row, strict=True)]
            found.append(total)
        rows.append(found)
    return rows[-1][0][:-1], rows[-1][0][-1]


def features(case, query):
    if "tables" not in case:
        return query
    sizes = [len(table) for table in case["tables"]]
    return [int(i == at) for size, at in zip(sizes, query, strict=True) for i in range(size)]


def check_program(case):
    weights, constant = linear_form(case)
    assert (weights, constant) == (case["linear"]["weights"], case["linear"]["constant"])
    for query, score, term in zip(case["queries"], case["scores"], case["public_terms"], strict=True):
        value = sum(w * x for w, x in zip(weights, features(case, query), strict=True)) + constant
        assert value == score - term
        for plan in case["plans"]:
            assert -plan["signed"] * 2 ** plan["value_bits"] <= value <= 2 ** plan["value_bits"]
    for plan in case["plans"]:
        slot = plan["value_bits"] + 2 * plan["signed"]
        assert plan["key_bits"] == BITS
        assert plan["rows_per_chunk"] == min(1024, (BITS - 1 - SPARE) // slot)
        assert all(abs(w) <= 2 ** plan["weight_bits"] for w in weights)
        assert case["derived"]["request_bytes"] == 36 + C * len(weights) == 36 + C * plan["features"]
        assert case["derived"]["answer_bytes"] == 36 + C


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


def keys_of(told, plan_digest):
    """n, p, q and the key id, from both key files."""
    files = [bytes.fromhex(told[name]) for name in ("secret_key", "public_key")]
    for kind, file in zip(("secret", "public"), files, strict=True):
        assert file[:24] == f"securead-pail-{kind}-1\n".encode().ljust(24, b"\0")
        assert file[24:56].hex() == plan_digest
        assert file[88:120] == hashlib.sha256(file[120:]).digest()
    secret, public = (file[120:] for file in files)
    named = b"securead.protocols.paillier-linear.key.v1\0" + bytes.fromhex(plan_digest) + public
    assert files[0][56:88] == files[1][56:88] == hashlib.sha256(named).digest()
    p, q, n = number(secret[: N // 2]), number(secret[N // 2 :]), number(public[:N])
    assert p * q == n
    assert n.bit_length() == BITS
    assert math.gcd(n, (p - 1) * (q - 1)) == 1
    assert len(public) == N * (1 + ROOTS)
    for at in range(ROOTS):
        assert pow(number(public[N * (1 + at) : N * (2 + at)]), n, n) == challenge(plan_digest, n, at), "no root"
    return n, p, q, hashlib.sha256(named).digest()


def check_exchange(told, case):
    plan = case["plans"][0]
    n, p, q, key_id = keys_of(told, case["plan_digests"][0])
    rows, slot = told["rows"], plan["value_bits"] + 2 * plan["signed"]
    lift = plan["signed"] << plan["value_bits"]
    request, answer = bytes.fromhex(told["request"]), bytes.fromhex(told["answer"])
    assert request[:36] == answer[:36] == struct.pack("<I", rows) + key_id
    ciphertexts = [number(request[at : at + C]) for at in range(36, len(request), C)]
    columns = [features(case, query) for query in case["queries"]]
    for k, c in enumerate(ciphertexts):
        assert decrypted(c, p, q) == sum(row[k] << slot * j for j, row in enumerate(columns)) % n
    wanted = [score - term for score, term in zip(case["scores"], case["public_terms"], strict=True)]

    def opened(c):
        m = decrypted(c, p, q)
        return [(m >> slot * j & 2**slot - 1) - lift for j in range(rows)], m >> slot * rows

    values, high = opened(number(answer[36:]))
    assert values == wanted
    assert high > 2**64, "nothing hides what is above the rows"
    # The same request answered anew.
    weights, constant = linear_form(case)
    rng = random.Random(1)
    plain = sum((constant + lift) << slot * j for j in range(rows)) + (rng.randrange(n >> slot * rows) << slot * rows)
    c = (1 + plain * n) * pow(rng.randrange(1, n), n, n * n) % n**2
    for weight, feature in zip(weights, ciphertexts, strict=True):
        c = c * pow(feature, weight, n * n) % n**2
    assert opened(c)[0] == wanted


def main():
    vectors = json.loads(Path(__file__).with_name("vectors.json").read_text())
    for case in vectors["programs"]:
        check_program(case)
    check_exchange(vectors["exchange"], vectors["programs"][0])
    first = vectors["programs"][0]
    for case in vectors["payloads"]:
        content = bytes.fromhex(case["payload"])
        rows = struct.unpack_from("<I", content)[0] if len(content) >= 36 else 0
        own = content[4:36] == bytes.fromhex(vectors["exchange"]["public_key"])[56:88]
        sound = 1 <= rows <= first["plans"][0]["rows_per_chunk"] and len(content) == first["derived"]["request_bytes"]
        assert not (sound and own), case["name"]
    print(f"ok: {len(vectors['programs'])} programs in two roles, an exchange, {len(vectors['payloads'])} payloads")


if __name__ == "__main__":
    main()
