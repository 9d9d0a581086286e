"""What requests of lifted records cost, in residues: coefficients times primes. Imports no cryptography."""

from __future__ import annotations

from typing import TYPE_CHECKING

from securead.protocols.engine import Plan, Work

if TYPE_CHECKING:
    from securead.program.program import PublicProgram


def work(plan: Plan, public: PublicProgram, rows: int) -> Work:
    """What a request of `rows` records takes: ciphertexts to make and to multiply, and answers to mask and to read."""
    from securead.protocols.ckks.row.plan import RowPlan

    if not isinstance(plan, RowPlan):
        raise TypeError(plan)
    n, primes, role = plan.ring_dimension, len(plan.data_primes), plan.role
    pieces, groups = plan.ciphertexts(rows), len(plan.groups(rows))
    sent = pieces * primes * n
    return Work(
        client={"request": 1, "lifted": rows * plan.monomials * primes, f"encrypted, {role}": sent},
        server={"request": 1, f"multiplied, {role}": sent, "answered": groups * primes * n},
        offline={"mask": 1, "masked": groups * (primes + 1) * n},
        holder={"answer": 1, "decrypted": groups * plan.answer_primes * n},
        up_bytes=plan.request_bytes(rows),
        down_bytes=plan.answer_bytes(rows),
    )
