"""Writes vectors.json with the library: `python protocols/ckks-row/generate.py`. Only after a deliberate change."""

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
from securead.protocols.ckks.row import messages
from securead.protocols.ckks.row.coefficients import expand
from securead.protocols.ckks.row.plan import make_plan

ROLES = ("same", "split")


def by_hand():
    """score = 3 (2 x0 - x1 + 1)^2 - 2, small enough to check in the head: five monomials."""
    columns = tuple(Column(f"x{i}", -8.0, 8.0, center=0.0, spread=1.0) for i in range(2))
    encoder = dataclasses.replace(programs.encoder(2, limit=4.0, fraction_bits=1), schema=Schema(columns))
    build = ProgramBuilder(encoder)
    h = build.affine([(np.array([[2.0, -1.0]]), build.input)], np.array([1.0]), fraction_bits=1)
    build.affine([(np.array([[3.0]]), build.product(h, h))], np.array([-2.0]), fraction_bits=2)
    return build.finish(tolerance=0.25, honest_extraction_rows=6)


def plan_case(program, plan):
    counted = sorted({1, 2, 3, plan.rows_per_chunk} & set(range(1, plan.rows_per_chunk + 1)))
    constant, line = expand(program.public, program.secret, plan.role, plan.degree, plan.data_primes[0])
    return {
        "error_bound": plan.error_bound,
        "uniform_half": [[int(v) for v in row[:4]] for row in messages.uniform_half(plan)],
        "coefficients_modulo_the_first_prime": [constant, *map(int, line)],
        "chunks": [
            {
                "rows": rows,
                "groups": [[g.layout.slots, g.layout.pieces, g.first, g.rows] for g in plan.groups(rows)],
                "request_bytes": plan.request_bytes(rows),
                "answer_bytes": plan.answer_bytes(rows),
            }
            for rows in counted
        ],
    }


def program_case(name, program):
    public, rng = program.public, np.random.default_rng(7)
    bound, width = public.encoder.bound, public.encoder.width
    Z = np.vstack([np.zeros((1, width)), np.full((1, width), bound), rng.integers(-bound, bound + 1, (3, width))])
    Z = Z.astype(np.int64)
    plans = [make_plan(public, role) for role in ROLES]
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
        "plans": [codec.to_plain(plan) for plan in plans],
        "plan_digests": [plan.digest for plan in plans],
        "derived": [plan_case(program, plan) for plan in plans],
    }


def refusal(name, public):
    try:
        make_plan(public, "same")
    except FixProgramError:
        return {"name": name, "public": codec.to_plain(public), "expected": "FixProgramError"}
    raise AssertionError(name)


def payloads(plan):
    def case(name, rows, length):
        content = struct.pack("<I32s", rows, bytes(32)).ljust(length, b"\0")[:length]
        return {"name": name, "payload": content.hex(), "expected": "RejectMessageError"}

    return [
        case("empty", 0, 0),
        case("a preamble and no ciphertext", 1, 36),
        case("no rows", 0, 36),
        case("more rows than a chunk holds", plan.rows_per_chunk + 1, 36),
        case("absurdly many rows", 0xFFFFFFFF, 36),
        case("ends within the preamble", 1, 35),
        case("ends within a ciphertext", 1, 300),
    ]


def main():
    hand = by_hand()
    vectors = {
        "source": "securead's own programs; no outside vectors exist for this protocol",
        "generator": "protocols/ckks-row/generate.py",
        "programs": [
            program_case("by hand", hand),
            program_case("degree two in four features, with a public term", programs.small_quadratic()),
            program_case("a network of two squares in four features, degree four", programs.autoencoder(4, 2)),
        ],
        "refusals": [
            refusal("tables", programs.small_tables().public),
            refusal("a ReLU", programs.with_relu().public),
            refusal("degree eight", programs.of_degree_eight().public),
            refusal("48 features at degree four: 270,724 monomials", programs.autoencoder(48, 2).public),
        ],
        "payloads": payloads(make_plan(hand.public, "same")),
    }
    Path(__file__).with_name("vectors.json").write_text(json.dumps(vectors, indent=1) + "\n")


if __name__ == "__main__":
    main()
