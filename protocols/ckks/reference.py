"""Verifies vectors.json without the library: `python protocols/ckks/reference.py`.

An independent reading of SPEC.md in plain Python and NumPy: integer evaluation and ranges, degrees and scales, the
security tables, the error bound, the flood, lengths, expanded seeds (with an AES and a BLAKE2Xb of its own); and a toy
CKKS that shows what the key holder decrypts and what masks hide. It is slow, not constant-time and for no other use.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from fractions import Fraction
from pathlib import Path

import numpy as np

LIMITS = {4096: (109, 106), 8192: (218, 214), 16384: (438, 430)}  # 2018 standard, 2024 guideline


def matvec(matrix, vector):
    return [sum(w * v for w, v in zip(row, vector, strict=True)) for row in matrix]


def evaluate(public, weights, z):
    """The exact integer value of every step for one encoded record."""
    values = []
    for at, step in enumerate(public["steps"]):
        if step["type"] == "input":
            values.append(list(z))
        elif step["type"] == "affine":
            total = weights[str(at)]["offset"]
            for matrix, source in zip(weights[str(at)]["matrices"], step["sources"], strict=True):
                total = [a + b for a, b in zip(total, matvec(matrix, values[source]), strict=True)]
            values.append(total)
        else:
            values.append([a * b for a, b in zip(values[step["left"]], values[step["right"]], strict=True)])
    return values


def check_program(case):
    public, weights = case["public"], case["weights"]
    bound = round(public["encoder"]["limit"] * 2 ** public["encoder"]["fraction_bits"])
    for z, score, term in zip(case["inputs"], case["scores"], case["public_terms"], strict=True):
        assert max(map(abs, z)) <= bound
        values = evaluate(public, weights, z)
        assert term == sum(t["multiplier"] for t in public["public_terms"]) * sum(v * v for v in z)
        assert values[-1][0] + term == score
        assert abs(score) <= 2 ** public["score_bits"]
        for step, value in zip(public["steps"], values, strict=True):
            assert all(abs(v) <= 2 ** step["bound_bits"] for v in value), "a value beyond its declared bound"
    for at, step in enumerate(public["steps"]):
        for matrix, gain in zip(
            weights.get(str(at), {"matrices": []})["matrices"], step.get("gain_bits", ()), strict=True
        ):
            assert max(sum(map(abs, row)) for row in matrix) <= 2**gain, "weights beyond the declared gain"


def is_prime(n):
    odd, twos = n - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for base in (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37):
        x = pow(base, odd, n)
        if x not in (1, n - 1) and all((x := x * x % n) != n - 1 for _ in range(twos - 1)):
            return False
    return True


def check_parameters(plan):
    n, chain = plan["ring_dimension"], [*plan["data_primes"], plan["special_prime"]]
    assert all(is_prime(p) and p % (2 * n) == 1 and p < 2**60 for p in chain)
    assert len(set(chain)) == len(chain)
    assert math.prod(chain).bit_length() <= min(LIMITS[n]), "not 128 bits of security"


def score_scale_bits(plan):
    return plan["score_fraction_bits"] + plan["steps"][-1]["degree"] * plan["excess_bits"]


def answer_scale(plan):
    return Fraction(2 ** score_scale_bits(plan), math.prod(plan["data_primes"][plan["answer_primes"] :]))


def check_scales(public, plan):
    """Degrees, from which every scale follows; and that the answer has room."""
    steps = plan["steps"]
    for step, planned in zip(public["steps"], steps, strict=True):
        if step["type"] == "input":
            assert planned["degree"] == 1
        elif step["type"] == "affine":
            assert planned["degree"] == max(steps[s]["degree"] for s in step["sources"])
        else:
            assert planned["degree"] == steps[step["left"]]["degree"] + steps[step["right"]]["degree"]
    assert plan["excess_bits"] >= 0
    assert all(20 <= p.bit_length() <= 50 for p in plan["data_primes"])
    modulus = math.prod(plan["data_primes"][: plan["answer_primes"]])
    assert 2 * plan["result_bound"] * answer_scale(plan) <= modulus, "the answer could wrap around"


def mask_noise(plan):
    """SPEC.md, section 6: the worst coefficient of the masks' noise."""
    n, degree = plan["ring_dimension"], plan["steps"][-1]["degree"]
    return 21 * (2 * n + 1) * sum(n**j for j in range(degree))


