"""What blind lookups cost, in multiplications and exponentiations modulo n**2. Imports no cryptography."""

from __future__ import annotations

from typing import TYPE_CHECKING

from securead.protocols.engine import Plan, Work

if TYPE_CHECKING:
    from securead.program.program import PublicProgram


def work(plan: Plan, public: PublicProgram, rows: int) -> Work:
    """What a request of `rows` records takes: a blind and products at the owner, one decryption at the service.

    The blind's exponentiation is most of a small request. An owner can make it ahead of time (`Encryptor.prepare`), and
    then saves it; here it counts.
    """
    from securead.protocols.paillier.plan import PaillierPlan

    if not isinstance(plan, PaillierPlan):
        raise TypeError(plan)
    # A product of each row's entries, and as many squarings between rows as a score has bits.
    products = rows * (len(plan.sizes) + plan.score_bits)
    return Work(
        client={"request": 1, "multiplied": products},
        server={"request": 1},
        holder={"answer": 1, "opened": rows},
        up_bytes=plan.request_bytes,
        down_bytes=plan.answer_bytes(rows),
    )
