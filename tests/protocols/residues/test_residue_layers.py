"""What compiling a layer proves, finds out about its weights and refuses."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from securead.errors import FixInputError, FixProgramError
from securead.protocols.residues.layers import LinearMap, ProductSum

PRIMES = [786433, 34359410689, 1099510054913, 35184371884033, 1125899906826241]
EXACT = 2**53


@pytest.mark.parametrize("prime", PRIMES)
@pytest.mark.parametrize("columns", [2, 29, 1000])
@pytest.mark.parametrize("signs", ["equal", "mixed"])
def test_one_product_is_proved_up_to_the_bound_and_not_beyond(prime: int, columns: int, signs: str) -> None:
    most = (EXACT - 1) // (prime // 2)
    if not columns <= most < prime // 2:
        pytest.skip("a narrow prime carries the residue of any weight, a wide one not so many weights")
    row = np.full(columns, (most - 1) // (columns - 1), dtype=object)
    row[0] = most - int(row[1:].sum())
    if signs == "mixed":
        row[::2] *= -1
    # A second row with an odd weight: no power of two is shared.
    odd = np.zeros(columns, dtype=object)
    odd[:2] = 1
    layer = LinearMap.compile(np.stack([row, odd]), prime, most_products=1)
    assert layer.products == 1
    assert layer.bound == most * (prime // 2) < EXACT
    row[-1] += np.sign(row[-1])
    with pytest.raises(FixProgramError, match="cannot be proved exact with 1"):
        LinearMap.compile(np.stack([row, odd]), prime, most_products=1)
    assert LinearMap.compile(np.stack([row, odd]), prime).products == 2


def test_the_widest_layer_is_carried_within_the_default_number_of_products() -> None:
    prime = PRIMES[-1]
    row = np.full((1, 8192), prime // 2, dtype=object)
    row[0, 0] = 1
    layer = LinearMap.compile(row, prime)
    assert layer.products <= 9
    assert layer.bound < EXACT
    with pytest.raises(FixProgramError, match="narrower primes or smaller weights"):
        LinearMap.compile(row, prime, most_products=layer.products - 1)


def test_zeros_and_single_ones_take_no_product() -> None:
    W = np.array([[0, 0, 0, 0], [0, 1, 0, 0], [2, 0, -3, 0], [0, 0, 0, 1], [5, 0, 0, 0]])
    layer = LinearMap.compile(W, PRIMES[1])
    assert layer.rows.tolist() == [2, 4]
    assert layer.columns.tolist() == [0, 2]
    assert layer.copied_rows.tolist() == [1, 3]
    assert layer.copied_columns.tolist() == [1, 3]
    assert LinearMap.compile(np.eye(7, dtype=int), PRIMES[1]).products == 0
    assert LinearMap.compile(np.zeros((3, 2), dtype=int), PRIMES[1]).products == 0
    # Weights are known modulo the prime only.
    assert LinearMap.compile(np.array([[PRIMES[1] + 1, PRIMES[1]]], dtype=object), PRIMES[1]).products == 0


@pytest.mark.parametrize("twos", [0, 30, 200])
def test_a_shared_power_of_two_costs_no_product(twos: int) -> None:
    W = np.array([[3, -5], [7, 100]], dtype=object)
    layer = LinearMap.compile(W << twos, PRIMES[1])
    assert layer.products == 1
    assert layer.factors.tolist() == [pow(2, twos, PRIMES[1])] * 2


def test_stacked_maps_share_the_digits_of_residues_and_choose_their_weights_apart() -> None:
    """As an input does that a narrow and a wide map read: 38-bit primes and weights, thirteen bits at a time."""
    prime, rng = 274877562881, np.random.default_rng(0)
    narrow, wide = rng.integers(-40, 40, (12, 29)).astype(object), rng.integers(-prime // 2, prime // 2, (13, 29))
    layer = LinearMap.compile(np.vstack([narrow, wide]), prime, parts=[12, 13])
    assert layer.residue_digits == 1
    assert layer.weight_digits.tolist() == [1] * 12 + [3] * 13
    assert layer.first.tolist() == [*range(12), *range(12, 51, 3)]
    assert layer.multiplications == 51 * 29
    assert layer.bound < EXACT
    with pytest.raises(ValueError, match="parts"):
        LinearMap.compile(narrow, prime, parts=[11])


@given(bits=st.integers(20, 50), seed=st.integers(0, 2**32 - 1), columns=st.integers(1, 60))
def test_digits_are_those_of_the_weights_and_small_enough(bits: int, seed: int, columns: int) -> None:
    """The matrix, put together again, is the weights; every subset of a row's terms stays below 2**53."""
    prime, rng = 2**bits - 1, np.random.default_rng(seed)
    W = rng.integers(-prime // 2, prime // 2, (3, columns)).astype(object)
    layer = LinearMap.compile(W, prime)
    most = -(-prime // 2) if layer.residue_digits == 1 else 1 << layer.residue_shift
    assert int(np.abs(layer.matrix).sum(axis=1).max()) * most < 2 * EXACT
    assert layer.bound < EXACT
    for row, first, digits, base, factor in zip(
        layer.rows, layer.first, layer.weight_digits, layer.bases, layer.factors, strict=True
    ):
        assert base <= 1 << bits - 5
        total = sum(layer.matrix[first + i].astype(int).astype(object) * int(base) ** i for i in range(digits))
        np.testing.assert_array_equal((total * int(factor) - W[row][layer.columns]) % prime, 0)


@pytest.mark.parametrize("prime", [2**51 - 1, 2**19 - 1, 2**40, 0, -7])
def test_a_prime_outside_the_proofs_is_refused(prime: int) -> None:
    with pytest.raises(FixProgramError, match="odd primes of 20 to 50 bits"):
        LinearMap.compile(np.ones((1, 2), dtype=int), prime)
    with pytest.raises(FixProgramError, match="odd primes of 20 to 50 bits"):
        ProductSum.compile(np.ones(2, dtype=int), (2, 2), prime)


@pytest.mark.parametrize("weights", [np.ones((2, 2)), np.ones(2, dtype=int), np.array([[1.5, 2]], dtype=object)])
def test_weights_that_are_no_integer_matrix_are_refused(weights: np.ndarray) -> None:
    with pytest.raises(FixInputError, match="integers"):
        LinearMap.compile(weights, PRIMES[0])


@given(bits=st.integers(20, 50), elements=st.integers(1, 64), size=st.integers(1, 2))
def test_a_sum_of_products_is_proved_for_weights_up_to_some_size(bits: int, elements: int, size: int) -> None:
    prime, weights = 2**bits - 1, np.ones(elements, dtype=object)
    assert ProductSum.compile(weights, (size, size), prime).factor == 1
    # The proof is monotonous: where a weight is refused, greater ones are.
    accepted = [_is_proved(weights * (2**k + 1), size, prime) for k in range(1, bits - 2)]
    assert accepted == sorted(accepted, reverse=True)
    assert _is_proved(weights << 300, size, prime)


def test_a_sum_of_products_beyond_the_proof_is_refused() -> None:
    with pytest.raises(FixProgramError, match="then apply a linear map"):
        ProductSum.compile(np.array([2**45 + 1, 3]), (3, 3), PRIMES[-1])
    assert _is_proved(np.ones(5000, int), 1, PRIMES[-2])
    assert _is_proved(np.ones(170, int), 1, PRIMES[-1])
    assert not _is_proved(np.ones(190, int), 1, PRIMES[-1])


def test_weights_are_not_printed() -> None:
    layer, total = (
        LinearMap.compile(np.array([[1234567, 3]]), PRIMES[1]),
        ProductSum.compile(np.array([1234567]), (2, 2), PRIMES[1]),
    )
    assert "1234567" not in f"{layer} {total}"


def _is_proved(weights: np.ndarray, size: int, prime: int) -> bool:
    try:
        ProductSum.compile(weights, (size, size), prime)
    except FixProgramError:
        return False
    return True
