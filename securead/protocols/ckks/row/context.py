"""SEAL's context for a plan: its BFV objects, which are bare ring-LWE ciphertexts in coefficient form.

SEAL's CKKS knows slots alone. Here a record's numbers are coefficients, so encryptions of zero are taken from SEAL's
BFV, which differ from those of its CKKS in nothing but their form, and the plaintext modulus says how finely SEAL's
decryption reads a phase: as multiples of q / 2**plain_bits.
"""

from __future__ import annotations

import functools

import tenseal.sealapi as seal

from securead.protocols.ckks.row.plan import RowPlan
from securead.protocols.seal.objects import Context


@functools.lru_cache(maxsize=8)
def context_for(plan: RowPlan) -> Context:
    """SEAL's context for a plan's parameters; SEAL checks the 2018 standard once more."""
    parameters = seal.EncryptionParameters(seal.SCHEME_TYPE.BFV)
    parameters.set_poly_modulus_degree(plan.ring_dimension)
    parameters.set_coeff_modulus([seal.Modulus(prime) for prime in plan.chain])
    parameters.set_plain_modulus(seal.Modulus(1 << plan.plain_bits))
    context = seal.SEALContext(parameters, True, seal.SEC_LEVEL_TYPE.TC128)
    if not context.parameters_set():
        raise AssertionError(f"SEAL refuses the plan: {context.parameters_error_message()}")
    return context
