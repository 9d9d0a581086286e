"""Both forms against Python's integers, bit for bit, at random and at the extremes of what is proved."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from securead.errors import FixProgramError
from securead.protocols.residues.layers import LinearMap, ProductSum
from securead.protocols.residues.numba_form import NumbaForm
from securead.protocols.residues.torch_form import TorchForm

torch = pytest.importorskip("torch")
# Nothing in a form needs the modulus to be prime.
MODULI = (
    st.integers(20, 50)
    .flatmap(lambda bits: st.integers(2 ** (bits - 2), 2 ** (bits - 1) - 1))
    .map(lambda half: 2 * half + 1)
)
SEEDS = st.integers(0, 2**32 - 1)
EXTREMES = ("random", "largest", "half", "half above", "zero", "one", "mixed")
WITHOUT_DEADLINE = settings(deadline=None)


class Both:
    """Runs an operation in both forms and insists on the same bits."""

    def __init__(self, prime: int) -> None:
        self.numba, self.torch = NumbaForm(prime), TorchForm(prime)

    def linear(self, layer: LinearMap, x: np.ndarray) -> np.ndarray:
        return self._same(self.numba.linear(layer, x), self.torch.linear(layer, torch.tensor(x)))

    def add(self, terms: list[np.ndarray], offsets: Any = None) -> np.ndarray:
        return self._same(self.numba.add(terms, offsets), self.torch.add([torch.tensor(x) for x in terms], offsets))

    def square(self, x: np.ndarray) -> np.ndarray:
        return self._same(self.numba.square(x), self.torch.square(torch.tensor(x)))

    def multiply(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return self._same(self.numba.multiply(x, y), self.torch.multiply(torch.tensor(x), torch.tensor(y)))

    def sum_of_products(self, total: ProductSum, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        moved = torch.tensor(x), torch.tensor(y)
        return self._same(self.numba.sum_of_products(total, x, y), self.torch.sum_of_products(total, *moved))

    def _same(self, array: np.ndarray, tensor: Any) -> np.ndarray:
        assert array.dtype == np.int64
        assert tensor.dtype == torch.int64
        np.testing.assert_array_equal(array, tensor.numpy())
        assert array.min() >= 0
        assert array.max() < self.numba.prime
        return array


def residues(rng: np.random.Generator, prime: int, shape: tuple[int, ...], kind: str = "random") -> np.ndarray:
    fixed = {"largest": prime - 1, "half": prime // 2, "half above": prime // 2 + 1, "zero": 0, "one": 1}
    if kind == "mixed":
        return rng.choice(np.array(list(fixed.values())), shape)
    return np.full(shape, fixed[kind]) if kind in fixed else rng.integers(0, prime, shape)


def linear(W: np.ndarray, x: np.ndarray) -> np.ndarray:
    return np.tensordot(W.astype(object), x.astype(object), 1)


def product(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    out = np.zeros((len(x), x.shape[1] + y.shape[1] - 1, x.shape[2]), dtype=object)
    for i in range(x.shape[1]):
        for j in range(y.shape[1]):
            out[:, i + j] += x[:, i].astype(object) * y[:, j].astype(object)
    return out


@WITHOUT_DEADLINE
@given(prime=MODULI, seed=SEEDS, weight_bits=st.integers(1, 70), kind=st.sampled_from(EXTREMES), shape=st.data())
def test_a_linear_map_is_exact(prime: int, seed: int, weight_bits: int, kind: str, shape: Any) -> None:
    rng = np.random.default_rng(seed)
    outputs, inputs, size = (shape.draw(st.integers(1, most)) for most in (4, 9, 3))
    W = np.array([[int(rng.integers(0, 2**31)) << 40 for _ in range(inputs)] for _ in range(outputs)], dtype=object)
    W = (W + rng.integers(0, 2**40, W.shape)) % 2**weight_bits
    W *= rng.choice([-1, 0, 1, 1], W.shape) if seed % 2 else 1
    x = residues(rng, prime, (inputs, size, 5), kind)
    found = Both(prime).linear(LinearMap.compile(W, prime), x)
    np.testing.assert_array_equal(found, linear(W, x) % prime)


@WITHOUT_DEADLINE
@given(prime=MODULI, kind=st.sampled_from(EXTREMES), inputs=st.integers(2, 40), seed=SEEDS, products=st.integers(1, 4))
def test_weights_at_the_proven_bound_are_exact(prime: int, kind: str, inputs: int, seed: int, products: int) -> None:
    """The largest equal weights, of equal and of random signs, that so many products are proved to carry."""
    rng = np.random.default_rng(seed)
    signs = np.stack([np.ones(inputs, int), -np.ones(inputs, int), rng.choice([-1, 1], inputs)]).astype(object)
    low, high = 0, prime // 2
    while low < high:  # bisection for the largest weight; odd, so that no power of two is shared
        middle = (low + high + 1) // 2
        low, high = (middle, high) if _proved(signs * (2 * middle + 1), prime, products) else (low, middle - 1)
    x = residues(rng, prime, (inputs, 1, 7), kind)
    W = signs * (2 * low + 1)
    np.testing.assert_array_equal(Both(prime).linear(LinearMap.compile(W, prime), x), linear(W, x) % prime)


def _proved(W: np.ndarray, prime: int, products: int) -> bool:
    try:
        LinearMap.compile(W, prime, most_products=products)
    except FixProgramError:
        return False
    return True


@WITHOUT_DEADLINE
@given(prime=MODULI, seed=SEEDS, kind=st.sampled_from(EXTREMES), slots=st.sampled_from([1, 5, 255, 256, 257, 600]))
def test_stacked_maps_are_what_they_are_alone(prime: int, seed: int, kind: str, slots: int) -> None:
    """Of one, three and no digits, of copies, of zeros, and of shared powers of two; also where tiles end."""
    rng = np.random.default_rng(seed)
    wide = rng.integers(-(2**62), 2**62, (3, 6)).astype(object)
    maps = [
        rng.integers(-30, 30, (5, 6)).astype(object),
        wide,
        np.eye(6, dtype=int).astype(object)[:2],
        np.zeros((2, 6), dtype=object),
        rng.integers(-30, 30, (2, 6)).astype(object) << 90,
        (wide << 3) * rng.choice([0, 1], (3, 6)),
    ]
    x, both = residues(rng, prime, (6, 2, slots), kind), Both(prime)
    together = LinearMap.compile(np.vstack(maps), prime, parts=[len(W) for W in maps])
    found = both.linear(together, x)
    np.testing.assert_array_equal(found, linear(np.vstack(maps), x) % prime)
    alone = [both.linear(LinearMap.compile(W, prime), x) for W in maps]
    np.testing.assert_array_equal(found, np.concatenate(alone))


@WITHOUT_DEADLINE
@given(prime=MODULI, seed=SEEDS, kind=st.sampled_from(EXTREMES))
def test_sums_are_of_values_of_different_sizes_and_offsets(prime: int, seed: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    terms = [residues(rng, prime, (4, size, 5), kind) for size in (3, 2, 3, 1)]
    offsets = np.array([1 << 90, -(1 << 77), 0, prime], dtype=object)
    for several in (terms, terms[:2], terms[:1]):
        before = [x.copy() for x in several]
        expected = np.zeros((4, 3, 5), dtype=object)
        for x in several:
            expected[:, : x.shape[1]] += x
        np.testing.assert_array_equal(Both(prime).add(several), expected % prime)
        expected[:, 0] += offsets[:, None]
        np.testing.assert_array_equal(Both(prime).add(several, offsets), expected % prime)
        np.testing.assert_array_equal(np.concatenate(before, axis=1), np.concatenate(several, axis=1))


@WITHOUT_DEADLINE
@given(prime=MODULI, seed=SEEDS, sizes=st.tuples(st.integers(1, 5), st.integers(1, 5)), kind=st.sampled_from(EXTREMES))
def test_products_are_exact(prime: int, seed: int, sizes: tuple[int, int], kind: str) -> None:
    rng, both = np.random.default_rng(seed), Both(prime)
    x, y = residues(rng, prime, (3, sizes[0], 5), kind), residues(rng, prime, (3, sizes[1], 5), kind)
    np.testing.assert_array_equal(both.multiply(x, y), product(x, y) % prime)
    np.testing.assert_array_equal(both.square(x), product(x, x) % prime)


@WITHOUT_DEADLINE
@given(prime=MODULI, seed=SEEDS, elements=st.integers(1, 64), kind=st.sampled_from(EXTREMES), twos=st.integers(0, 60))
def test_a_sum_of_products_is_exact_at_its_bound(prime: int, seed: int, elements: int, kind: str, twos: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = residues(rng, prime, (elements, 3, 5), kind), residues(rng, prime, (elements, 2, 5), kind)
    signs = rng.choice([-1, 1], elements) if seed % 2 else np.ones(elements, int)
    size = next(k for k in range(40, -1, -1) if _sum_proved(signs.astype(object) * (2**k + (k > 0)), prime))
    w = (signs.astype(object) * (2**size + (size > 0))) << twos
    found = Both(prime).sum_of_products(ProductSum.compile(w, (3, 2), prime), x, y)
    np.testing.assert_array_equal(found[0], (product(x, y) * w[:, None, None]).sum(axis=0) % prime)


def _sum_proved(weights: np.ndarray, prime: int) -> bool:
    try:
        ProductSum.compile(weights, (3, 2), prime)
    except FixProgramError:
        return False
    return True


@WITHOUT_DEADLINE
@given(prime=MODULI, seed=SEEDS)
def test_maps_are_linear_and_products_bilinear(prime: int, seed: int) -> None:
    rng, both = np.random.default_rng(seed), Both(prime)
    x, y, z = (residues(rng, prime, (4, 2, 6)) for _ in range(3))
    layer = LinearMap.compile(rng.integers(-(2**20), 2**20, (3, 4)), prime)
    together = both.linear(layer, (x + y) % prime)
    np.testing.assert_array_equal(together, both.add([both.linear(layer, x), both.linear(layer, y)]))
    np.testing.assert_array_equal(
        both.multiply((x + y) % prime, z), (both.multiply(x, z) + both.multiply(y, z)) % prime
    )
    np.testing.assert_array_equal(both.multiply(x, y), both.multiply(y, x))


def test_slots_do_not_meet() -> None:
    """So an evaluator may cut them into blocks, also where a block is no contiguous array."""
    prime, rng = 35184371884033, np.random.default_rng(3)
    x, form = rng.integers(0, prime, (5, 2, 64)), NumbaForm(prime)
    layer = LinearMap.compile(rng.integers(-(2**30), 2**30, (3, 5)), prime)
    total = ProductSum.compile(np.array([1, -2, 3]), (3, 2), prime)

    def evaluate(block: np.ndarray) -> np.ndarray:
        h = form.linear(layer, block)
        return form.sum_of_products(total, form.square(h), h)

    blocks = [evaluate(x[:, :, start : start + 16]) for start in range(0, 64, 16)]
    np.testing.assert_array_equal(np.concatenate(blocks, axis=2), evaluate(x))


@pytest.mark.parametrize("make", [NumbaForm, TorchForm])
def test_what_was_compiled_for_something_else_is_refused(make: Any) -> None:
    form, other = make(1099510054913), 35184371884033
    x = np.zeros((2, 2, 4), np.int64) if make is NumbaForm else torch.zeros((2, 2, 4), dtype=torch.int64)
    with pytest.raises(ValueError, match="another prime"):
        form.linear(LinearMap.compile(np.ones((1, 2), int), other), x)
    with pytest.raises(ValueError, match="another number of inputs"):
        form.linear(LinearMap.compile(np.ones((1, 3), int), form.prime), x)
    with pytest.raises(ValueError, match="other sizes"):
        form.sum_of_products(ProductSum.compile(np.ones(2, int), (3, 2), form.prime), x, x)
    with pytest.raises(ValueError, match="one offset"):
        form.add([x], np.array([1]))
    with pytest.raises(ValueError, match="same elements"):
        form.add([x, x[:1]])
    with pytest.raises(ValueError, match="most polynomials"):
        form.add([x[:, :1], x])


def test_importing_compiles_nothing_and_the_expansion_imports_neither() -> None:
    script = (
        "import json, sys, securead.protocols.residues.expansion, securead.protocols.residues.layers\n"
        "light = [name for name in ('numba', 'torch', 'tenseal') if name in sys.modules]\n"
        "from securead.protocols.residues import loops, numba_form, transforms\n"
        "compiled = [n for n, f in vars(loops).items() if getattr(f, 'signatures', None)]\n"
        "print(json.dumps([light, compiled, 'torch' in sys.modules]))"
    )
    root = Path(__file__).resolve().parents[3]
    run = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=True)
    assert json.loads(run.stdout) == [[], [], False]


def test_an_installation_that_cannot_be_written_compiles_in_the_process() -> None:
    """numba refuses to make a cache where it finds no place for one; then importing must work all the same."""
    script = (
        "import numba.core.caching as caching\n"
        "caching.CacheImpl._locator_classes = []\n"
        "import numpy as np\n"
        "from securead.protocols.residues.numba_form import NumbaForm\n"
        "x = np.full((1, 1, 1), 3)\n"
        "print(NumbaForm(1099510054913).square(x).item())\n"
    )
    root = Path(__file__).resolve().parents[3]
    run = subprocess.run([sys.executable, "-W", "ignore", "-c", script], cwd=root, capture_output=True, text=True)
    assert run.stdout == "9\n", run.stderr
