"""The squared error of a network with square units: exact but for rounding, which is as coarse as ranks allow."""

from __future__ import annotations

import numpy as np
import pytest

from securead.checks.programs import encoder
from securead.program.program import Program
from securead.program.reconstruction import TOLERANCE, Network, reconstruction_error

RNG = np.random.default_rng(4)
Z = RNG.normal(size=(3000, 8))


def network(linear: int = 0, spread: float = 1.0, features: int = 8, hidden: int = 5) -> Network:
    """Random layers; `spread` is between the largest and the smallest unit."""
    rng = np.random.default_rng(1)
    scale = np.geomspace(1.0, 1 / spread, hidden)[:, None]
    encode, decode = rng.normal(size=(hidden, features)) * scale * 0.3, rng.normal(size=(features, hidden)) * 0.2
    return Network(encode, rng.normal(size=hidden) * 0.1, decode, rng.normal(size=features) * 0.1, linear)


def exact(layers: Network) -> np.ndarray:
    h = Z @ layers.encode.T + layers.bias
    h[:, layers.linear :] **= 2
    errors: np.ndarray = ((Z - h @ layers.decode.T - layers.center) ** 2).sum(axis=1)
    return errors


def compiled(layers: Network, typical: float, weight_bits: int | None = None) -> Program:
    build = reconstruction_error(encoder(8, limit=8.0), layers, typical=typical, weight_bits=weight_bits)
    return build.finish(tolerance=TOLERANCE * typical, honest_extraction_rows=1, squared_norm=1.0)


def bits_of(program: Program) -> tuple[int, int]:
    steps = program.public.steps
    return steps[1].fraction_bits - steps[0].fraction_bits, steps[3].fraction_bits - steps[2].fraction_bits


def scored(program: Program) -> np.ndarray:
    return program.public.decode(program.evaluate(np.rint(Z * 2**14).astype(np.int64)))


@pytest.mark.parametrize("linear", [0, 2, 4])
@pytest.mark.parametrize("spread", [1.0, 100.0])
def test_rounding_moves_a_typical_score_by_little(linear: int, spread: float) -> None:
    layers = network(linear, spread)
    wanted = exact(layers)
    typical = float(np.median(wanted))
    errors = np.abs(scored(compiled(layers, typical)) - wanted)
    assert np.median(errors) < 2e-3 * typical
    finest = np.abs(scored(compiled(layers, typical, 24)) - wanted)
    assert finest.max() < 2e-3 * typical, "records are rounded to 14 bits, nothing else separates them"


def test_smaller_scores_take_more_bits() -> None:
    """Errors grow with the root of a score: a 256th of it takes four bits more for the same share."""
    many, few = bits_of(compiled(network(), 1 / 16)), bits_of(compiled(network(), 16.0))
    assert [a - b for a, b in zip(many, few, strict=True)] == [4, 4]
    assert bits_of(compiled(network(), 1.0, 9)) == (9, 9)


def test_square_units_reach_equally_far_and_linear_ones_stay() -> None:
    program = compiled(network(2, spread=100.0), 4.0)
    weights, limit = program.secret.weights[1], 8.0
    reach = np.abs(weights.matrices[0]).sum(axis=1) * limit / 2.0 ** bits_of(program)[0]
    reach += np.abs(weights.offset) / 2.0 ** program.public.steps[1].fraction_bits
    assert reach.shape == (3,)
    assert ((0.9 * limit < reach) & (reach < limit)).all()


@pytest.mark.parametrize("dead", ["a unit", "all units", "a column of the decoder"])
def test_dead_units_are_carried(dead: str) -> None:
    layers = network()
    units = slice(None) if dead == "all units" else slice(1)
    if dead == "a column of the decoder":
        layers.decode[:, 0] = 0.0
    else:
        layers.encode[units], layers.bias[units] = 0.0, 0.0
    wanted = exact(layers)
    errors = np.abs(scored(compiled(layers, float(np.median(wanted)))) - wanted)
    assert np.median(errors) < 2e-3 * np.median(wanted)
