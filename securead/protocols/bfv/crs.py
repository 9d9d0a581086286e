"""The uniform half `a` of every public key of a plan, expanded from its digest: no owner can choose it."""

from __future__ import annotations

from securead.data.schema import Array
from securead.protocols.bfv.plan import BfvPlan
from securead.protocols.seal import publickeys

DOMAIN = b"securead.protocols.bfv.a.v1\0"


def uniform_half(plan: BfvPlan) -> Array:
    """Residues uint64 `(primes, N)` in NTT form, uniform below each prime of the plan's chain."""
    return publickeys.uniform_half(DOMAIN, plan.digest, plan.chain, plan.ring_dimension)
