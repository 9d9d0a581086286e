"""Programs with random weights that suites, tests and benchmarks share; no detector is needed to make them."""

from __future__ import annotations

import itertools

import numpy as np

from securead.data.encoder import Encoder
from securead.data.schema import Array, Column, Schema
from securead.program.builder import ProgramBuilder, table_program
from securead.program.deep import TOLERANCE as DEEP_TOLERANCE
from securead.program.deep import deep_reconstruction_error
from securead.program.geometry import Bins, Trees
from securead.program.layered import layered_program
from securead.program.program import Program
from securead.program.reconstruction import TOLERANCE, Network, reconstruction_error


def encoder(features: int, *, limit: float = 8.0, fraction_bits: int = 14) -> Encoder:
    """Standardised columns x0, x1, ... with declared bounds well beyond the clipping limit."""
    columns = tuple(Column(f"x{i}", -60.0, 60.0, center=0.0, spread=1.0) for i in range(features))
    return Encoder(Schema(columns), limit=limit, fraction_bits=fraction_bits)


def mahalanobis(features: int = 29, *, tolerance: float = 1e-3, seed: int = 0) -> Program:
    """|A z + b|^2 with an upper triangular A whose largest weight is about 2**14."""
    rng = np.random.default_rng(seed)
    build = ProgramBuilder(encoder(features))
    A = np.triu(rng.normal(size=(features, features)) * 0.3 + 2 * np.eye(features))
    A[0, 0] = 15.0
    h = build.affine([(A, build.input)], rng.normal(size=features) * 0.1, fraction_bits=24)
    build.affine([(np.ones((1, features)), build.product(h, h))], fraction_bits=48)
    return build.finish(tolerance=tolerance, honest_extraction_rows=(features + 1) * (features + 2) // 2)


def autoencoder(features: int = 29, hidden: int = 12, *, tolerance: float | None = None, seed: int = 0) -> Program:
    """|z - D (E z + b)^2 - c|^2 with random weights, compiled as a trained detector is; scores are about .7 `features`.

    c lies in the span of D, and so counts as many unknowns as there are hidden units.
    """
    rng = np.random.default_rng(seed)
    E, D = rng.normal(size=(hidden, features)) / features, rng.normal(size=(features, hidden)) * 0.3 / np.sqrt(hidden)
    b, v = rng.normal(size=hidden) * 0.1, rng.normal(size=hidden) * 0.1
    network = Network(E, b, D, np.linalg.qr(D).Q @ v)
    typical = 0.7 * features
    build = reconstruction_error(encoder(features, limit=4.0), network, typical=typical)
    parameters = hidden * (features + 1) + hidden * (hidden + 1) // 2 + hidden + hidden * features
    tolerance = TOLERANCE * typical if tolerance is None else tolerance
    return build.finish(tolerance=tolerance, honest_extraction_rows=parameters, squared_norm=1.0)


def deep_autoencoder(
    widths: tuple[int, ...] = (29, 16, 8, 16, 29), *, tolerance: float | None = None, seed: int = 0
) -> Program:
    """The reconstruction error of a network of squares with random weights, compiled as a trained detector is."""
    layers, typical = network_layers(widths, 0.25, seed=seed), 0.7 * widths[0]
    build = deep_reconstruction_error(encoder(widths[0], limit=4.0), layers, typical=typical)
    parameters = sum((a + 1) * b for a, b in itertools.pairwise(widths)) + widths[0]
    tolerance = DEEP_TOLERANCE * typical if tolerance is None else tolerance
    return build.finish(tolerance=tolerance, honest_extraction_rows=parameters, squared_norm=1.0)


def small_deep(*, tolerance: float = 2.0**-9, seed: int = 0) -> Program:
    """Degree 8 in two features, with offsets and a public term, and a tolerance that a ring of 16384 has room for: what
    every engine of deeper polynomials carries.
    """
    rng = np.random.default_rng(seed)
    build = ProgramBuilder(encoder(2, limit=1.0, fraction_bits=3))
    value = build.input
    # No row is another's negative: equal squares could cancel.
    rows = np.array([[0.5, 0.25], [0.25, 0.5], [0.5, -0.25], [0.25, -0.5]])
    for _ in range(2):
        weights = rows[rng.choice(4, 2, replace=False)]
        grid = build.fraction_bits(value) + 2
        unit = build.affine([(weights, value)], np.full(2, 0.0625), fraction_bits=grid)
        value = build.product(unit, unit)
    grid = build.fraction_bits(value) + 2
    left = build.affine([(rows[rng.choice(4, 1)], value)], fraction_bits=grid)
    right = build.affine([(np.eye(1), left), (np.array([[0.5, -0.25]]), build.input)], fraction_bits=grid)
    products = build.product(left, right)
    build.affine([(np.ones((1, 1)), products)], np.array([0.25]), fraction_bits=build.fraction_bits(products))
    return build.finish(tolerance=tolerance, honest_extraction_rows=15, squared_norm=0.5)


def small_quadratic(*, tolerance: float = 1e-2, seed: int = 0) -> Program:
    """Degree 2 in four features, with offsets, zero weights and a public term: what every polynomial engine carries."""
    rng = np.random.default_rng(seed)
    build = ProgramBuilder(encoder(4, limit=4.0, fraction_bits=8))
    A = rng.normal(size=(3, 4))
    A[0, 2] = A[1, 0] = 0.0
    h = build.affine([(A, build.input)], rng.normal(size=3), fraction_bits=16)
    square = build.product(h, h)
    build.affine([(rng.normal(size=(1, 3)), square)], np.array([0.5]), fraction_bits=38)
    return build.finish(tolerance=tolerance, honest_extraction_rows=15, squared_norm=0.5)


def small_linear(*, tolerance: float = 1e-2, seed: int = 0) -> Program:
    """Degree 1 in four features, in two layers, with offsets and a zero weight."""
    rng = np.random.default_rng(seed)
    build = ProgramBuilder(encoder(4, limit=4.0, fraction_bits=8))
    A = rng.normal(size=(3, 4))
    A[1, 2] = 0.0
    hidden = build.affine([(A, build.input)], rng.normal(size=3), fraction_bits=16)
    build.affine([(rng.normal(size=(1, 3)), hidden), (rng.normal(size=(1, 4)), build.input)], fraction_bits=24)
    return build.finish(tolerance=tolerance, honest_extraction_rows=5)


def with_relu() -> Program:
    """A ReLU between two linear layers: only secret sharing carries it."""
    build = ProgramBuilder(encoder(4, limit=4.0, fraction_bits=8))
    hidden = build.relu(build.affine([(np.eye(4), build.input)], fraction_bits=12))
    build.affine([(np.ones((1, 4)), hidden)], fraction_bits=14)
    return build.finish(tolerance=1e-2, honest_extraction_rows=5)


def with_truncation(*, tolerance: float = 1.0, seed: int = 0) -> Program:
    """Two truncations, a ReLU, a square and a public term: only secret sharing carries it."""
    rng = np.random.default_rng(seed)
    build = ProgramBuilder(encoder(4, limit=4.0, fraction_bits=8))
    first = build.affine([(rng.normal(size=(5, 4)), build.input)], rng.normal(size=5), fraction_bits=20)
    hidden = build.relu(build.truncate(first, 8))
    error = build.affine([(rng.normal(size=(3, 5)), hidden), (rng.normal(size=(3, 4)), build.input)], fraction_bits=22)
    rounded = build.truncate(error, 10)
    build.affine([(np.ones((1, 3)), build.product(rounded, rounded))], fraction_bits=24)
    return build.finish(tolerance=tolerance, honest_extraction_rows=40, squared_norm=1.0)


def relu_network(widths: tuple[int, ...] = (29, 16, 8, 16, 29), *, seed: int = 0) -> Program:
    """The reconstruction error of a network of ReLUs, for secret sharing; weights as before training."""
    return layered_program(
        lambda bits: encoder(widths[0], limit=4.0, fraction_bits=bits),
        network_layers(widths, 1.0, seed=seed),
        "relu",
        tolerance=1e-2,
        honest_extraction_rows=sum((a + 1) * b for a, b in itertools.pairwise(widths)),
    )


def square_network(widths: tuple[int, ...] = (29, 16, 8, 16, 29), *, seed: int = 0) -> Program:
    """The same of squares, with weights a quarter as large, because ranges grow with every square."""
    return layered_program(
        lambda bits: encoder(widths[0], limit=4.0, fraction_bits=bits),
        network_layers(widths, 0.25, seed=seed),
        "square",
        tolerance=1e-2,
        honest_extraction_rows=sum((a + 1) * b for a, b in itertools.pairwise(widths)),
    )


def network_layers(widths: tuple[int, ...], scale: float, *, seed: int = 0) -> list[tuple[Array, Array]]:
    """Glorot-uniform weights times `scale`, and small offsets, of each layer."""
    rng = np.random.default_rng(seed)
    layers = []
    for a, b in itertools.pairwise(widths):
        bound = scale * np.sqrt(6.0 / (a + b))
        layers.append((rng.uniform(-bound, bound, (b, a)), rng.uniform(-0.1, 0.1, b)))
    return layers


def ring_mahalanobis(features: int = 29, *, seed: int = 0) -> Program:
    """`mahalanobis` with weights and inputs of fewer bits, so that its score fits shares."""
    rng = np.random.default_rng(seed)
    build = ProgramBuilder(encoder(features, fraction_bits=10))
    A = np.triu(rng.normal(size=(features, features)) * 0.3 + 2 * np.eye(features))
    h = build.affine([(A, build.input)], rng.normal(size=features) * 0.1, fraction_bits=20)
    build.affine([(np.ones((1, features)), build.product(h, h))], fraction_bits=40)
    return build.finish(tolerance=1e-3, honest_extraction_rows=(features + 1) * (features + 2) // 2)


def of_degree_eight() -> Program:
    """Three squares in a row."""
    build = ProgramBuilder(encoder(2, limit=2.0, fraction_bits=4))
    value = build.input
    for _ in range(3):
        value = build.product(value, value)
    build.affine([(np.ones((1, 2)), value)], fraction_bits=build.fraction_bits(value))
    return build.finish(tolerance=1.0, honest_extraction_rows=2)


def forest(
    trees: int = 50, depth: int = 6, *, features: int = 6, entry_bits: int = 8, seed: int = 0, empty: int = 0
) -> Program:
    """Complete trees with random splits and entries; the first `empty` trees hold nothing but zeros."""
    rng, grid = np.random.default_rng(seed), encoder(features)
    nodes = trees * ((1 << depth) - 1)
    geometry = Trees(
        depth,
        tuple(rng.integers(0, features, nodes).tolist()),
        (1,) * nodes,
        tuple(rng.integers(-grid.bound // 4, grid.bound // 4, nodes).tolist()),
    )
    tables = [rng.random(1 << depth) * (tree >= empty) for tree in range(trees)]
    # Every table's entries up to a constant that moves from one table to another.
    rows = trees * ((1 << depth) - 1) + 1
    return table_program(grid, geometry, tables, entry_bits=entry_bits, honest_extraction_rows=rows)


def histogram(features: int = 5, *, bins: int = 7, entry_bits: int = 10, seed: int = 0) -> Program:
    """A histogram of each column, of `bins` bins and fewer."""
    rng, grid = np.random.default_rng(seed), encoder(features)
    counts = [max(2, bins - at) for at in range(features)]
    edges = [np.sort(rng.choice(np.arange(-grid.bound, grid.bound), count - 1, replace=False)) for count in counts]
    geometry = Bins(tuple(range(features)), tuple(tuple(cut.tolist()) for cut in edges))
    tables = [rng.random(count) for count in counts]
    rows = sum(counts) - features + 1
    return table_program(grid, geometry, tables, entry_bits=entry_bits, honest_extraction_rows=rows)


def small_tables(*, seed: int = 0) -> Program:
    """Five trees of eight leaves in four features, one of them all zeros: what every engine of tables carries."""
    return forest(5, 3, features=4, entry_bits=6, seed=seed, empty=1)
