"""SEAL's context for a plan."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import tenseal.sealapi as seal

from securead.data.schema import Array
from securead.protocols.ckks.deep.plan import DeepPlan
from securead.protocols.seal import objects
from securead.protocols.seal.objects import Context

_MOST_POLYNOMIALS = 16  # of one of SEAL's ciphertexts


@functools.lru_cache(maxsize=4)
def context_for(plan: DeepPlan) -> Context:
    """SEAL's context for a plan's parameters; SEAL checks the 2018 standard once more."""
    parameters = seal.EncryptionParameters(seal.SCHEME_TYPE.CKKS)
    parameters.set_poly_modulus_degree(plan.ring_dimension)
    parameters.set_coeff_modulus([seal.Modulus(prime) for prime in plan.chain])
    context = seal.SEALContext(parameters, True, seal.SEC_LEVEL_TYPE.TC128)
    if not context.parameters_set():
        raise AssertionError(f"SEAL refuses the plan: {context.parameters_error_message()}")
    return context


def level_of(context: Context, primes: int) -> Any:
    """SEAL's name of the level on which so many primes are left."""
    return objects.level_ids(context)[-primes]


def transformed(context: Context, residues: Array, *, back: bool = False) -> Array:
    """Polynomials uint64 `(polynomials, primes, N)` in NTT form, or back in coefficients: by SEAL, which an owner has
    without a compiler. A polynomial of ones stands behind them, as SEAL refuses ciphertexts that end in zeros.
    """
    evaluator, level = seal.Evaluator(context), level_of(context, residues.shape[1])
    found = []
    for start in range(0, len(residues), _MOST_POLYNOMIALS - 1):
        some = residues[start : start + _MOST_POLYNOMIALS - 1]
        words = np.concatenate([some, np.ones((1, *some.shape[1:]), dtype=np.uint64)])
        value = objects.ciphertext_from_residues(context, level, words, ntt=back)
        (evaluator.transform_from_ntt_inplace if back else evaluator.transform_to_ntt_inplace)(value)
        found.append(np.array(objects.residues(value)[0][:-1]))
    return np.concatenate(found)
