"""Verifies vectors.json without the library: `python protocols/sharing/reference.py`.

An independent reading of SPEC.md in plain Python and NumPy: the oracle's scores, streams (with an AES of its own),
corrections of every kind of correlation, truncation, and the whole computation of both parties, message by message:
what each sends, what each answers, and what the client makes of it. For no other use.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import json
import operator
import struct
from fractions import Fraction
from pathlib import Path

import numpy as np

U = np.uint64
np.seterr(over="ignore")

# --- streams: section 3


def aes_tables():
    """The S-box, from its definition in FIPS 197: inverses in GF(2^8), then an affine map."""

    def times(a, b):
        product = 0
        while b:
            product, a, b = product ^ (a if b & 1 else 0), (a << 1) ^ (0x11B if a & 0x80 else 0), b >> 1
        return product

    inverse = [0] + [next(b for b in range(1, 256) if times(a, b) == 1) for a in range(1, 256)]

    def turned(v, by):
        return ((v << by) | (v >> (8 - by))) & 255

    return [b ^ turned(b, 1) ^ turned(b, 2) ^ turned(b, 3) ^ turned(b, 4) ^ 0x63 for b in inverse]


BOX = aes_tables()


def round_keys(key):
    words, constant = [list(key[i : i + 4]) for i in range(0, 32, 4)], 1
    for i in range(8, 60):
        last = words[-1]
        if i % 8 == 0:
            last = [BOX[v] for v in last[1:] + last[:1]]
            last[0], constant = last[0] ^ constant, constant << 1
        elif i % 8 == 4:
            last = [BOX[v] for v in last]
        words.append([a ^ b for a, b in zip(words[-8], last, strict=True)])
    return [np.array(functools.reduce(operator.iadd, words[4 * r : 4 * r + 4], []), dtype=np.uint8) for r in range(15)]


def stream_bytes(key, count):
    """The AES-256 encryptions of the counters 0, 1, ... as 16 bytes, the largest first."""
    blocks = -(-count // 16)
    state = np.zeros((blocks, 16), dtype=np.uint8)
    for place in range(8):
        state[:, 15 - place] = (np.arange(blocks) >> (8 * place)) & 255
    keys, box = round_keys(key), np.array(BOX, dtype=np.uint8)
    rows = [(i + 4 * (i % 4)) % 16 for i in range(16)]
    state = state ^ keys[0]
    for number in range(1, 15):
        state = box[state][:, rows]
        if number < 14:
            columns = state.reshape(-1, 4, 4)
            doubled = ((columns << 1) ^ np.where(columns & 0x80, 0x1B, 0)).astype(np.uint8)
            following = np.roll(columns, -1, axis=2)
            mixed = doubled ^ (np.roll(doubled, -1, axis=2) ^ following)
            state = (mixed ^ np.roll(columns, -2, axis=2) ^ np.roll(columns, -3, axis=2)).reshape(-1, 16)
        state = state ^ keys[number]
    return state.tobytes()[:count]


class Stream:
    """Words in order, 64 bits, little-endian."""

    def __init__(self, key):
        self.key, self.content, self.at = key, b"", 0

    def words(self, shape):
        count = int(np.prod(shape, dtype=int))
        if self.at + 8 * count > len(self.content):
            self.content = stream_bytes(self.key, 2 * (self.at + 8 * count))
        found = np.frombuffer(self.content, "<u8", count=count, offset=self.at).reshape(shape)
        self.at += 8 * count
        return found


def set_key(seed, number, rows, verdict):
    name = b"securead.protocols.sharing.set.v1\0" + struct.pack("<QQB", number, rows, verdict)
    return hmac.new(seed, name, hashlib.sha256).digest()


def words(integers):
    return np.array([v % 2**64 for v in integers], dtype=U)


def signed(array):
    return [int(v) - (1 << 64) * (int(v) >> 63) for v in array.ravel()]


# --- programs: section 2


def oracle(case, z):
    """The integer score of one record, in Python integers, without its public terms."""
    values = []
    for at, step in enumerate(case["public"]["steps"]):
        if step["type"] == "input":
            values.append([int(v) for v in z])
        elif step["type"] == "affine":
            weights = case["weights"][str(at)]
            sums = list(weights["offset"])
            for source, matrix in zip(step["sources"], weights["matrices"], strict=True):
                sums = [
                    s + sum(w * v for w, v in zip(row, values[source], strict=True))
                    for s, row in zip(sums, matrix, strict=True)
                ]
            values.append(sums)
        elif step["type"] == "product":
            values.append([a * b for a, b in zip(values[step["left"]], values[step["right"]], strict=True)])
        elif step["type"] == "relu":
            values.append([max(0, v) for v in values[step["source"]]])
        else:
            values.append([v // 2 ** step["shift"] for v in values[step["source"]]])
    return values[-1][0]


def check_program(case):
    plan = case["plans"][0]
    for z, query, score, term in zip(
        case["inputs"], case["queries"], case["scores"], case["public_terms"], strict=True
    ):
        if "tables" in case:
            assert sum(table[at] for table, at in zip(case["tables"], query, strict=True)) == score
        else:
            multipliers = [t["multiplier"] for t in case["public"]["public_terms"]]
            assert term == sum(m * sum(v * v for v in z) for m in multipliers)
            assert oracle(case, z) + term == score
    steps = plan["steps"]
    failure = sum(
        Fraction(2 * (2 ** steps[s["source"]]["bound_bits"] + 1) * s["width"], 2**64)
        for s in steps
        if s["type"] == "truncate"
    )
    assert abs(float(failure) - case["failure_probability"]) <= 1e-12 * float(failure)
    for verdict in (False, True):
        assert len(sequence(plan, 1, verdict)) == case["rounds"][verdict]
    for chunk in case["chunks"]:
        bucket = 1 << (chunk["rows"] - 1).bit_length()
        wanted = sequence(plan, bucket, chunk["verdict"])
        assert chunk["online_bytes"] == 8 * sum(opened(each) for each in wanted)
        assert chunk["offline_bytes"] == 8 * sum(int(np.prod(result_shape(each), dtype=int)) for each in wanted)


# --- correlations: section 4


def words_for(count):
    return -(-count // 8)


def sign_sequence(count):
    w = [words_for(count * width) for width in (8, 4, 2, 1, 1, 1, 1)]
    return [("and", [(n,), (2, n)] if 1 <= at <= 3 else [(n,), (n,)]) for at, n in enumerate(w)]


def sequence(plan, n, verdict):
    """What n rows consume, in order: kinds with the shapes that they are asked for."""
    found = []
    if plan["sizes"]:
        entries = sum(plan["sizes"])
        found.append(("matrix", [(n, entries), (entries, 1)]))
    for step in plan["steps"]:
        shape = (n, step["width"])
        if step["type"] == "affine":
            width = sum(plan["steps"][s]["width"] for s in step["sources"])
            found.append(("matrix", [(n, width), (width, step["width"])]))
        elif step["type"] == "product":
            found.append(("square", [shape]) if step["left"] == step["right"] else ("product", [shape, shape]))
        elif step["type"] == "relu":
            found += [*sign_sequence(n * step["width"]), ("bit product", [shape])]
    if verdict:
        found += [*sign_sequence(2 * n), ("and", [(words_for(n),), (words_for(n),)])]
    return found


def factor_shapes(correlation):
    kind, shapes = correlation
    return [shapes[0], (words_for(int(np.prod(shapes[0]))),)] if kind == "bit product" else shapes


def result_shape(correlation):
    kind, shapes = correlation
    if kind == "matrix":
        return shapes[0][0], shapes[1][1]
    return (2, *shapes[0]) if kind == "bit product" else shapes[-1]


def opened(correlation):
    return sum(int(np.prod(shape, dtype=int)) for shape in factor_shapes(correlation))


def low_bits(array, shape):
    content = np.ascontiguousarray(array).view(np.uint8)[: int(np.prod(shape))]
    return (content & 1).astype(U).reshape(shape)


def dealt(correlation, streams):
    """Both parties' shares of factors and result; party 0's share of the result is the dealer's correction."""
    kind, shapes = correlation
    factors = [[stream.words(shape) for shape in factor_shapes(correlation)] for stream in streams]
    second = streams[1].words(result_shape(correlation))
    if kind == "and":
        result = (factors[0][0] ^ factors[1][0]) & (factors[0][1] ^ factors[1][1])
        return factors, [result ^ second, second]
    whole = [a + b for a, b in zip(*factors, strict=True)]
    if kind == "matrix":
        result = whole[0] @ whole[1]
    elif kind == "product":
        result = whole[0] * whole[1]
    elif kind == "square":
        result = whole[0] * whole[0]
    else:
        bits = low_bits(factors[0][1] ^ factors[1][1], shapes[0])
        result = np.stack([bits, bits * whole[0]])
    return factors, [result - second, second]


