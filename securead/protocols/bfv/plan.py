"""Parameters of a table program under BFV, derived from the program's public half alone.

Guarantees: with `make_plan(public, role)`

* every key and ciphertext is within 128 bits of security by the standard of 2018 and by the guideline of 2024;
* every honest answer decrypts to the exact score, for every key and all randomness (`margins`);
* flooding is at least 2**40 times the noise that it hides;
* the plan is the same on every machine, and both sides cut a chunk into the same groups (`layouts`).

This module imports no cryptography.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

from securead import codec
from securead.errors import FixInputError, FixProgramError
from securead.program.program import PublicProgram
from securead.program.table import PublicTable
from securead.protocols.bfv import layouts
from securead.protocols.bfv.layouts import Group, Layout
from securead.protocols.bfv.margins import Margins, plain_bits
from securead.protocols.bfv.work import work as work
from securead.protocols.engine import EngineSpec, Role
from securead.protocols.seal import primes
from securead.protocols.seal.keyfiles import PREFIX_BYTES
from securead.protocols.seal.noise import FLOOD_BITS
from securead.protocols.seal.packing import packed_bytes

ENGINE = EngineSpec(
    name="bfv",
    package="securead.protocols.bfv",
    roles=("same", "split"),
    operations=("lookup",),
    extra="bfv",
    sanitised=True,
    summary="table programs under BFV in SEAL: exact scores from one-hot positions, answers masked and flooded",
)

RING_DIMENSIONS = (4096, 8192)
MAX_ROWS, MAX_CHUNK_BYTES = 1024, 32 << 20
SEED_BYTES = 64
PREAMBLE_BYTES = 4 + 32  # of requests and answers: rows u32, key id


@dataclass(frozen=True)
class BfvPlan:
    """See `securead.protocols.engine.Plan`. A value that breaks a security table or a margin cannot be made."""

    role: Role
    program_digest: str
    sizes: tuple[int, ...]
    largest: int
    score_bits: int
    unit: float
    ring_dimension: int
    data_primes: tuple[int, ...]
    special_prime: int
    plain_bits: int
    flood_bits: int
    layouts: tuple[Layout, ...]
    rows_per_chunk: int

    def __post_init__(self) -> None:
        def require(condition: bool, what: str, value: object) -> None:
            if not condition:
                raise FixInputError(what, where="BFV plan", value=value, remedy="The plan is damaged or foreign.")

        n, chain = self.ring_dimension, self.chain
        require(n in RING_DIMENSIONS, "unknown ring dimension", n)
        require(3 <= len(chain) <= 8 and len(set(chain)) == len(chain), "a modulus is a few primes", chain)
        require(all(primes.is_usable(p, n) for p in chain), "a modulus SEAL cannot use", chain)
        limit = primes.modulus_bits_limit(n)
        require(self.modulus_bits <= limit, "the modulus is too large for 128 bits of security", self.modulus_bits)
        require(len(self.sizes) >= 1 and min(self.sizes) >= 1, "a program has tables", len(self.sizes))
        require(1 <= self.largest < 1 << 24 and 1 <= self.score_bits <= 40, "an absurd range", self.largest)
        require(0 < self.unit < math.inf, "the unit is positive", self.unit)
        require(self.plain_bits == plain_bits(self.score_bits, self.largest), "plaintexts", self.plain_bits)
        require(0 < self.flood_bits < 256, "an absurd flood", self.flood_bits)
        require(self.margins.hold(self.data_primes, self.flood_bits), "answers could fail or leak", self.flood_bits)
        require(1 <= len(self.layouts) <= 3, "a plan has one to three layouts", len(self.layouts))
        for layout in self.layouts:
            possible = 1 <= layout.slots <= layouts.MAX_SLOTS
            require(possible and layout.pieces * (n // layout.slots) >= self.entries, "a layout without room", layout)
        require(1 <= self.rows_per_chunk <= MAX_ROWS, "an absurd chunk", self.rows_per_chunk)

    @property
    def engine(self) -> str:
        return ENGINE.name

    @functools.cached_property
    def digest(self) -> str:
        """Names the plan in messages, binds keys to it, and fixes the uniform half of every public key."""
        return codec.digest(self, domain="securead.protocols.bfv.plan.v1")

    @property
    def error_bound(self) -> float:
        """Scores are exact."""
        return 0.0

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
    def entries(self) -> int:
        """Entries of all tables."""
        return sum(self.sizes)

    @property
    def margins(self) -> Margins:
        return Margins(self.ring_dimension, self.special_prime, self.plain_bits, self.role, self.entries, self.largest)

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
        polynomial = sum(packed_bytes(self.ring_dimension, p.bit_length()) for p in self.data_primes)
        return polynomial + SEED_BYTES if self.role == "same" else 2 * polynomial

    def request_bytes(self, rows: int) -> int:
        """The exact length of a request."""
        return PREAMBLE_BYTES + self.ciphertext_bytes * sum(group.layout.pieces for group in self.groups(rows))

    def answer_bytes(self, rows: int) -> int:
        """The exact length of an answer."""
        width = self.data_primes[0].bit_length()
        polynomial = packed_bytes(self.ring_dimension, width)
        return PREAMBLE_BYTES + sum(polynomial + packed_bytes(group.rows, width) for group in self.groups(rows))

    @functools.cached_property
    def max_request_bytes(self) -> int:
        return max(self.request_bytes(rows) for rows in range(1, self.rows_per_chunk + 1))

    @functools.cached_property
    def max_answer_bytes(self) -> int:
        return max(self.answer_bytes(rows) for rows in range(1, self.rows_per_chunk + 1))

    @property
    def public_key_bytes(self) -> int:
        """The exact length of a public key's content: its half that is not uniform, packed."""
        return sum(packed_bytes(self.ring_dimension, p.bit_length()) for p in self.chain)

    @property
    def evaluation_key_bytes(self) -> int:
        return PREFIX_BYTES + self.public_key_bytes

    def describe(self) -> tuple[tuple[str, str], ...]:
        """Name and value pairs for people, in the order they are best read."""
        limit, rows = primes.modulus_bits_limit(self.ring_dimension), self.rows_per_chunk
        widths = " + ".join(str(p.bit_length()) for p in self.data_primes)
        shared = ", ".join(f"{layout.slots} in {layout.pieces}" for layout in self.layouts)
        return (
            ("engine", "BFV in SEAL, one-hot positions as coefficients"),
            ("role", self.role),
            ("security", f"{self.security_bits} bits: modulus {self.modulus_bits} of at most {limit} bits"),
            ("ring dimension", str(self.ring_dimension)),
            ("records a request", str(rows)),
            ("records by ciphertexts", shared),
            ("primes, bits", f"{widths}, special {self.special_prime.bit_length()}"),
            ("scores", f"exact, below 2**{self.score_bits}; decryption cannot fail"),
            ("flooding", f"{FLOOD_BITS} bits above the noise that it hides"),
            ("reveals", f"the scores; to a query made otherwise, at most {self.answer_bits:.1f} bits a record"),
            ("upload, bytes a record at most", f"{self.request_bytes(rows) / rows:.0f} of {rows}"),
            ("upload, bytes for one record", str(self.request_bytes(1))),
            ("download, bytes for one record", str(self.answer_bytes(1))),
            ("public key at the service, bytes", str(self.evaluation_key_bytes)),
        )


