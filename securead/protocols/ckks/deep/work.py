"""What requests under deep CKKS cost, in residues: coefficients times primes. Imports no cryptography."""

from __future__ import annotations

from typing import TYPE_CHECKING

from securead.program.polynomial import Affine, Product, PublicPolynomial
from securead.protocols.engine import Plan, Work

if TYPE_CHECKING:
    from securead.program.program import PublicProgram
    from securead.protocols.ckks.deep.plan import DeepPlan


def work(plan: Plan, public: PublicProgram, rows: int) -> Work:
    """What a request of `rows` records takes: the same for any number, because slots that are not used cost as much."""
    from securead.protocols.ckks.deep.plan import DeepPlan

    if not isinstance(plan, DeepPlan) or not isinstance(public, PublicPolynomial):
        raise TypeError(plan)
    n, primes = plan.ring_dimension, len(plan.data_primes)
    request, answer = plan.columns * primes * n, plan.answer_size * plan.last_primes * n
    return Work(
        client={"request": 1, "encoded": plan.columns * n, f"encrypted, {plan.role}": request},
        server={"request": 1, f"parsed, {plan.role}": request, **_computed(plan, public), "answered": answer},
        offline={"mask": 1, "masked": answer},
        holder={"answer": 1, "decrypted": plan.answer_size * plan.answer_primes * n},
        up_bytes=plan.max_request_bytes,
        down_bytes=plan.max_answer_bytes,
    )


def _computed(plan: DeepPlan, public: PublicPolynomial) -> dict[str, float]:
    """Multiplications by weights, of residues by residues, and transforms' coefficients, of all steps and primes."""
    n, levels, weighed, multiplied, transformed = plan.ring_dimension, plan.level_primes, 0, 0, 0
    factors = {f for step in public.steps if isinstance(step, Product) for f in (step.left, step.right)}
    for at, (step, planned) in enumerate(zip(public.steps, plan.steps, strict=True)):
        count = levels[max(planned.depth - 1, 0)]
        if isinstance(step, Affine):
            widths = sum(public.steps[s].width * plan.steps[s].size for s in step.sources)
            weighed += step.width * widths * count * n
        if isinstance(step, Product):
            multiplied += step.width * plan.steps[step.left].size * plan.steps[step.right].size * count * n
        if planned.relinearised:
            # Every digit modulo every prime, transformed once and multiplied twice; then a division by one prime.
            transformed += step.width * (count * (count + 2) + 2 * (count + 1)) * n
            multiplied += step.width * 2 * count * (count + 1) * n
        if at in factors and planned.depth:
            dropped = plan.groups[planned.depth - 1]
            transformed += step.width * planned.size * sum(count - gone for gone in range(dropped)) * n
    return {"weighted": weighed, "multiplied": multiplied, "transformed": transformed}
