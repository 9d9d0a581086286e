"""Where the time of the engine ckks goes, owner's and service's, beside what SEAL's own calls cost: the floor.

    python benchmarks/ckks_stages.py --out bench-output/ckks_stages.json

The 29-12-29 autoencoder with square units, role same, full chunks; processor time of this process in microseconds a
row, medians of interleaved repeats after one that warms up (set OMP_NUM_THREADS=1 for one core). Read the ratios,
because the machine may be shared. `client` has every step of encrypting a column, `read by file` being what `read`
takes where SEAL's memory cannot be read in place; `seal floor` are encoding and encrypting. `mask` has the steps of one
answer's masks; there the floor is SEAL's encryptions of zero. `flood` compares the two floods that a degree-2 program
(Mahalanobis 29) can have, at the ring dimensions that they need.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tenseal.sealapi as seal

from securead.checks import programs
from securead.program.program import Program
from securead.protocols.ckks import blind, messages, owner
from securead.protocols.ckks.plan import CkksPlan, make_plan
from securead.protocols.ckks.sanitise import Masks
from securead.protocols.seal import objects, publickeys


class Clock:
    """Processor seconds of named steps: sums within a repeat, medians over repeats, the first of which warms up."""

    def __init__(self) -> None:
        self.repeats: list[dict[str, float]] = []

    def begin(self) -> None:
        self.repeats.append({})

    def time(self, name: str, call: Callable[[], Any]) -> Any:
        start = time.process_time()
        result = call()
        spent = time.process_time() - start
        self.repeats[-1][name] = self.repeats[-1].get(name, 0.0) + spent
        return result

    def us_per_row(self, rows: int) -> dict[str, float]:
        counted = self.repeats[1:] or self.repeats
        return {name: 1e6 * float(np.median([r[name] for r in counted])) / rows for name in counted[0]}


class Halves:
    """Both halves of the engine for one plan of role same."""

    def __init__(self, program: Program, plan: CkksPlan) -> None:
        self.program, self.plan = program, plan
        self.secret, self.public = owner.generate_keys(plan)
        self.encryptor, self.decryptor = (
            owner.make_encryptor(plan, self.secret),
            owner.make_decryptor(plan, self.secret),
        )
        self.evaluator = blind.make_evaluator(plan, program)
        self.key = blind.read_evaluation_key(plan, self.public.to_bytes())

    def records(self) -> np.ndarray:
        encoder, rng = self.program.public.encoder, np.random.default_rng(0)
        Z = np.rint(rng.normal(size=(self.plan.rows_per_chunk, encoder.width)) * 2**encoder.fraction_bits)
        return np.clip(Z, -encoder.bound, encoder.bound).astype(np.int64)


def column(halves: Halves, values: np.ndarray, clock: Clock) -> None:
    """One column as the encryptor makes it, step by step."""
    plan, encryptor = halves.plan, halves.encryptor
    plaintext = seal.Plaintext()
    numbers = clock.time("list", values.tolist)
    clock.time("encode", lambda: encryptor._encoder.encode(numbers, plan.input_scale, plaintext))
    value = clock.time("encrypt", lambda: encryptor._encryptor.encrypt_symmetric(plaintext))
    words, seed = clock.time("read", lambda: objects.residues(value))
    by_file = clock.time("read by file", lambda: objects._saved_ciphertext(value))
    assert (by_file.words == words).all()
    clock.time("pack", lambda: messages.column(plan, words, seed))


def client(halves: Halves, repeats: int) -> dict[str, float]:
    clock, Z = Clock(), halves.records()
    real = Z / 2.0**halves.plan.input_fraction_bits
    for _ in range(repeats + 1):
        clock.begin()
        for at in range(halves.plan.width):
            column(halves, real[:, at], clock)
        clock.time("whole", lambda: halves.encryptor.encrypt(Z))
    found = clock.us_per_row(len(Z))
    return found | {"seal floor": found["encode"] + found["encrypt"]}


def mask(halves: Halves, repeats: int) -> dict[str, float]:
    clock, plan = Clock(), halves.plan
    masks = Masks(plan, owner._load_public(plan, halves.public))
    for _ in range(repeats + 1):
        clock.begin()
        for _ in range(plan.degree):
            zero = clock.time(
                "encryptions of zero", lambda: publickeys.encryption_of_zero(masks._encryptor, masks._level)
            )
            clock.time("the same, rounded by SEAL", lambda: publickeys.encryption_of_zero(masks._encryptor))
            clock.time("read", lambda: objects.residues(zero))  # noqa: B023 - called at once
        clock.time("read by file", lambda: [objects._saved_ciphertext(zero) for _ in range(plan.degree)])  # noqa: B023
        digits = clock.time("draw", masks.draw)
        clock.time("flood", lambda: masks.flood(digits))  # noqa: B023 - called at once
        clock.time("whole", masks.make)
    return clock.us_per_row(plan.rows_per_chunk)


def server(halves: Halves, repeats: int) -> dict[str, float]:
    """An evaluation by stage, its masks made before it."""
    request, rows, spent = halves.encryptor.encrypt(halves.records()), halves.plan.rows_per_chunk, []
    for _ in range(repeats + 1):
        halves.key.refill()
        before = halves.evaluator.stages
        halves.evaluator.evaluate(request, halves.key)
        spent.append({name: after - before[name] for name, after in halves.evaluator.stages.items()})
    found = {name: 1e6 * float(np.median([one[name] for one in spent[1:]])) / rows for name in spent[0]}
    return found | {"whole": sum(found.values())}


def floods(repeats: int) -> dict[str, Any]:
    """A degree-2 program with either flood, interleaved."""
    program = programs.mahalanobis()
    kinds = {
        kind: Halves(program, make_plan(program.public, "same", full_flood=kind == "full"))
        for kind in ("masks", "full")
    }
    clocks = {kind: Clock() for kind in kinds}
    for _ in range(repeats + 1):
        for kind, halves in kinds.items():
            clock, Z = clocks[kind], halves.records()
            clock.begin()
            request = clock.time("client", lambda: halves.encryptor.encrypt(Z))  # noqa: B023 - all called at once
            clock.time("mask", halves.key.refill)
            answer = clock.time("server", lambda: halves.evaluator.evaluate(request, halves.key))  # noqa: B023
            scores = clock.time("decrypt", lambda: halves.decryptor.decrypt(answer, len(Z)))  # noqa: B023
            exact = program.public.decode(program.evaluate(Z) - program.public.public_term(Z))
            assert np.abs(scores - exact).max() <= halves.plan.error_bound
    return {kind: clocks[kind].us_per_row(h.plan.rows_per_chunk) | sizes(h.plan) for kind, h in kinds.items()}


def sizes(plan: CkksPlan) -> dict[str, float]:
    rows = plan.rows_per_chunk
    return {
        "up": plan.max_request_bytes / rows,
        "down": plan.max_answer_bytes / rows,
        "ring_dimension": plan.ring_dimension,
        "modulus_bits": plan.modulus_bits,
        "flood_bits": plan.flood_bits,
    }


def measure(repeats: int = 9) -> dict[str, Any]:
    """Everything, microseconds a row."""
    program = programs.autoencoder()
    halves = Halves(program, make_plan(program.public, "same"))
    return {
        "client": client(halves, repeats),
        "server": server(halves, repeats),
        "mask": mask(halves, repeats),
        "flood": floods(repeats),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--out", type=Path, help="write the figures as JSON, too")
    options = parser.parse_args()
    report = measure(options.repeats)
    for part, figures in report.items():
        print(part)
        for name, value in figures.items():
            print(
                f"  {name:28} "
                + (
                    json.dumps({k: round(v, 2) for k, v in value.items()})
                    if isinstance(value, dict)
                    else f"{value:.2f}"
                )
            )
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
