"""Residue kernels on the shapes of an autoencoder 29-12-29 at N = 8192: time a row by stage, in both forms.

    python benchmarks/residues.py --out bench-output/residues.json

One thread, one core. The best of several repeats: the machine may be shared, and nothing here can be too fast by
accident. The program is the one of the QR identity: h = (E x)^2, v = R h, u = v + 2^k Q x, score = sum_k v_k u_k. Its
stages are chained as an evaluator chains them, block after block.
"""

from __future__ import annotations

import os

# Read once, when BLAS and OpenMP are loaded.
os.environ.update(dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1"))

import argparse
import json
import secrets
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from securead.protocols.residues.expansion import uniform_residues
from securead.protocols.residues.layers import LinearMap, ProductSum
from securead.protocols.residues.numba_form import NumbaForm
from securead.protocols.residues.torch_form import TorchForm
from securead.protocols.residues.transforms import rescale, transform_for
from securead.protocols.seal import packing, primes

DIMENSION, PRIMES, FEATURES, HIDDEN = 8192, 4, 29, 12
ROWS = DIMENSION // 2
WEIGHT_BITS = {"8-bit": 8, "38-bit": 38}


class Layers:
    """The program's layers for one prime; `decoder_bits` is the width of the weights that scale x up to v."""

    def __init__(self, prime: int, decoder_bits: int) -> None:
        rng = np.random.default_rng(0)

        def weights(outputs: int, inputs: int, bits: int) -> np.ndarray:
            return rng.integers(-(1 << (bits - 1)), 1 << (bits - 1), (outputs, inputs)).astype(object)

        encoder, scaled = weights(HIDDEN, FEATURES, 8), weights(HIDDEN, FEATURES, decoder_bits) << (41 - decoder_bits)
        self.input = LinearMap.compile(np.vstack([encoder, scaled]), prime, parts=[HIDDEN, HIDDEN])
        self.decoder = LinearMap.compile(np.triu(weights(HIDDEN, HIDDEN, 8)), prime)
        self.total = ProductSum.compile(np.ones(HIDDEN, dtype=int), (3, 3), prime)
        self.offsets = rng.integers(-(2**40), 2**40, HIDDEN).astype(object)


def stages(form: Any, layers: Layers) -> dict[str, Callable[[dict[str, Any]], Any]]:
    """Each stage by the name of its result, from earlier results; `x` is the input."""
    return {
        "both": lambda of: form.linear(layers.input, of["x"]),
        "t": lambda of: form.add([of["both"][:HIDDEN]], layers.offsets),
        "h": lambda of: form.square(of["t"]),
        "v": lambda of: form.add([form.linear(layers.decoder, of["h"])], layers.offsets),
        "u": lambda of: form.add([of["v"], of["both"][HIDDEN:]]),
        "score": lambda of: form.sum_of_products(layers.total, of["v"], of["u"]),
    }


NAMES = {
    "both": "29x2 -> 12 encoder, 12 scaled",
    "t": "offsets of 12x2",
    "h": "12 squares, size 2 -> 3",
    "v": "decoder 12x3 -> 12",
    "u": "12x3 + 12x2 scaled",
    "score": "12 products, size 3 x 3 -> 5, summed",
}


def best(call: Callable[[], Any], repeats: int) -> float:
    """The shortest of so many calls, in microseconds a row; the first call is not counted."""
    call()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return 1e6 * min(seconds) / ROWS


def evaluation(make: Callable[[int], Any], chain: tuple[int, ...], slots: int, bits: int, repeats: int) -> Any:
    """Microseconds a row of all stages, chained over all blocks of all primes, and of each stage in that best run."""
    rng = np.random.default_rng(1)
    work = []
    for prime in chain:
        form = make(prime)
        steps = stages(form, Layers(prime, bits))
        for block in rng.integers(0, prime, (DIMENSION // slots, FEATURES, 2, slots)):
            work.append((steps, block if isinstance(form, NumbaForm) else torch.from_numpy(block)))
    runs = []
    for _ in range(repeats + 1):
        seconds = dict.fromkeys(NAMES, 0.0)
        for steps, x in work:
            values = {"x": x}
            for name, step in steps.items():
                start = time.perf_counter()
                values[name] = step(values)
                seconds[name] += time.perf_counter() - start
        runs.append(seconds)
    fastest = min(runs[1:], key=lambda seconds: sum(seconds.values()))
    found = {NAMES[name]: round(1e6 * spent / ROWS, 3) for name, spent in fastest.items()}
    return {**found, "all stages": round(1e6 * sum(fastest.values()) / ROWS, 3)}


def around(chain: tuple[int, ...], repeats: int) -> Any:
    """What surrounds the evaluation: reading 29 seeded columns, and rescaling the answer once."""
    bits, count = chain[0].bit_length(), DIMENSION
    rng = np.random.default_rng(2)
    packed = [packing.pack(rng.integers(0, p, count).astype(np.uint64), bits) for p in chain]
    answer = np.stack([rng.integers(0, p, (5, DIMENSION)) for p in chain])
    seeds, room = [secrets.token_bytes(32) for _ in range(FEATURES)], np.empty(count, np.int64)

    def expand() -> None:
        for seed in seeds:
            for at, prime in enumerate(chain):
                uniform_residues(b"benchmark\0", "00" * 32, at, prime, count, seed=seed, out=room)

    def unpack() -> None:
        for _ in range(FEATURES):
            for content in packed:
                packing.unpack(content, count, bits)

    transform, polynomial = transform_for(chain[0], DIMENSION), answer[0, 0]
    return {
        "expand 29 seeds": round(best(expand, repeats), 3),
        "unpack 29 polynomials": round(best(unpack, repeats), 3),
        "rescale 5 polynomials": round(best(lambda: rescale(answer, chain), repeats), 3),
        "one transform forward, us": round(best(lambda: transform.forward(polynomial), 10 * repeats) * ROWS, 1),
        "one transform back, us": round(best(lambda: transform.inverse(polynomial), 10 * repeats) * ROWS, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Residue kernels: microseconds a row by stage, one thread.")
    parser.add_argument("--out", type=Path, help="write the figures here, as JSON")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--slots", type=int, nargs="+", default=[1024, DIMENSION], help="slots of a block")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    report: dict[str, Any] = {}
    for bits in (40, 45):
        chain = primes.choose(DIMENSION, (bits,) * PRIMES)
        assert chain is not None
        report[f"{bits}-bit primes, reading and rescaling"] = around(chain, arguments.repeats)
        for slots in arguments.slots:
            for kind, decoder_bits in WEIGHT_BITS.items():
                for make in (NumbaForm, TorchForm):
                    case = f"{bits}-bit primes, {slots} slots a block, {kind} weights, {make.__name__}"
                    report[case] = evaluation(make, chain, slots, decoder_bits, arguments.repeats)
    for case, figures in report.items():
        print(f"\n{case}, us a row")
        for name, value in figures.items():
            print(f"  {name:40} {value:8.3f}")
    if arguments.out:
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
