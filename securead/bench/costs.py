"""What a record costs on an engine, from its plan alone: nothing is timed, and nothing but a public half is needed."""

from __future__ import annotations

from dataclasses import dataclass

from securead.program.polynomial import Affine, Product, PublicPolynomial
from securead.program.program import PublicProgram
from securead.protocols import registry
from securead.protocols.bfv.plan import BfvPlan
from securead.protocols.ckks.plan import CkksPlan
from securead.protocols.engine import Plan, Role
from securead.protocols.sharing.plan import SharingPlan


@dataclass(frozen=True)
class Cost:
    """What a record costs in full chunks, from the plan: bytes, and multiplications of 64-bit words at the service.

    `traffic` is up, down and, among two parties, what they and the dealer send each other. `work` counts the products
    that the program asks for, not transforms or masks: an estimate that ranks programs on one engine.
    """

    up: float
    down: float
    between: float
    key: int
    ring_dimension: int | None
    modulus_bits: int | None
    work: float

    @property
    def traffic(self) -> float:
        """Bytes a record, in all directions."""
        return self.up + self.down + self.between


def cost_of(public: PublicProgram, engine: str, role: Role) -> Cost:
    """The cost of a program, from its public half; raises `FixProgramError` where the engine has no parameters."""
    plan = registry.plan_module(engine).make_plan(public, role)
    rows = plan.rows_per_chunk
    between = 0.0
    if isinstance(plan, SharingPlan):
        between = (2 * plan.online_bytes(rows, False) + plan.offline_bytes(rows, False)) / rows
    return Cost(
        up=plan.max_request_bytes / rows,
        down=plan.max_answer_bytes / rows,
        between=between,
        key=plan.evaluation_key_bytes,
        ring_dimension=plan.ring_dimension if isinstance(plan, BfvPlan | CkksPlan) else None,
        modulus_bits=plan.modulus_bits if isinstance(plan, BfvPlan | CkksPlan) else None,
        work=_work(public, plan),
    )


def _work(public: PublicProgram, plan: Plan) -> float:
    """Multiplications of words a record: products of polynomials, N coefficients at every prime, shared by a chunk."""
    if isinstance(plan, BfvPlan):
        pieces = sum(group.layout.pieces for group in plan.groups(plan.rows_per_chunk))
        return 2.0 * pieces * plan.ring_dimension * len(plan.data_primes) / plan.rows_per_chunk
    blow_up = len(plan.data_primes) * plan.ring_dimension / plan.rows_per_chunk if isinstance(plan, CkksPlan) else 1.0
    if not isinstance(public, PublicPolynomial):
        return float(sum(public.sizes))
    total, polynomials = 0, list[int]()  # an encrypted value of degree d is d + 1 polynomials
    encrypted = isinstance(plan, CkksPlan)
    for step in public.steps:
        match step:
            case Affine():
                total += sum(step.width * public.steps[s].width * polynomials[s] for s in step.sources)
                polynomials.append(max(polynomials[s] for s in step.sources))
            case Product():
                left, right = polynomials[step.left], polynomials[step.right]
                total += step.width * left * right
                polynomials.append(left + right - 1)
            case _:
                polynomials.append(2 if encrypted and not polynomials else polynomials[-1] if polynomials else 1)
    return blow_up * total
