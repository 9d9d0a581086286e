"""Writes vectors.json with the library: `python protocols/sharing/generate.py`. Only after a deliberate change."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import numpy as np

from securead import codec
from securead.checks import programs
from securead.program.builder import ProgramBuilder
from securead.protocols.sharing import dealing, owner, shares
from securead.protocols.sharing.correlations import BinaryTriple, BitProduct, MatrixTriple, SquarePair, Triple
from securead.protocols.sharing.plan import SALT_BYTES, make_plan

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "tests" / "protocols" / "sharing"))


def key(*name):
    """Keys of vectors are hashes of names; real ones are random."""
    return hashlib.sha256(b"securead sharing vectors " + repr(name).encode()).digest()


def products():
    """A product of two different steps, and an offset."""
    build = ProgramBuilder(programs.encoder(3, limit=4.0, fraction_bits=6))
    left = build.affine([(np.array([[1.0, -0.5, 0.0], [0.25, 0.0, 2.0]]), build.input)], fraction_bits=8)
    right = build.affine([(np.array([[0.0, 1.0, 1.0], [0.5, 0.5, 0.5]]), build.input)], fraction_bits=8)
    build.affine([(np.array([[1.0, -1.0]]), build.product(left, right))], np.array([0.75]), fraction_bits=18)
    return build.finish(tolerance=1e-3, honest_extraction_rows=10)


PROGRAMS = {
    "small quadratic": programs.small_quadratic,
    "products": products,
    "truncations and a ReLU": programs.with_truncation,
    "small tables": programs.small_tables,
}


def program_case(name, program):
    public, rng = program.public, np.random.default_rng(7)
    bound, width = public.encoder.bound, public.encoder.width
    Z = np.vstack([np.zeros((1, width)), np.full((1, width), bound), rng.integers(-bound, bound + 1, (1, width))])
    Z = Z.astype(np.int64)
    plan = make_plan(public, "same")
    case = {
        "name": name,
        "public": codec.to_plain(public),
        "digest": public.digest,
        "commitment_key": program.secret.commitment_key.hex(),
        "inputs": Z.tolist(),
        "queries": public.queries(Z).tolist(),
        "scores": [int(v) for v in program.evaluate(Z)],
        "public_terms": [int(v) for v in public.public_term(Z)],
        "plans": [codec.to_plain(plan)],
        "plan_digests": [plan.digest],
        "failure_probability": plan.failure_probability,
        "rounds": [plan.rounds(False), plan.rounds(True)],
        "chunks": [
            {
                "rows": rows,
                "verdict": verdict,
                "online_bytes": plan.online_bytes(rows, verdict),
                "offline_bytes": plan.offline_bytes(rows, verdict),
            }
            for rows in (1, 3, plan.rows_per_chunk)
            for verdict in (False, True)
        ],
    }
    if hasattr(program.secret, "tables"):
        case["tables"] = [table.tolist() for table in program.secret.tables]
    else:
        case["weights"] = {
            str(at): {"matrices": [m.tolist() for m in w.matrices], "offset": w.offset.tolist()}
            for at, w in program.secret.weights.items()
        }
    return case


def run_case(parties, name, program, Z, verdict):
    """One chunk from shares to answers; every key is given, so all that is sent is fixed."""
    from two_parties import recorded

    public = program.public
    plan = make_plan(public, "same")
    threshold = float(np.median(public.decode(program.evaluate(Z))))
    secrets = shares.split_model(program, threshold)
    words = secrets[0].words + secrets[1].words
    second = shares.stream(key(name, "model"), len(words))
    models = [shares.ModelShare(i, public, "0" * 32, w) for i, w in enumerate((words - second, second))]
    asked, seed = owner.words_of(plan, public, Z), key(name, "request")
    payload = (asked.ravel() - shares.stream(seed, asked.size)).astype("<i8").tobytes()
    seeds = key(name, "dealer 0"), key(name, "dealer 1")
    bucket = plan.bucket(len(Z))
    keys = [dealing.set_key(each, 5, bucket, verdict) for each in seeds]
    corrections = dealing.deal(plan.correlations(len(Z), verdict), *keys)
    chunks = (bytes(SALT_BYTES) + payload, len(Z), keys[0], corrections), (seed, len(Z), keys[1], None)
    both = parties.run(
        recorded,
        tuple((plan, models[rank], chunks[rank], verdict) for rank in (0, 1)),
        ring_key=key(name, "ring"),
    )
    join = owner.join_verdicts if verdict else owner.join_scores
    return {
        "name": f"{name}, {'verdicts' if verdict else 'scores'}",
        "program": name,
        "verdict": verdict,
        "rows": len(Z),
        "threshold": threshold,
        "threshold_integer": shares.threshold_integer(public, threshold),
        "model": [model.words.tolist() for model in models],
        "payload_0": np.frombuffer(payload, "<i8").tolist(),
        "payload_1": seed.hex(),
        "seeds": [each.hex() for each in seeds],
        "set": 5,
        "ring_key": key(name, "ring").hex(),
        "corrections_sha256": hashlib.sha256(corrections).hexdigest(),
        "sent_sha256": [sent for _, sent in both],
        "answers": [np.frombuffer(answer, "<i8").tolist() for answer, _ in both],
        "joined": [int(v) for v in join(plan, both[0][0], both[1][0], len(Z))],
    }


def deal_case(name, each):
    keys = key(name, 0), key(name, 1)
    kind = {"kind": each.tag, **{field: list(value) for field, value in vars(each).items()}}
    words = np.frombuffer(dealing.deal([each], *keys), "<i8")
    return {"name": name, "correlation": kind, "keys": [k.hex() for k in keys], "corrections": words.tolist()}


def truncation_cases():
    """Shares, and what each party makes of its own: sums that are exact, a unit more, and one that wraps around."""
    pairs = [(1000, 24, 5), (-1000, 24, 5), (2**62, 1 - 2**62, 4), (7, 0, 3), (-7, 0, 3), (2**63 - 1, 9, 10)]
    return [
        {"shares": [a, b], "shift": shift, "parts": [int(v / abs(v)) * (abs(v) >> shift) if v else 0 for v in (a, b)]}
        for a, b, shift in pairs
    ]


def main():
    from two_parties import two_parties

    made = {name: make() for name, make in PROGRAMS.items()}
    cases = [program_case(name, program) for name, program in made.items()]
    with two_parties() as parties:
        runs = [
            run_case(parties, case["name"], made[case["name"]], np.array(case["inputs"]), verdict)
            for case in cases
            for verdict in (False, True)
        ]
    vectors = {
        "source": "securead, protocols/sharing/SPEC.md",
        "generator": "python protocols/sharing/generate.py",
        "programs": cases,
        "refusals": [
            {"name": name, "public": codec.to_plain(make().public), "expected": "FixProgramError"}
            for name, make in (("a score of 70 bits", programs.mahalanobis), ("a score of 124", programs.autoencoder))
        ],
        "streams": [
            {"key": k.hex(), "words": shares.stream(k, 5).tolist()}
            for k in (bytes(32), bytes(range(32)), key("stream"))
        ],
        "set_keys": [
            {
                "seed": key("seed").hex(),
                "set": number,
                "rows": rows,
                "verdict": verdict,
                "key": dealing.set_key(key("seed"), number, rows, verdict).hex(),
            }
            for number, rows, verdict in ((0, 1, False), (1, 8192, True), (2**40, 4, False))
        ],
        "deals": [
            deal_case("matrix", MatrixTriple((2, 3), (3, 2))),
            deal_case("product", Triple((2, 2), (2, 2))),
            deal_case("square", SquarePair((3,))),
            deal_case("and", BinaryTriple((2,), (2,))),
            deal_case("and of two", BinaryTriple((2,), (2, 2))),
            deal_case("bit product", BitProduct((3, 3))),
        ],
        "truncations": truncation_cases(),
        "runs": runs,
        "bad_payloads": [
            {"name": "empty", "index": 0, "rows": 1, "bytes": 0},
            {"name": "a word short", "index": 0, "rows": 3, "bytes": -8},
            {"name": "a word more", "index": 0, "rows": 3, "bytes": 8},
            {"name": "no seed", "index": 1, "rows": 3, "bytes": -32},
            {"name": "no rows", "index": 1, "rows": 0, "bytes": 0},
        ],
    }
    (HERE / "vectors.json").write_text(json.dumps(vectors, separators=(",", ":")).replace('},{"name"', '},\n{"name"'))


if __name__ == "__main__":
    main()
