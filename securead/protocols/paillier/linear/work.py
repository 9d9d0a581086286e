"""What linear scores on encrypted features cost, in encryptions and multiplications. Imports no cryptography."""

from __future__ import annotations

from typing import TYPE_CHECKING

from securead.protocols.engine import Plan, Work

if TYPE_CHECKING:
    from securead.program.program import PublicProgram


def work(plan: Plan, public: PublicProgram, rows: int) -> Work:
    """What a request of `rows` records takes: the same for any number, as rows share ciphertexts."""
    from securead.protocols.paillier.linear.plan import DIGIT_BITS, LinearPlan

    if not isinstance(plan, LinearPlan):
        raise TypeError(plan)
    return Work(
        client={"request": 1, f"encrypted, {plan.role}": plan.features},
        server={"request": 1, "multiplied": plan.digits * (plan.features + (2 << DIGIT_BITS)) + plan.features},
        offline={"mask": 1},
        holder={"answer": 1},
        up_bytes=plan.request_bytes,
        down_bytes=plan.max_answer_bytes,
    )
