"""Verifies vectors.json without the library: `python protocols/ckks/reference.py`.

An independent reading of SPEC.md in plain Python and NumPy: integer evaluation and ranges, the arithmetic of scales and
levels, the security tables, the error bound, the framing of payloads; and a toy CKKS that shows what the key holder
decrypts. It is slow, not constant-time and for no other use.
"""

from __future__ import annotations

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


def close(a, b):
    return abs(Fraction(a) - Fraction(b)) <= Fraction(b) / 2**48


def check_scales(public, plan):
    primes, steps = plan["data_primes"], plan["steps"]

    def dropped(start, count):
        return math.prod(primes[len(primes) - start - count : len(primes) - start])

    for step, planned in zip(public["steps"], steps, strict=True):
        if step["type"] == "input":
            assert planned["level"] == 0
            assert planned["size"] == 2
            assert planned["scale"] == plan["input_scale"]
        elif step["type"] == "affine":
            for source, multiplier in zip(step["sources"], planned["multipliers"], strict=False):
                assert close(Fraction(multiplier) * Fraction(steps[source]["scale"]), planned["scale"])
                assert multiplier >= 2.0 ** (step["fraction_bits"] - public["steps"][source]["fraction_bits"]) * 0.999
            assert planned["level"] == max(steps[s]["level"] for s in step["sources"])
        else:
            left, right = steps[step["left"]], steps[step["right"]]
            before = max(left["level"], right["level"])
            exact = Fraction(left["scale"]) * Fraction(right["scale"]) / dropped(before, planned["rescales"])
            assert close(planned["scale"], exact)
            assert planned["level"] == before + planned["rescales"]
            assert planned["size"] == left["size"] + right["size"] - 1
    last, final = steps[-1], plan["final_rescales"]
    assert close(plan["answer_scale"], Fraction(last["scale"]) / dropped(last["level"], final))
    modulus = math.prod(primes[: len(primes) - last["level"] - final])
    assert 2 * plan["result_bound"] * plan["answer_scale"] <= modulus, "the answer could wrap around"


def check_errors(public, plan):
    """The error bound of SPEC.md, section 6, term by term; the plan may only be more cautious."""
    n, steps = plan["ring_dimension"], plan["steps"]
    components = sum(step["width"] for step in public["steps"]) + 2
    deviations = math.sqrt(2 * math.log(2) * (64 + 4 + (32 * components * n // 2).bit_length()))

    def tail(variance):
        return deviations * math.sqrt(variance * n / 2) / math.cos(math.pi / 16)

    def rescaling(size):
        return tail(1 / 12) * sum(tail(2 / 3) ** j for j in range(size))

    fresh = tail(10.5)
    if plan["role"] == "split":
        fresh = fresh * (1 + 2 * tail(2 / 3)) / plan["special_prime"] + rescaling(2)
    reach = [2.0 ** (s["bound_bits"] - s["fraction_bits"]) for s in public["steps"]]
    doubles = 8 * 3.4142 * math.sqrt(n) * 2.0**-53
    errors = []
    for at, step in enumerate(public["steps"]):
        if step["type"] == "input":
            errors.append((fresh + n / 2) / plan["input_scale"] + doubles * public["encoder"]["limit"])
        elif step["type"] == "affine":
            gains = [
                2.0 ** (g - step["fraction_bits"] + public["steps"][s]["fraction_bits"])
                for g, s in zip(step["gain_bits"], step["sources"], strict=True)
            ]
            errors.append(sum(g * errors[s] for g, s in zip(gains, step["sources"], strict=True)))
        else:
            a, b = step["left"], step["right"]
            error = reach[a] * errors[b] + reach[b] * errors[a] + errors[a] * errors[b]
            errors.append(error + (steps[at]["rescales"] > 0) * rescaling(steps[at]["size"]) / steps[at]["scale"])
        assert errors[-1] <= steps[at]["error"] * 1.001, (at, errors[-1], steps[at]["error"])
    final = rescaling(steps[-1]["size"]) / plan["answer_scale"] if plan["final_rescales"] else 0.0
    assert errors[-1] + final <= plan["error_bound"] * 1.001 <= public["tolerance"] * 1.002


def unframe(payload, count):
    """The ciphertexts of a payload, or None."""
    if len(payload) < 4 or struct.unpack_from("<I", payload)[0] != count:
        return None
    parts, at = [], 4
    for _ in range(count):
        if at + 4 > len(payload):
            return None
        (length,) = struct.unpack_from("<I", payload, at)
        parts.append(payload[at + 4 : at + 4 + length])
        at += 4 + length
    return parts if at == len(payload) and all(parts) else None


def has_format(part):
    """Whether a part begins as a Zstandard-compressed SEAL file of its own length."""
    if len(part) < 16:
        return False
    magic, header, _, _, mode, _, size = struct.unpack_from("<HBBBBHQ", part)
    return (magic, header, mode, size) == (0xA15E, 16, 2, len(part))


def check_payload(case):
    parts = unframe(bytes.fromhex(case["payload"]), case["count"])
    stage = "framing" if parts is None else "format" if not all(map(has_format, parts)) else "content"
    assert case["expected"] == "RejectMessageError"
    assert stage == case["stage"], (case["name"], stage)


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
    phase = (times(h0, h0) + times(2 * times(h0, h1), s) + times(times(h1, h1), times(s, s))) % q
    centred = np.array([c - q if c > q // 2 else c for c in phase], dtype=float)
    decoded = (embedding @ centred).real[: n // 2] / float(scale) ** 2
    assert np.abs(decoded - (3 * x - 5 * y) ** 2).max() < 1e-4


def main():
    vectors = json.loads(Path(__file__).with_name("vectors.json").read_text())
    for case in vectors["programs"]:
        check_program(case)
        for plan in case["plans"]:
            check_parameters(plan)
            check_scales(case["public"], plan)
            check_errors(case["public"], plan)
    for case in vectors["payloads"]:
        check_payload(case)
    toy_ckks()
    plans = sum(len(case["plans"]) for case in vectors["programs"])
    print(f"ok: {len(vectors['programs'])} programs, {plans} plans, {len(vectors['payloads'])} payloads, toy CKKS")


if __name__ == "__main__":
    main()
