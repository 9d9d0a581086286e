"""What every form of residue arithmetic offers: the operations of one prime on arrays `(elements, polynomials, slots)`.

A form is chosen by what holds the arrays: `numba_form` for NumPy, `torch_form` for tensors of any device. Both give the
same bits. Arguments are residues in [0, p), which is not checked again; results are new arrays of residues.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from securead.data.schema import Array
from securead.errors import FixProgramError
from securead.protocols.residues.layers import LinearMap, ProductSum, is_sum_exact

X = TypeVar("X")


class Form(Protocol[X]):
    """One prime's operations. An instance serves one thread at a time."""

    prime: int

    def linear(self, layer: LinearMap, x: X) -> X:
        """`W x`, `(outputs, polynomials, slots)`."""
        ...

    def add(self, terms: Sequence[X], offsets: Array | None = None) -> X:
        """The sum of values of the same elements and slots, of which the first has the most polynomials, and `offsets`.

        `offsets` are integers of any size `(elements,)`, constants in every slot (already multiplied by the scale).
        """
        ...

    def square(self, x: X) -> X:
        """Every element times itself: s polynomials become 2 s - 1."""
        ...

    def multiply(self, x: X, y: X) -> X:
        """Element by element as polynomials in Y: sizes s and t become s + t - 1."""
        ...

    def sum_of_products(self, total: ProductSum, x: X, y: X) -> X:
        """`(1, s + t - 1, slots)`, without ever storing a product."""
        ...


def refuse_unless(same: bool, what: str) -> None:
    """Raise `ValueError` when a caller passes what was compiled for something else."""
    if not same:
        raise ValueError(what)


def check_linear(prime: int, layer: LinearMap, x: tuple[int, ...]) -> tuple[int, int, int]:
    """The result's shape, given the source's."""
    refuse_unless(layer.prime == prime, "a linear map was compiled for another prime")
    refuse_unless(layer.inputs == x[0], "a linear map was compiled for another number of inputs")
    return layer.outputs, x[1], x[2]


def check_terms(terms: Sequence[tuple[int, ...]], offsets: Array | None) -> tuple[int, int, int]:
    """The shape of a sum, given its terms'."""
    first, *rest = terms
    for shape in rest:
        refuse_unless((shape[0], shape[2]) == (first[0], first[2]), "terms of one sum have the same elements and slots")
        refuse_unless(shape[1] <= first[1], "the first term of a sum has the most polynomials")
    refuse_unless(offsets is None or len(offsets) == first[0], "there is one offset for each element")
    return first[0], first[1], first[2]


def check_products(prime: int, x: tuple[int, ...], y: tuple[int, ...]) -> tuple[int, int, int]:
    """The shape of an elementwise product, given its factors'."""
    refuse_unless(x[0] == y[0] and x[2] == y[2], "factors have the same elements and slots")
    if not is_sum_exact(1, 1, min(x[1], y[1]), prime):
        raise FixProgramError("a product of ciphertexts cannot be proved exact", value=min(x[1], y[1]))
    return x[0], x[1] + y[1] - 1, x[2]


def check_sum(prime: int, total: ProductSum, x: tuple[int, ...], y: tuple[int, ...]) -> tuple[int, int, int]:
    """The shape of a sum of products."""
    refuse_unless(total.prime == prime, "a sum of products was compiled for another prime")
    refuse_unless((x[1], y[1]) == total.sizes, "a sum of products was compiled for other sizes")
    refuse_unless(
        x[0] == y[0] == len(total.weights) and x[2] == y[2], "factors have the sum's elements, and same slots"
    )
    return 1, x[1] + y[1] - 1, x[2]


def residues_of(integers: Array, prime: int) -> list[int]:
    """Integers of any size modulo p."""
    return [int(value) % prime for value in integers]
