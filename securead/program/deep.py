"""The squared reconstruction error of a network with several hidden layers of squares, as one polynomial.

With hidden units h_1 = (W_1 z + b_1)^2, h_2 = (W_2 h_1 + b_2)^2, ... and y = z - c, the error |y - D h|^2 is by D = QR
equal to |y|^2 + sum_k v_k (v_k - 2 t_k), v = R h and t = Q^T y, as in `reconstruction`: |y|^2 is a public |z|^2 and a
linear form. n hidden layers make a score of degree 2**(n + 1). Nothing is truncated, so values grow to hundreds of
bits: an engine that rescales does not mind, and the integers stay the oracle.

Every layer is evened out: a unit is scaled so that it reaches just below one, and the next layer's columns give the
factor back squared. Bounds and errors are those of a layer's widest unit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from securead.data.encoder import Encoder
from securead.data.schema import Array
from securead.program.builder import ProgramBuilder
from securead.program.program import Program
from securead.program.reconstruction import ROUNDING

MAX_HIDDEN = 3
VALUE_BITS = 1000
# What engines may add at worst, as a share of a typical score: a sixteenth of what they add usually is seen.
TOLERANCE = 2.0**-8
_LEAST_BITS, _MOST_BITS = 4, 20
_MARGIN = 1 - 2.0**-5
_LEAST_REACH = 2.0**-20
_SAMPLE = 256

Layer = tuple[Array, Array]


def deep_reconstruction_error(
    encoder: Encoder, layers: Sequence[Layer], *, typical: float, weight_bits: int | None = None
) -> ProgramBuilder:
    """A builder with all steps of the score but |z|^2, which `finish(squared_norm=1.0)` adds as a public term.

    `layers`: weights `(out, in)` and offsets `(out,)`; all but the last are squared. `typical`: a typical score. The
    weights of each layer have `weight_bits` significant bits, counted from its largest: by default as few as move
    scores of nineteen in twenty normal records, independent or aligned with units, by `ROUNDING` of `typical` or less,
    but at most 20. Raises `FixProgramError`
    for weights that are not finite, or where values need more than `VALUE_BITS`.
    """
    hidden, last = _evened(layers, encoder.limit)
    if weight_bits is None:
        weight_bits = _bits_for(layers, hidden, last, typical, encoder.limit)
    return _build(encoder, [_rounded(layer, weight_bits) for layer in hidden], last, weight_bits)


def deep_program(
    encoder: Encoder,
    layers: Sequence[Layer],
    *,
    typical: float,
    weight_bits: int | None = None,
    honest_extraction_rows: int,
) -> Program:
    """The whole program, with a tolerance of `TOLERANCE` times a typical score: see `deep_reconstruction_error`."""
    builder = deep_reconstruction_error(encoder, layers, typical=typical, weight_bits=weight_bits)
    return builder.finish(
        tolerance=TOLERANCE * typical, honest_extraction_rows=honest_extraction_rows, squared_norm=1.0
    )


def _build(encoder: Encoder, hidden: Sequence[Layer], last: Layer, bits: int) -> ProgramBuilder:
    builder = ProgramBuilder(encoder, value_bits=VALUE_BITS)
    value = builder.input
    for weight, offset in hidden:
        grid = builder.fraction_bits(value) + _fraction_bits(weight, bits)
        unit = builder.affine([(weight, value)], offset, fraction_bits=grid)
        value = builder.product(unit, unit)
    decode, center = last
    Q, R = np.linalg.qr(decode)
    mix, _ = _rounded((R, center), bits)
    form, _ = _rounded((-2 * Q.T, center), bits)
    # The linear form needs bits of its own: the input has fewer than what it is added to.
    fewest = builder.fraction_bits(builder.input) + _fraction_bits(form, bits)
    grid = max(builder.fraction_bits(value) + _fraction_bits(mix, bits), fewest)
    left = builder.affine([(mix, value)], fraction_bits=grid)
    right = builder.affine([(np.eye(len(R)), left), (form, builder.input)], 2 * Q.T @ center, fraction_bits=grid)
    products = builder.product(left, right)
    builder.affine(
        [(np.ones((1, len(R))), products), (-2 * center[None, :], builder.input)],
        np.array([center @ center]),
        fraction_bits=builder.fraction_bits(products),
    )
    return builder


def _evened(layers: Sequence[Layer], limit: float) -> tuple[list[Layer], Layer]:
    """The same function with every hidden unit's reach just below one; nothing that is never more than zero is raised
    by more than `_LEAST_REACH` allows.
    """
    *hidden, (decode, center) = layers
    reach, undo, found = np.full(hidden[0][0].shape[1], limit), np.ones(hidden[0][0].shape[1]), list[Layer]()
    with np.errstate(all="ignore"):  # what becomes infinite is refused where it is rounded
        for weight, offset in hidden:
            weight = weight * undo
            unit = np.abs(weight) @ reach + np.abs(offset)
            unit = np.maximum(unit, unit.max(initial=0.0) * _LEAST_REACH)
            factor = np.where(unit > 0, _MARGIN / unit, 1.0)
            found.append((weight * factor[:, None], offset * factor))
            undo, reach = 1 / factor**2, np.full(len(factor), _MARGIN**2)
        return found, (decode * undo, center)


def _fraction_bits(weight: Array, bits: int) -> int:
    """The fraction bits that give the largest weight so many significant ones, but no fewer than none."""
    largest = float(np.abs(weight).max(initial=0.0))
    return max(0, bits - math.frexp(largest)[1]) if 0 < largest < math.inf else 0


def _rounded(layer: Layer, bits: int) -> Layer:
    """Weights of so many significant bits, counted from the layer's largest."""
    weight, offset = layer
    largest = float(np.abs(weight).max(initial=0.0))
    if not 0 < largest < math.inf:
        return layer
    shift = bits - math.frexp(largest)[1]
    return np.ldexp(np.rint(np.ldexp(weight, shift)), -shift), offset


