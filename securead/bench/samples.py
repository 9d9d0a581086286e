"""Programs with random weights that calibration runs: small ones of every kind, so that every kind of work occurs."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from securead.data.encoder import Encoder
from securead.data.schema import Column, Schema
from securead.program.builder import ProgramBuilder, table_program
from securead.program.geometry import Trees
from securead.program.layered import layered_program
from securead.program.program import Program
from securead.program.reconstruction import TOLERANCE, Network, reconstruction_error

_LIMIT = 4.0


@dataclass(frozen=True, eq=False)
class Sample:
    """A program by name, made when it is asked for."""

    name: str
    make: Callable[[], Program]


def samples() -> Iterator[Sample]:
    """All of them; whatever an engine carries, the first few differ most."""
    yield Sample("linear-16", lambda: linear(16))
    yield Sample("forest-4-3", lambda: forest(4, 3))
    yield Sample("reconstruction-16-8", lambda: reconstruction(16, 8))
    yield Sample("forest-20-5", lambda: forest(20, 5))
    yield Sample("quadratic-10", lambda: quadratic(10, 10))
    yield Sample("squares-8", lambda: squares((8, 6, 4, 8)))
    yield Sample("squares-4", lambda: squares((4, 3, 3, 4)))
    yield Sample("reconstruction-8-3", lambda: reconstruction(8, 3))
    yield Sample("forest-60-4", lambda: forest(60, 4))
    yield Sample("squares-12", lambda: squares((12, 12, 8, 12)))
    yield Sample("forest-60-6", lambda: forest(60, 6))
    yield Sample("quadratic-29", lambda: quadratic(29, 29))
    yield Sample("linear-40", lambda: linear(40))
    yield Sample("forest-10-8", lambda: forest(10, 8))
    yield Sample("reconstruction-29-12", lambda: reconstruction(29, 12))
    yield Sample("relu-29-16-8", lambda: relu((29, 16, 8, 16, 29)))


def encoder(features: int, *, fraction_bits: int = 12) -> Encoder:
    """Standardised columns with declared bounds beyond the clipping limit."""
    columns = tuple(Column(f"x{at}", -60.0, 60.0, center=0.0, spread=1.0) for at in range(features))
    return Encoder(Schema(columns), limit=_LIMIT, fraction_bits=fraction_bits)


def linear(features: int) -> Program:
    """`w z + b`."""
    build, rng = ProgramBuilder(encoder(features)), np.random.default_rng(features)
    build.affine([(rng.normal(size=(1, features)), build.input)], np.array([0.5]), fraction_bits=20)
    return build.finish(tolerance=1e-2, honest_extraction_rows=features + 1)


def quadratic(features: int, units: int) -> Program:
    """|A z + b|^2."""
    build, rng = ProgramBuilder(encoder(features)), np.random.default_rng(features)
    A = rng.normal(size=(units, features)) / np.sqrt(features)
    hidden = build.affine([(A, build.input)], rng.normal(size=units) * 0.1, fraction_bits=22)
    build.affine([(np.ones((1, units)), build.product(hidden, hidden))], fraction_bits=44)
    return build.finish(tolerance=1e-2, honest_extraction_rows=(features + 1) * (features + 2) // 2)


def reconstruction(features: int, hidden: int) -> Program:
    """The reconstruction error of an autoencoder with square units, of degree 4, compiled as a trained one is."""
    rng = np.random.default_rng(features)
    E, D = rng.normal(size=(hidden, features)) / features, rng.normal(size=(features, hidden)) * 0.3 / np.sqrt(hidden)
    network = Network(E, rng.normal(size=hidden) * 0.1, D, np.linalg.qr(D).Q @ (rng.normal(size=hidden) * 0.1))
    typical = 0.7 * features
    build = reconstruction_error(encoder(features, fraction_bits=14), network, typical=typical)
    return build.finish(tolerance=TOLERANCE * typical, honest_extraction_rows=features * hidden, squared_norm=1.0)


def squares(widths: tuple[int, ...]) -> Program:
    """The reconstruction error of hidden layers of squares, the last one linear: of degree 2**len(widths) / 2."""
    build, rng = ProgramBuilder(encoder(widths[0], fraction_bits=8)), np.random.default_rng(widths[0])
    values, bits = build.input, 8
    for above, width in itertools.pairwise(widths[:-1]):
        weights = rng.uniform(-1, 1, (width, above)) / (_LIMIT * above)
        bits += 8
        hidden = build.affine([(weights, values)], rng.uniform(-0.1, 0.1, width), fraction_bits=bits)
        values, bits = build.product(hidden, hidden), 2 * bits
    weights = rng.uniform(-1, 1, (widths[-1], widths[-2]))
    bits += 8
    error = build.affine([(weights, values), (np.eye(widths[-1]), build.input)], fraction_bits=bits)
    build.affine([(np.ones((1, widths[-1])), build.product(error, error))], fraction_bits=2 * bits)
    return build.finish(tolerance=1.0, honest_extraction_rows=widths[0] * widths[1])


def relu(widths: tuple[int, ...]) -> Program:
    """The reconstruction error of a network of ReLUs, for shares."""
    rng, layers = np.random.default_rng(widths[0]), []
    for above, width in itertools.pairwise(widths):
        layers.append((rng.uniform(-0.3, 0.3, (width, above)), rng.uniform(-0.1, 0.1, width)))
    return layered_program(
        lambda bits: encoder(widths[0], fraction_bits=bits),
        layers,
        "relu",
        tolerance=1e-2,
        honest_extraction_rows=widths[0] * widths[1],
    )


def forest(trees: int, depth: int) -> Program:
    """Complete trees with random splits and entries."""
    rng, grid, nodes = np.random.default_rng(trees), encoder(8), trees * ((1 << depth) - 1)
    columns, thresholds = rng.integers(0, 8, nodes), rng.integers(-grid.bound // 4, grid.bound // 4, nodes)
    geometry = Trees(depth, tuple(columns.tolist()), (1,) * nodes, tuple(thresholds.tolist()))
    tables = [rng.random(1 << depth) for _ in range(trees)]
    return table_program(grid, geometry, tables, entry_bits=8, honest_extraction_rows=nodes + 1)
