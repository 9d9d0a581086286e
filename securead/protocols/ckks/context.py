"""SEAL's context for a plan."""

from __future__ import annotations

import functools

import tenseal.sealapi as seal

from securead.protocols.ckks.plan import CkksPlan
from securead.protocols.seal.objects import Context


@functools.lru_cache(maxsize=8)
def context_for(plan: CkksPlan) -> Context:
    """SEAL's context for a plan's parameters; SEAL checks the 2018 standard once more."""
    parameters = seal.EncryptionParameters(seal.SCHEME_TYPE.CKKS)
    parameters.set_poly_modulus_degree(plan.ring_dimension)
    parameters.set_coeff_modulus([seal.Modulus(prime) for prime in (*plan.data_primes, plan.special_prime)])
    context = seal.SEALContext(parameters, True, seal.SEC_LEVEL_TYPE.TC128)
    if not context.parameters_set():
        raise AssertionError(f"SEAL refuses the plan: {context.parameters_error_message()}")
    return context