def _bits_for(layers: Sequence[Layer], hidden: Sequence[Layer], last: Layer, typical: float, limit: float) -> int:
    """The fewest bits whose rounding moves scores by `ROUNDING` of `typical` or less, for nineteen in twenty records.

    Columns of real records go together, and units grow with that: half of the records are independent normal ones, and
    half have the signs of a unit's weights. An error e of the reconstruction moves a score |r|^2 by 2 r e: what is seen
    at another length of r is scaled to it.
    """
    rng = np.random.default_rng(0)
    weight, (decode, center) = hidden[0][0], last
    sizes = np.abs(rng.normal(size=(_SAMPLE, 1)))
    aligned = np.sign(weight[rng.integers(0, len(weight), _SAMPLE)]) * sizes
    Z = np.clip(np.vstack([rng.normal(size=aligned.shape), aligned]), -limit, limit)
    with np.errstate(all="ignore"):
        exact = _scores(layers, Z)
        for bits in range(_LEAST_BITS, _MOST_BITS):
            Q, R = np.linalg.qr(decode) if np.isfinite(decode).all() else (decode, decode)
            rough = (Q @ _rounded((R, center), bits)[0], center)
            moved = np.abs(_scores([*(_rounded(layer, bits) for layer in hidden), rough], Z) - exact)
            if float(np.quantile(moved / np.sqrt(exact), 0.95)) <= ROUNDING * math.sqrt(typical):
                return bits
    return _MOST_BITS


def _scores(layers: Sequence[Layer], Z: Array) -> Array:
    *hidden, (decode, center) = layers
    h = Z
    for weight, offset in hidden:
        h = (h @ weight.T + offset) ** 2
    errors: Array = ((Z - h @ decode.T - center) ** 2).sum(axis=1)
    return errors
