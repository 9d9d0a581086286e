"""Verifies vectors.json without the library: `python protocols/ckks-deep/reference.py`.

An independent reading of SPEC.md in plain Python: integer evaluation and ranges, depths, polynomials, levels, scales,
the security tables, the error bound, the flood, lengths, expanded halves (with an AES of its own); and a toy that
multiplies, relinearises and rescales. It is slow, not constant-time and for no other use.
"""

from __future__ import annotations

import hashlib
import json
import math
import random
import struct
from fractions import Fraction
from pathlib import Path

LIMITS = {16384: (438, 430), 32768: (881, 868)}  # 2018 standard, 2024 guideline


def evaluate(public, weights, z):
    """The exact integer value of every step for one encoded record."""
    values = []
    for at, step in enumerate(public["steps"]):
        if step["type"] == "input":
            values.append(list(z))
        elif step["type"] == "affine":
            total = weights[str(at)]["offset"]
            for matrix, source in zip(weights[str(at)]["matrices"], step["sources"], strict=True):
                more = [sum(w * v for w, v in zip(row, values[source], strict=True)) for row in matrix]
                total = [a + b for a, b in zip(total, more, strict=True)]
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
        for step, value in zip(public["steps"], values, strict=True):
            assert all(abs(v) <= 2 ** step["bound_bits"] for v in value), "a value beyond its declared bound"


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
    assert all(is_prime(p) and p % (2 * n) == 1 and 2**19 < p < 2**50 for p in chain)
    assert len(set(chain)) == len(chain)
    assert math.prod(chain).bit_length() <= min(LIMITS[n]), "not 128 bits of security"


def sources(step):
    return step["sources"] if step["type"] == "affine" else [step["left"], step["right"]] if "left" in step else []


def check_structure(public, plan):
    """SPEC.md, section 3: depths, polynomials, and that what is relinearised is enough."""
    steps, planned = public["steps"], plan["steps"]
    products = [at for at, step in enumerate(steps) if "left" in step]
    reaches = [set() for _ in steps]  # products that a step goes into
    for at in reversed(range(len(steps))):
        for source in sources(steps[at]):
            reaches[source] |= reaches[at] | ({at} if at in products else set())
    for at, (step, found) in enumerate(zip(steps, planned, strict=True)):
        depth = max((planned[s]["depth"] for s in sources(step)), default=0) + (at in products)
        sizes = [planned[s]["size"] for s in sources(step)]
        size = 2 if not sizes else sum(sizes) - 1 if at in products else max(sizes)
        if at in products and step["left"] == step["right"]:
            size = 2 * sizes[0] - 1
        assert found["depth"] == depth
        assert found["size"] == (2 if found["relinearised"] else size)
        assert not found["relinearised"] or size == 3, "only three polynomials are relinearised"
        if at in products and reaches[at]:
            assert all(planned[f]["size"] == 2 for f in (step["left"], step["right"])), "factors have two"
    assert len(plan["groups"]) == planned[-1]["depth"] - 1


def divisor(plan, depth):
    """The product of a group's primes; group 1 is the last."""
    if depth == 0:
        return 1
    end = len(plan["data_primes"]) - sum(plan["groups"][: depth - 1])
    return math.prod(plan["data_primes"][end - plan["groups"][depth - 1] : end])


def scales_of(public, plan):
    steps, planned, scales = public["steps"], plan["steps"], []
    for step, found in zip(steps, planned, strict=True):
        if step["type"] == "input":
            scales.append(Fraction(2) ** plan["input_bits"])
        elif step["type"] == "affine":
            bits = step["fraction_bits"]
            own = [s for s in step["sources"] if planned[s]["depth"] == found["depth"]]
            scales.append(
                max(scales[s] * Fraction(2) ** (bits - steps[s]["fraction_bits"]) for s in own) * 2 ** found["lift"]
            )
        else:
            pair = [scales[f] / divisor(plan, planned[f]["depth"]) for f in (step["left"], step["right"])]
            scales.append(pair[0] * pair[1])
    return scales


