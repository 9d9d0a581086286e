"""Verifies vectors.json without the library: `python protocols/bfv/reference.py`.

An independent reading of SPEC.md in plain Python and NumPy: positions and scores; security tables and margins; the cut
into groups and all lengths; the uniform half of public keys (with an AES of its own); and the whole protocol on exact
integers, at a plan's own ring and moduli. It is slow, not constant-time and for no other use.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from fractions import Fraction
from pathlib import Path

import numpy as np

LIMITS = {4096: (109, 106), 8192: (218, 214)}  # 2018 standard, 2024 guideline
ERROR = 21  # SEAL's centred binomial

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


# --- parameters: sections 4 and 5


def is_prime(n):
    odd, twos = n - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for base in (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37):
        x = pow(base, odd, n)
        if x not in (1, n - 1) and all((x := x * x % n) != n - 1 for _ in range(twos - 1)):
            return False
    return True


def worst_noise(plan):
    """Lookup, rounding q / t, and the mask, as exact fractions."""
    n, special = plan["ring_dimension"], plan["special_prime"]
    public_key = Fraction(ERROR * (2 * n + 1), special) + Fraction(n + 1, 2)
    fresh = ERROR if plan["role"] == "same" else public_key
    return sum(plan["sizes"]) * plan["largest"] * fresh + Fraction(2 ** plan["score_bits"], 2) + public_key


def check_parameters(plan):
    n, data = plan["ring_dimension"], plan["data_primes"]
    chain = [*data, plan["special_prime"]]
    assert all(is_prime(p) and p % (2 * n) == 1 and p < 2**60 for p in chain)
    assert len(set(chain)) == len(chain)
    assert math.prod(chain).bit_length() <= min(LIMITS[n]), "not 128 bits of security"
    q, t, flood, noise = math.prod(data), 2 ** plan["plain_bits"], 2 ** plan["flood_bits"], worst_noise(plan)
    assert t >= 2 ** plan["score_bits"]
    assert t > 2 * plan["largest"]
    assert flood >= 2**40 * noise, "the flood does not hide the noise"
    assert 4 * t * (flood + noise) <= q, "noise and flood exceed half the step"
    total, modulus = flood + noise, q
    for prime in reversed(data[1:]):
        total, modulus = total / prime + Fraction(n + 1, 2), modulus // prime
    assert total + 1 < Fraction(modulus, 2 * t), "an answer could decrypt wrongly"


def layouts(plan):
    n, entries = plan["ring_dimension"], sum(plan["sizes"])
    options = [(r, -(-entries // (n // r))) for r in range(1, min(32, plan["rows_per_chunk"]) + 1)]
    options = [a for a in options if not any(b[0] > a[0] and b[1] <= a[1] for b in options)]

    def cost(option):
        return Fraction(option[1] + 1, option[0]), option[0]

    one, many = options[0], min(options, key=cost)
    some = min((o for o in options if o[0] ** 2 <= one[0] * many[0]), key=cost)
    return sorted({one, some, many})


def groups(plan, rows):
    options = layouts(plan)
    slots, pieces = options[-1]
    cut = [[slots, pieces, at * slots, slots] for at in range(rows // slots)]
    left, first = rows % slots, rows - rows % slots
    best = [0]  # the least sum of pieces + 1 for so many rows
    for r in range(1, left + 1):
        best.append(min(o[1] + 1 + best[max(0, r - o[0])] for o in options))
    while left > 0:
        slots, pieces = next(o for o in options if o[1] + 1 + best[max(0, left - o[0])] == best[left])
        cut.append([slots, pieces, first, min(slots, left)])
        first, left = first + slots, left - slots
    return cut


def check_chunks(plan, derived):
    assert [[v["slots"], v["pieces"]] for v in plan["layouts"]] == [list(o) for o in layouts(plan)]
    n, widths = plan["ring_dimension"], [p.bit_length() for p in plan["data_primes"]]
    polynomial = n * sum(widths) // 8
    ciphertext = polynomial + 64 if plan["role"] == "same" else 2 * polynomial
    for chunk in derived["chunks"]:
        cut = groups(plan, chunk["rows"])
        assert chunk["groups"] == cut
        assert chunk["request_bytes"] == 36 + ciphertext * sum(group[1] for group in cut)
        assert chunk["answer_bytes"] == 36 + sum((n * widths[0] + 7) // 8 + (g[3] * widths[0] + 7) // 8 for g in cut)


# --- the uniform half: section 6


def aes_256(key, block):
    """FIPS 197, straight from the standard."""

    def double(v):
        return (v << 1) ^ (0x11B if v & 0x80 else 0)

    def times(a, b):
        product = 0
        while b:
            product, a, b = product ^ (a if b & 1 else 0), double(a), b >> 1
        return product

    def turned(v, by):
        return ((v << by) | (v >> (8 - by))) & 255

    inverse = [0] + [next(b for b in range(1, 256) if times(a, b) == 1) for a in range(1, 256)]
    box = [b ^ turned(b, 1) ^ turned(b, 2) ^ turned(b, 3) ^ turned(b, 4) ^ 0x63 for b in inverse]
    words, constant = [list(key[i : i + 4]) for i in range(0, 32, 4)], 1
    for i in range(8, 60):
        last = words[-1]
        if i % 8 == 0:
            last = [box[v] for v in last[1:] + last[:1]]
            last[0], constant = last[0] ^ constant, double(constant)
        elif i % 8 == 4:
            last = [box[v] for v in last]
        words.append([a ^ b for a, b in zip(words[-8], last, strict=True)])
    keys = [[v for word in words[4 * r : 4 * r + 4] for v in word] for r in range(15)]
    state = [a ^ b for a, b in zip(block, keys[0], strict=True)]
    for r in range(1, 15):
        state = [box[state[(i + 4 * (i % 4)) % 16]] for i in range(16)]
        if r < 14:
            mixed = []
            for c in range(0, 16, 4):
                a = state[c : c + 4]
                mixed += [
                    double(a[i]) ^ double(a[(i + 1) % 4]) ^ a[(i + 1) % 4] ^ a[(i + 2) % 4] ^ a[(i + 3) % 4]
                    for i in range(4)
                ]
            state = mixed
        state = [a ^ b for a, b in zip(state, keys[r], strict=True)]
    return bytes(state)


def check_uniform_half(plan, digest, expected):
    for index, (prime, first) in enumerate(zip([*plan["data_primes"], plan["special_prime"]], expected, strict=True)):
        domain = b"securead.protocols.bfv.a.v1\0" + bytes.fromhex(digest) + bytes([index])
        key, found, counter = hashlib.sha256(domain).digest(), [], 0
        while len(found) < len(first):
            stream = aes_256(key, counter.to_bytes(16, "big"))
            words = [v & (2 ** prime.bit_length() - 1) for v in struct.unpack("<2Q", stream)]
            found, counter = found + [v for v in words if v < prime], counter + 1
        assert found[: len(first)] == first


# --- the protocol on exact integers: sections 3, 5 and 6


def times(a, b, q):
    """The product in Z_q[X] / (X^N + 1), by packing coefficients into one large integer each."""
    n = len(a)
    width = (2 * q.bit_length() + n.bit_length() + 8) // 8

    def packed(p):
        return int.from_bytes(b"".join(int(v % q).to_bytes(width, "little") for v in p), "little")

    product = (packed(a) * packed(b)).to_bytes(2 * n * width, "little")
    full = [int.from_bytes(product[i : i + width], "little") for i in range(0, 2 * n * width, width)]
    return [(low - high) % q for low, high in zip(full[:n], full[n:], strict=True)]


def add(a, b, q):
    return [(x + y) % q for x, y in zip(a, b, strict=True)]


def divided(a, by):
    """Rounded to the nearest."""
    return [(2 * v + by) // (2 * by) for v in a]


def run_protocol(case, plan, slots, queries, rng):
    """One group of rows under a plan's own ring and moduli; returns the decrypted scores."""
    n, t, role = plan["ring_dimension"], 2 ** plan["plain_bits"], plan["role"]
    q, special = math.prod(plan["data_primes"]), plan["special_prime"]
    stride, tables = n // slots, case["tables"]
    line = [v for table in tables for v in table]
    starts = [sum(map(len, tables[:at])) for at in range(len(tables))]

    def ternary():
        return [int(v) for v in rng.integers(-1, 2, n)]

    def error():
        return [int(v) for v in rng.binomial(42, 0.5, n) - 21]

    def uniform(modulus):
        return [int.from_bytes(rng.bytes(24), "little") % modulus for _ in range(n)]

    s, top = ternary(), q * special
    a = uniform(top)
    b = [-(x + y) % top for x, y in zip(times(a, s, top), error(), strict=True)]

    def encryption_of_zero():
        u = ternary()
        return [divided(add(times(half, u, top), error(), top), special) for half in (b, a)]

    def encrypt(message):
        if role == "same":
            c1 = uniform(q)
            c0 = [-(x + y) % q for x, y in zip(times(c1, s, q), error(), strict=True)]
        else:
            c0, c1 = encryption_of_zero()
        return add(c0, [(2 * q * m + t) // (2 * t) for m in message], q), c1

    sums = [[0] * n, [0] * n]
    for piece in range(-(-len(line) // stride)):
        entries = line[piece * stride : (piece + 1) * stride]
        message, table = [0] * n, [0] * n
        for row, query in enumerate(queries):
            for start, at in zip(starts, query, strict=True):
                if (start + at) // stride == piece:
                    message[row * stride + (start + at) % stride] = 1
        for i, v in enumerate(entries):
            table[(n - i) % n] = -v if i else v
        sums = [add(half, times(c, table, q), q) for half, c in zip(sums, encrypt(message), strict=True)]
    sums = [add(half, mask, q) for half, mask in zip(sums, encryption_of_zero(), strict=True)]
    kept = [row * stride for row in range(len(queries))]
    for at in kept:
        sums[0][at] += int.from_bytes(rng.bytes(24), "little") % 2 ** (plan["flood_bits"] + 1) - 2 ** plan["flood_bits"]
        sums[0][at] %= q
    modulus = q
    for prime in reversed(plan["data_primes"][1:]):
        modulus //= prime
        sums = [[v % modulus for v in divided(half, prime)] for half in sums]
    c0 = [sums[0][at] if at in kept else 0 for at in range(n)]
    phase = add(c0, times(sums[1], s, modulus), modulus)
    return [(2 * t * phase[at] + modulus) // (2 * modulus) % t for at in kept]


def check_protocol(case, plan, rng):
    for slots in {plan["layouts"][0]["slots"], plan["layouts"][-1]["slots"]}:
        queries = case["queries"][: min(slots, 3)]
        assert run_protocol(case, plan, slots, queries, rng) == case["scores"][: len(queries)]


def main():
    vectors, rng = json.loads(Path(__file__).with_name("vectors.json").read_text()), np.random.default_rng(1)
    for case in vectors["programs"]:
        check_program(case)
        for plan, digest, derived in zip(case["plans"], case["plan_digests"], case["derived"], strict=True):
            check_parameters(plan)
            check_chunks(plan, derived)
            check_uniform_half(plan, digest, derived["uniform_half"])
            check_protocol(case, plan, rng)
    rows_per_chunk = vectors["programs"][0]["plans"][0]["rows_per_chunk"]
    lengths = {chunk["rows"]: chunk["request_bytes"] for chunk in vectors["programs"][0]["derived"][0]["chunks"]}
    for case in vectors["payloads"]:
        content = bytes.fromhex(case["payload"])
        rows = struct.unpack_from("<I", content)[0] if len(content) >= 36 else 0
        assert not 1 <= rows <= rows_per_chunk or len(content) != lengths.get(rows), case["name"]
    print(f"ok: {len(vectors['programs'])} programs in two roles, {len(vectors['payloads'])} payloads")


if __name__ == "__main__":
    main()
