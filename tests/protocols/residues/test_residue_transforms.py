"""Transforms and rescaling against their definition and against SEAL, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from securead.errors import FixProgramError
from securead.protocols.residues.transforms import rescale, transform_for
from securead.protocols.seal import primes as moduli

seal = pytest.importorskip("tenseal.sealapi")
RNG = np.random.default_rng(20)


def chain(dimension: int, *bits: int) -> tuple[int, ...]:
    chosen = moduli.choose(dimension, bits)
    assert chosen is not None
    return chosen


def context(scheme: Any, dimension: int, data: tuple[int, ...]) -> Any:
    parameters = seal.EncryptionParameters(scheme)
    parameters.set_poly_modulus_degree(dimension)
    special = moduli.special_prime(dimension)
    parameters.set_coeff_modulus([seal.Modulus(p) for p in (*data, special)])
    if scheme == seal.SCHEME_TYPE.BFV:
        parameters.set_plain_modulus(257)
    made = seal.SEALContext(parameters, True, seal.SEC_LEVEL_TYPE.NONE)
    assert made.parameters_set()
    return made


def random_residues(primes: tuple[int, ...], *shape: int) -> np.ndarray:
    values = np.stack([RNG.integers(0, p, shape) for p in primes])
    values[..., 0], values[..., 1], values[..., 2] = 0, 1, np.array(primes).reshape(-1, *(1,) * (len(shape) - 1)) - 1
    return values


@pytest.mark.parametrize("bits", [20, 36, 50])
def test_a_transform_evaluates_at_the_odd_powers_of_the_root(bits: int) -> None:
    dimension = 1024
    (prime,) = chain(dimension, bits)
    transform = transform_for(prime, dimension)
    coefficients = RNG.integers(0, prime, dimension)
    values = transform.forward(coefficients)
    for place in (0, 1, 5, 511, 1023):
        point = pow(transform.root, 2 * int(f"{place:010b}"[::-1], 2) + 1, prime)
        expected = 0
        for c in reversed(coefficients.tolist()):
            expected = (expected * point + c) % prime
        assert values[place] == expected


@pytest.mark.parametrize("dimension", [256, 512, 1024, 4096, 8192, 16384, 32768])
@pytest.mark.parametrize("bits", [21, 40, 45, 50])
def test_inverse_undoes_forward_at_the_extremes(dimension: int, bits: int) -> None:
    found = moduli.choose(dimension, (bits,))
    if found is None:
        pytest.skip("there is no such prime")
    transform = transform_for(found[0], dimension)
    x = np.stack(
        [
            np.full(dimension, found[0] - 1),
            np.zeros(dimension, np.int64),
            np.full(dimension, found[0] // 2),
            np.where(np.arange(dimension) % 2, 0, found[0] - 1),
            RNG.integers(0, found[0], dimension),
        ]
    )
    values = transform.forward(x)
    assert values.min() >= 0
    assert values.max() < found[0]
    np.testing.assert_array_equal(transform.inverse(values), x)
    np.testing.assert_array_equal(transform.forward(transform.inverse(x)), x)


def test_the_pointwise_product_is_the_negacyclic_product() -> None:
    dimension = 256
    (prime,) = chain(dimension, 30)
    a, b = RNG.integers(0, prime, (2, dimension))
    transform = transform_for(prime, dimension)
    product = transform.forward(a).astype(object) * transform.forward(b) % prime
    full = np.convolve(a.astype(object), b.astype(object))
    expected = full[:dimension].copy()
    expected[: dimension - 1] -= full[dimension:]
    np.testing.assert_array_equal(transform.inverse(product.astype(np.int64)), expected % prime)


@pytest.mark.parametrize("dimension", [4096, 8192, 16384])
def test_forward_and_inverse_are_seals(dimension: int) -> None:
    from securead.protocols.seal import objects

    data = chain(dimension, 30, 36, 50)
    made = context(seal.SCHEME_TYPE.BFV, dimension, data)
    coefficients = random_residues(data, dimension)
    # SEAL wants two polynomials and (primes, N) for each.
    words = np.stack([coefficients, coefficients[:, ::-1]]).astype(np.uint64)
    ciphertext = objects.ciphertext_from_residues(made, made.first_parms_id(), words, ntt=False)
    evaluator = seal.Evaluator(made)
    evaluator.transform_to_ntt_inplace(ciphertext)
    transformed, _ = objects.residues(ciphertext)
    for at, prime in enumerate(data):
        transform = transform_for(prime, dimension)
        np.testing.assert_array_equal(transform.forward(words[:, at].view(np.int64)), transformed[:, at])
        np.testing.assert_array_equal(transform.inverse(transformed[:, at].astype(np.int64)), words[:, at])


@pytest.mark.parametrize("size", [2, 3, 5])
@pytest.mark.parametrize("bits", [(45, 45, 45, 45), (50, 20, 36), (20, 50)])
def test_rescaling_is_seals(size: int, bits: tuple[int, ...]) -> None:
    from securead.protocols.seal import objects

    dimension, evaluator_dimension = 8192, 8192
    data = chain(dimension, *bits)
    made = context(seal.SCHEME_TYPE.CKKS, evaluator_dimension, data)
    words = random_residues(data, size, dimension)
    given = words.transpose(1, 0, 2).astype(np.uint64)
    ciphertext = objects.ciphertext_from_residues(made, made.first_parms_id(), given, ntt=True)
    ciphertext.scale = 2.0**50
    seal.Evaluator(made).rescale_to_next_inplace(ciphertext)
    expected, _ = objects.residues(ciphertext)
    np.testing.assert_array_equal(rescale(words, data).transpose(1, 0, 2), expected)


def test_rescaling_rounds_to_the_nearest_integer() -> None:
    dimension = 256
    data = chain(dimension, 30, 25)
    modulus, last = data[0] * data[1], data[1]
    x = [int(v) % modulus for v in RNG.integers(0, 2**62, dimension)]
    x[:4] = [0, last // 2, last // 2 + 1, modulus - last // 2 - 1]
    residues = np.stack([transform_for(p, dimension).forward(np.array([value % p for value in x])) for p in data])
    found = transform_for(data[0], dimension).inverse(rescale(residues, data)[0])
    nearest = [(value + last // 2) // last % data[0] for value in x]
    assert found.tolist() == nearest


def test_what_has_no_transform_is_refused() -> None:
    (prime,) = chain(4096, 40)
    for modulus, dimension in (
        (prime, 128),
        (prime, 65536),
        (prime, 4095),
        (prime + 8192 * 2, 4096),
        (2**40 + 1, 4096),
    ):
        with pytest.raises(FixProgramError):
            transform_for(modulus, dimension)
    with pytest.raises(ValueError, match="ring dimension"):
        transform_for(prime, 4096).forward(np.zeros(2048, np.int64))
    with pytest.raises(ValueError, match="primes"):
        rescale(np.zeros((1, 4096), np.int64), (prime,))


def test_arguments_are_left_as_they_were() -> None:
    data = chain(1024, 40, 41)
    x = random_residues(data, 2, 1024)
    before = x.copy()
    transform_for(data[0], 1024).forward(x[0])
    transform_for(data[0], 1024).inverse(x[0])
    rescale(x, data)
    np.testing.assert_array_equal(x, before)
