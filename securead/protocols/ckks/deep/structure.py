"""What a program's shape alone decides: on which level every step is computed, how many polynomials it has, and what is
relinearised. Nothing here depends on a scale.

The *depth* of a step is the number of products on the longest way to it. What is multiplied is rescaled first, once,
by the primes of its depth's group: products of depth d are computed on level d - 1, where the groups 1 ... d - 1 are
gone, and so is everything that is made of them by sums alone. Records themselves (depth 0) are never rescaled.

A ciphertext of three polynomials is relinearised where that is fewer: behind the products of one depth, or behind the
linear map that follows, at the factors of the next products. Where it is lazy, the factors of *last* products, which no
other product needs, stay as they are: an answer then has up to five polynomials, which its key holder decrypts.
Rescaling three polynomials errs a thousand times as much as two, so not every program has room for that.
"""

from __future__ import annotations

from dataclasses import dataclass

from securead.program.polynomial import Affine, Input, Product, PublicPolynomial


@dataclass(frozen=True)
class Structure:
    """By step: depth and polynomials. `relinearised`: steps that are, as soon as they are computed; `factors`: steps
    that products multiply, in order, each once.
    """

    depths: tuple[int, ...]
    sizes: tuple[int, ...]
    relinearised: frozenset[int]
    factors: tuple[int, ...]

    @property
    def depth(self) -> int:
        """Products on the longest way from the record to the score."""
        return self.depths[-1]

    def level(self, at: int) -> int:
        """How many groups of primes are gone where a step is computed."""
        return max(self.depths[at] - 1, 0)

    @classmethod
    def of(cls, public: PublicPolynomial, *, lazy: bool) -> Structure:
        """Of a program of sums and products all of whose steps count."""
        depths = _depths(public)
        last = _last_products(public) if lazy else frozenset[int]()
        relinearised: set[int] = set()
        for depth in range(1, depths[-1]):
            relinearised |= _relinearised(public, depths, depth, last)
        sizes: list[int] = []
        for at, step in enumerate(public.steps):
            match step:
                case Input():
                    size = 2
                case Affine():
                    size = max(sizes[source] for source in step.sources)
                case Product():
                    size = sizes[step.left] + sizes[step.right] - 1
                case _:
                    raise AssertionError(step)
            if size == 2:
                relinearised.discard(at)  # a sum of what is relinearised already
            elif at in relinearised and size != 3:
                raise AssertionError(f"step {at} has {size} polynomials, of which three can be relinearised")
            sizes.append(2 if at in relinearised else size)
        factors = {f for step in public.steps if isinstance(step, Product) for f in (step.left, step.right)}
        return cls(depths, tuple(sizes), frozenset(relinearised), tuple(sorted(factors)))


def _depths(public: PublicPolynomial) -> tuple[int, ...]:
    depths: list[int] = []
    for step in public.steps:
        match step:
            case Affine():
                depths.append(max(depths[source] for source in step.sources))
            case Product():
                depths.append(max(depths[step.left], depths[step.right]) + 1)
            case _:
                depths.append(0)
    return tuple(depths)


def _last_products(public: PublicPolynomial) -> frozenset[int]:
    """Products that no other product needs."""
    needed: set[int] = set()
    for at in reversed(range(len(public.steps))):
        step = public.steps[at]
        if isinstance(step, Product):
            needed |= {step.left, step.right}
        elif isinstance(step, Affine) and at in needed:
            needed |= set(step.sources)
    return frozenset(at for at, step in enumerate(public.steps) if isinstance(step, Product) and at not in needed)


def _relinearised(
    public: PublicPolynomial, depths: tuple[int, ...], depth: int, last: frozenset[int]
) -> frozenset[int]:
    """The steps of one depth to relinearise: factors of products that are not last, or what these are made of."""
    steps = public.steps
    factors = {
        factor
        for at, step in enumerate(steps)
        if isinstance(step, Product) and at not in last
        for factor in (step.left, step.right)
        if depths[factor] == depth
    }
    products, seen, mixed = set[int](), set(factors), False
    waiting = list(factors)
    while waiting:
        at = waiting.pop()
        step = steps[at]
        if isinstance(step, Product):
            products.add(at)
        elif isinstance(step, Affine):
            more = {source for source in step.sources if depths[source] == depth} - seen
            # What comes from an earlier depth may have three polynomials still, whatever this depth's products have.
            mixed = mixed or any(0 < depths[source] < depth for source in step.sources)
            seen |= more
            waiting += more
    fewer = sum(steps[at].width for at in factors) <= sum(steps[at].width for at in products)
    return frozenset(factors if fewer or mixed else products)
