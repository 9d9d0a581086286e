"""Writes vectors.json with the library: `python protocols/paillier/generate.py`. Only after a deliberate change.

The exchange draws fresh randomness: its key and everything under it are new each time, and serve as vectors alone.
"""

from __future__ import annotations

import dataclasses
import hashlib
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
from securead.protocols.paillier import blind, owner
from securead.protocols.paillier.moduli import challenges
from securead.protocols.paillier.plan import make_plan
from securead.protocols.paillier.published import read


def by_hand():
    """Two trees of two leaves in one column, cut at 0 and at 1: 3 + 5 below both, 0 + 5 between, 0 + 15 above."""
    column = (Column("x0", -8.0, 8.0, center=0.0, spread=1.0),)
    encoder = dataclasses.replace(programs.encoder(1, limit=4.0, fraction_bits=1), schema=Schema(column))
    geometry = Trees(1, (0, 0), (1, 1), (0, 2))
    tables = [np.array([3.0, 0.0]), np.array([5.0, 15.0])]
    return table_program(encoder, geometry, tables, entry_bits=4, honest_extraction_rows=3)


def program_case(name, program):
    public, rng = program.public, np.random.default_rng(7)
    bound, width = public.encoder.bound, public.encoder.width
    Z = np.vstack([np.zeros((1, width)), np.full((1, width), bound), rng.integers(-bound, bound + 1, (3, width))])
    Z = Z.astype(np.int64)
    plan = make_plan(public, "same")
    counted = sorted({1, 2, 33, plan.rows_per_chunk})
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
        "plans": [codec.to_plain(plan)],
        "plan_digests": [plan.digest],
        "derived": {
            "setup_bytes": plan.setup_bytes,
            "request_bytes": plan.request_bytes,
            "answer_bytes": {str(rows): plan.answer_bytes(rows) for rows in counted},
            "crafted_rows": plan.crafted_rows,
        },
    }


def exchange(program, Z):
    """A publication and one request, with all secrets."""
    plan = make_plan(program.public, "same")
    setup = blind.make_setup(plan, program)
    secret, _ = owner.generate_keys(plan)
    request = owner.make_encryptor(plan, secret, setup.published).encrypt(program.public.queries(Z))
    answer = blind.make_evaluator(plan, program, setup.secret).evaluate(request)
    return {
        "published": setup.published.hex(),
        "published_digest": hashlib.sha256(setup.published).hexdigest(),
        "first_challenge": hex(challenges(plan.digest, int(read(plan, setup.published).n))[0]),
        "service_secret": setup.secret.hex(),
        "secret_key": secret.to_bytes().hex(),
        "key_id": secret.key_id,
        "request": request.hex(),
        "answer": answer.hex(),
        "rows": len(Z),
        "scores": [int(v) for v in program.evaluate(Z)],
    }


def refusal(name, public):
    try:
        make_plan(public, "same")
    except FixProgramError:
        return {"name": name, "public": codec.to_plain(public), "expected": "FixProgramError"}
    raise AssertionError(name)


def payloads(plan):
    def case(name, rows, length, expected="RejectMessageError"):
        content = struct.pack("<I32s", rows, bytes(32)).ljust(length, b"\0")[:length]
        return {"name": name, "payload": content.hex(), "expected": expected}

    whole = plan.request_bytes
    return [
        case("empty", 0, 0),
        case("a preamble and no ciphertext", 1, 36),
        case("no rows", 0, whole),
        case("more rows than a chunk holds", plan.rows_per_chunk + 1, whole),
        case("absurdly many rows", 0xFFFFFFFF, whole),
        case("ends within the preamble", 1, 35),
        case("ends within the ciphertext", 1, whole - 1),
        case("a byte too many", 1, whole + 1),
        case("from another publication", 1, whole, "UseOtherKeyError"),
    ]


def main():
    hand = by_hand()
    cases = [
        program_case("by hand", hand),
        program_case("five trees of eight leaves, one of zeros", programs.small_tables()),
        program_case("a histogram of five columns", programs.histogram()),
    ]
    vectors = {
        "source": "securead's own programs; no outside vectors exist for this protocol",
        "generator": "protocols/paillier/generate.py",
        "programs": cases,
        "exchange": exchange(hand, np.array(cases[0]["inputs"], dtype=np.int64)),
        "refusals": [
            refusal("a polynomial", programs.small_quadratic().public),
            refusal("a ReLU", programs.with_relu().public),
        ],
        "payloads": payloads(make_plan(hand.public, "same")),
    }
    Path(__file__).with_name("vectors.json").write_text(json.dumps(vectors, indent=1) + "\n")


if __name__ == "__main__":
    main()
