"""What truncations cost: how far a score may lie from the oracle's, and how often a truncation on shares fails."""

from __future__ import annotations

from collections.abc import Sequence

from securead.program.polynomial import Affine, Input, Product, Relu, Step, Truncate

RING_BITS = 64


def worst_error(steps: Sequence[Step]) -> int:
    """The most by which a score, in its own integer units, may differ when every truncation is off by one unit.

    From the public bounds alone, so for all weights and records that they allow; 0 without a truncation.
    """
    errors: list[int] = []
    for step in steps:
        match step:
            case Input():
                errors.append(0)
            case Affine():
                errors.append(sum(errors[s] << gain for s, gain in zip(step.sources, step.gain_bits, strict=True)))
            case Product():
                left, right = errors[step.left], errors[step.right]
                reach = (left << steps[step.right].bound_bits) + (right << steps[step.left].bound_bits)
                errors.append(reach + left * right)
            case Relu():
                errors.append(errors[step.source])
            case Truncate():
                errors.append(-(-errors[step.source] >> step.shift) + 1)
    return errors[-1]


def failure_probability(steps: Sequence[Step]) -> float:
    """The most with which one record meets a truncation that fails, when two parties truncate their shares of 64 bits.

    An element v fails with probability (|v| + 1) / 2**63: its shares, each uniform alone, wrap around or have the same
    sign, |v| + 1 of 2**64 cases either (Mohassel and Zhang 2017, theorem 1).
    """
    return sum(
        step.width * 2.0 ** (1 - RING_BITS) * (2.0 ** steps[step.source].bound_bits + 1)
        for step in steps
        if isinstance(step, Truncate)
    )
