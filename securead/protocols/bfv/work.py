"""What requests under BFV cost, in residues: coefficients times primes. Imports no cryptography."""

from __future__ import annotations

from typing import TYPE_CHECKING

from securead.protocols.engine import Plan, Work

if TYPE_CHECKING:
    from securead.program.program import PublicProgram


def work(plan: Plan, public: PublicProgram, rows: int) -> Work:
    """What a request of `rows` records takes: so many ciphertexts up, and an answer and a mask for every group."""
    from securead.protocols.bfv.plan import BfvPlan

    if not isinstance(plan, BfvPlan):
        raise TypeError(plan)
    groups, role = plan.groups(rows), plan.role
    n, primes, answers = plan.ring_dimension, len(plan.data_primes), len(groups)
    request = sum(group.layout.pieces for group in groups) * primes * n
    # Every coefficient at which an answer of any layout may hold a score.
    places = len({at * layout.stride(n) for layout in plan.layouts for at in range(layout.slots)})
    return Work(
        client={"request": 1, "positions": rows * len(plan.sizes), f"encrypted, {role}": request},
        server={"request": 1, f"looked up, {role}": request, "answered": answers * primes * n},
        offline={"masked": answers * (primes + 1) * n, "flooded": answers * places * primes},
        holder={"answer": 1, "decrypted": answers * n, "scores": rows},
        up_bytes=plan.request_bytes(rows),
        down_bytes=plan.answer_bytes(rows),
    )
