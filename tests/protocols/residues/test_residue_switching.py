"""Relinearising is SEAL's, bit for bit; rescaling by several primes at once is exact rounding."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import pytest
import tenseal.sealapi as seal

from securead.protocols.residues.switching import Switcher, reduce, rescale_by
from securead.protocols.residues.transforms import rescale, transform_for
from securead.protocols.seal import objects, primes

N = 4096


@cache
def chain(*bits: int) -> tuple[int, ...]:
    """Primes of these widths, and a special one of 20 bits at least."""
    found = primes.choose(N, bits)
    assert found is not None
    return (*found, primes.special_prime(N, 20))


@cache
def setting(*bits: int) -> tuple[Any, Any, Any]:
    """A context without a security check (these primes are for tests), a secret key, and its relinearisation key."""
    parameters = seal.EncryptionParameters(seal.SCHEME_TYPE.CKKS)
    parameters.set_poly_modulus_degree(N)
    parameters.set_coeff_modulus([seal.Modulus(prime) for prime in chain(*bits)])
    context = seal.SEALContext(parameters, True, seal.SEC_LEVEL_TYPE.NONE)
    generator, keys = seal.KeyGenerator(context), seal.RelinKeys()
    generator.create_relin_keys(keys)
    return context, generator, keys


def random_residues(moduli: tuple[int, ...], *shape: int) -> np.ndarray:
    rng = np.random.default_rng(len(moduli))
    return np.stack([rng.integers(0, prime, size=(*shape, N)) for prime in moduli])


def integers(residues: np.ndarray, moduli: tuple[int, ...]) -> np.ndarray:
    """NTT residues `(primes, N)` to integers in [0, q)."""
    q, total = math.prod(moduli), np.zeros(N, dtype=object)
    for prime, row in zip(moduli, residues, strict=True):
        coefficients = transform_for(prime, N).inverse(row)
        total = total + coefficients.astype(object) * (q // prime * pow(q // prime, -1, prime))
    return total % q


@pytest.mark.parametrize("bits", [(50, 50, 50), (50, 36, 24, 45), (20, 21)])
@pytest.mark.parametrize("dropped", [0, 1])
def test_relinearising_is_seals_bit_for_bit(bits: tuple[int, ...], dropped: int) -> None:
    """On the top level, and on one where a prime is gone: then fewer digits, and the special prime as ever."""
    context, _, keys = setting(*bits)
    moduli = chain(*bits)[: len(bits) - dropped]
    words = random_residues(moduli, 3)
    level = objects.level_ids(context)[dropped]
    theirs = objects.ciphertext_from_residues(context, level, words.swapaxes(0, 1).view(np.uint64), ntt=True)
    seal.Evaluator(context).relinearize_inplace(theirs, keys)
    expected, _ = objects.residues(theirs)
    parts = np.stack([objects.residues(key)[0] for key in keys.key(2)]).view(np.int64)
    ours = Switcher(chain(*bits), N).relinearise(words, parts[:, 0], parts[:, 1])
    assert (ours.swapaxes(0, 1).view(np.uint64) == expected).all()
    assert (ours != words[:, :2]).any(axis=(0, 2)).all(), "both polynomials change"


@pytest.mark.parametrize("bits", [(50, 50, 50, 50, 50), (24, 50, 20, 47)])
def test_rescaling_by_several_primes_rounds_the_integer_once(bits: tuple[int, ...]) -> None:
    moduli = chain(*bits)[:-1]
    words = random_residues(moduli, 2, 2)
    for dropped in range(len(moduli)):
        kept = moduli[: len(moduli) - dropped]
        divisor, found = math.prod(moduli[len(kept) :]), rescale_by(words, moduli, dropped)
        assert found.shape == (len(kept), 2, 2, N)
        for row in np.ndindex(2, 2):
            exact = (integers(words[:, *row], moduli) + divisor // 2) // divisor % math.prod(kept)
            assert (integers(found[:, *row], kept) == exact).all()


def test_rescaling_is_what_seal_gives_prime_by_prime() -> None:
    """For odd divisors, rounding twice is rounding once: h of a b is a times h of b, plus h of a."""
    context, _, _ = setting(50, 45, 40)
    moduli = chain(50, 45, 40)[:-1]
    words = random_residues(moduli, 3)
    theirs = objects.ciphertext_from_residues(
        context, context.first_parms_id(), words.swapaxes(0, 1).view(np.uint64), ntt=True
    )
    for dropped in (1, 2):
        seal.Evaluator(context).rescale_to_next_inplace(theirs)
        expected, _ = objects.residues(theirs)
        assert (rescale_by(words, moduli, dropped).swapaxes(0, 1).view(np.uint64) == expected).all()
    assert (rescale_by(words, moduli, 2) == rescale(rescale(words, moduli), moduli[:2])).all()


def test_absurd_rescaling_is_refused() -> None:
    moduli = chain(50, 45, 40)[:-1]
    words = random_residues(moduli, 2)
    for primes_given, dropped in ((moduli[:2], 1), (moduli, 3), (moduli, -1)):
        with pytest.raises(ValueError, match="layers of residues"):
            rescale_by(words, primes_given, dropped)


def test_reduction_at_the_edges() -> None:
    for p in chain(50, 20)[:-1]:
        edges = np.array([[0, 1, p - 1, p, p + 1, 2 * p - 1, 2 * p, (1 << 50) - 1, 1 << 50, (1 << 50) // p * p]])
        found = np.empty_like(edges)
        reduce(edges, p, found)
        assert (found == edges % p).all()
