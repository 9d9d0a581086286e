"""Writes vectors.json with the library: `python protocols/bfv/generate.py`. Only after a deliberate change."""

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
from securead.program.builder import table_program
from securead.program.geometry import Trees
from securead.protocols.bfv import crs
from securead.protocols.bfv.plan import make_plan


def by_hand():
    """Two trees of two leaves in one column, cut at 0 and at 1: 3 + 5 below both, 0 + 5 between, 0 + 15 above."""
    column = (Column("x0", -8.0, 8.0, center=0.0, spread=1.0),)
    encoder = dataclasses.replace(programs.encoder(1, limit=4.0, fraction_bits=1), schema=Schema(column))
    geometry = Trees(1, (0, 0), (1, 1), (0, 2))
    tables = [np.array([3.0, 0.0]), np.array([5.0, 15.0])]
    return table_program(encoder, geometry, tables, entry_bits=4, honest_extraction_rows=3)


def plan_case(plan):
    counted = sorted({1, 2, 3, 33, plan.rows_per_chunk} & set(range(1, plan.rows_per_chunk + 1)))
    return {
        "uniform_half": [[int(v) for v in row[:4]] for row in crs.uniform_half(plan)],
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
    plans = [make_plan(public, role) for role in ("same", "split")]
    return {
        "name": name,
        "public": codec.to_plain(public),
        "digest": public.digest,
        "tables": [table.tolist() for table in program.secret.tables],
        "commitment_key": program.secret.commitment_key.hex(),
        "inputs": Z.tolist(),
        "queries": public.queries(Z).tolist(),
        "scores": [int(v) for v in program.evaluate(Z)],
        "public_terms": [int(v) for v in public.public_term(Z)],
        "plans": [codec.to_plain(plan) for plan in plans],
        "plan_digests": [plan.digest for plan in plans],
        "derived": [plan_case(plan) for plan in plans],
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
        "generator": "protocols/bfv/generate.py",
        "programs": [
            program_case("by hand", hand),
            program_case("five trees of eight leaves, one of zeros", programs.small_tables()),
            program_case("a histogram of five columns", programs.histogram()),
        ],
        "refusals": [
            refusal("a polynomial", programs.small_quadratic().public),
            refusal("a ReLU", programs.with_relu().public),
        ],
        "payloads": payloads(make_plan(hand.public, "same")),
    }
    Path(__file__).with_name("vectors.json").write_text(json.dumps(vectors, indent=1) + "\n")


if __name__ == "__main__":
    main()
