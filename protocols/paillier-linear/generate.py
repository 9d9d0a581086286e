"""Writes vectors.json with the library: `python protocols/paillier-linear/generate.py`. Only after a deliberate change.

The exchange draws fresh randomness: its key and everything under it are new each time, and serve as vectors alone.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np

from securead import codec
from securead.checks import programs
from securead.errors import FixProgramError
from securead.protocols.paillier.linear import blind, owner
from securead.protocols.paillier.linear.plan import make_plan


def program_case(name, program):
    public, rng = program.public, np.random.default_rng(7)
    bound, width = public.encoder.bound, public.encoder.width
    Z = np.vstack([np.zeros((1, width)), np.full((1, width), bound), rng.integers(-bound, bound + 1, (2, width))])
    Z = Z.astype(np.int64)
    plans = [make_plan(public, role) for role in ("same", "split")]
    weights, constant = blind._weights(program)
    case = {
        "name": name,
        "public": codec.to_plain(public),
        "digest": public.digest,
        "commitment_key": program.secret.commitment_key.hex(),
        "inputs": Z.tolist(),
        "queries": public.queries(Z).tolist(),
        "scores": [int(v) for v in program.evaluate(Z)],
        "public_terms": [int(v) for v in public.public_term(Z)],
        "plans": [codec.to_plain(plan) for plan in plans],
        "plan_digests": [plan.digest for plan in plans],
        "linear": {"weights": weights, "constant": constant},
        "derived": {"request_bytes": plans[0].request_bytes, "answer_bytes": plans[0].max_answer_bytes},
    }
    if hasattr(program.secret, "tables"):
        return case | {"tables": [table.tolist() for table in program.secret.tables]}
    return case | {
        "weights": {
            str(at): {"matrices": [m.tolist() for m in own.matrices], "offset": own.offset.tolist()}
            for at, own in program.secret.weights.items()
        }
    }


def exchange(program, Z):
    """One request and its answer, with all secrets."""
    plan = make_plan(program.public, "same")
    secret, public = owner.generate_keys(plan)
    request = owner.make_encryptor(plan, secret).encrypt(program.public.queries(Z))
    key = blind.read_evaluation_key(plan, public.to_bytes())
    answer = blind.make_evaluator(plan, program).evaluate(request, key)
    return {
        "secret_key": secret.to_bytes().hex(),
        "public_key": public.to_bytes().hex(),
        "request": request.hex(),
        "answer": answer.hex(),
        "rows": len(Z),
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

    whole = plan.request_bytes
    return [
        case("empty", 0, 0),
        case("a preamble and no ciphertext", 1, 36),
        case("no rows", 0, whole),
        case("more rows than a chunk holds", plan.rows_per_chunk + 1, whole),
        case("ends within a ciphertext", 1, whole - 1),
        case("a byte too many", 1, whole + 1),
        case("under another key", 1, whole),
    ]


def main():
    linear = programs.small_linear()
    cases = [
        program_case("two affine layers", linear),
        program_case("a histogram of three columns", programs.histogram(3)),
    ]
    vectors = {
        "source": "securead's own programs; no outside vectors exist for this protocol",
        "generator": "protocols/paillier-linear/generate.py",
        "programs": cases,
        "exchange": exchange(linear, np.array(cases[0]["inputs"], dtype=np.int64)),
        "refusals": [
            refusal("of degree 2", programs.small_quadratic().public),
            refusal("a ReLU", programs.with_relu().public),
            refusal("more entries than features", programs.forest(70, 6).public),
        ],
        "payloads": payloads(make_plan(linear.public, "same")),
    }
    Path(__file__).with_name("vectors.json").write_text(json.dumps(vectors, indent=1) + "\n")


if __name__ == "__main__":
    main()
