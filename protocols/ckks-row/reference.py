"""Verifies vectors.json without the library: `python protocols/ckks-row/reference.py`.

An independent reading of SPEC.md in plain Python and NumPy: integer programs and their expansion into monomials;
security tables, norms and error bounds; the cut into groups and all lengths; the uniform half of public keys (with an
AES of its own); and the whole protocol on exact integers, at a plan's own ring and moduli. It is slow, not
constant-time and for no other use.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import struct
from fractions import Fraction
from pathlib import Path

import numpy as np

LIMITS = {4096: (109, 106), 8192: (218, 214), 16384: (438, 430)}  # 2018 standard, 2024 guideline
ERROR = 21  # SEAL's centred binomial

# --- programs: section 2. A polynomial is a mapping from rising tuples of variables to integers.


def added(a, b, factor):
    result = dict(a)
    for monomial, value in b.items():
        result[monomial] = result.get(monomial, 0) + factor * value
    return result


def multiplied(a, b):
    result = {}
    for (left, x), (right, y) in itertools.product(a.items(), b.items()):
        monomial = tuple(sorted(left + right))
        result[monomial] = result.get(monomial, 0) + x * y
    return result


def expanded(case, role):
    """The score as one polynomial, with the public terms in role `split`."""
    public, known = case["public"], []
    for at, step in enumerate(public["steps"]):
        if step["type"] == "input":
            known.append([{(i,): 1} for i in range(step["width"])])
        elif step["type"] == "affine":
            weights, values = case["weights"][str(at)], []
            for row in range(step["width"]):
                total = {(): weights["offset"][row]}
                for source, matrix in zip(step["sources"], weights["matrices"], strict=True):
                    for factor, value in zip(matrix[row], known[source], strict=True):
                        total = added(total, value, factor)
                values.append(total)
            known.append(values)
        else:
            both = zip(known[step["left"]], known[step["right"]], strict=True)
            known.append([multiplied(a, b) for a, b in both])
    (score,) = known[-1]
    for term in public["public_terms"] if role == "split" else []:
        width = public["steps"][0]["width"]
        score = added(score, {(i, i): 1 for i in range(width)}, term["multiplier"])
    return score


def value_at(polynomial, z):
    return sum(c * math.prod(z[i] for i in monomial) for monomial, c in polynomial.items())


def in_order(width, degree):
    """All monomials of degree 1 to `degree`: by degree, then by the largest variable, then the next."""
    found = []
    for d in range(1, degree + 1):
        rising = itertools.combinations_with_replacement(range(width), d)
        line = sorted(rising, key=lambda monomial: monomial[::-1])
        places = [sum(math.comb(i + k, k + 1) for k, i in enumerate(monomial)) for monomial in line]
        assert places == list(range(len(line)))
        found += line
    return found


def check_program(case):
    same, split = (expanded(case, role) for role in ("same", "split"))
    for z, score, public in zip(case["inputs"], case["scores"], case["public_terms"], strict=True):
        assert value_at(same, z) + public == score
        assert value_at(split, z) == score
    return same, split


# --- parameters: sections 2, 4 and 5


def is_prime(n):
    odd, twos = n - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for base in (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37):
        x = pow(base, odd, n)
        if x not in (1, n - 1) and all((x := x * x % n) != n - 1 for _ in range(twos - 1)):
            return False
    return True


def norm(public, role):
    """A bound on the coefficients' sum, from row sums alone."""
    known = []
    for step in public["steps"]:
        if step["type"] == "input":
            known.append({1: 1})
        elif step["type"] == "affine":
            total = {0: 2 ** step["offset_bits"]}
            for source, gain in zip(step["sources"], step["gain_bits"], strict=True):
                total = added(total, known[source], 2**gain)
            known.append(total)
        else:
            left, right, total = known[step["left"]], known[step["right"]], {}
            for (d, x), (e, y) in itertools.product(left.items(), right.items()):
                total[d + e] = total.get(d + e, 0) + x * y
            known.append(total)
    found = sum(value for degree, value in known[-1].items() if degree)
    if role == "split":
        found += sum(abs(term["multiplier"]) * public["steps"][0]["width"] for term in public["public_terms"])
    return found