class Tails:
    def __init__(self, public, plan):
        self.n = plan["ring_dimension"]
        components = sum(step["width"] for step in public["steps"]) + 2
        self.deviations = math.sqrt(2 * math.log(2) * (64 + 4 + (32 * components * self.n // 2).bit_length()))

    def tail(self, variance):
        return self.deviations * math.sqrt(variance * self.n / 2) / math.cos(math.pi / 16)

    def powers(self, count):
        return sum(self.tail(2 / 3) ** j for j in range(count))

    def rescale(self, size):
        return self.tail(1 / 12) * self.powers(size)

    def public_key(self, prime):
        return self.tail(10.5) * (1 + 2 * self.tail(2 / 3)) / prime + self.rescale(2)


def errors(public, plan, scales, encoding):
    """The error bound of SPEC.md, section 5, step by step."""
    tails, n, steps, planned = Tails(public, plan), plan["ring_dimension"], public["steps"], plan["steps"]
    reach = [2.0 ** (s["bound_bits"] - s["fraction_bits"]) for s in steps]
    fresh = tails.tail(10.5) if plan["role"] == "same" else tails.public_key(plan["special_prime"])
    switching = n * (21 * n * (sum(plan["data_primes"]) / plan["special_prime"]) + (n + 1) / 2)
    norm = sum(t["multiplier"] for t in public["public_terms"]) * public["encoder"]["limit"] ** 2 * steps[0]["width"]
    norm *= (
        2.0 ** (2 * public["encoder"]["fraction_bits"] - steps[-1]["fraction_bits"]) if plan["role"] == "split" else 0
    )

    def encrypted(bound):
        encoded = n / float(scales[0]) + 32 * math.sqrt(n) * 2.0**-102 * bound
        return fresh / float(scales[0]) + (encoded if encoding else 0)

    def factor(at):
        if planned[at]["depth"] == 0:
            return found[at]
        return found[at] + tails.rescale(planned[at]["size"]) / float(scales[at] / divisor(plan, planned[at]["depth"]))

    found = []
    for at, step in enumerate(steps):
        if step["type"] == "input":
            error = encrypted(reach[0])
        elif step["type"] == "affine":
            error = 0.5 / float(scales[at])
            for s, gain in zip(step["sources"], step["gain_bits"], strict=True):
                error += 2.0 ** (gain - step["fraction_bits"] + steps[s]["fraction_bits"]) * found[s]
                weighed = scales[s] * Fraction(2) ** (step["fraction_bits"] - steps[s]["fraction_bits"])
                if planned[s]["depth"] < planned[at]["depth"] or (scales[at] / weighed).denominator != 1:
                    error += steps[s]["width"] * 2.0**20 * reach[s] * float(scales[s] / scales[at])
            if at == len(steps) - 1 and norm:
                error += encrypted(norm) + norm * float(scales[0] / scales[at])
        else:
            (a, b), (e, f) = (reach[step["left"]], reach[step["right"]]), (factor(step["left"]), factor(step["right"]))
            error = a * f + b * e + e * f
        found.append(error + (switching / float(scales[at]) if planned[at]["relinearised"] else 0))
    return found, reach[-1] + norm


def check_errors(public, plan, derived):
    scales = scales_of(public, plan)
    assert [[s.numerator, s.denominator] for s in scales] == derived["scales"]
    assert float(scales[-1]) == plan["score_scale"]
    n, size, last = plan["ring_dimension"], plan["steps"][-1]["size"], len(plan["data_primes"]) - sum(plan["groups"])
    chain, tails = [*plan["data_primes"], plan["special_prime"]], Tails(public, plan)
    total, reach = errors(public, plan, scales, True)
    hidden, _ = errors(public, plan, scales, False)
    for ours, theirs in zip(total, plan["steps"], strict=True):
        assert ours <= theirs["error"] * (1 + 2.0**-20) <= ours * 1.05, "another error bound"
    assert hidden[-1] <= plan["hidden_error"] * (1 + 2.0**-20) <= hidden[-1] * 1.05
    # The flood, over everything else.
    zero = Fraction(21 * (2 * n + 1), chain[last]) + Fraction(n + 1, 2)
    noise = zero * sum(n**j for j in range(size - 1))
    assert noise <= derived["mask_bound"] <= noise * Fraction(101, 100)
    everything = Fraction(plan["hidden_error"]) * scales[-1] + noise
    assert 2 ** plan["flood_bits"] >= 2**40 * everything * n / 2, "flooding hides too little"
    # The whole.
    flood = tails.deviations * math.sqrt(n / 6) / math.cos(math.pi / 16) * 2.0 ** plan["flood_bits"] + n / 2
    masked = total[-1] + (tails.public_key(chain[last]) * tails.powers(size - 1) + flood) / float(scales[-1])
    dropped = math.prod(plan["data_primes"][plan["answer_primes"] : last])
    answer = scales[-1] / dropped
    masked += tails.rescale(size) / float(answer) if dropped > 1 else 0
    masked += 32 * math.sqrt(n) * 2.0**-102 * (reach + masked) + reach * 2.0**-51
    assert masked <= plan["error_bound"] * (1 + 2.0**-20) <= masked * 1.05
    assert plan["error_bound"] <= public["tolerance"]
    assert 2 * plan["result_bound"] * answer < math.prod(plan["data_primes"][: plan["answer_primes"]])
    for at, step in enumerate(public["steps"]):  # nothing wraps where it is rounded
        level = max(plan["steps"][at]["depth"] - 1, 0)
        left = len(plan["data_primes"]) - sum(plan["groups"][:level])
        if any("left" in s and at in (s["left"], s["right"]) for s in public["steps"]):
            largest = 2.0 ** (step["bound_bits"] - step["fraction_bits"]) + total[at]
            assert 2 * Fraction(largest) * scales[at] < math.prod(plan["data_primes"][:left])


def packed(n, primes):
    return sum((n * p.bit_length() + 7) // 8 for p in primes)


def check_lengths(plan, derived):
    n, data = plan["ring_dimension"], plan["data_primes"]
    chain = [*data, plan["special_prime"]]
    columns = plan["width"] + (plan["role"] == "split" and bool(plan["public_terms"]))
    column = 64 + packed(n, data) if plan["role"] == "same" else 2 * packed(n, data)
    assert derived["request_bytes"] == 36 + columns * column
    assert derived["answer_bytes"] == 36 + plan["steps"][-1]["size"] * packed(n, data[: plan["answer_primes"]])
    digits = len(data) if any(step["relinearised"] for step in plan["steps"]) else 0
    assert derived["public_key_bytes"] == 24 + 32 + 32 + 32 + (1 + digits) * packed(n, chain)


def aes256(key, block):
    """One block of AES-256 (FIPS 197), from its definition."""

    def double(a):
        return (a << 1 ^ (0x11B if a & 0x80 else 0)) & 0xFF

    def times(x, y):
        product = 0
        while y:
            product, x, y = product ^ x * (y & 1), double(x), y >> 1
        return product

    def substitute(a):
        inverse = next((b for b in range(1, 256) if times(a, b) == 1), 0)
        total = inverse ^ 0x63
        for k in range(1, 5):
            total ^= ((inverse << k) | (inverse >> (8 - k))) & 0xFF
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


def check_halves(plan, digest, derived):
    chain = [*plan["data_primes"], plan["special_prime"]]
    end = len(chain) - 1
    for (half, row), expected in zip(((0, 0), (0, end), (1, 0), (end, end)), derived["uniform_halves"], strict=True):
        domain = f"securead.protocols.ckks-deep.a.v1.{half}".encode() + b"\0"
        key, found, block = hashlib.sha256(domain + bytes.fromhex(digest) + bytes([row])).digest(), [], 0
        while len(found) < 4:
            words = struct.unpack("<2Q", aes256(key, block.to_bytes(16, "big")))
            found += [w for w in (w & ((1 << chain[row].bit_length()) - 1) for w in words) if w < chain[row]]
            block += 1
        assert found[:4] == expected


def toy():
    """(m^2)^2 of a ring element: square, relinearise with digits and a special prime, rescale, square; decrypt five
    polynomials' worth of it, three here.
    """
    n, data, special, draw = 8, [1000033, 1000037, 1000039, 1000081], 1048583, random.Random(1)

    def times(a, b, q):
        full = [0] * (2 * n)
        for i, x in enumerate(a):
            for j, y in enumerate(b):
                full[i + j] += x * y
        return [(full[i] - full[i + n]) % q for i in range(n)]

    def add(a, b, q):
        return [(x + y) % q for x, y in zip(a, b, strict=True)]

    def centred(a, q):
        return [x - q if x > q // 2 else x for x in a]

    s = [draw.randrange(-1, 2) for _ in range(n)]

    def encrypt(m, q):
        a, e = [draw.randrange(q) for _ in range(n)], [draw.randrange(-3, 4) for _ in range(n)]
        return [add(add(m, e, q), [-x for x in times(a, s, q)], q), a]

    q = math.prod(data)
    square_of_s = times(s, s, q * special)
    # Digit i encrypts P s^2 times the integer that is 1 modulo prime i and 0 modulo all others.
    units = [q // p * pow(q // p, -1, p) for p in data]
    keys = [encrypt([special * u * x for x in square_of_s], q * special) for u in units]
    m = [draw.randrange(-3, 4) * 2**18 for _ in range(n)]
    c0, c1 = encrypt(m, q)
    c = [times(c0, c0, q), add(times(c0, c1, q), times(c1, c0, q), q), times(c1, c1, q)]
    switched = [[0] * n, [0] * n]
    for p, key in zip(data, keys, strict=True):
        digit = [x % p for x in c[2]]
        switched = [add(t, times(digit, k, q * special), q * special) for t, k in zip(switched, key, strict=True)]
    down = [[(x + special // 2) // special for x in t] for t in switched]
    c = [add(x, d, q) for x, d in zip(c, down, strict=False)]
    dropped = data[3]
    left = q // dropped
    c = [[(x + dropped // 2) // dropped % left for x in polynomial] for polynomial in c]
    scaled = [x / dropped for x in centred(times(m, m, q), q)]
    phase = centred(add(c[0], times(c[1], s, left), left), left)
    assert max(abs(a - b) for a, b in zip(phase, scaled, strict=True)) < 2**12 < max(map(abs, scaled)) / 2**3


def main():
    vectors = json.loads(Path(__file__).with_name("vectors.json").read_text())
    for case in vectors["programs"]:
        check_program(case)
        for plan, digest, derived in zip(case["plans"], case["plan_digests"], case["derived"], strict=True):
            check_parameters(plan)
            check_structure(case["public"], plan)
            check_errors(case["public"], plan, derived)
            check_lengths(plan, derived)
            check_halves(plan, digest, derived)
    lengths = {derived["request_bytes"] for case in vectors["programs"] for derived in case["derived"]}
    assert not any(len(case["payload"]) // 2 in lengths for case in vectors["payloads"])
    assert aes256(bytes(range(32)), bytes.fromhex("00112233445566778899aabbccddeeff"))[:4].hex() == "8ea2b7ca"
    toy()
    plans = sum(len(case["plans"]) for case in vectors["programs"])
    print(f"ok: {len(vectors['programs'])} programs, {plans} plans, {len(vectors['payloads'])} payloads, a toy")


if __name__ == "__main__":
    main()
