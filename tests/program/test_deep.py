"""Deeper networks of squares as one polynomial: what the floats mean, within the bits that are asked for."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from securead.checks import programs
from securead.errors import FixProgramError
from securead.program.deep import VALUE_BITS, deep_reconstruction_error
from securead.program.program import Program

WIDTHS = ((6, 4, 6), (6, 4, 3, 6), (5, 4, 3, 4, 5))


def float_scores(layers: list[tuple[np.ndarray, np.ndarray]], Z: np.ndarray) -> np.ndarray:
    *hidden, (decode, center) = layers
    h = Z
    for weight, offset in hidden:
        h = (h @ weight.T + offset) ** 2
    return ((Z - h @ decode.T - center) ** 2).sum(axis=1)


def compiled(
    layers: list[tuple[np.ndarray, np.ndarray]],
    *,
    limit: float = 2.0,
    weight_bits: int | None = None,
    typical: float = 5.0,
) -> Program:
    encoder = programs.encoder(layers[0][0].shape[1], limit=limit)
    builder = deep_reconstruction_error(encoder, layers, typical=typical, weight_bits=weight_bits)
    return builder.finish(tolerance=0.1, honest_extraction_rows=1, squared_norm=1.0)


@pytest.mark.parametrize("widths", WIDTHS)
@pytest.mark.parametrize("scale", [0.3, 1.0])
def test_the_integers_are_the_network(widths: tuple[int, ...], scale: float, rng: np.random.Generator) -> None:
    layers = programs.network_layers(widths, scale)
    program = compiled(layers, weight_bits=20)
    X = np.clip(rng.normal(size=(200, widths[0])), -2, 2)
    exact = float_scores(layers, X)
    assert np.abs(program.score(X) / exact - 1).max() < 2e-3
    assert program.public.degree == 2 ** (len(widths) - 1)
    assert program.public.operations == {"input", "affine", "product"}
    # As many products as units, and not one a column.
    products = [step.width for step in program.public.steps if step.type_tag == "product"]
    assert products == [*widths[1:-1], min(widths[-2], widths[-1])]


@pytest.mark.parametrize("widths", WIDTHS[1:])
def test_bits_are_as_few_as_keep_scores(widths: tuple[int, ...], rng: np.random.Generator) -> None:
    """By default scores of normal records move by a few thousandths; with four bits by much more."""
    layers = programs.network_layers(widths, 1.0, seed=3)
    X = np.clip(rng.normal(size=(400, widths[0])), -2, 2)
    exact = float_scores(layers, X)
    typical = float(np.median(exact))
    default, rough = compiled(layers, typical=typical), compiled(layers, weight_bits=4, typical=typical)
    moved, roughly = (np.abs(program.score(X) - exact) / (exact + typical) for program in (default, rough))
    assert np.quantile(moved, 0.9) < 0.005
    assert np.quantile(roughly, 0.9) > 0.02
    assert default.public.score_fraction_bits > rough.public.score_fraction_bits


def test_units_reach_just_below_one() -> None:
    """However unequal they are, and whatever multiplies them: the score stays what it is."""
    layers = programs.network_layers((5, 4, 3, 5), 0.5)
    uneven = [(w * 10.0 ** np.arange(len(w))[:, None], b * 10.0 ** np.arange(len(w))) for w, b in layers[:-1]]
    undo = [np.ones(5), *(10.0 ** (-2 * np.arange(len(w))) for w, _ in layers[:-1])]
    uneven = [(w * u, b) for (w, b), u in zip(uneven, undo, strict=False)]
    uneven.append((layers[-1][0] * undo[-1], layers[-1][1]))
    program = compiled(uneven, weight_bits=16)
    squares = [at for at, step in enumerate(program.public.steps) if step.type_tag == "product"][:-1]
    for at in squares:
        step = program.public.steps[at]
        assert step.bound_bits - step.fraction_bits in (0, -1)
    X = np.random.default_rng(0).uniform(-2, 2, size=(50, 5))
    assert np.abs(program.score(X) / float_scores(layers, X) - 1).max() < 1e-2


def test_a_unit_of_zeros_and_a_decoder_of_zeros() -> None:
    layers = programs.network_layers((4, 3, 3, 4), 0.5)
    layers[0][0][1] = 0.0
    layers[0][1][1] = 0.0
    layers[-1][0][:] = 0.0
    program = compiled(layers, weight_bits=12)
    X = np.random.default_rng(0).uniform(-2, 2, size=(20, 4))
    assert np.abs(program.score(X) / float_scores(layers, X) - 1).max() < 1e-2


def test_what_diverged_or_does_not_fit_is_refused() -> None:
    layers = programs.network_layers((4, 3, 3, 4), 1.0)
    layers[1][0][0, 0] = np.nan
    with pytest.raises(FixProgramError, match="not finite"):
        compiled(layers, weight_bits=8)
    with pytest.raises(FixProgramError, match=f"only {VALUE_BITS} are there"):
        compiled(programs.network_layers((4, 4, 4, 4, 4), 1.0), weight_bits=40)


def test_honest_bounds_for_every_sign() -> None:
    """Records at the limit with every pattern of signs stay within the declared bounds of every step."""
    program = compiled(programs.network_layers((4, 3, 3, 4), 1.0), weight_bits=10)
    bound = program.public.encoder.bound
    Z = np.array(list(itertools.product([-bound, bound], repeat=4)))
    scores = program.evaluate(Z)
    assert max(abs(int(score)) for score in scores) <= 1 << program.public.score_bits
