"""Encoding in pairs of doubles: against exact arithmetic, against SEAL's encoder, there and back."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from securead.protocols.ckks.deep import embedding
from securead.protocols.ckks.deep.scales import TRANSFORM_UNITS, transform_error
from securead.protocols.seal import primes

BITS = 256


def cosine(numerator: int, denominator: int) -> int:
    """cos(pi numerator / denominator) * 2**BITS, by Machin's pi and Taylor's series in integers."""

    def arctangent(inverse: int) -> int:
        total, power, k = 0, (1 << BITS + 16) // inverse, 0
        while power:
            total, power, k = total + (power // (2 * k + 1)) * (-1) ** k, power // inverse**2, k + 1
        return total

    pi = 4 * (4 * arctangent(5) - arctangent(239)) >> 16
    numerator %= 2 * denominator
    x = pi * numerator // denominator
    term, total, k = 1 << BITS, 0, 0
    while term:
        total += term
        term = -(term * x >> BITS) * x // ((2 * k + 1) * (2 * k + 2)) >> BITS
        k += 1
    return total


def chain(dimension: int, count: int = 4) -> tuple[int, ...]:
    found = primes.choose(dimension, (50,) * count)
    assert found is not None
    return found


def integers(residues: np.ndarray, moduli: tuple[int, ...]) -> list[int]:
    q = math.prod(moduli)
    totals = [
        sum(int(r) * (q // p) * pow(q // p, -1, p) for r, p in zip(column, moduli, strict=True)) % q
        for column in residues.T
    ]
    return [total - q if total > q // 2 else total for total in totals]


@pytest.mark.parametrize("columns", [1, 3])
def test_slots_are_the_records_to_more_than_a_hundred_bits(columns: int) -> None:
    n, bits, rng = 64, 140, np.random.default_rng(columns)
    Z = rng.integers(-4096, 4097, size=(columns, n // 2)) / 1024.0
    Z[0, :2] = 4.0, -4.0
    found = embedding.to_coefficients(Z, bits, chain(n))
    table = [cosine(j, n) for j in range(2 * n)]
    for row, slots in zip(found, Z, strict=True):
        coefficients = integers(row, chain(n))
        for i, wanted in enumerate(slots):
            real = sum(c * table[(2 * i + 1) * j % (2 * n)] for j, c in enumerate(coefficients))
            # An imaginary part is a cosine a quarter turn later.
            imaginary = sum(c * table[((2 * i + 1) * j + 3 * n // 2) % (2 * n)] for j, c in enumerate(coefficients))
            off = max(
                abs(Fraction(real, 1 << BITS + bits) - Fraction(wanted)), abs(Fraction(imaginary, 1 << BITS + bits))
            )
            assert off <= transform_error(n, 4.0) + n / 2.0**bits
            assert off < 2.0**-98


def test_doubles_would_not_do() -> None:
    """The bound is a real one: what it replaces is larger by 2**49."""
    assert transform_error(1 << 15, 4.0) < 2.0**-87
    assert TRANSFORM_UNITS * 2.0**-53 * math.sqrt(1 << 15) * 4 > 2.0**-40


@pytest.mark.parametrize("scale_bits", [30, 90])
def test_there_and_back(scale_bits: int) -> None:
    n, rng = 512, np.random.default_rng(0)
    Z = np.vstack([rng.normal(size=n // 2), rng.normal(size=n // 2) * 2.0**20, np.zeros(n // 2)])
    found = embedding.to_coefficients(Z, scale_bits, chain(n))
    for row, slots in zip(found, Z, strict=True):
        back = embedding.to_slots(row, 2.0**scale_bits, chain(n))
        assert np.abs(back - slots).max() <= n / 2.0**scale_bits + 2.0**-52 * np.abs(slots).max()


def test_seals_encoder_agrees_in_doubles() -> None:
    """The same slots in another order, up to what doubles cost."""
    import tenseal.sealapi as seal

    n = 4096
    moduli = chain(n, 2)
    parameters = seal.EncryptionParameters(seal.SCHEME_TYPE.CKKS)
    parameters.set_poly_modulus_degree(n)
    parameters.set_coeff_modulus([seal.Modulus(p) for p in (*moduli, primes.special_prime(n, 20))])
    context = seal.SEALContext(parameters, True, seal.SEC_LEVEL_TYPE.NONE)
    from securead.protocols.ckks.deep.context import transformed
    from securead.protocols.seal import objects

    Z = np.random.default_rng(1).normal(size=n // 2)
    plaintext, encoder = seal.Plaintext(), seal.CKKSEncoder(context)
    encoder.encode(Z.tolist(), 2.0**40, plaintext)
    words = np.array(objects.plaintext_residues(plaintext)).reshape(1, len(moduli), n)
    coefficients = transformed(context, words, back=True)
    assert (transformed(context, coefficients) == words).all()
    found = embedding.to_slots(coefficients[0], 2.0**40, moduli)
    assert np.abs(np.sort(found) - np.sort(Z)).max() < 1e-8


def test_negative_and_large_coefficients_have_the_right_residues() -> None:
    rng, moduli = np.random.default_rng(2), (*chain(64, 3), primes.special_prime(64, 20))
    high = rng.normal(size=(2, 50)) * 2.0 ** rng.integers(-3, 120, size=(2, 50))
    high[0, :4] = 0.0, 0.5, -1.0, 2.0**119
    pair = embedding.Pair(high, high * 2.0**-54 * rng.uniform(-1, 1, size=high.shape))
    limbs = embedding._limbs(pair)
    for prime in moduli:
        found = embedding._residues(limbs, prime)
        for at in np.ndindex(*high.shape):
            exact = Fraction(float(pair.high[at])) + Fraction(float(pair.low[at]))
            near = {math.floor(exact) % prime, math.ceil(exact) % prime}
            assert int(found[at]) in near