def check_deal(case):
    plain = case["correlation"]
    shapes = [tuple(plain[name]) for name in ("left", "right", "shape") if name in plain]
    streams = [Stream(bytes.fromhex(key)) for key in case["keys"]]
    _, results = dealt((plain["kind"], shapes), streams)
    assert signed(results[0]) == case["corrections"]


# --- the computation: section 5


class Parties:
    """Both parties at once. Every value is a pair of shares; what each sends is kept."""

    def __init__(self, keys, corrections_digest):
        self.streams, self.sent, self.corrections = [Stream(key) for key in keys], [b"", b""], b""
        self.digest = corrections_digest

    def take(self, kind, *shapes):
        factors, results = dealt((kind, list(shapes)), self.streams)
        self.corrections += np.ascontiguousarray(results[0]).astype("<u8").tobytes()
        return factors, results

    def open(self, *differences, xor=False):
        """Each sends its shares of all differences, one after the other; both add (or XOR) them up."""
        for rank in (0, 1):
            self.sent[rank] += b"".join(np.ascontiguousarray(d[rank]).astype("<u8").tobytes() for d in differences)
        return [d[0] ^ d[1] if xor else d[0] + d[1] for d in differences]

    def matrix(self, x, y):
        f, c = self.take("matrix", x[0].shape, y[0].shape)
        e, d = self.open([x[i] - f[i][0] for i in (0, 1)], [y[i] - f[i][1] for i in (0, 1)])
        z = [c[i] + e @ f[i][1] + f[i][0] @ d for i in (0, 1)]
        return [z[0] + e @ d, z[1]]

    def product(self, x, y):
        f, c = self.take("product", x[0].shape, y[0].shape)
        e, d = self.open([x[i] - f[i][0] for i in (0, 1)], [y[i] - f[i][1] for i in (0, 1)])
        z = [c[i] + e * f[i][1] + f[i][0] * d for i in (0, 1)]
        return [z[0] + e * d, z[1]]

    def square(self, x):
        f, c = self.take("square", x[0].shape)
        (e,) = self.open([x[i] - f[i][0] for i in (0, 1)])
        z = [c[i] + U(2) * f[i][0] * e for i in (0, 1)]
        return [z[0] + e * e, z[1]]

    def conjunction(self, x, y):
        f, c = self.take("and", x[0].shape, y[0].shape)
        e, d = self.open([x[i] ^ f[i][0] for i in (0, 1)], [y[i] ^ f[i][1] for i in (0, 1)], xor=True)
        z = [c[i] ^ (e & f[i][1]) ^ (f[i][0] & d) for i in (0, 1)]
        return [z[0] ^ (e & d), z[1]]

    def narrow_and(self, x, y, width):
        """AND of integers of `width` bytes, packed into words with zeros at the end."""

        def packed(array):
            array = array.astype(f"<u{width}")
            rest = -array.shape[-1] % (8 // width)
            return np.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, rest)]).view("<u8")

        count = x[0].shape[-1]
        z = self.conjunction([packed(v) for v in x], [packed(v) for v in y])
        return [np.ascontiguousarray(v).view(f"<u{width}")[..., :count].astype(U) for v in z]

    def signs(self, x):
        """XOR-shares of the signs: the carry tree of section 5.4, bits as lists of Python would have them."""
        flat = [v.ravel() for v in x]
        top = [v >> U(63) for v in flat]

        def reordered(v):
            result = np.zeros_like(v)
            for bit in range(64):
                place = int(f"{bit:06b}"[::-1], 2)
                result |= ((v >> U(bit)) & U(1)) << U(place)
            return result

        b = [reordered(v) for v in flat]
        none, last = np.zeros_like(b[0]), U(1 << 63)
        g = [v & ~last for v in self.conjunction([b[0], none], [none, b[1]])]
        p = [b[0] | last, b[1] & ~last]
        for half, width in ((32, 4), (16, 2), (8, 1)):
            low = U((1 << half) - 1)
            update = self.narrow_and(
                [v >> U(half) for v in p], [np.stack([g[i] & low, p[i] & low]) for i in (0, 1)], width
            )
            g, p = [(g[i] >> U(half)) ^ update[i][0] for i in (0, 1)], [update[i][1] for i in (0, 1)]
        for half in (4, 2):
            low, by = U((1 << half) - 1), U(half)
            update = self.narrow_and(
                [(v >> by) | ((v >> by) << by) for v in p], [(g[i] & low) | ((p[i] & low) << by) for i in (0, 1)], 1
            )
            g, p = [(g[i] >> by) ^ (update[i] & low) for i in (0, 1)], [v >> by for v in update]
        update = self.narrow_and([v >> U(1) for v in p], [v & U(1) for v in g], 1)
        return [(top[i] ^ (g[i] >> U(1)) ^ update[i]) & U(1) for i in (0, 1)]

    def relu(self, x):
        shape, signs = x[0].shape, self.signs(x)
        f, c = self.take("bit product", shape)
        count = x[0].size

        def bytes_as_words(bits):
            return np.pad(bits.astype(np.uint8), (0, -count % 8)).view("<u8")

        hidden = [bytes_as_words(signs[i] ^ low_bits(f[i][1], (count,))) for i in (0, 1)]
        e, z = self.open([x[i] - f[i][0] for i in (0, 1)], hidden)
        z = low_bits(z, shape)
        return [x[i] - (z * x[i] + (U(1) - U(2) * z) * (e * c[i][0] + c[i][1])) for i in (0, 1)]

    def anomalies(self, score, threshold, lowest):
        """0 where lowest <= score <= threshold, else 1."""
        below = [score[0] - words([lowest])[0], score[1]]
        above = [threshold[i] - score[i] for i in (0, 1)]
        signs = self.signs([np.stack([below[i], above[i]]) for i in (0, 1)])
        n = len(score[0])
        inside = [[signs[0][:n] ^ U(1), signs[1][:n]], [signs[0][n:] ^ U(1), signs[1][n:]]]
        both = self.narrow_and(*inside, 1)
        return [(both[0] ^ U(1)) & U(1), both[1] & U(1)]


