"""What requests under CKKS cost, in residues: coefficients times primes. Imports no cryptography.

A linear map multiplies the residues of its source by its weights once for every pair of a residue's and a weight's
digits; how many digits there are follows from the bound on row sums and the width of primes, as `residues.layers`
proves products exact (a row sum of s bits and residues of b fit one float64 while s + b <= 53).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from securead.program.polynomial import Affine, Product, PublicPolynomial
from securead.protocols.engine import Plan, Work

if TYPE_CHECKING:
    from securead.program.program import PublicProgram
    from securead.protocols.ckks.plan import CkksPlan

_EXACT_BITS = 53
_MOST_DIGITS = 9


def work(plan: Plan, public: PublicProgram, rows: int) -> Work:
    """What a request of `rows` records takes: the same for any number, because slots that are not used cost as much."""
    from securead.protocols.ckks.plan import CkksPlan

    if not isinstance(plan, CkksPlan) or not isinstance(public, PublicPolynomial):
        raise TypeError(plan)
    n, primes = plan.ring_dimension, len(plan.data_primes)
    request, answer, role = plan.columns * primes * n, plan.answer_size * primes * n, plan.role
    return Work(
        client={"request": 1, "encoded": plan.columns * n, f"encrypted, {role}": request},
        server={"request": 1, f"parsed, {role}": request, **_computed(plan, public), "answered": answer},
        offline={"mask": 1, "masked": plan.degree * (primes + 1) * n, "flooded": primes * n},
        holder={"answer": 1, "decrypted": plan.answer_size * plan.answer_primes * n, "decoded": n},
        up_bytes=plan.max_request_bytes,
        down_bytes=plan.max_answer_bytes,
    )


def _computed(plan: CkksPlan, public: PublicPolynomial) -> dict[str, float]:
    """Multiplications by weights, and products of residues, of all steps and primes."""
    n, weighted, multiplied = plan.ring_dimension, 0, 0
    sizes = [step.degree + 1 for step in plan.steps]
    summed = _summed(public)
    for step in public.steps:
        if isinstance(step, Product):
            left, right = sizes[step.left], sizes[step.right]
            pairs = left * (left + 1) // 2 if step.left == step.right else left * right
            multiplied += step.width * pairs * len(plan.data_primes) * n
        if isinstance(step, Affine):
            for source, gain in zip(step.sources, step.gain_bits, strict=True):
                if source in summed and step.width == 1:
                    continue  # a sum of products, which its products pay for
                width = public.steps[source].width
                digits = sum(_digits(prime.bit_length(), gain, width) for prime in plan.data_primes)
                weighted += step.width * width * sizes[source] * n * digits
    return {"weighted": weighted, "multiplied": multiplied}


def _summed(public: PublicPolynomial) -> frozenset[int]:
    """Products that one affine step alone reads."""
    readers: dict[int, int] = {}
    for step in public.steps:
        match step:
            case Affine():
                sources = step.sources
            case Product():
                sources = (step.left, step.right)
            case _:
                sources = ()
        for source in sources:
            readers[source] = readers.get(source, 0) + 1
    return frozenset(at for at, step in enumerate(public.steps) if isinstance(step, Product) and readers.get(at) == 1)


def _digits(prime_bits: int, gain_bits: int, width: int) -> int:
    """Float64 products that a row takes: the fewest pairs of digits of a residue and of a weight, modulo the prime."""
    row_bits = min(gain_bits, prime_bits + width.bit_length())
    return min(
        residue * weight
        for residue in range(1, _MOST_DIGITS + 1)
        for weight in range(1, _MOST_DIGITS + 1)
        if -(-prime_bits // residue) + -(-row_bits // weight) <= _EXACT_BITS
    )
