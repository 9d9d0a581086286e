"""Writes vectors.json with the library: `python protocols/ckks-deep/generate.py`. Only after a deliberate change."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np

from securead import codec
from securead.checks import programs
from securead.errors import FixProgramError
from securead.program.builder import ProgramBuilder
from securead.protocols.ckks.deep import messages
from securead.protocols.ckks.deep.plan import make_plan
from securead.protocols.ckks.deep.scales import scales_of


def by_hand():
    """score = (((x0 + x1)^2)^2)^2 - 1 of two small numbers, small enough to check in the head."""
    build = ProgramBuilder(programs.encoder(2, limit=1.0, fraction_bits=1))
    value = build.affine([(np.array([[1.0, 1.0]]), build.input)], fraction_bits=1)
    for _ in range(3):
        value = build.product(value, value)
    build.affine([(np.ones((1, 1)), value)], np.array([-1.0]), fraction_bits=build.fraction_bits(value))
    return build.finish(tolerance=64.0, honest_extraction_rows=2)


def program_case(name, program):
    public, rng = program.public, np.random.default_rng(7)
    bound, width = public.encoder.bound, public.encoder.width
    Z = np.vstack([np.zeros((1, width)), np.full((1, width), bound), rng.integers(-bound, bound + 1, (3, width))])
    Z = Z.astype(np.int64)
    plans = [make_plan(public, role) for role in ("same", "split")]
    return {
        "name": name,
        "public": codec.to_plain(public),
        "digest": public.digest,
        "weights": {
            str(at): {
                "matrices": [[[int(v) for v in row] for row in m] for m in w.matrices],
                "offset": [int(v) for v in w.offset],
            }
            for at, w in program.secret.weights.items()
        },
        "commitment_key": program.secret.commitment_key.hex(),
        "inputs": Z.tolist(),
        "scores": [int(v) for v in program.evaluate(Z)],
        "public_terms": [int(v) for v in public.public_term(Z)],
        "plans": [codec.to_plain(plan) for plan in plans],
        "derived": [derived(plan, public) for plan in plans],
        "plan_digests": [plan.digest for plan in plans],
    }


def derived(plan, public):
    halves = messages.uniform_halves(plan)
    return {
        "uniform_halves": [[int(v) for v in halves[at, row, :4]] for at, row in ((0, 0), (0, -1), (1, 0), (-1, -1))],
        "scales": [[scale.numerator, scale.denominator] for scale in scales_of(plan, public)],
        "mask_bound": plan.mask_bound,
        "request_bytes": plan.max_request_bytes,
        "answer_bytes": plan.max_answer_bytes,
        "public_key_bytes": plan.evaluation_key_bytes,
    }


def refusal(name, public):
    try:
        make_plan(public, "same")
    except FixProgramError:
        return {"name": name, "public": codec.to_plain(public), "expected": "FixProgramError"}
    raise AssertionError(name)


def payload(name, content):
    return {"name": name, "payload": content.hex(), "expected": "RejectMessageError"}


def payloads():
    """All have a wrong length: a right one has megabytes. The tests make those."""
    head = struct.pack("<I32s", 2, bytes(32))
    return [
        payload("empty", b""),
        payload("half a preamble", head[:20]),
        payload("a preamble alone", head),
        payload("a seed and nothing after it", head + bytes(64)),
        payload("no rows", bytes(36)),
        payload("foreign bytes", b"not a ciphertext at all" * 40),
    ]


def main():
    vectors = {
        "source": "securead's own programs; no outside vectors exist for this protocol",
        "generator": "protocols/ckks-deep/generate.py",
        "programs": [program_case("by hand", by_hand()), program_case("small and deep", programs.small_deep())],
        "refusals": [
            refusal("a ReLU", programs.with_relu().public),
            refusal("degree 2", programs.small_quadratic().public),
            refusal("a tolerance no parameters reach", programs.small_deep(tolerance=1e-30).public),
        ],
        "payloads": payloads(),
    }
    Path(__file__).with_name("vectors.json").write_text(json.dumps(vectors, indent=1) + "\n")


if __name__ == "__main__":
    main()