def truncated(share, shift):
    """Towards zero, as a signed integer."""
    magnitude = abs(share) >> shift
    return -magnitude if share < 0 else magnitude


def check_truncation(case):
    left, right = case["shares"]
    assert [truncated(v, case["shift"]) for v in case["shares"]] == case["parts"]
    value = (left + right + 2**63) % 2**64 - 2**63
    off = sum(case["parts"]) - (value >> case["shift"])
    assert abs(off) <= 1 or abs(abs(off) - 2 ** (64 - case["shift"])) <= 1


def check_run(run, case):
    plan, rows, verdict = case["plans"][0], run["rows"], run["verdict"]
    bucket = 1 << (rows - 1).bit_length()
    keys = [set_key(bytes.fromhex(seed), run["set"], bucket, verdict) for seed in run["seeds"]]
    parties, at = Parties(keys, run["corrections_sha256"]), 0
    models = [words(model) for model in run["model"]]

    def secret(*shape):
        nonlocal at
        count = int(np.prod(shape))
        part = [model[at : at + count].reshape(shape) for model in models]
        at += count
        return part

    width = sum(plan["sizes"]) if plan["sizes"] else plan["steps"][0]["width"] + plan["public_terms"]
    asked = [words(run["payload_0"]).reshape(rows, width), Stream(bytes.fromhex(run["payload_1"])).words((rows, width))]
    asked = [np.vstack([share, np.zeros((bucket - rows, width), dtype=U)]) for share in asked]
    values = []
    if plan["sizes"]:
        score = [v[:, 0] for v in parties.matrix(asked, secret(width, 1))]
    for step in plan["steps"]:
        if step["type"] == "input":
            values.append([share[:, : step["width"]] for share in asked])
        elif step["type"] == "affine":
            sources = [np.hstack([values[s][i] for s in step["sources"]]) for i in (0, 1)]
            matrix = secret(sources[0].shape[1], step["width"])
            product, offset = parties.matrix(sources, matrix), secret(step["width"])
            values.append([product[i] + offset[i] for i in (0, 1)])
        elif step["type"] == "product" and step["left"] == step["right"]:
            values.append(parties.square(values[step["left"]]))
        elif step["type"] == "product":
            values.append(parties.product(values[step["left"]], values[step["right"]]))
        elif step["type"] == "relu":
            values.append(parties.relu(values[step["source"]]))
        else:
            shares = values[step["source"]]
            values.append([words(truncated(v, step["shift"]) for v in signed(s)).reshape(s.shape) for s in shares])
    if plan["steps"]:
        term = [share[:, -1] if plan["public_terms"] else U(0) for share in asked]
        score = [values[-1][i][:, 0] + term[i] for i in (0, 1)]
    ring = [
        Stream(
            hmac.new(bytes.fromhex(run["ring_key"]), b"securead.protocols.sharing.ring.v1\0" + name, "sha256").digest()
        )
        for name in (b"0 to 1", b"1 to 0")
    ]
    there, back = (stream.words((bucket,)) for stream in ring)
    if verdict:
        lowest = 0 if plan["sizes"] else -(2 ** plan["score_bits"])
        bits = parties.anomalies(score, secret(1), lowest)
        answers = [bits[0] ^ back ^ there, bits[1] ^ there ^ back]
        joined = [int(v) for v in answers[0][:rows] ^ answers[1][:rows]]
        expected = [int(not lowest <= s <= run["threshold_integer"]) for s in case["scores"]]
    else:
        answers = [score[0] + back - there, score[1] + there - back]
        joined = signed(answers[0][:rows] + answers[1][:rows])
        expected = case["scores"]
    assert [signed(answer[:rows]) for answer in answers] == run["answers"]
    assert [hashlib.sha256(sent).hexdigest() for sent in parties.sent] == run["sent_sha256"]
    assert hashlib.sha256(parties.corrections).hexdigest() == run["corrections_sha256"]
    assert joined == run["joined"]
    if not any(step["type"] == "truncate" for step in plan["steps"]):
        assert joined == expected
    elif not verdict:
        error = max(abs(a - b) for a, b in zip(joined, expected, strict=True))
        assert error <= plan["error_bound"] * 2 ** plan["steps"][-1]["fraction_bits"]


def main():
    vectors = json.loads((Path(__file__).parent / "vectors.json").read_text())
    for case in vectors["streams"]:
        assert signed(Stream(bytes.fromhex(case["key"])).words((5,))) == case["words"]
    for case in vectors["set_keys"]:
        assert set_key(bytes.fromhex(case["seed"]), case["set"], case["rows"], case["verdict"]).hex() == case["key"]
    programs = {case["name"]: case for case in vectors["programs"]}
    for case in programs.values():
        check_program(case)
    for case in vectors["refusals"]:
        assert case["public"]["score_bits"] > 62
    for case in vectors["deals"]:
        check_deal(case)
    for case in vectors["truncations"]:
        check_truncation(case)
    for run in vectors["runs"]:
        check_run(run, programs[run["program"]])
    print(f"{len(vectors['runs'])} computations of two parties, message by message, and all other vectors: verified")


if __name__ == "__main__":
    main()
