"""Layered programs: the float network's scores on integers that fit a ring, or a refusal that names the remedy."""

from __future__ import annotations

import numpy as np
import pytest

from securead.checks.programs import encoder, network_layers, relu_network, square_network
from securead.errors import FixProgramError
from securead.models.network import Shape, reconstruction_errors
from securead.program.layered import layered_program
from securead.program.truncation import failure_probability, worst_error

WIDTHS = (29, 16, 8, 16, 29)


def parameters(layers: list[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    return np.concatenate([part.ravel() for layer in layers for part in layer])


@pytest.mark.parametrize(
    ("units", "scale", "widths"),
    [
        ("relu", 1.0, WIDTHS),
        ("square", 0.25, WIDTHS),
        ("linear_square", 0.5, (29, 12, 29)),
        ("linear_square", 0.5, (7, 5, 3, 7)),
        ("relu", 1.0, (3, 1, 3)),
    ],
)
def test_scores_are_the_float_networks(units: str, scale: float, widths: tuple[int, ...]) -> None:
    layers = network_layers(widths, scale, seed=1)
    program = layered_program(
        lambda bits: encoder(widths[0], limit=4.0, fraction_bits=bits),
        layers,
        units,
        tolerance=1e-2,
        honest_extraction_rows=1,
    )
    X = np.random.default_rng(0).normal(size=(2000, widths[0])).clip(-4, 4)
    scores = reconstruction_errors(Shape(widths, units), parameters(layers), X)
    error = np.abs(program.score(X) - scores)
    assert error.max() <= 1e-3 * np.median(scores)
    public = program.public
    assert max(*(step.bound_bits for step in public.steps), public.score_bits) <= 62
    assert failure_probability(public.steps) <= 2.0**-20
    assert worst_error(public.steps) / 2.0**public.score_fraction_bits <= public.tolerance


def test_squares_of_squares_are_refused_with_a_remedy() -> None:
    with pytest.raises(FixProgramError, match=r'8 fraction bits.*3 hidden layers.*units="relu".*smaller limit'):
        layered_program(
            lambda bits: encoder(29, limit=4.0, fraction_bits=bits),
            network_layers(WIDTHS, 2.0),
            "square",
            tolerance=1.0,
            honest_extraction_rows=1,
        )
    with pytest.raises(FixProgramError, match="fewer hidden layers"):
        layered_program(
            lambda bits: encoder(29, limit=64.0, fraction_bits=bits),
            network_layers((29, *(16,) * 14, 29), 4.0),
            "relu",
            tolerance=1.0,
            honest_extraction_rows=1,
        )


@pytest.mark.parametrize("bits", [15, 63, 64])
def test_a_ring_of_other_sizes_is_refused(bits: int) -> None:
    with pytest.raises(FixProgramError, match="16 to 62"):
        layered_program(
            lambda b: encoder(2, fraction_bits=b),
            network_layers((2, 1, 2), 1.0),
            "relu",
            ring_bits=bits,
            tolerance=1.0,
            honest_extraction_rows=1,
        )


def test_the_samples_are_what_their_names_say() -> None:
    assert "relu" in relu_network().public.operations
    assert "relu" not in square_network().public.operations
