"""Networks as programs for secret sharing: any depth, ReLUs, and values that fit integers modulo 2**64.

Layer by layer, with a truncation after every product, so that values keep `bits` fraction bits: the squared
reconstruction error directly, not by the QR identity, because products cost little on shares and range is scarce.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from securead.data.encoder import Encoder
from securead.data.schema import Array
from securead.errors import FixProgramError
from securead.program.builder import ProgramBuilder
from securead.program.program import Program
from securead.program.truncation import failure_probability, worst_error

RING_BITS = 62
_MOST_BITS, _FEWEST_BITS = 20, 8
# A truncation on shares fails for one record in a million at most where precision allows, in a thousand at the least.
_FAILURES = (2.0**-20, 2.0**-10)


def layered_program(
    encoder: Callable[[int], Encoder],
    layers: Sequence[tuple[Array, Array]],
    units: Literal["linear_square", "square", "relu"],
    *,
    ring_bits: int = RING_BITS,
    tolerance: float,
    honest_extraction_rows: int,
) -> Program:
    """The squared reconstruction error of a network, with as many fraction bits as fit.

    `encoder(bits)` quantises records. `layers`: weights `(out, in)` and offsets `(out,)`. The program's tolerance is
    `tolerance`, or what truncations can cost in the worst case where that is more. Raises `FixProgramError` when fewer
    than eight fraction bits fit.
    """
    if not 16 <= ring_bits <= RING_BITS:
        raise FixProgramError(
            f"on shares a program has 16 to {RING_BITS} bits", value=ring_bits, remedy="Leave it out for the default."
        )
    for failure in _FAILURES:
        for bits in range(_MOST_BITS, _FEWEST_BITS - 1, -1):
            try:
                builder = _network(encoder(bits), layers, units, bits, ring_bits)
            except FixProgramError:  # beyond 512 bits: squares of squares
                continue
            steps = builder.steps
            widest = max(step.bound_bits for step in steps)
            if widest > ring_bits or failure_probability(steps) > failure:
                continue
            cost = math.ldexp(worst_error(steps), -steps[-1].fraction_bits)
            return builder.finish(
                tolerance=max(tolerance, cost * (1 + 1e-9)), honest_extraction_rows=honest_extraction_rows
            )
    raise FixProgramError(
        f"the network's values do not fit {ring_bits} bits with {_FEWEST_BITS} fraction bits",
        value=f"{len(layers) - 1} hidden layers of {units} units",
        remedy=('Train with units="relu", fewer hidden layers' if units != "relu" else "Train with fewer hidden layers")
        + ", a smaller weight_limit or a smaller limit.",
    )


def _network(
    encoder: Encoder, layers: Sequence[tuple[Array, Array]], units: str, bits: int, ring_bits: int
) -> ProgramBuilder:
    """All steps from the input to the score."""
    builder = ProgramBuilder(encoder)
    values = [builder.input]
    *hidden, (last, center) = layers
    for weight, offset in hidden:
        linear = (len(offset) + 1) // 2 if units == "linear_square" else 0
        parts = [slice(0, linear), slice(linear, None)] if linear else [slice(None)]
        sums = [
            builder.truncate(
                builder.affine(_terms(weight[part], values, builder), offset[part], fraction_bits=2 * bits), bits
            )
            for part in parts
        ]
        if units == "relu":
            values = [builder.relu(sums[0])]
        else:
            values = [*sums[:-1], builder.truncate(builder.product(sums[-1], sums[-1]), bits)]
    terms = [(np.eye(len(center)), builder.input), *_terms(-last, values, builder)]
    error = builder.affine(terms, -center, fraction_bits=2 * bits)
    # The error keeps as many bits as the sum of its squares has room for: one bit of its bound is for the truncation.
    room = (ring_bits - math.ceil(math.log2(len(center)))) // 2 - 1
    dropped = min(bits, max(1, builder.steps[error].bound_bits - room))
    error = builder.truncate(error, dropped)
    squares = builder.product(error, error)
    builder.affine([(np.ones((1, len(center))), squares)], fraction_bits=builder.fraction_bits(squares))
    return builder


def _terms(weight: Array, sources: Sequence[int], builder: ProgramBuilder) -> list[tuple[Array, int]]:
    """The columns of a weight matrix, for each of its sources in turn."""
    widths = [builder.steps[source].width for source in sources]
    return list(zip(np.split(weight, np.cumsum(widths)[:-1], axis=1), sources, strict=True))
