"""Parameters of a polynomial program under CKKS with records lifted to monomials, from its public half alone.

Guarantees: with `make_plan(public, role)`

* every key and ciphertext is within 128 bits of security by the standard of 2018 and by the guideline of 2024;
* a decrypted score differs from the integer program's by at most `error_bound <= public.tolerance`, for every key and
  all randomness (`margins`);
* flooding is at least 2**40 times everything in what leaves that is not the exact score, times how many numbers leave;
* the plan is the same on every machine, and both sides cut a chunk into the same groups.

This module imports no cryptography.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from fractions import Fraction

from securead import codec
from securead.errors import FixInputError, FixProgramError
from securead.program.polynomial import PublicPolynomial, Relu, Truncate
from securead.program.program import PublicProgram
from securead.protocols.bfv import layouts
from securead.protocols.bfv.layouts import Group, Layout
from securead.protocols.ckks.row import monomials
from securead.protocols.ckks.row.margins import (
    MAX_PRIME_BITS,
    MAX_SLOTS,
    Found,
    Margins,
    plain_bits_for,
    rounding,
    search,
)
from securead.protocols.ckks.row.work import work as work
from securead.protocols.engine import EngineSpec, Role
from securead.protocols.seal import primes
from securead.protocols.seal.keyfiles import PREFIX_BYTES
from securead.protocols.seal.noise import FLOOD_BITS
from securead.protocols.seal.packing import packed_bytes, residue_bytes

ENGINE = EngineSpec(
    name="ckks-row",
    package="securead.protocols.ckks.row",
    roles=("same", "split"),
    operations=("input", "affine", "product"),
    extra="ckks",
    sanitised=True,
    summary="polynomial programs of degree up to 4 under CKKS in SEAL, a few records at low latency",
    degrees=(1, 4),
)

MAX_DEGREE = ENGINE.degrees[1]
MAX_MONOMIALS = 1 << 17
MAX_ROWS, MAX_CHUNK_BYTES = MAX_SLOTS, 16 << 20
SEED_BYTES = 64
PREAMBLE_BYTES = 4 + 32  # of requests and answers: rows u32, key id
_MOST_LOOSER = 64


@dataclass(frozen=True)
class RowPlan:
    """See `securead.protocols.engine.Plan`. A value that breaks a security table or floods too little cannot be made.

    Monomials up to `degree` of integers at most `input_bound` travel times 2**scale_bits. `norm_bits` and `score_bits`
    are the program's (`Margins`); `plain_bits` says how finely SEAL's decryption reads an answer.
    """

    role: Role
    program_digest: str
    width: int
    degree: int
    input_bound: int
    norm_bits: int
    score_bits: int
    score_fraction_bits: int
    ring_dimension: int
    data_primes: tuple[int, ...]
    special_prime: int
    scale_bits: int
    answer_primes: int
    plain_bits: int
    flood_bits: int
    layouts: tuple[Layout, ...]
    rows_per_chunk: int

    def __post_init__(self) -> None:
        def require(condition: bool, what: str, value: object) -> None:
            if not condition:
                raise FixInputError(what, where="CKKS row plan", value=value, remedy="The plan is damaged or foreign.")

        n, data, chain = self.ring_dimension, self.data_primes, self.chain
        require(n in primes.RING_DIMENSIONS, "unknown ring dimension", n)
        require(2 <= len(chain) <= 16 and len(set(chain)) == len(chain), "a modulus is a few primes", chain)
        require(all(primes.is_usable(p, n) for p in chain), "a modulus SEAL cannot use", chain)
        proved = all(primes.MIN_PRIME_BITS <= p.bit_length() <= MAX_PRIME_BITS for p in data)
        require(proved, "a modulus whose arithmetic is not proved", chain)
        limit = primes.modulus_bits_limit(n)
        require(self.modulus_bits <= limit, "the modulus is too large for 128 bits of security", self.modulus_bits)
        require(1 <= self.degree <= MAX_DEGREE, "an absurd degree", self.degree)
        possible = 1 <= self.width <= MAX_MONOMIALS and self.monomials <= MAX_MONOMIALS
        require(possible, "absurdly many monomials", self.width)
        require(1 <= self.input_bound < 1 << 62, "an absurd input bound", self.input_bound)
        scales = (self.norm_bits, self.score_bits, self.scale_bits, self.flood_bits)
        require(all(0 <= bits < 2 * limit for bits in scales), "an absurd scale", scales)
        require(0 <= self.score_fraction_bits <= 512, "an absurd scale", self.score_fraction_bits)
        require(1 <= self.answer_primes <= len(data), "an absurd answer", self.answer_primes)
        require(self.plain_bits == plain_bits_for(self.answer_modulus), "another reading", self.plain_bits)
        require(self.flood_bits >= self.margins.flood_bits, "answers could leak", self.flood_bits)
        require(self.margins.fits(self.scale_bits, self.error, data), "an answer without room", self.scale_bits)
        require(1 <= len(self.layouts) <= 3, "a plan has one to three layouts", len(self.layouts))
        for layout in self.layouts:
            fits = 1 <= layout.slots <= MAX_SLOTS and 0 <= layout.pieces * (n // layout.slots) - self.monomials < n
            require(fits, "a layout without room", layout)
        require(1 <= self.rows_per_chunk <= MAX_ROWS, "an absurd chunk", self.rows_per_chunk)

    @property
    def engine(self) -> str:
        return ENGINE.name

    @functools.cached_property
    def digest(self) -> str:
        """Names the plan in messages, binds keys to it, and fixes the uniform half of every public key."""
        return codec.digest(self, domain="securead.protocols.ckks-row.plan.v1")

    @functools.cached_property
    def monomials(self) -> int:
        """How many numbers a record is lifted to."""
        return monomials.count(self.width, self.degree)

    @property
    def margins(self) -> Margins:
        return Margins(self.ring_dimension, self.special_prime, self.role, self.norm_bits, self.score_bits)

    @functools.cached_property
    def error(self) -> Fraction:
        """The worst error of a score as it is decrypted, in units of one at the scale of the ciphertext."""
        return self.margins.error(self.flood_bits, self.data_primes, self.answer_primes, self.plain_bits)

    @functools.cached_property
    def error_bound(self) -> float:
        """In score units, the rounding of a score to a double included. For every key and all randomness."""
        exact = self.error / (1 << self.scale_bits) + rounding(self.score_bits)
        exact /= 1 << self.score_fraction_bits
        near = float(exact)
        return near if Fraction(near) >= exact else math.nextafter(near, math.inf)

    @property
    def security_bits(self) -> int:
        return primes.SECURITY_BITS

    @property
    def chain(self) -> tuple[int, ...]:
        """All primes of the largest modulus, the special one last."""
        return (*self.data_primes, self.special_prime)

    @property
    def modulus_bits(self) -> int:
        """Bits of the largest modulus of any key or ciphertext, the special prime included."""
        return math.prod(self.chain).bit_length()

    @property
    def kept_primes(self) -> tuple[int, ...]:
        """The primes of an answer."""
        return self.data_primes[: self.answer_primes]

    @property
    def answer_modulus(self) -> int:
        return math.prod(self.kept_primes)

    @property
    def answer_bits(self) -> float:
        """What one number of an answer can tell at most, whatever was asked: log2 of q over the flood's width."""
        return math.log2(math.prod(self.data_primes)) - self.flood_bits - 1

    def groups(self, rows: int) -> tuple[Group, ...]:
        """How a chunk of so many rows is cut."""
        return layouts.groups(self.layouts, rows)

    @property
    def ciphertext_bytes(self) -> int:
        """One ciphertext of a request: a packed polynomial and a seed in role `same`, two in role `split`."""
        polynomial = residue_bytes(self.ring_dimension, self.data_primes)
        return polynomial + SEED_BYTES if self.role == "same" else 2 * polynomial

    def ciphertexts(self, rows: int) -> int:
        """How many of them a request of so many rows has."""
        return sum(group.layout.pieces for group in self.groups(rows))

    def request_bytes(self, rows: int) -> int:
        """The exact length of a request."""
        return PREAMBLE_BYTES + self.ciphertext_bytes * self.ciphertexts(rows)

    def group_bytes(self, rows: int) -> int:
        """The exact length of a group's part of an answer: a polynomial, and a number a row."""
        kept = sum(packed_bytes(rows, prime.bit_length()) for prime in self.kept_primes)
        return residue_bytes(self.ring_dimension, self.kept_primes) + kept

    def answer_bytes(self, rows: int) -> int:
        """The exact length of an answer."""
        return PREAMBLE_BYTES + sum(self.group_bytes(group.rows) for group in self.groups(rows))

    @functools.cached_property
    def max_request_bytes(self) -> int:
        return max(self.request_bytes(rows) for rows in range(1, self.rows_per_chunk + 1))

    @functools.cached_property
    def max_answer_bytes(self) -> int:
        return max(self.answer_bytes(rows) for rows in range(1, self.rows_per_chunk + 1))

    @property
    def evaluation_key_bytes(self) -> int:
        return PREFIX_BYTES + residue_bytes(self.ring_dimension, self.chain)

    def describe(self) -> tuple[tuple[str, str], ...]:
        """Name and value pairs for people, in the order they are best read."""
        limit, rows = primes.modulus_bits_limit(self.ring_dimension), self.rows_per_chunk
        widths = " + ".join(str(p.bit_length()) for p in self.data_primes)
        shared = ", ".join(f"{layout.slots} in {layout.pieces}" for layout in self.layouts)
        return (
            ("engine", "CKKS in SEAL, a record's monomials as coefficients"),
            ("role", self.role),
            ("security", f"{self.security_bits} bits: modulus {self.modulus_bits} of at most {limit} bits"),
            ("ring dimension", str(self.ring_dimension)),
            ("records a request", str(rows)),
            ("monomials", f"{self.monomials:,}, up to degree {self.degree}"),
            ("records by ciphertexts", shared),
            ("primes, bits", f"{widths}, special {self.special_prime.bit_length()}"),
            ("error bound", f"{self.error_bound:.3g}, for every key and all randomness"),
            ("flooding", f"{FLOOD_BITS} bits above all that is not the exact score"),
            ("reveals", f"the scores; to a query made otherwise, at most {self.answer_bits:.1f} bits a record"),
            ("upload, bytes a record", f"{self.request_bytes(rows) / rows:.0f} of {rows}"),
            ("upload, bytes for one record", str(self.request_bytes(1))),
            ("download, bytes for one record", str(self.answer_bytes(1))),
            ("public key at the service, bytes", str(self.evaluation_key_bytes)),
        )