def make_plan(program: PublicProgram, role: Role) -> BfvPlan:
    """Derive parameters, or raise `FixProgramError` with the smallest change that would fit."""
    public = carried(program)
    bits = plain_bits(public.score_bits, public.largest)
    for n in RING_DIMENSIONS:
        margins = Margins(n, primes.special_prime(n), bits, role, sum(public.sizes), public.largest)
        chosen = data_primes(margins)
        if chosen is not None:
            return _as_plan(public, margins, chosen)
    raise FixProgramError(
        "the tables do not fit BFV at 128 bits of security",
        where="bfv",
        value=f"{sum(public.sizes):,} entries up to {public.largest:,}",
        remedy=_smallest_change(public, role),
    )


def plan_from_plain(plain: object) -> BfvPlan:
    """Read back `codec.to_plain(plan)`; anything but a sound plan is a `FixInputError`."""
    return codec.from_plain(BfvPlan, plain, where="BFV plan")


def carried(public: PublicProgram) -> PublicTable:
    """The public half of a table program; any other is `FixProgramError`."""
    if not isinstance(public, PublicTable):
        raise FixProgramError(
            "the engine bfv looks tables up and computes nothing else",
            where="bfv",
            value=sorted(public.operations),
            remedy="Name an engine that carries these operations, or compile a detector to tables.",
        )
    return public


def data_primes(margins: Margins) -> tuple[int, ...] | None:
    """The narrowest primes with which the margins hold and both security tables do, or None.

    The first prime is the one that remains in an answer; the others are as few and as even as possible.
    """
    n, limit = margins.ring_dimension, primes.modulus_bits_limit(margins.ring_dimension)
    first = margins.smallest_last_prime.bit_length()
    for last_bits in (first, first + 1):
        for rest in range(primes.MIN_PRIME_BITS, limit - last_bits):
            parts = -(-rest // primes.MAX_PRIME_BITS)
            widths = [rest // parts + (at < rest % parts) for at in range(parts)]
            chosen = primes.choose(n, (last_bits, *widths))
            if chosen is None or not margins.hold(chosen, margins.flood_bits):
                continue
            if (math.prod(chosen) * margins.special_prime).bit_length() <= limit:
                return chosen
            break
    return None


def _as_plan(public: PublicTable, margins: Margins, chosen: tuple[int, ...]) -> BfvPlan:
    def plan(rows: int) -> BfvPlan:
        return BfvPlan(
            role=margins.role,
            program_digest=public.digest,
            sizes=public.sizes,
            largest=public.largest,
            score_bits=public.score_bits,
            unit=public.unit,
            ring_dimension=margins.ring_dimension,
            data_primes=chosen,
            special_prime=margins.special_prime,
            plain_bits=margins.plain_bits,
            flood_bits=margins.flood_bits,
            layouts=layouts.choose(margins.ring_dimension, margins.entries, rows),
            rows_per_chunk=rows,
        )

    rows = MAX_ROWS
    while rows > 1 and plan(rows).request_bytes(rows) > MAX_CHUNK_BYTES:
        rows //= 2
    return plan(rows)


def _smallest_change(public: PublicTable, role: Role) -> str:
    """The most bits of an entry with which a plan exists."""
    for bits in range(public.largest.bit_length() - 1, 0, -1):
        dropped = public.largest.bit_length() - bits
        largest, plain = (1 << bits) - 1, plain_bits(max(1, public.score_bits - dropped), (1 << bits) - 1)
        for n in RING_DIMENSIONS:
            if data_primes(Margins(n, primes.special_prime(n), plain, role, sum(public.sizes), largest)):
                return f"Compile with weight_bits={bits}, or with fewer or smaller tables."
    return "Compile with fewer or smaller tables."