def check_parameters(case, plan, polynomial, error_bound):
    public, role, n, data = case["public"], plan["role"], plan["ring_dimension"], plan["data_primes"]
    chain = [*data, plan["special_prime"]]
    assert all(is_prime(p) and p % (2 * n) == 1 for p in chain)
    assert all(20 <= p.bit_length() <= 50 for p in data)
    assert len(set(chain)) == len(chain)
    assert math.prod(chain).bit_length() <= min(LIMITS[n]), "not 128 bits of security"
    bound = norm(public, role)
    assert 2 ** plan["norm_bits"] >= bound > 2 ** plan["norm_bits"] // 2
    real = sum(abs(c) for monomial, c in polynomial.items() if monomial)
    assert real <= bound, "the coefficients exceed their public bound"
    bits = public["steps"][-1]["bound_bits"] if role == "same" else public["score_bits"]
    assert plan["score_bits"] == bits
    zero = -(-ERROR * (2 * n + 1) // plan["special_prime"]) + (n + 2) // 2
    noise = (ERROR if role == "same" else zero) * 2 ** plan["norm_bits"] + zero
    flood = 2 ** plan["flood_bits"]
    assert flood >= 2**40 * 32 * noise > flood // 2, "the flood does not hide the noise, or is larger than it need be"
    q, p = math.prod(data), math.prod(data[: plan["answer_primes"]])
    assert plan["plain_bits"] == min(59, p.bit_length() - 1)
    switched = Fraction((n + 2) * (q // p), 2) if q != p else 0
    total = noise + flood + switched + Fraction(q, 2 ** plan["plain_bits"])
    delta = 2 ** plan["scale_bits"]
    assert 2 * (delta * 2**bits + total) < q, "a score could wrap"
    exact = (total / delta + Fraction(2**bits, 2**52)) / 2 ** plan["score_fraction_bits"]
    assert exact <= Fraction(error_bound) <= exact * (1 + Fraction(1, 2**50))
    assert error_bound <= public["tolerance"]


def layouts(plan, count):
    n = plan["ring_dimension"]
    options = [(r, -(-count // (n // r))) for r in range(1, min(32, plan["rows_per_chunk"]) + 1)]
    options = [a for a in options if not any(b[0] > a[0] and b[1] <= a[1] for b in options)]

    def cost(option):
        return Fraction(option[1] + 1, option[0]), option[0]

    one, many = options[0], min(options, key=cost)
    some = min((o for o in options if o[0] ** 2 <= one[0] * many[0]), key=cost)
    return sorted({one, some, many})


def groups(options, rows):
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


def check_chunks(plan, count, derived):
    options = layouts(plan, count)
    assert [[v["slots"], v["pieces"]] for v in plan["layouts"]] == [list(o) for o in options]
    n, widths = plan["ring_dimension"], [p.bit_length() for p in plan["data_primes"]]
    kept = widths[: plan["answer_primes"]]
    polynomial = n * sum(widths) // 8
    ciphertext = polynomial + 64 if plan["role"] == "same" else 2 * polynomial
    for chunk in derived["chunks"]:
        cut = groups(options, chunk["rows"])
        assert chunk["groups"] == cut
        assert chunk["request_bytes"] == 36 + ciphertext * sum(group[1] for group in cut)
        parts = [sum((count * width + 7) // 8 for width in kept) for group in cut for count in (n, group[3])]
        assert chunk["answer_bytes"] == 36 + sum(parts)


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
        domain = b"securead.protocols.ckks-row.a.v1\0" + bytes.fromhex(digest) + bytes([index])
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


def run_protocol(plan, polynomial, slots, rows, rng):
    """One group of rows under a plan's own ring and moduli; returns the decrypted scores as exact fractions."""
    n, role, delta = plan["ring_dimension"], plan["role"], 2 ** plan["scale_bits"]
    q, special = math.prod(plan["data_primes"]), plan["special_prime"]
    order = in_order(plan["width"], plan["degree"])
    stride = n // slots

    def ternary():
        return [int(v) for v in rng.integers(-1, 2, n)]

    def error():
        return [int(v) for v in rng.binomial(42, 0.5, n) - 21]

    def uniform(modulus):
        return [int.from_bytes(rng.bytes(32), "little") % modulus for _ in range(n)]

    s, top = ternary(), q * special
    a = uniform(top)
    b = [-(x + y) % top for x, y in zip(times(a, s, top), error(), strict=True)]

    def encryption_of_zero():
        u = ternary()
        return [divided(add(times(half, u, top), error(), top), special) for half in (b, a)]

    def symmetric():
        c1 = uniform(q)
        return [-(x + y) % q for x, y in zip(times(c1, s, q), error(), strict=True)], c1

    sums = [[0] * n, [0] * n]
    for start in range(0, len(order), stride):
        piece = order[start : start + stride]
        message, table = [0] * n, [0] * n
        for row, z in enumerate(rows):
            for i, monomial in enumerate(piece):
                message[row * stride + i] = delta * math.prod(z[v] for v in monomial)
        for i, monomial in enumerate(piece):
            c = polynomial.get(monomial, 0)
            table[(n - i) % n] = -c if i else c
        c0, c1 = symmetric() if role == "same" else encryption_of_zero()
        encrypted = add(c0, message, q), c1
        sums = [add(half, times(c, table, q), q) for half, c in zip(sums, encrypted, strict=True)]
    sums = [add(half, mask, q) for half, mask in zip(sums, encryption_of_zero(), strict=True)]
    kept = [row * stride for row in range(len(rows))]
    for at in kept:
        flood = int.from_bytes(rng.bytes(64), "little") % 2 ** (plan["flood_bits"] + 1) - 2 ** plan["flood_bits"]
        sums[0][at] = (sums[0][at] + delta * polynomial.get((), 0) + flood) % q
    modulus = q
    for prime in reversed(plan["data_primes"][plan["answer_primes"] :]):
        modulus //= prime
        sums = [[v % modulus for v in divided(half, prime)] for half in sums]
    c0 = [sums[0][at] if at in kept else 0 for at in range(n)]
    phase = add(c0, times(sums[1], s, modulus), modulus)
    t, scores = 2 ** plan["plain_bits"], []
    for at in kept:
        read = (2 * t * phase[at] + modulus) // (2 * modulus) % t
        read -= t if read >= t // 2 else 0
        scores.append(Fraction(read * q, t * delta * 2 ** plan["score_fraction_bits"]))
    return scores


def check_protocol(case, plan, polynomial, error_bound, rng):
    for slots in {plan["layouts"][0]["slots"], plan["layouts"][-1]["slots"]}:
        rows = case["inputs"][: min(slots, 3)]
        scores = run_protocol(plan, polynomial, slots, rows, rng)
        for z, score in zip(rows, scores, strict=True):
            exact = Fraction(value_at(polynomial, z), 2 ** plan["score_fraction_bits"])
            assert abs(score - exact) <= Fraction(error_bound)


def main():
    vectors, rng = json.loads(Path(__file__).with_name("vectors.json").read_text()), np.random.default_rng(1)
    for case in vectors["programs"]:
        polynomials = check_program(case)
        every = zip(case["plans"], polynomials, case["plan_digests"], case["derived"], strict=True)
        for plan, polynomial, digest, derived in every:
            order = in_order(plan["width"], plan["degree"])
            assert set(polynomial) <= {(), *order}
            line = [polynomial.get(monomial, 0) % plan["data_primes"][0] for monomial in [(), *order]]
            assert derived["coefficients_modulo_the_first_prime"] == line
            check_parameters(case, plan, polynomial, derived["error_bound"])
            check_chunks(plan, len(order), derived)
            check_uniform_half(plan, digest, derived["uniform_half"])
            check_protocol(case, plan, polynomial, derived["error_bound"], rng)
    for case in vectors["refusals"]:
        public = case["public"]
        steps = {step["type"] for step in public.get("steps", [{"type": "tables"}])}
        width, wide = len(public["encoder"]["schema"]["columns"]), "monomials" in case["name"]
        assert steps - {"input", "affine", "product"} or "eight" in case["name"] or wide
        assert not wide or math.comb(width + 4, 4) - 1 > 2**17
    rows_per_chunk = vectors["programs"][0]["plans"][0]["rows_per_chunk"]
    lengths = {chunk["rows"]: chunk["request_bytes"] for chunk in vectors["programs"][0]["derived"][0]["chunks"]}
    for case in vectors["payloads"]:
        content = bytes.fromhex(case["payload"])
        rows = struct.unpack_from("<I", content)[0] if len(content) >= 36 else 0
        assert not 1 <= rows <= rows_per_chunk or len(content) != lengths.get(rows), case["name"]
    print(f"ok: {len(vectors['programs'])} programs in two roles, {len(vectors['payloads'])} payloads")


if __name__ == "__main__":
    main()