def make_plan(program: PublicProgram, role: Role) -> RowPlan:
    """Derive parameters, or raise `FixProgramError` with the smallest change that would fit."""
    public = carried(program, role)
    found = search(public, role)
    if found is None:
        raise FixProgramError(
            "the program does not fit one row under CKKS at 128 bits of security within its tolerance",
            where=ENGINE.name,
            value=f"degree {public.degree}, tolerance {public.tolerance:g}",
            remedy=_smallest_change(public, role),
        )

    def plan(rows: int) -> RowPlan:
        return _as_plan(public, role, found, rows)

    rows = MAX_ROWS
    while rows > 1 and plan(rows).request_bytes(rows) > MAX_CHUNK_BYTES:
        rows //= 2
    return plan(rows)


def plan_from_plain(plain: object) -> RowPlan:
    """Read back `codec.to_plain(plan)`; anything but a sound plan is a `FixInputError`."""
    return codec.from_plain(RowPlan, plain, where="CKKS row plan")


def lifted_degree(public: PublicPolynomial, role: Role) -> int:
    """The degree up to which records are lifted: public terms are squares, and the service's in role `split`."""
    return max(public.degree, 2) if role == "split" and public.public_terms else public.degree


def carried(public: PublicProgram, role: Role) -> PublicPolynomial:
    """The program, if this engine carries it; `FixProgramError` for another kind or degree, a ReLU, or a wide one."""
    if not isinstance(public, PublicPolynomial):
        raise FixProgramError(
            f"the engine {ENGINE.name} carries polynomial programs, this one looks up tables",
            where=ENGINE.name,
            value=public.type_tag,
            remedy="Serve it by the engine bfv.",
        )
    for at, step in enumerate(public.steps):
        if isinstance(step, Relu | Truncate):
            raise FixProgramError(
                f"the engine {ENGINE.name} evaluates sums and products only",
                where=f"{ENGINE.name}, step {at}",
                value=step.type_tag,
                remedy="Train with the square activation, or serve the program by secret sharing.",
            )
    if public.degree > MAX_DEGREE:
        raise FixProgramError(
            f"the engine {ENGINE.name} lifts records to monomials of degree up to {MAX_DEGREE}",
            where=ENGINE.name,
            value=public.degree,
            remedy="Use one hidden square layer before a squared error (degree 4), or an engine for deeper networks.",
        )
    degree, width = lifted_degree(public, role), public.encoder.width
    if monomials.count(width, degree) > MAX_MONOMIALS:
        most = next(w for w in range(width, 0, -1) if monomials.count(w, degree) <= MAX_MONOMIALS)
        raise FixProgramError(
            f"a record of {width} columns has too many monomials of degree up to {degree}",
            where=ENGINE.name,
            value=f"{monomials.count(width, degree):,} of at most {MAX_MONOMIALS:,}",
            remedy=f"Use the engine ckks, or at most {most} columns.",
        )
    return public


