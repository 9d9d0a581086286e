"""Writes vectors.json with the library: `python protocols/ckks/generate.py`. Only after a deliberate change."""

from __future__ import annotations

import dataclasses
import json
import struct
from pathlib import Path

import numpy as np
import zstandard

from securead import codec
from securead.checks import programs
from securead.data.schema import Column, Schema
from securead.errors import FixProgramError
from securead.program.builder import ProgramBuilder
from securead.protocols.ckks.plan import make_plan


def by_hand():
    """score = 3 (2 x0 - x1 + 1)^2 - 2, small enough to check in the head."""
    columns = tuple(Column(f"x{i}", -8.0, 8.0, center=0.0, spread=1.0) for i in range(2))
    encoder = dataclasses.replace(programs.encoder(2, limit=4.0, fraction_bits=1), schema=Schema(columns))
    build = ProgramBuilder(encoder)
    h = build.affine([(np.array([[2.0, -1.0]]), build.input)], np.array([1.0]), fraction_bits=1)
    build.affine([(np.array([[3.0]]), build.product(h, h))], np.array([-2.0]), fraction_bits=2)
    return build.finish(tolerance=0.25, honest_extraction_rows=6)


def program_case(name, program):
    public, rng = program.public, np.random.default_rng(7)
    bound, width = public.encoder.bound, public.encoder.width
    Z = np.vstack([np.zeros((1, width)), np.full((1, width), bound), rng.integers(-bound, bound + 1, (3, width))])
    Z = Z.astype(np.int64)
    return {
        "name": name,
        "public": codec.to_plain(public),
        "digest": public.digest,
        "weights": {
            str(at): {"matrices": [m.tolist() for m in w.matrices], "offset": w.offset.tolist()}
            for at, w in program.secret.weights.items()
        },
        "commitment_key": program.secret.commitment_key.hex(),
        "inputs": Z.tolist(),
        "scores": [int(v) for v in program.evaluate(Z)],
        "public_terms": [int(v) for v in public.public_term(Z)],
        "plans": [codec.to_plain(make_plan(public, role)) for role in ("same", "split")],
        "plan_digests": [make_plan(public, role).digest for role in ("same", "split")],
    }


def refusal(name, public):
    try:
        make_plan(public, "same")
    except FixProgramError:
        return {"name": name, "public": codec.to_plain(public), "expected": "FixProgramError"}
    raise AssertionError(name)


def seal_file(body, mode=2, size=None):
    return struct.pack("<HBBBBHQ", 0xA15E, 16, 4, 3, mode, 0, 16 + len(body) if size is None else size) + body


def payload(name, stage, parts, *, count=2, raw=None):
    framed = struct.pack("<I", len(parts)) + b"".join(struct.pack("<I", len(p)) + p for p in parts)
    content = framed if raw is None else raw(framed)
    return {"name": name, "count": count, "stage": stage, "payload": content.hex(), "expected": "RejectMessageError"}


def payloads():
    junk = seal_file(zstandard.compress(b"no ciphertext"))
    bomb = seal_file(zstandard.compress(bytes(64 << 20)))
    return [
        payload("empty", "framing", [], raw=lambda _: b""),
        payload("no ciphertext", "framing", []),
        payload("too few ciphertexts", "framing", [junk]),
        payload("too many ciphertexts", "framing", [junk] * 3),
        payload("an empty ciphertext", "framing", [junk, b""]),
        payload("truncated", "framing", [junk, junk], raw=lambda framed: framed[:-1]),
        payload("followed by a byte", "framing", [junk, junk], raw=lambda framed: framed + b"\0"),
        payload("a length beyond the end", "framing", [junk, junk], raw=lambda f: f[:4] + b"\xff" * 4 + f[8:]),
        payload("foreign bytes", "format", [b"not a ciphertext at all"] * 2),
        payload("another compression", "format", [seal_file(bytes(100), mode=1)] * 2),
        payload("a wrong length inside", "format", [seal_file(bytes(100), size=99)] * 2),
        payload("not a ciphertext", "content", [junk] * 2),
        payload("inflates to 64 MiB", "content", [bomb] * 2),
    ]


def main():
    vectors = {
        "source": "securead's own programs; no outside vectors exist for this protocol",
        "generator": "protocols/ckks/generate.py",
        "programs": [
            program_case("by hand", by_hand()),
            program_case("small quadratic", programs.small_quadratic()),
            program_case("Mahalanobis, 6 features", programs.mahalanobis(6)),
            program_case("square autoencoder 6-3-6", programs.autoencoder(6, 3)),
        ],
        "refusals": [
            refusal("a ReLU", programs.with_relu().public),
            refusal("degree 8", programs.of_degree_eight().public),
            refusal("a tolerance no parameters reach", programs.small_quadratic(tolerance=1e-30).public),
        ],
        "payloads": payloads(),
    }
    Path(__file__).with_name("vectors.json").write_text(json.dumps(vectors, indent=1) + "\n")


if __name__ == "__main__":
    main()
