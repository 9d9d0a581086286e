"""Writes vectors.json with the library: `python protocols/ckks/generate.py`. Only after a deliberate change."""

from __future__ import annotations

import dataclasses
import json
import struct
from pathlib import Path

import numpy as np

from securead import codec
from securead.checks import programs
from securead.data.schema import Column, Schema
from securead.errors import FixProgramError
from securead.program.builder import ProgramBuilder
from securead.protocols.ckks import messages
from securead.protocols.ckks.plan import make_plan
from securead.protocols.residues import blake2x


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
        "derived": [derived(make_plan(public, role)) for role in ("same", "split")],
        "plan_digests": [make_plan(public, role).digest for role in ("same", "split")],
        "full_floods": [full_flood(public, role) for role in ("same", "split")],
    }


def full_flood(public, role):
    """The plan whose flood covers encryption errors, too, or None where it does not fit."""
    try:
        return codec.to_plain(make_plan(public, role, full_flood=True))
    except FixProgramError:
        return None


def refusal(name, public):
    try:
        make_plan(public, "same")
    except FixProgramError:
        return {"name": name, "public": codec.to_plain(public), "expected": "FixProgramError"}
    raise AssertionError(name)


def payload(name, content):
    return {"name": name, "payload": content.hex(), "expected": "RejectMessageError"}


def payloads():
    """All have a wrong length: a right one has a few hundred kilobytes. The tests make those."""
    head = struct.pack("<I32s", 2, bytes(32))
    return [
        payload("empty", b""),
        payload("half a preamble", head[:20]),
        payload("a preamble alone", head),
        payload("a seed and nothing after it", head + bytes(32)),
        payload("no rows", bytes(36)),
        payload("a SEAL file of the first version", struct.pack("<IIHBBBBHQ", 2, 16, 0xA15E, 16, 4, 3, 2, 0, 16)),
        payload("foreign bytes", b"not a ciphertext at all" * 40),
    ]


def derived(plan):
    seed, n = bytes(range(64)), plan.ring_dimension
    column = np.empty((len(plan.data_primes), n // blake2x.WORDS, 1, 1, blake2x.WORDS), np.int64)
    blake2x.expand(seed, plan.data_primes, column, 0, 0)
    return {
        "uniform_half": [[int(v) for v in row[:4]] for row in messages.uniform_half(plan)],
        "column_seed": seed.hex(),
        "column": [[int(v) for v in residues.ravel()[:4]] for residues in column],
        "mask_bound": plan.mask_bound,
        "request_bytes": plan.max_request_bytes,
        "answer_bytes": plan.max_answer_bytes,
        "public_key_bytes": plan.evaluation_key_bytes,
    }


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
