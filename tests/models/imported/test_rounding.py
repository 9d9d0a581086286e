"""The proven bound covers what rounding does, for records at the edges of their bounds as well."""

from __future__ import annotations

import numpy as np
import pytest

from securead.data.encoder import Encoder
from securead.data.schema import Column, Schema
from securead.models.imported.rounding import rounding_bound
from securead.program.builder import ProgramBuilder
from securead.program.layered import layered_program


@pytest.mark.parametrize("weight_bits", [2, 6, 12])
def test_the_bound_holds_and_is_not_absurd(rng: np.random.Generator, weight_bits: int) -> None:
    encoder = Encoder(Schema(tuple(Column(f"c{i}", -4, 4, center=0.0, spread=1.0) for i in range(5))), 4.0, 8)
    W, b = rng.normal(size=(3, 5)), rng.normal(size=3)
    builder = ProgramBuilder(encoder)
    hidden = builder.affine([(W, builder.input)], b, fraction_bits=8 + weight_bits)
    squares = builder.product(hidden, hidden)
    builder.affine([(np.ones((1, 3)), squares)], fraction_bits=builder.fraction_bits(squares))
    program = builder.finish(tolerance=1.0, honest_extraction_rows=1, squared_norm=-1.0)
    X = np.vstack([rng.uniform(-4, 4, size=(500, 5)), rng.choice([-4.0, 4.0], size=(200, 5))])
    apart = np.abs(program.score(X) - ((X @ W.T + b) ** 2).sum(axis=1) + (X**2).sum(axis=1))
    bound = rounding_bound(program, encoder.encode(X)[0])
    assert (apart <= bound).all()
    assert np.median(bound) < 30 * np.median(apart)


def test_truncations_and_relus_are_covered(rng: np.random.Generator) -> None:
    schema = Schema(tuple(Column(f"c{i}", -4, 4, center=0.0, spread=1.0) for i in range(4)))
    layers = [(rng.normal(size=(3, 4)), rng.normal(size=3)), (rng.normal(size=(4, 3)), rng.normal(size=4))]
    program = layered_program(
        lambda bits: Encoder(schema, 4.0, bits), layers, "relu", ring_bits=40, tolerance=1.0, honest_extraction_rows=1
    )
    X = rng.uniform(-4, 4, size=(500, 4))
    (first, offset), (second, center) = layers
    exact = ((X - np.maximum(X @ first.T + offset, 0) @ second.T - center) ** 2).sum(axis=1)
    bound = rounding_bound(program, program.public.encoder.encode(X)[0])
    assert (np.abs(program.score(X) - exact) <= bound).all()