def _as_plan(public: PublicPolynomial, role: Role, found: Found, rows: int) -> RowPlan:
    n, width, degree = found.margins.ring_dimension, public.encoder.width, lifted_degree(public, role)
    return RowPlan(
        role=role,
        program_digest=public.digest,
        width=width,
        degree=degree,
        input_bound=public.encoder.bound,
        norm_bits=found.margins.norm_bits,
        score_bits=found.margins.score_bits,
        score_fraction_bits=public.score_fraction_bits,
        ring_dimension=n,
        data_primes=found.data_primes,
        special_prime=found.margins.special_prime,
        scale_bits=found.scale_bits,
        answer_primes=found.answer_primes,
        plain_bits=found.plain_bits,
        flood_bits=found.margins.flood_bits,
        layouts=layouts.choose(n, monomials.count(width, degree), rows),
        rows_per_chunk=rows,
    )


def _smallest_change(public: PublicPolynomial, role: Role) -> str:
    """The least loosening of the tolerance with which a plan exists."""

    def fits(bits: int) -> bool:
        return search(public, role, tolerance=Fraction(public.tolerance) * (1 << bits)) is not None

    if not fits(_MOST_LOOSER):
        return "Use the engine ckks, or compile with fewer weight bits and a smaller encoder limit."
    low, high = 1, _MOST_LOOSER
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle + 1, high)
    looser = public.tolerance * 2.0**low
    return f"Use the engine ckks, or compile with a tolerance of {looser:.3g} (2**{low} times looser)."
