"""Powers and n-th roots by the thousand, on all cores.

The numbers are those that phe's `powmod` gives. gmpy2's lists let other threads run meanwhile, so threads share cores;
without gmpy2 Python's own integers give the same, slower, and each thread has a process for it (`power_processes`).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from securead.protocols.paillier import power_processes

if TYPE_CHECKING:
    from securead.protocols.paillier.keys import PrivateKey

try:
    import gmpy2
except ImportError:  # the numbers are the same without it
    gmpy2 = None

_LONG_BITS = 512  # of exponents from which on asking another process is nothing beside the work
T = TypeVar("T")
S = TypeVar("S")


def whole(value: int) -> Any:
    """An integer as the fastest arithmetic here takes it: GMP's where it is, else Python's own."""
    return value if gmpy2 is None else gmpy2.mpz(value)


def powers(bases: Sequence[int], exponent: int, modulus: int) -> list[Any]:
    """base**exponent modulo `modulus` of each. Other threads run meanwhile, if the exponent is a long one."""
    if gmpy2 is None:
        if exponent.bit_length() >= _LONG_BITS and cores() > 1:
            return power_processes.powers(bases, exponent, modulus)
        return [pow(base, exponent, modulus) for base in bases]
    found: list[Any] = gmpy2.powmod_base_list([whole(base) for base in bases], whole(exponent), whole(modulus))
    return found


def nth_roots(key: PrivateKey, values: Sequence[int]) -> list[Any]:
    """The one y of each unit modulo n with y**n equal to it."""
    p, q, n = whole(key.p), whole(key.q), whole(key.n)
    join = whole(pow(int(q), -1, int(p)))
    at_p, at_q = (
        powers([value % prime for value in values], pow(int(n), -1, int(prime) - 1), prime) for prime in (p, q)
    )
    return [y_q + q * ((y_p - y_q) * join % p) for y_p, y_q in zip(at_p, at_q, strict=True)]


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def spread(work: Callable[[Sequence[T]], list[S]], items: Sequence[T], *, size: int = 16) -> Iterator[list[S]]:
    """The results of `work` on pieces of `items`, in order, on as many threads as there are cores."""
    pieces = [items[at : at + size] for at in range(0, len(items), size)]
    with ThreadPoolExecutor(cores(), thread_name_prefix="securead-paillier") as threads:
        yield from threads.map(work, pieces)
