"""Sketches of polynomial programs: nothing changed is the same program, what is dropped is a constant."""

from __future__ import annotations

import numpy as np
import pytest

from securead.data.encoder import Encoder
from securead.data.schema import Column, Schema
from securead.errors import FixProgramError
from securead.program.layered import layered_program
from securead.program.polynomial import PublicPolynomial
from securead.program.program import Program
from securead.program.reconstruction import Network, reconstruction_error
from securead.program.sketch import Sketch, Unit

COLUMNS, HIDDEN, LINEAR = 5, 4, 2


def encoder(bits: int = 14) -> Encoder:
    schema = Schema(tuple(Column(f"c{i}", -4.0, 4.0, center=0.0, spread=1.0) for i in range(COLUMNS)))
    return Encoder(schema, limit=4.0, fraction_bits=bits)


def autoencoder(seed: int = 0, *, dead: bool = False) -> Program:
    """Four hidden units, two of them squares; with `dead`, one of these reaches nothing."""
    rng = np.random.default_rng(seed)
    encode, decode = rng.normal(size=(HIDDEN, COLUMNS)) / 3, rng.normal(size=(COLUMNS, HIDDEN)) / 3
    if dead:
        decode[:, 2] = 0.0
    network = Network(encode, rng.normal(size=HIDDEN) / 5, decode, rng.normal(size=COLUMNS) / 5, LINEAR)
    builder = reconstruction_error(encoder(), network, typical=3.0)
    return builder.finish(tolerance=0.03, honest_extraction_rows=49, squared_norm=1.0)


def layered(seed: int = 0) -> Program:
    rng = np.random.default_rng(seed)
    layers = [
        (rng.normal(size=(4, COLUMNS)) / 3, rng.normal(size=4) / 3),
        (rng.normal(size=(COLUMNS, 4)) / 3, np.zeros(COLUMNS)),
    ]
    return layered_program(encoder, layers, "relu", tolerance=0.03, honest_extraction_rows=49)


def encoded(rows: int = 100, seed: int = 1) -> np.ndarray:
    X = np.random.default_rng(seed).normal(size=(rows, COLUMNS)).clip(-4, 4)
    return encoder().encode(X)[0]


def oracle(program: Program, Z: np.ndarray) -> np.ndarray:
    return program.public.decode(program.evaluate(Z))


@pytest.mark.parametrize("seed", range(3))
def test_nothing_changed_is_the_same_program(seed: int) -> None:
    program, Z = autoencoder(seed), encoded()
    sketch = Sketch.of(program)
    np.testing.assert_array_equal(sketch.program().evaluate(Z), program.evaluate(Z))
    np.testing.assert_allclose(sketch.scores(Z), oracle(program, Z), rtol=1e-12, atol=1e-12)
    assert sketch.program().public.digest != program.public.digest  # a commitment of its own


def test_layers_with_relus_and_truncations_are_the_same_too() -> None:
    program = layered()
    Z = program.public.encoder.encode(np.random.default_rng(1).normal(size=(50, COLUMNS)))[0]
    sketch = Sketch.of(program)
    assert sketch.truncates
    np.testing.assert_array_equal(sketch.program().evaluate(Z), program.evaluate(Z))
    np.testing.assert_allclose(sketch.scores(Z), oracle(program, Z), rtol=1e-9)


@pytest.mark.parametrize("make", [autoencoder, layered])
def test_dropped_units_are_constants_and_every_row_that_served_only_them_goes(make: object) -> None:
    program = make()  # type: ignore[operator]
    Z = program.public.encoder.encode(np.random.default_rng(1).normal(size=(50, COLUMNS)))[0]
    sketch = Sketch.of(program)
    for unit in sketch.units():
        dropped = sketch.without({unit: 0.3})
        expected = sketch.scores(Z, {unit: 0.3})
        np.testing.assert_allclose(dropped.scores(Z), expected, rtol=1e-9, atol=1e-9)
        made = dropped.program()
        assert sum(step.width for step in made.public.steps) < sum(step.width for step in program.public.steps)
        assert made.public.honest_extraction_rows <= program.public.honest_extraction_rows
        off = np.abs(oracle(made, Z) - expected).max()
        assert off <= 1e-3 * np.abs(expected).max()


def test_without_its_squares_a_network_has_degree_two() -> None:
    sketch, Z = Sketch.of(autoencoder()), encoded()
    squares = {unit: 0.5 for unit in sketch.units() if unit[0] == sketch.units()[0][0]}
    assert len(squares) == HIDDEN - LINEAR
    smaller = sketch.without(squares)
    public = smaller.program().public
    assert isinstance(public, PublicPolynomial)
    assert public.degree == 2
    assert public.honest_extraction_rows <= 21  # the coefficients of a quadratic form in five variables
    np.testing.assert_allclose(smaller.scores(Z), sketch.scores(Z, squares), rtol=1e-9)


def test_fewer_bits_are_cheaper_and_worse() -> None:
    program, Z = autoencoder(), encoded()
    sketch = Sketch.of(program)
    widths, errors = [], []
    for fewer in (0, 3, 6):
        made = sketch.program(fewer_bits=fewer)
        widths.append(made.public.score_bits)
        errors.append(float(np.abs(oracle(made, Z) - oracle(program, Z)).max()))
    assert widths == sorted(widths, reverse=True)
    assert len(set(widths)) == 3
    assert errors == sorted(errors)
    assert Sketch.of(sketch.program(fewer_bits=100)).weight_bits == 1


def test_all_units_but_the_last_step_s_can_go() -> None:
    sketch, Z = Sketch.of(autoencoder()), encoded()
    everything: dict[Unit, float] = dict.fromkeys(sketch.units(), 0.1)
    np.testing.assert_allclose(sketch.without(everything).scores(Z), sketch.scores(Z, everything), rtol=1e-9, atol=1e-9)


def test_a_unit_that_is_none_is_refused() -> None:
    with pytest.raises(FixProgramError, match="not a unit"):
        Sketch.of(autoencoder()).without({(1, 0): 0.0})
