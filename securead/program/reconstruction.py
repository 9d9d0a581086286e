"""The squared reconstruction error of a network with one hidden layer of linear and square units, of degree four.

With y = z - c and hidden units h, the error is |y - D h|^2. For D = QR it is |y|^2 + sum_k v_k (v_k - 2 t_k) with
v = R h and t = Q^T y: as many products as hidden units, not as columns; |y|^2 is a public |z|^2 and a linear form.
Linear units are folded into the affine maps. A square unit's weights may take a factor that its column of R gives back
squared: all are scaled to reach equally far, just below the encoder's limit, because bounds and errors are those of
the widest unit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from securead.data.encoder import Encoder
from securead.data.schema import Array
from securead.program.builder import ProgramBuilder

# Rounding weights moves a typical score by about this share of it, or less: ranks are then those of the float detector
# (on five public data sets, areas under the ROC curve move by .0003 at most). Each bit more takes 6 of the modulus.
ROUNDING = 2e-3
# What engines may add at worst, as a share of a typical score. Worst-case bounds for four factors are far above what is
# measured (1e-6 of a score), so tighter buys nothing; with a quarter less, an answer takes a bit more.
TOLERANCE = 1.25e-2
_LEAST_BITS, _MOST_BITS = 4, 20
# Below the limit by more than rounded weights usually add up to.
_MARGIN = 1 - 2.0**-5
_LEAST_REACH = 2.0**-20


@dataclass(frozen=True, eq=False)
class Network:
    """`z -> decode h + center` with h = encode z + bias, of which the units from `linear` on are squared."""

    encode: Array
    bias: Array
    decode: Array
    center: Array
    linear: int = 0


def reconstruction_error(
    encoder: Encoder, network: Network, *, typical: float, weight_bits: int | None = None
) -> ProgramBuilder:
    """A builder with all steps of the score but |z|^2, which `finish(squared_norm=1.0)` adds as a public term.

    `typical`: a typical score. Weights of square units, scaled to reach equally far, have `weight_bits` fraction bits,
    and so has what multiplies the squares; by default as few as keep rounding errors within `ROUNDING` of `typical`,
    but at most 20: errors are larger where units are thousands of times what they add up to. Ranks are kept where
    scores differ by about their size, and not where a constant outweighs all that records say.
    """
    linear, center = network.linear, network.center
    Q, R = np.linalg.qr(network.decode)
    weights, bias, mix = _evened(network.encode[linear:], network.bias[linear:], R[:, linear:], encoder.limit)
    if weight_bits is None:
        encode_bits, mix_bits = _bits_for(weights, bias, mix, typical)
    else:
        encode_bits = mix_bits = weight_bits
    builder = ProgramBuilder(encoder)
    hidden = builder.affine([(weights, builder.input)], bias, fraction_bits=encoder.fraction_bits + encode_bits)
    squares = builder.product(hidden, hidden)
    grid = builder.fraction_bits(squares) + mix_bits
    fold, constant = R[:, :linear] @ network.encode[:linear], R[:, :linear] @ network.bias[:linear]
    terms = [(mix, squares), (fold, builder.input)] if linear else [(mix, squares)]
    left = builder.affine(terms, constant, fraction_bits=grid)
    right = builder.affine([(np.eye(len(R)), left), (-2 * Q.T, builder.input)], 2 * Q.T @ center, fraction_bits=grid)
    products = builder.product(left, right)
    builder.affine(
        [(np.ones((1, len(R))), products), (-2 * center[None, :], builder.input)],
        np.array([center @ center]),
        fraction_bits=builder.fraction_bits(products),
    )
    return builder


def _evened(weights: Array, bias: Array, mix: Array, limit: float) -> tuple[Array, Array, Array]:
    """Square units scaled so that each reaches just below `limit`, and columns of `mix` that undo it."""
    reach = np.abs(weights).sum(axis=1) * limit + np.abs(bias)
    with np.errstate(all="ignore"):  # what becomes infinite is refused where it is rounded
        reach = np.maximum(reach, reach.max(initial=0.0) * _LEAST_REACH)
        factor = np.where(reach > 0, limit * _MARGIN / reach, 1.0)
        return weights * factor[:, None], bias * factor, mix / factor**2


def _bits_for(weights: Array, bias: Array, mix: Array, typical: float) -> tuple[int, int]:
    """Fraction bits of the square units' weights and of what multiplies the squares.

    With residual r, |r|^2 = `typical`, an error e of the reconstruction moves the score by 2 r e. A rounded weight is
    off by 2**-bits / sqrt(12) on average; for standardised columns, |z_i| ~ 1, a unit of the d columns by sqrt(d) times
    that and its square by twice the unit's size times that; a row of `mix` by sqrt(3) times the length of all squares.
    """
    sizes = bias**2 + (weights**2).sum(axis=1)  # of squares, on average
    units = math.sqrt(weights.shape[1] * float(((mix**2).sum(axis=0) * 4 * sizes).sum()))
    squares = math.sqrt(3 * len(mix) * float((sizes**2).sum()))
    step = 2 / math.sqrt(12 * typical)

    def bits(error: float) -> int:
        needed = math.ceil(math.log2(max(step * error / ROUNDING, 1e-9))) if math.isfinite(error) else _MOST_BITS
        return min(max(needed, _LEAST_BITS), _MOST_BITS)

    return bits(units), bits(squares)