def check_flood(plan):
    n, noise = plan["ring_dimension"], mask_noise(plan)
    if plan["full_flood"]:
        noise += Fraction(plan["spread"]) * 2 ** score_scale_bits(plan)
    assert 2 ** plan["flood_bits"] >= 2**40 * noise * n / 2, "flooding hides too little"


def check_errors(public, plan):
    """The error bound of SPEC.md, section 5, term by term, and what encryption errors do; the plan may only be more
    cautious.
    """
    n, steps, degree = plan["ring_dimension"], plan["steps"], plan["steps"][-1]["degree"]
    components = sum(step["width"] for step in public["steps"]) + 2
    deviations = math.sqrt(2 * math.log(2) * (64 + 4 + (32 * components * n // 2).bit_length()))

    def tail(variance):
        return deviations * math.sqrt(variance * n / 2) / math.cos(math.pi / 16)

    def powers(count):
        return sum(tail(2 / 3) ** j for j in range(count))

    key_level = tail(10.5) * (1 + 2 * tail(2 / 3))
    public_key = key_level / plan["special_prime"] + tail(1 / 12) * powers(2)
    fresh = tail(10.5) if plan["role"] == "same" else public_key
    reach = [2.0 ** (s["bound_bits"] - s["fraction_bits"]) for s in public["steps"]]
    doubles = 8 * 3.4142 * math.sqrt(n) * 2.0**-53
    scale = 2.0 ** (plan["input_fraction_bits"] + plan["excess_bits"])
    errors, moved = [], []
    for at, step in enumerate(public["steps"]):
        if step["type"] == "input":
            errors.append((fresh + n / 2) / scale + doubles * public["encoder"]["limit"])
            moved.append(fresh / scale)
        elif step["type"] == "affine":
            gains = [
                2.0 ** (g - step["fraction_bits"] + public["steps"][s]["fraction_bits"])
                for g, s in zip(step["gain_bits"], step["sources"], strict=True)
            ]
            errors.append(sum(g * errors[s] for g, s in zip(gains, step["sources"], strict=True)))
            moved.append(sum(g * moved[s] for g, s in zip(gains, step["sources"], strict=True)))
        else:
            a, b = step["left"], step["right"]
            errors.append(reach[a] * errors[b] + reach[b] * errors[a] + errors[a] * errors[b])
            left, right = reach[a] + errors[a], reach[b] + errors[b]
            moved.append(left * moved[b] + right * moved[a] + moved[a] * moved[b])
        if at < len(steps) - 1:
            assert errors[-1] <= steps[at]["error"] * 1.001, (at, errors[-1], steps[at]["error"])
    if plan["role"] == "split" and public["public_terms"]:
        errors[-1] += (fresh + n / 2) / scale
        moved[-1] += fresh / scale
    assert moved[-1] <= plan["spread"] * 1.001
    sanitising = key_level * powers(degree) + tail(1 / 3) * 2.0 ** plan["flood_bits"]
    errors[-1] += sanitising / 2.0 ** score_scale_bits(plan)
    if len(plan["data_primes"]) > plan["answer_primes"]:
        errors[-1] += tail(1 / 12) * powers(degree + 1) / float(answer_scale(plan))
    assert errors[-1] <= plan["error_bound"] * 1.001 <= public["tolerance"] * 1.002


def packed(n, primes):
    return sum((n * p.bit_length() + 7) // 8 for p in primes)


def check_lengths(plan, derived):
    assert derived["mask_bound"] == mask_noise(plan)
    n, data = plan["ring_dimension"], plan["data_primes"]
    columns = plan["width"] + (plan["role"] == "split" and bool(plan["public_terms"]))
    column = 64 + packed(n, data) if plan["role"] == "same" else 2 * packed(n, data)
    assert derived["request_bytes"] == 36 + columns * column
    size = plan["steps"][-1]["degree"] + 1
    assert derived["answer_bytes"] == 36 + size * packed(n, data[: plan["answer_primes"]])
    assert derived["public_key_bytes"] == 24 + 32 + 32 + 32 + packed(n, [*data, plan["special_prime"]])


def aes256(key, block):
    """One block of AES-256 (FIPS 197), from its definition."""

    def double(a):
        return (a << 1 ^ (0x11B if a & 0x80 else 0)) & 0xFF

    def substitute(a):
        inverse = 0
        for candidate in range(256) if a else ():
            product, x, y = 0, a, candidate
            while y:
                product ^= x * (y & 1)
                x, y = double(x), y >> 1
            if product == 1:
                inverse = candidate
                break
        return inverse ^ 0x63 ^ xor(*(((inverse << k) | (inverse >> (8 - k))) & 0xFF for k in range(1, 5)))

    def xor(*values):
        total = 0
        for value in values:
            total ^= value
        return total

    box = [substitute(a) for a in range(256)]
    words, power = [list(key[4 * i : 4 * i + 4]) for i in range(8)], 1
    for i in range(8, 60):
        word = words[-1]
        if i % 8 == 0:
            word = [box[b] for b in word[1:] + word[:1]]
            word[0] ^= power
            power = double(power)
        elif i % 8 == 4:
            word = [box[b] for b in word]
        words.append([a ^ b for a, b in zip(words[i - 8], word, strict=True)])
    keys = [[b for word in words[4 * r : 4 * r + 4] for b in word] for r in range(15)]
    state = [a ^ b for a, b in zip(block, keys[0], strict=True)]
    for turn in range(1, 15):
        state = [box[b] for b in state]
        state = [state[(5 * i) % 16] for i in range(16)]
        if turn < 14:
            mixed = []
            for c in range(0, 16, 4):
                for r in range(4):
                    a, b, d, e = (state[c + (r + k) % 4] for k in range(4))
                    mixed.append(double(a) ^ double(b) ^ b ^ d ^ e)
            state = mixed
        state = [a ^ b for a, b in zip(state, keys[turn], strict=True)]
    return bytes(state)


def expand(domain, digest, index, prime, count):
    key = hashlib.sha256(domain + bytes.fromhex(digest) + bytes([index])).digest()
    found, block = [], 0
    while len(found) < count:
        stream = aes256(key, block.to_bytes(16, "big"))
        words = (w & ((1 << prime.bit_length()) - 1) for w in struct.unpack("<2Q", stream))
        found += [w for w in words if w < prime]
        block += 1
    return found[:count]


def blake2b(parameters, blocks):
    """BLAKE2b (RFC 7693) of blocks with the counts of bytes read with them, from its parameter block's first words."""
    primes = [p for p in range(2, 20) if all(p % q for q in range(2, p))]
    initial = [math.isqrt(p << 128) % 2**64 for p in primes]
    order = [
        "0123456789abcdef",
        "ea489fd61c02b753",
        "b8c052fdae367194",
        "7931dcbe265a40f8",
        "905724afe1bc683d",
        "2c6a0b834d75fe19",
        "c51fed4a0763928b",
        "db7ec13950f4862a",
        "6fe9b308c2d714a5",
        "a2847615fb9e3cd0",
    ]
    h = [w ^ p for w, p in zip(initial, [*parameters, 0, 0, 0, 0, 0], strict=True)]

    def turned(x, bits):
        return (x >> bits | x << (64 - bits)) % 2**64

    for at, (m, length) in enumerate(blocks):
        v = h + initial
        v[12] ^= length
        v[14] ^= (2**64 - 1) * (at == len(blocks) - 1)
        for turn in range(12):
            s = [int(digit, 16) for digit in order[turn % 10]]
            columns = [(i, i + 4, i + 8, i + 12) for i in range(4)]
            diagonals = [(i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4) for i in range(4)]
            for g, (a, b, c, d) in enumerate(columns + diagonals):
                for word, first, second in ((m[s[2 * g]], 32, 24), (m[s[2 * g + 1]], 16, 63)):
                    v[a] = (v[a] + v[b] + word) % 2**64
                    v[d] = turned(v[d] ^ v[a], first)
                    v[c] = (v[c] + v[d]) % 2**64
                    v[b] = turned(v[b] ^ v[c], second)
        h = [x ^ y ^ z for x, y, z in zip(h, v[:8], v[8:], strict=True)]
    return h


def seal_words(seed, buffer):
    """The first eight words of a buffer of BLAKE2Xb: its first leaf."""
    key = [*struct.unpack("<8Q", seed), *[0] * 8]
    root = blake2b([64 | 64 << 8 | 1 << 16 | 1 << 24, 4096 << 32, 0], [(key, 128), ([buffer, *[0] * 15], 136)])
    return blake2b([64 | 64 << 32, 4096 << 32, 64 << 8], [([*root, *[0] * 8], 64)])


def check_expansion(plan, digest, derived):
    chain, seed = [*plan["data_primes"], plan["special_prime"]], bytes.fromhex(derived["column_seed"])
    for at, (prime, expected) in enumerate(zip(chain, derived["uniform_half"], strict=True)):
        assert expand(b"securead.protocols.ckks.a.v1\0", digest, at, prime, 4) == expected
    for at, (prime, expected) in enumerate(zip(plan["data_primes"], derived["column"], strict=True)):
        words = seal_words(seed, at * plan["ring_dimension"] // 512)[:4]
        assert max(words) < 2**64 - 1 - (2**64 - 1) % prime - 1, "then the expander would take other words"
        assert [word % prime for word in words] == expected


def toy_ckks():
    """Encrypt, take an integer linear layer and a square without relinearising, decrypt three polynomials."""
    rng = np.random.default_rng(1)
    n, q, scale = 16, 2**80, 2**30
    roots = np.exp(1j * np.pi * np.arange(1, 2 * n, 2) / n)
    embedding = np.vander(roots, n, increasing=True)  # row k: the polynomial's value at the k-th root

    def times(a, b):
        full = np.convolve(a, b)
        folded = full[:n].copy()
        folded[: n - 1] -= full[n:]
        return np.array([int(c) % q for c in folded], dtype=object)

    def encrypt(slots, s):
        values = np.concatenate([slots, slots[::-1]])  # conjugate pairs: real coefficients
        message = np.rint((np.linalg.inv(embedding) @ values).real * scale).astype(np.int64).astype(object)
        a = np.array([int(v) for v in rng.integers(0, 2**62, n)], dtype=object) * 2**18
        noise = rng.integers(-5, 6, n).astype(object)
        return [(message + noise - times(a, s)) % q, a]

    s = rng.integers(-1, 2, n).astype(object)
    x, y = rng.uniform(-2, 2, (2, n // 2))
    (x0, x1), (y0, y1) = encrypt(x, s), encrypt(y, s)
    h0, h1 = 3 * x0 - 5 * y0, 3 * x1 - 5 * y1  # weights 3 and -5, at scale 1
    score = [times(h0, h0), 2 * times(h0, h1) % q, times(h1, h1)]
    for j in range(2):  # masks: Y**j times an encryption of zero
        z0, z1 = encrypt(np.zeros(n // 2), s)
        score[j], score[j + 1] = (score[j] + z0) % q, (score[j + 1] + z1) % q
    score[0] = (score[0] + np.array([int(v) for v in rng.integers(-(2**30), 2**30, n)], dtype=object)) % q
    phase = (score[0] + times(score[1], s) + times(score[2], times(s, s))) % q
    centred = np.array([c - q if c > q // 2 else c for c in phase], dtype=float)
    decoded = (embedding @ centred).real[: n // 2] / float(scale) ** 2
    assert np.abs(decoded - (3 * x - 5 * y) ** 2).max() < 1e-4


def main():
    vectors = json.loads(Path(__file__).with_name("vectors.json").read_text())
    for case in vectors["programs"]:
        check_program(case)
        for plan, digest, derived in zip(case["plans"], case["plan_digests"], case["derived"], strict=True):
            check_parameters(plan)
            check_scales(case["public"], plan)
            check_errors(case["public"], plan)
            check_flood(plan)
            check_lengths(plan, derived)
            check_expansion(plan, digest, derived)
        for plan in filter(None, case["full_floods"]):
            assert plan["full_flood"]
            check_parameters(plan)
            check_scales(case["public"], plan)
            check_errors(case["public"], plan)
            check_flood(plan)
    lengths = {derived["request_bytes"] for case in vectors["programs"] for derived in case["derived"]}
    assert not any(len(case["payload"]) // 2 in lengths for case in vectors["payloads"])
    known = blake2b([64 | 1 << 16 | 1 << 24, 0, 0], [([0x636261, *[0] * 15], 3)])
    assert known[0].to_bytes(8, "little").hex() == "ba80a53f981c4d0d"  # RFC 7693, appendix A: "abc"
    assert aes256(bytes(range(32)), bytes.fromhex("00112233445566778899aabbccddeeff"))[:4].hex() == "8ea2b7ca"
    toy_ckks()
    plans = sum(len(case["plans"]) for case in vectors["programs"])
    print(f"ok: {len(vectors['programs'])} programs, {plans} plans, {len(vectors['payloads'])} payloads, toy CKKS")


if __name__ == "__main__":
    main()
